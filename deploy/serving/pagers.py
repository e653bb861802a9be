"""Makes the pagers of a process from its settings; shared by the embedded Cordon and `cordon signals`.

Invariant: a registry of routes that can't be used keeps the process from starting, with the remedy; without one nobody
is paged.
"""

from collections.abc import Callable, Collection
from pathlib import Path

from deploy.serving.configuration import ConfigurationError
from ingest.clock import Clock
from ingest.log.interface import Log
from ingest.metrics import Metrics
from ingest.settings import Settings
from ingest.sight import SightSource
from ingest.topics import LIVE_LANE, Topics
from signals.killswitch.signing import PublicKeys
from signals.pagers.crew import PagerCrew
from signals.pagers.heartbeat import Heartbeat
from signals.pagers.outbox import OutboxSettings
from signals.pagers.registry import RegistryError
from signals.pagers.registry_book import RegistryBook
from signals.pagers.service import PagerParts


def pager_crew(
    settings: Settings,
    log: Log,
    topics: Topics,
    trusted: PublicKeys,
    clock: Clock,
    metrics: Metrics,
    sight: SightSource,
    owned: Callable[[], Collection[int]],
) -> PagerCrew:
    """Return the pagers of a process.

    Args:
        settings: of this process.
        log: of the installation.
        topics: the lane's.
        trusted: the keys that kill-switch events must be signed with.
        clock: the wall clock.
        metrics: of this process.
        sight: whether Cordon sees, for the heartbeat.
        owned: the keyed partitions that this process serves.

    Raises:
        ConfigurationError: the registry of routes can't be used.
    """
    parts = None
    if settings.routes_file:
        try:
            book = RegistryBook(Path(settings.routes_file), metrics)
        except RegistryError as error:
            raise ConfigurationError(f"{error}. `cordon routes check FILE` checks a file") from error
        parts = PagerParts(
            log=log,
            topics=topics,
            trusted=trusted,
            book=book,
            clock=clock,
            metrics=metrics,
            settings=OutboxSettings(
                calm_seconds=settings.pager_calm_seconds,
                update_seconds=settings.pager_update_seconds,
                give_up_seconds=settings.pager_give_up_seconds,
            ),
            links_base=settings.links_base,
        )
    heartbeat = None
    if settings.deadman_url and settings.lane == LIVE_LANE:
        heartbeat = Heartbeat(settings.deadman_url, settings.deadman_seconds, sight, metrics)
    return PagerCrew(parts, owned, heartbeat)
