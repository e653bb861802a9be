"""One cell of the gate: evidence that an update does *not* harm the devices of this cell.

`Gate` (gate.py) keeps one of these per margin cell and asks all of them. The opposite question of `sequential.py`, with
processes of its own: there evidence speaks against "no worse than tolerated", here against "harmful". Plain numbers
only. The invariant: whatever is not known counts against health.
"""

import functools
import math
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import msgspec
import numpy as np

from detectors.sequential import Floats, log_mean_exp

RATIO_POINTS: Final = 24
# The lowest ratio that is bet on is this much below the harmful one: a cure is not worth finer bets.
_RATIO_SPAN: Final = 128.0
# What is bet on, in parts of the harmful rate. No crash at all has half of the weight: it is the usual case, and then
# half the weight costs log(2) / rate device-days, whatever the others are.
_RATE_PARTS: Final = np.array([0.0, 0.03, 0.06, 0.125, 0.18, 0.25, 0.35, 0.5, 0.7])
_LOG_RATE_WEIGHTS: Final = np.log(np.array([0.5] + [0.5 / 8] * 8))
_LOG_HALF: Final = math.log(0.5)
GROUPS_MAX: Final = 64
_NEWTON_STEPS_MAX: Final = 60
# With a smaller part of the device-days than this in all the other groups, waiting is no plan.
_PART_MIN: Final = 1e-9
_RATE_BETS: Final = list(zip(_LOG_RATE_WEIGHTS.tolist(), (1.0 - _RATE_PARTS).tolist(), strict=True))


class HarmBound(msgspec.Struct, frozen=True, kw_only=True):
    """What counts as harm in a cell: a rate ratio of at least `ratio` *and* an excess of at least `excess`.

    Attributes:
        ratio: the rate ratio from which on it is harm; over 1.
        excess_per_device_day: the excess of crashes per exposed device and day from which on it is harm; over 0.
        background_per_device_day: a lower bound, known beforehand, of what these devices crash anyway. 0 is always
            true; a bound that is too high makes the gate pass harm.
    """

    ratio: float
    excess_per_device_day: float
    background_per_device_day: float = 0.0

    def __post_init__(self) -> None:
        """Refuse bounds that no evidence could be measured against."""
        if not 1.0 < self.ratio < math.inf:
            raise ValueError(f"the harmful ratio is {self.ratio}: give one over 1, such as 1.5")
        if not 0.0 < self.excess_per_device_day < math.inf:
            raise ValueError(f"the harmful excess is {self.excess_per_device_day} per device and day: give one over 0")
        if not 0.0 <= self.background_per_device_day < math.inf:
            raise ValueError(f"the background is {self.background_per_device_day} per device and day: 0 or more")

    @property
    def rate(self) -> float:
        """Crashes per exposed device and day from which on the excess is harm."""
        return self.excess_per_device_day + self.background_per_device_day


class CellEvidence(NamedTuple):
    """A cell's evidence, in natural logs; the least over the groups that may be left out.

    Attributes:
        log_evidence: log of the mean of the two below, each with the same group left out.
        log_ratio: against "the rate ratio is harmful".
        log_excess: against "the excess is harmful".
        left_out: the group without which it is least; None if none was left out.
    """

    log_evidence: float
    log_ratio: float
    log_excess: float
    left_out: int | None


class GroupState(msgspec.Struct, kw_only=True):
    """What one tenant group said of one cell."""

    group: int
    device_days: float
    exposed: int
    control: int
    log_m: bytes


class CellState(msgspec.Struct, kw_only=True):
    """What `CellGate.snapshot` gives: enough to go on bit for bit."""

    bound: HarmBound
    groups: list[GroupState]


@dataclass(slots=True)
class _Group:
    device_days: float = 0.0
    exposed: int = 0
    control: int = 0
    log_m: Floats = field(default_factory=lambda: np.zeros(RATIO_POINTS))


class CellGate:
    """Evidence that one cell is not harmed, by ratio or by excess, with any one tenant group left out.

    Model. Harm of a cell is a rate ratio rho >= r and an excess of at least delta crashes per device and day. Two
    e-processes bet against it, and their mean is one too. For crashes i with x_i = 1 for an exposed device,

        log M(rho') = sum_i [ x_i log(rho' / r) - log((rho' w_i + 1 - w_i) / (r w_i + 1 - w_i)) ],  rho' < r,

    averaged over 24 log-spaced rho' below r; and for n exposed crashes in T exposed device-days, with
    theta = delta + background,

        log M(lambda') = n log(lambda' / theta) + (theta - lambda') T,  lambda' < theta,

    averaged over nine lambda', half of the weight on 0. If there is harm, each factor of either has an expectation of
    at most 1, so P(the evidence ever reaches 1 / alpha) <= alpha, however often one asks (Ville).

    Which side is safe. Here the *lower* bound of the exposed share w is: a harmed cell's crash is exposed with odds
    rho w* / (1 - w*) >= r w / (1 - w) for w <= w*, and exposed crashes are what the bets lose on. For the same reason a
    device that *may* be exposed counts as exposed when it crashes, and its device-days don't count until it is known
    to be. Both err the other way than the kill's evidence does.

    Lies. Everything is kept by tenant group, and what counts is the least evidence over leaving any one group out: fake
    device-days or fake control crashes of one tenant never open the gate. He can keep it shut, as real harm would.

    Assumptions. Shares are those of the crash's own cell *and group*, known before the crash. One crash a device. The
    ratio's: devices of a cell crash alike but for the update. The excess's: crashes come independently of each other.
    Harm that has not begun yet is not seen: `AgeCoverage` is for that.

    A false alarm (evidence that does not come) costs waiting; the error bounded by alpha is passing a harmed cell.

    Example:
        No crash at all, from two groups in equal parts: at alpha = 0.05 and delta = 0.002 the cell passes on day 40,
        index 39, when each group alone has 2,000 device-days. (One bet on no crash alone would pass at log(20) / 0.002
        = 1,498; being able to pass with crashes, and by ratio, costs the other 500.)

        >>> cell = CellGate(HarmBound(ratio=1.5, excess_per_device_day=0.002))
        >>> fired = []
        >>> for day in range(60):
        ...     cell.expose(0, 50.0)
        ...     cell.expose(1, 50.0)
        ...     fired += [day] * (cell.evidence().log_evidence >= math.log(20))
        >>> fired[0]
        39

    Source: Wald (1945) for both likelihood ratios; Robbins (1970), mixtures of them; Berger (1982), "Multiparameter
    hypothesis testing and acceptance sampling", for tests of every cell; Ramdas et al. (2023), "Game-theoretic
    statistics and safe anytime-valid inference".
    """

    def __init__(self, bound: HarmBound) -> None:
        self.bound = bound
        steps = np.arange(1, RATIO_POINTS + 1, dtype=np.float64) / RATIO_POINTS
        self._ratios = bound.ratio * np.exp(-steps * math.log(_RATIO_SPAN))
        self._gain = np.log(self._ratios / bound.ratio)
        self._groups: dict[int, _Group] = {}
        self._crashed = False
        self._seen: tuple[tuple[object, ...], CellEvidence] | None = None
        self._planned: tuple[tuple[object, ...], float | None] | None = None

    @property
    def device_days(self) -> float:
        """Device-days at risk that are known to be exposed."""
        return sum((group.device_days for group in self._groups.values()), 0.0)

    @property
    def exposed(self) -> int:
        """Crashes of devices that were, or may have been, exposed."""
        return sum(group.exposed for group in self._groups.values())

    @property
    def control(self) -> int:
        """Crashes of devices known not to be exposed."""
        return sum(group.control for group in self._groups.values())

    @property
    def groups(self) -> int:
        """How many tenant groups have said anything of this cell."""
        return len(self._groups)

    def expose(self, group: int, device_days: float) -> None:
        """Add device-days at risk of a group's devices that are known to be exposed.

        Raises:
            ValueError: they are negative or no number, or there are too many groups.
        """
        if not 0.0 <= device_days < math.inf:
            raise ValueError(f"{device_days} device-days: give the time at risk since the last call, 0 or more")
        self._group(group).device_days += device_days
        self._seen = self._planned = None

    def add(self, group: int, exposed: bool, share_low: float) -> None:
        """Score one first crash, in order of arrival.

        Args:
            group: the crashed device's tenant group.
            exposed: True unless the device is known not to be exposed.
            share_low: lower bound of the exposed share at risk in the device's cell and group, 0 to 1.

        Raises:
            ValueError: the share is no number between 0 and 1, or there are too many groups.
        """
        if not 0.0 <= share_low <= 1.0:
            raise ValueError(f"the share {share_low} lies outside 0 to 1: pass known exposed / all at risk")
        told = self._group(group)
        self._crashed, self._seen, self._planned = True, None, None
        cost = np.log1p((self._ratios - 1.0) * share_low) - np.log1p((self.bound.ratio - 1.0) * share_low)
        if exposed:
            told.exposed += 1
            told.log_m += self._gain - cost
        else:
            told.control += 1
            told.log_m -= cost

    def evidence(self, trusted: Collection[int] = (), *, leave_one_out: bool = True) -> CellEvidence:
        """Return the evidence that the cell is not harmed, the least over leaving any one group out.

        Args:
            trusted: groups that are not left out: they are believed alone.
            leave_one_out: False believes everybody, for a fleet of one tenant.
        """
        key = (tuple(trusted), leave_one_out)
        if self._seen is None or self._seen[0] != key:
            # Asked four times a second and changed once a minute: what was computed is kept until then.
            self._seen = (key, self._evidence(trusted, leave_one_out))
        return self._seen[1]

    def _evidence(self, trusted: Collection[int], leave_one_out: bool) -> CellEvidence:
        if not self._crashed:
            name, days = self._quiet(trusted, leave_one_out)
            log_excess = _quiet_excess(self.bound.rate * days)
            return CellEvidence(_log_mean(0.0, log_excess), 0.0, log_excess, name)
        names, log_ratio, crashes, days_of = self._left_out(trusted, leave_one_out)
        of_excess = self._log_excess(crashes, days_of)
        both = np.logaddexp(log_ratio, of_excess) + _LOG_HALF
        least = int(np.argmin(both))
        return CellEvidence(float(both[least]), float(log_ratio[least]), float(of_excess[least]), names[least])

    def days_needed(
        self, log_needed: float, trusted: Collection[int] = (), *, leave_one_out: bool = True
    ) -> float | None:
        """Return the exposed device-days that are still needed if nobody crashes and groups keep their parts of them.

        0 where the evidence is enough already; None where no time is enough, for all device-days are of the one group
        that is left out. Of a cell that nobody has spoken of: what is needed without leaving any group out.
        """
        key = (tuple(trusted), leave_one_out, log_needed)
        if self._planned is None or self._planned[0] != key:
            self._planned = (key, self._days_needed(log_needed, trusted, leave_one_out))
        return self._planned[1]

    def _days_needed(self, log_needed: float, trusted: Collection[int], leave_one_out: bool) -> float | None:
        total = self.device_days
        if not self._crashed:
            _, quiet = self._quiet(trusted, leave_one_out)
            whole = _quiet_days(self.bound, log_needed)
            if quiet >= whole:
                return 0.0
            if total == 0.0:
                return whole
            return (whole - quiet) * total / quiet if quiet > _PART_MIN * total else None
        _, log_ratio, crashes, days = self._left_out(trusted, leave_one_out)
        lacking = np.logaddexp(log_ratio, self._log_excess(crashes, days)) + _LOG_HALF < log_needed
        if not lacking.any():
            return 0.0
        days = days[lacking]
        part = days / total if total > 0 else np.ones(len(days))
        if float(part.min()) <= _PART_MIN:
            return None
        return float((self.more_days(log_ratio[lacking], crashes[lacking], days, log_needed) / part).max())

    def _quiet(self, trusted: Collection[int], leave_one_out: bool) -> tuple[int | None, float]:
        """Return, where nobody crashed, the group with the most device-days, and those of all the others."""
        most, name = -1.0, None
        for group, one in self._groups.items() if leave_one_out else ():
            if one.device_days > most and group not in trusted:
                most, name = one.device_days, group
        return name, sum((one.device_days for group, one in self._groups.items() if group != name), 0.0)

    def _left_out(
        self, trusted: Collection[int], leave_one_out: bool
    ) -> tuple[list[int | None], Floats, Floats, Floats]:
        """Return, per group left out: its name, the log ratio evidence, crashes and device-days of all the others."""
        told = list(self._groups.values())
        log_m = np.array([one.log_m for one in told])
        crashes = np.array([one.exposed for one in told], dtype=np.float64)
        days = np.array([one.device_days for one in told])
        # With nobody left out, the sums are those of all; the row of each group is taken off below.
        rows = [row for row, name in enumerate(self._groups) if name not in trusted] if leave_one_out else []
        if not rows:
            all_days = np.array([days.sum()])
            return [None], log_mean_exp(log_m.sum(axis=0)[None, :]), np.array([crashes.sum()]), all_days
        # Sums over the others, not the total less one: a liar's huge numbers must not swallow the honest ones' digits.
        others = 1.0 - np.eye(len(told))[rows]
        names: list[int | None] = [name for name in self._groups if name not in trusted]
        return names, log_mean_exp(others @ log_m), others @ crashes, others @ days

    def _log_excess(self, crashes: Floats, days: Floats) -> Floats:
        evidence: Floats = np.logaddexp.reduce(self._log_bets(crashes, days), axis=1)
        return evidence

    def _log_bets(self, crashes: Floats, days: Floats) -> Floats:
        """Return the log of each bet with its weight; shape (n, 9)."""
        lost = np.full((len(crashes), len(_RATE_PARTS)), -np.inf)
        lost[:, 1:] = crashes[:, None] * np.log(_RATE_PARTS[1:])
        lost[crashes == 0, 0] = 0.0
        bets: Floats = _LOG_RATE_WEIGHTS + lost + self.bound.rate * (1.0 - _RATE_PARTS) * days[:, None]
        return bets

    def more_days(self, log_ratio: Floats, crashes: Floats, days: Floats, log_needed: float) -> Floats:
        """Return the further device-days until the mean reaches `log_needed`; all of shape (n,).

        The log of the sum of bets is convex and rises with time, so Newton's steps from the right come down to the root
        and never pass it: what is returned is enough.
        """
        # What the excess alone has to reach: log(2 exp(needed) - exp(log_ratio)).
        twice = log_needed - _LOG_HALF
        aim = twice + np.log1p(-np.exp(np.minimum(log_ratio - twice, -1e-12)))
        slopes = self.bound.rate * (1.0 - _RATE_PARTS)
        bets = self._log_bets(crashes, days)
        more: Floats = np.maximum(((aim[:, None] - bets) / slopes).min(axis=1), 0.0)
        for _ in range(_NEWTON_STEPS_MAX):
            grown = bets + slopes * more[:, None]
            now = np.logaddexp.reduce(grown, axis=1)
            step = (now - aim) / (np.exp(grown - now[:, None]) @ slopes)
            more = np.maximum(more - step, 0.0)
            if float(np.abs(step * self.bound.rate).max()) < 1e-9:
                break
        return more * (1.0 + 1e-9) + 1e-9 / self.bound.rate

    def _group(self, group: int) -> _Group:
        told = self._groups.get(group)
        if told is None:
            if len(self._groups) >= GROUPS_MAX:
                raise ValueError(f"more than {GROUPS_MAX} tenant groups in one cell: hash tenants to fewer groups")
            told = self._groups[group] = _Group()
        return told

    def snapshot(self) -> CellState:
        """Return the state; `restore` of it goes on bit for bit."""
        groups = [
            GroupState(
                group=name,
                device_days=one.device_days,
                exposed=one.exposed,
                control=one.control,
                log_m=one.log_m.tobytes() if one.exposed or one.control else b"",
            )
            for name, one in self._groups.items()
        ]
        return CellState(bound=self.bound, groups=groups)

    @classmethod
    def restore(cls, state: CellState) -> "CellGate":
        """Build the cell that `state` was taken from."""
        cell = cls(state.bound)
        for one in state.groups:
            log_m = np.frombuffer(one.log_m, dtype=np.float64).copy() if one.log_m else np.zeros(RATIO_POINTS)
            cell._crashed = cell._crashed or bool(one.exposed or one.control)
            cell._groups[one.group] = _Group(one.device_days, one.exposed, one.control, log_m)
        return cell


def _log_mean(one: float, other: float) -> float:
    top = max(one, other)
    return top + math.log1p(math.exp(min(one, other) - top)) + _LOG_HALF


def _quiet_excess(exposure: float) -> float:
    """Return the excess's evidence where nobody crashed in `exposure` times the harmful rate's mean time."""
    logs = [weight + slope * exposure for weight, slope in _RATE_BETS]
    top = max(logs)
    return float(top + math.log(math.fsum(math.exp(log - top) for log in logs)))


@functools.lru_cache(maxsize=1024)
def _quiet_days(bound: HarmBound, log_needed: float) -> float:
    """Return the device-days that are enough if nobody crashes; most cells ask for nothing else."""
    none = np.zeros(1)
    return float(CellGate(bound).more_days(none, none, none, log_needed)[0])
