"""What becomes of a chunk's devices: runs, updates, crashes and when each is known, before anything is counted."""

from dataclasses import dataclass

import numpy as np

from detectors.backtest.cohort.crashing import Crasher, Crashes
from detectors.backtest.cohort.dice import Dice
from detectors.backtest.cohort.hearing import Moves, Runs, Said, moves_of, runs_of
from detectors.backtest.cohort.kinds import Kinds
from detectors.backtest.cohort.listing import listed_ms
from detectors.backtest.cohort.people import Chunk, People
from detectors.backtest.cohort.shipping import Taken, conditions, product_of, take
from detectors.backtest.cohort.surroundings import Surroundings, ms
from detectors.backtest.cohort.uptime import NEVER, Lookup, Spans, cut, next_check_in, powered
from detectors.backtest.draws import Bools, Ints
from detectors.backtest.scenario import Scenario
from ingest.grouping.devices import WINDOW

# The backlog of an outage is told within so many seconds after it.
_BACKLOG_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Facts:
    """A chunk's devices and what is true and known of them.

    Attributes:
        spans: when they run.
        said: reports beside check-ins and crashes.
        taken: by update, when each device took it and when it ran; shapes (devices,).
        exposed_ms: by update, when grouping counts each device as exposed; `NEVER` for never.
        since_ms: by update, from when on it does, by event time.
        harmed: by update, which devices it harms before the end.
        crashes: crashes, sorted by device and time.
        arrives_ms: when the report of each crash arrives, `NEVER` for never.
        boot_ms: the boot that each crash ended.
    """

    chunk: Chunk
    spans: Spans
    runs: Runs
    moves: Moves
    taken: list[Taken]
    exposed_ms: list[Ints]
    since_ms: list[Ints]
    harmed: list[Bools]
    said: list[Said]
    crashes: Crashes
    arrives_ms: Ints
    boot_ms: Ints


class Life:
    """Makes the facts of each chunk of a scenario."""

    def __init__(self, scenario: Scenario, people: People, assigned: list[Ints], dice: Dice, kinds: Kinds) -> None:
        self._scenario, self._people, self._assigned = scenario, people, assigned
        self._dice, self._kinds = dice, kinds
        self._surroundings = Surroundings(scenario, people, assigned, dice)

    def facts(self, chunk: Chunk) -> Facts:
        """Return what becomes of the chunk's devices."""
        scenario = self._scenario
        spans, blows = self._surroundings.apply(powered(scenario, chunk), chunk)
        spans, taken = self._ship(spans, chunk)
        crashes = Crasher(scenario, self._people, chunk, self._dice, self._kinds).resolved(Lookup(spans), taken, blows)
        before = Lookup(spans)
        place = before.at(crashes.device, crashes.at_ms)
        boot = np.where(place >= 0, spans.boot_ms[place], crashes.at_ms) if len(spans.device) else crashes.at_ms
        spans = cut(spans, crashes.device, crashes.at_ms, np.maximum(crashes.up_ms, crashes.at_ms + 1))
        lookup = Lookup(spans)
        taken, harmed = self._undone(taken, crashes, lookup, chunk)
        arrives = self._arrivals(crashes, taken, lookup, chunk)
        said, exposed, since = self._known(taken, crashes, arrives, lookup, chunk)
        runs = runs_of(spans, chunk, said)
        moves = moves_of(runs, chunk, scenario.end_ms)
        return Facts(chunk, spans, runs, moves, taken, exposed, since, harmed, said, crashes, arrives, boot)

    def _ship(self, spans: Spans, chunk: Chunk) -> tuple[Spans, list[Taken]]:
        scenario, mine = self._scenario, slice(chunk.first, chunk.first + chunk.devices)
        taken = []
        for number, plan in enumerate(scenario.updates):
            offered = take(scenario, number, chunk, self._assigned[number][mine], Lookup(spans))
            devices = np.flatnonzero(offered < NEVER)
            ready = offered[devices] + round(plan.activation_seconds * 1000)
            if plan.reboots:
                rng = self._dice.stream("update reboot", chunk.number, number)
                back = ready + ms(rng.uniform(*scenario.background.reboot_seconds, len(devices)))
                spans = cut(spans, devices, ready, back)
                ready = back
            loads = np.full(chunk.devices, NEVER)
            loads[devices] = Lookup(spans).when(devices, ready)
            harmed_by = conditions(scenario, plan.incident, self._people, chunk)
            taken.append(Taken(offered, loads, harmed_by))
        return spans, taken

    def _undone(
        self, taken: list[Taken], crashes: Crashes, lookup: Lookup, chunk: Chunk
    ) -> tuple[list[Taken], list[Bools]]:
        """Put off what was offered to devices while they were down, and say whom each update harmed.

        Whoever is offered an update at a check-in after a crash escapes its harm at loading; that is one in a hundred
        thousand pushes.
        """
        kept, harmed = [], []
        for number, one in enumerate(taken):
            offered, loads = one.offered_ms.copy(), one.loads_ms.copy()
            down = (offered[crashes.device] >= crashes.at_ms) & (offered[crashes.device] < crashes.up_ms)
            devices = crashes.device[down]
            up = lookup.when(devices, crashes.up_ms[down])
            later = np.where(up < NEVER, next_check_in(chunk.phase_ms[devices], chunk.every_ms, up), NEVER)
            later[lookup.at(devices, np.minimum(later, NEVER - 1)) < 0] = NEVER
            offered[devices] = later
            after = round(self._scenario.updates[number].activation_seconds * 1000)
            loads[devices] = np.where(later < NEVER, lookup.when(devices, np.minimum(later + after, NEVER)), NEVER)
            kept.append(Taken(offered, loads, one.harmed_by))
            hit = np.zeros(chunk.devices, dtype=np.bool_)
            hit[crashes.device[crashes.update == number]] = True
            harmed.append(hit & (offered < NEVER))
        return kept, harmed

    def _arrivals(self, crashes: Crashes, taken: list[Taken], lookup: Lookup, chunk: Chunk) -> Ints:
        scenario, device = self._scenario, crashes.device
        rng = self._dice.stream("arrival", chunk.number)
        says = np.where(crashes.says_ms >= 0, crashes.says_ms, lookup.when(device, crashes.up_ms))
        delay = self._delays(rng, len(device))
        for plan, one in zip(scenario.updates, taken, strict=True):
            if max(*plan.crash_delay_seconds, *plan.control_crash_delay_seconds) > 0:
                has = chunk.versions[product_of(scenario, plan)][device] >= 0
                on = has & (one.offered_ms[device] <= crashes.at_ms)
                delay += np.where(on, ms(rng.uniform(*plan.crash_delay_seconds, len(device))), 0)
                off = has & ~on
                delay += np.where(off, ms(rng.uniform(*plan.control_crash_delay_seconds, len(device))), 0)
        # So many check-ins later, grouping takes a number that it has not seen for one that it may have seen.
        never = (says >= NEVER) | chunk.unheard[device] | (delay >= (WINDOW - 1) * chunk.every_ms)
        return np.where(never, NEVER, self._after_outages(rng, np.where(never, 0, says + delay)))

    def _delays(self, rng: np.random.Generator, count: int) -> Ints:
        telemetry = self._scenario.telemetry
        drawn = np.minimum(rng.exponential(telemetry.delay_seconds_mean, count), telemetry.delay_seconds_max)
        return np.where(rng.random(count) < telemetry.delayed_share, ms(drawn), 0)

    def _after_outages(self, rng: np.random.Generator, times_ms: Ints) -> Ints:
        for outage in self._scenario.environment.outages:
            start = self._scenario.rollout_ms + round(outage.starts_after_seconds * 1000)
            end = start + round(outage.over_seconds * 1000)
            late = end + ms(rng.random(len(times_ms)) * _BACKLOG_SECONDS)
            times_ms = np.where((times_ms >= start) & (times_ms < end), late, times_ms)
        return times_ms

    def _known(
        self, taken: list[Taken], crashes: Crashes, arrives_ms: Ints, lookup: Lookup, chunk: Chunk
    ) -> tuple[list[Said], list[Ints], list[Ints]]:
        """Return the reports beside check-ins and crashes, and by update when each device is known to be exposed."""
        said, known, since = [], [], []
        for number, (plan, one) in enumerate(zip(self._scenario.updates, taken, strict=True)):
            rng = self._dice.stream("known", chunk.number, number)
            exposed, from_ms = np.full(chunk.devices, NEVER), np.full(chunk.devices, NEVER)
            devices = np.flatnonzero((one.offered_ms < NEVER) & ~chunk.unheard)
            if plan.says_offered:
                times = one.offered_ms[devices]
                arrival = self._after_outages(rng, times + self._delays(rng, len(devices)))
                # What is delayed on a device that never comes up again is never told.
                told = (arrival == times) | (lookup.when(devices, arrival) < NEVER)
                said.append(Said(devices[told], times[told], arrival[told]))
                exposed[devices[told]], from_ms[devices[told]] = arrival[told], times[told]
            self._installed(number, one, crashes, lookup, chunk, said, exposed, from_ms)
            named = (arrives_ms < NEVER) & (one.loads_ms[crashes.device] <= crashes.at_ms)
            np.minimum.at(exposed, crashes.device[named], arrives_ms[named])
            np.minimum.at(from_ms, crashes.device[named], one.loads_ms[crashes.device[named]])
            if plan.declare == "lists":
                self._listed(number, chunk, exposed, from_ms)
            known.append(exposed)
            since.append(from_ms)
        return said, known, since

    def _installed(
        self,
        number: int,
        one: Taken,
        crashes: Crashes,
        lookup: Lookup,
        chunk: Chunk,
        said: list[Said],
        exposed: Ints,
        since: Ints,
    ) -> None:
        """Note the `installed` of those that live to say it, and the version in the check-in after."""
        plan = self._scenario.updates[number]
        after_ms = round(plan.installed_after_seconds * 1000)
        ready = one.loads_ms + after_ms
        struck = crashes.update == number
        at_once = struck & (crashes.at_ms <= ready[crashes.device])
        speaks = (one.loads_ms < NEVER) & ~chunk.unheard
        speaks[crashes.device[at_once]] = plan.incident is not None and plan.incident.victims_say_installed
        devices = np.flatnonzero(speaks)
        times = lookup.when(devices, ready[devices])
        devices, times = devices[times < NEVER], times[times < NEVER]
        said.append(Said(devices, times, times))
        np.minimum.at(exposed, devices, times)
        np.minimum.at(since, devices, times)
        devices = np.flatnonzero((one.loads_ms < NEVER) & ~chunk.unheard)
        up = lookup.when(devices, one.loads_ms[devices])
        devices, up = devices[up < NEVER], up[up < NEVER]
        times = next_check_in(chunk.phase_ms[devices], chunk.every_ms, up)
        lists = lookup.at(devices, times) >= 0
        np.minimum.at(exposed, devices[lists], times[lists])
        np.minimum.at(since, devices[lists], times[lists])

    def _listed(self, number: int, chunk: Chunk, exposed: Ints, since: Ints) -> None:
        """Expose those that the rollout system lists, from the first moment of their slice of the push on."""
        times = listed_ms(self._scenario, self._assigned[number])[chunk.first : chunk.first + chunk.devices]
        devices = np.flatnonzero((times < NEVER) & (chunk.invented < 0))
        np.minimum.at(exposed, devices, times[devices])
        np.minimum.at(since, devices, times[devices])
