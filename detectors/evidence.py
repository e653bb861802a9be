"""One rollout's evidence from crashes: rate ratio over all cells and margins, new signatures, and what rivals explain.

Between the tracker, which knows the wire, and the methods, which know numbers: one batch of crashes with their shares
goes in, the evidence after each of them comes out. Every array has 33 columns where a tenant group may be left out.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from detectors.cell_margins import margins_of_cell
from detectors.counts import Place, Shares
from detectors.delay import DelayCorrection, DelayCorrectionState, DelayHistory, corrected
from detectors.interval import Interval, RatioEstimate, RatioState
from detectors.margins import MarginEvents, MarginRatios, MarginRatiosState
from detectors.novelty import KnownSignatures, Novelty, NoveltyState
from detectors.own import OwnEvidence, OwnState
from detectors.ratio_bounds import RatioBounds, RatioBoundsState
from detectors.sequential import Floats, RateRatio, RateRatioState
from detectors.tenants import NOBODY, Flags, Numbers
from detectors.third import ThirdRivals, ThirdState
from ingest.windows import FirstCrash


class Crashes(NamedTuple):
    """First crashes of one step that are evidence, in order of arrival.

    Attributes:
        exposed: shape (n,).
        group: tenant groups, shape (n,).
        tenants: hashes of the tenants, shape (n,).
        shares: exposed shares at risk at each.
        margins: the margins each device belongs to.
        cells: their cells.
        signatures: version-free signatures.
        new: shape (n, 33): whether the signature is new to the rollout, by row.
        delay_seconds: from each crash to its arrival, shape (n,).
        since_seconds: from the beginning of the push that concerns it to its arrival, shape (n,).
    """

    exposed: Flags
    group: Numbers
    tenants: Numbers
    shares: Shares
    margins: Sequence[tuple[str, ...]]
    cells: Sequence[str]
    signatures: Sequence[str]
    new: Flags
    delay_seconds: Floats
    since_seconds: Floats


class Scored(NamedTuple):
    """A first crash that is evidence: where it is looked up, its arm, and how late it was heard of.

    Attributes:
        delay_seconds: from the crash to its arrival.
        since_seconds: from the beginning of the push that concerns it to its arrival.
    """

    place: Place
    crash: FirstCrash
    exposed: bool
    delay_seconds: float
    since_seconds: float

    @property
    def margins(self) -> tuple[str, ...]:
        """The margins that the device belongs to."""
        return (*margins_of_cell(self.crash.cell), *self.place.margins)


def batch_of(chosen: Sequence[Scored], shares: Shares, known: KnownSignatures, origin_ms: int) -> Crashes:
    """Return crashes as columns; `known` tells which signatures are new since `origin_ms`."""
    return Crashes(
        exposed=np.array([one.exposed for one in chosen], dtype=bool),
        group=np.array([one.crash.group for one in chosen], dtype=np.int64),
        tenants=np.array([one.crash.tenant for one in chosen], dtype=np.int64),
        shares=shares,
        margins=[one.margins for one in chosen],
        cells=[one.crash.cell for one in chosen],
        signatures=[one.crash.signature for one in chosen],
        new=np.stack([known.new_to(one.crash.signature, origin_ms) for one in chosen]),
        delay_seconds=np.array([one.delay_seconds for one in chosen]),
        since_seconds=np.array([one.since_seconds for one in chosen]),
    )


class CrashEvidenceState(msgspec.Struct, kw_only=True):
    """What `CrashEvidence.snapshot` gives: enough to go on bit for bit."""

    rate: MarginRatiosState
    early: MarginRatiosState
    novelty: NoveltyState
    marginal: RateRatioState
    marginal_bounds: RatioBoundsState
    own_bounds: RatioBoundsState
    telling: int
    delay: DelayCorrectionState
    upper: RatioState
    known: RatioState
    own: OwnState | None = None
    third: ThirdState | None = None


class CrashEvidence:
    """Scores crashes by every method that lives on them.

    Attributes:
        rate: rate ratio, all cells and margins.
        early: the same against the ratio that a hold tolerates, nobody left out: it may hold, never kill.
        novelty: the same of new signatures.
        marginal: the raw rate ratio over cells that rivals don't split: what the crashes look like, taken alone.
        third: the rate ratio beside rivals that the cells are not split by.
        telling: crashes that could tell the rollout from its rivals.
        own: each tenant's evidence against his own controls.
    """

    def __init__(self, tolerated_ratio: float, floor: float, hold_ratio: float) -> None:
        self.rate = MarginRatios(tolerated_ratio, floor)
        self.early = MarginRatios(hold_ratio, floor, leave_out=False)
        self.novelty = Novelty(tolerated_ratio, floor)
        self.marginal = RateRatio(tolerated_ratio)
        self.third = ThirdRivals(tolerated_ratio, floor)
        self.marginal_bounds, self.own_bounds = RatioBounds(), RatioBounds()
        self.telling = 0
        self.own = OwnEvidence(tolerated_ratio)
        self._delay = DelayCorrection()
        self._upper, self._known = RatioEstimate(), RatioEstimate()
        self._interval: tuple[int, Interval, Interval] | None = None

    def meet(self, margins: Iterable[str]) -> None:
        """Note margins that devices at risk were seen in."""
        names = list(margins)
        self.rate.meet(names)
        self.early.meet(names)

    def score(self, crashes: Crashes, history: DelayHistory) -> tuple[Floats, Floats, Floats]:
        """Score crashes; return the log evidence of rate ratio, new signatures, and early, each after every crash.

        Shapes are (n, 33) for the first two and (n,) for the last.
        """
        x, shares = crashes.exposed, crashes.shares
        factor = self._factors(crashes, history)
        upper = corrected(shares.upper, factor[:, None])
        marginal = corrected(shares.marginal, factor)
        margins = _by_margin(crashes.margins, upper)
        rate = self.rate.update(x, upper, crashes.group, margins)
        early = self.early.update(x, upper, crashes.group, margins)[:, NOBODY]
        novel = self.novelty.update(x, upper, crashes.group, crashes.new, crashes.signatures)
        self.marginal.update(x, marginal)
        self.third.score(x, upper, crashes.group, crashes.cells)
        self.own.update(x, corrected(shares.own, factor), crashes.group, crashes.tenants)
        # What was known of a share may exceed its corrected bound by nothing: the factor is never below 1.
        low, own = np.minimum(shares.known, marginal), np.minimum(shares.known, upper[:, NOBODY])
        self.marginal_bounds.update(x, marginal, low)
        self.own_bounds.update(x, upper[:, NOBODY], own)
        self.telling += int(np.count_nonzero((own >= 1e-3) & (upper[:, NOBODY] <= 1 - 1e-3)))
        self._upper.add(x, upper[:, NOBODY])
        self._known.add(x, shares.known)
        return rate, novel, early

    def _factors(self, crashes: Crashes, history: DelayHistory) -> Floats:
        told = zip(
            crashes.exposed.tolist(), crashes.delay_seconds.tolist(), crashes.since_seconds.tolist(), strict=True
        )
        return np.array(
            [
                self._delay.exposed(history, delay, since) if exposed else self._delay.control(history, since)
                for exposed, delay, since in told
            ]
        )

    def intervals(self) -> tuple[Interval, Interval]:
        """Return the rate ratio's interval by the shares' upper bounds, and by what was known of them."""
        events = self._upper.events
        if self._interval is None or self._interval[0] != events:
            self._interval = events, self._upper.interval(), self._known.interval()
        return self._interval[1], self._interval[2]

    @property
    def events(self) -> int:
        """How many crashes were scored."""
        return self._upper.events

    def snapshot(self) -> CrashEvidenceState:
        """Return the state; `restore` of it goes on bit for bit."""
        return CrashEvidenceState(
            rate=self.rate.snapshot(),
            early=self.early.snapshot(),
            novelty=self.novelty.snapshot(),
            marginal=self.marginal.snapshot(),
            marginal_bounds=self.marginal_bounds.snapshot(),
            own_bounds=self.own_bounds.snapshot(),
            telling=self.telling,
            delay=self._delay.snapshot(),
            upper=self._upper.snapshot(),
            known=self._known.snapshot(),
            third=self.third.snapshot(),
            own=self.own.snapshot(),
        )

    @classmethod
    def restore(cls, state: CrashEvidenceState) -> "CrashEvidence":
        """Build what `state` was taken from."""
        evidence = cls(state.rate.pooled.tolerated_ratio, state.rate.pooled.floor, state.early.pooled.tolerated_ratio)
        evidence.early = MarginRatios.restore(state.early)
        evidence.rate = MarginRatios.restore(state.rate)
        evidence.novelty = Novelty.restore(state.novelty)
        evidence.marginal = RateRatio.restore(state.marginal)
        evidence.marginal_bounds = RatioBounds.restore(state.marginal_bounds)
        evidence.own_bounds = RatioBounds.restore(state.own_bounds)
        evidence.telling = state.telling
        evidence.third.load(state.third)
        if state.own is not None:
            evidence.own = OwnEvidence.restore(state.own, state.rate.pooled.tolerated_ratio)
        evidence._delay = DelayCorrection.restore(state.delay)
        evidence._upper, evidence._known = RatioEstimate.restore(state.upper), RatioEstimate.restore(state.known)
        return evidence


def _by_margin(margins: Sequence[tuple[str, ...]], upper: Floats) -> list[MarginEvents]:
    places: dict[str, list[int]] = {}
    for place, names in enumerate(margins):
        for name in names:
            places.setdefault(name, []).append(place)
    found = []
    for name, chosen in places.items():
        where = np.array(chosen, dtype=np.int64)
        found.append(MarginEvents(name, where, upper[where]))
    return found
