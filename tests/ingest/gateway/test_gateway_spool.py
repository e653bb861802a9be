"""The gateway before a log that is away: it takes posts, says so, starts, drains, and refuses once its disk is full."""

import asyncio
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ingest.clock import DrivenClock, WallClock
from ingest.events import Batch, RolloutNotice, Tick, encoder
from ingest.rollouts import Bound
from ingest.topics import Topics
from support.gateway_rig import ACME, NOW_MS, PARTITIONS, Rig, bsod, check_in, installed, offered, run
from support.spool_rig import AwayLog, eventually

ROOT = Path(__file__).parents[3]
JSON = {"content-type": "application/json"}
LIVE = Topics("live", PARTITIONS)


def live_rig(folder: Path, log: AwayLog | None = None, **changes: Any) -> tuple[Rig, AwayLog]:
    """Return a rig by the wall clock with a spool of 64 MiB, and the log behind it."""
    log = log or AwayLog(LIVE, WallClock())
    settings: dict[str, Any] = {"spool_bytes": 64 << 20, "lane": "live", "clock": WallClock(), "spool_after_ms": 200}
    return Rig(folder, log=log, **(settings | changes)), log


def now_body(*reports: Any) -> bytes:
    now_ms = WallClock().now_ms()
    for report in reports:
        report.at_ms = report.boot_at_ms = now_ms
    return encoder.encode(list(reports))


def closed(rig: Rig) -> None:
    """Close the spool but not the log behind, as a process that ends leaves Kafka alone."""
    assert rig.spool is not None
    rig.log.close = lambda: None  # type: ignore[method-assign]
    rig.spool.close()


def test_posts_are_taken_while_the_log_is_away_and_readyz_says_so(tmp_path: Path) -> None:
    rig, log = live_rig(tmp_path)

    async def post() -> None:
        headers = JSON | rig.token()
        async with rig.serving() as client:
            assert "spooling" not in (await client.get("/readyz")).json()
            log.unavailable = True
            answer = await client.post("/v1/reports", content=now_body(check_in(1), bsod(2)), headers=headers)
            assert (answer.status_code, answer.json()["accepted"]) == (202, 2)
            ready = await client.get("/readyz")
            assert (ready.status_code, ready.json()["ready"]) == (200, True)
            spooling = ready.json()["spooling"]
            assert spooling["bytes_max"] == 64 << 20
            assert spooling["waiting_bytes"] > 0
            assert not spooling["full"]
            metrics = (await client.get("/metrics")).text
            assert "cordon_spooled_total 0.0" not in metrics
            log.unavailable = False
            assert rig.spool is not None
            await asyncio.to_thread(eventually, lambda: bool(rig.reports("activity") and rig.reports("crashes")))

    run(post())
    closed(rig)
    assert [report.seq for report in rig.reports("activity")] == [1]
    assert [report.seq for report in rig.reports("crashes")] == [2]


def test_everything_received_before_a_tick_lies_before_it_in_a_drained_spool_too(tmp_path: Path) -> None:
    chance = random.Random(8)
    rig, log = live_rig(tmp_path, tick_ms=10, crash_tick_ms=10, linger_ms=5)

    async def post() -> None:
        await rig.gateway.start()
        for number in range(150):
            log.unavailable = chance.random() < 0.7
            make = chance.choice([check_in, bsod])
            # A body that was received now carries now as its sequence number.
            await rig.gateway.post(now_body(make(number, seq=WallClock().now_ms())), False, ACME)
        log.unavailable = False
        await rig.gateway.drain()

    run(post())
    assert rig.spool is not None
    spool = rig.spool.spool
    eventually(lambda: spool.empty)
    closed(rig)
    assert sum(len(rig.reports(word)) for word in ("activity", "crashes")) >= 150
    for word in ("activity", "crashes"):
        for partition in range(PARTITIONS):
            newest_tick_ms, seen = 0, set[int]()
            for record in rig.records(word, partition):
                if isinstance(record, Tick):
                    newest_tick_ms = max(newest_tick_ms, record.at_ms)
                elif isinstance(record, Batch):
                    # A report that comes again was there before its tick already.
                    assert all(r.seq in seen or r.seq >= newest_tick_ms for r in record.reports)
                    seen.update(report.seq for report in record.reports)


def test_a_full_spool_is_503_with_retry_after_and_not_ready_until_it_drains(tmp_path: Path) -> None:
    rig, log = live_rig(tmp_path, spool_bytes=60_000)

    async def post() -> None:
        headers = JSON | rig.token()
        async with rig.serving() as client:
            log.unavailable = True
            statuses, answer = [], None
            for start in range(0, 4000, 100):
                body = now_body(*(bsod(i, boot_id=os.urandom(30).hex()) for i in range(start, start + 100)))
                answer = await client.post("/v1/reports", content=body, headers=headers)
                statuses.append(answer.status_code)
                if answer.status_code != 202:
                    break
            assert statuses[:3] == [202, 202, 202]
            assert answer is not None
            assert (answer.status_code, answer.json()["reason"]) == (503, "spool_full")
            assert int(answer.headers["retry-after"]) >= 10
            # Ticks that still fit keep saying that it takes: what counts is the last word before the next post.
            body = now_body(*(bsod(i, boot_id=os.urandom(30).hex()) for i in range(400)))
            for _ in range(20):
                assert (await client.post("/v1/reports", content=body, headers=headers)).status_code == 503
                ready = await client.get("/readyz")
                if full := ready.json()["spooling"]["full"]:
                    break
            assert (ready.status_code, full) == (503, True)
            assert ready.json()["problems"] == ["the log is away and the spool is full"]
            log.unavailable = False
            assert rig.spool is not None
            spool = rig.spool.spool
            await asyncio.to_thread(eventually, lambda: spool.empty)
            assert (await client.post("/v1/reports", content=body, headers=headers)).status_code == 202
            assert (await client.get("/readyz")).status_code == 200

    run(post())
    closed(rig)
    assert rig.metrics.value("requests_refused_total", reason="spool_full") >= 1


def test_a_gateway_starts_without_the_log_by_what_it_noted(tmp_path: Path) -> None:
    """It discovers nothing twice, never ticks below its last tick, and what it had spooled comes first."""
    rig, log = live_rig(tmp_path)

    async def first() -> None:
        await rig.gateway.start()
        await rig.gateway.post(now_body(offered(1, "290")), False, ACME)
        log.unavailable = True
        await rig.gateway.post(now_body(offered(2, "291")), False, ACME)
        await rig.gateway.drain()

    run(first())
    known = rig.gateway.book.page("", 10)
    assert len(known) == 2
    last_tick_ms = rig.gateway._coalescer.last_tick_ms
    closed(rig)
    log.calls.clear()
    again, _ = live_rig(tmp_path, log=log)

    async def second() -> None:
        await again.gateway.start()
        assert again.gateway.book.page("", 10) == known
        assert again.gateway._coalescer.last_tick_ms >= last_tick_ms
        answer = await again.gateway.post(now_body(offered(3, "291"), installed(4, "290")), False, ACME)
        assert answer.accepted == 2
        log.unavailable = False
        assert again.spool is not None
        spool = again.spool.spool
        await asyncio.to_thread(eventually, lambda: spool.empty)
        await again.gateway.drain()

    run(second())
    closed(again)
    assert again.metrics.value("rollouts_discovered_total") == 0
    assert sorted(report.seq for report in again.reports("activity")) == [1, 2, 3, 4]
    for partition in range(PARTITIONS):
        records = again.records("activity", partition)
        noticed = [record.version for record in records if isinstance(record, RolloutNotice)]
        assert set(noticed) == {"290", "291"}
        ticks = [record.at_ms for record in records if isinstance(record, Tick)]
        assert sorted(set(ticks)) == list(dict.fromkeys(ticks))


def test_a_last_tick_that_only_the_log_knows_is_learned_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.gateway.gateway._CATCH_UP_SECONDS", 0.02)
    ahead_ms = WallClock().now_ms() + 3_600_000
    log = AwayLog(LIVE, WallClock())
    other, _ = live_rig(tmp_path / "other", log=log, clock=DrivenClock(ahead_ms))

    async def tick_ahead() -> None:
        await other.gateway.start()
        await other.gateway._coalescer.flush(tick=True)
        await other.gateway.drain()

    run(tick_ahead())
    closed(other)
    rig, _ = live_rig(tmp_path, log=log)
    log.unavailable = True

    async def start() -> None:
        await rig.gateway.start()
        assert rig.gateway._coalescer.last_tick_ms < ahead_ms
        log.unavailable = False
        await asyncio.sleep(0.3)
        assert rig.gateway._coalescer.last_tick_ms == ahead_ms
        await rig.gateway.drain()

    run(start())
    closed(rig)


def test_without_a_spool_a_gateway_does_not_start_without_its_log(tmp_path: Path) -> None:
    log = AwayLog(LIVE, WallClock())
    log.unavailable = True
    rig = Rig(tmp_path, log=log, lane="live", clock=WallClock())
    with pytest.raises(Exception, match="unavailable"):
        run(rig.gateway.start())


def test_two_gateways_know_each_others_rollouts_without_a_restart(tmp_path: Path) -> None:
    log = AwayLog(LIVE, WallClock())
    one, _ = live_rig(tmp_path / "1", log=log, shared=True, gateway_name="gateway-1")
    two, _ = live_rig(tmp_path / "2", log=log, shared=True, gateway_name="gateway-2")
    declaration = {"vendor": "v", "product": "p", "update_kind": "driver", "version": "7"}

    async def play() -> None:
        vendor = JSON | one.token("vendor", roles="rollout")
        other = JSON | two.token("vendor", roles="rollout")
        async with one.serving() as first, two.serving() as second:
            assert (await first.post("/v1/rollouts", content=json.dumps(declaration), headers=vendor)).is_success
            # The same version is discovered at both at once.
            await asyncio.gather(
                one.gateway.post(now_body(offered(1)), False, ACME),
                two.gateway.post(now_body(installed(2)), False, ACME),
            )
            for _ in range(200):
                pages = [
                    (await client.get("/v1/rollouts", headers=headers)).json()["rollouts"]
                    for client, headers in ((first, vendor), (second, other))
                ]
                if pages[0] == pages[1] and len(pages[0]) == 2:
                    break
                await asyncio.sleep(0.02)
            assert pages[0] == pages[1]
            assert {page["version"]: page["bound"] for page in pages[0]} == {"7": "none", "291": Bound.OFFERED}

    run(play())
    closed(one)
    closed(two)
    third, _ = live_rig(tmp_path / "3", log=log)

    async def read() -> None:
        await third.gateway.start()
        await third.gateway.drain()

    run(read())
    assert third.gateway.book.page("", 10) == one.gateway.book.page("", 10) == two.gateway.book.page("", 10)
    closed(third)


def test_a_word_that_another_gateway_wrote_over_is_said_again_by_whoever_starts_next(tmp_path: Path) -> None:
    """Two declare at once, and the one whose word was written over ends before it could mend that."""
    log = AwayLog(LIVE, WallClock())
    rings = [{"name": "canary", "starts_at_ms": NOW_MS}]
    declaration = {"vendor": "v", "product": "p", "update_kind": "driver", "version": "7"}
    rigs = [live_rig(tmp_path / str(number), log=log, gateway_name=f"gateway-{number}")[0] for number in (1, 2)]

    async def play() -> None:
        for rig in rigs:
            await rig.gateway.start()
        for rig, more in zip(rigs, ({"rings": rings}, {}), strict=True):
            rig.tokens.add("vendor", ["acme"], ["rollout"])
            principal = next(known for _, known in rig.tokens._by_digest.values())
            await rig.gateway.declare(json.dumps(declaration | more).encode(), principal)
        for rig in rigs:
            await rig.gateway.drain()

    run(play())
    third, _ = live_rig(tmp_path / "3", log=log, gateway_name="gateway-3")

    async def read() -> None:
        await third.gateway.start()
        await third.gateway.drain()

    run(read())
    (said,) = third.gateway.book.page("", 10)
    assert (said.bound, [ring.name for ring in said.rings]) == (Bound.DECLARED, ["canary"])
    assert log.values("rollouts", topics=LIVE)[-1] == encoder.encode(said)
    for rig in (*rigs, third):
        closed(rig)


@pytest.mark.fault
def test_a_disk_that_is_full_refuses_and_loses_nothing(tmp_path: Path) -> None:
    environment = dict(os.environ, PYTHONPATH=f"{ROOT}{os.pathsep}{ROOT / 'tests'}")
    command = [sys.executable, "-m", "support.spool_disk_full", str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert "acknowledged" in done.stdout
