"""PagerDuty Events API v2, by PagerDuty's own client.

Trigger, acknowledge and resolve under one dedup key; a trigger again under a key that is open is added to its alert and
notifies nobody, which is what an update is. The start of a ring is a change event. The client's own retries are
switched off: it would sleep in this thread without end on 429, and what is to be retried is the dispatcher's to say. As
documented: 202 is success, 429 and 5xx are retried, 400 is not.
"""

import datetime as dt
from typing import Any, Final

import httpx2
from pagerduty import EventsApiV2Client
from pagerduty.errors import Error, HttpError

from signals.pagers.channels.interface import TIMEOUT_SECONDS, Answer, Message, answer_of
from signals.pagers.content import facts
from signals.pagers.records import TEXT_MAX
from signals.pagers.words import Answered, ChannelKind, Level, Step

SUMMARY_MAX: Final = 1024
_SEVERITY: Final = {
    Level.CRITICAL: "critical",
    Level.HIGH: "error",
    Level.CHAT: "warning",
    Level.NONE: "info",
}


class _OneAttempt(EventsApiV2Client):
    """PagerDuty's client, one attempt a call, its address any that the registry's owner wrote."""

    max_network_attempts = 0
    timeout = int(TIMEOUT_SECONDS)  # type: ignore[assignment]  # the client's own class does the same

    @property
    def url(self) -> str:
        return str(self._url)

    @url.setter
    def url(self, new_base_url: str) -> None:
        # The client's own setter refuses http, which is right for PagerDuty and wrong for a receiver on loopback.
        self._url = new_base_url.rstrip("/")

    def postprocess(self, response: httpx2.Response) -> None:
        if not response.is_success:
            raise HttpError(f"{response.status_code} {response.text[:200]}", response)


class PagerDutyChannel:
    """Speaks to one service's integration."""

    kind: Final = ChannelKind.PAGERDUTY

    def __init__(
        self, routing_key: str, url: str = "", source: str = "cordon", transport: httpx2.BaseTransport | None = None
    ) -> None:
        """Take the integration's routing key.

        Args:
            routing_key: see above.
            url: of another service region, such as `https://events.eu.pagerduty.com`.
            source: what events say they come from.
            transport: where tests put their own.
        """
        extra: dict[str, Any] = {} if transport is None else {"transport": transport}
        self._client = _OneAttempt(routing_key, base_url=url or None, **extra)
        self._source = source

    def send(self, message: Message) -> Answer:
        """Make one call."""
        try:
            self._call(message)
        except HttpError as error:
            response = error.response
            assert response is not None
            return answer_of(response.status_code, response.text, response.headers.get("retry-after"))
        except (Error, httpx2.TransportError) as error:
            cause = error.__cause__ or error
            return Answer(Answered.RETRY, 0, f"{type(cause).__name__}: {cause}"[:TEXT_MAX])
        return Answer(Answered.DELIVERED, 202, "accepted")

    def _call(self, message: Message) -> None:
        links = [{"href": href, "text": text} for text, href in message.links]
        if message.step is Step.CHANGE:
            self._client.submit(
                message.headline,
                source=self._source,
                custom_details=dict(facts(message.page)),
                links=links or None,
                timestamp=_time(message.page.decided_ms or message.opened_ms),
            )
        elif message.step is Step.RESOLVE:
            self._client.resolve(message.key)
        elif message.step is Step.ACKNOWLEDGE:
            self._client.acknowledge(message.key)
        else:
            page = message.page
            self._client.trigger(
                message.headline[:SUMMARY_MAX],
                self._source,
                dedup_key=message.key,
                severity=_SEVERITY[message.level],
                payload={
                    "timestamp": _time(page.decided_ms or message.opened_ms),
                    "component": page.module or page.product,
                    "group": page.vendor,
                    "class": page.decision or page.state,
                },
                custom_details={**facts(page), "Text": "\n".join(message.lines)},
                links=links or None,
            )

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


def _time(at_ms: int) -> str:
    return dt.datetime.fromtimestamp(at_ms / 1000, dt.UTC).isoformat(timespec="milliseconds")
