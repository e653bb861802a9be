"""How many devices were at risk, by cell, tenant group and time: what a crash's exposed share is looked up in.

Counts are stated by steps of event time. They are kept as rows over all columns (a cell and a tenant group each): a row
for each second in which something changed for ten minutes, then for each minute for two hours, then for each quarter of
an hour for 26 hours. A row is an envelope over its time: the most known exposed and the fewest controls, since
overstating the exposed share costs crashes and understating it makes false kills. Bounded by rows times columns.
"""

from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from detectors.exposure import Counts

SECONDS_KEPT_MS: Final = 600_000
MINUTES_KEPT_MS: Final = 2 * 3_600_000
KEPT_MS: Final = 26 * 3_600_000
CELLS_MAX: Final = 256
COUNT_MAX: Final = 2**31 - 1
_SECOND: Final = 1000
_MINUTE: Final = 60_000
_QUARTER: Final = 900_000
_COMPACT_ROWS: Final = 128

Rows = npt.NDArray[np.int32]


class HistoryState(msgspec.Struct, kw_only=True):
    """What `CountHistory.snapshot` gives."""

    columns: int
    compacted_rows: int
    times_ms: list[int]
    known: bytes
    control: bytes


class CountHistory:
    """Envelopes of known exposed and control counts, by column in the order in which columns were met."""

    def __init__(self) -> None:
        self.times_ms: list[int] = []
        self._compacted_rows = 0
        self._known: Rows = np.zeros((0, 0), dtype=np.int32)
        self._control: Rows = np.zeros((0, 0), dtype=np.int32)

    def state(self, at_ms: int, before: tuple[Counts, Counts], after: tuple[Counts, Counts]) -> None:
        """State that by `at_ms` the counts went from `before` to `after`.

        Args:
            at_ms: event time, not before the one stated last.
            before: known exposed and control counts in force until now, shape (columns,) each.
            after: the counts in force from now on.
        """
        bucket = at_ms // _SECOND * _SECOND
        cells = len(after[0])
        before = np.minimum(before[0], COUNT_MAX), np.minimum(before[1], COUNT_MAX)
        after = np.minimum(after[0], COUNT_MAX), np.minimum(after[1], COUNT_MAX)
        if not self.times_ms:
            before = after
        if not self.times_ms or bucket > self.times_ms[-1]:
            self._open_row(bucket, cells)
            row = len(self.times_ms) - 1
            self._known[row, :cells] = np.maximum(before[0], after[0])
            self._control[row, :cells] = np.minimum(before[1], after[1])
            return
        self._reserve(len(self.times_ms), cells)
        row = len(self.times_ms) - 1
        self._known[row, :cells] = np.maximum(self._known[row, :cells], after[0])
        self._control[row, :cells] = np.minimum(self._control[row, :cells], after[1])

    def envelope(self, from_ms: int, to_ms: int, columns: npt.NDArray[np.int64]) -> tuple[Counts, Counts]:
        """Return the most known exposed and the fewest controls in force at any time from `from_ms` to `to_ms`.

        Args:
            from_ms: the row in force then is the first one looked at.
            to_ms: rows that begin later are not looked at.
            columns: the columns asked for, shape (n,).
        """
        if not self.times_ms:
            zeros: Counts = np.zeros(len(columns), dtype=np.int64)
            return zeros, zeros.copy()
        times = np.array(self.times_ms, dtype=np.int64)
        first = max(0, int(np.searchsorted(times, from_ms, side="right")) - 1)
        last = max(first, int(np.searchsorted(times, to_ms, side="right")) - 1)
        known = self._known[first : last + 1][:, columns].max(axis=0).astype(np.int64)
        control = self._control[first : last + 1][:, columns].min(axis=0).astype(np.int64)
        return known, control

    @staticmethod
    def grain_ms(at_ms: int, now_ms: int) -> int:
        """Return how finely a time is still known: by the second, the minute or the quarter of an hour."""
        age_ms = now_ms - at_ms
        return _SECOND if age_ms <= SECONDS_KEPT_MS else _MINUTE if age_ms <= MINUTES_KEPT_MS else _QUARTER

    def _open_row(self, bucket: int, cells: int) -> None:
        if len(self.times_ms) - self._compacted_rows > SECONDS_KEPT_MS // _SECOND + _COMPACT_ROWS:
            self._compact(bucket)
        self.times_ms.append(bucket)
        self._reserve(len(self.times_ms), cells)

    def _reserve(self, rows: int, cells: int) -> None:
        have_rows, have_cells = self._known.shape
        if rows <= have_rows and cells <= have_cells:
            return
        shape = (have_rows if rows <= have_rows else max(rows, 16, have_rows * 2), max(cells, have_cells))
        for name in ("_known", "_control"):
            grown: Rows = np.zeros(shape, dtype=np.int32)
            grown[:have_rows, :have_cells] = getattr(self, name)
            setattr(self, name, grown)

    def _compact(self, now_ms: int) -> None:
        times = np.array(self.times_ms, dtype=np.int64)
        # A quarter of an hour begins at the same time as its first minute, so what was once put together stays so.
        buckets = np.where(times < now_ms - SECONDS_KEPT_MS, times // _MINUTE * _MINUTE, times)
        buckets = np.where(times < now_ms - MINUTES_KEPT_MS - _QUARTER, times // _QUARTER * _QUARTER, buckets)
        starts = np.flatnonzero(np.concatenate([[True], buckets[1:] != buckets[:-1]]))
        used = len(times)
        known = np.maximum.reduceat(self._known[:used], starts, axis=0)
        control = np.minimum.reduceat(self._control[:used], starts, axis=0)
        kept = buckets[starts]
        # The row in force when the history begins stays, whatever its age.
        first = max(0, int(np.searchsorted(kept, now_ms - KEPT_MS, side="right")) - 1)
        self.times_ms = kept[first:].tolist()
        self._known, self._control = known[first:], control[first:]
        self._compacted_rows = int(np.count_nonzero(kept[first:] < now_ms - SECONDS_KEPT_MS))

    def snapshot(self) -> HistoryState:
        """Return the state; `restore` of it answers every question alike."""
        rows, cells = len(self.times_ms), self._known.shape[1]
        return HistoryState(
            columns=cells,
            compacted_rows=self._compacted_rows,
            times_ms=self.times_ms,
            known=self._known[:rows].tobytes(),
            control=self._control[:rows].tobytes(),
        )

    @classmethod
    def restore(cls, state: HistoryState) -> "CountHistory":
        """Build the history that `state` was taken from."""
        history = cls()
        history.times_ms = list(state.times_ms)
        history._compacted_rows = state.compacted_rows
        shape = (len(state.times_ms), state.columns)
        history._known = np.frombuffer(state.known, dtype=np.int32).reshape(shape).copy()
        history._control = np.frombuffer(state.control, dtype=np.int32).reshape(shape).copy()
        return history
