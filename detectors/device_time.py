"""Exposed device-time of one rollout: what the baseline compares, what a later rollout will compare with, and the gate.

Kept by the tracker, fed with the counts at risk as event time moves on. Invariant: for evidence of harm device-time is
an upper bound, for evidence of health it is what is known for sure.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import numpy as np

from detectors.age import AgeWatch, AgeWatchState
from detectors.baseline import WINDOWS, PastRollout, age_window
from detectors.counts import CohortCounts
from detectors.exposure import ExposureBound
from detectors.gate import AgeNeed, Gate, GateAnswer, GateState
from detectors.gate_cell import HarmBound
from detectors.gate_report import report_of
from detectors.policy import Policy
from detectors.verdict import GateReport
from ingest.minutes import minute_of, offset_seconds

_SECOND_MS: Final = 1000
_DAY_MS: Final = 86_400_000.0
# Time between two looks beyond which nobody knows whether the devices were there: no device-time for health.
_SURE_MS_MAX: Final = 120_000
# Of the margin cells that hold the gate shut, so many are told with what they still need.
_PLANNED_MAX: Final = 16
_BUILD: Final = "build="
_FAMILY: Final = "family="


class DeviceTimeState(msgspec.Struct, kw_only=True):
    """What `DeviceTime.snapshot` gives: enough to go on bit for bit."""

    gate: GateState
    age: AgeWatchState
    looked_ms: int
    gated_ms: int
    crashes: dict[int, list[int]]
    seconds: dict[int, list[float]]
    gate_answer: GateAnswer | None = None


class DeviceTime:
    """Adds up device-time and asks the gate, in each minute of the rollout's own (`ingest.minutes`).

    What the gate answers in a minute rests on that minute's beginning alone: when a verdict asks for it must not
    matter, for the wall clock may ask, too.

    Attributes:
        gate: every margin cell's evidence of health.
        age: what the update has been through.
    """

    def __init__(self, policy: Policy, origin_ms: int, rollout: str, trusted: Sequence[int]) -> None:
        terms = policy.gate
        self.gate = Gate(
            HarmBound(ratio=terms.ratio, excess_per_device_day=terms.excess_per_device_day),
            terms.alpha,
            AgeNeed(boots=terms.boots_least, wakes=terms.wakes_least, hours=terms.latency_hours),
        )
        self.age = AgeWatch()
        self._share_least = terms.share_least
        self._origin_ms = origin_ms
        self._offset_s = offset_seconds(rollout)
        self._leave_one_out = policy.tenants_least > 1
        self._trusted = trusted
        self._looked_ms = 0
        self._gated_ms = 0
        self._crashes: dict[int, list[int]] = {}
        self._seconds: dict[int, list[float]] = {}
        self._answer: GateAnswer | None = None
        self._minute_begun = False
        self._report: tuple[GateAnswer, GateReport] | None = None

    def window(self, at_ms: int) -> int:
        """Return the rollout's age window at an event time."""
        return age_window(max(0, at_ms - self._origin_ms) / 1000.0)

    def look(self, at_ms: int, counts: CohortCounts) -> float:
        """Add the time since the last look, before the counts change; return it in seconds."""
        elapsed_ms = max(0, at_ms - self._looked_ms) if self._looked_ms else 0
        self._looked_ms = max(self._looked_ms, at_ms)
        if not elapsed_ms or not counts.cells:
            return 0.0
        sure = min(elapsed_ms, _SURE_MS_MAX) / 1000.0
        window = self.window(at_ms)
        for group, known in counts.known_by_group().items():
            self._seconds.setdefault(group, [0.0] * WINDOWS)[window] += known * sure
        if self._minute(at_ms) != self._minute(self._gated_ms):
            lasted_ms = min(at_ms - self._gated_ms, _SURE_MS_MAX) if self._gated_ms else 0
            self._gated_ms = at_ms
            self._expose(at_ms, counts, lasted_ms / _DAY_MS)
            self._minute_begun = True
        return elapsed_ms / 1000.0

    def _minute(self, at_ms: int) -> int:
        return minute_of(at_ms // _SECOND_MS, self._offset_s)

    def _expose(self, at_ms: int, counts: CohortCounts, days: float) -> None:
        """Tell the gate of a minute: every margin's known exposed device-days, by tenant group."""
        table = counts.known_by_cell()
        index, by_cell = counts.cell_margins, table.sum(axis=1)
        fresh, stale = int(by_cell[index.fresh()].sum()), int(by_cell[index.stale()].sum())
        sums = dict(zip(index.names, index.sums(table), strict=True))
        for name in counts.margins.names:
            sums[name] = counts.margins.known(name)
        for name, row in sums.items() if days else ():
            for group in np.flatnonzero(row).tolist():
                self.gate.expose(name, group, float(row[group]) * days)
        self.age.look(at_ms, exposed_total=counts.exposed_total, fresh=fresh, stale=stale, at_risk=counts.known_total)

    def crashed(self, at_ms: int, group: int) -> None:
        """Note an exposed crash that was scored."""
        self._crashes.setdefault(group, [0] * WINDOWS)[self.window(at_ms)] += 1

    def as_past(self) -> PastRollout | None:
        """Return what a later rollout of the product may compare with; None where nobody was exposed."""
        groups = {
            group: (tuple(self._crashes.get(group, [0] * WINDOWS)), tuple(self._seconds.get(group, [0.0] * WINDOWS)))
            for group in sorted({*self._crashes, *self._seconds})
        }
        if not any(any(lasted) for _, lasted in groups.values()):
            return None
        crashes = tuple(sum(told[window] for told, _ in groups.values()) for window in range(WINDOWS))
        seconds = tuple(sum(lasted[window] for _, lasted in groups.values()) for window in range(WINDOWS))
        return PastRollout(crashes, seconds, groups, self._origin_ms)

    def looked(self, at_ms: int, counts: CohortCounts, bound: ExposureBound) -> None:
        """End a look, after the counts changed: where it began a minute, work out the gate's answer of that minute."""
        if self._minute_begun:
            self._minute_begun = False
            self._answer = self._asked(at_ms, counts, bound)

    def ask(self, at_ms: int, counts: CohortCounts, bound: ExposureBound) -> GateAnswer:
        """Return what the gate says of the next ring's cells.

        What it waits for is that of the minute; a gate that was open is asked each time, since any crash may shut it.
        """
        if self._answer is None or self._answer.passed:
            return self._asked(at_ms, counts, bound)
        return self._answer

    def _asked(self, at_ms: int, counts: CohortCounts, bound: ExposureBound) -> GateAnswer:
        answer = self.gate.ask(
            next_ring(counts, bound, at_ms, self._share_least),
            self.age.coverage(),
            exposed_now=_exposed_now(counts),
            trusted=self._trusted,
            leave_one_out=self._leave_one_out,
            plan_most=_PLANNED_MAX,
        )
        return msgspec.structs.replace(answer, ring=bound.next_ring(at_ms) or "")

    def report(self, answer: GateAnswer) -> GateReport:
        """Return what a verdict says of the gate's answer; made once for each."""
        if self._report is None or self._report[0] is not answer:
            self._report = answer, report_of(answer)
        return self._report[1]

    def snapshot(self) -> DeviceTimeState:
        """Return the state; `load` of it goes on bit for bit."""
        return DeviceTimeState(
            gate=self.gate.snapshot(),
            age=self.age.snapshot(),
            looked_ms=self._looked_ms,
            gated_ms=self._gated_ms,
            crashes=self._crashes,
            seconds=self._seconds,
            gate_answer=self._answer,
        )

    def load(self, state: DeviceTimeState) -> None:
        """Take up a state; what counts as harm stays as it was when the evidence was gathered."""
        self.gate, self.age = Gate.restore(state.gate), AgeWatch.restore(state.age)
        self._looked_ms, self._gated_ms = state.looked_ms, state.gated_ms
        self._crashes, self._seconds = state.crashes, state.seconds
        self._answer = state.gate_answer


def next_ring(counts: CohortCounts, bound: ExposureBound, at_ms: int, share_least: float) -> Mapping[str, float]:
    """Return the margin cells of the next ring with their share of its devices.

    The next ring is the first declared one whose push has not begun; where none is left or none was declared, it is
    everybody who is not exposed yet. Models are those of all control devices: counts of them are not kept by ring. Of
    builds so much is known that each is of one OS family, and families are known by ring: builds of other families are
    not in the ring. Cells below `share_least` are left out, but never all of one field.
    """
    ring = bound.next_ring(at_ms)
    index, control = counts.cell_margins, counts.control_by_cell()
    if ring is not None:
        control = np.where(index.in_ring(ring), control, 0)
    total = float(control.sum())
    sums = zip(index.names, index.sums(control).tolist(), strict=True)
    shares = {name: devices / total for name, devices in sums if devices}
    told = {name: both[1] for name, both in counts.margins.totals().items()}
    models = {name: devices for name, devices in told.items() if name.startswith("model=")}
    builds = {name: devices for name, devices in told.items() if name.startswith(_BUILD)}
    shares |= _shares(models) | _shares(_builds_in_ring(builds, shares))
    return {name: share for name, share in shares.items() if share >= share_least}


def _shares(devices: Mapping[str, float]) -> dict[str, float]:
    total = sum(devices.values())
    return {name: count / total for name, count in devices.items() if count}


def _builds_in_ring(builds: Mapping[str, int], shares: Mapping[str, float]) -> Mapping[str, float]:
    """Return devices by build, weighted by their family's part of the ring; as they are where that is not known."""
    families = {name.removeprefix(_FAMILY): share for name, share in shares.items() if name.startswith(_FAMILY)}
    family_of = {name: name.removeprefix(_BUILD).partition(".")[0] for name in builds}
    # Some cells do not tell their family, and `other` is of any: then a build left out could be one that is there.
    if not math.isclose(math.fsum(families.values()), 1.0) or builds.get(f"{_BUILD}other"):
        return builds
    of_family: dict[str, int] = {}
    for name, devices in builds.items():
        of_family[family_of[name]] = of_family.get(family_of[name], 0) + devices
    if not families.keys() <= of_family.keys():
        return builds
    return {
        name: devices / of_family[family_of[name]] * families.get(family_of[name], 0.0)
        for name, devices in builds.items()
        if devices
    }


def _exposed_now(counts: CohortCounts) -> dict[str, float]:
    index = counts.cell_margins
    known = index.sums(counts.known_by_cell().sum(axis=1)).tolist()
    sums = {name: float(devices) for name, devices in zip(index.names, known, strict=True) if devices}
    return sums | {name: float(both[0]) for name, both in counts.margins.totals().items() if both[0]}
