"""The wire types of reports: what an endpoint posts, and how a log record carries it.

Reports are msgspec structs tagged by `kind`, JSON on the wire. Unknown fields are ignored; known fields are checked for
type and range while decoding. A record of a device topic holds one `Batch` (some thousands of reports, all of one
partition), a gateway's `Tick`, or a `RolloutNotice`; the order of records in a partition is the order of the world.

Readers accept schema `SCHEMA` and the one before it; writers emit `SCHEMA_WRITTEN`, which stays behind until every
reader is upgraded. Schema 1 is the first: there is no earlier one to accept yet.
"""

import functools
import re
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

SCHEMA = 1
SCHEMA_WRITTEN = 1
_SCHEMA_OLDEST = max(1, SCHEMA - 1)
SCHEMAS_READ = frozenset({_SCHEMA_OLDEST, SCHEMA})
# For records that are counted or judged by: one of another schema is refused by its decoder, never half understood.
# Records that only name or tell (claims, words of progress, dead letters) are read whatever their number.
RecordSchema = Annotated[int, Meta(ge=_SCHEMA_OLDEST, le=SCHEMA)]

# 2015-01-01 and 2100-01-01: outside of these a time is a unit error, not a clock that is off.
TIME_MIN_MS = 1_420_070_400_000
TIME_MAX_MS = 4_102_444_800_000

Name = Annotated[str, Meta(min_length=1, max_length=128)]
ShortName = Annotated[str, Meta(min_length=1, max_length=64)]
Optional64 = Annotated[str, Meta(max_length=64)]
TimeMs = Annotated[int, Meta(ge=TIME_MIN_MS, le=TIME_MAX_MS)]
Offset = Annotated[int, Meta(ge=0, le=2**53 - 1)]
U32 = Annotated[int, Meta(ge=0, le=0xFFFF_FFFF)]
# 64-bit values are hexadecimal text: JSON numbers lose bits beyond 2**53 in other languages.
Hex64 = Annotated[str, Meta(pattern=r"^0x[0-9a-f]{1,16}$")]
# Its form (build, dot, revision) is checked by `os_build_ok`: a pattern here cost 0.55 of 1.4 us a report.
OsBuild = Annotated[str, Meta(min_length=3, max_length=13)]
FormFactor = Literal["laptop", "desktop", "server", "virtual", "other"]
UpdateKind = Literal["driver", "content", "os", "app"]
SeqNumber = Annotated[int, Meta(ge=0, le=2**53 - 1)]


class _Report(msgspec.Struct, tag_field="kind", kw_only=True, gc=False):
    """What every report carries.

    Attributes:
        device: the endpoint's own name for itself; behind the gateway, its pseudonym (16 hexadecimal digits).
        seq: per-device sequence number. A reporter with an empty spool starts at its epoch second times 2**20, so a
            reinstalled one does not repeat old numbers.
        at_ms: when it happened, by the device's clock.
        boot_id: names one boot of the device.
        boot_at_ms: when that boot began; in a crash report, the boot that crashed.
        os_build: build and revision, for instance `22631.3880`; the part before the dot is the OS build family.
        ring: the ring this device is eligible for, not the one it has reached.
        site: devices that share power and network, as their tenant names it; empty where unknown.
        tenant: filled in by the gateway; a collector that posts for several tenants names it.
    """

    device: Name
    seq: SeqNumber
    at_ms: TimeMs
    boot_id: ShortName
    boot_at_ms: TimeMs
    os_build: OsBuild
    form_factor: FormFactor
    model: Optional64 = ""
    ring: Optional64 = ""
    site: Optional64 = ""
    tenant: Optional64 = ""
    schema: int = SCHEMA_WRITTEN


class Offered(_Report, tag="offered", kw_only=True, gc=False):
    """The device is about to activate an update; posted before it does."""

    vendor: ShortName
    product: ShortName
    update_kind: UpdateKind
    version: ShortName


class Installed(_Report, tag="installed", kw_only=True, gc=False):
    """The device activated an update and lived to tell."""

    vendor: ShortName
    product: ShortName
    update_kind: UpdateKind
    version: ShortName


class CheckIn(_Report, tag="check_in", kw_only=True, gc=False):
    """The device is alive.

    Attributes:
        versions: `vendor/product` to version, sent with the first check-in of a boot and after a change; else empty.
    """

    versions: Annotated[dict[Name, ShortName], Meta(max_length=64)] = {}


class DiskVersion(msgspec.Struct, kw_only=True, gc=False):
    """An update as read from the disk of a machine that crashed.

    Attributes:
        activated_at_ms: when it was activated there; null where unknown.
    """

    vendor: ShortName
    product: ShortName
    version: ShortName
    activated_at_ms: TimeMs | None = None


class Frame(msgspec.Struct, kw_only=True, gc=False):
    """A stack frame, relative to its module.

    Attributes:
        module: the module's file name.
        offset: bytes from its load address.
    """

    module: Name
    offset: Offset


class _Crash(_Report, kw_only=True, gc=False):
    """What both kinds of crash report carry.

    Attributes:
        bugcheck: the stop code as read; 0 where unknown.
        parameters: the stop code's parameters, in order.
        module: the module the endpoint blames; empty where unknown.
        frames: the crashed thread's stack, innermost first; empty where unknown.
        versions: updates read from disk with their activation times.
    """

    bugcheck: U32 = 0
    parameters: Annotated[list[Hex64], Meta(max_length=4)] = []
    module: Annotated[str, Meta(max_length=128)] = ""
    frames: Annotated[list[Frame], Meta(max_length=64)] = []
    versions: Annotated[list[DiskVersion], Meta(max_length=64)] = []


class Bsod(_Crash, tag="bsod", kw_only=True, gc=False):
    """The machine stopped once."""


class BootLoop(_Crash, tag="boot_loop", kw_only=True, gc=False):
    """The machine stopped at every boot; one crash, however many boots.

    Attributes:
        boots: how many boots failed in a row.
    """

    boots: Annotated[int, Meta(ge=2, le=1_000_000)] = 2


Report = Offered | Installed | CheckIn | Bsod | BootLoop
CRASH_KINDS = frozenset({"bsod", "boot_loop"})
REPORT_KINDS = ("offered", "installed", "check_in", "bsod", "boot_loop")


class Batch(msgspec.Struct, tag_field="kind", tag="batch", kw_only=True):
    """Reports of one partition, in the order they came.

    Attributes:
        gateway: the gateway's name.
        received_at_ms: that gateway's clock when it closed the batch.
        reports: the reports.
    """

    schema: RecordSchema = SCHEMA_WRITTEN
    gateway: str
    received_at_ms: int
    reports: list[Report]


class Tick(msgspec.Struct, tag_field="kind", tag="tick", kw_only=True):
    """A gateway's clock, written in order with its reports.

    Attributes:
        at_ms: everything the gateway received before this time lies before this record.
        leaving: the gateway has ended in order and holds nothing back: nobody need wait for its next tick.
    """

    schema: RecordSchema = SCHEMA_WRITTEN
    gateway: str
    at_ms: int
    leaving: bool = False


class RolloutNotice(msgspec.Struct, tag_field="kind", tag="rollout", kw_only=True):
    """A rollout now watched, written in order with the reports so that every partition begins at a defined record.

    Attributes:
        origin_ms: when the rollout began: the origin that both arms' first crashes are counted from.
        pushed: pseudonyms of devices in this partition that the rollout system declared as pushed to.
        pushed_from_ms: from when those count as exposed.
        closed: the rollout is over; stop counting it.
        declared: a rollout system declared it; left out where only reports revealed it, and by releases before.
    """

    schema: RecordSchema = SCHEMA_WRITTEN
    rollout: str
    vendor: str
    product: str
    version: str
    origin_ms: int
    pushed: list[str] = []
    pushed_from_ms: int = 0
    closed: bool = False
    declared: bool | msgspec.UnsetType = msgspec.UNSET


DeviceRecord = Batch | Tick | RolloutNotice

device_record_decoder: msgspec.json.Decoder[DeviceRecord] = msgspec.json.Decoder(DeviceRecord)
report_decoder = msgspec.json.Decoder(Report)
encoder = msgspec.json.Encoder()
# All that a decoder raises on bytes it can't decode: text that is not UTF-8 and deep nesting have errors of their own.
UNREADABLE_ERRORS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


_OS_BUILD = re.compile(r"[0-9]{3,6}(\.[0-9]{1,6})?")


@functools.lru_cache(maxsize=4096)
def os_build_ok(os_build: str) -> bool:
    """Tell whether the text is a build and optional revision, for instance `22631.3880`."""
    return _OS_BUILD.fullmatch(os_build) is not None


def product_key(vendor: str, product: str) -> str:
    """Name a product across vendors, as `CheckIn.versions` does."""
    return f"{vendor}/{product}"
