import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from starlette.types import Message

from dashboards.console import live
from dashboards.console.live import LiveBoard, LiveStream
from dashboards.console.rendering import Renderer
from ingest.metrics import Metrics


class CountingRenderer(Renderer):
    """Counts what it renders; a section is its name and the page's text."""

    def __init__(self) -> None:
        super().__init__()
        self.rendered: list[str] = []

    def section(self, name: str, values: dict[str, Any]) -> str:
        self.rendered.append(name)
        return f"{name} {values[name]}"


@dataclass
class FakePage:
    """A page whose sections are the texts that a test sets."""

    texts: dict[str, str]
    key: str = "/"
    revision: int = 0
    broken: bool = False

    @property
    def sections(self) -> tuple[str, ...]:
        return tuple(self.texts)

    def stamp(self) -> object:
        return self.revision

    def values(self) -> dict[str, Any]:
        if self.broken:
            raise RuntimeError("this page can't be shown, as a test ordered")
        return dict(self.texts)

    def change(self, name: str, text: str) -> None:
        self.texts[name] = text
        self.revision += 1


@dataclass
class Viewer:
    """One open stream, and what has come over it."""

    stream: LiveStream
    received: list[bytes] = field(default_factory=list)
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    def open(self) -> "asyncio.Task[None]":
        return asyncio.create_task(self.stream({"type": "http"}, self._receive, self._send))

    def text(self) -> str:
        return b"".join(self.received).decode()

    async def _receive(self) -> Message:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        self.received.append(message.get("body", b""))


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  # what is waited for is no event
            await asyncio.sleep(0.01)


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(scenario())  # type: ignore[arg-type]  # a coroutine function of a test


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "PAUSE_SECONDS", 0.02)
    monkeypatch.setattr(live, "BEAT_SECONDS", 0.05)


def admitted(board: LiveBoard, page: FakePage, valid: Callable[[], bool] = lambda: True) -> Viewer:
    stream = board.admit(page, valid)
    assert stream is not None
    return Viewer(stream)


def test_a_page_is_rendered_once_for_all_and_only_changed_sections_are_sent() -> None:
    async def scenario() -> None:
        renderer, page, metrics = CountingRenderer(), FakePage({"a": "one", "b": "two"}), Metrics()
        board = LiveBoard(renderer, metrics, 100, lambda: False)
        viewers = [admitted(board, page) for _ in range(50)]
        tasks = [viewer.open() for viewer in viewers]
        await eventually(lambda: all("a one" in viewer.text() for viewer in viewers))
        assert metrics.value("console_viewers") == 50
        assert renderer.rendered == ["a", "b"]
        page.change("b", "three")
        await eventually(lambda: all("b three" in viewer.text() for viewer in viewers))
        assert renderer.rendered == ["a", "b", "a", "b"]
        assert {viewer.text().count('"id":"a"') for viewer in viewers} == {1}
        for viewer in viewers:
            viewer.gone.set()
        await asyncio.gather(*tasks)
        assert metrics.value("console_viewers") == 0

    run(scenario)


def test_whoever_comes_later_gets_what_stands() -> None:
    async def scenario() -> None:
        page = FakePage({"a": "one"})
        board = LiveBoard(CountingRenderer(), Metrics(), 100, lambda: False)
        first = admitted(board, page)
        opened = first.open()
        await eventually(lambda: "a one" in first.text())
        page.change("a", "two")
        await eventually(lambda: "a two" in first.text())
        second = admitted(board, page)
        joined = second.open()
        await eventually(lambda: "a two" in second.text())
        assert "a one" not in second.text()
        first.gone.set()
        second.gone.set()
        await asyncio.gather(opened, joined)

    run(scenario)


def test_viewers_are_bounded_and_a_place_is_free_again() -> None:
    async def scenario() -> None:
        board = LiveBoard(CountingRenderer(), Metrics(), 1, lambda: False)
        viewer = admitted(board, FakePage({"a": "one"}))
        opened = viewer.open()
        assert board.admit(FakePage({"a": "one"}), lambda: True) is None
        viewer.gone.set()
        await opened
        assert board.admit(FakePage({"a": "one"}), lambda: True) is not None

    run(scenario)


def test_a_stream_ends_when_its_session_does_and_says_so() -> None:
    async def scenario() -> None:
        known = [True]
        board = LiveBoard(CountingRenderer(), Metrics(), 5, lambda: False)
        viewer = admitted(board, FakePage({"a": "one"}), lambda: known[0])
        opened = viewer.open()
        await eventually(lambda: "event: beat" in viewer.text())
        known[0] = False
        async with asyncio.timeout(20):
            await opened
        assert "event: bye" in viewer.text()

    run(scenario)


def test_streams_end_with_the_process() -> None:
    async def scenario() -> None:
        ended = [False]
        board = LiveBoard(CountingRenderer(), Metrics(), 5, lambda: ended[0])
        viewer = admitted(board, FakePage({"a": "one"}))
        opened = viewer.open()
        await eventually(lambda: "a one" in viewer.text())
        ended[0] = True
        async with asyncio.timeout(20):
            await opened
        assert board.admit(FakePage({"a": "one"}), lambda: True) is None

    run(scenario)


def test_a_page_that_can_not_be_shown_takes_no_other_along(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        board = LiveBoard(CountingRenderer(), Metrics(), 5, lambda: False)
        broken, whole = FakePage({"a": "x"}, "/broken", broken=True), FakePage({"a": "one"})
        viewers = [admitted(board, broken), admitted(board, whole)]
        tasks = [viewer.open() for viewer in viewers]
        await eventually(lambda: "a one" in viewers[1].text())
        for viewer in viewers:
            viewer.gone.set()
        await asyncio.gather(*tasks)

    run(scenario)
    assert "can't be rendered" in caplog.text
