"""Which watched rollouts share devices, and what attribution makes of them: between the stage and `attribution`.

Keeps each tracker's finding up to date. Invariant: a rollout that shares devices with another watched one is killed by
attribution only, never by its own evidence alone.
"""

from collections.abc import Mapping

from detectors.attribution import SUSPECTS_MAX, Attributor, AttributorState
from detectors.policy import Policy
from detectors.tracker import Tracker


class Suspicion:
    """Judges rollouts among those on the same devices."""

    def __init__(self, policy: Policy) -> None:
        self._attributor = Attributor(policy.alpha_hold, policy.alpha_watch)

    def judge(self, trackers: Mapping[str, Tracker], rollout: str) -> tuple[list[str], list[str]]:
        """Judge a rollout whose evidence moved, and all that share devices with it.

        Returns:
            The rollouts whose finding changed, and of them those but `rollout` of whom something else is said now.
        """
        concerned = sharing(trackers, rollout)
        if len(concerned) < 2 and trackers[rollout].finding is None:
            return [], []
        rivals = {name: trackers[name].counts.rivals() for name in concerned}
        suspects = [
            trackers[name].suspect(frozenset(other for other in concerned if name in rivals[other]) - set(rivals[name]))
            for name in concerned
            if not trackers[name].failed
        ]
        both = {(name, other): trackers[name].devices_with(other) for name in concerned for other in rivals[name]}
        changed, news = [], []
        for finding in self._attributor.update(suspects, both):
            tracker = trackers[finding.rollout]
            if tracker.finding == finding:
                continue
            before, tracker.finding = tracker.finding, finding
            tracker.revision += 1
            changed.append(finding.rollout)
            if finding.rollout != rollout and (before is None or before.guilt is not finding.guilt):
                news.append(finding.rollout)
        return changed, news

    def close(self, rollout: str) -> None:
        """Forget a rollout that is over."""
        self._attributor.close(rollout)

    def snapshot(self) -> AttributorState:
        """Return the state; `load` takes it up. Findings are kept by the trackers."""
        return self._attributor.snapshot()

    def load(self, state: AttributorState) -> None:
        """Take up a state."""
        self._attributor = Attributor.restore(state)


def sharing(trackers: Mapping[str, Tracker], rollout: str) -> list[str]:
    """Return the watched rollouts that share devices with one, directly or by others, itself first."""
    found, waiting = [rollout], [rollout]
    while waiting:
        for rival in trackers[waiting.pop()].counts.rivals():
            if rival in trackers and rival not in found and len(found) < SUSPECTS_MAX:
                found.append(rival)
                waiting.append(rival)
    return found
