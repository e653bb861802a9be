"""What holds of every trace: same seed same trace, whole chains, one world behind truth and reports."""

import hashlib
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.backtest.cohort import CohortError, simulate
from detectors.backtest.cohort.grid import MINUTE_MS
from detectors.backtest.fleet import Fleet
from detectors.backtest.library import parse
from detectors.backtest.trace import Trace
from ingest.events import encoder
from ingest.rollouts import Bound, Rollout
from ingest.windows import Step
from support.scenarios import SMALL, run_through, small


def _steps(trace: Trace) -> list[Step]:
    return [one for one in trace.feed if isinstance(one, Step)]


def _digest(trace: Trace) -> str:
    told = hashlib.sha256()
    for one in trace.feed:
        told.update(encoder.encode(one))
    for minutes in trace.minutes.values():
        told.update(repr(list(minutes)).encode())
    for truth in trace.truths:
        told.update(truth.took_ms.tobytes() + truth.harmed.tobytes())
    return told.hexdigest()


def test_same_seed_same_trace() -> None:
    first, again, other = (_digest(simulate(small(), seed=seed)) for seed in (5, 5, 6))
    assert first == again
    assert first != other


def test_a_fleet_worked_out_twice_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = _digest(simulate(small()))
    monkeypatch.setattr("detectors.backtest.cohort.simulation.KEPT_DEVICES_MAX", 10)
    assert _digest(simulate(small())) == kept


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 1000), partitions=st.integers(1, 3), step=st.sampled_from([None, 30.0]))
def test_chains_are_whole_and_tables_are_counts(seed: int, partitions: int, step: float | None) -> None:
    trace = simulate(small(), seed=seed, partitions=partitions, step_seconds=step)
    held = [0] * partitions
    crashes: Counter[tuple[int, str]] = Counter()
    at_risk: dict[tuple[int, str, int], tuple[int, int]] = {}
    margins: dict[tuple[int, str, int], tuple[int, int]] = {}
    for one in _steps(trace):
        assert one.since_ms == held[one.partition]
        assert one.watermark_ms > one.since_ms
        held[one.partition] = one.watermark_ms
        for window in one.windows:
            crashes[one.partition, window.rollout] += len(window.crashes)
            assert crashes[one.partition, window.rollout] == window.crash_total
            if window.full:
                for table in (at_risk, margins):
                    for key in [key for key in table if key[0] == one.partition]:
                        del table[key]
            for row in window.at_risk:
                at_risk[one.partition, row.cell, row.group] = (row.exposed, row.control)
                assert min(row.exposed, row.control) >= 0
            for margin in window.margins:
                margins[one.partition, margin.margin, margin.group] = (margin.exposed, margin.control)
            if window.full:
                _same_devices(one.partition, at_risk, margins)
    assert len(set(held)) == 1


def _same_devices(
    partition: int,
    at_risk: dict[tuple[int, str, int], tuple[int, int]],
    margins: dict[tuple[int, str, int], tuple[int, int]],
) -> None:
    """Check that the margins of one field add up to the devices at risk, arm by arm."""
    for arm in (0, 1):
        total = sum(row[arm] for key, row in at_risk.items() if key[0] == partition)
        for field in ("build=", "model="):
            assert total == sum(
                row[arm] for key, row in margins.items() if key[0] == partition and key[1].startswith(field)
            )


def test_every_reported_crash_is_in_the_feed_once_and_minutes_see_them_all() -> None:
    trace = simulate(small(), step_seconds=30.0)
    (truth,) = trace.truths
    crashes = [crash for step in _steps(trace) for window in step.windows for crash in window.crashes]
    harm = [crash for crash in crashes if crash.signature == "acme.sys|0x50"]
    assert 0 < len(harm) < truth.lost()
    assert all(crash.exposed for crash in harm)
    assert all(truth.first_harm_ms is not None and crash.at_ms >= truth.first_harm_ms - 3000 for crash in harm)
    minutes = trace.minutes[truth.rollout]
    seen = sum(minute.signatures.get("acme.sys|0x50", (0, 0))[0] for minute in minutes)
    assert seen == len(harm)
    assert sum(minute.users_exposed for minute in minutes) >= len(harm)
    assert all(minute.active_exposed <= minute.exposed for minute in minutes)
    last = minutes[-1]
    assert sum(exposed for exposed, *_ in last.models.values()) == last.exposed
    assert last.at_ms % MINUTE_MS == 0
    assert list(minutes[:3]) == [minutes[0], minutes[1], minutes[2]]


def test_an_earlier_stop_saves_who_had_not_taken_it() -> None:
    (truth,) = simulate(small()).truths
    assert bool((np.diff(truth.took_ms) >= 0).all())
    assert truth.lost(truth.began_ms) == 0
    lost = [truth.lost(int(at_ms)) for at_ms in truth.took_ms[::20]]
    assert lost == sorted(lost)
    assert truth.lost(int(truth.took_ms[-1]) + 1) == truth.lost() == int(truth.harmed.sum())


@pytest.mark.parametrize(("declare", "bound"), [("no", Bound.OFFERED), ("lists", Bound.DECLARED)])
def test_a_rollout_is_told_before_its_windows(declare: str, bound: Bound) -> None:
    text = SMALL.replace('version = "291"', f'version = "291"\ndeclare = "{declare}"')
    told: set[str] = set()
    for one in simulate(parse(text)).feed:
        if isinstance(one, Rollout):
            assert one.bound is bound
            told.add(one.rollout)
        else:
            assert {window.rollout for window in one.windows} <= told
    assert len(told) == 1


def test_a_fleet_of_reports_has_the_same_numbers() -> None:
    """The two simulations share devices, order of push and rates, so they differ by chance in who crashes, no more."""
    scenario = small(SMALL.replace("devices = 300", "devices = 1200"))
    fleet = Fleet(scenario)
    run_through(fleet)
    reported = fleet.truth()
    trace = simulate(scenario)
    (truth,) = trace.truths
    assert truth.taken() == pytest.approx(reported.pushed, rel=0.02)
    assert truth.lost() == pytest.approx(reported.lost, rel=0.06)
    halfway = scenario.rollout_ms + 300_000
    taken = int((fleet.shipments[0].assigned_ms <= halfway).sum())
    assert truth.taken(halfway) <= taken
    signatures = Counter(
        crash.signature for step in _steps(trace) for window in step.windows for crash in window.crashes
    )
    background = sum(count for name, count in signatures.items() if name != "acme.sys|0x50")
    # Reported ones only, and only those since the rollout began.
    assert 0.3 * reported.background_crashes < background < 1.2 * reported.background_crashes


@pytest.mark.parametrize("seconds", [90, 900])
def test_check_ins_that_no_stratum_can_hold_are_refused(seconds: int) -> None:
    with pytest.raises(CohortError, match=r"fleet\.check_in_seconds"):
        simulate(parse(SMALL.replace("check_in_seconds = 60", f"check_in_seconds = {seconds}")))
