"""Verdicts, keys and commands over HTTP: what is answered, to whom, and what is refused."""

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from detectors.verdict import DecisionWord
from ingest.sight import Cause, Sight, Unseen
from signals.delivery.views import Views
from signals.killswitch.signing import PublicKeys
from support.streams import APPROVER, OPERATOR, READER, REPORTER, StreamRig, eventually, streaming
from support.switches import KEYS, ROLLOUT, SIGNER, STRANGER, SwitchRig, verdict


@pytest.fixture(scope="module")
def shared_rig() -> Iterator[StreamRig]:
    """One listener for tests that leave nothing behind."""
    with streaming() as running:
        yield running


@pytest.fixture
def rig() -> Iterator[StreamRig]:
    with streaming() as running:
        yield running


def post(rig: StreamRig, action: str, *, token: str = OPERATOR, **body: Any) -> httpx2.Response:
    with rig.http(token) as http:
        return http.post(f"/v1/rollouts/{ROLLOUT}/{action}?wait=1", json=body)


def release(rig: StreamRig) -> httpx2.Response:
    """Have one person ask for a release of a kill, and another approve it."""
    asked = post(rig, "release", reason="fixed").json()
    return post(rig, "approve", token=APPROVER, reason="seen the fix", command_id=asked["command_id"])


def shown(rig: StreamRig) -> dict[str, object]:
    with rig.http(READER) as http:
        answer = http.get(f"/v1/rollouts/{ROLLOUT}/verdict")
    assert answer.status_code == 200
    found: dict[str, object] = answer.json()
    return found


def test_a_declared_rollout_without_a_verdict_is_unknown_and_not_healthy(shared_rig: StreamRig) -> None:
    found = shown(shared_rig)
    assert (found["verdict"], found["decision"], found["state"]) == ("no_data", "unknown", "observing")
    assert (found["reason"], found["killed"], found["evidence"]) == ("no_verdict", False, None)


def test_a_killed_rollout_shows_verdict_and_switch(rig: StreamRig) -> None:
    rig.say(verdict(DecisionWord.KILL))
    eventually(lambda: bool(shown(rig)["killed"]))
    found = shown(rig)
    assert (found["verdict"], found["decision"], found["state"]) == ("regressed", "kill", "killed")
    assert (found["reason"], found["decided_by"], found["number"]) == ("kill_evidence", "detector", 1)
    assert isinstance(found["evidence"], dict)
    with rig.http(READER) as http:
        assert [item["rollout"] for item in http.get("/v1/verdicts").json()["verdicts"]] == [ROLLOUT]


def test_a_dry_run_kill_is_shown_and_binds_nobody(rig: StreamRig) -> None:
    rig.say(verdict(DecisionWord.KILL, dry_run=True))
    eventually(lambda: shown(rig)["state"] == "killed")
    found = shown(rig)
    assert (found["killed"], found["dry_run"]) == (False, True)


def test_hold_kill_and_release_by_a_person(rig: StreamRig) -> None:
    held = post(rig, "hold", reason="looks odd", name="Ada")
    assert (held.status_code, held.json()["state"], held.json()["number"]) == (200, "held", 1)
    killed = post(rig, "kill", reason="it is")
    assert (killed.json()["state"], killed.json()["decision"]) == ("killed", "kill")
    again = post(rig, "kill", reason="twice")
    assert (again.status_code, again.json()["result"]) == (409, "already_killed")
    waiting = post(rig, "release", reason="fixed")
    assert (waiting.status_code, waiting.json()["result"], waiting.json()["state"]) == (202, "pending", "killed")
    released = post(rig, "approve", token=APPROVER, reason="so it is", command_id=waiting.json()["command_id"])
    assert (released.status_code, released.json()["state"]) == (200, "released")
    assert [event.switch.name for event in rig.events()] == ["Ada (ops-1)", "ops-1", "ops-1"]
    assert rig.events()[-1].switch.approved_by == "lead-1"
    # The statistics stay visible beside the person's word, and do not overrule it.
    rig.say(verdict(DecisionWord.KILL))
    eventually(lambda: shown(rig)["verdict"] == "regressed")
    found = shown(rig)
    assert (found["decision"], found["verdict_decision"], found["killed"]) == ("proceed", "kill", False)


def test_a_repeated_post_with_its_id_is_harmless(rig: StreamRig) -> None:
    first = post(rig, "kill", reason="bad", command_id="mine-1")
    release(rig)
    again = post(rig, "kill", reason="bad", command_id="mine-1")
    assert (first.json()["result"], again.json()["result"]) == ("applied", "applied")
    assert again.json()["state"] == "released"


def test_what_no_path_takes_says_where_the_paths_stand(rig: StreamRig) -> None:
    with rig.http() as http:
        answer = http.post(f"/v1/rollouts/{ROLLOUT}/pause", json={"reason": "odd"})
    assert (answer.status_code, "/v1/openapi.json" in answer.json()["detail"]) == (404, True)


def test_without_wait_a_command_is_accepted_and_not_yet_done(rig: StreamRig) -> None:
    with rig.http() as http:
        answer = http.post(f"/v1/rollouts/{ROLLOUT}/hold", json={"reason": "looks odd"})
    assert answer.status_code == 202
    assert answer.json()["command_id"]
    eventually(lambda: shown(rig)["state"] == "held")
    assert shown(rig)["held"] is True


def test_a_log_that_cannot_write_is_said_so_and_nothing_was_asked(rig: StreamRig) -> None:
    rig.log.refuse_next_append()
    answer = post(rig, "hold", reason="looks odd")
    assert (answer.status_code, answer.json()["reason"]) == (503, "log_unavailable")
    assert int(answer.headers["retry-after"]) > 0
    assert rig.records(rig.commands) == []


@pytest.mark.parametrize(
    ("method", "path", "token", "body", "status", "reason"),
    [
        ("GET", f"/v1/rollouts/{ROLLOUT}/verdict", "nobody", None, 401, "unauthenticated"),
        ("GET", f"/v1/rollouts/{ROLLOUT}/verdict", REPORTER, None, 403, "forbidden"),
        ("GET", "/v1/rollouts/r-typo/verdict", READER, None, 404, "not_found"),
        ("GET", "/v1/verdict", READER, None, 404, "not_found"),
        ("GET", "/v1/verdicts", REPORTER, None, 403, "forbidden"),
        ("POST", f"/v1/rollouts/{ROLLOUT}/hold", READER, b'{"reason": "x"}', 403, "forbidden"),
        ("POST", "/v1/rollouts/r-typo/kill", OPERATOR, b'{"reason": "x"}', 404, "not_found"),
        ("POST", f"/v1/rollouts/{ROLLOUT}/stop", OPERATOR, b'{"reason": "x"}', 404, "not_found"),
        ("POST", f"/v1/rollouts/{ROLLOUT}/kill", OPERATOR, b"", 400, "bad_request"),
        ("POST", f"/v1/rollouts/{ROLLOUT}/kill", OPERATOR, b"{}", 400, "bad_request"),
        ("POST", f"/v1/rollouts/{ROLLOUT}/kill", OPERATOR, b'{"reason": ""}', 400, "bad_request"),
        ("POST", f"/v1/rollouts/{ROLLOUT}/kill", OPERATOR, b'{"reason": "x", "nmae": "y"}', 400, "bad_request"),
        ("POST", f"/v1/rollouts/{ROLLOUT}/kill", OPERATOR, b"[" * 9000, 400, "bad_request"),
        ("POST", f"/v1/rollouts/{ROLLOUT}/kill", OPERATOR, b"x" * 20_000, 413, "body_too_large"),
        ("GET", f"/v1/rollouts/{ROLLOUT}/kill", OPERATOR, None, 405, "bad_request"),
    ],
)
def test_what_is_refused_says_why(
    shared_rig: StreamRig, method: str, path: str, token: str, body: bytes | None, status: int, reason: str
) -> None:
    with shared_rig.http(token) as http:
        answer = http.request(method, path, content=body)
    assert (answer.status_code, answer.json()["reason"]) == (status, reason)
    assert answer.json()["detail"]


def test_sight_is_told_to_whoever_may_read(rig: StreamRig) -> None:
    """What a lease is renewed on: nobody is left to guess why Cordon says nothing."""
    with rig.http(READER) as http:
        assert http.get("/v1/sight").json() == {"seeing": True, "why": [], "unseen": 0, "at_ms": 0}
        unseen = Unseen(share="grouping/3", cause=Cause.SILENT, detail="last heard 12 s ago")
        rig.sight_now = Sight(seeing=False, why=[unseen], unseen=1, at_ms=7)
        told = http.get("/v1/sight").json()
    assert (told["seeing"], told["unseen"]) == (False, 1)
    assert told["why"] == [{"share": "grouping/3", "cause": "silent", "detail": "last heard 12 s ago"}]
    with rig.http(REPORTER) as http:
        assert http.get("/v1/sight").status_code == 403


def test_health_and_public_keys_need_no_token(shared_rig: StreamRig) -> None:
    assert httpx2.get(f"{shared_rig.url}/healthz").json() == {"ok": True}
    answer = httpx2.get(f"{shared_rig.url}/v1/keys")
    assert PublicKeys.parse(answer.content).ids == [SIGNER.key_id]


def test_whoever_was_sent_an_event_is_never_shown_an_older_switch() -> None:
    """An event and its switch record are read apart: the event alone has to move what is shown."""
    rig = SwitchRig()
    views = Views(KEYS)
    for decision in (DecisionWord.HOLD, DecisionWord.KILL):
        rig.say(verdict(decision))
        rig.settle()
    views.take_events(rig.killswitch, rig.records(rig.killswitch))
    views.take_switches(rig.switches, rig.records(rig.switches)[:1])
    found = views.verdict(ROLLOUT)
    assert found is not None
    assert (found.state, found.number, found.killed, found.decision) == ("killed", 2, True, "kill")


def test_a_strangers_event_moves_nothing_that_is_shown() -> None:
    rig = SwitchRig()
    rig.say(verdict(DecisionWord.KILL))
    rig.settle()
    views = Views(PublicKeys([STRANGER.public]))
    views.take_events(rig.killswitch, rig.records(rig.killswitch))
    assert views.verdict(ROLLOUT) is None
