"""Several sinks share the partitions of a lane: together they are exact, whoever dies or is taken for dead."""

import random
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from ingest.clock import DrivenClock
from ingest.log.feed import Feed
from ingest.log.interface import FencedError, Log, TopicPartition
from ingest.log.memory import MemoryLog
from ingest.log.specs import topic_specs
from ingest.metrics import Metrics
from ingest.store.chdb import ChdbStore
from ingest.store.interface import Columns, MemoryStore, Store
from ingest.store.sink import GROUP, WORDS, Sink, SinkLimits, shares_of
from ingest.topics import TOPICS, Topics
from support.store_fleet import BASE_MS, counted, recount

LIMITS = SinkLimits(rows_max=60, read_records_max=2, backoff_seconds=0.001, backoff_seconds_max=0.002)
MakeFleet = Callable[[int], Any]


class KilledError(BaseException):
    """Stands for a SIGKILL: nothing of the sink runs after it."""


class Mortal:
    """A store whose writer dies at one of its inserts, before or after it took effect."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.left = -1
        self.after = False

    def insert(self, table: str, columns: Columns) -> None:
        self.left -= 1
        if self.left == 0 and not self.after:
            raise KilledError
        self._store.insert(table, columns)
        if self.left == 0:
            raise KilledError

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def sink_of(log: Log, store: Any, topics: Topics, numbers: Iterable[int], limits: SinkLimits = LIMITS) -> Sink:
    shares = {f"{GROUP}/{number}": shares_of(topics)[f"{GROUP}/{number}"] for number in numbers}
    sink = Sink(log, store, topics, Metrics(), DrivenClock(BASE_MS), limits, shares=shares)
    sink.recover()
    return sink


def test_the_shares_hold_every_partition_of_every_kept_topic_once() -> None:
    topics = Topics(device_partitions=5, keyed_partitions=3)
    dealt = [source for sources in shares_of(topics).values() for source in sources]
    everything = [
        TopicPartition(topics.name(topic.word), number)
        for topic in TOPICS
        if topic.word in WORDS
        for number in range(topics.partitions(topic))
    ]
    assert sorted(dealt) == sorted(everything)
    assert all(source.partition == int(name.split("/")[1]) for name, own in shares_of(topics).items() for source in own)


def test_two_sinks_over_different_shares_fill_one_store(
    store: ChdbStore, log: MemoryLog, topics: Topics, make_fleet: MakeFleet
) -> None:
    fleet = make_fleet(1)
    left, right = sink_of(log, store, topics, [0]), sink_of(log, store, topics, [1, 2])
    for _ in range(3):
        log.append(fleet.entries(topics, batches=15, size=20))
        left.drain()
        right.drain()
    assert counted(store) == recount(fleet.made)


def test_one_insert_a_table_for_all_shares_of_a_sink(log: MemoryLog, topics: Topics, make_fleet: MakeFleet) -> None:
    log.append(make_fleet(2).entries(topics, batches=30, size=20))
    twin = MemoryStore()
    sink = sink_of(log, twin, topics, [0, 1, 2], SinkLimits())
    sink.drain()
    tables = [table for table, _ in twin.blocks]
    assert sorted(tables) == ["check_in_minutes", "crashes", "installs", "sink_blocks"]
    assert {row["partition"] for row in twin.rows("crashes")} == {0, 1, 2}


def test_a_share_claimed_by_another_is_let_go_and_the_rest_of_the_block_is_written(
    store: ChdbStore, log: MemoryLog, topics: Topics, make_fleet: MakeFleet
) -> None:
    """The old sink has read records of all shares when the claim comes: its block holds none of the lost share's."""
    fleet = make_fleet(3)
    old = sink_of(log, store, topics, [0, 1, 2], SinkLimits())
    log.append(fleet.entries(topics, batches=20, size=20))
    old.step()
    new = sink_of(log, store, topics, [1], SinkLimits())
    old.flush()
    assert old.lost == ("store/1",)
    assert store.query("SELECT count() FROM sink_blocks").rows == [[0]]
    old.drain()
    planned = store.query("SELECT DISTINCT partition FROM sink_blocks FINAL ORDER BY partition").rows
    assert planned == [[0], [2]]
    new.drain()
    log.append(fleet.entries(topics, batches=20, size=20))
    old.drain()
    new.drain()
    assert counted(store) == recount(fleet.made)


def test_a_sink_that_has_lost_every_share_ends(log: MemoryLog, topics: Topics, make_fleet: MakeFleet) -> None:
    twin = MemoryStore()
    old = sink_of(log, twin, topics, [0, 1])
    log.append(make_fleet(4).entries(topics, batches=20, size=20))
    sink_of(log, MemoryStore(), topics, [0, 1])
    with pytest.raises(FencedError, match="every share"):
        old.run()
    assert twin.blocks == []


def test_what_is_flushed_is_what_is_in_the_store(log: MemoryLog, topics: Topics, make_fleet: MakeFleet) -> None:
    sink = sink_of(log, MemoryStore(), topics, [0], SinkLimits())
    log.append(make_fleet(5).entries(topics, batches=20, size=20))
    crashes = TopicPartition(topics.name("crashes"), 0)
    sink.step()
    assert sink.positions[crashes] > 0
    assert sink.flushed[crashes] == 0
    sink.flush()
    assert sink.flushed[crashes] == sink.positions[crashes] == log.bounds(crashes)[1]


def test_a_block_in_doubt_is_not_flushed_before_it_is_written_again(
    store: ChdbStore, log: MemoryLog, topics: Topics, make_fleet: MakeFleet
) -> None:
    """An agent commits what is flushed, and a commit at a block's end proves it complete: not while it is not."""
    fleet = make_fleet(7)
    log.append(fleet.entries(topics, batches=20, size=20))
    mortal = Mortal(store)
    sink = sink_of(log, mortal, topics, [0], SinkLimits())
    sink.step()
    mortal.left, mortal.after = 1, True
    with pytest.raises(KilledError):
        sink.flush()
    crashes = TopicPartition(topics.name("crashes"), 0)
    mortal = Mortal(store)
    mortal.left = 1
    shares = {"store/0": shares_of(topics)["store/0"]}
    heir = Sink(log, mortal, topics, Metrics(), DrivenClock(BASE_MS), SinkLimits(), shares=shares)
    with pytest.raises(KilledError):
        heir.recover()
    assert heir.flushed[crashes] == 0
    mortal.left = -1
    heir.recover()
    assert heir.flushed[crashes] == log.bounds(crashes)[1]
    sink_of(log, store, topics, [0, 1, 2]).drain()
    assert counted(store) == recount(fleet.made)


def test_a_fed_sink_reads_only_where_something_is_and_skips_nothing(topics: Topics, make_fleet: MakeFleet) -> None:
    """An agent pushes some records and forgets others; where nothing is known to be, the log is not asked."""
    asked: list[TopicPartition] = []

    class Counting(MemoryLog):
        def read(
            self, source: TopicPartition, offset: int, max_records: int = 500, max_bytes: int = 8 << 20
        ) -> list[Any]:
            asked.append(source)
            return super().read(source, offset, max_records, max_bytes)

    log = Counting(topic_specs(topics), DrivenClock(BASE_MS))
    sources = shares_of(topics)["store/1"]
    feed = Feed(log, sources)
    twin = MemoryStore()
    sink = sink_of(feed, twin, topics, [1], SinkLimits())
    sink.step()
    assert asked == []
    fleet = make_fleet(6)
    entries = [entry for entry in fleet.entries(topics, batches=40, size=10) if entry.partition == 1]
    log.append(entries)
    crashes = TopicPartition(topics.name("crashes"), 1)
    records = MemoryLog.read(log, crashes, 0)
    feed.push(crashes, records[:2])
    feed.push(crashes, records[5:])
    feed.catch_up()
    sink.drain()
    assert {row["log_offset"] for row in twin.rows("crashes")} == {
        record.offset for record in records if b'"reports":[{' in (record.value or b"")
    }
    asked.clear()
    sink.step()
    assert asked == []


@pytest.mark.parametrize("seed", range(4))
def test_any_order_of_deaths_and_takeovers_loses_and_doubles_nothing(
    seed: int, store: ChdbStore, log: MemoryLog, topics: Topics, make_fleet: MakeFleet
) -> None:
    """Shares move between sinks that die at any insert, or live on as zombies that don't know they are replaced."""
    draw = random.Random(seed)
    fleet = make_fleet(seed)
    living: list[tuple[Sink, Mortal]] = []
    deaths = 0
    for _ in range(40):
        log.append(fleet.entries(topics, batches=draw.randrange(1, 4), size=12))
        if draw.random() < 0.35 or not living:
            mortal = Mortal(store)
            numbers = draw.sample(range(3), draw.randrange(1, 4))
            living.append((sink_of(log, mortal, topics, numbers), mortal))
        sink, mortal = draw.choice(living)
        if draw.random() < 0.8:
            mortal.left, mortal.after = draw.randrange(1, 5), draw.random() < 0.5
        try:
            for _ in range(draw.randrange(1, 4)):
                sink.step()
            if draw.random() < 0.8:
                sink.flush()
        except KilledError:
            deaths += 1
            living.remove((sink, mortal))
        except FencedError:
            living.remove((sink, mortal))
    sink_of(log, store, topics, range(3)).drain()
    assert deaths > 3
    assert counted(store) == recount(fleet.made)
