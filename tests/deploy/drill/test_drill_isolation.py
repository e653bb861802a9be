"""Drills through grouping, detection and signals: each is killed, and no other rollout's evidence moves by a digit."""

from collections.abc import Sequence
from typing import Any

import msgspec

from detectors.drill import DrillPlan, is_drill
from detectors.verdict import Verdict, verdict_decoder
from ingest.events import Report, RolloutNotice, encoder
from ingest.log.interface import Entry, TopicPartition
from ingest.rollouts import Bound, Rollout
from signals.events import Switch, SwitchState
from support.system_late import PARTITIONS, ROLLOUT, Chain
from support.world import OLD, T0, pseudonym

MINUTE_MS = 60_000
LATER_MS = 120 * MINUTE_MS
REAL_DEVICES = 400
REAL_EXPOSED = 40


def behind_the_gateway(report: Report, number: int) -> Report:
    """Return the report under its device's pseudonym."""
    return msgspec.structs.replace(report, device=pseudonym(1_000_000 + number))


class Story:
    """A real fleet with a rollout of its own under watch, and drills beside it, minute by minute of event time."""

    def __init__(self) -> None:
        self.chain = Chain()
        self.at_ms = T0

    def to(self, at_ms: int) -> None:
        """Let the gateway tick on, twice a minute at least."""
        while self.at_ms < at_ms:
            self.at_ms = min(at_ms, self.at_ms + MINUTE_MS // 2)
            self.chain.append(self.chain.world.ticks(self.at_ms))

    def say(self, word: str, reports: Sequence[Report]) -> None:
        """Post reports now."""
        self.chain.append(self.chain.world.batches(word, reports, self.at_ms))
        self.to(self.at_ms + 250)

    def real_check_ins(self) -> None:
        world = self.chain.world
        self.say("activity", [world.check_in(device, self.at_ms, OLD) for device in range(REAL_DEVICES)])

    def real_crashes(self, devices: Sequence[int]) -> None:
        self.say("crashes", [self.chain.world.bsod(device, self.at_ms) for device in devices])

    def drill(self, plan: DrillPlan, crashes: int) -> None:
        """Run a drill as `deploy.drill.run` does, of which so many crashes arrive."""
        self.say("activity", [behind_the_gateway(one, n) for n, one in enumerate(plan.check_ins())])
        self.chain.append(declared(self.chain, plan))
        self.say("activity", [behind_the_gateway(one, n) for n, one in enumerate(plan.offers())])
        self.to(plan.started_ms + 3000)
        for number in range(crashes):
            self.say("crashes", [behind_the_gateway(plan.crash(number, self.at_ms), number)])

    def verdicts(self, rollout: str) -> list[Verdict]:
        source, offset, found = TopicPartition(self.chain.topics.name("verdicts"), 0), 0, list[Verdict]()
        while records := self.chain.log.read(source, offset):
            found += [verdict_decoder.decode(one.value) for one in records if one.value is not None]
            offset = records[-1].offset + 1
        return [verdict for verdict in found if verdict.rollout == rollout]

    def kills(self) -> list[Switch]:
        return [one for one in self.chain.switches() if one.state is SwitchState.KILLED]


def declared(chain: Chain, plan: DrillPlan) -> list[Entry]:
    """Return what a gateway writes of the drill's declaration."""
    said = plan.declaration()
    named: dict[str, Any] = {
        "rollout": plan.rollout,
        "vendor": said.vendor,
        "product": said.product,
        "version": said.version,
    }
    rollout = Rollout(
        **named, update_kind=said.update_kind, origin_ms=plan.started_ms, bound=Bound.DECLARED, rings=said.rings
    )
    notice = encoder.encode(RolloutNotice(**named, origin_ms=plan.started_ms))
    return [
        Entry(chain.topics.name("rollouts"), 0, plan.rollout.encode(), encoder.encode(rollout)),
        *(Entry(chain.topics.name("activity"), number, None, notice) for number in range(PARTITIONS)),
    ]


def plan_at(at_ms: int, mark: str) -> DrillPlan:
    return DrillPlan(started_ms=at_ms, mark=mark)


def story(drills: bool) -> Story:
    """Tell two hours of a real rollout and its crashes, with a drill in the first and one in the last, or with none.

    The second drill is one that was not stopped: all its devices crash.
    """
    told = Story()
    told.real_check_ins()
    told.chain.declare(Bound.OFFERED)
    told.to(T0 + 10_000)
    told.say("activity", [told.chain.world.offered(device, told.at_ms) for device in range(0, REAL_DEVICES, 10)])
    told.real_crashes([0, 1, 2, 13])
    told.to(T0 + 10 * MINUTE_MS)
    if drills:
        told.drill(plan_at(told.at_ms, "aaaa"), 20)
    told.to(T0 + 12 * MINUTE_MS)
    told.real_crashes([10, 21, 22, 35])
    told.to(T0 + 60 * MINUTE_MS)
    told.real_check_ins()
    told.to(T0 + LATER_MS - 10 * MINUTE_MS)
    told.real_check_ins()
    told.to(T0 + LATER_MS)
    if drills:
        told.drill(plan_at(told.at_ms, "bbbb"), 48)
    told.to(T0 + LATER_MS + 2 * MINUTE_MS)
    told.real_crashes([20, 31, 44, 57])
    told.to(T0 + LATER_MS + 5 * MINUTE_MS)
    return told


def test_both_drills_are_killed_and_the_real_rollout_never_knows() -> None:
    """Every verdict on the real rollout has the same evidence with drills as without: counts, methods, cells, ratio."""
    without, with_drills = story(drills=False), story(drills=True)
    first, second = plan_at(T0 + 10 * MINUTE_MS, "aaaa"), plan_at(T0 + LATER_MS, "bbbb")
    assert [one.rollout for one in with_drills.kills()] == [first.rollout, second.rollout]
    assert all(is_drill(one.vendor, one.product) and one.cause == "detector" for one in with_drills.kills())
    assert without.kills() == []

    real = with_drills.verdicts(ROLLOUT)[-1]
    assert real.evidence.crashes_exposed + real.evidence.crashes_control == 12
    assert real.evidence == without.verdicts(ROLLOUT)[-1].evidence
    by_ms = {one.at_ms: one for one in without.verdicts(ROLLOUT)}
    common = [(one, by_ms[one.at_ms]) for one in with_drills.verdicts(ROLLOUT) if one.at_ms in by_ms]
    assert len(common) > 100
    for one, other in common:
        assert (one.decision, one.reason, one.evidence) == (other.decision, other.reason, other.evidence)

    # The first drill has not one control crash: no wave of them, in which other products' baselines would freeze.
    earlier = with_drills.verdicts(first.rollout)[-1]
    assert earlier.at_ms > second.started_ms
    assert earlier.evidence.crashes_control == 0
