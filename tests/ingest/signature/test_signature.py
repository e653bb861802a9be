"""A crash's names: what belongs together gets the same name, what does not gets another, at each grain."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.signature import (
    DELIBERATE,
    FRAME_CHARS_MAX,
    FRAMES_HASHED_MAX,
    GRAINS,
    UNKNOWN,
    Frame,
    signature_of,
    telling_frames,
)

JULY_19 = (Frame("ntoskrnl.exe", 0x40F4E1), Frame("csagent.sys", 0xE14ED), Frame("csagent.sys", 0xB71B6))


def test_july_19_has_its_known_signature() -> None:
    signature = signature_of(0x50, [0x9C, 0, 0xFFFFF8048B6614ED, 0], JULY_19, "csagent.sys")
    assert signature.module == "csagent.sys"
    assert signature.module_bugcheck == "csagent.sys|0x50"
    # Golden: a change of the hashed text would part every stored group from its past.
    assert signature.frames == "csagent.sys|0x50|csagent.sys+0xe14ed|63408b609980c0f8"
    assert not signature.deliberate


def test_the_spelling_of_code_and_module_makes_no_difference() -> None:
    plain = signature_of(0x7E, [5, 0, 0, 0], JULY_19, "csagent.sys")
    for code, module in (
        (0x1000_007E, "CSAgent.sys"),
        (0x7E, "C:\\Windows\\System32\\drivers\\CrowdStrike\\CSAGENT.SYS"),
    ):
        assert signature_of(code, [5, 0, 0, 0], JULY_19, module) == signature_of(0x7E, [5, 0, 0, 0], JULY_19, module)
        assert signature_of(code, [5, 0, 0, 0], JULY_19, module).frames == plain.frames


def test_hexadecimal_parameters_of_the_wire_count_like_numbers() -> None:
    assert signature_of(0x1A, ["0x41792", "0x0"], JULY_19) == signature_of(0x1A, [0x41792, 0], JULY_19)
    assert signature_of(0x1A, ["0x41792"], JULY_19).frames != signature_of(0x1A, ["0x3f"], JULY_19).frames
    assert signature_of(0x1A, [], JULY_19) == signature_of(0x1A, [0], JULY_19)
    assert signature_of(0x7E, ["0xffffffffc0000005"], JULY_19) == signature_of(0x7E, [0xC0000005], JULY_19)


def test_addresses_in_parameters_do_not_spray_a_group() -> None:
    one = signature_of(0x50, [0x9C, 0, 0xFFFFF8048B6614ED, 0], JULY_19)
    other = signature_of(0x50, [0x1234, 0, 0xFFFFF801112614ED, 0], JULY_19)
    assert one == other


def test_the_kernels_offsets_do_not_spray_a_group_over_windows_builds() -> None:
    other_build = (Frame("ntoskrnl.exe", 0x3FD0D8), *JULY_19[1:], Frame("wdf01000.sys", 0x55))
    assert signature_of(0x50, [], JULY_19).frames == signature_of(0x50, [], other_build).frames


def test_another_place_in_the_same_driver_is_another_group_only_at_the_finest_grain() -> None:
    elsewhere = (Frame("csagent.sys", 0x1000), *JULY_19)
    one, other = signature_of(0x50, [], JULY_19), signature_of(0x50, [], elsewhere)
    assert one.module_bugcheck == other.module_bugcheck
    assert one.frames != other.frames


def test_frames_alone_name_the_first_driver_that_is_neither_kernel_nor_framework() -> None:
    signature = signature_of(0xD1, [], (Frame("nt", 1), Frame("NDIS.sys", 2), Frame("acme.sys", 3), Frame("b.sys", 4)))
    assert (signature.module_bugcheck, signature.rule) == ("acme.sys|0xd1", "first_frame")


def test_the_kernels_other_names_are_one_module() -> None:
    names = {signature_of(0x1A, [], [Frame(name, 0x99)]).module for name in ("nt", "ntkrnlmp.exe", "NTOSKRNL.EXE")}
    assert names == {"ntoskrnl.exe"}


def test_a_stated_kernel_does_not_hide_the_driver_in_the_frames() -> None:
    assert signature_of(0x50, [], JULY_19, "ntoskrnl.exe").module == "csagent.sys"
    only_kernel = signature_of(0x50, [], [], "ntoskrnl.exe")
    assert (only_kernel.module, only_kernel.rule) == ("ntoskrnl.exe", "kernel")


@pytest.mark.parametrize("code", [0xE2, 0x1C8, 0xDEADDEAD])
def test_what_people_do_is_set_apart(code: int) -> None:
    signature = signature_of(code, [], JULY_19, "csagent.sys")
    assert signature.deliberate
    assert signature.module == DELIBERATE
    assert signature.module_bugcheck == f"{DELIBERATE}|{code:#x}"


def test_a_crash_of_which_nothing_is_known_has_a_name_no_driver_can_take() -> None:
    nothing = signature_of(0, [], [])
    assert (nothing.module, nothing.module_bugcheck, nothing.frames) == (UNKNOWN, "<unknown>|0x0", "<unknown>|0x0|-")
    assert any("loss of power" in note for note in nothing.notes)
    for forged in (UNKNOWN, DELIBERATE, "a|0x50", "csagent.sys|0x50"):
        assert signature_of(0x50, [], [], forged).module == UNKNOWN


def test_frames_with_unusable_names_count_for_nothing() -> None:
    bad = [Frame("a|b.sys", 1), Frame("", 2), Frame("x" * 500, 3)]
    assert signature_of(0x50, [], bad) == signature_of(0x50, [], [])
    assert signature_of(0x50, [], [*bad, *JULY_19]) == signature_of(0x50, [], JULY_19)


ANY_FRAMES = st.lists(st.builds(Frame, st.text(max_size=140), st.integers(0, 2**64)), max_size=80)


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 2**64 - 1), max_size=6), ANY_FRAMES, st.text(max_size=1100))
def test_any_crash_gets_bounded_printable_names_that_nest(
    code: int, parameters: Sequence[int], frames: Sequence[Frame], stated: str
) -> None:
    signature = signature_of(code, parameters, frames, stated)
    module, module_bugcheck, finest = (signature.text(grain) for grain in GRAINS)
    assert module_bugcheck.startswith(module + "|")
    assert finest.startswith(module_bugcheck + "|")
    assert finest.isprintable()
    assert len(finest) < 330
    assert signature == signature_of(code, parameters, frames, stated)
    assert signature_of(signature.bugcheck, parameters, frames, stated) == signature


def test_the_places_told_are_those_that_the_finest_grain_is_made_of() -> None:
    assert telling_frames(JULY_19) == ["csagent.sys+0xe14ed", "csagent.sys+0xb71b6"]
    assert telling_frames([Frame("nt", 1), Frame("NDIS.sys", 2)]) == ["ntoskrnl.exe+0x1", "ndis.sys+0x2"]
    assert telling_frames([Frame("A.sys", n) for n in (7, 7, 7, 8, 9, 10)]) == ["a.sys+0x7", "a.sys+0x8", "a.sys+0x9"]
    assert telling_frames([]) == telling_frames([Frame("a|b.sys", 1)]) == []


def test_of_a_place_with_a_long_name_the_offset_stays() -> None:
    (told,) = telling_frames([Frame("x" * 120 + ".sys", 2**64 - 1)])
    assert len(told) == FRAME_CHARS_MAX
    assert told.endswith("x~+0xffffffffffffffff")


@given(ANY_FRAMES)
def test_any_frames_are_told_bounded_and_printable(frames: Sequence[Frame]) -> None:
    told = telling_frames(frames)
    assert len(told) <= FRAMES_HASHED_MAX
    assert all(place.isprintable() and 0 < len(place) <= FRAME_CHARS_MAX for place in told)
    finest = signature_of(0x50, [], frames).frames.split("|")[2]
    assert (finest == "-") == (not told)
    if told and "~" not in told[0]:
        assert finest == told[0]
