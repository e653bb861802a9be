"""What the store says of one hour, made into patterns: joined by name, summed over machines, and whose they are.

A pattern belongs to a rollout if at least half of its crashes are on devices that the rollout reached, and clearly more
of them than of other crashes: where a rollout has reached nearly everybody, being on it says nothing.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from detectors.alerts.names import Names
from detectors.outliers import ROLLOUT_SHARE
from detectors.patterns import DAY_HOURS, PatternHour

# A rollout's part in a pattern must be so many times its part in all other crashes of a day.
ROLLOUT_RATIO: Final = 1.5
# Fewer other crashes than this say nothing of how far a rollout has come.
OTHERS_LEAST: Final = 5


class SeenPattern(NamedTuple):
    """One row of the store's: a signature on an OS build and a model in one hour.

    Attributes:
        signature: the crash group's name.
        os_build: of the devices.
        model: of the devices; empty where unknown.
        crashes: how many, at least 1.
        devices: different devices that crashed.
        tenants: the tenants they belong to; at most 32 are told.
        on_rollouts: crashes on devices that a young rollout had reached, by the rollout's name.
    """

    signature: str
    os_build: str
    model: str
    crashes: int
    devices: int
    tenants: tuple[str, ...]
    on_rollouts: Mapping[str, int]


class DayState(msgspec.Struct, array_like=True):
    """Crashes of one hour by name, and on each rollout's devices by name."""

    hour: int
    crashes: dict[str, int]
    on_rollouts: dict[str, dict[str, int]]


class Hour(NamedTuple):
    """One hour of patterns, ready to be scored.

    Attributes:
        patterns: by name, OS build and model, and each name over all machines with both empty.
        signatures: crashes by signature, of each name.
    """

    patterns: list[PatternHour]
    signatures: dict[str, Counter[str]]


class Hours:
    """Turns the store's rows into patterns; keeps a day of them to tell how far rollouts have come."""

    def __init__(self, day: Sequence[DayState] = ()) -> None:
        self._day = list(day)

    def take(self, hour: int, rows: Sequence[SeenPattern], names: Names) -> Hour:
        """Return an hour's patterns, in the order of their names."""
        merged: dict[tuple[str, str, str], list[SeenPattern]] = {}
        signatures: dict[str, Counter[str]] = {}
        for row in rows:
            name = names.of(row.signature)
            signatures.setdefault(name, Counter())[row.signature] += row.crashes
            merged.setdefault((name, "", ""), []).append(row)
            if row.os_build or row.model:
                merged.setdefault((name, row.os_build, row.model), []).append(row)
        self._note(hour, merged)
        patterns = [self._pattern(key, merged[key]) for key in sorted(merged)]
        return Hour(patterns, signatures)

    def _note(self, hour: int, merged: Mapping[tuple[str, str, str], Sequence[SeenPattern]]) -> None:
        crashes: dict[str, int] = {}
        on_rollouts: dict[str, dict[str, int]] = {}
        for (name, os_build, model), rows in merged.items():
            if os_build or model:
                continue
            crashes[name] = sum(row.crashes for row in rows)
            for row in rows:
                for rollout, count in row.on_rollouts.items():
                    by_name = on_rollouts.setdefault(rollout, {})
                    by_name[name] = by_name.get(name, 0) + count
        self._day = [one for one in self._day if one.hour > hour - DAY_HOURS]
        self._day.append(DayState(hour, crashes, on_rollouts))

    def _pattern(self, key: tuple[str, str, str], rows: Sequence[SeenPattern]) -> PatternHour:
        crashes, devices = sum(row.crashes for row in rows), sum(row.devices for row in rows)
        tenants = len({tenant for row in rows for tenant in row.tenants})
        on_rollouts = Counter[str]()
        for row in rows:
            on_rollouts.update(row.on_rollouts)
        theirs = [count for rollout, count in on_rollouts.items() if self._claims(rollout, key[0], count / crashes)]
        return PatternHour(*key, crashes, devices, max(1, min(tenants, devices)), min(max(theirs, default=0), crashes))

    def _claims(self, rollout: str, name: str, share: float) -> bool:
        """Tell whether a pattern with this share of its crashes on a rollout's devices is that rollout's."""
        others = sum(one.crashes.get(other, 0) for one in self._day for other in one.crashes if other != name)
        if share < ROLLOUT_SHARE or others < OTHERS_LEAST:
            return share >= ROLLOUT_SHARE
        reached = sum(
            count for one in self._day for other, count in one.on_rollouts.get(rollout, {}).items() if other != name
        )
        return share >= ROLLOUT_RATIO * reached / others

    def snapshot(self) -> list[DayState]:
        """Return the day, for a snapshot."""
        return list(self._day)
