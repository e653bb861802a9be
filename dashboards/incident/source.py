"""Where a report's facts come from: the store, by the queries beside this file, and the audit trail.

`StoreSource` asks through whatever carries SQL (the read-only endpoint of a running Cordon, or a ClickHouse server);
its twin `RecordedSource` answers from memory what another source said. Invariant: an answer is read into the struct
that says what it must hold, or it is an error; nothing is guessed.
"""

from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Final, Protocol, TypeVar

import msgspec

from ingest.events import UNREADABLE_ERRORS
from ingest.store.queries import named_queries

QUERIES: Final = Path(__file__).parent / "queries"
FORM: Final = "JSONEachRow"
Row = TypeVar("Row", bound=msgspec.Struct)
# Takes SQL, the format of the answer, and the values of its parameters.
Ask = Callable[[str, str, dict[str, str]], bytes]


class IncidentError(Exception):
    """No report can be written; the message says why and what to do."""


class Source(Protocol):
    """Gives what is known of a rollout."""

    def rows(self, query: str, kind: type[Row], **values: object) -> list[Row]:
        """Return a query's rows.

        Raises:
            IncidentError: the answer is not what the query promises.
        """
        ...

    def trail(self, rollout: str, most: int) -> list[bytes] | None:
        """Return the entries of the rollout's partition of the audit trail; None where it can't be asked for.

        Args:
            rollout: its id.
            most: so many from the first on, and no more.
        """
        ...


class StoreSource:
    """Asks the store."""

    def __init__(self, ask: Ask, trail: Callable[[str], Iterable[bytes]] | None = None) -> None:
        """Take what carries SQL.

        Args:
            ask: gives the store's answer.
            trail: gives the entries of a rollout's partition of the audit trail; None where nobody can.
        """
        self._ask, self._trail = ask, trail

    def rows(self, query: str, kind: type[Row], **values: object) -> list[Row]:
        """Return a query's rows; see `Source.rows`."""
        found = named_queries(QUERIES)[query]
        parameters = {parameter.name: str(values[parameter.name]) for parameter in found.parameters}
        return decoded(query, kind, self._ask(found.sql, FORM, parameters))

    def trail(self, rollout: str, most: int) -> list[bytes] | None:
        """Return the trail; see `Source.trail`."""
        return None if self._trail is None else list(islice(self._trail(rollout), most))


class RecordedSource:
    """Answers from memory: what each query said, whatever its parameters."""

    def __init__(self, answers: Mapping[str, bytes], trail: list[bytes] | None = None) -> None:
        """Take the answers by query, as the store gave them, and the audit trail."""
        self._answers, self._entries = answers, trail

    def rows(self, query: str, kind: type[Row], **values: object) -> list[Row]:
        """Return a query's rows; see `Source.rows`."""
        needed = {parameter.name for parameter in named_queries(QUERIES)[query].parameters}
        if needed != set(values):
            raise IncidentError(f"{query} takes {sorted(needed)}, not {sorted(values)}")
        return decoded(query, kind, self._answers[query])

    def trail(self, rollout: str, most: int) -> list[bytes] | None:
        """Return the trail; see `Source.trail`."""
        del rollout
        return None if self._entries is None else self._entries[:most]


def decoded(query: str, kind: type[Row], answer: bytes) -> list[Row]:
    """Return the rows of an answer in lines of JSON.

    Raises:
        IncidentError: they are not of that kind.
    """
    try:
        # Not strict: ClickHouse writes integers of 64 bits as text.
        return [msgspec.json.decode(line, type=kind, strict=False) for line in answer.splitlines() if line]
    except UNREADABLE_ERRORS as error:
        raise IncidentError(
            f"the store answered {query} in another form than this release reads ({error}): is it of another release? "
            "`cordon migrate status` says so"
        ) from error
