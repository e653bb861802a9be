"""Live pages: one stream of server-sent events a viewer, one rendering for all who look at the same page.

The board renders those sections of a page that may have changed, while somebody looks at it, and keeps what changed as
finished bytes; viewers send what they have not had yet. Invariants: viewers are bounded; a page costs as much for one
viewer as for many, but for the sending of the same bytes; rendering gives way to the pipeline: it takes no more than
`RENDER_SHARE` of a core, or pauses `PAUSE_SECONDS_MAX`; a stream ends when its session does, or when its viewer does
not take what is sent; and beats come from whoever renders, so that a page is never called live which nobody renews.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from dashboards.console.rendering import Renderer
from dashboards.console.sections import Section
from ingest.metrics import Metrics
from signals.delivery.stream import HEADERS

LOOK_SECONDS = 0.15
PAUSE_SECONDS = 0.45
BEAT_SECONDS = 5.0
# A viewer that has not taken what was sent for so long is cut.
TAKE_SECONDS_MAX = 30.0
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

    def stamps(self) -> Mapping[str, object]:
        """Return, of each section that changes, what is another when it may have; it costs next to nothing."""
        ...

    def values_of(self, sections: Collection[str]) -> dict[str, Any]:
        """Return what these sections show; the same for everybody who may look."""
        ...


@dataclass(slots=True)
class _Shown:
    """A section as it stands.

    Attributes:
        section: the newest.
        number: of the change that made it so.
        before: of the change before that; -1 where there was none.
        change: the event that leads from the one to the other; empty where only the whole does.
    """

    section: Section
    number: int
    before: int = -1
    change: bytes = b""

    def since(self, position: int) -> bytes:
        """Return what a viewer that has had all changes before `position` lacks of it."""
        if self.number < position:
            return b""
        return self.change if self.change and 0 <= self.before < position else self.section.whole


@dataclass(slots=True)
class _Feed:
    """One page that somebody looks at."""

    page: Page
    streams: "set[LiveStream]" = field(default_factory=set)
    stamps: dict[str, object] = field(default_factory=dict)
    head: int = 0
    shown: dict[str, _Shown] = field(default_factory=dict)
    pieces: dict[int, bytes] = field(default_factory=dict)
    woken: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self, rendered: list[Section]) -> bool:
        """Take what was rendered; return whether any of it is another than before."""
        changed = False
        for section in rendered:
            was = self.shown.get(section.name)
            if was is None:
                self.shown[section.name] = _Shown(section, self.head)
            elif was.section.digest == section.digest:
                continue
            else:
                change = section.change_from(was.section)
                self.shown[section.name] = _Shown(section, self.head, was.number, change)
            changed = True
        if changed:
            self.head += 1
            self.pieces.clear()
        return changed

    def since(self, position: int) -> bytes:
        """Return what changed at `position` or later: the very same bytes for all who stand there."""
        piece = self.pieces.get(position)
        if piece is None:
            piece = self.pieces[position] = b"".join(shown.since(position) for shown in self.shown.values())
        return piece

    def wake(self) -> None:
        """Let every viewer look."""
        woken, self.woken = self.woken, asyncio.Event()
        woken.set()


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
        self._beaten = 0.0
        self._running: asyncio.Task[None] | None = None
        self.beats = 0

    def admit(self, page: Page, valid: Callable[[], bool]) -> "LiveStream | None":
        """Return the stream of a new viewer; None where there are as many as may be, or the process is ending.

        Args:
            page: what is looked at.
            valid: whether the viewer may still look; asked now and then.
        """
        if self._viewers >= self._viewers_max or self._ended():
            return None
        feed = self._feeds.setdefault(page.key, _Feed(page))
        stream = LiveStream(self, feed, valid)
        feed.streams.add(stream)
        self._count(1)
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run(), name="console-live")
        return stream

    def leave(self, stream: "LiveStream") -> None:
        """Forget a viewer."""
        feed = stream.feed
        feed.streams.discard(stream)
        self._count(-1)
        if not feed.streams:
            self._feeds.pop(feed.page.key, None)

    @property
    def ended(self) -> bool:
        """Whether every stream has to end."""
        return self._ended()

    def _count(self, more: int) -> None:
        self._viewers += more
        self._metrics.set("console_viewers", self._viewers)

    async def _run(self) -> None:
        try:
            while self._viewers and not self._ended():
                spent = 0.0
                for feed in list(self._feeds.values()):
                    spent += await self._look(feed)
                pause = max(PAUSE_SECONDS, min(PAUSE_SECONDS_MAX, spent / RENDER_SHARE)) if spent else LOOK_SECONDS
                await self._rest(pause)
        finally:
            for feed in self._feeds.values():
                feed.wake()

    async def _rest(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        # The end of the process is a flag of the hub's, which nothing can be awaited of.
        while (left := until - time.monotonic()) > 0 and not self._ended():
            self._beat()
            await asyncio.sleep(min(left, LOOK_SECONDS))

    def _beat(self) -> None:
        now = time.monotonic()
        if now - self._beaten < BEAT_SECONDS:
            return
        self._beaten = now
        self.beats += 1
        for feed in self._feeds.values():
            for stream in feed.streams:
                stream.cut_if_stuck(now - TAKE_SECONDS_MAX)
            feed.wake()

    async def _look(self, feed: _Feed) -> float:
        """Render what may have changed of a page; return the seconds of CPU that it took."""
        try:
            stamps = feed.page.stamps()
            stale = [name for name, stamp in stamps.items() if name not in feed.stamps or feed.stamps[name] != stamp]
            if not stale:
                return 0.0
            sections, seconds = await asyncio.to_thread(self._sections, feed.page, stale)
        except Exception:
            # A page that can't be shown must not take the others along.
            logger.exception("the page %s can't be rendered", feed.page.key)
            return PAUSE_SECONDS * RENDER_SHARE
        feed.stamps.update(stamps)
        if feed.take(sections):
            feed.wake()
        return seconds

    def _sections(self, page: Page, names: list[str]) -> tuple[list[Section], float]:
        began = time.thread_time()
        values = page.values_of(names)
        sections = [Section.of(name, self._renderer.section(name, values)) for name in names]
        return sections, time.thread_time() - began


class LiveStream(Response):
    """One viewer's stream, from its first byte to its last.

    Attributes:
        feed: the page that is looked at.
    """

    def __init__(self, board: LiveBoard, feed: _Feed, valid: Callable[[], bool]) -> None:
        """Take the board, the page that is looked at, and whether the viewer may still look."""
        super().__init__(headers=HEADERS)
        del self.headers["content-length"]
        self.feed = feed
        self._board, self._valid = board, valid
        self._sending: asyncio.Future[None] | None = None
        self._handed_at = 0.0

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the stream."""
        self._sending = asyncio.ensure_future(self._send(send))
        leaving = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait((self._sending, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._board.leave(self)
            leaving.cancel()
            self._sending.cancel()
            await asyncio.gather(self._sending, leaving, return_exceptions=True)

    def cut_if_stuck(self, handed_before: float) -> None:
        """End the stream if what was handed over before that time was not taken yet."""
        if self._sending is not None and 0 < self._handed_at < handed_before:
            self._sending.cancel()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        feed, board = self.feed, self._board
        position, beats = 0, -1
        while not board.ended and self._valid():
            woken, piece = feed.woken, feed.since(position)
            position = feed.head
            # Before its first look at the page a stream has nothing to be live of.
            if feed.head and beats != board.beats:
                piece, beats = piece + _BEAT, board.beats
            if piece:
                self._handed_at = time.monotonic()
                await send({"type": "http.response.body", "body": piece, "more_body": True})
                self._handed_at = 0.0
            await woken.wait()
        await send({"type": "http.response.body", "body": _BYE, "more_body": False})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
