"""What counts as expected, wrong, named and better than Cordon, on scores made by hand."""

import pytest

from detectors.backtest.expectations import Attribution, Judged, judged
from detectors.backtest.scenario import Expect, Truth
from detectors.backtest.score import Decided, Score
from detectors.backtest.summary import Run, rivals, totals
from detectors.verdict import VerdictWord

BROAD_MS = 3_600_000


def scored(
    update: str = "v/p/1",
    *,
    judge: str = "cordon",
    guilty: bool = False,
    held: int | None = None,
    killed: int | None = None,
    proceeded: int | None = None,
    lost: int = 0,
) -> Score:
    held = killed if held is None else held
    return Score(
        scenario="s", seed=1, judge=judge, rollout=f"r-{update}", update=update, guilty=guilty, began_ms=0,
        broad_ms=BROAD_MS, decided=Decided(held_ms=held, killed_ms=killed, proceeded_ms=proceeded), lost=lost,
        lost_without=100 if guilty else 0, taken=0, taken_without=0, delay_seconds=None,
        before_broad=held is not None and held < BROAD_MS, false_kill=killed is not None and not guilty,
        false_hold=held is not None and not guilty, missed=guilty and held is None,
    )  # fmt: skip


KILL = Truth(guilty="v/p/1", decision="kill", expect=Expect(killed_or_held_before_broad=True, must_not=["proceed"]))
NAMED = Truth(guilty="v/p/1", decision="kill", expect=Expect(named=True))
HEALTHY = Truth(decision="proceed", expect=Expect(must_not=["kill"]))
PLAIN = Truth(decision="proceed")


class TestExpectations:
    @pytest.mark.parametrize(
        ("truth", "score", "broken"),
        [
            (KILL, scored(guilty=True, killed=BROAD_MS - 1), []),
            (KILL, scored(guilty=True, held=1), []),
            (KILL, scored(guilty=True, killed=BROAD_MS + 2000), ["stopped 2 s after"]),
            (KILL, scored(guilty=True), ["never stopped"]),
            (KILL, scored(guilty=True, held=1, proceeded=0), ["told to go on"]),
            (NAMED, scored(guilty=True, held=1), ["was not killed"]),
            (NAMED, scored(guilty=True, killed=BROAD_MS * 9), []),
            (HEALTHY, scored(held=1), []),
            (HEALTHY, scored(killed=1), ["was killed, and must not be"]),
            (PLAIN, scored(), []),
            (PLAIN, scored(held=1), ["not the decision that the truth asks for: proceed"]),
            (PLAIN, scored(killed=1), ["was killed, and must not be"]),
        ],
    )
    def test_each_expectation_holds_or_is_named(self, truth: Truth, score: Score, broken: list[str]) -> None:
        found = judged(truth, [score]).broken
        assert len(found) == len(broken)
        assert all(part in text for part, text in zip(broken, found, strict=True))

    def test_the_innocent_may_be_told_to_go_on_beside_a_guilty_one(self) -> None:
        scores = [scored(guilty=True, killed=1), scored("v/q/1", proceeded=5)]
        assert judged(KILL, scores).broken == []

    def test_harm_within_the_tolerance_must_not_be_killed(self) -> None:
        truth = Truth(guilty="v/p/1", decision="proceed", expect=Expect(must_not=["kill"]))
        assert judged(truth, [scored(guilty=True, killed=1)]).wrong_kills == 1
        assert judged(truth, [scored(guilty=True)]).broken == []

    def test_a_detector_that_failed_is_never_as_expected(self) -> None:
        score = scored()
        score.decided = Decided(verdict=VerdictWord.ERROR, sentence="the sum is none")
        assert judged(HEALTHY, [score]).broken == ["a detector failed on v/p/1: the sum is none"]

    def test_a_kill_of_what_nobody_ships_is_wrong(self) -> None:
        assert judged(NAMED, [scored(guilty=True, killed=1)], strangers_killed=2).broken == [
            "2 rollouts were killed that nobody ships"
        ]

    @pytest.mark.parametrize(
        ("guilty_killed", "other_killed", "attribution"),
        [
            (1, None, Attribution.RIGHT),
            (None, 1, Attribution.WRONG),
            (1, 1, Attribution.WRONG),
            (None, None, Attribution.NONE),
        ],
    )
    def test_attribution(self, guilty_killed: int | None, other_killed: int | None, attribution: Attribution) -> None:
        scores = [scored(guilty=True, killed=guilty_killed), scored("v/q/1", killed=other_killed)]
        assert judged(NAMED, scores).attribution is attribution

    def test_one_of_two_guilty_is_partly_right(self) -> None:
        truth = Truth(guilty=["v/p/1", "v/q/1"], decision="kill")
        scores = [scored(guilty=True, killed=1), scored("v/q/1", guilty=True)]
        assert judged(truth, scores).attribution is Attribution.PARTLY

    def test_one_update_alone_needs_no_attribution(self) -> None:
        assert judged(NAMED, [scored(guilty=True, killed=1)]).attribution is None


def run_of(name: str, truth: Truth, *scores: Score) -> Run:
    found: dict[str, Judged] = {
        judge: judged(truth, [one for one in scores if one.judge == judge])
        for judge in dict.fromkeys(one.judge for one in scores)
    }
    return Run(
        scenario=name, title=name, seed=1, devices=100, level="cohort", truth=truth, scores=list(scores), judged=found,
        simulated_seconds=0, judged_seconds=0,
    )  # fmt: skip


class TestSummary:
    def test_totals_count_each_judge_over_all_runs(self) -> None:
        runs = [
            run_of("harm", KILL, scored(guilty=True, killed=1, lost=9), scored(judge="peer", guilty=True, lost=100)),
            run_of("well", HEALTHY, scored(held=5), scored(judge="peer", killed=5)),
        ]
        cordon, peer = totals(runs)
        assert (cordon.lost, cordon.lost_without, cordon.missed, cordon.before_broad) == (9, 100, 0, 1)
        assert (cordon.wrong_kills, cordon.false_holds, cordon.unexpected, cordon.runs) == (0, 1, 0, 2)
        assert (peer.missed, peer.harmful, peer.wrong_kills, peer.wrong_kills_in) == (1, 1, 1, ["well"])
        assert (peer.false_holds, peer.unexpected) == (0, 2)

    def test_a_peer_that_loses_fewer_is_named_with_his_wrong_kills(self) -> None:
        runs = [
            run_of(
                "harm", KILL,
                scored(guilty=True, killed=1, lost=9),
                scored(judge="rash", guilty=True, killed=0, lost=2),
                scored(judge="clean", guilty=True, killed=0, lost=8),
                scored(judge="even", guilty=True, killed=1, lost=9),
            ),
            run_of(
                "well", HEALTHY,
                scored(), scored(judge="rash", killed=1), scored(judge="clean"), scored(judge="even"),
            ),
        ]  # fmt: skip
        assert [(one.judge, one.fewer, one.wrong_kills_in) for one in rivals(runs)] == [
            ("rash", {"harm": (2, 9)}, ["well"]),
            ("clean", {"harm": (8, 9)}, []),
        ]

    def test_harm_within_the_tolerance_is_no_loss_to_compare(self) -> None:
        truth = Truth(guilty="v/p/1", decision="proceed", expect=Expect(must_not=["kill"]))
        runs = [
            run_of("mild", truth, scored(guilty=True, lost=50), scored(judge="rash", guilty=True, killed=0, lost=1))
        ]
        assert rivals(runs) == []
        assert totals(runs)[0].lost == 0
