"""A third rival that no cell is split by: what it could feign never kills, what outlasts it does."""

import itertools
import math
from collections.abc import Iterator

import msgspec
import numpy as np
import pytest

from detectors.counts import CohortCounts
from detectors.sequential import RateRatio
from detectors.tenants import ROWS
from detectors.third import ThirdRivals, ThirdState, factors
from detectors.verdict import DecisionWord, Verdict
from ingest.rollouts import Bound, Rollout
from ingest.windows import AtRisk, CohortWindow, FirstCrash, Step
from support.cohorts import CELLS, T0, Harness, step, window

BASE = CELLS[0]
# From the youngest to the oldest: each one's cells are split by the two youngest others.
NAMES = ("r-young", "r-ally", "r-beta", "r-old")
RIVALS = {"r-young": (1, 2), "r-ally": (0, 2), "r-beta": (0, 1), "r-old": (0, 1)}
TENANTS = 8
Pattern = tuple[int, ...]


def counts(rows: dict[str, tuple[int, int]]) -> CohortCounts:
    made = CohortCounts([True], [True])
    said = [AtRisk(cell, 0, *both) for cell, both in rows.items()]
    made.state(T0, [(0, window(full=True, at_risk=said))])
    return made


def test_the_factor_is_how_unevenly_a_third_is_spread_over_the_arms() -> None:
    mine = counts({BASE: (600, 8000), f"{BASE}|r-ally": (400, 1000)})
    # Of the 1,000 exposed 300 are on the third, of the 9,000 others 900.
    third = counts({BASE: (900, 8100), f"{BASE}|r-young": (300, 700)})
    assert factors("r-young", mine, [third]) == {BASE: pytest.approx(3.0)}
    assert factors("r-young", mine, [third, third]) == {BASE: pytest.approx(9.0)}


def test_whoever_is_counted_by_the_third_only_may_all_be_on_it() -> None:
    """Of 10,000 devices with the third's product 1,000 lack the rollout's: so many fewer controls may be on it."""
    mine = counts({BASE: (1000, 8000)})
    third = counts({BASE: (1900, 7100), f"{BASE}|r-young": (300, 700)})
    assert factors("r-young", mine, [third]) == {BASE: pytest.approx(0.3 / (900 / 8000))}


def test_a_third_on_the_exposed_alone_could_feign_anything_and_one_arm_alone_nothing() -> None:
    mine = counts({BASE: (1000, 9000)})
    assert factors("r-young", mine, [counts({BASE: (0, 9000), f"{BASE}|r-young": (300, 700)})])[BASE] == math.inf
    assert factors("r-young", counts({BASE: (0, 9000)}), [counts({BASE: (10, 10)})]) == {BASE: 1.0}


def test_it_begins_beside_two_rivals_and_goes_on_over_a_restore_bit_for_bit() -> None:
    third, again = ThirdRivals(1.5, 0.1), ThirdRivals(1.5, 0.1)
    event = np.array([True]), np.full((1, ROWS), 0.1), np.array([3])
    third.allow({}, 1)
    third.score(*event, [BASE])
    assert third.log_evidence == -math.inf
    assert third.snapshot() is None
    for number in range(40):
        third.allow({BASE: 1.0 + number / 10}, 2)
        third.score(event[0], event[1], np.array([number % TENANTS]), [f"{BASE}|r-ally"])
        state = msgspec.msgpack.decode(msgspec.msgpack.encode(third.snapshot()), type=ThirdState)
        again = ThirdRivals(1.5, 0.1)
        again.load(state)
        assert again.log_evidence == third.log_evidence
    assert again.snapshot() == third.snapshot()


def test_an_innocent_beside_an_unsplit_guilty_one_reaches_alpha_as_seldom_as_alpha_says() -> None:
    """The third is 30 times as bad and on half of the exposed, on a tenth of the others: alone they look guilty."""
    rng, alpha, runs, crashes, wrong, fooled = np.random.default_rng(9), 0.05, 60, 60, 0, 0
    share, on_third = 0.2, np.array([0.1, 0.5])
    rates = np.array([(1 - share) * (1 + 29 * on_third[0]), share * (1 + 29 * on_third[1])])
    for _ in range(runs):
        exposed = rng.random(crashes) < rates[1] / rates.sum()
        alone, third = RateRatio(), ThirdRivals(1.5, 0.1)
        alone.update(exposed, np.full(crashes, share))
        third.allow({BASE: 5.0}, 2)
        highest = -math.inf
        for one, group in zip(exposed, rng.integers(0, TENANTS, crashes), strict=True):
            third.score(np.array([one]), np.full((1, ROWS), share), np.array([group]), [BASE])
            highest = max(highest, third.log_evidence)
        wrong += highest >= -math.log(alpha)
        fooled += alone.maximum >= -math.log(alpha)
    # Three are expected at most; nine or more come in one of 300 such tests.
    assert wrong <= 8
    assert fooled > 0.7 * runs


class Fleet:
    """Four rollouts on the devices of eight tenants, and crashes that each one's windows tell in their own cells."""

    def __init__(self, seed: int, chances: dict[Pattern, float], ratios: tuple[float, ...]) -> None:
        self.rng = np.random.default_rng(seed)
        self.devices = {pattern: round(20_000 * part) for pattern, part in chances.items()}
        rates = np.array(
            [self.devices[one] * math.prod(r for r, on in zip(ratios, one, strict=True) if on) for one in self.devices]
        )
        self.chance = rates / rates.sum()

    def cell(self, name: str, pattern: Pattern) -> str:
        rivals = "+".join(sorted(NAMES[one] for one in RIVALS[name] if pattern[one]))
        return f"{BASE}|{rivals}" if rivals else BASE

    def steps(self, crashes: int) -> Iterator[Step]:
        patterns = list(self.devices)
        yield step(0, 0, T0 + 250, *(self._full(number) for number in range(len(NAMES))))
        for number in range(crashes):
            since = T0 + 250 * (number + 1)
            pattern = patterns[int(self.rng.choice(len(patterns), p=self.chance))]
            tenant = int(self.rng.integers(0, TENANTS))
            windows = []
            for place, name in enumerate(NAMES):
                crash = FirstCrash(
                    since + 5, self.cell(name, pattern), tenant, pattern[place], tenant, "bad.sys|0x50", True, "bsod"
                )
                windows.append(self._window(place, crashes=[crash], crash_total=number + 1, exposed_total=100))
            yield step(0, since, since + 250, *windows)

    def _full(self, place: int) -> CohortWindow:
        sums: dict[str, list[int]] = {}
        for pattern, devices in self.devices.items():
            sums.setdefault(self.cell(NAMES[place], pattern), [0, 0])[not pattern[place]] += devices
        rows = [
            AtRisk(cell, tenant, exposed // TENANTS, control // TENANTS)
            for cell, (exposed, control) in sums.items()
            for tenant in range(TENANTS)
        ]
        return self._window(place, full=True, at_risk=rows, exposed_total=100)

    def _window(self, place: int, **fields: object) -> CohortWindow:
        made = CohortWindow(
            rollout=NAMES[place], vendor="v", product=f"p{place}", version="2", origin_ms=T0 - place * 60_000
        )
        for name, value in fields.items():
            setattr(made, name, value)
        return made

    def run(self, crashes: int) -> dict[str, list[Verdict]]:
        """Return each rollout's verdicts."""
        harness = Harness(partitions=1)
        for place, name in enumerate(NAMES):
            harness.declare(
                Rollout(
                    rollout=name, vendor="v", product=f"p{place}", update_kind="driver", version="2",
                    origin_ms=T0 - place * 60_000, bound=Bound.OFFERED, declared_by="test",
                )
            )  # fmt: skip
        harness.feed(self.steps(crashes))
        said: dict[str, list[Verdict]] = {name: [] for name in NAMES}
        for verdict in harness.said():
            said[verdict.rollout].append(verdict)
        return said


def together(old_with_young: float, old_alone: float) -> dict[Pattern, float]:
    """Return the fleet's parts: a tenth on the young one, allies by chance, the old one as told."""
    found = {}
    for pattern in itertools.product((0, 1), repeat=4):
        young, ally, beta, old = pattern
        old_part = old_with_young if young else old_alone
        part = 0.1 if young else 0.9
        found[pattern] = part * (0.3 if ally else 0.7) * (0.4 if beta else 0.6) * (old_part if old else 1 - old_part)
    return found


def decisions(verdicts: list[Verdict]) -> set[DecisionWord]:
    return {verdict.decision for verdict in verdicts}


@pytest.mark.parametrize("seed", [1, 2])
def test_an_innocent_that_travels_with_an_older_guilty_one_is_not_killed(seed: int) -> None:
    said = Fleet(seed, together(0.9, 0.1), (1.0, 1.0, 1.0, 60.0)).run(90)
    assert DecisionWord.KILL not in decisions(said["r-young"])
    assert DecisionWord.KILL in decisions(said["r-old"])
    last = said["r-young"][-1]
    # Among devices alike in the two that its cells are split by it looks guilty, with nobody left out.
    assert last.evidence.log10_everybody_max > 6
    assert "By counts alone, the likeliest cause first: r-old" in said["r-old"][-1].evidence.attribution
    assert DecisionWord.KILL not in decisions(said["r-ally"]) | decisions(said["r-beta"])


@pytest.mark.parametrize("seed", [1, 2])
def test_a_guilty_one_is_killed_once_its_evidence_outlasts_what_the_third_could_feign(seed: int) -> None:
    said = Fleet(seed, together(0.5, 0.35), (8.0, 1.0, 1.0, 30.0)).run(110)
    assert DecisionWord.KILL in decisions(said["r-young"])
    assert "outlasts what r-old could feign" in said["r-young"][-1].evidence.attribution
