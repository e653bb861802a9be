"""A vendor's incidents as a feed: JSON Feed 1.1 and Atom, an item a rollout that is or was stopped. Pure.

Invariant: an item is made of names of updates, closed words, times and steps of a ladder, as `rollouts` tells them;
never of a sentence or a reason that somebody wrote. Items of other vendors are those that share both ways.
"""

import datetime as dt
import re
from typing import Final
from xml.etree import ElementTree as ET

import msgspec

from signals.delivery.joined import Facts
from signals.delivery.views import Views
from signals.events import SwitchState
from signals.vendors.anonymity import Terms
from signals.vendors.owning import Owning
from signals.vendors.rollouts import is_told, rollout_of, state_of
from signals.vendors.words import VendorRollout

ITEMS_MAX: Final = 200
_LOOKED_AT_MAX: Final = 50_000
JSON_FEED: Final = "https://jsonfeed.org/version/1.1"
_ATOM: Final = "http://www.w3.org/2005/Atom"
_STOPS: Final = (SwitchState.HELD, SwitchState.KILLED)
_TOLD: Final = {"held": "HELD", "killed": "KILLED"}
_UNPRINTABLE: Final = re.compile(r"[^\x20-\x7e]")


class FeedItem(msgspec.Struct, kw_only=True):
    """One incident, in JSON Feed's words.

    Attributes:
        id: the rollout's; it stays the same while the incident changes.
        date_modified: of the switch's last move, RFC 3339.
        tags: the vendor by the registry's name, and where the switch stands.
        cordon: the same in fields.
    """

    id: str
    title: str
    content_text: str
    date_modified: str
    tags: list[str]
    cordon: VendorRollout = msgspec.field(name="_cordon")


class IncidentFeed(msgspec.Struct, kw_only=True):
    """A JSON Feed, version 1.1.

    Attributes:
        version: JSON Feed's address.
        items: at most 200, the one that moved last first.
    """

    version: str = JSON_FEED
    title: str
    description: str
    items: list[FeedItem]


def incidents(views: Views, owning: Owning, terms: Terms, now_ms: int) -> IncidentFeed:
    """Return the incidents of the vendors and of those that share with them, the one that moved last first."""
    peers = owning.of_peers()
    found: list[tuple[int, Owning, Facts]] = []
    for name in views.known(_LOOKED_AT_MAX):
        facts = views.facts(name)
        if facts is None or not _stopped(facts):
            continue
        for whose in (owning, peers):
            if is_told(facts, whose, terms):
                assert facts.switch is not None
                found.append((facts.switch.decided_ms, whose, facts))
                break
    found.sort(key=lambda one: (-one[0], one[2].rollout))
    called = ", ".join(sorted(owning.vendors))
    return IncidentFeed(
        title=f"Cordon: incidents of {called}",
        description="Rollouts that were held or killed, of this vendor and of those that share with it both ways.",
        items=[
            _item(facts, whose, rollout_of(facts, owning, terms, now_ms), moved_ms)
            for moved_ms, whose, facts in found[:ITEMS_MAX]
        ],
    )


def atom(feed: IncidentFeed, address: str) -> bytes:
    """Return the same feed in Atom, RFC 4287.

    Args:
        feed: its items.
        address: where it is served, which is its id.
    """
    ET.register_namespace("", _ATOM)
    root = ET.Element(f"{{{_ATOM}}}feed")
    _text(root, "id", address)
    _text(root, "title", feed.title)
    _text(root, "updated", feed.items[0].date_modified if feed.items else _time(0))
    ET.SubElement(root, f"{{{_ATOM}}}link", {"rel": "self", "href": address})
    _text(ET.SubElement(root, f"{{{_ATOM}}}author"), "name", "Cordon")
    for item in feed.items:
        entry = ET.SubElement(root, f"{{{_ATOM}}}entry")
        _text(entry, "id", f"urn:cordon:rollout:{item.id}")
        _text(entry, "title", item.title)
        _text(entry, "updated", item.date_modified)
        for tag in item.tags:
            ET.SubElement(entry, f"{{{_ATOM}}}category", {"term": tag})
        _text(entry, "content", item.content_text)
    text: bytes = ET.tostring(root, "utf-8", xml_declaration=True)
    return text


def _text(parent: ET.Element, name: str, text: str) -> None:
    ET.SubElement(parent, f"{{{_ATOM}}}{name}").text = text


def _stopped(facts: Facts) -> bool:
    switch = facts.switch
    if switch is None or not (switch.scope.whole or switch.whole in _STOPS):
        return False
    return switch.state in (*_STOPS, SwitchState.RELEASED) or switch.previous_state in _STOPS or switch.whole in _STOPS


def _item(facts: Facts, whose: Owning, told: VendorRollout, moved_ms: int) -> FeedItem:
    state = state_of(facts.switch)
    owner = whose.owner(told.vendor, told.product)
    update = _clean(f"{told.product} {told.version}")
    return FeedItem(
        id=_clean(told.rollout),
        title=f"{_TOLD.get(state, 'OVER')}: {update}",
        content_text=_content(told, update),
        date_modified=_time(moved_ms),
        tags=[_clean(owner), state or "observing"],
        cordon=told,
    )


def _content(told: VendorRollout, update: str) -> str:
    lines = [f"{update} of {_clean(told.vendor)} is {told.state or 'observed'}; the verdict is {told.verdict or 'none'}"
             f"{f' ({told.reason})' if told.reason else ''}."]  # fmt: skip
    if told.rings:
        lines.append(f"Rings started: {', '.join(map(_clean, told.rings))}.")
    evidence = told.evidence
    if evidence is not None:
        ratio = f", {evidence.rate_ratio:g} times the rate of others" if evidence.rate_ratio is not None else ""
        lines.append(f"At least {evidence.crashed_at_least:,} devices crashed{ratio}.")
        lines += [
            f"{_clean(one.signature)} most often at {', '.join(map(_clean, one.frames))}, "
            f"on at least {one.crashed_at_least:,} devices."
            for one in evidence.stacks
        ]
    recovery = told.recovery
    if recovery is not None:
        named = (
            ("silent", recovery.silent_at_least),
            ("still crashing", recovery.looping_at_least),
            ("recovered", recovery.recovered_at_least),
        )
        said = [f"at least {count:,} {name}" for name, count in named if count is not None]
        lines += [f"Devices coming back: {', '.join(said)}."] if said else []
    return "\n".join(lines)


def _time(at_ms: int) -> str:
    return dt.datetime.fromtimestamp(at_ms / 1000, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _clean(text: str) -> str:
    return _UNPRINTABLE.sub("?", text)[:200]
