"""Appends without a fence from several threads share requests, and what goes wrong with one is that caller's alone."""

import random
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType

from deploy.kafka.broker import LocalKafka
from ingest.clock import DrivenClock
from ingest.log.interface import Entry, LogError, LogUnavailableError, TopicPartition
from ingest.log.kafka.log import KafkaLog
from ingest.log.specs import TopicSpec
from support.flaky_proxy import PRODUCE, FlakyProxy, broker_behind_proxy
from support.kafka_log import AgingKafkaLog, KafkaLogs, kafka_logs

SPECS = (TopicSpec("events", 4), TopicSpec("small", 1))
SOURCES = [TopicPartition("events", partition) for partition in range(4)]
TIMEOUT_MS = 3000


@pytest.fixture(scope="module")
def proxied() -> Iterator[tuple[LocalKafka, FlakyProxy]]:
    from support.kafka import require_kafka

    require_kafka()
    with broker_behind_proxy() as both:
        yield both


@pytest.fixture
def logs(proxied: tuple[LocalKafka, FlakyProxy]) -> Iterator[KafkaLogs]:
    kafka, proxy = proxied
    bootstrap = f"127.0.0.1:{proxy.port}"
    with kafka_logs(kafka, SPECS, DrivenClock(1), kafka_bootstrap=bootstrap, kafka_timeout_ms=TIMEOUT_MS) as logs:
        yield logs
        proxy.forget()
        proxy.release()
        proxy.accept()


@pytest.fixture
def log(logs: KafkaLogs) -> Iterator[AgingKafkaLog]:
    log = logs.open()
    log.append([Entry("events", 0, None, b"first")])
    yield log
    log.close()


class Callers:
    """Threads that append, one entry list each, and what became of it."""

    def __init__(self, log: AgingKafkaLog, appends: dict[str, list[Entry]]) -> None:
        self.offsets: dict[str, list[int]] = {}
        self.errors: dict[str, Exception] = {}
        self._log = log
        self._threads = [threading.Thread(target=self._append, args=each) for each in appends.items()]

    def _append(self, name: str, entries: list[Entry]) -> None:
        try:
            self.offsets[name] = self._log.append(entries)
        except LogError as error:
            self.errors[name] = error

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()


def event(value: str, partition: int = 0) -> Entry:
    return Entry("events", partition, None, value.encode())


def kafka_log(log: AgingKafkaLog) -> KafkaLog:
    """Return the log that is tested."""
    assert isinstance(log.inner, KafkaLog)
    return log.inner


def queued(log: AgingKafkaLog, proxy: FlakyProxy, appends: dict[str, list[Entry]]) -> Callers:
    """Have callers queue up behind a request that the network keeps back."""
    proxy.hold(PRODUCE)
    first = threading.Thread(target=log.append, args=([event("kept back")],))
    first.start()
    assert proxy.wait_held(10)
    callers = Callers(log, appends)
    callers.start()
    queue = kafka_log(log)._producer._commits._queue
    deadline = time.monotonic() + 10
    while len(queue) < len(appends):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    return callers


def values(log: AgingKafkaLog, source: TopicPartition) -> dict[int, bytes | None]:
    found: dict[int, bytes | None] = {}
    while got := log.read(source, max(found, default=-1) + 1):
        found.update((record.offset, record.value) for record in got)
    return found


def test_those_who_queue_share_one_request(
    log: AgingKafkaLog, proxied: tuple[LocalKafka, FlakyProxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    requests: list[str] = []
    wire = kafka_log(log)._producer_wire
    send: Callable[..., object] = wire.send
    appends = {
        f"c{number}": [event(f"c{number}.{part}", (number + part) % 4) for part in range(3)] for number in range(20)
    }
    callers = queued(log, proxied[1], appends)

    def counted(node: object, request: object, seconds: float) -> object:
        requests.append(type(request).__name__)
        return send(node, request, seconds)

    monkeypatch.setattr(wire, "send", counted)
    proxied[1].release()
    callers.join()
    assert requests == ["ProduceRequest"], "twenty callers, one request"
    assert not callers.errors
    there = {source: values(log, source) for source in SOURCES}
    for name, entries in appends.items():
        for entry, offset in zip(entries, callers.offsets[name], strict=True):
            assert there[TopicPartition("events", entry.partition)][offset] == entry.value
    assert sum(map(len, there.values())) == 2 + 60, "each is there once"


@pytest.mark.usefixtures("log")
def test_what_is_refused_of_one_is_refused_that_one_alone(
    log: AgingKafkaLog, logs: KafkaLogs, proxied: tuple[LocalKafka, FlakyProxy]
) -> None:
    kafka, proxy = proxied
    _limit(kafka, logs.prefix + "small", 4096)
    noise = random.Random(1)
    small = {f"s{number}": [Entry("small", 0, None, noise.randbytes(1500))] for number in range(4)}
    large = {"large": [event("beside the large one"), Entry("small", 0, None, noise.randbytes(8000))]}
    others = {f"o{number}": [event(f"o{number}", number)] for number in range(4)}
    callers = queued(log, proxy, small | large | others)
    proxy.release()
    callers.join()
    assert set(callers.errors) == {"large"}
    assert "max.message.bytes" in str(callers.errors["large"])
    assert not isinstance(callers.errors["large"], LogUnavailableError)
    there = values(log, TopicPartition("small", 0))
    assert [there[callers.offsets[name][0]] for name in small] == [entries[0].value for entries in small.values()]
    assert len(there) == 4, "together they were too large for the topic, one by one they are there once each"
    for name, entries in others.items():
        source = TopicPartition("events", entries[0].partition)
        assert list(values(log, source).values()).count(entries[0].value) == 1, name
    log.append([event("goes on")])


def test_all_hear_in_time_that_kafka_is_away_and_nothing_late_comes_after(
    log: AgingKafkaLog, proxied: tuple[LocalKafka, FlakyProxy]
) -> None:
    proxy = proxied[1]
    callers = Callers(log, {f"c{number}": [event(f"c{number}", number % 4)] for number in range(8)})
    proxy.refuse()
    began = time.monotonic()
    callers.start()
    callers.join()
    assert len(callers.errors) == 8
    assert all(isinstance(error, LogUnavailableError) for error in callers.errors.values())
    assert time.monotonic() - began < 2 * TIMEOUT_MS / 1000
    proxy.accept()
    for source in SOURCES:
        (offset,) = log.append([event("after", source.partition)])
        assert list(values(log, source))[-1] == offset


@pytest.mark.slow
def test_each_caller_s_appends_stay_in_order_and_are_there_once_through_lost_answers(
    log: AgingKafkaLog, proxied: tuple[LocalKafka, FlakyProxy]
) -> None:
    proxy = proxied[1]
    acknowledged: dict[int, list[str]] = {}
    done = threading.Event()

    def work(caller: int) -> None:
        mine = acknowledged.setdefault(caller, [])
        for number in range(60):
            value = f"{caller}:{number}"
            log.append([event(value, caller % 4), event(value, (caller + 1) % 4)])
            mine.append(value)

    def lose() -> None:
        generator = random.Random(7)
        while not done.wait(0.05):
            generator.choice((proxy.lose_request, proxy.lose_answer))(PRODUCE)

    threads = [threading.Thread(target=work, args=(caller,)) for caller in range(8)]
    loser = threading.Thread(target=lose)
    loser.start()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    done.set()
    loser.join()
    proxy.forget()
    assert all(len(mine) == 60 for mine in acknowledged.values())
    there = {source: [str((value or b"").decode()) for value in values(log, source).values()] for source in SOURCES}
    for caller, mine in acknowledged.items():
        for source in (SOURCES[caller % 4], SOURCES[(caller + 1) % 4]):
            assert [value for value in there[source] if value.startswith(f"{caller}:")] == mine


def _limit(kafka: LocalKafka, topic: str, bytes_max: int) -> None:
    admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap.split(","))
    try:
        admin.alter_configs(
            [ConfigResource(ConfigResourceType.TOPIC, topic, configs={"max.message.bytes": str(bytes_max)})]
        )
    finally:
        admin.close()
