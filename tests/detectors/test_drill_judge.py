"""The judge of a drill: it passes by one thing only, and what is missing is named."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.drill import TENANTS, DrillPlan
from detectors.drill_judge import FAILURE_DOCS, Counted, DrillResult, Failure, Judge, LastWord, Seen

PLAN = DrillPlan(started_ms=1_721_362_140_000, mark="01ab", limit_seconds=60.0)
COUNTED = Counted(exposed=PLAN.exposed, crashes_exposed=10, tenants=8, log10_evidence=6.3)
WORD = LastWord(judged=True, sentence="evidence 10^2.0", counted=COUNTED)


def killed(counted: Counted | None = COUNTED, cause: str = "detector", dry_run: bool = False) -> Seen:
    return Seen(state="killed", cause=cause, dry_run=dry_run, sentence="evidence 10^6.3", counted=counted)


def crashed(count: int = 12, at_seconds: float = 100.0) -> Judge:
    """Return a judge after so many crashes that the gateway took, the first at `at_seconds`."""
    judge = Judge(PLAN)
    for number in range(count):
        judge.posting(at_seconds + number)
        judge.taken()
    return judge


def failed(judge: Judge, last: LastWord = WORD) -> tuple[Failure | None, DrillResult]:
    result = judge.result(last)
    assert result.passed is (result.failure is None)
    return result.failure, result


def test_a_live_kill_by_the_detector_passes_and_is_timed_from_the_first_crash() -> None:
    judge = crashed()
    judge.see(killed(), 112.5)
    assert judge.settled
    failure, result = failed(judge)
    assert failure is None
    assert (result.seconds_to_kill, result.crashes_posted, result.counted) == (12.5, 12, COUNTED)
    assert "12.5 s" in result.sentence


def test_a_kill_at_the_limit_passes_and_one_past_it_fails() -> None:
    at, past = crashed(), crashed()
    at.see(killed(), 160.0)
    past.see(killed(), math.nextafter(160.0, 161.0))
    assert failed(at)[0] is None
    assert failed(past)[0] is Failure.NOT_KILLED


def test_watching_and_holding_settle_nothing_yet() -> None:
    judge = crashed()
    judge.see(Seen(state="watching", cause="detector", dry_run=False, sentence="rising"), 101.0)
    judge.see(Seen(state="held", cause="detector", dry_run=False, sentence="held"), 102.0)
    assert not judge.settled
    judge.see(killed(), 103.0)
    assert failed(judge)[0] is None


def test_a_dry_run_fails_though_it_was_killed() -> None:
    judge = crashed()
    judge.see(killed(dry_run=True), 103.0)
    failure, result = failed(judge)
    assert (failure, result.seconds_to_kill) == (Failure.DRY_RUN, 3.0)
    assert "dry_run" in result.sentence


def test_what_people_do_says_nothing_of_the_detector() -> None:
    for state in ("killed", "held", "released"):
        judge = crashed()
        judge.see(Seen(state=state, cause="person", dry_run=False, sentence="by Ada"), 103.0)
        assert failed(judge)[0] is Failure.BY_PERSON


def test_a_kill_before_the_first_crash_is_a_false_alarm() -> None:
    judge = Judge(PLAN)
    judge.see(killed(Counted(exposed=PLAN.exposed)), 1.0)
    assert failed(judge)[0] is Failure.NO_CAUSE


@pytest.mark.parametrize(
    "counted",
    [
        Counted(exposed=PLAN.exposed + 1, crashes_exposed=10, tenants=8),
        Counted(exposed=PLAN.exposed, crashes_exposed=13, tenants=8),
        Counted(exposed=PLAN.exposed, crashes_exposed=12, tenants=len(TENANTS) + 1),
    ],
)
def test_strangers_under_the_drills_name_make_it_fail(counted: Counted) -> None:
    """A real rollout can't hide as a drill: it is killed all the same, and the drill says who else is in it."""
    judge = crashed(12)
    judge.see(killed(counted), 103.0)
    assert failed(judge)[0] is Failure.OTHERS
    late = crashed(12)
    assert failed(late, LastWord(judged=True, sentence="", counted=counted))[0] is Failure.OTHERS


def test_what_is_settled_stays() -> None:
    judge = crashed()
    judge.disbelieve("signed by a stranger")
    judge.see(killed(), 101.0)
    judge.lose("later")
    assert failed(judge)[0] is Failure.NOT_BELIEVED
    lost = crashed()
    lost.lose("8 connections in a row failed")
    lost.see(killed(), 101.0)
    assert failed(lost)[0] is Failure.STREAM_LOST


@pytest.mark.parametrize(
    ("last", "failure"),
    [
        (LastWord(), Failure.NOT_JUDGED),
        (LastWord(judged=True, sentence="no device"), Failure.NOT_COUNTED),
        (LastWord(judged=True, counted=Counted(exposed=0)), Failure.NOT_COUNTED),
        (LastWord(judged=True, counted=Counted(exposed=48, crashes_exposed=5)), Failure.NOT_COUNTED),
        (LastWord(judged=True, counted=Counted(exposed=48, crashes_exposed=6)), Failure.NOT_KILLED),
        (WORD, Failure.NOT_KILLED),
    ],
)
def test_when_the_time_is_out_the_last_word_tells_where_the_way_is_broken(last: LastWord, failure: Failure) -> None:
    found, result = failed(crashed(12), last)
    assert found is failure
    assert result.seconds_to_kill is None
    assert "no kill within 60 s and 12 crashes" in result.sentence


def test_blindness_is_told() -> None:
    _, result = failed(crashed(), LastWord(unseen="pipeline: the newest tick is 40 s old"))
    assert "the newest tick is 40 s old" in result.sentence


def test_a_hold_at_the_end_is_named_with_what_is_lacking() -> None:
    judge = crashed()
    judge.see(Seen(state="held", cause="detector", dry_run=False, sentence="held", counted=COUNTED), 102.0)
    failure, result = failed(judge, LastWord(judged=True, sentence="12 devices < 500 needed", counted=COUNTED))
    assert failure is Failure.HELD
    assert "12 devices < 500 needed" in result.sentence


def test_crashes_that_the_gateway_refused_are_the_gateways_fault() -> None:
    judge = crashed(3)
    judge.posting(104.0)
    judge.refused("503 log_unavailable")
    last = LastWord(judged=True, sentence="", counted=Counted(exposed=48, crashes_exposed=3))
    failure, result = failed(judge, last)
    assert failure is Failure.REFUSED
    assert "503 log_unavailable" in result.sentence
    judge.see(killed(Counted(exposed=48, crashes_exposed=3)), 105.0)
    assert failed(judge)[0] is None, "what was refused does no harm where the rest sufficed"


def test_every_failure_is_explained() -> None:
    assert set(FAILURE_DOCS) == set(Failure)


seens = st.builds(
    Seen,
    state=st.sampled_from(["observing", "watching", "held", "killed", "released"]),
    cause=st.sampled_from(["detector", "person"]),
    dry_run=st.booleans(),
    sentence=st.just(""),
    counted=st.none()
    | st.builds(Counted, exposed=st.integers(0, 50), crashes_exposed=st.integers(0, 14), tenants=st.integers(0, 10)),
)


@given(
    crashes=st.integers(0, 14),
    history=st.lists(st.tuples(seens, st.floats(0, 70)), max_size=6),
    last=st.builds(LastWord, judged=st.booleans(), counted=st.none() | st.just(COUNTED)),
)
def test_it_passes_only_by_the_first_settling_event_being_a_timely_live_kill_of_its_own_devices(
    crashes: int, history: list[tuple[Seen, float]], last: LastWord
) -> None:
    judge = crashed(crashes, at_seconds=0.0)
    at, settling = 0.0, None
    for seen, after in history:
        at += after
        judge.see(seen, at)
        if judge.settled and settling is None:
            settling = seen, at
    if not judge.result(last).passed:
        return
    assert settling is not None
    seen, at = settling
    assert (seen.state, seen.cause, seen.dry_run) == ("killed", "detector", False)
    assert crashes > 0
    assert at <= PLAN.limit_seconds
    if seen.counted is not None:
        assert seen.counted.exposed <= PLAN.exposed
        assert seen.counted.crashes_exposed <= crashes
        assert seen.counted.tenants <= len(TENANTS)
