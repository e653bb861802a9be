"""An isolation forest on crash rates, trained on the controls: the anomaly detector out of the box."""

from collections.abc import Iterator, Sequence
from typing import Final, cast

import numpy as np
import numpy.typing as npt

from detectors.backtest.peers.peer import MINUTE_MS, Alarm, Ticks, since
from detectors.backtest.peers.windows import Trailing
from detectors.backtest.trace import Minute

Floats = npt.NDArray[np.float64]

WINDOW_MS: Final = 5 * MINUTE_MS
ROWS_LEAST: Final = 12
SEED: Final = 0


class IsolationForestRates:
    """Alerts when the exposed devices' five minutes look like none that the controls have had.

    Rule as published. An isolation forest (100 trees on samples of up to 256 rows) cuts the feature space at random;
    rows that are alone after few cuts are anomalous, those with a score above 0.5 are outliers. All parameters are
    scikit-learn's defaults (`contamination="auto"`), with a fixed seed.

    Adapted. A row is an arm's five minutes: crash reports and devices with a crash, both per active device and minute.
    The forest learns the controls' rows from an hour after the beginning on, anew each time they have doubled, and
    judges the exposed arm's rows after that; only rows with more crashes than the controls' median row alarm. It alarms
    once in each run of outliers.

    Example:
        Controls vary a little, the exposed devices are like them for two hours and then crash ten times as often.

        >>> minutes = [
        ...     Minute(
        ...         at_ms=60_000 * (i + 1),
        ...         exposed=5000,
        ...         control=5000,
        ...         active_exposed=1000,
        ...         active_control=1000,
        ...         crashes_exposed=(10 if i >= 120 else 1) * (20 + i * 7 % 5),
        ...         crashes_control=20 + i * 7 % 5 + i // 5 % 4,
        ...         users_exposed=(10 if i >= 120 else 1) * (20 + i * 7 % 5),
        ...         users_control=20 + i * 7 % 5 + i // 5 % 4,
        ...     )
        ...     for i in range(180)
        ... ]
        >>> IsolationForestRates().watch(minutes, 0)[-1].at_ms // 60_000 - 1
        124

    Source: Liu, Ting and Zhou (2008), "Isolation forest", ICDM; scikit-learn, `sklearn.ensemble.IsolationForest`.
    """

    name = "isolation-forest"
    rule = "the exposed devices' five-minute crash rates are an outlier among the controls' rows"
    source = (
        "Liu et al. (2008) in scikit-learn with its defaults; features, five minutes and one hour's start are assumed"
    )
    blind_to = (
        "that the arms differ in size: a small arm's rate jumps with every crash and looks like none of the large "
        "one's; the first hour; how often it looks; devices that never report"
    )

    def watch(self, minutes: Sequence[Minute], began_ms: int) -> list[Alarm]:
        """Return the alarms of one update; see `Peer.watch`."""
        alarms: list[Alarm] = []
        times, exposed, control = _rows(minutes, began_ms)
        outside = False
        for start, end in _stretches(len(times)):
            known = control[:start][~np.isnan(control[:start, 0])]
            if len(known) < ROWS_LEAST:
                continue
            rows = exposed[start:end]
            outliers = _outliers(known, rows)
            for at_ms, row, outlier in zip(times[start:end], rows, outliers.tolist(), strict=True):
                if outlier and not outside:
                    median = float(np.median(known[:, 0]))
                    sentence = (
                        f"{row[0]:.3g} crashes per active device and minute is an outlier among {len(known)} rows of "
                        f"controls (median {median:.3g})"
                    )
                    alarms.append(Alarm(at_ms, "kill", sentence))
                outside = outlier
        return alarms


def _rows(minutes: Sequence[Minute], began_ms: int) -> tuple[list[int], Floats, Floats]:
    """Return the ends of the five-minute windows and each arm's features, shape (n, 2); nan where nobody was active."""
    window, ticks = Trailing(WINDOW_MS, 6), Ticks(began_ms, WINDOW_MS)
    times: list[int] = []
    sums: list[tuple[int, ...]] = []
    for minute in since(minutes, began_ms):
        exposed = (minute.crashes_exposed, minute.users_exposed, minute.active_exposed)
        control = (minute.crashes_control, minute.users_control, minute.active_control)
        total = window.push(minute.at_ms, *exposed, *control)
        if ticks.due(minute.at_ms):
            times.append(minute.at_ms)
            sums.append(total)
    counts = np.array(sums, dtype=np.float64).reshape(-1, 2, 3)
    active = np.where(counts[:, :, 2:] > 0, counts[:, :, 2:], np.nan)
    rates = counts[:, :, :2] / active
    return times, rates[:, 0], rates[:, 1]


def _stretches(rows: int) -> Iterator[tuple[int, int]]:
    """Yield the stretches of rows that one forest judges: each is as long as all before it."""
    start = ROWS_LEAST
    while start < rows:
        yield start, min(2 * start, rows)
        start *= 2


def _outliers(known: Floats, rows: Floats) -> npt.NDArray[np.bool_]:
    """Return which rows are outliers with more crashes than the median known row; rows with nan are none."""
    # scikit-learn takes a second to import; only this peer needs it.
    from sklearn.ensemble import IsolationForest

    found = np.zeros(len(rows), dtype=np.bool_)
    valid = ~np.isnan(rows[:, 0])
    if valid.any():
        forest = IsolationForest(random_state=SEED).fit(known)
        predicted = cast(npt.NDArray[np.int64], forest.predict(rows[valid]))
        found[valid] = (predicted == -1) & (rows[valid, 0] > np.median(known[:, 0]))
    return found
