"""What is wrong with an audit trail: altered, missing, moved or cut off entries, and events that it does not match.

Behind `cordon audit verify`; pure, over the bytes of the entries as the log has them. Invariant: an entry counts only
once its place in the chain and the event that it names have been checked; what can't be read is never passed over. An
append whose acknowledgement was lost may lie in the log twice: the same bytes again are no fault.

What a chain by itself can't show is a trail that was written anew from some entry on, by somebody who can write to the
log. The events are signed, so that entries of moves can't be invented; for the rest, keep the head that a check prints
somewhere else, and hand it to the next one.
"""

import enum
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from ingest.events import UNREADABLE_ERRORS
from signals.events import AuditEntry, Switch, audit_decoder
from signals.killswitch.audit import action_of, digest_of_entry
from signals.killswitch.verify import VerifiedEvent

FINDINGS_MAX: Final = 100
# How far back the same bytes may come again: more than any batch that is appended at once.
REMEMBERED: Final = 10_000


class Fault(enum.StrEnum):
    """What is wrong, as a closed word."""

    ALTERED = "altered"
    MISSING = "missing"
    REORDERED = "reordered"
    TRUNCATED = "truncated"
    UNREADABLE = "unreadable"
    MISMATCH = "mismatch"
    UNENTERED = "unentered"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        fault: what.
        number: of the entry; 0 where an event is meant.
        sentence: what was found, for a person.
    """

    fault: Fault
    number: int
    sentence: str


@dataclass(slots=True)
class ChainReport:
    """What a check found.

    Attributes:
        number: of the last entry.
        digest: of its bytes: with the number, the head to keep.
        entries: how many different entries there are.
        events: how many events were matched.
        findings: what is wrong, in the order of the trail; at most `FINDINGS_MAX`.
    """

    number: int = 0
    digest: str = ""
    entries: int = 0
    events: int = 0
    findings: list[Finding] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings


def verify_chain(
    entries: Iterable[bytes], events: Iterable[VerifiedEvent] | None = None, head: tuple[int, str] | None = None
) -> ChainReport:
    """Check the trail of one partition.

    Args:
        entries: the bytes of its records, in the order of the log, from the first.
        events: the verified events of the same partition; None: entries are not compared with events.
        head: number and digest of an entry that is known to have been written.
    """
    checker = _Checker(None if events is None else {event.event.id: event for event in events}, head)
    for data in entries:
        checker.take(data)
    checker.end()
    return checker.report


class _Checker:
    def __init__(self, events: Mapping[str, VerifiedEvent] | None, head: tuple[int, str] | None) -> None:
        self.report = ChainReport()
        self._events = None if events is None else dict(events)
        self._entered: set[str] = set()
        self._head = head
        self._recent: dict[int, str] = {}
        self._order: deque[int] = deque()

    def take(self, data: bytes) -> None:
        digest = digest_of_entry(data)
        report = self.report
        try:
            entry = audit_decoder.decode(data)
        except UNREADABLE_ERRORS as error:
            self._find(Fault.UNREADABLE, report.number + 1, f"the entry after {report.number} is none: {error}")
            self._advance(report.number + 1, digest)
            return
        if self._recent.get(entry.number) == digest:
            return
        if entry.number <= report.number:
            known = entry.number in self._recent
            said = "another one of that number came before it" if known else "it lies behind later ones"
            self._find(Fault.ALTERED if known else Fault.REORDERED, entry.number, f"entry {entry.number}: {said}")
            return
        if entry.number > report.number + 1:
            missing = _span(report.number + 1, entry.number - 1)
            self._find(Fault.MISSING, report.number + 1, f"{missing} missing before entry {entry.number}")
        elif entry.previous_digest != report.digest:
            about = f"entry {report.number} or entry {entry.number}" if report.number else "entry 1"
            self._find(Fault.ALTERED, entry.number, f"{about} was altered: the second does not name the first's bytes")
        self._advance(entry.number, digest)
        self._compare(entry)

    def end(self) -> None:
        for event_id in self._events or ():
            if event_id not in self._entered:
                self._find(Fault.UNENTERED, 0, f"event {event_id} has no entry")
        if self._head is not None and self._head[0] > self.report.number:
            missing = _span(self.report.number + 1, self._head[0])
            self._find(Fault.TRUNCATED, self.report.number + 1, f"{missing} missing at the end of the trail")

    def _advance(self, number: int, digest: str) -> None:
        self.report.number, self.report.digest = number, digest
        self.report.entries += 1
        self._recent[number] = digest
        self._order.append(number)
        if len(self._order) > REMEMBERED:
            self._recent.pop(self._order.popleft(), None)
        if self._head is not None and self._head[0] == number and self._head[1] != digest:
            self._find(Fault.ALTERED, number, f"entry {number} was altered: it is not the one that was known before")

    def _compare(self, entry: AuditEntry) -> None:
        if not entry.event_id or self._events is None:
            return
        event = self._events.get(entry.event_id)
        if entry.event_id in self._entered:
            self._find(Fault.MISMATCH, entry.number, f"entry {entry.number}: event {entry.event_id} has one already")
        elif event is None:
            self._find(Fault.MISMATCH, entry.number, f"entry {entry.number}: there is no event {entry.event_id}")
        else:
            differing = ", ".join(_differences(entry, event))
            if differing:
                said = f"entry {entry.number}: it does not say what event {entry.event_id} says: {differing}"
                self._find(Fault.MISMATCH, entry.number, said)
            self._entered.add(entry.event_id)
            self.report.events += 1

    def _find(self, fault: Fault, number: int, sentence: str) -> None:
        if len(self.report.findings) < FINDINGS_MAX:
            self.report.findings.append(Finding(fault, number, sentence))


def _differences(entry: AuditEntry, event: VerifiedEvent) -> Iterator[str]:
    switch: Switch = event.switch
    said = {
        "event_digest": event.digest,
        "rollout": switch.rollout,
        "scope": switch.scope,
        "actor": switch.cause,
        "action": action_of(switch),
        "reason": switch.reason,
        "sentence": switch.sentence,
        "name": switch.name,
        "principal": switch.approved_by or switch.principal,
        "command_id": switch.command_id,
    }
    for name, value in said.items():
        if getattr(entry, name) != value:
            yield name


def _span(first: int, last: int) -> str:
    return f"entry {first} is" if first == last else f"entries {first} to {last} are"
