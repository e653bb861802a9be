"""Every rollout under the switch: where it stands, what it is called, and when its next end comes.

Filled from events only, those that the stage makes and those that it reads back at a restart. Invariant: what it says
of a rollout is what the rollout's last event says.
"""

from dataclasses import dataclass

from ingest.log.interface import Log, TopicPartition
from signals.events import Switch
from signals.killswitch.names import RolloutNames
from signals.killswitch.standing import Standing, standing_after
from signals.killswitch.timers import Timers

# Vendor, product and version.
Names = tuple[str, str, str]
_NEVER_MOVED = Standing()


@dataclass(frozen=True, slots=True)
class _Rollout:
    standing: Standing
    names: Names


class RolloutBook:
    """The rollouts of one keyed partition.

    Attributes:
        timers: when the next hold, mute or dry run of each ends.
    """

    def __init__(self, log: Log, declared: TopicPartition) -> None:
        """Take where rollouts are declared: names of those that never had an event are read there."""
        self._declared = RolloutNames(log, declared)
        self._rollouts: dict[str, _Rollout] = {}
        self.timers = Timers()

    def standing(self, rollout: str) -> Standing:
        """Return where a rollout stands."""
        known = self._rollouts.get(rollout)
        return known.standing if known else _NEVER_MOVED

    def names(self, rollout: str) -> Names | None:
        """Return what a rollout is called, or None if no topic has it.

        Raises:
            LogUnavailableError: the log can't be read.
        """
        known = self._rollouts.get(rollout)
        return known.names if known else self._declared.find(rollout)

    def rings(self, rollout: str, now_ms: int) -> list[str] | None:
        """Return the rings that a rollout declares, at most a second old, or None if it is not declared.

        Raises:
            LogUnavailableError: the log can't be read.
        """
        return self._declared.rings(rollout, now_ms)

    def moved(self, switch: Switch, digest: str) -> None:
        """Take an event."""
        standing = standing_after(switch, digest)
        self._rollouts[switch.rollout] = _Rollout(standing, (switch.vendor, switch.product, switch.version))
        self.timers.set(switch.rollout, standing.ends_ms)
