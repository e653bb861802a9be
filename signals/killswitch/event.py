"""From a move of a switch to the CloudEvent that is signed.

A pure function between the stage and its records. Invariant: an event's id is its rollout and number, so whoever gets
it twice can tell.
"""

from datetime import UTC, datetime

from signals.events import CloudEvent, Switch
from signals.killswitch.verify import source_of


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
