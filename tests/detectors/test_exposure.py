"""The bound on the exposed share, and the history it is looked up in."""

import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import detectors.exposure
from detectors.counts import CohortCounts, Place
from detectors.exposure import ExposureBound, reach, ring_of, upper_bound
from detectors.history import CELLS_MAX, CountHistory
from detectors.tenants import NOBODY
from ingest.rollouts import Bound, Ring
from ingest.windows import AtRisk
from support.cohorts import CELLS, T0, rollout, window

EARLY = Ring(name="early", starts_at_ms=T0, over_seconds=100, share=0.5)


@pytest.mark.parametrize(("after_ms", "part"), [(-1, 0.0), (0, 0.0), (50_000, 0.25), (100_000, 0.5), (900_000, 0.5)])
def test_a_push_reaches_its_share_evenly(after_ms: int, part: float) -> None:
    assert reach(EARLY, T0 + after_ms) == pytest.approx(part)


def test_a_push_without_a_start_reaches_nobody_and_one_at_once_everybody() -> None:
    assert reach(Ring(name="early"), T0) == 0.0
    assert reach(Ring(name="early", starts_at_ms=T0), T0) == 1.0


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.floats(0, 1))
def test_the_bound_is_never_below_what_is_known_nor_above_what_there_is(known: int, control: int, part: float) -> None:
    (most,) = upper_bound(np.array([known]), np.array([control]), np.array([part]))
    assert known <= most <= known + control
    assert most >= (known + control) * part - 1e-3


@pytest.mark.parametrize(
    ("bound", "rings", "pushed", "bounded"),
    [
        (Bound.NONE, [], 0, False),
        (Bound.OFFERED, [], 0, True),
        (Bound.DECLARED, [EARLY], 0, True),
        (Bound.DECLARED, [], 5, True),
        (Bound.DECLARED, [], 0, False),
    ],
)
def test_where_there_is_no_bound_there_is_no_score(bound: Bound, rings: list[Ring], pushed: int, bounded: bool) -> None:
    assert ExposureBound(rollout(bound, rings, pushed_devices=pushed)).bounded is bounded
    assert not ExposureBound(None).bounded


def test_cells_of_an_unknown_ring_are_bounded_by_the_furthest_push() -> None:
    rings = [EARLY, Ring(name="canary", starts_at_ms=T0, share=0.8)]
    bound = ExposureBound(rollout(Bound.DECLARED, rings), share_least=0.02)
    told = bound.reach_of(["canary", "early", "broad", "*", "other"], T0 + 50_000)
    assert told.tolist() == [0.8, 0.25, 0.0, 0.8, 0.8]
    assert (ring_of(CELLS[0]), ring_of("odd")) == ("early", "")
    assert bound.latest_start_ms(T0 + 1) == T0
    assert not bound.reached_all(CELLS[0], T0 + 900_000)
    everyone = ExposureBound(rollout(Bound.DECLARED, [Ring(name="early", starts_at_ms=T0)]))
    assert everyone.reached_all(CELLS[0], T0)


def test_the_example_holds() -> None:
    assert doctest.testmod(detectors.exposure).failed == 0


class Plain:
    """The history as it would be without bounds: every change, by time."""

    def __init__(self) -> None:
        self.changes: list[tuple[int, int, int]] = []

    def conservative(self, from_ms: int, to_ms: int) -> tuple[int, int]:
        inside = [i for i, change in enumerate(self.changes) if from_ms < change[0] <= to_ms]
        first = max((i for i, change in enumerate(self.changes) if change[0] <= from_ms), default=0)
        seen = [self.changes[i] for i in {first, *inside}]
        return max(change[1] for change in seen), min(change[2] for change in seen)


@given(
    st.lists(st.tuples(st.integers(1, 40_000), st.integers(0, 99), st.integers(0, 99)), min_size=2, max_size=60),
    st.data(),
)
def test_the_bounded_history_never_understates_the_share(
    changes: list[tuple[int, int, int]], data: st.DataObject
) -> None:
    history, plain, at_ms = CountHistory(), Plain(), T0
    before = np.array([0]), np.array([0])
    for after_ms, known, control in changes:
        at_ms += after_ms
        after = np.array([known]), np.array([control])
        history.state(at_ms, before, after)
        plain.changes.append((at_ms, known, control))
        before = after
    history = CountHistory.restore(history.snapshot())
    from_ms = data.draw(st.integers(plain.changes[0][0], at_ms))
    to_ms = data.draw(st.integers(from_ms, at_ms))
    highest, lowest = history.envelope(from_ms, to_ms, np.array([0]))
    most, fewest = plain.conservative(from_ms, to_ms)
    assert highest[0] >= most
    assert lowest[0] <= fewest


def test_a_long_history_stays_bounded_and_coarsens() -> None:
    history = CountHistory()
    before = np.array([0]), np.array([10_000])
    for second in range(0, 30 * 3600, 7):
        after = np.array([second // 60]), np.array([10_000 - second // 60])
        history.state(T0 + second * 1000, before, after)
        before = after
    assert len(history.times_ms) < 24 * 4 + 2 * 60 + 600 + 200
    assert history.times_ms[0] <= T0 + 4 * 3_600_000 + 60_000
    # By the quarter of an hour (as it is compacted, its first minutes are still rows), then by the minute.
    known, control = history.envelope(T0 + 20 * 3_600_000, T0 + 20 * 3_600_000 + 60_000, np.array([0]))
    assert (known[0], control[0]) == (1205, 8795)
    known, control = history.envelope(T0 + 29 * 3_600_000, T0 + 29 * 3_600_000 + 59_000, np.array([0]))
    assert (known[0], control[0]) == (1740, 8260)


def test_a_crash_is_scored_against_the_counts_of_its_time() -> None:
    counts, bound = CohortCounts([True], [True]), ExposureBound(rollout(Bound.OFFERED))
    for second, exposed in ((1, 10), (30, 500), (60, 900)):
        said = window(at_risk=[AtRisk(CELLS[0], 0, exposed, 1000 - exposed)])
        counts.state(T0 + second * 1000, [(0, said)])
    late = Place(0, T0 + 15_000, T0 + 59_750, T0 + 60_000)
    now = Place(0, T0 + 59_900, T0 + 59_750, T0 + 60_000)
    shares = counts.shares([late, now, now], np.array([True, True, False]), bound, T0 + 60_000)
    # Inside a step's interval the conservative end counts: most exposed, fewest controls. The crashed device is added.
    assert shares.upper[:, NOBODY].tolist() == pytest.approx([11 / 1001, 901 / 1001, 900 / 1000])
    assert shares.upper[:, 5].tolist() == shares.upper[:, NOBODY].tolist()
    # Without the only group that has devices there, the one that crashed is alone in its arm.
    assert shares.upper[:, 0].tolist() == [1.0, 1.0, 0.0]
    assert shares.known.tolist() == pytest.approx([10 / 1000, 900 / 1000, 900 / 1000])


def test_cells_beyond_the_bound_are_not_compared() -> None:
    counts = CohortCounts([True], [True])
    rows = [AtRisk(f"{number}|laptop|early|old|recent", 0, 1, 1) for number in range(CELLS_MAX + 9)]
    counts.state(T0, [(0, window(at_risk=rows))])
    assert len(counts.cells) == CELLS_MAX
    assert counts.column("one more") is None
    assert counts.known_total == CELLS_MAX


@given(
    st.lists(
        st.tuples(
            st.integers(0, 1),
            st.booleans(),
            st.lists(
                st.tuples(st.integers(0, 2), st.integers(0, 1), st.integers(0, 50), st.integers(0, 50)), max_size=4
            ),
        ),
        max_size=12,
    ),
    st.lists(st.booleans(), max_size=4),
)
def test_sums_are_always_what_live_partitions_said_last(
    said: list[tuple[int, bool, list[tuple[int, int, int, int]]]], lives: list[bool]
) -> None:
    counts = CohortCounts([True, True], [True, True])
    truth: list[dict[tuple[int, int], tuple[int, int]]] = [{}, {}]
    live = [True, True]
    for number, (partition, full, rows) in enumerate(said):
        if number < len(lives):
            live[number % 2] = lives[number]
            counts.set_live(number % 2, lives[number], T0 + number)
        if full:
            truth[partition].clear()
        truth[partition].update({(cell, group): (e, c) for cell, group, e, c in rows})
        counts.state(
            T0 + number,
            [(partition, window(full=full, at_risk=[AtRisk(CELLS[cell], group, e, c) for cell, group, e, c in rows]))],
        )
    counts = CohortCounts.restore(counts.snapshot())
    for cell in range(3):
        column = counts.cells.index(CELLS[cell]) if CELLS[cell] in counts.cells else None
        for arm in (0, 1):
            wanted = sum(v[arm] for p in (0, 1) if live[p] for k, v in truth[p].items() if k[0] == cell)
            assert (counts.at_risk(column)[arm] if column is not None else 0) == wanted
