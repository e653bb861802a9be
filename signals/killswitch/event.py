"""From a move of a switch, or a lease, to the CloudEvent that is signed.

Pure functions between the stage and its records. Invariant: an event's id is its rollout and number, so whoever gets
it twice can tell; a lease's is its rollout and time.
"""

from datetime import UTC, datetime

from signals.events import CloudEvent, Lease, LeaseEvent, Switch
from signals.killswitch.verify import lease_id, source_of


def cloud_event(switch: Switch) -> CloudEvent:
    """Return the CloudEvent 1.0 that carries `switch`; its time is when it was decided."""
    return CloudEvent(
        id=f"{switch.rollout}/{switch.number}",
        source=source_of(switch.lane),
        subject=switch.rollout,
        time=_rfc3339(switch.decided_ms),
        data=switch,
    )


def lease_event(lease: Lease) -> LeaseEvent:
    """Return the CloudEvent 1.0 that carries `lease`; its time is when it was issued."""
    return LeaseEvent(
        id=lease_id(lease),
        source=source_of(lease.lane),
        subject=lease.rollout,
        time=_rfc3339(lease.issued_ms),
        data=lease,
    )


def _rfc3339(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
