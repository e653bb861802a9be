"""The simulated rollout system: it obeys the kill switch, or only takes note of it.

It stops pushing its reaction time after the event time that a decision holds for, so what it stops depends on the
decision and not on how fast the replay ran.
"""

from detectors.backtest.fleet import Fleet
from detectors.verdict import DecisionWord
from signals.events import Switch, SwitchState

_STOPS = frozenset({SwitchState.HELD, SwitchState.KILLED})


class RolloutSystem:
    """Follows kill-switch events for the updates of one fleet.

    Attributes:
        obeys: False takes note only: the counterfactual.
        last: the latest event.
        first_hold: the first event that held.
        first_kill: the first event that killed.
        stopped_ms: event time of the first stop that took effect.
        late_ms: by how much event time the latest stop of all came after the moment it should have taken effect.
    """

    def __init__(self, fleet: Fleet, obeys: bool = True) -> None:
        self.obeys = obeys
        self._fleet = fleet
        self._reaction_ms = fleet.scenario.reaction_ms
        self.last: Switch | None = None
        self.first_hold: Switch | None = None
        self.first_kill: Switch | None = None
        self.stopped_ms: int | None = None
        self.late_ms = 0

    def take(self, switch: Switch) -> None:
        """Take one event in, and act on it if it concerns one of the fleet's updates and is no dry run."""
        self.last = switch
        if switch.state is SwitchState.HELD and self.first_hold is None:
            self.first_hold = switch
        if switch.state is SwitchState.KILLED and self.first_kill is None:
            self.first_kill = switch
        if self.obeys and not switch.dry_run:
            self._act(switch)

    def _act(self, switch: Switch) -> None:
        now_ms = self._fleet.now_ms
        # A person's decision has no event time: it holds from now on.
        due_ms = now_ms if switch.cause == "person" else switch.watermark_ms + self._reaction_ms
        update = (switch.vendor, switch.product, switch.version)
        if switch.state in _STOPS:
            if self._fleet.stop(*update, max(due_ms, now_ms)):
                self.late_ms = max(self.late_ms, now_ms - due_ms)
                self.stopped_ms = max(due_ms, now_ms) if self.stopped_ms is None else self.stopped_ms
        elif switch.state is SwitchState.RELEASED or switch.decision is DecisionWord.PROCEED:
            self._fleet.resume(*update, max(due_ms, now_ms))
