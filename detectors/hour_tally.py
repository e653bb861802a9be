"""What a rollout's devices did in the hour of event time that is passing, by tenant group and arm.

Kept by the tracker; once the hour has passed it is what `seasons` learns from. Device-time is taken once a minute, from
counts as they stood. A crash counts in the hour in which it is heard of, if it is no older than an hour.
"""

from typing import Final

import msgspec

from detectors.counts import CohortCounts
from detectors.exposure import ExposureBound
from detectors.seasons import HOUR_MS, HourSums, Seasons

_LOOK_MS: Final = 60_000
# Between two looks further apart nobody knows whether the devices were there.
_SURE_MS_MAX: Final = 120_000
_DAY_MS: Final = 86_400_000.0
# From so old on, a rollout without evidence against it counts as one of the past, as for the baseline.
_SETTLED_MS: Final = 24 * HOUR_MS
# Controls count as long installed: how long, grouping does not say.
_CONTROL_AGE_HOURS: Final = 720.0


class HourTallyState(msgspec.Struct, kw_only=True):
    """What `HourTally.snapshot` gives; groups have control crashes and device-days, then those of the exposed."""

    hour: int = -1
    looked_ms: int = 0
    shaken: bool = False
    groups: dict[int, tuple[int, float, int, float]] = {}


class HourTally:
    """One rollout's passing hour.

    Args:
        product: the key of its product, kept as an attribute.
        origin_ms: when the rollout began.
        state: what `snapshot` gave.
    """

    def __init__(self, product: str, origin_ms: int, state: HourTallyState | None = None) -> None:
        self.product, self._origin_ms = product, origin_ms
        told = state if state is not None else HourTallyState()
        self._hour, self._looked_ms, self._shaken = told.hour, told.looked_ms, told.shaken
        self._groups: dict[int, list[float]] = {group: list(sums) for group, sums in told.groups.items()}

    def look(
        self,
        at_ms: int,
        counts: CohortCounts,
        bound: ExposureBound,
        seasons: Seasons,
        *,
        healthy: bool,
        shock: bool = False,
    ) -> None:
        """Add the device-time since the last look, before the counts change; tell `seasons` of an hour that has passed.

        Args:
            at_ms: event time.
            counts: as they stood until now.
            bound: of who is exposed.
            seasons: what learns from the hour.
            healthy: no evidence for a hold was ever found: old enough, its own devices may be learnt from, too.
            shock: other products see a wave of crashes too: this hour is like no other, and is not learnt from.
        """
        if at_ms // HOUR_MS > self._hour:
            self._tell(at_ms, seasons, settled=healthy and at_ms - self._origin_ms >= _SETTLED_MS)
        self._shaken = self._shaken or shock
        if at_ms - self._looked_ms < _LOOK_MS:
            return
        lasted_ms = min(at_ms - self._looked_ms, _SURE_MS_MAX) if self._looked_ms else 0
        self._looked_ms = at_ms
        if not (lasted_ms and bound.bounded and counts.cells):
            return
        days = lasted_ms / _DAY_MS
        known, control = counts.known_by_group(), counts.control_by_group()
        # Whoever may be exposed is in neither arm.
        most = counts.exposed_upper(bound, at_ms)
        for group in sorted({*known, *control}):
            sums = self._groups.setdefault(group, [0, 0.0, 0, 0.0])
            exposed = known.get(group, 0)
            sums[1] += max(0.0, exposed + control.get(group, 0) - most.get(group, 0.0)) * days
            sums[3] += exposed * days

    def crashed(self, at_ms: int, crash_ms: int, group: int, *, exposed: bool) -> None:
        """Note a first crash that was scored, of a device whose arm is known."""
        if at_ms - crash_ms <= HOUR_MS:
            self._groups.setdefault(group, [0, 0.0, 0, 0.0])[2 if exposed else 0] += 1

    def _tell(self, at_ms: int, seasons: Seasons, *, settled: bool) -> None:
        told = self._sums(settled=settled) if self._hour >= 0 and not self._shaken else {}
        if told:
            seasons.add(self.product, self._hour, told)
        self._hour, self._shaken, self._groups = at_ms // HOUR_MS, False, {}

    def _sums(self, *, settled: bool) -> dict[int, list[HourSums]]:
        age_hours = max(0.0, self._hour - self._origin_ms / HOUR_MS)
        found: dict[int, list[HourSums]] = {}
        for group, (control, control_days, exposed, exposed_days) in self._groups.items():
            arms = [HourSums(_CONTROL_AGE_HOURS, int(control), control_days)]
            arms += [HourSums(age_hours, int(exposed), exposed_days)] if settled else []
            found[group] = [one for one in arms if one.device_days > 0]
        return {group: arms for group, arms in found.items() if arms}

    def snapshot(self) -> HourTallyState:
        """Return the state: `HourTally` of it goes on bit for bit."""
        groups = {group: (int(one[0]), one[1], int(one[2]), one[3]) for group, one in self._groups.items()}
        return HourTallyState(hour=self._hour, looked_ms=self._looked_ms, shaken=self._shaken, groups=groups)
