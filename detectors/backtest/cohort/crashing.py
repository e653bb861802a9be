"""Who crashes when: by bad luck, by an update, by the surroundings or in a liar's report; what becomes of each.

All candidates of a chunk are drawn first, then taken in order of time, device by device: who is down can't crash, and
who never comes up again crashes once.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from detectors.backtest.cohort.dice import Dice
from detectors.backtest.cohort.kinds import Kinds
from detectors.backtest.cohort.people import Chunk, People
from detectors.backtest.cohort.shipping import Taken, begins_ms, lies_ms
from detectors.backtest.cohort.surroundings import Blow, ms
from detectors.backtest.cohort.uptime import NEVER, Lookup
from detectors.backtest.draws import Bools, Floats, Ints
from detectors.backtest.environment import Heat
from detectors.backtest.scenario import Incident, Scenario

BACKGROUND: Final = -1
_DAY_MS: Final = 86_400_000
_HOUR_MS: Final = 3_600_000
_LATE_BOOT_MS: Final = 7 * _DAY_MS
# A boot brings out old faults within this many seconds.
_BOOT_CRASH_SECONDS: Final = (10.0, 300.0)
_LIE_AFTER_MS: Final = 30_000


@dataclass(slots=True)
class Crashes:
    """Crashes of a chunk's devices; arrays of shape (n,), sorted by device and time once resolved.

    Attributes:
        update: number of the update that caused it, `BACKGROUND` for none.
        kind: what it looks like, a number of `Kinds`.
        up_ms: when the device runs again, `NEVER` for a boot loop without an end.
        says_ms: when the device says so from within a boot loop, `NEVER` if it doesn't; -1: once it is up.
        loop: whether it is a boot loop.
        parent: the crash whose reboot brought this one out, -1 for none.
        sure: whether it happens although the device is not running then by its spans (its power went at that moment).
    """

    device: Ints
    at_ms: Ints
    update: Ints
    kind: Ints
    up_ms: Ints
    says_ms: Ints
    loop: Bools
    parent: Ints
    sure: Bools

    def take(self, picked: Ints | Bools) -> "Crashes":
        """Return some of them."""
        return Crashes(*(getattr(self, name)[picked] for name in self.__slots__))


class Crasher:
    """Draws the crashes of one chunk."""

    def __init__(self, scenario: Scenario, people: People, chunk: Chunk, dice: Dice, kinds: Kinds) -> None:
        self._scenario, self._people, self._chunk = scenario, people, chunk
        self._dice, self._kinds = dice, kinds
        self._rate = scenario.background.crashes_per_device_day * chunk.rate
        self._found: list[Crashes] = []

    def resolved(self, lookup: Lookup, taken: list[Taken], blows: list[Blow]) -> Crashes:
        """Return the crashes that happen, sorted by device and time.

        Args:
            lookup: when devices run, crashes apart.
            taken: what they made of each update.
            blows: what the surroundings do.
        """
        self._background(taken)
        self._boots(lookup)
        for number, one in enumerate(taken):
            incident = self._scenario.updates[number].incident
            if incident is not None:
                self._harm(number, incident, one, lookup)
        for number, blow in enumerate(blows):
            kind = self._kinds.of(blow.crash) if blow.crash is not None else None
            self._add(blow.device, blow.at_ms, BACKGROUND, ("blow", number), kind=kind, up_ms=blow.up_ms)
        self._lies()
        return self._settle(lookup)

    def _rng(self, purpose: str, *numbers: int) -> np.random.Generator:
        return self._dice.stream(purpose, self._chunk.number, *numbers)

    def _add(
        self,
        device: Ints,
        at_ms: Ints,
        update: int,
        what: tuple[str, int],
        *,
        kind: int | None = None,
        up_ms: Ints | None = None,
    ) -> None:
        """Add candidates; without a kind they look like any other crash, without `up_ms` (or -1) they reboot once."""
        rng = self._rng("crash " + what[0], what[1])
        low, high = self._scenario.background.reboot_seconds
        up = at_ms + ms(rng.uniform(low, high, len(device)))
        if up_ms is not None:
            up = np.where(up_ms >= 0, up_ms, up)
        self._found.append(
            Crashes(
                device=device,
                at_ms=at_ms,
                update=np.full(len(device), update),
                kind=self._kinds.background(rng, len(device)) if kind is None else np.full(len(device), kind),
                up_ms=up,
                says_ms=np.full(len(device), -1),
                loop=np.zeros(len(device), dtype=np.bool_),
                parent=np.full(len(device), -1),
                sure=np.zeros(len(device), dtype=np.bool_) if up_ms is None else up_ms >= 0,
            )
        )

    def _background(self, taken: list[Taken]) -> None:
        scenario = self._scenario
        days = (scenario.end_ms - scenario.start_ms) / _DAY_MS
        rng = self._rng("background")
        device = np.repeat(np.arange(self._chunk.devices), rng.poisson(self._rate * days))
        at = scenario.start_ms + (rng.random(len(device)) * (scenario.end_ms - scenario.start_ms)).astype(np.int64)
        keep = rng.random(len(device)) < self._by_hour(device, at)
        cured = rng.random(len(device))
        for number, one in enumerate(taken):
            ratio = self._ratio(number, one)
            keep &= ~((at >= one.loads_ms[device]) & (cured >= ratio[device]))
        self._add(device[keep], at[keep], BACKGROUND, ("background", 0))
        for number, heat in enumerate(scenario.environment.heat):
            self._heat(number, heat)

    def _ratio(self, number: int, taken: Taken) -> Floats:
        incident = self._scenario.updates[number].incident
        if incident is None:
            return np.ones(self._chunk.devices)
        return np.where(taken.harmed_by, incident.rate_ratio, incident.elsewhere_ratio)

    def _by_hour(self, device: Ints, at_ms: Ints) -> Floats:
        """Return the chance to keep a crash that was drawn at the day's highest rate."""
        factors = self._scenario.background.by_hour
        if not factors:
            return np.ones(len(device))
        regions = self._scenario.fleet.regions
        offset = np.array([region.utc_offset_hours for region in regions])[self._chunk.group[device] % len(regions)]
        hour = ((at_ms + offset * _HOUR_MS) // _HOUR_MS % 24).astype(np.int64)
        kept: Floats = np.array(factors)[hour] / max(factors)
        return kept

    def _heat(self, number: int, heat: Heat) -> None:
        where = slice(self._chunk.first, self._chunk.first + self._chunk.devices)
        rng = self._rng("heat", number)
        mean = self._rate * max(0.0, heat.factor - 1) * heat.over_seconds * 1000 / _DAY_MS
        device = np.repeat(np.arange(self._chunk.devices), rng.poisson(mean * self._people.match(heat.where, where)))
        start = self._scenario.rollout_ms + round(heat.starts_after_seconds * 1000)
        kind = self._kinds.of(heat.crash) if heat.crash is not None else None
        self._add(
            device, start + ms(rng.random(len(device)) * heat.over_seconds), BACKGROUND, ("heat", number), kind=kind
        )

    def _boots(self, lookup: Lookup) -> None:
        background, spans = self._scenario.background, lookup.spans
        if not background.crashes_per_boot and not background.crashes_per_late_boot:
            return
        before = np.concatenate([[0], spans.end_ms[:-1] - spans.boot_ms[:-1]])
        same = np.concatenate([[False], spans.device[1:] == spans.device[:-1]])
        late = same & (before >= _LATE_BOOT_MS)
        chance = np.where(
            late, max(background.crashes_per_late_boot, background.crashes_per_boot), background.crashes_per_boot
        )
        rng = self._rng("boots")
        struck = spans.boots & (rng.random(len(chance)) < chance) & (self._chunk.invented[spans.device] < 0)
        after = ms(rng.uniform(*_BOOT_CRASH_SECONDS, int(struck.sum())))
        self._add(spans.device[struck], spans.start_ms[struck] + after, BACKGROUND, ("boot", 0))

    def _harm(self, number: int, incident: Incident, taken: Taken, lookup: Lookup) -> None:
        rng = self._rng("harm", number)
        kind = self._kinds.of(incident.crash)
        end_ms = self._scenario.end_ms
        loaded = taken.loads_ms < end_ms
        if incident.crash_probability:
            hit = loaded & taken.harmed_by & (rng.random(self._chunk.devices) < incident.crash_probability)
            self._strike(number, incident, np.flatnonzero(hit), taken, lookup, rng)
        over = np.maximum(0.0, self._ratio(number, taken) - 1.0)
        lasts = np.where(loaded, end_ms - taken.loads_ms, 0)
        device = np.repeat(np.arange(self._chunk.devices), rng.poisson(self._rate * over * lasts / _DAY_MS))
        at = taken.loads_ms[device] + (rng.random(len(device)) * lasts[device]).astype(np.int64)
        keep = rng.random(len(device)) < self._by_hour(device, at)
        self._add(device[keep], at[keep], number, ("slow", number), kind=kind)

    def _strike(
        self, number: int, incident: Incident, victims: Ints, taken: Taken, lookup: Lookup, rng: np.random.Generator
    ) -> None:
        """Crash the victims of an update: when it has loaded or at the first boot after, at once or some time later."""
        at = taken.loads_ms[victims]
        if incident.at == "boot":
            place = lookup.next(victims, at)
            follows = np.minimum(place + 1, len(lookup.spans.device) - 1)
            boots = (place >= 0) & (place < follows) & (lookup.spans.device[follows] == victims)
            victims, at = victims[boots], lookup.spans.start_ms[follows][boots]
        at = lookup.when(victims, at + ms(rng.uniform(*incident.delay_seconds, len(victims))))
        here = at < self._scenario.end_ms
        victims, at = victims[here], at[here]
        count = len(victims)
        self._add(victims, at, number, ("strike", number), kind=self._kinds.of(incident.crash))
        made = self._found[-1]
        boot = rng.uniform(*incident.boot_seconds, count)
        made.loop = rng.random(count) < incident.boot_loop_share
        speaks = made.loop & (rng.random(count) < incident.report_share)
        after = ms(rng.uniform(*incident.report_after_seconds, count))
        low, high = incident.recover_boots
        boots_needed = np.floor(rng.uniform(low, high + 1, count))
        recovers = made.loop & (rng.random(count) < incident.recover_share)
        free_ms = self._withdrawn_ms(number)
        back = np.maximum(at + ms(boots_needed * boot), free_ms + ms(rng.random(count) * boot))
        up = np.where(recovers & (free_ms < NEVER), back, NEVER)
        made.says_ms = np.where(made.loop, np.where(speaks, at + after, np.where(up < NEVER, up, NEVER)), -1)
        made.up_ms = np.where(made.loop, up, made.up_ms)

    def _withdrawn_ms(self, number: int) -> int:
        plan = self._scenario.updates[number]
        if plan.reverted_after_seconds is None:
            return NEVER
        return begins_ms(self._scenario, plan) + round(plan.reverted_after_seconds * 1000)

    def _lies(self) -> None:
        for number, liar in enumerate(self._scenario.liars):
            if liar.tells not in ("crashes", "control_crashes"):
                continue
            everyone = np.flatnonzero(self._people.invented == number)
            times = lies_ms(self._scenario, number, len(everyone))
            mine = (everyone >= self._chunk.first) & (everyone < self._chunk.first + self._chunk.devices)
            device = everyone[mine] - self._chunk.first
            kind = self._kinds.of(liar.crash) if liar.crash is not None else None
            self._add(device, times[mine] + _LIE_AFTER_MS, BACKGROUND, ("lie", number), kind=kind)

    def _settle(self, lookup: Lookup) -> Crashes:
        found = Crashes(*(np.concatenate([getattr(one, name) for one in self._found]) for name in Crashes.__slots__))
        runs = lookup.at(found.device, found.at_ms) >= 0
        found = found.take(found.sure | runs)
        found = self._with_children(found, lookup)
        order = np.lexsort((found.at_ms, found.device))
        found = found.take(order)
        place_of = np.empty(len(order), dtype=np.int64)
        place_of[order] = np.arange(len(order))
        parent = np.where(found.parent >= 0, place_of[found.parent], -1)
        happens = np.zeros(len(order), dtype=np.bool_)
        free_ms = np.zeros(self._chunk.devices, dtype=np.int64)
        begins = np.searchsorted(found.device, found.device)
        rank = np.arange(len(order)) - begins
        for turn in range(int(rank.max(initial=-1)) + 1):
            now = np.flatnonzero(rank == turn)
            device = found.device[now]
            may = (found.at_ms[now] >= free_ms[device]) & ((parent[now] < 0) | happens[parent[now]])
            happens[now[may]] = True
            free_ms[device[may]] = found.up_ms[now[may]]
        return found.take(happens)

    def _with_children(self, found: Crashes, lookup: Lookup) -> Crashes:
        """Add the crashes that the reboot after a crash brings out."""
        rng = self._rng("children")
        chance = self._scenario.background.crashes_per_boot
        again = (found.up_ms < NEVER) & (rng.random(len(found.device)) < chance)
        again &= self._chunk.invented[found.device] < 0
        parents = np.flatnonzero(again)
        at = found.up_ms[parents] + ms(rng.uniform(*_BOOT_CRASH_SECONDS, len(parents)))
        runs = lookup.at(found.device[parents], at) >= 0
        parents, at = parents[runs], at[runs]
        count = len(self._found)
        self._add(found.device[parents], at, BACKGROUND, ("children", 0))
        made = self._found[count]
        made.parent = parents
        return Crashes(*(np.concatenate([getattr(found, name), getattr(made, name)]) for name in Crashes.__slots__))
