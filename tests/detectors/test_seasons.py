"""Hours of the week in the known baseline: calibrated, gained from, withstanding a liar, restored bit for bit."""

import math
from collections.abc import Sequence

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.baseline import WINDOWS, Baseline, PastRollout
from detectors.seasonal import HOURS_OF_WEEK, hour_of_week
from detectors.seasons import HOUR_MS, PRODUCTS_MAX, HourFactors, HourSums, ProductState, Seasons
from detectors.sequential import Floats
from detectors.shared import Shared
from detectors.tenants import GROUPS, NOBODY, ROWS

MONDAY = 2750 * HOURS_OF_WEEK + (HOURS_OF_WEEK - 72)
RATE_A_DAY = 2e-3
# Exposed device-days of each tenant group in an hour of a rollout.
DAYS_AN_HOUR = 6000
PRODUCT = "contoso/sensor"
LIAR = 7


def level(hour: int) -> float:
    """Return how often an ordinary fleet crashes at an hour of the week: 19 times as often at noon as at midnight."""
    return 1.0 - 0.9 * math.cos(2 * math.pi * (hour % 24) / 24)


def taught(rng: np.random.Generator, weeks: int = 3, groups: Sequence[int] = (0, 1, 2), days: float = 400.0) -> Seasons:
    """Return what some weeks of controls of some tenant groups teach."""
    seasons = Seasons()
    for hour in range(MONDAY, MONDAY + weeks * HOURS_OF_WEEK):
        crashes = {g: int(rng.poisson(days * RATE_A_DAY * level(hour_of_week(hour * HOUR_MS)))) for g in groups}
        assert seasons.add(PRODUCT, hour, {g: [HourSums(720.0, n, days)] for g, n in crashes.items()})
    return seasons


def now_ms(weeks: int = 3) -> int:
    return (MONDAY + weeks * HOURS_OF_WEEK) * HOUR_MS


def known(seasons: Seasons, at_ms: int) -> HourFactors:
    """Return what is known once every group had its turn to be fitted: one of them in an hour."""
    factors = None
    for hour in range(GROUPS):
        factors = seasons.factors(PRODUCT, at_ms + hour * HOUR_MS)
    assert factors is not None
    return factors


def past_at(rng: np.random.Generator, origin_ms: int) -> PastRollout:
    """Return a healthy past rollout, watched for its first six hours, of three tenant groups."""
    groups: dict[int, tuple[tuple[int, ...], tuple[float, ...]]] = {}
    for group in range(3):
        crashes, seconds = [0] * WINDOWS, [0.0] * WINDOWS
        for age in range(6):
            lasted = 86_400.0 * DAYS_AN_HOUR
            window = 0 if age < 1 else 1
            rate = RATE_A_DAY / 86_400 * level(hour_of_week(origin_ms + age * HOUR_MS))
            crashes[window] += int(rng.poisson(rate * lasted))
            seconds[window] += lasted
        groups[group] = tuple(crashes), tuple(seconds)
    total = [tuple(sum(column) for column in zip(*(one[n] for one in groups.values()), strict=True)) for n in (0, 1)]
    return PastRollout(tuple(int(n) for n in total[0]), total[1], groups, origin_ms)


def highest(
    rng: np.random.Generator, detector: Baseline, factors: HourFactors | None, begin_ms: int, ratio: float
) -> float:
    """Run a rollout's second to sixth hour in stretches of five minutes; return the highest log10 evidence."""
    for stretch in range(12, 72):
        at_ms = begin_ms + stretch * 300_000
        seconds = 86_400.0 * DAYS_AN_HOUR / 12
        rate = RATE_A_DAY / 86_400 * level(hour_of_week(at_ms)) * ratio
        crashes = {group: int(rng.poisson(rate * seconds)) for group in range(3)}
        factor = 1.0 if factors is None else factors.at(hour_of_week(at_ms))
        detector.update(1, crashes, dict.fromkeys(range(3), seconds), factor=factor)
    return detector.maximum / math.log(10)


def test_a_past_of_nights_says_what_a_noon_is_like() -> None:
    """Healthy rollouts at noon after twenty at midnight: all kill without the hours, none is even held with them."""
    rng = np.random.default_rng(1)
    factors = known(taught(rng), now_ms())
    told = {True: [0.0], False: [0.0]}
    expected, seen = 0.0, 0
    for _ in range(30):
        past = [past_at(rng, (MONDAY + day * 24 - 4) * HOUR_MS) for day in range(1, 21)]
        weights = factors.past([one.origin_ms for one in past])
        with_hours, without = Baseline(past, 1.5, weights), Baseline(past, 1.5)
        noon = now_ms() + 9 * HOUR_MS
        told[True].append(highest(rng, with_hours, factors, noon, 1.0))
        told[False].append(highest(rng, without, None, noon, 1.0))
        expected, seen = expected + with_hours.expected, seen + with_hours.crashes
    assert max(told[True]) < 2
    assert sum(one > 6 for one in told[False]) >= 25
    assert 0.85 < seen / expected < 1.15, "calibrated: as many crashes as expected"


def test_harm_at_night_is_found_with_less() -> None:
    """Past rollouts at all hours look unlike each other until their hours count: then a bad one stands out sooner."""
    rng = np.random.default_rng(2)
    factors = known(taught(rng), now_ms())
    found = {True: 0, False: 0}
    for _ in range(20):
        past = [past_at(rng, (MONDAY + 29 * number) * HOUR_MS) for number in range(20)]
        night = now_ms() + 22 * HOUR_MS
        with_hours = Baseline(past, 1.5, factors.past([one.origin_ms for one in past]))
        found[True] += highest(rng, with_hours, factors, night, 15.0) > 3
        found[False] += highest(rng, Baseline(past, 1.5), None, night, 15.0) > 3
    assert found[True] >= 18
    assert found[False] <= 5


LIES = st.lists(
    st.tuples(st.integers(0, HOURS_OF_WEEK - 1), st.integers(0, 100_000), st.floats(0.001, 1e7)),
    min_size=1,
    max_size=12,
)


@settings(max_examples=5, deadline=None)
@given(LIES)
def test_no_lie_about_controls_is_left_where_the_liar_is_left_out(lies: list[tuple[int, int, float]]) -> None:
    """Whatever a tenant group says of its controls: in its row nothing of it is left, in others only its own."""
    honest, lied = (known(one, now_ms()) for one in _lied_to(lies))
    past = [past_at(np.random.default_rng(n), (MONDAY + 7 * n) * HOUR_MS) for n in range(4)]
    origins = [one.origin_ms for one in past]
    for hour in (3, 100):
        assert (lied.at(hour)[LIAR] == honest.at(hour)[LIAR]).all()
        assert (lied.at(hour)[:, :3] == honest.at(hour)[:, :3]).all(), "those with a history go by their own"
        thin = lied.at(hour)[NOBODY, 20]
        others = [honest.own[group][hour] for group in range(3)]
        assert 0.8 * min(others) <= thin <= 1.25 * max(others), "the median of four lies within the honest three"
    rows = [Baseline(past, 1.5, one.past(origins)) for one in (honest, lied)]
    for detector, factors in zip(rows, (honest, lied), strict=True):
        detector.add(1, {0: 4, LIAR: 900}, {0: 1e5, LIAR: 1.0}, factor=factors.at(3))
    assert rows[0].settle()[LIAR] == rows[1].settle()[LIAR]


def _lied_to(lies: list[tuple[int, int, float]]) -> tuple[Seasons, Seasons]:
    honest, lied = (taught(np.random.default_rng(5), 1, days=4000.0) for _ in range(2))
    hour = MONDAY + HOURS_OF_WEEK
    told = {LIAR: [HourSums(720.0, crashes, days) for _, crashes, days in lies]}
    for place in range(60):
        assert lied.add(PRODUCT, hour + place, told if place in {one[0] % 60 for one in lies} else _quiet(LIAR))
        assert honest.add(PRODUCT, hour + place, _quiet(0))
    return honest, lied


def _quiet(group: int) -> dict[int, list[HourSums]]:
    return {group: []}


def test_a_snapshot_goes_on_bit_for_bit() -> None:
    """Restored before every hour, the state and the factors are those of the one that was never restored."""
    rng = np.random.default_rng(8)
    straight, restored = Seasons(), Seasons()
    for hour in range(MONDAY, MONDAY + 100):
        told = {g: [HourSums(720.0, int(rng.poisson(2.0)), 100.0)] for g in range(2)}
        again = msgspec.msgpack.decode(msgspec.msgpack.encode(restored.snapshot()), type=dict[str, ProductState])
        restored = Seasons.restore(again)
        for one in (straight, restored):
            one.add(PRODUCT, hour, told)
            if hour % 30 == 0:
                one.factors(PRODUCT, hour * HOUR_MS)
    assert straight.snapshot() == restored.snapshot()
    assert (known(straight, now_ms()).at(5) == known(restored, now_ms()).at(5)).all()


def test_a_baseline_with_hours_goes_on_bit_for_bit() -> None:
    rng = np.random.default_rng(3)
    factors = known(taught(rng), now_ms())
    past = [past_at(rng, (MONDAY + 5 * n) * HOUR_MS) for n in range(5)]
    straight = restored = Baseline(past, 1.5, factors.past([one.origin_ms for one in past]))
    for hour in range(30):
        restored = Baseline.restore(restored.snapshot())
        for one in (straight, restored):
            one.update(1, {hour % 3: hour % 2}, {0: 5000.0, 2: 100.0}, factor=factors.at(hour))
        assert straight.snapshot() == restored.snapshot()
    assert restored.seasoned


def test_an_hour_counts_once_and_old_weeks_fade() -> None:
    """Several rollouts of a product see the same controls; the first to tell an hour is believed."""
    seasons = Seasons()
    assert seasons.add(PRODUCT, MONDAY, {0: [HourSums(720.0, 10, 100.0)]})
    assert not seasons.add(PRODUCT, MONDAY, {0: [HourSums(720.0, 10, 100.0)]})
    assert seasons.add(PRODUCT, MONDAY + 7 * HOURS_OF_WEEK, {0: [HourSums(720.0, 10, 100.0)]})
    shared = Shared()
    shared.seasons = seasons
    held = Shared.restore(shared.snapshot()).snapshot().seasons[PRODUCT].groups[0]
    crashes: Floats = np.frombuffer(held.crashes)
    assert math.isclose(crashes.sum(), 10 + 10 * 0.9**7)


def test_products_are_bounded_and_the_one_told_of_longest_ago_makes_room() -> None:
    seasons = Seasons()
    for number in range(PRODUCTS_MAX + 10):
        seasons.add(f"v/p{number}", MONDAY + number, {0: [HourSums(720.0, 1, 1.0)]})
    assert set(seasons.snapshot()) == {f"v/p{number}" for number in range(10, PRODUCTS_MAX + 10)}


def test_without_a_group_that_knows_device_time_counts_as_it_is() -> None:
    whole = np.ones((ROWS, GROUPS))
    whole[np.arange(GROUPS), np.arange(GROUPS)] = 0.0
    assert (HourFactors({}).at(9) == whole).all()
    assert np.allclose(HourFactors({}).past([0, now_ms()]), whole)
    assert Seasons().factors(PRODUCT, now_ms()) is None
