"""What the methods come to: without whichever group carries most, latched, and what may not kill left out."""

import math

import numpy as np
import pytest

from detectors.combine import combine, combine_rows
from detectors.latch import Latch, Parts
from detectors.tenants import NOBODY, ROWS

WEIGHTS = (0.5, 0.1, 0.3, 0.1)
NOTHING = np.zeros(ROWS)


def parts(rate: float = 0.0, without: dict[int, float] | None = None, **others: float) -> Parts:
    """Return evidence of the rate ratio, less without some groups, and of other methods."""
    rows = np.full(ROWS, rate)
    for group, value in (without or {}).items():
        rows[group] = value
    told = {name: np.full(ROWS, others.get(name, 0.0)) for name in ("novelty", "silence", "baseline")}
    return Parts(rows, told["novelty"], told["silence"], told["baseline"], np.asarray(others.get("early", rate)))


def test_a_kill_counts_what_is_left_without_the_loudest_group() -> None:
    latch = Latch(WEIGHTS, [], one_may_kill=False)
    assert latch.take(parts(30.0, {4: 2.0}), baseline_may_kill=True)
    assert latch.everybody_max == pytest.approx(combine([30.0, 0, 0, 0], WEIGHTS))
    assert latch.kill_max == pytest.approx(combine([2.0, 0, 0, 0], WEIGHTS))
    assert latch.left_out(latch.rows(parts(30.0, {4: 2.0}), baseline=True)) == 4
    assert latch.left_out(latch.rows(parts(30.0), baseline=True)) is None


@pytest.mark.parametrize("latch", [Latch(WEIGHTS, [4], one_may_kill=False), Latch(WEIGHTS, [], one_may_kill=True)])
def test_a_trusted_group_or_a_policy_of_one_tenant_leaves_nobody_out(latch: Latch) -> None:
    latch.take(parts(30.0, {4: 2.0}), baseline_may_kill=True)
    assert latch.kill_max == latch.everybody_max


def test_maxima_latch_and_survive_a_restart() -> None:
    latch = Latch(WEIGHTS, [], one_may_kill=False)
    latch.take(parts(20.0), baseline_may_kill=True)
    assert not latch.take(parts(-5.0), baseline_may_kill=True)
    again = Latch(WEIGHTS, [], one_may_kill=False)
    again.load(latch.snapshot())
    assert again.snapshot() == latch.snapshot()
    assert again.kill_max == pytest.approx(combine([20.0, 0, 0, 0], WEIGHTS))


def test_a_past_that_is_too_short_may_hold_and_never_kill() -> None:
    latch = Latch(WEIGHTS, [], one_may_kill=False)
    latch.take(parts(baseline=40.0), baseline_may_kill=False)
    assert latch.kill_max == pytest.approx(0.0, abs=1e-12)
    assert latch.hold_max == pytest.approx(combine([0, 0, 0, 40.0], WEIGHTS))


def test_evidence_against_what_a_hold_tolerates_holds_and_never_kills() -> None:
    latch = Latch(WEIGHTS, [], one_may_kill=False)
    latch.take(parts(0.0, early=20.0), baseline_may_kill=True)
    assert latch.kill_max == pytest.approx(0.0, abs=1e-12)
    assert latch.hold_max == pytest.approx(combine([20.0, 0, 0, 0], WEIGHTS))


def test_the_evidence_after_each_of_some_crashes_counts_not_only_the_last() -> None:
    path = np.stack([np.full(ROWS, value) for value in (1.0, 25.0, 3.0)])
    still = np.repeat(NOTHING[None], 3, axis=0)
    latch = Latch(WEIGHTS, [], one_may_kill=False)
    latch.take(Parts(path, still, NOTHING, NOTHING, path[:, NOBODY]), baseline_may_kill=True)
    assert latch.kill_max == pytest.approx(combine([25.0, 0, 0, 0], WEIGHTS))


def test_rows_combine_as_single_values_do() -> None:
    rng = np.random.default_rng(1)
    told = [rng.normal(0, 20, ROWS) for _ in WEIGHTS]
    rows = combine_rows(told, WEIGHTS)
    for row in range(ROWS):
        assert rows[row] == pytest.approx(combine([float(one[row]) for one in told], WEIGHTS))
    assert math.isclose(float(combine_rows([NOTHING] * 4, WEIGHTS)[0]), 0.0, abs_tol=1e-12)
