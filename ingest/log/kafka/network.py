"""kafka-python's event loop, as a `Wire` drives it, without what costs most of it for nothing.

Before every wait kafka-python 3.0 asks its selector whether a socket is registered already, and the standard library
answers "no" with an error that has the socket printed, addresses and all: four system calls. That was a tenth of what
an idle worker did. The invariant: it answers the same, only in fewer words.
"""

import selectors
from typing import Any

from kafka.net.selector import NetworkSelector


class TerseSelector(selectors.DefaultSelector):
    """A selector whose `get_key` says "not registered" without describing the file."""

    def __init__(self) -> None:
        """Begin without files."""
        super().__init__()
        self._numbers: set[int] = set()

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """Register a file; see `selectors`."""
        key = super().register(fileobj, events, data)
        self._numbers.add(key.fd)
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        """Unregister a file; see `selectors`."""
        key = super().unregister(fileobj)
        self._numbers.discard(key.fd)
        return key

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        """Return a registered file's key.

        Raises:
            KeyError: it is not registered.
        """
        number = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        # A closed file has no number any more, and is found by what it is.
        if number >= 0 and number not in self._numbers:
            raise KeyError(number)
        return super().get_key(fileobj)


def network(client: str) -> NetworkSelector:
    """Return a new event loop; `client` is its name in the log."""
    # No warning about slow steps: a large answer takes its time to decode, in the thread that asked for it.
    return NetworkSelector(client_id=client, slow_task_threshold_secs=0, selector=TerseSelector)
