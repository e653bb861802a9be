"""New signature: is a kind of crash that nobody had before the rollout found in the exposed arm too often?

Counts only crashes whose version-free signature (module and bugcheck) was not seen before the rollout began, so the
background does not drown it. Plain numbers and texts. Two parts: what was seen of all rollouts together
(`KnownSignatures`), and one rollout's evidence (`Novelty`).
"""

from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np

from detectors.sequential import Floats
from detectors.tenants import NOBODY, ROWS, Flags, Numbers, TenantRatio, TenantRatioState

SIGNATURES_MAX: Final = 8192


class KnownSignatures:
    """Which tenant group saw which signature first, and when; bounded.

    When it is full, the signature that one group alone has seen, and longest ago, makes room; so a tenant that invents
    signatures pushes out its own and others' rarities, never what two groups have seen. A signature that was pushed out
    counts as new again, which is harmless: being new decides which crashes are looked at, not in which arm they fall.

    Example:
        >>> known = KnownSignatures()
        >>> known.note("nic.sys|0xd1", 3, 1_000)
        >>> known.new_to("nic.sys|0xd1", origin_ms=2_000)[[3, 4, NOBODY]].tolist()
        [True, False, False]
        >>> bool(known.new_to("nic.sys|0xd1", origin_ms=1_000).all())
        True
    """

    def __init__(self, signatures_max: int = SIGNATURES_MAX) -> None:
        self._max = signatures_max
        self._first: dict[str, dict[int, int]] = {}

    def note(self, signature: str, group: int, at_ms: int) -> None:
        """Note that a device of a tenant group crashed so, at this event time, in whatever arm."""
        groups = self._first.get(signature)
        if groups is None:
            if len(self._first) >= self._max:
                self._make_room()
            groups = self._first[signature] = {}
        groups[group] = min(at_ms, groups.get(group, at_ms))

    def _make_room(self) -> None:
        alone = next((text for text, groups in self._first.items() if len(groups) == 1), None)
        del self._first[alone if alone is not None else next(iter(self._first))]

    def new_to(self, signature: str, origin_ms: int) -> Flags:
        """Return shape (33,): row j tells whether nobody outside group j had crashed so before `origin_ms`."""
        before = [group for group, first_ms in self._first.get(signature, {}).items() if first_ms < origin_ms]
        new: Flags = np.full(ROWS, not before)
        if len(before) == 1:
            new[before[0]] = True
        return new

    def snapshot(self) -> dict[str, dict[int, int]]:
        """Return the state, in the order of age; `KnownSignatures.restore` of it goes on alike."""
        return {text: dict(groups) for text, groups in self._first.items()}

    @classmethod
    def restore(cls, state: dict[str, dict[int, int]], signatures_max: int = SIGNATURES_MAX) -> "KnownSignatures":
        """Build what `state` was taken from."""
        known = cls(signatures_max)
        known._first = {text: dict(groups) for text, groups in state.items()}
        return known


class NoveltyState(msgspec.Struct, kw_only=True):
    """What `Novelty.snapshot` gives: enough to go on bit for bit."""

    ratio: TenantRatioState
    counts: dict[str, list[int]]


class Novelty:
    """Evidence from crashes of signatures that are new since the rollout began.

    Model. Given that a crash has a new signature, its arm is still a coin whose odds are the exposed share at risk:
    what makes a signature new happened before the rollout, to both arms alike. So it is `TenantRatio`'s evidence over
    these crashes. Without group j, a signature that only group j had seen before is new too.

    Assumptions. Those of `TenantRatio`. Signatures are version-free: an old fault whose offset moved with the new
    version keeps its name. What it cannot see: harm that crashes like something known.

    A false alarm costs a stopped rollout of a good update.

    Example:
        Among 40 crashes of a known kind, spread as the share says, new ones come in the exposed arm only; the eighth of
        them reaches 10^6.

        >>> novelty = Novelty(1.5)
        >>> new, old = np.full((1, ROWS), True), np.full((1, ROWS), False)
        >>> share = np.full((1, ROWS), 0.1)
        >>> fired = []
        >>> for i in range(50):
        ...     flags, text = (new, "bad.sys|0x50") if i % 5 == 0 else (old, "nic.sys|0xd1")
        ...     _ = novelty.update(np.array([i % 5 == 0 or i % 10 == 1]), share, np.array([i % 7]), flags, [text])
        ...     fired += [i // 5] if novelty.log_evidence[NOBODY] >= np.log(1e6) else []
        >>> fired[0]
        7

    Source: the formula is `RateRatio`'s; conditioning on a predictable subset of events keeps a martingale one.
    """

    def __init__(self, tolerated_ratio: float = 1.5, floor: float = 0.1) -> None:
        self.ratio = TenantRatio(tolerated_ratio, floor)
        self._counts: dict[str, list[int]] = {}

    @property
    def log_evidence(self) -> Floats:
        """Natural logs of the e-values now: shape (33,), row j without group j, the last with all."""
        return self.ratio.log_evidence

    def update(self, exposed: Flags, share: Floats, group: Numbers, new: Flags, signatures: Sequence[str]) -> Floats:
        """Score crashes in order of arrival and return the log evidence after each: shape (n, 33).

        Args:
            exposed: shape (n,): whether the device that crashed was exposed.
            share: shape (n, 33): upper bound of the exposed share in the crash's cell.
            group: shape (n,): the device's tenant group.
            new: shape (n, 33): from `KnownSignatures.new_to`, by row.
            signatures: the crashes' signatures, version-free.
        """
        some = np.flatnonzero(new.any(axis=1))
        path: Floats = np.repeat(self.log_evidence[None], len(exposed), axis=0)
        if not len(some):
            return path
        before = self.log_evidence
        moved = self.ratio.update(exposed[some], share[some], group[some], new[some])
        turn = np.searchsorted(some, np.arange(len(exposed)), side="right")
        path = np.concatenate([before[None], moved])[turn]
        for place in some.tolist():
            if new[place, NOBODY] and (signatures[place] in self._counts or len(self._counts) < SIGNATURES_MAX // 32):
                self._counts.setdefault(signatures[place], [0, 0])[0 if exposed[place] else 1] += 1
        return path

    def top(self, most: int = 3) -> list[tuple[str, int, int]]:
        """Return the new signatures with the most exposed crashes, as (signature, exposed, control)."""
        ranked = sorted(self._counts.items(), key=lambda item: (-item[1][0], item[1][1], item[0]))[:most]
        return [(text, exposed, control) for text, (exposed, control) in ranked]

    def snapshot(self) -> NoveltyState:
        """Return the state; `restore` of it goes on bit for bit."""
        return NoveltyState(
            ratio=self.ratio.snapshot(), counts={text: list(both) for text, both in self._counts.items()}
        )

    @classmethod
    def restore(cls, state: NoveltyState) -> "Novelty":
        """Build the detector that `state` was taken from."""
        novelty = cls(state.ratio.tolerated_ratio, state.ratio.floor)
        novelty.ratio = TenantRatio.restore(state.ratio)
        novelty._counts = {text: list(both) for text, both in state.counts.items()}
        return novelty
