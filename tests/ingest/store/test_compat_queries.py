"""What `cordon compat` reads: the store's counts are those of a recount in Python, device by device."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from ingest.log.memory import MemoryLog
from ingest.store.chdb import ChdbStore
from ingest.store.queries import named_queries
from ingest.store.sink import Sink
from ingest.topics import Topics
from support.compat_fleet import BEGIN_MS, DAY_MS, OWN, CompatFleet, recount


def moment(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M:%S}"


def ask(
    store: ChdbStore, name: str, from_day: float, to_day: float, module: str = "", parts: int = 1, part: int = 0
) -> list[Any]:
    values = {
        "vendor": OWN[0], "product": OWN[1], "from": moment(int(BEGIN_MS + from_day * DAY_MS)),
        "to": moment(int(BEGIN_MS + to_day * DAY_MS)), "module": module, "parts": parts, "part": part, "limit": 10,
    }  # fmt: skip
    query = named_queries()[name]
    return store.query(query.sql, {parameter.name: values[parameter.name] for parameter in query.parameters}).rows


@pytest.fixture
def filled(
    store: ChdbStore, log: MemoryLog, topics: Topics, make_sink: Callable[..., Sink]
) -> tuple[ChdbStore, CompatFleet]:
    fleet = CompatFleet(seed=3, devices=300)
    log.append(fleet.entries(topics))
    make_sink(store).drain()
    return store, fleet


@pytest.mark.parametrize(
    ("from_day", "to_day", "module"), [(0, 20, ""), (7.5, 20, ""), (0, 9.25, ""), (3, 11, "csagent.sys")]
)
def test_cells_are_a_recount(
    from_day: float, to_day: float, module: str, filled: tuple[ChdbStore, CompatFleet]
) -> None:
    store, fleet = filled
    rows = ask(store, "compat_cells", from_day, to_day, module)
    found = {tuple(map(str, row[:4])): (int(row[4]), round(float(row[5]), 6), int(row[6])) for row in rows}
    wanted = recount(fleet, int(BEGIN_MS + from_day * DAY_MS), int(BEGIN_MS + to_day * DAY_MS), module)
    assert {key: (n, round(days, 6), c) for key, (n, days, c) in wanted.items()} == found
    assert sum(crashes for _, _, crashes in wanted.values()) > 50
    assert len(wanted) > 15


@pytest.mark.parametrize("name", ["compat_cells", "compat_untold"])
def test_parts_add_up_to_the_whole(name: str, filled: tuple[ChdbStore, CompatFleet]) -> None:
    store, _ = filled
    words = 4 if name == "compat_cells" else 0
    # Parts may share tenants, which come last.
    ends = words + 3

    def summed(parts: int) -> dict[tuple[str, ...], list[float]]:
        sums: dict[tuple[str, ...], list[float]] = {}
        for part in range(parts):
            for row in ask(store, name, 0, 20, parts=parts, part=part):
                numbers = sums.setdefault(tuple(map(str, row[:words])), [0.0] * 3)
                sums[tuple(map(str, row[:words]))] = [
                    a + float(b) for a, b in zip(numbers, row[words:ends], strict=True)
                ]
        return {key: [round(number, 6) for number in numbers] for key, numbers in sums.items()}

    assert summed(7) == summed(1)


def test_devices_without_a_word_on_the_product_are_counted_as_untold(filled: tuple[ChdbStore, CompatFleet]) -> None:
    store, fleet = filled
    crashed, untold, moved = ask(store, "compat_untold", 0, 20)[0]
    fallen = {crash.device for crash in fleet.crashes if crash.bugcheck != 0xE2}
    told = {word.device for word in fleet.words if word.update == OWN}
    last = {word.device: word.os_build for word in sorted(fleet.words, key=lambda word: word.at_ms)}
    changed = {c.device for c in fleet.crashes if c.bugcheck != 0xE2 and c.os_build != last[c.device]}
    assert (crashed, untold, moved) == (len(fallen), len(fallen - told), len(changed & told))
    assert untold > 0


def test_products_and_span(filled: tuple[ChdbStore, CompatFleet]) -> None:
    store, fleet = filled
    devices = {
        update: len({w.device for w in fleet.words if w.update == update}) for update in (OWN, ("NVIDIA", "Display"))
    }
    rows = ask(store, "compat_products", 0, 20)
    assert [(tuple(row[:2]), row[2]) for row in rows] == sorted(devices.items(), key=lambda item: -item[1])
    latest, reports = store.query(named_queries()["compat_span"].sql).rows[0]
    assert int(latest) == max([word.at_ms for word in fleet.words] + [crash.at_ms for crash in fleet.crashes])
    assert int(reports) == len(fleet.words) + len(fleet.crashes)
