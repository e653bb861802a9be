"""What a page says: short first, long after; a pure function of a kill-switch event's numbers.

Between the outbox, which calls `page_of` with what it knows, and the channels, which put the texts in their own forms.
Invariant: no device, no customer and no person is named. Therefore nothing free goes in: not the verdict's sentence,
not a person's reason or name, no cell, margin or tenant, only names of updates and modules, closed words and numbers.
"""

import datetime as dt
import re
from collections.abc import Sequence
from typing import Final

import msgspec

from detectors.drill import is_drill
from detectors.recovery import Recovery
from detectors.scope import Scope
from detectors.stacks import Stack
from detectors.verdict import REASON_DOCS, Evidence, Reason
from ingest.rollouts import Rollout
from ingest.signature import FRAME_CHARS_MAX
from signals.events import Switch
from signals.pagers.records import Page, PageCase
from signals.pagers.words import Level, Role, Step

HEADLINE_MAX: Final = 120
SIGNATURES_MAX: Final = 5
RINGS_MAX: Final = 4
FRAMES_MAX: Final = 3
FRAMES: Final = "Frames"
_SAFE: Final = re.compile(r"[^\x20-\x7e]")
_WORDS: Final = {Level.CRITICAL: "KILLED", Level.HIGH: "HELD", Level.CHAT: "WATCHING", Level.NONE: "OVER"}


def page_of(switch: Switch, level: Level, rollout: Rollout | None, at_ms: int) -> Page:
    """Return the content for the owner of a rollout after a kill-switch event.

    Args:
        switch: the event's data.
        level: how loud it is told.
        rollout: what was declared, or None where nothing is known.
        at_ms: the time at which rings count as started.
    """
    by_person = switch.cause == "person"
    page = Page(
        level=level,
        rollout=switch.rollout,
        vendor=switch.vendor,
        product=switch.product,
        version=switch.version,
        state=(switch.whole or switch.state).value,
        decision=switch.decision.value,
        reason="person" if by_person else switch.cause if switch.cause == "timer" else switch.reason,
        part=part_of(switch.scope),
        number=switch.number,
        decided_ms=switch.decided_ms,
        ring=switch.scope.ring or ring_at(rollout, at_ms),
        drill=is_drill(switch.vendor, switch.product),
        lane=switch.lane,
    )
    return page if switch.evidence is None else with_evidence(page, switch.evidence)


def page_of_ring(case: PageCase, ring: str, at_ms: int, lane: str) -> Page:
    """Return what is told when a ring starts."""
    return Page(
        level=Level.NONE,
        rollout=case.rollout,
        vendor=case.vendor,
        product=case.product,
        version=case.version,
        ring=ring,
        decided_ms=at_ms,
        lane=lane,
    )


def with_evidence(page: Page, evidence: Evidence) -> Page:
    """Return the page with the numbers of a verdict; the signatures are those seen most."""
    ordered = sorted(evidence.signatures, key=lambda one: (-one[1], one[0]))
    signatures = [(_clean(name, 330), count) for name, count in ordered[:SIGNATURES_MAX]]
    return msgspec.structs.replace(
        page,
        exposed=evidence.exposed,
        crashes_exposed=evidence.crashes_exposed,
        crashes_control=evidence.crashes_control,
        at_risk_exposed=evidence.at_risk_exposed,
        at_risk_control=evidence.at_risk_control,
        tenants=evidence.tenants,
        rate_ratio=evidence.rate_ratio,
        rate_low=evidence.rate_ratio_low,
        rate_high=evidence.rate_ratio_high,
        first_crash_ms=evidence.first_crash_ms or 0,
        signatures=signatures,
        signatures_more=max(0, len(ordered) - SIGNATURES_MAX),
        stacks=_stacks(evidence, [name for name, _ in signatures]),
    )


def _stacks(evidence: Evidence, signatures: Sequence[str]) -> list[Stack]:
    """Return the stacks of some signatures, in their order, fit to be shown."""
    found: dict[str, Stack] = {}
    for one in evidence.stacks:
        name = _clean(one.signature, 330)
        frames = [_clean(frame, FRAME_CHARS_MAX) for frame in one.frames[:FRAMES_MAX] if frame]
        if name in signatures and frames:
            found.setdefault(name, msgspec.structs.replace(one, signature=name, frames=frames))
    return [found[name] for name in dict.fromkeys(signatures) if name in found]


def part_of(scope: Scope) -> str:
    """Return a part of a rollout in words that name no customer; empty for the whole."""
    parts = [f"ring {scope.ring}"] if scope.ring else []
    parts += [f"OS build {scope.os_build}"] if scope.os_build else []
    parts += [f"model {scope.model}"] if scope.model else []
    parts += ["one customer"] if scope.tenant else []
    return ", ".join(parts)


def ring_at(rollout: Rollout | None, at_ms: int) -> str:
    """Return the ring that was started last; empty where none is declared or none has started."""
    started = started_rings(rollout, at_ms)
    return started[-1] if started else ""


def started_rings(rollout: Rollout | None, at_ms: int) -> Sequence[str]:
    """Return the rings that have started, in the order of their starts."""
    if rollout is None:
        return ()
    timed = [(ring.starts_at_ms, place, ring.name) for place, ring in enumerate(rollout.rings)
             if ring.starts_at_ms is not None and ring.starts_at_ms <= at_ms]  # fmt: skip
    return [name for _, _, name in sorted(timed)]


def recovery_of(recovery: Recovery | None, rollout: Rollout | None) -> str:
    """Return what is known of devices coming back, in one sentence; empty while nothing is.

    Rings are named that were declared: what devices call theirs may be anything.
    """
    if recovery is None:
        return ""
    declared = [ring.name for ring in rollout.rings] if rollout is not None else []
    rings = []
    for name in declared[:RINGS_MAX]:
        rows = [row for row in recovery.rows if row.ring == name]
        back, all_ = sum(row.recovered for row in rows), sum(row.recovered + row.silent + row.looping for row in rows)
        rings += [f"{name} {back:,} of {all_:,} back"] if all_ else []
    said = f"{recovery.recovered:,} recovered, {recovery.looping:,} still crashing, {recovery.silent:,} silent"
    return said + (f" ({', '.join(rings)})" if rings else "")


def modules_of(evidence: Evidence) -> dict[str, float]:
    """Return each crashing module's share of the exposed crashes whose signatures are known."""
    total = sum(count for _, count in evidence.signatures)
    shares: dict[str, float] = {}
    for signature, count in evidence.signatures:
        module = signature.split("|", 1)[0]
        if module and not module.startswith("<"):
            shares[module] = shares.get(module, 0.0) + count / total
    return shares


def headline(page: Page, step: Step) -> str:
    """Return the line that a telephone shows: at most `HEADLINE_MAX` characters, the decision first."""
    update = f"{page.product} {page.version}"
    prefix = ("DRILL " if page.drill else "") + ("" if page.lane == "live" else f"[{page.lane}] ")
    if step is Step.CHANGE:
        text = f"{update}: ring {page.ring} started"
    elif step is Step.RESOLVE:
        text = f"OVER: {update} {_OVER.get(page.resolved_by, 'goes on')}"
    elif page.role is Role.OPERATOR and page.rollouts:
        text = f"Cordon can't see: {page.rollouts} rollout{'s' if page.rollouts != 1 else ''} held"
    elif page.role is Role.CO_VICTIM:
        text = f"{page.module} crashes where {page.vendor} {update} was installed"
    else:
        text = f"{_WORDS[page.level]}{' (' + page.part + ')' if page.part else ''}: {update}{_short_numbers(page)}"
    return _clean(prefix + text, HEADLINE_MAX)


def body(page: Page, step: Step) -> list[str]:
    """Return the long text, a fact a line, those first that decide what to do."""
    lines = []
    for name, value in facts(page).items():
        lines += [f"{name}: {text}" for text in (stack_texts(page) if name == FRAMES else (value,))]
    if step is Step.RESOLVE:
        lines.insert(0, f"This is over: the rollout {_ENDED.get(page.resolved_by, 'may go on')}.")
    elif page.role is Role.CO_VICTIM:
        lines.insert(0, "It is another vendor's rollout; your module is where devices on it crash.")
    elif page.drill:
        lines.insert(0, "This is a drill: nothing is wrong, and no real device is concerned.")
    return [_clean(line, 500) for line in lines]


_OVER: Final = {"released": "released", "person": "called over by a person", "expired": "has its time behind it"}
_ENDED: Final = {
    "released": "was released by a person",
    "recovered": "went on by a verdict of the detector, or its devices came back",
    "person": "was called over by a person",
    "expired": "was stopped until a time, which has come",
}


def facts(page: Page) -> dict[str, str]:
    """Return what is known, by name, in the order of reading."""
    found = {
        "Update": f"{page.vendor} {page.product} {page.version}",
        "Decision": _decision(page),
        "Why": _why(page),
        "Ring": page.ring,
        "Crashed": _crashed(page),
        "Rate against control": _rate(page),
        "First seen": _time(page.first_crash_ms),
        "Top signatures": "; ".join(f"{name} ({count})" for name, count in page.signatures)
        + (f"; and {page.signatures_more} more" if page.signatures_more else ""),
        FRAMES: "; ".join(stack_texts(page)),
        "Your module": page.module,
        "Recovery": page.recovery,
        "Rollout": f"{page.rollout} event {page.number}" if page.number else page.rollout,
    }
    return {name: text for name, text in found.items() if text}


def stack_texts(page: Page) -> list[str]:
    """Return each signature's most frequent frames, innermost first, and on how many of its devices they were seen."""
    counts = dict(page.signatures)
    texts = []
    for one in page.stacks:
        of = max(one.devices, counts.get(one.signature, 0))
        seen = f"{'' if one.exact else 'at least '}{one.devices:,} of {of:,} device{'s' if of != 1 else ''}"
        texts.append(f"{one.signature} most often at {', '.join(one.frames)} ({seen})")
    return texts


def links(page: Page, base: str) -> list[tuple[str, str]]:
    """Return (text, address) of board, console, runbook and evidence under a base address; none without one."""
    if not base:
        return []
    root = base.rstrip("/")
    return [
        ("Console", f"{root}/console/rollouts/{page.rollout}"),
        ("Board", f"{root}/boards/rollout?var-rollout={page.rollout}"),
        ("Runbook", f"{root}/runbooks/{page.state or 'watching'}"),
        ("Verdict", f"{root}/v1/rollouts/{page.rollout}/verdict"),
    ]


def _short_numbers(page: Page) -> str:
    text = f", {page.crashes_exposed:,} crashed" if page.crashes_exposed else ""
    return text + (f", {page.rate_ratio:,.0f}x control" if page.rate_ratio and page.rate_ratio >= 2 else "")


def _decision(page: Page) -> str:
    said = f"{page.decision or page.state}{' for ' + page.part if page.part else ''}"
    return f"{said}, {_time(page.decided_ms)}" if said else ""


def _why(page: Page) -> str:
    if page.reason == "person":
        return "A person decided."
    if page.reason == "timer":
        return "A time that a person had set has ended."
    try:
        return REASON_DOCS[Reason(page.reason)]
    except ValueError:
        return ""


def _crashed(page: Page) -> str:
    if not page.exposed and not page.crashes_exposed:
        return ""
    of = f" of {page.exposed:,} devices on it" if page.exposed else " devices"
    tenants = f", at {page.tenants:,} customer{'s' if page.tenants != 1 else ''}" if page.tenants else ""
    return f"{page.crashes_exposed:,}{of}{tenants}; {page.crashes_control:,} without it"


def _rate(page: Page) -> str:
    if page.rate_ratio is None:
        return ""
    low = "?" if page.rate_low is None else f"{page.rate_low:,.1f}"
    high = "?" if page.rate_high is None else f"{page.rate_high:,.1f}"
    return f"{page.rate_ratio:,.1f} times, 95 % interval {low} to {high}"


def _time(at_ms: int) -> str:
    return dt.datetime.fromtimestamp(at_ms / 1000, dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if at_ms else ""


def _clean(text: str, most: int) -> str:
    text = _SAFE.sub("?", text)
    return text if len(text) <= most else text[: most - 3] + "..."
