"""Dumps built for the purpose: what is written is read back, on both machines, and the right module is blamed."""

from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.endpoint.dump import read_triage_dump
from ingest.endpoint.triage import DumpLimits
from ingest.signature import Frame, signature_of
from support.dumps import (
    CSAGENT,
    CSAGENT_BASE,
    KERNEL,
    KERNEL_BASE,
    STACK_TOP,
    DumpPlan,
    FakeDriver,
    FakeUnloaded,
    build_dump,
    july_19_plan,
)

WDF = FakeDriver("\\SystemRoot\\system32\\drivers\\Wdf01000.sys", 0xFFFF_F804_7D00_0000)
ACME = FakeDriver("\\SystemRoot\\system32\\drivers\\acme.sys", 0xFFFF_F804_7E00_0000)
MACHINES: tuple[Literal["x64", "arm64"], ...] = ("x64", "arm64")


@pytest.mark.parametrize("machine", MACHINES)
def test_july_19_is_blamed_on_csagent_on_both_machines(machine: Literal["x64", "arm64"]) -> None:
    dump = read_triage_dump(build_dump(july_19_plan(machine)))
    assert dump.machine == machine
    assert (dump.blame.module, dump.blame.offset, dump.blame.rule) == ("csagent.sys", 0xE14ED, "fault_parameter")
    assert dump.frames[1:] == (
        Frame("ntoskrnl.exe", 0x40_F4E1),
        Frame("csagent.sys", 0xE14ED),
        Frame("csagent.sys", 0xB71B6),
        Frame("ntoskrnl.exe", 0x35_5A05),
    )
    signature = signature_of(dump.bugcheck, dump.parameters, dump.frames, dump.blame.module)
    assert signature.module_bugcheck == "csagent.sys|0x50"


@pytest.mark.parametrize("machine", MACHINES)
def test_the_saved_registers_of_each_machine_are_used(machine: Literal["x64", "arm64"]) -> None:
    plan = DumpPlan(machine=machine, bugcheck=0x133, instruction_pointer=CSAGENT_BASE + 0x5000)
    dump = read_triage_dump(build_dump(plan))
    assert (dump.blame.module, dump.blame.offset, dump.blame.rule) == ("csagent.sys", 0x5000, "context_pointer")


def test_a_path_bytes_and_a_stream_give_the_same_and_the_stream_stays_open(tmp_path: Path) -> None:
    raw = build_dump(july_19_plan())
    path = tmp_path / "071924-01.dmp"
    path.write_bytes(raw)
    stream = BytesIO(raw)
    assert read_triage_dump(path) == read_triage_dump(raw) == read_triage_dump(stream)
    assert not stream.closed


def test_the_stack_decides_where_no_parameter_does() -> None:
    stack = (KERNEL_BASE + 0x2000, WDF.base + 0x3000, ACME.base + 0x4000, CSAGENT_BASE + 0x5000)
    dump = read_triage_dump(build_dump(DumpPlan(bugcheck=0x139, drivers=(KERNEL, WDF, ACME, CSAGENT), stack=stack)))
    assert (dump.blame.module, dump.blame.offset, dump.blame.rule) == ("acme.sys", 0x4000, "first_frame")


def test_a_framework_is_blamed_only_without_another_driver_and_the_kernel_only_alone() -> None:
    framework = DumpPlan(bugcheck=0x139, drivers=(KERNEL, WDF), stack=(KERNEL_BASE + 0x2000, WDF.base + 0x3000))
    blame = read_triage_dump(build_dump(framework)).blame
    assert (blame.module, blame.offset, blame.rule) == ("wdf01000.sys", 0x3000, "generic_module")
    alone = replace(framework, stack=(KERNEL_BASE + 0x2000,))
    blame = read_triage_dump(build_dump(alone)).blame
    assert (blame.module, blame.rule) == ("ntoskrnl.exe", "kernel")
    assert "not why" in blame.notes[0]


def test_a_deliberate_crash_blames_nobody_even_with_a_driver_on_the_stack() -> None:
    for code in (0xE2, 0x1C8, 0xDEAD_DEAD):
        dump = read_triage_dump(build_dump(DumpPlan(bugcheck=code, stack=(CSAGENT_BASE + 0x5000,))))
        assert (dump.blame.module, dump.blame.rule) == ("", "deliberate")


def test_a_call_into_an_unloaded_driver_is_that_drivers_fault() -> None:
    gone = FakeUnloaded("gone.sys", 0xFFFF_F804_9000_0000, 0xFFFF_F804_9001_0000)
    plan = DumpPlan(bugcheck=0xCE, parameters=(0, 0, gone.base + 0x1234, 0), unloaded=(gone,))
    dump = read_triage_dump(build_dump(plan))
    assert (dump.blame.module, dump.blame.offset) == ("gone.sys", 0x1234)


def test_what_lies_below_the_saved_stack_pointer_is_skipped_with_a_note() -> None:
    stack = (ACME.base + 0x4000, ACME.base + 0x4008, CSAGENT_BASE + 0x5000)
    plan = DumpPlan(bugcheck=0x133, drivers=(KERNEL, ACME, CSAGENT), stack=stack, stack_pointer=STACK_TOP + 16)
    dump = read_triage_dump(build_dump(plan))
    assert dump.blame.module == "csagent.sys"
    assert any("16 bytes above" in note for note in dump.notes)
    elsewhere = replace(plan, stack_pointer=STACK_TOP + 4096)
    assert read_triage_dump(build_dump(elsewhere)).blame.module == "acme.sys"


def test_pointers_to_an_images_headers_are_not_frames() -> None:
    dump = read_triage_dump(build_dump(DumpPlan(bugcheck=0x133, stack=(CSAGENT_BASE, CSAGENT_BASE + 0xFFF))))
    assert dump.blame.module == "ntoskrnl.exe"


@pytest.mark.parametrize(
    "path",
    [
        "\\drivers\\a\x07b.sys",
        "\\drivers\\a\u202esys.tab",
        "\\drivers\\a|b.sys",
        "\\drivers\\\ud800.sys",
        "\\drivers\\",
        "",
        "\\drivers\\" + "a" * 200 + ".sys",
    ],
    ids=["bell", "override", "bar", "surrogate", "no-name", "empty", "long"],
)
def test_a_driver_cannot_hide_or_forge_by_its_name(path: str) -> None:
    evil = FakeDriver(path, ACME.base, size_bytes=0x2_0000, timestamp=0xBADC0DE)
    plan = DumpPlan(bugcheck=0x133, drivers=(KERNEL, evil), stack=(evil.base + 0x4000,))
    dump = read_triage_dump(build_dump(plan))
    assert (dump.blame.module, dump.blame.offset) == ("unnamed-0badc0de-20000", 0x4000)


def test_times_that_make_no_sense_are_left_out() -> None:
    dump = read_triage_dump(build_dump(DumpPlan(crash_time_ms=5_000_000_000_000, uptime_ms=10**13)))
    assert (dump.crash_time_ms, dump.uptime_ms) == (None, None)


def test_frames_and_stack_are_bounded() -> None:
    stack = tuple(CSAGENT_BASE + 0x2000 + 16 * index for index in range(1000))
    raw = build_dump(DumpPlan(stack=stack))
    assert len(read_triage_dump(raw).frames) == 64
    short = read_triage_dump(raw, DumpLimits(stack_bytes_max=160))
    assert len(short.frames) == 21
    assert any("first 160 bytes" in note for note in short.notes)
    assert len(read_triage_dump(raw, DumpLimits(frames_max=1)).frames) == 1


U64 = st.integers(0, 2**64 - 1)
U32 = st.integers(0, 2**32 - 1)
NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,30}\.sys", fullmatch=True)
PREFIXES = st.sampled_from(["", "\\SystemRoot\\System32\\drivers\\", "\\??\\C:\\Program Files\\Acme\\", "drivers/"])


@st.composite
def plans(draw: st.DrawFn) -> DumpPlan:
    names = draw(st.lists(NAMES, max_size=20))
    drivers = tuple(FakeDriver(draw(PREFIXES) + name, draw(U64), draw(U32), draw(U32), draw(U32)) for name in names)
    inside = st.sampled_from([driver.base for driver in drivers] or [0]).map(lambda base: (base + 0x1800) % 2**64)
    return DumpPlan(
        machine=draw(st.sampled_from(MACHINES)),
        os_build=draw(st.integers(0, 99_999)),
        bugcheck=draw(U32),
        parameters=draw(st.tuples(U64, U64, U64, U64)),
        drivers=drivers,
        stack=tuple(draw(st.lists(st.one_of(U64, inside), max_size=60))),
        stack_top=draw(st.integers(0, 2**64 - 1024)),
        stack_pointer=draw(U64),
        instruction_pointer=draw(U64),
        exception_code=draw(st.integers(1, 2**32 - 1).filter(lambda code: code != int.from_bytes(b"PAGE", "little"))),
        exception_address=draw(U64),
        crash_time_ms=draw(st.integers(0, 4_102_444_800_000)),
        uptime_ms=draw(st.integers(0, 10**12)),
        tail=draw(st.binary(max_size=64)),
    )


@given(plans())
def test_what_the_builder_writes_is_read_back(plan: DumpPlan) -> None:
    dump = read_triage_dump(build_dump(plan))
    assert (dump.machine, dump.os_build, dump.bugcheck_raw) == (plan.machine, plan.os_build, plan.bugcheck)
    assert dump.parameters == plan.parameters
    assert (dump.exception_code, dump.exception_address) == (plan.exception_code, plan.exception_address)
    assert (dump.crash_time_ms, dump.uptime_ms) == (plan.crash_time_ms, plan.uptime_ms)
    written = [
        (driver.path.replace("/", "\\").rsplit("\\", 1)[-1], driver.base, driver.size_bytes, driver.checksum)
        for driver in plan.drivers
    ]
    assert [(driver.name, driver.base, driver.size_bytes, driver.checksum) for driver in dump.drivers] == written
    assert [driver.timestamp for driver in dump.drivers] == [driver.timestamp for driver in plan.drivers]
    ranges = {(driver.name, driver.base, driver.size_bytes) for driver in dump.drivers}
    for frame in dump.frames:
        assert any(frame.module == name and 0 <= frame.offset < size for name, _, size in ranges)


def test_an_unloaded_driver_that_claims_all_memory_gives_no_offset_beyond_an_images_size() -> None:
    greedy = FakeUnloaded("greedy.sys", 0, 2**64 - 1)
    plan = DumpPlan(bugcheck=0xCE, parameters=(0, 0, 2**63, 0), unloaded=(greedy,))
    assert read_triage_dump(build_dump(plan)).blame.module == "ntoskrnl.exe"
