"""The gate: every cell counts on its own, what is left out is paid for, and a typo is never a ring."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.gate import CellWord
from detectors.scope import Scope
from detectors.verdict import DecisionWord, GateCell, GateReport
from ingest.rollouts import Ring
from signals.events import SwitchState
from signals.killswitch.effective import Effective, EffectiveReason
from signals.killswitch.gate_answer import (
    GATE_REASON_DOCS,
    GateDecision,
    GateQuestion,
    GateReason,
    NoSuchRingError,
    NotNextError,
    avoiding,
    gate_answer,
)
from signals.killswitch.lease import LeaseTerms
from support.leases import declare_rings, grant, part, stand
from support.streams import READER, StreamRig, eventually, streaming
from support.switches import ROLLOUT, START_MS, verdict

RINGS = [
    Ring(name="canary", starts_at_ms=START_MS - 1000),
    Ring(name="broad"),
    Ring(name="early", starts_at_ms=START_MS + 1000),
]
GO = Effective(DecisionWord.PROCEED, EffectiveReason.LEASE_VALID, "a lease holds", START_MS + 60_000)
WAIT = Effective(DecisionWord.HOLD, EffectiveReason.LEASE_EXPIRED, "the lease ran out")
NEEDED = math.log10(20)


def cell(name: str, share: float, word: CellWord, evidence: float = 2.0, days: float | None = None) -> GateCell:
    observed = 0.0 if word is CellWord.UNCOVERED else 100.0
    return GateCell(
        name=name,
        share=share,
        word=word.value,
        log10_evidence=evidence,
        device_days=observed,
        device_days_needed=days,
        hours_needed=None if days is None else days / 10,
    )


PASSING = [cell("build=22631.3880", 0.7, CellWord.RATIO), cell("model=xps", 1.0, CellWord.EXCESS)]


def report(*cells: GateCell, lacking: tuple[str, ...] = (), more: int = 0, to: str = "early") -> GateReport:
    passed = not lacking and all(one.word in (CellWord.RATIO, CellWord.EXCESS) for one in cells)
    return GateReport(
        to=to,
        passed=passed,
        sentence="by the detector",
        log10_needed=round(NEEDED, 3),
        cells=list(cells),
        lacking=list(lacking),
        cells_more=more,
    )


def ask(
    found: GateReport | None,
    to: str = "early",
    *exclude: str,
    effective: Effective = GO,
    rings: list[Ring] | None = None,
) -> GateDecision:
    question = GateQuestion(ROLLOUT, to, exclude, RINGS if rings is None else rings, found, START_MS)
    return gate_answer(question, effective)


def test_every_cell_passed_and_a_lease_open_the_gate_until_the_leases_end() -> None:
    said = ask(report(*PASSING))
    assert (said.proceed, said.reason, said.until_ms) == (True, GateReason.PASSED, GO.until_ms)
    assert (said.device_days_needed, said.uncovered, said.coverage) == (None, [], {"build": 1.0, "model": 1.0})


def test_without_a_lease_an_open_gate_is_no_go() -> None:
    said = ask(report(*PASSING), effective=WAIT)
    assert (said.proceed, said.reason, said.until_ms) == (False, GateReason.STOPPED, 0)
    assert (said.decision, said.decision_reason, "ran out" in said.sentence) == ("hold", "lease_expired", True)


def test_one_cell_holds_it_shut_and_says_what_it_needs() -> None:
    cells = [
        cell("build=19045.4651", 0.2, CellWord.LACKING, 0.5, 300.0),
        cell("build=26100.1", 0.1, CellWord.UNCOVERED, 0.0, 1993.0),
        *PASSING,
    ]
    said = ask(report(*cells))
    assert (said.proceed, said.reason, said.uncovered) == (False, GateReason.CELLS_HOLDING, ["build=26100.1"])
    assert (said.device_days_needed, said.hours_needed) == (1993.0, 199.3)
    assert said.coverage == {"build": 0.9, "model": 1.0}
    assert "build=19045.4651 (20 % of the ring) has evidence 10^0.5 of 10^1.3 needed, 300 device-days" in said.sentence
    assert "build=26100.1 (10 % of the ring) has not been observed, 1993 device-days" in said.sentence


def test_what_no_time_is_enough_for_has_no_total() -> None:
    said = ask(report(cell("build=1", 0.2, CellWord.LACKING, -3.0), cell("build=2", 0.8, CellWord.LACKING, 0.1, 9.0)))
    assert (said.device_days_needed, said.hours_needed) == (None, None)


def test_a_cell_left_out_counts_no_more_and_the_others_need_more() -> None:
    shut = cell("build=26100.1", 0.1, CellWord.UNCOVERED, 0.0, 1993.0)
    said = ask(report(shut, *PASSING), "early", shut.name)
    assert (said.proceed, said.reason) == (True, GateReason.PASSED)
    assert said.log10_needed == pytest.approx(NEEDED + math.log10(2), abs=0.001)
    assert [one.word for one in said.cells] == ["excluded", "ratio", "excess"]
    assert "2 of 3" in said.sentence
    # What passed by a hair no longer does: one more could have been picked after looking.
    hair = cell("model=t14", 0.5, CellWord.RATIO, NEEDED + 0.2)
    assert ask(report(hair, *PASSING)).proceed
    said = ask(report(shut, hair, *PASSING), "early", shut.name)
    assert (said.proceed, said.reason, "model=t14" in said.sentence) == (False, GateReason.CELLS_HOLDING, True)


def test_at_the_bound_and_beside_it() -> None:
    shut, needed = cell("build=1", 0.1, CellWord.UNCOVERED), round(NEEDED, 3) + math.log10(2)
    for evidence, passes in ((needed, False), (needed + 0.0011, True), (needed - 0.0001, False)):
        assert ask(report(shut, cell("build=2", 0.9, CellWord.RATIO, evidence)), "early", "build=1").proceed is passes


def test_leaving_everything_out_is_no_way_through() -> None:
    assert not ask(report(*PASSING), "early", *(one.name for one in PASSING)).proceed


def test_cells_that_are_not_listed_can_not_be_held_to_more() -> None:
    assert ask(report(*PASSING, more=9)).proceed
    said = ask(report(cell("build=1", 0.1, CellWord.UNCOVERED), *PASSING, more=9), "early", "build=1")
    assert (said.proceed, said.reason, said.cells_more) == (False, GateReason.NOT_LISTED, 9)


def test_what_the_update_has_not_been_through_holds_it_shut() -> None:
    said = ask(report(*PASSING, lacking=("0 of 1 boots",)))
    assert (said.proceed, said.reason, said.lacking) == (False, GateReason.NOT_LIVED_THROUGH, ["0 of 1 boots"])


def test_the_first_ring_has_nothing_to_be_asked_but_needs_its_lease() -> None:
    rings = [Ring(name="canary", starts_at_ms=START_MS + 5), Ring(name="broad")]
    said = ask(None, "canary", rings=rings)
    assert (said.proceed, said.reason, said.log10_needed) == (True, GateReason.FIRST_RING, None)
    assert not ask(None, "canary", rings=rings, effective=WAIT).proceed


@pytest.mark.parametrize("found", [None, report(*PASSING, to="canary"), report(*PASSING, to="")])
def test_before_detection_has_spoken_of_that_ring_it_is_shut(found: GateReport | None) -> None:
    said = ask(found)
    assert (said.proceed, said.reason) == (False, GateReason.NOT_ASKED)


@pytest.mark.parametrize(
    ("to", "rings", "error", "says"),
    [
        ("erly", None, NoSuchRingError, "canary, broad, early"),
        ("early", [], NoSuchRingError, "declares no rings"),
        ("canary", None, NotNextError, "'early' is"),
        ("broad", None, NotNextError, "'early' is"),
        ("canary", [RINGS[0]], NotNextError, "no next one"),
    ],
)
def test_a_ring_that_is_not_next_is_an_error(
    to: str, rings: list[Ring] | None, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        ask(report(*PASSING), to, rings=rings)


def test_leaving_out_what_is_no_cell_is_an_error() -> None:
    with pytest.raises(NoSuchRingError, match="build=99"):
        ask(report(*PASSING), "early", "build=99")


words = st.sampled_from([word for word in CellWord if word is not CellWord.EXCLUDED])
cells = st.lists(
    st.builds(cell, st.text("abc", min_size=1, max_size=2), st.floats(0.01, 1), words, st.floats(-3, 5)),
    min_size=1,
    max_size=6,
    unique_by=lambda one: one.name,
)


@given(cells, st.data(), st.integers(0, 3), st.sampled_from([GO, WAIT]))
def test_it_never_opens_over_a_cell_that_did_not_pass(
    found: list[GateCell], data: st.DataObject, more: int, effective: Effective
) -> None:
    exclude = data.draw(st.lists(st.sampled_from([one.name for one in found]), unique=True))
    said = ask(report(*found, more=more), "early", *exclude, effective=effective)
    assert said.reason in GATE_REASON_DOCS
    if said.proceed:
        left = [one for one in found if one.name not in exclude]
        assert left
        assert all(one.word in (CellWord.RATIO, CellWord.EXCESS) for one in left)
        assert effective is GO
        assert not exclude or min(one.log10_evidence for one in left) >= NEEDED + math.log10(1 + len(exclude)) - 0.001
    # Leaving out more never makes anything that is still pushed to easier.
    assert said.log10_needed is not None
    assert said.log10_needed >= round(NEEDED, 3)


def test_a_stop_of_what_is_left_out_does_not_bind() -> None:
    with streaming(terms=LeaseTerms()) as rig:
        stand(rig, part(Scope(os_build="26100.1")), part(Scope(model="xps")), part(Scope(os_build="19045")))
        facts = rig.service.views.facts(ROLLOUT)
        assert facts is not None
        kept, _ = avoiding(facts.switch, None, ["build=26100.1", "model=xps", "build=19045.4651"])
        assert kept is not None
        # A family is more than the build that is left out.
        assert [stop.scope for stop in kept.stops] == [Scope(os_build="19045")]


@contextmanager
def watched() -> Iterator[StreamRig]:
    """Run a listener on a rollout with one cell that holds the gate shut, and a lease."""
    with streaming(terms=LeaseTerms()) as running:
        declare_rings(running)
        said = verdict(DecisionWord.PROCEED, at_ms=running.clock.now_ms())
        said.gate = report(cell("build=26100.1", 0.1, CellWord.UNCOVERED), *PASSING)
        running.say(said)
        eventually(lambda: (facts := running.service.views.facts(ROLLOUT)) is not None and facts.verdict is not None)
        grant(running)
        yield running


@pytest.fixture
def rig() -> Iterator[StreamRig]:
    with watched() as running:
        yield running


@pytest.fixture(scope="module")
def shared_rig() -> Iterator[StreamRig]:
    """One listener for tests that leave nothing behind."""
    with watched() as running:
        yield running


def get(rig: StreamRig, query: str) -> httpx2.Response:
    with rig.http(READER) as http:
        return http.get(f"/v1/rollouts/{ROLLOUT}/gate{query}")


def test_the_endpoint_names_what_is_missing_and_what_leaving_it_out_does(shared_rig: StreamRig) -> None:
    shut: dict[str, Any] = get(shared_rig, "?to=early").json()
    assert (shut["proceed"], shut["reason"], shut["uncovered"]) == (False, "cells_holding", ["build=26100.1"])
    opened = msgspec.json.decode(get(shared_rig, "?to=early&exclude=build%3D26100.1").content, type=GateDecision)
    assert (opened.proceed, opened.reason) == (True, GateReason.PASSED)
    assert opened.until_ms == shared_rig.clock.now_ms() + 60_000


def test_the_endpoint_shuts_with_the_lease_and_by_a_stop_of_that_ring(rig: StreamRig) -> None:
    query = "?to=early&exclude=build%3D26100.1"
    grant(rig, number=1)
    stand(rig, part(Scope(ring="canary")), part(Scope(os_build="26100.1"), SwitchState.KILLED))
    assert get(rig, query).json()["proceed"] is True
    stand(rig, part(Scope(ring="early")), number=2)
    grant(rig, number=2)
    assert get(rig, query).json()["decision_reason"] == "held"
    stand(rig, number=3)
    assert get(rig, query).json()["decision_reason"] == "lease_outdated"


@pytest.mark.parametrize(
    ("query", "status", "reason"),
    [
        ("", 400, "bad_request"),
        ("?to=", 400, "bad_request"),
        ("?to=early&to=canary", 400, "bad_request"),
        ("?to=early&exlude=build%3D1", 400, "bad_request"),
        ("?to=erly", 404, "not_found"),
        ("?to=early&exclude=build%3D1", 404, "not_found"),
        ("?to=canary", 409, "conflict"),
    ],
)
def test_a_question_that_can_not_be_asked_is_an_error(
    shared_rig: StreamRig, query: str, status: int, reason: str
) -> None:
    answer = get(shared_rig, query)
    assert (answer.status_code, answer.json()["reason"]) == (status, reason)
