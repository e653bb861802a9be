"""What a process holds is set aside from the collector, and cycles among it are freed all the same, sooner or later."""

import gc
import time
import weakref
from collections.abc import Iterator

import pytest

from deploy.serving.garbage import THRESHOLDS, collect_whole, set_aside, sparing_collections

WAIT_SECONDS = 10.0


class Knot:
    """Refers to itself: only the collector frees it."""

    def __init__(self) -> None:
        self.me = self


@pytest.fixture(autouse=True)
def nothing_set_aside() -> Iterator[None]:
    yield
    gc.unfreeze()


def until_gone(told: "weakref.ref[Knot]") -> bool:
    end = time.monotonic() + WAIT_SECONDS
    while told() is not None and time.monotonic() < end:
        time.sleep(0.01)
    return told() is None


def test_what_is_held_is_looked_at_no_more() -> None:
    held = [[number] for number in range(20_000)]
    set_aside()
    assert gc.get_freeze_count() > len(held)
    assert sum(gc.get_count()) < 20_000
    assert not {id(one) for one in held} & {id(one) for one in gc.get_objects()}


def test_a_knot_of_new_objects_is_freed_when_set_aside() -> None:
    told = weakref.ref(Knot())
    set_aside()
    assert told() is None


def test_a_knot_that_was_set_aside_goes_with_the_whole_look() -> None:
    knot = Knot()
    told = weakref.ref(knot)
    set_aside()
    del knot
    set_aside()
    assert told() is not None
    assert collect_whole() > 0
    assert told() is None


def test_while_the_block_lasts_it_is_done_again_and_again() -> None:
    before = gc.get_threshold()
    with sparing_collections(aside_seconds=0.01, whole_seconds=0.05):
        assert gc.get_threshold() == THRESHOLDS
        knot = Knot()
        told = weakref.ref(knot)
        time.sleep(0.03)
        del knot
        assert until_gone(told)
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0
