"""When the partitions take their steps: often while updates are pushed or crashes come in, seldom in between."""

from typing import Final

import numpy as np

from detectors.backtest.cohort.shipping import begins_ms
from detectors.backtest.draws import Bools, Ints
from detectors.backtest.scenario import Scenario

MINUTE_MS: Final = 60_000
TICK_MS: Final = 250
_DAY_SECONDS: Final = 86_400
# A ring's push is cut into so many steps, none shorter than a second or longer than a quiet one.
_PUSH_STEPS: Final = 300
# For so long after a ring's push begins every minute is judged for silence.
PUSH_MINUTES: Final = 30
# So many crashes get a step of their own, those of exposed devices first.
CRASH_STEPS_MAX: Final = 1000


def quiet_ms(scenario: Scenario) -> int:
    """Return the time between two steps in which nothing happens: a minute, more in scenarios of many days."""
    if scenario.duration_seconds <= 2 * _DAY_SECONDS:
        return MINUTE_MS
    return 2 * MINUTE_MS if scenario.duration_seconds <= 14 * _DAY_SECONDS else 10 * MINUTE_MS


def watermarks(scenario: Scenario, arrivals_ms: Ints, first: Bools, step_seconds: float | None) -> Ints:
    """Return the watermarks of all steps, ascending.

    Args:
        scenario: the scenario.
        arrivals_ms: when crash reports arrive, shape (n,).
        first: which of them get a step of their own before the others, shape (n,).
        step_seconds: steps of this length (and one at each minute) instead.
    """
    start, end = scenario.start_ms, scenario.end_ms
    if step_seconds is not None:
        parts = [np.arange(start, end + 1, max(1, round(step_seconds * 1000))), _minutes(start, end, MINUTE_MS)]
    else:
        parts = [_minutes(start, end, quiet_ms(scenario)), *_pushes(scenario)]
        order = np.lexsort((arrivals_ms, ~first))
        parts.append(arrivals_ms[order[:CRASH_STEPS_MAX]] // TICK_MS * TICK_MS + TICK_MS)
    times = np.unique(np.concatenate(parts))
    times = times[(times > start) & (times <= end)]
    for outage in scenario.environment.outages:
        begin = scenario.rollout_ms + round(outage.starts_after_seconds * 1000)
        times = times[(times <= begin) | (times >= begin + round(outage.over_seconds * 1000))]
    return times.astype(np.int64)


def _minutes(start_ms: int, end_ms: int, every_ms: int) -> Ints:
    return np.arange(-(-start_ms // every_ms) * every_ms, end_ms + 1, every_ms)


def _pushes(scenario: Scenario) -> list[Ints]:
    found = []
    for plan in scenario.updates:
        for ring in plan.rings:
            begin = begins_ms(scenario, plan) + round(ring.starts_after_seconds * 1000)
            lasts = round(ring.over_seconds * 1000)
            step = min(max(lasts // _PUSH_STEPS, 1000), quiet_ms(scenario))
            found.append(begin + np.arange(0, lasts + 1, step) // TICK_MS * TICK_MS)
    return found


def ring_starts(scenario: Scenario) -> list[int]:
    """Return the minutes in which the push to a ring begins, in minutes since the epoch."""
    return [
        (begins_ms(scenario, plan) + round(ring.starts_after_seconds * 1000)) // MINUTE_MS
        for plan in scenario.updates
        for ring in plan.rings
    ]


def lag_ms(scenario: Scenario, at_ms: int) -> int:
    """Return how far crashes are read ahead of activity in a step that ends at `at_ms`."""
    for lag in scenario.environment.activity_lags:
        begin = scenario.rollout_ms + round(lag.starts_after_seconds * 1000)
        if begin <= at_ms < begin + round(lag.over_seconds * 1000):
            return round(lag.lag_seconds * 1000)
    return 0
