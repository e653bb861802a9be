"""What was sent to pagers, when, and the answer are in the store, each attempt once."""

from collections.abc import Callable

from ingest.events import encoder
from ingest.log.interface import Entry
from ingest.log.memory import MemoryLog
from ingest.store.chdb import ChdbStore
from ingest.store.sink import Sink
from ingest.topics import Topics
from signals.pagers.records import PageAttempt
from signals.pagers.words import Answered, Level, Step
from support.store_fleet import BASE_MS


def attempt(number: int, answered: Answered, status: int) -> PageAttempt:
    return PageAttempt(
        rollout="r-1", owner="acme", route="pager", channel="pagerduty", key="cordon/r-1/acme/1", step=Step.TRIGGER,
        level=Level.CRITICAL, sequence=1, episode=1, attempt=number, at_ms=BASE_MS + number, seconds=0.25,
        answered=answered, status=status, answer="slow down", headline="KILLED: x 1",
    )  # fmt: skip


def test_every_attempt_is_a_row_once_and_a_bad_record_stops_nothing(
    store: ChdbStore, log: MemoryLog, topics: Topics, make_sink: Callable[..., Sink]
) -> None:
    said = [attempt(1, Answered.RETRY, 429), attempt(2, Answered.DELIVERED, 202)]
    values = [encoder.encode(said[0]), b"{", encoder.encode(said[1])]
    log.append([Entry(topics.name("pagings"), 0, b"r-1", value) for value in values])
    make_sink(store).drain()
    log.commit("store", dict.fromkeys(make_sink(store)._decode, 0))
    make_sink(store).drain()
    sql = "SELECT attempt, answered, status, key, level, headline FROM pagings FINAL ORDER BY attempt"
    assert store.query(sql).rows == [
        [1, "retry", 429, "cordon/r-1/acme/1", "critical", "KILLED: x 1"],
        [2, "delivered", 202, "cordon/r-1/acme/1", "critical", "KILLED: x 1"],
    ]
