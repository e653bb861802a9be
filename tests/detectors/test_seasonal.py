"""Expected crash rates: the truth is found again, thin histories stay flat, nothing falls below the floor."""

import doctest

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors import seasonal
from detectors.seasonal import (
    AGE_ENDS_HOURS,
    FLOOR_SHARE,
    HOURS_OF_WEEK,
    SeasonalHistory,
    SeasonalRates,
    hour_of_week,
)

AGES = (0.2, 0.7, 2.0, 4.0, 9.0, 18.0, 36.0, 60.0, 100.0, 150.0, 250.0, 500.0, 1500.0)


def true_rate(hour: int, age: float) -> float:
    busy = hour < 120 and 8 <= hour % 24 < 18
    return 0.002 * (2.5 if busy else 0.7) * (1.0 + 4.0 / (1.0 + age))


def drawn(seed: int, days: float, hours: range = range(HOURS_OF_WEEK)) -> SeasonalHistory:
    draw = np.random.default_rng(seed)
    history = SeasonalHistory()
    for hour in hours:
        for age in AGES:
            crashes = int(draw.poisson(true_rate(hour, age) * days))
            history.add(hour, age, crashes=crashes, device_days=days)
    return history


def test_the_doctests_hold() -> None:
    assert doctest.testmod(seasonal).failed == 0


@pytest.mark.parametrize(
    ("at_ms", "offset", "hour"),
    [
        (0, 0, 72),  # Thursday 1970-01-01 00:00.
        (1_721_362_140_000, 0, 100),  # Friday 2024-07-19 04:09 UTC.
        (1_721_362_140_000, -300, 95),  # Thursday 23:09 in Dallas.
        (1_721_606_400_000 - 1, 0, 167),  # The last millisecond of Sunday.
        (1_721_606_400_000, 0, 0),
    ],
)
def test_hours_of_the_week_begin_on_monday(at_ms: int, offset: int, hour: int) -> None:
    assert hour_of_week(at_ms, offset) == hour


def test_rates_are_found_again() -> None:
    rates = SeasonalRates.fit(drawn(1, days=20_000.0))
    assert rates.note == ""
    assert 0.8 < rates.dispersion < 1.3
    ratios = [
        rates.predict(hour, age) / true_rate(hour, age)
        for hour in (2, 9, 12, 17, 60, 130, 150)
        for age in (0.7, 4.0, 18.0, 100.0, 500.0)
    ]
    assert 0.75 < min(ratios) < 1.05
    assert 0.95 < max(ratios) < 1.35


def test_a_fit_expects_on_fresh_draws_what_comes() -> None:
    rates = SeasonalRates.fit(drawn(2, days=5_000.0))
    crashes, days = drawn(3, days=5_000.0).table()
    hours = np.repeat(np.arange(HOURS_OF_WEEK), len(AGES))
    expected = (rates.predict_many(hours, np.tile(AGES, HOURS_OF_WEEK)) * days.ravel()).sum()
    assert abs(crashes.sum() - expected) < 5 * np.sqrt(2 * expected)
    busy = np.array([hour < 120 and 8 <= hour % 24 < 18 for hour in range(HOURS_OF_WEEK)])
    quiet_rows = (rates.predict_many(hours, np.tile(AGES, HOURS_OF_WEEK)) * days.ravel()).reshape(days.shape)[~busy]
    assert abs(quiet_rows.sum() / crashes[~busy].sum() - 1.0) < 0.05


def test_the_hour_effect_matters() -> None:
    """Without it the office hours would be judged by the week's mean: the flat rate misses by half."""
    rates = SeasonalRates.fit(drawn(4, days=20_000.0))
    assert rates.predict(12, 100.0) / rates.predict(26, 100.0) > 2.8


def test_an_hour_never_seen_follows_its_neighbours() -> None:
    seen = [hour for hour in range(HOURS_OF_WEEK) if hour != 61]
    history = SeasonalHistory()
    for hour in seen:
        busy = hour < 120 and 8 <= hour % 24 < 18
        history.add(hour, 100.0, crashes=60 if busy else 20, device_days=10_000.0)
    rates = SeasonalRates.fit(history)
    assert 0.7 < rates.predict(61, 100.0) / rates.predict(60, 100.0) < 1.4


@pytest.mark.parametrize("hours", [range(47), range(HOURS_OF_WEEK)])
def test_a_thin_history_is_flat_and_says_so(hours: range) -> None:
    history = SeasonalHistory()
    crashes = 100 if len(hours) < 48 else 0
    for hour in hours:
        history.add(hour, 10.0, crashes=crashes, device_days=100.0)
    if not crashes:
        history.add(3, 10.0, crashes=29, device_days=100.0)
    rates = SeasonalRates.fit(history)
    assert rates.note.startswith("flat: ")
    total = history.crashes + 0.5
    assert rates.predict(3, 0.0) == rates.predict(100, 900.0) == total / history.device_days


def test_one_crash_more_and_it_is_not_flat() -> None:
    history = SeasonalHistory()
    for hour in range(48):
        history.add(hour, 10.0, crashes=30 if hour == 5 else 0, device_days=100.0)
    assert SeasonalRates.fit(history).note == ""


def test_nothing_falls_below_the_floor() -> None:
    history = SeasonalHistory()
    for hour in range(HOURS_OF_WEEK):
        history.add(hour, 10.0, crashes=0 if hour % 24 < 12 else 4_000, device_days=100_000.0)
    rates = SeasonalRates.fit(history)
    assert rates.predict(3, 10.0) == rates.floor == FLOOR_SHARE * rates.mean_rate > 0


def test_no_crash_at_all_is_no_rate_of_zero() -> None:
    history = SeasonalHistory()
    history.add(0, 0.0, crashes=0, device_days=1e6)
    assert SeasonalRates.fit(history).predict(0, 0.0) == pytest.approx(0.5e-6)


def test_an_incident_left_in_raises_the_expected_rate_only() -> None:
    clean, spoilt = drawn(5, days=5_000.0), drawn(5, days=5_000.0)
    spoilt.add(40, 10.0, crashes=5_000, device_days=1.0)
    before, after = SeasonalRates.fit(clean), SeasonalRates.fit(spoilt)
    assert after.predict(40, 10.0) > before.predict(40, 10.0)
    assert after.dispersion > 2.0 > before.dispersion


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, HOURS_OF_WEEK - 1),
            st.floats(0, 1e4),
            st.integers(0, 10_000),
            st.floats(1e-3, 1e9),
        ),
        min_size=1,
        max_size=200,
    )
)
def test_any_history_gives_rates_and_goes_on_from_a_restore(rows: list[tuple[int, float, int, float]]) -> None:
    history = SeasonalHistory()
    for at, (hour, age, crashes, days) in enumerate(rows):
        if at == len(rows) // 2:
            history = SeasonalHistory.restore(history.snapshot())
        history.add(hour, age, crashes=crashes, device_days=days)
    rates = SeasonalRates.fit(history)
    again = SeasonalRates.restore(rates.snapshot())
    hours = np.arange(HOURS_OF_WEEK)
    for age in (0.0, 3.0, *AGE_ENDS_HOURS, 1e6):
        got = rates.predict_many(hours, np.full(HOURS_OF_WEEK, age))
        assert np.isfinite(got).all()
        assert (got >= rates.floor).all()
        assert got.tobytes() == again.predict_many(hours, np.full(HOURS_OF_WEEK, age)).tobytes()
    assert (again.dispersion, again.note, again.mean_rate) == (rates.dispersion, rates.note, rates.mean_rate)


def test_fading_keeps_rates_and_loses_weight() -> None:
    history = drawn(6, days=1_000.0)
    rate, days = history.crashes / history.device_days, history.device_days
    history.fade(0.5)
    assert history.device_days == pytest.approx(days / 2)
    assert history.crashes / history.device_days == pytest.approx(rate)


@pytest.mark.parametrize(
    ("hour", "age", "crashes", "days"),
    [(-1, 0, 0, 1), (168, 0, 0, 1), (0, -1, 0, 1), (0, 0, -1, 1), (0, 0, 1, 0), (0, float("nan"), 0, 1),
     (0, 0, 0, float("inf")), (0, 0, 0, -1)],
)  # fmt: skip
def test_impossible_stretches_are_refused(hour: int, age: float, crashes: int, days: float) -> None:
    with pytest.raises(ValueError, match=r"hour|must|time"):
        SeasonalHistory().add(hour, age, crashes=crashes, device_days=days)


def test_asking_or_fitting_the_impossible_is_refused() -> None:
    with pytest.raises(ValueError, match="no device-time"):
        SeasonalRates.fit(SeasonalHistory())
    rates = SeasonalRates(0.01, np.zeros(168), np.zeros(7))
    with pytest.raises(ValueError, match="hours must lie"):
        rates.predict(168, 0.0)
    with pytest.raises(ValueError, match="ages be 0"):
        rates.predict(0, -1.0)
    with pytest.raises(ValueError, match="shapes"):
        SeasonalRates(0.01, np.zeros(24), np.zeros(7))
    with pytest.raises(ValueError, match="mean rate"):
        SeasonalRates(0.0, np.zeros(168), np.zeros(7))
    with pytest.raises(ValueError, match="weight"):
        SeasonalHistory().fade(1.5)


@pytest.mark.parametrize("seed", range(3))
def test_rates_that_differ_beyond_reason_still_give_numbers(seed: int) -> None:
    draw = np.random.default_rng(seed)
    history = SeasonalHistory()
    for _ in range(300):
        crashes, days = int(np.exp(draw.uniform(0, 12))), float(np.exp(draw.uniform(-7, 20)))
        history.add(int(draw.integers(168)), float(draw.uniform(0, 900)), crashes=crashes, device_days=days)
    rates = SeasonalRates.fit(history)
    assert np.isfinite(rates.predict_many(np.arange(168), np.full(168, 3.0))).all()
    assert rates.dispersion > 1_000


def test_a_fit_that_does_not_settle_is_flat_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seasonal, "SETTLED", -1.0)
    rates = SeasonalRates.fit(drawn(7, days=50.0, hours=range(50)))
    assert "look for an incident" in rates.note
    assert rates.predict(3, 0.0) == rates.predict(60, 500.0)
    assert rates.dispersion == np.inf
