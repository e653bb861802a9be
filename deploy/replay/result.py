"""What a replay found: the fleet's truth beside what Cordon decided. Every number was measured in that run."""

import msgspec

from deploy.replay.client import GatewayClient
from deploy.replay.rollout_system import RolloutSystem
from detectors.backtest.fleet import Fleet, TruthCounts
from detectors.backtest.scenario import Scenario
from detectors.verdict import Evidence
from signals.events import SwitchState


class Moment(msgspec.Struct, kw_only=True):
    """How things stand at a full minute of event time; given to the progress callback.

    Attributes:
        minute: minutes since the end of the warm-up, negative before.
        truth: counts of what is true.
        crash_reports: bsod and boot_loop reports made so far, of all causes.
        reports: reports sent so far.
        state: the kill switch's state as last told; None before its first event.
        wall_seconds: since the replay began.
    """

    at_ms: int
    minute: float
    truth: TruthCounts
    crash_reports: int
    reports: int
    state: SwitchState | None
    wall_seconds: float


class ReplayResult(msgspec.Struct, kw_only=True):
    """A replay's outcome. Times are event time in milliseconds since the epoch; counts are of distinct devices.

    Attributes:
        kill_switch: whether the simulated rollout system obeyed.
        pushed: devices that took an update.
        lost: devices that took an update and crashed on it, whether or not they came back.
        lost_down_worst: the most of them that were down at one time.
        lost_down_at_end: those down when the scenario ended.
        lost_silent_at_end: those down that nobody had ever heard a crash report of.
        recovered: those that came out of a boot loop.
        first_crash_ms: when the first of them crashed.
        held_ms: event time that the first hold holds for.
        killed_ms: event time that the kill holds for.
        stopped_ms: from when on nothing was pushed (the first stop, hold or kill, plus reaction).
        seconds_first_crash_to_kill: event seconds.
        state: the kill switch's last state.
        sentence: the reason of the kill, else of the latest event, with its numbers.
        evidence: the numbers at the kill.
        late_ms: by how much a stop missed its moment; 0 when the replay never ran ahead of its decisions.
        refused: reports that the gateway refused for good, by reason.
        as_expected: the decision is the one that the scenario's truth asks for, and it fell on the guilty update.
    """

    scenario: str
    seed: int
    devices: int
    kill_switch: bool
    pushed: int
    lost: int
    lost_down_worst: int
    lost_down_at_end: int
    lost_silent_at_end: int
    recovered: int
    background_crashes: int
    first_crash_ms: int | None
    held_ms: int | None
    killed_ms: int | None
    stopped_ms: int | None
    seconds_first_crash_to_kill: float | None
    rollout: str
    state: SwitchState | None
    sentence: str
    evidence: Evidence | None
    late_ms: int
    truth_guilty: str
    truth_decision: str
    as_expected: bool
    killswitch_events: int
    reports: int
    accepted: int
    refused: dict[str, int]
    posts: int
    retries: int
    event_seconds: float
    wall_seconds: float


def result_of(
    fleet: Fleet, system: RolloutSystem, client: GatewayClient, *, reports: int, events: int, wall_seconds: float
) -> ReplayResult:
    """Put the outcome together from those who took part."""
    truth, scenario = fleet.truth(), fleet.scenario
    kill, hold = system.first_kill, system.first_hold
    telling = kill or system.last
    to_kill = None
    if kill is not None and truth.first_crash_ms is not None:
        to_kill = (kill.watermark_ms - truth.first_crash_ms) / 1000
    return ReplayResult(
        scenario=scenario.name,
        seed=scenario.seed,
        devices=fleet.devices,
        kill_switch=system.obeys,
        pushed=truth.pushed,
        lost=truth.lost,
        lost_down_worst=truth.down_worst,
        lost_down_at_end=truth.down,
        lost_silent_at_end=truth.silent,
        recovered=truth.recovered,
        background_crashes=truth.background_crashes,
        first_crash_ms=truth.first_crash_ms,
        held_ms=None if hold is None else hold.watermark_ms,
        killed_ms=None if kill is None else kill.watermark_ms,
        stopped_ms=system.stopped_ms,
        seconds_first_crash_to_kill=to_kill,
        rollout="" if telling is None else telling.rollout,
        state=None if system.last is None else system.last.state,
        sentence="" if telling is None else telling.sentence,
        evidence=None if telling is None else telling.evidence,
        late_ms=system.late_ms,
        truth_guilty=", ".join(_guilty(scenario)),
        truth_decision=scenario.truth.decision,
        as_expected=_as_expected(fleet, system),
        killswitch_events=events,
        reports=reports,
        accepted=client.accepted,
        refused=dict(client.refused),
        posts=client.posts,
        retries=client.retries,
        event_seconds=(fleet.now_ms - scenario.start_ms) / 1000,
        wall_seconds=wall_seconds,
    )


def _as_expected(fleet: Fleet, system: RolloutSystem) -> bool:
    truth, kill, hold = fleet.scenario.truth, system.first_kill, system.first_hold
    if truth.decision == "proceed":
        return kill is None and hold is None
    telling = hold if truth.decision == "hold" else kill
    if telling is None or (truth.decision == "hold" and kill is not None):
        return False
    guilty = _guilty(fleet.scenario)
    return not guilty or f"{telling.vendor}/{telling.product}/{telling.version}" in guilty


def _guilty(scenario: Scenario) -> list[str]:
    named = scenario.truth.guilty
    return [one for one in ([named] if isinstance(named, str) else named) if one]
