"""What Cordon and its peers make of one trace, and what that costs: decisions, devices lost, right or wrong.

Between the simulations and the tables of `cordon backtest`. Cordon's part runs through the real detection stage, record
by record. Invariant: everybody is judged on the same trace, by the same rule: an update is stopped from the decision
plus the rollout system's reaction on, and whoever took it before is lost if it harms him.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from detectors.backtest.peers.peer import Peer
from detectors.backtest.trace import Minute, Trace, UpdateTruth
from detectors.policy import Policies
from detectors.stage import DetectionStage
from detectors.verdict import DecisionWord, Verdict, VerdictWord, verdict_decoder
from ingest.events import encoder
from ingest.log.interface import Record
from ingest.rollouts import Rollout
from ingest.topics import Topics
from ingest.windows import Step

CORDON: Final = "cordon"


class Decided(msgspec.Struct, kw_only=True):
    """What one judge decided on one update.

    Attributes:
        held_ms: event time of the first hold or kill; None without any.
        killed_ms: event time of the first kill; None without one.
        proceeded_ms: event time of the first word to go on; None without one, and for peers.
        crashes: exposed crashes seen by the first hold or kill: first crashes of devices for Cordon, reports that had
            arrived for a peer; None without a hold or kill.
        crashes_killed: the same by the first kill.
        verdict: what Cordon's statistics said at the first kill, else at the first hold, else last; peers have none.
        sentence: of the first kill, else the first hold, else the last word.
    """

    held_ms: int | None = None
    killed_ms: int | None = None
    proceeded_ms: int | None = None
    crashes: int | None = None
    crashes_killed: int | None = None
    verdict: VerdictWord | None = None
    sentence: str = ""


class Score(msgspec.Struct, kw_only=True):
    """One judge on one update of one scenario.

    Attributes:
        judge: `cordon` or a peer's name.
        began_ms: event time at which the push to its first ring began.
        broad_ms: the same of its last ring; `began_ms` for a rollout of one ring.
        lost: devices harmed, had the first hold or kill stopped the push.
        lost_without: devices harmed with nobody to stop it.
        taken: devices that take the update, had the first hold or kill stopped the push.
        taken_without: devices that take it with nobody to stop it.
        delay_seconds: from the first harm to the first hold or kill; None without harm or decision.
        before_broad: held or killed before the push to the last ring began.
        false_kill: killed though it harms nobody.
        false_hold: held though it harms nobody.
        missed: harmful and neither held nor killed.
    """

    scenario: str
    seed: int
    judge: str
    rollout: str
    update: str
    guilty: bool
    began_ms: int
    broad_ms: int
    decided: Decided
    lost: int
    lost_without: int
    taken: int
    taken_without: int
    delay_seconds: float | None
    before_broad: bool
    false_kill: bool
    false_hold: bool
    missed: bool


class StageRun:
    """Feeds a detection stage as its Owner would, and keeps what it decided."""

    def __init__(self, partitions: int, policies: Policies) -> None:
        self._topics = Topics(device_partitions=partitions)
        self._stage = DetectionStage(self._topics, 0, policies)
        self._rollouts, self._cohorts = self._stage.inputs
        self._offsets = {self._rollouts: 0, self._cohorts: 0}
        self._verdicts = self._topics.name("verdicts")
        self.decided: dict[str, Decided] = {}
        self.latest: dict[str, Verdict] = {}
        self.dead_letters = 0

    def feed(self, items: Iterable[Rollout | Step], until_killed: frozenset[str] = frozenset()) -> None:
        """Take declarations and steps in the order of the log.

        Args:
            items: the records.
            until_killed: stop reading once all these rollouts are killed: kills latch, so what follows changes nothing
                about them. Empty reads to the end.
        """
        waiting = set(until_killed)
        for item in items:
            source = self._rollouts if isinstance(item, Rollout) else self._cohorts
            appended_ms = item.watermark_ms if isinstance(item, Step) else 0
            self._stage.apply(source, [Record(self._offsets[source], None, encoder.encode(item), appended_ms)])
            self._offsets[source] += 1
            for entry in self._stage.outputs():
                if entry.topic != self._verdicts:
                    self.dead_letters += 1
                elif entry.value is not None:
                    self._take(verdict_decoder.decode(entry.value))
            if until_killed and waiting:
                waiting -= {rollout for rollout in waiting if self._killed(rollout)}
                if not waiting:
                    return

    def _killed(self, rollout: str) -> bool:
        decided = self.decided.get(rollout)
        return decided is not None and decided.killed_ms is not None

    def _take(self, verdict: Verdict) -> None:
        self.latest[verdict.rollout] = verdict
        decided = self.decided.setdefault(verdict.rollout, Decided())
        if verdict.decision is DecisionWord.PROCEED and decided.proceeded_ms is None:
            decided.proceeded_ms = verdict.at_ms
        stops = verdict.decision in (DecisionWord.HOLD, DecisionWord.KILL)
        first_stop = stops and decided.held_ms is None
        first_kill = verdict.decision is DecisionWord.KILL and decided.killed_ms is None
        if first_stop:
            decided.held_ms, decided.crashes = verdict.at_ms, verdict.evidence.crashes_exposed
        if first_kill:
            decided.killed_ms, decided.crashes_killed = verdict.at_ms, verdict.evidence.crashes_exposed
        if first_stop or first_kill or decided.held_ms is None:
            decided.verdict, decided.sentence = verdict.verdict, verdict.sentence


def run_cordon(trace: Trace, policies: Policies, *, to_end: bool = True) -> tuple[StageRun, list[Score]]:
    """Run the detection stage over a trace, whose feed is used up by it where it is a generator.

    Args:
        trace: what happens.
        policies: what evidence is enough for what.
        to_end: read all of it, though every update may be killed long before: what is said of rollouts that the truth
            does not name then shows too.
    """
    run = StageRun(trace.partitions, policies)
    run.feed(trace.feed, frozenset() if to_end else frozenset(truth.rollout for truth in trace.truths))
    return run, [score(trace, truth, CORDON, run.decided.get(truth.rollout, Decided())) for truth in trace.truths]


def run_peer(trace: Trace, peer: Peer) -> list[Score]:
    """Let a peer watch every update of a trace."""
    scores = []
    for truth in trace.truths:
        decided = Decided()
        minutes = trace.minutes.get(truth.rollout, ())
        for alarm in peer.watch(minutes, truth.began_ms):
            if decided.held_ms is None:
                decided.held_ms, decided.sentence = alarm.at_ms, alarm.sentence
                decided.crashes = _reported(minutes, truth.began_ms, alarm.at_ms)
            if alarm.decision == "kill":
                decided.killed_ms, decided.sentence = alarm.at_ms, alarm.sentence
                decided.crashes_killed = _reported(minutes, truth.began_ms, alarm.at_ms)
                break
        scores.append(score(trace, truth, peer.name, decided))
    return scores


def _reported(minutes: Sequence[Minute], began_ms: int, at_ms: int) -> int:
    return sum(minute.crashes_exposed for minute in minutes if began_ms < minute.at_ms <= at_ms)


def score(trace: Trace, truth: UpdateTruth, judge: str, decided: Decided) -> Score:
    """Weigh what a judge decided about one update against the truth of it."""
    stopped_ms = None if decided.held_ms is None else decided.held_ms + trace.reaction_ms
    harm_ms = truth.first_harm_ms
    return Score(
        scenario=trace.name,
        seed=trace.seed,
        judge=judge,
        rollout=truth.rollout,
        update=f"{truth.vendor}/{truth.product}/{truth.version}",
        guilty=truth.guilty,
        began_ms=truth.began_ms,
        broad_ms=truth.broad_ms,
        decided=decided,
        lost=truth.lost(stopped_ms),
        lost_without=truth.lost(),
        taken=truth.taken(stopped_ms),
        taken_without=truth.taken(),
        delay_seconds=(
            None if decided.held_ms is None or harm_ms is None else max(0, decided.held_ms - harm_ms) / 1000.0
        ),
        before_broad=decided.held_ms is not None and decided.held_ms < truth.broad_ms,
        false_kill=decided.killed_ms is not None and not truth.guilty,
        false_hold=decided.held_ms is not None and not truth.guilty,
        missed=truth.guilty and decided.held_ms is None,
    )
