"""Whose an update or a module is, for vendors' views: by the registry of routes, as for pages.

Invariant: what the registry gives to nobody, or to somebody else, is no vendor's to see. Without a registry a rollout
is that of the vendor that it names, letter by letter, and no module is anybody's.
"""

from collections.abc import Collection, Set
from dataclasses import dataclass

from signals.pagers.registry import Registry


@dataclass(frozen=True, slots=True)
class Owning:
    """What a token's vendors own.

    Attributes:
        vendors: by the registry's names.
        registry: in force; None where there is none.
    """

    vendors: frozenset[str]
    registry: Registry | None

    def owner(self, vendor: str, product: str) -> str:
        """Return the registry's name of whose update this is."""
        if self.registry is None:
            return vendor
        return self.registry.owner_of_rollout(vendor, product).owner

    def owns(self, vendor: str, product: str) -> bool:
        """Tell whether an update of this vendor and product is theirs."""
        return self.owner(vendor, product) in self.vendors

    def owns_module(self, module: str) -> bool:
        """Tell whether a crashing module is theirs."""
        return self.registry is not None and self.registry.owner_of_module(module).owner in self.vendors

    def peers(self) -> Set[str]:
        """Return the vendors that share with these, and these with them."""
        registry = self.registry
        if registry is None:
            return frozenset()
        return {
            other
            for mine in self.vendors
            for other in _shares(registry, mine)
            if mine in _shares(registry, other) and other not in self.vendors
        }

    def of_peers(self) -> "Owning":
        """Return what those own that share with these both ways."""
        return Owning(frozenset(self.peers()), self.registry)


def _shares(registry: Registry, vendor: str) -> Collection[str]:
    found = registry.vendors.get(vendor)
    return found.shares if found is not None else ()
