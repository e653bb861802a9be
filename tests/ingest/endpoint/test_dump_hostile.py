"""Damaged, forged and foreign files end in a `DumpError` that says what to do, in bounded time and memory."""

import gzip
import io
import os
import random
import struct
import time
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.endpoint.dump import TriageDump, read_triage_dump
from ingest.endpoint.errors import DumpError
from ingest.endpoint.triage import DumpLimits
from support.dumps import (
    CSAGENT_BASE,
    TRIAGE_FIELDS,
    DumpPlan,
    FakeDriver,
    build_dump,
    july_19_plan,
    overwrite_u32,
    read_u32,
)

VALID = build_dump(july_19_plan())
INTERESTING = (0, 1, 4, 7, 0x7F, 0x80, 0x1FFF, 0x2000, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFC, 0xFFFF_FFFF)


def refusal(raw: bytes) -> DumpError:
    with pytest.raises(DumpError) as caught:
        read_triage_dump(raw)
    return caught.value


def read_or_refuse(raw: bytes) -> TriageDump | DumpError:
    """Read, letting anything but a result and a `DumpError` through to fail the test."""
    try:
        return read_triage_dump(raw)
    except DumpError as error:
        refused = error
    assert refused.reason in {"not_a_dump", "foreign_dump_type", "truncated", "corrupt", "too_large"}
    assert str(refused)
    return refused


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("071924-01.dmp", VALID)
    return buffer.getvalue()


def of_type(number: int) -> bytes:
    return overwrite_u32(VALID, 0xF98, number)


@pytest.mark.parametrize(
    ("raw", "reason", "words"),
    [
        (b"", "not_a_dump", "empty"),
        (b"P", "truncated", "copy the file again"),
        (b"Minidump of my machine, please help", "not_a_dump", "Minidump"),
        (bytes(10_000), "not_a_dump", "no Windows dump"),
        (b"MZ" + bytes(10_000), "not_a_dump", "program or driver"),
        (gzip.compress(VALID), "not_a_dump", "unpack"),
        (zipped(), "not_a_dump", "unpack"),
        (b"MDMP\x93\xa7" + bytes(10_000), "foreign_dump_type", "user mode"),
        (b"USERDU64" + bytes(10_000), "foreign_dump_type", "user mode"),
        (b"PAGEDUMP" + bytes(10_000), "foreign_dump_type", "32-bit"),
        (of_type(1), "foreign_dump_type", "full memory dump"),
        (of_type(2), "foreign_dump_type", "kernel memory dump"),
        (of_type(5), "foreign_dump_type", "bitmap"),
        (of_type(6), "foreign_dump_type", "bitmap"),
        (of_type(0x4547_4150), "foreign_dump_type", "unknown type"),
        (overwrite_u32(VALID, 0x30, 0x014C), "foreign_dump_type", "0x14c"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_foreign_files_are_named_for_what_they_are(raw: bytes, reason: str, words: str) -> None:
    error = refusal(raw)
    assert error.reason == reason
    assert words in str(error)


def test_a_huge_full_dump_is_named_by_its_header_and_not_read(tmp_path: Path) -> None:
    path = tmp_path / "MEMORY.DMP"
    path.write_bytes(of_type(1))
    os.truncate(path, 64 * 2**30)  # Sparse: 64 GiB that take no room.
    with pytest.raises(DumpError) as caught:
        read_triage_dump(path)
    assert caught.value.reason == "foreign_dump_type"


def test_a_file_over_the_size_limit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "big.dmp"
    path.write_bytes(VALID)
    os.truncate(path, 64 * 2**20)
    assert read_triage_dump(path).blame.module == "csagent.sys"
    os.truncate(path, 64 * 2**20 + 1)
    with pytest.raises(DumpError) as caught:
        read_triage_dump(path)
    assert caught.value.reason == "too_large"


def test_a_pipe_and_a_folder_are_refused_without_waiting(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.dmp"
    os.mkfifo(pipe)
    for path in (pipe, tmp_path):
        with pytest.raises(DumpError) as caught:
            read_triage_dump(path)
        assert caught.value.reason == "not_a_dump"
    with pytest.raises(FileNotFoundError):
        read_triage_dump(tmp_path / "missing.dmp")


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("driver_count", 0xFFFF_FFFF, "too_large"),
        ("driver_count", 4097, "too_large"),
        ("driver_count", 4096, "corrupt"),
        ("driver_list_offset", 0xFFFF_FFF0, "corrupt"),
        ("size_of_call_stack", 0xFFFF_FFFF, "corrupt"),
        ("call_stack_offset", 0xFFFF_FFFF, "corrupt"),
        ("context_offset", 0xFFFF_FFFF, "corrupt"),
        ("size_of_dump", 0xFFFF_FFFF, "truncated"),
        ("size_of_dump", 0, "corrupt"),
        ("valid_offset", 0xFFFF_FFFF, "corrupt"),
        ("valid_offset", 0x2000, "truncated"),
    ],
)
def test_giant_counts_and_offsets_are_refused(field: str, value: int, reason: str) -> None:
    assert refusal(overwrite_u32(VALID, TRIAGE_FIELDS[field], value)).reason == reason


def test_a_name_of_four_billion_characters_is_refused() -> None:
    list_offset = read_u32(VALID, TRIAGE_FIELDS["driver_list_offset"])
    name_offset = read_u32(VALID, list_offset)
    assert refusal(overwrite_u32(VALID, name_offset, 0xFFFF_FFFF)).reason == "corrupt"
    assert refusal(overwrite_u32(VALID, list_offset, 0xFFFF_FFFF)).reason == "corrupt"


def test_the_longest_name_windows_can_hold_is_read_at_its_end_and_one_longer_is_refused() -> None:
    """A path of any length must not hide the driver, nor make the reader hold it."""
    path = "\\a" + "\U0001f600" * 16_378 + "\\acme.sys"
    plan = DumpPlan(bugcheck=0x133, drivers=[FakeDriver(path, CSAGENT_BASE)], stack=(CSAGENT_BASE + 0x5000,))
    raw = build_dump(plan)
    name_offset = read_u32(raw, read_u32(raw, TRIAGE_FIELDS["driver_list_offset"]))
    assert read_u32(raw, name_offset) == 0x7FFF
    assert read_triage_dump(raw).blame.module == "acme.sys"
    assert read_triage_dump(raw, DumpLimits(name_chars_max=9)).blame.module == "acme.sys"
    longer = overwrite_u32(raw + bytes(8), name_offset, 0x8000)
    assert refusal(longer).reason == "corrupt"


def test_a_stack_outside_the_dump_is_refused_even_if_the_part_read_is_inside() -> None:
    with pytest.raises(DumpError, match="saved stack") as caught:
        read_triage_dump(
            overwrite_u32(VALID, TRIAGE_FIELDS["size_of_call_stack"], 0x10_0000), DumpLimits(stack_bytes_max=16)
        )
    assert caught.value.reason == "corrupt"


def test_nonsense_in_the_list_of_unloaded_drivers_costs_only_that_list() -> None:
    spoiled = overwrite_u32(VALID, read_u32(VALID, TRIAGE_FIELDS["unloaded_drivers_offset"]), 0xFFFF_FFFF)
    dump = read_triage_dump(spoiled)
    assert dump.blame.module == "csagent.sys"
    assert any("unloaded" in note for note in dump.notes)


def test_a_dump_whose_parts_all_point_at_each_other_is_read_in_bounds() -> None:
    """Every offset points to the driver list, which names itself: overlaps are allowed, but cost nothing extra."""
    raw = VALID
    here = read_u32(raw, TRIAGE_FIELDS["driver_list_offset"])
    for field in ("context_offset", "unloaded_drivers_offset", "call_stack_offset", "string_pool_offset"):
        raw = overwrite_u32(raw, TRIAGE_FIELDS[field], here)
    raw = overwrite_u32(raw, here, here)
    read_or_refuse(raw)


def test_the_worst_dump_within_the_limits_takes_bounded_memory_and_time() -> None:
    """4,096 overlapping drivers that share one long name, a stack over the limit: all of it pointers."""
    drivers = [FakeDriver("a", CSAGENT_BASE, 0xFFFF_FFFF) for _ in range(4096)]
    stack = tuple(CSAGENT_BASE + 0x10 for _ in range(160_000))
    raw = bytearray(build_dump(DumpPlan(drivers=drivers, stack=stack)))
    list_offset = read_u32(bytes(raw), TRIAGE_FIELDS["driver_list_offset"])
    longest = read_u32(bytes(raw), TRIAGE_FIELDS["string_pool_offset"])
    struct.pack_into("<I", raw, longest, 1024)
    for index in range(4096):
        struct.pack_into("<I", raw, list_offset + 0x90 * index, longest)
    frozen = bytes(raw)
    tracemalloc.start()
    started = time.perf_counter()
    read_triage_dump(frozen)
    elapsed_seconds = time.perf_counter() - started
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 32 * 2**20
    assert elapsed_seconds < 10  # About 0.3 s alone; room for a loaded machine and the memory tracer.


def test_every_truncation_is_refused_and_never_misread() -> None:
    for length in [*range(0, 0x2000, 97), *range(0x2000, len(VALID))]:
        error = refusal(VALID[:length])
        assert error.reason == ("not_a_dump" if length == 0 else "truncated"), length


def mutate(raw: bytes, chance: random.Random, low: int) -> bytes:
    """Spoil one to eight places: bits, whole words, stretches; half of them in the headers."""
    spoiled = bytearray(raw)
    for _ in range(chance.randint(1, 8)):
        at = chance.choice((chance.randrange(low, 0x2080), chance.randrange(low, len(spoiled) - 8)))
        action = chance.randrange(4)
        if action == 0:
            spoiled[at] ^= 1 << chance.randrange(8)
        elif action == 1:
            struct.pack_into("<I", spoiled, at & ~3, chance.choice(INTERESTING))
        elif action == 2:
            struct.pack_into("<I", spoiled, chance.choice(list(TRIAGE_FIELDS.values())), chance.randrange(len(raw) + 9))
        else:
            spoiled[at : at + 8] = chance.randbytes(8)
    return bytes(spoiled)


def test_six_thousand_mutated_dumps_end_in_a_result_or_a_dump_error() -> None:
    chance = random.Random(291)
    outcomes = [type(read_or_refuse(mutate(VALID, chance, 8))) for _ in range(6_000)]
    # Both must occur in numbers, or the mutations test nothing.
    assert min(outcomes.count(TriageDump), outcomes.count(DumpError)) > 500


def test_mutations_of_the_real_dump_end_in_a_result_or_a_dump_error(triage_sample: Path) -> None:
    whole = triage_sample.read_bytes()[:0x20000]  # All that is read but the end mark, which is put back nearer.
    start = overwrite_u32(overwrite_u32(whole, 0x2004, 0x20000), 0x2008, 0x1FFFC)
    sample = start[:0x1FFFC] + b"TRGD"
    assert read_triage_dump(sample).blame.module == "amdppm.sys"
    chance = random.Random(719)
    for _ in range(500):
        read_or_refuse(mutate(sample, chance, 8))


@given(st.integers(0, len(VALID) - 1), st.binary(min_size=1, max_size=64))
def test_any_stretch_of_other_bytes_is_survived(at: int, stretch: bytes) -> None:
    read_or_refuse(VALID[:at] + stretch + VALID[at + len(stretch) :])


@given(st.binary(max_size=512))
def test_any_bytes_after_the_magic_are_survived(noise: bytes) -> None:
    read_or_refuse(b"PAGEDU64" + noise)
    read_or_refuse(VALID[:0x2000] + noise)


class Trickle(io.BytesIO):
    """A stream that gives at most some bytes a read: 0 is a file that shrinks while it is read."""

    def __init__(self, raw: bytes, bytes_a_read: int) -> None:
        super().__init__(raw)
        self.bytes_a_read = bytes_a_read

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(self.bytes_a_read)


def test_a_stream_that_gives_little_at_a_time_is_read_whole() -> None:
    assert read_triage_dump(Trickle(VALID, bytes_a_read=1)) == read_triage_dump(VALID)


def test_a_file_that_shrinks_while_it_is_read_is_refused() -> None:
    with pytest.raises(DumpError, match="shrank") as caught:
        read_triage_dump(Trickle(VALID, bytes_a_read=0))
    assert caught.value.reason == "truncated"


def test_limits_can_be_lowered() -> None:
    with pytest.raises(DumpError) as caught:
        read_triage_dump(VALID, DumpLimits(drivers_max=1))
    assert caught.value.reason == "too_large"
