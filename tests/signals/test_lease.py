"""Who gets a lease, until when, and why not; and that ten thousand of them disturb nobody."""

import time

import msgspec
import pytest

from detectors.scope import Scope
from detectors.verdict import DecisionWord, Reason, Verdict, VerdictWord
from ingest.clock import DrivenClock
from ingest.metrics import Metrics
from ingest.sight import Sight
from signals.events import Lease, ScopedStop, Switch, SwitchState
from signals.killswitch.lease import (
    BATCH_MAX,
    BATCH_MS,
    FORGET_SECONDS,
    LEASES_PER_SECOND,
    WITHHELD_DOCS,
    LeaseBook,
    LeaseTerms,
    Told,
    Withheld,
    judge,
)
from support.switches import ROLLOUT, START_MS, verdict

TERMS = LeaseTerms(seconds=60.0, verdict_seconds=150.0, heard_share_least=0.2)
FINE = Told(START_MS, VerdictWord.HEALTHY, Reason.NO_HARM_SEEN, 0.9)


def told(**fields: object) -> Told:
    return Told(
        **{"at_ms": START_MS, "word": VerdictWord.HEALTHY, "reason": Reason.NO_HARM_SEEN, "heard_share": 0.9} | fields  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("stopped", "given", "seeing", "word"),
    [
        (False, FINE, True, None),
        (True, FINE, True, Withheld.STOPPED),
        (False, FINE, False, Withheld.BLIND),
        (False, None, True, Withheld.NO_VERDICT),
        (False, told(word=VerdictWord.ERROR), True, Withheld.VERDICT_BLIND),
        (False, told(reason=Reason.NO_TELEMETRY), True, Withheld.VERDICT_BLIND),
        (False, told(reason=Reason.ACTIVITY_LATE), True, Withheld.VERDICT_BLIND),
        (False, told(reason=Reason.DETECTOR_FAILED), True, Withheld.VERDICT_BLIND),
        (False, told(reason=Reason.NO_EXPOSURE_BOUND), True, Withheld.VERDICT_BLIND),
        (False, told(at_ms=START_MS - 150_001), True, Withheld.VERDICT_OLD),
        (False, told(at_ms=START_MS - 150_000), True, None),
        (False, told(heard_share=0.19), True, Withheld.HEARD_TOO_LITTLE),
        (False, told(heard_share=0.2), True, None),
        (False, told(heard_share=None), True, None),
        # Want of evidence is no reason: the gate decides on the next ring.
        (False, told(word=VerdictWord.NO_DATA, reason=Reason.NO_EXPOSURE, heard_share=None), True, None),
        (False, told(word=VerdictWord.WATCHING, reason=Reason.EVIDENCE_RISING), True, None),
    ],
)
def test_a_lease_is_withheld_for_one_closed_reason(
    stopped: bool, given: Told | None, seeing: bool, word: Withheld | None
) -> None:
    assert judge(stopped=stopped, told=given, seeing=seeing, now_ms=START_MS, terms=TERMS) is word


def test_every_reason_is_documented() -> None:
    assert set(WITHHELD_DOCS) == set(Withheld)


def fresh(at_ms: int, rollout: str = ROLLOUT, decision: DecisionWord = DecisionWord.PROCEED) -> Verdict:
    return msgspec.structs.replace(verdict(decision, rollout=rollout, at_ms=at_ms), heard_share=0.9)


def switch(number: int, state: SwitchState, *, dry_run: bool = False, stops: list[ScopedStop] | None = None) -> Switch:
    whole = SwitchState.OBSERVING if stops or dry_run else state
    stop = ScopedStop(scope=Scope(), state=state, number=number)
    binding = state in (SwitchState.HELD, SwitchState.KILLED) and not dry_run and not stops
    return Switch(
        rollout=ROLLOUT,
        number=number,
        previous_digest="",
        lane="live",
        vendor="v",
        product="p",
        version="1",
        state=state,
        previous_state=SwitchState.OBSERVING,
        decision=DecisionWord.HOLD,
        cause="detector",
        reason="",
        sentence="",
        watermark_ms=0,
        decided_ms=START_MS,
        dry_run=dry_run,
        whole=whole,
        stops=stops or [],
        whole_stop=stop if binding else None,
    )


class Rig:
    """A book by a clock and a sight that a test drives."""

    def __init__(self) -> None:
        self.clock = DrivenClock(START_MS)
        self.metrics = Metrics()
        self.seeing = True
        self.book = LeaseBook("live", TERMS, self, self.clock, self.metrics)

    def sight(self) -> Sight:
        return Sight(seeing=self.seeing)

    def later(self, seconds: float, caught_up: bool = True) -> list[Lease]:
        self.clock.drive_to(self.clock.now_ms() + int(seconds * 1000))
        return list(self.book.due(caught_up))

    def withheld(self, word: Withheld) -> float:
        return self.metrics.value("leases_withheld", reason=word.value)


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_a_lease_lasts_a_minute_and_is_renewed_at_a_third_of_it(rig: Rig) -> None:
    rig.book.told(fresh(START_MS))
    [lease] = rig.later(0)
    assert (lease.issued_ms, lease.expires_ms, lease.number, lease.digest) == (START_MS, START_MS + 60_000, 0, "")
    assert (lease.decision, lease.watermark_ms, lease.heard_share) == (DecisionWord.PROCEED, START_MS, 0.9)
    assert rig.later(19.7) == []
    [again] = rig.later(0.3)
    assert again.issued_ms == START_MS + 20_000
    assert rig.metrics.value("leases_issued_total") == 2


def test_a_stop_ends_renewal_at_once_and_its_release_brings_a_lease_of_the_last_event_at_once(rig: Rig) -> None:
    rig.book.told(fresh(START_MS))
    rig.later(0)
    rig.book.moved(switch(1, SwitchState.KILLED), "d1")
    assert rig.later(60) == []
    assert rig.withheld(Withheld.STOPPED) == 1
    rig.book.moved(switch(2, SwitchState.RELEASED), "d2")
    [lease] = rig.later(0)
    assert (lease.number, lease.digest) == (2, "d2")
    assert rig.withheld(Withheld.STOPPED) == 0


def test_a_move_that_stops_nothing_brings_its_own_lease_in_the_same_step(rig: Rig) -> None:
    rig.book.told(fresh(START_MS))
    rig.later(0)
    rig.book.moved(switch(1, SwitchState.WATCHING), "d1")
    assert [lease.number for lease in rig.later(0)] == [1]


def test_a_dry_run_stop_withholds_nothing_and_a_stop_of_a_part_is_named(rig: Rig) -> None:
    rig.book.told(fresh(START_MS))
    rig.book.moved(switch(1, SwitchState.HELD, dry_run=True), "d1")
    assert [lease.number for lease in rig.later(0)] == [1]
    part = ScopedStop(scope=Scope(ring="canary"), state=SwitchState.KILLED, number=2)
    rig.book.moved(switch(2, SwitchState.KILLED, stops=[part]), "d2")
    [lease] = rig.later(0)
    assert lease.stops == [part]


def test_blindness_withholds_and_sight_brings_leases_back_without_waiting(rig: Rig) -> None:
    rig.seeing = False
    rig.book.told(fresh(START_MS))
    assert rig.later(0) == []
    assert (rig.withheld(Withheld.BLIND), rig.book.withheld(ROLLOUT)) == (1, Withheld.BLIND)
    rig.seeing = True
    assert len(rig.later(BATCH_MS / 1000)) == 1


def test_a_process_that_has_not_read_everything_grants_nothing(rig: Rig) -> None:
    rig.book.told(fresh(START_MS))
    assert rig.later(0, caught_up=False) == []
    assert rig.book.withheld(ROLLOUT) is Withheld.READING
    assert len(rig.later(0.2)) == 1


def test_a_verdict_told_again_out_of_turn_changes_nothing(rig: Rig) -> None:
    rig.book.told(fresh(START_MS))
    rig.book.told(msgspec.structs.replace(fresh(START_MS - 1), reason=Reason.NO_TELEMETRY))
    assert len(rig.later(0)) == 1


def test_a_rollout_without_verdicts_loses_its_lease_and_is_taken_back(rig: Rig) -> None:
    rig.book.told(fresh(START_MS))
    assert len(rig.later(0)) == 1
    assert rig.later(151) == []
    assert rig.book.withheld(ROLLOUT) is Withheld.VERDICT_OLD
    rig.later(FORGET_SECONDS)
    assert rig.book.forgotten() == [ROLLOUT]
    assert rig.book.forgotten() == []
    assert rig.withheld(Withheld.VERDICT_OLD) == 0


def test_a_stop_is_not_forgotten_with_the_verdict(rig: Rig) -> None:
    rig.book.told(fresh(START_MS))
    rig.book.moved(switch(1, SwitchState.KILLED), "d1")
    rig.later(0)
    rig.later(FORGET_SECONDS + 60)
    rig.book.told(fresh(rig.clock.now_ms()))
    assert rig.later(1) == []
    assert rig.book.withheld(ROLLOUT) is Withheld.STOPPED


def test_a_clock_that_is_set_back_does_not_stop_renewal() -> None:
    class SetBack(DrivenClock):
        back_ms = 0

        def now_ms(self) -> int:
            return super().now_ms() - self.back_ms

    clock = SetBack(START_MS)
    rig = Rig()
    book = LeaseBook("live", TERMS, rig, clock, rig.metrics)
    book.told(fresh(START_MS))
    assert len(book.due(True)) == 1
    clock.back_ms = 3_600_000
    book.due(True)
    clock.drive_to(START_MS + 1000)
    assert [lease.issued_ms for lease in book.due(True)] == [START_MS + 1000 - 3_600_000]


def test_ten_thousand_rollouts_are_renewed_in_time_a_few_at_once(rig: Rig) -> None:
    rollouts = [f"r-{number:016x}" for number in range(10_000)]
    for rollout in rollouts:
        rig.book.told(fresh(START_MS + 60_000, rollout))
    latest: dict[str, int] = {}
    longest, slowest_seconds = 0, 0.0
    for _ in range(int(60 / (BATCH_MS / 1000))):
        begun = time.perf_counter()
        leases = rig.later(BATCH_MS / 1000)
        slowest_seconds = max(slowest_seconds, time.perf_counter() - begun)
        assert len(leases) <= (LEASES_PER_SECOND * BATCH_MS / 1000 if latest else BATCH_MAX)
        for lease in leases:
            longest = max(longest, lease.issued_ms - latest.get(lease.rollout, lease.issued_ms))
            latest[lease.rollout] = lease.issued_ms
    assert len(latest) == 10_000
    assert longest <= 21_000, "renewals must keep well ahead of the end"
    assert slowest_seconds < 0.5
