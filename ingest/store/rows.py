"""A block in the making: rows by table, check-ins as counts; and how rows become columns.

Filled by the decoders, emptied by the sink. The invariant: what a block holds depends on the log's records alone, never
on the time or on what was read beside them, so that a block that is read again is the same block.
"""

from collections import Counter
from typing import Any

from ingest.deadletter import DeadLetter

PLACE = ("partition", "log_offset", "log_index", "block")
_REPORT = (
    "kind", "device", "seq", "at", "received_at", "boot_id", "boot_at", "tenant", "os_build", "form_factor", "model",
    "ring", "site",
)  # fmt: skip
COLUMNS: dict[str, tuple[str, ...]] = {
    "crashes": (
        *_REPORT, "boots", "bugcheck", "parameters", "module", "frames", "signature_module", "signature",
        "signature_frames", "deliberate", "versions", "gateway", *PLACE,
    ),
    "installs": (*_REPORT, "vendor", "product", "update_kind", "version", "gateway", *PLACE),
    "check_in_minutes": ("minute", "tenant", "ring", "os_build", "check_ins", "partition", "block"),
    "verdicts": (
        "rollout", "vendor", "product", "version", "at", "verdict", "decision", "reason", "sentence", "log10_evidence",
        "log10_evidence_max", "log10_needed_to_hold", "log10_needed_to_kill", "tolerated_ratio", "crashes_exposed",
        "crashes_control", "exposed", "at_risk_exposed", "at_risk_control", "rate_ratio", "rate_ratio_low",
        "rate_ratio_high", "tenants", "methods", "policy", "dry_run", "json", "partition", "log_offset", "logged_at",
    ),
    "recoveries": (
        "rollout", "minute", "vendor", "product", "version", "silent", "looping", "recovered", "parts", "partition",
        "log_offset", "logged_at",
    ),
    "alerts": (
        "alert", "at", "state", "pattern", "signatures", "joined", "places", "opened", "last", "crashes",
        "devices_most", "tenants_most", "expected", "log10_evidence", "log10_needed", "tests", "times", "ended",
        "sentence", "json", "partition", "log_offset", "logged_at",
    ),
    "killswitch": (
        "rollout", "number", "vendor", "product", "version", "state", "previous_state", "decision", "cause", "reason",
        "sentence", "name", "watermark", "decided_at", "lane", "dry_run", "command_id", "policy", "log10_evidence",
        "key_ids", "envelope", "partition", "log_offset", "logged_at",
    ),
    "pagings": (
        "rollout", "owner", "route", "channel", "key", "step", "level", "sequence", "attempt", "at", "seconds",
        "answered", "status", "answer", "headline", "json", "partition", "log_offset", "logged_at",
    ),
    "rollouts": (
        "rollout", "vendor", "product", "update_kind", "version", "origin", "bound", "rings", "pushed_devices",
        "declared_by", "discovered_by", "closed", "json", "partition", "log_offset", "logged_at",
    ),
}  # fmt: skip

# Minute since the epoch, tenant, ring, OS build.
CheckInKey = tuple[int, str, str, str]


class Block:
    """What the sink has read and not yet written.

    Attributes:
        rows: rows by table.
        check_ins: counts by partition and first offset of the block.
        dead: what could not be used.
        reports: reports taken in, counted ones too.
    """

    def __init__(self) -> None:
        """Start empty."""
        self.rows: dict[str, list[tuple[Any, ...]]] = {}
        self.check_ins: dict[tuple[int, int], Counter[CheckInKey]] = {}
        self.dead: list[DeadLetter] = []
        self.reports = 0

    def add(self, table: str, rows: list[tuple[Any, ...]]) -> None:
        """Add rows to a table, in the order of `COLUMNS`."""
        if rows:
            self.rows.setdefault(table, []).extend(rows)

    def count_check_ins(self, partition: int, block: int, counts: Counter[CheckInKey]) -> None:
        """Add counts of check-ins by minute, tenant, ring and OS build."""
        counter = self.check_ins.get((partition, block))
        if counter is None:
            counter = self.check_ins[partition, block] = Counter()
        counter.update(counts)

    def row_count(self) -> int:
        """Return how many rows the block would insert."""
        return sum(map(len, self.rows.values())) + sum(map(len, self.check_ins.values()))

    def columns(self) -> dict[str, dict[str, tuple[Any, ...]]]:
        """Return the block's columns by table; tables without rows are left out."""
        tables = dict(self.rows)
        counted = [
            (minute * 60, tenant, ring, os_build, count, partition, block)
            for (partition, block), counter in self.check_ins.items()
            for (minute, tenant, ring, os_build), count in counter.items()
        ]
        if counted:
            tables["check_in_minutes"] = counted
        return {
            table: dict(zip(COLUMNS[table], zip(*rows, strict=True), strict=True)) for table, rows in tables.items()
        }
