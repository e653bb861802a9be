"""Reports whose counts every way of counting must agree on, and the same reports as flat records for the peers.

As in `deploy.bench.traffic`, but with a known truth: a fifth of the devices are offered the new version, once each;
every device crashes at most once, and a crash names the version the device is on. So the number of offers is the number
of exposed devices, and crashes by version and minute are grouping's first crashes by arm and minute.
"""

import random
from collections import Counter
from collections.abc import Sequence

import msgspec

from deploy.bench.traffic import BASE_VERSION, KEY, NEW_VERSION, PRODUCT, VENDOR, Traffic
from ingest.events import Bsod, CheckIn, DiskVersion, Offered, Report

EXPOSED_ONE_IN = 5
OFFER, CRASH, LISTS = 0.12, 0.006, 0.05
_MODULES = ("csagent.sys", "nvlddmkm.sys", "tcpip.sys", "amdppm.sys")
NO_VERSION = "-"


class KnownTraffic(Traffic):
    """A seeded stream of reports with a known truth."""

    def __init__(self, devices: int, seed: int = 1) -> None:
        """Make a fleet of `devices`, with pseudonyms as behind the gateway."""
        super().__init__(devices, seed)
        self._draw = random.Random(seed + 1)
        self._offered: set[int] = set()
        self._crashed: set[int] = set()

    def one(self, at_ms: int) -> Report:
        """Return the next report."""
        number = self._turn % self._devices
        self._turn += 1
        common = self._common(number, at_ms)
        chosen = number % EXPOSED_ONE_IN == 0
        if chosen and number not in self._offered:
            if self._draw.random() < OFFER:
                self._offered.add(number)
                return Offered(**common, vendor=VENDOR, product=PRODUCT, update_kind="content", version=NEW_VERSION)
        elif number not in self._crashed and self._draw.random() < CRASH:
            self._crashed.add(number)
            version = NEW_VERSION if chosen else BASE_VERSION
            return Bsod(
                **common,
                bugcheck=0x50,
                parameters=["0xffff8000deadbeef", "0x0", "0xfffff80012345678", "0x2"],
                module=_MODULES[number % 4],
                versions=[DiskVersion(vendor=VENDOR, product=PRODUCT, version=version)],
            )
        version = NEW_VERSION if number in self._offered else BASE_VERSION
        # The first word of a device names its version: a crash of one that was never heard has no arm.
        lists = number == self._turn - 1 or self._draw.random() < LISTS
        return CheckIn(**common, versions={KEY: version} if lists else {})


def version_of(report: Report) -> str:
    """Return the version that a report speaks of; `NO_VERSION` for a check-in."""
    if isinstance(report, Offered):
        return report.version
    return report.versions[0].version if isinstance(report, Bsod) else NO_VERSION


def kind_of(report: Report) -> str:
    """Return the word of a report's kind."""
    return str(report.__struct_config__.tag)


def key_of(report: Report) -> str:
    """Return what reports are counted by."""
    return f"{version_of(report)}|{kind_of(report)}"


def flat(report: Report) -> bytes:
    """Return a report as one flat JSON record, as a pipeline of one-report records has it."""
    fields = msgspec.to_builtins(report)
    fields.pop("schema")
    fields["update_version"] = version_of(report)
    return msgspec.json.encode(fields)


def truth_of(reports: Sequence[Report]) -> Counter[tuple[str, int]]:
    """Count reports by key and minute in the plainest way."""
    return Counter((key_of(report), report.at_ms // 60_000 * 60_000) for report in reports)
