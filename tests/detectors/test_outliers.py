"""Outliers: calibrated on quiet fleets, loud on storms, silent on rollouts, exact over a restore, bounded."""

import doctest
import math
from collections.abc import Iterator

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors import outliers, patterns
from detectors.outliers import ROWS_LEAST, CrashPatterns, PatternScore, e_value
from detectors.patterns import PATTERNS_MAX, WARM_HOURS, History, PatternHour

BUILD, MODEL = "22631.3880", "Latitude 5440"


def quiet(seed: int, hours: int, patterns_count: int = 30) -> Iterator[tuple[int, list[PatternHour]]]:
    """Give the hours of a fleet with days and nights, busy and rare patterns, and hours that shake all of them."""
    draw = np.random.default_rng(seed)
    rates = np.exp(draw.normal(-2.2, 1.3, patterns_count))
    for hour in range(hours):
        shaken = rates * (1 + 0.8 * math.sin(2 * math.pi * hour / 24)) * draw.gamma(8, 1 / 8, patterns_count)
        seen = []
        for number, crashes in enumerate(draw.poisson(shaken).tolist()):
            if crashes:
                devices = int(draw.binomial(crashes - 1, 0.8)) + 1
                tenants = int(draw.integers(1, devices + 1))
                seen.append(PatternHour(f"s{number}", BUILD, MODEL, crashes, devices, tenants, 0))
        yield hour, seen


def trained(seed: int, hours: int = 24 * 12) -> CrashPatterns:
    watch = CrashPatterns(seed)
    for hour, seen in quiet(seed, hours):
        watch.score(hour, seen)
    assert watch.fit()
    return watch


@pytest.fixture(scope="module")
def state() -> bytes:
    """The state of a watch with twelve quiet days behind it, as bytes: tests restore their own."""
    return msgspec.msgpack.encode(trained(3).snapshot())


def fresh(state: bytes) -> CrashPatterns:
    return CrashPatterns.restore(msgspec.msgpack.decode(state, type=outliers.CrashPatternsState))


def test_the_doctests_hold() -> None:
    assert doctest.testmod(outliers).failed == 0


def test_p_values_and_e_values_keep_their_promise_on_quiet_fleets() -> None:
    scores: list[PatternScore] = []
    for seed in (1, 2):
        watch = CrashPatterns(seed)
        for hour, seen in quiet(seed, 24 * 15):
            if hour == 24 * 11:
                assert watch.fit()
            scores += watch.score(hour, seen)
    p = np.array([score.p for score in scores])
    assert len(p) > 600
    for level in (0.01, 0.05, 0.2):
        assert np.mean(p <= level) <= level + 3 * math.sqrt(level * (1 - level) / len(p))
    e = np.array([score.e for score in scores])
    assert e.mean() <= 1.0 + 3 * e.std() / math.sqrt(len(e))


def test_a_storm_is_the_first_of_its_hour_and_says_its_numbers(state: bytes) -> None:
    watch = fresh(state)
    storm = PatternHour("csagent.sys|0x50", BUILD, MODEL, 41, 38, 5, 0)
    usual = PatternHour("s1", BUILD, MODEL, 1, 1, 1, 0)
    first, second = watch.score(24 * 12, [usual, storm])
    assert first.pattern == storm
    assert first.p < 0.005
    assert first.e > 100
    assert second.p > 0.05
    assert second.e < 10
    assert first.sentence.startswith(
        f"csagent.sys|0x50 on {BUILD} and {MODEL}: 41 crashes on 38 devices of 5 tenants in an hour, 0.02 expected;"
    )
    assert "It belongs to no rollout under watch." in first.sentence


def test_a_storm_of_a_known_pattern_is_unusual_for_itself(state: bytes) -> None:
    """What is usual for a busy pattern is not usual for a rare one."""
    watch = fresh(state)
    past = watch.snapshot().history.patterns
    busy = max(past, key=lambda entry: entry[1].crashes)[0]
    rare = min((entry for entry in past if entry[1].crashes < 1.5), key=lambda entry: entry[1].crashes)[0]
    scores = watch.score(24 * 12, [PatternHour(*busy, 6, 5, 3, 0), PatternHour(*rare, 6, 5, 3, 0)])
    assert scores[0].pattern[:3] == rare
    assert scores[0].e > 5 * scores[1].e


def test_what_belongs_to_a_rollout_is_not_scored_from_half_of_its_crashes_on(state: bytes) -> None:
    watch = fresh(state)
    seen = [PatternHour("half", BUILD, MODEL, 40, 40, 3, 20), PatternHour("less", BUILD, MODEL, 40, 40, 3, 19)]
    assert [score.pattern.signature for score in watch.score(24 * 12, seen)] == ["less"]


def test_fewer_crashes_than_expected_are_never_unusual(state: bytes) -> None:
    watch = fresh(state)
    busy = max(watch.snapshot().history.patterns, key=lambda entry: entry[1].crashes)[0]
    (score,) = watch.score(24 * 12, [PatternHour(*busy, 1, 1, 1, 0)])
    assert score.expected > 1
    assert (score.p, score.anomaly) == (1.0, -math.inf)
    assert score.e < 1


def test_before_the_first_fit_there_are_no_scores_and_too_little_is_no_fit() -> None:
    watch = CrashPatterns()
    one = PatternHour("a", BUILD, MODEL, 1, 1, 1, 0)
    for hour in range(WARM_HOURS + ROWS_LEAST - 1):
        assert watch.score(hour, [one]) == []
        assert not watch.fit()
    watch.score(WARM_HOURS + ROWS_LEAST - 1, [one])
    assert watch.fit()
    assert watch.fitted
    assert len(watch.score(1000, [one])) == 1


# At the fit, an hour after it, and after hours that the model has not learnt from.
@pytest.mark.parametrize("at", [24 * 6, 24 * 6 + 1, 24 * 7])
def test_going_on_from_a_restore_is_the_same_to_the_bit(at: int) -> None:
    watch = CrashPatterns(5)
    for hour, seen in quiet(5, 24 * 8, patterns_count=40):
        if hour == 24 * 6:
            assert watch.fit()
        if hour == at:
            again = fresh(msgspec.msgpack.encode(watch.snapshot()))
        if hour in range(at, at + 5):
            assert again.score(hour, seen) == watch.score(hour, seen)
        elif hour < at:
            watch.score(hour, seen)
    assert again.snapshot() == watch.snapshot()


def test_a_snapshot_is_not_moved_by_what_comes_after() -> None:
    history = History()
    one = PatternHour("a", BUILD, MODEL, 2, 2, 1, 0)
    history.add(1, [one])
    before = history.snapshot()
    kept = msgspec.msgpack.encode(before)
    history.add(2, [one])
    again = History.restore(before)
    again.add(2, [one])
    assert msgspec.msgpack.encode(before) == kept
    assert again.snapshot() == history.snapshot()


def test_patterns_are_bounded_and_the_longest_unseen_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    assert PATTERNS_MAX == 4096
    monkeypatch.setattr(patterns, "PATTERNS_MAX", 3)
    watch = CrashPatterns()
    watch.score(
        0,
        [
            PatternHour(name, BUILD, MODEL, crashes, 1, 1, 0)
            for name, crashes in zip("abcde", (5, 4, 3, 2, 1), strict=True)
        ],
    )
    assert watch.dropped == 2
    watch.score(1, [PatternHour("a", BUILD, MODEL, 1, 1, 1, 0)])
    watch.score(2, [PatternHour("f", BUILD, MODEL, 1, 1, 1, 0)])
    assert [key[0] for key, _ in watch.snapshot().history.patterns] == ["c", "a", "f"]


def test_rows_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outliers, "ROWS_MAX", 50)
    watch = CrashPatterns()
    for hour, seen in quiet(1, WARM_HOURS + 40):
        watch.score(hour, seen)
    assert len(watch.snapshot().rows) == 50 * patterns.FEATURES * 8


@settings(max_examples=30, deadline=None)
@given(st.floats(1e-12, 1.0))
def test_the_calibrator_is_decreasing_and_an_e_value(p: float) -> None:
    assert e_value(p) >= e_value(min(1.0, p * 1.1)) - 1e-6
    assert e_value(p) > 0


def test_the_calibrator_integrates_to_one() -> None:
    """Over uniform p its mean is 1; in the variable u = -ln p the integrand has no pole."""
    u = np.linspace(1e-3, 60.0, 60_001)
    values = np.array([e_value(math.exp(-x)) * math.exp(-x) for x in u])
    # Beyond u = 60 the integrand is 1 / u^2, which leaves 1 / 60.
    assert float(np.trapezoid(values, u)) + 0.5e-3 + 1 / 60 == pytest.approx(1.0, abs=2e-3)
    assert e_value(1e-4) == pytest.approx(118.0, abs=1.0)
    assert e_value(1.0) == 0.5


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (PatternHour("a", "", "", 0, 0, 0, 0), "must hold"),
        (PatternHour("a", "", "", 1, 2, 1, 0), "must hold"),
        (PatternHour("a", "", "", 2, 1, 2, 0), "must hold"),
        (PatternHour("a", "", "", 1, 1, 1, 2), "must hold"),
    ],
)
def test_impossible_counts_are_refused(one: PatternHour, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        CrashPatterns().score(0, [one])


def test_hours_come_in_order_and_patterns_once() -> None:
    watch = CrashPatterns()
    one = PatternHour("a", BUILD, MODEL, 1, 1, 1, 0)
    watch.score(5, [one])
    with pytest.raises(ValueError, match="in order"):
        watch.score(5, [one])
    with pytest.raises(ValueError, match="twice"):
        watch.score(6, [one, one._replace(crashes=2)])
    with pytest.raises(ValueError, match="outside 0 to 1"):
        e_value(0.0)


def test_hostile_names_are_shown_harmlessly(state: bytes) -> None:
    (score,) = fresh(state).score(24 * 12, [PatternHour("\x1b[2J" + "x" * 500, "\u202e", "", 9, 9, 2, 0)])
    assert score.sentence.isprintable()
    assert len(score.sentence) < 500
