"""Interactions: which version crashes more with a certain OS build, model or other driver than either does alone?

For joint testing between vendors (`cordon compat`), not for the kill. Plain numbers only: device-time and first
crashes by version, by the level of one other factor, and by stratum. Pairs, strata and levels are bounded.
"""

import enum
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np

from detectors.pairs import (
    FALSE_SHARE,
    TOLERATED_RATIO,
    Table,
    expected_crashes,
    interval,
    log_evidence,
    stands,
)
from detectors.sequential import Floats

VERSIONS_MAX: Final = 32
LEVELS_MAX: Final = 64
STRATA_MAX: Final = 16
# What is beyond the bounds is pooled under this name: part of every "others", never tested itself.
POOLED: Final = "(pooled)"
CRASHES_SMALL: Final = 5
EXPECTED_SMALL: Final = 1.0


class Cell(NamedTuple):
    """Devices of one version, one level of the other factor and one stratum.

    Attributes:
        version: the version of the product in question.
        level: the OS build, the model, or the other product's version.
        stratum: what is alike within: crashes are compared only inside a stratum.
        devices: how many devices.
        device_days: their time at risk, up to each one's first crash.
        crashes: devices that crashed, each once.
    """

    version: str
    level: str
    stratum: str
    devices: int
    device_days: float
    crashes: int


class Finding(enum.StrEnum):
    """What stands of a pair."""

    NONE = "none"
    WORSE = "worse_together"
    """It crashes more than either alone; both by themselves may explain it, or nothing else crashed to tell."""
    INTERACTION = "interaction"
    """It crashes more than either alone, and more than both by themselves explain."""


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one version together with one level of one factor.

    Attributes:
        factor: what the level is of: `os build`, `model`, or another product.
        devices, device_days, crashes: of the pair.
        expected: crashes of the pair if version and level only multiply, from its other three parts.
        ratio: how many times more than that multiplication the pair crashes; None where crashes set no limit.
        ratio_low, ratio_high: its 95 % interval; None for no upper limit.
        version_alone: first crashes per device-day of the version at other levels; None without device-time.
        level_alone: the same of the level with other versions.
        log10_worse: evidence that the pair crashes more than the version alone and more than the level alone.
        log10_beyond: evidence that it also crashes more than both multiplied; never above `log10_worse`.
        finding: what stands among all pairs tested, with at most the matrix's `false_share` of findings false.
        small: few crashes: read the ratio as a hint.
        note: why nothing can be said, or what to mind; empty where nothing.
    """

    factor: str
    version: str
    level: str
    devices: int
    device_days: float
    crashes: int
    expected: float | None = None
    ratio: float | None = None
    ratio_low: float = 0.0
    ratio_high: float | None = None
    version_alone: float | None = None
    level_alone: float | None = None
    log10_worse: float = 0.0
    log10_beyond: float = 0.0
    finding: Finding = Finding.NONE
    small: bool = True
    note: str = ""


class Matrix(msgspec.Struct, frozen=True, kw_only=True):
    """All pairs: interactions first, then those worse together, then by evidence, crashes and name.

    Attributes:
        tested: pairs that something could be said of; what the multiplicity is controlled over.
        pooled: names beyond the bounds by factor, pooled and not tested.
    """

    pairs: list[Pair]
    tested: int
    pooled: dict[str, int]
    tolerated_ratio: float
    false_share: float


def _kept(cells: Sequence[Cell], field: int, most: int) -> tuple[set[str], int]:
    """Return the `most` names of a field with the most device-time, and how many others there are."""
    days: dict[str, float] = {}
    for cell in cells:
        days[str(cell[field])] = days.get(str(cell[field]), 0.0) + cell.device_days
    ranked = sorted(days, key=lambda name: (-days[name], name))
    named = [name for name in ranked if name != POOLED]
    return set(named[:most]), len(named[most:])


class _Grid:
    """Sums of one factor's cells: array of shape (versions, levels, strata, 3)."""

    def __init__(self, cells: Sequence[Cell]) -> None:
        for cell in cells:
            if cell.devices < 0 or cell.crashes < 0 or not 0 <= cell.device_days < math.inf:
                raise ValueError(f"{cell}: counts and device-days must be 0 or more")
            if (cell.crashes and not cell.device_days) or cell.crashes > cell.devices:
                raise ValueError(f"{cell}: each crash needs a device of its own and time at risk")
        versions, versions_more = _kept(cells, 0, VERSIONS_MAX)
        levels, levels_more = _kept(cells, 1, LEVELS_MAX)
        strata, _ = _kept(cells, 2, STRATA_MAX - 1)
        self.pooled = versions_more + levels_more
        self.versions, self.levels = [*sorted(versions), POOLED], [*sorted(levels), POOLED]
        kept = [*sorted(strata), POOLED]
        at = [{name: i for i, name in enumerate(names)} for names in (self.versions, self.levels, kept)]
        self.sums: Floats = np.zeros((len(self.versions), len(self.levels), len(kept), 3))
        for cell in cells:
            where = tuple(at[field].get(str(cell[field]), len(at[field]) - 1) for field in range(3))
            self.sums[where] += (cell.devices, cell.device_days, cell.crashes)
        self._rows, self._columns = self.sums.sum(axis=1), self.sums.sum(axis=0)
        self._all = self._rows.sum(axis=0)

    def tables(self, version: int, level: int) -> list[Table]:
        """Return a pair's two by two in each stratum that has device-time of the pair."""
        both = self.sums[version, level]
        row, column = self._rows[version] - both, self._columns[level] - both
        neither = self._all - both - row - column
        # Sums of floats leave dust where nothing should be: a part with no devices has no time either.
        parts = np.stack([both, row, column, neither])
        parts[parts[:, :, 0] < 0.5] = 0.0
        return [
            Table(
                (int(p[0, 2]), int(p[1, 2]), int(p[2, 2]), int(p[3, 2])),
                (float(p[0, 1]), float(p[1, 1]), float(p[2, 1]), float(p[3, 1])),
            )
            for p in parts.transpose(1, 0, 2)
            if p[0, 1] > 0
        ]


def _pair(factor: str, version: str, level: str, sums: Floats, tables: list[Table], tolerated_ratio: float) -> Pair:
    whole = [table for table in tables if all(table.device_days)]
    crashes = np.array([table.crashes for table in tables]).sum(axis=0)
    days = np.array([table.device_days for table in tables]).sum(axis=0)
    rates = [float(crashes[i] / days[i]) if days[i] else None for i in range(3)]
    base = Pair(
        factor=factor, version=version, level=level, devices=int(sums[0]), device_days=float(sums[1]),
        crashes=int(sums[2]), version_alone=rates[1], level_alone=rates[2], note=_why_not(whole, rates),
    )  # fmt: skip
    if not whole:
        return base
    expected = sum(expected_crashes(table) for table in whole)
    seen = sum(table.crashes[0] for table in whole)
    ratio, low, high = interval(whole)
    # Only strata with all four parts: one without a "neither" has no word on interaction.
    evidence = log_evidence(whole, tolerated_ratio)
    left = base.crashes - seen
    return msgspec.structs.replace(
        base,
        expected=expected,
        ratio=ratio,
        ratio_low=low,
        ratio_high=high,
        log10_worse=evidence.worse / math.log(10),
        log10_beyond=evidence.beyond / math.log(10),
        small=bool(seen < CRASHES_SMALL or expected < EXPECTED_SMALL or min(crashes[1:3]) == 0),
        note=f"{left} of its crashes lie in strata without comparison" if left else "",
    )


def _why_not(whole: list[Table], rates: list[float | None]) -> str:
    if whole:
        return ""
    if rates[1] is None and rates[2] is None:
        return "always together: neither was seen without the other"
    if rates[1] is None:
        return "the version was seen nowhere else: the two cannot be told apart"
    if rates[2] is None:
        return "it was seen with no other version: the two cannot be told apart"
    return "no stratum has devices with both, with either alone and with neither"


def _rank(pair: Pair) -> tuple[int, float, float, int, str, str, str]:
    order = (Finding.INTERACTION, Finding.WORSE, Finding.NONE).index(pair.finding)
    return order, -pair.log10_beyond, -pair.log10_worse, -pair.crashes, pair.factor, pair.version, pair.level


def _with_likely_causes(pairs: list[Pair]) -> list[Pair]:
    """Note on a version's weaker findings that its strongest may explain them: levels may travel together."""
    strongest: dict[str, Pair] = {}
    noted = []
    for pair in pairs:
        first = strongest.setdefault(pair.version, pair)
        if pair.finding is not Finding.NONE and pair is not first:
            note = f"may follow from {first.factor} {first.level}, this version's strongest finding"
            pair = msgspec.structs.replace(pair, note=f"{pair.note}; {note}" if pair.note else note)
        noted.append(pair)
    return noted


def compatibility(
    factors: Mapping[str, Iterable[Cell]],
    tolerated_ratio: float = TOLERATED_RATIO,
    false_share: float = FALSE_SHARE,
) -> Matrix:
    """Return the compatibility matrix of one product's versions with every level of every factor.

    Model. A version has its crash rate, an OS build has its own, and where nothing is wrong the two multiply. A pair is
    worse together if it crashes more than the version does elsewhere *and* more than the level does with others, by
    more than `tolerated_ratio`; it is an interaction if it also crashes by as much more than the two multiplied.
    Comparisons stay within strata (OS family, form factor), so what differs between those is no finding.

    Assumptions. Time at risk ends at a device's first crash, so counts are Poisson given it, as long as few of a
    pair's devices crash in a day. Within a stratum devices are alike but for version and level. The evidence is for
    one look at one span of time: who asks every hour until something is flagged will find something.

    What it can't see: pairs always or never together; harm of a version everywhere (that is the rate ratio's work);
    three that only crash together; what else changed at the same time as the pair came to be. Where levels of two
    factors travel together (a new driver and a new build), a bad pair makes the other look bad too: weaker findings of
    a version are noted as such.

    A false alarm costs a joint test that finds nothing; of each kind of finding at most `false_share` on average.

    Args:
        factors: cells by the factor that their levels are of.
        tolerated_ratio: how much worse is still no harm.
        false_share: of the findings, the share that may be false.

    Raises:
        ValueError: a count is negative, crashes have no device-time, or the rates asked for make no sense.

    Example:
        Version 2 on build B crashes; each alone is as quiet as the rest.

        >>> quiet = [("1", "A", 49), ("1", "B", 51), ("2", "A", 50)]
        >>> cells = [Cell(v, b, "laptop", 1000, 10_000.0, n) for v, b, n in quiet]
        >>> found = compatibility({"os build": [*cells, Cell("2", "B", "laptop", 1000, 10_000.0, 240)]})
        >>> worst = found.pairs[0]
        >>> worst.version, worst.level, str(worst.finding), round(worst.ratio, 1), round(worst.ratio_low, 1)
        ('2', 'B', 'interaction', 4.6, 2.8)
        >>> [str(pair.finding) for pair in found.pairs[1:]]
        ['none', 'none', 'none']
    """
    if not 0 < tolerated_ratio < 1024 or not 0 < false_share < 1:
        raise ValueError(f"tolerated ratio {tolerated_ratio} and false share {false_share}: give e.g. 1.25 and 0.05")
    pairs: list[Pair] = []
    pooled: dict[str, int] = {}
    for factor, cells in factors.items():
        grid = _Grid(list(cells))
        if grid.pooled:
            pooled[factor] = grid.pooled
        for i, version in enumerate(grid.versions[:-1]):
            for j, level in enumerate(grid.levels[:-1]):
                sums = grid.sums[i, j].sum(axis=0)
                if sums[1] > 0:
                    pairs.append(_pair(factor, version, level, sums, grid.tables(i, j), tolerated_ratio))
    tested = [i for i, pair in enumerate(pairs) if pair.expected is not None]
    for finding in (Finding.WORSE, Finding.INTERACTION):
        logs = [pairs[i].log10_worse if finding is Finding.WORSE else pairs[i].log10_beyond for i in tested]
        for i, stand in zip(tested, stands([log * math.log(10) for log in logs], false_share), strict=True):
            if stand:
                pairs[i] = msgspec.structs.replace(pairs[i], finding=finding)
    pairs = _with_likely_causes(sorted(pairs, key=_rank))
    return Matrix(
        pairs=pairs, tested=len(tested), pooled=pooled, tolerated_ratio=tolerated_ratio, false_share=false_share
    )
