"""Grouping against the usual idioms, on the same reports: records of the gateway here, one report a record there.

All three count the same first reports of one stream, and their counts must be the same:
  - crashes by version and minute: grouping's first crashes by arm and minute;
  - offers: grouping's exposed devices;
  - all reports: what grouping accepted.
Grouping goes on beyond them, for at its speed they are over before it is measured; the rates are reports a second of
each, with the process started and its partitions assigned. Each has the broker to itself while it runs.
"""

import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import NewTopic

from deploy.bench.distributed_lane import DEVICE_PARTITIONS, BenchLane, Tail
from deploy.bench.distributed_reports import KnownTraffic, flat, key_of, truth_of
from deploy.bench.figures import Figure, at_least, printed
from deploy.bench.peers import CLOSING, PARTITIONS, Counted
from deploy.bench.pipeline import rollout_entries
from deploy.bench.traffic import BASE_VERSION, NEW_VERSION, entries_of
from deploy.kafka.broker import LocalKafka
from ingest.events import Report
from ingest.log.interface import Entry
from ingest.topics import Topics, partition_of
from ingest.windows import step_decoder

DEVICES = 250_000
STEP_REPORTS, STEP_MS = 50_000, 250
START_MS = 1_721_361_600_000
STEPS = 40
# The peers count the first steps' reports: enough for half a minute of the slower one.
SHARED_STEPS = 1
SECONDS_MAX = 300.0
FAUST_TIMES, QUIX_TIMES = 100, 10


@dataclass(slots=True)
class Said:
    """What grouping has said, up to the watermark that a partition's shared reports end at, and how far it is.

    Attributes:
        crashes: first crashes by version and minute of the shared reports.
        exposed: exposed devices of each partition at the end of the shared reports.
        times: when the first and the last step of each partition were appended, in milliseconds.
        reached: the watermark of each partition.
    """

    crashes: Counter[tuple[str, int]] = field(default_factory=Counter)
    exposed: dict[int, int] = field(default_factory=dict)
    times: list[int] = field(default_factory=list)
    reached: dict[int, int] = field(default_factory=dict)

    def take(self, value: bytes, appended_at_ms: int, shared_until_ms: int) -> None:
        """Take one step."""
        step = step_decoder.decode(value)
        if step.watermark_ms <= self.reached.get(step.partition, 0):
            return
        self.reached[step.partition] = step.watermark_ms
        self.times.append(appended_at_ms)
        if step.watermark_ms > shared_until_ms:
            return
        for window in step.windows:
            self.exposed[step.partition] = window.exposed_total
            for crash in window.crashes:
                version = NEW_VERSION if crash.exposed else BASE_VERSION
                self.crashes[f"{version}|{crash.kind}", crash.at_ms // 60_000 * 60_000] += 1


@dataclass(frozen=True, slots=True)
class Stream:
    """The reports of all steps: as log entries, the word of the topic in place of its name, and the shared ones."""

    steps: list[list[Entry]]
    shared: list[Report]

    def fill(self, lane: BenchLane) -> None:
        """Write everything to a lane's topics."""
        lane.log.append(rollout_entries(lane.topics))
        for entries in self.steps:
            lane.log.append([entry._replace(topic=lane.topics.name(entry.topic)) for entry in entries])


def stream(steps: int = STEPS) -> Stream:
    """Make the reports, and of them the records that the gateway makes."""
    traffic, topics = KnownTraffic(DEVICES), Topics("bench", DEVICE_PARTITIONS)
    words = {topics.name(word): word for word in ("activity", "crashes")}
    made, shared = [], []
    for step in range(steps):
        at_ms = START_MS + (step + 1) * STEP_MS
        reports = traffic.reports(STEP_REPORTS, at_ms)
        if step < SHARED_STEPS:
            shared += reports
        entries = entries_of(topics, "gateway-1", reports, at_ms, at_ms)
        made.append([entry._replace(topic=words[entry.topic]) for entry in entries])
    return Stream(made, shared)


def fill_peers(kafka: LocalKafka, topic: str, reports: list[Report]) -> None:
    """Write one flat record a report, and behind them a closing record in each partition."""
    admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    # The reports are of 2024: with a retention they would be gone at once.
    configs = {"message.timestamp.type": "CreateTime", "retention.ms": "-1"}
    admin.create_topics([NewTopic(name=topic, num_partitions=PARTITIONS, replication_factor=1, topic_configs=configs)])
    admin.close()
    producer = KafkaProducer(
        bootstrap_servers=kafka.bootstrap, linger_ms=50, batch_size=1 << 17, compression_type="lz4"
    )
    for report in reports:
        producer.send(
            topic,
            flat(report),
            key=key_of(report).encode(),
            partition=partition_of(report.device, PARTITIONS),
            timestamp_ms=report.at_ms,
        )
    producer.flush()
    closing = msgspec.json.decode(flat(reports[-1])) | {"kind": CLOSING}
    for partition in range(PARTITIONS):
        value = msgspec.json.encode(closing)
        at_ms = reports[-1].at_ms + 600_000
        producer.send(topic, value, key=CLOSING.encode(), partition=partition, timestamp_ms=at_ms)
    producer.close()


def run_peer(kafka: LocalKafka, module: str, topic: str, records: int) -> Counted:
    """Run a peer to its end and return what it found.

    Raises:
        RuntimeError: it ended without a result.
    """
    with tempfile.TemporaryDirectory(prefix="cordon-peer-") as folder:
        name = f"deploy.bench.peers.{module}"
        command = [sys.executable, "-m", name, kafka.bootstrap, topic, str(records), folder]
        # The command is our own.
        done = subprocess.run(command, stdout=subprocess.PIPE, check=False, timeout=SECONDS_MAX)  # noqa: S603
    found = [line for line in done.stdout.splitlines() if line.startswith(b'{"version"')]
    if done.returncode or not found:
        raise RuntimeError(f"{module} ended with {done.returncode} and said {done.stdout[-2000:]!r}")
    return msgspec.json.decode(found[-1], type=Counted)


def watch(lane: BenchLane, until_ms: int, shared_until_ms: int) -> Said:
    """Read what grouping says until every partition has reached `until_ms`.

    Raises:
        RuntimeError: it did not in time.
    """
    said, tail = Said(), Tail(lane.log, lane.source("cohorts", 0))
    deadline = time.monotonic() + SECONDS_MAX
    while len(said.reached) < lane.topics.device_partitions or min(said.reached.values()) < until_ms:
        if time.monotonic() > deadline:
            raise RuntimeError(f"grouping stands at {said.reached} after {SECONDS_MAX:.0f} s")
        time.sleep(0.25)
        for record in tail.new():
            said.take(record.value or b"", record.appended_at_ms, shared_until_ms)
    return said


def rate(said: Said, steps: int) -> float:
    """Return the reports a second from the first step said to the last, without those of a partition's first step."""
    return (steps - 1) * STEP_REPORTS / ((max(said.times) - min(said.times)) / 1000)


def differences(truth: Counter[tuple[str, int]], said: Said, peers: dict[str, Counted]) -> Iterator[str]:
    """Yield what does not agree, in words."""
    for name, counted in peers.items():
        found = Counter({(key, minute_ms): count for key, minute_ms, count in counted.counts})
        if found != truth:
            yield f"{name} counted {found - truth} too many and {truth - found} too few"
    crashes = Counter({place: count for place, count in truth.items() if place[0].endswith("|bsod")})
    if said.crashes != crashes:
        yield f"grouping counted crashes {said.crashes}, and {crashes} is right"
    offers = sum(count for place, count in truth.items() if place[0].endswith("|offered"))
    if sum(said.exposed.values()) != offers:
        yield f"grouping knows {sum(said.exposed.values())} exposed devices of {offers}"


def grouped(kafka: LocalKafka, reports: Stream, workers: int) -> Said:
    """Let this many workers, dealt their partitions together, group what lies in their topics."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="cordon-bench-"))
        lane = stack.enter_context(BenchLane(kafka, Path(folder)))
        reports.fill(lane)
        for number in range(workers):
            stack.enter_context(lane.grouping_worker(f"worker-{number + 1}"))
        return watch(lane, START_MS + len(reports.steps) * STEP_MS, START_MS + SHARED_STEPS * STEP_MS)


def measure(kafka: LocalKafka) -> list[Figure]:
    """Return the figures of grouping and its peers.

    Raises:
        RuntimeError: counts differ.
    """
    reports = stream()
    truth = truth_of(reports.shared)
    one, two = grouped(kafka, reports, 1), grouped(kafka, reports, 2)
    ours, both = rate(one, STEPS), rate(two, STEPS)
    shared = reports.shared
    del reports
    topic = "bench-flat"
    fill_peers(kafka, topic, shared)
    peers = {name: run_peer(kafka, f"{name}_idiom", topic, len(shared)) for name in ("faust", "quix")}
    wrong = [*differences(truth, one, peers), *differences(truth, two, {})]
    if wrong:
        raise RuntimeError("; ".join(wrong))
    faust, quix = (len(shared) / peers[name].seconds for name in ("faust", "quix"))
    return [
        printed("grouping in its worker, records of the gateway", ours, "reports/s"),
        printed(f"usual Faust idiom ({peers['faust'].version}), one report a record", faust, "reports/s"),
        printed(f"quixstreams ({peers['quix'].version}), one report a record", quix, "reports/s"),
        at_least("grouping against the Faust idiom, same counts", ours / faust, "times", FAUST_TIMES),
        at_least("grouping against quixstreams, same counts", ours / quix, "times", QUIX_TIMES),
        printed("grouping in two workers, same counts", both, "reports/s"),
        printed("two workers against one (two cores, the broker on them too)", both / ours, "times"),
    ]
