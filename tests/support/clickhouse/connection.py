"""One client's connection to the test server: handshake, then queries one after the other until it leaves.

The order of the packets is that of ClickHouse's `TCPHandler`: header, then blocks, then what was read, then the end.
"""

import hmac
import select
import socket
import time
from contextlib import closing
from dataclasses import dataclass

from support.clickhouse import packets
from support.clickhouse.engine import Engine, EngineError, Execution, Insertion, Target, answers, target_of
from support.clickhouse.faults import Faults, Order
from support.clickhouse.frames import METHODS, frames, unframed
from support.clickhouse.native import EMPTY_BLOCK, Block, Column, from_wire, header, to_wire
from support.clickhouse.wire import (
    CANCEL,
    DATA,
    HELLO,
    PING,
    QUERY,
    REVISION,
    REVISION_MIN,
    S_DATA,
    S_END_OF_STREAM,
    S_PONG,
    S_TABLE_COLUMNS,
    S_TABLES_STATUS_RESPONSE,
    SCALAR,
    TABLES_STATUS_REQUEST,
    WITH_ADDENDUM,
    WITH_INCREMENTAL_PROFILE_EVENTS,
    WITH_PROFILE_EVENTS_IN_INSERT,
    Feed,
    ProtocolError,
    text,
    varint,
)

STAGE_COMPLETE = 2
AUTHENTICATION_FAILED, NOT_IMPLEMENTED, MEMORY_LIMIT, UNEXPECTED_PACKET = 516, 48, 241, 101
QUERY_WAS_CANCELLED = 394
_RECEIVE_BYTES = 1 << 20
# ClickHouse's `interactive_delay`.
PROGRESS_NS = 100_000_000


class DroppedError(Exception):
    """A fault was ordered: the connection ends here."""


class CancelledError(Exception):
    """The client asked for the query to stop."""


@dataclass(frozen=True)
class Account:
    """Who may connect."""

    user: str = "default"
    password: str = ""


class Connection:
    """Serves one client."""

    def __init__(self, client: socket.socket, engine: Engine, faults: Faults, account: Account) -> None:
        self._client = client
        self._engine = engine
        self._faults = faults
        self._account = account
        self._feed = Feed(self._receive)
        self._revision = 0
        self._database = ""
        self._said: list[str] = []

    def _receive(self) -> bytes:
        data = self._client.recv(_RECEIVE_BYTES)
        if not data:
            raise EOFError
        return data

    def serve(self) -> None:
        """Talk until the client leaves, breaks the protocol, or a fault ends the connection."""
        try:
            if self._greet():
                while True:
                    self._packet()
                    self._feed.forget()
        except (EOFError, OSError, DroppedError):
            return
        except ProtocolError as error:
            self._client.sendall(packets.exception(UNEXPECTED_PACKET, f"DB::NetException: {error}"))

    def _greet(self) -> bool:
        if (kind := self._feed.varint()) != HELLO:
            raise ProtocolError(f"Unexpected packet from client (expected Hello, got {kind})")
        hello = packets.read_hello(self._feed)
        self._revision = min(hello.revision, REVISION)
        if hello.revision < REVISION_MIN:
            raise ProtocolError(f"revision {hello.revision} is older than {REVISION_MIN}, the oldest served here")
        known = hmac.compare_digest(hello.password.encode(), self._account.password.encode())
        if hello.user != self._account.user or not known:
            said = "password is incorrect, or there is no user with such name."
            message = f"DB::Exception: {hello.user}: Authentication failed: {said}"
            self._client.sendall(packets.exception(AUTHENTICATION_FAILED, message))
            return False
        self._database = hello.database
        try:
            with self._engine.execution(self._database, (), ()):
                pass
        except EngineError as error:
            self._client.sendall(packets.exception(error.code, error.message))
            return False
        self._client.sendall(packets.server_hello(self._revision, REVISION, self._engine.version))
        if self._revision >= WITH_ADDENDUM:
            self._feed.text()
        return True

    def _packet(self) -> None:
        kind = self._feed.varint()
        if kind == PING:
            self._client.sendall(varint(S_PONG))
        elif kind == QUERY:
            self._query(packets.read_query(self._feed, self._revision))
        elif kind == TABLES_STATUS_REQUEST:
            self._tables_status()
        elif kind != CANCEL:
            raise ProtocolError(f"Unexpected packet {kind} received from client")

    def _tables_status(self) -> None:
        """Say which of the named tables exist; ClickHouse asks before it sends a part of a distributed query."""
        asked = [(self._feed.text(), self._feed.text()) for _ in range(self._feed.varint())]
        with self._engine.execution("", (), ()) as execution:
            found = {tuple(row) for row in execution.rows("SELECT database, name FROM system.tables")}
        known = [one for one in asked if one in found]
        # No table here is replicated, so neither a delay nor a read-only state follows.
        entries = b"".join(text(database) + text(table) + b"\0" for database, table in known)
        self._client.sendall(varint(S_TABLES_STATUS_RESPONSE) + varint(len(known)) + entries)

    def _query(self, query: packets.Query) -> None:
        _Conversation(self, query).run()

    def use(self, database: str) -> None:
        """Look names up in `database` from now on."""
        self._database = database

    def say(self, statement: str) -> None:
        """Remember a SET statement of this connection."""
        self._said.append(statement)


class _Conversation:
    """One query from its first packet to its last."""

    def __init__(self, connection: Connection, query: packets.Query) -> None:
        self._connection = connection
        self._query = query
        self._feed = connection._feed
        self._revision = connection._revision
        self._started = time.monotonic_ns()
        self._all_read = False

    def run(self) -> None:
        """Answer; what ClickHouse refuses goes back as its exception, and the rest of the client's data is skipped."""
        try:
            # External tables come first; an empty block ends them, and there is always one.
            if self._block().rows:
                raise EngineError(NOT_IMPLEMENTED, "DB::Exception: external tables are not served here")
            self._answer()
            self._send(varint(S_END_OF_STREAM))
        except EngineError as error:
            self._send(packets.exception(error.code, error.message))
            while not self._all_read:
                self._block()
        except CancelledError:
            message = "DB::Exception: Query was cancelled"
            self._send(packets.exception(QUERY_WAS_CANCELLED, message))

    def _answer(self) -> None:
        query, connection = self._query, self._connection
        if query.stage != STAGE_COMPLETE:
            raise EngineError(NOT_IMPLEMENTED, f"DB::Exception: only whole queries are served, not stage {query.stage}")
        with connection._engine.execution(connection._database, connection._said, query.settings) as execution:
            if (target := target_of(query.sql)) is not None:
                self._insert(execution, target)
            elif answers(query.sql):
                self._select(execution)
            else:
                self._command(execution)

    # Statements without an answer.

    def _command(self, execution: Execution) -> None:
        sql = self._query.sql.strip().rstrip(";")
        execution.run(sql, self._query.parameters)
        word = sql.split(None, 1)[0].upper()
        if word == "USE":
            self._connection.use(execution.rows("SELECT currentDatabase()")[0][0])
        elif word == "SET":
            self._connection.say(sql)
        self._send(packets.progress(0, 0, self._elapsed(), self._revision))
        self._events("Query", 1, WITH_INCREMENTAL_PROFILE_EVENTS)

    # Reading.

    def _select(self, execution: Execution) -> None:
        rows = blocks = size = said = 0
        with closing(execution.stream(self._query.sql, self._query.parameters)) as chunks:
            for chunk in chunks:
                feed = Feed(_exhausted)
                feed.buffer += chunk
                while feed.available():
                    block = to_wire(feed, self._revision)
                    if not blocks:
                        self._data(header(block.columns, self._revision))
                    self._data(block.framed)
                    rows, blocks, size = rows + block.rows, blocks + 1, size + len(block.framed)
                if self._elapsed() - said > PROGRESS_NS:
                    said = self._elapsed()
                    self._send(packets.progress(rows, size, said, self._revision))
                if self._cancelled():
                    self._data(EMPTY_BLOCK)
                    self._send(packets.progress(0, 0, self._elapsed(), self._revision))
                    return
        if not blocks:
            columns = execution.header(self._query.sql, self._query.parameters)
            self._data(header(columns, self._revision))
        self._send(packets.profile_info(rows, blocks, size))
        self._send(packets.progress(rows, size, self._elapsed(), self._revision))
        self._events("SelectedRows", rows, WITH_INCREMENTAL_PROFILE_EVENTS)
        self._data(EMPTY_BLOCK)
        self._send(packets.progress(0, 0, self._elapsed(), self._revision))

    def _cancelled(self) -> bool:
        """Do as ClickHouse does between blocks: see whether the client has left or wants no more."""
        client = self._connection._client
        if not self._feed.available() and not select.select([client], [], [], 0)[0]:
            return False
        if (kind := self._feed.varint()) != CANCEL:
            raise ProtocolError(f"Unknown packet {kind} from client in mid-query")
        return True

    # Writing.

    def _insert(self, execution: Execution, target: Target) -> None:
        described = execution.columns(target)
        by_name = {name: kind for name, kind, *_ in described}
        wanted = target.columns or [
            name for name, _, default, _ in described if default not in ("MATERIALIZED", "ALIAS")
        ]
        if missing := [name for name in wanted if name not in by_name]:
            raise EngineError(16, f"DB::Exception: No such column {missing[0]} in table {target.table}")
        self._table_columns(described)
        self._all_read = False
        columns = [Column(name, _plain(by_name[name])) for name in wanted]
        insertion = execution.insert(Target(target.table, wanted))
        order = self._connection._faults.next_insert(target.table)
        self._data(header(columns, self._revision))
        try:
            rows = self._receive(insertion, order)
            insertion.finish()
        finally:
            insertion.close()
        if order is not None and order.moment == "after":
            raise DroppedError
        if order is not None and order.moment == "stall":
            time.sleep(order.seconds)
        self._events("InsertedRows", rows, WITH_PROFILE_EVENTS_IN_INSERT)

    def _receive(self, insertion: Insertion, order: Order | None) -> int:
        rows = 0
        moment = order.moment if order is not None else ""
        if moment == "within":
            self._feed.read(1)
            raise DroppedError
        while (block := self._block()).rows:
            if moment == "before":
                raise DroppedError
            if moment == "fail":
                raise EngineError(MEMORY_LIMIT, "DB::Exception: Memory limit (total) exceeded: as a test ordered")
            self._events("InsertedRows", block.rows, WITH_PROFILE_EVENTS_IN_INSERT)
            insertion.append(block.framed)
            rows += block.rows
        return rows

    def _table_columns(self, described: list[tuple[str, str, str, str]]) -> None:
        lines = [
            f"`{name}` {kind}" + (f"\t{default}\t{value}" if default else "")
            for name, kind, default, value in described
        ]
        columns = f"columns format version: 1\n{len(lines)} columns:\n" + "".join(f"{line}\n" for line in lines)
        self._send(varint(S_TABLE_COLUMNS) + text("") + text(columns))

    # Packets.

    def _block(self) -> Block:
        """Read the next Data packet; an empty block ends the client's data."""
        while (kind := self._feed.varint()) != DATA:
            if kind == CANCEL:
                raise CancelledError
            if kind == SCALAR:
                # A value that a distributed query was given beforehand; whole queries carry it in their text as well.
                self._data_block()
            elif kind == PING:
                self._send(varint(S_PONG))
            else:
                raise ProtocolError(f"Unexpected packet {kind} received from client, Data was due")
        block = self._data_block()
        self._all_read = not block.rows
        return block

    def _data_block(self) -> Block:
        self._feed.text()
        if self._query.compressed:
            inner = Feed(lambda: unframed(self._feed))
            block = from_wire(inner, self._revision)
            if inner.available():
                raise ProtocolError(f"{inner.available()} bytes behind a block in its last frame")
        else:
            block = from_wire(self._feed, self._revision)
        self._feed.forget()
        return block

    def _data(self, block: bytes) -> None:
        if self._query.compressed:
            method = self._query.setting("network_compression_method", "LZ4").upper()
            block = frames(block, METHODS[method])
        self._send(varint(S_DATA) + text("") + block)

    def _events(self, name: str, value: int, since: int) -> None:
        if self._revision >= since:
            self._send(packets.profile_events(name, value, self._revision))

    def _elapsed(self) -> int:
        return time.monotonic_ns() - self._started

    def _send(self, data: bytes) -> None:
        self._connection._client.sendall(data)


def _plain(kind: str) -> str:
    """Return a type as `DESCRIBE` writes it in its tab-separated answer, without that answer's escapes."""
    return kind.replace("\\'", "'").replace("\\\\", "\\")


def _exhausted() -> bytes:
    raise ProtocolError("the engine's answer ends in mid-block")
