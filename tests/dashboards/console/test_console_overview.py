import msgspec
import pytest

from dashboards.console.overview import Overviews, row_of
from detectors.scope import Scope
from detectors.verdict import DecisionWord, Reason, Verdict, VerdictWord
from ingest.events import encoder
from ingest.log.interface import Record
from ingest.sight import Sight
from signals.delivery.answers import Answers
from signals.delivery.views import Views
from signals.events import Action
from signals.killswitch.lease import LeaseTerms
from support.switches import KEYS, START_MS, SwitchRig, command, verdict


class Rig(SwitchRig):
    """A stage, and the views and overviews of what it says."""

    def __init__(self) -> None:
        super().__init__()
        self.views = Views(KEYS)
        self.sight_now = Sight(seeing=True)
        answers = Answers(self.views, self.clock, LeaseTerms(), self)
        self.overviews = Overviews(self.views, answers, self, self.clock)

    def sight(self) -> Sight:
        return self.sight_now

    def show(self, *verdicts: Verdict) -> None:
        """Say verdicts, let the stage decide, and let the views see both."""
        self.say(*verdicts)
        while self.owner.step(0.0):
            continue
        self.views.take_verdicts(self.verdicts, self.log.read(self.verdicts, 0))
        self.views.take_switches(self.switches, self.log.read(self.switches, 0))


def watching(rollout: str, **fields: object) -> Verdict:
    return msgspec.structs.replace(verdict(DecisionWord.PROCEED, rollout=rollout), **fields)


def test_what_is_stopped_comes_first_then_what_rises_then_the_newest() -> None:
    rig = Rig()
    rising = watching("r-rising", verdict=VerdictWord.WATCHING, reason=Reason.EVIDENCE_RISING)
    newer = watching("r-newer", at_ms=START_MS + 5)
    for one in (newer, watching("r-older"), rising):
        one.evidence = msgspec.structs.replace(one.evidence, log10_evidence_max=0.5)
    rig.show(
        newer, watching("r-older"), rising, verdict(DecisionWord.HOLD, rollout="r-held"),
        verdict(DecisionWord.KILL, rollout="r-killed"),
    )  # fmt: skip
    overview = rig.overviews.now()
    order = [row.said.rollout for row in overview.rows]
    assert order[:3] == ["r-killed", "r-held", "r-rising"]
    assert set(order[3:]) == {"r-newer", "r-older"}
    assert (overview.stopped, overview.killed, overview.rising) == (2, 1, 1)
    kinds = {row.said.rollout: row.standing.kind for row in overview.rows}
    assert kinds["r-killed"] == "killed"
    assert kinds["r-held"] == "held"
    assert kinds["r-rising"] == "rising"
    assert len({row.standing.mark for row in overview.rows}) >= 3
    assert overview.headline == ("2 stopped: falcon-content 291, falcon-content 291. 1 rising. Cordon sees.")


def test_a_stop_is_listed_however_many_verdicts_came_after_it() -> None:
    rig = Rig()
    rig.show(verdict(DecisionWord.KILL, rollout="r-killed"))
    healthy = [watching(f"r-{number:04}", at_ms=START_MS + number) for number in range(600)]
    records = [
        Record(number, one.rollout.encode(), encoder.encode(one), START_MS) for number, one in enumerate(healthy)
    ]
    rig.views.take_verdicts(rig.verdicts, records)
    overview = rig.overviews.now()
    assert overview.rows[0].said.rollout == "r-killed"
    assert overview.stopped == 1
    assert len(overview.rows) == 500
    assert overview.more


def test_a_stop_of_a_part_counts_and_is_told_as_one() -> None:
    rig = Rig()
    rig.declare("r-part")
    rig.show(watching("r-part"))
    rig.ask(command(Action.HOLD, "c-1", rollout="r-part", scope=Scope(os_build="22631")))
    rig.show(watching("r-part", at_ms=START_MS + 1))
    (row,) = rig.overviews.now().rows
    assert row.stopped
    assert (row.standing.kind, row.standing.text) == ("held", "held, 1 part")


def test_it_is_made_again_only_when_something_changed() -> None:
    rig = Rig()
    rig.show(watching("r-1"))
    first = rig.overviews.now()
    assert rig.overviews.now() is first
    rig.show(watching("r-2"))
    assert rig.overviews.now() is not first


def test_a_rollout_that_did_not_change_keeps_its_row_the_very_object() -> None:
    rig = Rig()
    rig.show(watching("r-1"), watching("r-2"))
    before = {row.said.rollout: row for row in rig.overviews.now().rows}
    rig.clock.drive_to(START_MS + 60_000)
    records = [Record(9, b"r-2", encoder.encode(watching("r-2", sentence="another")), START_MS)]
    rig.views.take_verdicts(rig.verdicts, records)
    after = {row.said.rollout: row for row in rig.overviews.now().rows}
    assert after["r-1"] is before["r-1"]
    assert after["r-2"].said.sentence == "another"


def test_blindness_is_in_the_headline() -> None:
    rig = Rig()
    assert rig.overviews.now().headline == "Nothing is stopped. Nothing is rising. Cordon sees."
    rig.sight_now = Sight(seeing=False, unseen=3)
    rig.clock.drive_to(START_MS + 10_000)
    assert rig.overviews.now().headline.endswith("CORDON IS BLIND.")


@pytest.mark.parametrize(("evidence", "share"), [(0.0, 0.0), (3.0, 0.5), (6.0, 1.0), (60.0, 1.0), (-5.0, 0.0)])
def test_evidence_is_shown_as_a_share_of_what_a_kill_needs(evidence: float, share: float) -> None:
    rig = Rig()
    said = watching("r-1")
    said.evidence = msgspec.structs.replace(said.evidence, log10_evidence_max=evidence)
    rig.show(said)
    (row,) = rig.overviews.now().rows
    assert (row.evidence, row.hold_at) == (share, 0.5)
    assert row_of(row.said) == row
