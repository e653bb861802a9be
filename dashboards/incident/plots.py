"""The plots of a report: evidence against thresholds, crashes of both arms, devices exposed and silent, recovery.

From `material` to SVG, by `dashboards.svg`. Invariant: each plot's title says what is to be seen, from the numbers, for
whoever does not see it.
"""

import math
from collections.abc import Callable, Iterable
from typing import Final, TypeVar

from dashboards.incident.material import Material
from dashboards.incident.rows import Point, RecoveryPoint
from dashboards.incident.words import clock, count, plain, power
from dashboards.svg import Axis, Line, Rule, line_chart

_RULES_MAX: Final = 8
_Timed = TypeVar("_Timed", Point, RecoveryPoint)
_STEPS: Final = (1, 2, 5, 10, 20, 50)
_SECONDS: Final = (10, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400)
_TICKS_MOST: Final = 8
# Labels of upright rules go down one row after another, so that neighbours stay apart.
_ROWS: Final = 4


def plots(material: Material) -> list[tuple[str, str]]:
    """Return (name, SVG) of each plot; none where there was no verdict."""
    if not material.points:
        return []
    drawn = [("evidence", evidence(material)), ("crashes", crashes(material)), ("devices", devices(material))]
    return drawn + ([("recovery", recovery(material))] if material.recovery else [])


def evidence(material: Material) -> str:
    """Draw the evidence of harm over event time, with what a hold and a kill need."""
    points = material.points
    most = max(one.evidence for one in points)
    needed = points[-1].needed_to_kill
    high = max(most, needed, *(one.may_hold for one in points)) * 1.25
    reached = "crosses what a kill needs" if most >= needed else "stays below what a kill needs"
    lines = [
        Line("evidence of harm, what a kill goes by", _steps(points, lambda one: one.evidence), "b"),
        Line("needed to hold", _steps(points, lambda one: one.needed_to_hold), "c", dotted=True),
        Line("needed to kill", _steps(points, lambda one: one.needed_to_kill), "a", dashed=True),
    ]
    # Releases before this number did not keep it.
    if any(one.may_hold for one in points):
        lines.insert(1, Line("what a hold goes by", _steps(points, lambda one: one.may_hold), "c"))
    return line_chart(
        f"The evidence {reached}",
        f"Evidence against the update as a power of ten over event time: {power(most)} at its highest, where "
        f"{power(needed)} is needed to kill and {power(points[-1].needed_to_hold)} to hold.",
        _time_axis(material),
        _axis("evidence, power of ten", high),
        lines,
        _rules(material, high),
        part="evidence",
    )


def crashes(material: Material) -> str:
    """Draw first crashes of both arms over event time."""
    points, last = material.points, material.points[-1]
    most = max(max(one.crashes_exposed, one.crashes_control) for one in points)
    high = max(most, 1) * 1.25
    return line_chart(
        f"{count(last.crashes_exposed, 'device')} with the update crashed, {last.crashes_control:,} without",
        f"First crashes since the rollout began, over event time: {last.crashes_exposed:,} of devices exposed to the "
        f"update and {last.crashes_control:,} of control devices at the end.",
        _time_axis(material),
        _axis("devices with a crash", high),
        [
            Line("with the update (exposed)", _steps(points, lambda one: one.crashes_exposed), "b"),
            Line("without it (control)", _steps(points, lambda one: one.crashes_control), "a", dashed=True),
        ],
        _rules(material, high),
        part="crashes",
    )


def devices(material: Material) -> str:
    """Draw devices exposed, and those not heard from."""
    points, last = material.points, material.points[-1]
    most = max(one.exposed for one in points)
    high = max(most, 1) * 1.25
    heard = [one for one in points if one.heard_share is not None]
    silent = "none is known to be silent" if not material.silent else f"{material.silent:,} of them silent at the end"
    known = "unknown" if material.silent is None else f"{material.silent:,}"
    return line_chart(
        f"{count(last.exposed, 'device')} exposed, {silent}",
        f"Devices over event time: {last.exposed:,} exposed to the update at the end, "
        f"{known} of them not heard from for a quarter of an hour and without a reported crash.",
        _time_axis(material),
        _axis("devices", high),
        [
            Line("exposed", _steps(points, lambda one: one.exposed), "a"),
            Line(
                "of these, silent",
                _steps(heard, lambda one: one.exposed * (1 - (one.heard_share or 0))),
                "b",
                dashed=True,
            ),
        ],
        _rules(material, high),
        part="devices",
    )


def recovery(material: Material) -> str:
    """Draw how devices come back."""
    points, last = material.recovery, material.recovery[-1]
    high = max(1, *(max(one.silent, one.looping, one.recovered) for one in points)) * 1.25
    return line_chart(
        f"{count(last.recovered, 'device')} recovered, {last.looping:,} looping, {last.silent:,} silent",
        f"Devices of the rollout over event time: at the end {last.recovered:,} had recovered, {last.looping:,} had "
        f"crashed and were not quiet since, {last.silent:,} were not heard from when they should have been.",
        _time_axis(material),
        _axis("devices", high),
        [
            Line("looping", _steps(points, lambda one: one.looping), "b"),
            Line("silent", _steps(points, lambda one: one.silent), "a", dashed=True),
            Line("recovered", _steps(points, lambda one: one.recovered), "c", dotted=True),
        ],
        _rules(material, high),
        part="recovery",
    )


def _steps(points: Iterable[_Timed], value: Callable[[_Timed], float]) -> list[tuple[float, float]]:
    """Go on level until a value changes: nothing is known between two verdicts."""
    line: list[tuple[float, float]] = []
    for point in points:
        if line and value(point) != line[-1][1]:
            line.append((point.at_ms, line[-1][1]))
        line.append((point.at_ms, value(point)))
    return line


def _time_axis(material: Material) -> Axis:
    begin, end = material.begin_ms, material.end_ms
    seconds = (end - begin) / 1000
    step = next(
        (one for one in _SECONDS if seconds / one <= _TICKS_MOST), 86400 * math.ceil(seconds / 86400 / _TICKS_MOST)
    )
    first = -(-begin // (step * 1000)) * step * 1000
    ticks = list(range(first, end + 1, step * 1000))
    names = [clock(tick, seconds=step < 60) for tick in ticks]
    return Axis("event time, UTC", float(end), ticks, low=float(begin), names=names)


def _axis(label: str, high: float) -> Axis:
    """Return an axis from 0 with about five round ticks."""
    size = 10.0 ** math.floor(math.log10(high / 5)) if high > 5 else 1.0
    step = next(size * one for one in _STEPS if high / (size * one) <= 6)
    ticks = [step * number for number in range(int(high / step) + 1)]
    return Axis(label, high, ticks, names=[f"{tick:,.0f}" for tick in ticks])


def _rules(material: Material, high: float) -> list[Rule]:
    """Mark ring starts and moves of the switch."""
    begin, end = material.begin_ms, material.end_ms
    marked = [(ring.starts_at_ms, f"ring {ring.name}") for ring in material.rollout.rings if ring.starts_at_ms]
    marked += [
        (one.watermark_ms, one.state.value)
        for one in material.switches
        if one.watermark_ms and one.state.value in ("held", "killed", "released") and one.scope.whole
    ]
    inside = sorted((at, name) for at, name in marked if begin <= at <= end)[:_RULES_MAX]
    return [_rule(at, name, number, (at - begin) / (end - begin), high) for number, (at, name) in enumerate(inside)]


def _rule(at: float, name: str, number: int, part: float, high: float) -> Rule:
    height = high * (0.95 - 0.07 * (number % _ROWS))
    return Rule(at, plain(name, 40), height, upright=True, before=part > 0.75)
