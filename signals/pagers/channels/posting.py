"""One POST over HTTP for the channels that speak plain JSON: one attempt, every failure an answer.

Invariant: no redirect is followed (a page must not wander to another host), and what the other side says is cut.
"""

from typing import Any

import httpx2

from ingest.events import encoder
from signals.pagers.channels.interface import TIMEOUT_SECONDS, Answer, answer_of
from signals.pagers.records import TEXT_MAX
from signals.pagers.words import Answered


class Poster:
    """Keeps one connection to one service."""

    def __init__(self, headers: dict[str, str], transport: httpx2.BaseTransport | None = None) -> None:
        """Take the headers of every request, and a transport where tests put their own."""
        self._http = httpx2.Client(
            headers={"user-agent": "cordon-pagers", "content-type": "application/json", **headers},
            timeout=TIMEOUT_SECONDS,
            follow_redirects=False,
            transport=transport,
        )

    def post(self, url: str, said: Any, headers: dict[str, str] | None = None) -> Answer:
        """Post `said` as JSON and judge the answer."""
        return self.post_bytes(url, encoder.encode(said), headers)

    def post_bytes(self, url: str, content: bytes, headers: dict[str, str] | None = None) -> Answer:
        """Post bytes and judge the answer."""
        try:
            response = self._http.post(url, content=content, headers=headers or {})
        except httpx2.TransportError as error:
            return Answer(Answered.RETRY, 0, f"{type(error).__name__}: {error}"[:TEXT_MAX])
        except httpx2.InvalidURL as error:
            return Answer(Answered.REFUSED, 0, f"{url[:100]}: {error}"[:TEXT_MAX])
        return answer_of(response.status_code, response.text, response.headers.get("retry-after"))

    def close(self) -> None:
        """Close the connection."""
        self._http.close()
