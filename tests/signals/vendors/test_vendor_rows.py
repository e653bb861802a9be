"""The vendors' named queries over a real store: each device once, late words left out, and only one's own pairs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.alerts.source import StoreRows
from ingest.clock import DrivenClock
from ingest.store.chdb import ChdbStore
from ingest.store.migrate import Migrator
from ingest.store.rows import COLUMNS
from signals.delivery.views import Views
from signals.vendors.anonymity import Terms
from signals.vendors.desk import VendorDesk, VendorSource
from signals.vendors.words import VendorPair
from support.switches import KEYS
from support.vendors import DAY, DAY_MS, registry

TENANTS = ("acme", "bank", "city", "dock")
START_MS = DAY * DAY_MS
HOUR_MS = 3_600_000
MAKER = "CrowdStrike, Inc."


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChdbStore]:
    folder: Path = tmp_path_factory.mktemp("vendors")
    made = ChdbStore(folder / "store", "cordon")
    Migrator(made).apply()
    fill(made)
    yield made
    made.close()


def fill(store: ChdbStore) -> None:
    """Put in 240 devices on two builds; version 2 crashes on build 26100 only; a peer's and a stranger's product."""
    installs, crashes = [], []
    for number in range(240):
        build = "22631.1" if number % 2 else "26100.1"
        device = {"device": f"{number:016x}", "tenant": TENANTS[number // 2 % 4], "os_build": build, "model": "L"}
        version = "2" if number < 120 else "1"
        installs += [
            {**device, "vendor": MAKER, "product": "falcon", "version": version, "at": START_MS + HOUR_MS},
            {**device, "vendor": "sentinelone", "product": "agent", "version": "9", "at": START_MS + HOUR_MS},
            {**device, "vendor": "sophos", "product": "intercept", "version": "4", "at": START_MS + HOUR_MS},
        ]
        if version == "2" and build == "26100.1" and number < 80:
            crash = {**device, "versions": [(MAKER, "falcon", version, None), ("sophos", "intercept", "4", None)],
                     "at": START_MS + 5 * HOUR_MS, "signature_module": "csagent.sys",
                     "signature": "csagent.sys|0x50"}  # fmt: skip
            crashes += [crash, {**crash, "at": START_MS + 6 * HOUR_MS, "os_build": "22631.1"}]
    late = {**crashes[0], "device": "f" * 16, "received_at": START_MS + DAY_MS + 3 * HOUR_MS}
    wanted = {**crashes[0], "device": "e" * 16, "deliberate": 1}
    after = {**installs[0], "device": "d" * 16, "at": START_MS + 2 * DAY_MS}
    insert(store, "installs", [*installs, after])
    insert(store, "crashes", [*crashes, late, wanted])


def insert(store: ChdbStore, table: str, rows: list[dict[str, Any]]) -> None:
    base: dict[str, Any] = {
        "kind": "bsod" if table == "crashes" else "installed", "seq": 1, "boot_id": "b", "boot_at": START_MS,
        "form_factor": "laptop", "model": "", "ring": "broad", "site": "", "boots": 1, "bugcheck": 0x50,
        "parameters": [], "module": "csagent.sys", "frames": [], "signature_frames": "", "deliberate": 0,
        "versions": [], "update_kind": "content", "gateway": "g", "partition": 0, "log_index": 0, "block": 0,
    }  # fmt: skip
    whole = [{**base, "log_offset": place, "received_at": row["at"], **row} for place, row in enumerate(rows)]
    store.insert(table, {name: tuple(row[name] for row in whole) for name in COLUMNS[table]})


def desk(store: ChdbStore, terms: Terms | None = None) -> VendorDesk:
    in_force = registry()
    source = VendorSource(StoreRows(store), lambda: in_force, terms or Terms())
    return VendorDesk(Views(KEYS), DrivenClock(), source)


def test_each_device_counts_once_and_what_came_late_or_by_hand_does_not(store: ChdbStore) -> None:
    (product,) = desk(store).health(frozenset({"crowdstrike"}), "2024-07-19").products
    assert (product.vendor, product.product, product.crashed, product.devices) == (MAKER, "falcon", 40, 240)
    crashing = {version.version: version for version in product.versions}
    assert (crashing["2"].crashed, crashing["2"].devices, crashing["2"].rate) == (40, 120, 0.33)
    assert {cell.name: cell.crashed for cell in crashing["2"].os_builds} == {"26100.1": 40, "22631.1": None}
    assert (crashing["1"].crashed, crashing["1"].devices) == (None, 120)


def test_pairs_are_with_oneself_and_those_who_share_both_ways(store: ChdbStore) -> None:
    answer = desk(store).compatibility(frozenset({"crowdstrike"}))
    assert {pair.factor for pair in answer.pairs} == {"os build", "model", "sentinelone/agent"}
    assert {pair.product for pair in answer.pairs} == {f"{MAKER}/falcon"}
    worst = answer.pairs[0]
    assert isinstance(worst, VendorPair)
    assert (worst.version, worst.level, worst.devices_at_least, worst.crashed_at_least) == ("2", "26100.1", 50, 20)
    for name in ("sophos", "sentinelone"):
        factors = {pair.factor for pair in desk(store).compatibility(frozenset({name})).pairs}
        assert ("CrowdStrike, Inc./falcon" in factors) == (name == "sentinelone")


def test_pairs_of_few_devices_or_few_tenants_are_left_out(store: ChdbStore) -> None:
    assert desk(store, Terms(5, 5)).compatibility(frozenset({"crowdstrike"})).pairs == []
    assert desk(store, Terms(61, 3)).compatibility(frozenset({"crowdstrike"})).pairs != []
    assert all(
        pair.devices_at_least >= 100
        for pair in desk(store, Terms(61, 3)).compatibility(frozenset({"crowdstrike"})).pairs
    )
