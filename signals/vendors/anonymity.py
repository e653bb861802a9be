"""k-anonymity of counts: what may be told of groups of devices, so that no subtraction tells of a smaller group. Pure.

Between the rows of the store and a vendor's answers. Invariants, tested by trying every subtraction over an answer:
a number is told only of a group with enough devices and enough tenants; and what remains of a group after the parts
that are told of it is nobody, or such a group itself. Counts that grow with time are told in steps of a fixed ladder,
so that two looks differ by at least as many devices.
"""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

_Label = TypeVar("_Label", bound=Hashable)
_STEPS: Final = (1, 2, 5)


@dataclass(frozen=True, slots=True)
class Terms:
    """How large a group must be to be told of.

    Attributes:
        devices: distinct devices, at least.
        tenants: distinct tenants, at least.
    """

    devices: int = 5
    tenants: int = 3


@dataclass(slots=True)
class Group:
    """Distinct devices, and whose they are.

    Attributes:
        devices: how many.
        tenants: of which tenants; never told.
    """

    devices: int = 0
    tenants: set[str] = field(default_factory=set)

    def add(self, devices: int, tenants: Iterable[str]) -> None:
        """Take more devices in, all of them distinct from those here."""
        self.devices += devices
        self.tenants.update(tenants)

    def meets(self, terms: Terms) -> bool:
        """Tell whether it is large enough to be told of."""
        return self.devices >= terms.devices and len(self.tenants) >= terms.tenants


@dataclass(frozen=True, slots=True)
class Shown(Generic[_Label]):
    """The parts of one group that are told, and what remains.

    Attributes:
        parts: devices by label.
        rest: devices of all parts that are not told, together; 0 where there are none.
    """

    parts: dict[_Label, int]
    rest: int


def suppress(parts: Mapping[_Label, Group], terms: Terms) -> Shown[_Label] | None:
    """Return what may be told of a group's parts, which share no device; None where not even their sum may be told.

    Parts that are too small are told together, as the rest. Where the rest is too small itself, the smallest of the
    other parts joins it, until it is large enough: else the sum, less the parts, would tell of it.
    """
    whole = union(parts.values())
    if not whole.meets(terms):
        return None
    told = {label: group for label, group in parts.items() if group.meets(terms)}
    rest = union(group for label, group in parts.items() if label not in told)
    while rest.devices and not rest.meets(terms):
        least = min(told, key=lambda label: (told[label].devices, str(label)))
        group = told.pop(least)
        rest.add(group.devices, group.tenants)
    return Shown({label: group.devices for label, group in told.items()}, rest.devices)


def union(groups: Iterable[Group]) -> Group:
    """Return the devices of groups that share none."""
    whole = Group()
    for group in groups:
        whole.add(group.devices, group.tenants)
    return whole


def step_of(count: int, terms: Terms) -> int | None:
    """Return the step of the ladder 1, 2, 5, 10, 20, ... that a growing count has reached; None below what is told."""
    reached, power = None, 1
    while power <= count:
        for step in _STEPS:
            if terms.devices <= step * power <= count:
                reached = step * power
        power *= 10
    return reached


def rounded(count: int, terms: Terms) -> int:
    """Return a count of devices rounded down to a multiple of the least group, of two digits or three.

    Two such numbers of overlapping groups differ by nobody, or by as many devices as a group must have.
    """
    unit = terms.devices
    while count >= 100 * unit:
        unit *= 10
    return count // unit * unit


def two_digits(value: float) -> float:
    """Return a rate with the two digits that tell no more than its rounded parts do."""
    return float(f"{value:.2g}")
