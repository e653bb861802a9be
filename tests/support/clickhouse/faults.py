"""Faults of the test server, ordered through its control port: what happens to the n-th insert from now on.

One order a line: `WHEN COUNT [TABLE] [ARGUMENT]`. WHEN is one of

* `within`: drop the connection when the first byte of the block has come;
* `before`: drop it when the block is here and the engine has not seen it;
* `after`: drop it when the engine has written the block and the client does not know;
* `fail`: answer with ClickHouse's exception 241 (memory limit), the engine has not seen the block;
* `stall`: write it, then keep silent for ARGUMENT seconds.
"""

import threading
from dataclasses import dataclass

MOMENTS = ("within", "before", "after", "fail", "stall")


@dataclass
class Order:
    """What to do, at which insert from now, into which table (any where empty)."""

    moment: str
    count: int
    table: str = ""
    seconds: float = 0.0


class Faults:
    """The orders that are still to be carried out, and how many inserts there were; shared by all connections."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._orders: list[Order] = []
        self.inserts = 0
        self.connections = 0

    def order(self, line: str) -> None:
        """Take an order.

        Raises:
            ValueError: it is none.
        """
        moment, count, table, seconds = [*line.split(), "", "", "", ""][:4]
        if moment not in MOMENTS:
            raise ValueError(f"{moment!r} is none of {', '.join(MOMENTS)}")
        with self._lock:
            self._orders.append(Order(moment, int(count or 1), table, float(seconds or 0)))

    def clear(self) -> None:
        """Forget all orders."""
        with self._lock:
            self._orders.clear()

    def connected(self) -> None:
        """Count a connection."""
        with self._lock:
            self.connections += 1

    def next_insert(self, table: str) -> Order | None:
        """Count an insert into `table` and return what is to happen to it."""
        name = table.rpartition(".")[2].strip("`")
        with self._lock:
            self.inserts += 1
            for order in self._orders:
                order.count -= order.table in ("", name)
            due = next((order for order in self._orders if order.count <= 0), None)
            if due is not None:
                self._orders.remove(due)
            return due
