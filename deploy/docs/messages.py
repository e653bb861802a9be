"""Which wire types each topic carries, and who writes and reads it.

`ingest.topics` declares the topics and may import neither detectors nor signals, so what they carry is put together
here, above all packages. A test holds this list to the declared topics, and golden bytes to the types.
"""

from dataclasses import dataclass
from typing import Any

import detectors.chunks
import ingest.grouping.snapshot
from detectors.verdict import Verdict
from ingest.activity import ActivityBatch
from ingest.deadletter import DeadLetter
from ingest.events import Batch, BootLoop, Bsod, CheckIn, Installed, Offered, RolloutNotice, Tick
from ingest.rollouts import Rollout
from ingest.windows import Step
from signals.events import CloudEvent, Command, Envelope, SwitchPlace, SwitchRecord

JSON = "application/json"
MSGPACK = "application/vnd.msgpack"


@dataclass(frozen=True, slots=True)
class Message:
    """One kind of record value.

    Attributes:
        name: unique over all topics.
        wire: the struct that is encoded.
        content_type: how.
    """

    name: str
    wire: type[Any]
    content_type: str = JSON


@dataclass(frozen=True, slots=True)
class Channel:
    """What one topic carries, and between whom; without writers or readers no part of this version is one."""

    messages: tuple[Message, ...]
    writers: tuple[str, ...]
    readers: tuple[str, ...]


def _of(*wires: type[Any]) -> tuple[Message, ...]:
    return tuple(Message(wire.__name__, wire) for wire in wires)


FLEET_STATE = (
    Message("FleetChunk", ingest.grouping.snapshot.Chunk, MSGPACK),
    Message("FleetMemory", ingest.grouping.snapshot.MemoryState, MSGPACK),
)
DETECTION_STATE = (Message("DetectionChunk", detectors.chunks.Chunk, MSGPACK),)

CHANNELS: dict[str, Channel] = {
    "intake": Channel(_of(Offered, Installed, CheckIn, Bsod, BootLoop), (), ()),
    "crashes": Channel(_of(Batch, Tick), ("gateway",), ("grouping", "store")),
    "activity": Channel(_of(ActivityBatch, Tick, RolloutNotice), ("gateway",), ("grouping", "store")),
    "rollouts": Channel(_of(Rollout), ("gateway",), ("gateway", "detection", "signals", "store")),
    "fleet": Channel(FLEET_STATE, ("grouping",), ("grouping",)),
    "cohorts": Channel(_of(Step), ("grouping",), ("detection",)),
    "detection": Channel(DETECTION_STATE, ("detection",), ("detection",)),
    "verdicts": Channel(_of(Verdict), ("detection",), ("signals", "store")),
    "commands": Channel(_of(Command), ("signals",), ("signals",)),
    "killswitch": Channel(_of(Envelope), ("signals",), ("signals", "store")),
    "switches": Channel(_of(SwitchRecord, SwitchPlace), ("signals",), ("signals",)),
    "leases": Channel((), (), ()),
    "deadletter": Channel(_of(DeadLetter), ("grouping", "detection", "signals", "store"), ()),
}

# What lies inside another message as text and deserves a schema all the same: the payload of an envelope.
EMBEDDED = _of(CloudEvent)


def messages() -> list[Message]:
    """Return every message once, in the order of the topics, embedded ones last."""
    found: dict[str, Message] = {}
    for channel in CHANNELS.values():
        found.update({message.name: message for message in channel.messages})
    return [*found.values(), *EMBEDDED]
