"""Rollouts: declared, discovered, refined, and announced in order to every partition."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from ingest.clock import DrivenClock
from ingest.events import Batch, Report, RolloutNotice, encoder
from ingest.gateway.pseudonym import Pseudonyms
from ingest.log.interface import TopicPartition
from ingest.rollouts import Bound, Rollout, rollout_decoder, rollout_id
from ingest.topics import partition_of
from support.gateway_rig import ACME, COLLECTOR, KEY, NOW_MS, PARTITIONS, Rig, check_in, installed, offered, run

JSON = {"content-type": "application/json"}
ID = rollout_id("crowdstrike", "content", "291")
DECLARATION: dict[str, Any] = {
    "vendor": "crowdstrike",
    "product": "content",
    "update_kind": "content",
    "version": "291",
}


def logged(rig: Rig) -> list[Rollout]:
    records = rig.log.read(TopicPartition(rig.topics.name("rollouts"), 0), 0)
    assert all(record.key == rollout_decoder.decode(record.value or b"").rollout.encode() for record in records)
    return [rollout_decoder.decode(record.value or b"") for record in records]


def post_all(rig: Rig, *posts: list[Report]) -> None:
    async def post() -> None:
        await rig.gateway.start()
        for reports in posts:
            await rig.gateway.post(encoder.encode(reports), False, COLLECTOR if reports[0].tenant else ACME)
        await rig.gateway.drain()

    run(post())


def declare(rig: Rig, *bodies: dict[str, Any], tenants: str = "acme") -> list[tuple[int, dict[str, Any]]]:
    async def post() -> list[tuple[int, dict[str, Any]]]:
        headers = JSON | rig.token(f"vendor-{id(rig)}-{len(bodies)}", tenants, "rollout")
        async with rig.serving() as client:
            answers = [await client.post("/v1/rollouts", content=json.dumps(body), headers=headers) for body in bodies]
            return [(answer.status_code, answer.json()) for answer in answers]

    return run(post())


def test_a_version_not_seen_before_is_discovered_and_announced_before_its_reports(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    post_all(rig, [check_in(i) for i in range(40)], [offered(i, at_ms=NOW_MS - i) for i in range(40)])
    (rollout,) = logged(rig)
    assert (rollout.rollout, rollout.bound, rollout.discovered_by) == (ID, Bound.OFFERED, "acme")
    assert rollout.origin_ms == NOW_MS - 39
    assert rig.metrics.value("rollouts_discovered_total") == 1
    for partition in range(PARTITIONS):
        records = rig.records("activity", partition)
        notices = [place for place, record in enumerate(records) if isinstance(record, RolloutNotice)]
        naming = [
            place
            for place, record in enumerate(records)
            if isinstance(record, Batch) and any(report.seq and hasattr(report, "version") for report in record.reports)
        ]
        assert len(notices) == 1
        assert notices[0] < min(naming)
        assert any(isinstance(record, Batch) for record in records[: notices[0]]), "in order, not in front of the world"


def test_the_first_word_decides_the_bound_and_a_later_offered_does_not_mend_it(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    post_all(rig, [installed(1)], [offered(2), installed(3)], [offered(4, "292"), installed(5, "292")])
    assert [(one.version, one.bound) for one in logged(rig)] == [("291", Bound.NONE), ("292", Bound.OFFERED)]


def test_check_ins_reveal_nothing(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    post_all(rig, [check_in(1, versions={"crowdstrike/content": "291"})])
    assert not logged(rig)


def test_a_clock_ahead_does_not_put_the_origin_into_the_future(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    post_all(rig, [offered(1, at_ms=NOW_MS + 60_000)])
    assert logged(rig)[0].origin_ms == NOW_MS


def test_nothing_is_discovered_twice_over_a_restart(tmp_path: Path) -> None:
    first = Rig(tmp_path)
    post_all(first, [offered(1)])
    second = Rig(tmp_path, log=first.log)
    post_all(second, [offered(2), installed(1)])
    assert len(logged(second)) == 1
    assert second.metrics.value("rollouts_discovered_total") == 0
    assert [len(second.notices(partition)) for partition in range(PARTITIONS)] == [1] * PARTITIONS
    assert second.gateway.book.get(ID) == logged(first)[0]


def test_a_failed_append_announces_the_rollout_with_the_next_one(tmp_path: Path) -> None:
    rig = Rig(tmp_path)

    async def post() -> None:
        await rig.gateway.start()
        rig.log.refuse_next_append()
        refused = await asyncio.gather(
            rig.gateway.post(encoder.encode(offered(1)), False, ACME), return_exceptions=True
        )
        assert isinstance(refused[0], Exception)
        assert not logged(rig)
        await rig.gateway.post(encoder.encode(offered(2)), False, ACME)
        assert [one.rollout for one in logged(rig)] == [ID]
        assert all(isinstance(rig.records("activity", p)[0], RolloutNotice) for p in range(PARTITIONS))
        await rig.gateway.drain()

    run(post())


def test_a_tenant_has_a_daily_budget_of_undeclared_versions(tmp_path: Path) -> None:
    clock = DrivenClock(NOW_MS)
    rig = Rig(tmp_path, clock=clock, discovered_per_tenant_max=3)

    async def post() -> None:
        await rig.gateway.start()
        flood = [offered(i, f"v{i % 10}", tenant="acme") for i in range(50)]
        answer = await rig.gateway.post(encoder.encode(flood), False, ACME)
        assert answer.accepted == 50, "the reports are taken all the same"
        await rig.gateway.post(encoder.encode(flood), False, ACME)
        assert len(logged(rig)) == 3
        assert rig.metrics.value("rollouts_refused_total") == 7, "each version is counted once"
        other = encoder.encode(offered(1, "x", tenant="globex"))
        await rig.gateway.post(other, False, COLLECTOR)
        assert logged(rig)[-1].discovered_by == "globex"
        clock.drive_to(NOW_MS + 86_400_000)
        await rig.gateway.post(encoder.encode(offered(1, "v9", at_ms=clock.now_ms())), False, ACME)
        assert logged(rig)[-1].version == "v9"
        await rig.gateway.drain()

    run(post())
    again = Rig(tmp_path, clock=clock, log=rig.log, discovered_per_tenant_max=3)
    again.gateway.book.load([(one, clock.now_ms()) for one in logged(rig)])
    assert again.gateway.book.reveal([offered(1, "z", tenant="acme")]) == [], "the budget outlives a restart"


def test_tenants_without_end_do_not_fill_the_memory(tmp_path: Path) -> None:
    clock = DrivenClock(NOW_MS)
    book = Rig(tmp_path, clock=clock).gateway.book
    for number in range(10_050):
        book.reveal([offered(1, f"v{number}", tenant=f"t{number}")])
    assert len(book.page("", 20_000)) == 10_000
    clock.drive_to(NOW_MS + 2 * 86_400_000)
    assert len(book.reveal([offered(1, "new", tenant="fresh")])) == 1, "a day later there is room again"


def test_a_declaration_is_answered_listed_and_idempotent(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    body = DECLARATION | {"rings": [{"name": "canary", "starts_at_ms": NOW_MS + 5000, "over_seconds": 60}]}
    (created, first), (again, second) = declare(rig, body, body)
    assert (created, again) == (201, 200)
    assert first == second
    assert (first["rollout"], first["bound"], first["origin_ms"]) == (ID, "declared", NOW_MS + 5000)
    assert len(logged(rig)) == 1

    async def read() -> None:
        headers = rig.token("reader", roles="operator")
        async with rig.serving() as client:
            await rig.gateway.post(encoder.encode([offered(1, "292")]), False, ACME)
            page = (await client.get("/v1/rollouts?limit=1", headers=headers)).json()
            rest = (await client.get(f"/v1/rollouts?after={page['next']}", headers=headers)).json()
            ids = [one["rollout"] for one in page["rollouts"] + rest["rollouts"]]
            assert ids == sorted([ID, rollout_id("crowdstrike", "content", "292")])
            assert rest["next"] is None
            kept = (await client.get(f"/v1/rollouts/{ID}", headers=headers)).json()
            assert kept == {name: value for name, value in first.items() if name != "advice"}
            missing = await client.get("/v1/rollouts/r-0", headers=headers)
            assert (missing.status_code, missing.json()["reason"]) == (404, "not_found")
            assert (await client.get("/v1/rollouts?limit=0", headers=headers)).status_code == 400

    rig = Rig(tmp_path, log=rig.log)
    run(read())
    assert len(rig.notices(0)) == 2


def test_pushed_lists_reach_each_partition_as_pseudonyms_once(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    devices = [f"host-{i}" for i in range(20_000)]
    body = DECLARATION | {"pushed": [{"devices": devices, "from_ms": NOW_MS}]}
    (_, first), (status, second) = declare(rig, body, body)
    assert (first["bound"], first["pushed_devices"], first["origin_ms"]) == ("declared", 20_000, NOW_MS)
    assert (status, second) == (200, first)
    names = Pseudonyms(KEY)
    expected = {names.of("acme", device) for device in devices}
    found: list[str] = []
    for partition in range(PARTITIONS):
        notices = rig.notices(partition)
        assert max(len(notice.pushed) for notice in notices) <= 4000
        assert {notice.pushed_from_ms for notice in notices} == {NOW_MS}
        mine = [name for notice in notices for name in notice.pushed]
        assert {partition_of(name, PARTITIONS) for name in mine} == {partition}
        found += mine
    assert len(found) == len(expected)
    assert set(found) == expected
    after = Rig(tmp_path, log=rig.log)
    ((status, third),) = declare(after, body)
    assert (status, third) == (200, first), "known again after a restart"


def test_a_declaration_refines_what_was_discovered_but_never_moves_a_past_origin(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    post_all(rig, [installed(1)])
    later = Rig(tmp_path, log=rig.log)
    ring = {"name": "broad", "starts_at_ms": NOW_MS - 600_000}
    ((status, rollout),) = declare(later, DECLARATION | {"rings": [ring]})
    assert status == 200
    assert (rollout["bound"], rollout["origin_ms"]) == ("declared", NOW_MS - 1000)
    assert rollout["declared_by"]
    assert rollout["discovered_by"] == ""
    assert len(later.notices(0)) == 1, "nothing changed for the partitions"


def test_a_future_origin_is_pulled_to_the_first_device_that_speaks_of_the_version(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    declare(rig, DECLARATION | {"starts_at_ms": NOW_MS + 3_600_000})
    later = Rig(tmp_path, log=rig.log)
    post_all(later, [offered(1, at_ms=NOW_MS - 10)], [offered(2, at_ms=NOW_MS - 20)])
    assert [one.origin_ms for one in logged(later)] == [NOW_MS + 3_600_000, NOW_MS - 10]
    assert [notice.origin_ms for notice in later.notices(0)] == [NOW_MS + 3_600_000, NOW_MS - 10]


@pytest.mark.parametrize(("first_word", "bound"), [(offered, Bound.OFFERED), (installed, Bound.NONE)])
def test_a_declaration_without_rings_takes_the_first_word_for_bound(
    tmp_path: Path, first_word: Any, bound: Bound
) -> None:
    rig = Rig(tmp_path)

    async def post() -> None:
        headers = JSON | rig.token("vendor", roles="rollout")
        async with rig.serving() as client:
            answer = await client.post("/v1/rollouts", content=json.dumps(DECLARATION), headers=headers)
            assert answer.json()["bound"] == "none"
            await rig.gateway.post(encoder.encode(first_word(1)), False, ACME)
            await rig.gateway.post(encoder.encode(offered(2)), False, ACME)

    run(post())
    assert logged(rig)[-1].bound is bound


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"{", 400, "bad_request"),
        (json.dumps(DECLARATION | {"ringz": []}).encode(), 400, "bad_request"),
        (json.dumps(DECLARATION | {"version": "1\x00"}).encode(), 400, "bad_request"),
        (b"[" * 100_000, 400, "bad_request"),
        (
            json.dumps(DECLARATION | {"pushed": [{"tenant": "globex", "devices": ["a"], "from_ms": NOW_MS}]}).encode(),
            403,
            "forbidden",
        ),
    ],
)
def test_a_bad_declaration_is_refused(tmp_path: Path, body: bytes, status: int, reason: str) -> None:
    rig = Rig(tmp_path)

    async def post() -> None:
        headers = JSON | rig.token("vendor", roles="rollout")
        async with rig.serving() as client:
            answer = await client.post("/v1/rollouts", content=body, headers=headers)
            assert (answer.status_code, answer.json()["reason"]) == (status, reason), answer.text

    run(post())
    assert not logged(rig)


def test_the_same_version_declared_as_another_kind_is_a_conflict(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    answers = declare(rig, DECLARATION, DECLARATION | {"update_kind": "driver"})
    assert [status for status, _ in answers] == [201, 409]


def test_a_declaration_the_log_did_not_take_is_refused_and_may_be_repeated(tmp_path: Path) -> None:
    rig = Rig(tmp_path)

    async def post() -> None:
        headers = JSON | rig.token("vendor", roles="rollout")
        body = json.dumps(DECLARATION | {"rings": [{"name": "a", "starts_at_ms": NOW_MS}]})
        async with rig.serving() as client:
            rig.log.refuse_next_append()
            answer = await client.post("/v1/rollouts", content=body, headers=headers)
            assert (answer.status_code, answer.json()["reason"]) == (503, "log_unavailable")
            answer = await client.post("/v1/rollouts", content=body, headers=headers)
            assert answer.status_code == 200
            assert len(logged(rig)) == 1

    run(post())
