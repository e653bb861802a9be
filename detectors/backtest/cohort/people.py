"""The devices of a simulation at the cohort level: what each is, in compact arrays, and chunks of them.

The invented devices of lying tenants stand behind the real ones, so that everything after this module treats them as
what they pretend to be. Nothing about a device depends on the chunk it is in.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from detectors.backtest.cohort.dice import Dice
from detectors.backtest.draws import Bools, Draws, Floats, Ints
from detectors.backtest.environment import Where
from detectors.backtest.population import NOT_FOUND, Population, populate, versions_found
from detectors.backtest.scenario import Scenario
from ingest.tenancy import tenant_group, tenant_hash

CHUNK: Final = 1 << 18

Small = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some devices in a row; every array has shape (n,), indexed by number within the chunk.

    Attributes:
        number: which chunk it is.
        first: number of its first device in the whole fleet.
        every_ms: time between check-ins.
        phase_ms: a time at which the device checks in, milliseconds since the epoch.
        level: the device is on while this lies under its form factor's curve.
        group: form factor and region.
        partition: device partition.
        static: row of `People.statics`: OS build family, form factor, ring, tenant group.
        rate: factor on the fleet's crash rate.
        invented: number of the liar that made the device up, -1 for a real one.
        versions: by product, index of the version found; `NOT_FOUND` without the product.
    """

    number: int
    first: int
    every_ms: int
    phase_ms: Ints
    level: Floats
    group: Ints
    boot_age_ms: Ints
    skew_ms: Ints
    unheard: Bools
    partition: Ints
    tenant: Ints
    site: Ints
    form: Ints
    ring: Ints
    build: Ints
    model: Ints
    static: Ints
    rate: Floats
    invented: Ints
    versions: list[Ints]

    @property
    def devices(self) -> int:
        """How many devices there are."""
        return len(self.level)


class People:
    """All devices of a scenario.

    Attributes:
        real: how many devices are real; invented ones follow.
        builds, models: names of all OS builds and models, in the order of their numbers.
        statics: text of OS build family, form factor and ring, with the tenant group.
        tenant_numbers: hash of each tenant.
        has: by product, which devices have it: shape (devices,).
    """

    def __init__(self, scenario: Scenario, real: int, partitions: int, dice: Dice) -> None:
        self._scenario, self._dice = scenario, dice
        self.real = real
        invented = [liar.count if liar.tells != "versions" else 1 for liar in scenario.liars]
        self.devices = real + sum(invented)
        draws = Draws(scenario.seed)
        found = populate(scenario, self.devices, draws)
        fleet = scenario.fleet
        self.builds = sorted({build.name for form in fleet.form_factors for build in form.os_builds})
        self.models = sorted({model.name for form in fleet.form_factors for model in form.models})
        self.tenant_numbers = [tenant_hash(tenant.name) for tenant in fleet.tenants]
        self._tenant = found.tenant.astype(np.uint16)
        self._site = found.site.astype(np.int32)
        self._invented = np.full(self.devices, -1, dtype=np.int8)
        self._invent(invented)
        self._form, self._ring = found.form.astype(np.uint8), found.ring.astype(np.uint8)
        self._group = found.group.astype(np.int16)
        self._build = _numbered(
            found, found.os_build, [[b.name for b in f.os_builds] for f in fleet.form_factors], self.builds
        )
        self._model = _numbered(
            found, found.model, [[m.name for m in f.models] for f in fleet.form_factors], self.models
        )
        self._phase = (found.phase_ms + scenario.start_ms).astype(np.int64)
        self._level = found.switched_on.astype(np.float32)
        self._boot_age = found.boot_age_ms
        self._skew = found.skew_ms.astype(np.int32)
        self._unheard = found.unheard
        for number in range(len(scenario.liars)):
            mine = self._invented == number
            # Whoever is made up is always on, is heard and has a good clock.
            self._level[mine], self._unheard[mine], self._skew[mine] = -1.0, False, 0
        self._partition = dice.stream("partition").integers(0, partitions, self.devices, dtype=np.uint8)
        self._versions = [column.astype(np.int8) for column in versions_found(scenario.products, self.devices, draws)]
        for column in self._versions:
            column[self._invented >= 0] = 0
        self.has: list[Bools] = [column != NOT_FOUND for column in self._versions]
        self.statics: list[tuple[str, int]] = []
        self._static = self._statics()

    def _invent(self, counts: list[int]) -> None:
        names = [tenant.name for tenant in self._scenario.fleet.tenants]
        start = self.real
        for number, (liar, count) in enumerate(zip(self._scenario.liars, counts, strict=True)):
            mine = slice(start, start + count)
            self._tenant[mine] = names.index(liar.tenant)
            self._invented[mine] = number
            # Sites of real devices are never as many.
            self._site[mine] = 1_000_000 + np.arange(count) % liar.sites
            start += count

    def _statics(self) -> npt.NDArray[np.int32]:
        """Number the circumstances that never change, in order of first sight."""
        fleet = self._scenario.fleet
        families = sorted({build.partition(".")[0] for build in self.builds})
        family = np.array([families.index(build.partition(".")[0]) for build in self.builds])[self._build]
        groups = np.array([tenant_group(tenant.name) for tenant in fleet.tenants])[self._tenant]
        code = ((family * 8 + self._form) * 64 + self._ring) * 32 + groups
        seen, first, number = np.unique(code, return_index=True, return_inverse=True)
        order = np.argsort(np.argsort(first))
        for one in seen[np.argsort(first)].tolist():
            rest, group = divmod(one, 32)
            rest, ring = divmod(rest, 64)
            which, form = divmod(rest, 8)
            self.statics.append((f"{families[which]}|{fleet.form_factors[form].name}|{fleet.rings[ring].name}", group))
        return order[number].astype(np.int32)

    def chunks(self) -> Iterator[Chunk]:
        """Yield the devices in chunks, each with everything about its devices."""
        for number, first in enumerate(range(0, self.devices, CHUNK)):
            mine = slice(first, min(first + CHUNK, self.devices))

            def wide(column: Small, mine: slice = mine) -> Ints:
                return column[mine].astype(np.int64)

            yield Chunk(
                number=number,
                first=first,
                every_ms=round(self._scenario.fleet.check_in_seconds * 1000),
                phase_ms=wide(self._phase),
                level=self._level[mine].astype(np.float64),
                group=wide(self._group),
                boot_age_ms=self._boot_age[mine],
                skew_ms=wide(self._skew),
                unheard=self._unheard[mine],
                partition=wide(self._partition),
                tenant=wide(self._tenant),
                site=wide(self._site),
                form=wide(self._form),
                ring=wide(self._ring),
                build=wide(self._build),
                model=wide(self._model),
                static=wide(self._static),
                rate=self._rates(mine, number),
                invented=wide(self._invented),
                versions=[wide(column) for column in self._versions],
            )

    def _rates(self, mine: slice, chunk: int) -> Floats:
        background = self._scenario.background
        rate = np.where(self._invented[mine] >= 0, 0.0, 1.0)
        for each in background.rates:
            rate[self.match(each.where, mine)] *= each.factor
        if background.frailty_variance > 0:
            shape = 1.0 / background.frailty_variance
            rate *= self._dice.stream("frailty", chunk).gamma(shape, 1.0 / shape, len(rate))
        return rate

    def match(self, where: Where, mine: slice) -> Bools:
        """Tell which of the devices `mine` are meant; invented ones never are. Shape (n,)."""
        fleet = self._scenario.fleet
        chosen: Bools = self._invented[mine] < 0
        forms = [form.name for form in fleet.form_factors]
        regions = self._group[mine] % len(fleet.regions)
        for wanted, names, column in (
            (where.os_builds, self.builds, self._build[mine]),
            (where.form_factors, forms, self._form[mine]),
            (where.models, self.models, self._model[mine]),
            (where.rings, [ring.name for ring in fleet.rings], self._ring[mine]),
            (where.tenants, [tenant.name for tenant in fleet.tenants], self._tenant[mine]),
            (where.regions, [region.name for region in fleet.regions], regions),
        ):
            if wanted:
                chosen &= np.array([name in wanted for name in names])[column]
        return chosen

    @property
    def ring(self) -> Small:
        """Ring eligibility of every device."""
        return self._ring

    @property
    def site_key(self) -> Ints:
        """A number for each device's site that no two sites share."""
        return self._tenant.astype(np.int64) * 10_000_000 + self._site

    @property
    def invented(self) -> Small:
        """By device, the liar that made it up; -1 for a real one."""
        return self._invented


def _numbered(found: Population, column: Ints, names: list[list[str]], all_names: list[str]) -> npt.NDArray[np.uint16]:
    """Turn numbers within a form factor into numbers among all names."""
    width = max(len(each) for each in names)
    table = np.zeros((len(names), width), dtype=np.uint16)
    for form, each in enumerate(names):
        table[form, : len(each)] = [all_names.index(name) for name in each]
    numbered: npt.NDArray[np.uint16] = table[found.form, column]
    return numbered
