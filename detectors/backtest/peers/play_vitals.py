"""Google Play's Android vitals: bad-behaviour thresholds on a day's users, over all and on one model."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from detectors.backtest.peers.peer import DAY_MS, Alarm, since
from detectors.backtest.trace import Minute

OVERALL_SHARE: Final = 0.0109
MODEL_SHARE: Final = 0.08
USERS_LEAST: Final = 100


class PlayVitals:
    """Alerts on days on which too many of the users had a crash, over all models or on a single one.

    Rule as published. An app behaves badly when at least 1.09 % of its daily active users have a crash that they
    perceive, over all device models, or at least 8 % of those on a single model. Both are defaults that nobody can set.
    Days too small to tell are left out; how small is not published: 100 users are taken here.

    Adapted. A day is a UTC day and is judged the moment it ends; Play's own figures come a day or more later. The
    devices on the version at its end are its active users. A user is a device; a device that crashes in several minutes
    counts in each, up to the number of devices. On a model each crash report counts as a user. Visibility in the store
    goes by a mean of 28 days, which no rollout lasts; the single day is the earliest that Play can show.

    Example:
        A day of 10,000 users with 109 crashes is just bad; it is told at its end, index 1439.

        >>> def day(crashes):
        ...     return [
        ...         Minute(
        ...             at_ms=60_000 * (i + 1),
        ...             exposed=10_000,
        ...             control=0,
        ...             active_exposed=2000,
        ...             active_control=0,
        ...             crashes_exposed=int(i < crashes),
        ...             crashes_control=0,
        ...             users_exposed=int(i < crashes),
        ...             users_control=0,
        ...         )
        ...         for i in range(1440)
        ...     ]
        >>> [alarm.at_ms // 60_000 - 1 for alarm in PlayVitals().watch(day(109), 0)]
        [1439]
        >>> PlayVitals().watch(day(108), 0)
        []

    Source: Android developer documentation, "Crashes", section on Android vitals metrics and thresholds.
    """

    name = "play-vitals"
    rule = "1.09 % of a day's users have a crash, or 8 % of those on one model"
    source = "Android vitals, user-perceived crash rate; both thresholds are defaults, 100 users a day is assumed"
    blind_to = "everything until the day is over, devices that never report, harm below 1.09 % of users and day"

    def watch(self, minutes: Sequence[Minute], began_ms: int) -> list[Alarm]:
        """Return the alarms of one update; see `Peer.watch`."""
        alarms: list[Alarm] = []
        users, by_model = 0, Counter[str]()
        day: int | None = None
        last: Minute | None = None
        for minute in since(minutes, began_ms):
            # A minute that ends at midnight belongs to the day that ends.
            today = (minute.at_ms - 1) // DAY_MS
            if last is not None and day is not None and today != day:
                # The day's last minute is missing: it is judged as soon as the next day's first minute is here.
                alarms.extend(Alarm(minute.at_ms, "kill", said) for said in _judge(last, users, by_model))
                users, by_model = 0, Counter()
            day, last = today, minute
            users += minute.users_exposed
            by_model.update({model: crashes for model, (_, _, crashes, _) in minute.models.items() if crashes})
            if minute.at_ms % DAY_MS == 0:
                alarms.extend(Alarm(minute.at_ms, "kill", said) for said in _judge(minute, users, by_model))
                users, by_model, last = 0, Counter(), None
        return alarms


def _judge(end: Minute, users: int, by_model: Counter[str]) -> Iterator[str]:
    share = _share(users, end.exposed)
    if share >= OVERALL_SHARE:
        yield f"{min(users, end.exposed)} of {end.exposed} users a day had a crash: {share:.2%} (>= 1.09 %)"
    for model, crashes in sorted(by_model.items()):
        devices = end.models[model][0] if model in end.models else 0
        share = _share(crashes, devices)
        if share >= MODEL_SHARE:
            yield f"{min(crashes, devices)} of {devices} users of {model} a day had a crash: {share:.2%} (>= 8 %)"


def _share(crashed: int, devices: int) -> float:
    return min(crashed, devices) / devices if devices >= USERS_LEAST else 0.0
