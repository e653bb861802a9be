"""Which wire types each topic carries, and who writes and reads it.

`ingest.topics` declares the topics and may import neither detectors nor signals, so what they carry is put together
here, above all packages. A test holds this list to the declared topics, and golden bytes to the types.
"""

from dataclasses import dataclass
from typing import Any

from detectors.alerts.wire import Alert, AlertsStatus
from detectors.verdict import Verdict
from ingest.activity import ActivityBatch
from ingest.claims import Claim
from ingest.deadletter import DeadLetter
from ingest.events import Batch, BootLoop, Bsod, CheckIn, Installed, Offered, RolloutNotice, Tick
from ingest.installation import Fact
from ingest.progress import OwnerWord
from ingest.rollouts import Rollout
from ingest.windows import Step
from signals.delivery.webhooks.words import DeadDelivery, DeliveryPlace, Subscription
from signals.events import AuditEntry, CloudEvent, Command, Envelope, LeaseEvent, SwitchPlace, SwitchRecord
from signals.pagers.records import PageAttempt, PageCase, PageOrder, PagePlace

JSON = "application/json"
MSGPACK = "application/vnd.msgpack"


@dataclass(frozen=True, slots=True)
class Message:
    """One kind of record value.

    Attributes:
        name: unique over all topics.
        wire: the struct that is encoded as JSON; None for a stage's own state, whose form no one else may rely on.
        about: what a message without a struct is.
    """

    name: str
    wire: type[Any] | None
    about: str = ""

    @property
    def content_type(self) -> str:
        """How it is encoded."""
        return MSGPACK if self.wire is None else JSON


@dataclass(frozen=True, slots=True)
class Channel:
    """What one topic carries, and between whom; without writers or readers no part of this version is one."""

    messages: tuple[Message, ...]
    writers: tuple[str, ...]
    readers: tuple[str, ...]


def _of(*wires: type[Any]) -> tuple[Message, ...]:
    return tuple(Message(wire.__name__, wire) for wire in wires)


OWN_STATE = "A part of the {stage} stage's own state. Only that stage reads it, and its form changes without notice."
FLEET_STATE = (Message("FleetState", None, OWN_STATE.format(stage="grouping")),)
DETECTION_STATE = (Message("DetectionState", None, OWN_STATE.format(stage="detection")),)
ALERTS_STATE = (Message("AlertsState", None, OWN_STATE.format(stage="alerts")),)

CHANNELS: dict[str, Channel] = {
    "intake": Channel(_of(Offered, Installed, CheckIn, Bsod, BootLoop), (), ()),
    "crashes": Channel(_of(Batch, Tick), ("gateway",), ("grouping", "store")),
    "activity": Channel(_of(ActivityBatch, Tick, RolloutNotice), ("gateway",), ("grouping", "store")),
    "rollouts": Channel(_of(Rollout), ("gateway",), ("gateway", "detection", "signals", "store")),
    "fleet": Channel(FLEET_STATE, ("grouping",), ("grouping",)),
    "cohorts": Channel(_of(Step), ("grouping",), ("detection",)),
    "detection": Channel(DETECTION_STATE, ("detection",), ("detection",)),
    "verdicts": Channel(_of(Verdict), ("detection",), ("signals", "store")),
    "alerts": Channel((*_of(Alert, AlertsStatus), ALERTS_STATE[0]), ("alerts",), ("alerts", "signals", "store")),
    "commands": Channel(_of(Command), ("signals",), ("signals",)),
    "killswitch": Channel(_of(Envelope), ("signals",), ("signals", "store")),
    "switches": Channel(_of(SwitchRecord, SwitchPlace), ("signals",), ("signals",)),
    "leases": Channel(_of(Envelope), ("signals",), ("signals",)),
    "audit": Channel(_of(AuditEntry), ("signals",), ("signals",)),
    "subscriptions": Channel(_of(Subscription), ("signals",), ("signals",)),
    "deliveries": Channel(_of(DeliveryPlace, DeadDelivery), ("signals",), ("signals",)),
    "pages": Channel(_of(PageCase, PagePlace), ("signals",), ("signals",)),
    "pagings": Channel(_of(PageAttempt), ("signals",), ("signals", "store")),
    "pageorders": Channel(_of(PageOrder), ("signals",), ("signals",)),
    "fences": Channel(_of(Claim), ("grouping", "detection", "alerts", "signals", "store"), ()),
    "progress": Channel(
        _of(OwnerWord),
        ("gateway", "grouping", "detection", "signals", "store"),
        ("gateway", "detection", "signals"),
    ),
    "installation": Channel(_of(Fact), ("gateway", "grouping", "detection", "signals"), ("gateway", "signals")),
    "deadletter": Channel(_of(DeadLetter), ("grouping", "detection", "signals", "store"), ()),
}

# What lies inside another message as text and deserves a schema all the same: the payload of an envelope.
EMBEDDED = _of(CloudEvent, LeaseEvent)


def messages() -> list[Message]:
    """Return every message once, in the order of the topics, embedded ones last."""
    found: dict[str, Message] = {}
    for channel in CHANNELS.values():
        found.update({message.name: message for message in channel.messages})
    return [*found.values(), *EMBEDDED]
