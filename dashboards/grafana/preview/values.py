"""How a value looks: its unit, what a mapping calls it, and the colour that mappings and thresholds give it.

Used for numbers, cells and axes alike. Source of the units' words: Grafana's value formats (`none`, `short`,
`percentunit`, `s`, `h`). Invariant: a unit that is not known here is an error, never a bare number.
"""

import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from dashboards.grafana.preview.definition import Config, PreviewError, color

_SCALES: Final = ((1e12, " Tri"), (1e9, " Bil"), (1e6, " Mil"), (1e3, " K"))
_SPANS: Final = ((86_400, "day"), (3600, "hour"), (60, "min"), (1, "s"), (1e-3, "ms"))
_DIGITS: Final = 3


def unit_of(config: Config) -> str:
    """Return the unit that a field has.

    Raises:
        PreviewError: it is not known here.
    """
    unit = str(config.get("unit", "none"))
    if unit not in _UNITS:
        raise PreviewError(f"unit {unit!r} is not known here; known: {', '.join(sorted(_UNITS))}")
    return unit


def shown(value: Any, config: Config) -> str:
    """Return a value as the field's configuration shows it.

    Example:
        >>> shown(0.1234, {"unit": "percentunit"}), shown(5400.0, {"unit": "s"}), shown(None, {"noValue": "nothing"})
        ('12.3%', '1.5 hours', 'nothing')
    """
    if value is None:
        return str(config.get("noValue", ""))
    named = _mapped(value, config)
    if named is not None and "text" in named:
        return str(named["text"])
    return _UNITS[unit_of(config)](value) if isinstance(value, float) else str(value)


def moment(at: float) -> str:
    """Return a moment, in seconds since the epoch, as the boards show it: UTC."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")


def color_of(value: Any, config: Config) -> str | None:
    """Return the colour that a value has of itself: by a mapping, or by the thresholds; None where by neither."""
    named = _mapped(value, config)
    if named is not None and "color" in named:
        return color(named["color"])
    if isinstance(value, float) and config.get("color", {}).get("mode") == "thresholds":
        steps = config["thresholds"]["steps"]
        return color([one for one in steps if one.get("value") is None or value >= one["value"]][-1]["color"])
    return None


def ticks(low: float, high: float, unit: str, log: bool, most: int = 6) -> list[tuple[float, str]]:
    """Return round values from `low` to `high`, and how each is written in the unit.

    Args:
        low: least value of the axis; above 0 where it is logarithmic.
        high: greatest value.
        unit: of the values.
        log: powers of ten only.
        most: so many, and no more.
    """
    if log:
        powers = range(math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9) + 1)
        found = [10.0**power for power in powers[:: math.ceil(len(powers) / most) or 1]]
    else:
        step = _round_step((high - low) / most)
        found = [place * step for place in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
    return [(value, _UNITS[unit](value)) for value in found]


def _round_step(least: float) -> float:
    power = 10.0 ** math.floor(math.log10(least))
    return next(part * power for part in (1.0, 2.0, 2.5, 5.0, 10.0) if part * power >= least * (1 - 1e-9))


def _mapped(value: Any, config: Config) -> Config | None:
    mappings: Sequence[Config] = config.get("mappings", [])
    for mapping in mappings:
        if mapping["type"] != "value":
            raise PreviewError(f"mapping {mapping['type']!r} is not known here; known: value")
        found: Config | None = mapping["options"].get(f"{value:g}" if isinstance(value, float) else value)
        if found is not None:
            return found
    return None


def _bare(value: float) -> str:
    """Write a number with at most three digits behind the point, and no more than three that count below 1."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else ("\N{INFINITY}" if value > 0 else "-\N{INFINITY}")
    if abs(value) >= 1e15 or abs(value) < 1e-3:
        return f"{value:.{_DIGITS}g}"
    digits = min(_DIGITS, max(0, _DIGITS - 1 - math.floor(math.log10(abs(value)))))
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _short(value: float) -> str:
    for size, name in _SCALES:
        if abs(value) >= size:
            return _bare(value / size) + name
    return _bare(value)


def _per_cent(value: float) -> str:
    return f"{_bare(100 * value)}%"


def _seconds(value: float) -> str:
    for size, name in _SPANS:
        if abs(value) >= size:
            text = _bare(value / size)
            return f"{text} {name}s" if size >= 60 and text != "1" else f"{text} {name}"
    return f"{_bare(value)} s"


def _hours(value: float) -> str:
    return _seconds(value * 3600)


_UNITS: Final[dict[str, Callable[[float], str]]] = {
    "none": _bare, "short": _short, "percentunit": _per_cent, "s": _seconds, "h": _hours,
}  # fmt: skip
