"""Margins: which builds and models are kept apart, what the others are called, and that nobody is lost."""

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.events import Batch, encoder
from ingest.grouping.margins import MARGINS_MAX, OTHER, Kept
from ingest.windows import CohortWindow
from support.grouping_bench import Bench
from support.world import NEW, OLD, T0

SECOND = 1000
MINUTE = 60 * SECOND


def by_margin(window: CohortWindow) -> Counter[str]:
    """Return devices at risk by margin, both arms."""
    counts = Counter[str]()
    for row in window.margins:
        counts[row.margin] += row.exposed + row.control
    return counts


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.lists(st.integers(0, 149), min_size=1, max_size=90), st.booleans()), max_size=8))
def test_the_first_seen_are_kept_apart_and_a_restart_keeps_the_same(batches: list[tuple[list[int], bool]]) -> None:
    """In order of first sight while 64 last; `other` and the unknown are never among them."""
    texts = ["", *(f"model-{number}" for number in range(1, 149)), OTHER]
    kept, known = Kept(texts), list[int]()
    for numbers, meet in batches:
        for number in sorted(set(numbers)) if meet else ():
            if number not in known and 0 < number < 149 and len(known) < MARGINS_MAX:
                known.append(number)
        found = kept.places(np.array(numbers), meet).tolist()
        assert [kept.text(margin) for margin in found] == [texts[n] if n in known else OTHER for n in numbers]
    assert kept.numbers == known
    again, every = Kept(texts, kept.numbers), np.arange(150)
    assert again.places(every, False).tolist() == kept.places(every, False).tolist()


def test_beyond_64_models_all_are_other_and_each_device_counts_once() -> None:
    bench = Bench()
    bench.give("activity", bench.notice())
    reports = [bench.world.check_in(d, T0, model=f"m-{d % 100}") for d in range(1000)]
    bench.hear(reports, T0)
    (step,) = bench.tick(T0 + SECOND)
    counts = by_margin(step.windows[0])
    assert counts["model=other"] == 360
    assert all(counts[f"model=m-{number}"] == 10 for number in range(64))
    assert len([name for name in counts if name.startswith("model=")]) == 65
    assert counts["build=22631.3880"] + counts["build=19045.4651"] == 1000


def test_a_device_that_calls_itself_other_is_no_margin_of_its_own() -> None:
    """Each margin and group is named once, so that a later row never replaces another's count."""
    bench = Bench()
    bench.give("activity", bench.notice())
    names = ("other", "", "Latitude 5440")
    bench.hear([bench.world.check_in(d, T0, model=names[d % 3]) for d in range(30)], T0)
    (step,) = bench.tick(T0 + SECOND)
    rows = [(row.margin, row.group) for row in step.windows[0].margins]
    assert len(rows) == len(set(rows))
    counts = by_margin(step.windows[0])
    assert {name: n for name, n in counts.items() if name.startswith("model=")} == {
        "model=other": 20,
        "model=Latitude 5440": 10,
    }


def test_margins_come_with_full_windows_only_and_are_as_of_them() -> None:
    """Between minutes they stay as they were said, though devices are exposed meanwhile."""
    bench = Bench()
    bench.give("activity", bench.notice())
    bench.hear([bench.world.check_in(d, T0) for d in range(20)], T0)
    first = bench.tick(T0 + SECOND)[0].windows[0]
    bench.hear([bench.world.offered(d, T0 + 2 * SECOND) for d in range(20)], T0 + 2 * SECOND)
    second = bench.tick(T0 + 3 * SECOND)[0].windows[0]
    third = bench.tick(T0 + MINUTE)[0].windows[0]
    assert [window.full for window in (first, second, third)] == [True, False, True]
    assert sum(row.exposed for row in second.at_risk) == 20
    assert second.margins == []
    assert [sum(row.exposed for row in window.margins) for window in (first, third)] == [0, 40]


def test_a_crash_names_the_margin_its_device_was_counted_in() -> None:
    """Build and model as they were before the crash, for one never heard as its report says; `other` if not apart."""
    bench = Bench()
    world = bench.world
    bench.give("activity", bench.notice())
    bench.hear([world.check_in(d, T0, OLD, model="Latitude 5440") for d in range(10)], T0)
    bench.tick(T0 + SECOND)
    crashes = [
        world.bsod(2, T0 + 2 * SECOND, NEW, os_build="26100.1", model="changed"),
        world.bsod(50, T0 + 2 * SECOND, NEW, os_build="22631.3880", model="Latitude 5440"),
        world.bsod(51, T0 + 2 * SECOND, NEW, os_build="26100.1", model="new"),
    ]
    bench.give("crashes", encoder.encode(Batch(gateway="g", received_at_ms=T0 + 3 * SECOND, reports=[*crashes])))
    (step,) = bench.tick(T0 + 4 * SECOND)
    told = [(crash.build, crash.model) for crash in step.windows[0].crashes]
    assert told == [("22631.3880", "Latitude 5440"), ("22631.3880", "Latitude 5440"), ("other", "other")]


def test_what_a_product_keeps_apart_survives_a_restart_and_ends_with_its_rollouts() -> None:
    bench = Bench()
    bench.give("activity", bench.notice())
    bench.hear([bench.world.check_in(d, T0, model=f"m-{99 - d % 100}") for d in range(500)], T0)
    bench.tick(T0 + SECOND)
    again = bench.restarted()
    more = encoder.encode(Batch(gateway="g", received_at_ms=T0 + 2 * SECOND, reports=[bench.world.bsod(700, T0)]))
    ends = []
    for one in (bench, again):
        one.give("crashes", more)
        ends.append(one.tick(T0 + MINUTE)[0])
    assert encoder.encode(ends[0]) == encoder.encode(ends[1])
    assert len(bench.partition.population.cohorts.margins.state()) == 1
    bench.give("activity", bench.notice(closed=True))
    bench.tick(T0 + MINUTE + SECOND)
    assert bench.partition.population.cohorts.margins.state() == {}
