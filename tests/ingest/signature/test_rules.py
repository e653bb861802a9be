"""The blame rules one by one, their order, the normalisation they rest on, and the data files."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.signature import Evidence, Frame, blame_of, bugcheck_facts, normalise_bugcheck, normalise_module
from ingest.signature.blame import RULES
from ingest.signature.lists import (
    BUGCHECKS,
    GENERIC_MODULES,
    KERNEL_MODULES,
    MODULE_ALIASES,
    parse_aliases,
    parse_bugchecks,
    parse_modules,
)

ACME, BETA, WDF, NT = (Frame(name, 0x1234) for name in ("acme.sys", "beta.sys", "wdf01000.sys", "ntoskrnl.exe"))
# Each later rule's evidence is hidden by that of the one before it; stripping it field by field walks down the list.
ALL = Evidence(
    bugcheck=0x7E,
    stated_module="stated.sys",
    fault=Frame("fault.sys", 1),
    context=Frame("context.sys", 2),
    exception=Frame("exception.sys", 3),
    frames=(NT, WDF, ACME, BETA),
)


def test_the_rules_answer_in_their_order() -> None:
    order = [rule.__name__ for rule in RULES]
    answers = [blame_of(msgspec.structs.replace(ALL, bugcheck=0xE2)).rule, blame_of(ALL).rule]
    evidence = ALL
    for change in (
        {"stated_module": ""},
        {"fault": None},
        {"context": None},
        {"exception": None},
        {"frames": (NT, WDF)},
        {"frames": (NT,)},
        {"frames": ()},
    ):
        evidence = msgspec.structs.replace(evidence, **change)
        answers.append(blame_of(evidence).rule)
    assert answers == [*order, "nobody"]


@pytest.mark.parametrize("field", ["fault", "context", "exception"])
def test_a_place_in_the_kernel_or_a_framework_yields_to_the_stack(field: str) -> None:
    for place in (NT, WDF):
        evidence = Evidence(bugcheck=0x7E, frames=(NT, ACME))
        blame = blame_of(msgspec.structs.replace(evidence, **{field: place}))
        assert (blame.module, blame.rule) == ("acme.sys", "first_frame")


def test_a_stated_module_takes_its_offset_from_the_frames() -> None:
    assert blame_of(Evidence(bugcheck=1, stated_module="beta.sys", frames=(ACME, BETA))).offset == 0x1234
    assert blame_of(Evidence(bugcheck=1, stated_module="other.sys", frames=(ACME, BETA))).offset is None


@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.sampled_from([ACME, BETA, WDF, NT]), max_size=6),
    st.sampled_from([None, ACME, WDF, NT]),
    st.sampled_from(["", "acme.sys", "wdf01000.sys", "ntoskrnl.exe"]),
)
def test_the_kernel_is_blamed_only_if_nothing_else_was_seen(
    code: int, frames: list[Frame], fault: Frame | None, stated: str
) -> None:
    evidence = Evidence(bugcheck=code, stated_module=stated, fault=fault, frames=frames)
    blame = blame_of(evidence)
    seen = {frame.module for frame in frames} | {stated} | ({fault.module} if fault else set())
    if blame.module == "ntoskrnl.exe":
        assert seen <= {"", "ntoskrnl.exe"}
    if blame.module == "wdf01000.sys":
        assert not seen & {"acme.sys", "beta.sys"}
    assert blame.notes


@pytest.mark.parametrize(
    ("raw", "normalised"),
    [
        (0x1000_007E, 0x7E),
        (0x1000_008E, 0x8E),
        (0x4000_008A, 0x8A),
        (0x50, 0x50),
        (0, 0),
        (0xC000_021A, 0xC000_021A),
        (0xDEAD_DEAD, 0xDEAD_DEAD),
        (0xBFFF_FFFF, 0x0FFF_FFFF),
    ],
)
def test_bugcheck_codes_are_brought_to_the_references_form(raw: int, normalised: int) -> None:
    assert normalise_bugcheck(raw) == normalised


@given(st.integers(0, 2**32 - 1))
def test_normalising_a_code_twice_changes_nothing(code: int) -> None:
    assert normalise_bugcheck(normalise_bugcheck(code)) == normalise_bugcheck(code)


@pytest.mark.parametrize(
    ("raw", "normalised"),
    [
        ("\\SystemRoot\\System32\\drivers\\CLFS.SYS", "clfs.sys"),
        ("\\??\\C:\\Windows\\x.sys", "x.sys"),
        ("C:/drivers/X.SYS ", "x.sys"),
        ("nt", "ntoskrnl.exe"),
        ("Ntkrnlmp.exe", "ntoskrnl.exe"),
        ("trailing.sys. .", "trailing.sys"),
        ("größe.sys", "größe.sys"),
        ("..", ""),
        ("dir\\", ""),
        ("a\x00b.sys", ""),
        ("a\nb.sys", ""),
        ("a:b", ""),
        ("a" * 128, "a" * 128),
        ("a" * 129, ""),
        ("p\\" * 600 + "x.sys", ""),
    ],
)
def test_module_names_are_brought_to_one_form_or_refused(raw: str, normalised: str) -> None:
    assert normalise_module(raw) == normalised


@given(st.text(max_size=1200))
def test_normalising_a_name_twice_changes_nothing_and_what_is_left_is_safe(name: str) -> None:
    once = normalise_module(name)
    assert normalise_module(once) == once
    assert once.isprintable()
    assert len(once) <= 128
    assert not set(once) & set('<>:"/\\|?*')


def test_the_lists_hold_together() -> None:
    # Frozen: these meanings were checked against Microsoft's reference one by one.
    assert {code: facts.fault_address for code, facts in BUGCHECKS.items() if facts.fault_address} == {
        0x0A: 4, 0x1E: 2, 0x3B: 2, 0x50: 3, 0x7E: 2, 0x8E: 2, 0xC5: 4, 0xCC: 3, 0xCD: 3, 0xCE: 3, 0xD0: 4, 0xD1: 4,
        0xD5: 3, 0xD6: 3, 0x116: 2,
    }  # fmt: skip
    assert {code for code, facts in BUGCHECKS.items() if facts.deliberate} == {0xE2, 0x1C8, 0xDEADDEAD}
    assert all(normalise_bugcheck(code) == code for code in BUGCHECKS)
    assert not KERNEL_MODULES.names & GENERIC_MODULES.names
    assert all(normalise_module(name) == name for name in KERNEL_MODULES.names | GENERIC_MODULES.names)
    assert all(normalise_module(name) == name for name in MODULE_ALIASES.values())
    assert "dump_stornvme.sys" in GENERIC_MODULES
    assert "csagent.sys" not in KERNEL_MODULES
    assert bugcheck_facts(0xABCDEF).fault_address is None


@pytest.mark.parametrize(
    "text",
    [
        '["0x50"]\nname = "X"\nfault_adress = 3',
        '["0x50"]\nname = "X"\nfault_address = 5',
        '["0x50"]\nfault_address = 3',
        '["fifty"]\nname = "X"',
        '["0x50"]\nname = "X"\n["0x050"]\nname = "Y"',
    ],
    ids=["misspelt", "parameter-5", "no-name", "no-code", "twice"],
)
def test_a_wrong_bugcheck_table_stops_the_import(text: str) -> None:
    with pytest.raises(ValueError, match=r"bugchecks\.toml"):
        parse_bugchecks(text)


@pytest.mark.parametrize("line", ["NTOSKRNL.EXE", "*", "a*b", "two names"])
def test_a_wrong_module_line_stops_the_import(line: str) -> None:
    with pytest.raises(ValueError, match=r"some\.txt"):
        parse_modules(line, "some.txt")


def test_a_wrong_alias_line_stops_the_import() -> None:
    with pytest.raises(ValueError, match=r"module_aliases\.txt"):
        parse_aliases("one two three")
