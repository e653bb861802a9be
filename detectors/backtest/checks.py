"""What only the whole scenario shows: parts that contradict each other are refused, each with its remedy."""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec

from detectors.backtest.environment import Where
from detectors.backtest.scenario import EVERYONE, Incident, Scenario, UpdatePlan
from ingest.events import os_build_ok

WEEK_SECONDS: Final = 7 * 86_400
_COHORT_ONLY_BACKGROUND: Final = ("crashes_per_late_boot", "frailty_variance", "by_hour", "rates")
_COHORT_ONLY_UPDATE: Final = (
    "begins_before_seconds",
    "closed_after_seconds",
    "says_offered",
    "by_site",
    "rides_on",
    "crash_delay_seconds",
    "control_crash_delay_seconds",
    "moved_module",
)
_COHORT_ONLY_INCIDENT: Final = ("rate_ratio", "elsewhere_ratio", "only_on", "at", "delay_seconds")


def faults(scenario: Scenario) -> list[str]:
    """Return what is wrong with the scenario, one sentence a fault; empty if it can run."""
    checks: tuple[Callable[[Scenario], Iterator[str]], ...] = (
        _time,
        _fleet,
        _spans,
        _products,
        _updates,
        _conditions,
        _places,
        _names,
        _truth,
    )
    return [fault for check in checks for fault in check(scenario)]


def _time(scenario: Scenario) -> Iterator[str]:
    if scenario.start.utcoffset() is None:
        yield "start: give the offset, as in 2024-07-19T03:39:00Z; without one it means another time everywhere"
    if scenario.warm_up_seconds >= scenario.duration_seconds:
        yield "warm_up_seconds: must be shorter than duration_seconds, or no update is ever shipped"
    if scenario.rollout_system.reaction_seconds < scenario.step_seconds:
        yield "rollout_system.reaction_seconds: must be at least step_seconds, or losses would depend on the speed"
    if scenario.step_seconds * 1000 != scenario.step_ms or scenario.step_ms < 1:
        yield "step_seconds: must be whole milliseconds"
    if scenario.step_seconds > scenario.fleet.check_in_seconds:
        yield "step_seconds: must not exceed fleet.check_in_seconds"


def _fleet(scenario: Scenario) -> Iterator[str]:
    fleet = scenario.fleet
    total = sum(ring.share for ring in fleet.rings)
    if abs(total - 1) > 1e-9:
        yield f"fleet.rings: shares add up to {total:g}, not 1"
    for path, names in (
        ("fleet.rings", [ring.name for ring in fleet.rings]),
        ("fleet.tenants", [tenant.name for tenant in fleet.tenants]),
        ("fleet.regions", [region.name for region in fleet.regions]),
        ("fleet.form_factors", [form.name for form in fleet.form_factors]),
    ):
        yield from (f"{path}: {name!r} is there twice" for name in sorted(_repeated(names)))
    for form in fleet.form_factors:
        for build in form.os_builds:
            if not os_build_ok(build.name):
                yield f"fleet.form_factors {form.name}: os build {build.name!r} must be like 22631.3880"


def _spans(scenario: Scenario) -> Iterator[str]:
    spans: list[tuple[str, tuple[float, float]]] = [("background.reboot_seconds", scenario.background.reboot_seconds)]
    for update in scenario.updates:
        if update.incident is not None:
            name = f"updates {_name(update)}: incident."
            spans.append((name + "boot_seconds", update.incident.boot_seconds))
            spans.append((name + "report_after_seconds", update.incident.report_after_seconds))
            spans.append((name + "recover_boots", update.incident.recover_boots))
            spans.append((name + "delay_seconds", update.incident.delay_seconds))
    for path, (low, high) in spans:
        if low > high:
            yield f"{path}: the first number must not exceed the second"
    for path, (low, _) in spans:
        if path.endswith(("reboot_seconds", "boot_seconds")) and low < scenario.step_seconds:
            yield f"{path}: a boot must take at least step_seconds"


def _products(scenario: Scenario) -> Iterator[str]:
    names = [f"{product.vendor}/{product.product}" for product in scenario.products]
    yield from (f"products: {name} is there twice" for name in sorted(_repeated(names)))
    for product in scenario.products:
        for version in sorted(_repeated([version.name for version in product.versions])):
            yield f"products {product.vendor}/{product.product}: version {version!r} is there twice"


def _updates(scenario: Scenario) -> Iterator[str]:
    rings = {ring.name for ring in scenario.fleet.rings} | {EVERYONE}
    found = {(product.vendor, product.product): product for product in scenario.products}
    yield from (f"updates: {name} is there twice" for name in sorted(_repeated([_name(u) for u in scenario.updates])))
    for update in scenario.updates:
        product = found.get((update.vendor, update.product))
        if product is None:
            yield f"updates {_name(update)}: no such product under [[products]]"
        elif any(version.name == update.version for version in product.versions):
            yield f"updates {_name(update)}: that version is already on devices; an update ships a new one"
        for ring in update.rings:
            if ring.name not in rings:
                yield f"updates {_name(update)}: ring {ring.name!r} is none of {', '.join(sorted(rings))}"
        names = [ring.name for ring in update.rings]
        if _repeated(names) or (EVERYONE in names and len(names) > 1):
            yield f"updates {_name(update)}: each ring once, and `*` stands alone"
        if update.declare == "rules" and EVERYONE in names:
            yield f"updates {_name(update)}: a rule needs the rings by name; `*` can be declared by lists only"


def _conditions(scenario: Scenario) -> Iterator[str]:
    found = {
        (product.vendor, product.product): {version.name for version in product.versions}
        for product in scenario.products
    }
    for update in scenario.updates:
        condition = update.incident.only_with if update.incident is not None else None
        if condition is None:
            continue
        unknown = set(condition.versions) - found.get((condition.vendor, condition.product), set())
        if unknown:
            yield f"updates {_name(update)}: incident.only_with: no device has {', '.join(sorted(unknown))}"


def _wheres(scenario: Scenario) -> Iterator[tuple[str, Where]]:
    """Yield every selection of devices with where it stands."""
    for number, rate in enumerate(scenario.background.rates):
        yield f"background.rates {number}", rate.where
    for update in scenario.updates:
        if update.incident is not None and update.incident.only_on is not None:
            yield f"updates {_name(update)}: incident.only_on", update.incident.only_on
    environment = scenario.environment
    for name in ("reboots", "power_cuts", "heat", "site_shocks", "switched_off"):
        for number, one in enumerate(getattr(environment, name)):
            yield f"environment.{name} {number}", one.where


def _places(scenario: Scenario) -> Iterator[str]:
    fleet = scenario.fleet
    known: dict[str, set[str]] = {
        "os_builds": {build.name for form in fleet.form_factors for build in form.os_builds},
        "form_factors": {form.name for form in fleet.form_factors},
        "models": {model.name for form in fleet.form_factors for model in form.models},
        "rings": {ring.name for ring in fleet.rings},
        "tenants": {tenant.name for tenant in fleet.tenants},
        "regions": {region.name for region in fleet.regions},
    }
    for path, where in _wheres(scenario):
        for field, names in known.items():
            unknown = sorted(set(getattr(where, field)) - names)
            if unknown:
                yield f"{path}: {field}: {', '.join(unknown)}: the fleet has {', '.join(sorted(names))}"
    if scenario.background.by_hour and len(scenario.background.by_hour) != 24:
        yield "background.by_hour: give 24 numbers, or none"
    if scenario.background.by_hour and not max(scenario.background.by_hour):
        yield "background.by_hour: at least one hour must be above 0"


def _names(scenario: Scenario) -> Iterator[str]:
    """Check names of tenants and updates that other parts refer to."""
    updates = [_name(update) for update in scenario.updates]
    tenants = {tenant.name for tenant in scenario.fleet.tenants}
    for number, liar in enumerate(scenario.liars):
        if liar.tenant not in tenants:
            yield f"liars {number}: tenant {liar.tenant!r} is none of the fleet's"
        if not updates or (liar.update and liar.update not in updates):
            yield f"liars {number}: update {liar.update!r} is none of [[updates]] (vendor/product/version)"
    for number, off in enumerate(scenario.environment.switched_off):
        if off.arm != "any" and (not updates or (off.update and off.update not in updates)):
            yield f"environment.switched_off {number}: update {off.update!r} is none of [[updates]]"
    for number, update in enumerate(scenario.updates):
        if update.rides_on and update.rides_on not in updates[:number]:
            yield f"updates {_name(update)}: rides_on {update.rides_on!r} is no earlier update of the file"
        if update.begins_before_seconds > scenario.warm_up_seconds:
            yield f"updates {_name(update)}: begins_before_seconds must not exceed warm_up_seconds"


def _truth(scenario: Scenario) -> Iterator[str]:
    harmful = {_name(update) for update in scenario.updates if _harms(update.incident)}
    guilty = scenario.truth.names
    for name in guilty:
        if name not in harmful:
            yield f"truth.guilty: {name!r} is no update with an incident (vendor/product/version)"
    missing = sorted(harmful - set(guilty))
    if missing:
        yield f"truth.guilty: there is an incident; name its update as vendor/product/version: {', '.join(missing)}"
    if scenario.truth.decision == "kill" and not guilty:
        yield "truth.decision: a kill needs truth.guilty"


def _harms(incident: Incident | None) -> bool:
    """Tell whether an incident does harm; one that only cures is no guilt."""
    if incident is None:
        return False
    return incident.crash_probability > 0 or max(incident.rate_ratio, incident.elsewhere_ratio) > 1


def cohort_only(scenario: Scenario) -> list[str]:
    """Return the fields that only the simulation at the cohort level knows; empty if `Fleet` can run the scenario."""
    found = [f"background.{name}" for name in _COHORT_ONLY_BACKGROUND if _differs(scenario.background, name)]
    found += [name for name in ("environment", "liars") if _differs(scenario, name)]
    for form in scenario.fleet.form_factors:
        found += [f"fleet.form_factors {form.name}: weekend_share"] if form.weekend_share != 1 else []
    for update in scenario.updates:
        path = f"updates {_name(update)}: "
        found += [path + name for name in _COHORT_ONLY_UPDATE if _differs(update, name)]
        if update.incident is not None:
            found += [path + f"incident.{name}" for name in _COHORT_ONLY_INCIDENT if _differs(update.incident, name)]
    if scenario.duration_seconds > WEEK_SECONDS:
        found.append("duration_seconds: more than a week")
    return found


def _differs(table: msgspec.Struct, name: str) -> bool:
    """Tell whether a field differs from its default."""
    field = next(one for one in msgspec.structs.fields(table) if one.name == name)
    default = field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default
    return bool(getattr(table, name) != default)


def _name(update: UpdatePlan) -> str:
    return f"{update.vendor}/{update.product}/{update.version}"


def _repeated(names: Sequence[str]) -> set[str]:
    return {name for name in names if names.count(name) > 1}
