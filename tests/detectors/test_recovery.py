"""Recovery counts: what partitions say last is what counts, rows add up, and a snapshot goes on alike."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from detectors.recovery import ROWS_MAX, Recovery, RecoveryCounts, RecoveryRow
from ingest.windows import CohortWindow, Recovering

rows = st.lists(
    st.builds(
        Recovering, st.sampled_from(["canary", "early", ""]), st.integers(0, 60), st.integers(0, 9), st.integers(0, 9),
        st.integers(0, 9),
    ),
    max_size=40,
    unique_by=lambda row: (row.ring, row.tenant),
)  # fmt: skip
words = st.lists(st.tuples(st.integers(0, 3), st.booleans(), rows), max_size=12)


def window(full: bool, said: list[Recovering]) -> CohortWindow:
    return CohortWindow(rollout="r", vendor="v", product="p", version="1", origin_ms=0, full=full, recovery=said)


@given(words)
def test_the_last_full_word_of_each_partition_counts_and_rows_add_up(
    words: list[tuple[int, bool, list[Recovering]]],
) -> None:
    counts, last = RecoveryCounts(), dict[int, list[Recovering]]()
    for partition, full, said in words:
        counts.state(partition, window(full, said))
        counts = RecoveryCounts(counts.snapshot())
        if full:
            last[partition] = said
    sums = Counter[str]()
    for row in (row for said in last.values() for row in said):
        sums.update(silent=row.silent, looping=row.looping, recovered=row.recovered)
    report = counts.report()
    if report is None:
        assert not any(last.values())
        return
    assert (report.silent, report.looping, report.recovered) == (sums["silent"], sums["looping"], sums["recovered"])
    for name in ("silent", "looping", "recovered"):
        assert sum(getattr(row, name) for row in report.rows) == sums[name]
    assert len({(row.ring, row.tenant) for row in report.rows}) == len(report.rows)
    assert len([row for row in report.rows if row.tenant]) <= ROWS_MAX


def test_smaller_tenants_of_a_ring_are_one_row() -> None:
    counts = RecoveryCounts()
    counts.state(0, window(True, [Recovering("early", n + 1, n + 1, 0, 0) for n in range(100)]))
    report = counts.report()
    assert report is not None
    assert len(report.rows) == ROWS_MAX + 1
    rest = sum(range(1, 100 - ROWS_MAX + 1))
    assert RecoveryRow(ring="early", tenant="", silent=rest) in report.rows
    assert report.silent == sum(range(1, 101))


def test_almost_all_are_back_only_when_somebody_is() -> None:
    assert not Recovery(silent=0, looping=0, recovered=0).back
    assert Recovery(silent=0, looping=0, recovered=7).back
    assert Recovery(silent=1, looping=0, recovered=99).back
    assert not Recovery(silent=1, looping=1, recovered=99).back
