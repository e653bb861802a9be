"""Releases of a kill that wait for a second person.

Kept by the signals stage in its place record, so that a restart knows them. Invariants: bounded; a request counts for
an hour; and it counts for what the person saw who made it: a stop that comes later, or goes, voids it.
"""

from collections.abc import Iterable
from typing import Final

from detectors.scope import Scope
from signals.events import Command, PendingRelease, Switch, SwitchState
from signals.killswitch.standing import STOPS

PENDING_MAX: Final = 256
PENDING_SECONDS: Final = 3600
# Stands between an id that a person gave a command and the mark of what it is about.
MARK: Final = "."


class Approvals:
    """The requests of one keyed partition, by command id, oldest first."""

    def __init__(self) -> None:
        """Begin with none."""
        self._pending: dict[str, PendingRelease] = {}

    @property
    def pending(self) -> list[PendingRelease]:
        """What waits, oldest first."""
        return list(self._pending.values())

    @property
    def full(self) -> bool:
        """Whether no more may wait."""
        return len(self._pending) >= PENDING_MAX

    def load(self, pending: Iterable[PendingRelease]) -> None:
        """Take what a place record says waits, in place of what was known."""
        self._pending = {request.command_id: request for request in pending}

    def find(self, rollout: str, named: str) -> PendingRelease | None:
        """Return the request on a rollout that is named so, if it waits.

        Its command id names it; or the id that the person gave who asked, without the mark behind it, if it is the only
        one.
        """
        mine = [one for one in self._pending.values() if one.rollout == rollout]
        found = [one for one in mine if one.command_id == named]
        found = found or [one for one in mine if one.command_id.rpartition(MARK)[0] == named != ""]
        return found[0] if len(found) == 1 else None

    def waiting(self, rollout: str, scope: Scope) -> bool:
        """Tell whether a release of just this waits already."""
        return any(one.rollout == rollout and one.scope == scope for one in self._pending.values())

    def request_of(self, command: Command, now_ms: int) -> PendingRelease:
        """Return the request that a release makes."""
        return PendingRelease(
            command_id=command.command_id,
            rollout=command.rollout,
            scope=command.scope,
            principal=command.principal,
            name=command.name,
            reason=command.reason,
            at_ms=now_ms,
            expires_ms=now_ms + PENDING_SECONDS * 1000,
        )

    def add(self, request: PendingRelease) -> None:
        """Let a request wait."""
        self._pending[request.command_id] = request

    def take(self, request: PendingRelease) -> None:
        """Take out a request that was approved."""
        self._pending.pop(request.command_id, None)

    def expired(self, now_ms: int) -> list[PendingRelease]:
        """Take out, and return, what has waited too long."""
        gone = [one for one in self._pending.values() if one.expires_ms <= now_ms]
        for request in gone:
            del self._pending[request.command_id]
        return gone

    def void(self, switch: Switch) -> list[PendingRelease]:
        """Take out, and return, what an event has overtaken.

        A stop that comes makes every request on its rollout void, since nobody who asked has seen it; a stop that goes
        makes void what asked for it to go.
        """
        if switch.dry_run:
            return []
        came = switch.state in STOPS and switch.state is not switch.previous_state
        gone_with_all = switch.scope.whole and switch.state is SwitchState.RELEASED
        gone = [
            one
            for one in self._pending.values()
            if one.rollout == switch.rollout and (came or gone_with_all or one.scope == switch.scope)
        ]
        for request in gone:
            del self._pending[request.command_id]
        return gone
