"""ClickHouse over the network: clickhouse-driver, the native protocol, one connection.

The distributed way's `Store`, for the sink's thread and the command line. The invariants: one insert is one block of
the protocol, so that materialised views see it whole; and a connection on which anything at all went wrong is closed,
so that no answer can be taken for the answer to another question.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, TypeVar

from clickhouse_driver import Client
from clickhouse_driver.errors import Error, ServerException, TypeMismatchError, UnknownTypeError

from ingest.store.interface import Columns, Rows, StoreError, quoted
from ingest.store.server import Server
from ingest.store.texts import converted

# What the driver has to say of a lost connection reaches the caller as an error; its own traceback would say it twice.
logging.getLogger("clickhouse_driver").setLevel(logging.ERROR)

_T = TypeVar("_T")
_BLOCK_ROWS: Final = 10_000_000


class Setting(NamedTuple):
    """A setting of every statement: the first of `names` that the server knows gets the value."""

    names: tuple[str, ...]
    value: int | str
    required: bool = True


# `async_insert` off, and `deduplicate_insert` beside the older `insert_deduplicate` that it supersedes: both are on in
# recent servers. ClickHouse's deduplication would drop a block that is written again though its views were never run.
WRITER_SETTINGS: Final = (
    Setting(("session_timezone",), "UTC"),
    Setting(("async_insert",), 0),
    Setting(("deduplicate_insert",), "disable", required=False),
    Setting(("insert_deduplicate",), 0),
    Setting(("max_insert_block_size",), _BLOCK_ROWS),
    Setting(("min_insert_block_size_rows",), _BLOCK_ROWS),
    Setting(("materialized_views_ignore_errors",), 0),
    Setting(("materialize_ttl_after_modify",), 0),
)
# A person's questions: refused by the server if they would write, and bounded as the embedded endpoint bounds them.
READER_SETTINGS: Final = (
    Setting(("session_timezone",), "UTC"),
    Setting(("final",), 1),
    Setting(("distributed_product_mode",), "global"),
    Setting(("max_execution_time",), 15),
    Setting(("max_result_rows",), 100_000),
    Setting(("max_result_bytes",), 32 << 20),
    Setting(("readonly",), 1),
)
# An insert is acknowledged when the shards have it, not when this server means to send it; a rollout looked up in a
# subquery is looked up on all shards; and of a shard's replicas the same one is written and read, whichever server is
# asked, because a replica that lags would show the sink a plan that is not its latest.
CLUSTER_SETTINGS: Final = (
    Setting(("load_balancing",), "in_order"),
    Setting(("prefer_localhost_replica",), 0),
    Setting(("distributed_foreground_insert", "insert_distributed_sync"), 1),
    Setting(("distributed_product_mode",), "global"),
    Setting(("distributed_ddl_output_mode",), "throw"),
)


class NativeStore:
    """The store of one lane on a ClickHouse server or cluster; thread-safe, one statement at a time.

    Attributes:
        database: the lane's database.
    """

    def __init__(
        self,
        server: Server,
        database: str,
        cluster: str = "",
        settings: tuple[Setting, ...] = WRITER_SETTINGS,
        create: bool = True,
    ) -> None:
        """Take where it is; nothing is connected before the first statement.

        Args:
            server: where ClickHouse is.
            database: the lane's database.
            cluster: make the database on every server of this cluster; empty for one server.
            settings: of every statement.
            create: make the database where it is missing, at each connection.
        """
        self.database = database
        self._server = server
        self._on_cluster = f"ON CLUSTER `{cluster}`" if cluster else ""
        self._settings = settings + (CLUSTER_SETTINGS if cluster else ())
        self._create = create
        self._lock = threading.Lock()
        self._client: Any = None
        self._closed = False

    def execute(self, sql: str) -> None:
        """Run one statement; see `Store.execute`."""
        self._asked(lambda client: client.execute(sql))

    def insert(self, table: str, columns: Columns) -> None:
        """Insert one block; see `Store.insert`."""
        data = [list(values) for values in columns.values()]
        if not data or not data[0]:
            return
        sql = f"INSERT INTO {quoted(table)} ({', '.join(quoted(name) for name in columns)}) VALUES"
        # The driver cuts an insert into blocks of this many rows.
        block = {"insert_block_size": len(data[0])}
        self._asked(lambda client: client.execute(sql, data, columnar=True, settings=block))

    def query(self, sql: str, parameters: Mapping[str, object] | None = None) -> Rows:
        """Return the answer; see `Store.query`."""
        given = dict(parameters or {})
        rows, columns = self._asked(lambda client: client.execute(sql, given, with_column_types=True))
        return Rows([name for name, _ in columns], converted(rows, [kind for _, kind in columns]))

    def close(self) -> None:
        """Close the connection; see `Store.close`."""
        with self._lock:
            self._closed = True
            self._drop()

    def _asked(self, ask: Callable[[Any], _T]) -> _T:
        """Ask over a connection that is alive, and close it if anything goes wrong."""
        with self._lock:
            if self._closed:
                raise StoreError("the store is closed: open it again")
            try:
                return ask(self._ready())
            except StoreError:
                self._drop()
                raise
            # Whatever the driver raises: an answer it cannot read fails in its decoders with errors of many kinds.
            except Exception as error:
                self._drop()
                raise self._store_error(error) from error
            except BaseException:
                self._drop()
                raise

    def _ready(self) -> Any:
        if self._client is not None and self._client.connection.connected and self._client.connection.ping():
            return self._client
        self._drop()
        self._client = self._new_client()
        connection = self._client.connection
        connection.connect()
        # Times of columns without a zone are read in UTC, whatever the server's own zone is.
        connection.server_info.timezone = "UTC"
        self._client.settings.update(self._known_settings())
        if self._create:
            self._client.execute(f"CREATE DATABASE IF NOT EXISTS {quoted(self.database)} {self._on_cluster}")
        self._client.execute(f"USE {quoted(self.database)}")
        return self._client

    def _new_client(self) -> Any:
        server = self._server
        first, *others = [host.strip() for host in server.host.split(",") if host.strip()]
        client = Client(
            first,
            port=server.port,
            alt_hosts=",".join(f"{host}:{server.port}" for host in others) or None,
            user=server.user,
            password=server.password,
            client_name="cordon",
            compression=False if server.compression == "none" else server.compression,
            connect_timeout=server.connect_seconds,
            send_receive_timeout=server.timeout_seconds,
            sync_request_timeout=server.connect_seconds,
            secure=server.tls,
            ca_certs=server.ca_file or None,
            tcp_keepalive=True,
            # A connection that the driver opens by itself would not have the lane's database.
            disable_reconnect=True,
            settings={"server_side_params": True},
        )
        if not server.ca_file:
            # Where certifi is installed, the driver prefers its list to the system's.
            client.connection.ssl_options.pop("ca_certs", None)
        return client

    def _known_settings(self) -> dict[str, int | str]:
        names = ", ".join(f"'{name}'" for setting in self._settings for name in setting.names)
        # Before the settings are checked, only this question goes out.
        # The names are this file's own.
        rows = self._client.execute(f"SELECT name FROM system.settings WHERE name IN ({names})")  # noqa: S608
        known = {name for (name,) in rows}
        chosen: dict[str, int | str] = {}
        for setting in self._settings:
            name = next((name for name in setting.names if name in known), None)
            if name is not None:
                chosen[name] = setting.value
            elif setting.required:
                raise StoreError(
                    f"{self._address()} is too old: it does not know {setting.names[0]}; use 24.3 or newer"
                )
        if self._on_cluster:
            # The server gives up on a cluster's statement before this side stops listening.
            chosen["distributed_ddl_task_timeout"] = max(1, int(self._server.timeout_seconds * 0.8))
        return chosen

    def _address(self) -> str:
        return f"ClickHouse at {self._server.host}:{self._server.port}"

    def _store_error(self, error: Exception) -> StoreError:
        if isinstance(error, ServerException):
            said = str(error.message).split(". Stack trace:")[0]
            return StoreError(f"Code: {error.code}. {said}", error.code or 0)
        misfit = isinstance(error, TypeMismatchError | UnknownTypeError)
        if isinstance(error, Error | OSError | EOFError) and not misfit:
            code = getattr(error, "code", 0) or 0
            return StoreError(f"{self._address()} is away or broke off: {type(error).__name__}: {error}", code)
        return StoreError(f"a value does not fit its column, or an answer cannot be read: {error!r}")

    def _drop(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.disconnect()
