"""How often the gate passes a ring with harm in one of its 64 cells beside a cure in all the others."""

from typing import Final

from scipy.stats import binom

from deploy.bench.figures import Figure, at_most, printed
from detectors.gate_cell import HarmBound
from detectors.gate_trial import Ring, passes
from detectors.policy import load

CELLS: Final = 64
RUNS: Final = 400
# Harm as large as the policy calls harm is the hardest not to pass.
RATIOS: Final = (20.0, 3.0)
CURE: Final = 0.1
# The chance that a gate as good as promised is said not to be, by bad luck.
_LUCK: Final = 1e-4


def ring(ratio: float) -> Ring:
    """Return a ring with one harmed cell."""
    return Ring(ratios=(ratio, *[CURE] * (CELLS - 1)), harmed=1)


def measure() -> list[Figure]:
    """Return the part of rings with harm that pass, and the part that one pooled test lets pass."""
    terms = load().default.gate
    bound = HarmBound(ratio=terms.ratio, excess_per_device_day=terms.excess_per_device_day)
    most = int(binom.isf(_LUCK, RUNS, terms.alpha))
    figures = []
    for seed, ratio in enumerate(RATIOS):
        passed = passes(ring(ratio), bound, terms.alpha, RUNS, seed)
        text = f"rings passed of {RUNS}, ratio {ratio:g} in one of {CELLS} cells, a cure in the rest"
        figures.append(at_most(f"{text}, alpha {terms.alpha:g}", passed.gate, "rings", most))
        figures.append(printed("... by one pooled test", passed.pooled, "rings"))
    return figures
