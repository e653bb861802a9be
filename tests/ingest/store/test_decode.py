"""Decoding: whatever bytes lie in the log, a decoder takes what fits the tables and dead-letters the rest."""

import random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.log.interface import Record, TopicPartition
from ingest.store.decode import decode_into, decoders
from ingest.store.rows import COLUMNS, Block
from ingest.topics import Topics
from support.store_fleet import Fleet

SOURCE = TopicPartition("t", 0)
TOPICS = Topics(device_partitions=1)
JUNK: list[Any] = [
    None, -1, 2**63, 2**80, 1.5, "", "x", "\x00é", [], {}, [[]], [-1], [2**70], ["x"], [[], []], [["a"], [7]],
    [[], [0]], [["a"], [2**70]], True, 1_721_362_140_000, "c" * 40,
]  # fmt: skip


def decode(word: str, value: bytes | None) -> Block:
    block = Block()
    decode_into(decoders()[word], Record(7, None, value, 0), SOURCE, 5, block)
    return block


def records(word: str) -> list[dict[str, Any]]:
    entries = Fleet(3).entries(TOPICS, batches=4, size=30)
    found = [msgspec.json.decode(entry.value or b"") for entry in entries if entry.topic == TOPICS.name(word)]
    return [record for record in found if record["kind"] != "tick"]


def places_of(node: Any) -> list[tuple[Any, Any]]:
    """Return every container and key in a record, so that any value in it can be replaced."""
    keys = list(node) if isinstance(node, dict) else list(range(len(node))) if isinstance(node, list) else []
    return [(node, key) for key in keys] + [place for key in keys for place in places_of(node[key])]


@pytest.mark.parametrize("word", ["crashes", "activity"])
def test_a_record_with_junk_in_it_never_raises_and_never_half_counts(word: str) -> None:
    draw = random.Random(17)
    dead = 0
    for _ in range(800):
        record = msgspec.json.decode(msgspec.json.encode(draw.choice(records_of[word])))
        node, key = draw.choice(places_of(record))
        node[key] = draw.choice(JUNK)
        block = decode(word, msgspec.json.encode(record))
        dead += bool(block.dead)
        for table, columns in block.columns().items():
            assert tuple(columns) == COLUMNS[table]
        if block.dead and block.dead[0].reason == "unreadable":
            assert block.row_count() == 0
    assert 50 < dead < 800


records_of = {word: records(word) for word in ("crashes", "activity")}


@pytest.mark.parametrize("word", sorted(decoders()))
@settings(max_examples=40, deadline=None)
@given(value=st.binary(max_size=64) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(["kind", "reports", "payload", "rollout", "evidence", "signatures", "kinds"]), inner, max_size=5
    ),
    max_leaves=12,
).map(msgspec.json.encode))  # fmt: skip
def test_any_bytes_are_a_dead_letter_or_rows(word: str, value: bytes) -> None:
    block = decode(word, value)
    assert len(block.dead) <= 1
    assert block.row_count() == 0 or not block.dead


@pytest.mark.parametrize("word", sorted(decoders()))
def test_a_tombstone_is_nothing(word: str) -> None:
    block = decode(word, None)
    assert (block.row_count(), block.dead) == (0, [])


def test_a_column_without_words_is_a_dead_letter() -> None:
    record = records("activity")[0]
    record["ring"] = [[], []]
    assert decode("activity", msgspec.json.encode(record)).dead[0].reason == "unreadable"
