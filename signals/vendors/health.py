"""Crash rates of one product in one day, from the store's rows, with small groups suppressed. Pure.

Between the desk, which asks the store, and the answer. Invariant: parts are cut from one set of distinct devices, each
in one version, one OS build and one signature of it, so everything that is told adds up, or tells nothing.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from signals.vendors.anonymity import Group, Shown, Terms, rounded, suppress, two_digits, union
from signals.vendors.words import CellHealth, ProductHealth, VersionHealth

OTHER: Final = "(other)"


@dataclass(slots=True)
class _Version:
    builds: dict[str, Group] = field(default_factory=dict)
    signatures: dict[str, Group] = field(default_factory=dict)
    installed: dict[str, Group] = field(default_factory=dict)


def product_health(
    vendor: str,
    product: str,
    crashes: Iterable[Iterable[Any]],
    devices: Iterable[Iterable[Any]],
    own_module: Callable[[str], bool],
    terms: Terms,
) -> ProductHealth | None:
    """Return what may be told of a product in one day; None where it is too small to be named.

    Args:
        vendor: as devices call it.
        product: likewise.
        crashes: rows of version, OS build, module, signature, tenant, devices.
        devices: rows of version, OS build, tenant, devices.
        own_module: whether a module is the vendor's.
        terms: how large a group must be.
    """
    versions = _gather(crashes, devices, own_module)
    crashed = suppress({name: union(one.builds.values()) for name, one in versions.items()}, terms)
    installed = suppress({name: union(one.installed.values()) for name, one in versions.items()}, terms)
    if crashed is None and installed is None:
        return None
    found = [
        _version(name, one, crashed, installed, terms)
        for name, one in sorted(versions.items())
        if any(shown is not None and name in shown.parts for shown in (crashed, installed))
    ]
    rest = _rest(crashed), _rounded_rest(installed, terms)
    if rest != (None, None):
        found.append(VersionHealth(version=OTHER, crashed=rest[0], devices=rest[1], rate=_rate(*rest)))
    total = _total(crashed), _rounded(_total(installed), terms)
    return ProductHealth(
        vendor=vendor, product=product, crashed=total[0], devices=total[1], rate=_rate(*total), versions=found
    )


def _gather(
    crashes: Iterable[Iterable[Any]], devices: Iterable[Iterable[Any]], own_module: Callable[[str], bool]
) -> dict[str, _Version]:
    versions: dict[str, _Version] = {}
    for version, build, module, signature, tenant, count in crashes:
        one = versions.setdefault(str(version), _Version())
        # A signature in somebody else's module is somebody else's to see.
        named = str(signature) if own_module(str(module)) else OTHER
        one.builds.setdefault(str(build), Group()).add(int(count), (str(tenant),))
        one.signatures.setdefault(named, Group()).add(int(count), (str(tenant),))
    for version, build, tenant, count in devices:
        one = versions.setdefault(str(version), _Version())
        one.installed.setdefault(str(build), Group()).add(int(count), (str(tenant),))
    return versions


def _version(
    name: str, one: _Version, crashed: Shown[str] | None, installed: Shown[str] | None, terms: Terms
) -> VersionHealth:
    # The parts of a version that is not told by itself would tell of it.
    told = crashed is not None and name in crashed.parts
    builds = suppress(one.builds, terms) if told else None
    signatures = suppress(one.signatures, terms) if told else None
    on = suppress(one.installed, terms) if installed is not None and name in installed.parts else None
    numbers = _total(builds), _rounded(_total(on), terms)
    return VersionHealth(
        version=name,
        crashed=numbers[0],
        devices=numbers[1],
        rate=_rate(*numbers),
        os_builds=_cells(builds, on, terms),
        signatures=_cells(signatures, None, terms),
    )


def _cells(crashed: Shown[str] | None, installed: Shown[str] | None, terms: Terms) -> list[CellHealth]:
    counts = _named(crashed)
    sizes = {name: rounded(count, terms) for name, count in _named(installed).items()}
    return [
        CellHealth(name=name, devices=sizes.get(name), crashed=counts.get(name),
                   rate=_rate(counts.get(name), sizes.get(name)) if name != OTHER else None)
        for name in sorted({*counts, *sizes})
    ]  # fmt: skip


def _named(shown: Shown[str] | None) -> Mapping[str, int]:
    if shown is None:
        return {}
    parts = dict(shown.parts)
    if shown.rest:
        # What others name `(other)` themselves is part of it.
        parts[OTHER] = parts.get(OTHER, 0) + shown.rest
    return parts


def _rest(shown: Shown[str] | None) -> int | None:
    return shown.rest if shown is not None and shown.rest else None


def _rounded_rest(shown: Shown[str] | None, terms: Terms) -> int | None:
    return _rounded(_rest(shown), terms)


def _rounded(count: int | None, terms: Terms) -> int | None:
    return None if count is None else rounded(count, terms)


def _total(shown: Shown[str] | None) -> int | None:
    return None if shown is None else sum(shown.parts.values()) + shown.rest


def _rate(crashed: int | None, devices: int | None) -> float | None:
    # Devices are rounded down, and some never reported the version they crashed with.
    return two_digits(min(1.0, crashed / devices)) if crashed is not None and devices else None
