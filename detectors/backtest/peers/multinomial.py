"""An anytime-valid test of the crashes' split between the arms: Lindon and Malek's multinomial test."""

import math
from collections.abc import Sequence
from typing import Final

from detectors.backtest.peers.peer import Alarm, since
from detectors.backtest.trace import Minute

ALPHA: Final = 0.05
PRIOR: Final = 1.0


class Multinomial:
    """Rejects that crashes split between the arms as the devices do, at a level that holds whenever one looks.

    Rule as published. Under the hypothesis of equal rates the next crash comes from arm i with probability theta_i, the
    arm's share. With counts S before crash n and a Dirichlet(a) prior the Bayes factor

        E_n = E_{n-1} * ((a_i + S_i) / sum_j (a_j + S_j)) / theta_i

    is a martingale from 1, so that rejecting at E >= 1 / alpha is wrong in at most alpha of the rollouts. alpha is the
    customary 0.05, the prior the uniform one, a = (1, 1).

    Adapted. Shares are constant in the paper and grow in a rollout: theta is the exposed share of the devices at the
    end of the minute, and E is still a martingale, since any forecast may stand in the numerator. The test has two
    sides, a cure rejects as well; it is an alarm only while more crashes are exposed than the shares predict. It looks
    at the end of each minute; in which order a minute's crashes came makes no difference to E.

    Example:
        A crash of an exposed device each minute, which are a tenth of all: E is 10, 33, ... and reaches 20 at index 1.

        >>> minutes = [
        ...     Minute(
        ...         at_ms=60_000 * (i + 1),
        ...         exposed=100,
        ...         control=900,
        ...         active_exposed=20,
        ...         active_control=180,
        ...         crashes_exposed=1,
        ...         crashes_control=0,
        ...         users_exposed=1,
        ...         users_control=0,
        ...     )
        ...     for i in range(10)
        ... ]
        >>> [alarm.at_ms // 60_000 - 1 for alarm in Multinomial().watch(minutes, 0)]
        [1]

    Source: Lindon and Malek (2022), "Anytime-valid inference for multinomial count data", NeurIPS.
    """

    name = "multinomial-anytime"
    rule = "Dirichlet-multinomial Bayes factor of 20 against a split of crashes as the devices are split"
    source = "Lindon and Malek (2022); alpha 0.05 is customary, the uniform prior assumed"
    blind_to = (
        "cells that differ, repeated crashes of a device (they count as independent), reporting delay by arm, silent "
        "devices; its guarantee is for a ratio of exactly 1, and holds 1 in 20 rollouts wrong to be fine"
    )

    def watch(self, minutes: Sequence[Minute], began_ms: int) -> list[Alarm]:
        """Return the alarm of one update, if any; the test ends with its rejection. See `Peer.watch`."""
        log_e, exposed, control, expected = 0.0, 0, 0, 0.0
        for minute in since(minutes, began_ms):
            devices = minute.exposed + minute.control
            if not minute.exposed or not minute.control:
                continue
            share = minute.exposed / devices
            for arm, crashes in ((0, minute.crashes_control), (1, minute.crashes_exposed)):
                log_e += _gain(exposed if arm else control, exposed + control, crashes)
                log_e -= crashes * math.log(share if arm else 1 - share)
                exposed, control = exposed + arm * crashes, control + (1 - arm) * crashes
                expected += crashes * share
            if log_e >= -math.log(ALPHA) and exposed > expected:
                sentence = (
                    f"{exposed} of {exposed + control} crashes exposed, {expected:.1f} expected: "
                    f"Bayes factor 10^{log_e / math.log(10):.1f} (>= {1 / ALPHA:g})"
                )
                return [Alarm(minute.at_ms, "kill", sentence)]
        return []


def _gain(arm: int, total: int, crashes: int) -> float:
    """Return the log forecast of `crashes` in a row from an arm that had `arm` of `total` crashes."""
    ahead = math.lgamma(PRIOR + arm + crashes) - math.lgamma(PRIOR + arm)
    return ahead - (math.lgamma(2 * PRIOR + total + crashes) - math.lgamma(2 * PRIOR + total))
