"""What a kill-switch event or a verdict makes of a rollout's case: who is told, and how loud. Pure.

Between the outbox, which has the inputs, and `incident`, which has the deliveries. Invariants: nobody is told but the
owner of the rollout, and owners of modules that take part in a share of the crashes; a dry run pages nobody, a drill
only over routes that ask for it; and what Cordon itself is to blame for goes to whoever runs Cordon.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from detectors.drill import is_drill
from detectors.stacks import Stack
from detectors.verdict import Evidence, Reason, Verdict
from ingest.rollouts import Rollout
from signals.events import Switch, SwitchState
from signals.killswitch.effective import standing_stops
from signals.pagers import incident as incidents
from signals.pagers.content import modules_of, recovery_of, ring_at, with_evidence
from signals.pagers.incident import Terms
from signals.pagers.records import Delivery, Incident, Mute, Page, PageCase, Task
from signals.pagers.registry import DEFAULT_OWNER, Registry
from signals.pagers.words import ChannelKind, Level, Role, Step

CO_VICTIM_SHARE: Final = 0.2
CO_VICTIMS_MAX: Final = 3
SETTLED_MS: Final = 45 * 60_000
# Held for want of sight, not of health: no vendor can do anything about it.
BLIND_REASONS: Final = frozenset(
    {
        Reason.NO_TELEMETRY.value,
        Reason.ACTIVITY_LATE.value,
        Reason.NO_EXPOSURE_BOUND.value,
        Reason.DETECTOR_FAILED.value,
    }
)


@dataclass(frozen=True, slots=True)
class Rules:
    """What the outbox goes by at one moment.

    Attributes:
        registry: in force.
        mutes: that stand.
        calm_ms: how long a fall in loudness must last.
        update_ms: at most one update a route in this time.
    """

    registry: Registry
    mutes: Sequence[Mute]
    calm_ms: int
    update_ms: int


def level_of(switch: Switch) -> Level:
    """Return how loud a rollout is after an event: by the strictest stop that binds, of the whole or of a part."""
    states = {stop.state for stop in standing_stops(switch)}
    if SwitchState.KILLED in states:
        return Level.CRITICAL
    if SwitchState.HELD in states:
        return Level.HIGH
    watching = (switch.whole or switch.state) is SwitchState.WATCHING and not switch.dry_run
    return Level.CHAT if watching else Level.NONE


def blind(switch: Switch, level: Level) -> bool:
    """Tell whether an event holds a rollout because Cordon can't see."""
    by_detector = switch.cause == "detector" and not switch.dry_run
    return by_detector and level is Level.HIGH and switch.reason in BLIND_REASONS


def has_recovered(verdict: Verdict) -> bool:
    """Tell whether almost all devices that a rollout put out of service are back.

    Not soon after its first crash: who fell silent at once counts as silent only when overdue.
    """
    first_ms, recovery = verdict.evidence.first_crash_ms, verdict.recovery
    return recovery is not None and recovery.back and first_ms is not None and verdict.at_ms - first_ms >= SETTLED_MS


def ended_by(switch: Switch) -> str:
    """Return what ended an incident, should it be over by this event."""
    if switch.cause == "person":
        return "released" if switch.state is SwitchState.RELEASED else "person"
    return "expired" if switch.cause == "timer" else "recovered"


def terms_of(rules: Rules, case: PageCase, owner: str, now_ms: int) -> Terms:
    """Return what holds for telling one owner of one rollout now."""
    registry = rules.registry
    drill = is_drill(case.vendor, case.product)
    routes = [
        name
        for name in registry.routes_of(owner)
        if not drill or (name in registry.routes and registry.routes[name].drills)
    ]
    return Terms(
        routes=routes,
        threshold=lambda name: registry.routes[name].threshold if name in registry.routes else Level.CHAT,
        updates=lambda name: _updates(registry, name),
        muted=lambda name, level: _muted(rules, case, owner, name, level, now_ms),
        calm_ms=rules.calm_ms,
        update_ms=rules.update_ms,
    )


def _updates(registry: Registry, name: str) -> bool:
    route = registry.routes.get(name)
    chats = (ChannelKind.SLACK, ChannelKind.TEAMS, ChannelKind.EMAIL)
    return route is not None and route.updates and route.channel not in chats


def _muted(rules: Rules, case: PageCase, owner: str, name: str, level: Level, now_ms: int) -> bool:
    if rules.registry.window(owner, name, level, now_ms) is not None:
        return True
    return any(
        now_ms < mute.until_ms
        and (mute.kills or level is not Level.CRITICAL)
        and (mute.rollout == case.rollout or bool(mute.vendor and mute.vendor == owner))
        for mute in rules.mutes
    )


def with_level(
    case: PageCase, page: Page, evidence: Evidence | None, rules: Rules, now_ms: int, *, at_once: bool, resolved_by: str
) -> PageCase:
    """Tell everybody concerned that the rollout is as loud as `case.level` now.

    Args:
        case: with its new level, and whether it is blind.
        page: the owner's content.
        evidence: the numbers, for other modules' owners; None where a person decided.
        rules: in force.
        now_ms: the clock.
        at_once: a person said so.
        resolved_by: what ended it, should it be over.
    """
    level = Level.NONE if case.blind else case.level
    owner = rules.registry.owner_of_rollout(case.vendor, case.product).owner
    if level is Level.CHAT:
        level = rules.registry.watching_of(owner)
    known = {one.owner: one for one in case.incidents}
    others = _co_victims(case, evidence, rules.registry, owner) if level is not Level.NONE else {}
    for name in dict.fromkeys((owner, *others, *known)):
        before = known.get(name)
        if name == owner:
            role, loud, said = _role(owner), level, page
        else:
            module = others.get(name) or (before.page.module if before and before.page else "")
            stays = before is not None and before.target is not Level.NONE and level is not Level.NONE
            concerned = name in others or stays
            loud = rules.registry.co_victim_of(name, level) if concerned else Level.NONE
            role, said = Role.CO_VICTIM, replace(page, module=module, stacks=_stacks_of(page, rules.registry, name))
        if before is None and loud is Level.NONE:
            continue
        said = replace(said, level=loud, role=role, resolved_by=resolved_by if loud is Level.NONE else "")
        found = before or Incident(owner=name, role=role)
        known[name] = incidents.tell(found, loud, said, now_ms, terms_of(rules, case, name, now_ms), at_once=at_once)
    return replace(case, incidents=list(known.values()))


def with_verdict(
    case: PageCase, page: Page, verdict: Verdict, declared: Rollout | None, rules: Rules, now_ms: int
) -> PageCase:
    """Tell everybody concerned the numbers of a verdict, and that it is over where almost all devices are back.

    The switch stands all the same; another event of it opens the incident again.
    """
    page = replace(
        with_evidence(page, verdict.evidence),
        ring=ring_at(declared, verdict.at_ms) or page.ring,
        recovery=recovery_of(verdict.recovery, declared) or page.recovery,
    )
    ended = has_recovered(verdict)
    if ended:
        case = replace(case, level=Level.NONE, closed=case.number)
    resolved_by = "recovered" if ended else ""
    return with_level(case, page, verdict.evidence, rules, now_ms, at_once=False, resolved_by=resolved_by)


def _role(owner: str) -> Role:
    return Role.OPERATOR if owner == DEFAULT_OWNER else Role.OWNER


def _co_victims(case: PageCase, evidence: Evidence | None, registry: Registry, owner: str) -> Mapping[str, str]:
    """Return other owners and their modules where these are where devices on the update crash; the worst few."""
    if evidence is None or is_drill(case.vendor, case.product):
        return {}
    shares: dict[str, tuple[float, str]] = {}
    for module, share in modules_of(evidence).items():
        name = registry.owner_of_module(module).owner
        if name in (owner, DEFAULT_OWNER):
            continue
        total, worst = shares.get(name, (0.0, module))
        shares[name] = (total + share, worst)
    loud = [(share, name, module) for name, (share, module) in shares.items() if share >= CO_VICTIM_SHARE]
    return {name: module for _, name, module in sorted(loud, reverse=True)[:CO_VICTIMS_MAX]}


def _stacks_of(page: Page, registry: Registry, owner: str) -> list[Stack]:
    """Return the stacks of crashes in an owner's modules: where others' code crashes is for them to know."""
    return [one for one in page.stacks if registry.owner_of_module(one.signature.partition("|")[0]).owner == owner]


def settled(case: PageCase, rules: Rules, now_ms: int, give_up_ms: int) -> PageCase:
    """Let time take effect on every incident: calm, mutes that ended, updates due, escalation, giving up."""
    changed = [_settled(one, case, rules, now_ms, give_up_ms) for one in case.incidents]
    return case if changed == case.incidents else replace(case, incidents=changed)


def _settled(one: Incident, case: PageCase, rules: Rules, now_ms: int, give_up_ms: int) -> Incident:
    one = incidents.settle(one, now_ms, terms_of(rules, case, one.owner, now_ms))
    for delivery in one.deliveries:
        route = rules.registry.routes.get(delivery.route)
        wait_ms = 0 if route is None else route.escalate_seconds * 1000
        late = incidents.overdue(delivery, now_ms, wait_ms)
        if late is not None:
            fallbacks = rules.registry.fallbacks_of(delivery.route)
            one = incidents.escalate(one, delivery.route, late, fallbacks, now_ms)
        one = incidents.give_up(one, delivery.route, now_ms, give_up_ms)
    return one


def with_change(case: PageCase, page: Page, registry: Registry, now_ms: int) -> PageCase:
    """Tell the owner's routes that ask for it that a ring has started; kept in an incident that is never loud."""
    owner = registry.owner_of_rollout(case.vendor, case.product).owner
    names = [name for name in registry.routes_of(owner) if registry.routes[name].changes]
    if not names:
        return case
    known = {one.owner: one for one in case.incidents}
    found = known.get(owner, Incident(owner=owner, role=_role(owner)))
    deliveries = {one.route: one for one in found.deliveries}
    for name in names:
        before = deliveries.get(name, Delivery(route=name))
        if len(before.tasks) >= incidents.TASKS_MAX:
            continue
        sequence = before.sequence + 1
        task = Task(sequence=sequence, step=Step.CHANGE, level=Level.NONE, episode=before.episode, since_ms=now_ms,
                    page=page)  # fmt: skip
        deliveries[name] = replace(before, tasks=[*before.tasks, task], sequence=sequence)
    known[owner] = replace(found, deliveries=list(deliveries.values()))
    return replace(case, incidents=list(known.values()))


def essence(case: PageCase) -> PageCase:
    """Return what of a case is worth writing: everything but content that nobody was given."""
    kept = [replace(one, page=None, target_ms=0) for one in case.incidents]
    return replace(case, incidents=kept, touched_ms=0, offsets={})


def is_open(case: PageCase) -> bool:
    """Tell whether anything stands, or waits to be told."""
    return case.blind or any(
        one.level is not Level.NONE
        or one.target is not Level.NONE
        or any(delivery.tasks for delivery in one.deliveries)
        for one in case.incidents
    )
