"""New signatures: new to whom, and evidence from new ones alone."""

import doctest
import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import detectors.novelty
from detectors.novelty import KnownSignatures, Novelty
from detectors.tenants import NOBODY, ROWS

OLD, NEW = np.zeros((1, ROWS), dtype=bool), np.ones((1, ROWS), dtype=bool)


def one(novelty: Novelty, arm: bool, new: bool, group: int = 0, text: str = "bad.sys|0x50") -> float:
    """Score one crash at a share of 0.1."""
    path = novelty.update(np.array([arm]), np.full((1, ROWS), 0.1), np.array([group]), NEW if new else OLD, [text])
    assert path[-1].tobytes() == novelty.log_evidence.tobytes()
    return float(path[-1, NOBODY])


def test_a_signature_is_new_to_whom_nobody_else_has_seen_it_before_the_rollout() -> None:
    known = KnownSignatures()
    known.note("a", 3, 1000)
    assert known.new_to("a", 1000).all()
    assert known.new_to("b", 5000).all()
    alone = known.new_to("a", 1001)
    assert (alone[3], alone[4], alone[NOBODY]) == (True, False, False)
    known.note("a", 4, 900)
    assert not known.new_to("a", 1001).any()
    assert known.new_to("a", 901)[4]
    known.note("a", 4, 5000)
    assert not known.new_to("a", 1001).any()


def test_a_tenant_that_invents_signatures_pushes_out_nothing_that_two_have_seen() -> None:
    known = KnownSignatures(signatures_max=100)
    for group in (1, 2):
        known.note("nic.sys|0xd1", group, 10)
    for number in range(1000):
        known.note(f"invented{number}", 9, 20)
    assert not known.new_to("nic.sys|0xd1", 100).any()
    assert len(known.snapshot()) == 100
    assert known.new_to("invented0", 100).all()
    assert not known.new_to("invented999", 100)[NOBODY]


def test_known_crashes_move_nothing_and_new_ones_do() -> None:
    novelty = Novelty(1.5)
    for _ in range(100):
        assert one(novelty, True, new=False) == 0.0
    reached = [number for number in range(20) if one(novelty, True, new=True, group=number % 5) >= math.log(1e6)]
    assert reached[0] < 10
    assert novelty.top() == [("bad.sys|0x50", 20, 0)]


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 3)), max_size=30), st.integers(0, 30))
def test_restored_ones_go_on_bit_for_bit(crashes: list[tuple[bool, bool, int]], cut: int) -> None:
    through, part = Novelty(1.5), Novelty(1.5)
    known = KnownSignatures()
    for index, (arm, new, group) in enumerate(crashes):
        known.note(f"s{group}{arm}", group, index)
        if index == cut:
            part = Novelty.restore(part.snapshot())
        assert one(through, arm, new, group) == one(part, arm, new, group)
    assert through.snapshot() == part.snapshot()
    assert KnownSignatures.restore(known.snapshot()).snapshot() == known.snapshot()


def test_a_batch_gives_the_evidence_after_each_of_its_crashes() -> None:
    batch, single = Novelty(1.5), Novelty(1.5)
    arms, new = np.array([True, False, True, True]), np.array([OLD[0], NEW[0], NEW[0], OLD[0]])
    path = batch.update(arms, np.full((4, ROWS), 0.1), np.arange(4), new, ["a", "b", "b", "a"])
    rows = [one(single, bool(arms[i]), bool(new[i, 0]), i) for i in range(4)]
    assert path[:, NOBODY].tolist() == rows
    assert batch.top() == [("b", 1, 1)]


def test_the_examples_hold() -> None:
    assert doctest.testmod(detectors.novelty).failed == 0
