"""The wire types of the kill switch: commands from people, and the event that leaves Cordon.

A kill-switch event is a CloudEvent 1.0 (structured JSON) whose data is a `Switch`; on `cordon.killswitch.v1` it lies in
a DSSE envelope signed with Ed25519. Events are numbered per rollout from 1, without holes.
"""

import enum
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from detectors.scope import WHOLE, Scope
from detectors.verdict import DecisionWord, Evidence

EVENT_TYPE = "io.cordon.killswitch.v1"
LEASE_TYPE = "io.cordon.lease.v1"
PAYLOAD_TYPE = "application/cloudevents+json"


class SwitchState(enum.StrEnum):
    """Where a rollout's kill switch stands."""

    OBSERVING = "observing"
    WATCHING = "watching"
    HELD = "held"
    KILLED = "killed"
    RELEASED = "released"
    MUTED = "muted"


class Mode(enum.StrEnum):
    """How the detector's word binds a rollout's switch; a person's always does."""

    LIVE = "live"  # it moves the switch
    DRY_RUN = "dry_run"  # it moves the switch in events that are marked and bind nobody
    MUTED = "muted"  # it moves nothing for a while


class Action(enum.StrEnum):
    """What a person may ask for."""

    HOLD = "hold"
    KILL = "kill"
    RELEASE = "release"
    APPROVE = "approve"
    MUTE = "mute"
    DRY_RUN = "dry_run"
    ARM = "arm"


class Command(msgspec.Struct, kw_only=True):
    """One record of `cordon.commands.v1`: what a person asked for. HTTP handlers append these and decide nothing.

    Attributes:
        command_id: makes a repeated post harmless.
        action: what is asked for.
        name: who asks, as it is shown.
        reason: why, in that person's words.
        at_ms: when it was asked, by the gateway's clock.
        principal: the name of the token that asked: whom an approval must not come from. Empty: by a release that did
            not tell.
        roles: what that token may do.
        scope: the part of the rollout that is meant; the whole by default.
        until_ms: when a hold, a mute or a dry run ends by itself; 0: not by itself.
        approves: for `approve`, the command that is approved.
        break_glass: release without the second person; loud.
    """

    schema: int = 1
    command_id: Annotated[str, Meta(min_length=1, max_length=64)]
    rollout: Annotated[str, Meta(min_length=1, max_length=64)]
    action: Action
    name: Annotated[str, Meta(min_length=1, max_length=128)]
    reason: Annotated[str, Meta(min_length=1, max_length=1024)]
    at_ms: int
    principal: Annotated[str, Meta(max_length=64)] = ""
    roles: Annotated[list[str], Meta(max_length=16)] = []
    scope: Scope = WHOLE
    until_ms: int = 0
    approves: Annotated[str, Meta(max_length=64)] = ""
    break_glass: bool = False


class ScopedStop(msgspec.Struct, kw_only=True, frozen=True):
    """A stop of a part of a rollout that stands.

    Attributes:
        scope: the part.
        state: `held` or `killed`.
        until_ms: when it ends by itself; 0: not by itself.
        number: of the event that set it.
        by: who set it, and so who may end it.
        beneath: the detector held when a person's hold began: its hold stands when that ends, unless it is clear then.
    """

    scope: Scope
    state: SwitchState
    until_ms: int = 0
    number: int
    by: Literal["detector", "person"] = "detector"
    beneath: bool = False


class Switch(msgspec.Struct, kw_only=True):
    """The data of a kill-switch event.

    Attributes:
        number: 1, 2, 3 ... per rollout.
        previous_digest: SHA-256 of the previous event's payload, hexadecimal; empty for number 1.
        state: where the switch stands now.
        previous_state: where it stood before.
        decision: what a rollout system must do that knows nothing of scopes: the strictest of the whole and its parts.
        cause: `detector`, `person`, or `timer` where a hold, mute or dry run ended by itself.
        reason: the verdict's closed word, or the person's own words.
        sentence: the reason with its numbers, for a person.
        watermark_ms: event time the verdict held for; 0 when a person decided.
        decided_ms: the clock of the process that decided.
        dry_run: signed and sent, but not to be obeyed.
        name: who, when a person decided.
        command_id: of the command, when a person decided.
        policy: digest of the policy that decided.
        evidence: the numbers behind the verdict; null when a person decided.
        armed: the detector may still move this switch; False for good once a person released a kill.
        lane: rollout systems obey `live` only, unless they ask for another by name.
        scope: the part of the rollout that moved; `state` and `previous_state` are that part's.
        until_ms: when this hold, mute or dry run ends by itself; 0: not by itself.
        mode: how the detector's word binds this switch from here on.
        whole: where the whole rollout stands; a dry-run stop does not move it.
        whole_decision: what that means by itself, whatever its parts.
        whole_stop: the stop of the whole that binds, if one does.
        stops: every stop of a part that stands after this event, bounded.
        dry_stops: stops of the whole or its parts that bind nobody: what the detector would have done in earnest.
        released: parts that a person released: the detector stops them no more.
        mode_until_ms: when the mode ends by itself; 0: not by itself.
        action: what the person asked for, when a person decided.
        principal: the token that asked, when a person decided.
        approved_by: the second person's token, where one was needed.
        break_glass: released without the second person that policy demands.
    """

    schema: int = 1
    rollout: str
    number: int
    previous_digest: str
    lane: str
    vendor: str
    product: str
    version: str
    state: SwitchState
    previous_state: SwitchState
    decision: DecisionWord
    cause: Literal["detector", "person", "timer"]
    reason: str
    sentence: str
    watermark_ms: int
    decided_ms: int
    dry_run: bool = False
    armed: bool = True
    name: str = ""
    command_id: str = ""
    policy: str = ""
    evidence: Evidence | None = None
    scope: Scope = WHOLE
    until_ms: int = 0
    mode: Mode = Mode.LIVE
    whole: SwitchState | None = None
    whole_decision: DecisionWord | None = None
    whole_stop: ScopedStop | None = None
    stops: list[ScopedStop] = []
    dry_stops: list[ScopedStop] = []
    released: list[Scope] = []
    mode_until_ms: int = 0
    action: Action | None = None
    principal: str = ""
    approved_by: str = ""
    break_glass: bool = False


class Lease(msgspec.Struct, kw_only=True):
    """The data of a lease: `proceed`, until then. Not numbered; the latest of a rollout counts.

    Attributes:
        lane: rollout systems go by `live` only.
        number: of the switch's last event when it was issued, 0 before the first. A client that has seen a later one
            must not go by this lease.
        digest: SHA-256 of that event's payload; empty before the first.
        decision: `proceed`; a client takes any other word for a hold.
        issued_ms: when, by the clock of the process that signs; a lease issued earlier than the one held is ignored.
        expires_ms: from then on it says nothing, and the rollout is on hold.
        watermark_ms: event time up to which Cordon had seen.
        heard_share: of the devices exposed, which part was heard from lately; null where nobody is exposed yet.
        stops: parts of the rollout that are stopped meanwhile: the lease is not for them.
        drill: the rollout is a drill, which nobody pushes.
        rings: that the rollout declares, in order, so that a client can tell a ring that there is not; null where they
            are not known.
    """

    schema: int = 1
    rollout: str
    lane: str
    number: int
    digest: str
    decision: DecisionWord
    issued_ms: int
    expires_ms: int
    watermark_ms: int
    heard_share: float | None = None
    stops: list[ScopedStop] = []
    drill: bool = False
    rings: list[str] | None = None


class LeaseEvent(msgspec.Struct, kw_only=True):
    """A lease as a CloudEvent 1.0 in structured JSON; signed like a kill-switch event.

    Attributes:
        specversion: the version of CloudEvents.
        id: rollout, the word lease, and when it was issued.
        source: the installation's lane, `/cordon/LANE`.
        type: what kind of event it is.
        subject: the rollout's id.
        time: when it was issued, RFC 3339 in UTC.
        datacontenttype: how `data` is encoded.
        data: the lease.
    """

    specversion: str = "1.0"
    id: str
    source: str
    type: str = LEASE_TYPE
    subject: str
    time: str
    datacontenttype: str = "application/json"
    data: Lease


class AuditEntry(msgspec.Struct, kw_only=True):
    """One record of `cordon.audit.v1`: who asked for what, and what became of it. Chained by digests, never changed.

    Attributes:
        number: 1, 2, 3 ... per partition.
        previous_digest: SHA-256 of the previous entry's bytes, hexadecimal; empty for number 1.
        at_ms: the clock of the process that decided.
        actor: `detector`, `person`, `timer` or `system`.
        principal: the token that asked, when a person did.
        name: who asked, as it is shown.
        action: the closed word of what was asked for, or what happened.
        rollout: what it was about; empty for what is about the installation.
        scope: the part of the rollout.
        result: the closed word of what became of it.
        reason: in a person's words, or the verdict's closed word.
        sentence: for people, with the numbers.
        event_id: the kill-switch event that it made; empty where it made none.
        event_digest: SHA-256 of that event's payload, which holds the evidence.
        command_id: the command, when a person asked.
    """

    schema: int = 1
    number: int
    previous_digest: str
    at_ms: int
    actor: Literal["detector", "person", "timer", "system"]
    principal: str = ""
    name: str = ""
    action: str
    rollout: str = ""
    scope: Scope = WHOLE
    result: str
    reason: str = ""
    sentence: str = ""
    event_id: str = ""
    event_digest: str = ""
    command_id: str = ""


class CloudEvent(msgspec.Struct, kw_only=True):
    """CloudEvents 1.0 in structured JSON.

    Attributes:
        specversion: the version of CloudEvents.
        id: rollout and number, so that a repeated delivery is recognised.
        source: the installation's lane, `/cordon/LANE`.
        type: what kind of event it is.
        subject: the rollout's id.
        time: when it was decided, RFC 3339 in UTC.
        datacontenttype: how `data` is encoded.
        data: the switch's move.
    """

    specversion: str = "1.0"
    id: str
    source: str
    type: str = EVENT_TYPE
    subject: str
    time: str
    datacontenttype: str = "application/json"
    data: Switch


class Signature(msgspec.Struct, kw_only=True):
    """One signature of a DSSE envelope.

    Attributes:
        keyid: names the key, as the file of public keys does.
        sig: the Ed25519 signature, base64.
    """

    keyid: str
    sig: str


class Envelope(msgspec.Struct, kw_only=True, rename={"payload_type": "payloadType"}):
    """A DSSE envelope.

    Attributes:
        payload: base64 of the CloudEvent's JSON.
        payload_type: what the payload is; signed with it.
        signatures: at least one by a trusted key.
    """

    payload: str
    payload_type: str = PAYLOAD_TYPE
    signatures: list[Signature]


class SwitchRecord(msgspec.Struct, kw_only=True):
    """One record of `cordon.switches.v1`: a rollout's latest event, and the signals owner's place in its inputs.

    Attributes:
        envelope: the signed event.
        offsets: next offset by `topic word/partition` at the time the event was made.
    """

    schema: int = 1
    envelope: Envelope
    offsets: dict[str, int]


class PendingRelease(msgspec.Struct, kw_only=True, frozen=True):
    """A release that waits for a second person.

    Attributes:
        command_id: what an approval names.
        rollout: what is to be released.
        scope: the part of it.
        principal: the token that asked; an approval must come from another.
        name: who asked, as it is shown.
        reason: in that person's words.
        at_ms: when the switch saw it.
        expires_ms: from then on it must be asked for again.
    """

    command_id: str
    rollout: str
    scope: Scope = WHOLE
    principal: str
    name: str
    reason: str
    at_ms: int
    expires_ms: int


class SwitchPlace(msgspec.Struct, kw_only=True):
    """The other record of `cordon.switches.v1`, one a partition, under a key that no rollout has (`@place/0`).

    It says how far the signals owner has read and what became of the last commands, events or not: a refused command
    that comes again after a restart must stay refused.

    Attributes:
        offsets: next offset by `topic word/partition`; for `killswitch` the place from which a restart
            reads to the end.
        commands: the last commands' ids with what became of each, oldest first; bounded.
        pending: releases that wait for a second person; bounded.
        audit: number and digest of the last entry of the audit trail.
    """

    schema: int = 1
    offsets: dict[str, int]
    commands: list[tuple[str, str]]
    pending: list[PendingRelease] = []
    audit: tuple[int, str] = (0, "")


envelope_decoder = msgspec.json.Decoder(Envelope)
event_decoder = msgspec.json.Decoder(CloudEvent)
lease_decoder = msgspec.json.Decoder(LeaseEvent)
audit_decoder = msgspec.json.Decoder(AuditEntry)
command_decoder = msgspec.json.Decoder(Command)
record_decoder = msgspec.json.Decoder(SwitchRecord)
place_decoder = msgspec.json.Decoder(SwitchPlace)
