"""The gate's state goes on bit for bit, and nothing it is told grows without bound or makes no sense."""

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.gate import (
    CELL_WORD_DOCS,
    CELLS_MAX,
    AgeCoverage,
    CellWord,
    Gate,
    GateState,
)
from detectors.gate_cell import GROUPS_MAX, CellGate, HarmBound

BOUND = HarmBound(ratio=1.5, excess_per_device_day=0.002)
SEEN = AgeCoverage(booted=10, woken=10, hours=100.0)
EVENTS = st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.floats(0, 1), st.floats(0, 500)), max_size=30)


@given(EVENTS, st.integers(0, 30))
def test_going_on_from_a_snapshot_is_bit_identical(events: list[tuple[int, bool, float, float]], cut: int) -> None:
    whole, part = Gate(BOUND, 0.01), Gate(BOUND, 0.01)
    for index, (group, exposed, share, days) in enumerate(events):
        if index == cut:
            part = Gate.restore(msgspec.json.decode(msgspec.json.encode(part.snapshot()), type=GateState))
        for gate in (whole, part):
            gate.expose(f"model={group % 2}", group, days)
            gate.add(["form=laptop", f"model={group % 2}"], group, exposed, share)
    assert whole.snapshot() == part.snapshot()
    needed = {"form=laptop": 1.0, "model=0": 0.5, "model=1": 0.5, "model=2": 0.1}
    assert whole.ask(needed, SEEN) == part.ask(needed, SEEN)


def test_invented_margins_and_groups_are_bounded() -> None:
    gate = Gate(BOUND, 0.05)
    for index in range(CELLS_MAX + 300):
        gate.expose(f"model={index}", 0, 1.0)
    assert (len(gate.cells), gate.cells_refused) == (CELLS_MAX, 300)
    assert gate.ask({f"model={CELLS_MAX}": 1.0}, SEEN).uncovered == [f"model={CELLS_MAX}"]
    assert Gate.restore(gate.snapshot()).cells_refused == 300
    cell = CellGate(BOUND)
    for group in range(GROUPS_MAX):
        cell.expose(group, 1.0)
    with pytest.raises(ValueError, match="tenant groups"):
        cell.expose(GROUPS_MAX, 1.0)


@pytest.mark.parametrize("share", [-0.1, 1.1, math.nan])
def test_an_impossible_share_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="share"):
        CellGate(BOUND).add(0, True, share)


@pytest.mark.parametrize("days", [-1.0, math.nan, math.inf])
def test_impossible_device_days_are_refused(days: float) -> None:
    with pytest.raises(ValueError, match="device-days"):
        Gate(BOUND).expose("model=A", 0, days)


@pytest.mark.parametrize(
    ("ratio", "excess", "background"), [(1.0, 0.1, 0.0), (1.5, 0.0, 0.0), (1.5, 0.1, -1.0), (math.nan, 0.1, 0.0)]
)
def test_impossible_bounds_are_refused(ratio: float, excess: float, background: float) -> None:
    with pytest.raises(ValueError, match=r"give one|0 or more"):
        HarmBound(ratio=ratio, excess_per_device_day=excess, background_per_device_day=background)


@pytest.mark.parametrize("alpha", [0.0, 1.0, math.nan])
def test_an_impossible_alpha_is_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match="alpha"):
        Gate(BOUND, alpha)


def test_every_word_is_documented() -> None:
    assert set(CELL_WORD_DOCS) == set(CellWord)
