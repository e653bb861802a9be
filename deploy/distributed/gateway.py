"""The composition root of `cordon gateway`: reports in, through the spool, to Kafka.

Order of life: agree with the installation (topics, partition counts, pseudonym key, a name of its own), read rollouts
back, tick, read the intake topic, listen. Without Kafka a gateway starts on what its folder says was agreed before, and
agrees again when Kafka is back. Order of death: leave the intake, refuse posts, flush what is held, stop listening, say
goodbye, close spool and log.
"""

import asyncio
import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path

import msgspec

from deploy.distributed.base import Base, base_of, check_facts, check_topics, until_kafka
from deploy.distributed.follower import ProgressFollower
from deploy.distributed.presence import GatewayPresence
from deploy.distributed.progress import LogProgress
from deploy.serving.configuration import ConfigurationError, policies_of, pseudonym_key_of
from deploy.serving.servers import Listener
from detectors.planning import PolicyPlanner
from ingest.clock import Clock, DrivenClock
from ingest.gateway.app import reports_app
from ingest.gateway.gateway import Gateway
from ingest.gateway.intake import IntakeStage
from ingest.gateway.intake_consumer import IntakeConsumer, intake_consumer
from ingest.gateway.spool.log import SpoolingLog
from ingest.gateway.spool.store import Spool
from ingest.gateway.tenants import TokenBook
from ingest.log.interface import Log, LogUnavailableError
from ingest.settings import Settings

# By lane: a folder may serve several, one after the other.
_AGREED = "agreed-{lane}.json"

logger = logging.getLogger(__name__)


def fingerprint_of(key: bytes) -> str:
    """Return what may be shown of a secret key: enough to tell two apart, nothing to guess it by."""
    return hashlib.blake2b(key, digest_size=16, person=b"cordon-key").hexdigest()


class GatewayProcess:
    """One gateway on the running event loop.

    Attributes:
        failed: set when a part has failed for good; the process should end.
    """

    def __init__(self, settings: Settings) -> None:
        """Build all parts; nothing connects before `start`.

        Raises:
            ConfigurationError: settings, pseudonym key or data folder can't be used.
            TokenBookError: the token file can't be read.
            LogError: another process has the spool.
        """
        self.failed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._base = base = base_of(settings, "gateway", settings.gateway_name)
        key = pseudonym_key_of(settings)
        self._facts = {"pseudonym_key": fingerprint_of(key)}
        self._agreed = base.data / _AGREED.format(lane=settings.lane)
        clock: Clock = base.clock
        if base.driven:
            # A driven lane's time stands still between drives: waiting for company by the wall clock only costs speed.
            clock, settings = DrivenClock(), msgspec.structs.replace(settings, linger_ms=0)
        self._spooling = _spooling(base, settings)
        self._log: Log = self._spooling or base.log
        self._follower = ProgressFollower(base.log, base.topics)
        progress = LogProgress(base.log, base.topics, self._follower) if base.driven else None
        tokens, planner = TokenBook.load(base.data / "tokens.toml"), PolicyPlanner(policies_of(settings))
        self._gateway = Gateway(
            settings,
            self._log,
            base.topics,
            clock,
            base.metrics,
            tokens,
            key,
            progress,
            spool=self._spooling,
            shared=True,
        )
        self._intake = IntakeConsumer(
            IntakeStage(self._gateway, self._log),
            base.topics,
            lambda: intake_consumer(base.connection, base.topics, base.name),
            self._loop,
        )
        self._presence = GatewayPresence(
            base.log, base.topics, settings.gateway_name, base.data, base.clock, self._agree, self._fail
        )
        self._listener = Listener("reports", reports_app(self._gateway, planner), settings.host, settings.reports_port)

    def urls(self) -> Mapping[str, str]:
        """Return the URL of the reports listener."""
        return {self._listener.name: self._listener.url}

    async def start(self) -> None:
        """Start every part, and return once the listener answers; on failure nothing is left running.

        Raises:
            ConfigurationError: this gateway was told otherwise than the installation, or its name is taken.
            LogError: rollouts can't be read.
            ListenError: the port can't be opened.
        """
        try:
            await self._take_name()
            if self._base.driven:
                self._follower.start()
            self._presence.start()
            await self._gateway.start()
            self._intake.start()
            await self._listener.start()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Read no more of the intake, drain what is held into the log or the spool, then end every part."""
        await asyncio.to_thread(self._intake.stop)
        await self._gateway.drain()
        await self._listener.stop()
        await asyncio.to_thread(self._presence.stop)
        if self._base.driven:
            await asyncio.to_thread(self._follower.stop)
        # With a spool before it, the log behind is closed with it.
        await asyncio.to_thread(self._log.close)

    async def _take_name(self) -> None:
        if not _agreed_before(self._agreed, self._facts):
            await until_kafka(self._presence.claim, "this installation")
            return
        try:
            await asyncio.to_thread(self._presence.claim)
        except LogUnavailableError as error:
            logger.warning("Kafka is away, starting on the spool and on what was agreed before: %s", error)

    def _agree(self) -> None:
        """Check what all must agree on, and remember that they do."""
        check_topics(self._base)
        check_facts(self._base, self._facts)
        self._agreed.write_bytes(msgspec.json.encode(self._facts))

    def _fail(self, error: BaseException) -> None:
        logger.error("this gateway ends: %s", error)
        self._loop.call_soon_threadsafe(self.failed.set)


def _spooling(base: Base, settings: Settings) -> SpoolingLog | None:
    if not settings.spool_bytes_max:
        return None
    spool = Spool(base.data / "spool" / settings.lane, settings.spool_bytes_max, base.topics, base.clock)
    return SpoolingLog(base.log, spool, base.metrics, after_seconds=settings.spool_after_ms / 1000)


def _agreed_before(path: Path, facts: Mapping[str, str]) -> bool:
    """Tell whether this folder's gateway has agreed with its installation on these facts before."""
    try:
        return bool(msgspec.json.decode(path.read_bytes(), type=dict[str, str]) == dict(facts))
    except FileNotFoundError:
        return False
    except (OSError, msgspec.MsgspecError) as error:
        raise ConfigurationError(f"cannot read {path}: {error}. Remove it and start this gateway with Kafka") from error
