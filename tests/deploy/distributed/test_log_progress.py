"""A replay waits for detection and signals by their words, whatever died meanwhile."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from deploy.distributed import progress as module
from deploy.distributed.follower import ProgressFollower
from deploy.distributed.progress import LogProgress
from ingest.gateway.refusal import RequestRefusedError
from ingest.log.interface import Entry, LogUnavailableError, Record, TopicPartition
from ingest.outcome import Refusal
from support.words import WordLog


class Rig(WordLog):
    def __init__(self, keyed_partitions: int = 1) -> None:
        super().__init__(keyed_partitions, lane="replay")
        self.follower = ProgressFollower(self.log, self.topics)
        self.progress = LogProgress(self.log, self.topics, self.follower)

    def reaches(self, at_ms: int, seconds: float = 0.4) -> bool:
        """Tell whether the progress reaches a time now, or soon."""

        async def wait() -> bool:
            try:
                await asyncio.wait_for(self.progress.reached(at_ms), seconds)
            except (TimeoutError, RequestRefusedError):
                return False
            return True

        return asyncio.run(wait())


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that waits in vain must end with its test."""
    monkeypatch.setattr(module, "WAIT_SECONDS_MAX", 0.3)
    monkeypatch.setattr(module, "_STEP_SECONDS", 0.05)


@pytest.fixture
def rig(patience: None) -> Iterator[Rig]:
    made = Rig()
    made.follower.start()
    yield made
    made.follower.stop()


@pytest.fixture
def rig2(patience: None) -> Iterator[Rig]:
    made = Rig(keyed_partitions=2)
    made.follower.start()
    yield made
    made.follower.stop()


def test_detection_must_have_come_so_far_in_every_partition(rig2: Rig) -> None:
    for number in (0, 1):
        rig2.say(f"signals/{number}")
    rig2.say("detection/0", reached_ms=1000)
    rig2.say("detection/1", reached_ms=999)
    assert not rig2.reaches(1000)
    rig2.say("detection/1", reached_ms=1000)
    assert rig2.reaches(1000)
    assert rig2.progress.reached_ms == 1000
    assert not rig2.reaches(1001)


def test_signals_must_have_read_all_that_detection_said(rig2: Rig) -> None:
    """A rollout's verdicts lie in its own partition, whichever product's detection says them."""
    place = rig2.place("verdicts", 1)
    end = rig2.put("verdicts", 1)
    rig2.say("signals/0")
    rig2.say("signals/1", positions={place: end - 1})
    rig2.say("detection/1", reached_ms=1000)
    rig2.say("detection/0", reached_ms=1000, said={place: end})
    assert not rig2.reaches(1000)
    rig2.say("signals/1", positions={place: end})
    assert rig2.reaches(1000)


def test_nobody_reaches_anything_while_signals_have_no_owner(rig: Rig) -> None:
    rig.say("detection/0", reached_ms=1000)
    assert not rig.reaches(1000)


def test_a_verdict_whose_owner_died_before_he_told_of_it_is_waited_for(rig: Rig) -> None:
    """The new owner's word knows only of what he said himself."""
    place = rig.place("verdicts")
    rig.say("signals/0", positions={place: 0})
    rig.say("detection/0", reached_ms=500, generation=1)
    assert rig.reaches(500)
    end = rig.put("verdicts")
    rig.say("detection/0", reached_ms=1000, generation=2)
    assert not rig.reaches(1000)
    rig.say("signals/0", positions={place: end})
    assert rig.reaches(1000)


def test_a_stale_owner_is_not_believed(rig: Rig) -> None:
    rig.say("signals/0")
    rig.say("detection/0", reached_ms=10, generation=2)
    rig.say("detection/0", reached_ms=5000, generation=1)
    assert not rig.reaches(1000)


def test_words_that_lay_in_the_log_count_too(patience: None) -> None:
    made = Rig()
    made.say("signals/0")
    made.say("detection/0", reached_ms=1000)
    made.follower.start()
    assert made.reaches(1000)
    made.follower.stop()


def test_who_is_lacking_is_named(rig: Rig) -> None:
    rig.say("signals/0")
    with pytest.raises(RequestRefusedError, match=r"detection/0 .nobody owns it") as refused:
        asyncio.run(rig.progress.reached(7))
    assert refused.value.retry_after_seconds


def test_kill_switch_events_are_counted_each_once(rig: Rig) -> None:
    assert rig.progress.killswitch_events() == 0
    for _ in range(3):
        rig.put("killswitch")
    assert rig.progress.killswitch_events() == 3
    rig.put("killswitch")
    assert rig.progress.killswitch_events() == 4


def test_events_are_not_counted_while_the_log_is_away_nor_twice_after_it(
    rig2: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log goes away behind the first record: who asks is told to ask again."""
    rig2.put("killswitch")
    rig2.put("killswitch")
    reads = 0
    read = rig2.log.read

    def failing(source: TopicPartition, offset: int, *limits: int) -> list[Record]:
        nonlocal reads
        # The follower reads this log, too.
        if source.topic != rig2.topics.name("killswitch"):
            return read(source, offset, *limits)
        reads += 1
        if reads == 2:
            raise LogUnavailableError("away")
        return read(source, offset, 1)

    monkeypatch.setattr(rig2.log, "read", failing)
    with pytest.raises(RequestRefusedError, match="can't be counted now") as refused:
        rig2.progress.killswitch_events()
    assert refused.value.reason is Refusal.LOG_UNAVAILABLE
    assert rig2.progress.killswitch_events() == 2


def test_the_follower_goes_on_after_rubbish_and_an_absent_log(rig: Rig) -> None:
    rig.say("signals/0")
    topic = rig.topics.name("progress")
    rig.log.append([Entry(topic, 0, b"x", b"\xff{"), Entry(topic, 0, b"y", None)])
    rig.log.unavailable = True
    threading.Timer(0.1, lambda: setattr(rig.log, "unavailable", False)).start()
    while rig.log.unavailable:
        pass
    rig.say("detection/0", reached_ms=1000)
    assert rig.follower.wait_for(lambda words: "detection/0" in words, 5)
    assert rig.reaches(1000)


def test_the_follower_tells_fresh_words_from_old_ones() -> None:
    made = Rig()
    made.say("detection/0", at_ms=1)
    heard: list[tuple[int, bool]] = []
    made.follower.listen(lambda word, fresh: heard.append((word.at_ms, fresh)))
    made.follower.start()
    made.follower.wait_for(lambda words: "detection/0" in words, 5)
    made.say("detection/0", at_ms=2)
    made.follower.wait_for(lambda words: words["detection/0"].at_ms == 2, 5)
    made.follower.stop()
    assert heard == [(1, False), (2, True)]
