"""Crashes to kill, exactly: against the detector itself, and within the bounds."""

import math

import numpy as np
import pytest

from deploy.bench.detectors_crashes import Harm, mean_crashes
from detectors.sequential import RateRatio, ratio_grid


@pytest.mark.parametrize(
    "harm", [Harm(10, 0.1, 1.0, 1e-6), Harm(100, 0.01, 1.5, 1e-3), Harm(1000, 0.5, 1.5, 1e-6), Harm(5, 0.5, 1.0, 1e-3)]
)
def test_the_mean_is_that_of_the_detector(harm: Harm) -> None:
    """Simulated runs of the detector scatter about the computed mean as chance allows."""
    rng = np.random.default_rng(3)
    exact, counts = mean_crashes(harm, ratio_grid(harm.tolerated)), []
    for _ in range(400):
        detector, crashes = RateRatio(harm.tolerated), 0
        while detector.log_evidence < -math.log(harm.alpha):
            detector.update([rng.random() < harm.chance], [harm.share])
            crashes += 1
        counts.append(crashes)
    error = float(np.std(counts)) / math.sqrt(len(counts))
    assert abs(float(np.mean(counts)) - exact) < 4 * error + 1e-9


def test_walds_bound_is_what_the_papers_say() -> None:
    assert Harm(100, 0.1, 1.0, 1e-6).wald == pytest.approx(7.52, abs=0.01)


@pytest.mark.parametrize("harm", [Harm(10, 0.1, 1.0, 1e-6), Harm(2, 0.5, 1.5, 1e-3), Harm(100, 0.01, 1.0, 1e-3)])
def test_no_test_beats_the_bound_and_the_mixture_is_near_it(harm: Harm) -> None:
    best = mean_crashes(harm, np.array([harm.ratio]))
    mixed = mean_crashes(harm, ratio_grid(harm.tolerated))
    assert harm.wald <= best <= mixed <= {1e-6: 1.3, 1e-3: 1.4}[harm.alpha] * harm.wald


def test_a_log_spaced_grid_falls_short() -> None:
    """The bound can fail: with all ratios equally far apart, slow harm takes longer than allowed."""
    harm = Harm(2, 0.5, 1.5, 1e-3)
    assert mean_crashes(harm, 1.5 * np.geomspace(1, 4096 / 1.5, 33)[1:]) > 1.4 * harm.wald
