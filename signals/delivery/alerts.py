"""The alerts on crash patterns that belong to no rollout, in memory, for whoever asks.

Filled by the tail's thread, read by HTTP handlers. Invariant: this view is for people; nothing that decides on a
rollout, holds it or kills it reads it or the topic behind it.
"""

import threading
from collections.abc import Sequence
from typing import Final

import msgspec

from detectors.alerts.wire import (
    ENDED_MAX,
    OPEN_MAX,
    STATUS_KEY,
    Alert,
    AlertsStatus,
    AlertState,
    alert_decoder,
    is_alert_key,
)
from ingest.events import UNREADABLE_ERRORS
from ingest.log.interface import Record, TopicPartition

ALERTS_MAX: Final = OPEN_MAX + ENDED_MAX


class Alerts(msgspec.Struct, kw_only=True):
    """What `GET /v1/alerts` answers.

    Attributes:
        alerts: open ones first, then those that ended last; at most 768.
        status: how the watch for patterns stands; null while it has not looked yet.
    """

    alerts: list[Alert]
    status: AlertsStatus | None


class AlertsView:
    """The latest of each alert; one that ended long ago is deleted from the topic, and here."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._alerts: dict[str, Alert] = {}
        self._status: AlertsStatus | None = None

    def take(self, _source: TopicPartition, records: Sequence[Record]) -> None:
        """Take records of the alerts topic; the watch's own state lies there as well and is nobody else's business."""
        for record in records:
            if record.key is None or not (is_alert_key(record.key) or record.key == STATUS_KEY):
                continue
            with self._lock:
                self._take(record.key.decode(errors="replace"), record.value)

    def _take(self, key: str, value: bytes | None) -> None:
        if value is None:
            self._alerts.pop(key, None)
            return
        try:
            said = alert_decoder.decode(value)
        except UNREADABLE_ERRORS:
            # What a later version wrote and this one can't read leaves what was there.
            return
        if isinstance(said, AlertsStatus):
            self._status = said
            return
        self._alerts.pop(key, None)
        self._alerts[key] = said
        while len(self._alerts) > ALERTS_MAX:
            del self._alerts[next(iter(self._alerts))]

    def now(self) -> Alerts:
        """Return all alerts there are, and how the watch stands."""
        with self._lock:
            alerts, status = list(self._alerts.values()), self._status
        alerts.sort(key=lambda alert: (alert.state is not AlertState.OPEN, -alert.last_ms, alert.alert))
        return Alerts(alerts=alerts, status=status)
