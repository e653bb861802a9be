"""Slack, Teams and mail through apprise: what goes over the wire fits the service, and failures are judged."""

import json
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import requests
from hypothesis import HealthCheck, given, settings
from msgspec.structs import replace

from detectors.stacks import Stack
from signals.pagers.channels.chat import BODY_MAX, ChatChannel, texts
from signals.pagers.channels.interface import Message
from signals.pagers.words import Answered, ChannelKind, Step
from support.pages import MESSAGES, PAGE, message

SCHEMAS = Path(__file__).parent / "schemas"
URLS = {
    ChannelKind.SLACK: "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/",
    ChannelKind.TEAMS: "workflows://prod-1.logic.example.net:443/643e69f83c8944/CQpD1IkxKf",
}
SCHEMA = {ChannelKind.SLACK: "slack-incoming-webhook.json", ChannelKind.TEAMS: "teams-workflow.json"}


class Wire:
    """Stands where `requests` would open a connection."""

    def __init__(self) -> None:
        self.sent: list[requests.PreparedRequest] = []
        self.status = 200
        self.error: Exception | None = None

    def send(self, request: requests.PreparedRequest) -> requests.Response:
        self.sent.append(request)
        if self.error is not None:
            raise self.error
        answer = requests.Response()
        answer.status_code = self.status
        answer._content = b"ok" if self.status == 200 else b"no"
        answer.request = request
        answer.url = request.url or ""
        return answer


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Wire:
    made = Wire()
    monkeypatch.setattr("requests.adapters.HTTPAdapter.send", lambda adapter, request, **more: made.send(request))
    # Apprise keeps a pause between messages; nothing here is really sent.
    monkeypatch.setattr("apprise.plugins.base.NotifyBase.throttle", lambda *_, **__: None)
    return made


@pytest.mark.parametrize("kind", list(URLS))
@given(said=MESSAGES)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_message_fits_the_service_and_is_one(kind: ChannelKind, said: Message, wire: Wire) -> None:
    wire.sent.clear()
    assert ChatChannel(kind, URLS[kind]).send(said).answered is Answered.DELIVERED
    assert len(wire.sent) == 1
    payload = json.loads(str(wire.sent[0].body))
    jsonschema.Draft7Validator(json.loads((SCHEMAS / SCHEMA[kind]).read_text())).validate(payload)
    assert len(json.dumps(payload)) <= 28_000


@pytest.mark.parametrize("kind", list(URLS))
@pytest.mark.parametrize(
    ("status", "answered"),
    [
        (400, Answered.REFUSED),
        (403, Answered.REFUSED),
        (404, Answered.REFUSED),
        (429, Answered.RETRY),
        (500, Answered.RETRY),
    ],
)
def test_a_failure_is_judged_by_its_status(kind: ChannelKind, status: int, answered: Answered, wire: Wire) -> None:
    wire.status = status
    answer = ChatChannel(kind, URLS[kind]).send(message())
    assert (answer.answered, answer.status) == (answered, status)


def test_no_connection_is_tried_again(wire: Wire) -> None:
    wire.error = requests.ConnectionError("refused")
    answer = ChatChannel(ChannelKind.SLACK, URLS[ChannelKind.SLACK]).send(message())
    assert (answer.answered, answer.status) == (Answered.RETRY, 0)


@pytest.mark.parametrize(
    ("kind", "url"),
    [
        (ChannelKind.SLACK, "workflows://prod-1.logic.example.net/643e69f83c8944/CQpD1IkxKf"),
        (ChannelKind.SLACK, "slack://x"),
        (ChannelKind.TEAMS, "https://example.net"),
        (ChannelKind.EMAIL, "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/"),
    ],
)
def test_a_url_of_another_service_or_of_none_is_refused(kind: ChannelKind, url: str) -> None:
    with pytest.raises(ValueError, match="apprise"):
        ChatChannel(kind, url)


def test_the_short_text_is_the_title_and_the_long_one_follows_with_its_links() -> None:
    title, body = texts(ChannelKind.EMAIL, message())
    assert title == message().headline
    assert body.startswith("Update: crowdstrike falcon-content 291")
    assert "Console: https://cordon.example.net/console/rollouts/r-0123456789abcdef" in body


def test_frames_go_where_a_chat_takes_no_more_and_links_stay() -> None:
    """Slack and mail show the frames of all five signatures, Teams those of the first ones."""
    names = [f"driver-{number}.sys" for number in range(5)]
    stacks = [
        Stack(signature=f"{name}|0x50", frames=[f"{name}+{place:#x}" for place in range(3)], devices=9 - number)
        for number, name in enumerate(names)
    ]
    page = replace(PAGE, signatures=[(one.signature, 9) for one in stacks], stacks=stacks)
    shown = {kind: texts(kind, message(page=page))[1] for kind in ChannelKind if kind in BODY_MAX}
    assert [shown[kind].count("Frames: ") for kind in (ChannelKind.SLACK, ChannelKind.EMAIL)] == [5, 5]
    few = shown[ChannelKind.TEAMS]
    told = [name for name in names if f"Frames: {name}" in few]
    assert told == names[: len(told)]
    assert len(told) < 5
    assert len(few) <= BODY_MAX[ChannelKind.TEAMS]
    for text in shown.values():
        assert text.endswith("Verdict: https://cordon.example.net/v1/rollouts/r-0123456789abcdef/verdict")


class _Smtp(socketserver.StreamRequestHandler):
    """As much of SMTP as a mail needs."""

    def handle(self) -> None:
        server: Any = self.server
        self._say("220 mail.example.net")
        while line := self.rfile.readline().decode().strip():
            verb = line.split(" ", 1)[0].upper()
            if verb == "DATA":
                self._say("354 go on")
                server.mails.append(b"".join(iter(self.rfile.readline, b".\r\n")).decode())
                self._say(server.answer)
            elif verb == "QUIT":
                self._say("221 bye")
                return
            else:
                self._say("250 mail.example.net" if verb in ("EHLO", "HELO") else "250 ok")

    def _say(self, text: str) -> None:
        self.wfile.write(text.encode() + b"\r\n")


@pytest.fixture
def mail_server() -> Iterator[Any]:
    server: Any = socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Smtp)
    server.daemon_threads = True
    server.mails, server.answer = [], "250 taken"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_mail_arrives_and_one_that_is_not_taken_is_tried_again(mail_server: Any) -> None:
    port = mail_server.server_address[1]
    url = f"mailto://127.0.0.1:{port}?from=cordon@example.net&to=oncall@example.org&smtp=127.0.0.1"
    channel = ChatChannel(ChannelKind.EMAIL, url)
    assert channel.send(message(Step.TRIGGER)).answered is Answered.DELIVERED
    assert "Subject: KILLED: falcon-content 291" in mail_server.mails[0]
    mail_server.answer = "451 later"
    assert channel.send(message(Step.TRIGGER)).answered is Answered.RETRY
