"""Records that no stage can use, written by a foreign producer while an incident is under way."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from confluent_kafka import Producer

from ingest.log.interface import Log, Record, TopicPartition
from ingest.topics import TOPICS, Topics

GOLDEN = Path(__file__).parents[1] / "golden" / "v1"
# Which stage reads a topic, and a record of it that would be usable.
READERS = {
    "crashes": ("grouping", "batch"),
    "activity": ("grouping", "activity_batch"),
    "cohorts": ("detection", "step"),
    "verdicts": ("signals", "verdict"),
    "commands": ("signals", "command"),
    "intake": ("gateway", "bsod"),
}
Place = tuple[str, int, int]


def poisons(word: str) -> list[bytes]:
    """Return values that the topic's reader can't use: no JSON, cut, of wrong types, of a schema still to come."""
    golden = (GOLDEN / f"{READERS[word][1]}.json").read_bytes().rstrip()
    return [
        b"",
        b"\xff\xfe\x00poison",
        golden[: len(golden) // 2],
        b"[" * 50_000,
        b'{"kind":7,"schema":[]}',
        _of_tomorrow(word, golden),
    ]


def _of_tomorrow(word: str, golden: bytes) -> bytes:
    """Return what a release may write that is not made yet."""
    # A command is read whatever its number: what a person asks for must not fail for that.
    old, new = (b'"hold"', b'"rewind"') if word == "commands" else (b'"schema":1', b'"schema":999')
    assert golden.count(old) >= 1, word
    return golden.replace(old, new, 1)


class Poisoner:
    """A foreign producer of poison.

    Attributes:
        placed: where each record lies, and which stage has to bury it.
    """

    def __init__(self, bootstrap: str, topics: Topics) -> None:
        """Write nothing before `put`."""
        self._producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "message.timeout.ms": 20_000})
        self._topics = topics
        self._lock = threading.Lock()
        self.placed: dict[Place, str] = {}

    def put(self) -> None:
        """Write every poison to every partition of every topic that is read."""
        with self._lock:
            for word, (stage, _) in READERS.items():
                topic = next(one for one in TOPICS if one.word == word)
                for number in range(self._topics.partitions(topic)):
                    for value in poisons(word):
                        self._put(self._topics.name(word), number, value, stage)
            assert self._producer.flush(20) == 0

    def _put(self, topic: str, partition: int, value: bytes, stage: str) -> None:
        def delivered(error: Any, message: Any) -> None:
            assert error is None, error
            self.placed[message.topic(), message.partition(), message.offset()] = stage

        # A compacted topic takes nothing without a key.
        self._producer.produce(topic, value, key=b"poison-%d" % len(value), partition=partition, on_delivery=delivered)


class WithoutPoison:
    """A log as it would be read had nobody poisoned it: only what `sameness` asks of a log."""

    def __init__(self, log: Log, placed: Sequence[Place] | dict[Place, str]) -> None:
        self._log, self._placed = log, frozenset(placed)

    def bounds(self, source: TopicPartition) -> tuple[int, int]:
        """Return the bounds."""
        return self._log.bounds(source)

    def read(self, source: TopicPartition, offset: int) -> list[Record]:
        """Return the next records that are no poison."""
        while records := self._log.read(source, offset):
            kept = [one for one in records if (*source, one.offset) not in self._placed]
            if kept:
                return kept
            offset = records[-1].offset + 1
        return []
