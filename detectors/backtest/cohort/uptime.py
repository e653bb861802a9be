"""When devices run: sorted spans of time, and the cuts that crashes, reboots and power cuts make in them.

Times are milliseconds since the epoch. Devices are numbers within a chunk, so that a device and a time fit into one
64-bit key, and every question about many devices is one binary search.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from detectors.backtest.cohort.people import Chunk
from detectors.backtest.draws import Bools, Ints
from detectors.backtest.scenario import Scenario

TIME_BITS: Final = 42
# Later than any time that fits into a key: the year 2109.
NEVER: Final = (1 << TIME_BITS) - 1
BOOT_TAKES_MS: Final = 15_000
_HOUR_MS: Final = 3_600_000
_DAY_HOURS: Final = 24


def key_of(devices: Ints, times_ms: Ints) -> Ints:
    """Return keys that sort by device, then by time; shapes (n,)."""
    return (devices << TIME_BITS) | times_ms


@dataclass(frozen=True, slots=True)
class Spans:
    """Spans in which devices run, sorted by device and time; arrays of shape (spans,).

    Attributes:
        device: number within the chunk.
        start_ms, end_ms: from when until before when it runs.
        boot_ms: when the boot that it runs in began.
        boots: whether a boot begins the span; the span that a scenario begins with goes on from before.
    """

    device: Ints
    start_ms: Ints
    end_ms: Ints
    boot_ms: Ints
    boots: Bools

    @property
    def keys(self) -> Ints:
        """Keys of the starts, ascending."""
        return key_of(self.device, self.start_ms)

    def take(self, picked: Ints | Bools) -> "Spans":
        """Return some of the spans."""
        return Spans(
            self.device[picked], self.start_ms[picked], self.end_ms[picked], self.boot_ms[picked], self.boots[picked]
        )


class Lookup:
    """Answers whether, and when next, devices run."""

    def __init__(self, spans: Spans) -> None:
        self.spans = spans
        self._keys = spans.keys

    def at(self, devices: Ints, times_ms: Ints) -> Ints:
        """Return the number of the span that each device runs in at its time, -1 where it does not run."""
        if len(self._keys) == 0:
            return np.full(len(devices), -1, dtype=np.int64)
        place = np.searchsorted(self._keys, key_of(devices, times_ms), side="right") - 1
        spans = self.spans
        runs = (place >= 0) & (spans.device[place] == devices) & (times_ms < spans.end_ms[place])
        return np.where(runs, place, -1)

    def next(self, devices: Ints, times_ms: Ints) -> Ints:
        """Return the number of the span that each device runs in then, or else of its next one; -1 without any."""
        if len(self._keys) == 0:
            return np.full(len(devices), -1, dtype=np.int64)
        place = np.searchsorted(self._keys, key_of(devices, times_ms), side="right") - 1
        spans = self.spans
        runs = (place >= 0) & (spans.device[place] == devices) & (times_ms < spans.end_ms[place])
        later = np.minimum(place + 1, len(self._keys) - 1)
        follows = (place + 1 < len(self._keys)) & (spans.device[later] == devices)
        return np.where(runs, place, np.where(follows, later, -1))

    def when(self, devices: Ints, times_ms: Ints) -> Ints:
        """Return when each device runs, at its time or next after it; `NEVER` if it doesn't any more."""
        if len(self._keys) == 0:
            return np.full(len(devices), NEVER, dtype=np.int64)
        place = self.next(devices, np.minimum(times_ms, NEVER - 1))
        found: Ints = np.where(place < 0, NEVER, np.maximum(times_ms, self.spans.start_ms[place]))
        return np.where(times_ms >= NEVER, NEVER, found)


def next_check_in(phase_ms: Ints, every_ms: int, times_ms: Ints) -> Ints:
    """Return the first check-in time at or after each time; `phase_ms` is any check-in time of the device."""
    return times_ms + (phase_ms - times_ms) % every_ms


def last_check_in(phase_ms: Ints, every_ms: int, times_ms: Ints) -> Ints:
    """Return the last check-in time before each time."""
    return times_ms - 1 - (times_ms - 1 - phase_ms) % every_ms


def powered(scenario: Scenario, chunk: Chunk) -> Spans:
    """Return when devices are switched on by their form factor's curve.

    A device is on while its level lies under the curve of its form factor in its region's local time. That it was
    switched on is noticed at its next check-in, as in `Fleet`.
    """
    device, time, on = _switches(scenario, chunk)
    order = np.argsort(key_of(device, time), kind="stable")
    device, time, on = device[order], time[order], on[order]
    start, end = time[on], time[~on]
    device = device[on]
    from_before = start == scenario.start_ms
    noticed = next_check_in(chunk.phase_ms[device], chunk.every_ms, start)
    start = np.where(from_before, start, noticed)
    boot = np.where(from_before, scenario.start_ms - chunk.boot_age_ms[device], start - BOOT_TAKES_MS)
    spans = Spans(device, start, end, boot, ~from_before)
    return spans.take(start < end)


def _switches(scenario: Scenario, chunk: Chunk) -> tuple[Ints, Ints, Bools]:
    """Return who is switched on or off when; each device's switches alternate, from on to off."""
    start_ms, end_ms = scenario.start_ms, scenario.end_ms
    regions = scenario.fleet.regions
    found: list[tuple[Ints, Ints, Bools]] = []
    for group in np.unique(chunk.group).tolist():
        form = scenario.fleet.form_factors[group // len(regions)]
        offset_ms = round(regions[group % len(regions)].utc_offset_hours * _HOUR_MS)
        members = np.flatnonzero(chunk.group == group)
        first = (start_ms + offset_ms) // _HOUR_MS
        hours = np.arange(first, (end_ms + offset_ms) // _HOUR_MS + 2)
        knots = hours * _HOUR_MS - offset_ms
        weekend = (hours // _DAY_HOURS + 3) % 7 >= 5
        curve = np.array(form.on_by_hour)[hours % _DAY_HOURS] * np.where(weekend, form.weekend_share, 1.0)
        under = chunk.level[members, None] < curve[None, :]
        who, knot = np.nonzero(under[:, 1:] != under[:, :-1])
        low, high = curve[knot], curve[knot + 1]
        part = (chunk.level[members[who]] - low) / (high - low)
        time = knots[knot] + np.clip((part * _HOUR_MS).astype(np.int64), 0, _HOUR_MS - 1)
        inside = (time > start_ms) & (time < end_ms)
        who, time, on = members[who[inside]], time[inside], under[who, knot + 1][inside]
        now = np.interp(start_ms, knots, curve)
        begins = members[chunk.level[members] < now]
        switches = np.bincount(who, minlength=len(chunk.level))[members] % 2
        ends = members[(chunk.level[members] < now) != (switches == 1)]
        found += [
            (who, time, on),
            (begins, np.full(len(begins), start_ms), np.ones(len(begins), dtype=np.bool_)),
            (ends, np.full(len(ends), end_ms), np.zeros(len(ends), dtype=np.bool_)),
        ]
    device, time, on = (np.concatenate(column) for column in zip(*found, strict=True))
    return device.astype(np.int64), time.astype(np.int64), on


def cut(spans: Spans, devices: Ints, down_ms: Ints, up_ms: Ints) -> Spans:
    """Return the spans without the times from `down_ms` to before `up_ms`; a device that comes up again boots.

    Args:
        spans: when devices run.
        devices: who goes down, shape (n,), any order; cuts may overlap.
        down_ms: when each does.
        up_ms: when it is up again; `NEVER` for never.
    """
    if len(devices) == 0 or len(spans.device) == 0:
        return spans
    size = max(int(devices.max()), int(spans.device.max())) + 1
    concerned = np.zeros(size, dtype=np.bool_)
    concerned[devices] = True
    hit = concerned[spans.device]
    broken = _cut(spans.take(hit), devices, down_ms, np.maximum(up_ms, down_ms))
    whole = spans.take(~hit)
    columns = [np.concatenate(pair) for pair in zip(_columns(whole), _columns(broken), strict=True)]
    order = np.argsort(key_of(columns[0], columns[1]), kind="stable")
    return Spans(*(column[order] for column in columns))


def _columns(spans: Spans) -> tuple[Ints, Ints, Ints, Ints, Bools]:
    return spans.device, spans.start_ms, spans.end_ms, spans.boot_ms, spans.boots


def _cut(spans: Spans, devices: Ints, down_ms: Ints, up_ms: Ints) -> Spans:
    count, cuts = len(spans.device), len(devices)
    device = np.concatenate([spans.device, spans.device, devices, devices])
    time = np.concatenate([spans.start_ms, spans.end_ms, down_ms, up_ms])
    runs = np.concatenate([np.ones(count), -np.ones(count), np.zeros(2 * cuts)]).astype(np.int64)
    downs = np.concatenate([np.zeros(2 * count), np.ones(cuts), -np.ones(cuts)]).astype(np.int64)
    # At one moment: spans end, cuts begin, cuts end, spans start.
    turn = np.concatenate([np.full(count, 3), np.zeros(count), np.full(cuts, 1), np.full(cuts, 2)])
    order = np.lexsort((turn, time, device))
    device, time, runs, downs = device[order], time[order], runs[order], downs[order]
    alive = (np.cumsum(runs) > 0) & (np.cumsum(downs) == 0)
    before = np.concatenate([[False], alive[:-1]])
    rises, falls = np.flatnonzero(alive & ~before), np.flatnonzero(~alive & before)
    source = order[rises]
    own = source < count
    boot = np.where(own, spans.boot_ms[np.minimum(source, count - 1)], time[rises] - BOOT_TAKES_MS)
    boots = np.where(own, spans.boots[np.minimum(source, count - 1)], True)
    made = Spans(device[rises], time[rises], time[falls], boot, boots)
    return made.take(made.start_ms < made.end_ms)
