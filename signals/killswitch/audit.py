"""The audit trail: every move of a switch, every word of a person and what became of it, chained by digests.

The signals stage writes it, an entry in the same atomic append as the event that it is about. Each entry holds the
SHA-256 of the bytes of the one before, and of the event's payload, which is signed and holds the evidence. Invariants:
entries of a partition are numbered 1, 2, 3 ... without holes; and an event without its entry is given one at the next
start, so that the trail names every change, those made before there was a trail as well.
"""

import enum
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ingest.events import encoder
from ingest.log.interface import Entry, Log, TopicPartition
from signals.events import Action, AuditEntry, Command, PendingRelease, Switch, SwitchState, audit_decoder
from signals.killswitch.machine import ENDED_DOCS
from signals.killswitch.results import CommandResult

# The key of entries that are about no rollout; compaction never goes by it.
INSTALLATION_KEY = b"@installation"
_ACTION_OF_STATE = {SwitchState.KILLED: Action.KILL, SwitchState.RELEASED: Action.RELEASE}


class AuditAction(enum.StrEnum):
    """What happened that no person asked for; the other actions are words of `Action` and `Ended`."""

    VERDICT = "verdict"
    REQUEST_ENDED = "request_ended"
    REQUEST_VOID = "request_void"
    KEYS = "keys"


AUDIT_ACTION_DOCS: dict[enum.StrEnum, str] = {
    Action.HOLD: "A person asked for a hold.",
    Action.KILL: "A person asked for a kill.",
    Action.RELEASE: "A person asked for a release.",
    Action.APPROVE: "A second person approved a release.",
    Action.MUTE: "A person asked that the detector's word move nothing for a while.",
    Action.DRY_RUN: "A person asked that the detector's word bind nobody.",
    Action.ARM: "A person asked that the detector's word bind again.",
    **dict[enum.StrEnum, str](ENDED_DOCS.items()),
    AuditAction.VERDICT: "A verdict moved the switch; the event has its evidence.",
    AuditAction.REQUEST_ENDED: "A release waited for its approval for an hour, and in vain.",
    AuditAction.REQUEST_VOID: "A release that waited for its approval was overtaken: a stop came or went.",
    AuditAction.KEYS: "The keys that events are signed with changed.",
}


def digest_of_entry(data: bytes) -> str:
    """Return what the next entry names as the one before it."""
    return hashlib.sha256(data).hexdigest()


@dataclass(slots=True)
class AuditTrail:
    """Writes the entries of one keyed partition.

    Attributes:
        source: the partition.
        number: of the last entry; 0 before the first.
        digest: of its bytes.
        offset: from there on the trail is read again at a restart.
    """

    source: TopicPartition
    number: int = 0
    digest: str = ""
    offset: int = 0

    def event(self, switch: Switch, digest: str, at_ms: int) -> Entry:
        """Return the entry of a move: what its event says, and the digest of the event's payload."""
        return self._entry(
            at_ms=at_ms,
            actor=switch.cause,
            principal=switch.approved_by or switch.principal,
            name=switch.name,
            action=action_of(switch),
            rollout=switch.rollout,
            scope=switch.scope,
            result=CommandResult.APPLIED.value,
            reason=switch.reason,
            sentence=switch.sentence,
            event_id=f"{switch.rollout}/{switch.number}",
            event_digest=digest,
            command_id=switch.command_id,
        )

    def refused(self, command: Command, result: CommandResult, at_ms: int) -> Entry:
        """Return the entry of a command that moved nothing, or waits for a second person."""
        about = f" of request {command.approves}" if command.approves else ""
        return self._entry(
            at_ms=at_ms,
            actor="person",
            principal=command.principal,
            name=command.name,
            action=command.action.value,
            rollout=command.rollout,
            scope=command.scope,
            result=result.value,
            reason=command.reason,
            sentence=f"{command.name} asked for {command.action.value}{about}: {result.value}",
            command_id=command.command_id,
        )

    def request_gone(self, request: PendingRelease, action: AuditAction, at_ms: int) -> Entry:
        """Return the entry of a release that waits no more and was not approved."""
        return self._entry(
            at_ms=at_ms,
            actor="timer" if action is AuditAction.REQUEST_ENDED else "system",
            principal=request.principal,
            name=request.name,
            action=action.value,
            rollout=request.rollout,
            scope=request.scope,
            result=CommandResult.NO_SUCH_REQUEST.value,
            reason=request.reason,
            sentence=AUDIT_ACTION_DOCS[action],
            command_id=request.command_id,
        )

    def keys_changed(self, sentence: str, at_ms: int) -> Entry:
        """Return the entry of a change of the signing keys; the sentence names the key ids."""
        return self._entry(
            at_ms=at_ms,
            actor="system",
            action=AuditAction.KEYS.value,
            result=CommandResult.APPLIED.value,
            sentence=sentence,
        )

    def load(self, head: tuple[int, str], offset: int) -> None:
        """Take what a place record says of the trail."""
        self.number, self.digest = head
        self.offset = offset

    def read_to_end(self, log: Log, told: Callable[[AuditEntry], None]) -> None:
        """Read the entries that the place does not know of, and hand each to `told`.

        Raises:
            LogUnavailableError: the log can't be read.
        """
        first, end = log.bounds(self.source)
        offset = max(first, self.offset)
        while offset < end and (records := log.read(self.source, offset)):
            for record in records:
                if record.value is not None:
                    self._follow(record.value, told)
            offset = records[-1].offset + 1
        self.offset = max(end, offset)

    def _follow(self, data: bytes, told: Callable[[AuditEntry], None]) -> None:
        entry = audit_decoder.decode(data)
        told(entry)
        if entry.number > self.number:
            # What does not follow is left to `cordon audit verify` to name: the switch must go on all the same.
            self.number, self.digest = entry.number, digest_of_entry(data)

    def _entry(self, **fields: Any) -> Entry:
        entry = AuditEntry(number=self.number + 1, previous_digest=self.digest, **fields)
        data = encoder.encode(entry)
        self.number, self.digest = entry.number, digest_of_entry(data)
        return Entry(*self.source, entry.rollout.encode() or INSTALLATION_KEY, data)


def action_of(switch: Switch) -> str:
    """Return the word of what made an event."""
    if switch.cause == "detector":
        return AuditAction.VERDICT.value
    if switch.cause == "timer":
        return switch.reason
    # An event of an earlier release does not name the action; it had three, each with a state of its own.
    return (switch.action or _ACTION_OF_STATE.get(switch.state, Action.HOLD)).value
