"""One incident through Cordon, and what it must leave whatever goes wrong on the way.

The incident is july-19 with a short warm-up and a short day. `Incident` sends it through `cordon up --distributed` and
does what a plan says at moments of event time; what must come out the same is compared with the embedded Cordon, which
nobody disturbs: how many devices crashed and were exposed, by rollout and partition, and what the kill switch said.
"""

import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import httpx2

from deploy.embedded import running
from deploy.kafka.broker import LocalKafka
from deploy.replay import driver
from deploy.replay.client import GatewayClient
from deploy.replay.driver import Replay
from deploy.replay.remote import connected, fetch_keys
from deploy.replay.result import ReplayResult
from deploy.replay.subscription import Pace, StreamSubscription
from detectors.backtest.library import parse
from detectors.backtest.scenario import Scenario
from ingest.clock import WallClock
from ingest.log.interface import Log
from ingest.log.kafka.connection import connection_of
from ingest.log.kafka.log import KafkaLog
from ingest.log.specs import topic_specs
from ingest.metrics import Metrics
from ingest.settings import Settings
from ingest.topics import Topics
from signals.client import KillSwitchClient
from signals.events import Switch
from support.distributed import DistributedProcess, running_distributed
from support.kafka import delete_topics, kafka_settings, unique_lane
from support.sameness import Left, left_in
from support.system import cordon

PARTITIONS, KEYED = 4, 2
ROLES = ("report", "rollout", "drive", "operator")
DEVICES = 6000
# Longer than any recovery: Kafka's own restart, then a worker's.
STREAM_SECONDS = 120.0
# Nobody waits longer than this before he posts again, whatever Retry-After says: a test has no half minute.
AGAIN_SECONDS_MAX = 3.0
_SHORT = (
    ("duration_seconds = 7200", "duration_seconds = 420"),
    ("warm_up_seconds = 1800", "warm_up_seconds = 180"),
    ("check_in_seconds = 300", "check_in_seconds = 60"),
    # In four minutes only crashes that are reported can kill: silence takes a quarter of an hour.
    ("report_share = 0.03", "report_share = 0.5"),
)
Cohorts = Mapping[tuple[int, int], tuple[int, Sequence[dict[str, Any]]]]
Totals = dict[tuple[str, int], tuple[int, int]]


def incident() -> Scenario:
    """Return july-19 with a short warm-up and a short day."""
    text = (resources.files("detectors.backtest") / "scenarios" / "july-19.toml").read_text()
    for old, new in _SHORT:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return parse(text, "short")


@dataclass(frozen=True, slots=True)
class Undisturbed:
    """The embedded Cordon's run of the incident, and the key that names its devices."""

    left: Left
    pseudonym_key: Path


def undisturbed_run(folder: Path) -> Undisturbed:
    """Run the incident through the embedded Cordon, whose kill switch nobody obeys."""
    settings = Settings(
        data_dir=str(folder),
        lane="replay",
        store=False,
        linger_ms=0,
        device_partitions=PARTITIONS,
        reports_port=0,
        streams_port=0,
        query_port=0,
    )
    with running(settings) as one:
        log = one.embedded.parts.log
        # Upkeep would compact away what is to be compared.
        one.embedded.parts.log.maintain = lambda: 0  # type: ignore[method-assign]  # for this test's sake
        with connected(
            incident(),
            reports_url=one.reports_url,
            streams_url=one.streams_url,
            token=one.token(*ROLES),
            lane="replay",
            keys=fetch_keys(one.streams_url),
            devices=DEVICES,
            kill_switch=False,
        ) as run:
            result = run.run()
        return Undisturbed(left_in(log, Topics("replay", PARTITIONS), result), folder / "pseudonym.key")


class Moments(Pace):
    """A replay's pace that also begins things at moments of event time, each in a thread of its own."""

    def __init__(self, speed: float | None, plan: Mapping[float, Callable[[], None]]) -> None:
        """Prepare.

        Args:
            speed: event seconds per wall second at most.
            plan: what to begin, by event seconds since the scenario's start.
        """
        super().__init__(speed)
        self._plan = sorted(plan.items(), key=lambda item: item[0])
        self._threads: list[threading.Thread] = []
        self._failures: list[BaseException] = []
        self._walls: list[tuple[float, float]] = []

    def keep(self, event_seconds: float) -> None:
        """Begin what is due, then keep the pace."""
        self._walls.append((event_seconds, self.wall_seconds()))
        while self._plan and self._plan[0][0] <= event_seconds:
            _, action = self._plan.pop(0)
            thread = threading.Thread(target=self._do, args=(action,), name="fault")
            thread.start()
            self._threads.append(thread)
        super().keep(event_seconds)

    def wall_of(self, event_seconds: float) -> float:
        """Return the wall seconds at which the replay had sent everything up to that moment."""
        return next(wall for reached, wall in self._walls if reached >= event_seconds)

    def join(self) -> None:
        """Wait for all that was begun; raise what went wrong in it."""
        for thread in self._threads:
            thread.join()
        if self._failures:
            raise self._failures[0]
        assert not self._plan, "the incident was over before everything planned had begun"

    def _do(self, action: Callable[[], None]) -> None:
        try:
            action()
        except BaseException as error:
            self._failures.append(error)


class Incident:
    """A distributed Cordon with the incident going through it.

    Attributes:
        many: the processes.
        bootstrap: where they find Kafka.
        topics: of the lane.
        token: may do everything.
        result: what the replay saw.
        wall_to_kill: wall seconds from the first crash having been posted until the kill was on the stream.
    """

    def __init__(self, many: DistributedProcess, kafka: LocalKafka, bootstrap: str, topics: Topics, token: str) -> None:
        self.many, self.bootstrap, self.topics, self.token = many, bootstrap, topics, token
        self._kafka = kafka
        self._killed_wall = 0.0
        self.result: ReplayResult | None = None
        self.wall_to_kill = 0.0

    def run(self, plan: Mapping[float, Callable[[], None]] | None = None, *, seconds: float | None = None) -> None:
        """Send the incident through, more patiently than a rollout system would, and obey nothing.

        Args:
            plan: what to begin when; see `Moments`.
            seconds: wall seconds that it takes at least.
        """
        scenario = incident()
        event_seconds = (scenario.end_ms - scenario.start_ms) / 1000
        pace = Moments(None if seconds is None else event_seconds / seconds, plan or {})
        # Patient: what is tested is that Cordon comes back, not how soon.
        driver.STREAM_SECONDS = STREAM_SECONDS
        streams = self.many.urls["streams"]
        stream = KillSwitchClient(
            streams, fetch_keys(streams), token=self.token, lane=self.topics.lane, from_start=True, connects_max=500
        )

        def events() -> Iterator[Switch]:
            for switch in stream.events():
                if switch.state == "killed" and not self._killed_wall:
                    self._killed_wall = pace.wall_seconds()
                yield switch

        subscription = StreamSubscription(events, stream.close)
        try:
            with self.http() as http:
                client = GatewayClient(http, sleep=lambda pause: time.sleep(min(pause, AGAIN_SECONDS_MAX)))
                replay = Replay(scenario, client, subscription, devices=DEVICES, kill_switch=False, pace=pace)
                self.result = replay.run()
        finally:
            subscription.close()
            pace.join()
        if self._killed_wall and self.result.first_crash_ms is not None:
            self.wall_to_kill = self._killed_wall - pace.wall_of(
                (self.result.first_crash_ms - scenario.start_ms) / 1000
            )

    def http(self) -> httpx2.Client:
        """Return a client of the reports listener that may do everything."""
        return httpx2.Client(
            base_url=self.many.urls["reports"],
            headers={"authorization": f"Bearer {self.token}"},
            timeout=httpx2.Timeout(620.0, connect=5.0),
            trust_env=False,
        )

    def log(self) -> KafkaLog:
        """Return a reader of the lane; whoever asks closes it."""
        return KafkaLog(
            connection_of(kafka_settings(self._kafka, self.topics)),
            topic_specs(self.topics),
            WallClock(),
            Metrics(),
            lane=self.topics.lane,
            client="test",
        )

    def left(self, see: Callable[[Log], Any] = lambda log: log) -> Left:
        """Return what it left; `see` may hide what a test itself has put there."""
        assert self.result is not None
        log = self.log()
        try:
            return left_in(see(log), self.topics, self.result)
        finally:
            log.close()

    def say(self, what: str, calm: Undisturbed) -> None:
        """Print how long the kill took."""
        assert self.result is not None
        sys.stdout.write(
            f"\n{what}: first crash to kill {self.result.seconds_first_crash_to_kill} s of event time (undisturbed "
            f"{calm.left.result.seconds_first_crash_to_kill} s), {self.wall_to_kill:.1f} s by the wall; "
            f"{self.result.retries} requests made again; {self.result.wall_seconds:.0f} s in all\n"
        )


@contextmanager
def incident_on(
    kafka: LocalKafka, calm: Undisturbed, folder: Path, *, workers: int = 2, **settings: Any
) -> Iterator[Incident]:
    """Run a distributed Cordon in a lane of its own, its devices named as the undisturbed one's, while the block lasts.

    Args:
        kafka: the broker.
        calm: the undisturbed run.
        folder: where its data folder is made.
        workers: how many.
        settings: more settings; `kafka_bootstrap` is a proxy's address where there is one.
    """
    data = folder / "data"
    data.mkdir()
    shutil.copy(calm.pseudonym_key, data)
    options = [part for role in ROLES for part in ("--role", role)]
    token = cordon("token", "add", "replay", "--tenant", "*", *options, "--data", data).stdout.strip()
    topics = Topics(unique_lane("incident"), PARTITIONS, keyed_partitions=KEYED)
    wide = {"device_partitions": PARTITIONS, "keyed_partitions": KEYED, **settings}
    bootstrap = wide.pop("kafka_bootstrap", kafka.bootstrap)
    try:
        with running_distributed(data, bootstrap, workers=workers, lane=topics.lane, **wide) as many:
            yield Incident(many, kafka, bootstrap, topics, token)
    finally:
        delete_topics(kafka, topic_specs(topics))


def check_same(calm: Left, left: Left) -> None:
    """Hold what a disturbed run left to what the undisturbed one did.

    Nothing acknowledged is lost, counts are exact, the kill is raised, by numbers without holes or repeats.
    """
    for name in ("refused", "accepted"):
        assert getattr(left.result, name) == getattr(calm.result, name), (name, left.result, calm.result)
    assert totals(left.cohorts) == totals(calm.cohorts)
    assert told(left.cohorts) == told(calm.cohorts)
    assert left.events.keys() == calm.events.keys()
    for rollout, events in left.events.items():
        assert [event["number"] for event in events] == list(range(1, len(events) + 1))
        assert events[-1]["state"] == calm.events[rollout][-1]["state"]
        kills = sum(event["state"] == "killed" for event in events)
        assert kills == sum(event["state"] == "killed" for event in calm.events[rollout])
    assert any(event["state"] == "killed" for events in left.events.values() for event in events)


def totals(cohorts: Cohorts) -> Totals:
    """Return the last crash and exposure totals said, by rollout and device partition."""
    found: Totals = {}
    for (partition, _), (_, windows) in sorted(cohorts.items()):
        for window in windows:
            found[window["rollout"], partition] = window["crash_total"], window["exposed_total"]
    return found


def told(cohorts: Cohorts) -> Counter[tuple[str, str, int]]:
    """Return how many first crashes the windows tell of one by one, by rollout, signature and arm."""
    return Counter(
        (window["rollout"], crash[5], crash[3])
        for _, windows in cohorts.values()
        for window in windows
        for crash in window["crashes"]
    )
