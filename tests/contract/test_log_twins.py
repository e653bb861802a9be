"""Whatever is done to them, the embedded log and its twin answer alike: the same offsets, reads and refusals."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.clock import DrivenClock
from ingest.log.embedded import EmbeddedLog
from ingest.log.interface import Entry, Fence, LogError, TopicPartition
from ingest.log.memory import MemoryLog
from ingest.log.specs import TopicSpec

SPECS = (
    TopicSpec("aged", 2, retention_ms=1000),
    TopicSpec("state", 1, compacted=True),
    TopicSpec("bytes", 1, retention_bytes_max=2000),
)
SOURCES = [TopicPartition(spec.name, partition) for spec in SPECS for partition in range(spec.partitions)]
TOMBSTONE_MS = 500

AnyLog = MemoryLog | EmbeddedLog

# Values stay below the size from which the embedded log compresses, so that both count the same bytes.
_entries = st.builds(
    lambda source, key, value: Entry(source.topic, source.partition, key, value),
    st.sampled_from([*SOURCES, TopicPartition("aged", 9)]),
    st.sampled_from([b"a", b"b", b"c"]),
    st.one_of(st.none(), st.integers(0, 400).map(lambda size: b"v" * size)),
)
_fences = st.one_of(st.none(), st.builds(Fence, st.sampled_from(["w", "x"]), st.integers(1, 3)))
_sources = st.sampled_from(SOURCES)


def _step(name: str, /, **arguments: st.SearchStrategy[object]) -> st.SearchStrategy[tuple[str, dict[str, object]]]:
    return st.tuples(st.just(name), st.fixed_dictionaries(arguments))


_steps = st.one_of(
    _step("append", entries=st.lists(_entries, max_size=6), fence=_fences),
    _step("claim", name=st.sampled_from(["w", "x"])),
    _step(
        "commit", group=st.just("g"), offsets=st.dictionaries(_sources, st.integers(0, 9), max_size=2), fence=_fences
    ),
    _step(
        "read",
        source=_sources,
        offset=st.integers(0, 30),
        max_records=st.integers(1, 9),
        max_bytes=st.integers(1, 2000),
    ),
    _step("pass", milliseconds=st.integers(1, 900)),
    _step("maintain"),
    _step("reopen"),
)


def _answer(log: AnyLog, name: str, arguments: Mapping[str, object]) -> object:
    """Call the log and return what it said: the result, or the kind of its refusal."""
    try:
        return getattr(log, name)(**arguments)
    except LogError as error:
        return type(error)


def _all(log: AnyLog) -> object:
    return {
        source: (
            log.bounds(source),
            log.read(source, log.bounds(source)[0], 10_000),
            log.committed("g", source),
            [log.wait({source: offset}, 0) for offset in range(0, 40, 5)],
        )
        for source in SOURCES
    }


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(_steps, min_size=5, max_size=40), tail_bytes_max=st.sampled_from([0, 3000, 1 << 20]))
def test_twins_answer_alike(steps: list[tuple[str, dict[str, int]]], tail_bytes_max: int) -> None:
    clock = DrivenClock(1_721_275_140_000)
    memory = MemoryLog(SPECS, clock, TOMBSTONE_MS)
    with tempfile.TemporaryDirectory() as directory:

        def open_log() -> EmbeddedLog:
            return EmbeddedLog(Path(directory), SPECS, clock, tombstone_ms=TOMBSTONE_MS, tail_bytes_max=tail_bytes_max)

        embedded = open_log()
        try:
            for name, arguments in steps:
                if name == "pass":
                    clock.drive_to(clock.now_ms() + arguments["milliseconds"])
                elif name == "maintain":
                    memory.maintain()
                    embedded.maintain()
                elif name == "reopen":
                    embedded.close()
                    embedded = open_log()
                else:
                    assert _answer(embedded, name, arguments) == _answer(memory, name, arguments), (name, arguments)
            assert _all(embedded) == _all(memory)
        finally:
            embedded.close()
