"""What one lying tenant can do to the others: the highest evidence it can cause outside itself.

An update is healthy. One tenant group says what it likes of its own devices: crashes on the update, devices in either
arm, both. Each lie goes through the tracker's crash evidence and latch. What the others' crashes say alone, nobody of
them left out, is valid evidence; the lies must not lift what may kill above it. Reporting delays are shared by a
product's tenants, so a lie about them reaches further; it is printed by itself.
"""

import math
from typing import Final

import numpy as np

from deploy.bench.detectors_validity import CONFOUNDERS, one_rollout
from deploy.bench.figures import Figure, at_most, printed
from detectors.counts import Shares
from detectors.delay import DelayHistory
from detectors.evidence import Crashes, CrashEvidence
from detectors.latch import Latch, Parts
from detectors.policy import load
from detectors.sequential import Floats
from detectors.tenants import GROUPS, NOBODY, ROWS, Flags, Numbers

TENANTS: Final = (3, 10, 50)
RUNS: Final = 20
HONEST: Final = 60
LIES: Final = 600
LIAR: Final = 0
SHARE: Final = 0.1
POISONED_RUNS: Final = 60
_MARGINS: Final = 4


def honest(rng: np.random.Generator, tenants: int) -> tuple[Flags, Numbers]:
    """Return the arms and groups of the other tenants' crashes."""
    return rng.random(HONEST) < SHARE, 1 + rng.integers(tenants - 1, size=HONEST) % (GROUPS - 1)


def told(exposed: Flags, group: Numbers, share: Floats) -> Crashes:
    """Return crashes with these shares in the rows that the liar's devices are in, and the true one in the other."""
    upper = np.repeat(share[:, None], ROWS, axis=1)
    upper[:, LIAR] = SHARE
    n = len(exposed)
    return Crashes(
        exposed=exposed,
        group=group,
        tenants=group,
        shares=Shares(upper, upper[:, NOBODY], upper[:, NOBODY], upper[:, NOBODY], upper[:, NOBODY]),
        margins=[(f"model={number % _MARGINS}",) for number in range(n)],
        cells=["22631|laptop|early|old|recent"] * n,
        signatures=["bad.sys|0x50"] * n,
        new=np.ones((n, ROWS), dtype=bool),
        delay_seconds=np.full(n, 5.0),
        since_seconds=np.full(n, 86_400.0),
    )


def highest(crashes: Crashes) -> tuple[float, float]:
    """Return the highest natural log of the evidence that may kill, and of that with nobody left out."""
    policy = load().default
    evidence = CrashEvidence(policy.tolerated_ratio, policy.tenant_floor, policy.hold_ratio)
    evidence.meet(f"model={number}" for number in range(_MARGINS))
    weights = policy.weights
    latch = Latch(
        (weights.rate_ratio, weights.new_signature, weights.silence, weights.baseline), (), one_may_kill=False
    )
    rate, novelty, early = evidence.score(crashes, DelayHistory())
    none = np.zeros_like(rate)
    latch.take(Parts(rate, novelty, none, none, early), baseline_may_kill=False)
    return latch.kill_max, latch.everybody_max


def with_lies(exposed: Flags, group: Numbers, lies: int, share: float, rng: np.random.Generator) -> Crashes:
    """Return the honest crashes in their order with so many invented exposed ones among them, at an invented share."""
    places = np.sort(rng.integers(0, HONEST + 1, size=lies))
    arms, groups = np.insert(exposed, places, True), np.insert(group, places, LIAR)
    return told(arms, groups, np.full(len(arms), share))


def rise(tenants: int) -> float:
    """Return how far the best of some lies lifts the evidence that may kill above the others' own, in powers of ten."""
    most = -math.inf
    for seed in range(RUNS):
        rng = np.random.default_rng(seed)
        exposed, group = honest(rng, tenants)
        # Margins go by place, so honest crashes are told in the margins they have among the lies.
        for lies, share in ((LIES, SHARE), (0, 1e-6), (LIES, 1e-6), (LIES, 0.9)):
            crashes = with_lies(exposed, group, lies, share, rng)
            kept = np.flatnonzero(crashes.group != LIAR)
            alone = told(exposed, group, np.full(HONEST, SHARE))._replace(
                margins=[crashes.margins[i] for i in kept.tolist()]
            )
            most = max(most, highest(crashes)[0] - highest(alone)[1])
    return most / math.log(10.0)


def poisoned(lies: int) -> tuple[float, float]:
    """Return the highest evidence that may kill and hold in healthy rollouts whose exposed devices report sooner.

    Args:
        lies: control crashes told of at once that are in the product's history of delays.
    """
    policy, shake = load().default, CONFOUNDERS["reports of the exposed sooner"]
    found = [one_rollout(seed, shake, policy, told_at_once=lies) for seed in range(POISONED_RUNS)]
    return max(one.kill for one in found) / math.log(10.0), max(one.hold for one in found) / math.log(10.0)


def measure() -> list[Figure]:
    """Return how far lies lift the evidence against a healthy update."""
    figures = []
    for tenants in TENANTS:
        text = f"evidence that one of {tenants} tenants can cause outside itself, above the others' own"
        figures.append(at_most(text, rise(tenants), "powers of ten", 1e-9))
    for lies in (0, 4000):
        kill, hold = poisoned(lies)
        text = f"exposed report sooner, {lies:,} control crashes falsely told at once: highest evidence"
        figures.append(printed(f"{text} to kill", kill, "powers of ten"))
        figures.append(printed("... to hold", hold, "powers of ten"))
    return figures
