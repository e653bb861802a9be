"""Builds Windows kernel triage dumps for tests: valid ones from a description, and raw bytes to spoil from there.

The layout is the one that the real sample has. `DumpPlan` gives offsets of what was written, so that a test can
overwrite exactly one claim.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

MACHINE_CODES = {"x64": 0x8664, "arm64": 0xAA64}
CONTEXT_OFFSET = 0x348
CONTEXT_FIELDS = {"x64": (0x98, 0xF8), "arm64": (0x100, 0x108)}
FILETIME_EPOCH = 116_444_736_000_000_000
KERNEL_BASE = 0xFFFF_F804_7BA0_0000
CSAGENT_BASE = 0xFFFF_F804_8B58_0000
STACK_TOP = 0xFFFF_8504_2989_0EE8
KERNEL_CODE = KERNEL_BASE + 0x3F_5A80

# Byte offsets of the triage header's fields, for tests that spoil one of them.
TRIAGE_FIELDS = {
    name: 0x2000 + 4 * index
    for index, name in enumerate(
        (
            "service_pack_build",
            "size_of_dump",
            "valid_offset",
            "context_offset",
            "exception_offset",
            "mm_offset",
            "unloaded_drivers_offset",
            "prcb_offset",
            "process_offset",
            "thread_offset",
            "call_stack_offset",
            "size_of_call_stack",
            "driver_list_offset",
            "driver_count",
            "string_pool_offset",
            "string_pool_size",
            "broken_driver_offset",
            "triage_options",
        )
    )
}


@dataclass(frozen=True)
class FakeDriver:
    """A driver as the dump's list has it."""

    path: str
    base: int
    size_bytes: int = 0x10_0000
    checksum: int = 0x1234
    timestamp: int = 0x6698_0000


@dataclass(frozen=True)
class FakeUnloaded:
    """An unloaded driver; Windows keeps 12 characters of its name."""

    name: str
    base: int
    end: int


KERNEL = FakeDriver("\\SystemRoot\\system32\\ntoskrnl.exe", KERNEL_BASE, 0x104_6000)
CSAGENT = FakeDriver("\\??\\C:\\Windows\\System32\\drivers\\CrowdStrike\\CSAgent.sys", CSAGENT_BASE, 0x40_0000)


@dataclass(frozen=True)
class DumpPlan:
    """What to write. The defaults are a machine with a kernel and csagent.sys and nothing on its stack."""

    machine: Literal["x64", "arm64"] = "x64"
    os_build: int = 22631
    bugcheck: int = 0x50
    parameters: tuple[int, int, int, int] = (0, 0, 0, 0)
    drivers: Sequence[FakeDriver] = (KERNEL, CSAGENT)
    unloaded: Sequence[FakeUnloaded] = ()
    stack: Sequence[int] = ()
    stack_top: int = STACK_TOP
    stack_pointer: int = STACK_TOP
    instruction_pointer: int = KERNEL_CODE
    exception_code: int = 0x8000_0003
    exception_address: int = KERNEL_CODE
    crash_time_ms: int = 1_721_362_140_000
    uptime_ms: int = 41_000
    tail: bytes = field(default=b"", repr=False)


def july_19_plan(machine: Literal["x64", "arm64"] = "x64") -> DumpPlan:
    """Describe the crash of 2024-07-19: 0x50, parameter 3 and the stack in csagent.sys+0xe14ed."""
    fault = CSAGENT_BASE + 0xE14ED
    return DumpPlan(
        machine=machine,
        parameters=(0x9C, 0, fault, 0),
        stack=(KERNEL_BASE + 0x40_F4E1, 7, fault, CSAGENT_BASE + 0xB71B6, KERNEL_BASE + 0x35_5A05),
    )


def build_dump(plan: DumpPlan) -> bytes:
    """Write a valid triage dump."""
    out = bytearray(b"PAGE" * (0x2000 // 4))
    _write_header(out, plan)
    out += bytes(0x200)
    unloaded_offset = len(out)
    out += struct.pack("<Q", len(plan.unloaded))
    for gone in plan.unloaded:
        units = gone.name[:12].encode("utf-16-le")
        out += struct.pack("<HH12x24sQQ", len(units), len(units), units, gone.base, gone.end)
    stack_offset = len(out)
    out += struct.pack(f"<{len(plan.stack)}Q", *plan.stack)
    list_offset = len(out)
    pool_offset = list_offset + 0x90 * len(plan.drivers)
    pool = bytearray()
    for driver in plan.drivers:
        out += _driver_entry(driver, pool_offset + len(pool))
        units = driver.path.encode("utf-16-le", errors="surrogatepass")
        pool += struct.pack("<I", len(units) // 2) + units
        pool += bytes(-len(pool) % 8)
    out += pool
    valid_offset = len(out)
    out += b"TRGD"
    values = {
        "size_of_dump": len(out),
        "valid_offset": valid_offset,
        "context_offset": CONTEXT_OFFSET,
        "exception_offset": 0xF00,
        "unloaded_drivers_offset": unloaded_offset,
        "call_stack_offset": stack_offset,
        "size_of_call_stack": 8 * len(plan.stack),
        "driver_list_offset": list_offset,
        "driver_count": len(plan.drivers),
        "string_pool_offset": pool_offset,
        "string_pool_size": len(pool),
        "triage_options": 0xFFFF_FFFF,
    }
    for name, value in values.items():
        struct.pack_into("<I", out, TRIAGE_FIELDS[name], value)
    struct.pack_into("<Q", out, 0x2048, plan.stack_top)
    return bytes(out) + plan.tail


def overwrite_u32(dump: bytes, offset: int, value: int) -> bytes:
    """Return the dump with one 32-bit number replaced."""
    spoiled = bytearray(dump)
    struct.pack_into("<I", spoiled, offset, value)
    return bytes(spoiled)


def read_u32(dump: bytes, offset: int) -> int:
    """Return the 32-bit number at an offset."""
    return int(struct.unpack_from("<I", dump, offset)[0])


def _write_header(out: bytearray, plan: DumpPlan) -> None:
    out[0:8] = b"PAGEDU64"
    struct.pack_into("<II", out, 0x08, 15, plan.os_build)
    struct.pack_into("<II", out, 0x30, MACHINE_CODES[plan.machine], 8)
    struct.pack_into("<I", out, 0x38, plan.bugcheck)
    struct.pack_into("<4Q", out, 0x40, *plan.parameters)
    stack_pointer, instruction_pointer = CONTEXT_FIELDS[plan.machine]
    struct.pack_into("<Q", out, CONTEXT_OFFSET + stack_pointer, plan.stack_pointer)
    struct.pack_into("<Q", out, CONTEXT_OFFSET + instruction_pointer, plan.instruction_pointer)
    struct.pack_into("<IIQQ", out, 0xF00, plan.exception_code, 1, 0, plan.exception_address)
    struct.pack_into("<I", out, 0xF98, 4)
    struct.pack_into("<Q", out, 0xFA8, FILETIME_EPOCH + plan.crash_time_ms * 10_000)
    struct.pack_into("<Q", out, 0x1030, plan.uptime_ms * 10_000)


def _driver_entry(driver: FakeDriver, name_offset: int) -> bytes:
    entry = bytearray(0x90)
    struct.pack_into("<I", entry, 0x00, name_offset)
    struct.pack_into("<Q", entry, 0x08 + 0x30, driver.base)
    struct.pack_into("<I", entry, 0x08 + 0x40, driver.size_bytes)
    struct.pack_into("<I", entry, 0x08 + 0x78, driver.checksum)
    struct.pack_into("<I", entry, 0x08 + 0x80, driver.timestamp)
    return bytes(entry)
