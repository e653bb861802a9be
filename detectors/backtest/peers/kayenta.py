"""Kayenta's canary judge: Mann-Whitney on the arms' minute values, metric by metric, summed up to a score."""

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.stats import mannwhitneyu, norm, rankdata

from detectors.backtest.peers.peer import HOUR_MS, Alarm, Ticks, since
from detectors.backtest.trace import Minute

Floats = npt.NDArray[np.float64]

CONFIDENCE: Final = 0.98
TOLERANCE: Final = 0.25
OUTLIER_FACTOR: Final = 3.0
PASS: Final = 95.0
MARGINAL: Final = 75.0
INTERVAL_MS: Final = HOUR_MS
LIFETIME_MS: Final = 3 * HOUR_MS


class Kayenta:
    """Judges every hour whether the exposed arm's minute values lie above the controls'.

    Rule as published (NetflixACAJudge). Of each metric the values of both arms lose their outliers (beyond 3
    interquartile ranges and beyond the 1st and 99th percentile). The 98 % confidence interval of the shift between the
    arms (Mann-Whitney, normal approximation) and its Hodges-Lehmann estimate are taken; the metric is High where the
    interval's lower end lies above 0.25 times the estimate. The score is the percentage of metrics that pass. An
    analysis lasts 3 hours and is judged every hour over all its values so far (a growing window, the default); it fails
    with the first score below the marginal threshold of 75, and at its end with one below the pass threshold of 95.

    Adapted. Two metrics: crash reports per active device, and devices with a crash per active device; a minute without
    an active device has no value. The direction is `increase`, as configured for errors (the code's default, either
    way, would fail a cure). When an analysis has passed, the next begins; after a fail there is none.

    Example:
        A tenth of the exposed devices crash each minute and a hundredth of the controls; the first judgement is at
        index 59.

        >>> minutes = [
        ...     Minute(
        ...         at_ms=60_000 * (i + 1),
        ...         exposed=500,
        ...         control=5000,
        ...         active_exposed=100,
        ...         active_control=1000,
        ...         crashes_exposed=9 + i % 3,
        ...         crashes_control=9 + i % 3,
        ...         users_exposed=9 + i % 3,
        ...         users_control=9 + i % 3,
        ...     )
        ...     for i in range(180)
        ... ]
        >>> [(alarm.at_ms // 60_000 - 1, alarm.decision) for alarm in Kayenta().watch(minutes, 0)]
        [(59, 'kill')]

    Source: spinnaker/kayenta, kayenta-judge (NetflixACAJudge, MannWhitneyClassifier, IQRDetector, WeightedSumScorer)
    and kayenta-mannwhitney (after R's wilcox.test); score thresholds of its example configurations; lifetime and
    interval of Spinnaker's "Best practices for configuring canary".
    """

    name = "kayenta-mann-whitney"
    rule = (
        "hourly Mann-Whitney on minute values: High where the 98 % interval is above 0.25 of the shift, fails below 75"
    )
    source = "Kayenta's NetflixACAJudge; confidence and tolerance built in, 95 / 75 and 3 h / 1 h of its documentation"
    blind_to = (
        "rare crashes: while most minutes of both arms have none the shift is 0; the worst minutes, which are taken "
        "out as outliers; anything within the hour; devices that never report"
    )

    def watch(self, minutes: Sequence[Minute], began_ms: int) -> list[Alarm]:
        """Return the alarm of one update, if any; see `Peer.watch`."""
        ticks, stages = Ticks(began_ms, INTERVAL_MS), Ticks(began_ms, LIFETIME_MS)
        stage: list[Minute] = []
        for minute in since(minutes, began_ms):
            stage.append(minute)
            due, last = ticks.due(minute.at_ms), stages.due(minute.at_ms)
            if due:
                score, why = judge(stage)
                needed = PASS if last else MARGINAL
                if score is not None and score < needed:
                    return [Alarm(minute.at_ms, "kill", f"score {score:.0f} (< {needed:.0f}); {why}")]
            if last:
                stage = []
        return []


def judge(stage: Sequence[Minute]) -> tuple[float | None, str]:
    """Return the score of these minutes, 0 to 100, and why; None if no metric has values in both arms."""
    metrics: tuple[tuple[str, Callable[[Minute], tuple[int, int]]], ...] = (
        ("crashes per active device", lambda one: (one.crashes_exposed, one.crashes_control)),
        ("crashed devices per active device", lambda one: (one.users_exposed, one.users_control)),
    )
    said, passed, judged = [], 0, 0
    for name, counts in metrics:
        exposed = [counts(one)[0] / one.active_exposed for one in stage if one.active_exposed]
        control = [counts(one)[1] / one.active_control for one in stage if one.active_control]
        if not exposed or not control:
            continue
        judged += 1
        why = high(without_outliers(np.array(exposed)), without_outliers(np.array(control)))
        if why is None:
            passed += 1
        else:
            said.append(f"{name} High: {why}")
    if not judged:
        return None, ""
    return 100.0 * passed / judged, "; ".join(said)


def without_outliers(values: Floats) -> Floats:
    """Return the values within Tukey's fences at 3 interquartile ranges, or within the 1st and 99th percentile."""
    # Commons Math's percentile, which the judge uses, is the Weibull one.
    low, first, third, high_end = np.percentile(values, [1, 25, 75, 99], method="weibull")
    spread = OUTLIER_FACTOR * (third - first)
    kept: Floats = values[(values >= min(low, first - spread)) & (values <= max(high_end, third + spread))]
    return kept


def high(exposed: Floats, control: Floats) -> str | None:
    """Return why the exposed values are High, or None if they pass."""
    if np.array_equal(np.sort(exposed), np.sort(control)) or len(np.unique(np.concatenate([exposed, control]))) == 1:
        return None
    if len(exposed) == len(control) == 1:
        # One value each has no interval: the judge reports an error for the metric, which is no failure.
        return None
    if len(np.unique(exposed)) == 1 and len(np.unique(control)) == 1:
        # The judge adds noise of 1e-5 to make ranks of two constants: the shift is then their difference.
        lower = estimate = float(exposed[0] - control[0])
    else:
        lower, estimate, _ = shift(exposed, control)
    if lower <= TOLERANCE * abs(estimate):
        return None
    p_value = float(mannwhitneyu(exposed, control, method="asymptotic").pvalue)
    return f"shift {estimate:.3g}, at least {lower:.3g} (> {TOLERANCE:g} of it), p = {p_value:.1g}"


def shift(exposed: Floats, control: Floats, confidence: float = CONFIDENCE) -> tuple[float, float, float]:
    """Return lower end, Hodges-Lehmann estimate and upper end of the shift from control to exposed.

    R's asymptotic interval: the shifts mu at which the Mann-Whitney statistic of (exposed - mu, control), corrected for
    ties and continuity, passes the quantiles of the normal distribution, and the one at which it passes 0. It falls in
    steps at the differences between the arms, so the step is looked up; the judge's solver comes within 1e-6 of it,
    which would leave it to chance whether a shift of 0 is above 0.

    Args:
        exposed: shape (n,), not all equal unless `control` has other values.
        control: shape (m,), likewise.
        confidence: of the interval, 0 to 1.
    """
    steps = np.unique(exposed[:, None] - control[None, :])
    quantile = float(norm.isf((1.0 - confidence) / 2))
    lower, middle, upper = (_passes(exposed, control, steps, z) for z in (quantile, 0.0, -quantile))
    return lower, middle, upper


def _passes(exposed: Floats, control: Floats, steps: Floats, z: float) -> float:
    """Return the shift at which the statistic passes `z`: a step, or the middle of a stretch on which it is `z`."""
    gaps = (steps[1:] + steps[:-1]) / 2
    # The least gap at which the statistic is no longer above z; it falls from left to right.
    at = bisect_left(range(len(gaps)), True, key=lambda gap: _statistic(exposed - gaps[gap], control) <= z)
    if at < len(gaps) and _statistic(exposed - gaps[at], control) == z:
        return float(gaps[at])
    return float(steps[at])


def _statistic(x: Floats, y: Floats) -> float:
    ranks = rankdata(np.concatenate([x, y]))
    n, m = len(x), len(y)
    centred = float(ranks[:n].sum()) - n * (n + 1) / 2 - n * m / 2
    _, ties = np.unique(ranks, return_counts=True)
    tied = float(((ties.astype(np.float64) ** 3) - ties).sum()) / ((n + m) * (n + m - 1))
    variance = n * m / 12 * (n + m + 1 - tied)
    if variance <= 0:
        # All observations are tied: there is no order to speak of.
        return 0.0
    return (centred - math.copysign(0.5, centred) * (centred != 0)) / math.sqrt(variance)
