"""The alert that most teams write first: a Prometheus rule that compares two rates and waits five minutes."""

from collections.abc import Sequence
from typing import Final

from detectors.backtest.peers.peer import MINUTE_MS, Alarm, since
from detectors.backtest.peers.windows import Trailing
from detectors.backtest.trace import Minute

RANGE_MS: Final = 5 * MINUTE_MS
FOR_MS: Final = 5 * MINUTE_MS
FACTOR: Final = 2.0


class Prometheus:
    """Alerts when the exposed devices have crashed at more than twice the controls' rate for five minutes.

    Rule as written for Prometheus:

        expr: sum(rate(crashes_total{arm="exposed"}[5m])) / devices{arm="exposed"}
              > 2 * sum(rate(crashes_total{arm="control"}[5m])) / devices{arm="control"}
        for: 5m

    The expression is evaluated every minute (the default). From the first time it holds the alert is pending, and fires
    once it has held without a break for `for`; one evaluation at which it doesn't hold resets it. The range and `for`
    are those of Prometheus' own examples; the factor is anybody's choice, here 2.

    Adapted. Nothing: without controls the right side has no value and the rule is silent, as in Prometheus. Where no
    control crashed in the five minutes its rate is 0, and any exposed crash holds.

    Example:
        Exposed devices crash at 3 times the controls' rate from the first minute on: pending at index 0, firing at 5.

        >>> minutes = [
        ...     Minute(
        ...         at_ms=60_000 * (i + 1),
        ...         exposed=100,
        ...         control=1000,
        ...         active_exposed=20,
        ...         active_control=200,
        ...         crashes_exposed=3,
        ...         crashes_control=10,
        ...         users_exposed=3,
        ...         users_control=10,
        ...     )
        ...     for i in range(30)
        ... ]
        >>> [alarm.at_ms // 60_000 - 1 for alarm in Prometheus().watch(minutes, 0)]
        [5]

    Source: Prometheus documentation, "Alerting rules" (`for`), "rate()"; Google SRE workbook, chapter 16, for comparing
    a canary with its control.
    """

    name = "prometheus-rate"
    rule = "rate of crashes over 5 min above 2 times the controls' for 5 min without a break"
    source = (
        "Prometheus alerting rule; evaluation interval a default, range and `for` of its examples, factor 2 assumed"
    )
    blind_to = (
        "how few crashes it goes by: two exposed ones 1 to 5 min apart fire it while no control crashes, further apart "
        "they never do, however many; devices that never report; cells that differ"
    )

    def watch(self, minutes: Sequence[Minute], began_ms: int) -> list[Alarm]:
        """Return the alarms of one update; see `Peer.watch`."""
        alarms: list[Alarm] = []
        window = Trailing(RANGE_MS, 2)
        active_at: int | None = None
        firing = False
        for minute in since(minutes, began_ms):
            exposed, control = window.push(minute.at_ms, minute.crashes_exposed, minute.crashes_control)
            if not _holds(minute, exposed, control):
                active_at, firing = None, False
                continue
            active_at = minute.at_ms if active_at is None else active_at
            if not firing and minute.at_ms - active_at >= FOR_MS:
                firing = True
                sentence = (
                    f"{exposed} crashes of {minute.exposed} exposed devices in 5 min, {control} of {minute.control} "
                    f"controls: above {FACTOR:g} times their rate for 5 min"
                )
                alarms.append(Alarm(minute.at_ms, "kill", sentence))
        return alarms


def _holds(minute: Minute, exposed: int, control: int) -> bool:
    if not minute.exposed or not minute.control:
        return False
    # Multiplied out, so that a rate exactly at the limit does not depend on rounding.
    return exposed * minute.control > FACTOR * control * minute.exposed
