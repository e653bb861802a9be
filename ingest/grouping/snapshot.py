"""A partition's state as entries of the compacted fleet topic, and back.

Three kinds of entry, by key: `P/chunk/N` (2,048 rows, by columns, zstd), `P/words/NAME/PAGE` (a page of a dictionary)
and `P/memory` (all else). Chunks are written round-robin, about once a minute each, whether dirty or not: at a steady
load every chunk is dirty. Dictionaries come before the chunks that use them, and the memory with every share, in the
same append, so no chunk is ever newer than the memory. A chunk that came to be since the last share is written with
the next one, whatever is due: reading on from the oldest chunk would otherwise pass by the devices of one that was
never written.

Each entry carries the watermark and offsets of the step it was taken after, and every chunk the gateways' ticks there:
reading on from the oldest chunk cuts the same steps again.
"""

from collections.abc import Iterable, Iterator, Sequence

import msgspec
import numpy as np
import numpy.typing as npt
import zstandard

from ingest.events import RolloutNotice
from ingest.grouping.cohorts import Watched
from ingest.grouping.fleet import ROW
from ingest.grouping.partition import Partition

CHUNK_ROWS = 2048
PAGE_WORDS = 2048
STATE_SCHEMA = 1


class StateError(Exception):
    """The fleet topic holds a state that this version can't read; the message says what to do."""


class Chunk(msgspec.Struct, kw_only=True):
    """Rows of one chunk, and where the input stood."""

    schema: int = STATE_SCHEMA
    watermark_ms: int
    offsets: dict[str, int]
    activity_ticks: dict[str, int]
    crash_ticks: dict[str, int]
    rows: int
    packed: bytes


class WatchedState(msgspec.Struct, kw_only=True):
    """A watched rollout."""

    notice: RolloutNotice
    watched_from_ms: int
    crash_total: int


class MemoryState(msgspec.Struct, kw_only=True):
    """What a partition keeps beside rows and dictionaries, and where the input stood."""

    schema: int = STATE_SCHEMA
    watermark_ms: int
    offsets: dict[str, int]
    activity_ticks: dict[str, int]
    crash_ticks: dict[str, int]
    silence_from_s: int
    pushes: list[tuple[int, int, list[int]]]
    sites: dict[str, int]
    watched: list[WatchedState]


_chunk = msgspec.msgpack.Decoder(Chunk)
_memory = msgspec.msgpack.Decoder(MemoryState)
_page = msgspec.msgpack.Decoder(list[str])


class Snapshots:
    """Writes one partition's entries in shares, and loads them."""

    def __init__(self, partition: Partition) -> None:
        """Attach to a partition."""
        self._partition = partition
        self._compressor = zstandard.ZstdCompressor(level=1)
        self._decompressor = zstandard.ZstdDecompressor()
        self._next = 0
        self._due = 0.0
        self._pages_written: dict[str, int] = {}
        self._chunk_offsets: dict[int, dict[str, int]] = {}

    def share(self, part: float) -> list[tuple[bytes, bytes]]:
        """Return the entries due: dictionary pages that grew, the memory, new chunks, `part` of all chunks (0 to 1)."""
        partition = self._partition
        if partition.population.rows_seen_ms is not None or not partition.population.memory.watermark_ms:
            return []
        prefix = str(partition.bounds.partition)
        chunks = -(-partition.population.fleet.rows_end // CHUNK_ROWS)
        self._due = min(self._due + part * chunks, float(chunks))
        entries = list(self._pages(prefix))
        entries.append((f"{prefix}/memory".encode(), msgspec.msgpack.encode(self._memory())))
        due = [number for number in range(chunks) if number not in self._chunk_offsets]
        while self._due >= 1 and chunks:
            self._next = self._next % chunks
            due.append(self._next)
            self._next += 1
            self._due -= 1
        for number in dict.fromkeys(due):
            entries.append((f"{prefix}/chunk/{number}".encode(), self._pack(number)))
            self._chunk_offsets[number] = dict(partition.offsets)
        return entries

    def oldest(self) -> dict[str, int]:
        """Return the offsets that every chunk has passed; empty while a chunk was never written."""
        chunks = -(-self._partition.population.fleet.rows_end // CHUNK_ROWS)
        if chunks == 0 or len(self._chunk_offsets) < chunks:
            return {}
        return {word: min(o[word] for o in self._chunk_offsets.values()) for word in ("activity", "crashes")}

    def _pages(self, prefix: str) -> Iterator[tuple[bytes, bytes]]:
        for name, words in self._partition.population.words.named().items():
            done = self._pages_written.get(name, 0)
            if len(words.texts) == done:
                continue
            for page in range(done // PAGE_WORDS, -(-len(words.texts) // PAGE_WORDS)):
                texts = words.texts[page * PAGE_WORDS : (page + 1) * PAGE_WORDS]
                yield f"{prefix}/words/{name}/{page}".encode(), msgspec.msgpack.encode(texts)
            self._pages_written[name] = len(words.texts)

    def _memory(self) -> MemoryState:
        partition = self._partition
        watched = [
            WatchedState(notice=w.notice, watched_from_ms=w.watched_from_ms, crash_total=w.crash_total)
            for w in partition.population.cohorts.watched.values()
        ]
        return MemoryState(
            watermark_ms=partition.population.memory.watermark_ms,
            offsets=dict(partition.offsets),
            activity_ticks=self._partition.ticks["activity"],
            crash_ticks=self._partition.ticks["crashes"],
            silence_from_s=partition.population.memory.silence_from_s,
            pushes=partition.population.memory.pushes,
            sites=partition.population.memory.sites.last,
            watched=watched,
        )

    def _pack(self, number: int) -> bytes:
        start = number * CHUNK_ROWS
        raw = self._partition.population.fleet.pack(start, start + CHUNK_ROWS)
        columns = np.frombuffer(raw, np.uint64).reshape(-1, ROW.itemsize // 8).T
        return msgspec.msgpack.encode(
            Chunk(
                watermark_ms=self._partition.population.memory.watermark_ms,
                offsets=dict(self._partition.offsets),
                activity_ticks=self._partition.ticks["activity"],
                crash_ticks=self._partition.ticks["crashes"],
                rows=columns.shape[1],
                packed=self._compressor.compress(np.ascontiguousarray(columns).tobytes()),
            )
        )

    def load(self, entries: Iterable[tuple[Sequence[str], bytes]]) -> dict[str, int]:
        """Load the partition's state; return the offset to read next by topic word (empty without a state).

        Args:
            entries: key (split at `/`, without the partition) and value of each entry.

        Raises:
            StateError: a chunk has no memory beside it, or a schema is not known.
        """
        chunks: dict[int, Chunk] = {}
        packed: dict[int, bytes] = {}
        pages: dict[str, dict[int, list[str]]] = {}
        memory: MemoryState | None = None
        for key, value in entries:
            if key[0] == "memory":
                memory = _memory.decode(value)
            elif key[0] == "words":
                pages.setdefault(key[1], {})[int(key[2])] = _page.decode(value)
            elif key[0] == "chunk":
                chunk = _chunk.decode(value)
                packed[int(key[1])] = self._unpack(chunk)
                chunk.packed = b""
                chunks[int(key[1])] = chunk
        if memory is None:
            if chunks:
                raise StateError("the fleet topic has chunks but no memory: restore the data folder from a backup")
            return {}
        self._load_words(pages)
        self._partition.population.fleet.load(packed, CHUNK_ROWS)
        self._load_memory(memory)
        self._chunk_offsets = {number: chunk.offsets for number, chunk in chunks.items()}
        return self._begin_catching_up(memory, chunks)

    def _unpack(self, chunk: Chunk) -> bytes:
        if chunk.schema != STATE_SCHEMA:
            raise StateError(f"a fleet chunk has schema {chunk.schema}, this version reads {STATE_SCHEMA}: upgrade it")
        raw = self._decompressor.decompress(chunk.packed)
        columns = np.frombuffer(raw, np.uint64).reshape(ROW.itemsize // 8, chunk.rows)
        return np.ascontiguousarray(columns.T).tobytes()

    def _load_words(self, pages: dict[str, dict[int, list[str]]]) -> None:
        words = self._partition.population.words
        for name, dictionary in words.named().items():
            texts = [text for number in sorted(pages.get(name, {})) for text in pages[name][number]]
            if texts:
                dictionary.load(texts)
            self._pages_written[name] = len(texts)
        words.derive()

    def _load_memory(self, state: MemoryState) -> None:
        partition = self._partition
        partition.population.memory.watermark_ms = state.watermark_ms
        partition.population.memory.silence_from_s = state.silence_from_s
        partition.population.memory.pushes = state.pushes
        partition.population.memory.sites.last = state.sites
        partition.offsets = dict(state.offsets)
        for kept in state.watched:
            notice = kept.notice
            update = partition.population.words.update_number(notice.vendor, notice.product, notice.version)
            watched = Watched(notice, update, int(partition.population.words.product_of[update]), kept.watched_from_ms)
            watched.crash_total = kept.crash_total
            partition.population.cohorts.watched[notice.rollout] = watched

    def _begin_catching_up(self, memory: MemoryState, chunks: dict[int, Chunk]) -> dict[str, int]:
        """Point the partition at its oldest chunk, with the ticks that stood there."""
        partition = self._partition
        partition.caught_up_at_ms = memory.watermark_ms
        oldest = min(chunks.values(), key=lambda chunk: chunk.watermark_ms, default=None)
        start: Chunk | MemoryState = memory if oldest is None else oldest
        rows_end = partition.population.fleet.rows_end
        seen = np.zeros(-(-rows_end // CHUNK_ROWS) + 1, np.int64)
        for number, chunk in chunks.items():
            seen[number] = chunk.watermark_ms

        def rows_seen_ms(numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
            return seen[np.minimum(numbers // CHUNK_ROWS, len(seen) - 1)]

        partition.population.rows_seen_ms = rows_seen_ms
        partition.activity.ticks.load(start.activity_ticks, start.watermark_ms)
        partition.crashes.ticks.load(start.crash_ticks, start.watermark_ms)
        partition.ticks = {"activity": memory.activity_ticks, "crashes": memory.crash_ticks}
        return dict(start.offsets)
