"""One vendor's incident about one rollout, as pure functions over its record.

The outbox calls `tell` when the switch moved or the numbers did, `settle` when time passed, `answered` when a channel
said something, and writes what comes back. Invariants, tested by a model:

- One incident a rollout and vendor: whatever comes, a route that was told and not told that it is over is told news
  under the same key, and a key that was closed is never opened again.
- What wakes people is never replaced by what does not: a trigger that waits stays a trigger, with the newest content.
- A fall in loudness takes effect after a calm time, so a hold that comes and goes does not page twice; a person's
  release takes effect at once.
- Bounded: where `TASKS_MAX` things wait for a route, a new start is joined to the last; at most `FAILED_MAX` are kept
  for redelivery.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from signals.pagers.records import Delivery, Incident, Page, PageAttempt, Task
from signals.pagers.words import Answered, Level, Step

TASKS_MAX: Final = 4
FAILED_MAX: Final = 4
MORE_CRASHES: Final = 1.5
_WAKES: Final = (Step.TRIGGER, Step.UPDATE)


@dataclass(frozen=True, slots=True)
class Terms:
    """What the registry and the settings say of telling, at one moment.

    Attributes:
        routes: the routes of the incident's owner that may be told of it.
        threshold: of a route, from which level on it is told.
        updates: of a route, whether news are sent under the same key.
        muted: whether a route may not be told of this level now.
        calm_ms: how long a fall in loudness must last.
        update_ms: at most one update a route in this time.
    """

    routes: Sequence[str]
    threshold: Callable[[str], Level]
    updates: Callable[[str], bool]
    muted: Callable[[str, Level], bool]
    calm_ms: int
    update_ms: int


def tell(incident: Incident, level: Level, page: Page, now_ms: int, terms: Terms, *, at_once: bool = False) -> Incident:
    """Take a new word on how loud the incident is, with its content, and say what routes must be told.

    Args:
        incident: as it is.
        level: as loud as it should be.
        page: the content.
        now_ms: the clock.
        terms: of telling.
        at_once: a person said so: a fall needs no calm time.
    """
    since_ms = incident.target_ms if level is incident.target else now_ms
    known = replace(incident, target=level, target_ms=since_ms, page=page)
    if at_once or level.rank > known.level.rank:
        known = replace(known, level=level)
    return settle(known, now_ms, terms)


def settle(incident: Incident, now_ms: int, terms: Terms) -> Incident:
    """Let time take effect: a fall that has lasted, a mute that ended, an update that is due."""
    if incident.target.rank < incident.level.rank and now_ms - incident.target_ms >= terms.calm_ms:
        incident = replace(incident, level=incident.target)
    if incident.page is None:
        return incident
    known = {delivery.route: delivery for delivery in incident.deliveries}
    # A route that has left the registry, or a fallback, is still told that it is over.
    for name in dict.fromkeys((*terms.routes, *known)):
        before = known.get(name, Delivery(route=name))
        after = _given(before, incident, now_ms, terms)
        if after is not before:
            known[name] = after
    if incident.level is Level.NONE and incident.acknowledged:
        incident = replace(incident, acknowledged=False)
    deliveries = list(known.values())
    return incident if deliveries == incident.deliveries else replace(incident, deliveries=deliveries)


def _given(delivery: Delivery, incident: Incident, now_ms: int, terms: Terms) -> Delivery:
    """Return the delivery with what its route must be told now."""
    page, level, name = incident.page, incident.level, delivery.route
    assert page is not None
    wanted = level.reaches(terms.threshold(delivery.instead_of or name))
    if not wanted:
        return _closed(delivery, page, level, now_ms) if delivery.asked else delivery
    silent = terms.muted(name, level) or (name not in terms.routes and not delivery.instead_of)
    if silent or (delivery.instead_of and not delivery.asked):
        return delivery
    if delivery.why and level.rank <= delivery.level.rank:
        # It refused: a louder word is worth another try, the same one again is not.
        return delivery
    page = replace(page, level=level)
    if not delivery.asked:
        opened = replace(delivery, asked=True, episode=delivery.episode + 1, why="")
        return _add(opened, Step.TRIGGER, page, level, now_ms)
    if level.rank > delivery.level.rank:
        return _add(replace(delivery, why=""), Step.TRIGGER, page, level, now_ms)
    moved = page.number != delivery.number or level is not delivery.level
    due = moved or (terms.updates(name) and now_ms - delivery.told_ms >= terms.update_ms and _news(delivery.told, page))
    return _add(delivery, Step.UPDATE, page, level, now_ms) if due else delivery


def _news(told: Page | None, page: Page) -> bool:
    """Tell whether there is more to say than was said: half as many crashes again, more customers, another ring."""
    if told is None:
        return True
    return (
        page.crashes_exposed > told.crashes_exposed * MORE_CRASHES
        or page.tenants > told.tenants
        or (page.ring, page.recovery, page.decision) != (told.ring, told.recovery, told.decision)
    )


def _closed(delivery: Delivery, page: Page, level: Level, now_ms: int) -> Delivery:
    # Also where the channel refused to open it: to resolve what it does not know is harmless everywhere.
    ended = replace(delivery, asked=False, why="")
    return _add(ended, Step.RESOLVE, replace(page, level=level), level, now_ms)


def _add(delivery: Delivery, step: Step, page: Page, level: Level, now_ms: int) -> Delivery:
    tasks, episode = list(delivery.tasks), delivery.episode
    since_ms = now_ms
    if step is Step.TRIGGER:
        # The start of a ring is context: it must not stand in an alarm's way.
        tasks = [task for task in tasks if task.step is not Step.CHANGE]
    last = tasks[-1] if tasks else None
    if step is Step.TRIGGER and last is not None and last.step is Step.RESOLVE and len(tasks) >= TASKS_MAX:
        # A channel that is away while the incident comes and goes: what it has not heard, it need not hear.
        tasks.pop()
        episode, last = last.episode, tasks[-1]
    if last is not None and step in _WAKES and last.step in _WAKES and last.episode == episode:
        louder = any(_opens(task, episode) and task.level.rank > level.rank for task in tasks)
        if louder:
            # The louder word is said first: a kill that nobody heard of is not hidden by the hold after it.
            step = Step.UPDATE
        else:
            since_ms = last.since_ms
            step = Step.TRIGGER if Step.TRIGGER in (step, last.step) else step
        if not louder or last.step is Step.UPDATE:
            tasks.pop()
    sequence = delivery.sequence + 1
    tasks.append(Task(sequence=sequence, step=step, level=level, episode=episode, since_ms=since_ms, page=page))
    return replace(
        delivery,
        tasks=tasks,
        sequence=sequence,
        episode=episode,
        level=level,
        told_ms=now_ms,
        told=page,
        number=page.number,
    )


def _opens(task: Task, episode: int) -> bool:
    return task.step is Step.TRIGGER and task.episode == episode


def acknowledge(incident: Incident, now_ms: int, knows: Callable[[str], bool]) -> Incident:
    """Tell the open routes that know acknowledgement that somebody has it in hand."""
    if incident.page is None or incident.level is Level.NONE:
        return incident
    page = incident.page
    deliveries = [
        _add(one, Step.ACKNOWLEDGE, page, one.level, now_ms) if _can_acknowledge(one) and knows(one.route) else one
        for one in incident.deliveries
    ]
    return replace(incident, deliveries=deliveries, acknowledged=True)


def _can_acknowledge(delivery: Delivery) -> bool:
    waits = any(task.step is Step.ACKNOWLEDGE for task in delivery.tasks)
    return delivery.asked and not delivery.why and not waits


def answered(incident: Incident, attempt: PageAttempt) -> Incident:
    """Take a channel's answer to everything up to a sequence; an old answer, or one told twice, changes nothing."""
    return replace(incident, deliveries=[
        _answered(one, attempt) if one.route == attempt.route else one for one in incident.deliveries
    ])  # fmt: skip


def _answered(delivery: Delivery, attempt: PageAttempt) -> Delivery:
    if attempt.answered is Answered.RETRY or not delivery.tasks:
        return delivery
    if delivery.tasks[0].sequence > attempt.sequence:
        return replace(delivery, tasks=_calmed(delivery.tasks, attempt)) if _delivered(attempt) else delivery
    if _delivered(attempt):
        rest = [task for task in delivery.tasks if task.sequence > attempt.sequence]
        # What was refused before under the same key is said by now, and older: it need not be told any more.
        failed = [task for task in delivery.failed if task.episode != attempt.episode]
        return replace(delivery, tasks=rest, failed=failed)
    return _failed(delivery, attempt.sequence, attempt.answer or "refused")


def _delivered(attempt: PageAttempt) -> bool:
    return attempt.answered is Answered.DELIVERED


def _failed(delivery: Delivery, sequence: int, why: str) -> Delivery:
    over = [task for task in delivery.tasks if task.sequence <= sequence]
    rest = delivery.tasks[len(over) :]
    if any(task.step is Step.TRIGGER for task in over):
        # What was never opened there can't be changed there; that it is over is said all the same.
        rest = [task for task in rest if task.episode != over[-1].episode or task.step in (Step.TRIGGER, Step.RESOLVE)]
    return replace(delivery, tasks=rest, failed=[*delivery.failed, *over][-FAILED_MAX:], why=why)


def _calmed(tasks: list[Task], attempt: PageAttempt) -> list[Task]:
    """A trigger was taken while a newer one of the same loudness took its place: that one is news now, no alarm."""
    if not tasks or attempt.step not in _WAKES:
        return tasks
    head = tasks[0]
    if head.step is Step.TRIGGER and head.episode == attempt.episode and head.level.rank <= attempt.level.rank:
        return [replace(head, step=Step.UPDATE), *tasks[1:]]
    return tasks


def overdue(delivery: Delivery, now_ms: int, escalate_ms: int) -> Task | None:
    """Return what wakes people and was refused, or has waited so long, that somebody else must be told; or None."""
    late = [task for task in delivery.tasks if now_ms - task.since_ms >= escalate_ms]
    found = [
        task for task in (*delivery.failed, *late) if task.step is Step.TRIGGER and task.sequence > delivery.escalated
    ]
    return found[-1] if found else None


def escalate(incident: Incident, route: str, task: Task, fallbacks: Sequence[str], now_ms: int) -> Incident:
    """Tell the fallback routes what `route` could not be told; those that know of the incident hear nothing twice.

    Also where it is over by now: a kill that nobody was told of is told, and then that it is over.
    """
    known: dict[str, Delivery] = {one.route: one for one in incident.deliveries}
    failed = known[route]
    known[route] = replace(failed, escalated=task.sequence)
    stands = incident.page is not None and incident.level.rank >= task.level.rank
    level = incident.level if stands else task.level
    page = incident.page if stands and incident.page is not None else task.page
    for name in fallbacks:
        other = known.get(name, Delivery(route=name))
        if other.asked:
            continue
        first = failed.instead_of or route
        opened = replace(other, asked=True, episode=other.episode + 1, why="", instead_of=first)
        known[name] = _add(opened, Step.TRIGGER, replace(page, level=level), level, now_ms)
    return replace(incident, deliveries=list(known.values()))


def give_up(incident: Incident, route: str, now_ms: int, after_ms: int) -> Incident:
    """Stop trying what has waited longer than `after_ms`; it is kept for redelivery by hand."""
    changed: Mapping[str, Delivery] = {
        one.route: _failed(one, one.tasks[0].sequence, "gave up")
        for one in incident.deliveries
        if one.route == route and one.tasks and now_ms - one.tasks[0].since_ms >= after_ms
    }
    if not changed:
        return incident
    return replace(incident, deliveries=[changed.get(one.route, one) for one in incident.deliveries])


def redeliver(incident: Incident, now_ms: int) -> Incident:
    """Put what was given up back in its queue, under its old keys, in its old order."""
    return replace(incident, deliveries=[_again(one, now_ms) for one in incident.deliveries])


def _again(delivery: Delivery, now_ms: int) -> Delivery:
    if not delivery.failed:
        return delivery
    waiting = [*(task for task in delivery.failed if _still_true(delivery, task)), *delivery.tasks]
    tasks = [
        replace(task, sequence=delivery.sequence + place, since_ms=now_ms) for place, task in enumerate(waiting, 1)
    ]
    return replace(delivery, tasks=tasks, sequence=delivery.sequence + len(tasks), failed=[], why="")


def _still_true(delivery: Delivery, task: Task) -> bool:
    # What was closed under its key is never opened again under it.
    return task.step not in _WAKES or (delivery.asked and task.episode == delivery.episode)
