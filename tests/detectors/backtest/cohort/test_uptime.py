"""When simulated devices run: cuts and lookups against a second-by-second model."""

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from detectors.backtest.cohort.uptime import NEVER, Lookup, Spans, cut, last_check_in, next_check_in

END = 60
spans_drawn = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, END - 1), st.integers(1, 20)).map(lambda s: (s[0], s[1], s[1] + s[2])),
    max_size=8,
)
cuts_drawn = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, END), st.one_of(st.integers(1, 15), st.none())), max_size=8
)


def _column(rows: list[Any], place: int) -> Any:
    return np.array([row[place] for row in rows], dtype=np.int64)


def _spans(drawn: list[tuple[int, int, int]]) -> Spans:
    """Return spans of the drawn times; of those that overlap only the first is kept."""
    kept: list[tuple[int, int, int]] = []
    for device, start, end in sorted(drawn):
        if not kept or kept[-1][0] != device or start > kept[-1][2]:
            kept.append((device, start, end))
    starts = _column(kept, 1)
    return Spans(_column(kept, 0), starts, _column(kept, 2), starts - 5, np.ones(len(kept), dtype=np.bool_))


def _runs(spans: Spans) -> set[tuple[int, int]]:
    rows = zip(spans.device.tolist(), spans.start_ms.tolist(), spans.end_ms.tolist(), strict=True)
    return {(device, at) for device, start, end in rows for at in range(start, end)}


@given(drawn=spans_drawn, cuts=cuts_drawn)
def test_a_cut_takes_out_its_time_and_nothing_else(
    drawn: list[tuple[int, int, int]], cuts: list[tuple[int, int, int | None]]
) -> None:
    spans = _spans(drawn)
    ups = [NEVER if lasts is None else at + lasts for _, at, lasts in cuts]
    found = cut(spans, _column(cuts, 0), _column(cuts, 1), np.array(ups, dtype=np.int64))
    gone = {(device, at) for (device, down, _), up in zip(cuts, ups, strict=True) for at in range(down, min(up, 99))}
    assert _runs(found) == _runs(spans) - gone
    assert bool((np.diff(found.keys) > 0).all())
    # A span that begins where a cut ends begins with a boot of its own.
    begins = set(zip(spans.device.tolist(), spans.start_ms.tolist(), strict=True))
    for device, start, boot in zip(found.device.tolist(), found.start_ms.tolist(), found.boot_ms.tolist(), strict=True):
        assert ((device, start) in begins) or boot == start - 15_000


@given(drawn=spans_drawn, device=st.integers(0, 3), at=st.integers(0, END + 20))
def test_a_lookup_finds_the_span_or_the_next_one(drawn: list[tuple[int, int, int]], device: int, at: int) -> None:
    spans = _spans(drawn)
    lookup, runs = Lookup(spans), _runs(spans)
    devices, times = np.array([device]), np.array([at])
    assert bool(lookup.at(devices, times)[0] >= 0) is ((device, at) in runs)
    later = [time for who, time in runs if who == device and time >= at]
    assert lookup.when(devices, times)[0] == min(later, default=NEVER)


@given(phase=st.integers(0, 1000), every=st.integers(1, 300), at=st.integers(0, 5000))
def test_check_ins_come_at_the_devices_own_phase(phase: int, every: int, at: int) -> None:
    phases, times = np.array([phase]), np.array([at])
    after, before = int(next_check_in(phases, every, times)[0]), int(last_check_in(phases, every, times)[0])
    assert (after - phase) % every == 0
    assert at <= after < at + every
    assert (before - phase) % every == 0
    assert at - every <= before < at
