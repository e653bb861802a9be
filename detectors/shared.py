"""What all rollouts of one stage know together: signatures, how soon crashes are heard of, the hours of the week."""

import msgspec

from detectors.delay import DelayHistory
from detectors.novelty import KnownSignatures
from detectors.seasons import ProductState, Seasons


class SharedState(msgspec.Struct, kw_only=True):
    """What `Shared.snapshot` gives."""

    known: dict[str, dict[int, int]]
    delays: dict[int, list[int]]
    seasons: dict[str, ProductState] = {}


class Shared:
    """Kept by the stage, read and fed by its trackers.

    Attributes:
        known: signatures by the tenant groups that saw them, and when first.
        delays: reporting delays, by tenant group.
        seasons: what is expected of each product at each hour of the week.
    """

    def __init__(self) -> None:
        self.known = KnownSignatures()
        self.delays = DelayHistory()
        self.seasons = Seasons()

    def snapshot(self) -> SharedState:
        """Return the state; `restore` of it goes on alike."""
        return SharedState(known=self.known.snapshot(), delays=self.delays.snapshot(), seasons=self.seasons.snapshot())

    @classmethod
    def restore(cls, state: SharedState) -> "Shared":
        """Build what `state` was taken from."""
        shared = cls()
        shared.known = KnownSignatures.restore(state.known)
        shared.delays = DelayHistory(state.delays)
        shared.seasons = Seasons.restore(state.seasons)
        return shared
