"""Rate ratio that withstands lies: evidence by tenant group with a floor, and what it is without any one group.

Stands between the raw formula (`sequential`) and the tracker: the same events, but nobody's word counts for more than
his own devices. Plain numbers only. Invariant: row j of everything here was computed without a single number of tenant
group j, neither its crashes nor its devices; the last row leaves nobody out.
"""

import math
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from detectors.sequential import POINTS, RATIO_MAX, SHARE_MIN, Floats, log_mean_exp, ratio_grid

GROUPS: Final = 32
# One row for each group that is left out, and a last one that leaves nobody out.
ROWS: Final = GROUPS + 1
NOBODY: Final = GROUPS
FLOOR: Final = 0.1
_BATCH: Final = 64

Flags = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.int64]


class TenantRatioState(msgspec.Struct, kw_only=True):
    """What `TenantRatio.snapshot` gives: enough to go on bit for bit."""

    tolerated_ratio: float
    floor: float
    points: int
    leave_out: bool
    left_out: list[int]
    groups: list[int]
    log_m: bytes
    log_product: bytes
    exposed: int
    control: int
    share_sum: float


class TenantRatio:
    """Evidence that crashes fall on the exposed arm too often, whatever one tenant group says.

    Model. M_k(rho) is `RateRatio`'s formula over the crashes of tenant group k alone. What counts is

        E_j = mean over rho of  product over k != j of  [ floor + (1 - floor) * M_k(rho) ]

    with shares that were told without the devices of group j; `log_evidence[j]` is its logarithm, and the last row
    leaves nobody out. Each factor is an e-process of its own crashes, and at any moment only one factor moves, so the
    product is one as well: P(E_j ever reaches 1 / alpha) <= alpha for a healthy rollout. If group j lies as it likes,
    E_j does not contain a number of it: the minimum over j is valid against any one liar.

    The floor bounds what a group can take away: however many control crashes it invents, its factor never falls below
    `floor`, so it costs the others log10(1 / floor) of evidence, about one crash.

    Assumptions. Those of `RateRatio`, for every row: the share at an event is known before it, and told no smaller
    than it is. A liar is one group; two that conspire are two tenants behind the evidence.

    A false alarm costs a stopped rollout of a good update.

    Args:
        tolerated_ratio: rho0, the rate ratio that is still no harm.
        floor: least factor of a group, between 0 and 1.
        points: how many ratios the grid has.
        leave_out: False keeps the last row only, at a thirtieth of the cost: all rows are what it is with nobody left
            out.

    Example:
        Exposed crashes in a row at a share of 0.1, of four groups in turn. With nobody left out alpha = 1e-6 is reached
        at index 7, without the loudest group at index 10.

        >>> detector = TenantRatio(tolerated_ratio=1.5)
        >>> shares = np.full((1, ROWS), 0.1)
        >>> rows = [detector.update([True], shares, [i % 4])[0] for i in range(16)]
        >>> [i for i, row in enumerate(rows) if row[NOBODY] >= np.log(1e6)][0]
        7
        >>> [i for i, row in enumerate(rows) if row.min() >= np.log(1e6)][0]
        10

    Source: Vovk and Wang (2021), "E-values: calibration, combination and applications", for products and means of
    e-values; the floor is a mixture with the constant bet 1.
    """

    def __init__(
        self,
        tolerated_ratio: float = 1.5,
        floor: float = FLOOR,
        points: int = POINTS,
        *,
        leave_out: bool = True,
    ) -> None:
        if not 0 < floor < 1:
            raise ValueError(f"the floor must lie between 0 and 1, not at {floor}")
        self.tolerated_ratio = tolerated_ratio
        self.floor = floor
        self._leave_out = leave_out
        self._ratios = ratio_grid(tolerated_ratio, RATIO_MAX, points)
        self._gain = np.log(self._ratios / tolerated_ratio)
        self._log_floor, self._log_rest = math.log(floor), math.log1p(-floor)
        # Groups whose row differs from the last one; a row splits off when its group has a say for the first time.
        self._left_out: list[int] = []
        self._log_m: dict[int, Floats] = {}
        self._log_product: Floats = np.zeros((1, points))
        self.exposed = 0
        self.control = 0
        self._share_sum = 0.0
        self._evidence: Floats = np.zeros(ROWS)

    @property
    def log_evidence(self) -> Floats:
        """Natural logs of the e-values now: shape (33,), row j without group j, the last with all."""
        return self._evidence

    @property
    def events(self) -> int:
        """How many crashes were scored."""
        return self.exposed + self.control

    @property
    def expected_share(self) -> float | None:
        """The mean share over the scored events with nobody left out; None before the first."""
        return self._share_sum / self.events if self.events else None

    def update(
        self,
        exposed: npt.ArrayLike,
        share: Floats,
        group: npt.ArrayLike,
        counts: Flags | None = None,
    ) -> Floats:
        """Score events in order of arrival and return the log evidence after each: shape (n, 33).

        A batch gives, bit for bit, what its events give one by one.

        Args:
            exposed: shape (n,): whether the device that crashed was exposed.
            share: shape (n, 33): upper bound of the exposed share at risk, row j without group j's devices.
            group: shape (n,): the device's tenant group, 0 to 31.
            counts: shape (n, 33): whether the event counts in a row; all rows but the own group's if left out.

        Raises:
            ValueError: the shapes differ, a share is no number between 0 and 1, or a group is none.
        """
        x, g = np.asarray(exposed, dtype=bool), np.asarray(group, dtype=np.int64)
        if x.ndim != 1 or x.shape != g.shape or share.shape != (len(x), ROWS):
            raise ValueError(f"shapes {x.shape}, {share.shape}, {g.shape}: give (n,), (n, {ROWS}) and (n,)")
        if not bool(np.all((share >= 0.0) & (share <= 1.0))):
            raise ValueError("a share lies outside 0 to 1 or is no number: pass exposed / (exposed + control) at risk")
        if len(g) and not (int(g.min()) >= 0 and int(g.max()) < GROUPS):
            raise ValueError(f"a tenant group lies outside 0 to {GROUPS - 1}")
        counted = np.arange(ROWS)[None, :] != g[:, None]
        if counts is not None:
            counted &= counts
        if not self._leave_out:
            share, counted = np.repeat(share[:, NOBODY:], ROWS, axis=1), np.repeat(counted[:, NOBODY:], ROWS, axis=1)
        path: Floats = np.empty((len(x), ROWS))
        for start in range(0, len(x), _BATCH):
            part = slice(start, start + _BATCH)
            path[part] = self._update_batch(x[part], share[part], g[part], counted[part])
        if len(x):
            self._evidence = path[-1].copy()
        return path

    def _update_batch(self, x: Flags, share: Floats, group: Numbers, counted: Flags) -> Floats:
        self._split_rows(share, counted)
        rows = [*self._left_out, NOBODY]
        w, said = np.clip(share[:, rows], SHARE_MIN, 1.0 - SHARE_MIN)[:, :, None], counted[:, rows]
        steps = np.where(x[:, None, None], self._gain, 0.0) - np.log1p((self._ratios - 1.0) * w)
        steps += np.log1p((self.tolerated_ratio - 1.0) * w)
        steps[~said] = 0.0
        moves = np.empty_like(steps)
        for one in np.unique(group).tolist():
            mine = np.flatnonzero(group == one)
            before = self._log_m.get(one)
            if before is None:
                before = np.zeros_like(self._log_product)
            # The state goes in first, so that sums run in the same order as event by event.
            path = np.cumsum(np.concatenate([before[None], steps[mine]]), axis=0)
            moves[mine] = np.diff(np.logaddexp(self._log_floor, self._log_rest + path), axis=0)
            self._log_m[one] = path[-1].copy()
        product = np.cumsum(np.concatenate([self._log_product[None], moves]), axis=0)[1:]
        self._log_product = product[-1].copy()
        evidence = log_mean_exp(product)
        self._note(x, share[:, NOBODY], counted[:, NOBODY])
        found: Floats = np.repeat(evidence[:, -1:], ROWS, axis=1)
        found[:, self._left_out] = evidence[:, :-1]
        return found

    def _note(self, x: Flags, share: Floats, counted: Flags) -> None:
        count = int(np.count_nonzero(x & counted))
        self.exposed += count
        self.control += int(np.count_nonzero(counted)) - count
        for one in share[counted].tolist():
            self._share_sum += one

    def _split_rows(self, share: Floats, counted: Flags) -> None:
        """Give a row of its own to each group whose numbers differ from the last row's from now on."""
        differs = ((share != share[:, NOBODY:]) | (counted != counted[:, NOBODY:])).any(axis=0)
        differs[self._left_out] = False
        fresh = np.flatnonzero(differs).tolist()
        if not fresh:
            return
        self._left_out += fresh
        order = [*range(len(self._left_out) - len(fresh)), *([-1] * len(fresh)), -1]
        self._log_product = self._log_product[order]
        self._log_m = {one: values[order] for one, values in self._log_m.items()}

    def snapshot(self) -> TenantRatioState:
        """Return the state; `restore` of it goes on bit for bit."""
        return TenantRatioState(
            tolerated_ratio=self.tolerated_ratio,
            floor=self.floor,
            points=len(self._ratios),
            leave_out=self._leave_out,
            left_out=self._left_out,
            groups=list(self._log_m),
            log_m=b"".join(values.tobytes() for values in self._log_m.values()),
            log_product=self._log_product.tobytes(),
            exposed=self.exposed,
            control=self.control,
            share_sum=self._share_sum,
        )

    @classmethod
    def restore(cls, state: TenantRatioState) -> "TenantRatio":
        """Build the detector that `state` was taken from."""
        detector = cls(state.tolerated_ratio, state.floor, state.points, leave_out=state.leave_out)
        detector._left_out = list(state.left_out)
        shape = (len(state.left_out) + 1, state.points)
        logs = np.frombuffer(state.log_m, dtype=np.float64).reshape(len(state.groups), *shape)
        detector._log_m = {one: values.copy() for one, values in zip(state.groups, logs, strict=True)}
        detector._log_product = np.frombuffer(state.log_product, dtype=np.float64).reshape(shape).copy()
        detector.exposed, detector.control = state.exposed, state.control
        detector._share_sum = state.share_sum
        if detector.events or state.groups:
            evidence = log_mean_exp(detector._log_product)
            detector._evidence = np.full(ROWS, evidence[-1])
            detector._evidence[detector._left_out] = evidence[:-1]
        return detector
