"""Makes the live side of the streams listener from a process's settings; shared by every process that has one."""

from ingest.log.interface import Log
from ingest.metrics import Metrics
from ingest.settings import Settings
from ingest.topics import Topics
from signals.delivery.service import StreamService
from signals.killswitch.signing import PublicKeys


def stream_service(
    settings: Settings, log: Log, topics: Topics, trusted: PublicKeys, metrics: Metrics
) -> StreamService:
    """Return what stands behind the listener; nothing is read before it starts."""
    return StreamService(
        log,
        topics,
        trusted,
        metrics,
        subscribers_max=settings.stream_subscribers_max,
        queue_max=settings.stream_queue_max,
    )
