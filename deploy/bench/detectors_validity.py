"""How often healthy rollouts are killed, looking after every event: at most alpha, or the evidence is none.

Each simulated rollout goes through the tracker's own evidence: crashes (rate ratio over cells and margins, new
signatures), silence, and the latch that combines them and keeps maxima. Crashes are given in batches between two looks
at silence, which gives the evidence after each crash of the batch. Half of the updates are exactly as bad as tolerated.
"""

import math
import multiprocessing
import os
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np
from scipy.stats import binom

from deploy.bench.detectors_healthy import HOURS, MARGINS, Shake, crashes_of, fleet, strata_at
from deploy.bench.figures import Figure, at_most, printed
from detectors.counts import Shares
from detectors.delay import DelayHistory
from detectors.evidence import Crashes, CrashEvidence
from detectors.latch import Latch, Parts
from detectors.policy import Policy, load
from detectors.silence import Silence
from detectors.tenants import NOBODY, ROWS

RUNS: Final = 20_000
CONFOUNDED_RUNS: Final = 2_000
BEYOND_RUNS: Final = 500
LOOKS: Final = 3
WORKERS: Final = 2
# The chance that valid evidence is said to be none, by bad luck, at one alpha.
LUCK: Final = 1e-4
_CHUNK: Final = 50
# Tenant groups that the history of delays is of, and the one that lies about them.
GROUPS_KNOWN: Final = 8
LIAR: Final = 31

ORDINARY: Final = Shake()
TOLERATED: Final = Shake(ratio=1.5)
CONFOUNDERS: Final = {
    "frailty": Shake(frailty=6.0, crashes=150.0),
    "reboots by the update": Shake(reboot_share=1.0, boot_crash=0.03),
    "reports of the exposed sooner": Shake(delay_minutes=(0.2, 1440.0), crashes=200.0),
    "a third of controls switched off": Shake(off_share=1 / 3, crashes=150.0),
    "site shocks, sites in one arm": Shake(site_shocks=60),
}
# Where an assumption does not hold; printed, for nothing bounds it.
BEYOND: Final = {
    "reports sooner, product without history": Shake(delay_minutes=(0.2, 1440.0), crashes=200.0, history=0),
    "site shocks, exposed sites a fifth as large": Shake(site_shocks=60, site_part=0.2),
    "half of controls switched off": Shake(off_share=0.5, crashes=150.0),
}


class Highest(NamedTuple):
    """The highest natural logs of evidence in a rollout's life.

    Attributes:
        kill: what may kill: the least over leaving any tenant group out.
        everybody: the same with nobody left out: what the mathematics bounds most tightly.
        raw: the rate ratio alone, without floors, margins and weights.
        hold: what may hold.
    """

    kill: float
    everybody: float
    raw: float
    hold: float


def one_rollout(seed: int, shake: Shake, policy: Policy, *, told_at_once: int = 0) -> Highest:
    """Simulate one rollout and return its highest evidence.

    Args:
        seed: which rollout.
        shake: what is done to it.
        policy: weights, floors and tolerances.
        told_at_once: control crashes without any delay that a liar put into the product's history.
    """
    rng = np.random.default_rng(seed)
    world = fleet(rng, shake)
    crashes, arrives = crashes_of(rng, world, shake, policy.share_least)
    evidence = CrashEvidence(policy.tolerated_ratio, policy.tenant_floor, policy.hold_ratio)
    evidence.meet(MARGINS)
    silence = Silence(policy.tolerated_ratio, policy.silence.control_share_limit, policy.silence.control_least)
    told = policy.weights
    latch = Latch((told.rate_ratio, told.new_signature, told.silence, told.baseline), (), one_may_kill=False)
    history = DelayHistory()
    if shake.history:
        known = 60.0 * shake.delay_minutes[1] * np.exp(rng.normal(0, 1.5, size=shake.history))
        for group in range(GROUPS_KNOWN):
            history.add(group, known[group::GROUPS_KNOWN])
    if told_at_once:
        history.add(LIAR, np.zeros(told_at_once))
    none = np.zeros(ROWS)
    cuts = np.searchsorted(arrives, HOURS * np.arange(LOOKS + 1) / LOOKS).tolist()
    for look, (begin, end) in enumerate(pairwise(cuts), start=1):
        if end > begin:
            batch = _part(crashes, slice(begin, end))
            rate, novelty, early = evidence.score(batch, history)
            quiet, past = (np.broadcast_to(one, rate.shape) for one in (silence.rows, none))
            latch.take(Parts(rate, novelty, quiet, past, early), baseline_may_kill=False)
            for place in np.flatnonzero(~batch.exposed).tolist():
                history.add(int(batch.group[place]), batch.delay_seconds[place])
        for stratum in strata_at(rng, world, shake, HOURS * look / LOOKS - 1e-3):
            silence.update([stratum])
        now = Parts(
            evidence.rate.log_evidence,
            evidence.novelty.log_evidence,
            silence.rows,
            none,
            evidence.early.log_evidence[NOBODY],
        )
        latch.take(now, baseline_may_kill=False)
    return Highest(latch.kill_max, latch.everybody_max, evidence.marginal.maximum, latch.hold_max)


def _part(crashes: Crashes, part: slice) -> Crashes:
    shares = Shares(*(one[part] for one in crashes.shares))
    return Crashes(**{name: one[part] for name, one in crashes._asdict().items() if name != "shares"}, shares=shares)


def _chunk(task: tuple[int, int, Shake]) -> list[Highest]:
    first, count, shake = task
    policy = load().default
    return [one_rollout(seed, shake, policy) for seed in range(first, first + count)]


def highest(shake: Shake, runs: int, first: int, workers: int = WORKERS) -> list[Highest]:
    """Simulate `runs` rollouts with the seeds from `first` on."""
    tasks = [(seed, min(_CHUNK, first + runs - seed), shake) for seed in range(first, first + runs, _CHUNK)]
    if workers == 1:
        return [one for task in tasks for one in _chunk(task)]
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        return [one for part in pool.imap(_chunk, tasks) for one in part]


def most_alarms(runs: int, alpha: float) -> int:
    """Return how many alarms valid evidence gives at most, but for bad luck: exact binomial."""
    return int(binom.isf(LUCK, runs, alpha))


def figures_of(name: str, found: list[Highest], alpha_default: float) -> list[Figure]:
    """Return false kills at each alpha against the most that alpha allows, and those of the raw rate ratio."""
    figures = []
    for alpha in (1e-2, 1e-3, alpha_default):
        needed, most = -math.log(alpha), most_alarms(len(found), alpha)
        text = f"{name}, {len(found):,} rollouts, alpha {alpha:g}"
        kills = sum(one.kill >= needed for one in found)
        everybody, raw = sum(one.everybody >= needed for one in found), sum(one.raw >= needed for one in found)
        figures.append(at_most(f"false kills: {text}", kills, "rollouts", most))
        figures.append(at_most("... with nobody left out", everybody, "rollouts", most))
        figures.append(at_most("... by the raw rate ratio alone", raw, "rollouts", most))
    return figures


def measure() -> list[Figure]:
    """Return false kills of ordinary and of confounded rollouts, and what the large run took."""
    policy = load().default
    before = os.times()
    ordinary, tolerated = highest(ORDINARY, RUNS // 2, 0), highest(TOLERATED, RUNS // 2, RUNS)
    after = os.times()
    spent = sum(after[:4]) - sum(before[:4])
    figures = figures_of("no harm or just tolerated", ordinary + tolerated, policy.alpha_kill)
    figures += figures_of("... of them as bad as tolerated", tolerated, policy.alpha_kill)
    holds = sum(one.hold >= -math.log(policy.alpha_hold) for one in ordinary)
    most = most_alarms(len(ordinary), policy.alpha_hold)
    figures.append(at_most(f"false holds: no harm, {len(ordinary):,} rollouts", holds, "rollouts", most))
    text = f"{RUNS:,} rollouts on {WORKERS} cores, processor time of each"
    figures.append(at_most(text, spent / WORKERS, "s", 600.0))
    figures.append(printed("... on the clock of this machine", after.elapsed - before.elapsed, "s"))
    for number, (name, shake) in enumerate(CONFOUNDERS.items(), start=1):
        figures += figures_of(name, highest(shake, CONFOUNDED_RUNS, number * 1_000_000), policy.alpha_kill)
    return figures + beyond()


def beyond() -> list[Figure]:
    """Return the part of healthy rollouts that are killed, and held, where an assumption does not hold."""
    policy, figures = load().default, []
    for number, (name, shake) in enumerate(BEYOND.items(), start=1):
        found = highest(shake, BEYOND_RUNS, 100_000_000 + number * 1_000_000)
        text = f"beyond the assumptions: {name}"
        for word, alpha, values in (
            ("killed", policy.alpha_kill, [one.kill for one in found]),
            ("killed", 1e-2, [one.kill for one in found]),
            ("held", policy.alpha_hold, [one.hold for one in found]),
        ):
            part = sum(value >= -math.log(alpha) for value in values) / len(found)
            figures.append(printed(f"{text}, {word} at alpha {alpha:g}", 100 * part, "%"))
    return figures
