"""Hours of the week through the whole stage: learnt from controls, used by the next rollout, the same if restarted."""

import math
from collections.abc import Iterator

import numpy as np

from detectors.tracker_state import TrackerState
from ingest.events import product_key
from ingest.windows import AtRisk, CohortWindow, Step
from support.cohorts import CELLS, T0, Harness, crash, rollout, step

TEN_MINUTES = 600_000
HOUR = 6 * TEN_MINUTES
LEARNT_HOURS = 54
GROUPS = 4
OLD = [f"r-old-{number}" for number in range(3)]


def hours(seed: int, names: list[str], begin_ms: int, count: int, since_ms: int = 0) -> Iterator[Step]:
    """Yield a step every ten minutes: controls crash far oftener by day, a few exposed devices never."""
    rng = np.random.default_rng(seed)
    totals = dict.fromkeys(names, 0)
    since = since_ms
    for number in range(count * 6):
        now = begin_ms + number * TEN_MINUTES
        windows = []
        for name in names:
            level = 1.0 - 0.9 * math.cos(2 * math.pi * (now % (24 * HOUR)) / (24 * HOUR))
            struck = [group for group in range(GROUPS) for _ in range(int(rng.poisson(0.3 * level)))]
            totals[name] += len(struck)
            windows.append(
                CohortWindow(
                    rollout=name,
                    vendor="contoso",
                    product="sensor",
                    version=name,
                    origin_ms=T0,
                    full=number == 0,
                    at_risk=[AtRisk(CELLS[0], group, 50, 5000) for group in range(GROUPS)] if number == 0 else [],
                    crashes=[crash(now - 1000, 0, CELLS[0], group) for group in struck],
                    crash_total=totals[name],
                    exposed_total=50 * GROUPS,
                )
            )
        yield step(0, since, now, *windows)
        since = now


def state_of(harness: Harness, name: str) -> TrackerState:
    """Return what is kept of a rollout."""
    return harness.stage._trackers[name].snapshot()


def test_a_rollout_after_three_others_is_compared_hour_by_hour_and_a_restart_shows_nowhere() -> None:
    through, restarted = Harness(partitions=1), Harness(partitions=1, snapshot_seconds=0)
    learnt = [*hours(1, OLD, T0, LEARNT_HOURS)]
    end_ms = learnt[-1].watermark_ms
    later = [*hours(2, ["r-new"], end_ms + TEN_MINUTES, 6, end_ms)]
    for harness in (through, restarted):
        harness.declare(*(rollout(rollout=name, version=name) for name in OLD))
    for number, one in enumerate([*learnt, *later]):
        if one is later[0]:
            for harness in (through, restarted):
                harness.declare(*(rollout(rollout=name, version=name, closed=True) for name in OLD))
                harness.declare(rollout(rollout="r-new", version="r-new", origin_ms=end_ms))
        for harness in (through, restarted):
            harness.feed([one])
        # After every step where something is decided, now and then before.
        if number % 40 == 0 or number >= len(learnt):
            restarted.snapshot(number + 1)
            restarted.restart()
    assert through.verdicts == restarted.verdicts
    seen, again = state_of(through, "r-new"), state_of(restarted, "r-new")
    assert seen.baseline.seasoned is not None
    assert (seen.baseline, seen.hour) == (again.baseline, again.hour)
    assert seen.baseline.expected[-1] > 0
    shared = through.stage._trackers.shared
    assert shared.snapshot() == restarted.stage._trackers.shared.snapshot()
    factors = shared.seasons.factors(product_key("contoso", "sensor"), end_ms + 7 * HOUR)
    assert factors is not None
    assert factors.own
    assert set(factors.own) <= set(range(GROUPS))
    noon, midnight = (np.mean([factors.at(day * 24 + hour)[-1, 0] for day in range(7)]) for hour in (12, 0))
    assert noon > 3 * midnight
