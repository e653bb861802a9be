"""Detection and signals as Faust agents on a real broker: what comes out is what the embedded stages say."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from kafka import KafkaProducer

from deploy.kafka.broker import LocalKafka
from deploy.workers.faust_app import group_of
from deploy.workers.keyed import KeyedShare, OnEnd
from deploy.workers.signals import SignalsParts, signals_share
from detectors.verdict import DecisionWord
from ingest.clock import WallClock
from ingest.events import encoder
from ingest.log.interface import Entry, FencedError, Log, TopicPartition
from ingest.log.kafka.connection import connection_of
from ingest.log.kafka.log import KafkaLog
from ingest.log.specs import topic_specs
from ingest.metrics import Metrics
from ingest.settings import Settings
from ingest.topics import Topics, keyed_partition_of
from signals.events import Action, Command
from signals.killswitch.verify import VerifiedEvent
from support import keyed_child
from support.cohorts import FleetPlan, rollout, simulate
from support.kafka import kafka_settings, lane_on
from support.keyed import (
    BLIND_SECONDS,
    Embedded,
    KeyedWorker,
    declare,
    entries_of,
    events_of,
    latest_of,
    values_of,
    wait_for,
)
from support.switches import KEYS, ROLLOUT, SIGNER, verdict

ROOT = Path(__file__).parents[3]
DRILLED = "r-drill"
JULY_19 = FleetPlan(seed=19, devices=85_000, ratio=1e6, background=2e-8, seconds=60)


@pytest.fixture
def topics(kafka: LocalKafka) -> Iterator[Topics]:
    """A lane with two keyed partitions."""
    with lane_on(kafka, device_partitions=2, keyed_partitions=2, prefix="agents") as topics:
        yield topics


@pytest.fixture
def settings(kafka: LocalKafka, topics: Topics) -> Settings:
    return kafka_settings(kafka, topics, blind_seconds=BLIND_SECONDS, snapshot_seconds=1, kafka_session_ms=6000)


@pytest.fixture
def log(settings: Settings, topics: Topics) -> Iterator[KafkaLog]:
    log = kafka_log(settings, topics, "test")
    yield log
    log.close()


@contextmanager
def child(settings: Settings, *stages: str) -> Iterator["subprocess.Popen[str]"]:
    """Run a worker in a process of its own; SIGKILL it at the end, if nobody has."""
    path = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
    command = [sys.executable, "-P", str(Path(keyed_child.__file__)), msgspec.json.encode(settings).decode(), *stages]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def require_whole_chains(events: Sequence[VerifiedEvent]) -> None:
    """Check that each rollout's numbers are 1, 2, 3 ... and that each event names the one before it."""
    by_rollout: dict[str, list[VerifiedEvent]] = {}
    for event in events:
        by_rollout.setdefault(event.switch.rollout, []).append(event)
    for chain in by_rollout.values():
        assert [event.switch.number for event in chain] == list(range(1, len(chain) + 1))
        assert [event.switch.previous_digest for event in chain] == ["", *(event.digest for event in chain[:-1])]


def ask(log: Log, topics: Topics, number: int, action: Action) -> None:
    """Append a person's command about the drilled rollout."""
    told = Command(
        command_id=f"c-{number}",
        rollout=DRILLED,
        action=action,
        name="Ada",
        reason="a drill",
        at_ms=1_721_362_140_000,
        principal="ops-1",
        roles=["operator"],
    )
    partition = keyed_partition_of(DRILLED, topics.keyed_partitions)
    log.append([Entry(topics.name("commands"), partition, DRILLED.encode(), encoder.encode(told))])


def kafka_log(settings: Settings, topics: Topics, client: str) -> KafkaLog:
    return KafkaLog(
        connection_of(settings), topic_specs(topics), WallClock(), Metrics(), lane=topics.lane, client=client
    )


def verdicts_of(log: KafkaLog, topics: Topics, number: int) -> list[bytes]:
    return values_of(log, TopicPartition(topics.name("verdicts"), number))


@pytest.mark.slow
def test_steps_become_the_verdicts_and_the_signed_events_of_the_embedded_stages(
    settings: Settings, topics: Topics, log: KafkaLog
) -> None:
    steps = list(simulate(JULY_19))
    embedded = Embedded(topics)
    embedded.run(rollout(), steps=steps)
    expected = events_of(embedded.log, topics)
    assert [event.switch.decision for event in expected][-1] == "kill"
    declare(log, topics, rollout())
    entries = entries_of(topics, steps)
    log.append(entries[:200])
    with KeyedWorker(settings, topics, log, ["detection", "signals"]):
        wait_for(lambda: any(verdicts_of(log, topics, number) for number in (0, 1)), "a first verdict")
        for begin in range(200, len(entries), 20):
            log.append(entries[begin : begin + 20])
        wait_for(lambda: len(events_of(log, topics)) >= len(expected), "all events")
        last = [latest_of(embedded.log, TopicPartition(topics.name("verdicts"), number)) for number in (0, 1)]
        wait_for(
            lambda: [latest_of(log, TopicPartition(topics.name("verdicts"), number)) for number in (0, 1)] == last,
            "the last verdict",
        )
    for number in (0, 1):
        assert verdicts_of(log, topics, number) == values_of(
            embedded.log, TopicPartition(topics.name("verdicts"), number)
        )
    assert [event.switch for event in events_of(log, topics)] == [event.switch for event in expected]
    assert not values_of(log, TopicPartition(topics.name("deadletter"), 0))


@pytest.mark.slow
@pytest.mark.fault
@pytest.mark.timeout(180)
def test_sigkills_in_mid_incident_leave_numbers_without_holes_or_repeats(
    settings: Settings, topics: Topics, log: KafkaLog
) -> None:
    """Three processes die one after the other while a rollout goes bad and a person drills another's switch."""
    steps = list(simulate(JULY_19))
    embedded = Embedded(topics)
    embedded.run(rollout(), steps=steps)
    draw = random.Random(19)
    settings = msgspec.structs.replace(settings, kafka_session_ms=1000)
    declare(log, topics, rollout(), rollout(rollout=DRILLED, product="other"))
    entries = entries_of(topics, steps)
    begun = 0
    for life in range(3):
        with child(settings, "detection", "signals") as process:
            until = len(entries) * (life + 1) // 4
            while begun < until:
                log.append(entries[begun : begun + 10])
                begun += 10
                if draw.random() < 0.2:
                    ask(log, topics, begun, Action.HOLD if life % 2 == 0 else Action.RELEASE)
            try:
                process.wait(draw.random() * 0.6)
            except subprocess.TimeoutExpired:
                os.kill(process.pid, signal.SIGKILL)
            assert process.wait(10) == -signal.SIGKILL
    log.append(entries[begun:])
    bad = rollout().rollout
    with child(settings, "detection", "signals"):
        expected = [event.switch for event in events_of(embedded.log, topics)]
        wait_for(lambda: sum(e.switch.rollout == bad for e in events_of(log, topics)) >= len(expected), "all events")
        ask(log, topics, -1, Action.KILL)
        wait_for(lambda: any(e.switch.command_id == "c--1" for e in events_of(log, topics)), "the last command")
    events = events_of(log, topics)
    require_whole_chains(events)
    assert [event.switch for event in events if event.switch.rollout == bad] == expected
    drilled = [event.switch for event in events if event.switch.rollout == DRILLED]
    assert len(drilled) >= 4
    assert len({switch.command_id for switch in drilled}) == len(drilled)


@pytest.mark.slow
def test_workers_that_join_and_leave_change_nothing(settings: Settings, topics: Topics, log: KafkaLog) -> None:
    steps = list(simulate(JULY_19))
    embedded = Embedded(topics)
    embedded.run(rollout(), steps=steps)
    declare(log, topics, rollout())
    entries = entries_of(topics, steps)
    third = len(entries) // 3
    other = msgspec.structs.replace(settings, worker_name="worker-2")
    second = kafka_log(other, topics, "worker-2")
    with KeyedWorker(settings, topics, log, ["detection", "signals"]) as first:
        log.append(entries[:third])
        wait_for(lambda: first.metrics.value("owned_partitions", stage="detection") == 2, "both shares")
        with KeyedWorker(other, topics, second, ["detection", "signals"]) as joined:
            for stage in ("detection", "signals"):
                for worker in (first, joined):
                    wait_for(
                        lambda worker=worker, stage=stage: (  # type: ignore[misc]
                            worker.metrics.value("owned_partitions", stage=stage) == 1
                        ),
                        f"one share of {stage} each",
                    )
            log.append(entries[third : 2 * third])
        log.append(entries[2 * third :])
        expected = [event.switch for event in events_of(embedded.log, topics)]
        wait_for(lambda: len(events_of(log, topics)) >= len(expected), "all events")
        last = [latest_of(embedded.log, TopicPartition(topics.name("verdicts"), number)) for number in (0, 1)]
        wait_for(
            lambda: [latest_of(log, TopicPartition(topics.name("verdicts"), number)) for number in (0, 1)] == last,
            "the last verdict",
        )
        assert first.metrics.value("rebalances_total", stage="detection") >= 2
    second.close()
    assert [event.switch for event in events_of(log, topics)] == expected
    require_whole_chains(events_of(log, topics))
    for number in (0, 1):
        source = TopicPartition(topics.name("verdicts"), number)
        assert list(dict.fromkeys(verdicts_of(log, topics, number))) == values_of(embedded.log, source)


def test_what_was_aborted_and_what_was_committed_ahead_decide_nothing(
    settings: Settings, topics: Topics, log: KafkaLog, kafka: LocalKafka
) -> None:
    """Kills said in a transaction that was aborted are never signed; events behind a commit are, for all that."""
    declare(log, topics, rollout(rollout=ROLLOUT), rollout(rollout="r-aborted"))
    group = group_of("signals", topics.lane)
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap.split(","), transactional_id=f"{topics.lane}-aborting")
    producer.init_transactions()
    source = TopicPartition(topics.name("verdicts"), keyed_partition_of(ROLLOUT, topics.keyed_partitions))

    def abort() -> None:
        producer.begin_transaction()
        one = encoder.encode(verdict(DecisionWord.KILL, rollout="r-aborted"))
        producer.send(source.topic, partition=source.partition, key=b"r-aborted", value=one)
        producer.flush()
        producer.abort_transaction()

    def say(decision: DecisionWord) -> None:
        log.append([Entry(*source, ROLLOUT.encode(), encoder.encode(verdict(decision)))])

    try:
        abort()
        say(DecisionWord.HOLD)
        log.commit(group, {source: log.bounds(source)[1]})
        with KeyedWorker(settings, topics, log, ["signals"]):
            wait_for(lambda: len(events_of(log, topics)) == 1, "the event whose verdict was committed")
            abort()
            say(DecisionWord.KILL)
            wait_for(lambda: len(events_of(log, topics)) == 2, "the event behind an aborted one")
            end = log.bounds(source)[1]
            wait_for(lambda: (log.committed(group, source) or 0) >= end - 1, "the acknowledgement of both")
    finally:
        producer.close()
    events = events_of(log, topics)
    assert [(e.switch.rollout, e.switch.number) for e in events] == [(ROLLOUT, 1), (ROLLOUT, 2)]


def test_a_zombie_of_the_signals_is_refused_by_the_broker(settings: Settings, topics: Topics, log: KafkaLog) -> None:
    """Two processes own one share at once: the older one's events are refused, whatever it was given to sign."""
    other = kafka_log(settings, topics, "zombie")
    source = TopicPartition(topics.name("verdicts"), keyed_partition_of(ROLLOUT, topics.keyed_partitions))
    ends: list[BaseException | None] = []

    def share(behind: KafkaLog, on_end: OnEnd) -> KeyedShare:
        parts = SignalsParts(
            log=behind,
            topics=topics,
            settings=settings,
            signer=SIGNER,
            trusted=KEYS,
            words=None,
            clock=WallClock(),
            metrics=Metrics(),
        )
        made = signals_share(parts, source.partition, on_end)
        made.driver.start()
        made.driver.wait_started(20)
        return made

    zombie = share(other, lambda _, error: ends.append(error))
    heir = share(log, lambda *_: None)
    try:
        said = [verdict(DecisionWord.HOLD), verdict(DecisionWord.KILL)]
        log.append([Entry(*source, ROLLOUT.encode(), encoder.encode(one)) for one in said])
        records = log.read(source, 0)
        zombie.feed.push(source, records)
        heir.feed.push(source, records)
        wait_for(lambda: len(events_of(log, topics)) == 2 and len(ends) == 1, "two events and the zombie's end")
    finally:
        zombie.driver.stop()
        heir.driver.stop()
        other.close()
    assert isinstance(ends[0], FencedError)
    require_whole_chains(events_of(log, topics))


def test_agents_get_in_by_tls_and_a_password(kafka: LocalKafka, topics: Topics, log: KafkaLog, tmp_path: Path) -> None:
    assert kafka.security is not None
    password = tmp_path / "password"
    password.write_text(kafka.security.users["cordon"])
    secured = kafka_settings(
        kafka,
        topics,
        kafka_bootstrap=kafka.bootstrap_of("SASLTLS"),
        kafka_security="sasl_tls",
        kafka_ca_file=str(kafka.security.directory / "ca.pem"),
        kafka_username="cordon",
        kafka_password_file=str(password),
    )
    source = TopicPartition(topics.name("verdicts"), keyed_partition_of(ROLLOUT, topics.keyed_partitions))
    with KeyedWorker(secured, topics, log, ["signals"]) as worker:
        wait_for(lambda: worker.metrics.value("owned_partitions", stage="signals") == 2, "both shares")
        log.append([Entry(*source, ROLLOUT.encode(), encoder.encode(verdict(DecisionWord.KILL)))])
        wait_for(lambda: len(events_of(log, topics)) == 1, "the event")
        # Pushed by the agent, not found by the share's own look into the log.
        assert worker.agents[0].standings()[-1].progress == 1


@pytest.mark.slow
@pytest.mark.fault
def test_a_broker_that_dies_and_comes_back_in_mid_incident_costs_nothing_but_time(own_kafka: LocalKafka) -> None:
    with lane_on(own_kafka, device_partitions=2, keyed_partitions=1, prefix="away") as topics:
        settings = kafka_settings(
            own_kafka, topics, blind_seconds=BLIND_SECONDS, snapshot_seconds=1, kafka_timeout_ms=1500
        )
        steps = list(simulate(JULY_19))
        embedded = Embedded(topics)
        embedded.run(rollout(), steps=steps)
        expected = [event.switch for event in events_of(embedded.log, topics)]
        log = kafka_log(settings, topics, "test")
        declare(log, topics, rollout())
        entries = entries_of(topics, steps)
        with KeyedWorker(settings, topics, log, ["detection", "signals"]) as worker:
            log.append(entries[:100])
            wait_for(lambda: bool(verdicts_of(log, topics, 0)), "a first verdict")
            own_kafka.nodes[0].kill()
            time.sleep(2.0)
            own_kafka.nodes[0].start()
            log.append(entries[100:])
            wait_for(lambda: len(events_of(log, topics)) >= len(expected), "all events")
            assert not any(agents.crashed for agents in worker.agents)
        assert [event.switch for event in events_of(log, topics)] == expected
        require_whole_chains(events_of(log, topics))
        log.close()
