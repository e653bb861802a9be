"""The data of the plots: columns for the browser, and the same in a sentence for whoever can't see them.

Between the history and the routes. Invariant: a plot's series are bounded, and each is named beside its line.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from dashboards.console.history import FRESH_SECONDS, Table
from dashboards.console.rendering import RATIO_MAX

SERIES_MAX = 12
POINTS = 120
HOURS = (1, 6, 24)
_LEAST_SECONDS = 60


class Series(msgspec.Struct, kw_only=True):
    """One line of a plot.

    Attributes:
        label: its name.
        values: one for each time; null where there is none.
        color: the name of a colour of the style sheet; empty: the next of the palette.
        dashed: a threshold, or the edge of an interval.
    """

    label: str
    values: list[float | None]
    color: str = ""
    dashed: bool = False


class Plot(msgspec.Struct, kw_only=True):
    """What a plot draws.

    Attributes:
        x: times, seconds since the epoch.
        series: its lines.
        unit: of the values.
        sentence: what is to be seen, for whoever can't see it.
        log: the axis of the values is logarithmic.
    """

    x: list[float]
    series: list[Series]
    unit: str
    sentence: str
    log: bool = False


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time.

    Attributes:
        end_ms: its end, rounded so that everybody who looks asks for the same.
        hours: its length.
    """

    end_ms: int
    hours: int

    @property
    def step(self) -> int:
        """Seconds that a point stands for."""
        return max(_LEAST_SECONDS, self.hours * 3600 // POINTS // 60 * 60)

    def values(self) -> dict[str, object]:
        """Return the parameters of a query."""
        end = -(-self.end_ms // 1000 // self.step) * self.step + self.step
        return {"from": _utc(end - self.hours * 3600), "to": _utc(end), "step": self.step}


@dataclass(frozen=True, slots=True)
class Drawing:
    """How a plot is made.

    Attributes:
        queries: names of those whose rows it shows; all take the same parameters.
        draw: makes it of the rows of each.
        fresh_seconds: how long rows are new enough.
    """

    queries: tuple[str, ...]
    draw: Callable[..., Plot]
    fresh_seconds: float = FRESH_SECONDS


def crash_rate(crashed_rows: Table, heard_rows: Table) -> Plot:
    """Return crashed devices for each thousand check-ins, by ring."""
    crashed, heard = _by_name(crashed_rows), _by_name(heard_rows)
    x = sorted({t for series in heard.values() for t in series})
    series = [
        Series(label=ring, values=[_per_thousand(crashed.get(ring, {}).get(t, 0.0), checks.get(t)) for t in x])
        for ring, checks in heard.items()
    ]
    return _plot(x, series, "crashed devices per 1,000 check-ins")


def check_ins(rows: Table) -> Plot:
    """Return check-ins by ring, as a share of the ring's own peak: what falls far below it has gone silent."""
    heard = _by_name(rows)
    # The minute that is still being filled would look like silence.
    x = sorted({t for series in heard.values() for t in series})[:-1]
    series = []
    for ring, checks in heard.items():
        # The median would be that of silence where a ring fell silent early.
        peak = sorted(checks.values())[len(checks) * 9 // 10]
        series.append(Series(label=ring, values=[checks.get(t, 0.0) / peak if peak else None for t in x]))
    return _plot(x, series, "check-ins, share of the ring's peak")


def os_builds(rows: Table) -> Plot:
    """Return crashed devices by OS build."""
    crashed = _by_name(rows)
    x = sorted({t for series in crashed.values() for t in series})
    series = [Series(label=build, values=[found.get(t, 0.0) for t in x]) for build, found in crashed.items()]
    return _plot(x, series, "crashed devices")


def evidence(rows: Table) -> Plot:
    """Return evidence of harm against what a hold and a kill need."""
    columns = _verdicts(rows)
    return _plot(columns[0], [
        Series(label="evidence that a hold goes by", values=columns[1], color="hold"),
        Series(label="evidence that a kill goes by", values=columns[2], color="kill"),
        Series(label="needed to hold", values=columns[3], color="hold", dashed=True),
        Series(label="needed to kill", values=columns[4], color="kill", dashed=True),
    ], "log10 of the e-value")  # fmt: skip


def crashes(rows: Table) -> Plot:
    """Return first crashes of exposed and of control devices."""
    columns = _verdicts(rows)
    return _plot(columns[0], [
        Series(label="exposed", values=columns[5], color="kill"),
        Series(label="control", values=columns[6], color="control"),
    ], "first crashes since the rollout began")  # fmt: skip


def exposure(rows: Table) -> Plot:
    """Return how many devices are exposed."""
    columns = _verdicts(rows)
    return _plot(columns[0], [Series(label="exposed", values=columns[7], color="control")], "devices")


def ratio(rows: Table) -> Plot:
    """Return the crash-rate ratio of the arms with its interval; where it can't be told, nothing."""
    columns = _verdicts(rows)
    shown = [[_drawn_ratio(value) for value in column] for column in columns[8:11]]
    plot = _plot(columns[0], [
        Series(label="ratio", values=shown[0], color="kill"),
        Series(label="lower bound (95 %)", values=shown[1], color="control", dashed=True),
        Series(label="upper bound (95 %)", values=shown[2], color="control", dashed=True),
        Series(label="tolerated", values=columns[11], color="hold", dashed=True),
    ], "exposed to control, drawn between a hundredth and ten thousand")  # fmt: skip
    plot.log = True
    return plot


# A point of the fleet's stands for a minute or more.
_FLEET_SECONDS = 60.0
FLEET_PLOTS = {
    "crash_rate": Drawing(("crashed_by_ring", "check_ins_by_ring"), crash_rate, _FLEET_SECONDS),
    "check_ins": Drawing(("check_ins_by_ring",), check_ins, _FLEET_SECONDS),
    "os_builds": Drawing(("crashed_by_os_build",), os_builds, _FLEET_SECONDS),
}
ROLLOUT_PLOTS = {
    "evidence": Drawing(("evidence",), evidence),
    "crashes": Drawing(("evidence",), crashes),
    "exposure": Drawing(("evidence",), exposure),
    "ratio": Drawing(("evidence",), ratio),
}


def _verdicts(rows: Table) -> list[list[Any]]:
    columns: list[list[Any]] = [[_float(value) for value in column] for column in zip(*rows, strict=True)]
    return columns or [[] for _ in range(12)]


def _by_name(rows: Table) -> dict[str, dict[float, float]]:
    found: dict[str, dict[float, float]] = {}
    for t, name, value in rows:
        found.setdefault(str(name) or "none named", {})[float(t)] = float(value)
    largest = sorted(found, key=lambda name: (-sum(found[name].values()), name))[:SERIES_MAX]
    return {name: found[name] for name in sorted(largest)}


def _plot(x: Sequence[float], series: list[Series], unit: str) -> Plot:
    said = [
        f"{one.label} {seen[-1]:.3g}, at most {max(seen):.3g}"
        for one in series
        if (seen := [value for value in one.values if value is not None])
    ]
    if not x or not said:
        return Plot(x=[], series=[], unit=unit, sentence="nothing in this time")
    since, until = (datetime.fromtimestamp(at, UTC) for at in (x[0], x[-1]))
    return Plot(x=list(x), series=series, unit=unit, sentence=f"{since:%H:%M} to {until:%H:%MZ}: {'; '.join(said)}")


def _drawn_ratio(value: float | None) -> float | None:
    # Where it can't be told the query gives -1; an interval without an end has none that could be drawn.
    return None if value is None or value < 0 else min(max(value, 1 / 100), RATIO_MAX)


def _per_thousand(crashed: float, checks: float | None) -> float | None:
    return 1000 * crashed / checks if checks else None


def _float(value: Any) -> float | None:
    return None if value is None else float(value)


def _utc(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}"
