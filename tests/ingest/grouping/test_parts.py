"""The parts of grouping against plain counterparts: index, rounds, ticks, cells; and records that must stop nothing."""

from collections.abc import Callable

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.activity import ActivityBatch, pack
from ingest.events import Batch, Tick, encoder
from ingest.grouping.cells import BASE_CELLS_MAX
from ingest.grouping.devices import rounds
from ingest.grouping.fleet import ROW, Fleet, FleetFullError
from ingest.grouping.snapshot import Snapshots
from ingest.grouping.ticks import SILENT_MS, Ticks
from ingest.rollouts import rollout_id
from ingest.topics import Topics
from support.grouping_bench import Bench
from support.world import NEW, OLD, PRODUCT, T0, VENDOR, World, pseudonym

SECOND = 1000


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(1, 4000), min_size=1, max_size=300, unique=True), max_size=12), st.booleans())
def test_the_index_is_a_dictionary(batches: list[list[int]], alike: bool) -> None:
    """Every device is found at the row it was given and no other, however alike the keys' low halves are."""
    fleet, known = Fleet(100_000), dict[int, int]()
    spread = 1 << 32 if alike else 0x9E37_79B9_7F4A_7C15
    for batch in batches:
        keys = np.array([number * spread % 2**64 for number in batch], np.uint64)
        found = fleet.find(keys)
        assert found.tolist() == [known.get(key, -1) for key in keys.tolist()]
        fresh = keys[found < 0]
        if len(fresh):
            known.update(zip(fresh.tolist(), fleet.add(fresh).tolist(), strict=True))
    assert fleet.devices == len(known) == len(set(known.values()))
    assert len(fleet.rows) == len(known)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 70), st.lists(st.integers(0, 20), min_size=10, max_size=10), st.integers(0, 2**32))
def test_rows_that_chunks_lack_are_given_first_and_in_order(devices: int, lengths: list[int], seed: int) -> None:
    """Loaded from chunks written at different times, a fleet gives the devices it lacks the rows they had."""
    keys = np.random.default_rng(seed).permutation(np.arange(1, 4000, dtype=np.uint64))[:devices] * np.uint64(7919)
    whole = Fleet(10_000)
    whole.add(keys)
    chunks = {n: whole.pack(n * 8, min(n * 8 + lengths[n], n * 8 + 8)) for n in range(-(-devices // 8))}
    chunks = {n: packed for n, packed in chunks.items() if packed}
    loaded = Fleet(10_000)
    loaded.load(chunks, 8)
    lacking = keys[loaded.find(keys) < 0]
    assert loaded.devices == sum(map(len, chunks.values())) // ROW.itemsize == devices - len(lacking)
    loaded.add(lacking)
    assert loaded.find(keys).tolist() == list(range(devices))


def test_a_full_fleet_takes_no_more_and_says_so() -> None:
    """Beyond its bound nothing is added; the caller is told before anything changed."""
    fleet = Fleet(3)
    fleet.add(np.array([1, 2], np.uint64))
    with pytest.raises(FleetFullError, match="devices_max"):
        fleet.add(np.array([3, 4], np.uint64))
    assert (fleet.devices, fleet.room) == (2, 1)


@given(st.lists(st.integers(0, 30), min_size=1, max_size=200))
def test_rounds_keep_each_devices_order(numbers: list[int]) -> None:
    """No round has a device twice, all places come once, and a device's places rise from round to round."""
    parts = rounds(np.array(numbers, np.int64))
    order = [place for part in parts for place in part.tolist()]
    assert sorted(order) == list(range(len(numbers)))
    for part in parts:
        assert len({numbers[place] for place in part.tolist()}) == len(part)
    for device in set(numbers):
        places = [place for place in order if numbers[place] == device]
        assert places == sorted(places)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 4 * SILENT_MS), st.booleans()), max_size=60))
def test_the_watermark_is_the_lowest_live_tick_and_never_falls(ticks: list[tuple[str, int, bool]]) -> None:
    """Gateways join, fall silent, leave, come back and set their clocks back; the watermark is what the rule says."""
    cut, newest, held = Ticks(), dict[str, int](), 0
    for gateway, at_ms, leaving in ticks:
        newest[gateway] = max(newest.get(gateway, 0), at_ms)
        live = [at for at in newest.values() if at >= max(newest.values()) - SILENT_MS]
        rose = min(live) > held
        held = max(held, min(live))
        assert cut.note(gateway, at_ms, leaving) == rose
        assert cut.watermark_ms == held
        if leaving:
            del newest[gateway]


def test_a_silent_gateway_is_waited_for_and_one_that_left_is_not() -> None:
    cut = Ticks()
    cut.note("a", 1000)
    cut.note("b", 1000)
    assert not cut.note("a", 600_000), "b may come back with what it holds"
    assert cut.note("a", 1001 + SILENT_MS), "by now its devices are not among those heard lately"
    cut = Ticks()
    cut.note("a", 1000)
    cut.note("b", 2000, leaving=True)
    assert cut.note("a", 600_000)
    assert cut.watermark_ms == 600_000


def _activity(change: Callable[[ActivityBatch], None]) -> bytes:
    world = World(Topics(device_partitions=1))
    batch = pack([world.check_in(1, T0), world.offered(2, T0)], "g", T0)
    change(batch)
    return encoder.encode(batch)


def _set(name: str, value: object) -> Callable[[ActivityBatch], None]:
    return lambda batch: setattr(batch, name, value)


@pytest.mark.parametrize(
    "change",
    [
        _set("received_at_ms", 1 << 70), _set("received_at_ms", -5), _set("at_ms", [1, 2]), _set("at_ms", [1 << 62, 1]),
        _set("boot_at_ms", [T0]), _set("seq", [-1, 2]), _set("seq", [1 << 65, 2]), _set("kinds", "cx"),
        _set("kinds", "cé"), _set("devices", "0" * 32), _set("devices", "zz" * 16), _set("changed", [-1]),
        _set("changed", [9]), _set("listed_at", [7]), _set("listed", [-1]), _set("updates", []),
    ],
)  # fmt: skip
def test_an_impossible_record_is_dead_lettered_and_stops_nothing(change: Callable[[ActivityBatch], None]) -> None:
    """Numbers out of range, columns that do not fit: one dead letter, and the next tick makes a step."""
    bench = Bench()
    bench.give("activity", _activity(change))
    assert [word for word, _ in bench.bad] == ["activity"]
    assert len(bench.tick(T0 + SECOND)) == 1
    assert bench.partition.population.fleet.devices == 0


def test_impossible_notices_ticks_and_crash_batches_are_dead_lettered() -> None:
    """A malformed push list, a tick in another age and a crash batch from nowhere change nothing."""
    bench = Bench(partitions=2)
    stranger = next(pseudonym(d) for d in range(9) if int(pseudonym(d)[:8], 16) % 2)
    bench.give("activity", bench.notice(pushed=["short"]))
    bench.give("activity", bench.notice(pushed=[stranger]))
    bench.give("activity", bench.notice(origin_ms=-1))
    bench.give("activity", encoder.encode(Tick(gateway="g", at_ms=10**18)))
    mine = next(d for d in range(9) if int(pseudonym(d)[:8], 16) % 2 == 0)
    crash = bench.world.bsod(mine, T0)
    bench.give("crashes", encoder.encode(Batch(gateway="g", received_at_ms=1 << 80, reports=[crash])))
    assert len(bench.bad) == 5
    assert len(bench.tick(T0 + SECOND)) == 1
    assert not bench.partition.population.cohorts.watched


def test_a_source_without_a_tick_is_read_on() -> None:
    """However many reports wait for a tick, only reading on can find it."""
    bench = Bench()
    bench.partition.activity.pending = 10**9
    assert "activity" in bench.partition.wanted()


def test_a_crash_of_a_gateway_ahead_waits_for_its_activity() -> None:
    """One gateway's crash lies before the other's tick, but its own `offered` behind it: the crash must wait."""
    bench = Bench()
    world = bench.world
    bench.give("activity", encoder.encode(pack([world.check_in(1, T0)], "a", T0)))
    bench.give("activity", bench.notice())
    for gateway in "ab":
        bench.tick(T0 + 100, gateway)
    offered = world.offered(1, T0 + 1000)
    crash = world.bsod(1, T0 + 2000)
    bench.give("crashes", encoder.encode(Batch(gateway="a", received_at_ms=T0 + 2000, reports=[crash])))
    steps = bench.tick(T0 + 500, "b") + bench.tick(T0 + 2250, "a", ("crashes",))
    bench.give("activity", encoder.encode(pack([offered], "a", T0 + 1100)))
    steps += bench.tick(T0 + 2250, "a", ("activity",)) + bench.tick(T0 + 1500, "b")
    assert [crash for step in steps for window in step.windows for crash in window.crashes] == []
    (last,) = bench.tick(T0 + 2300, "b")
    assert [crash.exposed for window in last.windows for crash in window.crashes] == [1]


def test_a_boot_loop_told_twenty_minutes_late_is_placed_where_it_happened() -> None:
    """Exposed since before it, in the cell of its own time; an offer after the crash makes no exposed crash of it."""
    bench = Bench()
    world = bench.world
    before = [world.check_in(d, T0, OLD, boot_at_ms=T0 - 300 * SECOND) for d in (1, 2)]
    bench.give("activity", encoder.encode(pack(before, "g", T0)))
    bench.give("activity", bench.notice())
    bench.tick(T0 + SECOND)
    bench.give("activity", encoder.encode(pack([world.offered(1, T0 + 10 * SECOND)], "g", T0 + 10 * SECOND)))
    bench.give("activity", encoder.encode(pack([world.offered(2, T0 + 900 * SECOND)], "g", T0 + 900 * SECOND)))
    loops = [msgspec.structs.replace(world.boot_loop(d, T0 + 20 * SECOND), boot_at_ms=T0 + 15 * SECOND) for d in (1, 2)]
    received = T0 + 1220 * SECOND
    bench.give("crashes", encoder.encode(Batch(gateway="g", received_at_ms=received, reports=[*loops])))
    (step,) = bench.tick(received)
    crashes = [crash for window in step.windows for crash in window.crashes]
    assert [(one.exposed, one.at_ms) for one in crashes] == [(1, T0 + 20 * SECOND), (0, T0 + 20 * SECOND)]
    assert {one.cell.split("|")[3] for one in crashes} == {"fresh"}
    assert all(one.scored for one in crashes)


def test_a_full_inventory_cache_mixes_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets of versions that wait for their step keep their meaning when the cache is emptied meanwhile."""
    monkeypatch.setattr("ingest.grouping.columns.INVENTORIES_MAX", 3)
    bench = Bench()
    for d in range(12):
        bench.give("activity", encoder.encode(pack([bench.world.check_in(d, T0, f"v{d}@1")], "g", T0)))
    bench.tick(T0 + SECOND)
    population = bench.partition.population
    texts = [population.words.updates.texts[number] for number in population.fleet.rows["update"][:, 0].tolist()]
    assert [text.rpartition(PRODUCT)[2] for text in texts] == [f"v{d}@1" for d in range(12)]


def test_cells_are_bounded_and_a_snapshot_keeps_their_numbers() -> None:
    """More circumstances than cells share the coarse ones; restored, the same ones do, and later steps are the same."""
    bench = Bench()
    reports = [
        bench.world.check_in(d, T0, os_build=f"{10_000 + d % 40}.1", ring=f"ring-{d % 49}", form_factor="server")
        for d in range(1200)
    ]
    bench.give("activity", bench.notice(rollout=rollout_id(VENDOR, PRODUCT, NEW)))
    bench.give("activity", encoder.encode(pack(reports, "g", T0)))
    (step,) = bench.tick(T0 + SECOND)
    assert len(bench.partition.population.cohorts.cells.texts) == BASE_CELLS_MAX
    assert sum(row.control for row in step.windows[0].at_risk) == 1200
    again = Bench()
    entries = Snapshots(bench.partition).share(1.0)
    found = Snapshots(again.partition).load((key.decode().split("/")[1:], value) for key, value in entries)
    assert found == bench.offset
    again.offset = dict(found)
    some = encoder.encode(pack([bench.world.offered(d, T0 + 2 * SECOND) for d in range(60)], "g", T0 + 2 * SECOND))
    ends = []
    for one in (bench, again):
        one.give("activity", some)
        ends.append(one.tick(T0 + 70 * SECOND))
    assert encoder.encode(ends[0]) == encoder.encode(ends[1])


def test_a_fleet_that_is_full_counts_the_others_and_goes_on() -> None:
    """As many as fit are taken, in order; the others are counted as such and never again taken for known."""
    bench = Bench(devices_max=5)
    bench.give("activity", encoder.encode(pack([bench.world.check_in(d, T0) for d in range(9)], "g", T0)))
    bench.tick(T0 + SECOND)
    assert bench.partition.population.fleet.devices == 5
    assert bench.partition.population.outcomes["fleet_full"] == 4  # type: ignore[index]  # an outcome is its text
