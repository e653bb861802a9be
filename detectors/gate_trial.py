"""How often the gate passes: simulated rings of many cells with a known truth, beside one pooled test.

For tests and benches. Only what the statistics see is simulated (crashes and device-days by cell and group), so that
thousands of runs take seconds; scenarios with clocks, boots and delays are the backtest's.
"""

import math
from typing import NamedTuple

import msgspec
import numpy as np

from detectors.gate import AgeNeed, Gate
from detectors.gate_cell import CellGate, HarmBound


class Ring(msgspec.Struct, frozen=True, kw_only=True):
    """One ring and what the update does in it.

    Attributes:
        ratios: the true rate ratio of each cell; the first `harmed` of them are the harmed ones.
        harmed: how many cells are harmed.
        exposed: exposed devices a cell.
        control: control devices a cell.
        crashes_per_device_day: what any device crashes without the update.
        groups: tenant groups, each with an equal part of every cell.
        days: how long the ring is watched; the gate is asked `looks_per_day` times a day.
        looks_per_day: see `days`.
    """

    ratios: tuple[float, ...]
    harmed: int
    exposed: int = 2000
    control: int = 2000
    crashes_per_device_day: float = 0.001
    groups: int = 4
    days: int = 10
    looks_per_day: int = 4


class Passed(NamedTuple):
    """Runs in which the gate opened at least once, and in which one pooled test did."""

    gate: int
    pooled: int


def passes(ring: Ring, bound: HarmBound, alpha: float, runs: int, seed: int) -> Passed:
    """Simulate `runs` rings and count those that were let through at any look.

    The pooled test is the same evidence of all cells as if they were one.
    """
    rng = np.random.default_rng(seed)
    opened = [_run(rng, ring, bound, alpha) for _ in range(runs)]
    return Passed(sum(gate for gate, _ in opened), sum(pooled for _, pooled in opened))


def _run(rng: np.random.Generator, ring: Ring, bound: HarmBound, alpha: float) -> tuple[bool, bool]:
    gate, pooled = Gate(bound, alpha, AgeNeed(boots=0, wakes=0)), CellGate(bound)
    names = [f"model={index}" for index in range(len(ring.ratios))]
    needed = dict.fromkeys(names, 1.0 / len(names))
    harmed = dict.fromkeys(names[: ring.harmed], 1.0)
    log_needed = -math.log(alpha)
    through = through_pooled = False
    for _ in range(ring.days * ring.looks_per_day):
        _step(rng, ring, gate, pooled, names)
        through_pooled = through_pooled or pooled.evidence().log_evidence >= log_needed
        # The harmed cells first: without them no ring passes, and that saves asking all the others.
        if not harmed or gate.ask(harmed, plan=False).passed:
            through = through or gate.ask(needed, plan=False).passed
        if through and through_pooled:
            break
    return through, through_pooled


def _step(rng: np.random.Generator, ring: Ring, gate: Gate, pooled: CellGate, names: list[str]) -> None:
    day = 1.0 / ring.looks_per_day
    device_days = ring.exposed * day / ring.groups
    for name in names:
        for group in range(ring.groups):
            gate.expose(name, group, device_days)
    for group in range(ring.groups):
        pooled.expose(group, device_days * len(names))
    rate = ring.crashes_per_device_day * day
    exposed = rng.poisson(np.array(ring.ratios) * ring.exposed * rate)
    control = rng.poisson(ring.control * rate, size=len(names))
    share = ring.exposed / (ring.exposed + ring.control)
    cells = np.repeat(np.tile(np.arange(len(names)), 2), np.concatenate([exposed, control]))
    flags = np.repeat([True, False], [exposed.sum(), control.sum()])
    order = rng.permutation(len(cells))
    groups = rng.integers(0, ring.groups, size=len(cells))
    for cell, flag, group in zip(cells[order].tolist(), flags[order].tolist(), groups.tolist(), strict=True):
        gate.add([names[cell]], group, flag, share)
        pooled.add(group, flag, share)
