"""Dead letters: one form on the wire, bounded whatever comes in, every one of them counted."""

import base64
from pathlib import Path

import msgspec
import pytest

from ingest.deadletter import (
    DETAIL_CHARS_MAX,
    LETTERS_MAX,
    VALUE_BYTES_MAX,
    DeadLetter,
    DeadReason,
    deadletter_decoder,
    entries_of,
    letter_of,
)
from ingest.events import encoder
from ingest.log.interface import Record, TopicPartition
from ingest.metrics import Metrics

GOLDEN = Path(__file__).parents[1] / "golden" / "v1" / "dead_letter.json"
SOURCE = TopicPartition("cordon.crashes.v1", 3)
AT_MS = 1_721_362_140_000


def letter(
    offset: int = 7, value: bytes | None = b'{"kind":"bsod"', detail: str = "Input data was truncated"
) -> DeadLetter:
    return letter_of("grouping", SOURCE, Record(offset, None, value, AT_MS), DeadReason.UNREADABLE, detail)


def test_the_bytes_written_are_the_golden_ones() -> None:
    assert encoder.encode(letter()) == GOLDEN.read_bytes()


def test_the_golden_bytes_are_read_as_what_they_say() -> None:
    read = deadletter_decoder.decode(GOLDEN.read_bytes())
    assert read == letter()
    assert (read.stage, read.topic, read.partition, read.offset, read.at_ms) == ("grouping", *SOURCE, 7, AT_MS)
    assert base64.b64decode(read.value) == b'{"kind":"bsod"'


def test_unknown_fields_are_ignored_and_an_unknown_reason_is_not() -> None:
    text = GOLDEN.read_bytes()
    assert deadletter_decoder.decode(text[:-1] + b',"later":1}') == letter()
    with pytest.raises(msgspec.ValidationError):
        deadletter_decoder.decode(text.replace(b"unreadable", b"unlucky"))


@pytest.mark.parametrize("size", [VALUE_BYTES_MAX, VALUE_BYTES_MAX + 1, 5_000_000])
def test_value_and_detail_are_cut_and_the_size_is_told(size: int) -> None:
    made = letter(value=b"x" * size, detail="y" * size)
    assert len(base64.b64decode(made.value)) == VALUE_BYTES_MAX
    assert len(made.detail) == DETAIL_CHARS_MAX
    assert made.value_bytes == size
    assert len(encoder.encode(made)) < 13_000


def test_a_tombstone_makes_a_letter_without_a_value() -> None:
    made = letter(value=None)
    assert (made.value, made.value_bytes) == ("", 0)


@pytest.mark.parametrize("amount", [0, 1, LETTERS_MAX, LETTERS_MAX + 1, 5 * LETTERS_MAX])
def test_a_flood_is_counted_whole_and_written_in_part(amount: int) -> None:
    metrics = Metrics()
    entries = entries_of([letter(offset) for offset in range(amount)], "cordon.deadletter.v1", metrics)
    assert len(entries) == min(amount, LETTERS_MAX)
    assert metrics.value("deadletters_total", reason="unreadable") == amount
    letters = [deadletter_decoder.decode(entry.value or b"") for entry in entries]
    assert [one.offset for one in letters] == list(range(len(entries)))
    assert [one.dropped for one in letters if one.dropped] == ([amount - LETTERS_MAX] if amount > LETTERS_MAX else [])
    assert {(entry.topic, entry.partition, entry.key) for entry in entries} <= {
        ("cordon.deadletter.v1", 0, b"cordon.crashes.v1")
    }
