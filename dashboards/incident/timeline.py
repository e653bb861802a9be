"""The story in order: rings, first crash, decisions, pages, the end.

From `material` to the page. There are two clocks: event time, which the fleet's reports carry, and the wall clock of
whoever decided and told. In a live lane they are seconds apart; in a replay they are not, so each has its column.
Invariant: the order is that of event time; what only the wall clock knows stands behind the decision that it followed.
"""

from dataclasses import dataclass

from dashboards.incident.material import Material
from dashboards.incident.rows import PageRow
from dashboards.incident.words import count, power, span
from signals.events import Switch, SwitchState

MARKS = {
    SwitchState.KILLED: "■",
    SwitchState.HELD: "▲",
    SwitchState.WATCHING: "●",
    SwitchState.RELEASED: "○",
    SwitchState.OBSERVING: "·",
    SwitchState.MUTED: "‖",
}


@dataclass(frozen=True, slots=True)
class Moment:
    """One line of the time line.

    Attributes:
        order: sorts it.
        event_ms: event time; 0 where only the wall clock is known.
        wall_ms: wall clock; 0 where it is not known.
        mark: a sign, so that the eye finds what matters without colour.
        what: in a few words.
        more: the rest.
        state: of the switch, where this is a move of it.
    """

    order: tuple[int, int]
    event_ms: int
    wall_ms: int
    mark: str
    what: str
    more: str
    state: str = ""


def time_line(material: Material) -> list[Moment]:
    """Return every moment that is known, in order."""
    found = [*_rings(material), *_crash(material), *map(_move, material.switches), *_recovery(material)]
    found += [_page(one, material.switches) for one in _told(material.pages)]
    return sorted(found, key=lambda moment: moment.order)


def _rings(material: Material) -> list[Moment]:
    rollout = material.rollout
    said = f"declared by {rollout.declared_by}" if rollout.declared_by else "discovered in reports, not declared"
    found = [Moment((rollout.origin_ms, 0), rollout.origin_ms, 0, "·", "rollout begins", said)]
    for ring in rollout.rings:
        if ring.starts_at_ms is None:
            continue
        push = f"its push was to take {span(int(ring.over_seconds * 1000))}"
        if ring.share < 1:
            push += f" and to reach {ring.share:.0%} of it"
        word = "was to begin" if _stopped_at(material.switches, ring.starts_at_ms) else "begins"
        what = f"ring {ring.name} {word}"
        found.append(Moment((ring.starts_at_ms, 1), ring.starts_at_ms, 0, "▷", what, push))
    return found


def _stopped_at(switches: list[Switch], at_ms: int) -> bool:
    """Tell whether the rollout was stopped at a moment of event time, so that whoever obeyed pushed no further."""
    before = [one for one in switches if 0 < one.watermark_ms <= at_ms]
    return bool(before) and not before[-1].dry_run and before[-1].decision in ("hold", "kill")


def _crash(material: Material) -> list[Moment]:
    at_ms = material.first_crash_ms
    if at_ms is None:
        return []
    return [Moment((at_ms, 2), at_ms, 0, "✕", "first crash", "of a device that had the update, as it was reported")]


def _recovery(material: Material) -> list[Moment]:
    """Return when the first devices were back, and how it stood at the end."""
    back = [one for one in material.recovery if one.recovered]
    if not back:
        return []
    first, last = back[0], material.recovery[-1]
    found = [Moment((first.at_ms, 3), first.at_ms, 0, "↑", "devices come back", count(first.recovered, "device"))]
    if last.at_ms > first.at_ms:
        said = f"{last.recovered:,} recovered, {last.looping:,} looping, {last.silent:,} silent"
        found.append(Moment((last.at_ms, 20_000_000), last.at_ms, 0, "↑", "recovery at the end", said))
    return found


def _move(switch: Switch) -> Moment:
    part = f" ({switch.scope.text})" if not switch.scope.whole else ""
    # A person's sentence names the person.
    by = "" if switch.cause == "person" else f"by the {switch.cause}: "
    more = f"{'in a dry run, which nobody obeys, ' if switch.dry_run else ''}{by}{switch.sentence}"
    if switch.evidence is not None:
        more += f". Evidence {power(switch.evidence.log10_evidence)}"
    if switch.approved_by and switch.approved_by not in switch.sentence:
        more += f". Approved by {switch.approved_by}"
    if switch.break_glass:
        more += ". Glass broken: released by one person"
    at_ms = switch.watermark_ms or switch.decided_ms
    return Moment(
        (at_ms, 10 * switch.number),
        switch.watermark_ms,
        switch.decided_ms,
        MARKS[switch.state],
        f"{switch.previous_state.value} → {switch.state.value}{part}",
        more,
        switch.state.value,
    )


def _told(pages: list[PageRow]) -> list[PageRow]:
    """Return what changed for somebody: the first answer that ended each thing told, and what was refused."""
    kept, seen = [], set()
    for page in pages:
        name = (page.owner, page.route, page.step, page.sequence)
        if page.answered == "retry" or name in seen or page.step in ("update", "change"):
            continue
        seen.add(name)
        kept.append(page)
    return kept


def _page(page: PageRow, switches: list[Switch]) -> Moment:
    before = [one for one in switches if one.decided_ms <= page.at_ms]
    # Behind the decision that it followed, by as much as the wall clock says.
    lag = before[-1].decided_ms - (before[-1].watermark_ms or before[-1].decided_ms) if before else 0
    words = {"trigger": "paged", "resolve": "told that it is over", "acknowledge": "acknowledged"}
    took = "" if page.answered == "delivered" else f", {page.answered.upper()}: {page.answer or page.status}"
    tries = f" at attempt {page.attempt}" if page.attempt > 1 else ""
    level = f" ({page.level})" if page.step == "trigger" else ""
    return Moment(
        (page.at_ms - lag, 10_000_000),
        0,
        page.at_ms,
        "☎",
        f"{page.owner} {words.get(page.step, page.step)}{level}",
        f"over {page.route} ({page.channel}){tries}{took}: {page.headline}",
    )
