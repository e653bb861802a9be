"""The compatibility matrix of a vendor's products, cut to what it may see: an export for a joint test. Pure.

`cordon compat` prints the same matrix whole. Invariant: a pair is told only of enough devices at enough tenants, its
counts in steps of a ladder; and the other side is an OS build, a model, the vendor's own product, or one of a vendor
that shares both ways.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from detectors.interactions import Cell, Finding, Pair, compatibility
from signals.vendors.anonymity import Terms, step_of, two_digits
from signals.vendors.owning import Owning
from signals.vendors.words import VendorPair

FACTORS: Final = frozenset({"os build", "model"})
PAIRS_MAX: Final = 1000
_ORDER: Final = {Finding.INTERACTION: 0, Finding.WORSE: 1, Finding.NONE: 2}


def product_pairs(product: str, rows: Iterable[Iterable[Any]], owning: Owning, terms: Terms) -> list[VendorPair]:
    """Return the pairs of one product that may be told.

    Args:
        product: its name, `vendor/product`.
        rows: of the named query `compat_cells`, the whole fleet in one part.
        owning: what the vendors own.
        terms: how large a group must be.

    Raises:
        ValueError: the counts do not fit together.
    """
    factors: dict[str, list[Cell]] = {}
    tenants: dict[tuple[str, str, str], int] = {}
    peers = owning.of_peers()
    for factor, version, level, stratum, devices, days, crashes, seen_at in rows:
        if not _may_see(str(factor), owning, peers):
            continue
        cell = Cell(str(version), str(level), str(stratum), int(devices), float(days), int(crashes))
        factors.setdefault(str(factor), []).append(cell)
        # Strata may share tenants: what one of them has is a lower bound of all.
        key = (str(factor), cell.version, cell.level)
        tenants[key] = max(tenants.get(key, 0), int(seen_at))
    matrix = compatibility(factors)
    told = [_pair(product, pair, terms) for pair in matrix.pairs if _enough(pair, tenants, terms)]
    return [pair for pair in told if pair is not None]


def ordered(pairs: Iterable[VendorPair]) -> list[VendorPair]:
    """Return pairs of several products, findings first, at most `PAIRS_MAX`."""
    return sorted(pairs, key=lambda pair: (_ORDER[Finding(pair.finding)], -(pair.ratio or 0.0), pair.product,
                                           pair.version, pair.factor, pair.level))[:PAIRS_MAX]  # fmt: skip


def _may_see(factor: str, owning: Owning, peers: Owning) -> bool:
    if factor in FACTORS:
        return True
    vendor, _, product = factor.partition("/")
    return owning.owns(vendor, product) or peers.owns(vendor, product)


def _enough(pair: Pair, tenants: Mapping[tuple[str, str, str], int], terms: Terms) -> bool:
    return pair.devices >= terms.devices and tenants.get((pair.factor, pair.version, pair.level), 0) >= terms.tenants


def _pair(product: str, pair: Pair, terms: Terms) -> VendorPair | None:
    devices = step_of(pair.devices, terms)
    if devices is None:
        return None
    crashed = step_of(pair.crashes, terms)
    return VendorPair(
        product=product,
        version=pair.version,
        factor=pair.factor,
        level=pair.level,
        devices_at_least=devices,
        crashed_at_least=crashed,
        ratio=two_digits(pair.ratio) if crashed is not None and pair.ratio is not None else None,
        finding=pair.finding.value if crashed is not None else Finding.NONE.value,
    )
