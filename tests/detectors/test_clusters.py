"""Groups of near-duplicate signatures: one bug under many names is one group, hostile names break nothing."""

import doctest
import itertools
import random
from collections import Counter

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors import clusters
from detectors.clusters import NAME_CHARS_MAX, SIGNATURES_MAX, SignatureText, clean, group_signatures

MODULES = (
    "csagent", "nvlddmkm", "tcpip", "amdppm", "dxgkrnl", "ntfs", "wdf01000", "storport", "netwtw10", "igdkmd64", "klif",
    "epfwwfp", "symevnt", "sentinelmonitor", "fltmgr", "volsnap", "usbxhci", "hidclass",
)  # fmt: skip


def sprayed(bugs: int, names: int, seed: int) -> tuple[list[SignatureText], dict[str, int]]:
    """Return signatures of so many bugs, every other one under several names as offsets move; and the truth."""
    draw, made, truth = random.Random(seed), [], {}
    for bug in range(bugs):
        module, bugcheck = draw.choice(MODULES), hex(draw.choice([0x50, 0x7E, 0xD1, 0x116, 0xA, 0x3B, 0x133, 0x139]))
        stack = [draw.choice([module, module, "ntoskrnl", draw.choice(MODULES)]) for _ in range(draw.randint(3, 8))]
        offsets = [draw.randrange(0x1000, 0xFFFFF) for _ in stack]
        for number in range(names if bug % 2 else 1):
            moved = [offset + (draw.randrange(16, 4096) if number and draw.random() < 0.6 else 0) for offset in offsets]
            frames = tuple(f"{one}.sys+{offset:#x}" for one, offset in zip(stack, moved, strict=True))
            name = f"b{bug}-{number}"
            truth[name] = bug
            made.append(
                SignatureText(
                    name=name, module=f"{module}.sys", bugcheck=bugcheck, devices=draw.randrange(1000),
                    frames=frames[:-1] if number and draw.random() < 0.3 else frames,
                )
            )  # fmt: skip
    return made, truth


def test_the_doctests_hold() -> None:
    assert doctest.testmod(clusters).failed == 0


@pytest.mark.parametrize("seed", [1, 2])
def test_sprayed_bugs_are_found_again(seed: int) -> None:
    signatures, truth = sprayed(50, 4, seed)
    found = group_signatures(signatures)
    pairs = [pair for group in found.groups for pair in itertools.combinations(group.members, 2)]
    right = sum(truth[a.name] == truth[b.name] for a, b in pairs)
    wanted = sum(count * (count - 1) // 2 for count in Counter(truth.values()).values())
    assert right / len(pairs) > 0.7, "precision over pairs"
    assert right / wanted > 0.7, "recall over pairs"


def test_every_name_is_in_one_group_or_alone() -> None:
    signatures, _ = sprayed(40, 3, 5)
    found = group_signatures(signatures)
    names = [member.name for group in found.groups for member in group.members] + found.alone
    assert sorted(names) == sorted(one.name for one in signatures)
    assert found.left_out == 0


def test_a_bug_whose_offsets_moved_is_one_group_with_the_most_seen_name_first() -> None:
    old = SignatureText(
        name="old", module="csagent.sys", bugcheck="0x50", devices=40,
        frames=("csagent.sys+0xe14ed", "csagent.sys+0xe0f12", "fltmgr.sys+0x4a1c", "ntoskrnl.exe+0x3f2110"),
    )  # fmt: skip
    new = msgspec.structs.replace(
        old, name="new", devices=900,
        frames=("csagent.sys+0xe1a31", "csagent.sys+0xe1402", "fltmgr.sys+0x4a1c", "ntoskrnl.exe+0x3f2110"),
    )  # fmt: skip
    other = SignatureText(
        name="else", module="nvlddmkm.sys", bugcheck="0x116", frames=("dxgkrnl.sys+0x7f0",), devices=9
    )
    found = group_signatures([old, other, new])
    assert found.alone == ["else"]
    (group,) = found.groups
    assert (group.representative, group.devices) == ("new", 940)
    assert [member.name for member in group.members] == ["new", "old"]
    assert group.members[0].alike == 1.0
    assert group.members[1].parts[0] == 1.0
    assert "1 name is like new (csagent.sys 0x50): alike 0." in group.why
    assert "module 1.00, stop code 1.00, frames 0." in group.why


def test_the_limit_is_where_it_says() -> None:
    signatures, _ = sprayed(30, 4, 3)
    found = group_signatures(signatures)
    least = min(member.alike for group in found.groups for member in group.members)
    assert least >= clusters.ALIKE_LEAST
    strict = group_signatures(signatures, alike_least=0.95)
    assert all(member.alike >= 0.95 for group in strict.groups for member in group.members)
    assert len(strict.alone) > len(found.alone)


def test_the_order_does_not_matter() -> None:
    signatures, _ = sprayed(42, 4, 9)
    assert len(signatures) > 100, "so that dimensions are reduced"
    wanted = group_signatures(signatures)
    random.Random(0).shuffle(signatures)
    assert group_signatures(signatures) == wanted


hostile = st.text(max_size=40) | st.sampled_from(
    ["", "\x00", "\ud800", "\u202eexe.sys", "A" * 100_000, "[bold]", "%s%n", "a", "csagent.sys", "csagent.sys+0x1"]
)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.builds(
            SignatureText, name=hostile, module=hostile, bugcheck=hostile,
            frames=st.lists(hostile, max_size=12).map(tuple), devices=st.integers(0, 10**9),
        ),
        max_size=12, unique_by=lambda one: one.name,
    )
)  # fmt: skip
def test_hostile_text_breaks_nothing(signatures: list[SignatureText]) -> None:
    found = group_signatures(signatures)
    names = [member.name for group in found.groups for member in group.members] + found.alone
    assert sorted(names) == sorted(one.name for one in signatures)
    for group in found.groups:
        assert group.why.isprintable()
        assert len(group.why) < 1000
        assert all(0.0 <= member.alike <= 1.0 for member in group.members)
    assert group_signatures(signatures[::-1]) == found


def test_the_same_text_under_many_names_is_one_group() -> None:
    same = SignatureText(name="", module="x.sys", bugcheck="0x1", frames=("x.sys+0x1",))
    found = group_signatures([msgspec.structs.replace(same, name=f"n{i:03}", devices=i) for i in range(150)])
    assert [(group.representative, len(group.members)) for group in found.groups] == [("n149", 150)]
    assert found.alone == []


def test_nothing_and_one_are_no_group() -> None:
    assert group_signatures([]).groups == []
    assert group_signatures([SignatureText(name="one", module="x.sys")]).alone == ["one"]
    assert group_signatures([SignatureText(name="a"), SignatureText(name="b")]).alone == ["a", "b"]


def test_beyond_the_bound_the_least_seen_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert SIGNATURES_MAX == 4096
    monkeypatch.setattr(clusters, "SIGNATURES_MAX", 20)
    signatures = [SignatureText(name=f"n{i:02}", module=f"m{i}.sys", devices=i) for i in range(25)]
    found = group_signatures(signatures)
    names = {member.name for group in found.groups for member in group.members} | set(found.alone)
    assert found.left_out == 5
    assert names == {f"n{i:02}" for i in range(5, 25)}


def test_wrong_use_is_refused() -> None:
    with pytest.raises(ValueError, match="one name"):
        group_signatures([SignatureText(name="a"), SignatureText(name="a")])
    with pytest.raises(ValueError, match="outside 0 to 1"):
        group_signatures([], alike_least=1.1)


def test_cleaning_cuts_and_keeps_what_is_printable() -> None:
    assert clean("CSAgent\x00.SYS\u202e") == "csagent.sys"
    assert len(clean("x" * 10_000, NAME_CHARS_MAX)) == NAME_CHARS_MAX


def test_two_names_of_one_bug_are_joined_also_where_a_busy_signature_stands_near_them() -> None:
    """Among a handful of signatures density takes a shared stop code for nearness."""
    bug = SignatureText(
        name="contoso.sys|0x50", module="contoso.sys", bugcheck="0x50", frames=("contoso.sys+0x1f00",), devices=20
    )
    again = SignatureText(
        name="contoso.sys|0x7e", module="contoso.sys", bugcheck="0x7e", frames=("contoso.sys+0x1f00",), devices=9
    )
    busy = SignatureText(
        name="rtkvhd64.sys|0x50", module="rtkvhd64.sys", bugcheck="0x50", frames=("rtkvhd64.sys+0x9a31",), devices=400
    )
    other = SignatureText(
        name="disk.sys|0x7a", module="disk.sys", bugcheck="0x7a", frames=("disk.sys+0x77aa",), devices=50
    )
    found = group_signatures([bug, again, busy, other])
    assert [[member.name for member in group.members] for group in found.groups] == [[bug.name, again.name]]
    assert found.alone == [other.name, busy.name]
