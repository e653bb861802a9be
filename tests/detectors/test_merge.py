"""The order of merged steps, and which partitions are waited for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.merge import StepMerger
from support.cohorts import T0, step

QUARTER = 250


def drain(merger: StepMerger) -> list[tuple[int, int]]:
    taken = []
    while group := merger.head():
        merger.take(group)
        taken += [(one.watermark_ms - T0, one.partition) for one in group]
    return taken


def chain(partition: int, steps: int) -> list[tuple[int, int, int]]:
    return [(partition, n * QUARTER, (n + 1) * QUARTER) for n in range(steps)]


@given(st.permutations([0] * 6 + [1] * 6 + [2] * 6))
def test_steps_come_by_watermark_then_partition_whatever_the_order(order: list[int]) -> None:
    merger = StepMerger(3, 10)
    done, taken = [0, 0, 0], []
    for partition in order:
        since = T0 + done[partition] * QUARTER if done[partition] else 0
        done[partition] += 1
        merger.offer(step(partition, since, T0 + done[partition] * QUARTER), 0)
        taken += drain(merger)
    assert taken == [(n * QUARTER, p) for n in range(1, 7) for p in range(3)]
    assert not any(one.gaps for one in merger.partitions)


def test_a_partition_that_never_spoke_is_waited_for_only_so_long() -> None:
    merger = StepMerger(2, 10)
    merger.offer(step(0, 0, T0), 1000)
    assert merger.head() == []
    merger.offer(step(0, T0, T0 + 9000), 10_900)
    assert merger.head() == []
    merger.offer(step(0, T0 + 9000, T0 + 11_000), 11_100)
    assert merger.left_out == [1]
    assert [one.watermark_ms for one in merger.head()] == [T0]


def test_a_slow_partition_is_left_out_by_both_clocks_only() -> None:
    merger = StepMerger(2, 10)
    for partition in (0, 1):
        merger.offer(step(partition, 0, T0), 0)
    merger.offer(step(0, T0, T0 + 500_000), 5000)
    assert merger.left_out == []
    merger.offer(step(0, T0 + 500_000, T0 + 500_250), 14_000)
    assert merger.left_out == []
    merger.offer(step(0, T0 + 500_250, T0 + 500_500), 16_000)
    assert merger.left_out == [1]
    merger.offer(step(1, T0, T0 + 500_250), 16_100)
    assert merger.left_out == []


def test_too_many_waiting_steps_leave_the_slow_out_at_once() -> None:
    merger = StepMerger(2, 10, pending_max=20)
    merger.offer(step(1, 0, T0), 0)
    since = 0
    for n in range(22):
        merger.offer(step(0, since, T0 + 1000 * n), 0)
        since = T0 + 1000 * n
    assert merger.left_out == [1]
    assert len(drain(merger)) == 23


def test_gaps_stale_and_repeated_steps_are_noted() -> None:
    merger = StepMerger(1, 10)
    assert merger.offer(step(0, 0, T0, generation=2), 0)
    assert not merger.offer(step(0, 0, T0, generation=2), 0)
    assert not merger.offer(step(0, T0, T0 + 1, generation=1), 0)
    assert merger.offer(step(0, T0 + 5, T0 + 9, generation=2), 0)
    assert merger.take(merger.head()) == []
    assert merger.take(merger.head()) == [0]
    assert (merger.partitions[0].ignored, merger.partitions[0].gaps) == (2, 1)


def test_a_stranger_among_partitions_is_refused() -> None:
    with pytest.raises(IndexError, match="device_partitions"):
        StepMerger(2, 10).offer(step(2, 0, T0), 0)


def test_a_restored_merger_goes_on_with_what_was_waiting() -> None:
    merger = StepMerger(2, 10)
    for partition, since, watermark in [*chain(0, 4), *chain(1, 2)]:
        merger.offer(step(partition, since, T0 + watermark), 0)
    again = StepMerger(2, 10)
    again.restore(merger.snapshot())
    assert drain(again) == drain(merger)
    again.offer(step(1, T0 + 500, T0 + 1000), 0)
    assert [one.partition for one in again.head()] == [0]
