"""Evidence by tenant group: valid, bit for bit the same in batches, and deaf to whoever is left out."""

import doctest
import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

import detectors.tenants
from detectors.sequential import RateRatio
from detectors.tenants import GROUPS, NOBODY, ROWS, TenantRatio

EVENTS = st.lists(st.tuples(st.booleans(), st.integers(0, 4), st.floats(0, 1), st.floats(0, 1)), max_size=40)


def told(events: list[tuple[bool, int, float, float]]) -> tuple[list[bool], npt.NDArray[np.float64], list[int]]:
    """Return arms, shares (without group 2 another one) and groups."""
    shares = np.array([[share] * ROWS for _, _, share, _ in events]).reshape(len(events), ROWS)
    shares[:, 2] = [without for _, _, _, without in events]
    return [arm for arm, _, _, _ in events], shares, [group for _, group, _, _ in events]


@settings(max_examples=40)
@given(EVENTS, st.integers(0, 40))
def test_a_batch_and_a_restore_give_the_same_bits_as_event_by_event(
    events: list[tuple[bool, int, float, float]], cut: int
) -> None:
    x, shares, groups = told(events)
    batch, single = TenantRatio(), TenantRatio()
    path = batch.update(x, shares, groups)
    for index in range(len(x)):
        if index == cut:
            single = TenantRatio.restore(single.snapshot())
        row = single.update(x[index : index + 1], shares[index : index + 1], groups[index : index + 1])[0]
        assert row.tobytes() == path[index].tobytes()
    assert single.log_evidence.tobytes() == batch.log_evidence.tobytes()
    assert TenantRatio.restore(batch.snapshot()).log_evidence.tobytes() == batch.log_evidence.tobytes()


@given(EVENTS, EVENTS, st.integers(0, 4))
def test_a_row_does_not_contain_a_number_of_the_group_it_leaves_out(
    honest: list[tuple[bool, int, float, float]], lies: list[tuple[bool, int, float, float]], liar: int
) -> None:
    honest = [event for event in honest if event[1] != liar]
    mixed = [*honest[::2], *((arm, liar, share, other) for arm, _, share, other in lies), *honest[1::2]]
    quiet, loud = TenantRatio(), TenantRatio()
    order = [*honest[::2], *honest[1::2]]
    for detector, events in ((quiet, order), (loud, mixed)):
        x, shares, groups = told(events)
        # What the liar says of his devices moves every share but the one without him.
        moved = np.array([[0.3] * ROWS if detector is loud else row for row in shares]).reshape(len(events), ROWS)
        moved[:, liar] = 0.1
        detector.update(x, moved, groups)
    assert loud.log_evidence[liar] == pytest.approx(quiet.log_evidence[liar], abs=1e-9)


def test_one_group_alone_is_the_raw_formula_with_a_floor() -> None:
    rng = np.random.default_rng(1)
    x = rng.random(60) < 0.4
    raw, grouped = RateRatio(1.5), TenantRatio(1.5, floor=1e-9)
    for index in range(60):
        raw.update(x[index : index + 1], [0.2])
        grouped.update(x[index : index + 1], np.full((1, ROWS), 0.2), [7])
    assert grouped.log_evidence[NOBODY] == pytest.approx(raw.log_evidence, abs=1e-3)
    assert grouped.log_evidence[7] == pytest.approx(0.0, abs=1e-12)
    assert (grouped.exposed, grouped.control) == (raw.exposed, raw.control)
    assert grouped.expected_share == pytest.approx(0.2)


@pytest.mark.parametrize("tenants", [3, 10])
def test_false_alarms_stay_within_alpha_at_the_tolerated_ratio(tenants: int) -> None:
    """Nobody left out, and without each group: looking after every crash."""
    rng = np.random.default_rng(2)
    alpha, paths = 0.02, 500
    alarms = np.zeros(ROWS)
    for _ in range(paths):
        share = rng.uniform(0.02, 0.6, 120)
        odds = 1.5 * share / (1 - share)
        x = rng.random(120) < odds / (1 + odds)
        path = TenantRatio(1.5).update(x, np.repeat(share[:, None], ROWS, axis=1), rng.integers(0, tenants, 120))
        alarms += path.max(axis=0) >= math.log(1 / alpha)
    assert binom.sf(int(alarms.max()) - 1, paths, alpha) > 1e-3 / ROWS


def needed(tenants: int, flood: int, ratio: float = 100.0, share: float = 0.1) -> float:
    """Return the mean count of honest exposed crashes until evidence suffices without any one group."""
    rng = np.random.default_rng(3)
    counts = []
    for _ in range(60):
        odds = ratio * share / (1 - share)
        x = rng.random(200) < odds / (1 + odds)
        detector = TenantRatio(1.5)
        if flood:
            lies = np.full((flood, ROWS), share)
            detector.update(np.zeros(flood, dtype=bool), lies, np.zeros(flood, dtype=np.int64))
        path = detector.update(x, np.full((200, ROWS), share), rng.integers(1, tenants + 1, 200))
        first = int(np.argmax(path.min(axis=1) >= math.log(1e6)))
        counts.append(int(np.count_nonzero(x[: first + 1])))
    return float(np.mean(counts))


@pytest.mark.parametrize("tenants", [3, 30])
def test_a_flood_of_false_control_crashes_costs_a_handful(tenants: int) -> None:
    quiet, flooded = needed(tenants, 0), needed(tenants, 10_000)
    assert quiet < 20
    # log(10) of evidence, of which a crash at ratio 100 gives about two.
    assert quiet < flooded < quiet + 4


def test_one_group_alone_never_suffices_without_itself() -> None:
    detector = TenantRatio(1.5)
    path = detector.update([True] * 500, np.full((500, ROWS), 0.01), [5] * 500)
    assert path[-1, NOBODY] > math.log(1e6)
    assert path.min(axis=1).max() < 1e-9


@pytest.mark.parametrize(
    ("arms", "shares", "groups", "message"),
    [
        ([True], np.zeros((2, ROWS)), [0], "shapes"),
        ([True], np.zeros((1, 5)), [0], "shapes"),
        ([True], np.full((1, ROWS), 1.5), [0], "share"),
        ([True], np.full((1, ROWS), np.nan), [0], "share"),
        ([True], np.zeros((1, ROWS)), [GROUPS], "group"),
        ([True], np.zeros((1, ROWS)), [-1], "group"),
    ],
)
def test_impossible_numbers_are_refused(
    arms: list[bool], shares: npt.NDArray[np.float64], groups: list[int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        TenantRatio().update(arms, shares, groups)


@pytest.mark.parametrize("floor", [0.0, 1.0, -1.0])
def test_a_floor_is_a_part_of_one(floor: float) -> None:
    with pytest.raises(ValueError, match="floor"):
        TenantRatio(floor=floor)


def test_the_example_holds() -> None:
    assert doctest.testmod(detectors.tenants).failed == 0
