"""The whole table in a few lines: each judge over all scenarios run, and who loses fewer devices than Cordon.

Pure functions over runs. The invariant: a peer that loses fewer devices than Cordon anywhere is named, with its wrong
kills beside it, whether or not it looks good for Cordon.
"""

from collections.abc import Sequence

import msgspec

from detectors.backtest.expectations import Attribution, Judged
from detectors.backtest.scenario import Truth
from detectors.backtest.score import CORDON, Score

_STOPS = ("hold", "kill")


class Run(msgspec.Struct, kw_only=True):
    """One scenario with one seed, and what every judge made of it.

    Attributes:
        level: `cohort`, or `exact` for the whole pipeline.
        scores: one for each judge and update.
        judged: by judge.
        counted: devices that the exact run saw lost, all updates together, with nobody to stop them; else None.
        agree: whether the exact run decides as the cohort level does; True where there is none.
        agreement: the same in a sentence; empty where there is none.
        simulated_seconds, judged_seconds: wall-clock time that the simulation and the judges took.
    """

    scenario: str
    title: str
    seed: int
    devices: int
    level: str
    truth: Truth
    scores: list[Score]
    judged: dict[str, Judged]
    counted: int | None = None
    agree: bool = True
    agreement: str = ""
    simulated_seconds: float
    judged_seconds: float

    def of(self, judge: str) -> list[Score]:
        """Return one judge's scores."""
        return [one for one in self.scores if one.judge == judge]


class Total(msgspec.Struct, kw_only=True):
    """One judge over all runs.

    Attributes:
        runs: how many.
        wrong_kills: kills of what must not be killed, invented rollouts included.
        wrong_kills_in: the scenarios they happened in.
        false_holds: updates that harm nobody, held and not killed.
        harmful: updates that harm and ought to be stopped.
        missed: those of them that were neither held nor killed.
        staged: those of them that have a last ring to be stopped before.
        before_broad: those of the staged that were.
        lost: devices harmed by updates that ought to be stopped, until they were.
        lost_without: the same with nobody to stop them.
        attributions: runs in which one of several updates had to be named.
        attribution_wrong: those in which an innocent one was.
        attribution_right: those in which the guilty were killed, and nobody else.
        unexpected: runs that were not as the truth expects.
    """

    judge: str
    runs: int = 0
    wrong_kills: int = 0
    wrong_kills_in: list[str] = []
    false_holds: int = 0
    harmful: int = 0
    missed: int = 0
    staged: int = 0
    before_broad: int = 0
    lost: int = 0
    lost_without: int = 0
    attributions: int = 0
    attribution_wrong: int = 0
    attribution_right: int = 0
    unexpected: int = 0


class Rival(msgspec.Struct, kw_only=True):
    """A peer that loses fewer devices than Cordon in some scenario.

    Attributes:
        fewer: scenario to (his losses, Cordon's), summed over seeds.
        wrong_kills: his wrong kills over all scenarios run.
        wrong_kills_in: where.
    """

    judge: str
    fewer: dict[str, tuple[int, int]]
    wrong_kills: int
    wrong_kills_in: list[str]


def judges_of(runs: Sequence[Run]) -> list[str]:
    """Return everybody who judged, in the order of appearance."""
    return list(dict.fromkeys(one.judge for run in runs for one in run.scores))


def totals(runs: Sequence[Run]) -> list[Total]:
    """Return each judge's total over the runs that he judged."""
    return [_total(judge, [run for run in runs if judge in run.judged]) for judge in judges_of(runs)]


def _total(judge: str, runs: Sequence[Run]) -> Total:
    total = Total(judge=judge, runs=len(runs))
    for run in runs:
        judged, scores = run.judged[judge], run.of(judge)
        wrong = judged.wrong_kills + judged.strangers_killed
        total.wrong_kills += wrong
        if wrong and run.scenario not in total.wrong_kills_in:
            total.wrong_kills_in.append(run.scenario)
        total.false_holds += sum(one.false_hold and not one.false_kill for one in scores)
        total.unexpected += bool(judged.broken)
        total.attributions += judged.attribution is not None
        total.attribution_wrong += judged.attribution is Attribution.WRONG
        total.attribution_right += judged.attribution is Attribution.RIGHT
        for one in _to_stop(run, scores):
            total.harmful += 1
            total.missed += one.missed
            total.staged += one.broad_ms > one.began_ms
            total.before_broad += one.broad_ms > one.began_ms and one.before_broad
            total.lost += one.lost
            total.lost_without += one.lost_without
    return total


def _to_stop(run: Run, scores: Sequence[Score]) -> list[Score]:
    """Return the scores of updates that ought to be stopped: harm within the tolerance is not among them."""
    return [one for one in scores if one.guilty and run.truth.decision in _STOPS]


def lost_in(run: Run, judge: str) -> int:
    """Return the devices that one judge loses in a run to updates that ought to be stopped."""
    return sum(one.lost for one in _to_stop(run, run.of(judge)))


def rivals(runs: Sequence[Run], cordon: str = CORDON) -> list[Rival]:
    """Return every peer that loses fewer devices than Cordon in some scenario, with his wrong kills in all."""
    found = []
    for total in totals(runs):
        if total.judge == cordon:
            continue
        fewer: dict[str, tuple[int, int]] = {}
        for name in dict.fromkeys(run.scenario for run in runs):
            both = [run for run in runs if run.scenario == name and {cordon, total.judge} <= run.judged.keys()]
            his, ours = (sum(lost_in(run, judge) for run in both) for judge in (total.judge, cordon))
            if his < ours:
                fewer[name] = (his, ours)
        if fewer:
            found.append(
                Rival(
                    judge=total.judge, fewer=fewer, wrong_kills=total.wrong_kills, wrong_kills_in=total.wrong_kills_in
                )
            )
    return found
