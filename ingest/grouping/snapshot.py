"""A partition's state as entries of the compacted fleet topic, and back.

Four kinds of entry, by key: `P/chunk/N` (2,048 rows, by columns, zstd), `P/words/NAME/PAGE` (a page of a dictionary),
`P/pushes` (declared pushes, when they changed) and `P/memory` (all else). Chunks are written round-robin, about once a
minute each, whether dirty or not: at a steady load every chunk is dirty. Dictionaries come before the chunks that use
them, and the memory with every share that has a chunk, in the same append, so no chunk is ever newer than the memory.

Each chunk carries the place in the input up to which its rows have seen it. The memory carries the lowest of these,
from which reading starts again. A chunk that was never written counts as of the share before its first row came: until
all were written once, reading starts there, or its devices would be forgotten.

Schema 3 differs from 2 in that a chunk names the fields of its rows. Both are read; 2 is written until `newest_schemas`
is set, so that workers of the version before can take over and give back partitions while an upgrade rolls. What this
release adds to the memory (rivals, margins) it adds to both: the release before ignores it, and what it then gives back
without is chosen again at the next minute.
"""

from collections.abc import Iterable, Iterator, Sequence

import msgspec
import numpy as np
import zstandard

from ingest.events import RolloutNotice
from ingest.grouping.fleet import ROW
from ingest.grouping.layout import LAYOUT_2, Layout, as_rows, layout_of
from ingest.grouping.partition import Partition, Place
from ingest.grouping.population import CatchingUp, Push
from ingest.grouping.rivals import EraState, era_of

CHUNK_ROWS = 2048
PAGE_WORDS = 2048
# A small partition has no chunk due at most shares. Its memory alone is worth a transaction only now and then.
MEMORY_SHARES = 10
STATE_SCHEMA = 3
# What is written until a person says that every worker reads the newest; the release after this one writes it anyway.
STATE_SCHEMA_WRITTEN = 2
STATE_SCHEMAS_READ = frozenset({STATE_SCHEMA, STATE_SCHEMA_WRITTEN})


class StateError(Exception):
    """The fleet topic holds a state that this version can't read; the message says what to do."""


class Chunk(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Rows of one chunk, and where the input stood.

    Attributes:
        layout: the rows' fields, from schema 3 on, so that a version whose rows have others can read them.
    """

    schema: int
    place: Place
    rows: int
    packed: bytes
    layout: Layout = []


class WatchedState(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A watched rollout.

    Attributes:
        eras: how its cells were split; empty while they are whole and always were.
    """

    notice: RolloutNotice
    watched_from_ms: int
    crash_total: int
    eras: list[EraState] = []


class MemoryState(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What a partition keeps beside rows and dictionaries.

    Attributes:
        place: where the input stood.
        start: where reading starts again: the lowest place of any chunk.
        cells: circumstances met, in the order of their cells' numbers.
        margins: numbers of the builds and models that each product keeps apart, by its number.
    """

    schema: int
    place: Place
    start: Place
    silence_from_s: int
    kept: list[tuple[int, list[int]]]
    sites: dict[int, int]
    cells: list[int]
    watched: list[WatchedState]
    margins: dict[int, tuple[list[int], list[int]]] = {}


class _Schema(msgspec.Struct):
    schema: int = 0


_schema = msgspec.msgpack.Decoder(_Schema)
_chunk = msgspec.msgpack.Decoder(Chunk)
_memory = msgspec.msgpack.Decoder(MemoryState)
_page = msgspec.msgpack.Decoder(list[str])
_pushes = msgspec.msgpack.Decoder(list[Push])


class Snapshots:
    """Writes one partition's entries in shares, and loads them."""

    def __init__(self, partition: Partition, schema: int = STATE_SCHEMA_WRITTEN) -> None:
        """Attach to a partition.

        Args:
            partition: whose state it is.
            schema: what is written; any that is known is read.

        Raises:
            ValueError: this version does not write that schema.
        """
        if schema not in STATE_SCHEMAS_READ:
            raise ValueError(
                f"state of schema {schema} is not written by this version: {sorted(STATE_SCHEMAS_READ)} are"
            )
        self._partition = partition
        self._schema = schema
        self._compressor = zstandard.ZstdCompressor(level=1)
        self._decompressor = zstandard.ZstdDecompressor()
        self._next = 0
        self._due = 0.0
        self._pages_written: dict[str, int] = {}
        self._pushes_written = 0
        # The first share is always worth its memory.
        self._shares_unwritten = MEMORY_SHARES
        self._places: list[Place] = []
        self._share_before = Place()

    def share(self, part: float) -> list[tuple[bytes, bytes]]:
        """Return the entries due: pages and pushes that changed, `part` of all chunks (0 to 1), and the memory."""
        partition = self._partition
        population = partition.population
        if population.catching_up is not None or not population.memory.watermark_ms:
            return []
        prefix = str(partition.bounds.partition)
        chunks = -(-population.fleet.rows_end // CHUNK_ROWS)
        place = partition.place()
        self._places.extend(self._share_before for _ in range(chunks - len(self._places)))
        self._share_before = place
        self._due = min(self._due + part * chunks, float(chunks))
        entries = list(self._pages(prefix))
        while self._due >= 1 and chunks:
            self._next = self._next % chunks
            entries.append((f"{prefix}/chunk/{self._next}".encode(), self._pack(self._next, place)))
            self._places[self._next] = place
            self._next += 1
            self._due -= 1
        start = min(self._places, key=lambda one: one.watermark_ms, default=place)
        population.memory.forget(start.watermark_ms)
        if self._pushes_written != population.memory.pushes_changed:
            entries.append((f"{prefix}/pushes".encode(), msgspec.msgpack.encode(population.memory.pushes)))
            self._pushes_written = population.memory.pushes_changed
        self._shares_unwritten += 1
        if not entries and self._shares_unwritten < MEMORY_SHARES:
            return []
        self._shares_unwritten = 0
        entries.append((f"{prefix}/memory".encode(), msgspec.msgpack.encode(self._memory(place, start))))
        return entries

    def oldest(self) -> dict[str, int]:
        """Return the offsets that every chunk has passed; empty while a chunk was never written."""
        return dict(min(self._places, key=lambda one: one.watermark_ms, default=Place()).offsets)

    def _pages(self, prefix: str) -> Iterator[tuple[bytes, bytes]]:
        for name, words in self._partition.population.words.named().items():
            done = self._pages_written.get(name, 0)
            if len(words.texts) == done:
                continue
            for page in range(done // PAGE_WORDS, -(-len(words.texts) // PAGE_WORDS)):
                texts = words.texts[page * PAGE_WORDS : (page + 1) * PAGE_WORDS]
                yield f"{prefix}/words/{name}/{page}".encode(), msgspec.msgpack.encode(texts)
            self._pages_written[name] = len(words.texts)

    def _memory(self, place: Place, start: Place) -> MemoryState:
        population = self._partition.population
        watched = [
            WatchedState(
                notice=w.notice,
                watched_from_ms=w.watched_from_ms,
                crash_total=w.crash_total,
                eras=[era.state() for era in w.eras] if any(era.rivals for era in w.eras) else [],
            )
            for w in population.cohorts.watched.values()
        ]
        return MemoryState(
            schema=self._schema,
            place=place,
            start=start,
            silence_from_s=population.memory.silence_from_s,
            kept=population.memory.kept,
            sites=population.memory.sites.last,
            cells=population.cohorts.cells.codes,
            watched=watched,
            margins=population.cohorts.margins.state(),
        )

    def _pack(self, number: int, place: Place) -> bytes:
        start = number * CHUNK_ROWS
        raw = self._partition.population.fleet.pack(start, start + CHUNK_ROWS)
        columns = np.frombuffer(raw, np.uint64).reshape(-1, ROW.itemsize // 8).T
        packed = self._compressor.compress(np.ascontiguousarray(columns).tobytes())
        layout = layout_of(ROW) if self._schema >= 3 else []
        chunk = Chunk(schema=self._schema, place=place, rows=columns.shape[1], packed=packed, layout=layout)
        return msgspec.msgpack.encode(chunk)

    def load(self, entries: Iterable[tuple[Sequence[str], bytes]]) -> dict[str, int]:
        """Load the partition's state; return the offset to read next by topic word (empty without a state).

        Args:
            entries: key (split at `/`, without the partition) and value of each entry.

        Raises:
            StateError: there are chunks and no memory, or a schema is not known.
        """
        places: dict[int, Place] = {}
        packed: dict[int, bytes] = {}
        pages: dict[str, dict[int, list[str]]] = {}
        memory: MemoryState | None = None
        pushes: list[Push] = []
        for key, value in entries:
            if key[0] == "memory":
                memory = _memory.decode(_checked(value))
            elif key[0] == "pushes":
                pushes = _pushes.decode(value)
            elif key[0] == "words":
                pages.setdefault(key[1], {})[int(key[2])] = _page.decode(value)
            elif key[0] == "chunk":
                chunk = _chunk.decode(_checked(value))
                packed[int(key[1])] = self._unpack(chunk)
                places[int(key[1])] = chunk.place
        if memory is None:
            if places:
                raise StateError("the fleet topic has chunks but no memory: restore the data folder from a backup")
            return {}
        self._load_words(pages)
        self._partition.population.fleet.load(packed, CHUNK_ROWS)
        self._partition.population.memory.pushes = pushes
        self._load_memory(memory)
        self._resume(memory, places)
        return dict(memory.start.offsets)

    def _unpack(self, chunk: Chunk) -> bytes:
        raw = self._decompressor.decompress(chunk.packed)
        columns = np.frombuffer(raw, np.uint64).reshape(-1, chunk.rows)
        try:
            return as_rows(np.ascontiguousarray(columns.T).tobytes(), chunk.layout or LAYOUT_2, ROW)
        except ValueError as error:
            raise StateError(f"{error}: restart the version that wrote it, or start a new lane") from error

    def _load_words(self, pages: dict[str, dict[int, list[str]]]) -> None:
        words = self._partition.population.words
        for name, dictionary in words.named().items():
            texts = [text for number in sorted(pages.get(name, {})) for text in pages[name][number]]
            if texts:
                dictionary.load(texts)
            self._pages_written[name] = len(texts)
        words.derive()

    def _load_memory(self, state: MemoryState) -> None:
        population = self._partition.population
        population.memory.silence_from_s = state.silence_from_s
        population.memory.kept = state.kept
        population.memory.sites.last = state.sites
        population.cohorts.cells.load(state.cells)
        population.cohorts.margins.load(state.margins)
        for kept in state.watched:
            watched = population.cohorts.restore(kept.notice, kept.watched_from_ms)
            watched.crash_total = kept.crash_total
            if kept.eras:
                watched.load([era_of(era, population.cohorts.cells) for era in kept.eras])

    def _resume(self, memory: MemoryState, places: dict[int, Place]) -> None:
        """Point the partition at the lowest place of any chunk, and go on with the round where it was."""
        population = self._partition.population
        chunks = -(-population.fleet.rows_end // CHUNK_ROWS)
        self._places = [places.get(number, memory.start) for number in range(chunks)]
        self._share_before = memory.start
        self._next = min(range(chunks), key=lambda number: self._places[number].watermark_ms, default=0)
        # What lies beyond the last chunk has seen nothing.
        seen_ms = [places[number].watermark_ms if number in places else 0 for number in range(chunks)]
        population.catching_up = CatchingUp(np.array([*seen_ms, 0], np.int64), CHUNK_ROWS)
        self._partition.resume(memory.start, memory.place)


def _checked(value: bytes) -> bytes:
    found = _schema.decode(value).schema
    if found not in STATE_SCHEMAS_READ:
        raise StateError(
            f"the fleet's state has schema {found}, this version reads {sorted(STATE_SCHEMAS_READ)}: run the version "
            f"that wrote it (with newest_schemas off, the version before it can read on), or start a new lane"
        )
    return value
