"""Grouping's state of the schema before: read by this version, written by it until told otherwise, exact both ways.

The golden bytes under tests/golden/state-2 were written by the last release whose only schema was 2, from 80 turns of
the history used here. That this version writes the same bytes is what proves that the release before reads them.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import zstandard

from ingest.clock import DrivenClock
from ingest.events import RolloutNotice
from ingest.grouping import snapshot
from ingest.grouping.fleet import ROW
from ingest.grouping.layout import LAYOUT_2, as_rows, layout_of
from ingest.grouping.partition import Place
from ingest.grouping.snapshot import (
    STATE_SCHEMA,
    STATE_SCHEMA_WRITTEN,
    STATE_SCHEMAS_READ,
    Snapshots,
    StateError,
)
from ingest.grouping.stage import GroupingSettings, GroupingStage, state_schema_of
from ingest.log.interface import Entry, TopicPartition
from ingest.log.memory import MemoryLog
from ingest.log.owner import Owner
from ingest.log.specs import topic_specs
from ingest.metrics import Metrics
from ingest.topics import Topics
from support.grouping_history import History, Told
from support.world import T0

GOLDEN = Path(__file__).parents[1] / "golden" / "state-2" / "fleet.msgpack"
TOPICS = Topics(device_partitions=2)
TURNS, LATER_TURNS = 80, 60


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use chunks of eight rows, as the golden bytes have."""
    monkeypatch.setattr(snapshot, "CHUNK_ROWS", 8)


def golden() -> list[tuple[bytes, bytes]]:
    """Return the golden entries."""
    return msgspec.msgpack.decode(GOLDEN.read_bytes(), type=list[tuple[bytes, bytes]])


class Lane:
    """A history in a log, and workers of one schema or another that take turns at it."""

    def __init__(self) -> None:
        self.clock = DrivenClock(T0)
        self.log = MemoryLog(topic_specs(TOPICS), self.clock)
        self.history = History(TOPICS)

    def feed(self, turns: int) -> None:
        """Append so many turns."""
        for _ in range(turns):
            entries = self.history.step()
            self.clock.drive_to(self.history.now_ms)
            self.log.append(entries)

    def worker(self, schema: int, reads: frozenset[int], partitions: range = range(2)) -> tuple[GroupingStage, Owner]:
        """Start a worker that writes one schema and reads some."""
        before, snapshot.STATE_SCHEMAS_READ = snapshot.STATE_SCHEMAS_READ, reads
        try:
            settings = GroupingSettings(partitions, 100_000, 900, snapshot_seconds=7, state_schema=schema)
            stage = GroupingStage(TOPICS, settings, Metrics())
            states = [TopicPartition(TOPICS.name("fleet"), number) for number in partitions]
            name = f"grouping/{partitions.start}"
            owner = Owner(self.log, name, "grouping", stage, states, self.clock)
            owner.start()
        finally:
            snapshot.STATE_SCHEMAS_READ = before
        stage.generation = owner.fence.epoch
        return stage, owner

    def told(self) -> Told:
        """Return what a reader of the cohort topic knows."""
        told = Told(self.history.rollout)
        told.read(self.log.read(TopicPartition(TOPICS.name("cohorts"), 0), 0, 1_000_000, 1 << 30))
        return told

    def check_exact(self) -> None:
        """Hold what was said to the model."""
        told = self.told()
        assert told.at_risk == self.history.expected_at_risk()
        assert told.crashes == self.history.expected_crashes()
        assert len(told.crashes) > 5


NEW, OLD = frozenset({2, 3}), frozenset({2})


def run(owner: Owner, steps: int | None = None) -> None:
    """Take so many steps, or all there are."""
    while (steps is None or steps > 0) and owner.step(0):
        steps = None if steps is None else steps - 1


# What this release adds to the memory, and the release before ignores: `MemoryBefore` shows that it can.
ADDED = {"margins"}


class WatchedBefore(msgspec.Struct, kw_only=True):
    """A watched rollout as the release before knows it."""

    notice: RolloutNotice
    watched_from_ms: int
    crash_total: int


class MemoryBefore(msgspec.Struct, kw_only=True):
    """The memory as the release before knows it."""

    schema: int
    place: Place
    start: Place
    silence_from_s: int
    kept: list[tuple[int, list[int]]]
    sites: dict[int, int]
    cells: list[int]
    watched: list[WatchedBefore]


def comparable(key: bytes, value: bytes) -> Any:
    """Return an entry with its rows unpacked: compressed bytes are the compressor's own affair."""
    found = msgspec.msgpack.decode(value)
    if key.endswith(b"/memory"):
        found = {name: part for name, part in found.items() if name not in ADDED}
    if b"/chunk/" in key:
        found["packed"] = zstandard.ZstdDecompressor().decompress(found["packed"])
    return found


def test_the_schemas_are_one_and_the_one_before_it() -> None:
    assert {STATE_SCHEMA - 1, STATE_SCHEMA} == STATE_SCHEMAS_READ
    assert STATE_SCHEMA_WRITTEN in STATE_SCHEMAS_READ
    assert (state_schema_of(False), state_schema_of(True)) == (STATE_SCHEMA_WRITTEN, STATE_SCHEMA)


@pytest.mark.parametrize("schema", [2, 3])
def test_state_of_the_release_before_is_read_and_counted_on_from(schema: int) -> None:
    """Restored from its bytes, whichever schema is written from then on, all that follows is what the model says."""
    lane = Lane()
    lane.feed(TURNS)
    # What was said before the state was written is in the log of the release before; here its reader is caught up.
    run(lane.worker(2, OLD)[1])
    source = [TopicPartition(TOPICS.name("fleet"), number) for number in range(2)]
    lane.log.append([Entry(source[int(key[:1])].topic, int(key[:1]), key, value) for key, value in golden()])
    stage, owner = lane.worker(schema, NEW)
    devices = sum(partition.population.fleet.devices for partition in stage.partitions.values())
    assert devices == len(lane.history.model.devices)
    lane.feed(LATER_TURNS)
    run(owner)
    lane.check_exact()


def test_what_is_written_while_an_upgrade_rolls_is_what_the_release_before_wrote() -> None:
    """The same history gives the golden entries, key by key, but for the compressor's bytes and what is only added."""
    lane = Lane()
    lane.feed(TURNS)
    settings = GroupingSettings(range(2), 100_000, 900, 60)
    stage = GroupingStage(TOPICS, settings, Metrics())
    states = [TopicPartition(TOPICS.name("fleet"), number) for number in range(2)]
    owner = Owner(lane.log, "grouping", "grouping", stage, states, lane.clock)
    owner.start()
    run(owner)
    lane.log.append(list(stage.whole()))
    written: dict[bytes, bytes] = {}
    for source in states:
        for record in lane.log.read(source, 0, 1_000_000, 1 << 30):
            assert record.key is not None
            assert record.value is not None
            written[record.key] = record.value
    assert written.keys() == dict(golden()).keys()
    for key, value in golden():
        assert comparable(key, written[key]) == comparable(key, value), key
        if key.endswith(b"/memory"):
            as_before = msgspec.msgpack.decode(written[key], type=MemoryBefore)
            assert as_before == msgspec.msgpack.decode(value, type=MemoryBefore)
            assert msgspec.msgpack.decode(written[key])["margins"], "there was something to ignore"


def test_partitions_go_from_the_old_to_the_new_and_back() -> None:
    """Handed over at every few steps, in the middle of rounds of chunks: every count is the model's."""
    lane = Lane()
    for turn in range(12):
        lane.feed(12)
        # An old worker, a new one that writes as the old, an old one again: it must read what the new one wrote.
        _, owner = lane.worker(2, OLD if turn % 2 == 0 else NEW)
        run(owner, steps=None if turn == 11 else 9)
    lane.check_exact()
    assert len(lane.told().generations[0]) == 12


def test_an_old_worker_beside_a_new_one_gives_the_same_counts() -> None:
    """Each has one partition, and they swap half-way; then the new ones write their own schema and swap again."""
    lane = Lane()
    for reads, schemas in (((OLD, NEW), (2, 2)), ((NEW, OLD), (2, 2)), ((NEW, NEW), (3, 3)), ((NEW, NEW), (3, 2))):
        lane.feed(40)
        workers = [lane.worker(schemas[n], reads[n], range(n, n + 1))[1] for n in range(2)]
        for owner in workers:
            run(owner)
    lane.check_exact()


def test_the_newest_schema_is_refused_by_the_release_before_and_says_what_to_do() -> None:
    lane = Lane()
    lane.feed(60)
    run(lane.worker(3, NEW)[1])
    before = lane.log.bounds(TopicPartition(TOPICS.name("fleet"), 0))
    with pytest.raises(StateError, match=r"schema 3, this version reads \[2\].*newest_schemas"):
        lane.worker(2, OLD)
    assert lane.log.bounds(TopicPartition(TOPICS.name("fleet"), 0)) == before
    lane.feed(5)
    run(lane.worker(3, NEW)[1])
    lane.check_exact()


def test_a_schema_that_is_not_known_is_not_written() -> None:
    stage = GroupingStage(TOPICS, GroupingSettings(range(1), 1000, 900, 60), Metrics())
    with pytest.raises(ValueError, match="schema 4 is not written"):
        Snapshots(stage.partitions[0], 4)


def test_the_layout_of_schema_2_stays_what_it_was() -> None:
    """`ROW` may change; what chunks without a layout hold may not."""
    assert sum(np.dtype(kind).itemsize * count for _, kind, count in LAYOUT_2) == 80
    chunks = [value for key, value in golden() if b"/chunk/" in key]
    for value in chunks:
        packed = comparable(b"0/chunk/0", value)
        assert len(packed["packed"]) == packed["rows"] * 80


def test_rows_with_other_fields_are_read_by_name() -> None:
    """As a later version's rows will be by this one, and this one's by a later one: moved, added, left out."""
    rows = np.zeros(3, ROW)
    rows["key"], rows["heard"], rows["update"] = [1, 2, 3], [40, 50, 60], [[1, 2, 3, 4]] * 3
    later = np.dtype(
        [("key", "<u8"), ("age", "<u4"), ("heard", "<u4"), ("update", "<u2", (4,)), ("note", "<u8")],
    )
    forth = np.frombuffer(as_rows(rows.tobytes(), layout_of(ROW), later), later)
    assert forth["heard"].tolist() == [40, 50, 60]
    assert forth["update"].tolist() == [[1, 2, 3, 4]] * 3
    assert forth["age"].tolist() == forth["note"].tolist() == [0, 0, 0]
    back = np.frombuffer(as_rows(forth.tobytes(), layout_of(later), ROW), ROW)
    assert back["key"].tolist() == [1, 2, 3]
    assert Counter(back["crashed"].tolist()) == {0: 3}
    assert as_rows(rows.tobytes(), layout_of(ROW), ROW) == rows.tobytes()


def test_a_field_of_another_type_is_refused() -> None:
    other = np.dtype([("key", "<u8"), ("heard", "<u8")])
    with pytest.raises(ValueError, match="heard as 1 of <u8, this version as"):
        as_rows(np.zeros(1, other).tobytes(), layout_of(other), ROW)
