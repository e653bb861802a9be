"""Whether what a judge decided is what a scenario's truth asks of a detector worth its salt.

Pure functions over scores. The invariant: Cordon and its peers are held to the same expectations, and killing an update
that harms nobody is wrong in every scenario, whether or not the file says so.
"""

import enum
from collections.abc import Sequence

import msgspec

from detectors.backtest.scenario import Expect, Truth
from detectors.backtest.score import Score
from detectors.verdict import VerdictWord


class Attribution(enum.StrEnum):
    """Whether the right update was named among several."""

    RIGHT = "right"
    WRONG = "wrong"
    PARTLY = "partly"
    NONE = "none"


ATTRIBUTION_DOCS: dict[Attribution, str] = {
    Attribution.RIGHT: "Every guilty update was killed, and no other.",
    Attribution.WRONG: "An update that harms nobody was killed.",
    Attribution.PARTLY: "Some guilty updates were killed, not all, and no other.",
    Attribution.NONE: "No update was killed.",
}


class Judged(msgspec.Struct, kw_only=True):
    """One judge in one run, against the truth.

    Attributes:
        broken: what must hold and does not, one sentence each; empty where all is as the truth expects.
        decided_as_truth: the decision is the one that `truth.decision` names, which may be more than must hold.
        attribution: whether the right update was named; None where one update only is shipped, or none is guilty.
        wrong_kills: kills of updates that harm nobody, or that the truth says must not be killed.
        strangers_killed: kills of rollouts that the scenario does not ship: invented ones.
    """

    broken: list[str]
    decided_as_truth: bool
    attribution: Attribution | None
    wrong_kills: int
    strangers_killed: int = 0


def judged(truth: Truth, scores: Sequence[Score], strangers_killed: int = 0) -> Judged:
    """Hold one judge's scores of one run against the scenario's truth.

    Args:
        truth: what the scenario says.
        scores: of one judge, one for each update.
        strangers_killed: rollouts that he killed and the scenario does not ship.
    """
    wrong = [one for one in scores if _wrong_kill(truth, one)]
    as_truth = _decided_as_truth(truth, scores)
    broken = [f"{one.update} was killed, and must not be" for one in wrong]
    broken += [
        f"a detector failed on {one.update}: {one.decided.sentence}"
        for one in scores
        if one.decided.verdict is VerdictWord.ERROR
    ]
    if strangers_killed:
        broken.append(f"{strangers_killed} rollouts were killed that nobody ships")
    if truth.expect == Expect():
        broken += [] if as_truth or wrong else [f"not the decision that the truth asks for: {truth.decision}"]
    else:
        broken += _expected(truth, scores)
    return Judged(
        broken=broken,
        decided_as_truth=as_truth,
        attribution=_attribution(scores),
        wrong_kills=len(wrong),
        strangers_killed=strangers_killed,
    )


def _wrong_kill(truth: Truth, one: Score) -> bool:
    return one.decided.killed_ms is not None and (not one.guilty or "kill" in truth.expect.must_not)


def _expected(truth: Truth, scores: Sequence[Score]) -> list[str]:
    expect, guilty = truth.expect, [one for one in scores if one.guilty]
    broken: list[str] = []
    if "hold" in expect.must_not:
        broken += [f"{one.update} was held, and must not be" for one in scores if one.decided.held_ms is not None]
    if "proceed" in expect.must_not:
        # To go on is wrong for what harms; where nothing harms and the truth still says so, for everything.
        broken += [
            f"{one.update} was told to go on, and must not be"
            for one in guilty or scores
            if one.decided.proceeded_ms is not None
        ]
    if expect.killed_or_held_before_broad:
        broken += [f"{one.update} was {_how_late(one)}" for one in guilty if not one.before_broad]
    if expect.named:
        broken += [f"{one.update} was not killed" for one in guilty if one.decided.killed_ms is None]
    return broken


def _how_late(one: Score) -> str:
    if one.decided.held_ms is None:
        return "never stopped"
    return f"stopped {(one.decided.held_ms - one.broad_ms) / 1000:.0f} s after the push to its last ring began"


def _decided_as_truth(truth: Truth, scores: Sequence[Score]) -> bool:
    concerned = [one for one in scores if one.guilty] or list(scores)
    if truth.decision == "kill":
        return bool(concerned) and all(one.decided.killed_ms is not None for one in concerned)
    if truth.decision == "hold":
        return all(one.decided.held_ms is not None and one.decided.killed_ms is None for one in concerned)
    return all(one.decided.held_ms is None for one in concerned)


def _attribution(scores: Sequence[Score]) -> Attribution | None:
    guilty = {one.rollout for one in scores if one.guilty}
    if len(scores) < 2 or not guilty:
        return None
    killed = {one.rollout for one in scores if one.decided.killed_ms is not None}
    if killed - guilty:
        return Attribution.WRONG
    if not killed:
        return Attribution.NONE
    return Attribution.RIGHT if killed == guilty else Attribution.PARTLY
