"""The engine of the test server: chdb on a folder, a fresh session for every query.

A query's settings hold for that query alone on a real server, and `readonly = 1` cannot be taken back within a session,
hence the fresh session; what `USE` and `SET` said on a connection is said again. Opening one takes about a millisecond.
"""

import re
import uuid
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

from chdb import ChdbError
from chdb.session import Session

from support.clickhouse.native import Column

UNKNOWN_SETTING = 115
_CODE = re.compile(r"Code: (\d+)\. (.*)", re.DOTALL)
_INSERT = re.compile(
    r"^\s*INSERT\s+INTO\s+(?:TABLE\s+)?(?P<table>[`\w.]+)\s*(?:\((?P<columns>[^()]*)\))?"
    r"\s*(?:VALUES|FORMAT\s+(?:Native|Values))?\s*;?\s*$",
    re.IGNORECASE,
)
_ANSWERS = re.compile(r"^[\s(]*(?:SELECT|WITH|SHOW|DESCRIBE|DESC|EXPLAIN|EXISTS|CHECK)\b", re.IGNORECASE)
_STREAMS = re.compile(r"^[\s(]*(?:SELECT|WITH)\b", re.IGNORECASE)
_FORMAT = re.compile(r"\bFORMAT\s+\w+\s*;?\s*$", re.IGNORECASE)


class EngineError(Exception):
    """ClickHouse's own exception."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Setting(NamedTuple):
    """One setting of a query; one that is not important is ignored where it is unknown."""

    name: str
    value: str
    important: bool


class Target(NamedTuple):
    """What an INSERT with data from the client goes to."""

    table: str
    columns: list[str]


def target_of(sql: str) -> Target | None:
    """Return where a statement wants the client's data to go; None for any other statement."""
    match = _INSERT.match(sql)
    if match is None:
        return None
    names = [name.strip().strip("`") for name in (match["columns"] or "").split(",") if name.strip()]
    return Target(match["table"], names)


def answers(sql: str) -> bool:
    """Tell whether a statement has rows for an answer."""
    return bool(_ANSWERS.match(sql))


def engine_error(error: Exception) -> EngineError:
    """Return chdb's exception as ClickHouse said it."""
    found = _CODE.search(str(error))
    return EngineError(int(found[1]), found[2]) if found else EngineError(1002, f"DB::Exception: {error}")


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (ChdbError, RuntimeError) as error:
        raise engine_error(error) from error


class Insertion:
    """An insert under way: blocks are kept in a file and handed to the engine together; nothing is promised before.

    chdb's own streaming insert is of no use here: it says that it has written what a constraint, a view or a shard that
    is away refused (seen in 4.4).
    """

    def __init__(self, session: Any, into: str, path: Path) -> None:
        self._session = session
        self._into = into
        self._path = path
        self._file = path.open("wb")

    def append(self, block: bytes) -> None:
        """Take one block in the `Native` format."""
        self._file.write(block)

    def finish(self) -> None:
        """Have the engine write the blocks."""
        self._file.close()
        if self._path.stat().st_size:
            with _translated():
                self._session.query(f"INSERT INTO {self._into} SELECT * FROM file('{self._path}', 'Native')", "Null")

    def close(self) -> None:
        """Forget the blocks, which are lost where `finish` was not called: as when a client has gone."""
        self._file.close()
        self._path.unlink(missing_ok=True)


class Execution:
    """One query's session."""

    def __init__(self, session: Any, scratch: Path) -> None:
        self._session = session
        self._scratch = scratch

    def run(self, sql: str, parameters: Mapping[str, str]) -> None:
        """Run a statement that has no answer."""
        with _translated():
            self._session.query(sql, "Null", params=dict(parameters))

    def rows(self, sql: str, parameters: Mapping[str, str] | None = None) -> list[list[str]]:
        """Return a small answer as text."""
        with _translated():
            answer = self._session.query(sql, "TabSeparated", params=dict(parameters or {})).bytes()
        return [line.split("\t") for line in answer.decode("utf-8", "surrogateescape").splitlines()]

    def header(self, sql: str, parameters: Mapping[str, str]) -> list[Column]:
        """Return the columns of an answer that turned out to have no rows."""
        with _translated():
            answer = self._session.query(sql, "TabSeparatedWithNamesAndTypes", params=dict(parameters)).bytes()
        names, types = answer.decode().splitlines()[:2]
        unescape = {r"\'": "'", r"\\": "\\"}
        return [
            Column(name, re.sub(r"\\['\\]", lambda found: unescape[found[0]], kind))
            for name, kind in zip(names.split("\t"), types.split("\t"), strict=True)
        ]

    def stream(self, sql: str, parameters: Mapping[str, str]) -> Generator[bytes, None, None]:
        """Yield the answer in the `Native` format, some blocks at a time."""
        sql = _FORMAT.sub("", sql)
        if not _STREAMS.match(sql):
            with _translated():
                yield self._session.query(sql, "Native", params=dict(parameters)).bytes()
            return
        with _translated():
            stream = self._session.send_query(sql, "Native", params=dict(parameters))
        try:
            with _translated():
                for chunk in stream:
                    if data := chunk.bytes():
                        yield data
        finally:
            # Of no effect on a stream that came to its end.
            stream.cancel()

    def columns(self, target: Target) -> list[tuple[str, str, str, str]]:
        """Return name, type, kind of default and default of a table's columns."""
        described = [tuple(row[:4]) for row in self.rows(f"DESCRIBE TABLE {target.table}")]
        return cast(list[tuple[str, str, str, str]], described)

    def insert(self, target: Target) -> Insertion:
        """Begin an insert."""
        names = ", ".join(f"`{name}`" for name in target.columns)
        path = self._scratch / f"{uuid.uuid4().hex}.native"
        return Insertion(self._session, f"{target.table} ({names})", path)


class Engine:
    """chdb on a folder, for all connections of one server."""

    def __init__(self, path: Path, config: Path | None = None) -> None:
        """Open the folder; with a ClickHouse configuration file, for instance one that names a cluster."""
        self._address = str(path) if config is None else f"{path}?config-file={config}"
        self._scratch = path.parent / f"{path.name}.blocks"
        self._scratch.mkdir(parents=True, exist_ok=True)
        self._keeper = self._session()
        self.version = str(self._keeper.query("SELECT version()", "TSV").bytes().decode().strip())

    def _session(self) -> Any:
        return cast(Any, Session)(self._address)

    @contextmanager
    def execution(self, database: str, said: Sequence[str], settings: Sequence[Setting]) -> Iterator[Execution]:
        """Open a session as the connection and the query want it.

        Args:
            database: the connection's current database; empty for the default.
            said: the connection's own SET statements.
            settings: the query's.

        Raises:
            EngineError: the database or an important setting is unknown.
        """
        session = self._session()
        try:
            with _translated():
                # `DESCRIBE` breaks long types into lines otherwise; on the wire they are one line.
                session.query("SET print_pretty_type_names = 0")
                if database:
                    session.query(f"USE `{database}`")
                for statement in said:
                    session.query(statement)
            for setting in sorted(settings, key=lambda one: one.name == "readonly"):
                _apply(session, setting)
            yield Execution(session, self._scratch)
        finally:
            session.close()

    def close(self) -> None:
        """Release the folder."""
        self._keeper.close()


def _apply(session: Any, setting: Setting) -> None:
    if not re.fullmatch(r"\w+", setting.name):
        raise EngineError(UNKNOWN_SETTING, f"DB::Exception: Unknown setting '{setting.name}'")
    value = setting.value.replace("\\", "\\\\").replace("'", "\\'")
    try:
        session.query(f"SET {setting.name} = '{value}'")
    except (ChdbError, RuntimeError) as error:
        found = engine_error(error)
        if found.code == UNKNOWN_SETTING and not setting.important:
            return
        # Some settings may not be set in a session even to the value that they have.
        asked = f"SELECT value FROM system.settings WHERE name = '{setting.name}'"
        if session.query(asked, "TabSeparated").bytes().decode().strip() != setting.value:
            raise found from error
