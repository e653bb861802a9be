"""A cluster of test servers: `Distributed` tables reach the shards over TCP, and what shards the rows is ClickHouse.

`ON CLUSTER` and `Replicated` engines need a Keeper, which no process here is; `EveryServer` does what `ON CLUSTER`
does, a server after the other, without replicas. What the test server cannot do is answer its part of an aggregation
over several shards (chdb gives no intermediate states), so through a coordinator of two shards rows only go in.
"""

import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ingest.store.interface import Columns, Rows
from ingest.store.native import CLUSTER_SETTINGS, WRITER_SETTINGS, NativeStore
from ingest.store.server import Server
from support.clickhouse.process import ClickHouseProcess

_SHARD = (
    "<shard><internal_replication>true</internal_replication>"
    "<replica><host>127.0.0.1</host><port>{port}</port></replica></shard>"
)


@dataclass
class EveryServer:
    """The `Store` of a cluster: statements on every server, inserts and queries on the coordinator."""

    coordinator: NativeStore
    shards: list[NativeStore]
    on_cluster: str

    def execute(self, sql: str) -> None:
        """Run a statement on every server, without its `ON CLUSTER` and without replication."""
        assert self.on_cluster in sql, f"not a statement for the whole cluster: {sql}"
        plain = sql.replace(f" {self.on_cluster}", "").replace("ENGINE = Replicated", "ENGINE = ")
        for server in (*self.shards, self.coordinator):
            server.execute(plain)

    def insert(self, table: str, columns: Columns) -> None:
        """Insert through the coordinator."""
        self.coordinator.insert(table, columns)

    def query(self, sql: str, parameters: Mapping[str, object] | None = None) -> Rows:
        """Ask the coordinator."""
        return self.coordinator.query(sql, parameters)

    def close(self) -> None:
        """Close every connection."""
        for server in (*self.shards, self.coordinator):
            server.close()


@contextmanager
def cluster(folder: Path, shards: int) -> Iterator[EveryServer]:
    """Start a coordinator and its shards, as the cluster `main` with the lane's database `cordon`."""
    with ExitStack() as stack:
        config = folder / "cluster.xml"
        ports = _free_ports(shards)
        named = "".join(_SHARD.format(port=port) for port in ports)
        config.write_text(f"<clickhouse><remote_servers><main>{named}</main></remote_servers></clickhouse>")
        options = ("--config", str(config))
        servers = [
            stack.enter_context(ClickHouseProcess(folder / f"shard{port}", "--port", str(port), *options))
            for port in ports
        ]
        # A server of the cluster without a shard of its own, as a load balancer's target may be.
        first = stack.enter_context(ClickHouseProcess(folder / "coordinator", *options))
        settings = WRITER_SETTINGS + CLUSTER_SETTINGS
        coordinator = NativeStore(Server("127.0.0.1", first.port), "cordon", settings=settings)
        stores = [NativeStore(Server("127.0.0.1", server.port), "cordon") for server in servers]
        every = EveryServer(coordinator, stores, "ON CLUSTER `main`")
        stack.callback(every.close)
        yield every


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in sockets]
