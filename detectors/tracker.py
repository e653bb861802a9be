"""One rollout's evidence: counts at risk and crashes go in, findings and verdicts come out.

Called once for each merged step in which the rollout has a window. Each crash is scored once, in order of arrival,
against the counts at its event time; the highest evidence is kept, for decisions latch at the first crossing.
"""

import math
from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np

from detectors.baseline import WINDOWS, Baseline, PastRollout, age_window
from detectors.combine import combine
from detectors.counts import CohortCounts, Place
from detectors.decide import Findings
from detectors.exposure import ExposureBound
from detectors.history import CELLS_MAX
from detectors.interval import Interval, RatioEstimate
from detectors.policy import Policy
from detectors.report import describe, excess_high
from detectors.sequential import RateRatio
from detectors.silence import Silence
from detectors.strata import Strata
from detectors.tally import CrashTally
from detectors.tracker_state import TrackerState
from detectors.verdict import Evidence
from ingest.grouping.cells import tenant_hash
from ingest.rollouts import Rollout
from ingest.windows import CohortWindow, FirstCrash, Step

_LN10: Final = math.log(10.0)
# Time between two looks beyond which nobody knows whether the devices were there: no device-time for health.
_DEVICE_TIME_MS_MAX: Final = 120_000
_SHOCK_BLOCK_MS: Final = 600_000
_SHOCK_LEAST: Final = 8
_SHOCK_RATIO: Final = 4.0


class Situation(msgspec.Struct, kw_only=True, frozen=True):
    """How things stand with the telemetry as a whole when a verdict is asked for."""

    at_ms: int
    blind: bool = False
    late_seconds: float = 0.0
    late_limit_seconds: float = 30.0
    left_out: tuple[int, ...] = ()
    unsure: tuple[str, ...] = ()


class Tracker:
    """Evidence about one rollout.

    Attributes:
        revision: grows whenever a number of the evidence changes.
        idle_since_ms: event time of the last window.
        failed: why this rollout can't be scored any more; empty while it can.
    """

    def __init__(
        self,
        window: CohortWindow | Rollout,
        policy: Policy,
        silence_seconds: float,
        past: Sequence[PastRollout],
        live: Sequence[bool],
        synced: Sequence[bool],
    ) -> None:
        self.rollout, self.vendor, self.product = window.rollout, window.vendor, window.product
        self.version, self.origin_ms = window.version, window.origin_ms
        self.policy = policy
        self.policy_digest = policy.digest
        self._trusted = {tenant_hash(name) for name in policy.trusted_tenants}
        self.declared: Rollout | None = None
        self.bound = ExposureBound(None, policy.share_least)
        self.counts = CohortCounts(live, synced)
        self.tally = CrashTally()
        self.revision = 0
        self.idle_since_ms = 0
        self.failed = ""
        self._silence_seconds = silence_seconds
        self._rate = RateRatio(policy.tolerated_ratio)
        self._ratio_upper, self._ratio_known = RatioEstimate(), RatioEstimate()
        self._silence = Silence(
            policy.tolerated_ratio, policy.silence.control_share_limit, policy.silence.control_least
        )
        self._strata = Strata(silence_seconds)
        self._baseline = Baseline(past, policy.tolerated_ratio)
        self._silent_groups: set[int] = set()
        self._weights = (policy.weights.rate_ratio, policy.weights.silence, policy.weights.baseline)
        self._kill_max = 0.0
        self._hold_max = 0.0
        self._accounted_ms = 0
        self._known_seconds = 0.0
        self._control_seconds = 0.0
        self._age_crashes = [0] * WINDOWS
        self._age_seconds = [0.0] * WINDOWS
        self._block = [0, 0, 0]
        self._interval: tuple[int, Interval, Interval] | None = None
        if isinstance(window, Rollout):
            self.declare(window)

    def declare(self, rollout: Rollout) -> None:
        """Take what the rollout system says, from now on."""
        self.declared = rollout
        self.bound = ExposureBound(rollout, self.policy.share_least)
        self.revision += 1

    def next_due_ms(self) -> int | None:
        """Return the event time at which strata of silent devices can be scored; None without any."""
        return self._strata.next_due_ms()

    def process(self, at_ms: int, items: Sequence[tuple[Step, CohortWindow]], shock: bool) -> None:
        """Take one merged step.

        Args:
            at_ms: the merged watermark.
            items: the partitions' steps and what they say of this rollout, by partition.
            shock: other products see a wave of crashes too.
        """
        if items:
            self.idle_since_ms = at_ms
        upper_seconds = self._account(at_ms)
        self.counts.state(at_ms, [(step.partition, window) for step, window in items])
        crashes = [(step, crash) for step, window in items for crash in window.crashes]
        scored = self._score(at_ms, crashes) if crashes else 0
        if self._baseline.can_hold:
            self._baseline.update(self._age(at_ms), scored, upper_seconds, frozen=shock)
        for step, window in items:
            if window.heard and self.bound.bounded and self.counts.synced[step.partition]:
                self._strata.add(step.partition, step.watermark_ms, window.heard)
        self._score_silence(at_ms)
        self._latch(self._rate.log_evidence)

    def _age(self, at_ms: int) -> int:
        return age_window(max(0, at_ms - self.origin_ms) / 1000.0)

    def _account(self, at_ms: int) -> float:
        """Add the device-time since the last look; return an upper bound of the exposed device-seconds."""
        elapsed_ms = max(0, at_ms - self._accounted_ms) if self._accounted_ms else 0
        self._accounted_ms = max(self._accounted_ms, at_ms)
        if not elapsed_ms or not len(self.counts.known):
            return 0.0
        sure = min(elapsed_ms, _DEVICE_TIME_MS_MAX) / 1000.0
        exposed_seconds = int(self.counts.known.sum()) * sure
        self._known_seconds += exposed_seconds
        self._control_seconds += int(self.counts.control.sum()) * sure
        self._age_seconds[self._age(at_ms)] += exposed_seconds
        if not self._baseline.can_hold:
            return 0.0
        return self.counts.exposed_upper(self.bound, at_ms) * elapsed_ms / 1000.0

    def _score(self, at_ms: int, crashes: Sequence[tuple[Step, FirstCrash]]) -> int:
        """Count the crashes and score those that are evidence; return how many exposed ones were scored."""
        places, arms = [], []
        for step, crash in crashes:
            exposed = bool(crash.exposed) or self.bound.reached_all(crash.cell, crash.at_ms)
            self.tally.add(crash, exposed, CELLS_MAX)
            if not exposed:
                self._note_control_crash(at_ms)
            column = self.counts.column(crash.cell) if crash.scored else None
            if (
                column is None
                or not self.bound.bounded
                or not self.counts.synced[step.partition]
                or CohortCounts.too_old(crash.at_ms, at_ms)
            ):
                self.tally.unscored += 1
                continue
            places.append(Place(column, crash.at_ms, step.since_ms, step.watermark_ms))
            arms.append(exposed)
        self.revision += 1
        if not places:
            return 0
        x = np.array(arms, dtype=bool)
        upper, known = self.counts.shares(places, x, self.bound, at_ms)
        self._rate.update(x, upper)
        self._ratio_upper.add(x, upper)
        self._ratio_known.add(x, known)
        self._latch(self._rate.peak)
        count = int(np.count_nonzero(x))
        self._age_crashes[self._age(at_ms)] += count
        return count

    def _score_silence(self, at_ms: int) -> None:
        due_ms = self._strata.next_due_ms()
        if due_ms is None or at_ms < due_ms:
            return
        for minute in self._strata.due(at_ms, self.bound):
            everybody = (
                minute.control >= self.policy.silence.control_least
                and minute.silent_control > self.policy.silence.control_share_limit * minute.control
            )
            self._silence.update(minute.strata, frozen=everybody)
            self._silence.frozen += minute.unbounded
            self._silent_groups |= minute.groups
            self.revision += 1

    def _latch(self, log_rate: float) -> None:
        parts = log_rate, self._silence.log_evidence, self._baseline.log_evidence
        hold = combine(parts, self._weights)
        kill = hold if self._baseline.can_kill else combine((*parts[:2], 0.0), self._weights)
        if hold > self._hold_max or kill > self._kill_max:
            self._hold_max, self._kill_max = max(self._hold_max, hold), max(self._kill_max, kill)
            self.revision += 1

    def _note_control_crash(self, at_ms: int) -> None:
        block = at_ms // _SHOCK_BLOCK_MS
        if block != self._block[0]:
            self._block = [block, 0, self._block[2] + self._block[1]]
        self._block[1] += 1

    def in_shock(self, at_ms: int) -> bool:
        """Tell whether the control arm crashes in a wave: far above its own mean in the last ten minutes."""
        block, now, before = self._block
        if at_ms // _SHOCK_BLOCK_MS != block or now < _SHOCK_LEAST:
            return False
        blocks = max(1.0, (at_ms - self.origin_ms) / _SHOCK_BLOCK_MS)
        return now > _SHOCK_RATIO * (before + 1) / blocks

    def findings(self, situation: Situation) -> Findings:
        """Return all that a decision needs, given how the telemetry stands."""
        parts = self._rate.log_evidence, self._silence.log_evidence, self._baseline.log_evidence
        evidence = self._evidence(parts)
        started_ms = self.bound.latest_start_ms(situation.at_ms) or self.origin_ms
        return Findings(
            evidence=evidence,
            log10_hold=combine(parts, self._weights) / _LN10,
            log10_hold_max=self._hold_max / _LN10,
            bounded=self.bound.bounded,
            devices=max(self.tally.exposed, self._silence.exposed),
            tenants=max(len(self.tally.tenants), len(self._silent_groups)),
            trusted=not self._trusted.isdisjoint(self.tally.tenants),
            observed_seconds=max(0, situation.at_ms - started_ms) / 1000.0,
            excess_high=excess_high(self.tally.exposed, self._known_seconds, self.tally.control, self._control_seconds),
            late_seconds=situation.late_seconds,
            late_limit_seconds=situation.late_limit_seconds,
            blind=situation.blind,
            left_out=situation.left_out,
            unsure=situation.unsure,
            gapped=tuple(number for number, synced in enumerate(self.counts.synced) if not synced),
            failed=self.failed,
        )

    def _evidence(self, parts: tuple[float, float, float]) -> Evidence:
        upper, known = self._intervals()
        able = (*parts[:2], parts[2] if self._baseline.can_kill else 0.0)
        columns = {cell: column for column, cell in enumerate(self.counts.cells)}
        cells = []
        for cell, exposed, control in self.tally.top_cells():
            column = columns.get(cell)
            risk = (0, 0) if column is None else (int(self.counts.known[column]), int(self.counts.control[column]))
            cells.append((cell, exposed, control, *risk))
        return Evidence(
            log10_evidence=combine(able, self._weights) / _LN10,
            log10_evidence_max=self._kill_max / _LN10,
            log10_needed_to_hold=self.policy.log10_to_hold,
            log10_needed_to_kill=self.policy.log10_to_kill,
            tolerated_ratio=self.policy.tolerated_ratio,
            methods=describe(parts, self._weights, self._rate, self._silence, self._baseline, self.tally.unscored),
            crashes_exposed=self.tally.exposed,
            crashes_control=self.tally.control,
            exposed=self.counts.exposed_total,
            at_risk_exposed=int(self.counts.known.sum()),
            at_risk_control=int(self.counts.control.sum()),
            rate_ratio=upper.estimate,
            # The share's upper bound gives the ratio's lower one; what was known of it, the upper one.
            rate_ratio_low=upper.low if self._ratio_upper.events else None,
            rate_ratio_high=known.high,
            tenants=len(self.tally.tenants),
            first_crash_ms=self.tally.first_ms,
            signatures=self.tally.top_signatures(),
            cells=cells,
        )

    def _intervals(self) -> tuple[Interval, Interval]:
        events = self._ratio_upper.events
        if self._interval is None or self._interval[0] != events:
            self._interval = events, self._ratio_upper.interval(), self._ratio_known.interval()
        return self._interval[1], self._interval[2]

    def as_past(self) -> PastRollout | None:
        """Return what a later rollout of the product may compare with; None for a harmful or an unseen one."""
        harmful = self._hold_max / _LN10 >= self.policy.log10_to_hold
        if harmful or self.failed or not any(self._age_seconds):
            return None
        return PastRollout(tuple(self._age_crashes), tuple(self._age_seconds))

    def snapshot(self) -> TrackerState:
        """Return the state; `restore` of it goes on bit for bit."""
        return TrackerState(
            rollout=self.rollout,
            vendor=self.vendor,
            product=self.product,
            version=self.version,
            origin_ms=self.origin_ms,
            declared=self.declared,
            counts=self.counts.snapshot(),
            tally=self.tally,
            rate=self._rate.snapshot(),
            ratio_upper=self._ratio_upper.snapshot(),
            ratio_known=self._ratio_known.snapshot(),
            silence=self._silence.snapshot(),
            strata=self._strata.snapshot(),
            baseline=self._baseline.snapshot(),
            silent_groups=sorted(self._silent_groups),
            kill_max=self._kill_max,
            hold_max=self._hold_max,
            accounted_ms=self._accounted_ms,
            known_seconds=self._known_seconds,
            control_seconds=self._control_seconds,
            age_crashes=self._age_crashes,
            age_seconds=self._age_seconds,
            block=self._block,
            idle_since_ms=self.idle_since_ms,
            failed=self.failed,
            revision=self.revision,
        )

    @classmethod
    def restore(cls, state: TrackerState, policy: Policy, silence_seconds: float) -> "Tracker":
        """Build the tracker that `state` was taken from; thresholds and weights come from `policy`, as of now."""
        named = CohortWindow(
            rollout=state.rollout,
            vendor=state.vendor,
            product=state.product,
            version=state.version,
            origin_ms=state.origin_ms,
        )
        tracker = cls(named, policy, silence_seconds, state.baseline.past, state.counts.live, state.counts.synced)
        if state.declared is not None:
            tracker.declare(state.declared)
        tracker.counts = CohortCounts.restore(state.counts)
        tracker.tally = state.tally
        tracker._rate = RateRatio.restore(state.rate)
        tracker._ratio_upper = RatioEstimate.restore(state.ratio_upper)
        tracker._ratio_known = RatioEstimate.restore(state.ratio_known)
        tracker._silence = Silence.restore(state.silence)
        tracker._strata = Strata.restore(state.strata, silence_seconds)
        tracker._baseline = Baseline.restore(state.baseline)
        tracker._silent_groups = set(state.silent_groups)
        tracker._kill_max, tracker._hold_max = state.kill_max, state.hold_max
        tracker._accounted_ms = state.accounted_ms
        tracker._known_seconds, tracker._control_seconds = state.known_seconds, state.control_seconds
        tracker._age_crashes, tracker._age_seconds = state.age_crashes, state.age_seconds
        tracker._block = state.block
        tracker.idle_since_ms = state.idle_since_ms
        tracker.failed = state.failed
        tracker.revision = state.revision
        return tracker
