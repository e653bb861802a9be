"""The fleet's state of one partition: a packed row of 80 bytes a device, and the index from pseudonym to row.

Rows lie in one array, so that reading or changing a device touches two cache lines however large the fleet is (columns
of their own would touch fifteen). The index is open addressing with linear probing on 32-bit row numbers, filled to at
most 55 %: about 8 bytes a device. Both grow in small steps, by `realloc`, so the peak stays near the size.

Invariant: `index` finds exactly the rows whose key is set, and a row number is never given to another device.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

SLOTS = 4  # products under watch that a device's row has room for
ROW = np.dtype(
    [
        ("key", "<u8"),
        ("seq_top", "<u8"),
        ("seq_bits", "<u8"),
        ("boot_at", "<u4"),
        ("heard", "<u4"),
        ("crashed", "<u4"),
        ("os_build", "<u2"),
        ("model", "<u2"),
        ("tenant", "<u2"),
        ("ring", "u1"),
        ("form", "u1"),
        ("since", "<u4", (SLOTS,)),
        ("update", "<u2", (SLOTS,)),
        ("base", "<u2", (SLOTS,)),
        ("state", "u1", (SLOTS,)),
    ]
)
_WORDS = ROW.itemsize // 8
_GROW_ROWS = 8192
_LOAD_MAX = 0.55
_INDEX_GROWTH = 1.2
_INDEX_MIN = 1024
# Rows looked at at a time: 1.3 MB, so that what a pass computes of them stays in a processor's own cache.
_SCAN_ROWS = 16_384

Keys = npt.NDArray[np.uint64]
RowNumbers = npt.NDArray[np.int64]
Rows = npt.NDArray[Any]  # of dtype ROW


class FleetFullError(Exception):
    """The fleet's state holds as many devices as it may."""


class Fleet:
    """Devices of one partition: rows and index."""

    def __init__(self, devices_max: int) -> None:
        """Make an empty fleet of at most `devices_max` devices."""
        self._devices_max = devices_max
        self._words: npt.NDArray[np.uint64] = np.zeros((0, _WORDS), np.uint64)
        self._index: npt.NDArray[np.uint32] = np.zeros(_INDEX_MIN, np.uint32)
        self._gaps: list[tuple[int, int]] = []  # rows that a snapshot lacked, to be filled first, in order
        self.devices = 0
        self.rows_end = 0

    @property
    def nbytes(self) -> int:
        """Bytes allocated for rows and index."""
        return self._words.nbytes + self._index.nbytes

    @property
    def room(self) -> int:
        """How many devices more it takes."""
        return max(0, self._devices_max - self.devices)

    @property
    def rows(self) -> Rows:
        """All rows up to `rows_end`, as a view; not to be kept across `add`."""
        return self._words[: self.rows_end].view(ROW)[:, 0]

    def take(self, numbers: RowNumbers) -> Rows:
        """Copy the rows of the given numbers."""
        return self._words[numbers].view(ROW)[:, 0]

    def put(self, numbers: RowNumbers, rows: Rows) -> None:
        """Write `rows` back to the given, distinct row numbers."""
        self._words[numbers] = rows.view(np.uint64).reshape(-1, _WORDS)

    def find(self, keys: Keys) -> RowNumbers:
        """Return the row number of each key, -1 where the device is unknown."""
        if self.devices == 0 or len(keys) == 0:
            return np.full(len(keys), -1, np.int64)
        # Most are found at the first place, where no list of those still sought is needed yet.
        slots = self._slots_of(keys)
        found, again = self._probe(keys, slots)
        open_ = np.flatnonzero(again)
        slots = slots[open_]
        while len(open_):
            slots += 1
            slots[slots == len(self._index)] = 0
            numbers, again = self._probe(keys[open_], slots)
            found[open_] = numbers
            open_, slots = open_[again], slots[again]
        return found

    def _probe(self, keys: Keys, slots: RowNumbers) -> tuple[RowNumbers, npt.NDArray[np.bool_]]:
        """Look at one place for each key: return the row that is its own there, else -1; and who must look further."""
        numbers = self._index.take(slots).astype(np.int64) - 1
        own = self._words.reshape(-1).take(np.maximum(numbers, 0) * _WORDS) == keys
        again = (numbers >= 0) & ~own
        numbers[~own] = -1
        return numbers, again

    def add(self, keys: Keys) -> RowNumbers:
        """Give rows to distinct keys that `find` does not know, in the order given.

        Raises:
            FleetFullError: there is no room for all of them; nothing was added.
        """
        if self.devices + len(keys) > self._devices_max:
            raise FleetFullError(f"the fleet's state holds its {self._devices_max} devices; raise devices_max")
        numbers = self._next_rows(len(keys))
        end = int(numbers.max()) + 1 if len(numbers) else 0
        self._reserve(end)
        self._words[numbers, 0] = keys
        self.rows_end = max(self.rows_end, end)
        self.devices += len(keys)
        if self.devices > _LOAD_MAX * len(self._index):
            self._rebuild_index()
        else:
            self._enter(keys, numbers)
        return numbers

    def load(self, chunks: dict[int, bytes], rows_per_chunk: int) -> None:
        """Replace all rows by packed chunks (chunk number to row bytes), and rebuild the index.

        Rows that a chunk lacks because it was written before they existed are given first when devices are added.
        """
        self.rows_end = max((n * rows_per_chunk + len(b) // ROW.itemsize for n, b in chunks.items()), default=0)
        self._words = np.zeros((0, _WORDS), np.uint64)
        self._reserve(self.rows_end)
        present = np.zeros(self.rows_end, bool)
        for number, packed in chunks.items():
            start = number * rows_per_chunk
            words = np.frombuffer(packed, np.uint64).reshape(-1, _WORDS)
            self._words[start : start + len(words)] = words
            present[start : start + len(words)] = True
        self.devices = int(present.sum())
        edges = np.flatnonzero(np.diff(np.concatenate(([1], present.astype(np.int8), [1]))))
        self._gaps = [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]
        self._rebuild_index(np.flatnonzero(present))

    def pack(self, start: int, end: int) -> bytes:
        """Return the bytes of rows `start` to `end` (exclusive), bounded by what there is."""
        return self._words[start : min(end, self.rows_end)].tobytes()

    def _slots_of(self, keys: Keys) -> npt.NDArray[np.int64]:
        low = keys & np.uint64(0xFFFF_FFFF)
        return ((low * np.uint64(len(self._index))) >> np.uint64(32)).astype(np.int64)

    def _next_rows(self, count: int) -> RowNumbers:
        parts: list[RowNumbers] = []
        while count and self._gaps:
            start, end = self._gaps.pop(0)
            used = min(count, end - start)
            parts.append(np.arange(start, start + used, dtype=np.int64))
            count -= used
            if start + used < end:
                self._gaps.insert(0, (start + used, end))
        parts.append(np.arange(self.rows_end, self.rows_end + count, dtype=np.int64))
        return np.concatenate(parts)

    def _reserve(self, rows: int) -> None:
        if rows > len(self._words):
            size = -(-rows // _GROW_ROWS) * _GROW_ROWS
            self._words.resize((size, _WORDS), refcheck=False)

    def _rebuild_index(self, numbers: RowNumbers | None = None) -> None:
        size = len(self._index)
        while self.devices > _LOAD_MAX * size:
            size = int(size * _INDEX_GROWTH) + 1
        if numbers is None:
            numbers = np.arange(self.rows_end, dtype=np.int64)
            for start, end in self._gaps:
                numbers = numbers[(numbers < start) | (numbers >= end)]
        self._index = np.zeros(size, np.uint32)
        for part in np.array_split(numbers, max(1, len(numbers) // 262_144)):
            self._enter(self._words[part, 0], part)

    def _enter(self, keys: Keys, numbers: RowNumbers) -> None:
        """Enter distinct new keys into the index; whoever loses a slot to another tries the next one."""
        slots = self._slots_of(keys)
        entries = (numbers + 1).astype(np.uint32)
        while len(entries):
            free = self._index[slots] == 0
            self._index[slots[free]] = entries[free]
            lost = self._index[slots] != entries
            entries, slots = entries[lost], slots[lost] + 1
            slots[slots == len(self._index)] = 0


def scan(fleet: Fleet) -> Iterator[Rows]:
    """Yield all devices' rows in bounded parts, not to be changed; empty rows are left out."""
    rows = fleet.rows
    for start in range(0, len(rows), _SCAN_ROWS):
        part = rows[start : start + _SCAN_ROWS]
        picked = part["key"] != 0
        yield part if picked.all() else part[picked]
