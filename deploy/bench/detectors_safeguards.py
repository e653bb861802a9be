"""What each safeguard costs in crashes, and what is left of the evidence when one tenant lies.

Crashes of a harmful update are drawn with one exposed share; each safeguard is put on alone, over the same crashes, and
the crashes until a kill are counted. The liar is a tenant group that says what it likes of its own devices.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

import numpy as np

from deploy.bench.figures import Figure, at_most, printed
from detectors.delay import DelayCorrection, DelayHistory, corrected
from detectors.margins import MarginEvents, MarginRatios
from detectors.policy import load
from detectors.sequential import Floats, RateRatio
from detectors.tenants import GROUPS, NOBODY, ROWS, Flags, Numbers, TenantRatio

RUNS: Final = 200
TENANTS: Final = (3, 10, 50)
HARMS: Final = ((100.0, 0.1), (10.0, 0.1))
FLOOD: Final = 10_000
# How many crashes more than without a flood are still a handful.
HANDFUL: Final = 6.0
_MARGINS: Final = 16
LIAR: Final = 31


class Drawn(NamedTuple):
    """Crashes of one run: arm, exposed share, and tenant, shape (n,) each."""

    exposed: Flags
    share: Floats
    tenant: Numbers

    @property
    def rows(self) -> Floats:
        """The share in every row: no group's devices change it."""
        return np.repeat(self.share[:, None], ROWS, axis=1)


def draw(ratio: float, share: float, tenants: int, seed: int) -> Drawn:
    """Draw the crashes of one run, more than any safeguard should need."""
    rng = np.random.default_rng(seed)
    chance = ratio * share / (ratio * share + 1 - share)
    n = 60 + int(40 / chance / math.log10(ratio))
    return Drawn(rng.random(n) < chance, np.full(n, share), rng.integers(tenants, size=n))


def crossing(path: Floats, needed: float) -> int:
    """Return after how many crashes the evidence is enough; one more than there are where it never is."""
    enough = np.flatnonzero(path >= needed)
    return int(enough[0]) + 1 if len(enough) else len(path) + 1


def raw(drawn: Drawn, tolerated: float) -> Floats:
    """Return the path of the rate ratio alone."""
    detector = RateRatio(tolerated)
    steps = zip(drawn.exposed, drawn.share, strict=True)
    return np.array([detector.update([exposed], [share]) for exposed, share in steps])


def by_tenant(drawn: Drawn, tolerated: float, floor: float, flood: int = 0) -> Floats:
    """Return the path with floors and the least over leaving any one group out, after a flood of control crashes."""
    detector = TenantRatio(tolerated, floor)
    if flood:
        # The first tenant is the liar; its crashes are spread over what the others say of the shares.
        detector.update(np.zeros(flood, dtype=bool), np.full((flood, ROWS), drawn.share[0]), np.zeros(flood, np.int64))
    # Groups are hashes of tenants: two of many tenants may share one, but here never with the liar.
    groups = np.where(drawn.tenant > 0, 1 + (drawn.tenant - 1) % (GROUPS - 1), 0)
    path: Floats = detector.update(drawn.exposed, drawn.rows, groups).min(axis=1)
    return path


def by_margin(drawn: Drawn, tolerated: float, floor: float) -> Floats:
    """Return the path of one believed tenant's crashes over all cells and margins: what the margins alone cost."""
    mixed = MarginRatios(tolerated, floor)
    mixed.meet(f"model={number}" for number in range(_MARGINS))
    place = np.arange(len(drawn.exposed))
    events = []
    for number in range(_MARGINS):
        mine = place[place % _MARGINS == number]
        if len(mine):
            events.append(MarginEvents(f"model={number}", mine, drawn.rows[mine]))
    path: Floats = mixed.update(drawn.exposed, drawn.rows, np.zeros(len(place), np.int64), events)[:, NOBODY]
    return path


def with_delays(drawn: Drawn, tolerated: float, seed: int, flood: int = 0) -> Floats:
    """Return the path where reports of both arms come equally late, and the correction has to find that out.

    Crashes fall in the first two hours of a push; half of the reports take longer than seven minutes. A flood tells of
    control crashes that are a day old.
    """
    rng = np.random.default_rng(seed)
    history, correction = DelayHistory(), DelayCorrection()
    for group, delays in enumerate(np.exp(rng.normal(6, 1.5, size=(10, 20)))):
        history.add(group, delays)
    if flood:
        history.add(LIAR, np.full(flood, 86_400.0))
    n = len(drawn.exposed)
    delays = np.exp(rng.normal(6, 1.5, size=n))
    since = rng.uniform(0, 7200, size=n) + delays
    order = np.argsort(since)
    factors = np.ones(n)
    for place, (delay, arrived) in enumerate(zip(delays[order].tolist(), since[order].tolist(), strict=True)):
        if drawn.exposed[place]:
            factors[place] = correction.exposed(history, delay, arrived)
        else:
            factors[place] = correction.control(history, arrived)
    return raw(drawn._replace(share=corrected(drawn.share, factors)), tolerated)


def mean_crossing(paths: Callable[[int], Floats], needed: float, runs: int = RUNS) -> float:
    """Return the mean number of crashes to a kill over runs with seeds 0, 1, ..."""
    return float(np.mean([crossing(paths(seed), needed) for seed in range(runs)]))


def costs(ratio: float, share: float) -> list[Figure]:
    """Return the crashes to a kill of one harm, without any safeguard and with each of them alone."""
    policy = load().default
    tolerated, floor, needed = policy.tolerated_ratio, policy.tenant_floor, -math.log(policy.alpha_kill)
    weight = -math.log(policy.weights.rate_ratio)

    def drawn(seed: int, tenants: int = 10) -> Drawn:
        return draw(ratio, share, tenants, seed)

    told = f"ratio {ratio:g} of share {share:g}"
    alone = mean_crossing(lambda seed: raw(drawn(seed), tolerated), needed)
    figures = [printed(f"crashes to kill, {told}, no safeguard", alone, "crashes")]

    def add(name: str, paths: Callable[[int], Floats], more: float = 0.0) -> float:
        mean = mean_crossing(paths, needed + more)
        figures.append(printed(f"... {name}", mean, "crashes"))
        return mean

    add("against 1 instead of what is tolerated", lambda seed: raw(drawn(seed), 1.0))
    for number in TENANTS:
        name = f"tenant floors, any one left out, {number} tenants"
        add(name, partial(_by_tenant, drawn=drawn, tenants=number, tolerated=tolerated, floor=floor))
    add(f"mixed with {_MARGINS} margins", lambda seed: by_margin(drawn(seed), tolerated, 1e-9))
    add("the rate ratio's weight among the methods", lambda seed: raw(drawn(seed), tolerated), weight)
    add("exposed share told twice as large", lambda seed: raw(twice(drawn(seed)), tolerated))
    add("delays corrected, though both arms' are alike", lambda seed: with_delays(drawn(seed), tolerated, seed))
    add(
        "... after a flood of control crashes that are a day old",
        lambda seed: with_delays(drawn(seed), tolerated, seed, FLOOD),
    )
    return figures


def lies(ratio: float, share: float) -> list[Figure]:
    """Return what a flood of false control crashes of one tenant costs the others, in crashes of their own."""
    policy = load().default
    needed = -math.log(policy.alpha_kill)
    figures = []
    for tenants in TENANTS:
        means = []
        for flood in (0, FLOOD):
            path = partial(_flooded, ratio, share, tenants, flood, policy.tolerated_ratio, policy.tenant_floor)
            means.append(mean_crossing(path, needed, RUNS // 4))
        text = f"ratio {ratio:g} of share {share:g}, {tenants} tenants"
        figures.append(printed(f"the others' crashes to kill while one says nothing, {text}", means[0], "crashes"))
        more = means[1] - means[0]
        text = f"... more after {FLOOD:,} false control crashes of that one"
        # How many crashes a factor of ten is worth depends on the harm: the bound is that of harm like july's.
        bounded = ratio >= 100
        figures.append(at_most(text, more, "crashes", HANDFUL) if bounded else printed(text, more, "crashes"))
    return figures


def _flooded(ratio: float, share: float, tenants: int, flood: int, tolerated: float, floor: float, seed: int) -> Floats:
    """Return the path of the crashes of all but tenant 0, which is the liar."""
    others = draw(ratio, share, tenants - 1, seed)
    return by_tenant(others._replace(tenant=others.tenant + 1), tolerated, floor, flood)


def _by_tenant(seed: int, drawn: Callable[[int, int], Drawn], tenants: int, tolerated: float, floor: float) -> Floats:
    return by_tenant(drawn(seed, tenants), tolerated, floor)


def twice(drawn: Drawn) -> Drawn:
    """Return the same crashes with a bound of the share that is twice the share."""
    return drawn._replace(share=np.minimum(2 * drawn.share, 1.0))


def measure() -> list[Figure]:
    """Return what each safeguard costs, for two harms."""
    return [figure for ratio, share in HARMS for figure in (*costs(ratio, share), *lies(ratio, share))]
