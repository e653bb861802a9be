"""What a device's reports make of its row: when it is heard, in which boot, and so in which cell it counts.

Reports themselves are not simulated. A device that runs checks in at its own phase; from that follow the few moments at
which its time since boot or its recency changes class. What moves with the minute (`ingest.grouping.cohorts`) is put
just before the minute it moves with, so that a step counts what lies before its watermark.
"""

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from detectors.backtest.cohort.people import Chunk
from detectors.backtest.cohort.uptime import NEVER, Lookup, Spans, last_check_in, next_check_in
from detectors.backtest.draws import Bools, Ints
from ingest.grouping.cells import DAY_SECONDS, FRESH_SECONDS, RECENT_SECONDS, STALE_SECONDS

MINUTE_MS: Final = 60_000
# Not heard of for 26 hours, or never: counts nowhere.
ABSENT: Final = -1
_MINUTE: Final = 60


class Said(NamedTuple):
    """Reports beside check-ins and crashes: who made them when, and when they arrived; shapes (n,)."""

    devices: Ints
    made_ms: Ints
    arrives_ms: Ints


@dataclass(frozen=True, slots=True)
class Runs:
    """Spans in which something was heard, sorted by device and time; shape (runs,).

    Attributes:
        first_ms, last_ms: first and last report in it.
        from_ms, to_ms: first and last check-in; `NEVER` without any.
        next_ms: first report of the device's next run, `NEVER` for none.
        boot_ms: when its boot began, by the device's clock.
    """

    device: Ints
    first_ms: Ints
    last_ms: Ints
    from_ms: Ints
    to_ms: Ints
    next_ms: Ints
    boot_ms: Ints


@dataclass(frozen=True, slots=True)
class Moves:
    """Moments at which devices change class; shape (moves,), sorted by device and time.

    Attributes:
        state: band of time since boot times two, plus one if stale; `ABSENT` for not at risk.
    """

    device: Ints
    at_ms: Ints
    state: Ints


def runs_of(spans: Spans, chunk: Chunk, said: list[Said]) -> Runs:
    """Return the runs of a chunk's devices.

    Args:
        spans: when they run.
        chunk: the devices.
        said: reports beside the check-ins; one that comes late still tells when its device was there.
    """
    phase = chunk.phase_ms[spans.device]
    from_ms = next_check_in(phase, chunk.every_ms, spans.start_ms)
    to_ms = last_check_in(phase, chunk.every_ms, spans.end_ms)
    checks = from_ms < spans.end_ms
    from_ms, to_ms = np.where(checks, from_ms, NEVER), np.where(checks, to_ms, NEVER)
    first, last = from_ms.copy(), np.where(checks, to_ms, -1)
    lookup = Lookup(spans)
    for devices, made_ms, arrives_ms in said:
        place = lookup.at(devices, made_ms)
        heard = place >= 0
        np.maximum.at(last, place[heard], made_ms[heard])
        heard &= arrives_ms == made_ms
        np.minimum.at(first, place[heard], made_ms[heard])
    kept = np.flatnonzero((first < NEVER) & ~chunk.unheard[spans.device])
    device, first, last = spans.device[kept], first[kept], last[kept]
    follows = np.concatenate([device[1:] == device[:-1], [False]]) if len(device) else np.zeros(0, dtype=np.bool_)
    after = np.concatenate([first[1:], [NEVER]]) if len(device) else first
    boot = spans.boot_ms[kept] + np.minimum(chunk.skew_ms[device], 0)
    return Runs(device, first, last, from_ms[kept], to_ms[kept], np.where(follows, after, NEVER), boot)


def _boundary(at_s: Ints) -> Ints:
    """Return the moment before the first full minute at or after `at_s`, in milliseconds."""
    return -(-at_s // _MINUTE) * MINUTE_MS - 1


def moves_of(runs: Runs, chunk: Chunk, end_ms: int) -> Moves:
    """Return when the devices' rows change class, up to `end_ms`."""
    slow_s = np.minimum(chunk.skew_ms[runs.device], 0) // 1000
    heard_s, boot_s = runs.last_ms // 1000 + slow_s, runs.boot_ms // 1000
    stale = _boundary(heard_s + RECENT_SECONDS + 1)
    gone = _boundary(heard_s + STALE_SECONDS + 1)
    # A clock so slow that even a check-in looks old makes a device stale all the time.
    always = slow_s * 1000 < chunk.every_ms - RECENT_SECONDS * 1000

    def state(at_ms: Ints) -> Ints:
        age = (at_ms + 1) // MINUTE_MS * _MINUTE - boot_s
        band = (age >= FRESH_SECONDS).astype(np.int64) + (age >= DAY_SECONDS)
        found: Ints = band * 2 + ((at_ms >= stale) | always)
        return found

    everyone = np.ones(len(runs.device), dtype=np.bool_)
    parts: list[tuple[Ints, Ints, Bools]] = [(runs.first_ms, state(runs.first_ms), everyone)]
    parts += [
        (at_ms, state(at_ms), (at_ms > runs.first_ms) & (at_ms < np.minimum(runs.next_ms, gone)))
        for at_ms in (_boundary(boot_s + FRESH_SECONDS), _boundary(boot_s + DAY_SECONDS), stale)
    ]
    parts.append((gone, np.full(len(gone), ABSENT), gone < runs.next_ms))
    device = np.concatenate([runs.device[keep] for _, _, keep in parts])
    at = np.concatenate([at_ms[keep] for at_ms, _, keep in parts])
    states = np.concatenate([value[keep] for _, value, keep in parts])
    inside = at < end_ms
    device, at, states = device[inside], at[inside], states[inside]
    order = np.lexsort((at, device))
    return Moves(device[order], at[order], states[order])
