"""Alerts: none without history, one a pattern, none that is a rollout's, the same after any restore."""

import msgspec
import pytest

from detectors.alerts.hours import SeenPattern
from detectors.alerts.judge import AlertJudge, JudgeState
from detectors.alerts.wire import Alert, AlertState, alert_decoder
from detectors.patterns import WARM_HOURS
from support.pattern_hours import FIRST_HOUR, quiet_hours, storm, texts

TRAINED = 24 * 6
STORM = FIRST_HOUR + TRAINED


@pytest.fixture(scope="module")
def state() -> bytes:
    """The state of a judge with six quiet days behind it: tests restore their own."""
    judge = AlertJudge(FIRST_HOUR)
    for hour, rows in quiet_hours(1, TRAINED):
        assert judge.judge(hour, rows) == []
    assert judge.status().ready
    return msgspec.msgpack.encode(judge.snapshot())


def restored(state: bytes) -> AlertJudge:
    return AlertJudge.restore(msgspec.msgpack.decode(state, type=JudgeState))


def run(judge: AlertJudge, storms: dict[int, list[SeenPattern]], hours: int) -> list[Alert]:
    """Judge so many hours from the storm on, each with its quiet rows, and return all that was written."""
    written = []
    quiet = dict(quiet_hours(1, TRAINED + hours))
    for hour in range(STORM, STORM + hours):
        written += judge.judge(hour, [*quiet[hour], *storms.get(hour - STORM, [])])
    return written


def test_without_history_there_are_no_alerts_and_the_status_says_so() -> None:
    judge = AlertJudge(FIRST_HOUR)
    for hour in range(WARM_HOURS):
        assert judge.judge(FIRST_HOUR + hour, [storm(500)]) == []
    status = judge.status()
    assert not status.ready
    assert status.tests == 0
    assert status.sentence.startswith("not enough history to tell what is usual: 48 of 48 hours, then 0 of 200 hours")


def test_quiet_fleets_raise_none() -> None:
    judge = AlertJudge(FIRST_HOUR)
    assert [alert for hour, rows in quiet_hours(11, 24 * 9) for alert in judge.judge(hour, rows)] == []
    assert judge.status().tests > 1000


def test_a_storm_is_one_alert_that_grows_and_ends(state: bytes) -> None:
    judge = restored(state)
    rows = {0: [storm(12)], 1: [storm(14)], 2: [storm(40)], 3: [storm(45)], 4: [storm(3)]}
    written = run(judge, rows, 12)
    assert {alert.alert for alert in written} == {written[0].alert}
    assert [alert.state for alert in written] == [AlertState.OPEN, AlertState.OPEN, AlertState.OPEN, AlertState.ENDED]
    first, last = written[0], written[-1]
    assert first.pattern == "bad.sys|0x7e"
    assert (first.crashes, first.devices_most, first.tenants_most) == (12, 12, 5)
    assert first.log10_evidence >= first.log10_needed
    assert [place.os_build for place in first.places] == ["", "22631.3880"]
    assert first.sentence.startswith("bad.sys|0x7e: 12 crashes since ")
    assert "It belongs to no rollout under watch." in first.sentence
    assert (last.crashes, last.devices_most, last.ended) == (114, 45, "quiet")
    assert "it was quiet for 6 hours" in last.sentence
    assert judge.status().open == 0


def test_who_comes_back_within_a_day_is_the_same_alert(state: bytes) -> None:
    written = run(restored(state), {0: [storm(30)], 12: [storm(60)]}, 14)
    assert {alert.alert for alert in written} == {written[0].alert}
    assert [(alert.state.value, alert.times) for alert in written] == [("open", 1), ("ended", 1), ("open", 2)]


def test_what_is_a_rollouts_is_left_to_it_unless_the_rollout_is_everywhere(state: bytes) -> None:
    judge = restored(state)
    assert run(judge, {0: [storm(40, rollouts={"v/p 2": 40})]}, 2) == []
    # The quiet rows of every hour are on it as well now.
    judge = restored(state)
    everywhere = [
        (hour, [row._replace(on_rollouts={"v/p 2": row.crashes}) for row in rows])
        for hour, rows in quiet_hours(1, TRAINED + 30)
        if hour >= STORM
    ]
    written = []
    for hour, rows in everywhere:
        more = [storm(40, rollouts={"v/p 2": 40})] if hour == STORM + 26 else []
        written += judge.judge(hour, [*rows, *more])
    assert [alert.pattern for alert in written] == ["bad.sys|0x7e"]


def test_near_duplicates_are_one_alert_that_names_them(state: bytes) -> None:
    judge = restored(state)
    assert judge.wants_names(STORM, [storm(5)])
    assert not judge.wants_names(FIRST_HOUR + 1, [storm(2)])
    judge.learn(STORM, texts("bad.sys|0x7e", "bad.sys|0x50", "bad.sys|0x3b"))
    assert not judge.wants_names(STORM + 1, [storm(5)])
    assert judge.wants_names(STORM + 24, [])
    (alert,) = run(judge, {0: [storm(5), storm(9, "bad.sys|0x50"), storm(4, "bad.sys|0x3b")]}, 1)
    assert alert.pattern == "bad.sys|0x7e"
    assert alert.signatures == ["bad.sys|0x50", "bad.sys|0x7e", "bad.sys|0x3b"]
    assert alert.crashes == 18
    assert alert.joined.startswith("2 names are like bad.sys|0x7e")
    assert "(with 2 names like it)" in alert.sentence


def test_a_name_once_given_is_kept(state: bytes) -> None:
    judge = restored(state)
    judge.learn(STORM, texts("bad.sys|0x7e", "bad.sys|0x50"))
    judge.learn(STORM, texts("bad.sys|0x3b", "bad.sys|0x50", "bad.sys|0x7e"))
    assert {judge.names.of(f"bad.sys|{code}") for code in ("0x7e", "0x50", "0x3b")} == {"bad.sys|0x7e"}
    assert judge.names.of("other.sys|0x50") == "other.sys|0x50"


@pytest.mark.parametrize("at", range(0, 12, 2))
def test_going_on_from_a_restore_is_the_same_to_the_bit(state: bytes, at: int) -> None:
    rows = {0: [storm(12)], 2: [storm(40, "bad.sys|0x50"), storm(30)], 4: [storm(3, rollouts={"v/p 2": 3})]}
    quiet = dict(quiet_hours(1, TRAINED + 12))
    through = restored(state)
    again = None
    for hour in range(12):
        if hour == at:
            again = restored(msgspec.msgpack.encode(through.snapshot()))
        seen = [*quiet[STORM + hour], *rows.get(hour, [])]
        written = through.judge(STORM + hour, seen)
        if again is not None:
            assert again.judge(STORM + hour, seen) == written
    assert again is not None
    assert msgspec.msgpack.encode(again.snapshot()) == msgspec.msgpack.encode(through.snapshot())


def test_one_machine_that_crashes_all_day_is_no_alert(state: bytes) -> None:
    rows = [storm(500)._replace(devices=1, tenants=("t0",))]
    assert run(restored(state), dict.fromkeys(range(6), rows), 6) == []


def test_an_alert_survives_the_wire(state: bytes) -> None:
    (alert,) = run(restored(state), {0: [storm(30)]}, 1)
    assert alert_decoder.decode(msgspec.json.encode(alert)) == alert
    status = restored(state).status()
    assert alert_decoder.decode(msgspec.json.encode(status)) == status


def test_hours_come_once_and_in_order(state: bytes) -> None:
    with pytest.raises(ValueError, match="was judged already"):
        restored(state).judge(STORM - 1, [])


def test_hostile_names_are_shown_harmlessly(state: bytes) -> None:
    (alert,) = run(restored(state), {0: [storm(30, "\x1b[2J" + "x" * 500, model="\u202e")]}, 1)
    assert alert.sentence.isprintable()
    assert len(alert.sentence) < 800
