"""What people ask for over HTTP beyond hold and kill: parts, ends, modes, approvals, and the audit trail in pages."""

from collections.abc import Iterator
from typing import Any

import httpx2
import msgspec
import pytest

from detectors.scope import Scope
from ingest.events import encoder
from ingest.log.interface import Entry
from ingest.rollouts import Bound, Ring, Rollout
from signals.events import Mode
from signals.killswitch.audit_check import verify_chain
from support.streams import APPROVER, OPERATOR, READER, REPORTER, VIEWER, StreamRig, eventually, streaming
from support.switches import ROLLOUT, START_MS


@pytest.fixture(scope="module")
def shared_rig() -> Iterator[StreamRig]:
    """One listener for tests that leave nothing behind."""
    with streaming() as running:
        yield running


@pytest.fixture
def rig() -> Iterator[StreamRig]:
    with streaming() as running:
        yield running


def declare_rings(rig: StreamRig) -> None:
    declared = Rollout(
        rollout=ROLLOUT,
        vendor="crowdstrike",
        product="falcon-content",
        update_kind="content",
        version="291",
        origin_ms=START_MS,
        bound=Bound.DECLARED,
        rings=[Ring(name="canary", starts_at_ms=START_MS)],
    )
    rig.log.append([Entry(*rig.source("rollouts"), ROLLOUT.encode(), encoder.encode(declared))])

    def known() -> bool:
        facts = rig.service.views.facts(ROLLOUT)
        return facts is not None and facts.declared is not None and bool(facts.declared.rings)

    eventually(known)


def post(rig: StreamRig, action: str, token: str = OPERATOR, **body: Any) -> httpx2.Response:
    with rig.http(token) as http:
        return http.post(f"/v1/rollouts/{ROLLOUT}/{action}?wait=1", json={"reason": "looks odd"} | body)


def got(rig: StreamRig, path: str, token: str = VIEWER) -> Any:
    with rig.http(token) as http:
        answer = http.get(path)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("scope", ["ring=canary;os_build=22631", {"ring": "canary", "os_build": "22631"}])
def test_a_part_is_held_for_a_while(rig: StreamRig, scope: object) -> None:
    declare_rings(rig)
    assert post(rig, "hold", scope=scope, for_seconds=60).status_code == 200
    switch = rig.events()[-1].switch
    assert (switch.scope, switch.until_ms) == (Scope(ring="canary", os_build="22631"), START_MS + 60_000)
    rig.clock.drive_to(START_MS + 60_000)
    eventually(lambda: len(rig.events()) == 2)
    assert rig.events()[-1].switch.cause == "timer"


@pytest.mark.parametrize(
    ("action", "body", "says"),
    [
        ("hold", {"scope": "ring=canry"}, "no ring"),
        ("hold", {"scope": "rign=canary"}, "ring=NAME"),
        ("hold", {"scope": {"rign": "canary"}}, "rign"),
        ("hold", {"scope": "os_build=eleven"}, "os_build"),
        ("hold", {"for_seconds": 60, "until_ms": START_MS + 1}, "not both"),
        ("hold", {"for_seconds": 0}, "for_seconds"),
        ("hold", {"break_glass": True}, "break_glass"),
        ("kill", {"for_seconds": 60}, "for_seconds"),
        ("mute", {"scope": "tenant=acme"}, "scope"),
        ("approve", {}, "command_id"),
    ],
)
def test_what_can_not_be_read_is_refused_with_what_to_write(
    shared_rig: StreamRig, action: str, body: dict[str, Any], says: str
) -> None:
    answer = post(shared_rig, action, APPROVER if action == "approve" else OPERATOR, **body)
    assert (answer.status_code, answer.json()["reason"]) == (400, "bad_request")
    assert says in answer.json()["detail"]


@pytest.mark.parametrize(
    ("action", "token"),
    [
        (action, token)
        for action in ("hold", "kill", "release", "mute", "dry-run", "arm")
        for token in (VIEWER, APPROVER)
    ]
    + [("approve", OPERATOR), ("approve", READER)],
)
def test_each_role_may_only_what_it_may(shared_rig: StreamRig, action: str, token: str) -> None:
    answer = post(shared_rig, action, token, command_id="c-1")
    assert (answer.status_code, answer.json()["reason"]) == (403, "forbidden")


def test_a_mute_needs_an_end_and_arm_undoes_it(rig: StreamRig) -> None:
    assert post(rig, "mute").json()["result"] == "needs_end"
    assert post(rig, "mute", for_seconds=3600).json()["state"] == "muted"
    armed = post(rig, "arm")
    assert (armed.status_code, armed.json()["state"]) == (200, "observing")
    assert post(rig, "dry-run").status_code == 200
    assert rig.events()[-1].switch.mode is Mode.DRY_RUN


def test_a_release_that_waits_is_listed_until_it_is_approved_and_approving_twice_is_harmless(rig: StreamRig) -> None:
    post(rig, "kill")
    asked = post(rig, "release", command_id="ask-1")
    assert (asked.status_code, asked.json()["result"]) == (202, "pending")
    [request] = got(rig, "/v1/approvals")["pending"]
    assert (request["principal"], request["reason"]) == ("ops-1", "looks odd")
    assert request["command_id"] == asked.json()["command_id"]
    assert post(rig, "approve", APPROVER, command_id="ask").json()["result"] == "no_such_request"
    for _ in range(2):
        agreed = post(rig, "approve", APPROVER, command_id="ask-1")
        assert (agreed.status_code, agreed.json()["result"], agreed.json()["number"]) == (200, "applied", 2)
    eventually(lambda: got(rig, "/v1/approvals")["pending"] == [])


def test_an_id_that_was_used_for_something_else_keeps_nothing_from_being_done(rig: StreamRig) -> None:
    """One incident number for several stops: an answer of `applied` that stopped nothing would be a lie."""
    declare_rings(rig)
    for action, body, state in (
        ("hold", {"scope": "ring=canary"}, "held"),
        ("hold", {"scope": "os_build=22631"}, "held"),
        ("kill", {"scope": "ring=canary"}, "killed"),
        ("kill", {}, "killed"),
    ):
        for _ in range(2):
            answer = post(rig, action, command_id="pager-4711", **body)
            assert (answer.json()["result"], answer.json()["state"]) == ("applied", state)
    assert [event.switch.state for event in rig.events()] == ["held", "held", "killed", "killed"]


def test_ids_as_long_as_may_be_are_told_apart(rig: StreamRig) -> None:
    long = "x" * 63
    assert post(rig, "hold", command_id=long + "a").json()["result"] == "applied"
    assert post(rig, "hold", command_id=long + "b").json()["result"] == "already_held"


def test_a_blank_reason_is_none(rig: StreamRig) -> None:
    for action, token in (("hold", OPERATOR), ("approve", APPROVER)):
        answer = post(rig, action, token, reason=" \t", **({"command_id": "c-1"} if action == "approve" else {}))
        assert (answer.status_code, answer.json()["reason"]) == (400, "bad_request")
        assert "blank" in answer.json()["detail"]
    assert rig.events() == []


@pytest.mark.parametrize("field", ["reason", "name"])
@pytest.mark.parametrize("mark", ["\n", "\x1b[2J", "\u2028", "\u202e"])
def test_a_persons_words_are_one_line(shared_rig: StreamRig, field: str, mark: str) -> None:
    answer = post(shared_rig, "hold", **{field: f"odd{mark}2024-07-19 Ada released it"})
    assert (answer.status_code, "one line each" in answer.json()["detail"]) == (400, True)
    assert shared_rig.events() == []


def test_the_audit_trail_comes_in_pages_byte_for_byte(rig: StreamRig) -> None:
    for number in range(5):
        post(rig, "kill", command_id=f"c-{number}")
    entries: list[bytes] = []
    after, more = 0, True
    while more:
        with rig.http(VIEWER) as http:
            text = http.get(f"/v1/audit?after={after}&limit=2").content
        page = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
        entries += [bytes(entry) for entry in msgspec.json.decode(page["entries"], type=list[msgspec.Raw])]
        after, more = (msgspec.json.decode(page[name]) for name in ("next", "more"))
    assert entries == [record.value for record in rig.records(rig.audit)]
    report = verify_chain(entries, rig.events())
    assert (report.whole, report.entries, report.events) == (True, 5, 1)
    with rig.http(VIEWER) as http:
        ahead = http.get(f"/v1/audit?after={after + 1}")
    # Whoever reads on behind the end of a trail that was cut off must not be told that nothing came.
    assert (ahead.status_code, "cut off or replaced" in ahead.json()["detail"]) == (400, True)


@pytest.mark.parametrize(
    "query", ["partition=1", "partition=-1", "after=x", "limit=0", "limit=1001", "page=2", "after=٣"]
)
def test_a_page_that_can_not_be_is_an_error(shared_rig: StreamRig, query: str) -> None:
    with shared_rig.http(VIEWER) as http:
        answer = http.get(f"/v1/audit?{query}")
    assert (answer.status_code, answer.json()["reason"]) == (400, "bad_request")


@pytest.mark.parametrize("path", ["/v1/audit", "/v1/approvals"])
def test_whoever_may_not_read_is_shown_nothing(shared_rig: StreamRig, path: str) -> None:
    with shared_rig.http(REPORTER) as http:
        assert http.get(path).status_code == 403
