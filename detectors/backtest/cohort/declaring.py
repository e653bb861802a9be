"""Which rollouts Cordon watches from when, what it is told of them, and which of them are each other's rivals."""

from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np

from detectors.backtest.cohort.digest import Digest
from detectors.backtest.cohort.shipping import begins_ms, lies_ms, product_of
from detectors.backtest.cohort.uptime import NEVER
from detectors.backtest.draws import Ints
from detectors.backtest.scenario import EVERYONE, Scenario, UpdatePlan
from ingest.grouping.cohorts import ROLLOUTS_PER_PRODUCT_MAX
from ingest.rollouts import Bound, Ring, Rollout, rollout_id
from ingest.settings import Settings

MINUTE_MS: Final = 60_000
INVENTED: Final = -1
# As many as grouping splits the cells of a rollout by.
RIVALS_MAX: Final = 2


@dataclass(slots=True)
class Watched:
    """A rollout under watch.

    Attributes:
        update: number of its update, `INVENTED` for a version that a liar made up.
        product: number of its product.
        record: what the log says of it first.
        said_ms: when it does.
        until_ms: when it is closed, or makes room for others; `NEVER` for not before the end.
        closed: whether it is closed rather than forgotten then.
        invented_ms: when the liar's device claims to be on it.
        liar: whose invention it is.
        rivals: the watched rollouts by which its cells are split, by number, and since which minute in each partition.
    """

    update: int
    product: int
    record: Rollout
    said_ms: int
    until_ms: int = NEVER
    closed: bool = False
    invented_ms: int = NEVER
    liar: int = -1
    rivals: tuple[tuple[int, Ints], ...] = ()


def watched_of(scenario: Scenario, digest: Digest) -> list[Watched]:
    """Return the rollouts under watch in the order in which they were said."""
    found = [_shipped(scenario, number, digest) for number in range(len(scenario.updates))]
    for number, liar in enumerate(scenario.liars):
        if liar.tells == "versions":
            found += _invented(scenario, number)
    found.sort(key=lambda one: one.said_ms)
    _make_room(found)
    _match(found, digest)
    return found


def _shipped(scenario: Scenario, number: int, digest: Digest) -> Watched:
    plan = scenario.updates[number]
    begins = begins_ms(scenario, plan)
    first = digest.known_ms[number]
    if plan.declare == "no":
        said = origin = first if first < NEVER else begins
        bound = Bound.OFFERED if plan.says_offered else Bound.NONE
    else:
        origin = begins + round(min(ring.starts_after_seconds for ring in plan.rings) * 1000)
        said = max(scenario.start_ms, origin - round(plan.declared_before_seconds * 1000))
        bound = Bound.DECLARED
    record = _record(scenario, plan, origin, bound)
    if plan.declare == "rules":
        record = msgspec.structs.replace(record, rings=_rings(begins, plan), declared_by="rollout-system")
    elif plan.declare == "lists":
        count = len(digest.taken(number)[0])
        record = msgspec.structs.replace(record, pushed_devices=count, declared_by="rollout-system")
    else:
        record = msgspec.structs.replace(record, discovered_by=scenario.fleet.tenants[0].name)
    closes = NEVER if plan.closed_after_seconds is None else begins + round(plan.closed_after_seconds * 1000)
    return Watched(number, product_of(scenario, plan), record, said, closes, closes < NEVER)


def _rings(begins: int, plan: UpdatePlan) -> list[Ring]:
    return [
        Ring(
            name=ring.name,
            starts_at_ms=begins + round(ring.starts_after_seconds * 1000),
            over_seconds=ring.over_seconds,
            share=ring.share,
        )
        for ring in plan.rings
        if ring.name != EVERYONE
    ]


def _record(scenario: Scenario, plan: UpdatePlan, origin_ms: int, bound: Bound, version: str = "") -> Rollout:
    version = version or plan.version
    return Rollout(
        rollout=rollout_id(plan.vendor, plan.product, version),
        vendor=plan.vendor,
        product=plan.product,
        update_kind=scenario.products[product_of(scenario, plan)].kind,
        version=version,
        origin_ms=origin_ms,
        bound=bound,
        origin_said_ms=origin_ms,
        rings_said_ms=origin_ms,
    )


def _invented(scenario: Scenario, liar: int) -> list[Watched]:
    """Return the invented versions that the gateway lets in: a tenant reveals a few a day, whatever it says."""
    told = scenario.liars[liar]
    names = [plan.name for plan in scenario.updates]
    plan = scenario.updates[names.index(told.update) if told.update else 0]
    most = Settings().discovered_per_tenant_max
    days: dict[int, int] = {}
    found = []
    for number, at_ms in enumerate(lies_ms(scenario, liar, told.count).tolist()):
        day = (at_ms - scenario.rollout_ms) // 86_400_000
        if at_ms >= scenario.end_ms or days.get(day, 0) >= most:
            continue
        days[day] = days.get(day, 0) + 1
        record = _record(scenario, plan, at_ms, Bound.OFFERED, f"{plan.version}-{number}")
        record = msgspec.structs.replace(record, discovered_by=told.tenant)
        found.append(Watched(INVENTED, product_of(scenario, plan), record, at_ms, invented_ms=at_ms, liar=liar))
    return found


def _make_room(found: list[Watched]) -> None:
    """Let the oldest rollout of a product go for its fifth, undeclared ones first, as grouping does."""
    for number, one in enumerate(found):
        same = [other for other in found[:number] if other.product == one.product and other.until_ms > one.said_ms]
        if len(same) >= ROLLOUTS_PER_PRODUCT_MAX:
            leaves = min(same, key=lambda other: (bool(other.record.declared_by), other.record.origin_ms))
            stays = bool(leaves.record.declared_by) and not one.record.declared_by
            (one if stays else leaves).until_ms = one.said_ms


def _match(found: list[Watched], digest: Digest) -> None:
    """Find each rollout's rivals: the youngest of other products that overlap on devices, from the minute they do."""
    for one in found:
        overlaps = []
        for number, other in enumerate(found):
            if other.product == one.product or INVENTED in (one.update, other.update):
                continue
            first = digest.meet_ms[one.update, other.update]
            if first.min() < min(NEVER, one.until_ms, other.until_ms):
                since = np.where(first < NEVER, (first // MINUTE_MS + 1) * MINUTE_MS, NEVER)
                overlaps.append((other.said_ms, number, since))
        youngest = sorted(overlaps, key=lambda overlap: overlap[:2])[-RIVALS_MAX:]
        chosen = [(number, since) for _, number, since in youngest]
        one.rivals = tuple(sorted(chosen, key=lambda rival: found[rival[0]].record.rollout))
