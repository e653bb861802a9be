"""What all rollouts of one stage know together: signatures seen, and how soon crashes are heard of."""

import msgspec

from detectors.delay import DelayHistory
from detectors.novelty import KnownSignatures


class SharedState(msgspec.Struct, kw_only=True):
    """What `Shared.snapshot` gives."""

    known: dict[str, dict[int, int]]
    delays: dict[int, list[int]]


class Shared:
    """Kept by the stage, read and fed by its trackers.

    Attributes:
        known: signatures by the tenant groups that saw them, and when first.
        delays: reporting delays, by tenant group.
    """

    def __init__(self) -> None:
        self.known = KnownSignatures()
        self.delays = DelayHistory()

    def snapshot(self) -> SharedState:
        """Return the state; `restore` of it goes on alike."""
        return SharedState(known=self.known.snapshot(), delays=self.delays.snapshot())

    @classmethod
    def restore(cls, state: SharedState) -> "Shared":
        """Build what `state` was taken from."""
        shared = cls()
        shared.known = KnownSignatures.restore(state.known)
        shared.delays = DelayHistory(state.delays)
        return shared
