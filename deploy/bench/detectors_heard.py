"""Who is heard from: the lowest share of the exposed in healthy rollouts, and where an update silences devices.

Whole scenarios of the backtest's library at the cohort level, nights and weekends included. It holds the default of the
setting `lease_heard_share_least`: healthy rollouts keep their lease, and one that silences its devices loses it.
"""

from deploy.bench.figures import Figure, at_least, at_most, printed
from detectors.backtest.cohort import simulate
from detectors.backtest.library import load
from detectors.backtest.score import StageRun
from detectors.policy import load as load_policies
from detectors.verdict import Verdict
from ingest.settings import Settings

# Nights, a Friday evening, a power cut, a silent gateway, a holiday, few devices.
HEALTHY = ("cure", "friday-evening", "controls-off", "power-cut", "activity-lag")
SILENCING = ("july-19", "july-19-rings", "silent-boot-loops")
EXPOSED_LEAST = 100


class _Heard(StageRun):
    """Keeps the lowest share of each rollout, and when it was first below the bound."""

    def __init__(self, partitions: int, least: float) -> None:
        super().__init__(partitions, load_policies())
        self._least = least
        self.lowest: dict[str, float] = {}
        self.began_ms: dict[str, int] = {}
        self.lost_ms: dict[str, int] = {}

    def _take(self, verdict: Verdict) -> None:
        super()._take(verdict)
        share = verdict.heard_share
        if share is None or verdict.evidence.exposed < EXPOSED_LEAST:
            return
        self.began_ms.setdefault(verdict.rollout, verdict.at_ms)
        self.lowest[verdict.rollout] = min(share, self.lowest.get(verdict.rollout, 1.0))
        if share < self._least:
            self.lost_ms.setdefault(verdict.rollout, verdict.at_ms)


def _heard(name: str, least: float) -> _Heard:
    trace = simulate(load(name), devices=None, seed=load(name).seed)
    run = _Heard(trace.partitions, least)
    run.feed(trace.feed)
    return run


def measure() -> list[Figure]:
    """Return the lowest share of each scenario against the setting's default."""
    least = Settings().lease_heard_share_least
    figures = []
    for name in HEALTHY:
        lowest = min(_heard(name, least).lowest.values())
        figures.append(at_least(f"lowest share heard from, healthy: {name}", lowest, "of exposed", least))
    for name in SILENCING:
        run = _heard(name, least)
        rollout, lowest = min(run.lowest.items(), key=lambda item: item[1])
        figures.append(at_most(f"lowest share heard from, silencing: {name}", lowest, "of exposed", least))
        if rollout in run.lost_ms:
            minutes = (run.lost_ms[rollout] - run.began_ms[rollout]) / 60_000
            figures.append(printed(f"... below {least:g} from {EXPOSED_LEAST} exposed on after", minutes, "minutes"))
    return figures
