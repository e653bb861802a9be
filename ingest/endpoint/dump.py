r"""Reads a Windows kernel triage dump (``C:\Windows\\Minidump\*.dmp``) and says which driver the crash is blamed on.

First stage on the device: a file in, facts for a crash report out; posting them is the reporter's work. Invariant:
whatever the file holds, the answer is a `TriageDump` or a `DumpError`, in time and memory bounded by `DumpLimits`.
"""

from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from ingest.endpoint.header import DumpHeader, Machine, read_header
from ingest.endpoint.images import ImageMap
from ingest.endpoint.source import DumpSource, open_source
from ingest.endpoint.triage import (
    Driver,
    DumpLimits,
    Registers,
    Stack,
    TriageHeader,
    UnloadedDriver,
    read_drivers,
    read_registers,
    read_stack,
    read_triage_header,
    read_unloaded_drivers,
)
from ingest.signature import Blame, Evidence, Frame, blame_of, bugcheck_facts, normalise_bugcheck

DEFAULT_LIMITS: Final = DumpLimits()


class TriageDump(msgspec.Struct, frozen=True, kw_only=True):
    """What a triage dump says about a crash.

    Attributes:
        bugcheck_raw: the stop code as written; `bugcheck` is the one Microsoft's reference lists.
        exception_code: of the saved exception record, often only the kernel's own breakpoint (0x80000003).
        crash_time_ms: milliseconds since the epoch, UTC, by the device's clock; None if it makes no sense.
        uptime_ms: time from boot to crash; None if it makes no sense.
        frames: places in drivers that the stack points to, innermost first; a scan, not an unwinding.
        blame: the module blamed, where in it, by which rule and why.
        notes: what a reader of the result should know about how it was read.
    """

    machine: Machine
    os_build: int
    bugcheck_raw: int
    bugcheck: int
    parameters: tuple[int, int, int, int]
    exception_code: int | None
    exception_address: int | None
    crash_time_ms: int | None
    uptime_ms: int | None
    drivers: tuple[Driver, ...]
    unloaded_drivers: tuple[UnloadedDriver, ...]
    frames: tuple[Frame, ...]
    blame: Blame
    notes: tuple[str, ...]


def read_triage_dump(source: BinaryIO | bytes | Path, limits: DumpLimits = DEFAULT_LIMITS) -> TriageDump:
    """Read a triage dump from bytes, a file or a seekable binary stream.

    Args:
        source: what to read. A stream is left open and at an arbitrary position.
        limits: bounds on size, counts and lengths.

    Raises:
        DumpError: not a usable triage dump; its reason is one of a closed set, its message says what to do.
        OSError: the file could not be opened or read.
    """
    with open_source(source) as opened:
        header = read_header(opened)
        triage = read_triage_header(opened, limits)
        return _read_body(opened, header, triage, limits)


def _read_body(source: DumpSource, header: DumpHeader, triage: TriageHeader, limits: DumpLimits) -> TriageDump:
    notes: list[str] = []
    drivers = read_drivers(source, triage, limits)
    unloaded = read_unloaded_drivers(source, triage, limits)
    if unloaded is None:
        notes.append("the list of unloaded drivers makes no sense and was left out")
    registers = read_registers(source, triage, header.machine)
    stack = read_stack(source, triage, limits)
    if triage.size_of_call_stack > limits.stack_bytes_max:
        notes.append(f"only the first {limits.stack_bytes_max} bytes of the stack were read")
    images = ImageMap.of_drivers(drivers)
    frames = _frames(images, stack, registers, limits, notes)
    evidence = _evidence(header, images, ImageMap.of_unloaded(unloaded or ()), registers, frames)
    return TriageDump(
        machine=header.machine,
        os_build=header.os_build,
        bugcheck_raw=header.bugcheck_raw,
        bugcheck=evidence.bugcheck,
        parameters=header.parameters,
        exception_code=header.exception_code,
        exception_address=header.exception_address,
        crash_time_ms=header.crash_time_ms,
        uptime_ms=header.uptime_ms,
        drivers=drivers,
        unloaded_drivers=unloaded or (),
        frames=frames,
        blame=blame_of(evidence),
        notes=tuple(notes),
    )


def _frames(
    images: ImageMap, stack: Stack, registers: Registers | None, limits: DumpLimits, notes: list[str]
) -> tuple[Frame, ...]:
    """Scan the stack from the saved stack pointer on, where it lies in the saved part, else from its top.

    Below the saved stack pointer are the kernel's own steps from the fault to the stop: they would come first and say
    nothing.
    """
    skipped_words = 0
    innermost: list[Frame] = []
    if registers is not None:
        offset = registers.stack_pointer - stack.top_address
        if 0 <= offset < len(stack.words) * 8 and offset % 8 == 0:
            skipped_words = offset // 8
        pointed = images.find(registers.instruction_pointer)
        if pointed is not None:
            innermost.append(pointed)
    if skipped_words:
        notes.append(f"the stack was read from the saved stack pointer on, {skipped_words * 8} bytes above its top")
    scanned = images.scan(stack.words[skipped_words:], limits.frames_max - len(innermost))
    return (*innermost, *scanned)


def _evidence(
    header: DumpHeader, images: ImageMap, unloaded: ImageMap, registers: Registers | None, frames: tuple[Frame, ...]
) -> Evidence:
    bugcheck = normalise_bugcheck(header.bugcheck_raw)
    number = bugcheck_facts(bugcheck).fault_address
    fault = None
    if number is not None:
        address = header.parameters[number - 1]
        # A call into a driver that is gone is that driver's fault, and no loaded image holds the address.
        fault = images.find(address) or unloaded.find(address)
    return Evidence(
        bugcheck=bugcheck,
        fault=fault,
        context=images.find(registers.instruction_pointer) if registers is not None else None,
        exception=images.find(header.exception_address) if header.exception_address is not None else None,
        frames=frames,
    )
