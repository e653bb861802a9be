"""Devices with updates of two products that come and go, their crashes, and the matrix's counts in plain Python."""

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ingest.activity import pack
from ingest.events import Batch, Bsod, CheckIn, DiskVersion, FormFactor, Installed, Offered, Report, encoder
from ingest.log.interface import Entry
from ingest.topics import Topics

BEGIN_MS = 1_719_792_000_000  # 2024-07-01 00:00 UTC.
DAY_MS = 86_400_000
OWN = ("CrowdStrike", "Falcon")
OTHER = ("NVIDIA", "Display")
BAD = ("7.12", "551.23")


@dataclass(frozen=True)
class Word:
    """What a device said at a moment: an update of a product, and its OS build then."""

    device: str
    at_ms: int
    update: tuple[str, str]
    version: str
    os_build: str
    model: str
    form_factor: FormFactor
    offered: bool


@dataclass(frozen=True)
class Crash:
    """A crash of a device; deliberate ones are somebody's wish, not a fault."""

    device: str
    at_ms: int
    os_build: str
    module: str
    bugcheck: int


class CompatFleet:
    """A seeded fleet over 20 days; the pair `BAD` crashes at `bad_rate` a day, everything else at `rate`."""

    def __init__(self, seed: int, devices: int, rate: float = 0.02, bad_rate: float = 0.5) -> None:
        self._draw = random.Random(seed)
        self.words: list[Word] = []
        self.crashes: list[Crash] = []
        for number in range(devices):
            self._device(f"{number:016x}", rate, bad_rate)

    def _device(self, device: str, rate: float, bad_rate: float) -> None:
        draw = self._draw
        model = draw.choice(["Latitude 5440", "ThinkPad T14", ""])
        forms: list[FormFactor] = ["laptop", "desktop"]
        form = draw.choice(forms)
        moments = sorted(BEGIN_MS + draw.randrange(20 * DAY_MS) for _ in range(draw.randint(1, 6)))
        has: dict[tuple[str, str], str] = {}
        build = "22631.3447"
        for index, at_ms in enumerate(moments):
            update = draw.choice([OWN, OTHER])
            has[update] = draw.choice(["7.11", "7.12"] if update == OWN else ["546.33", "551.23"])
            build = draw.choice([build, "22631.3880"])
            self.words.append(Word(device, at_ms, update, has[update], build, model, form, draw.random() < 0.3))
            end = moments[index + 1] if index + 1 < len(moments) else BEGIN_MS + 20 * DAY_MS
            harm = bad_rate if (has.get(OWN), has.get(OTHER)) == BAD else rate
            while (at_ms := at_ms + int(draw.expovariate(harm) * DAY_MS) + 1) < end:
                deliberate = draw.random() < 0.1
                module, bugcheck = draw.choice([("csagent.sys", 0x50), ("nvlddmkm.sys", 0x116)])
                self.crashes.append(Crash(device, at_ms, build, module, 0xE2 if deliberate else bugcheck))

    def entries(self, topics: Topics) -> list[Entry]:
        """Return the log entries of all reports, in one partition."""
        said: list[Offered | Installed | CheckIn] = [
            (Offered if word.offered else Installed)(
                **_common(word, seq),
                form_factor=word.form_factor,
                model=word.model,
                vendor=word.update[0],
                product=word.update[1],
                update_kind="driver",
                version=word.version,
            )
            for seq, word in enumerate(self.words)
        ]
        fell: list[Report] = [
            Bsod(
                **_common(crash, seq),
                form_factor="laptop",
                bugcheck=crash.bugcheck,
                module=crash.module,
                versions=[DiskVersion(vendor=OWN[0], product=OWN[1], version="7.12")],
            )
            for seq, crash in enumerate(self.crashes, start=len(said))
        ]
        received = BEGIN_MS + 20 * DAY_MS
        entries = [
            Entry(topics.name("activity"), 0, None, encoder.encode(pack(said[at : at + 500], "g1", received)))
            for at in range(0, len(said), 500)
        ]
        for at in range(0, len(fell), 500):
            batch = Batch(gateway="g1", received_at_ms=received, reports=fell[at : at + 500])
            entries.append(Entry(topics.name("crashes"), 0, None, encoder.encode(batch)))
        return entries


def _common(said: Word | Crash, seq: int) -> dict[str, Any]:
    return {
        "device": said.device, "seq": seq, "at_ms": said.at_ms, "boot_id": "b", "boot_at_ms": BEGIN_MS,
        "os_build": said.os_build, "ring": "early", "tenant": "acme",
    }  # fmt: skip


def _spells(words: Sequence[tuple[int, Any]], end_ms: int) -> list[tuple[int, int, Any]]:
    """Return begin, end and value of each stretch, from what was said when."""
    changes = [word for i, word in enumerate(words) if i == 0 or word[1] != words[i - 1][1]]
    ends = [*(at for at, _ in changes[1:]), end_ms][: len(changes)]
    return [(at, end, value) for (at, value), end in zip(changes, ends, strict=True)]


def recount(
    fleet: CompatFleet, from_ms: int, to_ms: int, module: str = ""
) -> dict[tuple[str, ...], tuple[int, float, int]]:
    """Return devices, device-days and crashed devices by factor, version, level and stratum, device by device."""
    words: dict[str, list[Word]] = defaultdict(list)
    for word in sorted(fleet.words, key=lambda word: word.at_ms):
        if word.at_ms < to_ms:
            words[word.device].append(word)
    crashes: dict[str, list[int]] = defaultdict(list)
    for crash in fleet.crashes:
        if from_ms <= crash.at_ms < to_ms and crash.bugcheck != 0xE2 and module in ("", crash.module):
            crashes[crash.device].append(crash.at_ms)
    devices: dict[tuple[str, ...], set[str]] = defaultdict(set)
    fallen: dict[tuple[str, ...], set[str]] = defaultdict(set)
    ms: dict[tuple[str, ...], int] = defaultdict(int)
    for device, said in words.items():
        family = said[0].os_build.split(".")[0]
        beside: dict[str, list[tuple[int, tuple[str, str]]]] = {
            "os build": [(w.at_ms, (w.os_build, w.form_factor)) for w in said],
            "model": [(w.at_ms, (w.model or "(no model)", family)) for w in said],
            "/".join(OTHER): [(w.at_ms, (w.version, family)) for w in said if w.update == OTHER],
        }
        own = _spells([(w.at_ms, w.version) for w in said if w.update == OWN], to_ms)
        for factor, levels in beside.items():
            for begin, end, version in own:
                for since, till, (level, stratum) in _spells(levels, to_ms):
                    start, stop = max(begin, since, from_ms), min(end, till)
                    if start >= stop:
                        continue
                    key = (factor, version, level, stratum)
                    inside = [at for at in sorted(crashes[device]) if start <= at < stop]
                    devices[key].add(device)
                    ms[key] += max(1000, (inside[0] if inside else stop) - start)
                    if inside:
                        fallen[key].add(device)
    return {key: (len(devices[key]), ms[key] / DAY_MS, len(fallen[key])) for key in devices}
