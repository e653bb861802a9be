"""Seeded reports as a gateway would hand them on, and the recount that the store's aggregates must equal."""

import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from ingest.activity import ActivityBatch, pack
from ingest.events import (
    Batch,
    BootLoop,
    Bsod,
    CheckIn,
    DiskVersion,
    Frame,
    Installed,
    Offered,
    Report,
    Tick,
    encoder,
)
from ingest.log.interface import Entry
from ingest.store.interface import Store
from ingest.topics import Topics

BASE_MS = 1_721_362_140_000


@dataclass
class Fleet:
    """Makes seeded reports as a gateway would hand them on."""

    seed: int
    made: list[Report] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    def report(self) -> Report:
        """Return one report of a random kind."""
        draw = self.random
        common = {
            "device": f"{draw.randrange(400):016x}",
            "seq": len(self.made) + 1,
            "at_ms": BASE_MS + draw.randrange(180_000),
            "boot_id": "b",
            "boot_at_ms": BASE_MS - 60_000,
            "os_build": draw.choice(["22631.3880", "19045.4651"]),
            "form_factor": "laptop",
            "ring": draw.choice(["canary", "broad", ""]),
            "tenant": draw.choice(["acme", "globex"]),
        }
        update = {"vendor": "CrowdStrike", "product": "Content", "version": draw.choice(["291", "290"])}
        crash = {
            "bugcheck": draw.choice([0x50, 0x7E]),
            "parameters": ["0xffff", "0x0"],
            "module": draw.choice(["csagent.sys", "amdppm.sys"]),
            "frames": [Frame(module="csagent.sys", offset=0xE14ED)],
            "versions": [
                DiskVersion(**update, activated_at_ms=BASE_MS),
                DiskVersion(vendor="MS", product="os", version="1"),
            ],
        }
        kind = draw.choice(["check_in"] * 6 + ["offered", "installed", "bsod", "boot_loop"])
        made: Report
        if kind == "check_in":
            made = CheckIn(**common)  # type: ignore[arg-type]  # Fields by name, drawn at random.
        elif kind in ("offered", "installed"):
            shape = Offered if kind == "offered" else Installed
            made = shape(**common, **update, update_kind="content")  # type: ignore[arg-type]  # As above.
        else:
            made = (Bsod if kind == "bsod" else BootLoop)(**common, **crash)  # type: ignore[arg-type]  # As above.
        self.made.append(made)
        return made

    def entries(self, topics: Topics, batches: int, size: int) -> list[Entry]:
        """Return log entries that hold `batches` times `size` new reports, split by topic, with ticks between."""
        entries = []
        for _ in range(batches):
            partition = self.random.randrange(topics.device_partitions)
            reports = [self.report() for _ in range(size)]
            for word, kinds in (("crashes", (Bsod, BootLoop)), ("activity", (CheckIn, Offered, Installed))):
                taken = [report for report in reports if isinstance(report, kinds)]
                received_at_ms = BASE_MS + 200_000
                batch: Batch | ActivityBatch
                if word == "activity":
                    batch = pack(
                        [r for r in taken if isinstance(r, CheckIn | Offered | Installed)], "g1", received_at_ms
                    )
                else:
                    batch = Batch(gateway="g1", received_at_ms=received_at_ms, reports=taken)
                entries.append(Entry(topics.name(word), partition, None, encoder.encode(batch)))
                tick = Tick(gateway="g1", at_ms=BASE_MS)
                entries.append(Entry(topics.name(word), partition, None, encoder.encode(tick)))
        return entries


def recount(reports: list[Any]) -> dict[str, dict[Any, int]]:
    """Count the reports in Python, as the store's aggregates should."""
    check_ins: Counter[Any] = Counter()
    crashes: Counter[Any] = Counter()
    loops: Counter[Any] = Counter()
    versions: Counter[Any] = Counter()
    installs: Counter[Any] = Counter()
    for r in reports:
        minute = r.at_ms // 60_000 * 60
        if isinstance(r, CheckIn):
            check_ins[minute, r.tenant, r.ring, r.os_build] += 1
        elif isinstance(r, Offered | Installed):
            kind = "offered" if isinstance(r, Offered) else "installed"
            installs[minute, kind, r.vendor, r.product, r.version, r.ring, r.os_build, r.tenant] += 1
        else:
            key = (minute, r.module, f"{r.module}|{r.bugcheck:#x}", r.ring, r.os_build, r.tenant)
            crashes[key] += 1
            loops[key] += isinstance(r, BootLoop)
            for v in r.versions:
                versions[minute, v.vendor, v.product, v.version, key[2], r.ring, r.os_build, r.tenant] += 1
    return {
        "check_in_minutes": dict(check_ins),
        "crash_minutes": dict(crashes),
        "boot_loops": {key: count for key, count in loops.items() if count},
        "version_crash_minutes": dict(versions),
        "install_minutes": dict(installs),
    }


def counted(store: Store) -> dict[str, dict[Any, int]]:
    """Read the same counts from the store."""
    place = "toUnixTimestamp(minute)"
    update = "vendor, product, version"
    queries = {
        "check_in_minutes": ("check_in_minutes", f"{place}, tenant, ring, os_build", "sum(check_ins)"),
        "crash_minutes": ("crash_minutes", f"{place}, module, signature, ring, os_build, tenant", "sum(crashes)"),
        "boot_loops": ("crash_minutes", f"{place}, module, signature, ring, os_build, tenant", "sum(boot_loops)"),
        "version_crash_minutes": (
            "version_crash_minutes", f"{place}, {update}, signature, ring, os_build, tenant", "sum(crashes)",
        ),
        "install_minutes": (
            "install_minutes", f"{place}, kind, {update}, ring, os_build, tenant", "sum(installs)",
        ),
    }  # fmt: skip
    return {
        name: {
            tuple(row[:-1]): row[-1]
            for row in store.query(f"SELECT {keys}, {total} AS n FROM {table} FINAL GROUP BY ALL HAVING n > 0").rows
        }
        for name, (table, keys, total) in queries.items()
    }
