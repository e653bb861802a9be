"""One rollout's view of a chunk: at every moment, in which cell and arm each device counts, and who crashes first.

A timeline is a sorted list of changes, so that any question ("where did the device count then?") is a binary search
and any table is a sum of changes. Nothing here knows of steps.
"""

from dataclasses import dataclass

import numpy as np

from detectors.backtest.cohort.cells import RolloutCells
from detectors.backtest.cohort.declaring import INVENTED, Watched
from detectors.backtest.cohort.facts import Facts
from detectors.backtest.cohort.hearing import ABSENT, MINUTE_MS
from detectors.backtest.cohort.uptime import NEVER, key_of
from detectors.backtest.draws import Bools, Ints
from ingest.grouping.cells import STALE_SECONDS

_OWN, _RIVAL, _DEAD, _HEARING = 1, 2, 1 << 8, 1 << 9


@dataclass(frozen=True, slots=True)
class FirstCrashes:
    """First crashes since a rollout's origin; shape (n,), in order of arrival.

    Attributes:
        crash: number of the crash in the chunk's facts.
        at_ms: event time as the report tells it.
        known: whether the device was heard of before.
        exposed: whether it counts as exposed.
    """

    crash: Ints
    device: Ints
    at_ms: Ints
    arrives_ms: Ints
    state: Ints
    split: Ints
    exposed: Bools
    known: Bools


@dataclass(frozen=True, slots=True)
class Timeline:
    """Changes of a rollout's devices, sorted by device and time; shape (changes,).

    Attributes:
        at_ms: when.
        member: whether the device is at risk from then on.
        hearing: whether it checks in.
        arm: 1 exposed, 0 control.
        state, split: its cell's.
        first: the first change of its device.
        exposed_ms, since_ms: by device, when it is known to be exposed, and since when it is.
    """

    facts: Facts
    device: Ints
    at_ms: Ints
    present: Bools
    member: Bools
    hearing: Bools
    arm: Ints
    state: Ints
    split: Ints
    first: Bools
    exposed_ms: Ints
    since_ms: Ints

    def places(self, cells: RolloutCells) -> Ints:
        """Return the place in a table after each change, -1 for nowhere."""
        static = self.facts.chunk.static[self.device]
        found = cells.place(static, np.maximum(self.state, 0), self.split, self.arm)
        return np.where(self.member, found, -1)

    def lookup(self, devices: Ints, times_ms: Ints) -> Ints:
        """Return the number of the last change of each device before its time, -1 for none."""
        keys = key_of(self.device, self.at_ms)
        place = np.searchsorted(keys, key_of(devices, times_ms), side="left") - 1
        if len(keys) == 0:
            return np.full(len(devices), -1, dtype=np.int64)
        return np.where((place >= 0) & (self.device[place] == devices), place, -1)


class View:
    """Looks at a chunk's facts as one rollout's grouping does."""

    def __init__(self, watched: list[Watched], number: int, facts: Facts) -> None:
        self._all, self._facts = watched, facts
        self._one = watched[number]
        chunk = facts.chunk
        self.has: Bools = (chunk.versions[self._one.product] >= 0) & ~chunk.unheard
        self.exposed_ms, self.since_ms = self._exposure(self._one)
        self.left_ms, self.left_since_ms, self._replaced_ms = self._left()

    def _exposure(self, one: Watched) -> tuple[Ints, Ints]:
        """Return by device when it is known to be exposed, and since when it is by event time."""
        if one.update != INVENTED:
            return self._facts.exposed_ms[one.update], self._facts.since_ms[one.update]
        known = np.where(self._facts.chunk.invented == one.liar, one.invented_ms, NEVER)
        return known, known

    def _left(self) -> tuple[Ints, Ints, Ints]:
        """Return when each device goes on to another version: when that is known, by event time, and on its disk."""
        known_ms, since_ms, disk_ms = (np.full(len(self.has), NEVER) for _ in range(3))
        for other in self._all:
            if other is self._one or other.product != self._one.product:
                continue
            known, since = self._exposure(other)
            later = (known > self.exposed_ms) & (self.exposed_ms < NEVER)
            known_ms = np.where(later, np.minimum(known_ms, known), known_ms)
            since_ms = np.where(later, np.minimum(since_ms, since), since_ms)
            if INVENTED not in (self._one.update, other.update):
                loads, mine = self._facts.taken[other.update].loads_ms, self._facts.taken[self._one.update].loads_ms
                disk_ms = np.where(loads > mine, np.minimum(disk_ms, loads), disk_ms)
        return known_ms, since_ms, disk_ms

    def first_crashes(self) -> FirstCrashes:
        """Return each device's first crash since the rollout's origin, in order of arrival."""
        facts, crashes = self._facts, self._facts.crashes
        chunk, arrives = facts.chunk, facts.arrives_ms
        at = np.minimum(crashes.at_ms + chunk.skew_ms[crashes.device], arrives)
        counts = self.has[crashes.device] & (arrives < NEVER) & (at // 1000 >= self._one.record.origin_ms // 1000)
        counts &= (arrives >= self._one.said_ms) & (arrives < self._one.until_ms)
        counts &= at // 1000 >= arrives // 1000 - STALE_SECONDS
        chosen = np.flatnonzero(counts)
        chosen = chosen[np.lexsort((arrives[chosen], crashes.device[chosen]))]
        device = crashes.device[chosen]
        chosen = chosen[np.concatenate([[True], device[1:] != device[:-1]])] if len(chosen) else chosen
        chosen = chosen[np.argsort(arrives[chosen], kind="stable")]
        return self._described(chosen, at[chosen])

    def _described(self, chosen: Ints, at: Ints) -> FirstCrashes:
        facts, crashes = self._facts, self._facts.crashes
        device, arrives = crashes.device[chosen], facts.arrives_ms[chosen]
        moves = facts.moves
        keys = key_of(moves.device, moves.at_ms)
        begin = np.searchsorted(keys, key_of(device, np.zeros(len(device), dtype=np.int64)))
        before = np.searchsorted(keys, key_of(device, at), side="right") - 1
        heard = np.searchsorted(keys, key_of(device, arrives), side="left") > begin
        state = (
            np.where(before >= begin, moves.state[before], 0) if len(keys) else np.zeros(len(device), dtype=np.int64)
        )
        boot = facts.boot_ms[chosen] + np.minimum(facts.chunk.skew_ms[device], 0)
        age = at // 1000 - boot // 1000
        band = (age >= 600).astype(np.int64) + (age >= 86_400)
        named = np.zeros(len(device), dtype=np.bool_)
        if self._one.update != INVENTED:
            named = facts.taken[self._one.update].loads_ms[device] <= crashes.at_ms[chosen]
            named &= self._replaced_ms[device] > crashes.at_ms[chosen]
        on = (self.since_ms[device] <= at) & (self.exposed_ms[device] <= arrives)
        on &= (self.left_since_ms[device] > at) | (self.left_ms[device] > arrives)
        split = np.zeros(len(device), dtype=np.int64)
        for bit, (rival, since) in enumerate(self._one.rivals):
            known, from_ms = self._exposure(self._all[rival])
            both = (from_ms[device] <= at) & (known[device] <= arrives) & (at >= since[facts.chunk.partition[device]])
            split |= both.astype(np.int64) << bit
        # Who has just booted counts as heard of: nobody else at risk is fresh and stale.
        stale = np.where(band == 0, 0, np.where(state == ABSENT, 1, state & 1))
        return FirstCrashes(chosen, device, at, arrives, band * 2 + stale, split, on | named, heard & (state != ABSENT))

    def timeline(self, firsts: FirstCrashes) -> Timeline:
        """Return the rollout's changes.

        Args:
            firsts: its first crashes, with which devices stop being at risk.
        """
        facts = self._facts
        moves, runs = facts.moves, facts.runs
        mine = self.has[moves.device]
        parts: list[tuple[Ints, Ints, Ints]] = []

        def toggle(devices: Ints, at_ms: Ints, bit: int) -> None:
            keep = at_ms < NEVER
            parts.append((devices[keep], at_ms[keep], np.full(int(keep.sum()), bit)))

        members = np.flatnonzero(self.has)
        toggle(members, self.exposed_ms[members], _OWN)
        toggle(members, self.left_ms[members], -_OWN)
        for bit, (rival, since) in enumerate(self._one.rivals):
            known = self._exposure(self._all[rival])[0][members]
            split_ms = np.maximum(known, since[facts.chunk.partition[members]] - 1)
            toggle(members, np.where(known < NEVER, split_ms, NEVER), _RIVAL << bit)
        toggle(firsts.device, firsts.arrives_ms, _DEAD)
        checks = self.has[runs.device] & (runs.from_ms < NEVER)
        toggle(runs.device[checks], runs.from_ms[checks], _HEARING)
        # Still heard in the minute of its last check-in: no longer when the next one ends.
        toggle(runs.device[checks], (runs.to_ms[checks] // MINUTE_MS + 1) * MINUTE_MS, -_HEARING)
        count = int(mine.sum())
        device = np.concatenate([moves.device[mine], *(part[0] for part in parts)])
        at = np.concatenate([moves.at_ms[mine], *(part[1] for part in parts)])
        bits = np.concatenate([np.zeros(count, dtype=np.int64), *(part[2] for part in parts)])
        order = np.argsort(key_of(device, at), kind="stable")
        device, at = device[order], at[order]
        first = np.concatenate([[True], device[1:] != device[:-1]]) if len(device) else np.zeros(0, dtype=np.bool_)
        begin = np.maximum.accumulate(np.where(first, np.arange(len(device)), 0))
        total = np.cumsum(bits[order])
        held = total - (total[begin] - bits[order][begin])
        source = np.maximum.accumulate(np.where(order < count, np.arange(len(device)), -1))
        moved = moves.state[mine][np.minimum(order[source], max(count - 1, 0))] if count else np.zeros(len(device))
        state = np.where(source >= begin, moved, ABSENT).astype(np.int64)
        present = state != ABSENT
        return Timeline(
            facts=facts,
            device=device,
            at_ms=at,
            present=present,
            member=present & ((held & _DEAD) == 0),
            hearing=(held & ~(_DEAD - 1)) >= _HEARING,
            arm=held & _OWN,
            state=state,
            split=(held // _RIVAL) & 3,
            first=first,
            exposed_ms=self.exposed_ms,
            since_ms=self.since_ms,
        )
