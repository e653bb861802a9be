"""When a verdict is said: at once when it changes, sparingly while only its numbers move, once a minute anyway.

A rollout's minutes begin at a second of its own (`ingest.minutes`), so that not all of them speak in the same one.

Keeps what was said last of each rollout, and how the telemetry stands; turns a tracker's findings into a `Verdict`.
"""

import heapq
from collections.abc import Sequence
from typing import Final

import msgspec

from detectors.decide import decide, decide_parts
from detectors.merge import PartitionState
from detectors.situation import Situation
from detectors.tracker import Tracker
from detectors.verdict import Verdict
from ingest.minutes import minute_of, offset_seconds

_SECOND: Final = 1000
_HEARTBEAT_MS: Final = 60_000


class Said(msgspec.Struct, kw_only=True):
    """What was said last of one rollout.

    Attributes:
        at_ms: event time of that verdict; -1 before the first.
        words: verdict, decision and reason.
        crashes: first crashes it had counted.
        revision: the tracker's revision it was made from.
        due_ms: event time at which it is looked at again, whatever happens.
    """

    at_ms: int = -1
    words: tuple[str, str, str] = ("", "", "")
    crashes: int = -1
    revision: int = -1
    due_ms: int = 0


class Speaker:
    """Decides what to say of each rollout, and when."""

    def __init__(self, activity_late_seconds: float, limits: Sequence[float] = ()) -> None:
        """Begin knowing nothing.

        Args:
            activity_late_seconds: how far activity may lag where a policy does not say.
            limits: how far it may by the policies that do say.
        """
        self.situation = Situation(at_ms=0)
        self._late_limit_seconds = activity_late_seconds
        self._limits = {activity_late_seconds, *limits}
        self._said: dict[str, Said] = {}
        self._due: list[tuple[int, str]] = []
        self._blind_at_ms: int | None = None

    def watch(self, rollout: str, said: Said | None = None) -> None:
        """Begin with a rollout; given what was said of it, go on from there."""
        self._said[rollout] = said if said is not None else Said()
        heapq.heappush(self._due, (self._said[rollout].due_ms, rollout))

    def forget(self, rollout: str) -> None:
        """Stop saying anything of a rollout."""
        self._said.pop(rollout, None)

    def said(self, rollout: str) -> Said:
        """Return what was said last of a rollout."""
        return self._said[rollout]

    def seen(self) -> None:
        """Note that a step came: the detectors are not blind."""
        self._blind_at_ms = None

    def go_blind(self, now_ms: int) -> bool:
        """Note that no steps come; tell whether that must be said now."""
        if self._blind_at_ms is not None and now_ms - self._blind_at_ms < _HEARTBEAT_MS:
            return False
        self._blind_at_ms = now_ms
        self.situation = msgspec.structs.replace(self.situation, blind=True)
        return True

    def doubt(self, unsure: Sequence[str]) -> bool:
        """Note which parts of Cordon are not heard from; tell whether that is news."""
        if self.situation.unsure == tuple(unsure):
            return False
        self.situation = msgspec.structs.replace(self.situation, unsure=tuple(unsure))
        return True

    def situate(self, at_ms: int, partitions: Sequence[PartitionState]) -> bool:
        """Note how the telemetry stands at `at_ms`; tell whether that changes what must be said of every rollout."""
        before = self.situation
        self.situation = Situation(
            at_ms=at_ms,
            late_seconds=max((one.late_ms for one in partitions if one.live), default=0) / 1000.0,
            left_out=tuple(number for number, one in enumerate(partitions) if not one.live),
            unsure=before.unsure,
        )
        return (
            before.blind
            or before.left_out != self.situation.left_out
            or any((before.late_seconds > limit) != (self.situation.late_seconds > limit) for limit in self._limits)
        )

    def due(self, at_ms: int) -> list[str]:
        """Take out the rollouts that must be looked at by `at_ms`, whether or not they have a window."""
        found = []
        while self._due and self._due[0][0] <= at_ms:
            due_ms, rollout = heapq.heappop(self._due)
            said = self._said.get(rollout)
            if said is not None and said.due_ms == due_ms:
                said.due_ms = -1
                found.append(rollout)
        return found

    def say(self, tracker: Tracker, steps: Sequence[int], *, always: bool) -> Verdict | None:
        """Return the verdict to publish on a rollout now; None when there is nothing new to say.

        Args:
            tracker: the rollout.
            steps: watermark of each device partition.
            always: the situation changed: say it again whatever the numbers.
        """
        at_ms = self.situation.at_ms
        said = self._said[tracker.rollout]
        crashes = tracker.tally.exposed + tracker.tally.control
        # By its own minutes of event time, not since the last word: when a rollout was first spoken of depends on when
        # its declaration was read, and all later words must not.
        beat = said.at_ms < 0 or _minute_ms(tracker.rollout, at_ms) > _minute_ms(tracker.rollout, said.at_ms)
        news = tracker.revision != said.revision or crashes != said.crashes or bool(tracker.failed)
        if not (always or beat or news):
            self._reschedule(tracker, said)
            return None
        limit = tracker.policy.activity_late_seconds
        situation = msgspec.structs.replace(
            self.situation, late_limit_seconds=self._late_limit_seconds if limit is None else limit
        )
        findings = tracker.findings(situation)
        decided = decide(findings, tracker.policy)
        words = decided.verdict.value, decided.decision.value, decided.reason.value
        second_passed = at_ms // _SECOND > said.at_ms // _SECOND
        if not (always or beat or words != said.words or crashes != said.crashes or (news and second_passed)):
            self._reschedule(tracker, said)
            return None
        said.at_ms, said.words, said.crashes, said.revision = at_ms, words, crashes, tracker.revision
        self._reschedule(tracker, said)
        return Verdict(
            rollout=tracker.rollout,
            vendor=tracker.vendor,
            product=tracker.product,
            version=tracker.version,
            at_ms=at_ms,
            verdict=decided.verdict,
            decision=decided.decision,
            reason=decided.reason,
            sentence=decided.sentence,
            evidence=findings.evidence,
            policy=tracker.policy_digest,
            dry_run=tracker.policy.dry_run,
            steps=list(steps),
            scoped=decide_parts(findings, decided, tracker.policy),
            gate=findings.report,
            heard_share=findings.heard_share,
            recovery=tracker.recovery.report(),
        )

    def _reschedule(self, tracker: Tracker, said: Said) -> None:
        due_ms = _minute_ms(tracker.rollout, max(said.at_ms, 0)) + _HEARTBEAT_MS
        if tracker.revision != said.revision:
            due_ms = (said.at_ms // _SECOND + 1) * _SECOND
        silence_ms = tracker.next_due_ms()
        if silence_ms is not None:
            due_ms = min(due_ms, silence_ms)
        if due_ms != said.due_ms:
            said.due_ms = due_ms
            heapq.heappush(self._due, (due_ms, tracker.rollout))


def _minute_ms(rollout: str, at_ms: int) -> int:
    """Return when the rollout's minute that `at_ms` lies in began."""
    return minute_of(at_ms // _SECOND, offset_seconds(rollout)) * _SECOND
