"""Reads the triage part of a small kernel dump: its driver lists, its saved registers and its saved stack.

Second step of the dump reader, on a file that header.py has identified. Every offset, count and length in it is the
writer's claim. Invariant: each is checked against the declared size and a limit before anything is read or allotted,
and the work is linear in what the limits allow.
"""

import struct
from typing import Final, NamedTuple

import msgspec

from ingest.endpoint.errors import DumpError
from ingest.endpoint.header import HEADER_BYTES, Machine
from ingest.endpoint.source import COPY_AGAIN, DAMAGED, DumpSource
from ingest.signature import normalise_module

_TRIAGE_HEADER: Final = struct.Struct("<18IQ")
_VALID_TAG: Final = b"TRGD"

_DRIVER_STRIDE: Final = 0x90
# Name's offset; base, image size, checksum, time stamp: a loader entry 8 bytes into the driver's.
_DRIVER: Final = struct.Struct("<I52xQ8xI52xI4xI4x")
_UNLOADED_STRIDE: Final = 0x38
_UNLOADED: Final = struct.Struct("<H14x24sQQ")
_STRING_LENGTH_BYTES: Final = 4
# Windows keeps a string's length in bytes in 16 bits.
_STRING_CHARS_MAX: Final = 0x7FFF

# Offsets of the stack pointer and the instruction pointer in the CONTEXT of each machine.
_CONTEXT: Final[dict[Machine, tuple[int, int]]] = {"x64": (0x98, 0xF8), "arm64": (0x100, 0x108)}


class DumpLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds on what is read of one dump; a real one of 2020 has 151 drivers, 8 KiB of stack and 1.4 MB."""

    file_bytes_max: int = 64 * 1024 * 1024
    drivers_max: int = 4096
    unloaded_drivers_max: int = 256
    name_chars_max: int = 1024
    stack_bytes_max: int = 1024 * 1024
    frames_max: int = 64


class Driver(msgspec.Struct, frozen=True, kw_only=True):
    """A loaded image. Its file version is not in the dump: (timestamp, size_bytes) is what tells builds apart.

    Attributes:
        name: normalised; ``unnamed-<timestamp>-<size>`` if the dump's name for it was refused.
        base: address of its first byte.
        timestamp: of the PE header; a hash in reproducible builds.
    """

    name: str
    base: int
    size_bytes: int
    checksum: int
    timestamp: int


class UnloadedDriver(msgspec.Struct, frozen=True, kw_only=True):
    """An image that was unloaded before the crash; the dump keeps 12 characters of its name."""

    name: str
    base: int
    end: int


class TriageHeader(NamedTuple):
    """The triage header at 0x2000, field by field; offsets count from the file's start, sizes are in bytes."""

    service_pack_build: int
    size_of_dump: int
    valid_offset: int
    context_offset: int
    exception_offset: int
    mm_offset: int
    unloaded_drivers_offset: int
    prcb_offset: int
    process_offset: int
    thread_offset: int
    call_stack_offset: int
    size_of_call_stack: int
    driver_list_offset: int
    driver_count: int
    string_pool_offset: int
    string_pool_size: int
    broken_driver_offset: int
    triage_options: int
    top_of_stack: int


class Registers(NamedTuple):
    """The two saved registers that matter here."""

    stack_pointer: int
    instruction_pointer: int


class Stack(NamedTuple):
    """The saved part of the kernel stack: the address of its lowest word and its 64-bit words upwards."""

    top_address: int
    words: tuple[int, ...]


def read_triage_header(source: DumpSource, limits: DumpLimits) -> TriageHeader:
    """Read the triage header, check that the dump was finished, and confine further reads to it.

    Raises:
        DumpError: ``too_large``, ``truncated`` or ``corrupt``.
    """
    if source.size_bytes > limits.file_bytes_max:
        raise DumpError(
            "too_large",
            f"the file has {source.size_bytes} bytes, a small dump at most {limits.file_bytes_max}: "
            "check that it is the one Windows wrote",
        )
    raw = source.read(HEADER_BYTES, _TRIAGE_HEADER.size, "triage header")
    header = TriageHeader(*_TRIAGE_HEADER.unpack(raw))
    if header.size_of_dump < HEADER_BYTES + _TRIAGE_HEADER.size:
        raise DumpError("corrupt", f"the dump declares a size of {header.size_of_dump} bytes: {DAMAGED}")
    source.limit_to(header.size_of_dump)
    if source.read(header.valid_offset, len(_VALID_TAG), "end mark") != _VALID_TAG:
        raise DumpError("truncated", f"the dump's end mark is missing, Windows did not finish it: {COPY_AGAIN}")
    return header


def read_drivers(source: DumpSource, header: TriageHeader, limits: DumpLimits) -> tuple[Driver, ...]:
    """Read the list of loaded images, in load order.

    Raises:
        DumpError: ``too_large``, more images than the limit; ``corrupt``, the list or a name lies outside the dump.
    """
    if header.driver_count > limits.drivers_max:
        raise DumpError(
            "too_large",
            f"the dump lists {header.driver_count} drivers, over {limits.drivers_max}: {DAMAGED}",
        )
    raw = source.read(header.driver_list_offset, header.driver_count * _DRIVER_STRIDE, "driver list")
    drivers = []
    for name_offset, base, size_bytes, checksum, timestamp in _DRIVER.iter_unpack(raw):
        name = normalise_module(_read_string(source, name_offset, limits.name_chars_max))
        drivers.append(
            Driver(
                name=name or f"unnamed-{timestamp:08x}-{size_bytes:x}",
                base=base,
                size_bytes=size_bytes,
                checksum=checksum,
                timestamp=timestamp,
            )
        )
    return tuple(drivers)


def read_unloaded_drivers(
    source: DumpSource, header: TriageHeader, limits: DumpLimits
) -> tuple[UnloadedDriver, ...] | None:
    """Read the images unloaded before the crash, or None if the list makes no sense: nothing else depends on it."""
    start = header.unloaded_drivers_offset
    if start == 0:
        return ()
    try:
        count = source.u64(start, "number of unloaded drivers")
        if count > limits.unloaded_drivers_max:
            return None
        raw = source.read(start + 8, count * _UNLOADED_STRIDE, "list of unloaded drivers")
    except DumpError:
        return None
    unloaded = []
    for name_bytes, buffer, base, end in _UNLOADED.iter_unpack(raw):
        name = normalise_module(_decode(buffer[: min(name_bytes, len(buffer)) & ~1]))
        unloaded.append(UnloadedDriver(name=name or f"unnamed-{base:x}", base=base, end=end))
    return tuple(unloaded)


def read_registers(source: DumpSource, header: TriageHeader, machine: Machine) -> Registers | None:
    """Read the saved stack and instruction pointers; None if the dump saved no registers.

    Raises:
        DumpError: ``corrupt``, they lie outside the dump.
    """
    if header.context_offset == 0:
        return None
    stack_pointer, instruction_pointer = _CONTEXT[machine]
    return Registers(
        stack_pointer=source.u64(header.context_offset + stack_pointer, "saved registers"),
        instruction_pointer=source.u64(header.context_offset + instruction_pointer, "saved registers"),
    )


def read_stack(source: DumpSource, header: TriageHeader, limits: DumpLimits) -> Stack:
    """Read the saved stack, at most the limit from its top.

    Raises:
        DumpError: ``corrupt``, it lies outside the dump.
    """
    if header.call_stack_offset + header.size_of_call_stack > source.end_bytes:
        raise DumpError("corrupt", f"the saved stack lies outside the dump: {DAMAGED}")
    word_count = min(header.size_of_call_stack, limits.stack_bytes_max) // 8
    raw = source.read(header.call_stack_offset, word_count * 8, "saved stack")
    return Stack(top_address=header.top_of_stack, words=struct.unpack(f"<{word_count}Q", raw))


def _read_string(source: DumpSource, offset: int, chars_max: int) -> str:
    """Read a string, of a long one only its end: that is where a path holds the file's name."""
    chars = source.u32(offset, "driver name's length")
    if chars > _STRING_CHARS_MAX:
        raise DumpError("corrupt", f"a driver's name claims {chars} characters: {DAMAGED}")
    taken = min(chars, chars_max)
    start = offset + _STRING_LENGTH_BYTES + 2 * (chars - taken)
    return _decode(source.read(start, 2 * taken, "driver name"))


def _decode(raw: bytes) -> str:
    # Halves of pairs pass here and are refused in a file's name; in the path before it they do no harm.
    return raw.decode("utf-16-le", errors="surrogatepass").rstrip("\0")
