"""Jira Service Management operations: alerts through an integration's API key.

The integration events API: POST /jsm/ops/integration/v2/alerts creates an alert, or counts one up whose alias is open;
.../{alias}/acknowledge and .../{alias}/close with `identifierType=alias` do the rest, and .../{alias}/notes adds what
is new. All answer 202 and work later. 429 is retried, with Retry-After where it is given, 5xx too; 4xx is not. An open
alert's priority can't be changed through this API, so a hold that becomes a kill adds a note that says so.
"""

from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import quote

import httpx2

from signals.pagers.channels.interface import Answer, Message
from signals.pagers.channels.posting import Poster
from signals.pagers.content import facts
from signals.pagers.words import ChannelKind, Step

BASE_URL: Final = "https://api.atlassian.com"
MESSAGE_MAX: Final = 130
DESCRIPTION_MAX: Final = 15_000
NOTE_MAX: Final = 25_000
ALIAS_MAX: Final = 512
_PRIORITY: Final = {"critical": "P1", "high": "P2", "chat": "P4", "none": "P5"}
_SOURCE: Final = "cordon"


def payload(message: Message, responders: Sequence[str]) -> dict[str, Any]:
    """Return the body that creates an alert."""
    page = message.page
    created: dict[str, Any] = {
        "message": message.headline[:MESSAGE_MAX],
        "alias": message.key[:ALIAS_MAX],
        "description": _text(message)[:DESCRIPTION_MAX],
        "details": {name: text[:1000] for name, text in facts(page).items()},
        "entity": f"{page.vendor}/{page.product}"[:512],
        "source": _SOURCE,
        "priority": _PRIORITY[message.level.value],
        "tags": ["cordon", page.decision or page.state or "watching"],
    }
    if responders:
        created["responders"] = [{"id": team, "type": "team"} for team in responders]
    return created


class JsmChannel:
    """Speaks to one integration."""

    kind: Final = ChannelKind.JSM

    def __init__(
        self,
        api_key: str,
        url: str = "",
        responders: Sequence[str] = (),
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        """Take the integration's key, another base address where there is one, and teams by id."""
        self._url = (url or BASE_URL).rstrip("/") + "/jsm/ops/integration/v2/alerts"
        self._responders = tuple(responders)
        self._poster = Poster({"authorization": f"GenieKey {api_key}"}, transport)

    def send(self, message: Message) -> Answer:
        """Make one call."""
        if message.step is Step.TRIGGER:
            return self._poster.post(self._url, payload(message, self._responders))
        note = {"note": _text(message)[:NOTE_MAX], "source": _SOURCE}
        word = {Step.RESOLVE: "close", Step.ACKNOWLEDGE: "acknowledge"}.get(message.step, "notes")
        alias = quote(message.key[:ALIAS_MAX], safe="")
        return self._poster.post(f"{self._url}/{alias}/{word}?identifierType=alias", note)

    def close(self) -> None:
        """Close the connection."""
        self._poster.close()


def _text(message: Message) -> str:
    return "\n".join([message.headline, *message.lines, *(f"{text}: {href}" for text, href in message.links)])
