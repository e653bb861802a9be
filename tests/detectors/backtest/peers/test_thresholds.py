"""Each rule at its limit and one past it, and what makes it forget."""

import math

import pytest

from detectors.backtest.peers.crashlytics import Crashlytics
from detectors.backtest.peers.ewma import Ewma
from detectors.backtest.peers.failure_limit import argo_rollouts, flagger
from detectors.backtest.peers.gandalf import Gandalf
from detectors.backtest.peers.peer import DAY_MS, Ticks
from detectors.backtest.peers.play_vitals import PlayVitals
from detectors.backtest.peers.prometheus import Prometheus
from detectors.backtest.peers.sentry import Sentry
from detectors.backtest.peers.windows import Trailing, TrailingNames
from detectors.backtest.trace import Minute
from support.minutes import BEGAN_MS, MINUTE_MS, indices, minute

MIDNIGHT = (DAY_MS - BEGAN_MS % DAY_MS) // MINUTE_MS - 1


def _alone(index: int, crashes: int, sessions: int, signature: str = "bad.sys") -> Minute:
    """Return a minute in which only `signature` crashes, among `sessions` active exposed devices."""
    return minute(
        index, active=(sessions, 1800), crashes=(crashes, 0), signatures={signature: (crashes, 0)} if crashes else {}
    )


class TestCrashlytics:
    @pytest.mark.parametrize(
        ("users", "sessions", "fires"),
        [(25, 25, False), (26, 26, True), (26, 2599, True), (26, 2600, False), (58, 5700, True), (57, 5700, False)],
    )
    def test_over_25_users_and_1_percent_of_sessions(self, users: int, sessions: int, fires: bool) -> None:
        alarms = Crashlytics().watch([_alone(0, users, sessions)], BEGAN_MS)
        assert [alarm.decision for alarm in alarms] == ["kill"] * fires

    @pytest.mark.parametrize(("later", "fires"), [(29, True), (30, False)])
    def test_the_window_is_30_minutes(self, later: int, fires: bool) -> None:
        crashes = {0: 13, later: 13}
        minutes = [_alone(index, crashes.get(index, 0), 20) for index in range(later + 1)]
        assert bool(Crashlytics().watch(minutes, BEGAN_MS)) == fires

    def test_once_for_each_signature(self) -> None:
        minutes = [_alone(index, 31, 100, "a.sys" if index < 60 else "b.sys") for index in range(120)]
        alarms = Crashlytics().watch(minutes, BEGAN_MS)
        assert indices(minutes, [alarm.at_ms for alarm in alarms]) == [0, 60]
        assert [alarm.sentence.split(":")[0] for alarm in alarms] == ["a.sys", "b.sys"]

    def test_many_signatures_of_one_fault_stay_below(self) -> None:
        minutes = [_alone(index, 10, 100, f"{index}.sys") for index in range(120)]
        assert Crashlytics().watch(minutes, BEGAN_MS) == []

    def test_old_sessions_that_leave_the_window_can_raise_the_share(self) -> None:
        minutes = [_alone(index, 26 * (index == 5), 2600 if index == 0 else 10) for index in range(35)]
        alarms = Crashlytics().watch(minutes, BEGAN_MS)
        assert indices(minutes, [alarm.at_ms for alarm in alarms]) == [30]

    def test_one_device_that_crashes_often_in_a_minute_is_one_user(self) -> None:
        loop = minute(0, active=(50, 0), crashes=(100, 0), users=(1, 0), signatures={"bad.sys": (100, 0)})
        assert Crashlytics().watch([loop], BEGAN_MS) == []


class TestPlayVitals:
    @staticmethod
    def _days(crashes: int, exposed: int, model: tuple[int, int] | None = None) -> list[Minute]:
        models = {} if model is None else {"T14": (model[0], 0, model[1], 0)}
        end = minute(MIDNIGHT, exposed=exposed, crashes=(crashes, 0), models=models)
        return [minute(0, exposed=exposed), end, minute(MIDNIGHT + 1, exposed=exposed)]

    @pytest.mark.parametrize(
        ("crashes", "exposed", "fires"),
        [(109, 10_000, True), (108, 10_000, False), (2, 100, True), (99, 99, False)],
    )
    def test_109_in_10000_users_of_at_least_100(self, crashes: int, exposed: int, fires: bool) -> None:
        minutes = self._days(crashes, exposed)
        alarms = PlayVitals().watch(minutes, BEGAN_MS)
        assert indices(minutes, [alarm.at_ms for alarm in alarms]) == [1] * fires

    @pytest.mark.parametrize(
        ("devices", "crashes", "fires"), [(100, 8, True), (100, 7, False), (99, 99, False), (1000, 80, True)]
    )
    def test_8_percent_of_one_model(self, devices: int, crashes: int, fires: bool) -> None:
        alarms = PlayVitals().watch(self._days(crashes, 1_000_000, (devices, crashes)), BEGAN_MS)
        assert ["T14" in alarm.sentence for alarm in alarms] == [True] * fires

    def test_nothing_is_said_before_the_day_is_over(self) -> None:
        minutes = [minute(index, crashes=(500, 0)) for index in range(MIDNIGHT)]
        assert PlayVitals().watch(minutes, BEGAN_MS) == []

    def test_each_day_counts_for_itself(self) -> None:
        minutes = [minute(index, exposed=10_000, crashes=(index in (9, 1450), 0)) for index in range(2 * 1440)]
        assert PlayVitals().watch(minutes, BEGAN_MS) == []

    def test_a_day_without_its_last_minute_is_judged_with_the_next_days_first(self) -> None:
        minutes = [minute(0, crashes=(500, 0)), minute(MIDNIGHT + 5)]
        alarms = PlayVitals().watch(minutes, BEGAN_MS)
        assert indices(minutes, [alarm.at_ms for alarm in alarms]) == [1]


class TestSentry:
    @pytest.mark.parametrize(
        ("crashed", "sessions", "decisions"),
        [
            (1, 200, []),
            (2, 399, ["hold"]),
            (2, 100, ["hold"]),
            (3, 149, ["kill"]),
            (49, 49, []),
            (50, 50, ["kill"]),
        ],
    )
    def test_below_98_percent_from_50_sessions_on(self, crashed: int, sessions: int, decisions: list[str]) -> None:
        alarms = Sentry().watch([_alone(0, crashed, sessions)], BEGAN_MS)
        assert [alarm.decision for alarm in alarms] == decisions

    def test_an_incident_that_resolved_opens_again(self) -> None:
        minutes = [_alone(index, 10 * (index in (0, 100)), 100 if index in (0, 100) else 10) for index in range(200)]
        alarms = Sentry().watch(minutes, BEGAN_MS)
        assert indices(minutes, [alarm.at_ms for alarm in alarms]) == [0, 100]

    def test_a_warning_grows_into_a_critical_alert(self) -> None:
        minutes = [_alone(0, 1, 100), _alone(1, 20, 100), _alone(2, 20, 100)]
        alarms = Sentry().watch(minutes, BEGAN_MS)
        assert [(alarm.decision, alarm.at_ms) for alarm in alarms] == [
            ("hold", minutes[0].at_ms),
            ("kill", minutes[1].at_ms),
        ]


class TestFailureLimit:
    @pytest.mark.parametrize(("failures", "fires"), [(3, False), (4, True)])
    def test_argo_fails_past_the_limit_of_3(self, failures: int, fires: bool) -> None:
        # Failures need not follow one another: every second five-minute measurement fails.
        bad = {10 * at for at in range(failures)}
        minutes = [_alone(index, 10 * (index in bad), 20) for index in range(60)]
        alarms = argo_rollouts().watch(minutes, BEGAN_MS)
        assert indices(minutes, [alarm.at_ms for alarm in alarms]) == [34] * fires

    @pytest.mark.parametrize(("crashed", "fires"), [(5, False), (6, True)])
    def test_argo_bears_5_percent(self, crashed: int, fires: bool) -> None:
        minutes = [_alone(index, crashed * (index % 5 == 0), 20) for index in range(60)]
        assert bool(argo_rollouts().watch(minutes, BEGAN_MS)) == fires

    @pytest.mark.parametrize(("failures", "fires"), [(4, False), (5, True)])
    def test_flagger_rolls_back_at_5_failed_checks(self, failures: int, fires: bool) -> None:
        minutes = [_alone(index, 2 * (index < failures), 100) for index in range(60)]
        alarms = flagger().watch(minutes, BEGAN_MS)
        assert indices(minutes, [alarm.at_ms for alarm in alarms]) == [4] * fires

    @pytest.mark.parametrize(("crashed", "fires"), [(1, False), (2, True)])
    def test_flagger_bears_1_percent(self, crashed: int, fires: bool) -> None:
        minutes = [_alone(index, crashed, 100) for index in range(60)]
        assert bool(flagger().watch(minutes, BEGAN_MS)) == fires


class TestPrometheus:
    @pytest.mark.parametrize(("crashes", "fires"), [(2, False), (3, True)])
    def test_twice_the_controls_rate_is_borne(self, crashes: int, fires: bool) -> None:
        minutes = [minute(index, exposed=1000, control=9000, crashes=(crashes, 9)) for index in range(30)]
        assert bool(Prometheus().watch(minutes, BEGAN_MS)) == fires

    @pytest.mark.parametrize(("second", "fired"), [(0, []), (1, [5]), (5, [5]), (6, [])])
    def test_two_crashes_at_most_5_minutes_apart_hold_long_enough(self, second: int, fired: list[int]) -> None:
        minutes = [minute(index, crashes=(int(index in (0, second)), 0)) for index in range(30)]
        assert indices(minutes, [alarm.at_ms for alarm in Prometheus().watch(minutes, BEGAN_MS)]) == fired

    def test_it_fires_again_after_it_was_resolved(self) -> None:
        minutes = [minute(index, crashes=(int(index % 60 < 6), 0)) for index in range(120)]
        assert indices(minutes, [alarm.at_ms for alarm in Prometheus().watch(minutes, BEGAN_MS)]) == [5, 65]

    def test_without_controls_there_is_nothing_to_compare(self) -> None:
        minutes = [minute(index, control=0, active=(200, 0), crashes=(50, 0)) for index in range(60)]
        assert Prometheus().watch(minutes, BEGAN_MS) == []


class TestEwma:
    @staticmethod
    def _minutes(crashes: int) -> list[Minute]:
        """Controls crash 45 times in each five minutes: 5 are expected of the exposed, then `crashes` of them do."""
        return [
            minute(index, crashes=(0 if index % 5 else crashes if index >= 500 else 5, 0 if index % 5 else 45))
            for index in range(505)
        ]

    def test_the_limit_is_three_deviations_of_the_smoothed_rate(self) -> None:
        # One point after 100 in control: weight * (crashes - 5) against 3 sqrt(weight / (2 - weight) * 5).
        limit = 5 + 3 * math.sqrt(5 * 0.2 / 1.8) / 0.2
        assert Ewma().watch(self._minutes(math.floor(limit)), BEGAN_MS) == []
        alarms = Ewma().watch(self._minutes(math.ceil(limit)), BEGAN_MS)
        assert [alarm.at_ms for alarm in alarms] == [BEGAN_MS + 505 * MINUTE_MS]

    def test_a_cure_is_no_alarm(self) -> None:
        minutes = [minute(index, crashes=(0, 45)) for index in range(500)]
        assert Ewma().watch(minutes, BEGAN_MS) == []

    def test_there_is_no_mean_before_a_control_crashed(self) -> None:
        minutes = [minute(index, crashes=(20, 0)) for index in range(100)]
        assert Ewma().watch(minutes, BEGAN_MS) == []


class TestGandalf:
    @pytest.mark.parametrize(("faults", "fires"), [(9, False), (10, True)])
    def test_ten_faults_where_none_is_expected(self, faults: int, fires: bool) -> None:
        minutes = [_alone(index, faults * (index == 0), 200) for index in range(5)]
        assert bool(Gandalf().watch(minutes, BEGAN_MS)) == fires

    def test_faults_that_lie_elsewhere_are_not_blamed_on_it(self) -> None:
        """A tenth of the devices show a tenth of the faults: votes and vetoes cancel, however many there are."""
        minutes = [
            minute(index, crashes=(10, 90), signatures={"old.sys": (10, 90)}) for index in range(300)
        ]  # 1,000 exposed and 9,000 control devices
        assert Gandalf().watch(minutes, BEGAN_MS) == []

    def test_blame_decays_with_the_rollouts_age(self) -> None:
        """Ten faults at once are enough on the first day, on the third the same ten are not."""
        early = [_alone(index, 10 * (index == 0), 200) for index in range(10)]
        late = [_alone(index, 10 * (index == 4000), 200) for index in range(4010)]
        assert Gandalf().watch(early, BEGAN_MS)
        assert Gandalf().watch(late, BEGAN_MS) == []

    def test_without_controls_there_is_no_verdict(self) -> None:
        minutes = [
            minute(index, control=0, active=(200, 0), crashes=(10, 0), signatures={"bad.sys": (10, 0)})
            for index in range(60)
        ]
        assert Gandalf().watch(minutes, BEGAN_MS) == []


def test_a_look_that_was_missed_is_made_up_for_once() -> None:
    ticks = Ticks(0, 300)
    assert [ticks.due(at) for at in (60, 300, 360, 1000, 1100, 1200)] == [False, True, False, True, False, True]


def test_trailing_sums_are_those_of_the_window() -> None:
    window, by_name = Trailing(300, 2), TrailingNames(300)
    counts = [(at, (at * 7) % 5, (at * 3) % 4) for at in range(0, 3000, 50)]
    for at, first, second in counts:
        inside = [one for one in counts if at - 300 < one[0] <= at]
        assert window.push(at, first, second) == (sum(one[1] for one in inside), sum(one[2] for one in inside))
        names = by_name.push(at, {f"n{first}": second} if second else {})
        assert dict(names) == {
            name: total
            for name in {f"n{one[1]}" for one in inside}
            if (total := sum(one[2] for one in inside if f"n{one[1]}" == name))
        }
    with pytest.raises(ValueError, match="zip"):
        window.push(9999, 1)
