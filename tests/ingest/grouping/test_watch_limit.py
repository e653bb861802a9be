"""Who makes room when a product has more rollouts than are watched: inventions, before anything a system declared."""

import msgspec
import pytest

from ingest.events import RolloutNotice
from ingest.grouping.cohorts import ROLLOUTS_PER_PRODUCT_MAX
from support.grouping_bench import Bench
from support.world import PRODUCT, T0, VENDOR


def notice(number: int, *, declared: bool) -> RolloutNotice:
    return RolloutNotice(
        rollout=f"r-{number}",
        vendor=VENDOR,
        product=PRODUCT,
        version=f"{number}.0",
        origin_ms=T0 + number * 1000,
        declared=True if declared else msgspec.UNSET,
    )


@pytest.fixture
def bench() -> Bench:
    return Bench()


def watched(bench: Bench, *notices: RolloutNotice) -> list[str]:
    cohorts = bench.partition.population.cohorts
    for one in notices:
        cohorts.watch(one, one.origin_ms)
    return sorted(cohorts.watched)


def test_a_thousand_invented_versions_push_out_nothing_that_was_declared(bench: Bench) -> None:
    real = notice(0, declared=True)
    left = watched(bench, real, *(notice(number, declared=False) for number in range(1, 1001)))
    assert left == ["r-0", "r-1000", "r-998", "r-999"]


def test_among_declared_ones_the_oldest_makes_room_and_no_invention_takes_its_place(bench: Bench) -> None:
    four = [notice(number, declared=True) for number in range(ROLLOUTS_PER_PRODUCT_MAX)]
    assert watched(bench, *four, notice(9, declared=False)) == ["r-0", "r-1", "r-2", "r-3"]
    assert watched(bench, notice(5, declared=True)) == ["r-1", "r-2", "r-3", "r-5"]


def test_one_that_is_declared_later_is_kept_like_a_declared_one(bench: Bench) -> None:
    found = [notice(number, declared=False) for number in range(ROLLOUTS_PER_PRODUCT_MAX)]
    left = watched(bench, *found, notice(0, declared=True), notice(7, declared=False))
    assert left == ["r-0", "r-2", "r-3", "r-7"]
