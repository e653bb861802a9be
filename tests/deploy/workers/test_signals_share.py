"""Two signals shares of one partition at once: numbers have one writer all the same."""

from deploy.workers.signals import SignalsParts, signals_share
from detectors.verdict import DecisionWord
from ingest.clock import DrivenClock
from ingest.events import encoder
from ingest.log.interface import Entry, FencedError, TopicPartition
from ingest.log.memory import MemoryLog
from ingest.log.specs import topic_specs
from ingest.metrics import Metrics
from ingest.topics import Topics
from support.keyed import events_of, keyed_settings, wait_for
from support.switches import KEYS, SIGNER, START_MS, verdict

TOPICS = Topics("signals", 2, 1)
VERDICTS = TopicPartition(TOPICS.name("verdicts"), 0)


def test_two_owners_of_the_signals_never_give_one_number_twice() -> None:
    """A zombie goes on after another process has claimed its share: its next event is refused, whatever it knows."""
    log = MemoryLog(topic_specs(TOPICS), DrivenClock(START_MS))
    parts = SignalsParts(
        log=log,
        topics=TOPICS,
        settings=keyed_settings(TOPICS),
        signer=SIGNER,
        trusted=KEYS,
        words=None,
        clock=DrivenClock(START_MS),
        metrics=Metrics(),
    )
    ends: list[BaseException | None] = []
    zombie = signals_share(parts, 0, lambda _, error: ends.append(error))
    zombie.driver.start()
    zombie.driver.wait_started(10)
    heir = signals_share(parts, 0, lambda *_: None)
    heir.driver.start()
    heir.driver.wait_started(10)
    verdicts = [verdict(DecisionWord.HOLD), verdict(DecisionWord.KILL)]
    log.append([Entry(*VERDICTS, one.rollout.encode(), encoder.encode(one)) for one in verdicts])
    for record in log.read(VERDICTS, 0):
        zombie.feed.push(VERDICTS, [record])
        heir.feed.push(VERDICTS, [record])
    wait_for(lambda: len(events_of(log, TOPICS)) == 2 and len(ends) == 1, "two events and the zombie's end")
    zombie.driver.stop()
    heir.driver.stop()
    assert [event.switch.number for event in events_of(log, TOPICS)] == [1, 2]
    assert isinstance(ends[0], FencedError)
