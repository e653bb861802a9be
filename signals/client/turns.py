"""What a follower has to act on: each event, and each change of the decision that no event tells of.

For programs that run something per event, such as `cordon watch --exec`. A lease that runs out makes no event, and must
stop a rollout all the same. Invariants: each event is handed over once, in order, with what is to be done at that
moment; and a change of decision is handed over once.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from signals.client.subscription import Message
from signals.killswitch.effective import Effective, EffectiveReason
from signals.killswitch.verify import VerifiedEvent, VerifiedLease

# How long a missing lease is waited for before it counts: after an event, the next one is a moment behind it.
GRACE_SECONDS = 2.0
_AWAITED = frozenset({EffectiveReason.NO_LEASE, EffectiveReason.LEASE_OUTDATED})


@dataclass(frozen=True, slots=True)
class Turn:
    """One thing to act on.

    Attributes:
        rollout: of which rollout.
        said: what to do with the whole of it now.
        event: what made it; None where the lease came, ran out or was doubted.
        lease: the latest lease, where one has come.
    """

    rollout: str
    said: Effective
    event: VerifiedEvent | None
    lease: VerifiedLease | None


class Turns:
    """Collects messages from one thread, and hands over turns to another."""

    def __init__(self, decide: Callable[[str], Effective], monotonic: Callable[[], float]) -> None:
        """Begin with nothing to do.

        Args:
            decide: says what to do with a rollout now.
            monotonic: tells elapsed time, in seconds.
        """
        self._decide, self._monotonic = decide, monotonic
        self._lock = threading.Lock()
        self._events: dict[str, list[VerifiedEvent]] = {}
        self._leases: dict[str, VerifiedLease] = {}
        self._since: dict[str, float] = {}
        self._told: dict[str, tuple[str, str]] = {}

    @property
    def empty(self) -> bool:
        """Whether every event was handed over."""
        return not self._events

    def take(self, message: Message) -> None:
        """Take an event or a lease."""
        with self._lock:
            if isinstance(message, VerifiedLease):
                self._leases[message.lease.rollout] = message
                self._since.setdefault(message.lease.rollout, self._monotonic())
            else:
                self._events.setdefault(message.switch.rollout, []).append(message)
                self._since[message.switch.rollout] = self._monotonic()

    def follow(self, rollout: str) -> None:
        """Hand over changes of this rollout though nothing of it has come yet."""
        with self._lock:
            self._since.setdefault(rollout, self._monotonic())

    def due(self) -> list[Turn]:
        """Return what is to be acted on now."""
        with self._lock:
            rollouts = list(self._since)
        return [turn for rollout in rollouts for turn in self._of(rollout)]

    def _of(self, rollout: str) -> list[Turn]:
        said = self._decide(rollout)
        if said.reason in _AWAITED and self._monotonic() - self._since[rollout] < GRACE_SECONDS:
            return []
        with self._lock:
            events, lease = self._events.pop(rollout, []), self._leases.get(rollout)
        told = (said.decision.value, said.reason.value)
        news = self._told.get(rollout) != told
        self._told[rollout] = told
        if events:
            return [Turn(rollout, said, event, lease) for event in events]
        return [Turn(rollout, said, None, lease)] if news else []
