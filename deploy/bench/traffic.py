"""Reports for benches: a plausible mix, as posts and as the log records that the gateway makes of them.

Of a thousand reports 970 are check-ins (one in twenty of them with the versions on disk), 25 offers or installs and 5
crashes: some ten times the changes and crashes that the demo's 2024-07-19 has. Devices take turns, as check-ins do.
"""

import random
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Any

from ingest.activity import ActivityBuffer
from ingest.events import Bsod, CheckIn, DiskVersion, Frame, Installed, Offered, Report
from ingest.gateway.records import REPORTS_PER_RECORD_MAX, Flush, RecordWriter
from ingest.log.interface import Entry
from ingest.topics import Topics, partition_of

VENDOR, PRODUCT = "crowdstrike", "channel-file-291"
BASE_VERSION, NEW_VERSION = "291.30", "291.31"
KEY = f"{VENDOR}/{PRODUCT}"
CHECK_INS, CHANGES = 0.970, 0.025
_BUILDS = ("22631.3880", "22631.3810", "22621.3880", "19045.4651", "20348.2582")
_FORMS = ("laptop", "laptop", "desktop", "server")
_RINGS = ("canary", "early", "broad", "broad")
_MODULES = ("csagent.sys", "nvlddmkm.sys", "tcpip.sys", "amdppm.sys")


def pseudonym_of(number: int) -> str:
    """Return a pseudonym of the form the gateway gives."""
    return blake2b(number.to_bytes(8, "big"), digest_size=8).hexdigest()


class Traffic:
    """A seeded stream of reports from a fleet."""

    def __init__(self, devices: int, seed: int = 1, pseudonyms: bool = True, tenants: int = 12) -> None:
        """Make a fleet of `devices`; with pseudonyms as behind the gateway, else with names as before it."""
        self._random = random.Random(seed)
        self._devices = devices
        self._turn = 0
        self._pseudonyms = pseudonyms
        self._tenants = tenants
        self._seq: dict[int, int] = {}

    def reports(self, count: int, at_ms: int) -> list[Report]:
        """Return the next `count` reports, all at `at_ms`."""
        return [self.one(at_ms) for _ in range(count)]

    def one(self, at_ms: int) -> Report:
        """Return the next report."""
        number = self._turn % self._devices
        self._turn += 1
        draw = self._random.random()
        common = self._common(number, at_ms)
        if draw < CHECK_INS:
            carries = draw < CHECK_INS / 20
            return CheckIn(**common, versions={KEY: BASE_VERSION, "windows/os": common["os_build"]} if carries else {})
        if draw < CHECK_INS + CHANGES:
            make = Offered if draw < CHECK_INS + CHANGES / 2 else Installed
            return make(**common, vendor=VENDOR, product=PRODUCT, update_kind="content", version=NEW_VERSION)
        module = self._random.choice(_MODULES)
        return Bsod(
            **common,
            bugcheck=0x50,
            parameters=["0xffff8000deadbeef", "0x0", "0xfffff80012345678", "0x2"],
            module=module,
            frames=[Frame(module=module, offset=0xE14ED + place) for place in range(4)],
            versions=[DiskVersion(vendor=VENDOR, product=PRODUCT, version=BASE_VERSION)],
        )

    def _common(self, number: int, at_ms: int) -> dict[str, Any]:
        seq = self._seq.get(number, number % 1000) + 1
        self._seq[number] = seq
        return {
            "device": pseudonym_of(number) if self._pseudonyms else f"host-{number:07d}",
            "seq": (at_ms // 1000 << 20) + seq,
            "at_ms": at_ms,
            "boot_id": f"boot-{number % 97}",
            "boot_at_ms": at_ms - (number % 400) * 3_600_000 - 60_000,
            "os_build": _BUILDS[number % 5],
            "form_factor": _FORMS[number % 4],
            "model": f"model-{number % 83}",
            "ring": _RINGS[number % 4 if number % 100 else 0],
            "site": f"site-{number // 40}",
            "tenant": f"tenant-{number % self._tenants}",
        }


def entries_of(
    topics: Topics, gateway: str, reports: Sequence[Report], received_at_ms: int, tick_at_ms: int | None
) -> list[Entry]:
    """Return the log entries that the gateway's own writer makes of the reports, with ticks."""
    activity = [ActivityBuffer(REPORTS_PER_RECORD_MAX) for _ in range(topics.device_partitions)]
    crashes: list[list[Report]] = [[] for _ in range(topics.device_partitions)]
    for report in reports:
        partition = partition_of(report.device, topics.device_partitions)
        if isinstance(report, Offered | Installed | CheckIn):
            activity[partition].append(report)
        else:
            crashes[partition].append(report)
    flush = Flush(received_at_ms, activity=activity, crashes=crashes, tick_at_ms=tick_at_ms)
    return RecordWriter(topics, gateway).entries(flush)


def chunks(reports: Sequence[Report], size: int) -> Iterator[Sequence[Report]]:
    """Yield the reports in parts of at most `size`."""
    for start in range(0, len(reports), size):
        yield reports[start : start + size]
