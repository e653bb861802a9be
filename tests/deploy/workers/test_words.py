"""Words of progress: one of each share about every second, at once where asked, a last one, and never in the way."""

import time
from collections.abc import Iterator

import pytest

from deploy.workers.driver import ShareDriver
from deploy.workers.words import ProgressWriter
from ingest.clock import DrivenClock, WallClock
from ingest.log.interface import TopicPartition
from ingest.log.memory import MemoryLog
from ingest.log.specs import topic_specs
from ingest.metrics import Metrics
from ingest.progress import OwnerWord, progress_decoder
from ingest.topics import Topics
from support.streams import eventually

TOPICS = Topics(device_partitions=2)
PROGRESS = TopicPartition(TOPICS.name("progress"), 0)


class Speaking(ShareDriver):
    """A share that is asked and never driven."""

    def __init__(self, name: str, newest_ms: int = 0) -> None:
        self.name, self.newest_ms, self.asked = name, newest_ms, 0

    def word(self, worker: str, *, leaving: bool = False) -> OwnerWord | None:
        self.asked += 1
        return OwnerWord(
            owner=self.name,
            worker=worker,
            generation=7,
            at_ms=5,
            lag_records=3,
            newest_ms=self.newest_ms,
            leaving=leaving,
        )


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog(topic_specs(TOPICS), WallClock())


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def writer(log: MemoryLog, metrics: Metrics) -> Iterator[ProgressWriter]:
    writer = ProgressWriter(log, TOPICS, "worker-1", DrivenClock(10_000), metrics)
    writer.start()
    yield writer
    writer.stop()


def words(log: MemoryLog) -> list[OwnerWord]:
    return [progress_decoder.decode(record.value or b"") for record in log.read(PROGRESS, 0)]


def test_each_share_speaks_at_once_and_then_in_its_turn(
    log: MemoryLog, writer: ProgressWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploy.workers.words.WORD_SECONDS", 0.05)
    shares = [Speaking("grouping/0"), Speaking("grouping/1")]
    for share in shares:
        writer.add(share)
    eventually(lambda: {word.owner for word in words(log)} == {"grouping/0", "grouping/1"}, 1.0)
    eventually(lambda: len(words(log)) >= 8)
    assert all(record.key in (b"grouping/0", b"grouping/1") for record in log.read(PROGRESS, 0))
    assert words(log)[0].worker == "worker-1"


def test_nudges_are_coalesced(log: MemoryLog, writer: ProgressWriter) -> None:
    share = Speaking("grouping/0")
    writer.add(share)
    began = time.monotonic()
    while time.monotonic() - began < 0.5:
        writer.nudge(share)
        time.sleep(0.001)
    assert 3 <= len(words(log)) <= 13, "at most twenty a second"


def test_who_leaves_in_order_says_so_last(log: MemoryLog, writer: ProgressWriter) -> None:
    share = Speaking("grouping/0")
    writer.add(share)
    eventually(lambda: len(words(log)) == 1)
    writer.remove(share, leaving=True)
    writer.stop()
    assert [word.leaving for word in words(log)] == [False, True]


def test_who_ends_otherwise_says_nothing(log: MemoryLog, writer: ProgressWriter) -> None:
    share = Speaking("grouping/0")
    writer.add(share)
    eventually(lambda: len(words(log)) == 1)
    writer.remove(share, leaving=False)
    writer.stop()
    assert [word.leaving for word in words(log)] == [False]


def test_a_successor_of_the_same_name_is_not_removed(log: MemoryLog, writer: ProgressWriter) -> None:
    first, second = Speaking("grouping/0"), Speaking("grouping/0")
    writer.add(first)
    writer.add(second)
    writer.remove(first, leaving=False)
    before = second.asked
    eventually(lambda: second.asked > before + 1)


def test_an_absent_log_is_logged_once_and_harms_nobody(
    log: MemoryLog, writer: ProgressWriter, caplog: pytest.LogCaptureFixture
) -> None:
    log.unavailable = True
    share = Speaking("grouping/0")
    writer.add(share)
    for _ in range(3):
        writer.nudge(share)
        time.sleep(0.08)
    assert caplog.text.count("words of progress") == 1
    log.unavailable = False
    writer.nudge(share)
    eventually(lambda: len(words(log)) == 1)


def test_lag_and_age_are_metrics(writer: ProgressWriter, metrics: Metrics) -> None:
    writer.add(Speaking("grouping/0", newest_ms=7_500))
    eventually(lambda: metrics.value("lag_records", owner="grouping/0") == 3)
    assert metrics.value("newest_age_seconds", owner="grouping/0") == 2.5
