"""Activity by columns: packing and unpacking are inverse, and columns that do not fit together are refused."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.activity import (
    Activity,
    ActivityBatch,
    ActivityBuffer,
    Texts,
    UpdateName,
    activity_decoder,
    column,
    pack,
    unpack,
)
from ingest.events import TIME_MAX_MS, TIME_MIN_MS, CheckIn, Installed, Offered, encoder

AT_MS = 1_721_362_140_000
# Few of each, so that texts repeat within a batch as they do in a fleet.
NAMES = st.sampled_from(["crowdstrike", "falcon-sensor", "7.11", "Ünïcødé 🖥", 'q"uote\\', "x" * 64])
OPTIONAL = st.sampled_from(["", "broad", "canary", "Latitude 7440", "東京"])
TIMES = st.integers(TIME_MIN_MS, TIME_MAX_MS)
COMMON: dict[str, st.SearchStrategy[Any]] = {
    "device": st.from_regex(r"[0-9a-f]{16}", fullmatch=True),
    "seq": st.integers(0, 2**53 - 1),
    "at_ms": TIMES,
    "boot_at_ms": TIMES,
    "os_build": st.sampled_from(["22631.3880", "19045", "26100.1"]),
    "form_factor": st.sampled_from(["laptop", "desktop", "server", "virtual", "other"]),
    "model": OPTIONAL,
    "ring": OPTIONAL,
    "site": OPTIONAL,
    "tenant": OPTIONAL,
}
UPDATE: dict[str, st.SearchStrategy[Any]] = {
    "boot_id": NAMES,
    "vendor": NAMES,
    "product": NAMES,
    "update_kind": st.sampled_from(["driver", "content", "os", "app"]),
    "version": NAMES,
}
REPORTS: st.SearchStrategy[list[Activity]] = st.lists(
    st.one_of(
        st.builds(Offered, **COMMON, **UPDATE),
        st.builds(Installed, **COMMON, **UPDATE),
        # Boot ids of check-ins are what packing leaves out.
        st.builds(CheckIn, **COMMON, boot_id=st.just("-"), versions=st.dictionaries(NAMES, NAMES, max_size=3)),
    ),
    max_size=30,
)


def check_in(**changes: Any) -> CheckIn:
    fields: dict[str, Any] = {
        "device": "84ffb1e6bf0d6d0a",
        "seq": 1,
        "at_ms": AT_MS,
        "boot_id": "-",
        "boot_at_ms": AT_MS,
        "os_build": "22631.3880",
        "form_factor": "laptop",
    }
    return CheckIn(**fields | changes)


@given(REPORTS)
def test_what_is_packed_comes_out_again(reports: list[Activity]) -> None:
    batch = pack(reports, "gateway-1", AT_MS)
    read = activity_decoder.decode(encoder.encode(batch))
    assert isinstance(read, ActivityBatch)
    assert len(read) == len(reports)
    assert unpack(read) == reports


def texts_one_by_one(values: list[str]) -> Texts:
    words = list(dict.fromkeys(values))
    return Texts(words, [words.index(value) for value in values] if len(words) > 1 else [])


def packed_column_by_column(reports: list[Activity]) -> ActivityBatch:
    """What `pack` has to give, said as plainly as it can be."""
    changes = [report for report in reports if not isinstance(report, CheckIn)]
    names = [(report.vendor, report.product, report.update_kind, report.version) for report in changes]
    listing = [(n, list(r.versions.items())) for n, r in enumerate(reports) if isinstance(r, CheckIn) and r.versions]
    inventories = [items for at, (_, items) in enumerate(listing) if items not in [one for _, one in listing[:at]]]
    updates = list(dict.fromkeys(names))
    return ActivityBatch(
        gateway="g",
        received_at_ms=AT_MS,
        devices="".join(report.device for report in reports),
        kinds="".join({CheckIn: "c", Offered: "o", Installed: "i"}[type(report)] for report in reports),
        seq=[report.seq for report in reports],
        at_ms=[report.at_ms for report in reports],
        boot_at_ms=[report.boot_at_ms for report in reports],
        os_build=texts_one_by_one([report.os_build for report in reports]),
        form_factor=texts_one_by_one([report.form_factor for report in reports]),
        model=texts_one_by_one([report.model for report in reports]),
        ring=texts_one_by_one([report.ring for report in reports]),
        site=texts_one_by_one([report.site for report in reports]),
        tenant=texts_one_by_one([report.tenant for report in reports]),
        updates=[UpdateName(*name) for name in updates],
        changed=[updates.index(name) for name in names],
        changed_boots=[report.boot_id for report in changes],
        inventories=[dict(items) for items in inventories],
        listed_at=[place for place, _ in listing],
        listed=[inventories.index(items) for _, items in listing],
    )


@given(REPORTS, st.integers(1, 31))
def test_a_buffer_gives_the_bytes_that_packing_gives(reports: list[Activity], reports_max: int) -> None:
    """Also when it is used again, as it is after each flush."""
    parts = [reports[start : start + reports_max] for start in range(0, len(reports), reports_max)]
    buffer = ActivityBuffer(reports_max)
    for _ in range(2):
        for report in reports:
            buffer.append(report)
        batches = buffer.batches("g", AT_MS)
        assert [encoder.encode(batch) for batch in batches] == [
            encoder.encode(packed_column_by_column(part)) for part in parts
        ]
    assert encoder.encode(pack(reports, "g", AT_MS)) == encoder.encode(packed_column_by_column(reports))


@given(REPORTS)
def test_packing_depends_on_the_reports_alone(reports: list[Activity]) -> None:
    """A record that is written again after a failure is the same record."""
    assert encoder.encode(pack(reports, "g", AT_MS)) == encoder.encode(pack(list(reports), "g", AT_MS))


def test_a_text_stands_once_however_often_it_is_said() -> None:
    batch = pack([check_in(seq=seq, model="Latitude 7440") for seq in range(500)], "gateway-1", AT_MS)
    assert batch.model == Texts(["Latitude 7440"], [])
    assert encoder.encode(batch).count(b"Latitude") == 1


def test_a_record_is_far_smaller_than_rows() -> None:
    reports = [check_in(seq=seq, device=f"{seq:016x}", model=f"model {seq % 20}", ring="broad") for seq in range(500)]
    rows = sum(len(encoder.encode(report)) for report in reports)
    assert len(encoder.encode(pack(reports, "gateway-1", AT_MS))) * 3 < rows


def test_the_boot_id_of_a_check_in_is_left_out() -> None:
    assert unpack(pack([check_in(boot_id="b-1")], "g", AT_MS)) == [check_in()]


@pytest.mark.parametrize(
    "change",
    [
        {"kinds": "cc"},
        {"kinds": "x"},
        {"kinds": "o"},
        {"devices": "84ffb1e6"},
        {"seq": []},
        {"seq": [-1]},
        {"at_ms": [0]},
        {"os_build": Texts([], [])},
        {"os_build": Texts(["22631"], [0, 0])},
        {"ring": Texts(["broad"], [7])},
        {"form_factor": Texts(["toaster"], [])},
        {"changed": [0]},
        {"changed": [0], "changed_boots": ["b"]},
        {"listed_at": [0], "listed": []},
        {"listed_at": [0], "listed": [0]},
    ],
)
def test_columns_that_do_not_fit_together_are_refused(change: dict[str, Any]) -> None:
    batch = msgspec.structs.replace(pack([check_in()], "gateway-1", AT_MS), **change)
    with pytest.raises((ValueError, IndexError, KeyError, msgspec.ValidationError)):
        unpack(batch)


def test_a_column_has_one_entry_for_each_report() -> None:
    assert column(Texts(["a"], []), 3) == ["a", "a", "a"]
    assert column(Texts(["a", "b"], [1, 0, 1]), 3) == ["b", "a", "b"]
    with pytest.raises(ValueError, match="2 entries for 3 reports"):
        column(Texts(["a", "b"], [0, 1]), 3)
