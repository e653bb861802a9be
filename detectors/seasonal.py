"""Expected crash rates by hour of week and age of the install, learnt from past rollouts and controls.

Feeds the known baseline: what a healthy device of this age would do at this hour. Plain numbers only. Counts are kept
in a bounded grid (`SeasonalHistory`); a fit (`SeasonalRates.fit`) is two small tables, so asking it costs a look-up.
"""

import warnings
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from detectors.sequential import Floats

HOURS_OF_WEEK: Final = 168
# Ages at which the effect of age is learnt; between them it is straight in log(1 + age), outside it stays level.
AGE_KNOTS_HOURS: Final = (0.0, 1.0, 6.0, 24.0, 72.0, 168.0, 720.0)
# The grid's age classes end at these hours; the last has no end. Finer than the knots, so that slopes can be seen.
AGE_ENDS_HOURS: Final = (0.5, 1.0, 3.0, 6.0, 12.0, 24.0, 48.0, 72.0, 120.0, 168.0, 336.0, 720.0)
AGE_CLASSES: Final = len(AGE_ENDS_HOURS) + 1
CRASHES_LEAST: Final = 30
HOURS_LEAST: Final = 48
# No expected rate below this share of the mean: one crash in a quiet hour must not be a wonder.
FLOOR_SHARE: Final = 0.1
# How far effects are believed to go, as standard deviations of the log rate, before any crash was seen.
SMOOTH_SD: Final = 1.0
HOUR_SD: Final = 0.2
AGE_SD: Final = 1.0
# A fit whose crashes add up to within this share of those seen has settled.
SETTLED: Final = 1e-3
_DAY_HARMONICS: Final = (1, 2, 3)
_WEEK_HARMONICS: Final = (1, 2)
_AGE_STARTS: Final = np.array((0.0, *AGE_ENDS_HOURS))
# A class stands at the middle of its logs; the open one at its start.
_AGE_MIDDLES: Final = np.expm1((np.log1p(_AGE_STARTS) + np.log1p(np.append(_AGE_STARTS[1:], _AGE_STARTS[-1]))) / 2.0)
_HOUR_MS: Final = 3_600_000
# 1970-01-01 was a Thursday: three days after the Monday that hour 0 belongs to.
_EPOCH_HOUR: Final = 72


def hour_of_week(at_ms: int, utc_offset_minutes: int = 0) -> int:
    """Return the hour of the week, 0 for Monday 00:00 to 01:00, of an event time in milliseconds since the epoch.

    Crashes follow people: give the devices' offset from UTC where it is known, else hours are UTC's.
    """
    return ((at_ms + utc_offset_minutes * 60_000) // _HOUR_MS + _EPOCH_HOUR) % HOURS_OF_WEEK


class SeasonalHistoryState(msgspec.Struct, kw_only=True):
    """What `SeasonalHistory.snapshot` gives: the grid's two tables."""

    crashes: bytes
    device_days: bytes


class SeasonalHistory:
    """Crashes and device-days of healthy devices, by hour of week and age of the install.

    A grid of 168 by 13 numbers, whatever the fleet and however long it runs; `fade` lets it follow a changing fleet.

    Example:
        >>> history = SeasonalHistory()
        >>> history.add(9, 2.0, crashes=3, device_days=1000.0)
        >>> history.crashes, history.device_days
        (3.0, 1000.0)
    """

    def __init__(self) -> None:
        self._crashes: Floats = np.zeros((HOURS_OF_WEEK, AGE_CLASSES))
        self._device_days: Floats = np.zeros((HOURS_OF_WEEK, AGE_CLASSES))

    @property
    def crashes(self) -> float:
        """First crashes added, less what has faded."""
        return float(self._crashes.sum())

    @property
    def device_days(self) -> float:
        """Device-days at risk added, less what has faded."""
        return float(self._device_days.sum())

    @property
    def hours_seen(self) -> int:
        """How many hours of the week have any device-time."""
        return int(np.count_nonzero(self._device_days.sum(axis=1)))

    def table(self) -> tuple[Floats, Floats]:
        """Return copies of crashes and device-days, each of shape (168, 13)."""
        return self._crashes.copy(), self._device_days.copy()

    def add(self, hour: int, age_hours: float, *, crashes: int, device_days: float) -> None:
        """Add a stretch of one hour of the week, of installs of about one age.

        Args:
            hour: hour of week, from `hour_of_week`.
            age_hours: hours since the install, 0 or more.
            crashes: first crashes in it.
            device_days: device-time at risk in it.

        Raises:
            ValueError: an hour outside the week, a negative or endless number, or crashes without device-time.
        """
        if not 0 <= hour < HOURS_OF_WEEK:
            raise ValueError(f"hour {hour} is none of the week: give 0 (Monday 00:00) to {HOURS_OF_WEEK - 1}")
        if not (age_hours >= 0 and crashes >= 0 and 0 <= device_days < np.inf):
            raise ValueError(f"age {age_hours} h, {crashes} crashes, {device_days} device-days: all must be 0 or more")
        if crashes and not device_days:
            raise ValueError(f"{crashes} crashes in no device-time: give the time at risk they fell in")
        row = int(np.searchsorted(AGE_ENDS_HOURS, age_hours, side="right"))
        self._crashes[hour, row] += crashes
        self._device_days[hour, row] += device_days

    def fade(self, weight: float) -> None:
        """Multiply all that was added by `weight`, between 0 and 1; once a week by 0.9 forgets half in seven weeks.

        Raises:
            ValueError: the weight lies outside 0 to 1.
        """
        if not 0 <= weight <= 1:
            raise ValueError(f"weight {weight} lies outside 0 to 1")
        self._crashes *= weight
        self._device_days *= weight

    def snapshot(self) -> SeasonalHistoryState:
        """Return the state; `restore` of it goes on bit for bit."""
        return SeasonalHistoryState(crashes=self._crashes.tobytes(), device_days=self._device_days.tobytes())

    @classmethod
    def restore(cls, state: SeasonalHistoryState) -> "SeasonalHistory":
        """Build the history that `state` was taken from.

        Raises:
            ValueError: the tables are of another shape, so of another version of Cordon.
        """
        history = cls()
        shape = history._crashes.shape
        history._crashes = np.frombuffer(state.crashes, dtype=np.float64).reshape(shape).copy()
        history._device_days = np.frombuffer(state.device_days, dtype=np.float64).reshape(shape).copy()
        return history


class SeasonalRatesState(msgspec.Struct, kw_only=True):
    """What `SeasonalRates.snapshot` gives: the fitted effects."""

    mean_rate: float
    hour_effects: bytes
    age_effects: bytes
    dispersion: float
    note: str


class SeasonalRates:
    """Expected first crashes per device-day at an hour of the week and an age of the install.

    Model. Crashes in a cell of the history are Poisson with mean = device-days times

        rate(h, a) = mean * exp( daily and weekly waves(h) + deviation[h] + piecewise straight line in log(1 + a) )

    fitted by penalised maximum likelihood (scikit-learn's PoissonRegressor on rates with exposure as weight, which is
    the Poisson likelihood with an exposure offset). The penalty is a normal prior on each effect: waves and age freely
    (sd 1 of the log rate), single hours tightly (sd 0.2), so that an hour of its own must be earned by crashes and an
    hour never seen falls back to the waves. Below 30 crashes or 48 hours of the week the rate is flat, and `note` says
    so. No rate is below a tenth of the mean.

    Assumptions. Effects multiply: the week looks alike at every age. The history is of healthy devices; a wave of
    crashes left in it raises what is expected at its hours, which costs sensitivity and never makes a false alarm.
    Device-days are those at risk.

    What it can't see: holidays, months, a fleet that is changing faster than the history fades, and harm that past
    rollouts all had. `dispersion` (Pearson's chi-square per degree of freedom; 1 is Poisson) says how much more counts
    vary than the model: above 2, an hour's crashes are not to be judged by this rate alone.

    A wrong rate costs: too high, harm is found later; too low, healthy rollouts look bad. Hence the floor, and hence
    the known baseline allows twice the worst past rollout on top.

    Example:
        A fleet that crashes three times as often in office hours.

        >>> history = SeasonalHistory()
        >>> for hour in range(168):
        ...     busy = hour < 120 and 8 <= hour % 24 < 18
        ...     history.add(hour, 100.0, crashes=30 if busy else 10, device_days=10_000.0)
        >>> rates = SeasonalRates.fit(history)
        >>> noon, night = rates.predict(12, 100.0), rates.predict(26, 100.0)
        >>> 2.2 < noon / night < 3.2
        True

    Source: McCullagh and Nelder (1989), "Generalized Linear Models", 6.3.2, for rates with an offset; Bishop (2006),
    3.3, for the penalty as a prior.
    """

    def __init__(
        self, mean_rate: float, hour_effects: Floats, age_effects: Floats, dispersion: float = 1.0, note: str = ""
    ) -> None:
        """Make a table of rates; `fit` and `restore` do it for you.

        Args:
            mean_rate: first crashes per device-day, above 0.
            hour_effects: shape (168,), added to the log rate.
            age_effects: shape (7,), added to the log rate at `AGE_KNOTS_HOURS`.
            dispersion: Pearson's chi-square per degree of freedom of the fit; infinite where nothing fitted.
            note: why the rates are flat; empty where they are not.

        Raises:
            ValueError: a shape is wrong, or a number is none.
        """
        if hour_effects.shape != (HOURS_OF_WEEK,) or age_effects.shape != (len(AGE_KNOTS_HOURS),):
            raise ValueError(f"effects of shapes {hour_effects.shape} and {age_effects.shape}: give (168,) and (7,)")
        if not (mean_rate > 0 and np.isfinite([mean_rate, *hour_effects, *age_effects]).all()):
            raise ValueError(f"mean rate {mean_rate} or an effect is no number above zero")
        self.mean_rate = mean_rate
        self.dispersion = dispersion
        self.note = note
        self._hours = hour_effects
        self._ages = age_effects

    @classmethod
    def fit(cls, history: SeasonalHistory) -> "SeasonalRates":
        """Return the rates learnt from `history`; flat ones, with a note, where it is too thin.

        Raises:
            ValueError: the history holds no device-time at all.
        """
        crashes, days = history.table()
        total = float(crashes.sum())
        if not days.sum() > 0:
            raise ValueError("the history holds no device-time: add past rollouts or controls first")
        # Half a crash more than seen: a fleet in which nothing ever crashed is no promise that nothing can.
        mean = (total + 0.5) / float(days.sum())
        if total < CRASHES_LEAST or history.hours_seen < HOURS_LEAST:
            note = (
                f"flat: {total:.0f} crashes over {history.hours_seen} hours of the week"
                f" ({CRASHES_LEAST} over {HOURS_LEAST} are needed to tell hours apart)"
            )
            return cls(mean, np.zeros(HOURS_OF_WEEK), np.zeros(len(AGE_KNOTS_HOURS)), 1.0, note)
        hours, ages = np.nonzero(days)
        columns, scales = _features(hours, _AGE_MIDDLES[ages])
        # In units of the mean rate weights are expected crashes, and the penalty below is a prior of sd 1 a column.
        expected = days[hours, ages] * (total / float(days.sum()))
        model = _fitted(columns * scales, crashes[hours, ages] / expected, expected)
        if model is None:
            note = (
                "flat: the history's counts differ beyond what hours and ages can explain; look for an incident in it"
            )
            return cls(mean, np.zeros(HOURS_OF_WEEK), np.zeros(len(AGE_KNOTS_HOURS)), np.inf, note)
        return cls._of(model, scales, total / float(days.sum()), crashes[hours, ages], expected, columns)

    @classmethod
    def _of(
        cls, model: Any, scales: Floats, mean: float, seen: Floats, expected: Floats, columns: Floats
    ) -> "SeasonalRates":
        weights = np.asarray(model.coef_, dtype=np.float64) * scales
        fitted = expected * np.exp(float(model.intercept_) + columns @ weights)
        dispersion = float(((seen - fitted) ** 2 / fitted).sum()) / max(1, len(seen) - len(weights) - 1)
        every_hour, _ = _features(np.arange(HOURS_OF_WEEK), np.zeros(HOURS_OF_WEEK))
        knots = len(AGE_KNOTS_HOURS)
        hour_effects: Floats = every_hour[:, knots:] @ weights[knots:]
        return cls(mean * float(np.exp(model.intercept_)), hour_effects, weights[:knots].copy(), dispersion)

    @property
    def floor(self) -> float:
        """The least rate that is ever predicted, per device-day."""
        return FLOOR_SHARE * self.mean_rate

    def predict(self, hour: int, age_hours: float) -> float:
        """Return the expected first crashes per device-day, at or above `floor`.

        Args:
            hour: hour of week, from `hour_of_week`.
            age_hours: hours since the install, 0 or more.

        Raises:
            ValueError: an hour outside the week or a negative age.
        """
        return float(self.predict_many(np.array([hour]), np.array([age_hours]))[0])

    def predict_many(self, hours: npt.ArrayLike, age_hours: npt.ArrayLike) -> Floats:
        """Return `predict` for many at once: shapes (n,) and (n,) give shape (n,).

        Raises:
            ValueError: an hour outside the week or a negative age.
        """
        hour = np.asarray(hours, dtype=np.int64)
        age = np.asarray(age_hours, dtype=np.float64)
        if not (np.all((hour >= 0) & (hour < HOURS_OF_WEEK)) and np.all(age >= 0)):
            raise ValueError(f"hours must lie in 0 to {HOURS_OF_WEEK - 1} and ages be 0 or more")
        effect = self._hours[hour] + np.interp(np.log1p(age), np.log1p(AGE_KNOTS_HOURS), self._ages)
        rates: Floats = np.maximum(self.mean_rate * np.exp(effect), self.floor)
        return rates

    def hour_factors(self) -> Floats:
        """Return how much more is expected at each hour of the week than on average, at any age: shape (168,), mean 1.

        None is below a tenth or above ten times the average, before they are made to average 1.
        """
        factors = np.exp(self._hours)
        factors = np.clip(factors / factors.mean(), FLOOR_SHARE, 1.0 / FLOOR_SHARE)
        mean_one: Floats = factors / factors.mean()
        return mean_one

    def snapshot(self) -> SeasonalRatesState:
        """Return the state; `restore` of it predicts bit for bit the same."""
        return SeasonalRatesState(
            mean_rate=self.mean_rate,
            hour_effects=self._hours.tobytes(),
            age_effects=self._ages.tobytes(),
            dispersion=self.dispersion,
            note=self.note,
        )

    @classmethod
    def restore(cls, state: SeasonalRatesState) -> "SeasonalRates":
        """Build the rates that `state` was taken from."""
        hours = np.frombuffer(state.hour_effects, dtype=np.float64).copy()
        ages = np.frombuffer(state.age_effects, dtype=np.float64).copy()
        return cls(state.mean_rate, hours, ages, state.dispersion, state.note)


def _features(hours: npt.NDArray[np.int64], ages: Floats) -> tuple[Floats, Floats]:
    """Return columns of shape (n, 7 + 10 + 168) and each column's prior sd: age hats, waves, single hours."""
    knots = np.log1p(AGE_KNOTS_HOURS)
    hats = [np.interp(np.log1p(ages), knots, unit) for unit in np.eye(len(knots))]
    angles = [2.0 * np.pi * k * hours / 24.0 for k in _DAY_HARMONICS]
    angles += [2.0 * np.pi * k * hours / HOURS_OF_WEEK for k in _WEEK_HARMONICS]
    waves = [wave(angle) for angle in angles for wave in (np.cos, np.sin)]
    single = np.eye(HOURS_OF_WEEK)[hours]
    scales = np.repeat([AGE_SD, SMOOTH_SD, HOUR_SD], [len(hats), len(waves), HOURS_OF_WEEK])
    return np.column_stack([*hats, *waves, single]), scales


def _fitted(columns: Floats, rates: Floats, expected: Floats) -> Any | None:
    """Return the fitted PoissonRegressor; None where neither solver finds finite, settled effects."""
    # Imported here: predicting needs no scikit-learn, and its import takes a second.
    from sklearn.linear_model import PoissonRegressor

    for solver, rounds in (("newton-cholesky", 100), ("lbfgs", 5_000)):
        model = PoissonRegressor(alpha=1.0 / float(expected.sum()), solver=solver, tol=1e-7, max_iter=rounds)
        # A first step that overshoots is the solver's own business; what it ends with is checked below.
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            try:
                model.fit(columns, rates, sample_weight=expected)
            except (ValueError, ArithmeticError, np.linalg.LinAlgError):
                continue
            log_rates = float(model.intercept_) + columns @ np.asarray(model.coef_)
            # At the optimum the intercept makes fitted and seen crashes add up to the same number.
            off = (expected * (np.exp(log_rates) - rates)).sum() / expected.sum()
        if np.isfinite(log_rates).all() and abs(off) < SETTLED:
            return model
    return None
