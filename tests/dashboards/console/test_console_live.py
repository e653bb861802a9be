import asyncio
import threading
from collections.abc import Awaitable, Callable, Collection, Mapping
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

    def stamps(self) -> Mapping[str, object]:
        return dict.fromkeys(self.texts, self.revision)

    def values_of(self, sections: Collection[str]) -> dict[str, Any]:
        if self.broken:
            raise RuntimeError("this page can't be shown, as a test ordered")
        return {name: self.texts[name] for name in sections}

    def change(self, name: str, text: str) -> None:
        self.texts[name] = text
        self.revision += 1


@dataclass
class Viewer:
    """One open stream, and what has come over it."""

    stream: LiveStream
    received: list[bytes] = field(default_factory=list)
    takes: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    def open(self) -> "asyncio.Task[None]":
        self.takes.set()
        return asyncio.create_task(self.stream({"type": "http"}, self._receive, self._send))

    def text(self) -> str:
        return b"".join(self.received).decode()

    async def _receive(self) -> Message:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        await self.takes.wait()
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


def rows_of(changed: str) -> str:
    rows = [f'<tr data-row="r-{number}"><td>{"x" * 90} {changed}</td></tr>' for number in range(1)]
    rows += [f'<tr data-row="r-{number}"><td>{"x" * 90}</td></tr>' for number in range(1, 20)]
    return f"<table><tbody>{''.join(rows)}</tbody></table>"


def test_of_a_table_whoever_has_it_gets_the_rows_that_changed_and_whoever_comes_gets_it_whole() -> None:
    async def scenario() -> None:
        page = FakePage({"a": rows_of("one")})
        board = LiveBoard(CountingRenderer(), Metrics(), 100, lambda: False)
        first = admitted(board, page)
        opened = first.open()
        await eventually(lambda: "one" in first.text())
        page.change("a", rows_of("two"))
        await eventually(lambda: "two" in first.text())
        assert (first.text().count("event: section"), first.text().count("event: rows")) == (1, 1)
        assert "r-7" not in first.text().partition("event: rows")[2]
        second = admitted(board, page)
        joined = second.open()
        await eventually(lambda: "two" in second.text())
        assert "event: rows" not in second.text()
        # Whoever missed a change between gets the whole: what changed last would not make it right.
        second.takes.clear()
        for text in ("three", "four"):
            page.change("a", rows_of(text))
            await eventually(lambda text=text: text in first.text())  # type: ignore[misc]  # bound now, not later
        second.takes.set()
        await eventually(lambda: "four" in second.text())
        first.gone.set()
        second.gone.set()
        await asyncio.gather(opened, joined)

    run(scenario)


def test_a_viewer_that_takes_nothing_is_cut_and_no_other_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "TAKE_SECONDS_MAX", 0.2)

    async def scenario() -> None:
        page, metrics = FakePage({"a": "one"}), Metrics()
        board = LiveBoard(CountingRenderer(), metrics, 5, lambda: False)
        stuck, other = admitted(board, page), admitted(board, page)
        tasks = [stuck.open(), other.open()]
        await eventually(lambda: "a one" in stuck.text())
        stuck.takes.clear()
        page.change("a", "two")
        await eventually(lambda: "a two" in other.text())
        async with asyncio.timeout(20):
            await tasks[0]
        assert metrics.value("console_viewers") == 1
        other.gone.set()
        await tasks[1]

    run(scenario)


def test_a_page_that_nobody_renews_is_not_called_live() -> None:
    async def scenario() -> None:
        held = threading.Event()

        class StuckPage(FakePage):
            def values_of(self, sections: Collection[str]) -> dict[str, Any]:
                held.wait(20)
                return super().values_of(sections)

        board = LiveBoard(CountingRenderer(), Metrics(), 5, lambda: False)
        viewer = admitted(board, StuckPage({"a": "one"}))
        opened = viewer.open()
        # Ten beats' time, in which none comes.
        await asyncio.sleep(0.5)
        beats = viewer.text().count("event: beat")
        held.set()
        await eventually(lambda: viewer.text().count("event: beat") > 2)
        viewer.gone.set()
        await opened
        assert beats == 0

    run(scenario)
