"""Advice on a declared rollout: its words and numbers, at the bound and one past it."""

import pytest

from detectors.planning import PolicyPlanner
from detectors.policy import Policies
from ingest.planning import Advice, Pace
from ingest.rollouts import Bound, Ring, Rollout

T0 = 1_721_362_140_000
DAY_MS = 86_400_000
PLANNER = PolicyPlanner(Policies({}))


def rollout(*rings: Ring, devices: dict[str, int] | None = None, listed: int = 0) -> Rollout:
    return Rollout(
        rollout="r-0123456789abcdef",
        vendor="contoso",
        product="sensor",
        update_kind="content",
        version="291",
        origin_ms=T0,
        bound=Bound.DECLARED,
        rings=list(rings),
        ring_devices=devices or {},
        pushed_devices=listed,
    )


def advise(devices: int, over_seconds: float, planner: PolicyPlanner = PLANNER) -> Advice:
    ring = Ring(name="canary", starts_at_ms=T0, over_seconds=over_seconds)
    return planner.advise(rollout(ring, devices={"canary": devices}))


def test_a_ring_that_may_be_lost_whole_may_be_pushed_at_any_speed_and_one_device_more_may_not() -> None:
    advice = advise(500, 0)
    (ring,) = advice.rings
    assert (advice.devices_any, ring.pace, ring.per_minute_max, ring.lost, ring.warnings) == (
        500,
        Pace.ANY,
        None,
        500,
        [],
    )
    (larger,) = advise(501, 0).rings
    assert (larger.pace, larger.crashes, larger.stopped_seconds) == (Pace.LIMITED, None, None)
    assert larger.warnings[0].startswith(
        "canary: a harmful update crashes 501 devices > 500 and is not decided on while"
    )


def test_at_the_advised_speed_there_is_no_warning_and_at_a_faster_one_there_is() -> None:
    (told,) = advise(6000, 60).rings
    assert told.pace is Pace.LIMITED
    assert told.over_seconds_least is not None
    assert told.per_minute_max is not None
    assert told.per_minute == 6000
    assert told.lost is not None
    assert told.lost > 500
    assert f"push at most {told.per_minute_max:g} devices a minute" in told.warnings[0]
    (kept,) = advise(6000, told.over_seconds_least).rings
    assert kept.lost is not None
    assert kept.lost <= 500
    assert kept.warnings == []
    (faster,) = advise(6000, told.over_seconds_least * 0.98).rings
    assert faster.warnings


def test_of_a_ring_of_unknown_size_nothing_is_known_and_that_is_said() -> None:
    (ring,) = PLANNER.advise(rollout(Ring(name="broad"))).rings
    assert (ring.pace, ring.lost, ring.devices) == (Pace.UNKNOWN, None, None)
    assert ring.warnings == [
        "ring_devices does not say how many devices broad has: say it to have the push rate worked out"
    ]


def test_where_no_speed_is_slow_enough_smaller_rings_are_advised() -> None:
    strict = PolicyPlanner(Policies({"planning": {"loss_max": 1}}))
    (ring,) = advise(6000, 86_400, strict).rings
    assert ring.pace is Pace.NONE
    assert "no speed is slow enough, so make the ring smaller" in ring.warnings[0]


def test_a_product_has_its_own_terms() -> None:
    mild = PolicyPlanner(Policies({"products": {"contoso/sensor": {"planning": {"crash_probability": 0.01}}}}))
    advice = advise(6000, 0, mild)
    assert (advice.crash_probability, advice.devices_any, advice.rings[0].pace) == (0.01, 50_000, Pace.ANY)
    assert advice.policy != advise(6000, 0).policy


def test_a_ring_that_begins_before_the_one_before_it_can_be_stopped_is_warned_of() -> None:
    canary, size = Ring(name="canary", starts_at_ms=T0, over_seconds=3600), {"canary": 6000, "early": 100}
    soon = Ring(name="early", starts_at_ms=T0 + 60_000)
    (first, _) = PLANNER.advise(rollout(soon, canary, devices=size)).rings[::-1]
    assert first.ring == "canary"
    assert first.stopped_seconds is not None
    expected = f"early begins 60 s after canary, in which harm stops the push after {first.stopped_seconds:.0f} s"
    assert first.warnings[-1].startswith(expected)
    hours = Ring(name="early", starts_at_ms=T0 + 7_200_000)
    first = PLANNER.advise(rollout(canary, hours, devices=size)).rings[0]
    assert first.gate_seconds is not None
    assert first.warnings[-1].startswith(
        f"early begins 7200 s after canary, whose gate opens after {first.gate_seconds:.0f}"
    )
    later = Ring(name="early", starts_at_ms=T0 + DAY_MS)
    assert PLANNER.advise(rollout(canary, later, devices=size)).rings[0].warnings == []


def test_a_ring_too_small_for_the_gate_says_so() -> None:
    (ring,) = advise(499, 0).rings
    assert ring.gate_seconds is None
    assert ring.warnings == ["canary: 499 devices < proceed_exposed_least 500: this ring alone opens no gate"]


@pytest.mark.parametrize(("listed", "pace"), [(500, Pace.ANY), (501, Pace.NONE)])
def test_lists_are_pushed_to_at_once(listed: int, pace: Pace) -> None:
    (told,) = PLANNER.advise(rollout(listed=listed)).rings
    assert (told.ring, told.devices, told.pace, told.lost) == ("", listed, pace, listed)
    assert bool(told.warnings) == (pace is Pace.NONE)


def test_an_undeclared_rollout_has_nothing_to_be_advised_on() -> None:
    assert PLANNER.advise(rollout()).rings == []
