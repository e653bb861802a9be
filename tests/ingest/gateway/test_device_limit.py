"""A device that floods is throttled; others, and collectors with many devices, are not."""

from pathlib import Path

import pytest

from ingest.clock import DrivenClock
from ingest.events import Report, encoder
from ingest.gateway.refusal import RequestRefusedError
from ingest.gateway.tenants import Principal
from ingest.outcome import Outcome, Refusal
from support.gateway_rig import ACME, COLLECTOR, NOW_MS, Rig, check_in, run


def post(rig: Rig, reports: list[Report], principal: Principal = ACME) -> tuple[int, list[int]]:
    """Return how many were accepted, and the places of those that were throttled."""

    async def play() -> tuple[int, list[int]]:
        await rig.gateway.start()
        try:
            answer = await rig.gateway.post(encoder.encode(reports), False, principal)
        except RequestRefusedError as refusal:
            if refusal.reason is not Refusal.THROTTLED:
                raise
            return 0, list(range(len(reports)))
        assert {one.reason for one in answer.refused} <= {Outcome.THROTTLED}
        return answer.accepted, [one.place for one in answer.refused]

    return run(play())


def of(device: int, count: int, first: int = 0, **changes: str) -> list[Report]:
    return [check_in(device, seq=first + number, **changes) for number in range(count)]


def test_a_device_is_throttled_over_posts_of_one_second_and_not_beyond(tmp_path: Path) -> None:
    clock = DrivenClock(NOW_MS)
    rig = Rig(tmp_path, clock=clock, device_reports_per_second_max=10)
    assert post(rig, of(1, 6)) == (6, [])
    assert post(rig, of(1, 6, 6)) == (4, [4, 5])
    assert post(rig, of(1, 1, 12)) == (0, [0])
    assert post(rig, of(2, 6)) == (6, []), "another device"
    clock.drive_to(NOW_MS + 1000)
    assert post(rig, of(1, 6, 12)) == (6, [])
    assert rig.metrics.value("reports_total", outcome="throttled") == 2


def test_a_device_within_a_large_post_is_throttled_by_itself(tmp_path: Path) -> None:
    rig = Rig(tmp_path, device_reports_per_second_max=10)
    reports = [*of(1, 5), *of(2, 15), *of(3, 5)]
    assert post(rig, reports) == (20, [15, 16, 17, 18, 19])


def test_collectors_with_many_devices_are_not_held_up(tmp_path: Path) -> None:
    rig = Rig(tmp_path, device_reports_per_second_max=3)
    for _ in range(5):
        assert post(rig, [check_in(number) for number in range(500)]) == (500, [])


def test_the_same_name_at_two_tenants_is_two_devices(tmp_path: Path) -> None:
    rig = Rig(tmp_path, device_reports_per_second_max=4)
    reports = [*of(1, 4, tenant="acme"), *of(1, 4, tenant="umbrella")]
    assert post(rig, reports, COLLECTOR) == (8, [])
    assert post(rig, of(1, 1, tenant="acme"), COLLECTOR) == (0, [0])


def test_counting_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.gateway.device_limit._COUNTED_MAX", 50)
    rig = Rig(tmp_path)
    for number in range(120):
        assert post(rig, [check_in(number)]) == (1, [])
    assert len(rig.gateway._devices._counts) <= 51
