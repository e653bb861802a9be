"""Recovery: who of a rollout is silent, looping or recovered, by ring and tenant, held to a plain look at devices."""

from collections import Counter
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.events import Batch, encoder
from ingest.grouping.recovery import ROWS_MAX
from ingest.tenancy import tenant_hash
from ingest.windows import CohortWindow, Step
from support.grouping_bench import Bench
from support.world import NEW, OLD, T0

MINUTE = 60_000
NEXT = "291.32"
LAST = 40


def told(steps: list[Step]) -> Counter[tuple[str, int, str]]:
    """Return devices by ring, tenant and state, as the last full window says."""
    window = full(steps)
    counts = Counter[tuple[str, int, str]]()
    for row in window.recovery:
        for state in ("silent", "looping", "recovered"):
            counts[row.ring, row.tenant, state] += getattr(row, state)
    return +counts


def full(steps: list[Step]) -> CohortWindow:
    return [window for step in steps for window in step.windows if window.full][-1]


def crash(bench: Bench, device: int, at_ms: int, **fields: str) -> None:
    report = bench.world.bsod(device, at_ms, **fields)
    bench.give("crashes", encoder.encode(Batch(reports=[report], gateway="g", received_at_ms=at_ms)))


@dataclass
class Life:
    """What one device does, in minutes after the rollout began."""

    device: int
    on: bool
    offered: int
    crashes: list[int]
    check_ins: list[int]
    leaves: int | None

    def version(self, now: int) -> str:
        """Return what it lists at a minute."""
        if not self.on:
            return OLD
        return NEW if self.leaves is None or now < self.leaves else NEXT

    def state(self, now: int) -> str:
        """Return how it counts at a minute; empty where it does not."""
        if not self.on:
            return ""
        moved = self.leaves is not None
        since = 0 if moved else self.offered
        crashes = [at for at in self.crashes if at >= since]
        words = [self.offered, *self.crashes, *self.check_ins, *([] if self.leaves is None else [self.leaves])]
        heard = max(words)
        hit = bool(crashes)
        if now - heard >= 15 and (hit or not moved):
            return "silent"
        if not hit:
            return ""
        quiet = now - crashes[-1] >= 15
        return "recovered" if quiet and heard > crashes[-1] else "looping"


lives = st.tuples(
    st.booleans(),
    st.integers(1, 5),
    st.lists(st.integers(6, LAST), max_size=3, unique=True).map(sorted),
    st.lists(st.integers(6, LAST), max_size=4, unique=True).map(sorted),
    st.none() | st.integers(6, LAST),
)


@settings(max_examples=25, deadline=None)
@given(st.lists(lives, min_size=1, max_size=8))
def test_each_device_counts_as_a_plain_look_at_its_life_says(
    drawn: list[tuple[bool, int, list[int], list[int], int | None]],
) -> None:
    devices = [Life(n, *life) for n, life in enumerate(drawn)]
    bench = Bench()
    bench.give("activity", bench.notice())
    steps: list[Step] = []
    for minute in range(1, LAST + 4):
        # A second apart, so that what comes in one minute has an order; crashes come last of all.
        at_ms = T0 + minute * MINUTE
        for life in devices:
            if life.on and minute == life.offered:
                bench.hear([bench.world.offered(life.device, at_ms)], at_ms)
            if minute in life.check_ins:
                bench.hear([bench.world.check_in(life.device, at_ms, life.version(minute))], at_ms)
            if life.on and minute == life.leaves:
                bench.hear([bench.world.installed(life.device, at_ms, version=NEXT)], at_ms)
        for life in devices:
            if minute in life.crashes:
                crash(bench, life.device, at_ms)
        steps += bench.tick(at_ms + 1000)
    expected = Counter[tuple[str, int, str]]()
    for life in devices:
        now = full_minute(steps)
        state = life.state(now)
        if state:
            ring = ("early", "broad")[life.device % 2]
            expected[ring, tenant_hash(f"tenant-{life.device % 5}"), state] += 1
    assert told(steps) == expected


def full_minute(steps: list[Step]) -> int:
    """Return the minute since T0 by which the last full window counts, rounded down."""
    last = next(step for step in reversed(steps) if any(window.full for window in step.windows))
    return (last.watermark_ms - T0) // MINUTE - 1


def test_small_tenants_of_a_ring_are_told_together_and_nobody_is_lost() -> None:
    bench = Bench()
    bench.give("activity", bench.notice())
    for device in range(200):
        report = bench.world.check_in(device, T0 + MINUTE, NEW, tenant=f"t-{device}", ring="early")
        bench.hear([report], T0 + MINUTE)
        crash(bench, device, T0 + MINUTE + 1000, tenant=f"t-{device}", ring="early")
    steps = bench.tick(T0 + 2 * MINUTE) + bench.tick(T0 + 3 * MINUTE + 1000)
    rows = full(steps).recovery
    assert len(rows) == ROWS_MAX + 1
    assert sum(row.looping for row in rows) == 200
    assert [(row.ring, row.looping) for row in rows if row.tenant == 0] == [("early", 200 - ROWS_MAX)]


def test_a_restart_says_the_same() -> None:
    bench = Bench()
    bench.give("activity", bench.notice())
    for device in range(9):
        bench.hear([bench.world.offered(device, T0 + MINUTE)], T0 + MINUTE)
        crash(bench, device, T0 + MINUTE + 1000 * device)
    bench.tick(T0 + 2 * MINUTE)
    again = bench.restarted()
    at_ms = T0 + 4 * MINUTE
    assert full(again.tick(at_ms)).recovery == full(bench.tick(at_ms)).recovery != []
