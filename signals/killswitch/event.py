"""From a move of a switch to the CloudEvent that is signed, and from a record that can't be used to its dead letter.

Pure functions between the stage and its records. Invariant: an event's id is its rollout and number, so whoever gets it
twice can tell.
"""

import base64
from datetime import UTC, datetime

from ingest.events import encoder
from ingest.log.interface import Record, TopicPartition
from signals.events import CloudEvent, Switch
from signals.killswitch.verify import source_of

DEAD_VALUE_BYTES_MAX = 65_536
_DETAIL_CHARACTERS_MAX = 500


def cloud_event(switch: Switch) -> CloudEvent:
    """Return the CloudEvent 1.0 that carries `switch`; its time is when it was decided."""
    decided = datetime.fromtimestamp(switch.decided_ms / 1000, UTC)
    return CloudEvent(
        id=f"{switch.rollout}/{switch.number}",
        source=source_of(switch.lane),
        subject=switch.rollout,
        time=decided.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        data=switch,
    )


def dead_letter(source: TopicPartition, record: Record, reason: str, detail: str, at_ms: int) -> bytes:
    """Return a dead letter: what could not be used, why, and where it came from; the value is cut to a bound."""
    value = (record.value or b"")[:DEAD_VALUE_BYTES_MAX]
    return encoder.encode(
        {
            "schema": 1,
            "topic": source.topic,
            "partition": source.partition,
            "offset": record.offset,
            "reason": reason,
            "detail": detail[:_DETAIL_CHARACTERS_MAX],
            "at_ms": at_ms,
            "value_base64": base64.b64encode(value).decode(),
        }
    )
