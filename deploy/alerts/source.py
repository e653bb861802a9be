"""What the store is asked for crash patterns: complete hours by signature, OS build and model, and signatures' stacks.

Between the store, in whatever way it is reached, and `detectors.alerts`, which knows no store. The invariant: an hour
is asked for only once nothing of it is waited for any more, and every answer is bounded.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import msgspec

from detectors.alerts.hours import SeenPattern
from detectors.alerts.judge import AlertJudge
from detectors.alerts.wire import Alert
from detectors.clusters import SIGNATURES_MAX, SignatureText
from ingest.store.interface import Reader, Store
from ingest.store.queries import named_queries

HOUR_MS: Final = 3_600_000
# An hour is complete when the store has heard of something so much later: a machine that crashed is up again by then.
GRACE_MS: Final = 15 * 60_000
# A crash long after a rollout began is no rollout's any more.
YOUNG_HOURS: Final = 14 * 24
# Signatures are compared over so long.
SIGNATURES_HOURS: Final = 7 * 24
# 4,096 patterns an hour, and a reader gives 100,000 rows at most.
HOURS_AT_ONCE: Final = 24
_line_decoder = msgspec.json.Decoder(list[Any])


class Rows(Protocol):
    """A store that answers named queries."""

    def rows(self, name: str, **values: object) -> list[list[Any]]:
        """Return a named query's rows.

        Raises:
            StoreError: it is away, busy, or the query is more than it takes.
        """
        ...


class ReaderRows:
    """The store in this process, by its bounded reader."""

    def __init__(self, reader: Reader, database: str) -> None:
        """Take the reader and the lane's database."""
        self._reader, self._database = reader, database

    def rows(self, name: str, **values: object) -> list[list[Any]]:
        """Return a named query's rows; see `Rows`."""
        texts = {key: str(value) for key, value in values.items()}
        answer = self._reader.read(named_queries()[name].sql, "JSONCompactEachRow", texts, self._database)
        return [_line_decoder.decode(line) for line in answer.splitlines() if line]


class StoreRows:
    """A ClickHouse server, by a connection that only reads."""

    def __init__(self, store: Store) -> None:
        """Take the connection."""
        self._store = store

    def rows(self, name: str, **values: object) -> list[list[Any]]:
        """Return a named query's rows; see `Rows`."""
        return self._store.query(named_queries()[name].sql, values).rows


def first_hour(store: Rows) -> int | None:
    """Return the hour, since the epoch, from which on a store has reports; None for an empty one."""
    first_ms = int(store.rows("pattern_first")[0][0])
    return first_ms // HOUR_MS if first_ms > 0 else None


def complete_until(store: Rows) -> int:
    """Return the hour before which all are complete; 0 or less for none."""
    return (int(store.rows("pattern_latest")[0][0]) - GRACE_MS) // HOUR_MS


def hours(store: Rows, begin: int, end: int) -> dict[int, list[SeenPattern]]:
    """Return the patterns of some hours, at most `HOURS_AT_ONCE`, by hour; hours without a crash are left out."""
    asked = {"from": _moment(begin), "to": _moment(end), "young_from": _moment(begin - YOUNG_HOURS)}
    found: dict[int, list[SeenPattern]] = {}
    for hour, signature, os_build, model, crashes, devices, tenants, on_rollouts in store.rows(
        "pattern_hours", **asked
    ):
        reached = dict(zip(on_rollouts[0], map(int, on_rollouts[1]), strict=True))
        seen = SeenPattern(signature, os_build, model, int(crashes), int(devices), tuple(sorted(tenants)), reached)
        found.setdefault(int(hour), []).append(seen)
    return found


def signatures(store: Rows, end: int) -> Sequence[SignatureText]:
    """Return the signatures of the week before an hour."""
    asked = {"from": _moment(end - SIGNATURES_HOURS), "to": _moment(end), "limit": SIGNATURES_MAX}
    return [
        SignatureText(
            name=str(name), module=str(module), bugcheck=str(bugcheck), frames=tuple(str(frames).split()),
            devices=int(devices),
        )
        for name, module, bugcheck, frames, devices in store.rows("pattern_signatures", **asked)
    ]  # fmt: skip


def judge_hour(store: Rows, judge: AlertJudge, hour: int, rows: Sequence[SeenPattern]) -> list[Alert]:
    """Judge an hour, after a comparison of signatures where one is due; return the alerts to be written."""
    if judge.wants_names(hour, rows):
        judge.learn(hour, signatures(store, hour + 1))
    return judge.judge(hour, rows)


def _moment(hour: int) -> str:
    return f"{datetime.fromtimestamp(hour * 3600, UTC):%Y-%m-%d %H:%M:%S}"
