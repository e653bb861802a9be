"""Frames of a crash report on their way into a cohort window: a few, bounded, printable, whatever the report holds."""

from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.events import Batch, Frame, encoder
from ingest.signature import FRAME_CHARS_MAX, FRAMES_HASHED_MAX
from ingest.windows import FirstCrash
from support.grouping_bench import Bench
from support.world import NEW, T0

SECOND = 1000
# What the wire lets through in a frame.
FRAMES = st.lists(
    st.builds(Frame, module=st.text(min_size=1, max_size=128), offset=st.integers(0, 2**53 - 1)), max_size=64
)


def first_crashes(bench: Bench, frames: list[list[Frame]]) -> list[FirstCrash]:
    """Return the first crashes of devices that report these frames, one a device."""
    bench.give("activity", bench.notice())
    bench.hear([bench.world.offered(device, T0) for device in range(len(frames))], T0)
    bench.tick(T0 + SECOND)
    reports = [
        bench.world.bsod(device, T0 + 2 * SECOND, NEW, module="", frames=each) for device, each in enumerate(frames)
    ]
    bench.give("crashes", encoder.encode(Batch(gateway="g", received_at_ms=T0 + 3 * SECOND, reports=[*reports])))
    (step,) = bench.tick(T0 + 4 * SECOND)
    return step.windows[0].crashes


def test_each_crash_tells_its_own_places_though_signatures_are_alike() -> None:
    stacks = [
        [Frame(module="ntoskrnl.exe", offset=0x40F4E1), Frame(module="CSAgent.sys", offset=0xE14ED)],
        [Frame(module="csagent.sys", offset=0xE1500), Frame(module="csagent.sys", offset=0xB5D9E)],
        [],
    ]
    told = first_crashes(Bench(), stacks)
    assert [one.frames for one in told] == [
        ["csagent.sys+0xe14ed"],
        ["csagent.sys+0xe1500", "csagent.sys+0xb5d9e"],
        [],
    ]
    assert told[0].signature == told[1].signature == "csagent.sys|0x50"


@settings(max_examples=40, deadline=None)
@given(st.lists(FRAMES, min_size=1, max_size=6))
def test_whatever_a_report_holds_frames_are_few_bounded_and_printable(frames: list[list[Frame]]) -> None:
    told = first_crashes(Bench(), frames)
    assert len(told) == len(frames)
    for one in told:
        assert len(one.frames) <= FRAMES_HASHED_MAX
        for place in one.frames:
            assert place.isprintable()
            assert 0 < len(place) <= FRAME_CHARS_MAX
