"""The composition root of `cordon worker`: grouping, detection and the store's sink, each in a consumer group.

A worker takes the roles it is told; any number of workers share out the work of a role among them. Order of life: agree
with the installation, listen to the words of all shares, join the groups, open the health page. Order of death: shares
flush and say that they leave, groups are left, the log is closed.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence

from deploy.alerts.service import AlertsService, alerts_service
from deploy.distributed.base import Base, base_of, check_facts, check_topics, until_kafka
from deploy.distributed.crew import Crew, Member
from deploy.distributed.health import health_app
from deploy.distributed.lookout import Lookout
from deploy.serving.configuration import ConfigurationError, policies_of
from deploy.serving.servers import Listener
from deploy.workers.detection import DetectionParts, detection_agents
from deploy.workers.grouping import GroupingService
from deploy.workers.shares import plan_of
from deploy.workers.sink import StoreParts, store_agents, store_shares
from deploy.workers.words import ProgressWriter
from ingest.settings import Settings, SettingsError
from ingest.store.interface import Store, StoreError
from ingest.store.migrate import MigrationError
from ingest.store.server import migrator_of, store_of

ROLES = ("grouping", "detection", "sink")

logger = logging.getLogger(__name__)


def roles_of(text: str, settings: Settings) -> tuple[str, ...]:
    """Return the roles that were asked for; without a store there is no sink.

    Args:
        text: names with commas between; empty for all that the settings allow.
        settings: of this process.

    Raises:
        ConfigurationError: no such role, or a sink without a ClickHouse server.
    """
    asked = tuple(role.strip() for role in text.split(",") if role.strip())
    unknown = [role for role in asked if role not in ROLES]
    if unknown:
        raise ConfigurationError(f"no role {unknown[0]!r}: roles are {', '.join(ROLES)}")
    wanted = asked or tuple(role for role in ROLES if role != "sink" or settings.store)
    if "sink" in wanted and not settings.clickhouse_host:
        raise ConfigurationError(
            "the role `sink` needs a ClickHouse server: set clickhouse_host, or leave the store out (`store = false`, "
            "`--no-store`, or `--roles grouping,detection`)"
        )
    return tuple(dict.fromkeys(wanted))


def _store(settings: Settings) -> Store:
    try:
        return store_of(settings)
    except SettingsError as error:
        raise ConfigurationError(str(error)) from error


class WorkerProcess:
    """One worker on the running event loop.

    Attributes:
        failed: set when a part has failed for good; the process should end.
    """

    def __init__(self, settings: Settings, roles: Sequence[str]) -> None:
        """Build all parts; nothing connects before `start`.

        Raises:
            ConfigurationError: settings, policy or data folder can't be used.
        """
        self.failed = asyncio.Event()
        self._base = base = base_of(settings, "worker", settings.worker_name)
        self._words = ProgressWriter(base.log, base.topics, base.name, base.clock, base.metrics)
        self._lookout = Lookout(base) if "detection" in roles else None
        self._store = _store(settings) if "sink" in roles else None
        self._alerts: AlertsService | None = None
        members = [(role, self._member(role)) for role in roles]
        self._crew = Crew(
            members, self._words, base.metrics, stall_seconds=settings.stall_seconds, on_failure=self._fail
        )
        app = health_app(self._crew.problems, self._lookout, base.metrics)
        self._listener = Listener("worker", app, settings.host, settings.worker_port)

    def urls(self) -> Mapping[str, str]:
        """Return the URL of the health page."""
        return {"health": self._listener.url}

    async def start(self) -> None:
        """Start every part; on failure nothing is left running.

        Raises:
            ConfigurationError: this worker was told otherwise than the installation.
            ListenError: the port can't be opened.
        """
        try:
            await until_kafka(lambda: check_topics(self._base), "its topics")
            await until_kafka(lambda: check_facts(self._base, {}), "this installation")
            await asyncio.to_thread(self._check_store)
            if self._lookout is not None:
                self._lookout.start()
            await self._crew.start()
            if self._alerts is not None:
                self._alerts.start()
            await self._listener.start()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """End the shares first, so that all they have is in the log, then everything else."""
        if self._alerts is not None:
            await asyncio.to_thread(self._alerts.stop)
        await self._crew.stop()
        if self._lookout is not None:
            await self._lookout.stop()
        await self._listener.stop()
        if self._store is not None:
            await asyncio.to_thread(self._store.close)
        await asyncio.to_thread(self._base.log.close)

    def _member(self, role: str) -> Member:
        base = self._base
        if role == "grouping":
            plan = plan_of(base.settings)
            return GroupingService(base.log, base.connection, base.topics, plan, self._words, base.clock, base.metrics)
        return self._detection(base) if role == "detection" else self._sink(base)

    def _sink(self, base: Base) -> Member:
        assert self._store is not None
        parts = StoreParts(
            log=base.log,
            topics=base.topics,
            settings=base.settings,
            store=self._store,
            clock=base.clock,
            metrics=base.metrics,
        )
        shares = store_shares(parts)
        if base.settings.alerts_seconds:
            self._alerts = alerts_service(base.log, base.topics, base.settings, base.metrics, lambda: shares.owns_first)
        return store_agents(parts, base.connection, shares)

    def _check_store(self) -> None:
        """Return if the store has every migration; one that is away holds nobody up, and is waited for by the sink."""
        if self._store is None:
            return
        try:
            missing = [one for one in migrator_of(self._base.settings, self._store).status() if not one.applied]
        except MigrationError as error:
            raise ConfigurationError(str(error)) from error
        except StoreError as error:
            logger.warning("ClickHouse can't be asked for its migrations, going on without: %s", error)
            return
        if missing:
            raise ConfigurationError(
                f"{len(missing)} of the store's migrations are missing: run `cordon migrate apply`"
            )

    def _detection(self, base: Base) -> Member:
        parts = DetectionParts(
            log=base.log,
            topics=base.topics,
            settings=base.settings,
            policies=policies_of(base.settings),
            words=self._words,
            clock=base.clock,
            metrics=base.metrics,
            # A driven clock may rest: nothing is called blind for it, or a replay would depend on its speed.
            doubts=None if base.driven or self._lookout is None else self._lookout.doubts,
        )
        return detection_agents(parts, base.connection)

    def _fail(self, _error: BaseException) -> None:
        self.failed.set()
