"""What every process on many machines is made of, whatever its kind: settings, Kafka's log, metrics, clock.

Also what each of them looks at before it does anything: that the lane's topics are there with the partition counts of
the settings, and that what must be alike on all machines is. The invariant: nothing is written to a partition that
another process would not look for it in.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from deploy.serving.configuration import ConfigurationError, topics_of
from ingest.clock import Clock, WallClock
from ingest.installation import Accept, DisagreementError, agree
from ingest.log.interface import LogUnavailableError
from ingest.log.kafka import topics as kafka_topics
from ingest.log.kafka.admin import admin_client
from ingest.log.kafka.connection import Connection, connection_of
from ingest.log.kafka.log import KafkaLog
from ingest.log.specs import topic_specs
from ingest.metrics import Metrics
from ingest.settings import Settings, SettingsError
from ingest.topics import LIVE_LANE, Topics

# A process that waits for Kafka at its start says so, and tries again; whoever supervises it sees it alive.
RETRY_SECONDS = 2.0

logger = logging.getLogger(__name__)
_Result = TypeVar("_Result")

_PARTITIONS = "a partition count is fixed for the installation's life: set it to the installation's in every process"
REMEDIES = {
    "device_partitions": _PARTITIONS,
    "keyed_partitions": _PARTITIONS,
    "pseudonym_key": (
        "with another key every device would be a stranger. Copy pseudonym.key from the data folder of a gateway that "
        "runs into this one's, and start it again"
    ),
    "webhook_key": (
        "receivers of webhooks would not believe this process. Copy keys/webhook.key from the data folder of a signals "
        "process that runs into this one's, and start it again"
    ),
    "signing_key": (
        "rollout systems would not believe this process. Copy the folder `keys` from the data folder of the signals "
        "process that ran before into this one's, and start it again"
    ),
}


@dataclass(slots=True)
class Base:
    """What every process has.

    Attributes:
        kind: `gateway`, `worker` or `signals`.
        name: of this process, for people and brokers.
    """

    kind: str
    name: str
    settings: Settings
    topics: Topics
    connection: Connection
    log: KafkaLog
    metrics: Metrics
    clock: Clock
    data: Path

    @property
    def driven(self) -> bool:
        """Whether a replay drives this lane's clock."""
        return self.settings.lane != LIVE_LANE


def base_of(settings: Settings, kind: str, name: str) -> Base:
    """Make the base of a process, without connecting.

    Raises:
        ConfigurationError: a setting contradicts another, or names a file that can't be used.
    """
    if not settings.kafka_bootstrap:
        raise ConfigurationError(
            f"`cordon {kind}` needs Kafka: set kafka_bootstrap to the brokers' addresses, or run everything in one "
            f"process with `cordon up`"
        )
    topics = topics_of(settings)
    try:
        connection = connection_of(settings)
    except SettingsError as error:
        raise ConfigurationError(str(error)) from error
    data = Path(settings.data_dir)
    try:
        data.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"cannot use the data folder {data}: {error.strerror}. Name another one") from error
    metrics, clock = Metrics(), WallClock()
    log = KafkaLog(connection, topic_specs(topics), clock, metrics, lane=settings.lane, client=name)
    return Base(kind, name, settings, topics, connection, log, metrics, clock, data)


def check_topics(base: Base) -> None:
    """Return if every topic of the lane is there with as many partitions as the settings say.

    Raises:
        ConfigurationError: one is missing, or has another count.
        LogUnavailableError: Kafka does not answer.
    """
    connection = base.connection
    wanted = kafka_topics.wanted(
        topic_specs(base.topics), replication=connection.replication, min_isr=connection.min_isr
    )
    with admin_client(connection) as admin:
        existing = kafka_topics.describe(admin, (topic.name for topic in wanted))
    missing = [topic.name for topic in wanted if topic.name not in existing]
    if missing:
        raise ConfigurationError(
            f"{len(missing)} of {len(wanted)} topics of lane {base.settings.lane!r} are missing, {missing[0]} first: "
            f"run `cordon topics apply` with these settings"
        )
    for topic in wanted:
        there = existing[topic.name].partitions
        if there != topic.partitions:
            raise ConfigurationError(
                f"topic {topic.name} has {there} partitions where the settings say {topic.partitions}: {_PARTITIONS} "
                f"(device_partitions, keyed_partitions)"
            )


def check_facts(base: Base, facts: Mapping[str, str], replaces: Mapping[str, Accept] | None = None) -> None:
    """Return if this process was told the same as the installation's others.

    Args:
        base: of this process.
        facts: what it was told beside the partition counts.
        replaces: see `agree`.

    Raises:
        ConfigurationError: it was told otherwise.
        LogUnavailableError: Kafka does not answer.
    """
    counts = {
        "device_partitions": str(base.settings.device_partitions),
        "keyed_partitions": str(base.settings.keyed_partitions),
    }
    try:
        agree(base.log, base.topics, counts | dict(facts), base.name, base.clock, REMEDIES, replaces)
    except DisagreementError as error:
        raise ConfigurationError(str(error)) from error


async def until_kafka(request: Callable[[], _Result], what: str) -> _Result:
    """Make a request in a thread until Kafka answers it.

    Args:
        request: what is asked.
        what: for people, for instance `its topics`.

    Raises:
        Exception: whatever the request raises but LogUnavailableError.
    """
    while True:
        try:
            return await asyncio.to_thread(request)
        except LogUnavailableError as error:
            logger.warning("waiting for Kafka to tell of %s: %s", what, error)
        await asyncio.sleep(RETRY_SECONDS)
