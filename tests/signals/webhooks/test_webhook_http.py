"""`/v1/webhooks` and `cordon webhooks` against a running listener: who may ask, what is refused, what it does."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from click.testing import CliRunner, Result

from deploy.cli.webhooks import webhooks as command
from signals.delivery.app import streams_app
from support.streams import OPERATOR, READER, StreamRig, authenticate, eventually
from support.switches import ROLLOUT
from support.webhook_rig import WebhookRig, webhooks


@dataclass
class HttpRig:
    """A listener with webhooks, and the receiver that they post to."""

    url: str
    hooks: WebhookRig

    def ask(self, method: str, path: str = "", body: Any = None, token: str = OPERATOR) -> httpx2.Response:
        headers = {"authorization": f"Bearer {token}"}
        return httpx2.request(method, f"{self.url}/v1/webhooks{path}", json=body, headers=headers, timeout=20)

    def run(self, *arguments: str, token: str = OPERATOR) -> Result:
        return CliRunner().invoke(command, [*arguments, "--url", self.url], env={"CORDON_TOKEN": token})


@pytest.fixture(scope="module")
def rig() -> Iterator[HttpRig]:
    with webhooks() as hooks:
        streams = StreamRig()
        desk = hooks.services[-1].desk
        streams.app = streams_app(streams.service, authenticate, streams.clock, webhook_desk=desk)
        streams.begin()
        streams.declare(ROLLOUT, "canary")
        eventually(lambda: bool((facts := streams.service.views.facts(ROLLOUT)) and facts.declared))
        try:
            yield HttpRig(streams.url, hooks)
        finally:
            streams.end()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", ""), ("GET", ""), ("GET", "/wh-1"), ("POST", "/wh-1"), ("DELETE", "/wh-1"), ("POST", "/wh-1/rotate"),
        ("POST", "/wh-1/test"), ("GET", "/wh-1/dead"), ("POST", "/wh-1/redeliver"),
    ],
)  # fmt: skip
def test_operators_only_and_an_unknown_id_is_an_error(rig: HttpRig, method: str, path: str) -> None:
    body: dict[str, str] | None = {} if method == "POST" else None
    assert rig.ask(method, path, body, "nobody").status_code == 401
    assert rig.ask(method, path, body, READER).status_code == 403
    if path:
        refused = rig.ask(method, path, body)
        assert (refused.status_code, refused.json()["reason"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({}, 400, "no url"),
        ({"url": "https://receiver.example/", "form": 1}, 400, "form"),
        ({"url": "ftp://receiver.example/"}, 400, "https://HOST/PATH"),
        ({"url": "https://10.0.0.1/hook"}, 400, "webhook_private_targets"),
        ({"url": "https://169.254.169.254/latest/meta-data"}, 400, "webhook_private_targets"),
        ({"url": "https://[::ffff:10.0.0.1]/"}, 400, "webhook_private_targets"),
        ({"url": "http://93.184.216.34/"}, 400, "https"),
        ({"url": "https://receiver.invalid/"}, 400, "resolved"),
        ({"url": "https://127.0.0.1/", "rollouts": ["r-typo"]}, 404, "r-typo"),
        ({"url": "https://127.0.0.1/", "products": ["falcon"]}, 400, "VENDOR/PRODUCT"),
        ({"url": "https://127.0.0.1/", "scope": {"rings": "canary"}}, 400, "rings"),
        ({"url": "https://127.0.0.1/", "rollouts": [ROLLOUT], "scope": {"ring": "canry"}}, 400, "declare canary"),
        ({"url": "https://127.0.0.1/", "scope": {"os_build": "win11"}}, 400, "such as 22631.3880"),
        ({"url": "https://127.0.0.1/", "drills": "some"}, 400, "some"),
        ({"url": "https://127.0.0.1/", "start": "yesterday"}, 400, "yesterday"),
        ({"url": "https://127.0.0.1/", "note": "x" * 20_000}, 413, "bytes"),
    ],
)
def test_what_can_not_be_served_is_refused_and_says_why(rig: HttpRig, body: Any, status: int, says: str) -> None:
    before = len(rig.ask("GET").json())
    refused = rig.ask("POST", "", body)
    assert refused.status_code == status
    assert says in refused.json()["detail"]
    assert len(rig.ask("GET").json()) == before


def test_a_webhook_from_its_making_to_its_end(rig: HttpRig) -> None:
    receiver = rig.hooks.receiver
    made = rig.ask("POST", "", {"url": receiver.url("a"), "rollouts": [ROLLOUT], "note": "deployment"})
    assert made.status_code == 201
    name, secret = made.json()["webhook"]["id"], made.json()["secret"]
    assert secret.startswith("whsec_")
    receiver.secrets["a"] = secret
    rig.hooks.decide()
    eventually(lambda: receiver.got["a"] == [f"{ROLLOUT}/1"], 20)
    eventually(lambda: rig.ask("GET", f"/{name}").json()["delivered"] == 1, 20)
    shown = rig.ask("GET", f"/{name}").json()
    assert (shown["url"], shown["note"], shown["created_by"]) == (receiver.url("a"), "deployment", "ops-1")
    assert secret not in rig.ask("GET").text
    assert rig.ask("POST", f"/{name}", {"enabled": False}).json()["enabled"] is False
    rotated = rig.ask("POST", f"/{name}/rotate").json()["secret"]
    assert rotated not in (secret, "")
    assert rig.ask("GET", f"/{name}/dead").json() == []
    assert rig.ask("POST", f"/{name}/redeliver", {}).json()["events"] == 0
    assert rig.ask("DELETE", f"/{name}").status_code == 200
    assert rig.ask("GET", f"/{name}").status_code == 404


def test_no_secret_is_in_the_log(rig: HttpRig) -> None:
    secret = rig.ask("POST", "", {"url": rig.hooks.receiver.url("b")}).json()["secret"]
    log = rig.hooks.log
    values = [record.value or b"" for part in log._partitions.values() for record in part.records]
    assert values
    assert not any(secret.removeprefix("whsec_").encode() in value for value in values)


def test_the_commands_say_and_do_the_same(rig: HttpRig) -> None:
    receiver = rig.hooks.receiver
    added = rig.run("add", receiver.url("c"), "--rollout", ROLLOUT, "--scope", "ring=canary", "--note", "shell")
    assert added.exit_code == 0, added.output
    name = added.output.split()[0]
    listed = rig.run("list")
    assert f"{name}  enabled" in listed.output
    tested = rig.run("test", name)
    assert (tested.exit_code, tested.output) == (0, f"{name} took it: 200\n")
    assert rig.run("change", name, "--pause").output == f"{name} is paused and posts to {receiver.url('c')}\n"
    assert "nothing to change" in rig.run("change", name).output
    assert rig.run("rotate", name).output.startswith("whsec_")
    assert rig.run("dead", name).output == ""
    assert rig.run("redeliver", name).output == "0 events will be delivered again\n"
    assert rig.run("remove", name).output == f"{name} is removed\n"
    gone = rig.run("test", name)
    assert (gone.exit_code, "404 not_found" in gone.output) == (1, True)
    assert rig.run("add", "https://10.0.0.1/").exit_code == 1
    wrong = rig.run("add", receiver.url("d"), "--scope", "rings=x")
    assert (wrong.exit_code, "write ring=NAME" in wrong.output) == (1, True)


def test_a_test_post_that_is_not_taken_exits_1(rig: HttpRig) -> None:
    receiver = rig.hooks.receiver
    name = rig.ask("POST", "", {"url": receiver.url("e")}).json()["webhook"]["id"]
    receiver.status["e"] = 500
    said = rig.run("test", name)
    assert (said.exit_code, "failed: 500" in said.output) == (1, True)


def test_there_may_only_be_so_many(rig: HttpRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rig.hooks.services[-1].desk, "_subscriptions_max", 1)
    refused = rig.ask("POST", "", {"url": rig.hooks.receiver.url("f")})
    assert (refused.status_code, refused.json()["reason"]) == (503, "overloaded")
    assert "webhook_subscriptions_max" in refused.json()["detail"]
