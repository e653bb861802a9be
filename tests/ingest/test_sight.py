"""Sight: every way in which a share of the work can be lost from view is named, and nothing else is."""

from typing import Any

import pytest

from ingest.clock import DrivenClock
from ingest.metrics import Metrics
from ingest.sight import Cause, Watch, limits_of, shares_of
from ingest.topics import Topics
from support.words import NOW_MS, word

BLIND_SECONDS = 10
LAG_MAX = 100


class Rig:
    """A watch over one grouping share, one of detection and one of signals, with a hand on both clocks."""

    def __init__(self, lane: str = "live") -> None:
        self.seconds = 1000.0
        self.clock = DrivenClock(NOW_MS)
        self.metrics = Metrics()
        shares = shares_of(Topics(lane, device_partitions=1))
        limits = limits_of(BLIND_SECONDS, LAG_MAX, lane)
        self.watch = Watch(shares, limits, self.metrics, self.clock, lambda: self.seconds)

    def later(self, seconds: float) -> None:
        self.seconds += seconds
        self.clock.drive_to(self.clock.now_ms() + int(seconds * 1000))

    def all_say(self, fresh: bool = True, **of_grouping: Any) -> None:
        for owner in ("grouping/0", "detection/0", "signals/0"):
            fields = {"newest_ms": self.clock.now_ms()} | (of_grouping if owner == "grouping/0" else {})
            self.watch.heard(word(owner, **fields), fresh)

    def causes(self) -> list[tuple[str, Cause]]:
        return [(one.share, one.cause) for one in self.watch.sight().why]


def test_seen_is_who_speaks_and_keeps_up() -> None:
    rig = Rig()
    rig.all_say()
    assert rig.watch.sight().seeing
    assert rig.watch.sight().why == []


def test_shares_are_one_for_each_partition_and_stage() -> None:
    assert shares_of(Topics("live", device_partitions=2, keyed_partitions=2)) == [
        *("grouping/0", "grouping/1"),
        *("detection/0", "detection/1", "signals/0", "signals/1"),
    ]


def test_who_has_just_begun_to_listen_does_not_see_but_takes_nothing_back() -> None:
    """Words that lay in the log prove that somebody lived, not that he lives."""
    rig = Rig()
    rig.all_say(fresh=False)
    assert not rig.watch.sight().seeing
    assert {cause for _, cause in rig.causes()} == {Cause.UNHEARD}
    assert rig.watch.doubts() == []
    rig.later(BLIND_SECONDS + 0.1)
    assert {cause for _, cause in rig.causes()} == {Cause.MISSING}
    assert len(rig.watch.doubts()) == 3


def test_an_owner_is_silent_one_tick_past_the_limit() -> None:
    rig = Rig()
    rig.all_say()
    rig.later(BLIND_SECONDS)
    rig.watch.heard(word("grouping/0", newest_ms=rig.clock.now_ms()), True)
    rig.watch.heard(word("signals/0"), True)
    assert rig.causes() == []
    rig.later(0.1)
    assert rig.causes() == [("detection/0", Cause.SILENT)]
    assert rig.watch.doubts() == ["detection/0 silent"]


def test_a_share_that_was_left_is_missing_once_nobody_took_it_in_time() -> None:
    """A rebalance takes seconds: it is no blindness unless it lasts."""
    rig = Rig()
    rig.all_say()
    rig.watch.heard(word("grouping/0", leaving=True), True)
    rig.watch.expose()
    assert rig.metrics.value("owners_missing", stage="grouping") == 1
    assert rig.watch.sight().seeing
    rig.later(BLIND_SECONDS + 0.1)
    rig.watch.heard(word("detection/0", newest_ms=rig.clock.now_ms()), True)
    rig.watch.heard(word("signals/0"), True)
    assert rig.causes() == [("grouping/0", Cause.MISSING)]
    assert "`cordon worker`" in rig.watch.sight().why[0].detail
    rig.watch.heard(word("grouping/0", generation=2, newest_ms=rig.clock.now_ms()), True)
    assert rig.watch.sight().seeing


def test_a_stale_owner_keeps_nothing_in_view() -> None:
    rig = Rig()
    rig.all_say(generation=7)
    rig.later(BLIND_SECONDS + 1)
    rig.all_say(generation=6)
    assert rig.causes() == [("grouping/0", Cause.SILENT)]


def test_a_stalled_agent_is_one_that_speaks_beside_unread_records_and_does_not_move() -> None:
    rig = Rig("replay")
    positions = {"cordon.replay.activity.v1/0": 5}
    for _ in range(13):
        rig.all_say(lag_records=3, positions=positions)
        rig.later(1)
    assert rig.causes() == [("grouping/0", Cause.STALLED)]
    rig.all_say(lag_records=3, positions={"cordon.replay.activity.v1/0": 6})
    assert rig.causes() == []


def test_standing_still_with_nothing_to_read_is_no_stall() -> None:
    rig = Rig("replay")
    for _ in range(30):
        rig.all_say(lag_records=0)
        rig.later(1)
    assert rig.watch.sight().seeing


@pytest.mark.parametrize(("lag", "causes"), [(LAG_MAX, []), (LAG_MAX + 1, [("grouping/0", Cause.BEHIND)])])
def test_lag_is_bounded(lag: int, causes: list[tuple[str, Cause]]) -> None:
    rig = Rig()
    rig.all_say(lag_records=lag)
    assert rig.causes() == causes
    rig.watch.expose()
    assert rig.metrics.value("lag_records", owner="grouping/0") == lag


def test_old_records_are_blindness_where_ticks_never_rest() -> None:
    """Gateways tick into grouping's input, and grouping into detection's; signals may have nothing to read for long."""
    rig = Rig()
    old_ms = NOW_MS - BLIND_SECONDS * 1000 - 1
    for owner in ("grouping/0", "detection/0", "signals/0"):
        rig.watch.heard(word(owner, newest_ms=old_ms), True)
    assert rig.causes() == [("grouping/0", Cause.OLD), ("detection/0", Cause.OLD)]
    rig.watch.expose()
    assert rig.metrics.value("newest_age_seconds", owner="grouping/0") == pytest.approx(10.001)
    rig.watch.heard(word("grouping/0", newest_ms=old_ms + 1), True)
    assert rig.causes() == [("detection/0", Cause.OLD)]


def test_an_owner_that_has_just_begun_is_not_blind_until_that_lasts() -> None:
    """Each rebalance brings owners that have read nothing yet; a verdict must not flicker with each."""
    rig = Rig()
    rig.all_say()
    rig.all_say(generation=2, newest_ms=0)
    assert rig.causes() == []
    for _ in range(BLIND_SECONDS + 1):
        rig.later(1)
        rig.all_say(generation=2, newest_ms=0)
    assert rig.causes() == [("grouping/0", Cause.OLD)]


def test_the_age_of_records_is_not_judged_where_the_clock_is_driven() -> None:
    rig = Rig("replay")
    rig.all_say(newest_ms=1)
    assert rig.watch.sight().seeing


def test_silence_is_exported() -> None:
    rig = Rig()
    rig.all_say()
    rig.later(4)
    rig.watch.heard(word("signals/0"), True)
    rig.watch.expose()
    assert rig.metrics.value("owner_silent_seconds", owner="grouping/0") == 4
    assert rig.metrics.value("owner_silent_seconds", owner="signals/0") == 0
    assert rig.metrics.value("owners_missing", stage="grouping") == 0
