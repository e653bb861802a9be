"""Devices of several vendors, tenants and products, and a store of named rows over them: a twin of the real queries."""

from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from signals.pagers.registry import Registry, parse

DAY_MS = 86_400_000
DAY = 19_923  # 2024-07-19
REGISTRY = """
[default]
routes = ["soc"]
[routes.soc]
channel = "slack"
secret_file = "soc.url"
[vendors.crowdstrike]
routes = ["soc"]
names = ["CrowdStrike, Inc."]
shares = ["sentinelone", "sophos"]
[vendors.sentinelone]
routes = ["soc"]
shares = ["crowdstrike"]
[vendors.sophos]
routes = ["soc"]
[[modules]]
match = "csagent*.sys"
vendor = "crowdstrike"
[[modules]]
match = "sentinel*.sys"
vendor = "sentinelone"
[[products]]
product = "oem-*"
vendor = "sophos"
"""


def registry() -> Registry:
    """Return three vendors: two share both ways, the third would only be shared with."""
    return parse(REGISTRY)


@dataclass(frozen=True, slots=True)
class Device:
    """One device on one version, and its first crash in a day.

    Attributes:
        crashed: whether it crashed.
    """

    name: str
    tenant: str
    vendor: str
    product: str
    version: str
    os_build: str
    day: int
    signature: str = ""

    @property
    def crashed(self) -> bool:
        return bool(self.signature)


class DeviceRows:
    """Answers the vendors' named queries from devices in memory."""

    def __init__(self, devices: list[Device], newest_ms: int = (DAY + 10) * DAY_MS) -> None:
        self.devices, self.newest_ms = devices, newest_ms
        self.asked: list[str] = []

    def rows(self, name: str, **values: object) -> list[list[Any]]:
        """Return a named query's rows."""
        self.asked.append(name)
        if name == "vendor_horizon":
            return [[str(self.newest_ms)]]
        begin = _day(values["from"] if "from" in values else values["since"])
        end = _day(values["to"])
        some = [one for one in self.devices if begin <= one.day < end]
        if name == "vendor_products":
            return sorted([list(pair) for pair in {(one.vendor, one.product) for one in some}])
        own = [one for one in some if (one.vendor, one.product) == (values["vendor"], values["product"])]
        counts: dict[tuple[str, ...], set[str]] = defaultdict(set)
        for one in own:
            if name == "vendor_devices":
                counts[one.version, one.os_build, one.tenant].add(one.name)
            elif name == "vendor_crashes" and one.crashed:
                module = one.signature.partition("|")[0]
                counts[one.version, one.os_build, module, one.signature, one.tenant].add(one.name)
        return [[*key, str(len(names))] for key, names in sorted(counts.items())]


def _day(moment: object) -> int:
    at = datetime.strptime(str(moment), "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
    return int(at.timestamp()) // 86_400
