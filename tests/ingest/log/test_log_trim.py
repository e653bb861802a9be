"""The embedded log as a queue: what was taken is trimmed, and an append beyond the byte bound is refused exactly."""

import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest.clock import DrivenClock
from ingest.log import retention
from ingest.log.embedded import EmbeddedLog
from ingest.log.interface import Entry, LogFullError, OffsetGoneError, TopicPartition
from ingest.log.specs import TopicSpec

SPECS = (TopicSpec("queue.a", 1), TopicSpec("queue.b", 2))
A, B = TopicPartition("queue.a", 0), TopicPartition("queue.b", 1)
START_MS = 1_721_275_140_000


def opened(folder: Path, bytes_max: int | None = None) -> EmbeddedLog:
    return EmbeddedLog(folder, SPECS, DrivenClock(START_MS), bytes_max=bytes_max)


def put(log: EmbeddedLog, source: TopicPartition, *values: bytes) -> None:
    log.append([Entry(source.topic, source.partition, None, value) for value in values])


def test_a_trim_takes_what_lies_before_an_offset_and_nothing_else(tmp_path: Path) -> None:
    log = opened(tmp_path)
    count = retention.STEP_RECORDS_MAX * 2 + 10
    put(log, A, *(b"%d" % number for number in range(count)))
    put(log, B, b"stays")
    log.trim(A, count - 3)
    assert log.bounds(A) == (count - 3, count)
    assert [record.value for record in log.read(A, count - 3)] == [b"%d" % n for n in range(count - 3, count)]
    with pytest.raises(OffsetGoneError):
        log.read(A, count - 4)
    assert (log.bounds(B), log.stored_bytes(B)) == ((0, 1), 5)
    log.trim(A, count + 1000)
    log.trim(A, 0)
    assert (log.bounds(A), log.stored_bytes(A)) == ((count, count), 0)
    log.close()
    again = opened(tmp_path)
    assert (again.bounds(A), again.stored_bytes(A), again.read(A, count)) == ((count, count), 0, [])
    put(again, A, b"next")
    assert [record.offset for record in again.read(A, count)] == [count]
    again.close()


def test_an_append_beyond_the_bound_is_refused_whole(tmp_path: Path) -> None:
    log = opened(tmp_path, 1000)
    put(log, A, b"x" * 400)
    put(log, B, b"y" * 400)
    with pytest.raises(LogFullError, match="800 bytes of at most 1000"):
        log.append([Entry("queue.a", 0, None, b"z" * 100), Entry("queue.b", 1, None, b"z" * 101)])
    assert (log.bounds(A), log.bounds(B)) == ((0, 1), (0, 1))
    put(log, A, b"z" * 200)
    with pytest.raises(LogFullError):
        put(log, A, b"1")
    log.trim(A, 1)
    put(log, A, b"z" * 400)
    log.close()
    with pytest.raises(LogFullError):
        put(again := opened(tmp_path, 1000), A, b"1")
    again.close()


STEPS = st.lists(
    st.one_of(st.tuples(st.just("put"), st.integers(0, 300)), st.tuples(st.just("trim"), st.integers(0, 6))),
    max_size=40,
)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_the_bytes_said_are_the_bytes_there(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    """Against a list: what is readable, what it weighs, and which appends are refused."""
    log, held, first, chance = opened(tmp_path_factory.mktemp("log"), 1000), list[bytes](), 0, random.Random(1)
    for what, size in steps:
        if what == "put":
            value = chance.randbytes(size)
            fits = sum(map(len, held)) + size <= 1000
            try:
                put(log, A, value)
            except LogFullError:
                assert not fits
            else:
                assert fits
                held.append(value)
        else:
            log.trim(A, first + size)
            dropped = min(size, len(held))
            held, first = held[dropped:], first + dropped
        assert log.stored_bytes(A) == sum(map(len, held))
        assert log.bounds(A) == (first, first + len(held))
        assert [record.value for record in log.read(A, first, 1000)] == held
    log.close()
