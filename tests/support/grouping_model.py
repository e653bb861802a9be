"""What grouping must say, written as plainly as can be: an object a device, one report after another, counted afresh.

It shares no code with grouping but the naming of tenant groups. It takes the same reports in the order in which a
partition applies them: by step, activity before pushes before crashes.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from ingest.events import BootLoop, Bsod, CheckIn, Installed, Offered
from ingest.grouping.cells import tenant_group

WATCHED_SLOTS = 4
HOUR = 3600


@dataclass
class Slot:
    """Which version of one product a device is on."""

    version: str
    since: int
    words: set[str]
    base: str = ""


@dataclass
class Device:
    """One device."""

    seen: set[int] = field(default_factory=set)
    top: int = -1
    heard: int = 0
    boot_at: int = 0
    crashed: int = 0
    attributes: tuple[str, str, str, str] = ("", "", "", "")
    slots: dict[str, Slot] = field(default_factory=dict)

    def admit(self, seq: int, at: int) -> tuple[bool, bool]:
        """Return whether a number is new, and whether it is the newest."""
        if self.top < 0 or seq > self.top:
            self.top = seq
            self.seen.add(seq)
            return True, True
        if self.top - seq > 1 << 20 and at > self.heard:
            self.top, self.seen = seq, {seq}
            return True, True
        fresh = self.top - seq < 64 and seq not in self.seen
        self.seen.add(seq)
        return fresh, False

    def stand(self, report: Offered | Installed | CheckIn | Bsod | BootLoop, at: int, newest: bool) -> None:
        """Take where the device stands."""
        newer = newest or at >= self.heard
        boot_at = min(report.boot_at_ms // 1000, at)
        if newer:
            self.attributes = (report.os_build.split(".")[0], report.form_factor, report.ring, report.tenant)
            if not isinstance(report, Bsod | BootLoop) or self.boot_at == 0:
                self.boot_at = boot_at
        self.heard = max(self.heard, at)

    def word(self, product: str, version: str, at: int, word: str, newest: bool) -> None:
        """Take the word that the device is on a version."""
        slot = self.slots.get(product)
        if slot is None:
            self.slots[product] = Slot(version, at, {word})
        elif slot.version == version:
            slot.since = min(slot.since, at)
            slot.words.add(word)
        elif at >= slot.since or newest or (word in ("offered", "pushed") and slot.words == {"listed"}):
            self.slots[product] = Slot(version, at, {word}, base=slot.version)

    def on_disk(self, product: str, version: str, at: int, word: str, newest: bool) -> None:
        """Take the word that a version was found on the disk."""
        slot = self.slots.get(product)
        if slot is not None and slot.version != version:
            open_ = slot.words & {"offered", "pushed"} and not slot.words & {"installed", "named"}
            if open_ and slot.base in ("", version):
                slot.base = version
                return
        self.word(product, version, at, word, newest)


@dataclass
class Watch:
    """A rollout under watch."""

    product: str
    version: str
    origin: int
    crashes: list[tuple[str, int]] = field(default_factory=list)


class Model:
    """All devices of one partition and the rollouts watched."""

    def __init__(self) -> None:
        """Start with nobody."""
        self.devices: dict[str, Device] = {}
        self.watched: dict[str, Watch] = {}
        self.pushes: list[tuple[int, str, str, Sequence[str]]] = []
        self.duplicates = 0

    def watch(self, rollout: str, product: str, version: str, origin_ms: int) -> None:
        """Begin watching."""
        self.watched.setdefault(rollout, Watch(product, version, origin_ms // 1000))

    def activity(self, report: Offered | Installed | CheckIn, received_ms: int) -> None:
        """Apply an activity report."""
        at = min(report.at_ms, received_ms) // 1000
        device = self.devices.setdefault(report.device, Device())
        fresh, newest = device.admit(report.seq, at)
        if not fresh:
            self.duplicates += 1
            return
        if isinstance(report, CheckIn):
            for product, version in report.versions.items():
                device.on_disk(product, version, at, "listed", newest)
        else:
            device.word(f"{report.vendor}/{report.product}", report.version, at, report.__struct_config__.tag, newest)  # type: ignore[arg-type]  # the tag of these two is a text
        device.stand(report, at, newest)

    def push(self, watermark_ms: int) -> None:
        """Apply the pushes that are due."""
        due = [push for push in self.pushes if push[0] <= watermark_ms // 1000]
        self.pushes = [push for push in self.pushes if push not in due]
        for since, product, version, names in due:
            for name in names:
                self.devices.setdefault(name, Device()).word(product, version, since, "pushed", False)

    def crash(self, report: Bsod | BootLoop, received_ms: int, watermark_ms: int) -> None:
        """Apply a crash report."""
        at = min(report.at_ms, received_ms) // 1000
        device = self.devices.setdefault(report.device, Device())
        fresh, newest = device.admit(report.seq, at)
        if not fresh:
            self.duplicates += 1
            return
        counted = at >= watermark_ms // 1000 - 26 * HOUR and report.bugcheck not in (0xE2, 0x1C8)
        named = {(f"{one.vendor}/{one.product}", one.version) for one in report.versions}
        if counted:
            for watch in self.watched.values():
                self._first_crash(watch, device, named, at)
            device.crashed = max(device.crashed, at)
        kept = {watch.product for watch in self.watched.values()}
        for one in report.versions:
            product = f"{one.vendor}/{one.product}"
            if product in kept:
                activated = at if one.activated_at_ms is None else min(one.activated_at_ms // 1000, at)
                device.on_disk(product, one.version, activated, "named", newest)
        device.stand(report, at, newest)

    @staticmethod
    def _first_crash(watch: Watch, device: Device, named: set[tuple[str, str]], at: int) -> None:
        slot = device.slots.get(watch.product)
        names = any(product == watch.product for product, _ in named)
        if (slot is None and not names) or device.crashed >= watch.origin or at < watch.origin:
            return
        then = "" if slot is None else slot.version if slot.since <= at else slot.base
        exposed = then == watch.version or (watch.product, watch.version) in named
        watch.crashes.append(("exposed" if exposed else "control", at))

    def at_risk(self, rollout: str, minute_s: int) -> Counter[tuple[str, int, bool]]:
        """Count devices at risk by cell, tenant group and arm, as of a minute."""
        watch = self.watched[rollout]
        counts: Counter[tuple[str, int, bool]] = Counter()
        for device in self.devices.values():
            slot = device.slots.get(watch.product)
            if slot is None or device.crashed >= watch.origin or minute_s - device.heard > 26 * HOUR:
                continue
            family, form, ring, tenant = device.attributes
            age = minute_s - device.boot_at
            band = "fresh" if age < 600 else "day" if age < 24 * HOUR else "old"
            recency = "stale" if minute_s - device.heard > 900 else "recent"
            cell = "|".join((family, form, ring or "other", band, recency))
            counts[cell, tenant_group(tenant), slot.version == watch.version] += 1
        return counts
