"""What grouping must say, written as plainly as can be: an object a device, one report after another, counted afresh.

Rivals are chosen by a look at every pair of rollouts and every device, and a cell is made as text when it is asked for.

It shares no code with grouping but the naming of tenant groups. It takes the same reports in the order in which a
partition applies them: by step, activity before pushes before crashes.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from ingest.events import BootLoop, Bsod, CheckIn, Installed, Offered
from ingest.minutes import minute_of, offset_seconds
from ingest.tenancy import tenant_group

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
    build: str = ""
    model: str = ""
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
            self.build, self.model = report.os_build, report.model
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

    def version_at(self, product: str, at: int) -> str:
        """Return which version of a product it was on."""
        slot = self.slots.get(product)
        return "" if slot is None else slot.version if slot.since <= at else slot.base


@dataclass
class Watch:
    """A rollout under watch; its rivals (names) by the second from which on they are; whether a full count is due."""

    name: str
    product: str
    version: str
    origin: int
    crashes: list[tuple[str, int]] = field(default_factory=list)
    placed: list[tuple[str, int, str, str, str]] = field(default_factory=list)
    rivals: list[tuple[int, tuple[str, ...]]] = field(default_factory=lambda: [(0, ())])
    fresh: bool = True

    def rivals_at(self, at: int) -> tuple[str, ...]:
        """Return the rivals of a time."""
        return next((names for since, names in reversed(self.rivals) if since <= at), self.rivals[0][1])

    def choose(self, at: int, names: set[str]) -> None:
        """Have these rivals from a time on."""
        if set(self.rivals[-1][1]) != names:
            self.rivals = [*self.rivals, (at, tuple(sorted(names)))][-4:]
            self.fresh = True


class Model:
    """All devices of one partition and the rollouts watched."""

    def __init__(self) -> None:
        """Start with nobody."""
        self.devices: dict[str, Device] = {}
        self.watched: dict[str, Watch] = {}
        self.pushes: list[tuple[int, str, str, Sequence[str]]] = []
        self.duplicates = 0
        self.known: dict[str, Watch] = {}
        self.kept: dict[str, set[str]] = {}

    def watch(self, rollout: str, product: str, version: str, origin_ms: int) -> None:
        """Begin watching."""
        self.known[rollout] = self.watched.setdefault(rollout, Watch(rollout, product, version, origin_ms // 1000))

    def close(self, rollout: str, watermark_ms: int) -> None:
        """Stop watching."""
        gone = self.watched.pop(rollout)
        for watch in self.watched.values():
            watch.choose(watermark_ms // 1000 + 1, set(watch.rivals[-1][1]) - {rollout})
        if all(watch.product != gone.product for watch in self.watched.values()):
            self.kept.pop(gone.product, None)

    def end_step(self, now_s: int, before_s: int) -> None:
        """Do what the end of a step does: choose rivals if a minute has passed, see which margins there are."""
        minute_s = now_s // 60 * 60
        if minute_s != before_s // 60 * 60:
            chosen = {watch.name: self._rivals(watch, minute_s) for watch in self.watched.values()}
            for watch in self.watched.values():
                watch.choose(minute_s, chosen[watch.name])
        for watch in self.watched.values():
            own = minute_of(now_s, offset_seconds(watch.name))
            if watch.fresh or own != minute_of(before_s, offset_seconds(watch.name)):
                kept = self.kept.setdefault(watch.product, set())
                for device in self._at_risk(watch, own):
                    kept |= {
                        f"{word}={text}" for word, text in (("build", device.build), ("model", device.model)) if text
                    }
            watch.fresh = False

    def _rivals(self, watch: Watch, minute_s: int) -> set[str]:
        found = [self.watched[name] for name in watch.rivals[-1][1]]
        for other in self.watched.values():
            shared = any(
                device.version_at(watch.product, 1 << 40) == watch.version
                and device.version_at(other.product, 1 << 40) == other.version
                and device.heard
                and minute_s - device.heard <= 26 * HOUR
                for device in self.devices.values()
            )
            if other.product != watch.product and shared and other not in found:
                found.append(other)
        return {one.name for one in sorted(found, key=lambda one: (one.origin, one.name))[-2:]}

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
                self._first_crash(watch, device, named, at, report)
            device.crashed = max(device.crashed, at)
        kept = {watch.product for watch in self.watched.values()}
        for one in report.versions:
            product = f"{one.vendor}/{one.product}"
            if product in kept:
                activated = at if one.activated_at_ms is None else min(one.activated_at_ms // 1000, at)
                device.on_disk(product, one.version, activated, "named", newest)
        device.stand(report, at, newest)

    def _first_crash(
        self, watch: Watch, device: Device, named: set[tuple[str, str]], at: int, report: Bsod | BootLoop
    ) -> None:
        slot = device.slots.get(watch.product)
        names = any(product == watch.product for product, _ in named)
        if (slot is None and not names) or device.crashed >= watch.origin or at < watch.origin:
            return
        exposed = device.version_at(watch.product, at) == watch.version or (watch.product, watch.version) in named
        arm = "exposed" if exposed else "control"
        watch.crashes.append((arm, at))
        heard = min(device.heard, at)
        cell, build, model = "*|*|*|old|stale", report.os_build, report.model
        if device.heard and at - heard <= 26 * HOUR:
            build, model = device.build, device.model
            boot_at = min(report.boot_at_ms // 1000, at)
            cell = self._cell(device, at, max(heard, boot_at), boot_at)
        on = [
            name
            for name in watch.rivals_at(at)
            if device.version_at(self.known[name].product, at) == self.known[name].version
            or (name in self.watched and (self.known[name].product, self.known[name].version) in named)
        ]
        kept = self.kept.get(watch.product, set())
        build, model = (
            text if f"{word}={text}" in kept else "other" for word, text in (("build", build), ("model", model))
        )
        watch.placed.append((arm, at, "|".join([cell, *(["+".join(on)] if on else [])]), build, model))

    @staticmethod
    def _cell(device: Device, at: int, heard: int, boot_at: int) -> str:
        family, form, ring, _ = device.attributes
        age = at - boot_at
        band = "fresh" if age < 600 else "day" if age < 24 * HOUR else "old"
        return "|".join((family, form, ring or "other", band, "stale" if at - heard > 900 else "recent"))

    def _at_risk(self, watch: Watch, minute_s: int) -> list[Device]:
        return [
            device
            for device in self.devices.values()
            if watch.product in device.slots and device.crashed < watch.origin and minute_s - device.heard <= 26 * HOUR
        ]

    def at_risk(self, rollout: str, minute_s: int) -> Counter[tuple[str, int, bool]]:
        """Count devices at risk by cell, tenant group and arm, as of a minute."""
        watch = self.watched[rollout]
        counts: Counter[tuple[str, int, bool]] = Counter()
        for device in self._at_risk(watch, minute_s):
            rivals = [self.watched[name] for name in watch.rivals[-1][1]]
            on = [
                one.name for one in rivals if device.slots.get(one.product, Slot("", 0, set())).version == one.version
            ]
            cell = self._cell(device, minute_s, device.heard, device.boot_at)
            arm = device.slots[watch.product].version == watch.version
            counts["|".join([cell, *(["+".join(on)] if on else [])]), tenant_group(device.attributes[3]), arm] += 1
        return counts

    def margins(self, rollout: str, minute_s: int) -> Counter[tuple[str, int, bool]]:
        """Count devices at risk by margin, tenant group and arm, as of a minute."""
        watch = self.watched[rollout]
        counts: Counter[tuple[str, int, bool]] = Counter()
        kept = self.kept.get(watch.product, set())
        for device in self._at_risk(watch, minute_s):
            arm = device.slots[watch.product].version == watch.version
            for word, text in (("build", device.build), ("model", device.model)):
                margin = f"{word}={text}" if f"{word}={text}" in kept else f"{word}=other"
                counts[margin, tenant_group(device.attributes[3]), arm] += 1
        return counts
