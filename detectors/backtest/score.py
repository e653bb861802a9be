"""What Cordon and its peers make of one trace, and what that costs: decisions, devices lost, right or wrong.

Between the simulations and the tables of `cordon backtest`. Cordon's part runs through the real detection stage, record
by record. Invariant: everybody is judged on the same trace, by the same rule: an update is stopped from the decision
plus the rollout system's reaction on, and whoever took it before is lost if it harms him.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from detectors.backtest.peers.peer import Peer
from detectors.backtest.trace import Trace, UpdateTruth
from detectors.policy import Policies
from detectors.stage import DetectionStage
from detectors.verdict import DecisionWord, Verdict, verdict_decoder
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
        crashes: exposed first crashes counted by the first hold or kill; None where the judge does not tell.
        sentence: of the first kill, else the first hold, else the last word.
    """

    held_ms: int | None = None
    killed_ms: int | None = None
    proceeded_ms: int | None = None
    crashes: int | None = None
    sentence: str = ""


class Score(msgspec.Struct, kw_only=True):
    """One judge on one update of one scenario.

    Attributes:
        judge: `cordon` or a peer's name.
        lost: devices harmed, had the first hold or kill stopped the push.
        lost_without: devices harmed with nobody to stop it.
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
    decided: Decided
    lost: int
    lost_without: int
    taken: int
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

    def feed(self, items: Iterable[Rollout | Step]) -> None:
        """Take declarations and steps in the order of the log."""
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

    def _take(self, verdict: Verdict) -> None:
        self.latest[verdict.rollout] = verdict
        decided = self.decided.setdefault(verdict.rollout, Decided())
        if verdict.decision is DecisionWord.PROCEED and decided.proceeded_ms is None:
            decided.proceeded_ms = verdict.at_ms
        stops = verdict.decision in (DecisionWord.HOLD, DecisionWord.KILL)
        if stops and decided.held_ms is None:
            decided.held_ms, decided.crashes = verdict.at_ms, verdict.evidence.crashes_exposed
            decided.sentence = verdict.sentence
        if verdict.decision is DecisionWord.KILL and decided.killed_ms is None:
            decided.killed_ms, decided.sentence = verdict.at_ms, verdict.sentence
        if decided.held_ms is None:
            decided.sentence = verdict.sentence


def run_cordon(trace: Trace, policies: Policies) -> tuple[StageRun, list[Score]]:
    """Run the detection stage over a trace, which is used up by it."""
    run = StageRun(trace.partitions, policies)
    run.feed(trace.feed)
    return run, [_score(trace, truth, CORDON, run.decided.get(truth.rollout, Decided())) for truth in trace.truths]


def run_peer(trace: Trace, peer: Peer) -> list[Score]:
    """Let a peer watch every update of a trace."""
    scores = []
    for truth in trace.truths:
        decided = Decided()
        for alarm in peer.watch(trace.minutes.get(truth.rollout, ()), truth.began_ms):
            if decided.held_ms is None:
                decided.held_ms, decided.sentence = alarm.at_ms, alarm.sentence
            if alarm.decision == "kill" and decided.killed_ms is None:
                decided.killed_ms, decided.sentence = alarm.at_ms, alarm.sentence
        scores.append(_score(trace, truth, peer.name, decided))
    return scores


def _score(trace: Trace, truth: UpdateTruth, judge: str, decided: Decided) -> Score:
    stopped_ms = None if decided.held_ms is None else decided.held_ms + trace.reaction_ms
    harm_ms = truth.first_harm_ms
    return Score(
        scenario=trace.name,
        seed=trace.seed,
        judge=judge,
        rollout=truth.rollout,
        update=f"{truth.vendor}/{truth.product}/{truth.version}",
        guilty=truth.guilty,
        decided=decided,
        lost=truth.lost(stopped_ms),
        lost_without=truth.lost(),
        taken=truth.taken(stopped_ms),
        delay_seconds=(
            None if decided.held_ms is None or harm_ms is None else max(0, decided.held_ms - harm_ms) / 1000.0
        ),
        before_broad=decided.held_ms is not None and decided.held_ms < truth.broad_ms,
        false_kill=decided.killed_ms is not None and not truth.guilty,
        false_hold=decided.held_ms is not None and not truth.guilty,
        missed=truth.guilty and decided.held_ms is None,
    )


def total_lost(scores: Sequence[Score]) -> int:
    """Return the devices lost over updates, by one judge."""
    return sum(score.lost for score in scores)
