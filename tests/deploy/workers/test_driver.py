"""A share's driver: exact whatever Kafka does meanwhile, told how it ends, parked and resumed without reloading."""

import threading
from collections import Counter

import pytest

from deploy.workers.driver import ShareDriver
from ingest.clock import WallClock
from ingest.log.feed import Feed
from ingest.log.interface import Entry, FencedError, Record
from ingest.log.memory import MemoryLog
from ingest.log.owner import GapError, Owner
from ingest.metrics import Metrics
from support.counting_stage import IN, OUT, SPECS, STATE, CountingStage
from support.streams import eventually

WAIT = 10.0


class Share:
    """A driver on a memory log, and what it told."""

    def __init__(self, log: MemoryLog, name: str = "counting/0", *, eager: bool = False) -> None:
        self.stage, self.metrics = CountingStage(), Metrics()
        self.feed = Feed(log, IN)
        self.owner = Owner(self.feed, name, "counting", self.stage, STATE, WallClock())
        self.ends: list[BaseException | None] = []
        self.turns: list[bool] = []
        self.words = Nudges()
        self.driver = ShareDriver(
            name,
            self.feed,
            self.owner,
            self.words,
            WallClock(),
            self.metrics,
            stage_word="counting",
            reached=lambda: sum(self.stage.count(str(word)) for word in range(8)),
            on_turn=self.turns.append,
            on_end=lambda _, error: self.ends.append(error),
            eager_words=eager,
        )

    def counts(self) -> Counter[str]:
        return Counter({str(word): self.stage.count(str(word)) for word in range(8)})

    def push_all(self, log: MemoryLog) -> None:
        for source in IN:
            self.feed.push(source, log.read(source, 0, 10_000))


class Nudges:
    """Keeps what a driver asked of the words."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def add(self, share: ShareDriver) -> None:
        self.calls.append("add")

    def remove(self, share: ShareDriver, *, leaving: bool) -> None:
        self.calls.append("leave" if leaving else "remove")

    def nudge(self, share: ShareDriver) -> None:
        self.calls.append("nudge")


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog(SPECS, WallClock())


def fill(log: MemoryLog, count: int) -> Counter[str]:
    words = [str(number * 7 % 8) for number in range(count)]
    log.append([Entry("in", number % 2, None, word.encode()) for number, word in enumerate(words)])
    return Counter(words)


def test_a_share_counts_what_the_log_holds_and_what_is_pushed(log: MemoryLog) -> None:
    expected = fill(log, 100)
    share = Share(log)
    share.driver.start()
    share.driver.wait_started(WAIT)
    eventually(lambda: share.counts() == expected)
    expected += fill(log, 50)
    share.push_all(log)
    eventually(lambda: share.counts() == expected)
    share.driver.stop()
    assert share.ends == [None]
    assert share.driver.flushed == dict.fromkeys(IN, 75)
    assert share.words.calls == ["add", "leave"]
    assert True in share.turns
    restarted = Share(log)
    restarted.driver.start()
    restarted.driver.wait_started(WAIT)
    eventually(lambda: restarted.counts() == expected)
    restarted.driver.stop()


def test_records_nobody_pushes_are_read_though_the_consumer_stands_still(
    log: MemoryLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploy.workers.driver.BACKLOG_EVERY_SECONDS", 0.05)
    monkeypatch.setattr("deploy.workers.driver.WAIT_SECONDS", 0.01)
    share = Share(log)
    share.driver.start()
    share.driver.wait_started(WAIT)
    expected = fill(log, 10)
    eventually(lambda: share.counts() == expected)
    share.driver.stop()


def test_an_absent_log_is_waited_for_at_the_start_and_later(log: MemoryLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploy.workers.driver.UNAVAILABLE_SECONDS", 0.01)
    expected = fill(log, 20)
    log.unavailable = True
    share = Share(log)
    share.driver.start()
    with pytest.raises(TimeoutError):
        share.driver.wait_started(0.1)
    before = share.driver.standing
    eventually(lambda: share.driver.standing.progress > before.progress)
    assert before.waiting
    log.unavailable = False
    share.driver.wait_started(WAIT)
    eventually(lambda: share.counts() == expected)
    share.driver.stop()
    assert share.ends == [None]


def test_an_append_the_log_refused_is_made_again(log: MemoryLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploy.workers.driver.UNAVAILABLE_SECONDS", 0.01)
    expected = fill(log, 20)
    log.refuse_next_append()
    share = Share(log)
    share.driver.start()
    share.driver.wait_started(WAIT)
    eventually(lambda: share.driver.flushed == dict.fromkeys(IN, 10))
    assert share.counts() == expected
    share.driver.stop()


def test_a_fenced_share_ends_and_says_so(log: MemoryLog) -> None:
    share = Share(log)
    share.driver.start()
    share.driver.wait_started(WAIT)
    log.claim("counting/0")
    fill(log, 4)
    share.push_all(log)
    eventually(lambda: share.driver.ended)
    assert [type(error) for error in share.ends] == [FencedError]
    assert share.words.calls == ["add", "remove"]


def test_what_start_raised_is_raised_to_who_waits(log: MemoryLog) -> None:
    log.commit("counting", {IN[0]: 5})
    share = Share(log)
    share.feed.append([Entry("state", 0, b"0", b'{"counts":{},"offsets":{"0":999}}')])
    for chunk in (1, 2, 3):
        share.feed.append([Entry("state", 0, b"%d" % chunk, b'{"counts":{},"offsets":{"0":999}}')])
    share.driver.start()
    with pytest.raises(GapError, match="the log ends at 0"):
        share.driver.wait_started(WAIT)
    eventually(lambda: len(share.ends) == 1)
    assert isinstance(share.ends[0], GapError)


def test_a_parked_share_goes_on_without_reloading(log: MemoryLog) -> None:
    expected = fill(log, 20)
    share = Share(log)
    share.driver.start()
    share.driver.wait_started(WAIT)
    eventually(lambda: share.counts() == expected)
    assert share.driver.park(WAIT)
    generation, state = share.owner.fence.epoch, log.bounds(STATE)
    expected += fill(log, 10)
    share.push_all(log)
    assert not share.driver.standing.waiting
    assert share.driver.word("worker-1") is None
    assert log.bounds(STATE) == state
    share.driver.resume()
    share.driver.wait_started(WAIT)
    eventually(lambda: share.counts() == expected)
    assert share.owner.fence.epoch == generation
    share.driver.stop()


def test_a_share_resumed_before_it_came_to_rest_is_ready_again(log: MemoryLog) -> None:
    expected = fill(log, 20)
    share = Share(log)
    share.driver.start()
    share.driver.wait_started(WAIT)
    for _ in range(50):
        share.driver.ask_to_park()
        share.driver.resume()
    share.driver.wait_started(WAIT)
    expected += fill(log, 10)
    share.push_all(log)
    eventually(lambda: share.counts() == expected)
    share.driver.stop()
    assert share.ends == [None]


def test_a_parked_share_that_another_claimed_meanwhile_ends(log: MemoryLog) -> None:
    share = Share(log)
    share.driver.start()
    share.driver.wait_started(WAIT)
    assert share.driver.park(WAIT)
    log.claim("counting/0")
    share.driver.resume()
    with pytest.raises(FencedError):
        share.driver.wait_started(WAIT)
    eventually(lambda: len(share.ends) == 1)


def test_a_parked_share_that_is_stopped_writes_nothing(log: MemoryLog) -> None:
    fill(log, 20)
    share = Share(log)
    share.driver.start()
    share.driver.wait_started(WAIT)
    assert share.driver.park(WAIT)
    state = log.bounds(STATE)
    share.driver.stop()
    assert log.bounds(STATE) == state
    assert share.ends == [None]
    assert share.words.calls == ["add", "remove"]


def test_the_word_says_how_far_the_share_has_come(log: MemoryLog) -> None:
    fill(log, 20)
    share = Share(log, eager=True)
    share.driver.start()
    share.driver.wait_started(WAIT)
    eventually(lambda: "nudge" in share.words.calls)
    share.push_all(log)
    fill(log, 6)
    share.feed.note_end(IN[0], 13)
    word = share.driver.word("worker-1")
    assert word is not None
    assert (word.owner, word.worker, word.generation) == ("counting/0", "worker-1", share.owner.fence.epoch)
    assert word.positions == {"in/0": 10, "in/1": 10}
    assert word.said["out/0"] == log.bounds(OUT)[1]
    assert word.reached_ms == 20
    assert word.lag_records == 3
    share.driver.stop()


def test_a_stage_that_hangs_stands_still_beside_unread_records(log: MemoryLog) -> None:
    go_on = threading.Event()

    class Hanging(CountingStage):
        def apply(self, source: object, records: object) -> None:
            go_on.wait(WAIT)

    share = Share(log)
    share.owner._stage = Hanging()
    share.driver.start()
    share.driver.wait_started(WAIT)
    fill(log, 4)
    share.feed.push(IN[0], [Record(0, None, b"0", 1)])
    first = share.driver.standing
    assert first.waiting
    assert share.driver.standing == first
    go_on.set()
    share.driver.stop()
