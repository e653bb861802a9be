"""Rivals: who is chosen, what a split cell is called, and that cells stay within their bound."""

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.events import Batch, encoder
from ingest.grouping.cells import BASE_CELLS_MAX, CELLS_MAX, TIMES, Cells
from ingest.grouping.columns import Dictionaries
from ingest.grouping.rivals import SPLIT_PLACES, Era, Rival, era_of
from ingest.minutes import minute_of, offset_seconds
from ingest.rollouts import rollout_id
from ingest.windows import CohortWindow
from support.grouping_bench import Bench
from support.world import NEW, PRODUCT, T0, VENDOR

SECOND = 1000
MINUTE = 60 * SECOND
RIVALS = (Rival("r-b", 2), Rival("r-a", 1))


def cells_of(count: int) -> Cells:
    """Return cells that have met `count` circumstances."""
    words = Dictionaries()
    for number in range(63):
        assert words.rings[f"ring-{number}"] == number + 1
    cells = Cells(words)
    cells.load(list(range(count)))
    return cells


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 240),
    st.lists(st.lists(st.tuples(st.integers(0, 243), st.integers(0, 3)), min_size=1, max_size=80), max_size=8),
)
def test_a_split_cell_keeps_its_name_and_all_together_are_at_most_256(
    met: int, batches: list[list[tuple[int, int]]]
) -> None:
    """Whatever is met in whatever order: one number a cell and split, one text a number, and a restart changes none."""
    cells = cells_of(met)
    era = Era(cells, 0, RIVALS)
    given_: dict[tuple[int, int], int] = {}
    for batch in batches:
        known = [(cell % len(cells.texts), split) for cell, split in batch]
        numbers = era.numbers(np.array([c for c, _ in known]), np.array([s for _, s in known])).tolist()
        for key, number in zip(known, numbers, strict=True):
            assert given_.setdefault(key, number) == number
            assert number << 6 < SPLIT_PLACES
        assert len(era.fine) + len(cells.texts) <= BASE_CELLS_MAX or not era.fine
    for (cell, split), number in given_.items():
        rivals = ["", "|r-a", "|r-b", "|r-a+r-b"][split]
        coarse = "|".join(["*", "*", "*", *cells.texts[cell].split("|")[3:]])
        assert era.text(number) in (cells.texts[cell] + rivals, coarse + rivals)
    texts = {*cells.texts, *(era.text(number) for number in given_.values())}
    assert len(texts) <= CELLS_MAX
    assert len({era.text(number) for number in given_.values()}) == len(set(given_.values()))
    again = era_of(era.state(), cells)
    for (cell, split), number in given_.items():
        assert again.numbers(np.array([cell]), np.array([split])).tolist() == [number]


def rollout_of(product: str, version: str) -> str:
    return rollout_id(VENDOR, product, version)


def begin(bench: Bench, product: str, version: str, origin_ms: int = T0, closed: bool = False) -> str:
    """Begin a rollout, or close it; return its id."""
    name = rollout_of(product, version)
    bench.give(
        "activity",
        bench.notice(rollout=name, product=product, version=version, origin_ms=origin_ms, closed=closed),
    )
    return name


def rivals_of(bench: Bench, rollout: str) -> set[str]:
    return {rival.rollout for rival in bench.partition.population.cohorts.watched[rollout].era.rivals}


def test_the_two_youngest_that_share_a_device_are_rivals_and_stay_until_displaced() -> None:
    """Oldest first: the first two are taken, the third displaces the oldest; one that closes is nobody's rival."""
    bench = Bench()
    world = bench.world
    mine = begin(bench, PRODUCT, NEW, T0)
    others = [begin(bench, product, "2", T0 + n * SECOND) for n, product in enumerate(("p1", "p2", "p3"), 1)]
    bench.hear([world.check_in(d, T0) for d in range(40)], T0)
    bench.hear([world.offered(d, T0 + SECOND) for d in range(10)], T0 + SECOND)
    bench.hear([world.offered(d, T0 + SECOND, "2", "p1") for d in range(5, 15)], T0 + SECOND)
    bench.hear([world.offered(d, T0 + SECOND, "2", "p2") for d in range(20, 30)], T0 + SECOND)
    bench.tick(T0 + 2 * SECOND)
    assert rivals_of(bench, mine) == {others[0]}, "p2 has no device in common with it, p3 no device at all"
    bench.hear([world.offered(9, T0 + 3 * SECOND, "2", p) for p in ("p2", "p3")], T0 + 3 * SECOND)
    bench.tick(T0 + 4 * SECOND)
    assert rivals_of(bench, mine) == {others[0]}, "chosen at minutes only"
    bench.tick(T0 + MINUTE)
    assert rivals_of(bench, mine) == {others[1], others[2]}
    assert rivals_of(bench, others[0]) == {others[1], others[2]}, "the youngest, whoever they are"
    bench.hear([world.installed(9, T0 + MINUTE + SECOND, "1", "p3")], T0 + MINUTE + SECOND)
    bench.tick(T0 + 2 * MINUTE)
    assert rivals_of(bench, mine) == {others[1], others[2]}, "one that was chosen stays"
    begin(bench, "p3", "2", closed=True)
    (step,) = bench.tick(T0 + 2 * MINUTE + SECOND)
    assert rivals_of(bench, mine) == {others[1]}
    assert {window.rollout for window in step.windows if window.full} == {mine, others[0], others[1]}


def test_a_version_of_the_same_product_is_no_rival() -> None:
    bench = Bench()
    world = bench.world
    names = [begin(bench, PRODUCT, version) for version in (NEW, "291.32")]
    bench.hear([world.offered(1, T0), world.offered(1, T0 + SECOND, "291.32")], T0 + SECOND)
    bench.tick(T0 + 2 * SECOND)
    assert [rivals_of(bench, name) for name in names] == [set(), set()]


def test_outcomes_do_not_choose_rivals() -> None:
    """The one device on both crashes at once: it was exposed to both, and its crash is told so."""
    bench = Bench()
    world = bench.world
    mine, other = begin(bench, PRODUCT, NEW), begin(bench, "panel", "2")
    bench.hear([world.check_in(d, T0) for d in range(20)], T0)
    bench.hear([world.offered(3, T0 + SECOND), world.offered(3, T0 + SECOND, "2", "panel")], T0 + SECOND)
    crash = world.bsod(3, T0 + 2 * SECOND)
    bench.give("crashes", encoder.encode(Batch(gateway="g", received_at_ms=T0 + 2 * SECOND, reports=[crash])))
    (step,) = bench.tick(T0 + 3 * SECOND)
    assert rivals_of(bench, mine) == {other}
    assert rivals_of(bench, other) == {mine}
    assert sum(len(window.crashes) for window in step.windows) == 2


def test_a_device_not_heard_for_26_hours_makes_no_rivals() -> None:
    bench = Bench()
    world = bench.world
    mine = begin(bench, PRODUCT, NEW)
    bench.hear([world.offered(3, T0), world.offered(3, T0, "2", "panel")], T0)
    bench.tick(T0 + SECOND)
    begin(bench, "panel", "2", T0 + 27 * 60 * MINUTE)
    bench.tick(T0 + 27 * 60 * MINUTE)
    assert rivals_of(bench, mine) == set()
    bench.hear([world.check_in(3, T0 + 27 * 60 * MINUTE)], T0 + 27 * 60 * MINUTE)
    bench.tick(T0 + 27 * 60 * MINUTE + MINUTE)
    assert rivals_of(bench, mine) == {rollout_of("panel", "2")}


def overlapping(bench: Bench, circumstances: int) -> str:
    """Put devices of so many circumstances on two rollouts of two products, in halves that overlap; return one's id."""
    world = bench.world
    bench.tick(T0 - MINUTE)
    mine = begin(bench, PRODUCT, NEW)
    begin(bench, "panel", "2", T0 + SECOND)
    reports = [
        world.check_in(d, T0, os_build=f"{10_000 + d % 20}.1", ring=f"ring-{d % circumstances}") for d in range(800)
    ]
    bench.hear(reports, T0)
    again = [
        *(world.offered(d, T0 + SECOND) for d in range(400)),
        *(world.offered(d, T0 + SECOND, "2", "panel") for d in range(200, 600)),
    ]
    for report, device in zip(again, (*range(400), *range(200, 600)), strict=True):
        report.os_build, report.ring = f"{10_000 + device % 20}.1", f"ring-{device % circumstances}"
    bench.hear(again, T0 + SECOND)
    return mine


def window_of(bench: Bench, rollout: str, at_ms: int) -> CohortWindow:
    (step,) = bench.tick(at_ms)
    return next(window for window in step.windows if window.rollout == rollout)


def test_split_cells_are_bounded_and_lose_no_device() -> None:
    """More circumstances than there is room for: 256 cells at most, coarse ones name rivals too, everyone counted."""
    bench = Bench()
    mine = overlapping(bench, 9)
    window = window_of(bench, mine, T0 + 2 * SECOND)
    texts = {row.cell for row in window.at_risk}
    panel = rollout_of("panel", "2")
    assert 200 < len(texts) <= CELLS_MAX
    assert f"*|*|*|old|recent|{panel}" in texts
    arms = Counter[tuple[bool, str]]()
    for row in window.at_risk:
        arms[row.cell.endswith(panel), "exposed"] += row.exposed
        arms[row.cell.endswith(panel), "control"] += row.control
    assert arms == {(True, "exposed"): 200, (True, "control"): 200, (False, "exposed"): 200, (False, "control"): 200}


def test_cells_met_later_have_room_made_at_the_next_minute() -> None:
    """Whole cells come first: split ones give way, all of them together stay within 256, and nobody is lost."""
    bench = Bench()
    mine = overlapping(bench, 5)
    bench.tick(T0 + 2 * SECOND)
    watched = bench.partition.population.cohorts.watched[mine]
    first = watched.era
    crowded = [first.crowded]
    more = [
        bench.world.check_in(d, T0 + 3 * SECOND, os_build=f"{10_000 + d % 20}.1", ring=f"new-{d % 9}")
        for d in range(600, 800)
    ]
    bench.hear(more, T0 + 3 * SECOND)
    bench.tick(T0 + 4 * SECOND)
    crowded.append(first.crowded)
    window = window_of(bench, mine, T0 + MINUTE)
    assert watched.era is not first
    crowded.append(watched.era.crowded)
    assert crowded == [False, True, False]
    assert watched.era.rivals == first.rivals
    cells = bench.partition.population.cohorts.cells
    assert len(cells.texts) + len(watched.era.fine) + 3 * TIMES <= CELLS_MAX
    assert len({row.cell for row in window.at_risk}) <= CELLS_MAX
    assert sum(row.exposed + row.control for row in window.at_risk) == 800


def test_a_restart_goes_on_with_the_same_rivals_and_cells() -> None:
    """From its snapshot, between minutes, a partition tells crashes and counts as the one that went on does."""
    bench = Bench()
    mine = overlapping(bench, 5)
    bench.tick(T0 + 2 * SECOND)
    again = bench.restarted()
    at_ms = T0 + 70 * SECOND
    crashes = [bench.world.bsod(d, T0 + 30 * SECOND) for d in (1, 250, 500, 700)]
    value = encoder.encode(Batch(gateway="g", received_at_ms=T0 + 31 * SECOND, reports=[*crashes]))
    ends = []
    for one in (bench, again):
        one.give("crashes", value)
        ends.append(window_of(one, mine, at_ms))
    assert encoder.encode(ends[0]) == encoder.encode(ends[1])
    assert len(ends[0].crashes) == 4
    assert [crash.cell.count("|") for crash in ends[0].crashes] == [4, 5, 5, 4]


def test_both_words_of_a_stratum_and_a_late_crash_go_by_the_rivals_of_their_time() -> None:
    """Rivals come after five minutes and go after eighteen: what was at risk in some cells is silent in the same."""
    bench = Bench()
    world = bench.world
    # The first minute of the rollout's own that begins from T0 on.
    begin_ms = minute_of(T0 // SECOND + 59, offset_seconds(rollout_of(PRODUCT, NEW))) * SECOND
    for minutes in (2, 1, 0):
        bench.tick(begin_ms - minutes * MINUTE)
    mine = begin(bench, PRODUCT, NEW, begin_ms)
    panel = begin(bench, "panel", "2", begin_ms + SECOND)
    bench.hear([world.offered(d, begin_ms + SECOND) for d in range(6)], begin_ms + SECOND)
    bench.hear([world.check_in(d, begin_ms + SECOND) for d in range(6, 12)], begin_ms + SECOND)
    sizes, silent = dict[int, set[str]](), dict[int, Counter[str]]()
    crashes = []
    for second in range(20, 22 * 60 + 1, 20):
        at_ms = begin_ms + second * SECOND
        if second == 5 * 60:
            bench.hear([world.offered(d, at_ms, "2", "panel") for d in (4, 5, 6)], at_ms)
        if second == 8 * 60:
            late = [
                world.bsod(4, begin_ms + 3 * MINUTE),
                world.bsod(5, begin_ms + 7 * MINUTE),
                world.bsod(3, begin_ms + 7 * MINUTE),
            ]
            bench.give("crashes", encoder.encode(Batch(gateway="g", received_at_ms=at_ms, reports=[*late])))
        if second == 18 * 60:
            begin(bench, "panel", "2", closed=True)
        (step,) = bench.tick(at_ms)
        for window in (window for window in step.windows if window.rollout == mine):
            crashes += window.crashes
            for row in window.heard:
                sizes.setdefault(row.minute_ms, set()).update([row.cell] if row.exposed + row.control else [])
                silent.setdefault(row.minute_ms, Counter())[row.cell] += row.silent_exposed + row.silent_control
    assert [crash.cell.partition("recent")[2] for crash in crashes] == ["", f"|{panel}", ""]
    assert {cell.count("|") for cell in sizes[begin_ms]} == {4}
    assert {cell.count("|") for cell in sizes[begin_ms + 5 * MINUTE]} == {5}
    assert all(set(+told) <= sizes[minute] for minute, told in silent.items())
    assert silent[begin_ms].total() == 8, "all but the three heard again and the one that crashed"
    assert silent[begin_ms + 5 * MINUTE].total() == 1
    assert rivals_of(bench, mine) == set()


def test_full_windows_come_once_a_minute_each_at_its_rollouts_own_second() -> None:
    """Ticked every second for three minutes, each rollout names every cell three times, 60 seconds apart."""
    bench = Bench()
    names = [begin(bench, f"p{number}", "2") for number in range(8)]
    bench.hear([bench.world.check_in(d, T0, also={"p0": "1"}) for d in range(30)], T0)
    bench.tick(T0 + SECOND)
    told: dict[str, list[int]] = {name: [] for name in names}
    for second in range(2, 182):
        (step,) = bench.tick(T0 + second * SECOND)
        for window in step.windows:
            if window.full:
                told[window.rollout].append(second)
                assert bool(window.margins) == bool(window.at_risk)
    for name, seconds in told.items():
        assert [second % 60 for second in seconds] == [(offset_seconds(name) - T0 // SECOND) % 60] * 3
    assert len({seconds[0] for seconds in told.values()}) > 5
