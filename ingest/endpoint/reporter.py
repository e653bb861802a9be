"""What a device says of its dump: a triage dump and the device's circumstances to a crash report.

Pure. A dump has no file versions and no sequence number; the number is made from the crash time, so posting the same
dump twice is a duplicate and not a second crash.
"""

from dataclasses import dataclass
from typing import cast

from ingest.endpoint.dump import TriageDump
from ingest.events import TIME_MIN_MS, Bsod, FormFactor, Frame

FRAMES_MAX = 64
_SEQ_SHIFT = 20


@dataclass(frozen=True, slots=True)
class Device:
    """The circumstances that a dump does not hold."""

    name: str
    tenant: str = ""
    form_factor: str = "other"
    ring: str = ""
    model: str = ""


def bsod_of(dump: TriageDump, device: Device, now_ms: int) -> Bsod:
    """Return the crash report of a dump.

    Args:
        dump: as read.
        device: whose it is.
        now_ms: the device's clock, milliseconds since the epoch; stands in for a crash time the dump lacks.
    """
    at_ms = dump.crash_time_ms if dump.crash_time_ms is not None and dump.crash_time_ms >= TIME_MIN_MS else now_ms
    boot_at_ms = max(TIME_MIN_MS, at_ms - (dump.uptime_ms or 0))
    return Bsod(
        device=device.name,
        seq=(at_ms // 1000) << _SEQ_SHIFT,
        at_ms=at_ms,
        boot_id=f"boot-{boot_at_ms}",
        boot_at_ms=boot_at_ms,
        os_build=str(dump.os_build),
        form_factor=cast(FormFactor, device.form_factor),
        model=device.model,
        ring=device.ring,
        tenant=device.tenant,
        bugcheck=dump.bugcheck_raw,
        parameters=[f"{parameter:#x}" for parameter in dump.parameters],
        module=dump.blame.module,
        frames=[Frame(module=frame.module, offset=frame.offset) for frame in dump.frames[:FRAMES_MAX]],
    )
