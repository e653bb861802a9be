"""One partition of grouping, fed by hand, record by record."""

from collections.abc import Sequence

import msgspec

from ingest.activity import pack
from ingest.deadletter import DeadReason
from ingest.events import Report, RolloutNotice, Tick, encoder
from ingest.grouping.partition import Bounds, Partition
from ingest.grouping.snapshot import Snapshots
from ingest.log.interface import Record
from ingest.topics import Topics
from ingest.windows import Step
from support.world import NEW, PRODUCT, T0, VENDOR, World


class Bench:
    """One partition fed by hand."""

    def __init__(self, partitions: int = 1, devices_max: int = 10_000) -> None:
        self.world = World(Topics(device_partitions=partitions))
        self.bad: list[tuple[str, DeadReason]] = []
        self.offset = {"activity": 0, "crashes": 0}
        self.partition = Partition(Bounds(0, partitions, devices_max, 900), self._note)

    def _note(self, word: str, record: Record, reason: DeadReason, detail: str) -> None:
        self.bad.append((word, reason))

    def give(self, word: str, value: bytes) -> None:
        read = self.partition.read_activity if word == "activity" else self.partition.read_crashes
        read(Record(self.offset[word], None, value, 0))
        self.offset[word] += 1

    def tick(self, at_ms: int, gateway: str = "g", words: tuple[str, ...] = ("activity", "crashes")) -> list[Step]:
        for word in words:
            self.give(word, encoder.encode(Tick(gateway=gateway, at_ms=at_ms)))
        return self.partition.advance()

    def notice(self, **changes: object) -> bytes:
        made = RolloutNotice(rollout="r", vendor=VENDOR, product=PRODUCT, version=NEW, origin_ms=T0)
        return encoder.encode(msgspec.structs.replace(made, **changes))

    def hear(self, reports: Sequence[Report], at_ms: int) -> None:
        """Give activity reports in one record."""
        self.give("activity", encoder.encode(pack(list(reports), "g", at_ms)))  # type: ignore[arg-type]  # activity only

    def restarted(self) -> "Bench":
        """Return a bench that goes on from this one's snapshot."""
        again = Bench()
        again.world = self.world
        entries = Snapshots(self.partition).share(1.0)
        again.offset = dict(
            Snapshots(again.partition).load((key.decode().split("/")[1:], value) for key, value in entries)
        )
        return again
