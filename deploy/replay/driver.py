"""The replay: step by step of event time, simulate, post, drive the clock, and let the rollout system obey.

Before step (T, T + s] is simulated, Cordon has dealt with everything up to T + s - reaction, and the rollout system has
every event that came of it. A decision of a later event time cannot stop anything in that step, since a stop takes
effect `reaction` after it. So verdicts and losses are the same at any speed.
"""

from collections.abc import Callable

from deploy.replay.client import GatewayClient
from deploy.replay.result import Moment, ReplayResult, result_of
from deploy.replay.rollout_system import RolloutSystem
from deploy.replay.subscription import Pace, Subscription
from detectors.backtest.declare import Planned, declarations
from detectors.backtest.fleet import Fleet
from detectors.backtest.scenario import Scenario

MOMENT_MS = 60_000
# An event is on the stream within milliseconds of the log; half a minute is a machine in trouble.
STREAM_SECONDS = 30.0


class Replay:
    """One scenario through one Cordon."""

    def __init__(
        self,
        scenario: Scenario,
        client: GatewayClient,
        subscription: Subscription,
        *,
        devices: int | None = None,
        kill_switch: bool = True,
        pace: Pace | None = None,
        progress: Callable[[Moment], None] | None = None,
        settle_seconds: float | None = None,
    ) -> None:
        """Prepare the fleet.

        Args:
            scenario: what happens.
            client: the gateway, in a lane of its own that the scenario's start lies after.
            subscription: that lane's kill-switch events.
            devices: size of the fleet; None takes the scenario's.
            kill_switch: False for the counterfactual: events are noted and not obeyed.
            pace: limits the speed; None is as fast as possible.
            progress: called at each full minute of event time, and at the end.
            settle_seconds: end this many event seconds after the first kill; None goes on to the scenario's end.
        """
        self.fleet = Fleet(scenario, devices)
        self.system = RolloutSystem(self.fleet, kill_switch)
        self._scenario = scenario
        self._client = client
        self._subscription = subscription
        self._pace = pace or Pace(None)
        self._progress = progress
        self._planned: list[Planned] = declarations(self.fleet)
        self._lookahead_ms = scenario.reaction_ms - scenario.step_ms
        self._settle_ms = None if settle_seconds is None else int(settle_seconds * 1000)
        self._reports = 0
        self._events = 0

    def run(self) -> ReplayResult:
        """Replay the scenario to its end.

        Raises:
            ReplayError: the gateway or the stream failed for good.
        """
        fleet, scenario = self.fleet, self._scenario
        self._drive(wait_for_ms=None)
        while not (fleet.done or self._settled()):
            self._declare(until_ms=fleet.now_ms + scenario.step_ms)
            reports = fleet.step()
            self._reports += len(reports)
            self._client.post_reports(reports)
            over = fleet.now_ms >= scenario.end_ms or self._settled()
            wait_for_ms = fleet.now_ms - (0 if over else self._lookahead_ms)
            self._drive(wait_for_ms if wait_for_ms >= scenario.start_ms else None)
            full_minute = (fleet.now_ms - scenario.start_ms) % MOMENT_MS < scenario.step_ms
            if self._progress is not None and (full_minute or over):
                self._progress(self._moment())
            self._pace.keep((fleet.now_ms - scenario.start_ms) / 1000)
        return result_of(
            fleet,
            self.system,
            self._client,
            reports=self._reports,
            events=self._events,
            wall_seconds=self._pace.wall_seconds(),
        )

    def _settled(self) -> bool:
        kill = self.system.first_kill
        return (
            self._settle_ms is not None
            and kill is not None
            and self.fleet.now_ms >= kill.watermark_ms + self._settle_ms
        )

    def _drive(self, wait_for_ms: int | None) -> None:
        answer = self._client.drive(self.fleet.now_ms, wait_for_ms)
        self._events = answer.killswitch_events
        for switch in self._subscription.received(answer.killswitch_events, STREAM_SECONDS):
            self.system.take(switch)

    def _declare(self, until_ms: int) -> None:
        while self._planned and self._planned[0].at_ms < until_ms:
            self._client.declare(self._planned.pop(0).declaration)

    def _moment(self) -> Moment:
        return Moment(
            at_ms=self.fleet.now_ms,
            minute=(self.fleet.now_ms - self._scenario.rollout_ms) / 60_000,
            truth=self.fleet.truth(),
            crash_reports=self.fleet.crash_reports,
            reports=self._reports,
            state=None if self.system.last is None else self.system.last.state,
            wall_seconds=self._pace.wall_seconds(),
        )
