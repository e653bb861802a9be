"""`cordon pagers` and `cordon routes`, and the HTTP behind them: what is shown, what is done, who may ask."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from deploy.cli.pagers import pagers
from deploy.cli.routes import routes
from signals.events import Action
from signals.pagers.channels.interface import Answer, Channel, RecordingChannel
from signals.pagers.outbox import OutboxSettings
from signals.pagers.registry import Route
from signals.pagers.registry_book import RegistryBook
from signals.pagers.service import PagerParts, PagerService
from signals.pagers.words import Answered
from support.pager_rig import REGISTRY
from support.streams import OPERATOR, READER, StreamRig, streaming
from support.switches import KEYS, ROLLOUT, command


@dataclass
class Desk:
    """A listener with pagers beside it."""

    rig: StreamRig
    channels: dict[str, RecordingChannel] = field(default_factory=dict)
    refuses: bool = False

    def make(self, name: str, route: Route, folder: Path) -> Channel:
        def said(_: object) -> Answer:
            return Answer(Answered.REFUSED, 403, "no such key") if self.refuses else Answer(Answered.DELIVERED, 202)

        self.channels[name] = RecordingChannel(kind=route.channel, answers=said)
        return self.channels[name]

    def steps(self, name: str) -> list[str]:
        return [one.step.value for one in self.channels[name].sent] if name in self.channels else []

    def run(self, *arguments: str, token: str = OPERATOR) -> Result:
        return CliRunner().invoke(pagers, [*arguments, "--url", self.rig.url], env={"CORDON_TOKEN": token})

    def kill(self) -> None:
        self.rig.ask(command(Action.KILL, "c-1"))
        until(lambda: bool(self.steps("pager")))


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    (tmp_path / "routes.toml").write_text(REGISTRY)
    with streaming() as rig:
        rig.clock.drive_to(int(time.time() * 1000))
        made = Desk(rig)
        parts = PagerParts(
            log=rig.log,
            topics=rig.topics,
            trusted=KEYS,
            book=RegistryBook(tmp_path / "routes.toml", rig.metrics),
            clock=rig.clock,
            metrics=rig.metrics,
            settings=OutboxSettings(),
            make_channel=made.make,
        )
        service = PagerService(parts, 0)
        service.start()
        yield made
        service.stop()


def test_what_is_told_to_whom_is_listed(desk: Desk) -> None:
    assert "nobody was told" in desk.run("list").output
    desk.kill()
    listed = desk.run("list")
    assert listed.exit_code == 0
    assert f"{ROLLOUT} crowdstrike (owner): critical" in listed.output
    assert "pager: open" in listed.output
    found = json.loads(desk.run("list", "--json").output)
    assert [one["route"] for one in found["incidents"][0]["routes"]] == ["pager", "chat"]


def test_orders_are_done_and_say_so(desk: Desk) -> None:
    desk.kill()
    done = desk.run("acknowledge", ROLLOUT)
    assert (done.exit_code, done.output) == (0, "applied: It was done.\n")
    until(lambda: desk.steps("pager") == ["trigger", "acknowledge"])
    assert "acknowledged" in desk.run("list").output
    assert desk.run("resolve", ROLLOUT, "--reason", "known").exit_code == 0
    until(lambda: desk.steps("pager")[-1] == "resolve")
    again = desk.run("acknowledge", ROLLOUT)
    assert (again.exit_code, again.output.split(":")[0]) == (1, "nothing_to_do")


def test_a_mute_is_listed_and_ended(desk: Desk) -> None:
    assert desk.run("mute", "--vendor", "acme", "--hours", "2", "--reason", "lab").exit_code == 0
    assert "acme, by ops-1: lab" in desk.run("list").output
    assert desk.run("unmute", "--vendor", "acme").exit_code == 0
    assert "acme" not in desk.run("list").output
    neither = desk.run("mute", "--hours", "2")
    assert (neither.exit_code, "one of them" in neither.stderr) == (1, True)


def test_what_was_refused_is_shown_and_redelivered(desk: Desk) -> None:
    desk.refuses = True
    desk.kill()
    until(lambda: "UNDELIVERED: no such key" in desk.run("list").output)
    desk.refuses = False
    assert desk.run("redeliver", ROLLOUT).exit_code == 0
    until(lambda: desk.steps("pager") == ["trigger", "trigger"])
    until(lambda: "UNDELIVERED" not in desk.run("list").output)


def test_who_may_not_ask_is_refused_and_an_unknown_rollout_is_not_found(desk: Desk) -> None:
    for arguments in (["list"], ["acknowledge", ROLLOUT], ["mute", "--vendor", "acme", "--hours", "1"]):
        refused = desk.run(*arguments, token=READER)
        assert (refused.exit_code, "403" in refused.stderr) == (1, True)
        assert "401" in desk.run(*arguments, token="nobody").stderr
    missing = desk.run("redeliver", "r-unknown")
    assert (missing.exit_code, "404" in missing.stderr) == (1, True)


def explain(path: Path, *arguments: str) -> Result:
    return CliRunner().invoke(routes, ["test", *arguments, "--file", str(path)])


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    path = tmp_path / "routes.toml"
    path.write_text(REGISTRY)
    return path


def test_who_would_be_paged_is_explained(registry: Path) -> None:
    said = explain(registry, "CSAGENT.sys", "--vendor", "crowdstrike", "--product", "falcon-content")
    assert said.exit_code == 0
    assert "module CSAGENT.sys: crowdstrike\n  because module rule 'csagent.sys' gives it to crowdstrike" in said.output
    assert "crowdstrike is told over pager (pagerduty) at level critical; if that fails for 60 s, duty" in said.output
    assert "while it is only watched: crowdstrike hears over chat" in said.output


def test_the_owner_of_another_module_is_told_quietly(registry: Path) -> None:
    said = explain(registry, "acme1.sys", "--vendor", "crowdstrike", "--product", "falcon-content")
    assert "as owner of the crashing module: acme is not told over other: chat is less than high" in said.output


def test_nobodys_module_goes_to_the_default_routes(registry: Path) -> None:
    said = explain(registry, "mystery.sys")
    assert "module mystery.sys: default" in said.output
    assert "default is told over soc (pagerduty) at level critical" in said.output


def test_a_registry_is_checked_with_its_secrets(registry: Path) -> None:
    bad = CliRunner().invoke(routes, ["check", str(registry)])
    assert (bad.exit_code, "its secret can't be read" in bad.stderr) == (1, True)
    assert CliRunner().invoke(routes, ["check", str(registry), "--without-secrets"]).exit_code == 0
    for name in ("soc.key", "pager.key", "duty.key", "other.key"):
        (registry.parent / name).write_text("key\n")
        (registry.parent / name).chmod(0o600)
    (registry.parent / "chat.url").write_text("slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/\n")
    (registry.parent / "chat.url").chmod(0o644)
    open_to_all = CliRunner().invoke(routes, ["check", str(registry)])
    assert (open_to_all.exit_code, "chmod 600" in open_to_all.stderr) == (1, True)
    (registry.parent / "chat.url").chmod(0o600)
    good = CliRunner().invoke(routes, ["check", str(registry)])
    assert (good.exit_code, good.stderr) == (0, "")
    assert "5 routes, 2 vendors, lanes live" in good.output


def test_without_a_file_the_setting_is_asked_for(monkeypatch: pytest.MonkeyPatch, registry: Path) -> None:
    monkeypatch.delenv("CORDON_ROUTES_FILE", raising=False)
    missing = CliRunner().invoke(routes, ["test", "x.sys"])
    assert (missing.exit_code, "CORDON_ROUTES_FILE" in missing.stderr) == (1, True)
    monkeypatch.setenv("CORDON_ROUTES_FILE", str(registry))
    assert CliRunner().invoke(routes, ["test", "x.sys"]).exit_code == 0
    broken = registry.with_name("broken.toml")
    broken.write_text("[default]\nroutes = []\n")
    assert CliRunner().invoke(routes, ["check", str(broken)]).exit_code == 1
