"""What happens to devices whatever is shipped: reboots, lost power, switching off, and crashes that come with a place.

Everything here is drawn before the updates' harm and gives cuts in the spans that devices run in, and crashes.
"""

from dataclasses import dataclass

import numpy as np

from detectors.backtest.cohort.dice import Dice
from detectors.backtest.cohort.people import Chunk, People
from detectors.backtest.cohort.uptime import NEVER, Lookup, Spans, cut
from detectors.backtest.draws import Bools, Floats, Ints
from detectors.backtest.environment import CrashKind, PowerCut, SiteShocks, SwitchedOff
from detectors.backtest.scenario import Scenario


def ms(seconds: Floats | float) -> Ints:
    """Turn seconds into whole milliseconds."""
    whole: Ints = np.rint(np.asarray(seconds) * 1000).astype(np.int64)
    return whole


@dataclass(frozen=True, slots=True)
class Blow:
    """Crashes that the surroundings cause; arrays of shape (n,).

    Attributes:
        up_ms: when the device runs again; -1 for after an ordinary reboot.
        crash: what they look like; None for like any other.
    """

    device: Ints
    at_ms: Ints
    up_ms: Ints
    crash: CrashKind | None


class Surroundings:
    """Draws what befalls the devices of a scenario, chunk by chunk.

    Args:
        assigned: by update, when the rollout system gets to each device of the fleet.
    """

    def __init__(self, scenario: Scenario, people: People, assigned: list[Ints], dice: Dice) -> None:
        self._scenario, self._people, self._assigned, self._dice = scenario, people, assigned, dice
        environment = scenario.environment
        self._cuts = [self._sites_of(number, each) for number, each in enumerate(environment.power_cuts)]
        self._shocks = [self._sites_of(100 + number, each) for number, each in enumerate(environment.site_shocks)]

    def _sites_of(self, number: int, plan: PowerCut | SiteShocks) -> Ints:
        """Choose the sites that one plan hits, among those with a device that is meant; sorted keys."""
        chosen = self._people.match(plan.where, slice(0, self._people.devices))
        keys = np.unique(self._people.site_key[chosen])
        rng = self._dice.stream("sites", number)
        picked: Ints = np.sort(rng.choice(keys, size=min(plan.sites, len(keys)), replace=False))
        return picked

    def _mine(self, chunk: Chunk) -> slice:
        return slice(chunk.first, chunk.first + chunk.devices)

    def apply(self, spans: Spans, chunk: Chunk) -> tuple[Spans, list[Blow]]:
        """Return when the devices run in these surroundings, and the crashes that come with them."""
        blows: list[Blow] = []
        environment = self._scenario.environment
        for number, off in enumerate(environment.switched_off):
            spans = cut(spans, *self._switched_off(chunk, off, number))
        for number, reboots in enumerate(environment.reboots):
            rng = self._dice.stream("reboots", number, chunk.number)
            chosen = self._people.match(reboots.where, self._mine(chunk)) & (rng.random(chunk.devices) < reboots.share)
            devices = np.flatnonzero(chosen)
            after = rng.random(len(devices)) * reboots.over_seconds
            down = self._moment(reboots.starts_after_seconds) + ms(after)
            low, high = self._scenario.background.reboot_seconds
            up = down + ms(rng.uniform(low, high, len(devices)))
            runs = Lookup(spans).at(devices, down) >= 0
            spans = cut(spans, devices[runs], down[runs], up[runs])
        for number, power in enumerate(environment.power_cuts):
            spans = self._lose_power(spans, chunk, power, number, blows)
        for number, shocks in enumerate(environment.site_shocks):
            blows.append(self._shock(chunk, shocks, number))
        return spans, blows

    def _moment(self, after_seconds: float) -> int:
        return self._scenario.rollout_ms + round(after_seconds * 1000)

    def _switched_off(self, chunk: Chunk, plan: SwitchedOff, number: int) -> tuple[Ints, Ints, Ints]:
        rng = self._dice.stream("switched off", number, chunk.number)
        chosen = self._people.match(plan.where, self._mine(chunk)) & (rng.random(chunk.devices) < plan.share)
        down = self._moment(plan.starts_after_seconds) + ms(rng.random(chunk.devices) * plan.over_seconds)
        if plan.arm != "any":
            names = [update.name for update in self._scenario.updates]
            update = names.index(plan.update) if plan.update else 0
            exposed: Bools = self._assigned[update][self._mine(chunk)] <= down
            chosen &= exposed if plan.arm == "exposed" else ~exposed
        devices = np.flatnonzero(chosen)
        down = down[devices]
        up = np.full(len(devices), NEVER) if plan.off_seconds is None else down + round(plan.off_seconds * 1000)
        return devices, down, up

    def _place_in(self, chunk: Chunk, sites: Ints) -> tuple[Ints, Ints]:
        """Return the devices at some sites, and which of the sites each is at."""
        keys = self._people.site_key[self._mine(chunk)]
        place = np.minimum(np.searchsorted(sites, keys), len(sites) - 1)
        devices = np.flatnonzero((sites[place] == keys) & (chunk.invented < 0))
        return devices, place[devices]

    def _lose_power(self, spans: Spans, chunk: Chunk, plan: PowerCut, number: int, blows: list[Blow]) -> Spans:
        devices, place = self._place_in(chunk, self._cuts[number])
        rng = self._dice.stream("power", number)
        out = ms(rng.uniform(*plan.out_seconds, len(self._cuts[number])))[place]
        down = np.full(len(devices), self._moment(plan.starts_after_seconds))
        runs = Lookup(spans).at(devices, down) >= 0
        hit = runs & (self._dice.stream("power crash", number, chunk.number).random(len(devices)) < plan.crash_share)
        blows.append(Blow(devices[hit], down[hit], (down + out)[hit], plan.crash))
        return cut(spans, devices, down, down + out)

    def _shock(self, chunk: Chunk, plan: SiteShocks, number: int) -> Blow:
        sites = self._shocks[number]
        devices, place = self._place_in(chunk, sites)
        moments = self._dice.stream("shock", number).random(len(sites)) * plan.over_seconds
        rng = self._dice.stream("shocked", number, chunk.number)
        hit = rng.random(len(devices)) < plan.share
        devices, place = devices[hit], place[hit]
        after = moments[place] + rng.random(len(devices)) * plan.burst_seconds
        at = self._moment(plan.starts_after_seconds) + ms(after)
        return Blow(devices, at, np.full(len(devices), -1), plan.crash)
