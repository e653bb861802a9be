"""What the simulated rollout system tells Cordon about an update: its rings as rules, or the devices by list."""

from dataclasses import dataclass

import msgspec
import numpy as np

from detectors.backtest.fleet import Fleet
from detectors.backtest.machines import NEVER_MS
from detectors.backtest.shipment import Shipment
from ingest.rollouts import Push, Ring, RolloutDeclaration

# As many lists as one declaration may hold.
PUSHES_MAX = 64


@dataclass(frozen=True, slots=True)
class Planned:
    """A declaration and when it is made, in milliseconds of event time."""

    at_ms: int
    declaration: RolloutDeclaration


def declarations(fleet: Fleet) -> list[Planned]:
    """Return what is declared during the scenario, in order of time."""
    planned = []
    for shipment in fleet.shipments:
        if shipment.plan.declare == "no":
            continue
        declaration = _declaration(fleet, shipment)
        starts_ms = declaration.starts_at_ms or fleet.scenario.rollout_ms
        early_ms = round(shipment.plan.declared_before_seconds * 1000)
        planned.append(Planned(max(fleet.scenario.start_ms, starts_ms - early_ms), declaration))
    return sorted(planned, key=lambda each: each.at_ms)


def _declaration(fleet: Fleet, shipment: Shipment) -> RolloutDeclaration:
    plan, rollout_ms = shipment.plan, fleet.scenario.rollout_ms
    starts = [rollout_ms + round(ring.starts_after_seconds * 1000) for ring in plan.rings]
    declaration = RolloutDeclaration(
        vendor=plan.vendor,
        product=plan.product,
        update_kind=shipment.kind,
        version=plan.version,
        starts_at_ms=min(starts),
    )
    if plan.declare == "lists":
        return msgspec.structs.replace(declaration, pushed=_lists(fleet, shipment))
    rings = [
        Ring(name=ring.name, starts_at_ms=start, over_seconds=ring.over_seconds, share=ring.share)
        for ring, start in zip(plan.rings, starts, strict=True)
    ]
    return msgspec.structs.replace(declaration, rings=rings)


def _lists(fleet: Fleet, shipment: Shipment) -> list[Push]:
    """Return lists by tenant and slice of time; a device counts as pushed to from its slice's first moment on."""
    tenants = fleet.scenario.fleet.tenants
    members = np.flatnonzero(shipment.assigned_ms < NEVER_MS)
    members = members[np.argsort(shipment.assigned_ms[members], kind="stable")]
    slices = np.array_split(members, max(1, PUSHES_MAX // len(tenants)))
    pushes = []
    for part in slices:
        for number, tenant in enumerate(tenants):
            devices = part[fleet.population.tenant[part] == number]
            if len(devices):
                names = [fleet.wording.device_name(device) for device in devices.tolist()]
                pushes.append(Push(tenant=tenant.name, devices=names, from_ms=int(shipment.assigned_ms[part[0]])))
    return pushes
