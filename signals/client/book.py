"""What a subscriber knows: the last event and lease of each rollout, and what follows from them now.

The pure core of both clients: no connection, no thread, no clock but those it is given. Invariants: only what was
verified and in order gets in; a lease never lasts longer than it says, by the wall clock and by the monotonic one; and
once an event could not be believed, nothing proceeds until the stream is sound again.
"""

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from detectors.scope import Scope
from detectors.verdict import DecisionWord
from ingest.events import os_build_ok
from signals.client.errors import UnknownPartError, UnknownRolloutError
from signals.killswitch.effective import Effective, EffectiveReason, effective, standing_stops
from signals.killswitch.signing import SwitchError
from signals.killswitch.verify import Chain, LeaseDigestError, LeaseError, VerifiedEvent, VerifiedLease

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of one rollout.

    Attributes:
        event: its last event.
        lease: its latest lease.
        lease_ends: when the lease ends by the monotonic clock, in seconds.
    """

    event: VerifiedEvent | None = None
    lease: VerifiedLease | None = None
    lease_ends: float = 0.0

    @property
    def stopped(self) -> bool:
        """Whether any stop stands."""
        return self.event is not None and any(True for _ in standing_stops(self.event.switch))


class Book:
    """The rollouts of one subscription; written by one thread, read by any."""

    def __init__(self, lane: str, *, from_start: bool) -> None:
        """Begin knowing nothing.

        Args:
            lane: the only lane believed.
            from_start: the first event of each rollout must be number 1.
        """
        self._chain = Chain(lane, from_start=from_start)
        self._known: dict[str, Known] = {}
        self._changed = threading.Condition()
        self._changes = 0
        self.doubt: SwitchError | None = None

    def take_event(self, verified: VerifiedEvent) -> bool:
        """Take an event; False if it was seen before.

        Raises:
            SwitchError: it is out of order, or not the one that a lease named.
        """
        if not self._chain.accept(verified):
            return False
        rollout = verified.switch.rollout
        known = self._known.get(rollout, Known())
        self._put(rollout, Known(verified, known.lease, known.lease_ends))
        return True

    def take_lease(self, verified: VerifiedLease, now_ms: int, monotonic: float) -> bool:
        """Take a lease; False if it is held already.

        Raises:
            SwitchError: it is not of now, not of the last event, or not of this lane.
        """
        if not self._chain.accept_lease(verified, now_ms):
            return False
        lease = verified.lease
        known = self._known.get(lease.rollout, Known())
        # This machine's clock may be behind, or be set back: a lease ends at the latest when it has lasted its time.
        left_ms = min(lease.expires_ms - now_ms, lease.expires_ms - lease.issued_ms)
        self._put(lease.rollout, Known(known.event, verified, monotonic + left_ms / 1000))
        return True

    def recall(self, event: VerifiedEvent | None, lease: VerifiedLease | None, now_ms: int, monotonic: float) -> None:
        """Take what was kept on disk of one rollout, verified again.

        Raises:
            SwitchError: it is of another lane, or lease and event do not go together.
        """
        if event is not None:
            self._chain.stand_at(event)
            self._put(event.switch.rollout, Known(event))
        try:
            if lease is not None:
                self.take_lease(lease, now_ms, monotonic)
        except LeaseDigestError:
            raise
        except LeaseError as error:
            # It ran out, or an event came after it, or this clock was set back: on hold until the next one.
            _LOGGER.info("a lease that was kept is not used: %s", error)

    def decision(self, rollout: str, target: Scope, now_ms: int, monotonic: float) -> Effective:
        """Return what to do with a part of a rollout now.

        Raises:
            UnknownRolloutError: nothing of it has come.
            UnknownPartError: the target can't be a part of it. A kill that binds whatever the target is comes first.
        """
        known = self._known.get(rollout)
        if known is None:
            raise UnknownRolloutError(
                f"nothing of rollout {rollout[:64]!r} has come yet: check the id, or subscribe to it by `rollout=`"
            )
        switch = known.event.switch if known.event is not None else None
        lease = known.lease.lease if known.lease is not None else None
        if lease is not None and monotonic >= known.lease_ends:
            now_ms = max(now_ms, lease.expires_ms)
        said = effective(switch, lease, target, now_ms)
        if not said.killed:
            _require_part(rollout, target, lease.rings if lease is not None else None)
        if self.doubt is not None and said.proceed:
            return Effective(DecisionWord.HOLD, EffectiveReason.NOT_BELIEVED, str(self.doubt))
        return said

    def knows(self, rollout: str) -> bool:
        """Tell whether anything of a rollout has come."""
        return rollout in self._known

    def announce(self, rollout: str) -> None:
        """Note that Cordon knows a rollout of which neither an event nor a lease has come yet."""
        self._known.setdefault(rollout, Known())

    def known(self) -> Mapping[str, Known]:
        """Return what is known of each rollout now."""
        return dict(self._known)

    def doubted(self, error: SwitchError | None) -> None:
        """Note that something could not be believed, or that the stream is sound again."""
        self.doubt = error
        self._notify()

    def wait(self, changes: int, timeout_seconds: float) -> int:
        """Wait until something changed since `changes` was returned, or the time is out; return the count of now."""
        with self._changed:
            self._changed.wait_for(lambda: self._changes != changes, timeout_seconds)
            return self._changes

    @property
    def changes(self) -> int:
        """How often something changed."""
        return self._changes

    def _put(self, rollout: str, known: Known) -> None:
        self._known[rollout] = known
        self._notify()

    def _notify(self) -> None:
        with self._changed:
            self._changes += 1
            self._changed.notify_all()


def _require_part(rollout: str, target: Scope, rings: Sequence[str] | None) -> None:
    if target.os_build and not os_build_ok(target.os_build):
        raise UnknownPartError(f"os_build {target.os_build!r}: write a build and optional revision, such as 22631.3880")
    if target.ring and rings is not None and target.ring not in rings:
        declared = f"it declares {', '.join(rings)}" if rings else "it declares no rings, so leave ring out"
        raise UnknownPartError(f"rollout {rollout} has no ring {target.ring!r}: {declared}")
