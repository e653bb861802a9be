"""Kafka's log on a network that fails: what was acknowledged stays, in order; fenced appends happen exactly once."""

import random
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from deploy.kafka.broker import LocalKafka
from ingest.clock import DrivenClock
from ingest.log.interface import Entry, Fence, FencedError, LogUnavailableError, Record, TopicPartition
from ingest.log.specs import TopicSpec
from support.flaky_proxy import (
    ADD_PARTITIONS,
    END_TRANSACTION,
    PRODUCE,
    TRANSACTION_OFFSETS,
    FlakyProxy,
    broker_behind_proxy,
)
from support.kafka_log import AgingKafkaLog, KafkaLogs, kafka_logs

SPECS = (TopicSpec("events", 2), TopicSpec("state", 1, compacted=True))
EVENTS, EVENTS_1 = TopicPartition("events", 0), TopicPartition("events", 1)
STATE = TopicPartition("state", 0)
TIMEOUT_MS = 1000
TRANSACTION_MS = 2000


@pytest.fixture(scope="module")
def proxied() -> Iterator[tuple[LocalKafka, FlakyProxy]]:
    from support.kafka import require_kafka

    require_kafka()
    with broker_behind_proxy() as both:
        # The first transaction and the first commit of a broker's life make it create topics; nobody is timed then.
        with kafka_logs(both[0], SPECS, DrivenClock(1), kafka_timeout_ms=60_000) as logs:
            log = logs.open()
            log.commit("g", {EVENTS: 0}, log.claim("w"))
            log.close()
        yield both


@pytest.fixture
def proxy(proxied: tuple[LocalKafka, FlakyProxy]) -> Iterator[FlakyProxy]:
    yield proxied[1]
    proxied[1].forget()
    proxied[1].release()
    proxied[1].accept()


@pytest.fixture
def logs(proxied: tuple[LocalKafka, FlakyProxy], proxy: FlakyProxy) -> Iterator[KafkaLogs]:
    with kafka_logs(
        proxied[0],
        SPECS,
        DrivenClock(1),
        kafka_bootstrap=f"127.0.0.1:{proxy.port}",
        kafka_timeout_ms=TIMEOUT_MS,
        kafka_transaction_ms=TRANSACTION_MS,
    ) as logs:
        yield logs
        proxy.accept()


@pytest.fixture
def log(logs: KafkaLogs) -> Iterator[AgingKafkaLog]:
    log = logs.open()
    yield log
    log.close()


def event(value: bytes | int, source: TopicPartition = EVENTS) -> Entry:
    return Entry(source.topic, source.partition, None, value if isinstance(value, bytes) else b"%d" % value)


def everything(log: AgingKafkaLog, source: TopicPartition = EVENTS) -> list[Record]:
    records: list[Record] = []
    offset = 0
    while got := log.read(source, offset):
        records += got
        offset = got[-1].offset + 1
    return records


def values(log: AgingKafkaLog, source: TopicPartition = EVENTS) -> list[bytes | None]:
    return [record.value for record in everything(log, source)]


def until(call: Callable[[], object], seconds: float = 20.0) -> None:
    """Repeat a call until the log takes it."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            call()
        except LogUnavailableError:
            if time.monotonic() > deadline:
                raise
        else:
            return


def test_a_broker_that_is_away_at_the_start_is_found_when_it_comes(logs: KafkaLogs, proxy: FlakyProxy) -> None:
    proxy.refuse()
    began = time.monotonic()
    log = logs.open()
    assert time.monotonic() - began < 0.1, "the constructor connects to nothing"
    with pytest.raises(LogUnavailableError, match="kafka_bootstrap"):
        log.append([event(1)])
    assert time.monotonic() - began < TIMEOUT_MS / 1000 + 1
    assert logs.metrics.value("kafka_up") == 0
    proxy.accept()
    log.append([event(2)])
    assert logs.metrics.value("kafka_up") == 1
    assert values(log) == [b"2"]
    log.close()


@pytest.mark.parametrize("fault", ["refuse", "stall"])
def test_every_call_ends_in_time_while_the_network_is_away_and_works_again_after(
    log: AgingKafkaLog, logs: KafkaLogs, proxy: FlakyProxy, fault: str
) -> None:
    fence = log.claim("w")
    log.append([event(1)])
    log.append([event(2)], fence)
    log.commit("g", {EVENTS: 1})
    calls: dict[str, Callable[[], object]] = {
        "append": lambda: log.append([event(3)]),
        "fenced append": lambda: log.append([event(4)], fence),
        "read": lambda: log.read(EVENTS_1, 0),
        "bounds": lambda: log.bounds(EVENTS),
        "wait": lambda: log.wait({EVENTS_1: 0}, 0.1),
        "check": lambda: log.check(fence),
        "commit": lambda: log.commit("g", {EVENTS: 2}),
        "fenced commit": lambda: log.commit("g", {EVENTS: 2}, fence),
        "committed": lambda: log.committed("g", EVENTS),
        "claim": lambda: log.claim("v"),
    }
    for call in calls.values():
        call()
    getattr(proxy, fault)()
    took: dict[str, float] = {}

    def attempt(name: str, call: Callable[[], object]) -> None:
        began = time.monotonic()
        with pytest.raises(LogUnavailableError):
            call()
        took[name] = time.monotonic() - began

    threads = [threading.Thread(target=attempt, args=each) for each in calls.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(took) == set(calls)
    assert max(took.values()) < 2 * TIMEOUT_MS / 1000, took
    assert logs.metrics.value("kafka_up") == 0
    proxy.accept()
    for call in calls.values():
        began = time.monotonic()
        call()
        assert time.monotonic() - began < TIMEOUT_MS / 1000


@pytest.mark.parametrize("key", [PRODUCE, ADD_PARTITIONS, END_TRANSACTION, TRANSACTION_OFFSETS])
@pytest.mark.parametrize("lost", ["lose_request", "lose_answer"])
def test_a_connection_lost_in_mid_request_is_not_noticed(
    log: AgingKafkaLog, proxy: FlakyProxy, key: int, lost: str
) -> None:
    fence = log.claim("w")
    for number in range(3):
        getattr(proxy, lost)(key)
        log.append([event(number)])
        log.append([event(number, EVENTS_1), Entry("state", 0, b"k", b"%d" % number)], fence)
        log.commit("g", {EVENTS: number + 1}, fence)
    assert values(log) == values(log, EVENTS_1) == values(log, STATE) == [b"0", b"1", b"2"]
    assert log.committed("g", EVENTS) == 3


def test_what_failed_can_not_come_after_what_was_acknowledged_later(log: AgingKafkaLog, proxy: FlakyProxy) -> None:
    log.append([event(0)])
    proxy.hold(PRODUCE)
    with pytest.raises(LogUnavailableError):
        log.append([event(1)])
    assert proxy.wait_held(0)
    log.append([event(2)])
    proxy.release()
    time.sleep(0.3)
    log.append([event(3)])
    assert values(log) == [b"0", b"2", b"3"], "the batch kept back arrived last and was refused"


class TestOutcomeUnknown:
    """A fenced append whose end nobody told."""

    def test_committed_and_repeated_is_there_once(self, log: AgingKafkaLog, proxy: FlakyProxy) -> None:
        fence = log.claim("w")
        entries = [event(1), event(2, EVENTS_1), Entry("state", 0, b"k", b"v")]
        self._lose_the_end(log, proxy, lambda: log.append(entries, fence), proxy.lose_answer)
        proxy.accept()
        offsets = log.append(list(entries), fence)
        assert offsets == [0, 0, 0]
        assert log.append([event(3)], fence)[0] > 0
        assert (values(log), values(log, EVENTS_1), values(log, STATE)) == ([b"1", b"3"], [b"2"], [b"v"])

    def test_committed_and_followed_by_something_else(self, log: AgingKafkaLog, proxy: FlakyProxy) -> None:
        fence = log.claim("w")
        self._lose_the_end(log, proxy, lambda: log.append([event(1)], fence), proxy.lose_answer)
        proxy.accept()
        log.append([event(2)], fence)
        assert values(log) == [b"1", b"2"]

    @pytest.mark.parametrize("away_seconds", [0.0, TRANSACTION_MS / 1000 + 1.5])
    def test_not_committed_and_repeated_is_there_once(
        self, log: AgingKafkaLog, proxy: FlakyProxy, away_seconds: float
    ) -> None:
        fence = log.claim("w")
        log.append([event(0)], fence)
        self._lose_the_end(log, proxy, lambda: log.append([event(1)], fence), proxy.lose_request)
        time.sleep(away_seconds)
        proxy.accept()
        until(lambda: log.append([event(1)], fence))
        log.append([event(2)], fence)
        assert values(log) == [b"0", b"1", b"2"]

    def test_another_transaction_in_that_partition_does_not_make_it_look_aborted(
        self, log: AgingKafkaLog, logs: KafkaLogs, proxy: FlakyProxy
    ) -> None:
        fence, other = log.claim("w"), logs.open("other")
        theirs = other.claim("v")
        self._lose_the_end(other, proxy, lambda: other.append([event(b"theirs")], theirs), proxy.lose_request)
        other.close()
        proxy.accept()
        # Theirs is open before ours and hides it until the coordinator aborts it.
        self._lose_the_end(log, proxy, lambda: log.append([event(b"ours")], fence), proxy.lose_answer)
        proxy.accept()
        until(lambda: log.append([event(b"ours")], fence))
        assert values(log) == [b"ours"]

    def test_claimed_by_another_meanwhile(self, log: AgingKafkaLog, logs: KafkaLogs, proxy: FlakyProxy) -> None:
        fence, other = log.claim("w"), logs.open("other")
        self._lose_the_end(log, proxy, lambda: log.append([event(1)], fence), proxy.lose_answer)
        proxy.accept()
        theirs = other.claim("w")
        for call in (
            lambda: log.append([event(1)], fence),
            lambda: log.commit("g", {EVENTS: 1}, fence),
            lambda: log.check(fence),
        ):
            with pytest.raises(FencedError):
                call()
        other.append([event(2)], theirs)
        assert values(other) == [b"1", b"2"]
        other.close()

    def _lose_the_end(
        self,
        log: AgingKafkaLog,
        proxy: FlakyProxy,
        call: Callable[[], object],
        lose: Callable[[int, int], None],
    ) -> None:
        """Let the network go at the transaction's end, and not come back before the call has given up."""
        # Every try until the network is gone: a quick second one would get through on a busy machine.
        lose(END_TRANSACTION, 1000)
        gone = threading.Thread(target=_refuse_once_lost, args=(proxy,))
        gone.start()
        with pytest.raises(LogUnavailableError):
            call()
        gone.join()
        proxy.forget()


def _refuse_once_lost(proxy: FlakyProxy) -> None:
    assert proxy.wait_lost(10)
    proxy.refuse()


def test_fenced_numbers_are_written_exactly_once_through_random_faults(log: AgingKafkaLog, proxy: FlakyProxy) -> None:
    generator = random.Random(2024)
    fence = log.claim("numbers")
    failed = 0
    for number in range(80):
        fault = generator.random()
        key = generator.choice((PRODUCE, ADD_PARTITIONS, END_TRANSACTION))
        if fault < 0.25:
            generator.choice((proxy.lose_request, proxy.lose_answer))(key, 1)
        elif fault < 0.35:
            generator.choice((proxy.lose_request, proxy.lose_answer))(key, 1000)
        while True:
            try:
                log.append([event(number), event(number, EVENTS_1)], fence)
                break
            except LogUnavailableError:
                failed += 1
                proxy.forget()
    proxy.forget()
    assert failed >= 5, "the faults were not all absorbed"
    assert values(log) == values(log, EVENTS_1) == [b"%d" % number for number in range(80)]


def test_open_and_aborted_transactions_are_not_read(log: AgingKafkaLog, logs: KafkaLogs, proxy: FlakyProxy) -> None:
    reader, fence = logs.open("reader"), log.claim("w")
    log.append([event(b"before")])
    proxy.lose_request(END_TRANSACTION)
    gone = threading.Thread(target=_refuse_once_lost, args=(proxy,))
    gone.start()
    with pytest.raises(LogUnavailableError):
        log.append([event(b"never committed")], fence)
    gone.join()
    proxy.accept()
    log.append([event(b"after")])
    assert reader.bounds(EVENTS) == (0, 1), "the end is the last stable offset"
    assert values(reader) == [b"before"]
    assert not reader.wait({EVENTS: 1}, 0.2)
    assert reader.wait({EVENTS: 1}, 10), "the coordinator ends what its writer does not"
    assert [(record.offset, record.value) for record in reader.read(EVENTS, 1)] == [(2, b"after")]
    assert values(reader) == [b"before", b"after"]
    reader.close()


def test_a_fence_survives_an_outage_longer_than_its_transactions(log: AgingKafkaLog, proxy: FlakyProxy) -> None:
    fence: Fence = log.claim("w")
    proxy.lose_request(PRODUCE, 1000)
    with pytest.raises(LogUnavailableError):
        log.append([event(1)], fence)
    time.sleep(TRANSACTION_MS / 1000 + 1.5)
    proxy.forget()
    log.append([event(1)], fence)
    assert values(log) == [b"1"]
