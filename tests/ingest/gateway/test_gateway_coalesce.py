"""Coalescing, acknowledgement and ticks: what lies in the log, in which order, and what was said about it."""

import asyncio
import json
import random
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest.clock import DrivenClock, WallClock
from ingest.events import Batch, Tick, encoder
from ingest.log.interface import Entry, Fence
from ingest.log.memory import MemoryLog
from ingest.log.specs import topic_specs
from ingest.topics import Topics
from support.gateway_rig import ACME, NOW_MS, PARTITIONS, Rig, bsod, check_in, run

JSON = {"content-type": "application/json"}


class SlowLog(MemoryLog):
    """Holds appends until the test lets them go, and counts them."""

    def __init__(self, rig_topics: Topics) -> None:
        super().__init__(topic_specs(rig_topics), DrivenClock(NOW_MS))
        self.go = threading.Event()
        self.go.set()
        self.appends = 0

    def append(self, entries: Sequence[Entry], fence: Fence | None = None) -> list[int]:
        assert self.go.wait(20)
        self.appends += 1
        return super().append(entries, fence)


def slow_rig(folder: Path, **changes: Any) -> tuple[Rig, SlowLog]:
    log = SlowLog(Topics("replay-1", PARTITIONS))
    return Rig(folder, log=log, **changes), log


def test_many_small_posts_become_few_appends_and_records(tmp_path: Path) -> None:
    rig, log = slow_rig(tmp_path)

    async def post() -> None:
        headers = JSON | rig.token()
        async with rig.serving() as client:
            log.go.clear()
            posts = [
                asyncio.create_task(client.post("/v1/reports", content=encoder.encode(check_in(i)), headers=headers))
                for i in range(300)
            ]
            await asyncio.sleep(0.3)
            assert not any(task.done() for task in posts), "acknowledged before the append"
            log.go.set()
            assert {answer.status_code for answer in await asyncio.gather(*posts)} == {202}
            assert log.appends <= 3
            assert len(rig.batches("activity")) <= 2 * PARTITIONS + 1

    run(post())
    assert len(rig.reports("activity")) == 300


def test_activity_lingers_and_crashes_do_not(tmp_path: Path) -> None:
    rig = Rig(tmp_path, clock=WallClock(), linger_ms=300, crash_tick_ms=0, tick_ms=10_000)
    now_ms = rig.clock.now_ms()

    async def post() -> None:
        await rig.gateway.start()
        loop = asyncio.get_running_loop()
        started = loop.time()
        calm = asyncio.create_task(rig.gateway.post(encoder.encode(check_in(1, at_ms=now_ms)), False, ACME))
        await rig.gateway.post(encoder.encode(bsod(2, at_ms=now_ms)), False, ACME)
        crash_seconds = loop.time() - started
        assert not calm.done()
        assert not rig.reports("activity")
        await calm
        assert loop.time() - started >= 0.3 > crash_seconds
        await rig.gateway.drain()

    run(post())


def test_a_crash_brings_the_next_tick_soon(tmp_path: Path) -> None:
    """A crash is evidence only behind a tick: one comes within the setting, long before the regular one."""
    rig = Rig(tmp_path, clock=WallClock(), tick_ms=10_000, crash_tick_ms=50)

    async def post() -> None:
        await rig.gateway.start()
        await asyncio.sleep(0.1)
        regular = rig.ticks("crashes", 0)
        await rig.gateway.post(encoder.encode(bsod(1, at_ms=WallClock().now_ms())), False, ACME)
        await asyncio.sleep(0.02)
        await rig.gateway.post(encoder.encode(bsod(2, at_ms=WallClock().now_ms())), False, ACME)
        await asyncio.sleep(0.2)
        early = rig.ticks("crashes", 0)[len(regular) :]
        assert len(early) == 2
        assert early[1] - early[0] >= 45
        await rig.gateway.drain()

    run(post())


def test_a_post_of_both_kinds_waits_for_both(tmp_path: Path) -> None:
    rig = Rig(tmp_path, linger_ms=200)

    async def post() -> None:
        await rig.gateway.start()
        answer = await rig.gateway.post(encoder.encode([check_in(1), bsod(2)]), False, ACME)
        assert answer.accepted == 2
        assert len(rig.reports("activity")) == len(rig.reports("crashes")) == 1
        await rig.gateway.drain()

    run(post())


@pytest.mark.parametrize("fault", ["refused", "broken", "acknowledgement lost"])
def test_a_failed_append_acknowledges_nothing_and_the_next_one_works(tmp_path: Path, fault: str) -> None:
    rig = Rig(tmp_path)

    async def post() -> None:
        headers = JSON | rig.token()
        async with rig.serving() as client:
            if fault == "acknowledgement lost":
                rig.log.lose_next_acknowledgement()
            else:
                rig.log.refuse_next_append(OSError("disk on fire") if fault == "broken" else None)
            body = encoder.encode([check_in(1), bsod(2)])
            answer = await client.post("/v1/reports", content=body, headers=headers)
            assert (answer.status_code, answer.json()["reason"]) == (503, "log_unavailable")
            assert int(answer.headers["retry-after"]) >= 1
            assert rig.metrics.value("reports_total", outcome="accepted") == 0
            ready = await client.get("/readyz")
            assert (ready.status_code, ready.json()["ready"]) == (503, False)
            if fault != "acknowledgement lost":
                assert not rig.reports("activity")
                assert not rig.reports("crashes")
            assert (await client.post("/v1/reports", content=body, headers=headers)).status_code == 202
            assert (await client.get("/readyz")).status_code == 200

    run(post())
    assert rig.metrics.value("requests_refused_total", reason="log_unavailable") == 1


def test_what_the_gateway_cannot_hold_is_refused_and_check_ins_are_spread_out(tmp_path: Path) -> None:
    rig, log = slow_rig(tmp_path, pending_reports_max=100)

    async def post() -> None:
        headers = JSON | rig.token()
        async with rig.serving() as client:
            log.go.clear()
            body = encoder.encode([check_in(i) for i in range(80)])
            first = asyncio.create_task(client.post("/v1/reports", content=body, headers=headers))
            await asyncio.sleep(0.05)
            answer = await client.post("/v1/reports", content=body, headers=headers)
            assert (answer.status_code, answer.json()["reason"]) == (503, "overloaded")
            assert int(answer.headers["retry-after"]) >= 1
            assert rig.gateway.next_check_in_seconds(b"") > 5 * rig.settings.check_in_seconds
            log.go.set()
            assert (await first).status_code == 202
            assert rig.gateway.next_check_in_seconds(b"") < 1.2 * rig.settings.check_in_seconds

    run(post())
    assert len(rig.reports("activity")) == 80


def test_a_large_flush_is_split_into_records_of_bounded_size(tmp_path: Path) -> None:
    rig = Rig(tmp_path, tick_ms=10_000, body_inflated_bytes_max=1 << 26)

    async def post() -> None:
        await rig.gateway.start()
        frames = [{"module": "m" * 100, "offset": 5}] * 60
        bodies = [
            json.dumps([{**json.loads(encoder.encode(bsod(i))), "frames": frames} for i in range(start, start + 1000)])
            for start in (0, 1000)
        ]
        await asyncio.gather(*(rig.gateway.post(body.encode(), False, ACME) for body in bodies))
        await rig.gateway.drain()

    run(post())
    assert len(rig.reports("crashes")) == 2000
    assert max(len(encoder.encode(batch)) for batch in rig.batches("crashes")) <= 1 << 20


def test_a_gateway_that_drains_refuses_posts_and_ends_with_a_tick(tmp_path: Path) -> None:
    rig = Rig(tmp_path, clock=WallClock(), linger_ms=5000)

    async def post() -> None:
        headers = JSON | rig.token()
        now_ms = rig.clock.now_ms()
        body = encoder.encode(check_in(1, at_ms=now_ms, boot_at_ms=now_ms))
        async with rig.serving() as client:
            held = asyncio.create_task(client.post("/v1/reports", content=body, headers=headers))
            await asyncio.sleep(0.01)
            await rig.gateway.drain()
            assert (await held).status_code == 202, "what was held is flushed"
            late = await client.post("/v1/reports", content=body, headers=headers)
            assert (late.status_code, late.json()["reason"]) == (503, "draining")
            assert (await client.get("/readyz")).status_code == 503
            assert (await client.get("/healthz")).status_code == 200

    run(post())
    for partition in range(PARTITIONS):
        for word in ("activity", "crashes"):
            assert isinstance(rig.records(word, partition)[-1], Tick)


def test_a_live_gateway_ticks_by_itself_in_every_partition(tmp_path: Path) -> None:
    rig = Rig(tmp_path, clock=WallClock(), tick_ms=20)

    async def wait() -> None:
        async with rig.serving():
            await asyncio.sleep(0.3)

    run(wait())
    series = [rig.ticks(word, p) for word in ("activity", "crashes") for p in range(PARTITIONS)]
    assert all(one == series[0] for one in series)
    assert len(series[0]) >= 4
    assert series[0] == sorted(set(series[0]))
    assert rig.metrics.value("ticks_total") == sum(map(len, series))


def test_ticks_never_go_back_over_a_restart(tmp_path: Path) -> None:
    clock = DrivenClock(NOW_MS)
    first = Rig(tmp_path, clock=clock)

    async def drive(rig: Rig, at_ms: int) -> int:
        headers = JSON | rig.token(f"driver-{id(rig)}", roles="drive report")
        async with rig.serving() as client:
            answer = await client.post("/v1/clock", content=json.dumps({"at_ms": at_ms}), headers=headers)
            status: int = answer.status_code
            return status

    assert run(drive(first, NOW_MS + 5000)) == 200
    second = Rig(tmp_path, clock=DrivenClock(NOW_MS), log=first.log)
    assert run(drive(second, NOW_MS + 1000)) == 409
    # Each gateway's last tick says farewell, at the time of the one before if the clock has not moved.
    assert second.ticks("activity", 0) == [NOW_MS + 5000] * 3
    third = Rig(tmp_path, clock=DrivenClock(NOW_MS), log=first.log)
    assert run(drive(third, NOW_MS + 6000)) == 200
    assert third.ticks("crashes", 1) == [NOW_MS + 5000] * 3 + [NOW_MS + 6000] * 2


def test_a_driven_clock_stands_after_a_restart_where_it_stood(tmp_path: Path) -> None:
    """A post that is repeated after a kill comes before the next drive, and is no report from the future."""
    first = Rig(tmp_path, clock=DrivenClock(0))

    async def post(rig: Rig, *, drive: bool) -> dict[str, Any]:
        headers = JSON | rig.token(f"driver-{id(rig)}", roles="drive report")
        async with rig.serving() as client:
            if drive:
                await client.post("/v1/clock", content=json.dumps({"at_ms": NOW_MS}), headers=headers)
            answer = await client.post("/v1/reports", content=encoder.encode([check_in(1)]), headers=headers)
            said: dict[str, Any] = answer.json()
            return said

    assert run(post(first, drive=True))["accepted"] == 1
    again = Rig(tmp_path, clock=DrivenClock(0), log=first.log)
    assert run(post(again, drive=False))["accepted"] == 1
    stranger = Rig(tmp_path / "stranger", clock=DrivenClock(0))
    assert run(post(stranger, drive=False))["refused"][0]["reason"] == "in_the_future"


def test_only_the_last_tick_says_that_the_gateway_leaves(tmp_path: Path) -> None:
    rig = Rig(tmp_path)

    async def wait() -> None:
        async with rig.serving():
            await asyncio.sleep(0.3)

    run(wait())
    for word in ("activity", "crashes"):
        for partition in range(PARTITIONS):
            told = [tick.leaving for tick in rig.records(word, partition) if isinstance(tick, Tick)]
            assert told == [False] * (len(told) - 1) + [True]


class SteppedClock:
    """A clock that may go back, as a wall clock does when somebody sets it."""

    def __init__(self, at_ms: int) -> None:
        self.at_ms = at_ms

    def now_ms(self) -> int:
        return self.at_ms


def test_a_clock_that_goes_back_writes_no_tick_until_it_has_caught_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = SteppedClock(NOW_MS)
    rig = Rig(tmp_path, clock=clock, tick_ms=10)

    async def step() -> None:
        await rig.gateway.start()
        await asyncio.sleep(0.05)
        clock.at_ms = NOW_MS - 60_000
        await rig.gateway.post(encoder.encode(check_in(1, at_ms=clock.at_ms)), False, ACME)
        await asyncio.sleep(0.05)
        assert rig.ticks("activity", 0) == [NOW_MS]
        clock.at_ms = NOW_MS + 7
        await asyncio.sleep(0.05)
        await rig.gateway.drain()

    run(step())
    assert rig.ticks("activity", 0) == rig.ticks("crashes", 2) == [NOW_MS, NOW_MS + 7, NOW_MS + 7]
    assert sum("went back" in record.message for record in caplog.records) == 1


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("post"), st.integers(1, 12)),
        st.tuples(st.just("drive"), st.integers(1, 400)),
        st.tuples(st.just("yield"), st.integers(0, 3)),
        st.tuples(st.just("fail"), st.just(0)),
    ),
    min_size=1,
    max_size=25,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions=ACTIONS, linger_ms=st.sampled_from([0, 1, 50]), seed=st.integers(0, 1000))
def test_everything_received_before_a_tick_lies_before_it(
    tmp_path: Path, actions: list[tuple[str, int]], linger_ms: int, seed: int
) -> None:
    """Each report carries in `seq` the clock at which it was posted, so the log alone shows the order.

    A tick at T may have a report received at T behind it, never one received before T; and what was acknowledged is
    there.
    """
    chance = random.Random(seed)
    clock = DrivenClock(NOW_MS)
    rig = Rig(tmp_path, clock=clock, linger_ms=linger_ms)
    acknowledged: set[str] = set()

    async def post(count: int, number: int) -> None:
        kinds = [chance.choice([check_in, bsod]) for _ in range(count)]
        body = encoder.encode(
            [make(number, seq=clock.now_ms(), model=f"{number}-{place}") for place, make in enumerate(kinds)]
        )
        try:
            await rig.gateway.post(body, False, ACME)
        except Exception:  # a failed append was ordered below
            return
        acknowledged.update(f"{number}-{place}" for place in range(count))

    async def play() -> None:
        await rig.gateway.start()
        tasks = []
        for number, (what, size) in enumerate(actions):
            if what == "post":
                tasks.append(asyncio.create_task(post(size, number)))
                await asyncio.sleep(0)
            elif what == "drive":
                clock.drive_to(clock.now_ms() + size)
                rig.gateway._coalescer.tick()  # the way the live timer ticks: without waiting
            elif what == "fail":
                rig.log.refuse_next_append()
            else:
                await asyncio.sleep(size / 1000)
        await rig.gateway.drain()
        await asyncio.gather(*tasks)

    run(play())
    taken = {report.model for word in ("activity", "crashes") for report in rig.reports(word)}
    assert acknowledged <= taken
    for word in ("activity", "crashes"):
        for partition in range(PARTITIONS):
            last_tick_ms = 0
            for record in rig.records(word, partition):
                if isinstance(record, Tick):
                    assert record.at_ms > last_tick_ms or record.leaving
                    last_tick_ms = record.at_ms
                elif isinstance(record, Batch):
                    assert min(report.seq for report in record.reports) >= last_tick_ms
