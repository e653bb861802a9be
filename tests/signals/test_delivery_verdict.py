"""The verdict endpoint for rollout systems: one of three booleans, for a part of a rollout, by its lease."""

from collections.abc import Iterator
from typing import Any

import pytest

from detectors.scope import Scope
from detectors.verdict import DecisionWord
from ingest.sight import Sight
from signals.delivery.views import Views
from signals.events import SwitchState
from signals.killswitch.lease import LeaseTerms
from signals.killswitch.signing import PublicKeys
from support.leases import declare_rings, grant, part, stand
from support.streams import READER, StreamRig, eventually, streaming
from support.switches import KEYS, ROLLOUT, START_MS, STRANGER, SwitchRig, verdict


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
        yield running


def asked(rig: StreamRig, query: str = "") -> dict[str, Any]:
    with rig.http(READER) as http:
        answer = http.get(f"/v1/rollouts/{ROLLOUT}/verdict{query}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    assert [found["proceed"], found["held"], found["killed"]].count(True) == 1
    return found


def heard(rig: StreamRig, decision: DecisionWord) -> None:
    rig.say(verdict(decision, at_ms=rig.clock.now_ms()))
    eventually(lambda: (facts := rig.service.views.facts(ROLLOUT)) is not None and facts.verdict is not None)


def test_without_a_lease_a_rollout_is_on_hold_whatever_the_verdict_says(rig: StreamRig) -> None:
    heard(rig, DecisionWord.PROCEED)
    found = asked(rig)
    assert (found["decision"], found["held"], found["decision_reason"]) == ("hold", True, "no_lease")
    assert (found["leases"], found["lease_expires_ms"], found["verdict_decision"]) == (True, None, "proceed")


def test_a_lease_lets_it_proceed_until_its_end_and_not_a_millisecond_longer(rig: StreamRig) -> None:
    heard(rig, DecisionWord.PROCEED)
    lease = grant(rig)
    found = asked(rig)
    assert (found["decision"], found["proceed"], found["decision_reason"]) == ("proceed", True, "lease_valid")
    assert found["lease_expires_ms"] == found["decision_until_ms"] == lease.expires_ms
    assert found["lease_withheld"] is None
    rig.clock.drive_to(lease.expires_ms - 1)
    assert asked(rig)["proceed"]
    rig.clock.drive_to(lease.expires_ms)
    found = asked(rig)
    assert (found["held"], found["decision_reason"]) == (True, "lease_expired")


def test_why_no_lease_is_renewed_is_said(rig: StreamRig) -> None:
    assert asked(rig)["lease_withheld"] == "no_verdict"
    heard(rig, DecisionWord.PROCEED)
    assert asked(rig)["lease_withheld"] is None
    rig.sight_now = Sight(seeing=False)
    assert asked(rig)["lease_withheld"] == "blind"
    rig.sight_now = Sight(seeing=True)
    rig.clock.drive_to(START_MS + 3_600_000)
    assert asked(rig)["lease_withheld"] == "verdict_old"


def test_a_kill_wins_over_a_lease(rig: StreamRig) -> None:
    grant(rig, number=9)
    heard(rig, DecisionWord.KILL)
    eventually(lambda: bool(asked(rig)["killed"]))
    found = asked(rig)
    assert (found["decision"], found["decision_reason"], found["lease_withheld"]) == ("kill", "killed", "stopped")


def test_a_stop_of_a_part_binds_that_part_and_whoever_does_not_name_one(rig: StreamRig) -> None:
    grant(rig, number=1)
    stand(rig, part(Scope(ring="early")), part(Scope(os_build="22631"), SwitchState.KILLED))
    assert asked(rig, "?ring=canary&os_build=19045.4651")["proceed"]
    assert asked(rig, "?ring=early&os_build=19045.4651")["held"]
    assert asked(rig, "?ring=canary&os_build=22631.3880")["killed"]
    assert asked(rig, "?ring=canary")["killed"]
    assert asked(rig)["killed"]
    assert [stop["scope"] for stop in asked(rig)["stops"]] == [{"ring": "early"}, {"os_build": "22631"}]


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("?ring=canry", "canary, early"),
        ("?ring=", "empty"),
        ("?rign=canary", "no such parameter: rign"),
        ("?ring=canary&ring=early", "twice"),
        ("?os_build=22631.38.80", "22631.3880"),
        ("?os_build=win11", "22631.3880"),
        ("?model=a%3Db", "model"),
        ("?model=" + "x" * 65, "64"),
    ],
)
def test_a_typo_is_an_error_and_never_a_default(shared_rig: StreamRig, query: str, says: str) -> None:
    with shared_rig.http(READER) as http:
        answer = http.get(f"/v1/rollouts/{ROLLOUT}/verdict{query}")
    assert (answer.status_code, answer.json()["reason"]) == (400, "bad_request")
    assert says in answer.json()["detail"]


def test_a_ring_of_a_rollout_that_declares_none_is_an_error(rig: StreamRig) -> None:
    declare_rings(rig, [])
    with rig.http(READER) as http:
        answer = http.get(f"/v1/rollouts/{ROLLOUT}/verdict?ring=canary")
    assert (answer.status_code, "declares no rings" in answer.json()["detail"]) == (400, True)


def test_a_lane_without_leases_says_so_and_goes_by_the_verdict() -> None:
    with streaming() as rig:
        found = asked(rig)
        assert (found["leases"], found["decision"], found["held"]) == (False, "unknown", True)
        heard(rig, DecisionWord.PROCEED)
        found = asked(rig)
        assert (found["proceed"], found["decision_reason"], found["decision_until_ms"]) == (True, "verdict", 0)
        assert (found["lease_withheld"], found["lease_expires_ms"]) == (None, None)


def test_a_strangers_lease_an_older_one_and_garbage_change_nothing(rig: StreamRig) -> None:
    lease = grant(rig)
    records = rig.records(rig.source("leases"))
    strange = Views(PublicKeys([STRANGER.public]))
    strange.take_rollouts(rig.source("rollouts"), rig.records(rig.source("rollouts")))
    strange.take_leases(rig.source("leases"), records)
    facts = strange.facts(ROLLOUT)
    assert facts is not None
    assert facts.lease is None
    rig.clock.drive_to(START_MS + 20_000)
    newer = grant(rig)
    rig.service.views.take_leases(rig.source("leases"), [*records, records[0]._replace(value=b"{}")])
    facts = rig.service.views.facts(ROLLOUT)
    assert facts is not None
    assert facts.lease == newer != lease


def test_of_more_rollouts_than_asked_for_those_judged_last_are_known() -> None:
    rig = SwitchRig()
    views = Views(KEYS)
    for number in range(6):
        rig.declare(f"r-declared-{number}")
        rig.say(verdict(DecisionWord.PROCEED, rollout=f"r-judged-{number}"))
    views.take_rollouts(rig.source("rollouts"), rig.records(rig.source("rollouts")))
    views.take_verdicts(rig.verdicts, rig.records(rig.verdicts))
    assert views.known(2) == ["r-judged-4", "r-judged-5"]
    assert views.known(7) == ["r-declared-5", *(f"r-judged-{number}" for number in range(6))]
    assert len(views.known(100)) == 12
