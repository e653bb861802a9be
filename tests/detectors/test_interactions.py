"""The compatibility matrix: finds the pair that was made bad, blames nobody else, and says what it cannot tell."""

import doctest
import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors import interactions
from detectors.interactions import (
    LEVELS_MAX,
    POOLED,
    STRATA_MAX,
    VERSIONS_MAX,
    Cell,
    Finding,
    compatibility,
)

BUILDS = ("19045.4651", "22621.3880", "22631.3880", "26100.1150")
VERSIONS = ("7.10", "7.11", "7.12")
STRATA = ("laptop", "server")


def fleet(seed: int, bad: tuple[str, str] | None = None, ratio: float = 8.0, days: float = 4_000.0) -> list[Cell]:
    """Versions, builds and form factors with rates of their own; one pair worse where `bad` names one."""
    draw = np.random.default_rng(seed)
    cells = []
    for (i, version), (j, build), (k, form) in itertools.product(
        enumerate(VERSIONS), enumerate(BUILDS), enumerate(STRATA)
    ):
        rate = 0.003 * (1.0, 1.6, 0.8)[i] * (1.0, 2.5, 0.6, 1.3)[j] * (1.0, 3.0)[k]
        rate *= ratio if (version, build) == bad else 1.0
        at_risk = days * draw.uniform(0.2, 1.0)
        cells.append(Cell(version, build, form, int(at_risk), at_risk, int(min(draw.poisson(rate * at_risk), at_risk))))
    return cells


def findings(cells: list[Cell], **options: Any) -> list[tuple[str, str, Finding]]:
    matrix = compatibility({"os build": cells}, **options)
    return [(p.version, p.level, p.finding) for p in matrix.pairs if p.finding is not Finding.NONE]


def test_the_doctests_hold() -> None:
    assert doctest.testmod(interactions).failed == 0


@pytest.mark.parametrize("seed", range(4))
def test_the_bad_pair_is_found_and_no_other(seed: int) -> None:
    bad = ("7.11", "22631.3880")
    assert findings(fleet(seed, bad)) == [(*bad, Finding.INTERACTION)]
    first = compatibility({"os build": fleet(seed, bad)}).pairs[0]
    assert first.ratio is not None
    assert 4.0 < first.ratio < 16.0
    assert first.ratio_low < first.ratio < (first.ratio_high or 1e9)
    assert first.expected is not None
    assert first.crashes > first.expected
    assert not first.small


def test_healthy_fleets_have_no_findings() -> None:
    found = [findings(fleet(seed, days=1_000.0)) for seed in range(100, 140)]
    assert sum(map(bool, found)) <= 2


def test_a_version_bad_everywhere_is_no_interaction() -> None:
    cells = [
        c._replace(crashes=min(c.devices, c.crashes * 10)) if c.version == "7.12" else c
        for c in fleet(7, days=20_000.0)
    ]
    assert Finding.INTERACTION not in [finding for _, _, finding in findings(cells)]


def test_a_pair_worse_than_either_alone_that_both_explain_is_told_apart() -> None:
    """A bad version on a bad build: worse together, but no interaction."""
    cells = [
        Cell("1", "A", "", 100_000, 1e5, 100),
        Cell("1", "B", "", 100_000, 1e5, 500),
        Cell("2", "A", "", 100_000, 1e5, 500),
        Cell("2", "B", "", 100_000, 1e5, 2500),
    ]
    assert findings(cells) == [("2", "B", Finding.WORSE)]


def test_a_confounder_in_the_strata_is_not_blamed_on_the_pair() -> None:
    """Servers crash ten times as often, and mostly servers have 2 on B."""
    cells = [
        Cell(v, b, form, 20_000, days, int(days * (0.01 if form == "server" else 0.001)))
        for form in STRATA
        for v in ("1", "2")
        for b in ("A", "B")
        for days in [20_000.0 if (form == "server") == (v == "2" and b == "B") else 1_000.0]
    ]
    assert findings(cells) == []
    assert findings([cell._replace(stratum="") for cell in cells]) != []


def test_what_travels_with_the_bad_pair_is_said_to_follow_from_it() -> None:
    """The same devices seen by another factor: the new driver came with the new build."""
    bad = [Cell(v, b, "", 10_000, 1e4, 900 if v + b == "2B" else 30) for v in "12" for b in "AB"]
    dragged = [Cell(v, b, "", 10_000, 1e4, 500 if v + b == "2Y" else 30) for v in "12" for b in "XY"]
    first, second = compatibility({"driver": bad, "os build": dragged}).pairs[:2]
    assert (first.level, first.finding, first.note) == ("B", Finding.INTERACTION, "")
    assert (second.level, second.finding) == ("Y", Finding.INTERACTION)
    assert second.note == "may follow from driver B, this version's strongest finding"


@pytest.mark.parametrize(
    ("cells", "note"),
    [
        ([("1", "A")], "always together"),
        ([("1", "A"), ("2", "A")], "nowhere else"),
        ([("1", "A"), ("1", "B")], "no other version"),
        ([("1", "A"), ("1", "B"), ("2", "A")], "no stratum"),
    ],
)
def test_what_cannot_be_told_apart_is_said(cells: list[tuple[str, str]], note: str) -> None:
    matrix = compatibility(
        {"model": [Cell(v, b, "", 100, 100.0, 50 if v == "1" and b == "A" else 0) for v, b in cells]}
    )
    first = next(p for p in matrix.pairs if (p.version, p.level) == ("1", "A"))
    assert note in first.note
    assert (first.expected, first.ratio, first.finding, matrix.tested) == (None, None, Finding.NONE, 0)


def test_small_counts_are_marked() -> None:
    cells = [Cell(v, b, "", 1000, 1000.0, 20) for v in "12" for b in "AB"]
    limit = interactions.CRASHES_SMALL
    for crashes, small in ((limit, False), (limit - 1, True)):
        matrix = compatibility({"f": [*cells[:3], cells[3]._replace(crashes=crashes)]})
        assert next(p for p in matrix.pairs if (p.version, p.level) == ("2", "B")).small is small


def test_crashes_in_strata_without_comparison_are_counted() -> None:
    cells = [Cell(v, b, "laptop", 1000, 1000.0, 20) for v in "12" for b in "AB"]
    matrix = compatibility({"f": [*cells, Cell("1", "A", "virtual", 10, 10.0, 7)]})
    pair = next(p for p in matrix.pairs if (p.version, p.level) == ("1", "A"))
    assert pair.crashes == 27
    assert pair.note == "7 of its crashes lie in strata without comparison"


def test_beyond_the_bounds_names_are_pooled_and_still_count_as_others(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (VERSIONS_MAX, LEVELS_MAX, STRATA_MAX) == (32, 64, 16)
    monkeypatch.setattr(interactions, "VERSIONS_MAX", 4)
    monkeypatch.setattr(interactions, "LEVELS_MAX", 6)
    cells = [
        Cell(f"v{v}", f"b{b}", f"s{s}", 10, 100.0 + v + b, 1)
        for v in range(4 + 3)
        for b in range(6 + 5)
        for s in (0, STRATA_MAX + 5)
    ]
    matrix = compatibility({"f": cells})
    assert matrix.pooled == {"f": 8}
    assert len(matrix.pairs) == 4 * 6
    assert not any(POOLED in (p.version, p.level) for p in matrix.pairs)
    assert {p.version for p in matrix.pairs} == {f"v{v}" for v in range(3, 4 + 3)}


def test_multiplicity_is_over_all_factors() -> None:
    """What stands alone need not stand among a thousand other pairs."""
    cells = [Cell(v, b, "", 10_000, 1e4, 30) for v in "12" for b in "AB"]
    cells[3] = cells[3]._replace(crashes=140)
    alone = compatibility({"f": cells})
    assert alone.pairs[0].finding is Finding.INTERACTION
    quiet = [Cell(f"{v}", f"{b}", "", 10_000, 1e4, 30) for v in range(14) for b in range(14)]
    among = compatibility({"f": cells, "g": quiet})
    assert (among.pairs[0].version, among.pairs[0].level, among.pairs[0].factor) == ("2", "B", "f")
    assert among.pairs[0].finding is not Finding.INTERACTION


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.builds(
            lambda v, b, s, n, d, c: Cell(v, b, s, n, d, min(n, c)),
            st.sampled_from("123"), st.sampled_from(["A", "B", "\x00", "[red]", POOLED, ""]),
            st.sampled_from(["x", ""]),
            st.integers(1, 10_000), st.floats(1e-5, 1e6), st.integers(0, 500),
        ),
        max_size=30,
    ),
    st.randoms(),
)  # fmt: skip
def test_any_cells_give_a_matrix_whatever_their_order(cells: list[Cell], order: Any) -> None:
    matrix = compatibility({"f": cells})
    assert sum(p.crashes for p in matrix.pairs) <= sum(c.crashes for c in cells)
    for pair in matrix.pairs:
        assert pair.log10_beyond <= pair.log10_worse
        assert pair.finding is Finding.NONE or pair.expected is not None
    shuffled = list(cells)
    order.shuffle(shuffled)
    again = compatibility({"f": shuffled})
    assert [(p.version, p.level, p.crashes, p.finding) for p in again.pairs if p.finding is not Finding.NONE] == [
        (p.version, p.level, p.crashes, p.finding) for p in matrix.pairs if p.finding is not Finding.NONE
    ]


@pytest.mark.parametrize(
    "cell",
    [
        Cell("1", "A", "", -1, 1.0, 0),
        Cell("1", "A", "", 1, -1.0, 0),
        Cell("1", "A", "", 1, float("nan"), 0),
        Cell("1", "A", "", 1, 1.0, -1),
        Cell("1", "A", "", 1, 0.0, 1),
        Cell("1", "A", "", 1, 1.0, 2),
    ],
)
def test_impossible_cells_are_refused(cell: Cell) -> None:
    with pytest.raises(ValueError, match=r"must be|needs"):
        compatibility({"f": [cell]})


def test_impossible_limits_are_refused() -> None:
    for options in ({"tolerated_ratio": 0.0}, {"false_share": 0.0}, {"false_share": 1.0}):
        with pytest.raises(ValueError, match=r"give e\.g"):
            compatibility({}, **options)
