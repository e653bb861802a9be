"""Every payload fits the channel's published schema, whatever stands in the page; answers are judged as documented."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import jsonschema
import pytest
import yaml
from hypothesis import given, settings

from signals.client.webhooks import signature
from signals.pagers.channels.alertmanager import AlertmanagerChannel
from signals.pagers.channels.interface import Answer, Channel, Message
from signals.pagers.channels.jsm import JsmChannel
from signals.pagers.channels.pagerduty import PagerDutyChannel
from signals.pagers.channels.webhook import WebhookChannel
from signals.pagers.words import Answered, Step
from support.pages import MESSAGES, PAGE, message

SCHEMAS = Path(__file__).parent / "schemas"
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
NOW = 1_721_362_201.0


class Service:
    """A service in memory: keeps requests, and answers as it is told."""

    def __init__(self, status: int = 202, text: str = "", headers: dict[str, str] | None = None) -> None:
        self.requests: list[httpx2.Request] = []
        self.status, self.text, self.headers = status, text, headers or {}
        self.error: Exception | None = None
        self.transport = httpx2.MockTransport(self._answer)

    def _answer(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        if self.error is not None:
            raise self.error
        said = json.loads(request.content or b"null")
        key = said.get("dedup_key", "") if isinstance(said, dict) else ""
        text = self.text or json.dumps({"status": "success", "message": "Event processed", "dedup_key": key})
        return httpx2.Response(self.status, text=text, headers=self.headers)

    @property
    def said(self) -> Any:
        return json.loads(self.requests[-1].content)


def channels(service: Service) -> dict[str, Channel]:
    return {
        "pagerduty": PagerDutyChannel("key-1", transport=service.transport),
        "alertmanager": AlertmanagerChannel("http://alerts.example.net", transport=service.transport),
        "jsm": JsmChannel("key-1", responders=["team-1"], transport=service.transport),
        "webhook": WebhookChannel("https://hook.example.net/x", SECRET, service.transport, lambda: NOW),
    }


@pytest.fixture(scope="session")
def pagerduty_schema(shared_dir: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((shared_dir / "schemas" / "pagerduty-events-v2.openapi.json").read_text())
    return found


@pytest.fixture(scope="session")
def alertmanager_schema(shared_dir: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((shared_dir / "schemas" / "alertmanager-v2.openapi.yaml").read_text())
    return found


def validate(schema: dict[str, Any], document: dict[str, Any], value: Any) -> None:
    # References of an OpenAPI document lead into the document itself.
    jsonschema.Draft7Validator({**document, **schema}, format_checker=jsonschema.FormatChecker()).validate(value)


@given(said=MESSAGES)
@settings(max_examples=150, deadline=None)
def test_every_event_fits_pagerdutys_openapi(said: Message, pagerduty_schema: dict[str, Any]) -> None:
    service = Service()
    assert channels(service)["pagerduty"].send(said).answered is Answered.DELIVERED
    path = "/change/enqueue" if said.step is Step.CHANGE else "/enqueue"
    assert service.requests[-1].url.path == "/v2" + path
    body = pagerduty_schema["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    validate(body, pagerduty_schema, service.said)
    assert service.said["routing_key"] == "key-1"
    if said.step is not Step.CHANGE:
        assert service.said["dedup_key"] == said.key
        assert len(service.said.get("payload", {}).get("summary", "")) <= 1024
        assert len(service.requests[-1].content) <= 512 * 1024


@given(said=MESSAGES)
@settings(max_examples=150, deadline=None)
def test_every_alert_fits_alertmanagers_openapi(said: Message, alertmanager_schema: dict[str, Any]) -> None:
    service = Service(200)
    assert channels(service)["alertmanager"].send(said).answered is Answered.DELIVERED
    if said.step is Step.ACKNOWLEDGE:
        assert not service.requests
        return
    assert service.requests[-1].url.path == "/api/v2/alerts"
    validate({"$ref": "#/definitions/postableAlerts"}, alertmanager_schema, service.said)


@given(said=MESSAGES)
@settings(max_examples=150, deadline=None)
def test_every_jsm_request_fits_its_documentation(said: Message) -> None:
    service, schema = Service(), json.loads((SCHEMAS / "jsm-integration-events.json").read_text())
    assert channels(service)["jsm"].send(said).answered is Answered.DELIVERED
    word = "create" if said.step is Step.TRIGGER else "act"
    jsonschema.Draft7Validator(schema[word]).validate(service.said)
    assert service.requests[-1].headers["authorization"] == "GenieKey key-1"


def test_a_payload_with_a_wrong_word_does_not_fit(
    pagerduty_schema: dict[str, Any], alertmanager_schema: dict[str, Any]
) -> None:
    """The schemas are strict enough to notice: otherwise the tests above would prove nothing."""
    body = pagerduty_schema["paths"]["/enqueue"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    with pytest.raises(jsonschema.ValidationError):
        validate(body, pagerduty_schema, {"routing_key": "k", "event_action": "wake"})
    with pytest.raises(jsonschema.ValidationError):
        validate({"$ref": "#/definitions/postableAlerts"}, alertmanager_schema, [{"labels": {"a": 1}}])


def test_jsm_is_told_of_every_step_under_one_alias() -> None:
    service = Service()
    channel = channels(service)["jsm"]
    for step in (Step.TRIGGER, Step.UPDATE, Step.ACKNOWLEDGE, Step.RESOLVE):
        channel.send(message(step))
    urls = [str(request.url) for request in service.requests]
    base = "https://api.atlassian.com/jsm/ops/integration/v2/alerts"
    alias = "cordon%2Fr-1%2Fcrowdstrike%2F1"
    assert urls == [
        base,
        *(f"{base}/{alias}/{word}?identifierType=alias" for word in ("notes", "acknowledge", "close")),
    ]
    created = json.loads(service.requests[0].content)
    assert created["alias"] == "cordon/r-1/crowdstrike/1"
    assert created["priority"] == "P1"
    assert created["responders"] == [{"id": "team-1", "type": "team"}]


def test_a_webhook_is_signed_in_the_form_of_standard_webhooks() -> None:
    service = Service()
    channels(service)["webhook"].send(message())
    request = service.requests[0]
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    said = signature(key, request.headers["webhook-id"], int(request.headers["webhook-timestamp"]), request.content)
    assert request.headers["webhook-signature"] == said
    assert service.said["headline"] == message().headline
    channels(service)["webhook"].send(message())
    assert service.requests[1].headers["webhook-id"] == request.headers["webhook-id"]


@pytest.mark.parametrize("secret", ["", "short", "whsec_", "whsec_!!", "whsec_AAAA"])
def test_a_signing_secret_that_is_none_is_refused(secret: str) -> None:
    with pytest.raises(ValueError, match="signing secret"):
        WebhookChannel("https://hook.example.net/x", secret)


JUDGED = [
    (202, {}, Answered.DELIVERED, None),
    (400, {}, Answered.REFUSED, None),
    (401, {}, Answered.REFUSED, None),
    (403, {}, Answered.REFUSED, None),
    (404, {}, Answered.REFUSED, None),
    (302, {"location": "https://elsewhere.example.net"}, Answered.REFUSED, None),
    (408, {}, Answered.RETRY, None),
    (429, {"retry-after": "17"}, Answered.RETRY, 17.0),
    (429, {}, Answered.RETRY, None),
    (500, {}, Answered.RETRY, None),
    (503, {"retry-after": "nonsense"}, Answered.RETRY, None),
    (504, {}, Answered.RETRY, None),
]


@pytest.mark.parametrize("name", ["pagerduty", "alertmanager", "jsm", "webhook"])
@pytest.mark.parametrize(("status", "headers", "answered", "after"), JUDGED)
def test_an_answer_is_judged_and_asked_for_once(
    name: str, status: int, headers: dict[str, str], answered: Answered, after: float | None
) -> None:
    service = Service(status, headers=headers)
    answer = channels(service)[name].send(message())
    assert len(service.requests) == 1
    assert answer.answered is answered
    if status < 300 or status >= 400 or name != "pagerduty":
        assert (answer.status, answer.retry_after_seconds) == (status, after)


@pytest.mark.parametrize("name", ["pagerduty", "alertmanager", "jsm", "webhook"])
@pytest.mark.parametrize("error", [httpx2.ConnectError("refused"), httpx2.ReadTimeout("late")])
def test_no_answer_is_tried_again_later(name: str, error: Exception) -> None:
    service = Service()
    service.error = error
    answer = channels(service)[name].send(message())
    assert len(service.requests) == 1
    assert (answer.answered, answer.status) == (Answered.RETRY, 0)
    assert type(error).__name__ in answer.detail


def test_a_retry_after_may_be_a_date() -> None:
    import datetime as dt

    from signals.pagers.channels.interface import retry_after_seconds

    now: Callable[[], dt.datetime] = lambda: dt.datetime(2024, 7, 19, 4, 9, tzinfo=dt.UTC)  # noqa: E731
    assert retry_after_seconds("Fri, 19 Jul 2024 04:10:00 GMT", now) == 60
    assert retry_after_seconds("Fri, 19 Jul 2024 04:00:00 GMT", now) == 0
    assert retry_after_seconds("soon", now) is None


def test_pagerduty_says_what_its_documentation_asks_for() -> None:
    service = Service()
    channel = channels(service)["pagerduty"]
    assert channel.send(message()) == Answer(Answered.DELIVERED, 202, "accepted")
    payload = service.said["payload"]
    assert payload["severity"] == "critical"
    assert payload["summary"].startswith("KILLED: falcon-content 291, 11 crashed, 310x control")
    assert payload["custom_details"]["Rate against control"] == "310.5 times, 95 % interval 44.1 to 4,100.0"
    assert {link["text"] for link in service.said["links"]} == {"Console", "Board", "Runbook", "Verdict"}
    assert service.requests[-1].url.host == "events.pagerduty.com"
    eu = PagerDutyChannel("key-1", "https://events.eu.pagerduty.com", transport=service.transport)
    eu.send(message(Step.RESOLVE, PAGE))
    assert str(service.requests[-1].url) == "https://events.eu.pagerduty.com/v2/enqueue"
