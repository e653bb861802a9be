"""A static threshold with a limit of failed measurements, as Argo Rollouts and Flagger judge a canary."""

from collections.abc import Sequence
from typing import Final

from detectors.backtest.peers.peer import MINUTE_MS, Alarm, Ticks, since
from detectors.backtest.peers.windows import Trailing
from detectors.backtest.trace import Minute

ARGO_SUCCESS_LEAST: Final = 0.95
ARGO_FAILURE_LIMIT: Final = 3
ARGO_INTERVAL_MS: Final = 5 * MINUTE_MS
FLAGGER_SUCCESS_LEAST: Final = 0.99
FLAGGER_THRESHOLD: Final = 5
FLAGGER_INTERVAL_MS: Final = MINUTE_MS


class FailureLimit:
    """Measures the success rate at an interval and gives the rollout up after so many failed measurements.

    Rule as published. Every interval the success rate of the interval is measured; below the threshold the measurement
    has failed. Failures need not follow one another and are never forgiven. Argo Rollouts fails the run when more
    measurements failed than `failureLimit`, Flagger rolls back when as many failed as `threshold`; see `argo_rollouts`
    and `flagger` for the numbers. Either ends with its first failure, so there is at most one alarm.

    Adapted. Success is a session without a crash, a session a device heard from in a minute. Without a session there is
    no measurement (Argo counts an error then, and gives up after five in a row: on a canary at night that would be
    every rollout). The analysis lasts as long as the rollout.

    Args:
        name: the peer's name.
        rule: its rule in one sentence.
        source: where the rule and its numbers come from.
        success_least: a measurement below it has failed.
        failures_needed: so many failed measurements end the rollout.
        interval_ms: time between measurements, and the window of each.

    Example:
        One crashed session in ten: Argo's measurements fail at 5, 10, 15 and 20 minutes, the fourth is one too many.

        >>> minutes = [
        ...     Minute(
        ...         at_ms=60_000 * (i + 1),
        ...         exposed=50,
        ...         control=0,
        ...         active_exposed=10,
        ...         active_control=0,
        ...         crashes_exposed=1,
        ...         crashes_control=0,
        ...         users_exposed=1,
        ...         users_control=0,
        ...     )
        ...     for i in range(60)
        ... ]
        >>> [alarm.at_ms // 60_000 - 1 for alarm in argo_rollouts().watch(minutes, 0)]
        [19]
        >>> [alarm.at_ms // 60_000 - 1 for alarm in flagger().watch(minutes, 0)]
        [4]

    Source: argoproj/argo-rollouts, `assessMetricStatus` in analysis/analysis.go and docs/features/analysis.md;
    fluxcd/flagger, `rollback` in the canary controller and docs/gitbook/usage/how-it-works.md.
    """

    blind_to = (
        "harm below the static threshold, whether the controls crash as much, devices that never report; the smaller "
        "the canary, the more a single crash weighs"
    )

    def __init__(
        self, name: str, rule: str, source: str, success_least: float, failures_needed: int, interval_ms: int
    ) -> None:
        self.name = name
        self.rule = rule
        self.source = source
        self._success_least = success_least
        self._failures_needed = failures_needed
        self._interval_ms = interval_ms

    def watch(self, minutes: Sequence[Minute], began_ms: int) -> list[Alarm]:
        """Return the alarm of one update, if any; see `Peer.watch`."""
        window, ticks = Trailing(self._interval_ms, 2), Ticks(began_ms, self._interval_ms)
        failed = 0
        for minute in since(minutes, began_ms):
            sessions, crashed = window.push(minute.at_ms, minute.active_exposed, minute.users_exposed)
            sessions = max(sessions, crashed)
            if not ticks.due(minute.at_ms) or not sessions:
                continue
            success = (sessions - crashed) / sessions
            failed += success < self._success_least
            if failed >= self._failures_needed:
                sentence = (
                    f"failed ({failed}) >= needed ({self._failures_needed}): {success:.2%} of {sessions} sessions "
                    f"without a crash (< {self._success_least:.0%})"
                )
                return [Alarm(minute.at_ms, "kill", sentence)]
        return []


def argo_rollouts() -> FailureLimit:
    """Return Argo Rollouts' background analysis with the numbers of its documentation.

    Its built-in `failureLimit` is 0; the documented example, which templates are copied from, is used: success rate of
    at least 95 % every 5 minutes, failed when more than 3 measurements failed.
    """
    return FailureLimit(
        name="argo-rollouts",
        rule="more than 3 five-minute measurements with less than 95 % of sessions without a crash",
        source="Argo Rollouts, background analysis; numbers of the documented success-rate template",
        success_least=ARGO_SUCCESS_LEAST,
        failures_needed=ARGO_FAILURE_LIMIT + 1,
        interval_ms=ARGO_INTERVAL_MS,
    )


def flagger() -> FailureLimit:
    """Return Flagger's canary analysis: `request-success-rate` of at least 99 % a minute, rollback at 5 failed checks.

    The interval of a minute is Flagger's default; 99 % and 5 are those of its documentation.
    """
    return FailureLimit(
        name="flagger",
        rule="5 one-minute checks with less than 99 % of sessions without a crash",
        source="Flagger, canary analysis; the interval is a default, 99 % and 5 checks are those of its documentation",
        success_least=FLAGGER_SUCCESS_LEAST,
        failures_needed=FLAGGER_THRESHOLD,
        interval_ms=FLAGGER_INTERVAL_MS,
    )
