"""What is told to whom, for people to look at, and the place where they ask for something else.

Behind the HTTP routes. Reads the outbox's records from the log as they are asked for; an order becomes a record.
Invariants: it decides nothing, and it shows no secret and no content beyond headlines.
"""

import secrets
import threading
from typing import Final

import msgspec

from ingest.clock import Clock
from ingest.events import UNREADABLE_ERRORS, encoder
from ingest.log.interface import Entry, Log, OffsetGoneError, TopicPartition
from ingest.topics import Topics, keyed_partition_of
from signals.pagers.content import headline
from signals.pagers.outbox import CASES_MAX, PLACE_PREFIX
from signals.pagers.records import Mute, PageCase, PageOrder, PagePlace, case_decoder, place_decoder
from signals.pagers.words import Level, OrderAction, Role, Step

INCIDENTS_MAX: Final = 500


class RouteStatus(msgspec.Struct, kw_only=True):
    """How one route stands with an incident.

    Attributes:
        route: the route's name in the registry.
        open: it was told and not yet told that it is over.
        waiting: how many things no channel has taken yet.
        undelivered: how many were given up; `redeliver` tries them again.
        why: what the channel said when it refused; empty while all is well.
        instead_of: the route whose fallback it is; empty for none.
    """

    route: str
    open: bool
    waiting: int
    undelivered: int
    why: str = ""
    instead_of: str = ""


class IncidentStatus(msgspec.Struct, kw_only=True):
    """One incident.

    Attributes:
        rollout: the rollout's id.
        owner: who is told, by the registry's name.
        role: why they are told.
        level: how loud it is now.
        headline: the short text, as it would be told now.
        acknowledged: somebody has it in hand.
        changed_ms: when something was last told, milliseconds since the epoch.
        routes: how each route stands.
    """

    rollout: str
    owner: str
    role: Role
    level: Level
    headline: str
    acknowledged: bool
    changed_ms: int
    routes: list[RouteStatus]


class PagersStatus(msgspec.Struct, kw_only=True):
    """What is told to whom.

    Attributes:
        incidents: open ones first, then those with something undelivered, newest first; at most 500.
        mutes: that stand.
    """

    incidents: list[IncidentStatus]
    mutes: list[Mute]


class Ordered(msgspec.Struct, kw_only=True):
    """An order that was taken down.

    Attributes:
        order_id: its id.
        result: what became of it; null while the pagers have not seen it.
    """

    order_id: str
    result: str | None = None


class PagerBoard:
    """The outbox's records of one lane; any thread."""

    def __init__(self, log: Log, topics: Topics, clock: Clock) -> None:
        """Take the log, the lane's topics and the clock that stamps orders; nothing is read yet."""
        self._log, self._topics, self._clock = log, topics, clock
        self._lock = threading.Lock()
        self._next: dict[int, int] = {}
        self._cases: dict[str, PageCase] = {}
        self._places: dict[int, PagePlace] = {}

    def status(self) -> PagersStatus:
        """Return what is told to whom.

        Raises:
            LogUnavailableError: the log can't be read.
        """
        with self._lock:
            self._catch_up()
            cases, places = list(self._cases.values()), list(self._places.values())
        found = [status for case in cases for status in _statuses(case)]
        found.sort(
            key=lambda one: (one.level is Level.NONE, not any(r.undelivered for r in one.routes), -one.changed_ms)
        )
        mutes = {mute.order_id: mute for place in places for mute in place.mutes}
        now_ms = self._clock.now_ms()
        return PagersStatus(
            incidents=found[:INCIDENTS_MAX], mutes=[mute for mute in mutes.values() if now_ms < mute.until_ms]
        )

    def order(
        self, action: OrderAction, name: str, *, rollout: str = "", vendor: str = "", reason: str = "",
        until_ms: int = 0, kills: bool = False,
    ) -> str:  # fmt: skip
        """Append an order, to every partition where it is about a vendor, and return its id.

        Raises:
            LogUnavailableError: the log did not take it.
        """
        order = PageOrder(
            order_id=secrets.token_hex(16), action=action, name=name, reason=reason, at_ms=self._clock.now_ms(),
            rollout=rollout, vendor=vendor, until_ms=until_ms, kills=kills,
        )  # fmt: skip
        count = self._topics.keyed_partitions
        partitions = [keyed_partition_of(rollout, count)] if rollout else range(count)
        topic, value = self._topics.name("pageorders"), encoder.encode(order)
        self._log.append([Entry(topic, number, (rollout or vendor).encode(), value) for number in partitions])
        return order.order_id

    def result(self, order_id: str) -> str | None:
        """Return what became of an order; None while the pagers have not seen it, or after they forgot it.

        Raises:
            LogUnavailableError: the log can't be read.
        """
        with self._lock:
            self._catch_up()
            places = list(self._places.values())
        found = [result for place in places for known, result in place.orders if known == order_id]
        # A vendor's mute is asked of every partition, and they say the same.
        return found[0] if found else None

    def knows(self, rollout: str) -> bool:
        """Tell whether anybody was ever told of a rollout.

        Raises:
            LogUnavailableError: the log can't be read.
        """
        with self._lock:
            self._catch_up()
            return rollout in self._cases

    def _catch_up(self) -> None:
        for number in range(self._topics.keyed_partitions):
            source = TopicPartition(self._topics.name("pages"), number)
            offset = self._next.get(number)
            offset = self._log.bounds(source)[0] if offset is None else offset
            try:
                offset = self._read(source, offset)
            except OffsetGoneError:
                offset = self._read(source, self._log.bounds(source)[0])
            self._next[number] = offset

    def _read(self, source: TopicPartition, offset: int) -> int:
        while records := self._log.read(source, offset):
            for record in records:
                if record.key is not None:
                    self._take(record.key, record.value, source.partition)
            offset = records[-1].offset + 1
        return offset

    def _take(self, key: bytes, value: bytes | None, partition: int) -> None:
        try:
            if key.startswith(PLACE_PREFIX):
                if value is not None:
                    self._places[partition] = place_decoder.decode(value)
                return
            self._cases.pop(key.decode(), None)
            if value is not None:
                case = case_decoder.decode(value)
                self._cases[case.rollout] = case
        except UNREADABLE_ERRORS:
            return
        while len(self._cases) > CASES_MAX * self._topics.keyed_partitions:
            self._cases.pop(next(iter(self._cases)))


def _statuses(case: PageCase) -> list[IncidentStatus]:
    return [
        IncidentStatus(
            rollout=case.rollout,
            owner=one.owner,
            role=one.role,
            level=one.level,
            headline=headline(one.page, Step.RESOLVE if one.level is Level.NONE else Step.UPDATE),
            acknowledged=one.acknowledged,
            changed_ms=max((delivery.told_ms for delivery in one.deliveries), default=0),
            routes=[
                RouteStatus(
                    route=delivery.route,
                    open=delivery.asked,
                    waiting=len(delivery.tasks),
                    undelivered=len(delivery.failed),
                    why=delivery.why,
                    instead_of=delivery.instead_of,
                )
                for delivery in one.deliveries
            ],
        )
        for one in case.incidents
        if one.page is not None
    ]
