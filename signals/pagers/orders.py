"""What people ask of the pagers: mutes, and a word on a rollout's incidents. The desk keeps what must be kept.

A part of the outbox's state, written in its place record. Invariants: an order is obeyed once, however often it comes;
mutes are bounded in number and in time; and what became of an order is a closed word.
"""

from collections import OrderedDict
from typing import Final

from msgspec.structs import replace

from signals.pagers import incident as incidents
from signals.pagers.case import Rules, terms_of
from signals.pagers.records import Mute, PageCase, PageOrder, PagePlace
from signals.pagers.words import ChannelKind, Level, OrderAction

ORDERS_REMEMBERED: Final = 256
MUTES_MAX: Final = 256
MUTE_MS_MAX: Final = 7 * 86_400_000
_ACKNOWLEDGED: Final = frozenset({ChannelKind.PAGERDUTY, ChannelKind.JSM, ChannelKind.WEBHOOK})

RESULT_DOCS: Final[dict[str, str]] = {
    "applied": "It was done.",
    "unknown_rollout": "No incident of that rollout is known.",
    "nothing_to_do": "Nothing changed: nothing was open, muted or given up.",
    "too_many_mutes": "As many mutes stand as may.",
    "too_long": "A mute lasts a week at most, and ends in the future.",
}


class Desk:
    """Mutes and the last orders of one partition."""

    def __init__(self) -> None:
        self.mutes: list[Mute] = []
        self._handled: OrderedDict[str, str] = OrderedDict()

    @property
    def handled(self) -> list[tuple[str, str]]:
        """The last orders with what became of each, oldest first."""
        return list(self._handled.items())

    def restore(self, place: PagePlace) -> None:
        """Load what a place record holds."""
        self.mutes = list(place.mutes)
        self._handled = OrderedDict(place.orders)

    def expire(self, now_ms: int) -> bool:
        """Drop mutes that have ended, and tell whether any had."""
        standing = [mute for mute in self.mutes if now_ms < mute.until_ms]
        ended = len(standing) != len(self.mutes)
        self.mutes = standing
        return ended

    def take(self, order: PageOrder, case: PageCase | None, rules: Rules, now_ms: int) -> PageCase | None:
        """Obey an order once; returns the case as it is then."""
        if order.order_id in self._handled:
            return case
        after, result = self._obey(order, case, rules, now_ms)
        self._handled[order.order_id] = result
        while len(self._handled) > ORDERS_REMEMBERED:
            self._handled.popitem(last=False)
        return after

    def _obey(self, order: PageOrder, case: PageCase | None, rules: Rules, now_ms: int) -> tuple[PageCase | None, str]:
        if order.action is OrderAction.MUTE:
            return case, self._mute(order, now_ms)
        if order.action is OrderAction.UNMUTE:
            standing = [one for one in self.mutes if (one.rollout, one.vendor) != (order.rollout, order.vendor)]
            result = "nothing_to_do" if len(standing) == len(self.mutes) else "applied"
            self.mutes = standing
            return case, result
        if case is None:
            return case, "unknown_rollout"
        after = _about(order, case, rules, now_ms)
        return after, "nothing_to_do" if after == case else "applied"

    def _mute(self, order: PageOrder, now_ms: int) -> str:
        if not now_ms < order.until_ms <= now_ms + MUTE_MS_MAX:
            return "too_long"
        if len(self.mutes) >= MUTES_MAX:
            return "too_many_mutes"
        self.mutes = [*self.mutes, Mute(
            order_id=order.order_id, rollout=order.rollout, vendor=order.vendor, until_ms=order.until_ms,
            kills=order.kills, name=order.name, reason=order.reason,
        )]  # fmt: skip
        return "applied"


def _about(order: PageOrder, case: PageCase, rules: Rules, now_ms: int) -> PageCase:
    if order.action is OrderAction.REDELIVER:
        return replace(case, incidents=[incidents.redeliver(one, now_ms) for one in case.incidents])
    if order.action is OrderAction.ACKNOWLEDGE:
        routes = rules.registry.routes
        return replace(case, incidents=[
            incidents.acknowledge(one, now_ms, lambda name: name in routes and routes[name].channel in _ACKNOWLEDGED)
            for one in case.incidents
        ])  # fmt: skip
    ended = [
        one
        if one.page is None
        else incidents.tell(
            one,
            Level.NONE,
            replace(one.page, level=Level.NONE, resolved_by="person"),
            now_ms,
            terms_of(rules, case, one.owner, now_ms),
            at_once=True,
        )
        for one in case.incidents
    ]
    return replace(case, incidents=ended, closed=case.number)
