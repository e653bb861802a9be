"""One tenant's own evidence: right as often as it must be, and not a number of anybody else adds to it."""

import doctest
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import detectors.own
from detectors.own import SEVERAL, OwnEvidence

TOLERATED = 1.5


def test_the_doctest_holds() -> None:
    assert doctest.testmod(detectors.own).failed == 0


def crashed(own: OwnEvidence, group: int, tenant: int, exposed: int = 10, share: float = 0.1) -> None:
    one = np.full(exposed, group)
    own.update(np.ones(exposed, dtype=bool), np.full(exposed, share), one, np.full(exposed, tenant))


def test_nobody_speaks_before_every_live_partition_has_said_whose_groups_are_whose() -> None:
    own = OwnEvidence(TOLERATED)
    crashed(own, 3, 0xA)
    assert own.words([True, True]) == []
    own.owned(0, [(3, 0xA)])
    assert own.words([True, True]) == []
    assert [word.tenant for word in own.words([True, False])] == [0xA]
    own.owned(1, [(7, 0xB)])
    assert [word.tenant for word in own.words([True, True])] == [0xA]


def test_two_tenants_of_one_group_in_different_partitions_are_several() -> None:
    own = OwnEvidence(TOLERATED)
    own.owned(0, [(3, 0xA)])
    own.owned(1, [(3, 0xB)])
    crashed(own, 3, 0xA)
    assert own.words([True, True]) == []


@pytest.mark.parametrize("second", [SEVERAL, 0xB])
def test_a_group_never_speaks_again_once_a_second_tenant_was_in_it(second: int) -> None:
    """What was scored meanwhile was scored by shares that were not its own."""
    own = OwnEvidence(TOLERATED)
    own.owned(0, [(3, 0xA)])
    crashed(own, 3, 0xA)
    assert own.words([True])
    own.owned(0, [(3, second)])
    own.owned(0, [(3, 0xA)])
    assert own.words([True]) == []


def test_a_crash_of_another_tenant_silences_the_group() -> None:
    own = OwnEvidence(TOLERATED)
    own.owned(0, [(3, 0xA)])
    crashed(own, 3, 0xA)
    crashed(own, 3, 0xB, exposed=1)
    assert own.words([True]) == []


def test_a_group_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="tenant group 32"):
        OwnEvidence(TOLERATED).owned(0, [(32, 0xA)])


events = st.lists(
    st.tuples(st.booleans(), st.floats(0.0, 1.0), st.sampled_from([0, 3, 31]), st.sampled_from([0xA, 0xB])), max_size=30
)
words_said = st.lists(st.tuples(st.sampled_from([0, 3, 31]), st.sampled_from([SEVERAL, 0xA, 0xB])), max_size=3)


@given(before=events, after=events, first=words_said, second=words_said)
def test_a_restart_shows_nowhere(
    before: list[tuple[bool, float, int, int]],
    after: list[tuple[bool, float, int, int]],
    first: list[tuple[int, int]],
    second: list[tuple[int, int]],
) -> None:
    own = OwnEvidence(TOLERATED)
    own.owned(0, first)
    _feed(own, before)
    again = OwnEvidence.restore(own.snapshot(), TOLERATED)
    for one in (own, again):
        one.owned(1, second)
        _feed(one, after)
    assert again.snapshot() == own.snapshot()
    for live in ([True, True], [True, False], [False, True]):
        assert again.words(live) == own.words(live)


def _feed(own: OwnEvidence, told: list[tuple[bool, float, int, int]]) -> None:
    if told:
        x, share, group, tenant = zip(*told, strict=True)
        own.update(np.array(x, dtype=bool), np.array(share), np.array(group), np.array(tenant))


@given(others=events, share=st.floats(0.01, 0.9))
def test_what_other_groups_say_moves_nothing(others: list[tuple[bool, float, int, int]], share: float) -> None:
    alone, among = OwnEvidence(TOLERATED), OwnEvidence(TOLERATED)
    for own in (alone, among):
        own.owned(0, [(9, 0xC)])
    crashed(alone, 9, 0xC, share=share)
    crashed(among, 9, 0xC, exposed=5, share=share)
    _feed(among, others)
    crashed(among, 9, 0xC, exposed=5, share=share)
    assert among.words([True])[-1:] == alone.words([True])


@pytest.mark.parametrize("ratio", [1.0, 1.5])
def test_a_tenant_whose_devices_crash_as_ever_is_wrongly_spoken_for_in_at_most_alpha(ratio: float) -> None:
    """Of 2,000 tenants at alpha 5 % at most 100 are expected, and 131 come in one of a thousand such tests."""
    rng, alpha, wrong = np.random.default_rng(20240719), 0.05, 0
    for _ in range(2000):
        share = rng.uniform(0.02, 0.6, size=200)
        odds = ratio * share / (ratio * share + 1.0 - share)
        own = OwnEvidence(TOLERATED)
        own.owned(0, [(0, 0xA)])
        own.update(rng.random(200) < odds, share, np.zeros(200, dtype=np.int64), np.full(200, 0xA))
        wrong += any(word.log_evidence_max >= -math.log(alpha) for word in own.words([True]))
    assert wrong <= 131
