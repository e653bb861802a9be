"""What a verdict says of the next ring and of who is heard from, through the whole stage."""

import itertools

import pytest

from detectors.policy import Policies
from detectors.verdict import DecisionWord, Verdict
from ingest.rollouts import Bound, Ring
from ingest.windows import AtRisk, MarginRisk
from support.cohorts import T0, Harness, rollout, step, window

MINUTE = 60_000
STILL = Policies({"gate": {"boots_least": 0, "wakes_least": 0}})
RINGS = [
    Ring(name="canary", starts_at_ms=T0),
    Ring(name="early", starts_at_ms=T0 + 30 * 24 * 60 * MINUTE),
    Ring(name="broad"),
]
BUILDS = ("22631.3880", "19045.4651")


def cell(ring: str, build: str, recency: str = "recent") -> str:
    return f"{build.partition('.')[0]}|laptop|{ring}|old|{recency}"


def fed(
    rings: list[Ring], minutes: int, *, stale: int = 0, builds: tuple[str, ...] = (*BUILDS, "25398.1009")
) -> list[Verdict]:
    """Return what is said of a fleet that goes on as ever; of each build 3,000 exposed devices and as many others."""
    harness = Harness(partitions=1, policies=STILL)
    harness.declare(rollout(Bound.DECLARED if rings else Bound.OFFERED, rings))
    rows = [AtRisk(cell("canary", build), group, 750 - stale, 0) for build in BUILDS for group in range(4)]
    rows += [AtRisk(cell("canary", build, "stale"), group, stale, 0) for build in BUILDS for group in range(4) if stale]
    rows += [AtRisk(cell("early", BUILDS[0]), group, 0, 750) for group in range(4)]
    rows += [AtRisk("25398|server|broad|old|recent", group, 0, 750) for group in range(4)]
    margins = [MarginRisk(f"build={build}", group, 750, 375) for build in builds for group in range(4)]
    said = window(full=True, at_risk=rows, margins=margins, exposed_total=6000)
    harness.feed([step(0, 0, T0 + 250, said)])
    at_ms = [T0 + 250 + minute * MINUTE for minute in range(minutes + 1)]
    harness.feed(step(0, since, until) for since, until in itertools.pairwise(at_ms))
    return harness.said()


def test_the_report_names_the_next_ring_its_cells_and_what_they_still_need() -> None:
    report = fed(RINGS, 60)[-1].gate
    assert report is not None
    assert (report.to, report.passed, report.cells_more) == ("early", False, 0)
    told = {one.name: one for one in report.cells}
    # The ring `early` is of build family 22631 only, and so are its builds.
    assert set(told) == {"family=22631", "form=laptop", "boot=old", f"build={BUILDS[0]}"}
    assert all(one.share == 1.0 for one in told.values())
    family = told["family=22631"]
    # An hour of 3,000 devices.
    assert abs(family.device_days - 3000 / 24) < 3
    assert family.device_days_needed is not None
    assert family.hours_needed is not None
    assert abs(family.hours_needed - 24 * family.device_days_needed / 3000) < 0.1
    assert report.sentence.startswith("the next ring waits: ")


@pytest.mark.parametrize("last", ["other", "10240.1"])
def test_where_a_build_may_be_of_the_rings_family_without_it_being_known_all_builds_are_asked_for(last: str) -> None:
    """Either not every build is told apart, or no device of a family of the ring has told its build."""
    told = (BUILDS[1], last) if last != "other" else (*BUILDS, "25398.1009", last)
    report = fed(RINGS, 3, builds=told)[-1].gate
    assert report is not None
    assert {f"build={build}" for build in told} <= {one.name for one in report.cells}


def test_it_opens_with_the_decision() -> None:
    last = fed(RINGS, 36 * 60)[-1]
    assert last.gate is not None
    assert last.decision is DecisionWord.PROCEED
    assert (last.gate.passed, last.gate.to, last.gate.lacking) == (True, "early", [])
    assert {one.word for one in last.gate.cells} == {"excess"}
    assert all(one.device_days_needed is None for one in last.gate.cells)


def test_without_declared_rings_and_before_the_first_there_is_no_report() -> None:
    assert all(verdict.gate is None for verdict in fed([], 3))
    later = [Ring(name="canary", starts_at_ms=T0 + 60 * MINUTE), Ring(name="broad")]
    assert all(verdict.gate is None for verdict in fed(later, 3))


def test_where_every_ring_has_begun_the_report_is_about_all_who_are_not_exposed() -> None:
    report = fed([Ring(name="canary", starts_at_ms=T0)], 3)[-1].gate
    assert report is not None
    assert report.to == ""
    assert {"family=25398", "form=server"} <= {one.name for one in report.cells if one.word == "uncovered"}


def test_a_verdict_says_which_part_of_the_exposed_is_heard_from() -> None:
    assert fed(RINGS, 2)[-1].heard_share == 1.0
    assert fed(RINGS, 2, stale=300)[-1].heard_share == 0.6
