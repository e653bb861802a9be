"""The service with its threads: pages within seconds, survives a restart, and a broken channel harms nobody else."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from signals.events import SwitchState
from signals.pagers.channels.interface import Answer, Channel, Message, RecordingChannel
from signals.pagers.crew import PagerCrew
from signals.pagers.outbox import OutboxSettings
from signals.pagers.registry import Route
from signals.pagers.registry_book import RegistryBook
from signals.pagers.service import PagerParts, PagerService
from signals.pagers.words import Answered, ChannelKind
from support.pager_rig import REGISTRY, Rig
from support.switches import KEYS

WAIT_SECONDS = 60.0


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_SECONDS
    while not holds():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.01)


class Bench:
    """A rig's log with real services on it, and channels in memory."""

    def __init__(self, folder: Path) -> None:
        self.rig = Rig()
        self.path = folder / "routes.toml"
        self.path.write_text(REGISTRY)
        self.channels: dict[str, RecordingChannel] = {}
        self.answers: dict[str, Callable[[Message], Answer]] = {}
        self.parts = PagerParts(
            log=self.rig.log,
            topics=self.rig.topics,
            trusted=KEYS,
            book=RegistryBook(self.path, self.rig.metrics),
            clock=self.rig.clock,
            metrics=self.rig.metrics,
            settings=OutboxSettings(),
            make_channel=self.channel,
        )

    def channel(self, name: str, route: Route, folder: Path) -> Channel:
        found = RecordingChannel(kind=route.channel)
        if name in self.answers:
            found.answers = self.answers[name]
        self.channels[name] = found
        return found

    def sent(self, name: str) -> list[str]:
        return [one.step.value for one in self.channels[name].sent] if name in self.channels else []


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
def service(bench: Bench) -> Iterator[PagerService]:
    made = PagerService(bench.parts, 0, restart_seconds=0.05)
    made.start()
    yield made
    made.stop()


def test_a_kill_is_told_over_every_route_of_its_vendor_and_no_other(bench: Bench, service: PagerService) -> None:
    bench.rig.event(SwitchState.KILLED)
    until(lambda: bench.sent("pager") == ["trigger"] and bench.sent("chat") == ["trigger"])
    until(lambda: len(bench.rig.attempts()) == 2)
    assert set(bench.channels) == {"pager", "chat"}
    assert bench.rig.metrics.value("pagers_up", partition="0") == 1
    assert bench.rig.metrics.value("pager_sends_total", channel="pagerduty", answered="delivered") == 1


def test_what_was_told_is_not_told_again_by_the_next_process(bench: Bench, service: PagerService) -> None:
    bench.rig.event(SwitchState.KILLED)
    until(lambda: len(bench.rig.attempts()) == 2)
    service.stop()
    bench.channels.clear()
    following = PagerService(bench.parts, 0)
    following.start()
    try:
        bench.rig.event(SwitchState.RELEASED)
        until(lambda: bench.sent("pager") == ["resolve"] and bench.sent("chat") == ["resolve"])
    finally:
        following.stop()


def test_a_channel_that_hangs_holds_up_nobody_else(bench: Bench, service: PagerService) -> None:
    release = threading.Event()

    def hang(_: Message) -> Answer:
        release.wait(WAIT_SECONDS)
        return Answer(Answered.DELIVERED, 202)

    bench.answers["pager"] = hang
    try:
        bench.rig.event(SwitchState.KILLED)
        until(lambda: bench.sent("chat") == ["trigger"] and bench.sent("pager") == ["trigger"])
        until(lambda: len(bench.rig.attempts()) == 1)
    finally:
        release.set()
    until(lambda: len(bench.rig.attempts()) == 2)


def test_a_channel_that_raises_is_tried_again(bench: Bench, service: PagerService) -> None:
    calls: list[Message] = []

    def raise_once(message: Message) -> Answer:
        calls.append(message)
        if len(calls) == 1:
            raise RuntimeError("a bug in a channel")
        return Answer(Answered.DELIVERED, 202)

    bench.answers["pager"] = raise_once
    bench.rig.event(SwitchState.KILLED)
    until(lambda: len(calls) == 1 and len(bench.rig.attempts()) == 2)
    bench.rig.clock.drive_to(bench.rig.clock.now_ms() + 2000)
    until(lambda: len(calls) == 2)
    assert calls[0].key == calls[1].key


def test_a_route_whose_channel_cannot_be_made_goes_to_its_fallback(bench: Bench, tmp_path: Path) -> None:
    """With the real factory: the secret of the vendor's pager is missing."""
    for name in ("duty.key",):
        (tmp_path / name).write_text("key\n")
        (tmp_path / name).chmod(0o600)

    def make(name: str, route: Route, folder: Path) -> Channel:
        from signals.pagers.channels.factory import channel_of

        channel_of(name, route, folder).close()
        return bench.channel(name, route, folder)

    parts = PagerParts(**{name: getattr(bench.parts, name) for name in bench.parts.__slots__} | {"make_channel": make})
    service = PagerService(parts, 0)
    service.start()
    try:
        bench.rig.event(SwitchState.KILLED)
        until(lambda: bench.sent("duty") == ["trigger"])
    finally:
        service.stop()
    refused = [one for one in bench.rig.attempts() if one.answered is Answered.REFUSED]
    assert {one.route for one in refused} == {"pager", "chat"}
    assert all("secret" in one.answer for one in refused)


def test_an_older_process_ends_when_another_takes_over(bench: Bench, service: PagerService) -> None:
    bench.rig.event(SwitchState.KILLED)
    until(lambda: len(bench.rig.attempts()) == 2)
    bench.rig.restart()  # claims the fence
    bench.rig.event(SwitchState.RELEASED)
    until(lambda: service.ended)
    assert service.fenced


def test_a_crew_serves_what_is_owned_and_ends_what_is_not(bench: Bench) -> None:
    owned: set[int] = {0}
    crew = PagerCrew(bench.parts, lambda: owned, None)
    crew.start()
    try:
        bench.rig.event(SwitchState.KILLED)
        until(lambda: bench.sent("pager") == ["trigger"])
        owned.clear()
        until(lambda: bench.rig.metrics.value("pagers_up", partition="0") == 0)
    finally:
        crew.stop()


def test_a_registry_that_is_mended_takes_effect(bench: Bench, service: PagerService) -> None:
    bench.path.write_text(REGISTRY.replace('routes = ["pager", "chat"]', 'routes = ["duty"]'))
    until(lambda: bench.parts.book.version == 2)
    bench.rig.event(SwitchState.KILLED)
    until(lambda: bench.sent("duty") == ["trigger"])
    assert bench.channels["duty"].kind is ChannelKind.JSM
    assert "pager" not in bench.channels
