"""Sentry's crash-rate alert: a static threshold under the rate of crash-free sessions of an hour."""

from collections.abc import Sequence
from typing import Final

from detectors.backtest.peers.peer import HOUR_MS, Alarm, Decision, since
from detectors.backtest.peers.windows import Trailing
from detectors.backtest.trace import Minute

CRITICAL_BELOW: Final = 0.98
WARNING_BELOW: Final = 0.995
SESSIONS_LEAST: Final = 50


class Sentry:
    """Alerts when the rate of crash-free sessions over the last hour lies below a static threshold.

    Rule as published. A metric alert on the crash-free session rate of a release has a time window (here the default
    hour), a critical threshold and, if one likes, a warning threshold; it opens an incident when the rate falls below,
    and resolves it when the rate is back. Sentry sets no thresholds: those at which its release pages turn red (below
    98 %) and yellow (below 99.5 %) are taken. The critical one is a kill here, the warning a hold.

    Adapted. A device heard from in a minute is a session, and a device with a crash in it a crashed one. The floor of
    50 sessions in the last hour is that of Sentry's share-of-sessions issue alerts; its metric alerts have none by
    default, and without one a canary's first crash would fire them.

    Example:
        One crashed session in 40 a minute: the floor of 50 sessions is passed at index 1, with 97.5 % crash-free.

        >>> minutes = [
        ...     Minute(
        ...         at_ms=60_000 * (i + 1),
        ...         exposed=200,
        ...         control=0,
        ...         active_exposed=40,
        ...         active_control=0,
        ...         crashes_exposed=1,
        ...         crashes_control=0,
        ...         users_exposed=1,
        ...         users_control=0,
        ...     )
        ...     for i in range(90)
        ... ]
        >>> [(alarm.at_ms // 60_000 - 1, alarm.decision) for alarm in Sentry().watch(minutes, 0)]
        [(1, 'kill')]

    Source: Sentry documentation, "Metric alerts: crash rate"; getsentry/sentry, `MIN_SESSIONS_TO_FIRE` (pull request
    28285), `CRASH_FREE_DANGER_THRESHOLD` and `CRASH_FREE_WARNING_THRESHOLD` of the release pages.
    """

    name = "sentry-crash-rate"
    rule = "less than 98 % (warning: 99.5 %) of the last hour's sessions are crash-free, from 50 sessions on"
    source = (
        "Sentry metric alert on crash-free sessions; thresholds of its release pages, 50 sessions of its issue alerts"
    )
    blind_to = (
        "harm in less than 2 % of sessions (hold: 0.5 %), devices that never report, whether the controls crash as much"
    )

    def watch(self, minutes: Sequence[Minute], began_ms: int) -> list[Alarm]:
        """Return the alarms of one update; see `Peer.watch`."""
        alarms: list[Alarm] = []
        hour = Trailing(HOUR_MS, 2)
        level = 0
        for minute in since(minutes, began_ms):
            sessions, crashed = hour.push(minute.at_ms, minute.active_exposed, minute.users_exposed)
            # A session that could not be counted still ended in a crash.
            sessions = max(sessions, crashed)
            if sessions < SESSIONS_LEAST:
                continue
            free = (sessions - crashed) / sessions
            reached = 2 if free < CRITICAL_BELOW else 1 if free < WARNING_BELOW else 0
            if reached > level:
                decision: Decision = "kill" if reached == 2 else "hold"
                limit = CRITICAL_BELOW if reached == 2 else WARNING_BELOW
                sentence = f"{free:.2%} of {sessions} sessions in 1 h crash-free (< {limit:.1%})"
                alarms.append(Alarm(minute.at_ms, decision, sentence))
            level = reached
        return alarms
