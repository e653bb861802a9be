"""What a tracker is made of at one moment, as it lies in the log: the snapshot's wire type."""

import msgspec

from detectors.attribution import Finding
from detectors.baseline import BaselineState
from detectors.counts import CohortCountsState
from detectors.device_time import DeviceTimeState
from detectors.evidence import CrashEvidenceState
from detectors.explain import Ranking
from detectors.hour_tally import HourTallyState
from detectors.latch import LatchState
from detectors.silence import SilenceState
from detectors.strata import StrataState
from detectors.tally import CrashTally
from ingest.rollouts import Rollout
from ingest.windows import CohortWindow, Recovering


class TrackerState(msgspec.Struct, kw_only=True):
    """What `Tracker.snapshot` gives: enough to go on bit for bit."""

    rollout: str
    vendor: str
    product: str
    version: str
    origin_ms: int
    alpha: float
    declared: Rollout | None
    counts: CohortCountsState
    tally: CrashTally
    crashes: CrashEvidenceState
    silence: SilenceState
    strata: StrataState
    baseline: BaselineState
    latch: LatchState
    time: DeviceTimeState
    wave: list[int]
    silent_groups: list[int]
    finding: Finding | None
    ranking: Ranking = Ranking()
    idle_since_ms: int
    failed: str
    revision: int
    hour: HourTallyState = msgspec.field(default_factory=HourTallyState)
    recovery: dict[int, list[Recovering]] = {}

    def named(self) -> CohortWindow:
        """Return a window that names the rollout, and says nothing of it."""
        return CohortWindow(
            rollout=self.rollout,
            vendor=self.vendor,
            product=self.product,
            version=self.version,
            origin_ms=self.origin_ms,
        )
