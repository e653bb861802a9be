"""Which watched rollouts share devices, and what attribution makes of them: between the stage and `attribution`.

Keeps each tracker's finding up to date. Invariant: a rollout that shares devices with another watched one is killed by
attribution only, never by its own evidence alone.
"""

from collections.abc import Iterable, Mapping

from detectors.attribution import SUSPECTS_MAX, Attributor, AttributorState, Guilt
from detectors.explain import ranked_again
from detectors.policy import Policy
from detectors.third import factors
from detectors.tracker import Tracker


class Suspicion:
    """Judges rollouts among those on the same devices."""

    def __init__(self, policy: Policy) -> None:
        self._attributor = Attributor(policy.alpha_hold, policy.alpha_watch)
        # Who names each rollout as a rival, and the rivals that each named when it was noted; None before the first.
        self._named_by: dict[str, set[str]] = {}
        self._noted: dict[str, tuple[str, ...]] | None = None

    def note(self, tracker: Tracker) -> None:
        """Take which rivals a rollout's cells are split by now; call it when that may have changed."""
        if self._noted is None:
            return
        now, before = tuple(tracker.counts.rivals()), self._noted.get(tracker.rollout, ())
        if now == before:
            return
        for rival in before:
            self._named_by.get(rival, set()).discard(tracker.rollout)
        for rival in now:
            self._named_by.setdefault(rival, set()).add(tracker.rollout)
        self._noted[tracker.rollout] = now

    def prepare(self, trackers: Mapping[str, Tracker], rollout: str) -> None:
        """Tell a rollout, before its crashes are scored, what rivals that its cells are not split by could feign."""
        tracker = trackers[rollout]
        thirds = self._unsplit(trackers, rollout)
        counts = [trackers[name].counts for name in sorted(thirds)]
        allowed = factors(rollout, tracker.counts, counts) if counts else {}
        tracker.third.allow(allowed, len(tracker.counts.rivals()))

    def _unsplit(self, trackers: Mapping[str, Tracker], rollout: str) -> frozenset[str]:
        """Return the rollouts that name one as their rival, though its own cells are not split by them."""
        self._begin(trackers)
        named_by = self._named_by.get(rollout, set())
        return frozenset(name for name in named_by if name in trackers) - set(trackers[rollout].counts.rivals())

    def _begin(self, trackers: Mapping[str, Tracker]) -> None:
        if self._noted is None:
            self._noted = {}
            for tracker in trackers.values():
                self.note(tracker)

    def judge(self, trackers: Mapping[str, Tracker], rollout: str) -> tuple[list[str], list[str]]:
        """Judge a rollout whose evidence moved, and all that share devices with it.

        Returns:
            The rollouts whose finding changed, and of them those but `rollout` of whom something else is said now.
        """
        self._begin(trackers)
        self.note(trackers[rollout])
        concerned = sharing(trackers, rollout, self._named_by)
        if len(concerned) < 2 and trackers[rollout].finding is None:
            return [], []
        rivals = {name: trackers[name].counts.rivals() for name in concerned}
        suspects = [
            trackers[name].suspect(self._unsplit(trackers, name)) for name in concerned if not trackers[name].failed
        ]
        both = {(name, other): trackers[name].devices_with(other) for name in concerned for other in rivals[name]}
        changed, news = [], []
        for finding in self._attributor.update(suspects, both):
            tracker = trackers[finding.rollout]
            if (finding.held or finding.guilt is Guilt.GUILTY) and _explained(tracker):
                changed.append(finding.rollout)
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
        for rival in (self._noted or {}).pop(rollout, ()):
            self._named_by.get(rival, set()).discard(rollout)
        self._named_by.pop(rollout, None)

    def snapshot(self) -> AttributorState:
        """Return the state; `load` takes it up. Findings are kept by the trackers."""
        state = self._attributor.snapshot()
        state.noted = None if self._noted is None else dict(self._noted)
        return state

    def load(self, state: AttributorState) -> None:
        """Take up a state."""
        self._attributor = Attributor.restore(state)
        self._noted = None if state.noted is None else dict(state.noted)
        self._named_by = {}
        for name, rivals in (self._noted or {}).items():
            for rival in rivals:
                self._named_by.setdefault(rival, set()).add(name)


def sharing(trackers: Mapping[str, Tracker], rollout: str, named_by: Mapping[str, Iterable[str]]) -> list[str]:
    """Return the watched rollouts that share devices with one, directly or by others, itself first.

    Cells are split by the youngest rivals only, so an old rollout names a young one that does not name it.
    """
    found, waiting = [rollout], [rollout]
    while waiting:
        name = waiting.pop()
        for rival in (*trackers[name].counts.rivals(), *sorted(named_by.get(name, ()))):
            if rival in trackers and rival not in found and len(found) < SUSPECTS_MAX:
                found.append(rival)
                waiting.append(rival)
    return found


def _explained(tracker: Tracker) -> bool:
    """Rank a rollout among its rivals for people, once its crashes have doubled; tell whether that was due."""
    seconds = max(0, tracker.idle_since_ms - tracker.origin_ms) / 1000.0
    ranking = ranked_again(tracker.ranking, tracker.rollout, tracker.counts, tracker.tally, seconds)
    if ranking is tracker.ranking:
        return False
    tracker.ranking = ranking
    tracker.revision += 1
    return True
