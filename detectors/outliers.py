"""Outliers: crash patterns out of the ordinary that belong to no rollout; for an alert, never for a kill.

A pattern is a signature on an OS build and a model. Each hour in which a pattern crashed is compared with the hours
that patterns had before, its own and the others'. Plain numbers only; memory is bounded by patterns and hours.
"""

import math
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from detectors.patterns import FEATURES, YOUNG_HOURS, Facts, History, HistoryState, PatternHour
from detectors.sequential import Floats
from detectors.surge import UNKNOWN, Spread, log_surge, measure

# Hours of patterns that a model learns from at most, the latest; half of them teach it, half measure it.
ROWS_MAX: Final = 20_000
ROWS_LEAST: Final = 200
TREES: Final = 200
SAMPLES: Final = 256
# A larger rise counts as this one, so that its exponential stays a number.
RISE_MAX: Final = 30.0
# A pattern that mostly hits devices a rollout reached is that rollout's business.
ROLLOUT_SHARE: Final = 0.5
# What the spread is measured from, for each past hour: devices, what was usual, and whether the pattern was young.
_SPREAD_COLUMNS: Final = 3
_LOG_E_MAX: Final = 690.0


class PatternScore(NamedTuple):
    """How unusual one pattern's hour is.

    Attributes:
        pattern: what was seen.
        expected: crashes an hour that its own history leads to expect.
        anomaly: the forest's score, 0 to 1; minus infinity for an hour with no more crashes than expected.
        p: share of the measuring hours, this one included, that are at least as unusual; uniform or larger if this hour
            is like them.
        e: an e-value, for e-LOND; its mean is at most 1 if this hour is like them.
        sentence: the same for a person.
    """

    pattern: PatternHour
    expected: float
    anomaly: float
    p: float
    e: float
    sentence: str

    @property
    def log10_e(self) -> float:
        """log10 of the e-value."""
        return math.log10(self.e)


class CrashPatternsState(msgspec.Struct, kw_only=True):
    """What `CrashPatterns.snapshot` gives: enough to go on bit for bit with the same scikit-learn."""

    seed: int
    history: HistoryState
    rows: bytes
    rises: bytes
    spread_rows: bytes
    model_rows: bytes | None
    model_rises: bytes
    spreads: tuple[Spread, Spread]


def e_value(p: float) -> float:
    """Return the e-value of a p-value: the mean of k p^(k-1) over k between 0 and 1.

    (1 - p + p ln p) / (p (ln p)^2): 1/2 at p = 1, 118 at p = 10^-4.

    Source: Vovk and Wang (2021), "E-values: calibration, combination and applications", equation 2.

    Raises:
        ValueError: p is no number above 0 and up to 1.
    """
    if not 0 < p <= 1:
        raise ValueError(f"p-value {p} lies outside 0 to 1")
    if p > 1 - 1e-4:
        # Numerator and denominator vanish together; the limit is 1/2.
        return 0.5
    return (1 - p + p * math.log(p)) / (p * math.log(p) ** 2)


class CrashPatterns:
    """Scores each hour of crash patterns against how such hours usually look.

    Model. An hour of a pattern becomes seven numbers, all from what was known before it: crashes, their rise over the
    pattern's own mean, over the same hour of day and over the last day, devices per crash, tenants, the pattern's age.
    An isolation forest (scikit-learn) learns from every second of the past hours with crashes; the others measure: the
    p-value is the rank of an hour's score among theirs, which is exact whatever the forest is worth, as long as the
    hour is like the measuring ones (split conformal). Only more crashes than expected count as unusual.
    The e-value is the mean of three: one made of the p-value; the hour's exp(rise) over the mean of exp(rise) of the
    measuring hours and itself, which tells a storm from a gust where ranks can't; and how much better a surge explains
    the devices than the usual spread does (`surge`), which alone can grow beyond the number of measuring hours.

    Assumptions. Hours are exchangeable with the measuring ones: no drift since the last `fit`; hours of one pattern
    that are alike because they are neighbours make the p-value a little too sure. Refit daily. Past incidents in the
    history make later ones look less unusual.

    The third part takes tails as the negative binomial has them, measured on young patterns (a week) and others apart.

    What it can't see: rare patterns spread over many names, a rise that comes slowly or below a factor of two.

    A false alarm costs a look at a board. Hand the e-values to e-LOND in the order given: an hour has many patterns.

    Args:
        seed: of the forest; the same seed, history and fits give the same scores.

    Example:
        Three hundred quiet hours of two patterns, then one of them crashes on forty machines.

        >>> watch = CrashPatterns()
        >>> quiet = [PatternHour(s, "22631.3880", "Latitude", 1 + (s == "b"), 1, 1, 0) for s in ("a", "b")]
        >>> for hour in range(300):
        ...     _ = watch.score(hour, quiet)
        >>> watch.fit()
        True
        >>> usual = watch.score(300, quiet)
        >>> storm = watch.score(301, [PatternHour("a", "22631.3880", "Latitude", 44, 40, 5, 0)])[0]
        >>> min(score.p for score in usual) > 0.05, storm.p < 0.01
        (True, True)

    Source: Liu, Ting and Zhou (2008), "Isolation forest"; Vovk, Gammerman and Shafer (2005), "Algorithmic Learning in a
    Random World", for split conformal p-values.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self._history = History()
        self._rows: Floats = np.zeros((0, FEATURES))
        self._rises: Floats = np.zeros(0)
        self._spread_rows: Floats = np.zeros((0, _SPREAD_COLUMNS))
        self._spreads: tuple[Spread, Spread] = (UNKNOWN, UNKNOWN)
        self._model_rows: Floats | None = None
        self._model_rises: Floats = np.zeros(0)
        self._forest: Any = None
        self._measure: Floats = np.zeros(0)
        self._tilts = 0.0

    @property
    def fitted(self) -> bool:
        """Tell whether there is a model to score with."""
        return self._model_rows is not None

    @property
    def rows(self) -> int:
        """Past hours of patterns that the next `fit` learns from."""
        return len(self._rows)

    @property
    def dropped(self) -> int:
        """Pattern hours that were not looked at because there were more patterns than are kept."""
        return self._history.dropped

    def score(self, hour: int, seen: Sequence[PatternHour]) -> list[PatternScore]:
        """Score an hour's patterns against the past, then make the hour part of it.

        Returns:
            Scores of all patterns that belong to no rollout, the least p first; none before the first `fit`.

        Args:
            hour: hours since the epoch, after the last hour scored; hours left out had no crashes.
            seen: the hour's patterns that crashed, each once, in any order.

        Raises:
            ValueError: an hour that is not later than the last one, a pattern twice, or impossible counts.
        """
        kept, facts = self._history.look(hour, seen)
        own = [i for i, one in enumerate(kept) if one.on_rollout < ROLLOUT_SHARE * one.crashes]
        scores: list[PatternScore] = []
        if own and self.fitted:
            anomalies = self._anomalies(facts.features[own], facts.rises[own])
            surges = self._surges(_spread_rows(kept, facts)[own])
            scores = [
                self._scored(kept[i], float(facts.expected[i]), float(facts.rises[i]), *both)
                for i, *both in zip(own, anomalies.tolist(), surges.tolist(), strict=True)
            ]
        if self._history.warm(hour) and own:
            self._rows = np.concatenate([self._rows, facts.features[own]])[-ROWS_MAX:]
            self._rises = np.concatenate([self._rises, facts.rises[own]])[-ROWS_MAX:]
            self._spread_rows = np.concatenate([self._spread_rows, _spread_rows(kept, facts)[own]])[-ROWS_MAX:]
        self._history.add(hour, kept)
        return sorted(scores, key=lambda score: (score.p, -score.anomaly, score.pattern))

    def fit(self) -> bool:
        """Learn from the hours seen so far; call it about daily. False where there are too few of them (200)."""
        if len(self._rows) < ROWS_LEAST:
            return False
        self._model_rows, self._model_rises, self._forest = self._rows.copy(), self._rises.copy(), None
        count, usual, young = self._spread_rows.T
        self._spreads = (
            measure(count[young == 0], usual[young == 0]),
            measure(count[young == 1], usual[young == 1]),
        )
        return True

    def _surges(self, rows: Floats) -> Floats:
        """Return the log e-values of "no surge", young patterns by their own spread; `rows` as `_spread_rows`."""
        count, usual, young = rows.T
        old, fresh = (log_surge(count, usual, spread) for spread in self._spreads)
        found: Floats = np.where(young == 1, fresh, old)
        return found

    def _learn(self) -> None:
        """Grow the forest from every second row of the model's and measure it with the others."""
        # Imported here: scikit-learn takes a second to import, and most of Cordon needs none of it.
        from sklearn.ensemble import IsolationForest

        assert self._model_rows is not None
        rows = self._model_rows[::2]
        samples = min(len(rows), SAMPLES)
        self._forest = IsolationForest(n_estimators=TREES, max_samples=samples, random_state=self.seed, n_jobs=1)
        self._forest.fit(rows)
        rises = self._model_rises[1::2]
        self._measure = np.sort(self._anomalies(self._model_rows[1::2], rises))
        self._tilts = float(np.exp(np.minimum(rises, RISE_MAX)).sum())

    def _anomalies(self, features: Floats, rises: Floats) -> Floats:
        if self._forest is None:
            self._learn()
        found: Floats = np.where(rises > 0, -self._forest.score_samples(features), -np.inf)
        return found

    def _scored(
        self, one: PatternHour, expected: float, rise: float, anomaly: float, log_surge_value: float
    ) -> PatternScore:
        count = len(self._measure)
        at_least = count - int(np.searchsorted(self._measure, anomaly, side="left"))
        p = (1 + at_least) / (count + 1)
        tilt = math.exp(min(rise, RISE_MAX))
        surge = math.exp(min(log_surge_value, _LOG_E_MAX))
        e = (e_value(p) + (count + 1) * tilt / (self._tilts + tilt) + surge) / 3
        where = " and ".join(_plain(text) for text in (one.os_build, one.model) if text) or "all machines"
        sentence = (
            f"{_plain(one.signature)} on {where}: {one.crashes:,} crashes on {one.devices:,} devices of {one.tenants:,}"
            f" tenants in an hour, {expected:.2g} expected; as unusual as {at_least:,} of {count:,} past hours with"
            f" crashes (p = {p:.2g}, e = {e:.3g}). It belongs to no rollout under watch."
        )
        return PatternScore(one, expected, anomaly, p, e, sentence)

    def snapshot(self) -> CrashPatternsState:
        """Return the state; `restore` of it goes on bit for bit, with the same version of scikit-learn."""
        return CrashPatternsState(
            seed=self.seed,
            history=self._history.snapshot(),
            rows=self._rows.tobytes(),
            rises=self._rises.tobytes(),
            spread_rows=self._spread_rows.tobytes(),
            model_rows=None if self._model_rows is None else self._model_rows.tobytes(),
            model_rises=self._model_rises.tobytes(),
            spreads=self._spreads,
        )

    @classmethod
    def restore(cls, state: CrashPatternsState) -> "CrashPatterns":
        """Build the watch that `state` was taken from; its forest is grown again when it is first needed."""
        watch = cls(state.seed)
        watch._history = History.restore(state.history)
        watch._rows = np.frombuffer(state.rows, dtype=np.float64).reshape(-1, FEATURES).copy()
        watch._rises = np.frombuffer(state.rises, dtype=np.float64).copy()
        watch._spread_rows = np.frombuffer(state.spread_rows, dtype=np.float64).reshape(-1, _SPREAD_COLUMNS).copy()
        watch._spreads = state.spreads
        if state.model_rows is not None:
            watch._model_rows = np.frombuffer(state.model_rows, dtype=np.float64).reshape(-1, FEATURES).copy()
        watch._model_rises = np.frombuffer(state.model_rises, dtype=np.float64).copy()
        return watch


def _spread_rows(kept: Sequence[PatternHour], facts: Facts) -> Floats:
    """Return devices, the usual mean, and 1 for a young pattern, shape (n, 3)."""
    devices = np.array([one.devices for one in kept], dtype=np.float64)
    return np.column_stack([devices, facts.usual, facts.ages < YOUNG_HOURS])


def _plain(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)[:128]
