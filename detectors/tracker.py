"""One rollout's evidence: counts at risk and crashes go in, findings come out.

Called once for each merged step in which the rollout has a window. Each crash is scored once, in order of arrival,
against the counts at its event time; the highest evidence is kept, for decisions latch at the first crossing.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Final

import numpy as np

from detectors.attribution import Finding, Suspect
from detectors.baseline import Baseline, PastRollout
from detectors.cell_margins import margins_of_cell, rivals_of
from detectors.counts import CohortCounts, Place
from detectors.decide import Findings
from detectors.device_time import DeviceTime
from detectors.evidence import CrashEvidence, Scored, batch_of
from detectors.explain import Ranking
from detectors.exposure import ExposureBound
from detectors.gate_report import holding_of
from detectors.heard import share_heard
from detectors.history import CELLS_MAX
from detectors.hour_tally import HourTally
from detectors.latch import Latch, Parts
from detectors.policy import Policy
from detectors.recovery import RecoveryCounts
from detectors.report import describe, loudest_cells
from detectors.sequential import Floats
from detectors.shared import Shared
from detectors.silence import Silence
from detectors.situation import Situation
from detectors.strata import Freezing, Strata
from detectors.tally import CrashTally
from detectors.tenants import GROUPS, NOBODY
from detectors.third import ThirdRivals
from detectors.tracker_state import TrackerState
from detectors.verdict import Evidence
from detectors.wave import ControlWave
from ingest.events import product_key
from ingest.rollouts import Rollout
from ingest.tenancy import tenant_group, tenant_hash
from ingest.windows import CohortWindow, FirstCrash, Step

_LN10: Final = math.log(10.0)


class Tracker:
    """Evidence about one rollout.

    Attributes:
        alpha: the risk of a false kill that it was granted when it began.
        finding: what attribution said of it last; None while no rival matters.
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
        *,
        alpha: float | None = None,
        shared: Shared | None = None,
        past_weights: Floats | None = None,
    ) -> None:
        self.rollout, self.vendor, self.product = window.rollout, window.vendor, window.product
        self.version, self.origin_ms = window.version, window.origin_ms
        self.policy = policy
        self.policy_digest = policy.digest
        self.alpha = policy.alpha_kill if alpha is None else alpha
        self._shared = shared if shared is not None else Shared()
        self._trusted = {tenant_hash(name) for name in policy.trusted_tenants}
        self._trusted_groups = sorted({tenant_group(name) for name in policy.trusted_tenants})
        self.declared: Rollout | None = None
        self.bound = ExposureBound(None, policy.share_least)
        self.counts = CohortCounts(live, synced)
        self.tally = CrashTally()
        self.finding: Finding | None = None
        self.ranking = Ranking()
        self.revision = self.idle_since_ms = 0
        self.failed = ""
        self._crashes = CrashEvidence(policy.tolerated_ratio, policy.tenant_floor, policy.hold_ratio)
        self._freezing = Freezing(policy.silence.control_share_limit, policy.silence.control_least)
        self._silence = Silence(policy.tolerated_ratio, *self._freezing)
        self._strata = Strata(silence_seconds)
        self._baseline = Baseline(past, policy.tolerated_ratio, past_weights)
        self._silent_groups: set[int] = set()
        weights = policy.weights
        self._weights = (weights.rate_ratio, weights.new_signature, weights.silence, weights.baseline)
        self._latch = Latch(self._weights, self._trusted_groups, one_may_kill=policy.tenants_least <= 1)
        self._time = DeviceTime(policy, self.origin_ms, self.rollout, self._trusted_groups)
        self._wave, self.recovery = ControlWave(), RecoveryCounts()
        self._hour = HourTally(product_key(self.vendor, self.product), self.origin_ms)
        if isinstance(window, Rollout):
            self.declare(window)

    def declare(self, rollout: Rollout) -> None:
        """Take what the rollout system says, from now on."""
        self.declared = rollout
        self.bound = ExposureBound(rollout, self.policy.share_least)
        self.revision += 1

    @property
    def is_declared(self) -> bool:
        """Tell whether a rollout system declared it."""
        return self.declared is not None and bool(self.declared.declared_by)

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
        elapsed = self._time.look(at_ms, self.counts)
        self._hour.look(at_ms, self.counts, self.bound, self._shared.seasons, healthy=not self._harmful, shock=shock)
        upper = self.counts.exposed_upper(self.bound, at_ms) if elapsed and self._baseline.can_hold else {}
        self.counts.state(at_ms, [(step.partition, window) for step, window in items])
        if any(window.margins for _, window in items):
            self._crashes.meet(self.counts.margins.names)
        self._crashes.meet(name for cell in self.counts.new_cells() for name in margins_of_cell(cell))
        crashes = [(step, crash) for step, window in items for crash in window.crashes]
        scored = self._score(at_ms, crashes) if crashes else Counter()
        if self._baseline.can_hold:
            seconds = {group: devices * elapsed for group, devices in upper.items()}
            self._compare_with_past(at_ms, scored, seconds, shock)
        for step, window in items:
            self._crashes.own.owned(step.partition, window.owners)
            self.recovery.state(step.partition, window)
            if window.heard and self.bound.bounded and self.counts.synced[step.partition]:
                self._strata.add(step.partition, step.watermark_ms, window.heard)
        if self._score_silence(at_ms) or (scored and self._baseline.can_hold):
            self._take(self._parts())
        self._time.looked(at_ms, self.counts, self.bound)

    def _compare_with_past(self, at_ms: int, crashes: Counter[int], seconds: dict[int, float], shock: bool) -> None:
        factor = self._shared.seasons.at(self._hour.product, at_ms) if self._baseline.seasoned else 1.0
        # Where hours counted in the past and are known no longer, there is nothing to compare with.
        weight, frozen = (1.0, True) if factor is None else (factor, shock)
        self._baseline.add(self._time.window(at_ms), crashes, seconds, factor=weight, frozen=frozen)

    def _score(self, at_ms: int, crashes: Sequence[tuple[Step, FirstCrash]]) -> Counter[int]:
        """Count the crashes and score those that are evidence; return how many exposed ones were, by tenant group."""
        chosen = []
        for step, crash in crashes:
            exposed = bool(crash.exposed) or self.bound.reached_all(crash.cell, crash.at_ms)
            self.tally.add(crash, exposed, CELLS_MAX)
            if not exposed:
                self._wave.note(at_ms)
            column = self.counts.column(crash.cell) if crash.scored and 0 <= crash.group < GROUPS else None
            if (
                column is None
                or not self.bound.bounded
                or not self.counts.synced[step.partition]
                or CohortCounts.too_old(crash.at_ms, at_ms)
            ):
                self.tally.unscored += 1
                continue
            own = tuple(f"{name}={text}" for name, text in (("build", crash.build), ("model", crash.model)) if text)
            place = Place(column, crash.at_ms, step.since_ms, step.watermark_ms, crash.group, own)
            began_ms = self.bound.began_ms(crash.cell, crash.at_ms) or self.origin_ms
            since = max(0, step.watermark_ms - began_ms) / 1000.0
            chosen.append(Scored(place, crash, exposed, (step.watermark_ms - crash.at_ms) / 1000.0, since))
        self.revision += 1
        if chosen:
            self._score_chosen(at_ms, chosen)
        return Counter(one.crash.group for one in chosen if one.exposed)

    def _score_chosen(self, at_ms: int, chosen: Sequence[Scored]) -> None:
        x = np.array([one.exposed for one in chosen], dtype=bool)
        shares = self.counts.shares([one.place for one in chosen], x, self.bound, at_ms)
        batch = batch_of(chosen, shares, self._shared.known, self.origin_ms)
        rate, novelty, early = self._crashes.score(batch, self._shared.delays)
        self._take(Parts(rate, novelty, self._silence.rows, self._baseline.settle(), early))
        for one, low in zip(chosen, shares.known_group.tolist(), strict=True):
            if one.exposed:
                self._time.crashed(at_ms, one.crash.group)
            else:
                self._shared.delays.add(one.crash.group, one.delay_seconds)
            # A device that may be exposed counts as exposed for the gate, whose bets lose on exposed crashes.
            maybe = one.exposed or self.bound.may_be_exposed(one.crash.cell, one.crash.at_ms)
            self._time.gate.add(one.margins, one.crash.group, maybe, low)
            if one.exposed or not maybe:
                self._hour.crashed(at_ms, one.crash.at_ms, one.crash.group, exposed=one.exposed)

    def _score_silence(self, at_ms: int) -> bool:
        due_ms = self._strata.next_due_ms()
        if due_ms is None or at_ms < due_ms:
            return False
        for minute in self._strata.due(at_ms, self.bound, self._freezing):
            self._silence.update(minute.strata, frozen=minute.frozen)
            self._silence.frozen += minute.unbounded + len(minute.quiet)
            self._silent_groups |= set() if minute.frozen else minute.groups
            self.revision += 1
        return True

    def _parts(self) -> Parts:
        crashes = self._crashes
        return Parts(
            crashes.rate.log_evidence,
            crashes.novelty.log_evidence,
            self._silence.rows,
            self._baseline.settle(),
            crashes.early.log_evidence[NOBODY],
        )

    @property
    def _baseline_may_kill(self) -> bool:
        # A past without the rival says nothing of devices that have both.
        return self._baseline.can_kill and not self.counts.rivals()

    def _take(self, parts: Parts) -> None:
        if self._latch.take(parts, baseline_may_kill=self._baseline_may_kill):
            self.revision += 1

    @property
    def third(self) -> ThirdRivals:
        """Its evidence beside rivals that its cells are not split by."""
        return self._crashes.third

    def suspect(self, unsplit: frozenset[str] = frozenset()) -> Suspect:
        """Return what attribution needs to know of it, now.

        Args:
            unsplit: rollouts that say they share devices with it, though its cells are not split by them.
        """
        rows = self._latch.rows(self._parts(), baseline=self._baseline_may_kill)
        return Suspect(
            rollout=self.rollout,
            alpha=self.alpha,
            log_conditional=float(self._latch.least(rows)),
            log_marginal=max(self._crashes.marginal.maximum, self._latch.hold_max),
            ratio_high=self._crashes.own_bounds.high,
            marginal_low=self._crashes.marginal_bounds.low,
            exposed_crashes=self.tally.exposed,
            telling=self._crashes.telling,
            devices=self.counts.known_total + self.tally.exposed,
            unsplit=unsplit,
            log_outlasting=self._crashes.third.log_evidence,
            modules=self.tally.modules(),
        )

    def devices_with(self, rival: str) -> int:
        """Return exposed devices, with those that crashed, that are exposed to a rival, too."""
        crashed = sum(both[0] for cell, both in self.tally.cells.items() if rival in rivals_of(cell))
        return self.counts.devices_with(rival) + crashed

    def in_shock(self, at_ms: int) -> bool:
        """Tell whether the control arm crashes in a wave: far above its own mean in the last ten minutes."""
        return self._wave.rages(at_ms, self.origin_ms)

    @property
    def wave_candidate_ms(self) -> int | None:
        """When its latest block of control crashes began, if they are enough for a wave; None otherwise."""
        return self._wave.candidate_ms

    def findings(self, situation: Situation) -> Findings:
        """Return all that a decision needs, given how the telemetry stands."""
        parts = self._parts()
        started_ms = self.bound.latest_start_ms(situation.at_ms) or self.origin_ms
        answer = self._time.ask(situation.at_ms, self.counts, self.bound)
        evidence = self._evidence(parts)
        evidence.gate = answer.sentence
        evidence.gate_holding = holding_of(answer)
        return Findings(
            evidence=evidence,
            log10_hold=float(self._latch.hold(parts)) / _LN10,
            log10_hold_max=self._latch.hold_max / _LN10,
            bounded=self.bound.bounded,
            devices=max(self.tally.exposed, self._silence.exposed),
            tenants=max(len(self.tally.tenants), len(self._silent_groups)),
            trusted=not self._trusted.isdisjoint(self.tally.tenants),
            observed_seconds=max(0, situation.at_ms - started_ms) / 1000.0,
            gate=answer,
            report=self._time.report(answer) if self.bound.ring_began(situation.at_ms) else None,
            heard_share=share_heard(self.counts, self.tally.exposed, self.bound, situation.at_ms),
            own=self._crashes.own.words(self.counts.live),
            finding=self.finding,
            late_seconds=situation.late_seconds,
            late_limit_seconds=situation.late_limit_seconds,
            blind=situation.blind,
            left_out=situation.left_out,
            unsure=situation.unsure,
            gapped=tuple(number for number, synced in enumerate(self.counts.synced) if not synced),
            failed=self.failed,
        )

    def _evidence(self, parts: Parts) -> Evidence:
        upper, known = self._crashes.intervals()
        rows = self._latch.rows(parts, baseline=self._baseline_may_kill)
        loudest = self._crashes.rate.loudest()
        logs = [float(part[NOBODY]) for part in parts[:4]]
        return Evidence(
            log10_evidence=float(self._latch.least(rows)) / _LN10,
            log10_evidence_max=self._latch.kill_max / _LN10,
            log10_everybody_max=self._latch.everybody_max / _LN10,
            left_out=self._latch.left_out(rows),
            log10_marginal=self._crashes.marginal.log_evidence / _LN10,
            loudest_margin=None if loudest is None else (loudest[0], loudest[1] / _LN10),
            new_signatures=self._crashes.novelty.top(),
            rivals=self.counts.rivals(),
            attribution="" if self.finding is None else f"{self.finding.text} {self.ranking.text}".rstrip(),
            log10_needed_to_hold=self.policy.log10_to_hold,
            log10_needed_to_kill=-math.log10(self.alpha),
            tolerated_ratio=self.policy.tolerated_ratio,
            methods=describe(logs, self._weights, self._crashes, self._silence, self._baseline, self.tally.unscored),
            crashes_exposed=self.tally.exposed,
            crashes_control=self.tally.control,
            exposed=self.counts.exposed_total,
            at_risk_exposed=self.counts.known_total,
            at_risk_control=self.counts.control_total,
            rate_ratio=upper.estimate,
            # The share's upper bound gives the ratio's lower one; what was known of it, the upper one.
            rate_ratio_low=upper.low if self._crashes.events else None,
            rate_ratio_high=known.high,
            tenants=len(self.tally.tenants),
            first_crash_ms=self.tally.first_ms,
            signatures=self.tally.top_signatures(),
            cells=loudest_cells(self.tally, self.counts),
            stacks=self.tally.top_stacks(),
            log10_hold_max=self._latch.hold_max / _LN10,
        )

    def as_past(self) -> PastRollout | None:
        """Return what a later rollout of the product may compare with; None for a harmful or an unseen one."""
        return None if self._harmful or self.failed else self._time.as_past()

    @property
    def _harmful(self) -> bool:
        return self._latch.hold_max / _LN10 >= self.policy.log10_to_hold

    def snapshot(self) -> TrackerState:
        """Return the state; `restore` of it goes on bit for bit."""
        return TrackerState(
            rollout=self.rollout,
            vendor=self.vendor,
            product=self.product,
            version=self.version,
            origin_ms=self.origin_ms,
            alpha=self.alpha,
            declared=self.declared,
            counts=self.counts.snapshot(),
            tally=self.tally,
            crashes=self._crashes.snapshot(),
            silence=self._silence.snapshot(),
            strata=self._strata.snapshot(),
            baseline=self._baseline.snapshot(),
            latch=self._latch.snapshot(),
            time=self._time.snapshot(),
            wave=self._wave.snapshot(),
            silent_groups=sorted(self._silent_groups),
            ranking=self.ranking,
            finding=self.finding,
            idle_since_ms=self.idle_since_ms,
            failed=self.failed,
            revision=self.revision,
            hour=self._hour.snapshot(),
            recovery=self.recovery.snapshot(),
        )

    @classmethod
    def restore(
        cls, state: TrackerState, policy: Policy, silence_seconds: float, shared: Shared | None = None
    ) -> "Tracker":
        """Build the tracker that `state` was taken from; thresholds and weights come from `policy`, as of now."""
        named, counts, past = state.named(), state.counts, state.baseline.past
        live, synced = counts.live, counts.synced
        tracker = cls(named, policy, silence_seconds, past, live, synced, alpha=state.alpha, shared=shared)
        if state.declared is not None:
            tracker.declare(state.declared)
        tracker.counts, tracker.tally = CohortCounts.restore(counts), state.tally
        tracker._crashes = CrashEvidence.restore(state.crashes)
        tracker._strata = Strata.restore(state.strata, silence_seconds)
        tracker._silence, tracker._baseline = Silence.restore(state.silence), Baseline.restore(state.baseline)
        tracker._latch.load(state.latch)
        tracker._time.load(state.time)
        tracker._wave, tracker._silent_groups = ControlWave(state.wave), set(state.silent_groups)
        tracker._hour = HourTally(tracker._hour.product, tracker.origin_ms, state.hour)
        tracker.finding, tracker.ranking = state.finding, state.ranking
        tracker.idle_since_ms, tracker.recovery = state.idle_since_ms, RecoveryCounts(state.recovery)
        tracker.failed, tracker.revision = state.failed, state.revision
        return tracker
