"""Attribution by closed testing: which of the updates that travel together is guilty, and which can't be told apart.

Takes each suspect's evidence over cells that are split by rivals as plain numbers and gives a finding with a sentence
for each. A rollout is named guilty only by conditional evidence; marginal evidence alone can hold, never kill. What was
named stays named.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from detectors.sequential import Floats

SUSPECTS_MAX: Final = 256
NAMED_MAX: Final = 1024
# Suspects with this part of their devices in common are spoken of as a group.
TOGETHER: Final = 0.9
_LN10: Final = math.log(10.0)
# What counts for nothing, as a number that every format carries.
_LOG_LEAST: Final = -690.0


class Guilt(StrEnum):
    """What is known of a suspect."""

    GUILTY = "guilty"
    INSEPARABLE = "inseparable"
    UNCLEAR = "unclear"
    INNOCENT = "innocent"


class Suspect(msgspec.Struct, kw_only=True, frozen=True):
    """What is known of one rollout at one moment.

    Attributes:
        rollout: its id.
        alpha: the risk of a wrong kill that it was granted (`online_fdr`).
        log_conditional: natural log of its evidence among devices alike in their rivals, now, not its maximum.
        log_marginal: the same over cells that are not split; its maximum may be given.
        ratio_high: upper bound of its own rate ratio (`RatioBounds.high` of the conditional evidence).
        marginal_low: lower bound of the ratio that the marginal crashes show (`RatioBounds.low` of those).
        exposed_crashes: crashes of devices on it.
        telling: crashes that could tell it from its rivals.
        devices: devices on it, with those that crashed.
        unsplit: rivals that share devices with it and are not in its strata.
        log_outlasting: natural log of its evidence with shares raised by what those rivals could feign (`third`); minus
            infinity where that was not scored.
        modules: crashes of devices on it by the module they name; may be empty.
        own_modules: the modules its product installs, if told.
    """

    rollout: str
    alpha: float
    log_conditional: float
    log_marginal: float
    ratio_high: float = math.inf
    marginal_low: float = 0.0
    exposed_crashes: int = 0
    telling: int = 0
    devices: int = 0
    unsplit: frozenset[str] = frozenset()
    log_outlasting: float = -math.inf
    modules: Mapping[str, int] = {}
    own_modules: frozenset[str] = frozenset()


class Finding(msgspec.Struct, frozen=True):
    """What attribution says of one suspect.

    Attributes:
        rollout: its id.
        guilt: guilty (kill), inseparable and unclear (hold), innocent (so far).
        group: the suspects that this one can't be told apart from, itself included; alone: only itself.
        log10_evidence: log10 of the closed test's e-value: the least over all sets of innocents that hold it.
        text: a sentence with the numbers.
    """

    rollout: str
    guilt: Guilt
    group: tuple[str, ...]
    log10_evidence: float
    text: str

    @property
    def held(self) -> bool:
        """Tell whether the rollout must wait: it may be guilty."""
        return self.guilt in (Guilt.INSEPARABLE, Guilt.UNCLEAR)


def closed_log_evidence(log_values: npt.ArrayLike) -> Floats:
    """Return each hypothesis' e-value in the closed test by means: the least mean over all sets that hold it.

    The least mean with k others takes the k smallest others, and larger ones than its own never lower it: so it is a
    sort and n^2 / 2 means instead of 2^n sets.

    Args:
        log_values: shape (..., n): natural logs of e-values; minus infinity is an e-value of 0.

    Returns:
        Natural logs, same shape.

    Raises:
        ValueError: a value is no number or plus infinity.

    Example:
        Three suspects: the first stands against any set of innocents, at the price of sharing with the last.

        >>> np.round(closed_log_evidence([20.0, 5.0, -3.0]), 2).tolist()
        [18.9, 4.31, -3.0]

    Source: Vovk and Wang (2021), "E-values: calibration, combination and applications", Algorithm 1; Marcus, Peritz
    and Gabriel (1976) for closed testing.
    """
    values = np.asarray(log_values, dtype=np.float64)
    if bool(np.any(np.isnan(values) | (values == np.inf))):
        raise ValueError("an e-value is infinite or no number: pass finite logs, or minus infinity for 0")
    order = np.argsort(values, axis=-1, kind="stable")
    ranked = np.take_along_axis(values, order, axis=-1)
    sums = np.logaddexp.accumulate(ranked, axis=-1)
    count = values.shape[-1]
    # means[..., k, i]: the k-th smallest with the i + 1 smallest; only i < k are sets of others.
    means = np.logaddexp(ranked[..., :, None], sums[..., None, :]) - np.log(np.arange(2.0, count + 2.0))
    means = np.where(np.tri(count, k=-1, dtype=bool), means, np.inf)
    least = np.minimum(ranked, means.min(axis=-1, initial=np.inf))
    closed = np.empty_like(values)
    np.put_along_axis(closed, order, least, axis=-1)
    return closed


class AttributorState(msgspec.Struct, kw_only=True):
    """What `Attributor.snapshot` gives; `noted` is `Suspicion`'s: the rivals that each rollout names."""

    alpha_hold: float
    alpha_watch: float
    named: dict[str, Finding]
    noted: dict[str, tuple[str, ...]] | None = None


class Attributor:
    """Names the guilty among suspects that share devices; holds those that can't be told apart.

    Rule. With e_s the conditional e-values now, a suspect r is guilty once every set A of suspects that holds r has
    mean(e_s, s in A) >= 1 / alpha_r: "all of A are innocent" is then rejected whoever else is guilty. Means of
    e-processes are e-processes, so it may be tried after every crash and stays once it was so. Whoever has marginal
    evidence for a hold and was not named is

    - innocent so far, if its own ratio is bounded below what the marginal crashes show (`ratio_high < marginal_low`)
      and its conditional evidence is not rising: a rival explains them;
    - inseparable, if another such suspect has 90 % of its devices in common with it: the whole group is held;
    - unclear otherwise, and held, until more crashes tell.

    Assumptions. Those of `RateRatio` within a split cell. While a rival in `unsplit` has evidence for a hold it might
    explain this suspect's evidence, which then counts only as far as it outlasts what that rival could feign.

    Guarantee. A rollout that is no worse than tolerated is named with probability at most its own alpha, however many
    suspects there are and come later; any innocent of a set of suspects that was chosen by exposure alone, with
    probability at most the largest alpha among them. Modules are in the sentence only: content that makes a driver
    crash is blamed on the driver's file (as on 2024-07-19), so no module can kill.

    A false alarm costs the stop of a good update while the bad one goes on; a hold costs the innocent time.

    Args:
        alpha_hold: marginal evidence of 1 / alpha_hold makes a suspect.
        alpha_watch: conditional evidence of 1 / alpha_watch is rising.

    Example:
        >>> guilty = Suspect(rollout="r-a", alpha=1e-6, log_conditional=21.0, log_marginal=40.0)
        >>> rider = Suspect(
        ...     rollout="r-b", alpha=1e-6, log_conditional=-3.0, log_marginal=25.0, ratio_high=2.8, marginal_low=9.5
        ... )
        >>> [(one.rollout, one.guilt.value) for one in Attributor().update([guilty, rider], {})]
        [('r-a', 'guilty'), ('r-b', 'innocent')]

    Source: Marcus, Peritz and Gabriel (1976), "On closed testing procedures"; Vovk and Wang (2021) for means of
    e-values in it.
    """

    def __init__(self, alpha_hold: float = 1e-3, alpha_watch: float = 0.05) -> None:
        if not 0.0 < alpha_hold <= alpha_watch <= 1.0:
            raise ValueError(f"0 < alpha_hold <= alpha_watch <= 1 must hold, not {alpha_hold} and {alpha_watch}")
        self.alpha_hold = alpha_hold
        self.alpha_watch = alpha_watch
        self._named: dict[str, Finding] = {}

    def update(self, suspects: Sequence[Suspect], both: Mapping[tuple[str, str], int]) -> list[Finding]:
        """Judge the suspects; call it after every crash, or as seldom as one likes.

        Args:
            suspects: rollouts that share devices; at most 256.
            both: devices on both of two rollouts, in either order of their ids; left out is none.

        Returns:
            A finding for each, in the suspects' order.

        Raises:
            ValueError: two suspects have one id, there are too many, or an alpha or e-value is none.
        """
        _check(suspects)
        values = [self._value(one, suspects) for one in suspects]
        closed = closed_log_evidence(values).tolist() if suspects else []
        self._name(suspects, closed)
        open_ = [one for one in suspects if one.rollout not in self._named and self._suspicious(one)]
        held = [one for one in open_ if not self._explained(one)]
        groups = _groups(held, both)
        findings = []
        for suspect, log_value in zip(suspects, closed, strict=True):
            named = self._named.get(suspect.rollout)
            findings.append(named or self._finding(suspect, log_value, groups.get(suspect.rollout, ()), suspects))
        return findings

    def _suspicious(self, suspect: Suspect) -> bool:
        return max(suspect.log_marginal, suspect.log_conditional) >= -math.log(self.alpha_hold)

    def _explained(self, suspect: Suspect) -> bool:
        rising = suspect.log_conditional >= -math.log(self.alpha_watch)
        return suspect.ratio_high < suspect.marginal_low and not rising

    def _blocked_by(self, suspect: Suspect, suspects: Iterable[Suspect]) -> list[str]:
        """Return the rivals that might explain this one's evidence because no stratum tells them apart."""
        return [one.rollout for one in suspects if one.rollout in suspect.unsplit and self._suspicious(one)]

    def _value(self, suspect: Suspect, suspects: Iterable[Suspect]) -> float:
        """Return the evidence that may name a suspect: beside a suspicious unsplit rival, what outlasts that one."""
        if not self._blocked_by(suspect, suspects):
            return suspect.log_conditional
        return max(min(suspect.log_conditional, suspect.log_outlasting), _LOG_LEAST)

    def _name(self, suspects: Sequence[Suspect], closed: Sequence[float]) -> None:
        for suspect, log_value in zip(suspects, closed, strict=True):
            enough = log_value >= -math.log(suspect.alpha)
            if suspect.rollout in self._named or not enough:
                continue
            blocked = self._blocked_by(suspect, suspects)
            text = (
                f"{suspect.rollout} is guilty: among devices alike in their other updates the evidence is "
                f"{_power(suspect.log_conditional)}, {_power(log_value)} against every set of innocents, where "
                f"{_power(-math.log(suspect.alpha))} is needed ({_crashes(suspect)})"
            )
            if blocked:
                text += f"; {_power(suspect.log_outlasting)} outlasts what {', '.join(blocked)} could feign"
            self._named[suspect.rollout] = Finding(
                suspect.rollout, Guilt.GUILTY, (suspect.rollout,), log_value / _LN10, text + _modules(suspect) + "."
            )
            if len(self._named) > NAMED_MAX:
                self.close(next(iter(self._named)))

    def _finding(
        self, suspect: Suspect, log_value: float, group: tuple[str, ...], suspects: Sequence[Suspect]
    ) -> Finding:
        alone = (suspect.rollout,)
        if not group:
            return Finding(
                suspect.rollout, Guilt.INNOCENT, alone, log_value / _LN10, self._innocent_text(suspect) + "."
            )
        guilt = Guilt.INSEPARABLE if len(group) > 1 else Guilt.UNCLEAR
        if guilt is Guilt.INSEPARABLE:
            others = ", ".join(one for one in group if one != suspect.rollout)
            why = f"travels together with {others}: only {suspect.telling} of {_crashes(suspect)} could tell"
        else:
            why = f"is not told apart from its rivals yet: {suspect.telling} of {_crashes(suspect)} could tell"
        blocked = self._blocked_by(suspect, suspects)
        if blocked:
            outlasting = "nothing" if suspect.log_outlasting == -math.inf else _power(suspect.log_outlasting)
            why += f", and its cells are not split by {', '.join(blocked)}: {outlasting} outlasts what that could feign"
        text = (
            f"{suspect.rollout} {why}. Taken alone its evidence is {_power(suspect.log_marginal)}, among devices "
            f"alike in their other updates {_power(suspect.log_conditional)}"
        )
        return Finding(suspect.rollout, guilt, group, log_value / _LN10, text + _modules(suspect) + ".")

    def _innocent_text(self, suspect: Suspect) -> str:
        if not self._suspicious(suspect):
            return (
                f"{suspect.rollout} is innocent so far: taken alone its evidence is {_power(suspect.log_marginal)}, "
                f"less than the {_power(-math.log(self.alpha_hold))} of a hold"
            )
        return (
            f"{suspect.rollout} is innocent so far: its crashes look {suspect.marginal_low:.2g} times as frequent or "
            f"more, but among devices alike in their other updates its own ratio is at most {suspect.ratio_high:.2g}"
            + (f"; {', '.join(self._named)} is guilty" if self._named else "")
        )

    def close(self, rollout: str) -> None:
        """Forget a rollout that is over; beyond 1,024 named ones the first named is forgotten by itself."""
        self._named.pop(rollout, None)

    def snapshot(self) -> AttributorState:
        """Return the state; `restore` of it goes on bit for bit."""
        return AttributorState(alpha_hold=self.alpha_hold, alpha_watch=self.alpha_watch, named=dict(self._named))

    @classmethod
    def restore(cls, state: AttributorState) -> "Attributor":
        """Build the attributor that `state` was taken from."""
        attributor = cls(state.alpha_hold, state.alpha_watch)
        attributor._named = dict(state.named)
        return attributor


def _check(suspects: Sequence[Suspect]) -> None:
    if len(suspects) > SUSPECTS_MAX:
        raise ValueError(f"{len(suspects)} suspects, at most {SUSPECTS_MAX}: pass those that share devices only")
    if len({one.rollout for one in suspects}) != len(suspects):
        raise ValueError("two suspects have the same rollout id: pass each once")
    for one in suspects:
        if not 0.0 < one.alpha < 1.0 or math.isnan(one.log_marginal) or math.isnan(one.log_conditional):
            raise ValueError(f"{one.rollout}: alpha must lie between 0 and 1 and evidence must be a number")


def _groups(held: Sequence[Suspect], both: Mapping[tuple[str, str], int]) -> dict[str, tuple[str, ...]]:
    """Return each held suspect's group: those linked by `TOGETHER` of all devices on either in common."""
    group = {one.rollout: {one.rollout} for one in held}
    for index, one in enumerate(held):
        for other in held[index + 1 :]:
            common = both.get((one.rollout, other.rollout), both.get((other.rollout, one.rollout), 0))
            if common and common >= TOGETHER * (one.devices + other.devices - common):
                joined = group[one.rollout] | group[other.rollout]
                for rollout in joined:
                    group[rollout] = joined
    return {rollout: tuple(sorted(members)) for rollout, members in group.items()}


def _power(log_value: float) -> str:
    return f"10^{log_value / _LN10:.1f}"


def _crashes(suspect: Suspect) -> str:
    return f"{suspect.exposed_crashes} crash{'' if suspect.exposed_crashes == 1 else 'es'} on it"


def _modules(suspect: Suspect) -> str:
    """Return what the crashes' modules say, for people: it is no evidence."""
    total = sum(suspect.modules.values())
    if not total:
        return ""
    if suspect.own_modules:
        own = sum(count for module, count in suspect.modules.items() if module in suspect.own_modules)
        return f"; {own} of {total} name a module of its own product"
    module, count = min(suspect.modules.items(), key=lambda item: (-item[1], item[0]))
    return f"; {count} of {total} name {module}"
