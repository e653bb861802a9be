"""The scenario file: a fleet, its products, a rollout through rings, and an incident with its truth.

A scenario is TOML, decoded into these structs before anything runs. An unknown field, a wrong type or a value out of
range is refused with the field's name, so a typo never becomes a default; `checks` refuses what only the whole shows.
README.md documents every field, and a test compares it with these structs.
"""

import datetime as dt
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from ingest.events import U32, FormFactor, Frame, Hex64, Name, OsBuild, ShortName, UpdateKind

Share = Annotated[float, Meta(ge=0, le=1)]
Weight = Annotated[float, Meta(gt=0, le=1e9)]
Seconds = Annotated[float, Meta(ge=0, le=7 * 86400)]
Span = tuple[Seconds, Seconds]

EVERYONE = "*"
WEEK_SECONDS = 7 * 86400


class _Table(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A table of the file: unknown fields are refused."""


class Weighted(_Table, kw_only=True, frozen=True):
    """A name and how common it is among its like."""

    name: ShortName
    weight: Weight = 1.0


class WeightedBuild(_Table, kw_only=True, frozen=True):
    """An OS build with its revision, and how common it is in its form factor."""

    name: OsBuild
    weight: Weight = 1.0


class Form(_Table, kw_only=True, frozen=True):
    """Devices of one form factor: what they run and when they are switched on.

    Attributes:
        on_by_hour: share switched on at each full hour of local time, 24 numbers, joined by straight lines.
    """

    name: FormFactor
    weight: Weight
    uptime_hours_mean: Annotated[float, Meta(gt=0, le=24 * 365)]
    on_by_hour: Annotated[list[Share], Meta(min_length=24, max_length=24)]
    os_builds: Annotated[list[WeightedBuild], Meta(min_length=1, max_length=64)]
    models: Annotated[list[Weighted], Meta(min_length=1, max_length=64)]


class Region(_Table, kw_only=True, frozen=True):
    """Devices of one time zone."""

    name: ShortName
    utc_offset_hours: Annotated[float, Meta(ge=-12, le=14)]
    weight: Weight


class RingShare(_Table, kw_only=True, frozen=True):
    """The part of the fleet that is eligible for a ring."""

    name: ShortName
    share: Share


class FleetPlan(_Table, kw_only=True, frozen=True):
    """The devices: how many, whose, where, what they are and when they check in."""

    devices: Annotated[int, Meta(ge=1, le=8_500_000)]
    check_in_seconds: Annotated[float, Meta(ge=30, le=86400)] = 300.0
    devices_per_site: Annotated[int, Meta(ge=1, le=1_000_000)] = 40
    tenants: Annotated[list[Weighted], Meta(min_length=1, max_length=1000)]
    regions: Annotated[list[Region], Meta(min_length=1, max_length=48)]
    rings: Annotated[list[RingShare], Meta(min_length=1, max_length=16)]
    form_factors: Annotated[list[Form], Meta(min_length=1, max_length=5)]


class Telemetry(_Table, kw_only=True, frozen=True):
    """What happens to reports between the device and the gateway."""

    delayed_share: Share = 0.0
    delay_seconds_mean: Seconds = 60.0
    delay_seconds_max: Seconds = 900.0
    unheard_share: Share = 0.0
    duplicated_share: Share = 0.0
    clock_skew_seconds: Annotated[float, Meta(ge=0, le=600)] = 0.0
    clock_wrong_share: Share = 0.0
    clock_wrong_seconds_max: Annotated[float, Meta(ge=0, le=86400)] = 0.0


class CrashKind(_Table, kw_only=True, frozen=True):
    """What a crash looks like in a report."""

    module: Name
    bugcheck: U32
    parameters: Annotated[list[Hex64], Meta(max_length=4)] = []
    frames: Annotated[list[Frame], Meta(max_length=64)] = []
    weight: Weight = 1.0


class Background(_Table, kw_only=True, frozen=True):
    """Crashes that have nothing to do with any update here."""

    crashes_per_device_day: Annotated[float, Meta(ge=0, le=1)] = 0.0
    crashes_per_boot: Share = 0.0
    reboot_seconds: Span = (60.0, 180.0)
    crashes: Annotated[list[CrashKind], Meta(min_length=1, max_length=64)]


class Product(_Table, kw_only=True, frozen=True):
    """A product on the devices and the versions it is found in."""

    vendor: ShortName
    product: ShortName
    kind: UpdateKind
    share: Share = 1.0
    versions: Annotated[list[Weighted], Meta(min_length=1, max_length=64)]


class RingPush(_Table, kw_only=True, frozen=True):
    """One stage of an update. `*` is everyone, whatever ring they are eligible for."""

    name: ShortName
    starts_after_seconds: Seconds = 0.0
    over_seconds: Seconds = 0.0
    share: Annotated[float, Meta(gt=0, le=1)] = 1.0


class OnlyWith(_Table, kw_only=True, frozen=True):
    """A condition of harm: another product in one of these versions."""

    vendor: ShortName
    product: ShortName
    versions: Annotated[list[ShortName], Meta(min_length=1, max_length=64)]


class Incident(_Table, kw_only=True, frozen=True):
    """What the update does to those who load it: the truth that a detector has to find."""

    crash_probability: Share
    crash: CrashKind
    only_with: OnlyWith | None = None
    boot_loop_share: Share = 0.0
    boot_seconds: Span = (60.0, 120.0)
    report_share: Share = 0.0
    report_after_seconds: Span = (60.0, 180.0)
    recover_share: Share = 0.0
    recover_boots: tuple[Annotated[int, Meta(ge=2, le=10_000)], Annotated[int, Meta(ge=2, le=10_000)]] = (5, 30)
    victims_say_installed: bool = False


class UpdatePlan(_Table, kw_only=True, frozen=True):
    """An update shipped to the fleet. Times count from the end of the warm-up."""

    vendor: ShortName
    product: ShortName
    version: ShortName
    reboots: bool = False
    activation_seconds: Seconds = 2.0
    installed_after_seconds: Seconds = 3.0
    delivery: Literal["push", "check_in"] = "push"
    declare: Literal["no", "rules", "lists"] = "no"
    declared_before_seconds: Seconds = 60.0
    reverted_after_seconds: Seconds | None = None
    rings: Annotated[list[RingPush], Meta(min_length=1, max_length=16)]
    incident: Incident | None = None


class RolloutSystem(_Table, kw_only=True, frozen=True):
    """The simulated rollout system: how fast it stops pushing once told."""

    reaction_seconds: Annotated[float, Meta(ge=0, le=3600)] = 10.0


class Truth(_Table, kw_only=True, frozen=True):
    """What a detector should have said."""

    guilty: str = ""
    decision: Literal["proceed", "hold", "kill"]


class Scenario(_Table, kw_only=True, frozen=True):
    """One scenario file."""

    name: ShortName
    title: Annotated[str, Meta(min_length=1, max_length=256)]
    seed: Annotated[int, Meta(ge=0, le=2**32 - 1)]
    start: dt.datetime
    duration_seconds: Annotated[float, Meta(gt=0, le=WEEK_SECONDS)]
    warm_up_seconds: Seconds
    step_seconds: Annotated[float, Meta(ge=0.1, le=30)] = 1.0
    fleet: FleetPlan
    telemetry: Telemetry = Telemetry()
    background: Background
    products: Annotated[list[Product], Meta(min_length=1, max_length=16)]
    updates: Annotated[list[UpdatePlan], Meta(max_length=8)] = []
    rollout_system: RolloutSystem = RolloutSystem()
    truth: Truth

    @property
    def start_ms(self) -> int:
        """When the simulation begins, in milliseconds since the epoch."""
        return round(self.start.timestamp() * 1000)

    @property
    def end_ms(self) -> int:
        """When it ends."""
        return self.start_ms + round(self.duration_seconds * 1000)

    @property
    def rollout_ms(self) -> int:
        """End of the warm-up: what the times of updates count from."""
        return self.start_ms + round(self.warm_up_seconds * 1000)

    @property
    def step_ms(self) -> int:
        """Event time per clock step, in milliseconds."""
        return round(self.step_seconds * 1000)

    @property
    def reaction_ms(self) -> int:
        """Time from an event's watermark to the last push, in milliseconds of event time."""
        return round(self.rollout_system.reaction_seconds * 1000)
