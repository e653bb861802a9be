"""Does Cordon see, keep up, and lose nothing: from sight, the log, and this process's own metrics.

Invariant: a number that this process does not know is shown as unknown, never as zero.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from dashboards.console.pages.common import BasePage, Sources
from ingest.log.interface import LogError, TopicPartition
from ingest.metrics import Metrics
from ingest.topics import TOPICS
from signals.killswitch.lease import WITHHELD_DOCS, Withheld

LOOK_MS = 2000
_SHOWN = (
    "backlog_records", "lag_records", "newest_age_seconds", "owner_silent_seconds", "reports_total", "grouped_total",
    "deadletters_total", "leases_withheld", "webhook_queue_events", "webhook_dead_letters", "pager_waiting",
    "pager_undelivered", "store_failures_total", "stream_subscribers", "console_viewers", "crashes_pending",
    "fleet_devices", "drills_total", "pending_reports", "kafka_up",
)  # fmt: skip
_SUMMED = {
    "fleet_devices": "devices in the fleet's state",
    "crashes_pending": "crashes that are not evidence yet",
    "pending_reports": "reports held that the log has not taken",
    "stream_subscribers": "rollout systems on the stream",
    "console_viewers": "pages of this console open",
    "webhook_queue_events": "events that webhooks have not taken yet",
    "webhook_dead_letters": "events that webhooks would not take",
    "pager_waiting": "pages that no channel has taken yet",
    "pager_undelivered": "pages given up",
    "store_failures_total": "inserts that the store refused (tried again)",
}
Samples = Mapping[str, Sequence[tuple[Mapping[str, str], float]]]


class HealthPage(BasePage):
    """Sight, lag, freshness, outcomes, dead letters, leases withheld."""

    def stamp(self) -> object:
        """Return what is another every other second: most of it moves with the time."""
        return self.sources.clock.now_ms() // LOOK_MS

    def values(self) -> dict[str, Any]:
        """Return what the sections show."""
        values = BasePage.values(self)
        found = samples(self.sources.service.metrics, _SHOWN)
        newest_ms, now_ms = values["overview"].newest_ms, self.sources.clock.now_ms()
        return values | {
            "sight": values["overview"].sight,
            "newest_ms": newest_ms,
            # A replay drives its own clock: how old its verdicts are says nothing.
            "age_seconds": max(0, now_ms - newest_ms) / 1000 if newest_ms and self.sources.terms else None,
            "lag": _lag(found),
            "outcomes": _by(found, "reports_total", "outcome"),
            "grouped": _by(found, "grouped_total", "outcome"),
            "dead": _by(found, "deadletters_total", "reason"),
            "dead_kept": self._dead_kept(),
            "withheld": [(word, count, _doc(word)) for word, count in _by(found, "leases_withheld", "reason") if count],
            "leases": self.sources.terms is not None,
            "counts": [(text, _sum(found, name)) for name, text in _SUMMED.items()],
            "drills": _by(found, "drills_total", "result"),
        }

    def _dead_kept(self) -> int | None:
        service = self.sources.service
        topic = next(topic for topic in TOPICS if topic.word == "deadletter")
        name = service.topics.name("deadletter")
        try:
            bounds = [
                service.log.bounds(TopicPartition(name, part)) for part in range(service.topics.partitions(topic))
            ]
        except LogError:
            return None
        return sum(end - first for first, end in bounds)


def health_page(sources: Sources) -> HealthPage:
    """Return the page."""
    return HealthPage(sources, "/health", "Health", "health", "health.html", ("strip", "sight", "numbers"))


def samples(metrics: Metrics, names: Sequence[str]) -> Samples:
    """Return metrics of this process by name; those that were never set are not among them."""
    registry = metrics.registry.restricted_registry([f"cordon_{name}" for name in names])
    found: dict[str, list[tuple[Mapping[str, str], float]]] = {}
    for family in registry.collect():
        for sample in family.samples:
            found.setdefault(sample.name.removeprefix("cordon_"), []).append((sample.labels, sample.value))
    return found


def _by(found: Samples, name: str, label: str) -> list[tuple[str, float]]:
    return sorted(((labels[label], value) for labels, value in found.get(name, ())), key=lambda one: (-one[1], one[0]))


def _sum(found: Samples, name: str) -> float | None:
    values = [value for _, value in found.get(name, ())]
    return sum(values) if values else None


def _lag(found: Samples) -> list[tuple[str, float, float | None, float | None]]:
    """Return, of each stage or owner: records unread, age of the newest read, time since its last word."""
    ages = dict(_by(found, "newest_age_seconds", "owner"))
    silent = dict(_by(found, "owner_silent_seconds", "owner"))
    owners = [(name, lag, ages.get(name), silent.get(name)) for name, lag in _by(found, "lag_records", "owner")]
    return owners or [(name, lag, None, None) for name, lag in _by(found, "backlog_records", "stage")]


def _doc(word: str) -> str:
    return WITHHELD_DOCS[Withheld(word)] if word in set(Withheld) else ""
