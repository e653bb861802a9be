"""The history of crash patterns, hour by hour, and what it says of the next hour; used by `outliers.py`.

A pattern is a signature on an OS build and a model. Bounded: 4,096 patterns, each with its mean that fades over four
weeks, its mean by hour of day, and its last day. The invariant: what is said of an hour rests on earlier hours alone.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np

from detectors.sequential import Floats

PATTERNS_MAX: Final = 4096
FEATURES: Final = 7
DAY_HOURS: Final = 24
WARM_HOURS: Final = 48
# Means forget with this time constant.
MEMORY_HOURS: Final = 672.0
# Up to this age a pattern's own past is too short to say what is usual for it.
YOUNG_HOURS: Final = 168
# How much a young pattern's mean is held at the prior: so many hours with as few crashes as a rare pattern has.
PRIOR_HOURS: Final = 24.0
PRIOR_RATE: Final = 0.02


class PatternHour(NamedTuple):
    """What one pattern did in one hour.

    Attributes:
        signature: the crash group's name.
        os_build: of the devices.
        model: of the devices; empty where unknown. Both empty: the signature on whatever machines.
        crashes: how many, at least 1.
        devices: different devices that crashed.
        tenants: different tenants they belong to.
        on_rollout: of the crashes, those on devices exposed to a rollout under watch.
    """

    signature: str
    os_build: str
    model: str
    crashes: int
    devices: int
    tenants: int
    on_rollout: int


class Facts(NamedTuple):
    """What the past says of an hour's n patterns.

    Attributes:
        features: shape (n, 7).
        rises: shape (n,), crashes over expected ones on the square root scale; above 0 for more than expected.
        expected: shape (n,), crashes an hour.
        usual: shape (n,), the most that any of its means leads to expect: overall, at this hour of day, over the last
            day, and for a young pattern what its signature's mean elsewhere would give for crashes from such machines.
        ages: shape (n,), hours since the pattern was first seen.
    """

    features: Floats
    rises: Floats
    expected: Floats
    usual: Floats
    ages: Floats


class _Past(msgspec.Struct, array_like=True):
    """One pattern's past, as of the end of hour `last`."""

    first: int
    last: int
    crashes: float
    by_hour: list[float]
    day: list[tuple[int, int]]


class HistoryState(msgspec.Struct, kw_only=True):
    """What `History.snapshot` gives."""

    first: int | None
    last: int | None
    dropped: int
    patterns: list[tuple[tuple[str, str, str], _Past]]


def _root_gap(seen: float, expected: float) -> float:
    """Return twice the difference of square roots: about standard deviations of a Poisson count (Anscombe, 1948)."""
    return 2.0 * (math.sqrt(seen + 0.375) - math.sqrt(expected + 0.375))


class History:
    """Each pattern's past, with the one seen longest ago forgotten where there are too many."""

    def __init__(self) -> None:
        self.dropped = 0
        self._first: int | None = None
        self._last: int | None = None
        self._patterns: dict[tuple[str, str, str], _Past] = {}

    def look(self, hour: int, seen: Sequence[PatternHour]) -> tuple[list[PatternHour], Facts]:
        """Return the patterns of an hour that are looked at, the most crashes first, and what the past says of each.

        Raises:
            ValueError: the hour is not later than the last one added, a pattern comes twice, or counts are impossible.
        """
        if self._last is not None and hour <= self._last:
            raise ValueError(f"hour {hour} is not later than {self._last}: hours come in order, each once")
        if len({one[:3] for one in seen}) != len(seen):
            raise ValueError(f"hour {hour} has a pattern twice: add its counts up first")
        for one in seen:
            if not (
                1 <= one.devices <= one.crashes
                and 1 <= one.tenants <= one.devices
                and 0 <= one.on_rollout <= one.crashes
            ):
                raise ValueError(f"{one}: 1 <= tenants <= devices <= crashes and 0 <= on_rollout <= crashes must hold")
        ordered = sorted(seen, key=lambda one: (-one.crashes, one))
        kept = ordered[:PATTERNS_MAX]
        self.dropped += len(ordered) - len(kept)
        places = _Places(kept)
        rows = [self._facts(hour, one, places) for one in kept]
        table: Floats = np.array(rows, dtype=np.float64).reshape(len(rows), FEATURES + 4)
        return kept, Facts(table[:, :FEATURES], *table[:, FEATURES:].T)

    def _facts(self, hour: int, one: PatternHour, places: "_Places") -> list[float]:
        past = self._patterns.get(one[:3])
        expected, at_hour, day, age = PRIOR_RATE, PRIOR_RATE, 0.0, 0
        if past is not None:
            age = hour - past.first
            expected = self._mean(past.crashes * _faded(hour - past.last), min(age, MEMORY_HOURS))
            same_hour = past.by_hour[hour % DAY_HOURS] * _faded(hour - past.last)
            # An hour of day is seen once a day; where it was seen little, the pattern's overall mean holds.
            days = min(age, MEMORY_HOURS) / DAY_HOURS
            at_hour = (same_hour + 2.0 * expected) / (days + 2.0)
            day = float(sum(crashes for at, crashes in past.day if at > hour - DAY_HOURS))
        rise = _root_gap(one.crashes, expected)
        features = [
            math.log1p(one.crashes),
            rise,
            _root_gap(one.crashes, at_hour),
            _root_gap(one.crashes + day, DAY_HOURS * expected),
            one.devices / one.crashes,
            math.log1p(one.tenants),
            math.log1p(age),
        ]
        usual = max(expected, at_hour, day / DAY_HOURS)
        if age < YOUNG_HOURS:
            usual = max(usual, self._elsewhere(hour, one.signature) * places.share(one))
        return [*features, rise, expected, usual, age]

    def _elsewhere(self, hour: int, signature: str) -> float:
        """Return the mean of a signature on whatever machines; 0 where that is not known."""
        past = self._patterns.get((signature, "", ""))
        if past is None:
            return 0.0
        return self._mean(past.crashes * _faded(hour - past.last), min(hour - past.first, MEMORY_HOURS))

    @staticmethod
    def _mean(crashes: float, hours: float) -> float:
        return (crashes + PRIOR_HOURS * PRIOR_RATE) / (hours + PRIOR_HOURS)

    def add(self, hour: int, kept: Sequence[PatternHour]) -> None:
        """Make an hour part of the past."""
        for one in kept:
            past = self._patterns.pop(one[:3], None)
            if past is None:
                past = _Past(hour, hour, 0.0, [0.0] * DAY_HOURS, [])
            faded = _faded(hour - past.last)
            past.crashes = past.crashes * faded + one.crashes
            past.by_hour = [crashes * faded for crashes in past.by_hour]
            past.by_hour[hour % DAY_HOURS] += one.crashes
            past.day = [*(entry for entry in past.day if entry[0] > hour - DAY_HOURS), (hour, one.crashes)]
            past.last = hour
            # Put in again at the end: the first of the dictionary is the one seen longest ago.
            self._patterns[one[:3]] = past
        while len(self._patterns) > PATTERNS_MAX:
            self._patterns.pop(next(iter(self._patterns)))
        self._first = hour if self._first is None else self._first
        self._last = hour

    def warm(self, hour: int) -> bool:
        """Tell whether the history is two days old: before, every pattern looks new."""
        return self._first is not None and hour - self._first >= WARM_HOURS

    def snapshot(self) -> HistoryState:
        """Return the state; `restore` of it goes on bit for bit."""
        copies = [(key, msgspec.convert(msgspec.to_builtins(past), _Past)) for key, past in self._patterns.items()]
        return HistoryState(first=self._first, last=self._last, dropped=self.dropped, patterns=copies)

    @classmethod
    def restore(cls, state: HistoryState) -> "History":
        """Build the history that `state` was taken from."""
        history = cls()
        history._first, history._last, history.dropped = state.first, state.last, state.dropped
        for key, past in state.patterns:
            history._patterns[key] = msgspec.convert(msgspec.to_builtins(past), _Past)
        return history


class _Places:
    """Which part of an hour's crashes came from which machines, so far as other signatures tell."""

    def __init__(self, seen: Sequence[PatternHour]) -> None:
        self._whole = Counter[str]()
        self._by_place = Counter[tuple[str, str]]()
        self._own = {one[:3]: one.crashes for one in seen}
        for one in seen:
            if one.os_build or one.model:
                self._whole[one.signature] += one.crashes
                self._by_place[one.os_build, one.model] += one.crashes
        self._total = sum(self._whole.values())

    def share(self, one: PatternHour) -> float:
        """Return the part of other signatures' crashes that came from such machines."""
        others = self._total - self._whole[one.signature]
        mine = self._by_place[one.os_build, one.model] - self._own.get(one[:3], 0)
        return mine / others if others and (one.os_build or one.model) else 0.0


def _faded(hours: int) -> float:
    return math.exp(-hours / MEMORY_HOURS)
