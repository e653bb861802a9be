"""What all rollouts of one stage know together: signatures seen, and how soon a product's crashes are heard of."""

import msgspec

from detectors.delay import DelayHistory
from detectors.novelty import KnownSignatures

PRODUCTS_MAX = 4096


class SharedState(msgspec.Struct, kw_only=True):
    """What `Shared.snapshot` gives."""

    known: dict[str, dict[int, int]]
    delays: dict[str, list[int]]


class Shared:
    """Kept by the stage, read and fed by its trackers.

    Attributes:
        known: signatures by the tenant groups that saw them, and when first.
    """

    def __init__(self) -> None:
        self.known = KnownSignatures()
        self._delays: dict[str, DelayHistory] = {}

    def delays(self, product: str) -> DelayHistory:
        """Return a product's history of reporting delays; beyond 4,096 products the oldest one's is begun anew."""
        found = self._delays.get(product)
        if found is None:
            if len(self._delays) >= PRODUCTS_MAX:
                del self._delays[next(iter(self._delays))]
            found = self._delays[product] = DelayHistory()
        return found

    def snapshot(self) -> SharedState:
        """Return the state; `restore` of it goes on alike."""
        return SharedState(
            known=self.known.snapshot(),
            delays={product: history.snapshot() for product, history in self._delays.items()},
        )

    @classmethod
    def restore(cls, state: SharedState) -> "Shared":
        """Build what `state` was taken from."""
        shared = cls()
        shared.known = KnownSignatures.restore(state.known)
        shared._delays = {product: DelayHistory(counts) for product, counts in state.delays.items()}
        return shared
