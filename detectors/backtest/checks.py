"""What only the whole scenario shows: parts that contradict each other are refused, each with its remedy."""

from collections.abc import Callable, Iterator, Sequence

from detectors.backtest.scenario import EVERYONE, Scenario, UpdatePlan
from ingest.events import os_build_ok


def faults(scenario: Scenario) -> list[str]:
    """Return what is wrong with the scenario, one sentence a fault; empty if it can run."""
    checks: tuple[Callable[[Scenario], Iterator[str]], ...] = (
        _time,
        _fleet,
        _spans,
        _products,
        _updates,
        _conditions,
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


def _truth(scenario: Scenario) -> Iterator[str]:
    harmful = {_name(update) for update in scenario.updates if update.incident is not None}
    if scenario.truth.guilty and scenario.truth.guilty not in harmful:
        yield f"truth.guilty: {scenario.truth.guilty!r} is no update with an incident (vendor/product/version)"
    if harmful and not scenario.truth.guilty:
        yield "truth.guilty: there is an incident; name its update as vendor/product/version"
    if scenario.truth.decision == "kill" and not scenario.truth.guilty:
        yield "truth.decision: a kill needs truth.guilty"


def _name(update: UpdatePlan) -> str:
    return f"{update.vendor}/{update.product}/{update.version}"


def _repeated(names: Sequence[str]) -> set[str]:
    return {name for name in names if names.count(name) > 1}
