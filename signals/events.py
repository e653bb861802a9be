"""The wire types of the kill switch: commands from people, and the event that leaves Cordon.

A kill-switch event is a CloudEvent 1.0 (structured JSON) whose data is a `Switch`; on `cordon.killswitch.v1` it lies in
a DSSE envelope signed with Ed25519. Events are numbered per rollout from 1, without holes.
"""

import enum
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from detectors.verdict import DecisionWord, Evidence

EVENT_TYPE = "io.cordon.killswitch.v1"
PAYLOAD_TYPE = "application/cloudevents+json"


class SwitchState(enum.StrEnum):
    """Where a rollout's kill switch stands."""

    OBSERVING = "observing"
    WATCHING = "watching"
    HELD = "held"
    KILLED = "killed"
    RELEASED = "released"


class Action(enum.StrEnum):
    """What a person may ask for."""

    HOLD = "hold"
    KILL = "kill"
    RELEASE = "release"


class Command(msgspec.Struct, kw_only=True):
    """One record of `cordon.commands.v1`: what a person asked for. HTTP handlers append these and decide nothing.

    Attributes:
        command_id: makes a repeated post harmless.
        action: what is asked for.
        name: who asks.
        reason: why, in that person's words.
        at_ms: when it was asked, by the gateway's clock.
    """

    schema: int = 1
    command_id: Annotated[str, Meta(min_length=1, max_length=64)]
    rollout: Annotated[str, Meta(min_length=1, max_length=64)]
    action: Action
    name: Annotated[str, Meta(min_length=1, max_length=128)]
    reason: Annotated[str, Meta(min_length=1, max_length=1024)]
    at_ms: int


class Switch(msgspec.Struct, kw_only=True):
    """The data of a kill-switch event.

    Attributes:
        number: 1, 2, 3 ... per rollout.
        previous_digest: SHA-256 of the previous event's payload, hexadecimal; empty for number 1.
        state: where the switch stands now.
        previous_state: where it stood before.
        decision: what a rollout system must do.
        cause: `detector` or `person`.
        reason: the verdict's closed word, or the person's own words.
        sentence: the reason with its numbers, for a person.
        watermark_ms: event time the verdict held for; 0 when a person decided.
        decided_ms: the clock of the process that decided.
        dry_run: signed and sent, but not to be obeyed.
        name: who, when a person decided.
        command_id: of the command, when a person decided.
        policy: digest of the policy that decided.
        evidence: the numbers behind the verdict; null when a person decided.
        armed: the detector may still move this switch; False for good once a person released it.
        lane: rollout systems obey `live` only, unless they ask for another by name.
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
    cause: Literal["detector", "person"]
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


class SwitchPlace(msgspec.Struct, kw_only=True):
    """The other record of `cordon.switches.v1`, one a partition, under a key that no rollout has (`@place/0`).

    It says how far the signals owner has read and what became of the last commands, events or not: a refused command
    that comes again after a restart must stay refused.

    Attributes:
        offsets: next offset by `topic word/partition`; for `killswitch` the place from which a restart
            reads to the end.
        commands: the last commands' ids with what became of each, oldest first; bounded.
    """

    schema: int = 1
    offsets: dict[str, int]
    commands: list[tuple[str, str]]


envelope_decoder = msgspec.json.Decoder(Envelope)
event_decoder = msgspec.json.Decoder(CloudEvent)
command_decoder = msgspec.json.Decoder(Command)
record_decoder = msgspec.json.Decoder(SwitchRecord)
place_decoder = msgspec.json.Decoder(SwitchPlace)
