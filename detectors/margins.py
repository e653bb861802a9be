"""Harm in one corner: half the evidence of all cells together, half the mean over margin cells.

A margin is a part of the fleet that may be hit alone: one OS build, one model, one form factor, one age band. Pooled
over all cells, harm in one of them drowns in everybody else's crashes. Stands above `tenants` and below the tracker;
plain numbers and the margins' names only. Invariant: the weights of the margins and of what is not given out yet sum
to 1, and no weight ever changes.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np

from detectors.sequential import Floats
from detectors.tenants import NOBODY, ROWS, Flags, Numbers, TenantRatio, TenantRatioState

MARGINS_MAX: Final = 256
# Ratios on a margin's grid: half as many as the pooled one's cost under one crash and halve the state.
_POINTS: Final = 12
_FIRST_SHARE: Final = 0.75
_LATER_SHARE: Final = (1.0 - _FIRST_SHARE) * 6.0 / math.pi**2


class MarginEvents(NamedTuple):
    """Crashes of one batch that fall into one margin.

    Attributes:
        margin: its name, such as `model=Latitude 5440`.
        places: which crashes of the batch, ascending, shape (m,).
        share: upper bound of the exposed share at each, shape (m, 33), row j without group j.
    """

    margin: str
    places: Numbers
    share: Floats


class MarginRatiosState(msgspec.Struct, kw_only=True):
    """What `MarginRatios.snapshot` gives: enough to go on bit for bit."""

    pooled: TenantRatioState
    weights: dict[str, float]
    margins: dict[str, TenantRatioState]
    later: int
    started: bool


class MarginRatios:
    """Evidence over all cells, mixed with that of the margins.

    Model. With E the pooled evidence and E_m that of margin m over its own crashes,

        E_mixed = 1/2 E + 1/2 [ sum over m of v_m E_m + (1 - sum of v_m) ]

    row by row of the groups left out. Margins met before the first crash share 3/4 evenly; the i-th met after it gets
    6 / (pi^2 i^2) of the last quarter, so any number can follow; weight that was not given out stays a bet on nothing.
    A mean of e-processes with fixed weights is an e-process, however the margins overlap.

    Assumptions. Those of `TenantRatio` for the pooled crashes and for each margin. A margin is met by exposure counts,
    never because of how its crashes turned out.

    A false alarm costs a stopped rollout of a good update. Where harm is everywhere, being mixed costs a factor 2.

    Args:
        tolerated_ratio: rho0.
        floor: least factor of a tenant group.
        leave_out: whether rows leave tenant groups out; see `TenantRatio`.

    Example:
        One crash in 20 is of model A, and always an exposed one; of the others one in ten is, as the share says. 10^6
        is reached at the model's crash with index 8, while the pooled evidence says nothing.

        >>> mixed = MarginRatios(1.5)
        >>> mixed.meet(["model=A", "model=B"])
        >>> rng = np.random.default_rng(7)
        >>> fired = None
        >>> for i in range(400):
        ...     one = i % 20 == 0
        ...     x = np.array([one or rng.random() < 0.1])
        ...     share = np.full((1, ROWS), 0.1)
        ...     events = [MarginEvents("model=A" if one else "model=B", np.array([0]), share)]
        ...     _ = mixed.update(x, share, np.array([i % 7]), events)
        ...     if fired is None and mixed.log_evidence[NOBODY] >= np.log(1e6):
        ...         fired = i
        >>> fired // 20, bool(mixed.pooled.log_evidence[NOBODY] < np.log(1e3))
        (8, True)
    """

    def __init__(self, tolerated_ratio: float = 1.5, floor: float = 0.1, *, leave_out: bool = True) -> None:
        self.pooled = TenantRatio(tolerated_ratio, floor, leave_out=leave_out)
        self._leave_out = leave_out
        self._weights: dict[str, float] = {}
        self._margins: dict[str, TenantRatio] = {}
        self._waiting: dict[str, None] = {}
        self._later = 0
        self._started = False

    @property
    def log_evidence(self) -> Floats:
        """Natural logs of the mixed e-values now: shape (33,), row j without group j, the last with all."""
        return _mix(self.pooled.log_evidence, self._log_mean())

    def meet(self, names: Iterable[str]) -> None:
        """Note margins that devices at risk were seen in, before any crash in them is scored."""
        for name in names:
            if name in self._weights or name in self._waiting:
                continue
            if len(self._weights) + len(self._waiting) >= MARGINS_MAX:
                return
            if self._started:
                self._give_later(name)
            else:
                self._waiting[name] = None

    def _give_later(self, name: str) -> None:
        self._later += 1
        self._weights[name] = _LATER_SHARE / self._later**2

    def _start(self) -> None:
        self._started = True
        self._weights = {name: _FIRST_SHARE / len(self._waiting) for name in self._waiting}
        self._waiting = {}

    def update(self, exposed: Flags, share: Floats, group: Numbers, margins: Sequence[MarginEvents]) -> Floats:
        """Score crashes in order of arrival and return the log evidence after each: shape (n, 33).

        Args:
            exposed: shape (n,): whether the device that crashed was exposed.
            share: shape (n, 33): upper bound of the exposed share in the crash's cell, row j without group j's devices.
            group: shape (n,): the device's tenant group.
            margins: the batch's crashes by margin; a crash may be in many margins or in none.
        """
        if not len(exposed):
            return np.zeros((0, ROWS))
        if not self._started:
            self._start()
        pooled = self.pooled.update(exposed, share, group)
        # Each margin's evidence after each crash of the batch: it stands still while the others crash.
        paths: dict[str, Floats] = {}
        for events in margins:
            if events.margin not in self._weights:
                self.meet([events.margin])
            if events.margin not in self._weights:
                continue
            detector = self._margins.get(events.margin)
            if detector is None:
                made = TenantRatio(self.pooled.tolerated_ratio, self.pooled.floor, _POINTS, leave_out=self._leave_out)
                detector = self._margins[events.margin] = made
            before = detector.log_evidence
            moved = detector.update(exposed[events.places], events.share, group[events.places])
            turn = np.searchsorted(events.places, np.arange(len(exposed)), side="right")
            paths[events.margin] = np.concatenate([before[None], moved])[turn]
        return _mix(pooled, self._log_mean(paths, len(exposed)))

    def _log_mean(self, paths: dict[str, Floats] | None = None, count: int = 0) -> Floats:
        """Return the log of the weighted mean over margins, now or after each of `count` crashes."""
        names = list(self._margins)
        rest = 1.0 - math.fsum(self._weights[name] for name in names)
        shape = (count, ROWS) if paths is not None else (ROWS,)
        terms = [np.full(shape, math.log(max(rest, 1e-300)))]
        for name in names:
            value = self._margins[name].log_evidence if paths is None else paths.get(name)
            if value is None:
                value = np.broadcast_to(self._margins[name].log_evidence, shape)
            terms.append(value + math.log(self._weights[name]))
        mean: Floats = np.logaddexp.reduce(np.stack(terms), axis=0)
        return mean

    def loudest(self) -> tuple[str, float] | None:
        """Return the margin with the highest evidence (nobody left out) and its natural log; None before any crash."""
        if not self._margins:
            return None
        name = max(self._margins, key=lambda one: (float(self._margins[one].log_evidence[NOBODY]), one))
        return name, float(self._margins[name].log_evidence[NOBODY])

    def snapshot(self) -> MarginRatiosState:
        """Return the state; `restore` of it goes on bit for bit."""
        return MarginRatiosState(
            pooled=self.pooled.snapshot(),
            weights=self._weights if self._started else dict.fromkeys(self._waiting, 0.0),
            margins={name: detector.snapshot() for name, detector in self._margins.items()},
            later=self._later,
            started=self._started,
        )

    @classmethod
    def restore(cls, state: MarginRatiosState) -> "MarginRatios":
        """Build what `state` was taken from."""
        mixed = cls(state.pooled.tolerated_ratio, state.pooled.floor, leave_out=state.pooled.leave_out)
        mixed.pooled = TenantRatio.restore(state.pooled)
        if state.started:
            mixed._weights = dict(state.weights)
        else:
            mixed._waiting = dict.fromkeys(state.weights)
        mixed._margins = {name: TenantRatio.restore(one) for name, one in state.margins.items()}
        mixed._later, mixed._started = state.later, state.started
        return mixed


def _mix(pooled: Floats, margins: Floats) -> Floats:
    mixed: Floats = np.logaddexp(pooled, margins) - math.log(2.0)
    return mixed
