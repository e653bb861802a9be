"""Closed testing: against brute force, and what is said of suspects whose evidence is given."""

import doctest
import itertools
import math
from collections.abc import Sequence

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import detectors.attribution
from detectors.attribution import NAMED_MAX, Attributor, AttributorState, Guilt, Suspect, closed_log_evidence

LOGS = st.lists(st.floats(-60, 60) | st.sampled_from([0.0, 1.0, -math.inf]), min_size=1, max_size=7)


def _brute_force(logs: Sequence[float]) -> list[float]:
    """Return the least mean over all sets that hold each hypothesis, by trying all of them."""
    values = np.exp(logs)
    numbers = range(len(logs))
    sets = [one for size in numbers for one in itertools.combinations(numbers, size + 1)]
    return [min(float(np.mean(values[list(one)])) for one in sets if number in one) for number in numbers]


def _suspect(rollout: str, conditional: float, marginal: float, **more: object) -> Suspect:
    values = {"rollout": rollout, "alpha": 1e-6, "log_conditional": conditional, "log_marginal": marginal}
    return msgspec.convert(values | more, Suspect)


@given(LOGS)
def test_the_short_cut_gives_what_all_sets_give(logs: list[float]) -> None:
    assert np.exp(closed_log_evidence(logs)) == pytest.approx(_brute_force(logs), rel=1e-9, abs=1e-30)


@given(st.lists(st.lists(st.floats(-500, 500), min_size=4, max_size=4), min_size=1, max_size=5))
def test_many_rows_give_what_each_gives_alone(rows: list[list[float]]) -> None:
    assert closed_log_evidence(rows).tolist() == [closed_log_evidence(row).tolist() for row in rows]


@given(LOGS)
def test_closing_only_lowers_keeps_the_order_and_pays_at_most_the_number(logs: list[float]) -> None:
    values = np.asarray(logs)
    closed = closed_log_evidence(logs)
    assert (closed <= values).all()
    # Each set's mean is at least the hypothesis' own e-value divided by how many there are.
    assert (closed >= values - math.log(len(logs)) - 1e-9).all()
    order = np.argsort(values, kind="stable")
    assert all(one <= other + 1e-9 for one, other in itertools.pairwise(closed[order].tolist()))


def test_evidence_far_beyond_what_floats_hold_stays_in_order() -> None:
    closed = closed_log_evidence([5000.0, 4000.0, -5000.0])
    assert closed == pytest.approx([5000.0 - math.log(3), 4000.0 - math.log(2), -5000.0])


def test_no_evidence_is_none() -> None:
    assert closed_log_evidence([]).shape == (0,)
    assert Attributor().update([], {}) == []
    for bad in (math.nan, math.inf):
        with pytest.raises(ValueError, match="finite"):
            closed_log_evidence([0.0, bad])


def test_the_guilty_is_named_at_the_limit_and_not_below() -> None:
    needed = math.log(1e6)
    for short, guilt in ((0.0, Guilt.GUILTY), (1e-6, Guilt.UNCLEAR)):
        (finding,) = Attributor().update([_suspect("r", needed - short, needed)], {})
        assert finding.guilt is guilt
    # Beside one with an e-value of 0, twice as much is needed.
    rival = _suspect("s", -1000.0, 0.0)
    assert Attributor().update([_suspect("r", needed, needed), rival], {})[0].guilt is Guilt.UNCLEAR
    enough = _suspect("r", needed + math.log(2) + 1e-9, needed)
    assert Attributor().update([enough, rival], {})[0].guilt is Guilt.GUILTY


def test_each_rollout_is_named_by_its_own_alpha() -> None:
    careful = _suspect("careful", 20.0, 20.0, alpha=1e-12)
    usual = _suspect("usual", 20.0, 20.0)
    assert [one.guilt for one in Attributor().update([careful, usual], {})] == [Guilt.UNCLEAR, Guilt.GUILTY]


def test_those_that_always_travel_together_are_held_as_a_group_and_the_third_is_apart() -> None:
    suspects = [
        _suspect("a", 0.0, 30.0, devices=1000, exposed_crashes=40),
        _suspect("b", 0.0, 30.0, devices=1000, exposed_crashes=40, telling=2),
        _suspect("c", 0.0, 12.0, devices=1000),
        _suspect("d", -1.0, 2.0, devices=1000),
    ]
    found = Attributor().update(suspects, {("b", "a"): 990, ("a", "c"): 400, ("a", "d"): 1000})
    assert [one.guilt for one in found] == [Guilt.INSEPARABLE, Guilt.INSEPARABLE, Guilt.UNCLEAR, Guilt.INNOCENT]
    assert [one.held for one in found] == [True, True, True, False]
    assert found[0].group == found[1].group == ("a", "b")
    assert found[1].text == (
        "b travels together with a: only 2 of 40 crashes on it could tell. Taken alone its evidence is 10^13.0, among "
        "devices alike in their other updates 10^0.0."
    )


def test_groups_are_joined_over_common_members() -> None:
    suspects = [_suspect(name, 0.0, 30.0, devices=100) for name in "abcd"]
    found = Attributor().update(suspects, {("a", "b"): 98, ("c", "d"): 98, ("d", "b"): 97})
    assert {one.group for one in found} == {("a", "b", "c", "d")}


def test_a_rider_is_cleared_only_by_both_a_low_ratio_and_evidence_that_does_not_rise() -> None:
    guilty = _suspect("a", 30.0, 50.0)
    for more, guilt in (
        ({"ratio_high": 2.0, "marginal_low": 2.1}, Guilt.INNOCENT),
        ({"ratio_high": 2.1, "marginal_low": 2.1}, Guilt.UNCLEAR),
        ({"marginal_low": 50.0}, Guilt.UNCLEAR),
    ):
        assert Attributor().update([guilty, _suspect("b", 0.0, 20.0, **more)], {})[1].guilt is guilt
    rising = _suspect("b", math.log(20.0), 20.0, ratio_high=2.0, marginal_low=9.0)
    found = Attributor().update([guilty, rising], {})[1]
    assert found.guilt is Guilt.UNCLEAR
    cleared = Attributor().update([guilty, _suspect("b", 0.0, 20.0, ratio_high=2.0, marginal_low=9.0)], {})[1]
    assert cleared.text == (
        "b is innocent so far: its crashes look 9 times as frequent or more, but among devices alike in their other "
        "updates its own ratio is at most 2; a is guilty."
    )


def test_evidence_that_only_splitting_brings_to_light_holds() -> None:
    assert Attributor().update([_suspect("a", 8.0, 0.0)], {})[0].guilt is Guilt.UNCLEAR


def test_none_is_named_while_a_suspicious_rival_is_not_in_its_strata() -> None:
    unsplit = _suspect("a", 40.0, 50.0, unsplit=["b"])
    loud, quiet = _suspect("b", 0.0, 10.0), _suspect("b", 0.0, 1.0)
    attributor = Attributor()
    blocked = attributor.update([unsplit, loud], {})[0]
    assert blocked.guilt is Guilt.UNCLEAR
    assert "not split by b" in blocked.text
    assert attributor.update([unsplit, quiet], {})[0].guilt is Guilt.GUILTY


def test_modules_are_told_and_never_count() -> None:
    crashes = {"csagent.sys": 36, "ntoskrnl.exe": 4}
    suspects = [
        _suspect("content", 0.0, 30.0, devices=100, modules=crashes, own_modules=[]),
        _suspect("driver", 0.0, 30.0, devices=100, modules=crashes, own_modules=["csagent.sys"]),
    ]
    found = Attributor().update(suspects, {("content", "driver"): 100})
    assert {one.guilt for one in found} == {Guilt.INSEPARABLE}
    assert found[0].text.endswith("; 36 of 40 name csagent.sys.")
    assert found[1].text.endswith("; 36 of 40 name a module of its own product.")


def test_names_latch_survive_a_restart_and_are_forgotten_when_closed() -> None:
    attributor = Attributor(alpha_hold=1e-4)
    first = attributor.update([_suspect("a", 20.0, 20.0, exposed_crashes=1)], {})
    assert "is guilty" in first[0].text
    assert "1 crash on it" in first[0].text
    packed = msgspec.json.encode(attributor.snapshot())
    restored = Attributor.restore(msgspec.json.decode(packed, type=AttributorState))
    later = [_suspect("a", -5.0, 20.0), _suspect("b", 0.0, 9.0)]
    assert restored.update(later, {}) == attributor.update(later, {})
    assert restored.update(later, {})[0] == first[0]
    restored.close("a")
    assert restored.update(later, {})[0].guilt is Guilt.UNCLEAR


def test_names_are_bounded() -> None:
    attributor = Attributor()
    for number in range(NAMED_MAX + 5):
        attributor.update([_suspect(f"r{number}", 20.0, 20.0)], {})
    assert len(attributor.snapshot().named) == NAMED_MAX


@pytest.mark.parametrize(
    "suspects",
    [
        [_suspect("a", 0.0, 0.0), _suspect("a", 1.0, 0.0)],
        [_suspect("a", 0.0, math.nan)],
        [_suspect("a", 0.0, 0.0, alpha=0.0)],
        [_suspect(f"r{number}", 0.0, 0.0) for number in range(257)],
    ],
)
def test_suspects_that_are_none_are_refused(suspects: list[Suspect]) -> None:
    with pytest.raises(ValueError, match=r"pass|must"):
        Attributor().update(suspects, {})
    with pytest.raises(ValueError, match="alpha_hold"):
        Attributor(alpha_hold=0.5)


def test_the_example_holds() -> None:
    assert doctest.testmod(detectors.attribution).failed == 0
