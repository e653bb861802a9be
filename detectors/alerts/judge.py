"""From hours of patterns to alerts: the outlier model scores, e-LOND bounds the false ones, one alert a pattern.

Hours come in order, each once. The invariant: the same hours give the same alerts and the same state to the bit,
whenever it was put away and taken up in between; an alert is written when it opens, grows, moves or ends, never once an
hour. Alerts are for people: nothing that decides on a rollout knows of them.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from detectors.alerts.book import HOUR_MS, AlertBook, BookState, Find, HourSeen
from detectors.alerts.hours import DayState, Hours, SeenPattern
from detectors.alerts.names import Names, NamesState
from detectors.alerts.wire import Alert, AlertsStatus
from detectors.clusters import SignatureText
from detectors.online_fdr import ELond, ELondState
from detectors.outliers import ROWS_LEAST, CrashPatterns, CrashPatternsState, PatternScore
from detectors.patterns import DAY_HOURS, WARM_HOURS

FALSE_SHARE: Final = 0.05
# An alert is about devices of which several crash: one machine that crashes all day is its owner's business.
DEVICES_LEAST: Final = 3


class JudgeState(msgspec.Struct, kw_only=True):
    """What `AlertJudge.snapshot` gives: enough to go on bit for bit with the same scikit-learn."""

    first_hour: int
    next_hour: int
    named_hour: int
    watch: CrashPatternsState
    tests: ELondState
    names: NamesState
    day: list[DayState]
    book: BookState


class AlertJudge:
    """Judges hours of crash patterns.

    Each pattern and hour that has no open alert of its name is one test, by its e-value, at the level that e-LOND
    leaves it: over all alerts ever raised at most 5 % are false on average. An hour's tests come in the order of the
    patterns' names, which no outcome moves.

    Attributes:
        names: which signatures are read as one.
        book: the alerts.
        next_hour: the hour to be judged next, hours since the epoch.
    """

    def __init__(self, first_hour: int, false_share: float = FALSE_SHARE, seed: int = 0) -> None:
        self.first_hour = self.next_hour = first_hour
        self.names = Names()
        self.book = AlertBook(false_share)
        self._named_hour = first_hour
        self._watch = CrashPatterns(seed)
        self._tests = ELond(false_share)
        self._hours = Hours()

    def wants_names(self, hour: int, rows: Sequence[SeenPattern]) -> bool:
        """Tell whether signatures should be compared before an hour is judged.

        Once a day of event time, and where several devices crash with one that was not compared yet: it may be a bug
        under another name.
        """
        fresh = any(row.devices >= DEVICES_LEAST and not self.names.compared(row.signature) for row in rows)
        return fresh or hour - self._named_hour >= DAY_HOURS

    def learn(self, hour: int, texts: Sequence[SignatureText]) -> None:
        """Take the signatures of late, an hour's that is to be judged too, and read those that are alike as one."""
        self.names.learn(texts)
        self._named_hour = hour

    def judge(self, hour: int, rows: Sequence[SeenPattern]) -> list[Alert]:
        """Judge one hour; return the alerts that must be written, in the order of their ids.

        Args:
            hour: hours since the epoch: `next_hour`, or a later one where the store has nothing of those between.
            rows: what crashed in it, each signature, OS build and model once.

        Raises:
            ValueError: an hour that was judged already, or impossible counts.
        """
        if hour < self.next_hour:
            raise ValueError(f"hour {hour} was judged already: the next one is {self.next_hour}")
        if not self._watch.fitted or hour // DAY_HOURS > (self.next_hour - 1) // DAY_HOURS:
            self._watch.fit()
        self.next_hour = hour + 1
        seen = self._hours.take(hour, rows, self.names)
        scores = sorted(self._watch.score(hour, seen.patterns), key=lambda score: score.pattern)
        known = [score for score in scores if self.book.is_open(score.pattern.signature)]
        finds = list(self._test(hour, (score for score in scores if not self.book.is_open(score.pattern.signature))))
        whole = {one.signature: one for one in seen.patterns if not one.os_build and not one.model}
        told = HourSeen(hour, whole, seen.signatures, finds, known, self._tests.started)
        return self.book.take(told, self.names)

    def _test(self, hour: int, scores: Iterable[PatternScore]) -> Iterable[Find]:
        for score in scores:
            one = score.pattern
            name = f"{hour}/{one.signature}/{one.os_build}/{one.model}"
            level = self._tests.start(name)
            # A pattern on fewer devices is a test with an e-value of nothing: which it is does not hang on the past.
            found = one.devices >= DEVICES_LEAST and self._tests.found(name, math.log(score.e))
            self._tests.close(name)
            if found:
                yield Find(score, -math.log10(level))

    def status(self) -> AlertsStatus:
        """Return how the watch stands."""
        hours, rows = self.next_hour - self.first_hour, self._watch.rows
        ready, tests = self._watch.fitted, self._tests.started
        left_out = self.book.left_out + self._watch.dropped
        if ready:
            many = f"{self.book.open_count:,} {'alert is' if self.book.open_count == 1 else 'alerts are'} open"
            sentence = (
                f"{many}; {tests:,} tests of patterns and hours so far, {self._tests.discoveries:,} of them beyond the "
                f"usual"
            )
        else:
            sentence = (
                f"not enough history to tell what is usual: {hours:,} of {WARM_HOURS} hours, then {rows:,} of "
                f"{ROWS_LEAST} hours of patterns"
            )
        if left_out:
            sentence += f"; {left_out:,} left out because there were too many"
        return AlertsStatus(
            at_ms=self.next_hour * HOUR_MS, ready=ready, hours=hours, rows=rows, open=self.book.open_count,
            tests=tests, found=self._tests.discoveries, left_out=left_out, sentence=sentence + ".",
        )  # fmt: skip

    def snapshot(self) -> JudgeState:
        """Return the state; `restore` of it goes on bit for bit."""
        return JudgeState(
            first_hour=self.first_hour,
            next_hour=self.next_hour,
            named_hour=self._named_hour,
            watch=self._watch.snapshot(),
            tests=self._tests.snapshot(),
            names=self.names.snapshot(),
            day=self._hours.snapshot(),
            book=self.book.snapshot(),
        )

    @classmethod
    def restore(cls, state: JudgeState) -> "AlertJudge":
        """Build the judge that `state` was taken from."""
        judge = cls(state.first_hour, state.tests.alpha)
        judge.next_hour, judge._named_hour = state.next_hour, state.named_hour
        judge._watch = CrashPatterns.restore(state.watch)
        judge._tests = ELond.restore(state.tests)
        judge.names = Names.restore(state.names)
        judge._hours = Hours(state.day)
        judge.book = AlertBook.restore(state.book)
        return judge
