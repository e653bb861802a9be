"""What simulating a scenario at the cohort level yields: steps for Cordon, minutes for its peers, and the truth.

Nothing is stopped while a trace is made: what an earlier stop would have saved follows from the truth, since a device
that had not taken the update by then is not harmed by it. So one trace serves Cordon and every peer alike.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ingest.rollouts import Rollout
from ingest.windows import Step

Times = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Minute:
    """What an observer of the whole fleet sees of one update in one minute, by time of arrival.

    Peers work on these. Devices count as exposed once their `installed` or `offered` has arrived, or a crash report
    named the version.

    Attributes:
        at_ms: end of the minute, event time.
        exposed: devices on the version by then.
        control: devices on another version of the product, heard from within 26 hours.
        active_exposed: exposed devices heard from in this minute (a session, in the words of some peers).
        active_control: the same of the others.
        crashes_exposed: crash reports that arrived from exposed devices; a device's later crashes count again.
        crashes_control: the same of the others.
        users_exposed: distinct exposed devices with a crash report in this minute.
        users_control: the same of the others.
        signatures: version-free signature to (crashes exposed, crashes control) of this minute.
        models: device model to (exposed, control, crashes exposed, crashes control); counts of devices are those
            at the end of the minute.
    """

    at_ms: int
    exposed: int
    control: int
    active_exposed: int
    active_control: int
    crashes_exposed: int
    crashes_control: int
    users_exposed: int
    users_control: int
    signatures: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    models: Mapping[str, tuple[int, int, int, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateTruth:
    """What is true of one update, whether or not anybody reported it.

    Attributes:
        rollout: the rollout's id.
        guilty: whether the update harms.
        began_ms: when its first ring's push began.
        broad_ms: when the push to its last ring began; `began_ms` for a rollout without rings.
        took_ms: when each device took it, had nobody stopped it: shape (n,), ascending.
        harmed: which of these devices it harms, sooner or later: shape (n,).
        first_harm_ms: event time of the first harm; None if there is none.
    """

    rollout: str
    vendor: str
    product: str
    version: str
    guilty: bool
    began_ms: int
    broad_ms: int
    took_ms: Times
    harmed: Flags
    first_harm_ms: int | None

    def taken(self, stopped_ms: int | None = None) -> int:
        """Return how many devices take the update when its push stops at `stopped_ms`; None for never."""
        return len(self.took_ms) if stopped_ms is None else int(np.searchsorted(self.took_ms, stopped_ms))

    def lost(self, stopped_ms: int | None = None) -> int:
        """Return how many devices it harms when its push stops at `stopped_ms`; None for never."""
        return int(np.count_nonzero(self.harmed[: self.taken(stopped_ms)]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """One simulated scenario.

    Attributes:
        name: the scenario's name.
        seed: the seed it was made with.
        partitions: how many device partitions the steps speak for.
        feed: declarations and steps in the order of the log; may be a generator, to be read once.
        minutes: rollout id to what observers of that update see, minute by minute from its beginning on.
        truths: one for each update.
        reaction_ms: how long a rollout system pushes on after a decision.
    """

    name: str
    seed: int
    partitions: int
    feed: Iterable[Rollout | Step]
    minutes: Mapping[str, Sequence[Minute]]
    truths: Sequence[UpdateTruth]
    reaction_ms: int = 10_000
