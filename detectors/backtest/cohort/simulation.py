"""Simulate a scenario at the level of cohorts: steps for Cordon, minutes for its peers, and the truth."""

from collections.abc import Iterator

import msgspec
import numpy as np

from detectors.backtest.cohort.crashlog import CrashLog
from detectors.backtest.cohort.declaring import INVENTED, Watched, watched_of
from detectors.backtest.cohort.dice import Dice
from detectors.backtest.cohort.digest import Digest
from detectors.backtest.cohort.facts import Facts, Life
from detectors.backtest.cohort.grid import quiet_ms, watermarks
from detectors.backtest.cohort.hearing import MINUTE_MS
from detectors.backtest.cohort.kinds import Kinds
from detectors.backtest.cohort.observing import Observer
from detectors.backtest.cohort.people import People
from detectors.backtest.cohort.shipping import assign, begins_ms
from detectors.backtest.cohort.tables import Counter, RolloutTables
from detectors.backtest.cohort.telling import Teller
from detectors.backtest.cohort.timeline import View
from detectors.backtest.cohort.uptime import NEVER
from detectors.backtest.draws import Ints
from detectors.backtest.scenario import Scenario
from detectors.backtest.trace import Trace, UpdateTruth
from ingest.grouping.cells import RECENT_SECONDS

SILENCE_SECONDS = 900
# Up to so many devices everything that is true of them is kept between the two passes.
KEPT_DEVICES_MAX = 1_000_000


class CohortError(ValueError):
    """The scenario can't be simulated at the cohort level; the message says what to change."""


def simulate(
    scenario: Scenario,
    *,
    devices: int | None = None,
    seed: int | None = None,
    partitions: int = 4,
    step_seconds: float | None = None,
) -> Trace:
    """Simulate a scenario; the same arguments give the same trace.

    Args:
        scenario: what happens.
        devices: how many devices, instead of the scenario's number; sites, shocks and liars stay as they are.
        seed: instead of the scenario's.
        partitions: how many device partitions speak.
        step_seconds: length of a step, with every minute's window full, exactly as grouping says it; left out, steps
            are short only while something happens (README.md says what that changes).

    Raises:
        CohortError: check-ins are not whole minutes apart, or too seldom to tell who was heard lately.
    """
    if seed is not None:
        scenario = msgspec.structs.replace(scenario, seed=seed)
    every_ms = round(scenario.fleet.check_in_seconds * 1000)
    if every_ms % MINUTE_MS or every_ms > (RECENT_SECONDS - 60) * 1000:
        raise CohortError("fleet.check_in_seconds: the cohort level needs whole minutes, at most 840 seconds")
    dice, kinds = Dice(scenario.seed), Kinds(scenario)
    people = People(scenario, scenario.fleet.devices if devices is None else devices, partitions, dice)
    life = Life(scenario, people, assign(scenario, people), dice, kinds)
    # What is true of the largest fleets is worked out twice rather than kept.
    kept = [] if people.devices > KEPT_DEVICES_MAX else [life.facts(chunk) for chunk in people.chunks()]

    def facts() -> Iterator[Facts]:
        return iter(kept) if kept else (life.facts(chunk) for chunk in people.chunks())

    digest = Digest(len(scenario.updates), partitions)
    for one in facts():
        digest.add(one)
    watched = watched_of(scenario, digest)
    arrivals, exposed, _ = digest.arrivals()
    world = _World(scenario, people, kinds, watermarks(scenario, arrivals, exposed, step_seconds), partitions)
    for one in facts():
        world.take(watched, one)
    return Trace(
        name=scenario.name,
        seed=scenario.seed,
        partitions=partitions,
        feed=world.teller(digest, exact=step_seconds is not None).feed(),
        minutes={one.record.rollout: world.observers[place].minutes() for place, one in world.shipped},
        truths=[_truth(scenario, one, digest) for _, one in world.shipped],
        reaction_ms=scenario.reaction_ms,
    )


class _World:
    """Everything that is gathered from the chunks."""

    def __init__(self, scenario: Scenario, people: People, kinds: Kinds, times: Ints, partitions: int) -> None:
        self._scenario, self._people, self._kinds = scenario, people, kinds
        self._times, self._partitions = times, partitions
        every_ms = round(scenario.fleet.check_in_seconds * 1000)
        self._strata = quiet_ms(scenario) <= MINUTE_MS
        self._counter = Counter(people, times, partitions, every_ms, SILENCE_SECONDS * 1000)
        self._log = CrashLog(people, kinds)
        self._tables: list[RolloutTables] = []
        self.shipped: list[tuple[int, Watched]] = []
        self.observers: dict[int, Observer] = {}

    def take(self, watched: list[Watched], facts: Facts) -> None:
        """Count one chunk's devices."""
        if not self._tables:
            self._begin(watched)
        for number, one in enumerate(watched):
            view = View(watched, number, facts)
            firsts = view.first_crashes()
            line = view.timeline(firsts)
            self._counter.count(self._tables[number], line, self._strata)
            self._log.add(number, self._tables[number].cells, firsts, line)
            if number in self.observers:
                self.observers[number].see(line, view.exposed_ms, one.product)

    def _begin(self, watched: list[Watched]) -> None:
        for number, one in enumerate(watched):
            rivals = [watched[rival].record.rollout for rival, _ in one.rivals]
            self._tables.append(self._counter.tables(one, rivals))
            if one.update != INVENTED:
                begin = begins_ms(self._scenario, self._scenario.updates[one.update])
                classes, end = self._counter.classes, self._scenario.end_ms
                self.observers[number] = Observer(self._people, self._kinds, begin, end, classes)
                self.shipped.append((number, one))
        self.shipped.sort(key=lambda pair: pair[1].update)

    def teller(self, digest: Digest, *, exact: bool) -> Teller:
        """Return what says the steps."""
        arrivals, _, partition = digest.arrivals()
        by_partition = [np.sort(arrivals[partition == number]) for number in range(self._partitions)]
        return Teller(
            self._scenario,
            self._times,
            self._partitions,
            self._tables,
            self._log.admitted(self._times),
            by_partition,
            self._counter.classes,
            SILENCE_SECONDS * 1000,
            exact,
        )


def _truth(scenario: Scenario, one: Watched, digest: Digest) -> UpdateTruth:
    plan = scenario.updates[one.update]
    took, harmed = digest.taken(one.update)
    first = digest.first_harm_ms[one.update]
    starts = sorted(begins_ms(scenario, plan) + round(ring.starts_after_seconds * 1000) for ring in plan.rings)
    return UpdateTruth(
        rollout=one.record.rollout,
        vendor=plan.vendor,
        product=plan.product,
        version=plan.version,
        guilty=plan.name in scenario.truth.names,
        began_ms=starts[0],
        broad_ms=starts[-1],
        took_ms=took,
        harmed=harmed,
        first_harm_ms=first if first < NEVER else None,
    )
