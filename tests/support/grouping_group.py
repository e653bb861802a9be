"""Grouping workers as processes on a real broker, for fault tests: start, kill, pause, wait until all is counted."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec

from deploy.kafka.broker import LocalKafkaCluster
from ingest.clock import WallClock
from ingest.log.interface import Entry, Log, TopicPartition
from ingest.log.kafka.connection import connection_of
from ingest.log.kafka.log import KafkaLog
from ingest.log.specs import topic_specs
from ingest.metrics import Metrics
from ingest.progress import OwnerWord, place_name, progress_decoder
from ingest.topics import Topics
from support.grouping_history import History, Told
from support.kafka import kafka_settings

REPOSITORY = Path(__file__).parents[2]
SESSION_MS = 2500


class Worker:
    """One worker process; its log goes to a file."""

    def __init__(
        self, name: str, kafka: LocalKafkaCluster, topics: Topics, folder: Path, more: Mapping[str, object]
    ) -> None:
        known = {"worker_name": name, "kafka_session_ms": SESSION_MS, "devices_max": 400_000, "snapshot_seconds": 20}
        settings = kafka_settings(kafka, topics, **(known | dict(more)))
        self.name, self.log_file = name, folder / f"{name}.log"
        environment = os.environ | {"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests'}"}
        command = [sys.executable, "-m", "support.grouping_worker", msgspec.json.encode(settings).decode()]
        with self.log_file.open("ab") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=out, env=environment)

    def kill(self) -> None:
        """End it as a power cut does."""
        assert self.process.poll() is None, f"{self.name} had ended by itself: {self.tail()}"
        self.process.kill()
        self.process.wait()

    def pause(self) -> None:
        """Stop it where it stands."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it go on."""
        self.process.send_signal(signal.SIGCONT)

    def leave(self) -> None:
        """End it in order."""
        self.process.terminate()
        assert self.process.wait(30) == 0, f"{self.name} did not end in order: {self.tail()}"

    def tail(self) -> str:
        """Return the end of what it logged."""
        return self.log_file.read_text()[-3000:]


class Group:
    """Workers of one lane, and the test's own view of the lane's log."""

    def __init__(self, kafka: LocalKafkaCluster, topics: Topics, folder: Path) -> None:
        self._kafka, self._folder, self.topics = kafka, folder, topics
        settings = kafka_settings(kafka, topics)
        self.log: Log = KafkaLog(
            connection_of(settings), topic_specs(topics), WallClock(), Metrics(), lane=topics.lane, client="test"
        )
        self.history = History(topics)
        self._workers: list[Worker] = []

    def worker(self, name: str, **more: object) -> Worker:
        """Start a worker; under a name used before it is another process that appends to the same file."""
        worker = Worker(name, self._kafka, self.topics, self._folder, more)
        self._workers.append(worker)
        return worker

    def feed(self, turns: int, seconds: float = 0.0) -> None:
        """Append so many turns of the history, spread over a time."""
        for _ in range(turns):
            self.log.append(self.history.step())
            time.sleep(seconds / turns)

    def append(self, *entries: Entry) -> list[int]:
        """Append to the lane's log."""
        return self.log.append(entries)

    def words(self) -> dict[str, OwnerWord]:
        """Return the newest word of each share."""
        newest: dict[str, OwnerWord] = {}
        for record in self.read("progress", 0):
            word = progress_decoder.decode(record.value or b"")
            if word.owner not in newest or word.generation >= newest[word.owner].generation:
                newest[word.owner] = word
        return newest

    def read(self, word: str, partition: int):  # type: ignore[no-untyped-def]
        """Yield what a topic's partition holds now."""
        source = TopicPartition(self.topics.name(word), partition)
        offset, end = self.log.bounds(source)
        while offset < end:
            records = self.log.read(source, offset)
            if not records:
                return
            yield from records
            offset = records[-1].offset + 1

    def wait_counted(self, seconds: float = 60.0) -> None:
        """Wait until every share has said that it is through with all there is."""
        ends = {
            place_name(name, partition): self.log.bounds(TopicPartition(name, partition))[1]
            for name in (self.topics.name("activity"), self.topics.name("crashes"))
            for partition in range(self.topics.device_partitions)
        }
        deadline = time.monotonic() + seconds
        while True:
            reached: dict[str, int] = {}
            for word in self.words().values():
                reached.update(word.positions)
            if all(reached.get(place, 0) >= end for place, end in ends.items()):
                return
            failed = [
                worker.name
                for worker in self._workers
                if worker.process.poll() not in (None, 0, -signal.SIGKILL, -signal.SIGTERM)
            ]
            if failed or time.monotonic() > deadline:
                logs = "\n".join(f"--- {worker.name}\n{worker.tail()}" for worker in self._workers)
                raise AssertionError(
                    f"not all was counted within {seconds:g} s, or {failed} failed: {reached} of {ends}\n{logs}"
                )
            time.sleep(0.2)

    def told(self) -> Told:
        """Return what a reader of the cohort topic has been told."""
        told = Told(self.history.rollout)
        told.read(self.read("cohorts", 0))
        return told

    def check_exact(self) -> Told:
        """Wait until all is counted, and hold it to the model."""
        self.wait_counted()
        told = self.told()
        assert told.at_risk == self.history.expected_at_risk()
        assert told.crashes == self.history.expected_crashes()
        assert len(told.crashes) > 5
        return told

    def end(self) -> None:
        """End all processes."""
        for worker in self._workers:
            if worker.process.poll() is None:
                worker.process.kill()
                worker.process.wait()
        self.log.close()


@contextmanager
def group_on(kafka: LocalKafkaCluster, topics: Topics, folder: Path) -> Iterator[Group]:
    """Yield a group without workers."""
    group = Group(kafka, topics, folder)
    try:
        yield group
    finally:
        group.end()
