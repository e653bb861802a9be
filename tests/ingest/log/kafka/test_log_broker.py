"""Kafka's log on a real broker: killed in mid-work, shared by processes, threads, groups and foreign producers."""

import gzip
import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.admin import ConfigResource, ConfigResourceType

from deploy.kafka.broker import LocalKafka
from ingest.clock import DrivenClock
from ingest.log.interface import Entry, Fence, FencedError, LogError, LogUnavailableError, Record, TopicPartition
from ingest.log.kafka.log import VALUE_BYTES_MAX, KafkaLog
from ingest.log.specs import TopicSpec
from support.kafka import kafka_settings
from support.kafka_log import AgingKafkaLog, KafkaLogs, kafka_logs

SPECS = (TopicSpec("events", 4), TopicSpec("state", 1, compacted=True))
EVENTS = TopicPartition("events", 0)
STATE = TopicPartition("state", 0)
CHILD = Path(__file__).parents[3] / "support" / "kafka_claimer.py"


@pytest.fixture
def logs(kafka: LocalKafka) -> Iterator[KafkaLogs]:
    with kafka_logs(kafka, SPECS, DrivenClock(1)) as logs:
        yield logs


@pytest.fixture
def log(logs: KafkaLogs) -> Iterator[AgingKafkaLog]:
    log = logs.open()
    yield log
    log.close()


def everything(log: AgingKafkaLog, source: TopicPartition) -> list[Record]:
    records: list[Record] = []
    offset = 0
    while got := log.read(source, offset):
        records += got
        offset = got[-1].offset + 1
    return records


class Writer(threading.Thread):
    """Appends numbers to a partition until it is told to stop, each until it is acknowledged."""

    def __init__(self, log: AgingKafkaLog, partition: int, fenced: bool) -> None:
        super().__init__()
        self._log = log
        self._partition = partition
        self._fence = log.claim(f"writer/{partition}") if fenced else None
        self.stop = threading.Event()
        self.acknowledged: dict[int, int] = {}
        self.failed = 0

    def run(self) -> None:
        number = 0
        while not self.stop.is_set():
            try:
                (offset,) = self._log.append([Entry("events", self._partition, None, b"%d" % number)], self._fence)
            except LogUnavailableError:
                self.failed += 1
                continue
            self.acknowledged[number] = offset
            number += 1
            time.sleep(0.002)


class Follower(threading.Thread):
    """Reads a partition as an owner does: waits, reads, goes on."""

    def __init__(self, log: AgingKafkaLog, partition: int) -> None:
        super().__init__()
        self._log = log
        self._source = TopicPartition("events", partition)
        self.stop = threading.Event()
        self.records: list[Record] = []

    def run(self) -> None:
        position = 0
        while True:
            try:
                if self._log.wait({self._source: position}, 0.2):
                    got = self._log.read(self._source, position)
                    self.records += got
                    position = got[-1].offset + 1
                elif self.stop.is_set():
                    return
            except LogUnavailableError:
                continue


def test_a_broker_killed_in_mid_work_loses_nothing_that_was_acknowledged(own_kafka: LocalKafka) -> None:
    with kafka_logs(own_kafka, SPECS, DrivenClock(1), kafka_timeout_ms=1000, kafka_transaction_ms=2000) as logs:
        log = logs.open()
        deadline = time.monotonic() + 60
        while True:
            try:
                writers = [Writer(log, 0, fenced=False), Writer(log, 1, fenced=True), Writer(log, 2, fenced=True)]
                break
            except LogUnavailableError:
                assert time.monotonic() < deadline, "the first transaction makes the broker create topics"
        followers = [Follower(log, partition) for partition in range(3)]
        for thread in (*writers, *followers):
            thread.start()
        for _ in range(2):
            time.sleep(1)
            own_kafka.kill()
            # Away for longer than a request may take, so that every writer fails at least once.
            time.sleep(1.5)
            own_kafka.start()
            back = [len(writer.acknowledged) for writer in writers]
            deadline = time.monotonic() + 60
            while any(len(writer.acknowledged) < count + 20 for writer, count in zip(writers, back, strict=True)):
                assert time.monotonic() < deadline, "a writer did not find the broker again"
                time.sleep(0.05)
        for thread in writers:
            thread.stop.set()
            thread.join(30)
        for follower in followers:
            follower.stop.set()
            follower.join(30)
        for writer, follower in zip(writers, followers, strict=True):
            assert writer.failed > 0
            at = {record.offset: int(record.value or b"-1") for record in follower.records}
            assert len(at) == len(follower.records)
            assert {offset: at.get(offset) for offset in writer.acknowledged.values()} == {
                offset: number for number, offset in writer.acknowledged.items()
            }
            assert list(writer.acknowledged.values()) == sorted(writer.acknowledged.values())
        for follower in followers[1:]:
            numbers = [int(record.value or b"-1") for record in follower.records]
            assert numbers == list(range(len(numbers))), "under a fence, exactly once"
        log.close()


def test_a_claim_ends_the_writer_of_another_process(kafka: LocalKafka, logs: KafkaLogs, log: AgingKafkaLog) -> None:
    settings = msgspec.json.encode(kafka_settings(kafka, logs.topics)).decode()
    # -P: its folder holds a `kafka.py` that is not the library.
    command = [sys.executable, "-P", str(CHILD), settings, f"{logs.prefix}events", "name/1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            said = [child.stdout.readline().strip() for _ in range(5)]
            fence = log.claim("name/1")
            log.append([Entry("events", 0, None, b"parent")], fence)
            said += [line.strip() for line in child.stdout]
        finally:
            child.kill()
    assert said[-1] == "fenced"
    values = [(record.value or b"").decode() for record in everything(log, EVENTS)]
    told = said[:-1]
    # A commit that was under way at the claim is finished before it, though its writer hears of the fence instead.
    assert values in ([*told, "parent"], [*told, f"child {len(told)}", "parent"]), "all that was told, then the parent"


def test_two_claims_at_the_same_moment_leave_one_writer(logs: KafkaLogs) -> None:
    opened = [logs.open(f"client-{number}") for number in range(4)]

    def claim(log: KafkaLog) -> Fence:
        while True:
            try:
                return log.claim("name")
            except LogUnavailableError:
                # Four that take one transactional id from each other hold each other up: the next call goes on.
                continue

    with ThreadPoolExecutor(4) as pool:
        fences = list(pool.map(claim, opened))
    assert len({fence.epoch for fence in fences}) == 4
    newest = max(fence.epoch for fence in fences)
    for log, fence in zip(opened, fences, strict=True):
        if fence.epoch == newest:
            log.append([Entry("events", 0, None, b"mine")], fence)
            log.check(fence)
        else:
            with pytest.raises(FencedError):
                log.append([Entry("events", 0, None, b"stale")], fence)
            with pytest.raises(FencedError):
                log.check(fence)
    assert [record.value for record in everything(opened[0], EVENTS)] == [b"mine"]
    for log in opened:
        log.close()


def test_a_fence_may_be_handed_to_another_log(logs: KafkaLogs, log: AgingKafkaLog) -> None:
    fence = log.claim("name")
    log.append([Entry("events", 0, None, b"1")], fence)
    other = logs.open("other")
    other.append([Entry("events", 0, None, b"2")], fence)
    log.append([Entry("events", 0, None, b"3")], fence)
    assert [record.value for record in everything(log, EVENTS)] == [b"1", b"2", b"3"]
    other.close()


def test_threads_append_and_read_beside_one_another(logs: KafkaLogs, log: AgingKafkaLog) -> None:
    def work(partition: int) -> list[int]:
        source = TopicPartition("events", partition)
        fence = log.claim(f"work/{partition}") if partition % 2 else None
        position, seen = 0, []
        for number in range(40):
            log.append([Entry("events", partition, None, b"%d" % number)], fence)
            assert log.wait({source: position}, 5)
            for record in log.read(source, position):
                seen.append(int(record.value or b"-1"))
                position = record.offset + 1
        return seen

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(4))) == [list(range(40))] * 4


def test_readers_of_threads_that_ended_are_closed(log: AgingKafkaLog) -> None:
    log.append([Entry("events", 0, None, b"1")])
    for _ in range(5):
        thread = threading.Thread(target=lambda: log.read(EVENTS, 0))
        thread.start()
        thread.join()
    log.read(EVENTS, 0)
    inner = log.inner
    assert len(inner._readers) <= 2  # type: ignore[attr-defined]  # there is no other way to see it


def test_random_reads_between_sequential_ones(log: AgingKafkaLog) -> None:
    for start in range(0, 1000, 50):
        log.append([Entry("events", 0, None, b"%d" % number) for number in range(start, start + 50)])
    assert [r.offset for r in log.read(EVENTS, 10, 5)] == [10, 11, 12, 13, 14]
    assert [r.offset for r in log.read(EVENTS, 15, 2)] == [15, 16]
    assert [r.offset for r in log.read(EVENTS, 3, 2)] == [3, 4]
    assert [r.offset for r in log.read(EVENTS, 998)] == [998, 999]
    assert log.read(EVENTS, 1000) == log.read(EVENTS, 5000) == []
    assert not log.wait({EVENTS: 5000}, 0.1)
    assert [int(r.value or b"") for r in everything(log, EVENTS)] == list(range(1000))


def test_holes_of_compaction_are_read_over(kafka: LocalKafka, logs: KafkaLogs, log: AgingKafkaLog) -> None:
    admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap.split(","))
    admin.alter_configs(
        [
            ConfigResource(
                ConfigResourceType.TOPIC,
                f"{logs.prefix}state",
                {"segment.bytes": "1048576", "segment.ms": "100", "min.cleanable.dirty.ratio": "0.01"},
            )
        ]
    )
    admin.close()
    fence = log.claim("w")
    for number in range(30):
        log.append([Entry("state", 0, key, b"%d" % number) for key in (b"a", b"b")], fence if number % 3 else None)
    deadline = time.monotonic() + 30
    reader = logs.open("reader")
    while len(everything(reader, STATE)) > 20:
        assert time.monotonic() < deadline, "the broker does not compact"
        # The newest segment is never compacted, so something has to come after it.
        time.sleep(0.3)
        log.append([Entry("state", 0, b"filler", b"f")])
        reader.close()
        reader = logs.open("reader")
    records = everything(reader, STATE)
    assert {r.key: r.value for r in records} == {b"a": b"29", b"b": b"29", b"filler": b"f"}
    first, end = reader.bounds(STATE)
    assert first == 0
    for offset in range(end):
        expected = next((r.offset for r in records if r.offset >= offset), None)
        assert [r.offset for r in reader.read(STATE, offset, 1)] == ([] if expected is None else [expected])
    reader.close()


def test_a_group_with_members_refuses_plain_commits_but_not_fenced_ones(
    kafka: LocalKafka, logs: KafkaLogs, log: AgingKafkaLog
) -> None:
    consumer = KafkaConsumer(
        f"{logs.prefix}events", bootstrap_servers=kafka.bootstrap.split(","), group_id="g", enable_auto_commit=False
    )
    deadline = time.monotonic() + 30
    while not consumer.assignment():
        consumer.poll(timeout_ms=100)
        assert time.monotonic() < deadline
    with pytest.raises(LogError, match="live members"):
        log.commit("g", {EVENTS: 1})
    log.commit("g", {EVENTS: 2}, log.claim("w"))
    assert log.committed("g", EVENTS) == 2
    consumer.close()
    log.commit("g", {EVENTS: 3})
    assert log.committed("g", EVENTS) == 3


@pytest.mark.parametrize("compression", [None, "gzip", "lz4", "zstd"])
def test_batches_of_other_producers_are_read(
    kafka: LocalKafka, logs: KafkaLogs, log: AgingKafkaLog, compression: str | None
) -> None:
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap.split(","), compression_type=compression, linger_ms=50)
    values = [json.dumps({"number": number}).encode() * 20 for number in range(50)] + [gzip.compress(b"x" * 50_000)]
    for value in values:
        producer.send(f"{logs.prefix}events", value, key=b"k", headers=[("h", b"v")], partition=0)
    producer.flush()
    producer.close()
    assert [(r.key, r.value) for r in everything(log, EVENTS)] == [(b"k", value) for value in values]


def test_the_largest_value_passes_and_a_larger_one_is_refused_before_anything_is_sent(log: AgingKafkaLog) -> None:
    largest = random.Random(1).randbytes(VALUE_BYTES_MAX)
    log.append([Entry("events", 0, None, largest), Entry("events", 0, b"k" * 1000, largest)])
    log.append([Entry("events", 1, None, largest)] * 3, log.claim("w"))
    with pytest.raises(LogError, match="smaller records"):
        log.append([Entry("events", 0, None, b"a"), Entry("events", 1, None, largest + b"x")])
    assert [r.value for r in everything(log, EVENTS)] == [largest, largest]
    assert [r.value for r in everything(log, TopicPartition("events", 1))] == [largest] * 3


def test_a_topic_that_was_not_created_is_named(kafka: LocalKafka, logs: KafkaLogs) -> None:
    more = KafkaLogs(kafka, (*SPECS, TopicSpec("missing", 1)), DrivenClock(1), kafka_timeout_ms=1000)
    log = more.open()
    with pytest.raises(LogError, match="cordon topics apply"):
        log.append([Entry("missing", 0, None, b"a")])
    log.close()
