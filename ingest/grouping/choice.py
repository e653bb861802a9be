"""Which rollouts are whose rivals, chosen at each minute by exposure alone.

Everything in it follows from the rows and from the rivals chosen before, which a snapshot keeps: a partition that is
read again chooses the same ones at the same minutes.
"""

import itertools

import numpy as np

from ingest.grouping.cells import STALE_SECONDS
from ingest.grouping.cohorts import Cohorts, Watched
from ingest.grouping.fleet import scan
from ingest.grouping.rivals import RIVALS_MAX, Era, Rival

Met = dict[str, set[str]]


def choose_rivals(cohorts: Cohorts, at_s: int) -> None:
    """Choose each watched rollout's rivals as of a minute; where they change, or cells are too many, begin an era.

    Candidates are the rivals it has and the rollouts of other products that a device is exposed to beside it; the
    youngest by origin are taken. The tables of a rollout that begins an era are empty until counted.

    Args:
        cohorts: the watched rollouts of one partition.
        at_s: the minute, seconds since the epoch.
    """
    met = _met(cohorts, at_s)
    for watched in cohorts.watched.values():
        pool = {rival.rollout for rival in watched.era.rivals} | met.get(watched.notice.rollout, set())
        youngest = sorted((cohorts.watched[name] for name in pool), key=lambda one: one.age)[-RIVALS_MAX:]
        rivals = {Rival(one.notice.rollout, one.update) for one in youngest}
        if rivals != set(watched.era.rivals) or (rivals and watched.era.crowded):
            watched.begin(Era(cohorts.cells, at_s, rivals))


def _met(cohorts: Cohorts, at_s: int) -> Met:
    """Return with which others each rollout shares an exposed device, of those that it might take as rivals.

    The look over the rows ends when no pair that matters is left: mostly at once, where rollouts overlap much.
    """
    sought: dict[int, tuple[str, str]] = {}
    for first, second in itertools.combinations(cohorts.watched.values(), 2):
        if first.product != second.product and (_may_take(cohorts, first, second) or _may_take(cohorts, second, first)):
            sought[first.mask | second.mask] = (first.notice.rollout, second.notice.rollout)
    met: Met = {}
    for rows in scan(cohorts.fleet) if sought else ():
        exposed = cohorts.bits(rows["update"])[1]
        several = np.flatnonzero(exposed & (exposed - 1))
        if len(several) == 0:
            continue
        heard = rows["heard"][several]
        lately = (heard != 0) & ((np.uint32(at_s) - heard).view(np.int32) <= STALE_SECONDS)
        for pattern in np.unique(exposed[several[lately]]).tolist():
            for pair in [pair for pair in sought if pattern & pair == pair]:
                one, other = sought.pop(pair)
                met.setdefault(one, set()).add(other)
                met.setdefault(other, set()).add(one)
        if not sought:
            break
    return met


def _may_take(cohorts: Cohorts, watched: Watched, other: Watched) -> bool:
    """Tell whether a rollout would take another as its rival if they share a device."""
    rivals = [cohorts.watched[rival.rollout] for rival in watched.era.rivals]
    if other in rivals:
        return False
    return len(rivals) < RIVALS_MAX or other.age > min(rival.age for rival in rivals)
