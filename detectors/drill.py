"""The drill: a small synthetic rollout that must be killed.

A switch that was never pulled is not known to work. So once a day a few hundred devices that do not exist get an update
that does not exist, and crash; the reports go in where all reports go in, and the signed kill must come out where all
come out. This module plans the drill, `drill_judge` says how it went, `deploy/drill` posts, listens and keeps the time.

The invariants: a drill touches no product but its own (vendor `cordon`, product `drill`, devices of reserved tenants);
and the mark is for people's eyes only: no decision is ever made otherwise because a rollout is a drill.
"""

import datetime as dt
import re
from typing import Any, Final

import msgspec
import numpy as np

from detectors.sequential import RateRatio
from ingest.events import Bsod, CheckIn, DiskVersion, Frame, Offered, product_key
from ingest.rollouts import Ring, RolloutDeclaration, rollout_id

VENDOR: Final = "cordon"
PRODUCT: Final = "drill"
# Each falls into a tenant group of its own (there are 32), so that leaving any one out leaves seven eighths.
TENANTS: Final = tuple(f"cordon-drill-{letter}" for letter in "abcdefgh")
RING: Final = "cordon-drill"
MODULE: Final = "cordon_drill.sys"
CALM_VERSION: Final = "calm"
# From so long after its start the push is declared to have reached everybody. What the devices of later drills do is
# then no evidence about this one, and no wave of control crashes in which other products' baselines would be frozen.
REACHED_ALL_SECONDS: Final = 900
LIMIT_SECONDS_MAX: Final = 600.0
_BOOTED_MS: Final = 3 * 86_400_000
_VERSION: Final = re.compile(r"(\d{8}T\d{6}Z)-[0-9a-f]{4,16}")
_TIME_FORMAT: Final = "%Y%m%dT%H%M%SZ"


def is_drill(vendor: str, product: str) -> bool:
    """Tell whether rollouts of this product are drills: only Cordon's own reserved product is.

    The mark is shown to people and changes no decision: a real rollout declared under this name is watched, held and
    killed like any other, and makes the day's drill fail, since devices are counted that the drill has not sent.
    """
    return (vendor, product) == (VENDOR, PRODUCT)


def version_of(started_ms: int, mark: str) -> str:
    """Return a drill's version: its start to the second, UTC, and a mark of 4 to 16 hexadecimal digits.

    Example:
        >>> version_of(1_721_362_140_000, "01ab")
        '20240719T040900Z-01ab'

    Raises:
        ValueError: the mark is none.
    """
    version = f"{dt.datetime.fromtimestamp(started_ms // 1000, dt.UTC).strftime(_TIME_FORMAT)}-{mark}"
    if _VERSION.fullmatch(version) is None:
        raise ValueError(f"mark {mark!r}: give 4 to 16 hexadecimal digits")
    return version


def started_ms_of(version: str) -> int | None:
    """Return when a drill of this version began, milliseconds since the epoch; None for what is no drill's version."""
    found = _VERSION.fullmatch(version)
    if found is None:
        return None
    try:
        return int(dt.datetime.strptime(found[1], _TIME_FORMAT).replace(tzinfo=dt.UTC).timestamp()) * 1000
    except ValueError:
        return None


class DrillPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One drill, wholly determined by its fields.

    Devices are numbered from 0 and the tenants take turns. The first `exposed` get the update and crash in this order:
    the same ones every time, so that drills add to the fleet once, and today's victims are no controls of yesterday's.

    Attributes:
        started_ms: when it begins, milliseconds since the epoch.
        mark: 4 to 16 hexadecimal digits; two drills of the same second differ by it.
        devices: how many devices it has.
        exposed: how many of them get the update, and crash.
        settle_seconds: time between the offers and the first crash: who is at risk must have been counted.
        pace_seconds: time between crashes.
        limit_seconds: within so long after the first crash the kill must have come.

    Raises:
        ValueError: the numbers make no drill that could pass.
    """

    started_ms: int
    mark: str
    devices: int = 480
    exposed: int = 48
    settle_seconds: float = 1.0
    pace_seconds: float = 0.25
    limit_seconds: float = 60.0

    def __post_init__(self) -> None:
        """Refuse numbers that make no drill."""
        version_of(self.started_ms, self.mark)
        if not 2 * len(TENANTS) <= self.exposed <= self.devices // 4 <= 1000:
            raise ValueError(
                f"{self.exposed} of {self.devices} devices exposed: take {2 * len(TENANTS)} or more, and at most a "
                f"fourth of at most 4,000 devices"
            )
        if not 0 < self.limit_seconds <= LIMIT_SECONDS_MAX:
            raise ValueError(f"limit of {self.limit_seconds:g} s: more than 0 s, at most {LIMIT_SECONDS_MAX:g} s")
        if not (0 <= self.settle_seconds <= 60 and 0 <= self.pace_seconds <= self.limit_seconds):
            raise ValueError("settle_seconds is at most 60 s, and pace_seconds at most the limit")

    @property
    def version(self) -> str:
        """The version that the drill rolls out."""
        return version_of(self.started_ms, self.mark)

    @property
    def rollout(self) -> str:
        """The id of the drill's rollout."""
        return rollout_id(VENDOR, PRODUCT, self.version)

    def declaration(self) -> RolloutDeclaration:
        """Return what a rollout system would say: to whom `offered` is posted now, and the rest much later."""
        everybody = Ring(name=RING, starts_at_ms=self.started_ms + REACHED_ALL_SECONDS * 1000)
        return RolloutDeclaration(
            vendor=VENDOR,
            product=PRODUCT,
            update_kind="driver",
            version=self.version,
            starts_at_ms=self.started_ms,
            rings=[everybody],
        )

    def check_ins(self) -> list[CheckIn]:
        """Return a check-in of every device, on the version before."""
        versions = {product_key(VENDOR, PRODUCT): CALM_VERSION}
        return [
            CheckIn(**self._common(device, 0, self.started_ms), versions=versions) for device in range(self.devices)
        ]

    def offers(self) -> list[Offered]:
        """Return the word of every exposed device that it is about to activate the update."""
        update: dict[str, Any] = {
            "vendor": VENDOR,
            "product": PRODUCT,
            "update_kind": "driver",
            "version": self.version,
        }
        return [Offered(**self._common(device, 1, self.started_ms), **update) for device in range(self.exposed)]

    def crash(self, number: int, at_ms: int) -> Bsod:
        """Return the crash of the exposed device `number`, 0 to `exposed` - 1, at `at_ms`."""
        activated = DiskVersion(vendor=VENDOR, product=PRODUCT, version=self.version, activated_at_ms=self.started_ms)
        return Bsod(
            **self._common(number, 2, max(at_ms, self.started_ms)),
            bugcheck=0x50,
            parameters=["0xd811", "0x0", "0xd811", "0x2"],
            module=MODULE,
            frames=[Frame(module=MODULE, offset=0xD811)],
            versions=[activated],
        )

    def _common(self, device: int, report: int, at_ms: int) -> dict[str, Any]:
        return {
            "device": f"cordon-drill-{device:04d}",
            "seq": (self.started_ms // 1000 << 20) + report,
            "at_ms": at_ms,
            "boot_id": f"drill-{self.version}",
            "boot_at_ms": self.started_ms - _BOOTED_MS,
            "os_build": "22631.3880",
            "form_factor": "virtual",
            "model": "cordon-drill",
            "ring": RING,
            "tenant": TENANTS[device % len(TENANTS)],
        }

    def crashes_expected(
        self, alpha: float = 1e-6, *, weight: float = 0.25, tolerated_ratio: float = 1.5, share_least: float = 0.02
    ) -> int | None:
        """Return after how many crashes the built-in policy should kill; None if all of them are too few.

        The rate ratio is the only method that speaks in a drill, so it alone must reach 1 / (alpha * weight); and it
        must do so without the crashes of any one tenant, of which the first to crash has the most.

        Example:
            >>> DrillPlan(started_ms=1_721_362_140_000, mark="01ab").crashes_expected()
            10
        """
        detector, needed = RateRatio(tolerated_ratio), -np.log(alpha * weight)
        for number in range(self.exposed):
            if number % len(TENANTS) == 0:
                continue
            share = (self.exposed - number) / (self.devices - number)
            if detector.update([True], [max(share, share_least)]) >= needed:
                return number + 1
        return None
