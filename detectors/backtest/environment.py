"""What happens to the simulated fleet, and who lies, whatever is shipped; the words that scenario files share.

Only the simulation at the cohort level knows these; `checks.cohort_only` names what of a scenario is beyond `Fleet`.
"""

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from ingest.events import U32, FormFactor, Frame, Hex64, Name, OsBuild, ShortName

Share = Annotated[float, Meta(ge=0, le=1)]
Weight = Annotated[float, Meta(gt=0, le=1e9)]
LONGEST_SECONDS = 100 * 86400
Seconds = Annotated[float, Meta(ge=0, le=LONGEST_SECONDS)]
Span = tuple[Seconds, Seconds]
Ratio = Annotated[float, Meta(ge=0, le=10_000)]
Hours24 = Annotated[list[Share], Meta(min_length=24, max_length=24)]

Decision: TypeAlias = Literal["proceed", "hold", "kill"]


class Table(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A table of the file: unknown fields are refused."""


class CrashKind(Table, kw_only=True, frozen=True):
    """What a crash looks like in a report."""

    module: Name
    bugcheck: U32
    parameters: Annotated[list[Hex64], Meta(max_length=4)] = []
    frames: Annotated[list[Frame], Meta(max_length=64)] = []
    weight: Weight = 1.0


class Where(Table, kw_only=True, frozen=True):
    """Which devices: those that match every list that is not empty."""

    os_builds: Annotated[list[OsBuild], Meta(max_length=64)] = []
    form_factors: Annotated[list[FormFactor], Meta(max_length=5)] = []
    models: Annotated[list[ShortName], Meta(max_length=64)] = []
    rings: Annotated[list[ShortName], Meta(max_length=16)] = []
    tenants: Annotated[list[ShortName], Meta(max_length=64)] = []
    regions: Annotated[list[ShortName], Meta(max_length=48)] = []


class Reboots(Table, kw_only=True, frozen=True):
    """Devices reboot for a reason of their own: Patch Tuesday."""

    starts_after_seconds: Seconds
    over_seconds: Seconds
    share: Share = 1.0
    where: Where = Where()


class PowerCut(Table, kw_only=True, frozen=True):
    """Whole sites lose power at one moment, and come back.

    Attributes:
        sites: how many.
        out_seconds: how long each is out.
        crash_share: part of the devices that report the lost power as a crash.
    """

    starts_after_seconds: Seconds
    sites: Annotated[int, Meta(ge=1, le=100_000)]
    out_seconds: Span = (600.0, 1800.0)
    crash_share: Share = 0.0
    crash: CrashKind | None = None
    where: Where = Where()


class Heat(Table, kw_only=True, frozen=True):
    """Crash rates are raised for a while."""

    starts_after_seconds: Seconds
    over_seconds: Seconds
    factor: Ratio
    crash: CrashKind | None = None
    where: Where = Where()


class SiteShocks(Table, kw_only=True, frozen=True):
    """Now and then many devices of one site crash within a short time.

    Attributes:
        sites: how many shocks, each at a site and a moment of its own.
        share: part of the site's devices that crash.
        burst_seconds: within how long.
    """

    starts_after_seconds: Seconds
    over_seconds: Seconds
    sites: Annotated[int, Meta(ge=1, le=100_000)]
    share: Share
    burst_seconds: Annotated[float, Meta(gt=0, le=3600)] = 60.0
    crash: CrashKind | None = None
    where: Where = Where()


class SwitchedOff(Table, kw_only=True, frozen=True):
    """Devices are switched off.

    Attributes:
        over_seconds: within how long they go.
        off_seconds: for how long each is off; left out, for good.
        arm: only devices that are on an update at that moment, or only those that are not.
        update: which update that is, as `vendor/product/version`; left out, the first of the file.
    """

    starts_after_seconds: Seconds
    over_seconds: Seconds = 0.0
    off_seconds: Seconds | None = None
    share: Share
    arm: Literal["any", "exposed", "control"] = "any"
    update: str = ""
    where: Where = Where()


class Outage(Table, kw_only=True, frozen=True):
    """No gateway takes reports or ticks for a while; reporters keep theirs."""

    starts_after_seconds: Seconds
    over_seconds: Annotated[float, Meta(gt=0, le=86400)]


class ActivityLag(Table, kw_only=True, frozen=True):
    """Activity is read later than crashes for a while."""

    starts_after_seconds: Seconds
    over_seconds: Seconds
    lag_seconds: Annotated[float, Meta(gt=0, le=3600)]


class Environment(Table, kw_only=True, frozen=True):
    """What happens to the fleet or to its telemetry whatever is shipped. Times count from the end of the warm-up."""

    reboots: Annotated[list[Reboots], Meta(max_length=16)] = []
    power_cuts: Annotated[list[PowerCut], Meta(max_length=16)] = []
    heat: Annotated[list[Heat], Meta(max_length=16)] = []
    site_shocks: Annotated[list[SiteShocks], Meta(max_length=16)] = []
    switched_off: Annotated[list[SwitchedOff], Meta(max_length=16)] = []
    outages: Annotated[list[Outage], Meta(max_length=16)] = []
    activity_lags: Annotated[list[ActivityLag], Meta(max_length=16)] = []


class Liar(Table, kw_only=True, frozen=True):
    """A tenant that makes reports up.

    Attributes:
        tenant: who lies; real devices of that tenant stay honest beside the invented ones.
        tells: crashes of devices on the update, of devices that are not, check-ins of devices that are on it and well,
            or versions that nobody ships.
        update: about which update, as `vendor/product/version`; left out, the first of the file.
        count: how many devices, or versions, are invented.
        sites: at how many sites the invented devices stand.
    """

    tenant: ShortName
    tells: Literal["crashes", "control_crashes", "check_ins", "versions"]
    update: str = ""
    count: Annotated[int, Meta(ge=1, le=100_000)]
    sites: Annotated[int, Meta(ge=1, le=100_000)] = 100_000
    starts_after_seconds: Seconds = 0.0
    over_seconds: Seconds = 600.0
    crash: CrashKind | None = None
