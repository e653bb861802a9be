"""One fault each in mid-incident, through the whole distributed product: nothing is lost, counts are exact, it kills.

All are held to the undisturbed embedded run. Kafka is reached through a proxy whose network fails as told. What is
proved elsewhere for real: every kind of failed request (`tests/ingest/log/kafka/test_log_faults.py`), a spool whose
disk is full over and over (`tests/ingest/gateway/test_spool.py`), workers that join, freeze and die
(`tests/deploy/workers`), a rolling upgrade of grouping and its state (`test_upgrade_kafka.py` there).
"""

import os
import resource
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from deploy.kafka.broker import LocalKafka
from ingest.deadletter import DeadLetter, deadletter_decoder
from ingest.events import SCHEMA, Batch
from ingest.log.interface import Log, TopicPartition
from support.distributed import SingleProcess, kafka_settings
from support.flaky_proxy import HOST, FlakyProxy, broker_behind_proxy
from support.gateway_rig import read_record
from support.incident import PARTITIONS, Incident, Undisturbed, check_same, incident, incident_on
from support.kafka import require_kafka
from support.poison import READERS, Poisoner, WithoutPoison, poisons
from support.system import eventually

pytestmark = [pytest.mark.fault, pytest.mark.slow, pytest.mark.timeout(300)]

# Event seconds: the update goes out at 180, machines crash from then on, the kill comes at about 410.
BEFORE, MIDST = 150.0, 260.0
REFUSED_SECONDS = 30.0
NEXT_RELEASE = Path(__file__).parents[2] / "support" / "next_release"


@pytest.fixture(scope="module")
def network() -> Iterator[tuple[LocalKafka, FlakyProxy]]:
    """Yield a broker, and the network that leads to it."""
    require_kafka()
    with broker_behind_proxy() as both:
        yield both


@pytest.fixture
def one(
    network: tuple[LocalKafka, FlakyProxy],
    undisturbed: Undisturbed,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Incident]:
    """Yield a distributed Cordon behind the network; print how long the kill took."""
    kafka, proxy = network
    with incident_on(kafka, undisturbed, tmp_path, kafka_bootstrap=f"{HOST}:{proxy.port}") as found:
        yield found
    if found.result is not None:
        with capsys.disabled():
            found.say(request.node.name, undisturbed)


class Probe:
    """A collector that posts check-ins of devices of its own, one post after the other, and notes the answers.

    Attributes:
        acknowledged: sequence numbers of the reports that were accepted.
        statuses: how many answers of each status.
        slowest_seconds: until an answer.
        retry_after: what refusals told.
    """

    def __init__(self, one: Incident, *, reports: int = 1) -> None:
        self._one, self._reports = one, reports
        self._numbers = iter(range(1 << 40, 1 << 41))
        self.acknowledged: set[int] = set()
        self.statuses: Counter[int] = Counter()
        self.slowest_seconds = 0.0
        self.retry_after: set[str] = set()

    def post(self) -> int:
        """Post once, and return the answer's status."""
        numbers = [next(self._numbers) for _ in range(self._reports)]
        body = msgspec.json.encode([self._check_in(number) for number in numbers])
        with self._one.http() as http:
            began = time.monotonic()
            answer = http.post("/v1/reports", content=body, headers={"content-type": "application/json"})
        self.slowest_seconds = max(self.slowest_seconds, time.monotonic() - began)
        self.statuses[answer.status_code] += 1
        if answer.status_code == 202:
            assert answer.json()["accepted"] == len(numbers), answer.text
            self.acknowledged.update(numbers)
        else:
            self.retry_after.add(answer.headers.get("retry-after", ""))
        return answer.status_code

    def missing(self) -> set[int]:
        """Return what was acknowledged and is not in the log."""
        log, found = self._one.log(), set()
        try:
            for number in range(PARTITIONS):
                for value in values(log, TopicPartition(self._one.topics.name("activity"), number)):
                    record = read_record(value)
                    if isinstance(record, Batch):
                        found |= {report.seq for report in record.reports}
        finally:
            log.close()
        return self.acknowledged - found

    @staticmethod
    def _check_in(number: int) -> dict[str, Any]:
        start_ms = incident().start_ms
        return {
            "kind": "check_in",
            "device": f"probe-{number}",
            "seq": number,
            "at_ms": start_ms,
            "boot_id": os.urandom(32).hex(),
            "boot_at_ms": start_ms - 86_400_000,
            "os_build": "22631.3880",
            "form_factor": "laptop",
            "tenant": "airline",
        }


def values(log: Log, source: TopicPartition) -> Iterator[bytes]:
    """Yield the values of a partition."""
    offset, end = log.bounds(source)
    while offset < end and (records := log.read(source, offset)):
        yield from (record.value or b"" for record in records)
        offset = records[-1].offset + 1


def letters_of(one: Incident) -> list[DeadLetter]:
    """Return the lane's dead letters."""
    log = one.log()
    try:
        found = values(log, TopicPartition(one.topics.name("deadletter"), 0))
        return [deadletter_decoder.decode(value) for value in found]
    finally:
        log.close()


def spooling(one: Incident) -> dict[str, Any] | None:
    """Return what `/readyz` says of the spool."""
    found: dict[str, Any] | None = one.many.http.get(f"{one.many.urls['reports']}/readyz").json().get("spooling")
    return found


def test_a_broker_that_is_killed_in_mid_incident(
    one: Incident, network: tuple[LocalKafka, FlakyProxy], undisturbed: Undisturbed
) -> None:
    kafka, _ = network

    def kill() -> None:
        kafka.kill()
        kafka.start()

    one.run({MIDST: kill})
    check_same(undisturbed.left, one.left())


@pytest.mark.chaos
def test_a_network_that_is_refused_for_half_a_minute(
    one: Incident, network: tuple[LocalKafka, FlakyProxy], undisturbed: Undisturbed
) -> None:
    """Meanwhile the gateway goes on answering 202, and says that it spools."""
    _, proxy = network
    probe = Probe(one)
    said: list[dict[str, Any]] = []

    def refuse() -> None:
        proxy.refuse()
        try:
            until = time.monotonic() + REFUSED_SECONDS
            while time.monotonic() < until:
                probe.post()
                time.sleep(0.3)
            said.append(spooling(one) or {})
        finally:
            proxy.accept()

    one.run({MIDST: refuse})
    assert set(probe.statuses) == {202}
    assert len(probe.acknowledged) > 20
    assert probe.slowest_seconds < 10
    assert said[0]["waiting_bytes"] > 0
    assert one.many.metric("spooled_total") > 20
    assert one.many.metric("spool_bytes") == 0
    assert probe.missing() == set()
    check_same(undisturbed.left, one.left())


def test_a_spool_without_room_on_its_disk(
    one: Incident, network: tuple[LocalKafka, FlakyProxy], undisturbed: Undisturbed
) -> None:
    """No file of the gateway may grow any further from some moment on; the kernel says so as it says of a full disk."""
    _, proxy = network
    probe = Probe(one, reports=500)

    def fill() -> None:
        gateway = one.many.children()["gateway"]
        spool = one.many.data / "spool" / one.topics.lane / "log.sqlite3"
        _, hard = resource.prlimit(gateway, resource.RLIMIT_FSIZE)
        proxy.refuse()
        try:
            assert [probe.post() for _ in range(3)] == [202] * 3
            # SQLite's own log may have used some of its length again: the first posts may still find room in it.
            resource.prlimit(gateway, resource.RLIMIT_FSIZE, (spool.stat().st_size, hard))
            for _ in eventually(60, "a full spool"):
                if probe.post() == 503 and probe.statuses[503] >= 3:
                    break
            readyz = one.many.http.get(f"{one.many.urls['reports']}/readyz")
            assert readyz.status_code == 503
            assert readyz.json()["spooling"]["full"] is True
        finally:
            proxy.accept()
        # It drains without getting any room, and goes on.
        for _ in eventually(60, "reports taken again"):
            if probe.post() == 202:
                break

    one.run({MIDST: fill})
    assert set(probe.statuses) == {202, 503}
    assert all(told.isdecimal() and int(told) > 0 for told in probe.retry_after)
    assert probe.missing() == set()
    check_same(undisturbed.left, one.left())


@pytest.mark.chaos
def test_a_worker_that_joins_and_leaves_under_load(one: Incident, undisturbed: Undisturbed, tmp_path: Path) -> None:
    owned: list[float] = []

    def join_and_leave() -> None:
        settings = kafka_settings(one.bootstrap, one.topics.lane, worker_name="worker-3", device_partitions=PARTITIONS)
        worker = SingleProcess("worker", one.many.data, "--roles", "grouping,detection", **settings)
        try:
            worker.start()
            for _ in eventually(40, "shares of the third worker's own"):
                text = worker.get("health", "/metrics").text
                owned[:] = [
                    float(line.split()[-1]) for line in text.splitlines() if line.startswith("cordon_owned_partitions{")
                ]
                if sum(owned) >= 1:
                    break
            # Long enough to have something to flush.
            time.sleep(3)
            assert worker.terminate() == 0, worker.said[-2000:]
        finally:
            worker.kill()

    one.run({BEFORE: join_and_leave}, seconds=24)
    assert sum(owned) >= 1
    check_same(undisturbed.left, one.left())


def test_poison_in_every_topic(one: Incident, undisturbed: Undisturbed) -> None:
    """Buried with reason, topic, partition and offset, each once, by the stage that reads it; nothing else changes."""
    poisoner = Poisoner(one.bootstrap, one.topics)
    one.run({BEFORE: poisoner.put, MIDST: poisoner.put})
    until = time.monotonic() + 30
    while len(letters := letters_of(one)) < len(poisoner.placed) and time.monotonic() < until:
        time.sleep(0.2)
    assert len(poisoner.placed) == 2 * sum(
        len(poisons(word)) * (2 if READERS[word][0] in ("detection", "signals") else PARTITIONS) for word in READERS
    )
    buried = {(letter.topic, letter.partition, letter.offset): letter for letter in letters}
    wrong = poisoner.placed.items() ^ {(place, letter.stage) for place, letter in buried.items()}
    assert not wrong, sorted(wrong)[:40]
    assert len(letters) == len(buried), "nobody died: each is buried once"
    reasons = Counter((letter.stage, letter.reason.value) for letter in letters)
    assert {stage for stage, _ in reasons} == {stage for stage, _ in READERS.values()}
    check_same(undisturbed.left, one.left(lambda log: WithoutPoison(log, poisoner.placed)))


def test_workers_of_the_next_release_read_what_the_old_gateway_writes(
    network: tuple[LocalKafka, FlakyProxy],
    undisturbed: Undisturbed,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """There is no schema before 1, so all but the gateway run with the number after: its records are the old ones."""
    kafka, _ = network
    marks = tmp_path / "marks"
    marks.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(NEXT_RELEASE))
    monkeypatch.setenv("SCHEMA_REHEARSAL_MARKS", str(marks))
    with incident_on(kafka, undisturbed, tmp_path) as one:
        one.run()
        left = one.left()
        letters = letters_of(one)
    with capsys.disabled():
        one.say("workers of the next release", undisturbed)
    raised = {path.name for path in marks.iterdir() if path.read_text() == str(SCHEMA + 1)}
    assert raised == {"worker-1", "worker-2", "signals-1"}
    assert letters == []
    check_same(undisturbed.left, left)
