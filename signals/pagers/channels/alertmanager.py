"""Prometheus Alertmanager, API v2: POST /api/v2/alerts.

Labels are an alert's identity there, so they hold the dedup key and nothing that changes; what changes is in the
annotations. An alert without an end ages out after Alertmanager's `resolve_timeout`, five minutes by default, so it is
given an end far ahead, and the real one when it is over. As documented: 200 is success, 400 is not retried.
"""

import datetime as dt
from collections.abc import Mapping
from typing import Any, Final

import httpx2

from signals.pagers.channels.interface import Answer, Message
from signals.pagers.channels.posting import Poster
from signals.pagers.words import Answered, ChannelKind, Step

ENDS_AFTER_SECONDS: Final = 7 * 86_400
_SEVERITY: Final = {"critical": "critical", "high": "error", "chat": "warning", "none": "info"}


def payload(message: Message, labels: Mapping[str, str], now: dt.datetime) -> list[dict[str, Any]]:
    """Return the body of a post: one alert."""
    page = message.page
    ended = message.step is Step.RESOLVE
    ends = now if ended else now + dt.timedelta(seconds=ENDS_AFTER_SECONDS)
    since = dt.datetime.fromtimestamp(message.opened_ms / 1000, dt.UTC)
    alert: dict[str, Any] = {
        "labels": {
            **labels,
            "alertname": "CordonRollout",
            "key": message.key,
            "rollout": page.rollout,
            "vendor": page.vendor,
            "product": page.product,
            "version": page.version,
        },
        "annotations": {
            "summary": message.headline,
            "description": "\n".join(message.lines),
            "severity": _SEVERITY[message.level.value],
            **{f"{text.lower()}_url": href for text, href in message.links},
        },
        "endsAt": _time(ends),
    }
    if not ended:
        alert["startsAt"] = _time(min(since, now))
    if message.links:
        alert["generatorURL"] = message.links[0][1]
    return [alert]


class AlertmanagerChannel:
    """Speaks to one Alertmanager."""

    kind: Final = ChannelKind.ALERTMANAGER

    def __init__(
        self,
        url: str,
        token: str = "",
        labels: Mapping[str, str] | None = None,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        """Take the address, without `/api/v2`, a bearer token where a proxy wants one, and labels for routing."""
        self._url = url.rstrip("/") + "/api/v2/alerts"
        self._labels = dict(labels or {})
        self._poster = Poster({"authorization": f"Bearer {token}"} if token else {}, transport)

    def send(self, message: Message) -> Answer:
        """Post one alert; it knows no acknowledgement, which is therefore done when it is asked for."""
        if message.step is Step.ACKNOWLEDGE:
            return Answer(Answered.DELIVERED, 0, "Alertmanager knows no acknowledgement")
        return self._poster.post(self._url, payload(message, self._labels, dt.datetime.now(dt.UTC)))

    def close(self) -> None:
        """Close the connection."""
        self._poster.close()


def _time(at: dt.datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
