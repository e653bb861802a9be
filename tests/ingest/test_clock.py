"""Clocks: the wall clock tells milliseconds UTC, the driven one moves only when told and never back."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.clock import Clock, DrivenClock, WallClock
from ingest.events import TIME_MAX_MS, TIME_MIN_MS


@pytest.mark.parametrize("clock", [WallClock(), DrivenClock(1_721_362_140_000)])
def test_every_clock_tells_whole_milliseconds_of_this_century_and_never_goes_back(clock: Clock) -> None:
    told = [clock.now_ms() for _ in range(100)]
    assert all(type(at_ms) is int for at_ms in told)
    assert told == sorted(told)
    assert TIME_MIN_MS <= told[0] <= TIME_MAX_MS


def test_the_wall_clock_is_the_machine_s() -> None:
    before = int(time.time() * 1000)
    told = WallClock().now_ms()
    assert before - 1 <= told <= int(time.time() * 1000) + 1


@given(st.lists(st.integers(0, 2**53), min_size=1))
def test_a_driven_clock_follows_and_refuses_to_go_back(times: list[int]) -> None:
    clock = DrivenClock()
    furthest = 0
    for at_ms in times:
        if at_ms >= furthest:
            clock.drive_to(at_ms)
            furthest = at_ms
        else:
            with pytest.raises(ValueError, match="cannot go back"):
                clock.drive_to(at_ms)
        assert clock.now_ms() == furthest


def test_a_driven_clock_stands_still() -> None:
    clock = DrivenClock(5)
    clock.drive_to(5)
    assert clock.now_ms() == 5
