"""Gandalf's blame of a rollout for a fault: votes, vetoes, spatial correlation and decay with time."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from detectors.backtest.peers.peer import DAY_MS, HOUR_MS, MINUTE_MS, Alarm, Ticks, since
from detectors.backtest.peers.windows import Trailing, TrailingNames
from detectors.backtest.trace import Minute

FAST_PATH_MS: Final = 5 * MINUTE_MS
UNTIL_NEXT_DEPLOY_MS: Final = 10_000 * DAY_MS
WINDOWS_MS: Final = (HOUR_MS, DAY_MS, 3 * DAY_MS, UNTIL_NEXT_DEPLOY_MS)
WEIGHTS: Final = (0.4, 0.3, 0.2, 0.1)
BASELINE_MS: Final = 3 * DAY_MS
HALF_LIFE_MS: Final = 3 * DAY_MS
BLAME_LEAST: Final = math.log(10)


class Gandalf:
    """Blames the rollout for a signature that its devices show more often than before, and others do not show.

    Rule as published. Each fault votes for the rollouts that reached its node in the windows of 1 h, 24 h, 72 h and
    until the next deployment before it; faults from before the deployment veto. With P_i votes in window i and B of the
    72 hours before,

        ST = sum_i w_i log((P_i - B + 1) / (B + 1)),  w_1 > w_2 > w_3 > w_4

    is weighted by the spatial correlation P(t|i,j) = N(i,j) / F(j), the share of the fault's occurrences that lie on
    the rollout's nodes, and decays exponentially, so that newer rollouts are blamed first. The fast path looks every 5
    minutes. A classifier, trained on deployments that people had labelled, decides. Before all that, an anomaly
    detector picks the signatures that occur more often than their history foretells.

    Adapted. Minutes do not tell what a device did before, nor how long ago it was updated: windows reach back from now,
    and B is what the exposed devices would show in the window's device time at the controls' rate of the last 72 h
    (no controls in it: no verdict). P_i below B counts as no votes. Weights, decay and the trained classifier are not
    published as numbers: 0.4, 0.3, 0.2, 0.1, a half-life of 72 h and, for the classifier, a blame of at least log 10
    are assumed, a tenfold on the rollout's devices alone. There is no history for the anomaly detector: every signature
    is judged, and alarms once.

    Example:
        A signature that only the exposed show, twice a minute: ten faults at the first look, index 4.

        >>> minutes = [
        ...     Minute(
        ...         at_ms=60_000 * (i + 1),
        ...         exposed=100,
        ...         control=900,
        ...         active_exposed=20,
        ...         active_control=180,
        ...         crashes_exposed=2,
        ...         crashes_control=0,
        ...         users_exposed=2,
        ...         users_control=0,
        ...         signatures={"a.sys": (2, 0)},
        ...     )
        ...     for i in range(30)
        ... ]
        >>> [alarm.at_ms // 60_000 - 1 for alarm in Gandalf().watch(minutes, 0)]
        [4]

    Source: Li et al. (2020), "Gandalf: an intelligent, end-to-end analytics service for safe deployment in cloud-scale
    infrastructure", NSDI.
    """

    name = "gandalf"
    rule = "vote-veto score over 1 h, 24 h, 72 h and all, times spatial correlation and decay, at least log 10"
    source = (
        "Li et al. (NSDI 2020); windows, formula and 5 min are theirs; weights, half-life and threshold are assumed"
    )
    blind_to = (
        "old signatures while few devices are exposed, since most of their faults lie elsewhere; one fault spread over "
        "many signatures; devices that never report; what differs between cells"
    )

    def watch(self, minutes: Sequence[Minute], began_ms: int) -> list[Alarm]:
        """Return the alarms of one update; see `Peer.watch`."""
        alarms: list[Alarm] = []
        ticks, tallies = Ticks(began_ms, FAST_PATH_MS), _Tallies()
        told: set[str] = set()
        for minute in since(minutes, began_ms):
            tallies.push(minute)
            if not ticks.due(minute.at_ms):
                continue
            decay = 0.5 ** ((minute.at_ms - began_ms) / HALF_LIFE_MS)
            for signature in sorted(tallies.exposed[-1].keys() - told):
                blame = tallies.blame(signature)
                if blame is not None and decay * blame.score >= BLAME_LEAST:
                    told.add(signature)
                    alarms.append(Alarm(minute.at_ms, "kill", blame.sentence(signature, decay)))
        return alarms


@dataclass(frozen=True, slots=True)
class _Blame:
    votes: tuple[int, ...]
    vetoes: tuple[float, ...]
    spatial: float

    @property
    def score(self) -> float:
        terms = zip(WEIGHTS, self.votes, self.vetoes, strict=True)
        return self.spatial * sum(w * math.log((max(p - b, 0.0) + 1) / (b + 1)) for w, p, b in terms)

    def sentence(self, signature: str, decay: float) -> str:
        votes = ", ".join(map(str, self.votes))
        vetoes = ", ".join(f"{veto:.2g}" for veto in self.vetoes)
        return (
            f"{signature}: blame {decay * self.score:.2f} (>= {BLAME_LEAST:.2f}); faults in 1 h, 24 h, 72 h and all: "
            f"{votes}, expected {vetoes}; {self.spatial:.0%} of them on exposed devices"
        )


class _Tallies:
    """Faults and device time: of the exposed by window, of the controls over the baseline's span."""

    def __init__(self) -> None:
        self._exposed = [TrailingNames(span) for span in WINDOWS_MS]
        self._times = [Trailing(span, 1) for span in WINDOWS_MS]
        self._control, self._control_time = TrailingNames(BASELINE_MS), Trailing(BASELINE_MS, 1)
        self.exposed: list[Mapping[str, int]] = [{}]
        self._controls: Mapping[str, int] = {}
        self._device_time = [0]
        self._control_device_time = 0

    def push(self, minute: Minute) -> None:
        exposed = {name: pair[0] for name, pair in minute.signatures.items() if pair[0]}
        control = {name: pair[1] for name, pair in minute.signatures.items() if pair[1]}
        self.exposed = [window.push(minute.at_ms, exposed) for window in self._exposed]
        self._device_time = [window.push(minute.at_ms, minute.exposed)[0] for window in self._times]
        self._controls = self._control.push(minute.at_ms, control)
        (self._control_device_time,) = self._control_time.push(minute.at_ms, minute.control)

    def blame(self, signature: str) -> _Blame | None:
        """Return the blame for one signature; None without controls."""
        if not self._control_device_time:
            return None
        controls = self._controls.get(signature, 0)
        rate = controls / self._control_device_time
        votes = tuple(window.get(signature, 0) for window in self.exposed)
        # The window of the baseline's length, so that both sides of the share cover the same time.
        recent = votes[WINDOWS_MS.index(BASELINE_MS)]
        spatial = recent / (recent + controls) if recent else 0.0
        return _Blame(votes=votes, vetoes=tuple(rate * time for time in self._device_time), spatial=spatial)
