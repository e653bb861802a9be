"""Flagger's hooks: the status is all that it reads, so polarity is everything.

`Flagger` calls as Flagger's controller does (pkg/controller/webhook.go): a retryable client that takes 5xx and 429 for
"try again", 200 to 202 for yes, and everything else, errors of the connection included, for no.
"""

import base64
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest

from detectors.scope import Scope
from detectors.verdict import DecisionWord
from signals.events import SwitchState
from signals.killswitch.lease import LeaseTerms
from support.leases import declare_rings, grant, part, stand
from support.openapi import check_answer
from support.streams import READER, REPORTER, StreamRig, eventually, streaming
from support.switches import ROLLOUT, verdict

CALL = {"name": "agent", "namespace": "fleet", "phase": "Progressing", "checksum": "7d9f"}
HOOKS = ("gate", "rollback")


@dataclass
class Flagger:
    """Calls one hook after the other as Flagger does, and remembers what it was answered."""

    url: str
    token: str = READER
    retries: int = 2
    answers: list[httpx2.Response] = field(default_factory=list)

    def call(self, hook: str, metadata: dict[str, str] | None = None) -> bool:
        """Return whether Flagger takes the answer for a yes."""
        address = self.url.replace("://", f"://cordon:{self.token}@") + f"/v1/flagger/{hook}"
        # A map without entries is left out of what Flagger sends.
        body: dict[str, Any] = CALL | ({"metadata": metadata} if metadata else {})
        for _ in range(1 + self.retries):
            try:
                answer = httpx2.post(address, json=body, timeout=10)
            except httpx2.TransportError:
                continue
            self.answers.append(answer)
            if answer.status_code < 500 and answer.status_code != 429:
                return 200 <= answer.status_code <= 202
        return False

    def both(self, **metadata: str) -> tuple[bool, bool]:
        """Return whether the gate says go, and whether rollback says roll back."""
        return self.call("gate", metadata), self.call("rollback", metadata)


@pytest.fixture
def rig() -> Iterator[StreamRig]:
    with streaming(terms=LeaseTerms()) as running:
        declare_rings(running)
        yield running


@pytest.fixture(scope="module")
def shared_rig() -> Iterator[StreamRig]:
    """One listener for tests that leave nothing behind."""
    with streaming(terms=LeaseTerms()) as running:
        declare_rings(running)
        grant(running, number=1)
        stand(running, part(Scope(ring="early"), SwitchState.KILLED))
        yield running


def test_go_needs_a_lease_and_rollback_a_kill(rig: StreamRig) -> None:
    flagger = Flagger(rig.url)
    assert flagger.both(rollout=ROLLOUT) == (False, False)
    lease = grant(rig)
    assert flagger.both(rollout=ROLLOUT) == (True, False)
    rig.clock.drive_to(lease.expires_ms)
    assert flagger.both(rollout=ROLLOUT) == (False, False)
    grant(rig, number=9)
    rig.say(verdict(DecisionWord.KILL, at_ms=rig.clock.now_ms()))
    eventually(lambda: rig.service.views.switch(ROLLOUT) is not None)
    assert flagger.both(rollout=ROLLOUT) == (False, True)
    said = flagger.answers[-1].json()
    assert (said["decision"], said["reason"], said["rollout"]) == ("kill", "killed", ROLLOUT)
    # A no is final: it was not taken for a failing server and asked for again.
    assert len(flagger.answers) == 8


def test_a_hold_neither_goes_nor_rolls_back(rig: StreamRig) -> None:
    grant(rig, number=9)
    rig.say(verdict(DecisionWord.HOLD, at_ms=rig.clock.now_ms()))
    eventually(lambda: rig.service.views.switch(ROLLOUT) is not None)
    assert Flagger(rig.url).both(rollout=ROLLOUT) == (False, False)


def test_the_metadata_names_the_part(rig: StreamRig) -> None:
    grant(rig, number=1)
    stand(rig, part(Scope(ring="early"), SwitchState.KILLED))
    flagger = Flagger(rig.url)
    assert flagger.both(rollout=ROLLOUT, ring="canary") == (True, False)
    assert flagger.both(rollout=ROLLOUT, ring="early") == (False, True)
    assert flagger.both(rollout=ROLLOUT) == (False, True)


@pytest.mark.parametrize(
    ("metadata", "status", "reason"),
    [
        ({"rollout": "r-typo"}, 404, "not_found"),
        ({}, 400, "bad_request"),
        ({"rolout": ROLLOUT}, 400, "bad_request"),
        ({"rollout": ROLLOUT, "ring": "canry"}, 400, "bad_request"),
        ({"rollout": ROLLOUT, "rign": "canary"}, 400, "bad_request"),
    ],
)
def test_a_mistake_reads_neither_as_go_nor_as_rollback(
    shared_rig: StreamRig, metadata: dict[str, str], status: int, reason: str
) -> None:
    flagger = Flagger(shared_rig.url)
    assert [flagger.call(hook, metadata) for hook in HOOKS] == [False, False]
    assert [(answer.status_code, answer.json()["reason"]) for answer in flagger.answers] == [(status, reason)] * 2
    assert all(answer.json()["detail"] for answer in flagger.answers)


@pytest.mark.parametrize(("token", "status"), [("nobody", 401), (REPORTER, 403), ("", 401)])
def test_without_a_token_that_may_read_both_say_no(shared_rig: StreamRig, token: str, status: int) -> None:
    flagger = Flagger(shared_rig.url, token)
    assert flagger.both(rollout=ROLLOUT, ring="canary") == (False, False)
    assert flagger.both(rollout=ROLLOUT, ring="early") == (False, False)
    assert [answer.status_code for answer in flagger.answers] == [status] * 4


def test_with_cordon_dead_both_say_no() -> None:
    assert Flagger("http://127.0.0.1:9").both(rollout=ROLLOUT) == (False, False)


def test_a_token_is_taken_from_a_header_as_well(rig: StreamRig) -> None:
    grant(rig)
    body = CALL | {"metadata": {"rollout": ROLLOUT}}
    garbled = f"Basic {base64.b64encode(bytes([255, 254])).decode()}"
    with rig.http(READER) as http:
        answer = http.post("/v1/flagger/gate", json=body)
        check_answer(http.get("/v1/openapi.json").json(), "POST", "/v1/flagger/gate", answer)
        assert answer.status_code == 200
        for header in (garbled, "Basic !", "Basic", ""):
            refused = http.post("/v1/flagger/gate", json=body, headers={"authorization": header})
            assert refused.status_code == 401


@pytest.mark.parametrize("body", [b"", b"[]", b'{"metadata": {"rollout": 7}}', b"{" * 5000])
@pytest.mark.parametrize("hook", HOOKS)
def test_what_flagger_would_never_send_is_refused(shared_rig: StreamRig, hook: str, body: bytes) -> None:
    with shared_rig.http(READER) as http:
        assert http.post(f"/v1/flagger/{hook}", content=body).status_code == 400
        assert http.post(f"/v1/flagger/{hook}", content=b" " * 70_000).status_code == 413
