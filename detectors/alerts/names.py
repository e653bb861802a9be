"""One name for near-duplicate signatures, kept from then on: what alerts and `cordon patterns` call them.

`clusters` says once a day which signatures are alike. The invariant: a signature that was given a name keeps it, so a
pattern's past is never split because another member has come to be seen on more devices.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from detectors.clusters import Group, SignatureText, group_signatures

NAMES_MAX: Final = 4096
NOTE_CHARS_MAX: Final = 512


class NamesState(msgspec.Struct, kw_only=True):
    """What `Names.snapshot` gives: signature to name, name to how it came about, and what was compared last."""

    names: dict[str, str]
    notes: dict[str, str]
    compared: list[str]


class Names:
    """Which name each signature is read under; a signature without one is its own.

    Bounded: 4,096 signatures with a name; the first named go first.
    """

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._notes: dict[str, str] = {}
        self._compared: frozenset[str] = frozenset()

    def compared(self, signature: str) -> bool:
        """Tell whether a signature was among those that were compared last."""
        return signature in self._compared

    def of(self, signature: str) -> str:
        """Return the name of a signature."""
        return self._names.get(signature, signature)

    def note(self, name: str) -> str:
        """Return how a name came about; empty for a signature alone."""
        return self._notes.get(name, "")

    def learn(self, texts: Sequence[SignatureText]) -> None:
        """Join what is alike among these signatures to the names there are, or to new ones."""
        self._compared = frozenset(one.name for one in texts)
        for group in group_signatures(texts).groups:
            self._join(group)
        while len(self._names) > NAMES_MAX:
            del self._names[next(iter(self._names))]
        for name in set(self._notes) - set(self._names.values()):
            del self._notes[name]

    def _join(self, group: Group) -> None:
        known = [self._names[member.name] for member in group.members if member.name in self._names]
        # A representative that others are read under already keeps its name.
        name = known[0] if known else group.representative
        fresh = [member.name for member in group.members if member.name not in self._names]
        if fresh or name not in self._notes:
            self._notes[name] = group.why[:NOTE_CHARS_MAX]
        for member in fresh:
            self._names[member] = name

    def snapshot(self) -> NamesState:
        """Return the state; `restore` of it goes on bit for bit."""
        return NamesState(names=dict(self._names), notes=dict(self._notes), compared=sorted(self._compared))

    @classmethod
    def restore(cls, state: NamesState) -> "Names":
        """Build the names that `state` was taken from."""
        names = cls()
        names._names, names._notes = dict(state.names), dict(state.notes)
        names._compared = frozenset(state.compared)
        return names
