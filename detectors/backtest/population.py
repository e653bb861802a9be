"""The devices of a simulated fleet: what each is, fixed for the run, as NumPy arrays indexed by device."""

from dataclasses import dataclass

import numpy as np

from detectors.backtest.draws import Bools, Draws, Floats, Ints, Purpose
from detectors.backtest.scenario import Form, Product, Scenario

NOT_FOUND = -1
_HOUR_MS = 3_600_000
_DAY_MS = 24 * _HOUR_MS


@dataclass(frozen=True, slots=True)
class Population:
    """Attributes of n devices; every array has shape (n,).

    Attributes:
        phase_ms: when in the check-in interval the device checks in.
        switched_on: the device is on while this lies under its form factor's curve.
        group: row of `Daylight`'s table: form factor and region.
        unheard: none of its reports ever arrives.
        skew_ms: device clock minus true time.
        boot_age_ms: time since boot at the scenario's start.
    """

    tenant: Ints
    form: Ints
    os_build: Ints
    model: Ints
    site: Ints
    group: Ints
    ring: Ints
    phase_ms: Ints
    switched_on: Floats
    unheard: Bools
    skew_ms: Ints
    boot_age_ms: Ints

    @property
    def devices(self) -> int:
        """How many devices there are."""
        return len(self.tenant)


def populate(scenario: Scenario, devices: int, draws: Draws) -> Population:
    """Draw the devices. A device's attributes don't depend on how many others there are, its site apart."""
    fleet, telemetry = scenario.fleet, scenario.telemetry
    keys = np.arange(devices, dtype=np.int64)
    tenant = draws.choice(Purpose.TENANT, keys, [tenant.weight for tenant in fleet.tenants])
    form = draws.choice(Purpose.FORM, keys, [form.weight for form in fleet.form_factors])
    site = _sites(scenario, tenant, draws)
    # A site shares power and network, so all of it lies in one region.
    region = draws.choice(Purpose.REGION, site, [region.weight for region in fleet.regions], tenant)
    skew = draws.between(Purpose.SKEW, keys, (-telemetry.clock_skew_seconds, telemetry.clock_skew_seconds))
    wrong = draws.uniform(Purpose.SKEW_WRONG, keys) < telemetry.clock_wrong_share
    # A wrong clock is drawn apart so that changing the share leaves the other clocks alone.
    limit = telemetry.clock_wrong_seconds_max
    skew = np.where(wrong, draws.between(Purpose.SKEW_WRONG, keys, (-limit, limit), 1), skew)
    return Population(
        tenant=tenant,
        form=form,
        os_build=_by_form(Purpose.OS_BUILD, form, [[b.weight for b in f.os_builds] for f in fleet.form_factors], draws),
        model=_by_form(Purpose.MODEL, form, [[m.weight for m in f.models] for f in fleet.form_factors], draws),
        site=site,
        group=form * len(fleet.regions) + region,
        ring=draws.choice(Purpose.RING, keys, [ring.share for ring in fleet.rings]),
        phase_ms=(draws.uniform(Purpose.PHASE, keys) * round(fleet.check_in_seconds * 1000)).astype(np.int64),
        switched_on=draws.uniform(Purpose.SWITCHED_ON, keys),
        unheard=draws.uniform(Purpose.UNHEARD, keys) < telemetry.unheard_share,
        skew_ms=np.rint(skew * 1000).astype(np.int64),
        boot_age_ms=_boot_ages(fleet.form_factors, form, keys, draws),
    )


def versions_found(products: list[Product], devices: int, draws: Draws) -> list[Ints]:
    """Draw which version of each product a device has: indexes into its versions, `NOT_FOUND` where it has none."""
    keys = np.arange(devices, dtype=np.int64)
    found = []
    for number, product in enumerate(products):
        version = draws.choice(Purpose.VERSION, keys, [version.weight for version in product.versions], number)
        has = draws.uniform(Purpose.PRODUCT, keys, number) < product.share
        found.append(np.where(has, version, NOT_FOUND))
    return found


def _sites(scenario: Scenario, tenant: Ints, draws: Draws) -> Ints:
    members = np.bincount(tenant, minlength=len(scenario.fleet.tenants))
    sites = np.maximum(1, np.ceil(members / scenario.fleet.devices_per_site))
    keys = np.arange(len(tenant), dtype=np.int64)
    return (draws.uniform(Purpose.SITE, keys) * sites[tenant]).astype(np.int64)


def _by_form(purpose: Purpose, form: Ints, weights: list[list[float]], draws: Draws) -> Ints:
    picked = np.zeros(len(form), dtype=np.int64)
    for number, each in enumerate(weights):
        members = np.flatnonzero(form == number)
        picked[members] = draws.choice(purpose, members, each)
    return picked


def _boot_ages(forms: list[Form], form: Ints, keys: Ints, draws: Draws) -> Ints:
    mean = np.array([each.uptime_hours_mean for each in forms], dtype=np.float64)[form]
    hours = mean * draws.exponential(Purpose.UPTIME, keys, 1.0)
    # Beyond a year the exponential's tail is no machine anybody keeps.
    return (np.minimum(hours, 365 * 24) * _HOUR_MS).astype(np.int64) + 60_000


class Daylight:
    """Which share of each group (form factor and region) is switched on at a moment."""

    def __init__(self, scenario: Scenario) -> None:
        regions = scenario.fleet.regions
        # The 25th column repeats midnight, so that 23:30 lies between 23 and 0.
        curves = [[*form.on_by_hour, form.on_by_hour[0]] for form in scenario.fleet.form_factors]
        self._curves = np.repeat(np.array(curves, dtype=np.float64), len(regions), axis=0)
        offsets = np.array([region.utc_offset_hours for region in regions], dtype=np.float64) * _HOUR_MS
        self._offsets_ms = np.tile(offsets, len(scenario.fleet.form_factors))
        self._rows = np.arange(len(self._curves))

    def on_share(self, at_ms: int) -> Floats:
        """Return the share switched on at `at_ms`, one number per group."""
        local = ((at_ms + self._offsets_ms) % _DAY_MS) / _HOUR_MS
        hour = local.astype(np.int64)
        part = local - hour
        low, high = self._curves[self._rows, hour], self._curves[self._rows, hour + 1]
        share: Floats = low + (high - low) * part
        return share
