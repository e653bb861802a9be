"""The decision: at each limit and one past it; nothing unknown ever proceeds."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.attribution import Finding, Guilt
from detectors.decide import Decided, Findings, decide
from detectors.gate import CellAnswer, CellWord, GateAnswer
from detectors.policy import Policies, Policy
from detectors.verdict import DecisionWord, Evidence, Method, Reason, VerdictWord

POLICY: Policy = Policies({}).default


OPEN = GateAnswer(passed=True, log10_needed=1.3, cells=[], age_lacking=[])
SHUT = GateAnswer(
    passed=False,
    log10_needed=1.3,
    cells=[CellAnswer(name="form=server", share=0.1, word=CellWord.UNCOVERED, device_days_needed=1993.0)],
    age_lacking=["0 exposed devices have booted since < 1"],
)
GUILTY = Finding("r-a", Guilt.GUILTY, ("r-a",), 7.0, "r-a is guilty.")
TOGETHER = Finding("r-a", Guilt.INSEPARABLE, ("r-a", "r-b"), 0.0, "r-a travels together with r-b.")
CLEARED = Finding("r-a", Guilt.INNOCENT, ("r-a",), -2.0, "r-a is innocent so far.")


def evidence(**fields: object) -> Evidence:
    made = Evidence(log10_needed_to_hold=3.0, log10_needed_to_kill=6.0, tolerated_ratio=1.5)
    return msgspec.structs.replace(made, exposed=10_000, at_risk_control=10_000, **fields)


def found(shown: Evidence | None = None, **fields: object) -> Findings:
    values: dict[str, object] = {"devices": 10, "tenants": 4, "observed_seconds": 7200.0, "gate": OPEN, **fields}
    return Findings(evidence=shown if shown is not None else evidence(), **values)  # type: ignore[arg-type]  # test helper


def answer(findings: Findings, policy: Policy = POLICY) -> tuple[VerdictWord, DecisionWord, Reason]:
    return decide(findings, policy)[:3]


KILL = VerdictWord.REGRESSED, DecisionWord.KILL, Reason.KILL_EVIDENCE
PROCEED = VerdictWord.HEALTHY, DecisionWord.PROCEED, Reason.NO_HARM_SEEN
WAIT = VerdictWord.WATCHING, DecisionWord.UNKNOWN, Reason.NO_HARM_SEEN


def test_kill_needs_the_evidence() -> None:
    enough = evidence(log10_evidence_max=6.0, crashes_exposed=9)
    assert answer(found(enough, log10_hold_max=6.0)) == KILL
    short = evidence(log10_evidence_max=5.999, crashes_exposed=9)
    assert answer(found(short, log10_hold_max=5.999))[:2] == (VerdictWord.WATCHING, DecisionWord.HOLD)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [({"devices": 2}, Reason.TOO_FEW_DEVICES), ({"tenants": 1}, Reason.TOO_FEW_TENANTS)],
)
def test_too_few_devices_or_tenants_hold(fields: dict[str, int], reason: Reason) -> None:
    enough = evidence(log10_evidence_max=9.0)
    assert answer(found(enough, **fields)) == (VerdictWord.REGRESSED, DecisionWord.HOLD, reason)
    assert answer(found(enough, devices=3, tenants=2)) == KILL


def test_a_trusted_tenant_may_kill_alone() -> None:
    enough = evidence(log10_evidence_max=9.0)
    assert answer(found(enough, tenants=1, trusted=True)) == KILL


def test_hold_and_watch_have_their_own_limits() -> None:
    assert answer(found(log10_hold_max=3.0))[1:] == (DecisionWord.HOLD, Reason.HOLD_EVIDENCE)
    assert answer(found(log10_hold_max=2.999)) == PROCEED
    assert answer(found(log10_hold=POLICY.log10_to_watch))[1:] == (DecisionWord.UNKNOWN, Reason.EVIDENCE_RISING)
    assert answer(found(log10_hold=POLICY.log10_to_watch - 0.001)) == PROCEED


def test_late_activity_holds_and_never_kills() -> None:
    enough = evidence(log10_evidence_max=50.0)
    late = found(enough, late_seconds=30.1)
    assert answer(late) == (VerdictWord.NO_DATA, DecisionWord.HOLD, Reason.ACTIVITY_LATE)
    assert answer(found(enough, late_seconds=30.0)) == KILL


def test_blind_and_failed_are_unknown() -> None:
    enough = evidence(log10_evidence_max=50.0)
    assert answer(found(enough, blind=True)) == (VerdictWord.NO_DATA, DecisionWord.UNKNOWN, Reason.NO_TELEMETRY)
    assert answer(found(failed="x"))[:2] == (VerdictWord.ERROR, DecisionWord.UNKNOWN)


def test_without_a_bound_crashes_hold() -> None:
    assert answer(found(evidence(crashes_exposed=1), bounded=False)) == (
        VerdictWord.NO_DATA,
        DecisionWord.HOLD,
        Reason.NO_EXPOSURE_BOUND,
    )
    assert answer(found(bounded=False))[1] is DecisionWord.UNKNOWN


@pytest.mark.parametrize(
    "findings",
    [
        found(msgspec.structs.replace(evidence(), exposed=499)),
        found(observed_seconds=3599.0),
        found(left_out=(1,)),
        found(unsure=("detection/1 behind",)),
        found(gapped=(1,)),
        found(gate=SHUT),
        found(gate=None),
    ],
)
def test_healthy_needs_every_condition(findings: Findings) -> None:
    assert answer(findings) == WAIT


def test_healthy_at_each_limit() -> None:
    assert answer(found(msgspec.structs.replace(evidence(), exposed=500), observed_seconds=3600.0)) == PROCEED
    assert answer(found(msgspec.structs.replace(evidence(), exposed=499), observed_seconds=3600.0)) == WAIT
    assert answer(found(observed_seconds=3599.9)) == WAIT


def test_a_shut_gate_says_what_it_waits_for() -> None:
    sentence = decide(found(gate=SHUT), POLICY).sentence
    assert "0 exposed devices have booted since < 1" in sentence
    assert "form=server (10 % of the ring) is not covered: 1993 exposed device-days needed" in sentence


def test_evidence_that_rests_on_one_tenant_group_holds() -> None:
    alone = evidence(log10_evidence_max=2.0, log10_everybody_max=9.0, left_out=7, crashes_exposed=40)
    decided = decide(found(alone, log10_hold_max=9.0), POLICY)
    assert decided[:3] == (VerdictWord.REGRESSED, DecisionWord.HOLD, Reason.TOO_FEW_TENANTS)
    assert "10^9.0 >= 10^6.0" in decided.sentence
    assert "10^2.0 without tenant group 7" in decided.sentence


def test_among_rivals_attribution_decides() -> None:
    enough = evidence(log10_evidence_max=9.0, log10_everybody_max=9.0)
    assert answer(found(enough, log10_hold_max=9.0, finding=GUILTY)) == KILL
    held = found(enough, log10_hold_max=9.0, finding=TOGETHER)
    assert answer(held) == (VerdictWord.WATCHING, DecisionWord.HOLD, Reason.INSEPARABLE)
    assert "r-a travels together with r-b" in decide(held, POLICY).sentence
    cleared = found(enough, log10_hold_max=9.0, finding=CLEARED)
    assert answer(cleared) == (VerdictWord.WATCHING, DecisionWord.UNKNOWN, Reason.EXPLAINED)
    quiet = found(finding=CLEARED)
    assert answer(quiet) == PROCEED
    assert answer(found(enough, finding=GUILTY, devices=2))[2] is Reason.TOO_FEW_DEVICES


def test_nothing_exposed_is_no_data_and_no_control_is_said() -> None:
    nothing = Evidence(log10_needed_to_hold=3.0, log10_needed_to_kill=6.0, tolerated_ratio=1.5)
    assert answer(found(nothing)) == (VerdictWord.NO_DATA, DecisionWord.UNKNOWN, Reason.NO_EXPOSURE)
    alone = msgspec.structs.replace(evidence(), at_risk_control=0)
    assert answer(found(alone, gate=SHUT))[1:] == (DecisionWord.UNKNOWN, Reason.NO_CONTROL)


def test_sentences_carry_their_numbers() -> None:
    methods = [
        Method(name="rate_ratio", log10_evidence=7.4, weight=0.6, events_exposed=9, expected_share=0.083),
        Method(name="silence", log10_evidence=1.0, weight=0.3, events_exposed=12, events_control=3),
    ]
    shown = evidence(log10_evidence_max=7.2, crashes_exposed=9, crashes_control=1, methods=methods)
    sentence = decide(found(shown, left_out=(3,), gapped=(5, 6)), POLICY).sentence
    for part in (
        "10^7.2 >= 10^6.0 needed to kill",
        "9 exposed and 1 control",
        "0.083",
        "12 exposed",
        "partitions 3,",
        "5, 6",
    ):
        assert part in sentence


NUMBERS = st.floats(-10, 60)


@given(
    NUMBERS, NUMBERS, st.booleans(), st.booleans(), st.floats(0, 99), st.integers(0, 9), st.integers(0, 9),
    st.integers(0, 20_000), st.integers(0, 9), st.sampled_from([OPEN, SHUT, None]), st.floats(0, 1e6),
)  # fmt: skip
def test_whatever_is_found_the_rules_hold(
    highest: float, now: float, bounded: bool, blind: bool, late: float, devices: int, tenants: int,
    exposed: int, crashes: int, gate: GateAnswer | None, seconds: float,
) -> None:  # fmt: skip
    shown = msgspec.structs.replace(evidence(), log10_evidence_max=highest, exposed=exposed, crashes_exposed=crashes)
    findings = found(
        shown, log10_hold_max=max(highest, now), log10_hold=now, bounded=bounded, blind=blind, late_seconds=late,
        devices=devices, tenants=tenants, observed_seconds=seconds, gate=gate,
    )  # fmt: skip
    decided: Decided = decide(findings, POLICY)
    blinded = blind or late > 30 or not bounded
    if decided.decision is DecisionWord.KILL:
        assert not blinded
        assert highest >= 6
        assert devices >= 3
        assert tenants >= 2
    if decided.decision is DecisionWord.PROCEED:
        assert not blinded
        assert decided.verdict is VerdictWord.HEALTHY
        assert highest < 3
        assert gate is OPEN
        assert exposed >= POLICY.proceed_exposed_least
    assert (decided.verdict is VerdictWord.HEALTHY) == (decided.decision is DecisionWord.PROCEED)
    if blinded:
        assert decided.verdict is VerdictWord.NO_DATA
