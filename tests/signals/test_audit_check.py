"""What is done to a trail is found: any byte altered, any entry missing, moved or cut off, any event not matched."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.verdict import DecisionWord
from ingest.events import encoder
from signals.events import Action, audit_decoder
from signals.killswitch.audit import digest_of_entry
from signals.killswitch.audit_check import FINDINGS_MAX, ChainReport, Fault, verify_chain
from signals.killswitch.verify import VerifiedEvent
from support.switches import START_MS, SwitchRig, approval, command, verdict


def a_trail() -> tuple[list[bytes], list[VerifiedEvent]]:
    """Return entries of moves and of refused words, and the events."""
    rig = SwitchRig()
    rig.declare()
    rig.say(verdict(DecisionWord.HOLD), verdict(DecisionWord.KILL, at_ms=START_MS + 1))
    rig.settle()
    rig.ask(command(Action.HOLD, "c-1"), command(Action.RELEASE, "c-2"), approval("c-3", "c-2"))
    rig.settle()
    rig.ask(command(Action.HOLD, "c-4", until_ms=START_MS + 1000))
    rig.settle()
    rig.clock.drive_to(START_MS + 1000)
    rig.settle()
    rig.ask(command(Action.RELEASE, "c-5"))
    rig.settle()
    return [record.value or b"" for record in rig.records(rig.audit)], rig.events()


ENTRIES, EVENTS = a_trail()
HEAD = (len(ENTRIES), digest_of_entry(ENTRIES[-1]))


def check(entries: Sequence[bytes], events: Sequence[VerifiedEvent] = EVENTS) -> ChainReport:
    return verify_chain(entries, events, HEAD)


def test_a_whole_trail_has_no_findings_and_names_its_head() -> None:
    report = check(ENTRIES)
    assert report.whole
    assert (report.number, report.digest) == HEAD
    assert (report.entries, report.events) == (8, 5)


def test_the_same_append_twice_is_no_fault() -> None:
    assert check([*ENTRIES[:5], *ENTRIES[3:5], *ENTRIES[5:]]).whole


@given(st.data())
def test_any_byte_that_is_altered_is_found(data: st.DataObject) -> None:
    entries = list(ENTRIES)
    index = data.draw(st.integers(0, len(entries) - 1))
    at = data.draw(st.integers(0, len(entries[index]) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != ENTRIES[index][at]))
    entries[index] = entries[index][:at] + bytes([byte]) + entries[index][at + 1 :]
    assert not check(entries).whole


@given(st.integers(0, len(ENTRIES) - 1))
def test_an_entry_that_is_missing_is_named(index: int) -> None:
    report = check([*ENTRIES[:index], *ENTRIES[index + 1 :]])
    last = index == len(ENTRIES) - 1
    assert report.findings[0].fault is (Fault.TRUNCATED if last else Fault.MISSING)
    assert report.findings[0].number == index + 1


@given(st.permutations(ENTRIES).filter(lambda entries: entries != ENTRIES))
def test_entries_that_were_moved_are_found(entries: list[bytes]) -> None:
    faults = {finding.fault for finding in check(entries).findings}
    assert Fault.REORDERED in faults or Fault.MISSING in faults


@given(st.integers(0, len(ENTRIES) - 1))
def test_a_trail_that_was_cut_off_is_found(length: int) -> None:
    faults = [finding.fault for finding in check(ENTRIES[:length]).findings]
    assert faults[-1] is Fault.TRUNCATED


def rewritten(index: int, **changes: object) -> list[bytes]:
    """Return a trail that was written anew from an entry on, with every digest made to fit."""
    entries, previous = list(ENTRIES[:index]), digest_of_entry(ENTRIES[index - 1]) if index else ""
    for number, data in enumerate(ENTRIES[index:]):
        entry = audit_decoder.decode(data)
        entry.previous_digest = previous
        for name, value in changes.items() if number == 0 else ():
            setattr(entry, name, value)
        entries.append(encoder.encode(entry))
        previous = digest_of_entry(entries[-1])
    return entries


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "Mallory"), ("principal", "ops-9"), ("action", "arm"), ("sentence", "health"), ("actor", "system"),
        ("reason", "x"), ("event_digest", "0" * 64), ("event_id", "r-1/7"), ("command_id", "c-9"), ("rollout", "r-1"),
    ],
)  # fmt: skip
def test_an_entry_written_anew_must_say_what_its_signed_event_says(field: str, value: str) -> None:
    report = verify_chain(rewritten(1, **{field: value}), EVENTS)
    assert report.findings[0].fault is Fault.MISMATCH
    assert (report.findings[0].number, field in report.findings[0].sentence or field == "event_id") == (2, True)


def test_a_trail_written_anew_about_a_refused_word_is_found_by_a_head_kept_elsewhere() -> None:
    entries = rewritten(2, reason="never said")
    assert verify_chain(entries, EVENTS).whole
    assert [finding.fault for finding in check(entries).findings] == [Fault.ALTERED]


def test_an_event_without_an_entry_is_named() -> None:
    without = [data for data in ENTRIES[:-1] if audit_decoder.decode(data).event_id != EVENTS[-1].event.id]
    [finding] = verify_chain(without, EVENTS).findings
    assert (finding.fault, EVENTS[-1].event.id in finding.sentence) == (Fault.UNENTERED, True)


def test_an_event_that_an_entry_invents_is_named() -> None:
    report = verify_chain(ENTRIES, EVENTS[:-1])
    assert [finding.fault for finding in report.findings] == [Fault.MISMATCH]


def test_what_can_not_be_read_is_no_entry_and_findings_are_bounded() -> None:
    report = verify_chain([b"{"] * (FINDINGS_MAX + 5))
    assert report.findings[0].fault is Fault.UNREADABLE
    assert len(report.findings) == FINDINGS_MAX
