"""Vendors' crash rates: no small group is told, none can be had by subtraction, and a day's answers agree for ever."""

import itertools
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.clock import DrivenClock
from signals.delivery.views import Views
from signals.vendors.anonymity import Group, Terms, rounded, step_of, suppress
from signals.vendors.desk import UnknownDayError, VendorDesk, VendorSource
from signals.vendors.health import OTHER, product_health
from signals.vendors.words import ProductHealth, VendorHealth, VersionHealth
from support.switches import KEYS
from support.vendors import DAY, DAY_MS, Device, DeviceRows, registry

TERMS = Terms(devices=5, tenants=3)
CROWDSTRIKE = frozenset({"crowdstrike"})
MODULES = ("csagent.sys", "csboot.sys", "sentinelmonitor.sys")


def desk(rows: DeviceRows) -> VendorDesk:
    in_force = registry()
    return VendorDesk(Views(KEYS), DrivenClock(), VendorSource(rows, lambda: in_force, TERMS))


def devices_of(counts: list[tuple[str, str, str, str, bool, int]], day: int = DAY) -> list[Device]:
    """Return so many devices of each version, OS build, module, tenant, and whether they crashed."""
    found: list[Device] = []
    for version, build, module, tenant, crashed, count in counts:
        for _ in range(count):
            name = f"device-{len(found)}"
            signature = f"{module}|0x50" if crashed else ""
            found.append(Device(name, tenant, "CrowdStrike, Inc.", "falcon", version, build, day, signature))
    return found


fleets = st.lists(
    st.tuples(
        st.sampled_from(["7.11", "7.12", "7.13"]), st.sampled_from(["22631", "19045", "26100"]),
        st.sampled_from(MODULES), st.sampled_from(["acme", "bank", "city", "dock"]), st.booleans(), st.integers(1, 9),
    ),
    max_size=24,
).map(devices_of)  # fmt: skip


def health_of(devices: list[Device]) -> ProductHealth | None:
    found = desk(DeviceRows(devices)).health(CROWDSTRIKE, "2024-07-19").products
    assert len(found) <= 1
    return found[0] if found else None


def named_signature(device: Device) -> str:
    return device.signature if device.signature.startswith("csagent") else OTHER


def cells(version: VersionHealth, mine: list[Device], family: str) -> Iterator[tuple[frozenset[str], int]]:
    """Yield the devices that each number of a version's parts is of, and the number."""
    told = version.os_builds if family == "build" else version.signatures

    def key(device: Device) -> str:
        return device.os_build if family == "build" else named_signature(device)

    names = {cell.name for cell in told if cell.crashed is not None}
    for cell in told:
        if cell.crashed is None:
            continue
        group = {d.name for d in mine if key(d) == cell.name or (cell.name == OTHER and key(d) not in names)}
        yield frozenset(group), cell.crashed


def told_groups(product: ProductHealth, devices: list[Device]) -> list[frozenset[str]]:
    """Return every group of crashed devices that a number of the answer is of, having checked the number."""
    crashed = [device for device in devices if device.crashed]
    found: list[tuple[frozenset[str], int]] = []
    if product.crashed is not None:
        found.append((frozenset(d.name for d in crashed), product.crashed))
    versions = {one.version for one in product.versions if one.crashed is not None}
    for version in product.versions:
        if version.crashed is None:
            assert all(cell.crashed is None for cell in (*version.os_builds, *version.signatures))
            continue
        mine = [d for d in crashed if d.version == version.version
                or (version.version == OTHER and d.version not in versions)]  # fmt: skip
        found.append((frozenset(d.name for d in mine), version.crashed))
        for family in ("build", "signature"):
            found += cells(version, mine, family)
    for group, count in found:
        assert len(group) == count
    return list({group for group, _ in found})


def differences(groups: list[frozenset[str]]) -> Iterator[frozenset[str]]:
    """Yield what is left of each group when groups within it that share no device are taken from it."""
    for whole in groups:
        inside = sorted((group for group in groups if group < whole), key=len)[:9]
        for size in range(len(inside) + 1):
            for some in itertools.combinations(inside, size):
                if sum(map(len, some)) == len(frozenset().union(*some)):
                    yield whole.difference(*some)


@given(fleets)
@settings(max_examples=150, deadline=None)
def test_nothing_that_subtraction_gives_is_of_few_devices_or_few_tenants(devices: list[Device]) -> None:
    product = health_of(devices)
    if product is None:
        return
    tenants = {device.name: device.tenant for device in devices}
    for group in differences(told_groups(product, devices)):
        if group:
            assert len(group) >= TERMS.devices
            assert len({tenants[name] for name in group}) >= TERMS.tenants


sizes = st.tuples(st.integers(1, 12), st.sets(st.sampled_from("abcde"), min_size=1))


@given(st.dictionaries(st.text(max_size=3), sizes, max_size=7))
def test_parts_and_rest_add_up_and_are_each_large_enough(parts: dict[str, tuple[int, set[str]]]) -> None:
    groups = {name: Group(count, set(tenants)) for name, (count, tenants) in parts.items()}
    shown = suppress(groups, TERMS)
    whole = Group(sum(one.devices for one in groups.values()), set().union(*(one.tenants for one in groups.values())))
    if shown is None:
        assert not whole.meets(TERMS)
        return
    assert sum(shown.parts.values()) + shown.rest == whole.devices
    assert all(groups[name].meets(TERMS) and groups[name].devices == count for name, count in shown.parts.items())
    hidden = [one for name, one in groups.items() if name not in shown.parts]
    assert not hidden or len(set().union(*(one.tenants for one in hidden))) >= TERMS.tenants
    assert shown.rest == 0 or shown.rest >= TERMS.devices


@given(st.integers(0, 10**7), st.integers(0, 10**7), st.integers(2, 50))
def test_growing_counts_differ_by_nobody_or_by_as_many_as_a_group_has(a: int, b: int, least: int) -> None:
    terms = Terms(devices=least)
    low, high = min(a, b), max(a, b)
    one, other = step_of(low, terms), step_of(high, terms)
    assert one is None or least <= one <= low
    if one is not None and other is not None and one != other:
        assert low < other <= high
        assert other - one >= one / 2, "a step is at least half of what it stands on"
    if low >= least:
        first, second = rounded(low, terms), rounded(high, terms)
        assert first <= second
        assert second == first or second - first >= least


def test_a_day_is_told_once_it_is_complete_and_stays_as_it_was_told() -> None:
    devices = devices_of([("7.12", "22631", "csagent.sys", tenant, True, 4) for tenant in ("acme", "bank", "city")])
    rows = DeviceRows(devices, newest_ms=(DAY + 1) * DAY_MS + 2 * 3_600_000)
    asked = desk(rows)
    with pytest.raises(UnknownDayError):
        asked.health(CROWDSTRIKE, "2024-07-19")
    rows.newest_ms += 3_600_000
    first = asked.health(CROWDSTRIKE, None)
    assert first.window is not None
    assert (first.window.day, first.products[0].crashed) == ("2024-07-19", 12)
    # Whatever the store says of that day later, the answer is the one that was given.
    rows.devices = devices[:6]
    rows.newest_ms += DAY_MS
    assert asked.health(CROWDSTRIKE, "2024-07-19").products == first.products
    assert asked.health(CROWDSTRIKE, None).window != first.window


@given(fleets, fleets)
@settings(max_examples=30, deadline=None)
def test_answers_for_a_day_agree_and_no_two_days_overlap(one: list[Device], other: list[Device]) -> None:
    both = one + [replace(device, name=f"later-{n}", day=DAY + 1) for n, device in enumerate(other)]
    asked = desk(DeviceRows(both))
    spans = []
    for day in ("2024-07-19", "2024-07-20"):
        answers = [look.health(CROWDSTRIKE, day) for look in (asked, desk(DeviceRows(both)), asked)]
        assert all(answer == answers[0] for answer in answers)
        window = answers[0].window
        assert window is not None
        spans.append((window.from_ms, window.to_ms))
    assert spans[0][1] <= spans[1][0], "what one span tells can't be taken from another"


def test_signatures_in_others_modules_are_not_told_apart() -> None:
    devices = devices_of(
        [("7.12", "22631", module, tenant, True, 5) for module in MODULES for tenant in ("acme", "bank", "city")]
    )
    product = health_of(devices)
    assert product is not None
    assert {cell.name: cell.crashed for cell in product.versions[0].signatures} == {"csagent.sys|0x50": 15, OTHER: 30}


def test_a_version_that_nobody_crashed_on_looks_like_one_that_few_did() -> None:
    base = [("7.11", "22631", "csagent.sys", tenant, False, 40) for tenant in ("acme", "bank", "city")]
    few = devices_of([*base, ("7.11", "22631", "csagent.sys", "acme", True, 2)])
    none = devices_of([*base, ("7.11", "22631", "csagent.sys", "acme", False, 2)])
    assert health_of(few) == health_of(none)


@pytest.mark.parametrize(("vendor", "product", "owner"), [
    ("crowdstrike", "falcon", "crowdstrike"), ("CrowdStrike, Inc.", "falcon", "crowdstrike"),
    ("crowdstrike", "oem-agent", "sophos"), ("sentinelone", "agent", "sentinelone"), ("nobody", "x", None),
])  # fmt: skip
def test_a_product_is_told_to_its_owner_and_to_nobody_else(vendor: str, product: str, owner: str | None) -> None:
    devices = [
        Device(f"d{number}", f"t{number % 4}", vendor, product, "1", "22631", DAY, "csagent.sys|0x50")
        for number in range(40)
    ]
    asked = desk(DeviceRows(devices))
    for name in ("crowdstrike", "sentinelone", "sophos"):
        products = asked.health(frozenset({name}), "2024-07-19").products
        assert [one.product for one in products] == ([product] if name == owner else [])


def test_without_a_registry_only_what_names_the_vendor_exactly_is_its_own() -> None:
    devices = [Device(f"d{n}", f"t{n % 4}", "crowdstrike", "falcon", "1", "22631", DAY, "csagent.sys|0x50")
               for n in range(40)]  # fmt: skip
    asked = VendorDesk(Views(KEYS), DrivenClock(), VendorSource(DeviceRows(devices), terms=TERMS))
    answer = asked.health(CROWDSTRIKE, "2024-07-19")
    assert [cell.name for cell in answer.products[0].versions[0].signatures] == [OTHER]
    assert asked.health(frozenset({"sophos"}), "2024-07-19").products == []


def test_rates_are_by_devices_that_reported_the_version() -> None:
    base = [("7.12", build, "csagent.sys", tenant, False, 330) for build in ("22631", "19045")
            for tenant in ("acme", "bank", "city")]  # fmt: skip
    product = health_of(
        devices_of([*base, *[("7.12", "22631", "csagent.sys", t, True, 7) for t in ("acme", "bank", "city")]])
    )
    assert product is not None
    version = product.versions[0]
    assert (version.crashed, version.devices, version.rate) == (21, 2000, 0.011)
    assert {cell.name: (cell.devices, cell.rate) for cell in version.os_builds} == {
        "22631": (1000, 0.021),
        "19045": (950, None),
    }


def test_nothing_is_told_of_a_product_that_is_too_small() -> None:
    rows = [("7.12", "22631", "csagent.sys|0x50", "x", "acme", 500)]
    assert product_health("v", "p", rows, [], lambda _: True, TERMS) is None


def test_without_a_store_there_is_no_history() -> None:
    answer = VendorDesk(Views(KEYS), DrivenClock(), VendorSource()).health(CROWDSTRIKE, None)
    assert answer == VendorHealth(
        vendors=["crowdstrike"], devices_least=5, tenants_least=3, window=None, windows=[], products=[], rollouts=[]
    )
