"""What a process says on stderr when nobody asked for more."""

import logging

from deploy.serving.logs import OUTAGE_SECONDS, Calm
from ingest.log.interface import LogUnavailableError

AWAY = LogUnavailableError("Kafka at b:9092 gave no answer within 10.0 s")


def line(name: str, level: int, message: str, *arguments: object, back: bool = False) -> logging.LogRecord:
    record = logging.LogRecord(name, level, __file__, 1, message, arguments, None)
    if back:
        record.log_is_back = True
    return record


class Hands:
    """A clock that is set by hand."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_libraries_are_heard_only_when_they_can_not_go_on() -> None:
    calm = Calm()
    for name in ("kafka.net.connection", "aiokafka", "faust.app.base", "mode"):
        assert not calm.filter(line(name, logging.ERROR, "Connection refused"))
        assert calm.filter(line(name, logging.CRITICAL, "out of memory"))
    assert calm.filter(line("kafkaesque", logging.WARNING, "somebody else"))
    assert calm.filter(line("deploy.workers.driver", logging.ERROR, "%s failed", "grouping/1"))


def test_an_outage_is_told_of_once_now_and_then_and_at_its_end() -> None:
    hands = Hands()
    calm = Calm(hands)
    shares = [line("deploy.workers.driver", logging.WARNING, "grouping/%d: %s", number, AWAY) for number in range(16)]
    back = line("ingest.log.kafka.log", logging.WARNING, "Kafka answers again", back=True)
    assert not calm.filter(back), "nobody was told that it was away"
    assert [calm.filter(each) for each in shares] == [True] + [False] * 15
    hands.now += OUTAGE_SECONDS - 0.1
    assert not calm.filter(shares[0])
    hands.now += 0.1
    assert calm.filter(shares[0]), "it lasts"
    assert calm.filter(back)
    assert not calm.filter(back)
    assert not calm.filter(shares[1]), "a flapping network is no flood"
    assert calm.filter(line("ingest.gateway.spool.log", logging.ERROR, "flushes go to the spool")), "not the same news"
