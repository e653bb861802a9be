"""Builds device-topic records for grouping tests: reports, ticks and notices, spread over partitions as gateways do."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from ingest.activity import ActivityBatch, pack
from ingest.events import (
    Batch,
    BootLoop,
    Bsod,
    CheckIn,
    DiskVersion,
    Installed,
    Offered,
    Report,
    RolloutNotice,
    Tick,
    encoder,
)
from ingest.log.interface import Entry
from ingest.rollouts import rollout_id
from ingest.topics import Topics, partition_of

T0 = 1_721_361_600_000  # 2024-07-19 04:00 UTC
VENDOR, PRODUCT, OLD, NEW = "crowdstrike", "channel-file-291", "291.30", "291.31"
KEY = f"{VENDOR}/{PRODUCT}"


def pseudonym(number: int) -> str:
    """Return the pseudonym of a test device."""
    return hashlib.blake2b(number.to_bytes(8, "big"), digest_size=8).hexdigest()


class World:
    """A gateway's pen: numbers reports per device and makes log entries of them."""

    def __init__(self, topics: Topics, gateway: str = "gateway-1") -> None:
        """Start with nobody heard."""
        self.topics = topics
        self.gateway = gateway
        self._seq: dict[int, int] = {}

    def base(self, device: int, at_ms: int, **fields: Any) -> dict[str, Any]:
        """Return the fields every report of a device carries, with its next sequence number."""
        self._seq[device] = self._seq.get(device, 1000) + 1
        known: dict[str, Any] = {
            "device": pseudonym(device),
            "seq": self._seq[device],
            "at_ms": at_ms,
            "boot_id": "b1",
            "boot_at_ms": T0 - 3 * 86_400_000,
            "os_build": ("22631.3880", "19045.4651")[device % 2],
            "form_factor": ("laptop", "desktop", "server")[device % 3],
            "model": f"model-{device % 7}",
            "ring": ("early", "broad")[device % 2],
            "tenant": f"tenant-{device % 5}",
        }
        return known | fields

    def check_in(
        self, device: int, at_ms: int, version: str | None = OLD, also: Mapping[str, str] | None = None, **fields: Any
    ) -> CheckIn:
        """Return a check-in; with its product's version unless that is None, and `also` those of other products."""
        versions = ({} if version is None else {KEY: version}) | {f"{VENDOR}/{p}": v for p, v in (also or {}).items()}
        return CheckIn(**self.base(device, at_ms, **fields), versions=versions)

    def offered(self, device: int, at_ms: int, version: str = NEW, product: str = PRODUCT) -> Offered:
        """Return an offer of the new version."""
        return Offered(
            **self.base(device, at_ms), vendor=VENDOR, product=product, update_kind="content", version=version
        )

    def installed(self, device: int, at_ms: int, version: str = NEW, product: str = PRODUCT) -> Installed:
        """Return a word of the new version's activation."""
        return Installed(
            **self.base(device, at_ms), vendor=VENDOR, product=product, update_kind="content", version=version
        )

    def bsod(self, device: int, at_ms: int, version: str | None = None, product: str = PRODUCT, **fields: Any) -> Bsod:
        """Return a crash, naming the version read from disk unless that is None."""
        versions = [] if version is None else [DiskVersion(vendor=VENDOR, product=product, version=version)]
        known = {"bugcheck": 0x50, "module": "csagent.sys", "versions": versions}
        return Bsod(**self.base(device, at_ms, **(known | fields)))

    def boot_loop(self, device: int, at_ms: int, boots: int = 5) -> BootLoop:
        """Return a boot loop."""
        return BootLoop(**self.base(device, at_ms, bugcheck=0x50, module="csagent.sys"), boots=boots)

    def batches(self, word: str, reports: Sequence[Report], received_at_ms: int) -> list[Entry]:
        """Return the reports as batches of the topic, one for each partition they touch."""
        spread: dict[int, list[Any]] = {}
        for report in reports:
            spread.setdefault(partition_of(report.device, self.topics.device_partitions), []).append(report)
        make = self._activity if word == "activity" else self._crashes
        return [
            Entry(self.topics.name(word), partition, None, encoder.encode(make(some, received_at_ms)))
            for partition, some in sorted(spread.items())
        ]

    def _activity(self, reports: list[Any], received_at_ms: int) -> ActivityBatch:
        return pack(reports, self.gateway, received_at_ms)

    def _crashes(self, reports: list[Any], received_at_ms: int) -> Batch:
        return Batch(gateway=self.gateway, received_at_ms=received_at_ms, reports=reports)

    def ticks(self, at_ms: int, words: Sequence[str] = ("activity", "crashes")) -> list[Entry]:
        """Return a tick for every partition of the topics."""
        value = encoder.encode(Tick(gateway=self.gateway, at_ms=at_ms))
        return [
            Entry(self.topics.name(word), partition, None, value)
            for word in words
            for partition in range(self.topics.device_partitions)
        ]

    def notices(
        self,
        origin_ms: int,
        version: str = NEW,
        pushed: Sequence[int] = (),
        from_ms: int = 0,
        product: str = PRODUCT,
        closed: bool = False,
    ) -> list[Entry]:
        """Return a rollout's notice for every partition, with the pushed devices of each."""
        entries = []
        for partition in range(self.topics.device_partitions):
            own = [
                pseudonym(d) for d in pushed if partition_of(pseudonym(d), self.topics.device_partitions) == partition
            ]
            notice = RolloutNotice(
                rollout=rollout_id(VENDOR, product, version),
                vendor=VENDOR,
                product=product,
                version=version,
                origin_ms=origin_ms,
                pushed=own,
                pushed_from_ms=from_ms,
                closed=closed,
            )
            entries.append(Entry(self.topics.name("activity"), partition, None, encoder.encode(notice)))
        return entries
