"""Consumers of other makes read what Cordon writes: kcat events and leases, confluent-kafka switches and crashes.

Both stand on librdkafka, which shares no code with the clients that Cordon uses: that they agree shows that the bytes
are Kafka's own (batches, zstd, checksums, transactions) and not only our reading of them.
"""

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from confluent_kafka import Consumer, KafkaError
from confluent_kafka import TopicPartition as ConfluentPartition

from deploy.kafka.broker import LocalKafka
from detectors.verdict import DecisionWord
from ingest.activity import ActivityBuffer
from ingest.clock import WallClock
from ingest.events import Batch, Bsod, Report, Tick, device_record_decoder, encoder
from ingest.gateway.records import Flush, RecordWriter
from ingest.log.interface import Entry, FencedError
from ingest.log.interface import TopicPartition as Partition
from ingest.log.kafka.connection import connection_of
from ingest.log.kafka.log import KafkaLog
from ingest.log.owner import Owner
from ingest.log.specs import topic_specs
from ingest.metrics import Metrics
from ingest.sight import Sight
from ingest.topics import Topics
from signals.delivery.app import streams_app
from signals.delivery.service import StreamService
from signals.events import Action, Switch
from signals.killswitch.lease import LeaseTerms
from signals.killswitch.leasing import Granting
from signals.killswitch.stage import SignalsStage
from signals.killswitch.verify import open_event, open_lease, parse_envelope
from support.gateway_rig import NOW_MS, bsod
from support.kafka import kafka_settings
from support.streams import READER, authenticate
from support.switches import KEYS, SIGNER, START_MS, approval, command, verdict

ROLLOUTS = ("r-0123456789abcdef", "r-fedcba9876543210")


@pytest.fixture
def log(kafka: LocalKafka, kafka_lane: Topics) -> Iterator[KafkaLog]:
    connection = connection_of(kafka_settings(kafka, kafka_lane))
    opened = KafkaLog(
        connection, topic_specs(kafka_lane), WallClock(), Metrics(), lane=kafka_lane.lane, client="other-consumers"
    )
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def kcat() -> str:
    """Return kcat's path; skip where it is missing, fail where CI=true."""
    found = shutil.which("kcat")
    if found is None:
        lacking = "kcat is missing, a Kafka consumer of another make: run `make deps-system`"
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI=true, and {lacking}", pytrace=False)
        pytest.skip(lacking)
    return found


class Seeing:
    """Sees, so that leases are granted."""

    def sight(self) -> Sight:
        return Sight(seeing=True)


def signals_owner(log: KafkaLog, topics: Topics, granting: Granting | None = None) -> Owner:
    stage = SignalsStage(log, topics, 0, SIGNER, KEYS, WallClock(), Metrics(), granting=granting)
    owner = Owner(log, "signals/0", "signals", stage, Partition(topics.name("switches"), 0), WallClock())
    owner.start()
    return owner


def raise_events(log: KafkaLog, topics: Topics) -> None:
    """Let detectors and a person move two switches, with a second owner taking over in between."""
    verdicts, commands = topics.name("verdicts"), topics.name("commands")

    def say(*decisions: DecisionWord, at_ms: int) -> None:
        said = [verdict(decision, rollout=name, at_ms=at_ms) for decision in decisions for name in ROLLOUTS]
        log.append([Entry(verdicts, 0, item.rollout.encode(), encoder.encode(item)) for item in said])

    first = signals_owner(log, topics)
    say(DecisionWord.HOLD, at_ms=START_MS)
    while first.step(0.2):
        pass
    second = signals_owner(log, topics)
    say(DecisionWord.KILL, at_ms=START_MS + 1000)
    with pytest.raises(FencedError):
        first.step(1.0)
    asked = command(Action.RELEASE, "c-1", rollout=ROLLOUTS[0])
    agreed = approval("c-2", "c-1", rollout=ROLLOUTS[0])
    log.append([Entry(commands, 0, one.rollout.encode(), encoder.encode(one)) for one in (asked, agreed)])
    while second.step(0.2):
        pass


async def streamed(log: KafkaLog, topics: Topics, count: int) -> list[tuple[bytes, bytes]]:
    """Return the first events that the event stream gives: cursor and data."""
    service = StreamService(log, topics, KEYS, Metrics(), subscribers_max=10, queue_max=100)
    app = streams_app(service, authenticate, WallClock())
    await service.start()
    received = bytearray()
    asked = False

    async def receive() -> dict[str, Any]:
        nonlocal asked
        if not asked:
            asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await asyncio.sleep(60)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        assert message.get("status", 200) == 200
        received.extend(message.get("body", b""))
        if received.count(b"event: killswitch") >= count:
            service.close_streams()

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "path": "/v1/killswitch/stream",
        "query_string": b"from=start",
        "headers": [(b"authorization", f"Bearer {READER}".encode())],
    }
    try:
        await asyncio.wait_for(app(scope, receive, send), 20)
    finally:
        await service.stop()
    events = []
    for block in bytes(received).split(b"\n\n"):
        fields = dict(line.split(b": ", 1) for line in block.splitlines() if b": " in line)
        if fields.get(b"event") == b"killswitch":
            events.append((fields[b"id"], fields[b"data"]))
    return events


def with_kcat(kcat: str, bootstrap: str, topic: str, *more: str) -> list[tuple[bytes, bytes]]:
    """Return key and value of every record, as kcat prints them."""
    command = [kcat, "-C", "-b", bootstrap, "-t", topic, "-p", "0", "-o", "beginning", "-e", "-q"]
    command += ["-f", r"%k\t%s\n", "-X", "isolation.level=read_committed", "-X", "check.crcs=true", *more]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    lines = [line.split(b"\t", 1) for line in done.stdout.splitlines()]
    return [(key, value) for key, value in lines]


def test_kcat_reads_signed_events_exactly_as_the_event_stream_gives_them(
    kafka: LocalKafka, kafka_lane: Topics, log: KafkaLog, kcat: str
) -> None:
    raise_events(log, kafka_lane)
    read = with_kcat(kcat, kafka.bootstrap, kafka_lane.name("killswitch"))
    given = asyncio.run(streamed(log, kafka_lane, len(read)))
    assert [value for _, value in read] == [data for _, data in given]
    events = [open_event(parse_envelope(value), KEYS).switch for _, value in read]
    assert [key.decode() for key, _ in read] == [event.rollout for event in events]
    moves = {
        name: [(event.number, event.state.value) for event in events if event.rollout == name] for name in ROLLOUTS
    }
    assert moves == {
        ROLLOUTS[0]: [(1, "held"), (2, "killed"), (3, "released")],
        ROLLOUTS[1]: [(1, "held"), (2, "killed")],
    }


def test_others_read_the_latest_switch_and_lease_of_each_rollout(
    kafka: LocalKafka, kafka_lane: Topics, log: KafkaLog, kcat: str
) -> None:
    """A rollout system that lives on Kafka needs neither HTTP nor our client: the compacted topics say all."""
    raise_events(log, kafka_lane)
    healthy = verdict(DecisionWord.PROCEED, rollout="r-healthy", at_ms=WallClock().now_ms())
    log.append([Entry(kafka_lane.name("verdicts"), 0, b"r-healthy", encoder.encode(healthy))])
    owner = signals_owner(log, kafka_lane, Granting(LeaseTerms(), Seeing()))
    leases: list[tuple[bytes, bytes]] = []
    deadline = time.monotonic() + 60
    while not leases and time.monotonic() < deadline:
        owner.step(0.2)
        read = with_kcat(kcat, kafka.bootstrap, kafka_lane.name("leases"))
        # A rollout of long ago is forgotten: its lease is taken back, and kcat shows nothing for that.
        leases = [(key, value) for key, value in read if value]
    assert {key for key, _ in leases} == {b"r-healthy"}
    lease = open_lease(parse_envelope(leases[-1][1]), KEYS).lease
    assert (lease.rollout, lease.decision, lease.lane) == ("r-healthy", "proceed", kafka_lane.lane)
    assert lease.expires_ms - lease.issued_ms == 60_000
    latest: dict[str, Switch] = {}
    for key, value in with_confluent_plain(kafka, kafka_lane.name("switches")):
        # The owner's own place lies under a key that no rollout has.
        if not key.startswith(b"@"):
            envelope = encoder.encode(msgspec.json.decode(value)["envelope"])
            latest[key.decode()] = open_event(parse_envelope(envelope), KEYS).switch
    assert {name: (switch.number, switch.state.value) for name, switch in latest.items()} == {
        ROLLOUTS[0]: (3, "released"),
        ROLLOUTS[1]: (2, "killed"),
    }


def with_confluent_plain(kafka: LocalKafka, topic: str) -> list[tuple[bytes, bytes]]:
    """Return key and value of every record of partition 0, as confluent-kafka reads them to the end."""
    consumer = Consumer(
        {
            "bootstrap.servers": kafka.bootstrap,
            "group.id": f"elsewhere-{topic}",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
        }
    )
    read: list[tuple[bytes, bytes]] = []
    try:
        consumer.assign([ConfluentPartition(topic, 0, 0)])
        while (message := consumer.poll(30)) is not None and message.error() is None:
            if message.value() is not None:
                read.append((message.key(), message.value()))
        assert message is not None, "the end of the partition did not come"
        assert message.error().code() == KafkaError._PARTITION_EOF
    finally:
        consumer.close()
    return read


def test_kcat_reads_the_same_with_a_certificate_of_its_own(
    kafka: LocalKafka, kafka_lane: Topics, log: KafkaLog, kcat: str
) -> None:
    assert kafka.security is not None
    folder = kafka.security.directory
    raise_events(log, kafka_lane)
    topic = kafka_lane.name("killswitch")
    secured = {
        "security.protocol": "SSL",
        "ssl.ca.location": str(folder / "ca.pem"),
        "ssl.certificate.location": str(folder / "client.pem"),
        "ssl.key.location": str(folder / "client.key"),
    }
    arguments = [part for name, value in secured.items() for part in ("-X", f"{name}={value}")]
    over_tls = with_kcat(kcat, kafka.bootstrap_of("MTLS"), topic, *arguments)
    assert over_tls == with_kcat(kcat, kafka.bootstrap, topic)
    assert len(over_tls) == 5


def crash(number: int) -> Bsod:
    """Return a crash as the gateway hands it to the writer: pseudonym and tenant filled in."""
    return bsod(number, device=f"{number:016x}", tenant="acme")


def with_confluent(kafka: LocalKafka, topics: Topics, count: int) -> dict[int, list[bytes]]:
    """Return the values of each partition of the crashes topic, as confluent-kafka reads them over TLS and SCRAM."""
    assert kafka.security is not None
    consumer = Consumer(
        {
            "bootstrap.servers": kafka.bootstrap_of("SASLTLS"),
            "security.protocol": "SASL_SSL",
            "ssl.ca.location": str(kafka.security.directory / "ca.pem"),
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": "cordon",
            "sasl.password": kafka.security.users["cordon"],
            "group.id": f"elsewhere-{topics.lane}",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "check.crcs": True,
        }
    )
    topic = topics.name("crashes")
    read: dict[int, list[bytes]] = {partition: [] for partition in range(topics.device_partitions)}
    try:
        consumer.assign([ConfluentPartition(topic, partition, 0) for partition in read])
        for message in consumer.consume(count, timeout=20):
            assert message.error() is None
            read[message.partition()].append(message.value())
    finally:
        consumer.close()
    return read


def test_confluent_kafka_reads_crashes_and_decodes_the_batches(
    kafka: LocalKafka, kafka_lane: Topics, log: KafkaLog
) -> None:
    writer = RecordWriter(kafka_lane, "gateway-1")
    crashes: list[list[Report]] = [[crash(number) for number in range(start, 5000, 2)] for start in (0, 1)]
    buffers = [ActivityBuffer(100) for _ in range(2)]
    flush = Flush(NOW_MS, activity=buffers, crashes=crashes, tick_at_ms=NOW_MS)
    entries = [entry for entry in writer.entries(flush) if entry.topic == kafka_lane.name("crashes")]
    log.append(entries)
    read = with_confluent(kafka, kafka_lane, len(entries))
    for partition, values in read.items():
        assert values == [entry.value for entry in entries if entry.partition == partition]
        records = [device_record_decoder.decode(value) for value in values]
        batches = [record for record in records if isinstance(record, Batch)]
        assert [report for batch in batches for report in batch.reports] == crashes[partition]
        assert records[-1] == Tick(gateway="gateway-1", at_ms=NOW_MS)
        # Without our types as well: it is JSON, and its tag says what it is.
        assert {msgspec.json.decode(value)["kind"] for value in values} == {"batch", "tick"}
