"""Every metric of Cordon, declared once: name, kind, labels and documentation.

A process makes one `Metrics` and hands it to whoever counts. Naming an undeclared metric raises, in production as in
tests, and label sets are closed words or bounded numbers: nothing a sender chooses ever becomes a label value.
"""

import enum
from collections.abc import Callable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest


class Kind(enum.StrEnum):
    """The Prometheus type."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric's declaration; the name is without the `cordon_` prefix."""

    name: str
    kind: Kind
    doc: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

METRICS: tuple[Metric, ...] = (
    Metric("reports_total", Kind.COUNTER, "Reports by outcome at the gateway.", ("outcome",)),
    Metric("requests_refused_total", Kind.COUNTER, "Whole requests refused, by reason.", ("reason",)),
    Metric("post_seconds", Kind.HISTOGRAM, "Time from a post's arrival to its answer.", (), _SECONDS),
    Metric("log_append_seconds", Kind.HISTOGRAM, "Time of one durable append by the gateway.", (), _SECONDS),
    Metric("pending_reports", Kind.GAUGE, "Reports the gateway holds that the log has not taken."),
    Metric("ticks_total", Kind.COUNTER, "Ticks written, over all partitions."),
    Metric("rollouts_discovered_total", Kind.COUNTER, "Rollouts nobody declared, found in reports."),
    Metric("rollouts_refused_total", Kind.COUNTER, "Undeclared rollouts beyond a tenant's budget."),
    Metric("grouped_total", Kind.COUNTER, "Reports by outcome in grouping.", ("outcome",)),
    Metric("stage_step_seconds", Kind.HISTOGRAM, "Time of one step of a stage that had work.", ("stage",), _SECONDS),
    Metric("fleet_devices", Kind.GAUGE, "Devices in the fleet's state.", ("partition",)),
    Metric("watermark_ms", Kind.GAUGE, "Watermark of a device partition.", ("partition",)),
    Metric("crashes_pending", Kind.GAUGE, "Crashes read that are not yet evidence.", ("partition",)),
    Metric("backlog_records", Kind.GAUGE, "Records a stage has not read yet.", ("stage",)),
    Metric("verdicts_total", Kind.COUNTER, "Verdicts published.", ("verdict", "decision")),
    Metric("rollouts_watched", Kind.GAUGE, "Rollouts under watch."),
    Metric("alerts_open", Kind.GAUGE, "Open alerts on crash patterns that belong to no rollout."),
    Metric("alerts_written_total", Kind.COUNTER, "Alerts written: opened, grown or ended.", ("state",)),
    Metric("alerts_failures_total", Kind.COUNTER, "Looks for patterns that failed; they are tried again."),
    Metric(
        "alerts_judged_timestamp", Kind.GAUGE, "Event time up to which patterns are judged, seconds since the epoch."
    ),
    Metric("killswitch_events_total", Kind.COUNTER, "Kill-switch events by decision.", ("decision",)),
    Metric("commands_refused_total", Kind.COUNTER, "Commands from people that changed nothing.", ("reason",)),
    Metric("leases_issued_total", Kind.COUNTER, "Leases signed and appended."),
    Metric("leases_withheld", Kind.GAUGE, "Rollouts that got no lease when they were looked at last.", ("reason",)),
    Metric("break_glass_total", Kind.COUNTER, "Kills released without the second person that policy demands."),
    Metric("approvals_pending", Kind.GAUGE, "Releases that wait for a second person.", ("partition",)),
    Metric("stream_subscribers", Kind.GAUGE, "Open event streams."),
    Metric("console_viewers", Kind.GAUGE, "Pages of the console that are looked at now."),
    Metric("webhook_attempts_total", Kind.COUNTER, "Posts of events to webhooks, by how they ended.", ("outcome",)),
    Metric(
        "webhook_delivery_seconds",
        Kind.HISTOGRAM,
        "Time from an event's append to a webhook's 2xx.",
        (),
        (*_SECONDS, 60.0, 600.0, 3600.0),
    ),
    Metric("webhook_queue_events", Kind.GAUGE, "Events known to be undelivered, over all webhooks.", ("partition",)),
    Metric("webhook_oldest_seconds", Kind.GAUGE, "Age of the oldest of them; 0: there is none.", ("partition",)),
    Metric("webhook_dead_letters", Kind.GAUGE, "Events that webhooks would not take.", ("partition",)),
    Metric("webhook_disabled", Kind.GAUGE, "Webhooks that are paused, or disabled by Cordon.", ("partition",)),
    Metric("webhook_failures_total", Kind.COUNTER, "Deliverers of webhooks that failed and were made anew."),
    Metric("stream_cut_total", Kind.COUNTER, "Event streams cut because the subscriber was slow."),
    Metric("pagers_up", Kind.GAUGE, "1 while paging of a partition runs.", ("partition",)),
    Metric("pager_sends_total", Kind.COUNTER, "Attempts to page, by how they ended.", ("channel", "answered")),
    Metric("pager_send_seconds", Kind.HISTOGRAM, "Time of one attempt to page.", (), _SECONDS),
    Metric("pager_waiting", Kind.GAUGE, "Things to be told that no channel has taken.", ("partition",)),
    Metric("pager_breakers_open", Kind.GAUGE, "Routes that are tried only once a pause.", ("partition",)),
    Metric("pager_incidents_open", Kind.GAUGE, "Incidents that somebody was told of and that stand.", ("partition",)),
    Metric("pager_undelivered", Kind.GAUGE, "Pages given up, kept for redelivery by hand.", ("partition",)),
    Metric("pager_registry_broken", Kind.GAUGE, "1 while the routes file can't be used and the one before it is."),
    Metric(
        "deadman_beats_total", Kind.COUNTER, "Heartbeats to the dead-man's switch, by what became of them.", ("result",)
    ),
    Metric("deadletters_total", Kind.COUNTER, "Records dead-lettered, by reason.", ("reason",)),
    Metric("store_rows_total", Kind.COUNTER, "Rows inserted into the store.", ("table",)),
    Metric("store_insert_seconds", Kind.HISTOGRAM, "Time of one insert into the store.", (), _SECONDS),
    Metric("store_failures_total", Kind.COUNTER, "Inserts the store refused; they are tried again."),
    Metric("queries_total", Kind.COUNTER, "Queries at the read-only endpoint.", ("result",)),
    Metric("spool_bytes", Kind.GAUGE, "Bytes in the gateway's spool that Kafka has not taken."),
    Metric("spool_oldest_seconds", Kind.GAUGE, "Age of the oldest flush in the spool; 0 when it is empty."),
    Metric("spooled_total", Kind.COUNTER, "Flushes that went to the spool because Kafka was away or slow."),
    Metric("spool_drained_total", Kind.COUNTER, "Flushes taken from the spool to Kafka."),
    Metric("kafka_up", Kind.GAUGE, "1 while the last request to Kafka succeeded, else 0."),
    Metric("intake_records_total", Kind.COUNTER, "Records of the intake topic, by what became of them.", ("result",)),
    Metric("owned_partitions", Kind.GAUGE, "Shares of the work this process owns.", ("stage",)),
    Metric("lag_records", Kind.GAUGE, "Records not read yet, of one owner.", ("owner",)),
    Metric("newest_age_seconds", Kind.GAUGE, "Age of the newest record an owner has read.", ("owner",)),
    Metric("owner_silent_seconds", Kind.GAUGE, "Time since an owner's last word of progress.", ("owner",)),
    Metric("owners_missing", Kind.GAUGE, "Shares of the work nobody owns.", ("stage",)),
    Metric("stalls_total", Kind.COUNTER, "Stages that stood still beside unread records.", ("stage",)),
    Metric("rebalances_total", Kind.COUNTER, "Times that shares of the work were dealt anew.", ("stage",)),
    Metric("restore_seconds", Kind.HISTOGRAM, "Time to load a share's state.", ("stage",), (*_SECONDS, 20.0, 60.0)),
    Metric("log_bytes", Kind.GAUGE, "Size of the embedded log on disk."),
    Metric("drills_total", Kind.COUNTER, "Drills by result: passed, failed, or not_run.", ("result",)),
    Metric("drill_failures_total", Kind.COUNTER, "Failed drills by what was missing.", ("failure",)),
    Metric(
        "drill_seconds_to_kill", Kind.GAUGE, "Time from first crash to verified kill in the last drill that passed."
    ),
    Metric(
        "drill_last_success_timestamp",
        Kind.GAUGE,
        "When the last drill that passed began, seconds since the epoch; 0 when none is known.",
    ),
)


class UndeclaredMetricError(Exception):
    """A metric was named that is not in `METRICS`: declare it there first."""


class Metrics:
    """The metrics of one process."""

    def __init__(self) -> None:
        """Register every declared metric in a registry of its own."""
        self.registry = CollectorRegistry()
        self._by_name: dict[str, Counter | Gauge | Histogram] = {}
        for metric in METRICS:
            name = f"cordon_{metric.name}"
            if metric.kind is Kind.HISTOGRAM:
                self._by_name[metric.name] = Histogram(
                    name, metric.doc, metric.labels, registry=self.registry, buckets=metric.buckets
                )
            else:
                make = Counter if metric.kind is Kind.COUNTER else Gauge
                self._by_name[metric.name] = make(name, metric.doc, metric.labels, registry=self.registry)

    def _get(self, name: str, labels: dict[str, str]) -> Counter | Gauge | Histogram:
        try:
            found = self._by_name[name]
        except KeyError:
            raise UndeclaredMetricError(f"{name} is not declared in ingest/metrics.py") from None
        return found.labels(**labels) if labels else found

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add `amount` to a counter."""
        found = self._get(name, labels)
        if not isinstance(found, Counter):
            raise UndeclaredMetricError(f"{name} is not a counter")
        found.inc(amount)

    def counter(self, name: str, **labels: str) -> Callable[[float], None]:
        """Return the function that adds to one counter: in hot paths finding it by name costs more than adding."""
        found = self._get(name, labels)
        if not isinstance(found, Counter):
            raise UndeclaredMetricError(f"{name} is not a counter")
        return found.inc

    def set(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        found = self._get(name, labels)
        if not isinstance(found, Gauge):
            raise UndeclaredMetricError(f"{name} is not a gauge")
        found.set(value)

    def forget(self, name: str, **labels: str) -> None:
        """Take back what was set for these labels: it is another process's to say now."""
        found = self._get(name, {})
        order = next(metric.labels for metric in METRICS if metric.name == name)
        found.remove(*(labels[label] for label in order))

    def observe(self, name: str, seconds: float, **labels: str) -> None:
        """Add one observation to a histogram."""
        found = self._get(name, labels)
        if not isinstance(found, Histogram):
            raise UndeclaredMetricError(f"{name} is not a histogram")
        found.observe(seconds)

    def value(self, name: str, **labels: str) -> float:
        """Return the current value of a counter or gauge; 0 where it was never set."""
        metric = next((m for m in METRICS if m.name == name), None)
        if metric is None:
            raise UndeclaredMetricError(f"{name} is not declared in ingest/metrics.py")
        return self.registry.get_sample_value(f"cordon_{name}", labels) or 0.0

    def exposition(self) -> bytes:
        """Return all metrics in Prometheus text format."""
        return generate_latest(self.registry)
