"""What a person wants to know of a rollout's first crashes: how many, whose, which, where. Counted, never scored.

Every table is bounded: beyond its size a new name is counted as `other`, so nobody grows memory by inventing names.
"""

from typing import Final

import msgspec

from detectors.stacks import Stack, StackTally
from ingest.windows import FirstCrash

_TENANTS_MAX: Final = 1024
_SIGNATURES_MAX: Final = 256
_OTHER: Final = "other"
TOP: Final = 5


class CrashTally(msgspec.Struct, kw_only=True):
    """Tallies of first crashes; a plain struct, so that it is its own snapshot.

    Attributes:
        exposed: first crashes of exposed devices, scored or not.
        control: the others.
        unscored: crashes that are no evidence: of one site, too old, from a gap, in no cell that is compared.
        first_ms: event time of the earliest exposed crash.
        tenants: hashed tenants of exposed crashes.
        signatures: signature to count, of exposed crashes.
        cells: cell to [exposed, control] crashes.
        stacks: stacks of exposed crashes.
    """

    exposed: int = 0
    control: int = 0
    unscored: int = 0
    first_ms: int | None = None
    tenants: list[int] = []
    signatures: dict[str, int] = {}
    cells: dict[str, list[int]] = {}
    stacks: StackTally = msgspec.field(default_factory=StackTally)

    def add(self, crash: FirstCrash, exposed: bool, cells_max: int) -> None:
        """Count one first crash in its arm."""
        cell = crash.cell if crash.cell in self.cells or len(self.cells) < cells_max else _OTHER
        self.cells.setdefault(cell, [0, 0])[0 if exposed else 1] += 1
        if not exposed:
            self.control += 1
            return
        self.exposed += 1
        self.first_ms = crash.at_ms if self.first_ms is None else min(self.first_ms, crash.at_ms)
        if crash.tenant not in self.tenants and len(self.tenants) < _TENANTS_MAX:
            self.tenants.append(crash.tenant)
        known = crash.signature in self.signatures or len(self.signatures) < _SIGNATURES_MAX
        signature = crash.signature if known else _OTHER
        self.signatures[signature] = self.signatures.get(signature, 0) + 1
        if known:
            self.stacks.add(signature, crash.frames, crash.tenant)

    def top_signatures(self) -> list[tuple[str, int]]:
        """Return the most frequent signatures of exposed crashes, most frequent first, equal ones by name."""
        return sorted(self.signatures.items(), key=lambda item: (-item[1], item[0]))[:TOP]

    def top_stacks(self) -> list[Stack]:
        """Return the most frequent stack of each of the most frequent signatures, in their order."""
        return self.stacks.most([signature for signature, _ in self.top_signatures()])

    def modules(self) -> dict[str, int]:
        """Return exposed crashes by the module that their signatures name."""
        found: dict[str, int] = {}
        for signature, count in self.signatures.items():
            module = signature.partition("|")[0]
            found[module] = found.get(module, 0) + count
        return found

    def top_cells(self) -> list[tuple[str, int, int]]:
        """Return the cells with the most exposed crashes, as (cell, exposed crashes, control crashes)."""
        ranked = sorted(self.cells.items(), key=lambda item: (-item[1][0], -item[1][1], item[0]))[:TOP]
        return [(cell, exposed, control) for cell, (exposed, control) in ranked]
