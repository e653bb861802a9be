"""What crashes look like: each kind of crash of a scenario by number, with its version-free signature."""

import msgspec
import numpy as np

from detectors.backtest.draws import Ints
from detectors.backtest.environment import CrashKind
from detectors.backtest.scenario import Scenario
from ingest.signature import signature_of, telling_frames


class Kinds:
    """The kinds of crash that a scenario has, in order of first use.

    Attributes:
        signatures: by kind, its signature at grain module and bugcheck, as grouping names it.
        frames: by kind, its places on the stack, as grouping tells them.
    """

    def __init__(self, scenario: Scenario) -> None:
        self.signatures: list[str] = []
        self.frames: list[list[str]] = []
        self._known: dict[bytes, int] = {}
        self._usual = [self.of(kind) for kind in scenario.background.crashes]
        weights = np.array([kind.weight for kind in scenario.background.crashes])
        self._edges = np.cumsum(weights / weights.sum())

    def of(self, kind: CrashKind) -> int:
        """Return the number of a kind."""
        key = msgspec.msgpack.encode(msgspec.structs.replace(kind, weight=1.0))
        if key not in self._known:
            self._known[key] = len(self.signatures)
            made = signature_of(kind.bugcheck, kind.parameters, kind.frames, kind.module)
            self.signatures.append(made.module_bugcheck)
            self.frames.append(telling_frames(kind.frames))
        return self._known[key]

    def background(self, rng: np.random.Generator, count: int) -> Ints:
        """Draw what `count` crashes without a cause of their own look like."""
        picked = np.searchsorted(self._edges, rng.random(count), side="right")
        return np.array(self._usual, dtype=np.int64)[np.minimum(picked, len(self._usual) - 1)]


def moved(kind: CrashKind, module: str, by: int) -> CrashKind:
    """Return a crash as a version shows it whose code of `module` lies `by` bytes further on."""
    frames = [
        msgspec.structs.replace(frame, offset=frame.offset + by) if frame.module == module else frame
        for frame in kind.frames
    ]
    return msgspec.structs.replace(kind, frames=frames)
