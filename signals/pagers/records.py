"""The wire types of paging: what is to be told, how an attempt went, what a person asked.

`cordon.pages.v1` holds a `PageCase` per rollout, compacted: it is the outbox and the outbox's state at once, so what
must be sent and how far it got survive any death together. `cordon.pagings.v1` holds every attempt with its answer, and
is what the store keeps; `cordon.pageorders.v1` holds a `PageOrder` for everything that a person asked. Invariant: a
page names vendor, product, version, rings, modules, places in them and numbers; no device, no customer, no person and
nobody's free text ever gets into one.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from detectors.stacks import Stack
from signals.pagers.words import Answered, Level, OrderAction, Role, Step

TEXT_MAX = 512


class Page(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """What an engineer is told; texts are made from it by `content`.

    Attributes:
        level: how loud.
        role: why the reader is told.
        state: where the rollout's switch stands.
        decision: what rollout systems were told.
        reason: the verdict's closed word; `person` where a person decided.
        part: which part of the rollout moved, in words that name no customer; empty for the whole.
        number: of the kill-switch event; it and the rollout are the evidence's address.
        decided_ms: when it was decided.
        ring: the ring that was being pushed to; empty where none is declared.
        exposed: devices on the update.
        crashes_exposed: distinct devices of them that crashed.
        crashes_control: distinct devices without the update that crashed in the same time.
        at_risk_exposed: devices on the update still counted.
        at_risk_control: the same without it.
        tenants: distinct customers among those that crashed, as a number.
        rate_ratio: crash rate against control.
        rate_low: lower end of its 95 % interval.
        rate_high: upper end of it.
        first_crash_ms: event time of the first crash; 0 if unknown.
        signatures: the most frequent crash signatures with counts, most frequent first.
        signatures_more: how many signatures are not listed.
        stacks: the most frequent stack of each listed signature whose reports had frames.
        module: for a co-victim, the module that crashes.
        recovery: what is known of devices coming back, in one sentence; empty while nothing is.
        rollouts: for the operator's page, how many rollouts are held because Cordon can't see.
        drill: a drill: nothing is wrong.
        lane: the lane it comes from.
        resolved_by: for a resolve, what ended it: `released`, `recovered`, `expired`, `person`.
    """

    level: Level
    role: Role = Role.OWNER
    rollout: str
    vendor: str
    product: str
    version: str
    state: str = ""
    decision: str = ""
    reason: str = ""
    part: str = ""
    number: int = 0
    decided_ms: int = 0
    ring: str = ""
    exposed: int = 0
    crashes_exposed: int = 0
    crashes_control: int = 0
    at_risk_exposed: int = 0
    at_risk_control: int = 0
    tenants: int = 0
    rate_ratio: float | None = None
    rate_low: float | None = None
    rate_high: float | None = None
    first_crash_ms: int = 0
    signatures: list[tuple[str, int]] = []
    signatures_more: int = 0
    stacks: list[Stack] = []
    module: str = ""
    recovery: str = ""
    rollouts: int = 0
    drill: bool = False
    lane: str = "live"
    resolved_by: str = ""


class Task(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """One thing to be told over one route.

    Attributes:
        sequence: grows within a delivery; an answer to a sequence answers every earlier one.
        step: what is told.
        level: how loud.
        episode: part of the dedup key: an incident that was resolved is never opened again under its key.
        since_ms: since when it waits; kept when a newer word takes its place before it was delivered.
        page: the content.
    """

    sequence: int
    step: Step
    level: Level
    episode: int
    since_ms: int
    page: Page


class Delivery(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """What one route is told of one incident, and how far that got.

    Attributes:
        route: the route's name in the registry.
        tasks: what is still to be told, in order; bounded.
        sequence: the newest given.
        episode: counts the times the incident was opened over this route.
        asked: it was opened in this episode and not closed since.
        level: the level last told.
        told_ms: when something was last given to be told.
        told: the content last given.
        number: of the kill-switch event last told.
        instead_of: the route that failed, where this one is its fallback.
        escalated: the newest trigger that the fallback was told of, by its sequence.
        failed: what was given up, for redelivery by hand; bounded.
        why: what the last refusal said; empty while all is well.
    """

    route: str
    tasks: list[Task] = []
    sequence: int = 0
    episode: int = 0
    asked: bool = False
    level: Level = Level.NONE
    told_ms: int = 0
    told: Page | None = None
    number: int = 0
    instead_of: str = ""
    escalated: int = 0
    failed: list[Task] = []
    why: str = ""


class Incident(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """What one vendor is told of one rollout.

    Attributes:
        owner: the vendor by the registry's name, or `default`.
        role: why they are told.
        level: as loud as it is told.
        target: as loud as it is by the last word; a fall takes effect after a calm time, or at once by a person.
        target_ms: since when it is that.
        page: the newest content.
        deliveries: one a route.
        acknowledged: somebody has it in hand.
    """

    owner: str
    role: Role
    level: Level = Level.NONE
    target: Level = Level.NONE
    target_ms: int = 0
    page: Page | None = None
    deliveries: list[Delivery] = []
    acknowledged: bool = False


class PageCase(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """One record of `cordon.pages.v1`: everything about paging for one rollout.

    Attributes:
        number: the newest kill-switch event taken in.
        level: the rollout's own, before mutes and roles.
        blind: it is held because Cordon can't see, which is nobody's fault but Cordon's.
        closed: a person called the incident over while this event number stood.
        incidents: one for each owner who was told.
        rings: rings whose start was told.
        touched_ms: when it was last changed.
        offsets: next offset by `topic word/partition` when it was written.
    """

    schema: int = 1
    rollout: str
    vendor: str = ""
    product: str = ""
    version: str = ""
    number: int = 0
    level: Level = Level.NONE
    blind: bool = False
    closed: int = 0
    incidents: list[Incident] = []
    rings: list[str] = []
    touched_ms: int = 0
    offsets: dict[str, int] = {}


class Mute(msgspec.Struct, kw_only=True, frozen=True):
    """A time in which nobody is told; of one rollout, or of one vendor's incidents.

    Attributes:
        order_id: of the order that asked for it.
        rollout: whose incidents; empty: of every rollout of the vendor.
        vendor: whose incidents, by the registry's name; empty: of the rollout.
        until_ms: when it ends, milliseconds since the epoch.
        kills: kills are not told either.
        name: who asked.
        reason: why, in that person's words; it goes into no page.
    """

    order_id: str
    rollout: str = ""
    vendor: str = ""
    until_ms: int
    kills: bool = False
    name: str
    reason: str


class PagePlace(msgspec.Struct, kw_only=True):
    """The other record of `cordon.pages.v1`, one a partition, under a key no rollout has.

    Attributes:
        offsets: next offset by `topic word/partition`.
        began_ms: when paging was first started here; what was decided long before is followed in silence.
        mutes: those that stand.
        orders: the last orders' ids with what became of each; bounded.
    """

    schema: int = 1
    offsets: dict[str, int]
    began_ms: int
    mutes: list[Mute] = []
    orders: list[tuple[str, str]] = []


class PageAttempt(msgspec.Struct, kw_only=True, frozen=True):
    """One record of `cordon.pagings.v1`: what was sent over a route, when, and the answer.

    Attributes:
        owner: whose incident, by the registry's name.
        route: the route's name in the registry.
        key: the dedup key as the channel saw it.
        step: what was told.
        level: how loud.
        sequence: of the task that was told.
        episode: of the task that was told.
        channel: what the route speaks; empty where the route is no more.
        attempt: counts from 1 for each sequence.
        at_ms: when the answer came, milliseconds since the epoch.
        answered: the closed word of what became of it.
        status: the HTTP status; 0 where there was none.
        answer: what the channel said; cut.
        seconds: how long it took.
        headline: the short text that was told.
    """

    schema: int = 1
    rollout: str
    owner: str
    route: str
    channel: str
    key: str
    step: Step
    level: Level
    sequence: int
    episode: int
    attempt: int
    at_ms: int
    seconds: float
    answered: Answered
    status: int = 0
    answer: Annotated[str, Meta(max_length=TEXT_MAX)] = ""
    headline: str = ""


class PageOrder(msgspec.Struct, kw_only=True, frozen=True):
    """One record of `cordon.pageorders.v1`: what a person asked of the pagers.

    Attributes:
        order_id: makes a repeated post harmless.
        action: what is asked for.
        name: who asks: the token's name.
        reason: why, in that person's words.
        at_ms: when it was asked.
        rollout: what it is about; empty for a vendor's mute.
        vendor: whose incidents are muted; empty for a rollout's.
        until_ms: when a mute ends.
        kills: the mute is for kills as well.
    """

    schema: int = 1
    order_id: Annotated[str, Meta(min_length=1, max_length=64)]
    action: OrderAction
    name: Annotated[str, Meta(min_length=1, max_length=128)]
    reason: Annotated[str, Meta(max_length=1024)] = ""
    at_ms: int
    rollout: Annotated[str, Meta(max_length=64)] = ""
    vendor: Annotated[str, Meta(max_length=64)] = ""
    until_ms: int = 0
    kills: bool = False


case_decoder = msgspec.json.Decoder(PageCase)
place_decoder = msgspec.json.Decoder(PagePlace)
attempt_decoder = msgspec.json.Decoder(PageAttempt)
order_decoder = msgspec.json.Decoder(PageOrder)


def dedup_key(rollout: str, owner: str, task: Task) -> str:
    """Return the key under which a channel folds what belongs together.

    Example:
        >>> page = Page(level=Level.HIGH, rollout="r-1", vendor="a", product="b", version="1")
        >>> dedup_key(
        ...     "r-1", "acme", Task(sequence=4, step=Step.UPDATE, level=Level.HIGH, episode=2, since_ms=0, page=page)
        ... )
        'cordon/r-1/acme/2'
    """
    return f"cordon/{rollout}/{owner}/{task.episode}"
