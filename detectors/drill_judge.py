"""Judges a drill: did the kill come out, and if not, where is the way from a crash to a kill broken?

Beside `drill`, which plans one; pure, with the time passed in. The invariant: a drill passes only by a live kill, in
time, that the detector decided on the drill's own devices and on nothing but them.
"""

import enum

import msgspec

from detectors.drill import PRODUCT, TENANTS, VENDOR, DrillPlan


class Failure(enum.StrEnum):
    """Why a drill failed, as a closed word."""

    NOT_KILLED = "not_killed"
    NOT_JUDGED = "not_judged"
    NOT_COUNTED = "not_counted"
    HELD = "held"
    DRY_RUN = "dry_run"
    BY_PERSON = "by_person"
    NO_CAUSE = "no_cause"
    OTHERS = "others"
    REFUSED = "refused"
    NOT_BELIEVED = "not_believed"
    STREAM_LOST = "stream_lost"


FAILURE_DOCS: dict[Failure, str] = {
    Failure.NOT_KILLED: "The crashes were counted, and no kill came in time. What the last verdict says is lacking.",
    Failure.NOT_JUDGED: "No verdict was given on the drill at all: grouping or detection stands still.",
    Failure.NOT_COUNTED: "There are verdicts, but the drill's devices or crashes are not counted: grouping lags.",
    Failure.HELD: "It was held and not killed: the policy asks for more than a drill has.",
    Failure.DRY_RUN: "It was killed as a dry run, which nobody obeys.",
    Failure.BY_PERSON: "A person stopped it, so nothing is known of the detector.",
    Failure.NO_CAUSE: "It was killed before the first crash.",
    Failure.OTHERS: "More devices, crashes or tenants were counted than the drill has: somebody uses its name.",
    Failure.REFUSED: "The gateway did not take the crash reports.",
    Failure.NOT_BELIEVED: "An event on the stream failed verification: subscribers would not obey the kill.",
    Failure.STREAM_LOST: "The stream broke and did not come back: subscribers would not have heard of the kill.",
}


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """What a verdict or an event says was counted of the drill.

    Attributes:
        exposed: devices on the drill's version.
        crashes_exposed: first crashes among them.
        tenants: distinct tenants among these crashes.
        log10_evidence: the highest evidence so far.
    """

    exposed: int = 0
    crashes_exposed: int = 0
    tenants: int = 0
    log10_evidence: float = 0.0


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """One verified kill-switch event of the drill's rollout, as far as the judge cares.

    Attributes:
        state: where the switch stands now: `observing`, `watching`, `held`, `killed` or `released`.
        cause: `detector` or `person`.
        dry_run: signed and sent, but not to be obeyed.
        sentence: the reason with its numbers.
        counted: from its evidence; None where a person decided.
    """

    state: str
    cause: str
    dry_run: bool
    sentence: str
    counted: Counted | None = None


class LastWord(msgspec.Struct, frozen=True, kw_only=True):
    """What Cordon said last when the time was out.

    Attributes:
        judged: some verdict was given on the rollout.
        sentence: of that verdict.
        counted: from its evidence.
        unseen: why Cordon says that it is blind; empty while it sees, or does not say.
    """

    judged: bool = False
    sentence: str = ""
    counted: Counted | None = None
    unseen: str = ""


class DrillResult(msgspec.Struct, frozen=True, kw_only=True):
    """How a drill went.

    Attributes:
        passed: the kill came, live, by the detector, in time.
        failure: why not, as a closed word; None where it passed.
        sentence: how it went, for a person, with its numbers and what to do.
        version: the version that was rolled out.
        rollout: its rollout's id.
        seconds_to_kill: from the first crash being posted to the verified kill; None without one.
        limit_seconds: how long that may take.
        crashes_posted: crash reports that the gateway had taken when it was settled.
        crashes_expected: how many the built-in policy should need; None if all are too few.
        counted: what the kill event or the last verdict says was counted.
    """

    passed: bool
    failure: Failure | None
    sentence: str
    version: str
    rollout: str
    seconds_to_kill: float | None
    limit_seconds: float
    crashes_posted: int
    crashes_expected: int | None
    counted: Counted | None


class Judge:
    """Judges one drill from what was posted and what was seen; used by one thread at a time.

    Times are seconds of any one monotonic clock. What settles the drill first counts; later words change nothing.

    Example:
        >>> judge = Judge(DrillPlan(started_ms=1_721_362_140_000, mark="01ab"))
        >>> judge.posting(at_seconds=10.0)
        >>> judge.taken()
        >>> counted = Counted(exposed=48, crashes_exposed=1, tenants=1, log10_evidence=6.1)
        >>> judge.see(Seen(state="killed", cause="detector", dry_run=False, sentence="", counted=counted), 12.5)
        >>> result = judge.result(LastWord())
        >>> result.passed, result.seconds_to_kill
        (True, 2.5)
    """

    def __init__(self, plan: DrillPlan) -> None:
        """Begin with nothing posted and nothing seen."""
        self._plan = plan
        self._posted = 0
        self._attempted = 0
        self._first_at: float | None = None
        self._refusal = ""
        self._held = ""
        self._settled: tuple[Failure | None, str] | None = None
        self._kill_at: float | None = None
        self._counted: Counted | None = None

    @property
    def settled(self) -> bool:
        """Whether it is known how the drill went."""
        return self._settled is not None

    def posting(self, at_seconds: float) -> None:
        """Note that a crash is about to be posted; the time to the kill runs from the first."""
        self._attempted += 1
        if self._first_at is None:
            self._first_at = at_seconds

    def taken(self) -> None:
        """Note that the gateway took the crash."""
        self._posted += 1

    def refused(self, why: str) -> None:
        """Note that the gateway did not take the crash; the drill goes on with the next."""
        self._refusal = why

    def disbelieve(self, why: str) -> None:
        """Note that an event failed verification."""
        self._settle(Failure.NOT_BELIEVED, f"an event on the kill-switch stream can't be believed: {why}")

    def lose(self, why: str) -> None:
        """Note that the stream is lost for good."""
        self._settle(Failure.STREAM_LOST, f"the kill-switch stream was lost: {why}")

    def see(self, seen: Seen, at_seconds: float) -> None:
        """Take a verified event of the drill's rollout."""
        if self.settled:
            return
        if seen.counted is not None:
            self._counted = seen.counted
        if self._foreign(seen.counted):
            self._settle(Failure.OTHERS, self._told_foreign(seen.counted))
        elif seen.cause == "person" or seen.state == "released":
            self._settle(Failure.BY_PERSON, f"a person moved the drill's switch to {seen.state}: {seen.sentence}")
        elif seen.state == "held":
            self._held = seen.sentence
        elif seen.state == "killed":
            self._see_kill(seen, at_seconds)

    def _see_kill(self, seen: Seen, at_seconds: float) -> None:
        if self._first_at is None:
            self._settle(Failure.NO_CAUSE, f"it was killed before the first crash: {seen.sentence}")
            return
        self._kill_at = at_seconds
        seconds, limit = at_seconds - self._first_at, self._plan.limit_seconds
        if seen.dry_run:
            text = f"it was killed after {seconds:.1f} s, but as a dry run, which nobody obeys: the policy says dry_run"
            self._settle(Failure.DRY_RUN, text)
        elif seconds > limit:
            self._settle(Failure.NOT_KILLED, f"the kill came after {seconds:.1f} s > {limit:g} s allowed")
        else:
            self._settle(None, f"killed {seconds:.1f} s after the first crash, {limit:g} s allowed: {seen.sentence}")

    def _foreign(self, counted: Counted | None) -> bool:
        return counted is not None and (
            counted.exposed > self._plan.exposed
            or counted.crashes_exposed > self._attempted
            or counted.tenants > len(TENANTS)
        )

    def _told_foreign(self, counted: Counted | None) -> str:
        assert counted is not None
        return (
            f"{counted.exposed} devices and {counted.crashes_exposed} crashes of {counted.tenants} tenants were "
            f"counted, but the drill has {self._plan.exposed} devices of {len(TENANTS)} tenants and posted "
            f"{self._attempted} crashes: somebody else uses {VENDOR}/{PRODUCT} "
            f"{self._plan.version}. Look at who posts it"
        )

    def _settle(self, failure: Failure | None, sentence: str) -> None:
        if not self.settled:
            self._settled = failure, sentence

    def result(self, last: LastWord) -> DrillResult:
        """Return how the drill went; what is not settled by now has failed.

        Args:
            last: what Cordon said last, which tells where the way from a crash to a kill is broken.
        """
        failure, sentence = self._settled if self._settled is not None else self._timed_out(last)
        seconds = None if self._kill_at is None or self._first_at is None else self._kill_at - self._first_at
        return DrillResult(
            passed=failure is None,
            failure=failure,
            sentence=sentence,
            version=self._plan.version,
            rollout=self._plan.rollout,
            seconds_to_kill=seconds,
            limit_seconds=self._plan.limit_seconds,
            crashes_posted=self._posted,
            crashes_expected=self._plan.crashes_expected(),
            counted=self._counted or last.counted,
        )

    def _timed_out(self, last: LastWord) -> tuple[Failure, str]:
        after = f"no kill within {self._plan.limit_seconds:g} s and {self._posted} crashes"
        blind = f". Cordon itself says: {last.unseen}" if last.unseen else ""
        if self._foreign(last.counted):
            return Failure.OTHERS, self._told_foreign(last.counted)
        if self._attempted > self._posted:
            missing = self._attempted - self._posted
            return Failure.REFUSED, f"{after}: {missing} more were not taken by the gateway: {self._refusal}{blind}"
        if not last.judged:
            text = f"{after}, and no verdict at all: do grouping and detection run, and can they follow?{blind}"
            return Failure.NOT_JUDGED, text
        if last.counted is None or not last.counted.exposed or last.counted.crashes_exposed < self._posted // 2:
            seen = last.counted or Counted()
            text = f"{after}, of which {seen.crashes_exposed} are counted on {seen.exposed} devices{blind}"
            return Failure.NOT_COUNTED, f"{text}. The last verdict: {last.sentence}"
        if self._held:
            return Failure.HELD, f"{after}; it was held, not killed: {last.sentence}{blind}"
        return Failure.NOT_KILLED, f"{after}: {last.sentence}{blind}"
