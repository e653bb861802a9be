"""The named queries: each is documented, runs on a filled store, and answers what it says."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from ingest.events import Bsod
from ingest.log.interface import Entry
from ingest.log.memory import MemoryLog
from ingest.rollouts import Bound, Rollout
from ingest.store.chdb import ChdbStore
from ingest.store.queries import QueryFileError, named_queries, parse_query
from ingest.store.sink import Sink
from ingest.topics import Topics

VALUES = {
    "product": "Content",
    "from": "2024-07-19 00:00:00",
    "to": "2024-07-20 00:00:00",
    "rollout": "r-1",
    "limit": "10",
    "vendor": "CrowdStrike",
    "module": "",
    "since": "2024-07-05 00:00:00",
    "before": "2024-07-20 02:00:00",
    "young_from": "2024-07-05 00:00:00",
    "parts": "1",
    "part": "0",
}


@pytest.fixture
def filled(
    store: ChdbStore, log: MemoryLog, topics: Topics, make_sink: Callable[..., Sink], make_fleet: Any
) -> tuple[ChdbStore, list[Any]]:
    fleet = make_fleet(11)
    log.append(fleet.entries(topics, batches=10, size=30))
    rollout = Rollout(
        rollout="r-1", vendor="CrowdStrike", product="Content", update_kind="content", version="291",
        origin_ms=1_721_362_140_000, bound=Bound.OFFERED,
    )  # fmt: skip
    log.append([Entry(topics.name("rollouts"), 0, b"r-1", msgspec.json.encode(rollout))])
    make_sink(store).drain()
    return store, fleet.made


@pytest.mark.parametrize("name", sorted(named_queries()))
def test_each_query_runs(name: str, filled: tuple[ChdbStore, list[Any]]) -> None:
    query = named_queries()[name]
    answer = filled[0].query(query.sql, {parameter.name: VALUES[parameter.name] for parameter in query.parameters})
    assert answer.columns
    assert answer.rows or name in ("alerts_latest", "killswitch_history", "recovery", "verdict_evidence")


def test_devices_lost_is_a_recount(filled: tuple[ChdbStore, list[Any]]) -> None:
    store, made = filled
    lost = {
        report.device
        for report in made
        if not isinstance(report, str)
        and any(getattr(version, "version", "") == "291" for version in getattr(report, "versions", []) or [])
    }
    rows = store.query(named_queries()["devices_lost"].sql, VALUES).rows
    assert rows[-1][2] == len(lost) > 0
    top = store.query(named_queries()["top_signatures"].sql, VALUES).rows
    crashes = [report for report in made if hasattr(report, "bugcheck") and report.versions[0].version == "291"]
    assert sum(row[1] for row in top) == len(crashes)
    assert any(isinstance(report, Bsod) for report in crashes)


@pytest.mark.parametrize(
    "text",
    [
        "SELECT 1",
        "-- What it answers.\nSELECT {x:UInt8}",
        "-- What it answers.\n-- param x UInt8: a number\nSELECT 1",
        "-- What it answers.\n-- param x String: a number\nSELECT {x:UInt8}",
    ],
)
def test_a_file_that_says_less_than_its_sql_is_refused(text: str) -> None:
    with pytest.raises(QueryFileError):
        parse_query("bad", text)
