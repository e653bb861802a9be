"""The plan of a drill: reports that a gateway takes, of devices and tenants that are nobody else's."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.drill import (
    PRODUCT,
    REACHED_ALL_SECONDS,
    RING,
    TENANTS,
    VENDOR,
    DrillPlan,
    is_drill,
    started_ms_of,
    version_of,
)
from detectors.exposure import ExposureBound
from ingest.events import TIME_MAX_MS, TIME_MIN_MS, Offered, encoder
from ingest.gateway.parse import ParseLimits, parse
from ingest.gateway.tenants import Principal, Role
from ingest.rollouts import Bound, Rollout, RolloutDeclaration
from ingest.tenancy import tenant_group

T0 = 1_721_362_140_000  # 2024-07-19T04:09:00Z
DAY_MS = 86_400_000


def plan(started_ms: int = T0, mark: str = "01ab", **fields: Any) -> DrillPlan:
    return msgspec.convert({"started_ms": started_ms, "mark": mark, **fields}, DrillPlan)


def drill_token() -> Principal:
    return Principal("drill", frozenset(TENANTS), frozenset({Role.REPORT, Role.ROLLOUT}))


def test_only_cordons_own_product_is_a_drill() -> None:
    assert is_drill("cordon", "drill")
    assert not is_drill("contoso", "drill")
    assert not is_drill("cordon", "drill-2")
    assert not is_drill("Cordon", "drill")


@given(st.integers(TIME_MIN_MS, TIME_MAX_MS), st.from_regex(r"[0-9a-f]{4,16}", fullmatch=True))
def test_a_version_tells_to_the_second_when_its_drill_began(at_ms: int, mark: str) -> None:
    assert started_ms_of(version_of(at_ms, mark)) == at_ms // 1000 * 1000


@pytest.mark.parametrize("version", ["", "291", "20240719T040900Z", "20241319T040900Z-01ab", "20240719T040900Z-01ab "])
def test_what_is_no_drills_version_began_at_no_time(version: str) -> None:
    assert started_ms_of(version) is None


def test_a_gateway_takes_every_report_from_the_drills_token_and_none_from_another() -> None:
    """One post each, within the default limits; a token of a real tenant can't post for the drill's devices."""
    made = plan()
    for reports in (made.check_ins(), made.offers(), [made.crash(7, T0 + 2000)]):
        body = encoder.encode(reports)
        taken = parse(body, False, ParseLimits(), T0 + 3000, drill_token())
        assert (len(taken.reports), taken.refused) == (len(reports), [])
        stranger = Principal("acme", frozenset({"acme"}), frozenset({Role.REPORT}))
        assert parse(body, False, ParseLimits(), T0 + 3000, stranger).reports == []


def test_the_drills_token_posts_for_nobody_else() -> None:
    body = encoder.encode([msgspec.structs.replace(plan().check_ins()[0], tenant="acme")])
    assert parse(body, False, ParseLimits(), T0, drill_token()).reports == []


def test_everything_it_names_is_its_own() -> None:
    made = plan()
    reports = [*made.check_ins(), *made.offers(), *(made.crash(n, T0) for n in range(made.exposed))]
    assert {one.tenant for one in reports} == set(TENANTS)
    assert all(one.device.startswith("cordon-drill-") for one in reports)
    assert {name for one in made.check_ins() for name in one.versions} == {f"{VENDOR}/{PRODUCT}"}
    assert {(one.vendor, one.product) for one in made.offers()} == {(VENDOR, PRODUCT)}
    assert {(v.vendor, v.product, v.version) for n in range(8) for v in made.crash(n, T0).versions} == {
        (VENDOR, PRODUCT, made.version)
    }


def test_each_tenant_has_a_group_of_its_own_and_an_equal_part_of_both_arms() -> None:
    """Or leaving one group out would leave out more than one tenant's crashes."""
    assert len({tenant_group(tenant) for tenant in TENANTS}) == len(TENANTS)
    made = plan()
    for reports, part in ((made.check_ins(), made.devices // 8), (made.offers(), made.exposed // 8)):
        assert {tenant: sum(one.tenant == tenant for one in reports) for tenant in TENANTS} == dict.fromkeys(
            TENANTS, part
        )


def test_the_same_devices_crash_in_every_drill_under_numbers_that_rise() -> None:
    """So the fleet grows once, and today's victims have crashed since yesterday's drill began: no controls of it."""
    first, second = plan(), plan(T0 + DAY_MS, "ffff")
    assert {one.device for one in first.check_ins()} == {one.device for one in second.check_ins()}
    assert [one.device for one in first.offers()] == [one.device for one in second.offers()]
    for number in range(first.exposed):
        check_in, offer, crash = first.check_ins()[number], first.offers()[number], first.crash(number, T0 + 1)
        assert check_in.device == offer.device == crash.device
        assert check_in.seq < offer.seq < crash.seq < second.check_ins()[number].seq
    assert first.rollout != second.rollout


def declared(declaration: RolloutDeclaration) -> Rollout:
    """Return what a gateway makes of a declaration."""
    return Rollout(
        rollout="r-1",
        vendor=declaration.vendor,
        product=declaration.product,
        update_kind=declaration.update_kind,
        version=declaration.version,
        origin_ms=declaration.starts_at_ms or 0,
        bound=Bound.DECLARED,
        rings=declaration.rings,
    )


def test_the_declaration_bounds_exposure_during_the_drill_and_makes_everybody_exposed_after_it() -> None:
    bound = ExposureBound(declared(plan().declaration()))
    cell = f"22631|virtual|{RING}|old|recent"
    assert bound.bounded
    last_ms = T0 + 660_000
    assert bound.reach_of([RING], last_ms).tolist() == [0.0]
    assert not bound.reached_all(cell, last_ms)
    assert bound.reached_all(cell, T0 + REACHED_ALL_SECONDS * 1000)


def test_expected_crashes_follow_what_is_asked_for() -> None:
    made = plan()
    usual = made.crashes_expected()
    assert usual is not None
    assert usual <= made.exposed // 3
    more = made.crashes_expected(alpha=1e-12)
    assert more is not None
    assert more > usual
    assert plan(exposed=120).crashes_expected() > usual  # type: ignore[operator]
    assert made.crashes_expected(alpha=1e-60) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"mark": "xyz1"},
        {"mark": "1"},
        {"exposed": 15},
        {"exposed": 121},
        {"devices": 4004, "exposed": 1001},
        {"limit_seconds": 0.0},
        {"limit_seconds": 601.0},
        {"pace_seconds": 61.0},
        {"pace_seconds": -1.0},
        {"settle_seconds": 61.0},
    ],
)
def test_a_plan_that_could_not_pass_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises((ValueError, msgspec.ValidationError)):
        plan(**fields)


@pytest.mark.parametrize("fields", [{"exposed": 16}, {"exposed": 120}, {"devices": 4000, "exposed": 1000}])
def test_a_plan_at_its_limits_is_taken(fields: dict[str, Any]) -> None:
    made = plan(**fields)
    offers = made.offers()
    assert isinstance(offers[-1], Offered)
    assert len(offers) == fields["exposed"]
