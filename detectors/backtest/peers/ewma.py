"""An EWMA control chart with three-sigma limits on the exposed devices' crash rate."""

import math
from collections.abc import Sequence
from typing import Final

from detectors.backtest.peers.peer import MINUTE_MS, Alarm, Ticks, since
from detectors.backtest.trace import Minute

SUBGROUP_MS: Final = 5 * MINUTE_MS
WEIGHT: Final = 0.2
SIGMAS: Final = 3.0


class Ewma:
    """Alerts when the smoothed crash rate of the exposed devices leaves three-sigma limits round the controls' rate.

    Rule as published. For points x_t of a process in control with mean mu and deviation sigma_t,

        z_t = weight * x_t + (1 - weight) * z_{t-1},  z_0 = mu,  var_t = weight^2 sigma_t^2 + (1 - weight)^2 var_{t-1}

    and z_t above mu + 3 sqrt(var_t) is out of control. Weight 0.2 and 3 sigma are the textbook's choice.

    Adapted. x_t is the exposed devices' crashes in five minutes by their number, mu the controls' rate over the rollout
    so far, sigma_t^2 = mu / devices as for counts of rare events (a u chart). Only the upper limit alarms. There are no
    points until a control has crashed. It alarms at each excursion once.

    Example:
        Both arms crash alike for an hour, then the exposed ones four times as often: the chart says so at its second
        point after, index 69.

        >>> minutes = [
        ...     Minute(
        ...         at_ms=60_000 * (i + 1),
        ...         exposed=1000,
        ...         control=9000,
        ...         active_exposed=200,
        ...         active_control=1800,
        ...         crashes_exposed=(4 if i >= 60 else 1) * (i % 5 == 0),
        ...         crashes_control=9 * (i % 5 == 0),
        ...         users_exposed=1 * (i % 5 == 0),
        ...         users_control=9 * (i % 5 == 0),
        ...     )
        ...     for i in range(120)
        ... ]
        >>> [alarm.at_ms // 60_000 - 1 for alarm in Ewma().watch(minutes, 0)]
        [69]

    Source: Roberts (1959), "Control chart tests based on geometric moving averages", Technometrics; NIST/SEMATECH
    e-Handbook of Statistical Methods, 6.3.2.4; Montgomery, "Introduction to Statistical Quality Control", for counts.
    """

    name = "ewma-3-sigma"
    rule = "EWMA (weight 0.2) of the exposed crash rate above 3 sigma over the controls' rate"
    source = "Roberts (1959), NIST handbook; weight and limit are the textbook's, five-minute points are assumed"
    blind_to = (
        "that counts are small: where a point expects far less than one crash a single one is beyond 3 sigma; that it "
        "looks every five minutes; devices that never report, cells that differ"
    )

    def watch(self, minutes: Sequence[Minute], began_ms: int) -> list[Alarm]:
        """Return the alarms of one update; see `Peer.watch`."""
        alarms: list[Alarm] = []
        ticks = Ticks(began_ms, SUBGROUP_MS)
        chart = _Chart()
        control_crashes = control_minutes = crashes = device_minutes = 0
        outside = False
        for minute in since(minutes, began_ms):
            control_crashes += minute.crashes_control
            control_minutes += minute.control
            crashes += minute.crashes_exposed
            device_minutes += minute.exposed
            if not ticks.due(minute.at_ms):
                continue
            if device_minutes and control_crashes:
                rate = control_crashes / control_minutes if control_minutes else math.inf
                above = chart.point(crashes, device_minutes, rate)
                if above and not outside:
                    sentence = (
                        f"{crashes} crashes in 5 min, {rate * device_minutes:.3g} expected: "
                        f"smoothed rate {chart.sigmas:.1f} sigma over the controls' (> {SIGMAS:g})"
                    )
                    alarms.append(Alarm(minute.at_ms, "kill", sentence))
                outside = above
            crashes = device_minutes = 0
        return alarms


class _Chart:
    """The smoothed excess over the mean: the same chart as that of the rate, and right when the mean is learnt anew."""

    def __init__(self) -> None:
        self._excess = 0.0
        self._variance = 0.0
        self.sigmas = 0.0

    def point(self, crashes: int, device_minutes: int, rate: float) -> bool:
        """Add a point, `rate` being the controls' crashes a device-minute; return whether it is out of control."""
        if math.isinf(rate):
            return False
        excess = crashes / device_minutes - rate
        self._excess = WEIGHT * excess + (1 - WEIGHT) * self._excess
        self._variance = WEIGHT**2 * rate / device_minutes + (1 - WEIGHT) ** 2 * self._variance
        self.sigmas = self._excess / math.sqrt(self._variance)
        return self.sigmas > SIGMAS
