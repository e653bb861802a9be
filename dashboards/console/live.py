"""Live pages: one stream of server-sent events a viewer, one rendering for all who look at the same page.

The board renders each page that somebody looks at when something on it may have changed, and keeps the sections that
differ as finished bytes; viewers send what they have not had yet. Invariants: viewers are bounded; a page costs as much
for one viewer as for many; rendering gives way to the pipeline: it takes no more than `RENDER_SHARE` of a core, or
pauses `PAUSE_SECONDS_MAX`; and a stream ends when its session does.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from dashboards.console.rendering import Renderer
from ingest.metrics import Metrics
from signals.delivery.stream import HEADERS

LOOK_SECONDS = 0.15
PAUSE_SECONDS = 0.3
BEAT_SECONDS = 5.0
# Of one core. At this share a hundred viewers of a page cost no more than one.
RENDER_SHARE = 0.03
PAUSE_SECONDS_MAX = 5.0
_BEAT = b"event: beat\ndata: {}\n\n"
_BYE = b"event: bye\ndata: {}\n\n"

logger = logging.getLogger(__name__)


class Page(Protocol):
    """A page as the board sees it; its methods may be called in any thread."""

    @property
    def key(self) -> str:
        """Return what is alike for everybody who looks at the same."""
        ...

    @property
    def sections(self) -> tuple[str, ...]:
        """Return the names of the sections that change."""
        ...

    def stamp(self) -> object:
        """Return what is another when the page may have changed; it costs next to nothing."""
        ...

    def values(self) -> dict[str, Any]:
        """Return what the sections show; the same for everybody who may look."""
        ...


@dataclass(slots=True)
class _Feed:
    """One page that somebody looks at."""

    page: Page
    viewers: int = 0
    stamp: object = None
    head: int = 0
    digests: dict[str, str] = field(default_factory=dict)
    frames: dict[str, tuple[int, bytes]] = field(default_factory=dict)

    def since(self, position: int) -> bytes:
        """Return the sections that changed at `position` or later."""
        return b"".join(frame for number, frame in self.frames.values() if number >= position)


def digest_of(html: str) -> str:
    """Return what a browser compares to know whether it has a section already."""
    return hashlib.sha256(html.encode("utf-8", "replace")).hexdigest()[:16]


class LiveBoard:
    """The pages that are looked at; on the event loop."""

    def __init__(self, renderer: Renderer, metrics: Metrics, viewers_max: int, ended: Callable[[], bool]) -> None:
        """Prepare; nothing runs while nobody looks.

        Args:
            renderer: fills in sections.
            metrics: gauges viewers.
            viewers_max: streams open at once.
            ended: tells that the process is ending: every stream ends with it.
        """
        self._renderer, self._metrics, self._viewers_max, self._ended = renderer, metrics, viewers_max, ended
        self._feeds: dict[str, _Feed] = {}
        self._viewers = 0
        self._changed = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    def admit(self, page: Page, valid: Callable[[], bool]) -> "LiveStream | None":
        """Return the stream of a new viewer; None where there are as many as may be, or the process is ending.

        Args:
            page: what is looked at.
            valid: whether the viewer may still look; asked now and then.
        """
        if self._viewers >= self._viewers_max or self._ended():
            return None
        feed = self._feeds.setdefault(page.key, _Feed(page))
        feed.viewers += 1
        self._viewers += 1
        self._metrics.set("console_viewers", self._viewers)
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run(), name="console-live")
        return LiveStream(self, feed, valid)

    def leave(self, feed: _Feed) -> None:
        """Forget a viewer."""
        feed.viewers -= 1
        self._viewers -= 1
        self._metrics.set("console_viewers", self._viewers)
        if not feed.viewers:
            self._feeds.pop(feed.page.key, None)

    @property
    def ended(self) -> bool:
        """Whether every stream has to end."""
        return self._ended()

    async def changed(self, seconds: float) -> None:
        """Wait until some page has changed, or for so long."""
        # Not `wait_for`: in Python 3.11 that loses a cancellation which comes in the moment of the change.
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()

    async def _run(self) -> None:
        try:
            while self._viewers and not self._ended():
                spent = 0.0
                for feed in list(self._feeds.values()):
                    spent += await self._look(feed)
                pause = max(PAUSE_SECONDS, min(PAUSE_SECONDS_MAX, spent / RENDER_SHARE)) if spent else LOOK_SECONDS
                await self._rest(pause)
        finally:
            self._wake()

    async def _rest(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        # The end of the process is a flag of the hub's, which nothing can be awaited of.
        while (left := until - time.monotonic()) > 0 and not self._ended():  # noqa: ASYNC110
            await asyncio.sleep(min(left, LOOK_SECONDS))

    async def _look(self, feed: _Feed) -> float:
        """Render a page if it may have changed; return the seconds of CPU that it took."""
        try:
            stamp = feed.page.stamp()
            if stamp == feed.stamp:
                return 0.0
            sections, seconds = await asyncio.to_thread(self._sections, feed.page)
        except Exception:
            # A page that can't be shown must not take the others along.
            logger.exception("the page %s can't be rendered", feed.page.key)
            return PAUSE_SECONDS * RENDER_SHARE
        feed.stamp = stamp
        changed = False
        for name, html in sections.items():
            digest = digest_of(html)
            if feed.digests.get(name) != digest:
                feed.digests[name] = digest
                data = msgspec.json.encode({"id": name, "digest": digest, "html": html})
                feed.frames[name] = feed.head, b"event: section\ndata: %s\n\n" % data
                changed = True
        if changed:
            feed.head += 1
            self._wake()
        return seconds

    def _sections(self, page: Page) -> tuple[dict[str, str], float]:
        began = time.thread_time()
        values = page.values()
        sections = {name: self._renderer.section(name, values) for name in page.sections}
        return sections, time.thread_time() - began

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


class LiveStream(Response):
    """One viewer's stream, from its first byte to its last."""

    def __init__(self, board: LiveBoard, feed: _Feed, valid: Callable[[], bool]) -> None:
        """Take the board, the page that is looked at, and whether the viewer may still look."""
        super().__init__(headers=HEADERS)
        del self.headers["content-length"]
        self._board, self._feed, self._valid = board, feed, valid

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the stream."""
        sending = asyncio.ensure_future(self._send(send))
        leaving = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._board.leave(self._feed)
            leaving.cancel()
            sending.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        position, beaten = 0, 0.0
        while not self._board.ended and self._valid():
            piece = self._feed.since(position)
            position = self._feed.head
            if time.monotonic() - beaten >= BEAT_SECONDS:
                piece, beaten = piece + _BEAT, time.monotonic()
            if piece:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            if self._feed.head == position:
                await self._board.changed(max(0.01, beaten + BEAT_SECONDS - time.monotonic()))
        await send({"type": "http.response.body", "body": _BYE, "more_body": False})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
