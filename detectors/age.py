"""What an update has been through since devices took it: boots, wakes from a long sleep, hours.

Fed once a minute with counts over the fleet, for the gate: an update that nobody has booted with is not known to boot.
Plain numbers only. Invariant: what it counts is a lower bound; devices that may have done it before they took the
update are not counted.
"""

from typing import Final

import msgspec

from detectors.gate import AgeCoverage

# A device counts as freshly booted for so long (`ingest.windows.BootBand`).
_FRESH_MS: Final = 600_000
_HOUR_MS: Final = 3_600_000.0


class AgeWatchState(msgspec.Struct, kw_only=True):
    """What `AgeWatch.snapshot` gives."""

    enough: int
    exposed: list[tuple[int, int]]
    stale: int
    at_risk: int
    booted: int
    woken: int
    enough_since_ms: int | None
    now_ms: int


class AgeWatch:
    """Counts boots and wakes since exposure from the fleet's totals.

    Model. Of the exposed devices that booted within the last ten minutes, at most as many took the update within them
    as the exposed grew by: the others booted after they had taken it. Exposed devices that were not heard from for a
    quarter of an hour and are no longer among those, beyond what left the devices at risk, have woken.

    Args:
        enough: exposed devices whose age counts: hours run from when so many were exposed.

    Example:
        >>> watch = AgeWatch(enough=50)
        >>> for minute in range(12):
        ...     watch.look(minute * 60_000, exposed_total=100, fresh=100 if minute < 10 else 7, stale=0, at_risk=100)
        >>> watch.coverage().booted
        7
    """

    def __init__(self, enough: int = 50) -> None:
        self._enough = enough
        self._exposed: list[tuple[int, int]] = []
        self._stale = 0
        self._at_risk = 0
        self._booted = 0
        self._woken = 0
        self._enough_since_ms: int | None = None
        self._now_ms = 0

    def look(self, at_ms: int, *, exposed_total: int, fresh: int, stale: int, at_risk: int) -> None:
        """Take the counts of known exposed devices as of `at_ms`; call it about once a minute.

        Args:
            at_ms: event time.
            exposed_total: devices exposed, at risk or not.
            fresh: of those at risk, booted within ten minutes.
            stale: of those at risk, not heard from for a quarter of an hour.
            at_risk: exposed devices at risk.
        """
        before = self._exposed[-1][1] if self._exposed else exposed_total
        old = [total for since, total in self._exposed if since <= at_ms - _FRESH_MS]
        if old:
            grown = max(0, exposed_total - old[-1])
            self._booted = max(self._booted, fresh - grown)
        if self._exposed:
            left = max(0, exposed_total - before) - (at_risk - self._at_risk)
            self._woken += max(0, self._stale - stale - max(0, left))
        self._exposed = [*(one for one in self._exposed if one[0] > at_ms - 2 * _FRESH_MS), (at_ms, exposed_total)]
        self._stale, self._at_risk, self._now_ms = stale, at_risk, at_ms
        if exposed_total >= self._enough and self._enough_since_ms is None:
            self._enough_since_ms = at_ms

    def coverage(self) -> AgeCoverage:
        """Return what the update has been through so far."""
        since = self._enough_since_ms
        hours = 0.0 if since is None else (self._now_ms - since) / _HOUR_MS
        return AgeCoverage(booted=self._booted, woken=self._woken, hours=hours)

    def snapshot(self) -> AgeWatchState:
        """Return the state; `restore` of it goes on alike."""
        return AgeWatchState(
            enough=self._enough,
            exposed=list(self._exposed),
            stale=self._stale,
            at_risk=self._at_risk,
            booted=self._booted,
            woken=self._woken,
            enough_since_ms=self._enough_since_ms,
            now_ms=self._now_ms,
        )

    @classmethod
    def restore(cls, state: AgeWatchState) -> "AgeWatch":
        """Build what `state` was taken from."""
        watch = cls(state.enough)
        watch._exposed = list(state.exposed)
        watch._stale, watch._at_risk = state.stale, state.at_risk
        watch._booted, watch._woken = state.booted, state.woken
        watch._enough_since_ms, watch._now_ms = state.enough_since_ms, state.now_ms
        return watch
