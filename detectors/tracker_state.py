"""What a tracker is made of at one moment, as it lies in the log: the snapshot's wire type."""

import msgspec

from detectors.baseline import BaselineState
from detectors.counts import CohortCountsState
from detectors.interval import RatioState
from detectors.sequential import RateRatioState
from detectors.silence import SilenceState
from detectors.strata import StrataState
from detectors.tally import CrashTally
from ingest.rollouts import Rollout


class TrackerState(msgspec.Struct, kw_only=True):
    """What `Tracker.snapshot` gives: enough to go on bit for bit."""

    rollout: str
    vendor: str
    product: str
    version: str
    origin_ms: int
    declared: Rollout | None
    counts: CohortCountsState
    tally: CrashTally
    rate: RateRatioState
    ratio_upper: RatioState
    ratio_known: RatioState
    silence: SilenceState
    strata: StrataState
    baseline: BaselineState
    silent_groups: list[int]
    kill_max: float
    hold_max: float
    accounted_ms: int
    known_seconds: float
    control_seconds: float
    age_crashes: list[int]
    age_seconds: list[float]
    block: list[int]
    idle_since_ms: int
    failed: str
    revision: int
