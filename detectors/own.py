"""One tenant's own evidence: his crashes against his own devices, for a kill within him and nowhere else.

A kill of the whole rollout needs the word of more than one tenant. Harm that shows at one tenant only holds the whole;
this says whether it suffices to kill there. Kept beside the evidence of everybody and never mixed with it. Plain
numbers only. Invariant: no number of another tenant adds to it, so whoever lies can get the rollout killed at his own
devices and at nobody else's. (The correction for reporting delays knows everybody's; it can only lower evidence.)
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import numpy as np

from detectors.sequential import Floats, RateRatio, RateRatioState
from detectors.tenants import GROUPS, Flags, Numbers

# What a group of several tenants is called in the place of its tenant's hash.
SEVERAL: Final = 0


class OwnWord(msgspec.Struct, frozen=True, kw_only=True):
    """What one tenant's own devices say.

    Attributes:
        tenant: hash of the tenant.
        log_evidence_max: natural log of the highest e-value so far.
        crashes_exposed: first crashes of exposed devices that were scored.
        crashes_control: the same of the others.
    """

    tenant: int
    log_evidence_max: float
    crashes_exposed: int
    crashes_control: int


class OwnGroupState(msgspec.Struct, kw_only=True):
    """One tenant group's part of the state.

    Attributes:
        tenant: hash of the one tenant whose crashes were scored; `SEVERAL` where there was more than one.
    """

    group: int
    tenant: int
    rate: RateRatioState


class OwnState(msgspec.Struct, kw_only=True):
    """What `OwnEvidence.snapshot` gives: enough to go on bit for bit.

    Attributes:
        owners: by device partition that has said it, each tenant group's only tenant, or `SEVERAL`.
        mixed: groups in which a second tenant was ever seen.
    """

    groups: list[OwnGroupState]
    owners: dict[int, dict[int, int]]
    mixed: list[int]


class OwnEvidence:
    """Evidence by tenant group, each against its own controls, for groups that are one tenant.

    Model. `RateRatio` over the crashes of one group, with the exposed share among the group's own devices in the cell
    of each crash: an e-process against "for this tenant the rollout is no worse than tolerated". P(it ever reaches
    1 / alpha) <= alpha for each tenant, whatever the others are or say; which of at most 32 groups will speak is not
    known beforehand, so a decision asks each for 32 / alpha, and all of them together are wrong with at most alpha.

    Whose it is. Windows count by tenant group, a hash of 32, and name the tenant of each crash. A group speaks only if
    every live device partition says that the devices of the group are one tenant's, and all its crashes are that
    tenant's. Once a second tenant was seen in it, the shares were not its own, and the group never speaks again.

    Assumptions. Those of `RateRatio` within the tenant. New signatures, silence and the past do not count here.

    A false alarm costs the tenant a stopped rollout of a good update; the others are not concerned.

    Args:
        tolerated_ratio: rho0, the rate ratio that is still no harm.

    Example:
        >>> own = OwnEvidence(1.5)
        >>> own.owned(0, [(3, 0xABC)])
        >>> own.update(np.ones(8, dtype=bool), np.full(8, 0.1), np.full(8, 3), np.full(8, 0xABC))
        >>> [(f"{word.tenant:x}", word.log_evidence_max > 13.8) for word in own.words([True])]
        [('abc', True)]
        >>> own.owned(0, [(3, SEVERAL)])
        >>> own.words([True])
        []
    """

    def __init__(self, tolerated_ratio: float) -> None:
        self.tolerated_ratio = tolerated_ratio
        self._rates: dict[int, RateRatio] = {}
        self._tenants: dict[int, int] = {}
        self._owners: dict[int, dict[int, int]] = {}
        self._mixed: set[int] = set()

    def owned(self, partition: int, owners: Sequence[tuple[int, int]]) -> None:
        """Take a device partition's word on which tenant each group's devices are of; nothing said changes nothing.

        Raises:
            ValueError: a tenant group is none.
        """
        if not owners:
            return
        for group, _ in owners:
            if not 0 <= group < GROUPS:
                raise ValueError(f"partition {partition} says who owns tenant group {group}: there are {GROUPS}")
        said = self._owners.setdefault(partition, {})
        for group, tenant in owners:
            if said.setdefault(group, tenant) != tenant or tenant == SEVERAL:
                self._mixed.add(group)
            said[group] = tenant

    def update(self, exposed: Flags, share: Floats, group: Numbers, tenants: Numbers) -> None:
        """Score first crashes in order of arrival.

        Args:
            exposed: whether the device that crashed was exposed, shape (n,).
            share: upper bound of the exposed share among its group's devices at risk in its cell, shape (n,).
            group: its tenant group, 0 to 31, shape (n,).
            tenants: hash of its tenant, shape (n,).
        """
        for one in np.unique(group).tolist():
            mine = group == one
            if one not in self._rates:
                self._rates[one] = RateRatio(self.tolerated_ratio)
            self._rates[one].update(exposed[mine], share[mine])
        for one, tenant in zip(group.tolist(), tenants.tolist(), strict=True):
            if self._tenants.setdefault(one, tenant) != tenant:
                self._mixed.add(one)

    def words(self, live: Sequence[bool]) -> list[OwnWord]:
        """Return what tenants say whose groups are theirs alone in every live partition, by group."""
        counted = [partition for partition, one in enumerate(live) if one]
        if not all(partition in self._owners for partition in counted):
            return []
        known = [self._owners[partition] for partition in counted]
        return [
            OwnWord(
                tenant=self._tenants[group],
                log_evidence_max=rate.maximum,
                crashes_exposed=rate.exposed,
                crashes_control=rate.control,
            )
            for group, rate in sorted(self._rates.items())
            if rate.exposed and group not in self._mixed and _owner(group, known) == self._tenants[group]
        ]

    def snapshot(self) -> OwnState:
        """Return the state; `restore` of it goes on bit for bit."""
        return OwnState(
            groups=[
                OwnGroupState(group=group, tenant=self._tenants[group], rate=rate.snapshot())
                for group, rate in self._rates.items()
            ],
            owners=self._owners,
            mixed=sorted(self._mixed),
        )

    @classmethod
    def restore(cls, state: OwnState, tolerated_ratio: float) -> "OwnEvidence":
        """Build what `state` was taken from."""
        own = cls(tolerated_ratio)
        own._rates = {one.group: RateRatio.restore(one.rate) for one in state.groups}
        own._tenants = {one.group: one.tenant for one in state.groups}
        own._owners = state.owners
        own._mixed = set(state.mixed)
        return own


def _owner(group: int, said: Sequence[Mapping[int, int]]) -> int | None:
    """Return the one tenant that all partitions with devices of the group name; None where they differ or are none."""
    named = {owners[group] for owners in said if group in owners}
    return named.pop() if len(named) == 1 else None
