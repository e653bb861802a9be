"""Firebase Crashlytics' velocity alert: one issue breaks a share of all sessions."""

from collections.abc import Sequence
from typing import Final

from detectors.backtest.peers.peer import MINUTE_MS, Alarm, since
from detectors.backtest.peers.windows import Trailing, TrailingNames
from detectors.backtest.trace import Minute

WINDOW_MS: Final = 30 * MINUTE_MS
SESSIONS_SHARE: Final = 0.01
USERS_OVER: Final = 25


class Crashlytics:
    """Alerts when a single issue breaks enough of the version's sessions and users within half an hour.

    Rule as published. An alert is triggered if, during 30 minutes, an issue (a signature) exceeds the set share of a
    version's sessions and exceeds the set number of users, and none was raised for the issue on that version before.
    Defaults: 1 % of sessions, 25 users. (Until 2023: an hour, 250 sessions and once for an issue.)

    Adapted. A device heard from in a minute is a session. Minutes do not tell users by signature, so an issue's crashes
    in a minute stand for users, at most as many as had any crash in it; a device that crashes again in another minute
    counts again, which makes the alert earlier, never later.

    Example:
        Five crashes a minute of one signature among 800 sessions a minute reach 26 users at index 5, but the share of
        0.6 % is never enough; ten crashes reach both at index 2.

        >>> def minutes(crashes):
        ...     return [
        ...         Minute(
        ...             at_ms=60_000 * (i + 1),
        ...             exposed=4000,
        ...             control=0,
        ...             active_exposed=800,
        ...             active_control=0,
        ...             crashes_exposed=crashes,
        ...             crashes_control=0,
        ...             users_exposed=crashes,
        ...             users_control=0,
        ...             signatures={"a.sys": (crashes, 0)},
        ...         )
        ...         for i in range(60)
        ...     ]
        >>> Crashlytics().watch(minutes(5), 0)
        []
        >>> [alarm.at_ms // 60_000 - 1 for alarm in Crashlytics().watch(minutes(10), 0)]
        [2]

    Source: Firebase documentation, "Customize velocity alerts".
    """

    name = "crashlytics-velocity"
    rule = "one signature ends over 1 % of sessions and touches over 25 users in 30 min, once per signature and version"
    source = "Firebase Crashlytics, increasing-velocity alert; both thresholds and the window are defaults"
    blind_to = (
        "harm in up to 1 % of sessions or 25 users, devices that never report, one fault spread over "
        "many signatures; what all versions have alike counts as the new one's"
    )

    def watch(self, minutes: Sequence[Minute], began_ms: int) -> list[Alarm]:
        """Return the alarms of one update; see `Peer.watch`."""
        alarms: list[Alarm] = []
        sessions, issues = Trailing(WINDOW_MS, 1), TrailingNames(WINDOW_MS)
        told: set[str] = set()
        for minute in since(minutes, began_ms):
            (seen,) = sessions.push(minute.at_ms, minute.active_exposed)
            here = {
                issue: min(crashes, minute.users_exposed)
                for issue, (crashes, _) in minute.signatures.items()
                if crashes and minute.users_exposed
            }
            users_by_issue = issues.push(minute.at_ms, here)
            # Only an issue of this minute can have risen, but sessions of old minutes also leave the window.
            for issue in sorted(users_by_issue.keys() - told):
                users = users_by_issue[issue]
                if users > USERS_OVER and (not seen or users / seen > SESSIONS_SHARE):
                    told.add(issue)
                    sentence = f"{issue}: {users} users (> {USERS_OVER}) in {seen} sessions of 30 min (> 1 %)"
                    alarms.append(Alarm(minute.at_ms, "kill", sentence))
        return alarms
