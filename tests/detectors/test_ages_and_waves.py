"""What an update has been through, by lower bounds; waves of control crashes; what rollouts know together."""

import doctest

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import detectors.age
import detectors.wave
from detectors.age import AgeWatch
from detectors.margin_counts import MARGINS_MAX, MarginCounts
from detectors.shared import Shared
from detectors.tenants import GROUPS, NOBODY
from detectors.wave import ControlWave
from ingest.windows import MarginRisk

MINUTE = 60_000


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 6), st.integers(0, 6), st.integers(0, 4)), max_size=60))
def test_boots_and_wakes_are_never_counted_too_high(minutes: list[tuple[int, int, int, int]]) -> None:
    """Devices one by one: exposed, booted, asleep, gone; the watch sees totals only."""
    watch = AgeWatch(enough=5)
    exposed: list[int] = []
    booted_at: dict[int, int] = {}
    asleep: set[int] = set()
    booted: set[int] = set()
    woken = 0
    for minute, (new, boots, sleeps, wakes) in enumerate(minutes):
        first = len(exposed)
        exposed += [minute] * new
        # Half of those that take the update have booted just before it.
        booted_at.update({device: minute for device in range(first, len(exposed)) if device % 2})
        for device in range(max(0, first - boots), first):
            booted_at[device] = minute
            booted.add(device)
        asleep |= set(range(min(sleeps, first)))
        for device in sorted(asleep)[:wakes]:
            asleep.discard(device)
            woken += 1
        fresh = sum(minute - at < 10 for at in booted_at.values())
        watch.look(
            (minute + 1) * MINUTE,
            exposed_total=len(exposed),
            fresh=fresh,
            stale=len(asleep),
            at_risk=len(exposed),
        )
        seen = watch.coverage()
        assert seen.booted <= len(booted)
        assert seen.woken <= woken
        watch = AgeWatch.restore(watch.snapshot())


def test_hours_run_from_when_enough_were_exposed() -> None:
    watch = AgeWatch(enough=50)
    for minute in range(180):
        total = 10 if minute < 60 else 60
        watch.look(minute * MINUTE, exposed_total=total, fresh=0, stale=0, at_risk=total)
    assert watch.coverage().hours == 119 / 60


def test_the_examples_hold() -> None:
    assert doctest.testmod(detectors.age).failed == 0
    assert doctest.testmod(detectors.wave).failed == 0


def test_a_wave_survives_a_restart() -> None:
    wave = ControlWave()
    for number in range(12):
        wave.note(number * 1000)
    assert ControlWave(wave.snapshot()).rages(1000, 0) is wave.rages(1000, 0) is True


def test_what_rollouts_know_together_is_restored() -> None:
    shared = Shared()
    for group in range(4):
        shared.delays.add(group, np.full(20, 5.0 * (group + 1)))
    shared.known.note("a", 1, 10)
    again = Shared.restore(shared.snapshot())
    assert again.snapshot() == shared.snapshot()
    assert [again.delays.within(seconds) for seconds in (4, 11, 25)] == [
        shared.delays.within(seconds) for seconds in (4, 11, 25)
    ]


def margin(name: str, group: int, exposed: int, control: int) -> MarginRisk:
    return MarginRisk(f"model={name}", group, exposed, control)


ROWS_SAID = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(0, 2), st.integers(0, 50), st.integers(0, 50)), max_size=6
)


@given(st.lists(st.tuples(st.integers(0, 1), st.booleans(), ROWS_SAID), max_size=12), st.booleans())
def test_margins_are_the_sum_of_what_live_partitions_said_last(
    said: list[tuple[int, bool, list[tuple[str, int, int, int]]]], live: bool
) -> None:
    counts = MarginCounts(2)
    truth: list[dict[tuple[str, int], tuple[int, int]]] = [{}, {}]
    for partition, full, rows in said:
        if full:
            truth[partition].clear()
        truth[partition].update({(name, group): (e, c) for name, group, e, c in rows})
        counts.state(partition, [margin(*row) for row in rows], full=full, live=True)
    counts.set_live(1, False)
    if live:
        counts.set_live(1, True)
    counts = MarginCounts.restore(counts.snapshot(), [True, live])
    for name in "abc":
        wanted = [
            sum(v[arm] for p in (0, 1) if p == 0 or live for k, v in truth[p].items() if k[0] == name) for arm in (0, 1)
        ]
        assert list(counts.totals().get(f"model={name}", (0, 0))) == wanted


def test_an_update_that_goes_to_one_model_is_not_compared_with_the_others() -> None:
    counts = MarginCounts(1)
    counts.state(0, [margin("a", 0, 500, 500), margin("b", 1, 0, 9000)], full=True, live=True)
    factor = counts.enrichment("model=a")
    # Half of the model's devices are exposed and a twentieth of the fleet's: 18 times the odds, less what is tolerated.
    assert 12 < factor[NOBODY] < 18
    assert factor[0] == 1.0
    assert counts.enrichment("model=b").max() == counts.enrichment("model=new").max() == 1.0


def test_a_ring_that_picked_a_few_devices_of_a_model_by_chance_raises_nothing() -> None:
    counts = MarginCounts(1)
    counts.state(0, [margin("a", 0, 3, 90), margin("b", 1, 100, 9000)], full=True, live=True)
    assert counts.enrichment("model=a").max() == 1.0


def test_invented_models_are_bounded() -> None:
    counts = MarginCounts(1)
    counts.state(0, [margin(str(number), number % GROUPS, 1, 1) for number in range(500)], full=True, live=True)
    assert len(counts.names) == MARGINS_MAX
