"""What the statistics say of a rollout, and what policy makes of it: the wire type of `cordon.verdicts.v1`.

A verdict always carries its reason as a sentence with its numbers in it ("evidence 10^7.2 >= 10^6 needed to kill"), and
the evidence as numbers a person can check. No data is a verdict of its own and is never health.
"""

import enum
from typing import Annotated

import msgspec

from detectors.recovery import Recovery
from detectors.scope import Scope
from detectors.stacks import Stack


class VerdictWord(enum.StrEnum):
    """What the statistics say."""

    HEALTHY = "healthy"
    WATCHING = "watching"
    REGRESSED = "regressed"
    NO_DATA = "no_data"
    ERROR = "error"


class DecisionWord(enum.StrEnum):
    """What policy makes of a verdict."""

    PROCEED = "proceed"
    HOLD = "hold"
    KILL = "kill"
    UNKNOWN = "unknown"


class Reason(enum.StrEnum):
    """Why, as a closed word; the sentence beside it has the numbers."""

    KILL_EVIDENCE = "kill_evidence"
    HOLD_EVIDENCE = "hold_evidence"
    TOO_FEW_DEVICES = "too_few_devices"
    TOO_FEW_TENANTS = "too_few_tenants"
    INSEPARABLE = "inseparable"
    EXPLAINED = "explained"
    ACTIVITY_LATE = "activity_late"
    NO_TELEMETRY = "no_telemetry"
    NO_EXPOSURE_BOUND = "no_exposure_bound"
    NO_EXPOSURE = "no_exposure"
    NO_CONTROL = "no_control"
    NO_HARM_SEEN = "no_harm_seen"
    EVIDENCE_RISING = "evidence_rising"
    DETECTOR_FAILED = "detector_failed"


VERDICT_DOCS: dict[VerdictWord, str] = {
    VerdictWord.HEALTHY: "Enough was seen, and no harm in it.",
    VerdictWord.WATCHING: "Not settled: too little was seen, or evidence of harm that does not suffice for a kill.",
    VerdictWord.REGRESSED: "The evidence says that the rollout is worse than its control by more than is tolerated.",
    VerdictWord.NO_DATA: "Nothing can be said: telemetry, exposure or its bound is missing. Never health.",
    VerdictWord.ERROR: "A detector failed; the sentence names the fault.",
}

DECISION_DOCS: dict[DecisionWord, str] = {
    DecisionWord.PROCEED: "The rollout may go on.",
    DecisionWord.HOLD: "The rollout must pause where it is.",
    DecisionWord.KILL: "The rollout must stop for good; only a person releases it.",
    DecisionWord.UNKNOWN: "Cordon can't say; a rollout system that does not go on without a word stays where it is.",
}

REASON_DOCS: dict[Reason, str] = {
    Reason.KILL_EVIDENCE: "The evidence, and the devices and tenants behind it, suffice for a kill.",
    Reason.HOLD_EVIDENCE: "The evidence suffices for a hold, not for a kill.",
    Reason.TOO_FEW_DEVICES: "The evidence suffices for a kill, but it comes from fewer devices than policy demands.",
    Reason.TOO_FEW_TENANTS: "The evidence suffices for a kill, but not without one tenant group, or it is of too few.",
    Reason.INSEPARABLE: "The evidence suffices, but another rollout on the same devices may explain it: both are held.",
    Reason.EXPLAINED: "Crashes are frequent on its devices, but another rollout on the same devices explains them.",
    Reason.ACTIVITY_LATE: "Activity lags behind crashes by more than is allowed: who is exposed is not known yet.",
    Reason.NO_TELEMETRY: "No telemetry comes in from some or all device partitions: Cordon is blind there.",
    Reason.NO_EXPOSURE_BOUND: "Nothing bounds the exposed share from above. Declare rings or lists, or post `offered`.",
    Reason.NO_EXPOSURE: "No device is known to be exposed.",
    Reason.NO_CONTROL: "No harm is seen, but no device or crash without the update is there to compare with.",
    Reason.NO_HARM_SEEN: "No harm is seen; the verdict says whether enough was seen to call it healthy.",
    Reason.EVIDENCE_RISING: "Evidence is gathering, and not enough to act on.",
    Reason.DETECTOR_FAILED: "A detector raised an error on this rollout; the sentence names it.",
}


class Method(msgspec.Struct, kw_only=True):
    """One method's part of the evidence.

    Attributes:
        name: `rate_ratio`, `new_signature`, `silence` or `baseline`.
        log10_evidence: log10 of its e-value now, nobody left out.
        weight: its weight in the mean of e-values.
        events_exposed: events (crashes, silences) scored in the exposed arm.
        events_control: the same in the control arm.
        expected_share: mean exposed share (upper bound) over the scored events: what health would give.
        note: one sentence for a person.
    """

    name: str
    log10_evidence: float
    weight: float
    events_exposed: int = 0
    events_control: int = 0
    expected_share: float | None = None
    note: str = ""


class Evidence(msgspec.Struct, kw_only=True):
    """The numbers behind a verdict.

    Attributes:
        log10_evidence: log10 of the combined e-value now, without the tenant group that carries most of it (with all
            where one tenant's word suffices by policy).
        log10_evidence_max: its highest so far; decisions latch at the first crossing.
        log10_everybody_max: the highest so far with nobody left out: where it is enough for a kill and the one before
            is not, a hold.
        left_out: the tenant group without which evidence is least; null if leaving one out changes nothing.
        log10_marginal: log10 of the rate ratio's e-value taken alone, whatever other rollouts its devices are on.
        loudest_margin: the margin (an OS build, a model, ...) with most evidence, and its log10.
        new_signatures: signatures nobody had before the rollout, with exposed and control crashes.
        rivals: other rollouts on some of its devices.
        attribution: what attribution says of it among its rivals; empty without any suspicion.
        gate: whether its next ring may follow, in a sentence with the numbers; empty while that is not asked.
        gate_holding: margin cells that hold the gate shut: name, share of the next ring, log10 of the evidence of
            health, exposed device-days so far, and how many more are needed (null: no time is enough).
        log10_needed_to_hold: log10(1/alpha) for a hold.
        log10_needed_to_kill: log10(1/alpha) for a kill.
        tolerated_ratio: rho_0.
        methods: each method's part.
        crashes_exposed: first crashes in the exposed arm, scored or not.
        crashes_control: the same in the control arm.
        exposed: devices exposed now.
        at_risk_exposed: devices at risk in the exposed arm now.
        at_risk_control: devices at risk in the control arm now.
        rate_ratio: estimated crash-rate ratio of the arms, None while it can't be told.
        rate_ratio_low: its 95 % lower bound.
        rate_ratio_high: its 95 % upper bound.
        tenants: distinct tenants among exposed crashes.
        first_crash_ms: event time of the first exposed crash.
        signatures: the most frequent signatures among exposed crashes, with counts.
        cells: the cells that weigh most, with their exposed and control crashes and counts at risk.
        stacks: the most frequent stack of each of `signatures` whose reports had frames: for people, never evidence.
            Empty in a record of a release before this field.
        log10_hold_max: the highest so far of what a hold goes by: with nobody left out, with methods whose history is
            too short to kill, and by a tolerance of its own. 0 in a record of a release before this field.
    """

    log10_evidence: float = 0.0
    log10_evidence_max: float = 0.0
    log10_everybody_max: float = 0.0
    left_out: int | None = None
    log10_marginal: float = 0.0
    loudest_margin: tuple[str, float] | None = None
    new_signatures: list[tuple[str, int, int]] = []
    rivals: list[str] = []
    attribution: str = ""
    gate: str = ""
    gate_holding: list[tuple[str, float, float, float, float | None]] = []
    log10_needed_to_hold: float
    log10_needed_to_kill: float
    tolerated_ratio: float
    methods: list[Method] = []
    crashes_exposed: int = 0
    crashes_control: int = 0
    exposed: int = 0
    at_risk_exposed: int = 0
    at_risk_control: int = 0
    rate_ratio: float | None = None
    rate_ratio_low: float | None = None
    rate_ratio_high: float | None = None
    tenants: int = 0
    first_crash_ms: int | None = None
    signatures: list[tuple[str, int]] = []
    cells: list[tuple[str, int, int, int, int]] = []
    stacks: list[Stack] = []
    log10_hold_max: float = 0.0


class ScopedDecision(msgspec.Struct, kw_only=True):
    """What policy makes of a part of the rollout, beside what it makes of the whole.

    Attributes:
        scope: the part: a tenant whose evidence is its own only.
        decision: `hold` or `kill`.
        reason: why, as a closed word.
        sentence: the reason with its numbers, for a person.
        log10_evidence: log10 of the e-value that decided.
    """

    scope: Scope
    decision: DecisionWord
    reason: Reason
    sentence: str
    log10_evidence: float


class GateCell(msgspec.Struct, kw_only=True):
    """What the gate says of one margin cell of the next ring.

    Attributes:
        name: the cell, such as `build=22631.3880`.
        share: its share of the devices of the next ring.
        word: passed or not and why, a word of `detectors.gate.CellWord`.
        log10_evidence: log10 of the evidence that it is not harmed, one tenant group left out.
        device_days: exposed device-days so far.
        device_days_needed: how many more are needed if nobody crashes; null where no time is enough or none is needed.
        hours_needed: the same in hours at the present number of exposed devices; null where that is not known.
        crashes_exposed: crashes among exposed devices.
        crashes_control: crashes among others.
    """

    name: str
    share: float
    word: str
    log10_evidence: float = 0.0
    device_days: float = 0.0
    device_days_needed: float | None = None
    hours_needed: float | None = None
    crashes_exposed: int = 0
    crashes_control: int = 0


class GateReport(msgspec.Struct, kw_only=True):
    """May the rollout go to its next ring, and what is still needed.

    Attributes:
        to: the ring that was asked about; empty where no further ring is declared.
        passed: every cell of it has passed, and the update has been through what policy demands.
        sentence: the answer with its numbers.
        log10_needed: evidence that each cell needs.
        cells: every cell, those that hold the gate shut first.
        lacking: what the update has not been through yet (boots, wakes, hours), as phrases with their numbers.
        cells_more: cells that are not listed, because there are too many.
    """

    to: str
    passed: bool
    sentence: str
    log10_needed: float
    cells: list[GateCell] = []
    lacking: list[str] = []
    cells_more: int = 0


class Verdict(msgspec.Struct, kw_only=True):
    """The latest verdict of one rollout.

    Attributes:
        at_ms: event time (the merged watermark) the verdict holds for.
        verdict: what the statistics say.
        decision: what policy makes of it.
        reason: why, as a closed word.
        sentence: the reason with its numbers, for a person.
        evidence: the numbers.
        policy: digest of the policy that decided.
        dry_run: policy says: decide, sign, but mark as not to be obeyed.
        steps: the watermark of each device partition that this verdict has seen.
        scoped: parts of the rollout that are decided on by themselves, stricter than the whole.
        gate: whether the next ring may follow; null while no ring has started or none is declared.
        heard_share: of the devices exposed, which part was heard from lately (within a quarter of an hour) or is known
            to have crashed; null where fewer than 20 are exposed. A lease is renewed only while it is large enough.
        recovery: devices of the rollout that are silent, looping or recovered, by ring and tenant, as of the latest
            full minute; null where there are none.
    """

    # A verdict of another schema is refused by its reader, never half understood.
    schema: Annotated[int, msgspec.Meta(ge=1, le=1)] = 1
    rollout: str
    vendor: str
    product: str
    version: str
    at_ms: int
    verdict: VerdictWord
    decision: DecisionWord
    reason: Reason
    sentence: str
    evidence: Evidence
    policy: str
    dry_run: bool = False
    steps: list[int] = []
    scoped: list[ScopedDecision] = []
    gate: GateReport | None = None
    heard_share: float | None = None
    recovery: Recovery | None = None


verdict_decoder = msgspec.json.Decoder(Verdict)
