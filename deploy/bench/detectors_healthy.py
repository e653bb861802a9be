"""Healthy rollouts with all that shakes a fleet, simulated device by device: crashes and the counts at risk at each.

What is simulated of each device: its cell, tenant group, site, build and model, its own crash rate (cells, tenants and
devices differ), when it was exposed, when it boots, its first crash since the rollout began and when that is heard of.
Crash rates follow the hour of the day of the tenant, and now and then the whole fleet's are raised for some minutes.
What is not: grouping and its clocks (the counts at a crash are the true ones at its event time), and devices that come
and go; those are the backtest's. Who is exposed, and when, depends on ring and cell and chance, never on the rate.
"""

from typing import Final, NamedTuple

import msgspec
import numpy as np

from detectors.counts import Shares
from detectors.evidence import Crashes
from detectors.novelty import KnownSignatures
from detectors.sequential import Floats
from detectors.silence import Stratum
from detectors.tenants import GROUPS, NOBODY, ROWS, Flags, Numbers

HOURS: Final = 48.0
_BIN_HOURS: Final = 0.05
_FRESH_HOURS: Final = 1.0 / 6.0
_BANDS: Final = ("fresh", "day", "old")
_NEVER: Final = 1e9


class Shake(msgspec.Struct, frozen=True, kw_only=True):
    """What is done to healthy rollouts; the defaults are an ordinary fleet.

    Attributes:
        ratio: true rate ratio, from exposure on; odds ratio of silence as well.
        frailty: variance of the gamma factor (mean 1) on each device's own rate.
        reboot_share: part of the rollouts whose update reboots the device.
        boot_crash: chance that a boot brings out an old fault within five minutes.
        delay_minutes: median of the reporting delay, exposed and control.
        history: how many of the product's delays were seen before.
        off_share: part of the controls that are switched off at some time and still count as at risk.
        site_shocks: how often a site's devices crash together, in a rollout that goes to whole sites.
        site_part: size of the exposed sites by that of the others.
        crashes: mean number of background crashes, drawn evenly from 20 up to twice the mean less 20.
    """

    ratio: float = 1.0
    frailty: float = 0.5
    reboot_share: float = 0.3
    boot_crash: float = 0.002
    delay_minutes: tuple[float, float] = (10.0, 10.0)
    history: int = 200
    off_share: float = 0.0
    site_shocks: int = 0
    site_part: float = 1.0
    crashes: float = 60.0


class Fleet(NamedTuple):
    """Devices of one rollout, shape (n,) each unless said otherwise; times in hours since its origin.

    Attributes:
        base: cell without its boot band.
        group: tenant group.
        site: number of the site, -1 without.
        began_at: when the push to the device's ring began.
        exposed_at: when the device was exposed.
        boots: shape (n, boots), when it booted; the first long ago.
        crash_at: first crash.
        counted: whether the crash is scored: the first of its site in five minutes.
    """

    base: Numbers
    group: Numbers
    site: Numbers
    began_at: Floats
    exposed_at: Floats
    boots: Floats
    crash_at: Floats
    counted: Flags


BASES: Final = [
    f"{family}|{form}|{ring}"
    for family in ("19045", "22631", "26100")
    for form in ("laptop", "desktop")
    for ring in ("early", "broad")
]

_MODELS: Final = 3
# What devices at risk are in, whoever crashes.
MARGINS: Final = sorted(
    {f"family={base.split('|')[0]}" for base in BASES}
    | {f"form={base.split('|')[1]}" for base in BASES}
    | {f"boot={band}" for band in _BANDS}
    | {f"model={number}" for number in range(_MODELS)}
)


def fleet(rng: np.random.Generator, shake: Shake) -> Fleet:
    """Draw one rollout's fleet and what becomes of it."""
    n = int(rng.integers(400, 2500))
    groups = int(rng.integers(3, 13))
    sites = rng.integers(0, 40, size=n) if shake.site_shocks else np.full(n, -1)
    group = rng.choice(groups, p=rng.dirichlet(np.full(groups, 2.0)), size=n) % GROUPS
    base = rng.choice(len(BASES), p=rng.dirichlet(np.full(len(BASES), 2.0)), size=n)
    began_at, exposed_at = _exposures(rng, shake, base, sites)
    if shake.site_part < 1.0:
        # The exposed sites are small ones: most of their devices are not there at all.
        stays = (exposed_at >= _NEVER) | (rng.random(n) < shake.site_part)
        base, group, sites, n = base[stays], group[stays], sites[stays], int(stays.sum())
        began_at, exposed_at = began_at[stays], exposed_at[stays]
    boots = np.column_stack([-rng.uniform(0, 72, n), np.sort(rng.uniform(-2, HOURS, (n, 2)), axis=1)])
    if rng.random() < shake.reboot_share:
        boots = np.column_stack([boots, exposed_at])
    crash_at = _background(rng, shake, base, group, exposed_at)
    ratio = np.where(boots >= exposed_at[:, None], shake.ratio, 1.0)
    at_boot = np.where(
        rng.random(boots.shape) < shake.boot_crash * ratio, boots + rng.uniform(0, 1 / 12, boots.shape), _NEVER
    )
    at_boot[at_boot < 0] = _NEVER
    crash_at = np.minimum(crash_at, at_boot.min(axis=1))
    if shake.off_share:
        off_at = np.where(rng.random(n) < shake.off_share, rng.uniform(-HOURS, HOURS, n), _NEVER)
        crash_at = np.where((crash_at > off_at) & (exposed_at > crash_at), _NEVER, crash_at)
        exposed_at = np.where(off_at < exposed_at, _NEVER, exposed_at)
    counted = np.ones(n, dtype=bool)
    for _ in range(shake.site_shocks):
        _shock(rng, sites, crash_at)
    if shake.site_shocks:
        counted = _one_a_site(sites, crash_at)
    return Fleet(base, group, sites, began_at, exposed_at, boots, crash_at, counted)


def _exposures(rng: np.random.Generator, shake: Shake, base: Numbers, sites: Numbers) -> tuple[Floats, Floats]:
    """Return when each device's push begins and when it is exposed: rings in turn, cells to different shares."""
    n = len(base)
    share = rng.beta(2.0, 3.0, size=len(BASES))[base]
    broad = base % 2 == 1
    begin, over = np.where(broad, rng.uniform(6, 24), 0.0), np.where(broad, rng.uniform(4, 24), rng.uniform(0.5, 12))
    at: Floats = begin + over * rng.random(n)
    if shake.site_shocks:
        # Whole sites at once.
        chosen, when = rng.random(40) < rng.uniform(0.1, 0.6), rng.uniform(0, 12, 40)
        return np.zeros(n), np.where(chosen[sites], when[sites], _NEVER)
    return begin, np.where(rng.random(n) < share, at, _NEVER)


def _background(rng: np.random.Generator, shake: Shake, base: Numbers, group: Numbers, exposed_at: Floats) -> Floats:
    """Return first crashes: rates differ by cell and device, and follow the hour and the fleet's shocks."""
    n = len(base)
    times = np.arange(0.0, HOURS + _BIN_HOURS, _BIN_HOURS)
    phase = rng.uniform(0, 24, size=GROUPS)[:, None]
    level = 1.0 + 0.9 * np.sin((times[None, :-1] + phase) * 2 * np.pi / 24)
    for begin in rng.uniform(0, HOURS, size=rng.poisson(1.0)).tolist():
        level[:, (times[:-1] >= begin) & (times[:-1] < begin + 0.3)] *= rng.uniform(5, 60)
    passed = np.concatenate([np.zeros((GROUPS, 1)), np.cumsum(level * _BIN_HOURS, axis=1)], axis=1)
    rate = np.exp(rng.normal(0, 1.0, size=len(BASES)))[base]
    if shake.frailty:
        rate = rate * rng.gamma(1 / shake.frailty, shake.frailty, size=n)
    wanted = rng.uniform(20, 2 * shake.crashes - 20)
    rate = rate * wanted / max(float((rate * passed[group, -1]).sum()), 1e-9)
    due = rng.exponential(size=n) / np.maximum(rate, 1e-12)
    found = np.full(n, _NEVER)
    for one in np.unique(group).tolist():
        mine = np.flatnonzero(group == one)
        before = np.interp(exposed_at[mine], times, passed[one])
        harmed = np.where(due[mine] > before, before + (due[mine] - before) / shake.ratio, due[mine])
        found[mine] = np.interp(harmed, passed[one], times, right=_NEVER)
    return found


def _shock(rng: np.random.Generator, sites: Numbers, crash_at: Floats) -> None:
    at, site = rng.uniform(0, HOURS), int(rng.integers(40))
    hit = (sites == site) & (crash_at > at) & (rng.random(len(sites)) < 0.5)
    crash_at[hit] = at + rng.uniform(0, 1 / 60, size=int(hit.sum()))


def _one_a_site(sites: Numbers, crash_at: Floats) -> Flags:
    counted: Flags = np.ones(len(sites), dtype=bool)
    last: dict[int, float] = {}
    for place in np.argsort(crash_at).tolist():
        if crash_at[place] >= _NEVER:
            break
        counted[place] = crash_at[place] - last.get(int(sites[place]), -_NEVER) >= 1 / 12
        if counted[place]:
            last[int(sites[place])] = float(crash_at[place])
    return counted


def _bands(boots: Floats, at: Floats) -> Numbers:
    """Return the boot band of each device at each time: shape (times, devices)."""
    since = at[:, None, None] - boots[None]
    age = np.where(since >= 0, since, _NEVER).min(axis=2)
    bands: Numbers = (age >= _FRESH_HOURS).astype(np.int64) + (age >= 24.0)
    return bands


def at_risk(world: Fleet, base: int, at: Floats) -> tuple[Floats, Floats, Numbers, Numbers]:
    """Return exposed and control devices at risk in a base cell at some times, by device, and their bands.

    Returns:
        Flags as floats of shape (times, devices of the cell), twice; the bands, likewise; and which devices they are.
    """
    mine = np.flatnonzero(world.base == base)
    alive = world.crash_at[mine][None, :] >= at[:, None]
    exposed = world.exposed_at[mine][None, :] <= at[:, None]
    bands = _bands(world.boots[mine], at)
    return (alive & exposed).astype(np.float64), (alive & ~exposed).astype(np.float64), bands, mine


def crashes_of(rng: np.random.Generator, world: Fleet, shake: Shake, share_least: float) -> tuple[Crashes, Floats]:
    """Return the crashes heard of within the hours watched, in order of arrival, and their arrivals in hours."""
    who = np.flatnonzero((world.crash_at <= HOURS) & world.counted)
    at, exposed = world.crash_at[who], world.exposed_at[who] <= world.crash_at[who]
    median = np.where(exposed, *shake.delay_minutes) / 60.0
    arrives = at + median * np.exp(rng.normal(0, 1.5, size=len(who)))
    order = np.argsort(arrives)
    order = order[arrives[order] <= HOURS]
    who, at, exposed, arrives = who[order], at[order], exposed[order], arrives[order]
    upper, own, within = np.empty((len(who), ROWS)), np.empty(len(who)), np.empty(len(who))
    margins: list[tuple[str, ...]] = [()] * len(who)
    for base in np.unique(world.base[who]).tolist():
        places = np.flatnonzero(world.base[who] == base)
        known, control, bands, mine = at_risk(world, base, at[places])
        band = bands[np.arange(len(places)), np.searchsorted(mine, who[places])]
        same = bands == band[:, None]
        rows = _without(world.group[mine])
        e, c = (known * same) @ rows, (control * same) @ rows
        e_own, c_own = (one[:, NOBODY] - one[np.arange(len(places)), world.group[who[places]]] for one in (e, c))
        e_own, c_own = np.maximum(e_own, exposed[places]), np.maximum(c_own, ~exposed[places])
        within[places] = np.maximum(e_own / (e_own + c_own), share_least)
        e, c = np.maximum(e, exposed[places, None]), np.maximum(c, ~exposed[places, None])
        upper[places] = np.maximum(e / (e + c), share_least)
        own[places] = (e / (e + c))[:, NOBODY]
        family, form, _ = BASES[base].split("|")
        for place, one in zip(places.tolist(), band.tolist(), strict=True):
            margins[place] = (
                f"family={family}",
                f"form={form}",
                f"boot={_BANDS[one]}",
                f"model={who[place] % _MODELS}",
            )
    return (
        Crashes(
            exposed=exposed,
            group=world.group[who],
            tenants=world.group[who],
            shares=Shares(upper, own, own, within, upper[:, NOBODY]),
            margins=margins,
            cells=[f"{BASES[base]}|old|recent" for base in world.base[who].tolist()],
            signatures=(texts := [f"m{i}.sys|0xd1" for i in np.minimum(rng.geometric(0.15, len(who)), 40).tolist()]),
            new=_new(rng, texts),
            delay_seconds=(arrives - at) * 3600.0,
            since_seconds=np.maximum(arrives - world.began_at[who], 0.0) * 3600.0,
        ),
        arrives,
    )


def _without(group: Numbers) -> Floats:
    """Return which devices are in which row: shape (devices, 33), row j without group j."""
    rows = np.ones((len(group), ROWS))
    rows[np.arange(len(group)), group] = 0.0
    return rows


def _new(rng: np.random.Generator, texts: list[str]) -> Flags:
    known = KnownSignatures()
    for number in range(1, 41):
        for group in rng.integers(0, 12, size=max(0, 4 - number // 6)).tolist():
            known.note(f"m{number}.sys|0xd1", group, 0)
    return np.stack([known.new_to(text, 1) for text in texts]) if texts else np.zeros((0, ROWS), dtype=bool)


def strata_at(rng: np.random.Generator, world: Fleet, shake: Shake, at: float) -> list[Stratum]:
    """Return one minute's strata: a part of each cell's devices was last heard in it, some of them are overdue now."""
    quiet = float(rng.uniform(0.002, 0.06)) if rng.random() < 0.8 else float(rng.uniform(0.1, 0.5))
    odds = quiet / (1 - quiet) * shake.ratio
    chance = np.array([odds / (1 + odds), quiet])
    found = []
    for base in range(len(BASES)):
        known, control, _, mine = at_risk(world, base, np.array([at]))
        both = np.stack([known[0], control[0]]).astype(bool)
        heard = rng.random(len(mine)) < 0.3
        silent = heard & (rng.random(len(mine)) < np.where(both[0], *chance))
        counts = np.stack([both[0] & heard, both[1] & heard, both[0] & silent, both[1] & silent])
        by_group = np.stack([np.bincount(world.group[mine], weights=one, minlength=GROUPS) for one in counts]).astype(
            int
        )
        total = by_group.sum(axis=1)
        if total[2] + total[3]:
            some = np.flatnonzero(by_group[:2].sum(axis=0)).tolist()
            without = {one: _four(total - by_group[:, one]) for one in some}
            found.append(Stratum(*_four(total), without))
    return found


def _four(counts: Numbers) -> tuple[int, int, int, int]:
    return int(counts[0]), int(counts[1]), int(counts[2]), int(counts[3])
