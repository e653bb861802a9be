"""Crash reports of a quiet fleet over days, and a storm at their end, as log entries for a store."""

import random
import zlib
from collections.abc import Sequence
from typing import Any

from ingest.activity import pack
from ingest.events import Batch, Bsod, Frame, Installed, Report, encoder
from ingest.log.interface import Entry
from ingest.rollouts import Bound, Rollout
from ingest.topics import Topics

BEGIN_MS = 1_719_792_000_000  # 2024-07-01 00:00 UTC.
HOUR_MS = 3_600_000
QUIET = (("nvlddmkm.sys", 0x116), ("netwtw10.sys", 0xD1), ("storport.sys", 0x7A), ("rtkvhd64.sys", 0x50))
BUILDS = ("22631.3880", "19045.4651")


def crash(device: int, at_ms: int, module: str, bugcheck: int, build: str, tenant: str) -> Bsod:
    """Return one crash report; a driver's stacks are alike, those of two drivers are not."""
    offset = zlib.crc32(module.encode()) % (1 << 20)
    return Bsod(
        device=f"{device:016x}", seq=at_ms % 2**40, at_ms=at_ms, boot_id=f"b{at_ms}", boot_at_ms=at_ms - 600_000,
        os_build=build, form_factor="laptop", model="Latitude 5440", ring="early", tenant=tenant, bugcheck=bugcheck,
        module=module, frames=[Frame(module=module, offset=(offset * (step + 1)) % (1 << 20)) for step in range(4)],
    )  # fmt: skip


def quiet(hours: int, seed: int = 5) -> list[Bsod]:
    """Return some crashes an hour, of a few drivers on two builds."""
    draw = random.Random(seed)
    found = []
    for hour in range(hours):
        for _ in range(draw.randint(2, 9)):
            module, bugcheck = draw.choice(QUIET)
            at_ms = BEGIN_MS + hour * HOUR_MS + draw.randrange(HOUR_MS)
            tenant = draw.choice(["acme", "globex", "initech"])
            found.append(crash(draw.randrange(10_000), at_ms, module, bugcheck, draw.choice(BUILDS), tenant))
    return sorted(found, key=lambda report: report.at_ms)


def storm(
    hour: int, devices: int, module: str = "contoso.sys", bugcheck: int = 0x50, first: int = 20_000
) -> list[Bsod]:
    """Return crashes of so many devices of three tenants within one hour."""
    return [
        crash(
            first + number, BEGIN_MS + hour * HOUR_MS + number * 1000, module, bugcheck, BUILDS[0],
            ("acme", "globex", "initech")[number % 3],
        )
        for number in range(devices)
    ]  # fmt: skip


def crash_entries(topics: Topics, reports: Sequence[Report]) -> list[Entry]:
    """Return the crash topic's entries, each report received a minute after it happened."""
    return [
        Entry(
            topics.name("crashes"), 0, None,
            encoder.encode(Batch(gateway="g1", received_at_ms=report.at_ms + 60_000, reports=[report])),
        )
        for report in reports
    ]  # fmt: skip


def rollout_entries(topics: Topics, devices: Sequence[int], at_ms: int) -> list[Entry]:
    """Return a rollout declared at a time, and that these devices installed it then."""
    declared = Rollout(
        rollout="r-1", vendor="contoso", product="vpn", update_kind="driver", version="2.0", origin_ms=at_ms,
        bound=Bound.OFFERED, declared_by="rollouts",
    )  # fmt: skip
    said: list[Any] = [
        Installed(
            device=f"{device:016x}", seq=1, at_ms=at_ms, boot_id="b", boot_at_ms=at_ms, os_build=BUILDS[0],
            form_factor="laptop", tenant="acme", vendor="contoso", product="vpn", update_kind="driver", version="2.0",
        )
        for device in devices
    ]  # fmt: skip
    return [
        Entry(topics.name("rollouts"), 0, b"r-1", encoder.encode(declared)),
        Entry(topics.name("activity"), 0, None, encoder.encode(pack(said, "g1", at_ms + 60_000))),
    ]
