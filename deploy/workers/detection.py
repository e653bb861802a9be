"""Detection on many machines: one share for each keyed partition, fed with its cohort windows by a Faust agent.

The share `detection/K` is the embedded detection stage under an Owner of its own. Steps come by push; rollouts, which
every share reads and few ever change, the Owner reads from the log itself. Invariant: silence is said: no step for
`blind_seconds` makes every verdict `no_data`, in the live lane, whoever is to blame; and as long as a part of Cordon is
not heard from, nothing is called healthy.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from deploy.workers.agents import Agents
from deploy.workers.driver import ShareDriver, Words
from deploy.workers.faust_app import group_of
from deploy.workers.keyed import KeyedShare, KeyedShares, OnEnd
from detectors.policy import Policies
from detectors.stage import DetectionStage
from ingest.clock import Clock
from ingest.log.feed import Feed
from ingest.log.interface import Log, TopicPartition
from ingest.log.kafka.connection import Connection
from ingest.log.owner import Owner
from ingest.metrics import Metrics
from ingest.settings import Settings
from ingest.topics import LIVE_LANE, Topics

STAGE = "detection"
# A look at the words of all owners costs little, but not nothing: once a second is soon enough for health.
DOUBT_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionParts:
    """What every detection share of a process is made of.

    Attributes:
        log: Kafka's, behind the feeds.
        topics: the lane's.
        settings: of this process.
        policies: what evidence is enough for what.
        words: where shares say how far they have come; None: nobody listens.
        clock: the wall clock.
        metrics: of this process.
        doubts: which parts of Cordon are not heard from; None: nobody watches.
    """

    log: Log
    topics: Topics
    settings: Settings
    policies: Policies
    words: Words | None
    clock: Clock
    metrics: Metrics
    doubts: Callable[[], Sequence[str]] | None = None


class Watcher:
    """Has a stage say when it is blind and what is in doubt; called in its Owner's thread after each turn."""

    def __init__(
        self,
        stage: DetectionStage,
        clock: Clock,
        *,
        blind_seconds: float | None,
        doubts: Callable[[], Sequence[str]] | None,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin now.

        Args:
            stage: what is watched.
            clock: the wall clock, for what it says.
            blind_seconds: how long merged steps may stand still; None for a driven lane, whose clock may rest.
            doubts: which parts of Cordon are not heard from; None: nobody watches.
            timer: seconds.
        """
        self._stage, self._clock, self._timer = stage, clock, timer
        self._blind_seconds, self._doubts = blind_seconds, doubts
        self._moved_at = timer()
        self._moved_to_ms = -1
        self._asked_at = -DOUBT_SECONDS

    def turn(self, _moved: bool) -> None:
        """Look, after a turn of the Owner."""
        now = self._timer()
        if self._doubts is not None and now - self._asked_at >= DOUBT_SECONDS:
            self._asked_at = now
            self._stage.doubt(self._doubts())
        if self._blind_seconds is None:
            return
        merged_ms = self._stage.merged_ms
        if merged_ms != self._moved_to_ms:
            self._moved_to_ms, self._moved_at = merged_ms, now
        elif now - self._moved_at > self._blind_seconds:
            self._moved_at = now
            self._stage.blind(self._clock.now_ms())


def detection_share(parts: DetectionParts, number: int, on_end: OnEnd) -> KeyedShare:
    """Make the share of one keyed partition; nothing runs yet."""
    topics, settings, clock = parts.topics, parts.settings, parts.clock
    live = settings.lane == LIVE_LANE
    stage = DetectionStage(
        topics,
        number,
        parts.policies,
        blind_seconds=settings.blind_seconds,
        silence_seconds=settings.silence_seconds,
        activity_late_seconds=settings.activity_late_seconds,
        snapshot_seconds=settings.snapshot_seconds,
        metrics=parts.metrics,
    )
    sources = [TopicPartition(topics.name("cohorts"), number)]
    feed = Feed(parts.log, sources)
    name = f"{STAGE}/{number}"
    owner = Owner(feed, name, STAGE, stage, TopicPartition(topics.name("detection"), number), clock)
    blind_seconds = settings.blind_seconds if live else None
    driver = ShareDriver(
        name,
        feed,
        owner,
        parts.words,
        clock,
        parts.metrics,
        stage_word=STAGE,
        reached=lambda: stage.merged_ms,
        on_turn=Watcher(stage, clock, blind_seconds=blind_seconds, doubts=parts.doubts).turn,
        on_end=on_end,
        eager_words=not live,
    )
    return KeyedShare(number, sources, feed, driver)


def detection_agents(parts: DetectionParts, connection: Connection) -> Agents:
    """Return the service that runs detection on this worker."""
    settings = parts.settings
    cohorts = parts.topics.name("cohorts")
    shares = KeyedShares(
        lambda number, on_end: detection_share(parts, number, on_end),
        cohorts,
        parts.metrics,
        stage_word=STAGE,
        retry_seconds=settings.kafka_session_ms / 2000,
    )
    group = group_of(STAGE, settings.lane)
    return Agents(connection, group, settings.worker_name, [cohorts], shares, parts.metrics, stage_word=STAGE)
