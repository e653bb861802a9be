"""The most frequent stack of a signature: found whatever else comes, in bounded memory, the same after a restart."""

from collections import Counter
from unittest.mock import patch

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.stacks import STACKS_MAX, TENANTS_MAX, Seen, Stack, StackTally
from detectors.tally import CrashTally
from detectors.verdict import Evidence
from ingest.events import encoder
from ingest.windows import FirstCrash
from support.cohorts import CELLS, T0, Harness, crash, crashes, rollout, steady, step, window

FAULT = ["csagent.sys+0xe14ed", "csagent.sys+0xb5d9e"]
SIGNATURE = "csagent.sys|0x50"


def exposed(tally: CrashTally, frames: list[str], tenant: int = 0, signature: str = SIGNATURE) -> None:
    tally.add(crash(T0, 1, tenant=tenant, frames=frames, signature=signature), True, 256)


def test_the_most_frequent_frames_come_with_the_devices_that_had_them() -> None:
    tally = CrashTally()
    for number in range(23):
        exposed(tally, FAULT if number < 17 else [f"csagent.sys+{number:#x}"] if number < 20 else [], number % 5)
    tally.add(crash(T0, 0, frames=["csagent.sys+0x1"]), False, 256)
    assert tally.top_signatures() == [(SIGNATURE, 23)]
    assert tally.top_stacks() == [Stack(signature=SIGNATURE, frames=FAULT, devices=17, tenants=5)]


def test_stacks_as_frequent_as_each_other_are_told_by_name() -> None:
    tallies = [StackTally(), StackTally()]
    stacks = [["b.sys+0x2"], ["b.sys+0x1"], ["b.sys+0x1", "b.sys+0x2"]]
    for tally, order in zip(tallies, (stacks, stacks[::-1]), strict=True):
        for frames in order:
            tally.add("b.sys|0x1", frames, 1)
    assert tallies[0].most(["b.sys|0x1"]) == tallies[1].most(["b.sys|0x1"])
    assert tallies[0].most(["b.sys|0x1"])[0].frames == ["b.sys+0x1"]


def test_a_signature_whose_reports_had_no_frames_has_no_stack() -> None:
    tally = CrashTally()
    exposed(tally, [], signature="bare.sys|0x50")
    exposed(tally, FAULT)
    assert [one.signature for one in tally.top_stacks()] == [SIGNATURE]


def test_ten_thousand_invented_stacks_do_not_push_out_the_real_one_and_it_is_said_that_counts_may_be_low() -> None:
    """Invented ones come first and in between, all different; one crash in ten is the real fault."""
    tally = CrashTally()
    for number in range(10_000):
        exposed(tally, [f"fake.sys+{number:#x}"], number % 3)
        if number >= 500 and number % 9 == 0:
            exposed(tally, FAULT, number)
        assert tally.stacks.held == sum(map(len, tally.stacks.seen.values())) <= STACKS_MAX
    (found,) = tally.top_stacks()
    assert (found.frames, found.exact, found.tenants) == (FAULT, False, TENANTS_MAX)
    real = len([number for number in range(500, 10_000) if number % 9 == 0])
    assert real - 10_000 / STACKS_MAX - 5 <= found.devices <= real


NAMES = st.integers(0, 12).map(lambda number: [f"m.sys+{number:#x}"])
FEW = 4


@settings(max_examples=200, deadline=None)
@given(given_crashes=st.lists(st.tuples(st.sampled_from("ab"), NAMES, st.integers(0, 50)), max_size=80))
def test_no_count_is_too_high_or_lower_than_it_says(given_crashes: list[tuple[str, list[str], int]]) -> None:
    tally, true = StackTally(), Counter[tuple[str, str]]()
    with patch("detectors.stacks.STACKS_MAX", FEW):
        for signature, frames, tenant in given_crashes:
            tally.add(signature, frames, tenant)
            true[signature, frames[0]] += 1
    assert tally.held == sum(map(len, tally.seen.values())) <= FEW
    assert tally.missed <= len(given_crashes) / (FEW + 1)
    for (signature, frame), count in true.items():
        seen = tally.seen.get(signature, {}).get(frame, Seen())
        assert count - tally.missed <= seen.devices <= count
        assert len(seen.tenants) <= min(TENANTS_MAX, count)
    for one in tally.most(["a", "b"]):
        of_it = [count for (signature, _), count in true.items() if signature == one.signature]
        assert not one.exact or one.devices == max(of_it)
    again = msgspec.json.decode(encoder.encode(tally), type=StackTally)
    assert encoder.encode(again) == encoder.encode(tally)


def test_a_tally_of_the_release_before_is_read_and_goes_on() -> None:
    old = b'{"exposed":2,"control":0,"unscored":0,"first_ms":1,"tenants":[1],"signatures":{"a.sys|0x50":2},"cells":{}}'
    tally = msgspec.json.decode(old, type=CrashTally)
    assert tally.top_stacks() == []
    exposed(tally, ["a.sys+0x1"], signature="a.sys|0x50")
    assert [(one.devices, one.exact) for one in tally.top_stacks()] == [(1, True)]


def with_frames(count: int, frames: list[str], number: int, since_ms: int) -> list[FirstCrash]:
    (said,) = crashes(count, number, since_ms).windows
    return [msgspec.structs.replace(one, frames=frames) for one in said.crashes]


def test_the_verdict_tells_them_and_a_restart_goes_on_byte_for_byte() -> None:
    through, restarted = Harness(partitions=1), Harness(partitions=1, snapshot_seconds=0)
    steps, total = [steady()], 0
    for turn, frames in enumerate((FAULT, ["csagent.sys+0x1"], FAULT, [])):
        since_ms = T0 + 250 * (turn + 1)
        total += 4 + turn
        rows = with_frames(4 + turn, frames, total, since_ms)
        said = window(crashes=rows, crash_total=total, exposed_total=1000)
        steps.append(step(0, since_ms, since_ms + 250, said))
    for harness in (through, restarted):
        harness.declare(rollout())
    for now_ms, one in enumerate(steps):
        through.feed([one])
        restarted.feed([one])
        restarted.snapshot(now_ms)
        restarted.restart()
    assert through.verdicts == restarted.verdicts
    evidence: Evidence = through.latest().evidence
    assert evidence.signatures == [(SIGNATURE, 22)]
    assert evidence.stacks == [Stack(signature=SIGNATURE, frames=FAULT, devices=10, tenants=6)]
    assert CELLS[0] in [cell for cell, *_ in evidence.cells]


def test_frames_are_no_evidence() -> None:
    """The same crashes with frames and without give the same verdict, but for the stacks it tells."""
    said = []
    for frames in (FAULT, []):
        harness = Harness(partitions=1)
        harness.declare(rollout())
        rows = with_frames(30, frames, 1, T0 + 250)
        harness.feed([steady(), step(0, T0 + 250, T0 + 500, window(crashes=rows, crash_total=30, exposed_total=1000))])
        latest = harness.latest()
        latest.evidence.stacks = []
        said.append(latest)
    assert said[0] == said[1]
