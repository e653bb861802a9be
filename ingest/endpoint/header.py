"""Identifies a file and reads the fixed header that all 64-bit kernel dumps share.

First step of the dump reader. Invariant: a file of another kind is named for what it is, with what to do next, before
anything in it is believed; a full memory dump of many gigabytes is refused by its first 8 KiB.
"""

import struct
from typing import Final, Literal

import msgspec

from ingest.endpoint.errors import DumpError
from ingest.endpoint.source import COPY_AGAIN, DumpSource

Machine = Literal["x64", "arm64"]

HEADER_BYTES: Final = 0x2000
TRIAGE_TYPE: Final = 4
PARAMETERS: Final = 4

_MACHINES: Final[dict[int, Machine]] = {0x8664: "x64", 0xAA64: "arm64"}
_SMALL_DUMP: Final = "cordon reads small kernel dumps: name a .dmp file of C:\\Windows\\Minidump"
_SET_SMALL_DUMP: Final = (
    'set "Small memory dump" under Startup and Recovery (CrashDumpEnabled=3) to get one at the next crash, '
    "or report this crash from the event log"
)
_FOREIGN_MAGIC: Final = (
    (b"PAGEDUMP", "a dump of 32-bit Windows, which has no supported small dump format: report it from the event log"),
    (b"MDMP", f"a dump of one program (user mode), not of a crashed machine: {_SMALL_DUMP}"),
    (b"USERDU64", f"an old dump of one program (user mode), not of a crashed machine: {_SMALL_DUMP}"),
    (b"USERDUMP", f"an old dump of one program (user mode), not of a crashed machine: {_SMALL_DUMP}"),
)
_OTHER_MAGIC: Final = (
    (b"PK\x03\x04", "a zip archive: unpack it and name the .dmp file inside"),
    (b"\x1f\x8b", "gzip data: unpack it and name the .dmp file inside"),
    (b"MSCF", "a cabinet archive: unpack it (expand -F:* FILE FOLDER) and name the .dmp file inside"),
    (b"MZ", f"a Windows program or driver, not a dump: {_SMALL_DUMP}"),
)
_FOREIGN_TYPES: Final = {
    1: "full memory dump",
    2: "kernel memory dump",
    3: "header-only dump",
    5: "full memory dump (bitmap)",
    6: "kernel memory dump (bitmap)",
    7: "automatic memory dump",
    8: "kernel memory dump",
    9: "kernel and user memory dump",
    10: "complete memory dump",
}
_U32: Final = struct.Struct("<I")
_U64: Final = struct.Struct("<Q")
_FOUR_U64: Final = struct.Struct("<4Q")

# The writer fills what it leaves out with this text.
_FILLER_U32: Final = int.from_bytes(b"PAGE", "little")
_FILLER_U64: Final = int.from_bytes(b"PAGEPAGE", "little")

_FILETIME_EPOCH: Final = 116_444_736_000_000_000
_TICKS_A_MS: Final = 10_000
_CRASH_TIME_MAX_MS: Final = 4_102_444_800_000  # The year 2100; the wire refuses later times as absurd.
_UPTIME_MAX_MS: Final = 50 * 366 * 86_400_000


class DumpHeader(msgspec.Struct, frozen=True, kw_only=True):
    """What the fixed header says; times are None where it holds nothing sensible."""

    machine: Machine
    os_build: int
    bugcheck_raw: int
    parameters: tuple[int, int, int, int]
    exception_code: int | None
    exception_address: int | None
    crash_time_ms: int | None
    uptime_ms: int | None


def read_header(source: DumpSource) -> DumpHeader:
    """Read the fixed header of a 64-bit triage dump.

    Raises:
        DumpError: ``not_a_dump``, ``foreign_dump_type`` or ``truncated``.
    """
    start = source.read(0, min(source.size_bytes, 8), "first bytes")
    _refuse_other_magic(start)
    raw = source.read(0, HEADER_BYTES, "8 KiB header")
    dump_type = _u32(raw, 0xF98)
    if dump_type != TRIAGE_TYPE:
        name = _FOREIGN_TYPES.get(dump_type, f"dump of the unknown type {dump_type}")
        raise DumpError("foreign_dump_type", f"this is a {name}, cordon reads small ones only: {_SET_SMALL_DUMP}")
    machine = _MACHINES.get(_u32(raw, 0x30))
    if machine is None:
        raise DumpError(
            "foreign_dump_type",
            f"the dump's machine type {_u32(raw, 0x30):#x} is neither x64 nor arm64: report it from the event log",
        )
    exception_code, exception_address = _u32(raw, 0xF00), _u64(raw, 0xF10)
    has_exception = exception_code not in (0, _FILLER_U32)
    one, two, three, four = _FOUR_U64.unpack_from(raw, 0x40)
    return DumpHeader(
        machine=machine,
        os_build=_u32(raw, 0x0C),
        bugcheck_raw=_u32(raw, 0x38),
        parameters=(one, two, three, four),
        exception_code=exception_code if has_exception else None,
        exception_address=exception_address if has_exception else None,
        crash_time_ms=_crash_time_ms(_u64(raw, 0xFA8)),
        uptime_ms=_uptime_ms(_u64(raw, 0x1030)),
    )


def _refuse_other_magic(start: bytes) -> None:
    if start == b"PAGEDU64":
        return
    if not start:
        raise DumpError("not_a_dump", f"the file is empty: Windows wrote no dump, or {COPY_AGAIN}")
    for magic, meaning in _FOREIGN_MAGIC:
        if start.startswith(magic):
            raise DumpError("foreign_dump_type", f"this is {meaning}")
    for magic, meaning in _OTHER_MAGIC:
        if start.startswith(magic):
            raise DumpError("not_a_dump", f"this is {meaning}")
    if b"PAGEDU64".startswith(start):
        raise DumpError("truncated", f"the file ends within its first 8 bytes: {COPY_AGAIN}")
    raise DumpError("not_a_dump", f"this is no Windows dump (it begins with {start!r}): {_SMALL_DUMP}")


def _crash_time_ms(filetime: int) -> int | None:
    """Turn 100 ns since 1601 into milliseconds since 1970, UTC."""
    if filetime == _FILLER_U64 or filetime < _FILETIME_EPOCH:
        return None
    milliseconds = (filetime - _FILETIME_EPOCH) // _TICKS_A_MS
    return milliseconds if milliseconds <= _CRASH_TIME_MAX_MS else None


def _uptime_ms(ticks: int) -> int | None:
    milliseconds = ticks // _TICKS_A_MS
    return milliseconds if ticks != _FILLER_U64 and milliseconds <= _UPTIME_MAX_MS else None


def _u32(raw: bytes, offset: int) -> int:
    return int(_U32.unpack_from(raw, offset)[0])


def _u64(raw: bytes, offset: int) -> int:
    return int(_U64.unpack_from(raw, offset)[0])
