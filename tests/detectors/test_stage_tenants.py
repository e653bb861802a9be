"""The whole stage against one tenant that lies as it likes, and among rollouts that share devices."""

import dataclasses

import numpy as np
import pytest

from detectors.verdict import DecisionWord, Reason
from ingest.rollouts import Rollout
from ingest.windows import AtRisk, CohortWindow, FirstCrash, HeardMinute, Step
from support.cohorts import CELLS, ROLLOUT, T0, FleetPlan, Harness, crash, heard, rollout, simulate, step, window

LIAR = 31
HEALTHY = FleetPlan(seed=5, background=2e-6, spread_seconds=120, seconds=60, tenants=6)


def lies(step_: Step, rng: np.random.Generator, what: str) -> Step:
    """Add what one tenant invents to a partition's step: crashes, devices, silence, signatures."""
    (said,) = step_.windows
    crashes, rows, minutes = list(said.crashes), list(said.at_risk), list(said.heard)
    cell = CELLS[int(rng.integers(3))]
    if what in ("crashes", "all"):
        made = [crash(step_.watermark_ms - 5, 1, cell, LIAR, signature=f"x{rng.integers(9)}") for _ in range(5)]
        crashes += made
    if what in ("devices", "all"):
        # A million devices that never take the update make every share look small.
        rows.append(AtRisk(cell, LIAR, 0, int(rng.integers(10**6))))
    if what in ("silence", "all") and step_.watermark_ms % 60_000 == 250:
        minutes.append(HeardMinute(step_.watermark_ms - 60_250, cell, LIAR, 500, 10**5, 0, 0))
    return _with(step_, crashes, rows, minutes)


def _with(step_: Step, crashes: list[FirstCrash], rows: list[AtRisk], minutes: list[HeardMinute]) -> Step:
    (said,) = step_.windows
    more = len(crashes) - len(said.crashes)
    LIED[step_.partition] = LIED.get(step_.partition, 0) + more
    changed = CohortWindow(
        rollout=said.rollout,
        vendor=said.vendor,
        product=said.product,
        version=said.version,
        origin_ms=said.origin_ms,
        full=said.full,
        at_risk=rows,
        crashes=crashes,
        heard=minutes,
        crash_total=said.crash_total + LIED[step_.partition],
        exposed_total=said.exposed_total,
    )
    return Step(
        partition=step_.partition,
        generation=step_.generation,
        offsets={},
        since_ms=step_.since_ms,
        watermark_ms=step_.watermark_ms,
        crash_watermark_ms=step_.crash_watermark_ms,
        windows=[changed],
    )


LIED: dict[int, int] = {}


@pytest.mark.parametrize("what", ["crashes", "devices", "silence", "all"])
@pytest.mark.parametrize("seed", [1, 2])
def test_one_tenant_can_cause_a_hold_and_never_a_kill(what: str, seed: int) -> None:
    LIED.clear()
    rng = np.random.default_rng(seed)
    harness = Harness()
    harness.declare(rollout())
    for one in simulate(dataclasses.replace(HEALTHY, seed=seed)):
        harness.feed([lies(one, rng, what)])
    assert harness.latest().decision is not DecisionWord.KILL
    assert all(verdict.decision is not DecisionWord.KILL for verdict in harness.said())
    if what in ("crashes", "all"):
        last = harness.latest()
        assert (last.decision, last.reason) == (DecisionWord.HOLD, Reason.TOO_FEW_TENANTS)
        assert f"tenant group {LIAR}" in last.sentence


def test_one_tenant_that_floods_controls_cannot_save_a_bad_rollout() -> None:
    """Ten thousand invented control crashes, and as many crashes of nobody's."""
    LIED.clear()
    harness = Harness()
    harness.declare(rollout())
    flood = [crash(T0 + 300 + n % 100, 0, CELLS[0], LIAR) for n in range(10_000)]
    steps = list(simulate(FleetPlan(seed=19, devices=85_000, ratio=1e6, background=2e-8, seconds=60)))
    for number, one in enumerate(steps):
        (said,) = one.windows
        rows = [*said.at_risk, AtRisk(CELLS[0], LIAR, 10, 20_000)] if number == 0 else said.at_risk
        extra = flood if number == 4 else []
        harness.feed([_with(one, [*said.crashes, *extra], rows, said.heard)])
    kills = [verdict for verdict in harness.said() if verdict.decision is DecisionWord.KILL]
    assert kills
    assert kills[0].evidence.crashes_exposed <= 16


RIVAL = "r-00000000000000aa"


def rival() -> Rollout:
    return rollout(rollout=RIVAL, vendor="contoso", product="driver", version="8")


def both(numbers: dict[str, list[FirstCrash]], watermark_ms: int, totals: dict[str, int], *, full: bool) -> Step:
    """Return a step that speaks of both rollouts; cells are split by the other one."""
    rows = {}
    for name, other in ((ROLLOUT, RIVAL), (RIVAL, ROLLOUT)):
        split = f"{CELLS[0]}|{other}"
        rows[name] = [
            row for group in range(8) for row in (AtRisk(CELLS[0], group, 60, 1000), AtRisk(split, group, 60, 60))
        ]
    windows = []
    for name, made in ((ROLLOUT, rollout()), (RIVAL, rival())):
        totals[name] = totals.get(name, 0) + len(numbers.get(name, []))
        windows.append(
            CohortWindow(
                rollout=name,
                vendor=made.vendor,
                product=made.product,
                version=made.version,
                origin_ms=T0,
                full=full,
                at_risk=rows[name] if full else [],
                crashes=numbers.get(name, []),
                crash_total=totals[name],
                exposed_total=960,
            )
        )
    return step(0, 0 if full else watermark_ms - 250, watermark_ms, *windows)


def test_of_two_rollouts_on_the_same_devices_the_guilty_one_is_killed_and_the_other_is_not() -> None:
    """Crashes hit devices on the guilty update alike, whether or not they have the other one, too."""
    harness = Harness(partitions=1)
    harness.declare(rollout(), rival())
    totals: dict[str, int] = {}
    harness.feed([both({}, T0 + 250, totals, full=True)])
    for number in range(1, 80):
        at_ms, tenant = T0 + 250 * number + 100, number % 8
        # Every other victim has the rival as well.
        with_rival = number % 2 == 0
        mine = crash(at_ms, 1, f"{CELLS[0]}|{RIVAL}" if with_rival else CELLS[0], tenant)
        its = crash(at_ms, int(with_rival), f"{CELLS[0]}|{ROLLOUT}", tenant)
        harness.feed([both({ROLLOUT: [mine], RIVAL: [its]}, T0 + 250 * (number + 1), totals, full=False)])
    last = {verdict.rollout: verdict for verdict in harness.said()}
    assert last[ROLLOUT].decision is DecisionWord.KILL
    assert "is guilty" in last[ROLLOUT].sentence
    assert all(v.decision is not DecisionWord.KILL for v in harness.said() if v.rollout == RIVAL)
    assert last[ROLLOUT].evidence.rivals == [RIVAL]


def test_two_that_always_travel_together_are_held_both() -> None:
    harness = Harness(partitions=1)
    harness.declare(rollout(), rival())
    totals: dict[str, int] = {}
    first = both({}, T0 + 250, totals, full=True)
    for said, other in zip(first.windows, (RIVAL, ROLLOUT), strict=True):
        split = f"{CELLS[0]}|{other}"
        said.at_risk = [
            row for group in range(8) for row in (AtRisk(CELLS[0], group, 0, 1000), AtRisk(split, group, 60, 0))
        ]
    harness.feed([first])
    for number in range(1, 60):
        at_ms, tenant = T0 + 250 * number + 100, number % 8
        told = {
            name: [crash(at_ms, 1, f"{CELLS[0]}|{other}", tenant)]
            for name, other in ((ROLLOUT, RIVAL), (RIVAL, ROLLOUT))
        }
        harness.feed([both(told, T0 + 250 * (number + 1), totals, full=False)])
    last = {verdict.rollout: verdict for verdict in harness.said()}
    for name in (ROLLOUT, RIVAL):
        assert (last[name].decision, last[name].reason) == (DecisionWord.HOLD, Reason.INSEPARABLE)
    assert "travels together" in last[ROLLOUT].sentence


def test_a_quiet_tenant_is_taken_out_of_its_minute_and_freezes_nobody_else() -> None:
    """An office closes: its silence is no evidence, and the silence of the others still is."""
    harness = Harness(partitions=1)
    harness.declare(rollout())
    sizes = [HeardMinute(T0, CELLS[0], group, 40, 300, 0, 0) for group in range(6)]
    office = HeardMinute(T0, CELLS[0], 9, 10, 4000, 0, 0)
    overdue = [HeardMinute(T0, CELLS[0], group, 0, 0, 12, 2) for group in range(6)]
    closed = HeardMinute(T0, CELLS[0], 9, 0, 0, 8, 3900)
    harness.feed(
        [
            step(
                0, 0, T0 + 60_250, window(full=True, at_risk=[AtRisk(CELLS[0], 0, 240, 1800)], heard=[*sizes, office])
            ),
            step(0, T0 + 60_250, T0 + 960_250, window(heard=[*overdue, closed])),
            step(0, T0 + 960_250, T0 + 970_000),
        ]
    )
    method = harness.latest().evidence.methods[2]
    assert (method.name, method.events_exposed, method.events_control) == ("silence", 72, 12)
    assert harness.latest().decision is DecisionWord.KILL
    assert heard(T0, CELLS[0], (1, 2)).exposed == 1
