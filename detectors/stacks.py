"""Which stacks the exposed devices crashed with: the most frequent places in code of each signature. For people.

Between the tally of first crashes, which counts here, and the evidence that pages show. Never evidence itself: whoever
writes a report chooses its frames. Invariant: bounded, whatever comes, and a stack that is more than one in
`STACKS_MAX` of all is not pushed out by any number of others.
"""

from typing import Final

import msgspec

STACKS_MAX: Final = 256
TENANTS_MAX: Final = 32


class Stack(msgspec.Struct, kw_only=True):
    """The most frequent stack of one signature.

    Attributes:
        signature: module and bugcheck, version-free.
        frames: at most three places, innermost first, as `csagent.sys+0xe14ed`; offsets are of one build of the module.
        devices: exposed devices whose first crash had the signature and these frames.
        tenants: distinct tenants among them, counted up to 32.
        exact: false where so many different stacks came that `devices` may be too low; it is never too high.
    """

    signature: str
    frames: list[str]
    devices: int
    tenants: int = 0
    exact: bool = True


class Seen(msgspec.Struct, kw_only=True):
    """How often a stack was seen: devices, and the hashes of the first 32 tenants among them."""

    devices: int = 0
    tenants: list[int] = []


class StackTally(msgspec.Struct, kw_only=True):
    """Counts stacks in bounded memory; a plain struct, so that it is its own snapshot.

    Model. Misra and Gries (1982), "Finding repeated elements": with k counters, a new item that finds none free takes
    one off all of them, so that a counter is too low by at most n / (k + 1) after n items, and never too high.

    Attributes:
        seen: signature to frames, a line each, to what was seen of them.
        held: how many stacks that are, of all signatures.
        missed: by how much each count may be too low.

    Example:
        >>> tally = StackTally()
        >>> for tenant in (1, 2, 2):
        ...     tally.add("csagent.sys|0x50", ["csagent.sys+0xe14ed"], tenant)
        >>> tally.add("csagent.sys|0x50", ["csagent.sys+0x1000"], 1)
        >>> tally.most(["csagent.sys|0x50"])
        [Stack(signature='csagent.sys|0x50', frames=['csagent.sys+0xe14ed'], devices=3, tenants=2, exact=True)]
    """

    seen: dict[str, dict[str, Seen]] = {}
    held: int = 0
    missed: int = 0

    def add(self, signature: str, frames: list[str], tenant: int) -> None:
        """Count a device's crash; one without frames counts for nothing."""
        if not frames:
            return
        text = "\n".join(frames)
        one = self.seen.get(signature, {}).get(text)
        if one is None:
            if self.held >= STACKS_MAX:
                self._take_one_off_all()
                return
            one = self.seen.setdefault(signature, {})[text] = Seen()
            self.held += 1
        one.devices += 1
        if tenant not in one.tenants and len(one.tenants) < TENANTS_MAX:
            one.tenants.append(tenant)

    def _take_one_off_all(self) -> None:
        self.missed += 1
        kept: dict[str, dict[str, Seen]] = {}
        self.held = 0
        for signature, stacks in self.seen.items():
            for text, one in stacks.items():
                one.devices -= 1
                if one.devices:
                    kept.setdefault(signature, {})[text] = one
                    self.held += 1
        self.seen = kept

    def most(self, signatures: list[str]) -> list[Stack]:
        """Return the most frequent stack of each of some signatures that has one; of equal ones the first by name."""
        found = []
        for signature in signatures:
            stacks = self.seen.get(signature)
            if stacks:
                most = max(one.devices for one in stacks.values())
                text = min(text for text, one in stacks.items() if one.devices == most)
                found.append(
                    Stack(
                        signature=signature,
                        frames=text.split("\n"),
                        devices=most,
                        tenants=len(stacks[text].tenants),
                        exact=not self.missed,
                    )
                )
        return found
