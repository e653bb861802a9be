"""The kill switch on many machines: one share for each keyed partition, fed with verdicts and commands by an agent.

The share `signals/K` is the embedded signals stage under an Owner of its own. Invariant: numbers of a rollout have one
writer. The Owner claims the fence `signals/K` (on Kafka a transactional id) and reads `killswitch/K` to its end before
it numbers, and whatever it appends is one transaction under that fence: of two processes that both believe they own the
partition, the older one's next append is refused.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from deploy.workers.agents import Agents
from deploy.workers.driver import ShareDriver, Words
from deploy.workers.faust_app import group_of
from deploy.workers.keyed import KeyedShare, KeyedShares, OnEnd
from ingest.clock import Clock
from ingest.log.feed import Feed
from ingest.log.interface import Log, TopicPartition
from ingest.log.kafka.connection import Connection
from ingest.log.owner import Owner
from ingest.metrics import Metrics
from ingest.settings import Settings
from ingest.topics import LIVE_LANE, Topics
from signals.killswitch.leasing import Granting
from signals.killswitch.people import Rules
from signals.killswitch.signing import PublicKeys, Signs
from signals.killswitch.stage import SignalsStage

STAGE = "signals"


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalsParts:
    """What every signals share of a process is made of.

    Attributes:
        log: Kafka's, behind the feeds.
        topics: the lane's.
        settings: of this process.
        signer: signs every event and lease.
        trusted: the keys that earlier events may be signed with.
        granting: on what terms leases are granted; None grants none.
        key_changes: hands over what became of the signing keys, for the audit trail.
        words: where shares say how far they have come; None: nobody listens.
        clock: the wall clock.
        metrics: of this process.
    """

    log: Log
    topics: Topics
    settings: Settings
    signer: Signs
    trusted: PublicKeys
    words: Words | None
    clock: Clock
    metrics: Metrics
    granting: Granting | None = None
    key_changes: Callable[[], Sequence[str]] = list


def signals_share(parts: SignalsParts, number: int, on_end: OnEnd) -> KeyedShare:
    """Make the share of one keyed partition; nothing runs yet."""
    topics, clock = parts.topics, parts.clock
    stage = SignalsStage(
        parts.log,
        topics,
        number,
        parts.signer,
        parts.trusted,
        clock,
        parts.metrics,
        Rules.by(parts.settings),
        granting=parts.granting,
        key_changes=parts.key_changes,
    )
    feed = Feed(parts.log, stage.inputs)
    name = f"{STAGE}/{number}"
    owner = Owner(feed, name, STAGE, stage, TopicPartition(topics.name("switches"), number), clock)
    driver = ShareDriver(
        name,
        feed,
        owner,
        parts.words,
        clock,
        parts.metrics,
        stage_word=STAGE,
        # Verdicts come when there is something to say: no time is ever known to be through, only offsets are.
        reached=lambda: 0,
        on_end=on_end,
        eager_words=parts.settings.lane != LIVE_LANE,
    )
    return KeyedShare(number, stage.inputs, feed, driver)


def signals_shares(parts: SignalsParts) -> KeyedShares:
    """Return the shares that this process will be dealt."""
    return KeyedShares(
        lambda number, on_end: signals_share(parts, number, on_end),
        parts.topics.name("verdicts"),
        parts.metrics,
        stage_word=STAGE,
        retry_seconds=parts.settings.kafka_session_ms / 2000,
    )


def signals_agents(parts: SignalsParts, connection: Connection, shares: KeyedShares | None = None) -> Agents:
    """Return the service that runs the kill switch on this worker, with shares of its own if none are given."""
    settings, topics = parts.settings, parts.topics
    verdicts, commands = topics.name("verdicts"), topics.name("commands")
    shares = shares or signals_shares(parts)
    group = group_of(STAGE, settings.lane)
    return Agents(
        connection, group, settings.worker_name, [verdicts, commands], shares, parts.metrics, stage_word=STAGE
    )
