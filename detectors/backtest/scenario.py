"""The scenario file: a fleet, its products, a rollout through rings, and an incident with its truth.

A scenario is TOML, decoded into these structs before anything runs. An unknown field, a wrong type or a value out of
range is refused with the field's name, so a typo never becomes a default; `checks` refuses what only the whole shows.
README.md documents every field, and a test compares it with these structs.
"""

import datetime as dt
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from detectors.backtest.environment import (
    LONGEST_SECONDS,
    Decision,
    Environment,
    Hours24,
    Liar,
    Ratio,
    Seconds,
    Share,
    Span,
    Table,
    Weight,
    Where,
)
from detectors.backtest.environment import (
    CrashKind as CrashKind,
)
from ingest.events import FormFactor, OsBuild, ShortName, UpdateKind

EVERYONE = "*"


class Weighted(Table, kw_only=True, frozen=True):
    """A name and how common it is among its like."""

    name: ShortName
    weight: Weight = 1.0


class WeightedBuild(Table, kw_only=True, frozen=True):
    """An OS build with its revision, and how common it is in its form factor."""

    name: OsBuild
    weight: Weight = 1.0


class Form(Table, kw_only=True, frozen=True):
    """Devices of one form factor: what they run and when they are switched on.

    Attributes:
        on_by_hour: share switched on at each full hour of local time, 24 numbers, joined by straight lines.
        weekend_share: the curve's factor on Saturdays and Sundays of local time.
    """

    name: FormFactor
    weight: Weight
    uptime_hours_mean: Annotated[float, Meta(gt=0, le=24 * 365)]
    on_by_hour: Hours24
    weekend_share: Share = 1.0
    os_builds: Annotated[list[WeightedBuild], Meta(min_length=1, max_length=64)]
    models: Annotated[list[Weighted], Meta(min_length=1, max_length=64)]


class Region(Table, kw_only=True, frozen=True):
    """Devices of one time zone."""

    name: ShortName
    utc_offset_hours: Annotated[float, Meta(ge=-12, le=14)]
    weight: Weight


class RingShare(Table, kw_only=True, frozen=True):
    """The part of the fleet that is eligible for a ring."""

    name: ShortName
    share: Share


class FleetPlan(Table, kw_only=True, frozen=True):
    """The devices: how many, whose, where, what they are and when they check in."""

    devices: Annotated[int, Meta(ge=1, le=8_500_000)]
    check_in_seconds: Annotated[float, Meta(ge=30, le=86400)] = 300.0
    devices_per_site: Annotated[int, Meta(ge=1, le=1_000_000)] = 40
    tenants: Annotated[list[Weighted], Meta(min_length=1, max_length=1000)]
    regions: Annotated[list[Region], Meta(min_length=1, max_length=48)]
    rings: Annotated[list[RingShare], Meta(min_length=1, max_length=16)]
    form_factors: Annotated[list[Form], Meta(min_length=1, max_length=5)]


class Telemetry(Table, kw_only=True, frozen=True):
    """What happens to reports between the device and the gateway."""

    delayed_share: Share = 0.0
    delay_seconds_mean: Seconds = 60.0
    delay_seconds_max: Seconds = 900.0
    unheard_share: Share = 0.0
    duplicated_share: Share = 0.0
    clock_skew_seconds: Annotated[float, Meta(ge=0, le=600)] = 0.0
    clock_wrong_share: Share = 0.0
    clock_wrong_seconds_max: Annotated[float, Meta(ge=0, le=86400)] = 0.0


class OnlyWith(Table, kw_only=True, frozen=True):
    """A condition of harm: another product in one of these versions."""

    vendor: ShortName
    product: ShortName
    versions: Annotated[list[ShortName], Meta(min_length=1, max_length=64)]


class RateFactor(Table, kw_only=True, frozen=True):
    """Devices whose own crash rate differs from the fleet's."""

    where: Where
    factor: Ratio


class Background(Table, kw_only=True, frozen=True):
    """Crashes that have nothing to do with any update here.

    Attributes:
        crashes_per_late_boot: chance of a crash soon after a boot that ends an uptime of a week or more.
        frailty_variance: variance of a gamma factor of mean 1 on each device's own rate.
        by_hour: the rate's factor at each hour of local time; empty for even.
        rates: factors for some devices.
    """

    crashes_per_device_day: Annotated[float, Meta(ge=0, le=1)] = 0.0
    crashes_per_boot: Share = 0.0
    crashes_per_late_boot: Share = 0.0
    frailty_variance: Annotated[float, Meta(ge=0, le=100)] = 0.0
    by_hour: Annotated[list[Ratio], Meta(max_length=24)] = msgspec.field(default_factory=list)
    rates: Annotated[list[RateFactor], Meta(max_length=16)] = msgspec.field(default_factory=list)
    reboot_seconds: Span = (60.0, 180.0)
    crashes: Annotated[list[CrashKind], Meta(min_length=1, max_length=64)]


class Product(Table, kw_only=True, frozen=True):
    """A product on the devices and the versions it is found in."""

    vendor: ShortName
    product: ShortName
    kind: UpdateKind
    share: Share = 1.0
    versions: Annotated[list[Weighted], Meta(min_length=1, max_length=64)]


class RingPush(Table, kw_only=True, frozen=True):
    """One stage of an update. `*` is everyone, whatever ring they are eligible for."""

    name: ShortName
    starts_after_seconds: Seconds = 0.0
    over_seconds: Seconds = 0.0
    share: Annotated[float, Meta(gt=0, le=1)] = 1.0


class Incident(Table, kw_only=True, frozen=True):
    """What the update does to those who load it: the truth that a detector has to find.

    Attributes:
        rate_ratio: factor on the device's own crash rate from activation on; below 1 the update cures.
        elsewhere_ratio: the same factor for devices that the conditions leave out.
        only_on: a condition of harm: some devices.
        at: a victim crashes when it has loaded the update, or at the first boot after that.
        delay_seconds: how long after that.
    """

    crash_probability: Share = 0.0
    rate_ratio: Ratio = 1.0
    elsewhere_ratio: Ratio = 1.0
    crash: CrashKind
    only_with: OnlyWith | None = None
    only_on: Where | None = None
    at: Literal["load", "boot"] = "load"
    delay_seconds: Span = (0.0, 0.0)
    boot_loop_share: Share = 0.0
    boot_seconds: Span = (60.0, 120.0)
    report_share: Share = 0.0
    report_after_seconds: Span = (60.0, 180.0)
    recover_share: Share = 0.0
    recover_boots: tuple[Annotated[int, Meta(ge=2, le=10_000)], Annotated[int, Meta(ge=2, le=10_000)]] = (5, 30)
    victims_say_installed: bool = False


class UpdatePlan(Table, kw_only=True, frozen=True):
    """An update shipped to the fleet. Times count from the end of the warm-up.

    Attributes:
        begins_before_seconds: its times count from so long before the end of the warm-up.
        closed_after_seconds: when the rollout system says that it is over.
        says_offered: devices post `offered` before they activate it.
        by_site: whole sites are pushed to at once.
        rides_on: `vendor/product/version` of an earlier update of the file, together with which it is pushed.
        crash_delay_seconds: how much later crash reports of devices on it come.
        control_crash_delay_seconds: how much later those of devices with the product that are not on it come.
        moved_module, moved_by: the module whose code lies elsewhere in the new version, and by how much.
    """

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
    begins_before_seconds: Seconds = 0.0
    closed_after_seconds: Seconds | None = None
    says_offered: bool = True
    by_site: bool = False
    rides_on: Annotated[str, Meta(max_length=256)] = ""
    crash_delay_seconds: Span = (0.0, 0.0)
    control_crash_delay_seconds: Span = (0.0, 0.0)
    moved_module: Annotated[str, Meta(max_length=128)] = ""
    moved_by: Annotated[int, Meta(ge=0, le=2**32)] = 0
    incident: Incident | None = None

    @property
    def name(self) -> str:
        """The update as `vendor/product/version`."""
        return f"{self.vendor}/{self.product}/{self.version}"


class RolloutSystem(Table, kw_only=True, frozen=True):
    """The simulated rollout system: how fast it stops pushing once told."""

    reaction_seconds: Annotated[float, Meta(ge=0, le=3600)] = 10.0


class Expect(Table, kw_only=True, frozen=True):
    """What must hold of any detector that one can stake a fleet on.

    Attributes:
        killed_or_held_before_broad: each guilty update is stopped before the push to its last ring begins.
        must_not: decisions that no update may get by right: for a guilty one `proceed`, for an innocent one `kill`.
        named: the guilty update is killed by name, and no other.
    """

    killed_or_held_before_broad: bool = False
    must_not: Annotated[list[Decision], Meta(max_length=3)] = msgspec.field(default_factory=list)
    named: bool = False


class Truth(Table, kw_only=True, frozen=True):
    """What a detector should have said.

    Attributes:
        guilty: `vendor/product/version` of what harms, or a list of them.
        decision: about the guilty; about every update where none is.
    """

    guilty: str | list[str] = ""
    decision: Decision
    expect: Expect = Expect()

    @property
    def names(self) -> list[str]:
        """The guilty updates, each as `vendor/product/version`."""
        if isinstance(self.guilty, str):
            return [self.guilty] if self.guilty else []
        return self.guilty


class Scenario(Table, kw_only=True, frozen=True):
    """One scenario file."""

    name: ShortName
    title: Annotated[str, Meta(min_length=1, max_length=256)]
    seed: Annotated[int, Meta(ge=0, le=2**32 - 1)]
    start: dt.datetime
    duration_seconds: Annotated[float, Meta(gt=0, le=LONGEST_SECONDS)]
    warm_up_seconds: Seconds
    step_seconds: Annotated[float, Meta(ge=0.1, le=30)] = 1.0
    fleet: FleetPlan
    telemetry: Telemetry = Telemetry()
    background: Background
    products: Annotated[list[Product], Meta(min_length=1, max_length=16)]
    updates: Annotated[list[UpdatePlan], Meta(max_length=8)] = msgspec.field(default_factory=list)
    environment: Environment = Environment()
    liars: Annotated[list[Liar], Meta(max_length=8)] = msgspec.field(default_factory=list)
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
