"""Intake records are taken like posts: same outcomes, same limits; what is refused is dead-lettered, none is lost."""

import asyncio
import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ingest.clock import DrivenClock
from ingest.deadletter import LETTERS_MAX, DeadLetter, DeadReason, deadletter_decoder
from ingest.events import encoder
from ingest.gateway.intake import RETRY_SECONDS_MAX, IntakeRecord, IntakeStage
from ingest.gateway.pseudonym import Pseudonyms
from ingest.log.interface import Record, TopicPartition
from support.gateway_rig import KEY, NOW_MS, Rig, bsod, check_in, common, run

SOURCE = TopicPartition("cordon.intake.v1", 3)


def _nothing() -> None:
    """Let time pass and nothing else happen."""


class Sleeps:
    """Lets the rig's clock pass instead of waiting, and counts."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.taken: list[float] = []
        self.then: Callable[[], None] = _nothing

    async def __call__(self, seconds: float) -> None:
        self.taken.append(seconds)
        assert len(self.taken) < 200, "tried for ever"
        assert isinstance(self.rig.clock, DrivenClock)
        self.rig.clock.drive_to(self.rig.clock.now_ms() + int(seconds * 1000))
        self.then()
        await asyncio.sleep(0)


def record(body: bytes | None, token: dict[str, str] | None, offset: int = 0) -> IntakeRecord:
    headers = [("Authorization", token["authorization"].encode())] if token else [("trace", b"1")]
    return IntakeRecord(Record(offset, b"any", body, NOW_MS), headers)


def take(rig: Rig, *records: IntakeRecord, sleeps: Sleeps | None = None) -> None:
    async def play() -> None:
        await rig.gateway.start()
        await IntakeStage(rig.gateway, rig.log, sleeps or Sleeps(rig)).take(SOURCE, records)
        await rig.gateway.drain()

    run(play())


def letters(rig: Rig) -> list[DeadLetter]:
    found = rig.log.read(TopicPartition(rig.topics.name("deadletter"), 0), 0, 10_000, 1 << 30)
    return [deadletter_decoder.decode(one.value or b"") for one in found]


def results(rig: Rig) -> dict[str, float]:
    names = ("accepted", "partly", "refused", "retried")
    return {n: v for n in names if (v := rig.metrics.value("intake_records_total", result=n))}


def test_one_report_or_an_array_is_taken_as_from_a_post(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    token = rig.token()
    take(rig, record(encoder.encode(check_in(1)), token), record(encoder.encode([check_in(2), bsod(3)]), token))
    assert sorted(report.seq for report in rig.reports("activity")) == [1, 2]
    (crash,) = rig.reports("crashes")
    assert (crash.device, crash.tenant) == (Pseudonyms(KEY).of("acme", "host-3"), "acme")
    assert (results(rig), letters(rig)) == ({"accepted": 2}, [])
    assert rig.metrics.value("reports_total", outcome="accepted") == 3


def test_a_record_without_a_known_token_is_dead_lettered_with_its_place(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    body = encoder.encode(check_in(1))
    unknown = {"authorization": "Bearer cordon_nobody"}
    take(rig, record(body, None, 7), record(body, unknown, 8), record(body, rig.token("d", roles="rollout"), 9))
    assert not rig.reports("activity")
    found = letters(rig)
    assert [(one.stage, one.reason, one.topic, one.partition, one.offset) for one in found] == [
        ("gateway", DeadReason.UNAUTHENTICATED, "cordon.intake.v1", 3, 7),
        ("gateway", DeadReason.UNAUTHENTICATED, "cordon.intake.v1", 3, 8),
        ("gateway", DeadReason.REFUSED, "cordon.intake.v1", 3, 9),
    ]
    assert found[2].detail.startswith("forbidden: ")
    assert base64.b64decode(found[0].value) == body
    assert results(rig) == {"refused": 3}


def test_bad_reports_are_dead_lettered_by_themselves_and_good_ones_beside_them_taken(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    bad = [
        common(5, kind="bsod", bugcheck=-1),
        common(6, kind="tea_time"),
        common(7, kind="check_in", tenant="umbrella"),
    ]
    body = encoder.encode([check_in(1), bad[0], check_in(2), bad[1], bad[2]])
    take(rig, record(body, rig.token(), 4))
    assert len(rig.reports("activity")) == 2
    found = letters(rig)
    assert [one.detail.split(": ")[:2] for one in found] == [
        ["report 1", "invalid_type"],
        ["report 3", "unknown_kind"],
        ["report 4", "wrong_tenant"],
    ]
    assert [base64.b64decode(one.value) for one in found] == [encoder.encode(one) for one in bad]
    assert {(one.reason, one.offset) for one in found} == {(DeadReason.REFUSED, 4)}
    assert results(rig) == {"partly": 1}
    assert rig.metrics.value("reports_total", outcome="unknown_kind") == 1
    assert rig.metrics.value("deadletters_total", reason="refused") == 3


def test_what_is_no_json_or_empty_or_too_large_or_too_much_is_dead_lettered_whole(tmp_path: Path) -> None:
    rig = Rig(tmp_path, body_inflated_bytes_max=2000, reports_per_post_max=3)
    token = rig.token()
    many = encoder.encode([{}] * 4)
    bodies = [b"[nonsense", b"", None, b"x" * 2001, many, b"\xff\xfe", b"[" * 900]
    take(rig, *(record(body, token, offset) for offset, body in enumerate(bodies)))
    found = letters(rig)
    assert {one.offset for one in found} == set(range(len(bodies)))
    assert {one.reason for one in found} == {DeadReason.REFUSED}
    assert results(rig) == {"refused": len(bodies)}


def test_a_flood_of_bad_reports_gets_a_bounded_number_of_letters(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    take(rig, record(encoder.encode([{"kind": "x"}] * (LETTERS_MAX + 20)), rig.token()))
    found = letters(rig)
    assert (len(found), found[-1].dropped) == (LETTERS_MAX, 20)


def test_throttled_reports_are_tried_until_they_are_taken_and_only_those(tmp_path: Path) -> None:
    """A record may hold more than the tenant's whole burst: each try takes what the rate allows."""
    rig = Rig(tmp_path, tenant_reports_per_second_max=3)
    sleeps = Sleeps(rig)
    reports: list[Any] = [check_in(number) for number in range(50)]
    reports[10] = common(10, kind="tea_time")
    take(rig, record(encoder.encode(reports), rig.token()), sleeps=sleeps)
    taken = sorted(report.seq for report in rig.reports("activity"))
    assert taken == [number for number in range(50) if number != 10]
    assert [one.detail.split(": ")[:2] for one in letters(rig)] == [["report 10", "unknown_kind"]]
    assert results(rig) == {"partly": 1, "retried": len(sleeps.taken)}
    assert len(sleeps.taken) >= 6
    assert max(sleeps.taken) <= RETRY_SECONDS_MAX


def test_what_cannot_be_taken_now_is_tried_again_and_never_dead_lettered(tmp_path: Path) -> None:
    """The log fails, then the gateway drains: the record waits; its offset would not be committed."""
    rig = Rig(tmp_path)
    sleeps = Sleeps(rig)
    rig.log.unavailable = False
    token = rig.token()

    async def play() -> None:
        await rig.gateway.start()
        for _ in range(3):
            rig.log.refuse_next_append()
        stage = IntakeStage(rig.gateway, rig.log, sleeps)
        await stage.take(SOURCE, [record(encoder.encode(bsod(1)), token)])
        assert [report.seq for report in rig.reports("crashes")] == [1]
        await rig.gateway.drain()
        waiting = asyncio.create_task(
            IntakeStage(rig.gateway, rig.log).take(SOURCE, [record(encoder.encode(bsod(2)), token)])
        )
        await asyncio.sleep(0.1)
        assert not waiting.done()
        waiting.cancel()

    run(play())
    assert letters(rig) == []
    assert results(rig)["accepted"] == 1


def test_dead_letters_wait_for_a_log_that_is_away(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    sleeps = Sleeps(rig)
    sleeps.then = lambda: setattr(rig.log, "unavailable", len(sleeps.taken) < 3)

    async def play() -> None:
        await rig.gateway.start()
        rig.log.unavailable = True
        await IntakeStage(rig.gateway, rig.log, sleeps).take(SOURCE, [record(b"no", rig.token())])
        assert len(sleeps.taken) == 3
        await rig.gateway.drain()

    run(play())
    assert len(letters(rig)) == 1
