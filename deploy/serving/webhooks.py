"""Makes the webhooks of a process from its settings; shared by the embedded Cordon and `cordon signals`.

Invariant: a network list or key that can't be used keeps the process from starting, with the remedy.
"""

from collections.abc import Callable, Collection
from pathlib import Path

from deploy.serving.configuration import ConfigurationError
from ingest.clock import Clock
from ingest.log.interface import Log
from ingest.metrics import Metrics
from ingest.settings import Settings
from ingest.topics import Topics
from signals.delivery.webhooks.deliverer import DeliveryParts
from signals.delivery.webhooks.secret import WebhookKey, WebhookKeyError
from signals.delivery.webhooks.service import WebhookService
from signals.delivery.webhooks.targets import NetworksError, TargetPolicy, parse_networks


def webhook_service(
    settings: Settings,
    log: Log,
    topics: Topics,
    clock: Clock,
    metrics: Metrics,
    owned: Callable[[], Collection[int]],
) -> tuple[WebhookService, WebhookKey]:
    """Return the webhooks of a process, and the key that all processes of the installation must share.

    Args:
        settings: of this process.
        log: of the installation.
        topics: the lane's.
        clock: the wall clock.
        metrics: of this process.
        owned: the keyed partitions that this process delivers.

    Raises:
        ConfigurationError: the key or `webhook_private_targets` can't be used.
    """
    try:
        key = WebhookKey.of(Path(settings.data_dir))
        policy = TargetPolicy(parse_networks(settings.webhook_private_targets))
    except (WebhookKeyError, NetworksError) as error:
        raise ConfigurationError(str(error)) from error
    parts = DeliveryParts(
        log=log,
        topics=topics,
        key=key,
        clock=clock,
        metrics=metrics,
        retry_seconds=settings.webhook_retry_seconds,
    )
    service = WebhookService(
        parts,
        policy,
        owned,
        timeout_seconds=settings.webhook_timeout_seconds,
        subscriptions_max=settings.webhook_subscriptions_max,
    )
    return service, key
