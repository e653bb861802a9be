"""Kafka's log over partitions of several leaders: one waits for all of them at once, and an election moves them."""

import threading
import time
from collections.abc import Iterator

import pytest

from deploy.kafka.broker import LocalKafkaCluster
from ingest.clock import DrivenClock
from ingest.log.interface import Entry, LogUnavailableError, TopicPartition
from ingest.log.specs import TopicSpec
from support.kafka import require_kafka
from support.kafka_log import AgingKafkaLog, KafkaLogs, kafka_logs

PARTITIONS = 6
SPECS = (TopicSpec("events", PARTITIONS),)
SOURCES = [TopicPartition("events", partition) for partition in range(PARTITIONS)]

pytestmark = [pytest.mark.fault, pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalKafkaCluster]:
    require_kafka()
    with LocalKafkaCluster(3) as brokers:
        yield brokers


@pytest.fixture
def logs(cluster: LocalKafkaCluster) -> Iterator[KafkaLogs]:
    with kafka_logs(cluster, SPECS, DrivenClock(1), kafka_timeout_ms=3000) as logs:
        yield logs


class Follower(threading.Thread):
    """Waits for all partitions at once and notes what it reads, and when."""

    def __init__(self, log: AgingKafkaLog) -> None:
        super().__init__()
        self._log = log
        self.stop = threading.Event()
        self.read: dict[int, list[int]] = {partition: [] for partition in range(PARTITIONS)}
        self.at: dict[int, float] = {}

    def run(self) -> None:
        positions = dict.fromkeys(SOURCES, 0)
        while not self.stop.is_set():
            try:
                if not self._log.wait(positions, 0.5):
                    continue
                for source in SOURCES:
                    for record in self._log.read(source, positions[source]):
                        number = int(record.value or b"-1")
                        self.read[source.partition].append(number)
                        self.at[number] = time.monotonic()
                        positions[source] = record.offset + 1
            except LogUnavailableError:
                continue

    def wait_for(self, number: int, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while number not in self.at:
            assert time.monotonic() < deadline, f"{number} was not read"
            time.sleep(0.001)


def test_one_waits_for_several_leaders_and_an_election_goes_by(cluster: LocalKafkaCluster, logs: KafkaLogs) -> None:
    log, other = logs.open(), logs.open("follower")
    follower = Follower(other)
    follower.start()
    sent: dict[int, list[int]] = {partition: [] for partition in range(PARTITIONS)}
    took: list[float] = []

    def append(number: int) -> None:
        entry = Entry("events", number % PARTITIONS, None, b"%d" % number)
        deadline = time.monotonic() + 60
        while True:
            try:
                log.append([entry])
                break
            except LogUnavailableError:
                assert time.monotonic() < deadline
        acknowledged = time.monotonic()
        sent[number % PARTITIONS].append(number)
        follower.wait_for(number, 60)
        took.append(follower.at[number] - acknowledged)

    try:
        for number in range(120):
            append(number)
        assert sorted(took)[len(took) // 2] < 0.05, "nobody waits for another leader's silence"
        cluster.nodes[1].kill()
        for number in range(120, 180):
            append(number)
        cluster.nodes[1].start()
        for number in range(180, 240):
            append(number)
    finally:
        follower.stop.set()
        follower.join()
        log.close()
        other.close()
    for partition, numbers in sent.items():
        # An append whose answer was lost with its leader may have been repeated.
        assert list(dict.fromkeys(follower.read[partition])) == numbers
