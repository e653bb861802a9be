"""The registry: whose module, whose product, which routes. A validated TOML file and pure questions to it.

Stands in front of the outbox, which asks who is told of a rollout, and of `cordon routes test`, which explains it.
Invariants: every name that a file mentions exists in it, or it is refused as a whole with what to write instead; a
question always has an answer, since what nobody claims goes to the default routes; and of several rules that fit, the
winner follows from the words below and never from chance.

Who owns a module: of the rules whose pattern fits (upper and lower case are alike, `*` and `?` are wildcards, aliases
are patterns too) and that name no other signer, the winner is the one that names the signer, then the one without
wildcards, then the one with more characters that are no wildcards, then the first in the file. A rule that names a
signer also fits while the signer is not known.
"""

import datetime as dt
import fnmatch
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from ingest.topics import LIVE_LANE
from signals.pagers.words import CHATS, ChannelKind, Level

DEFAULT_OWNER: Final = "default"
ROUTES_MAX: Final = 256
FALLBACKS_MAX: Final = 4
FILE_BYTES_MAX: Final = 4 << 20
_Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,47}$")]
_Text = Annotated[str, Meta(min_length=1, max_length=256)]


class RegistryError(ValueError):
    """The registry can't be used; the message says what to change."""


class Route(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One way to reach somebody.

    Attributes:
        channel: what is spoken.
        least: from which level on it is told; `high`, for chats `chat`.
        url: of Alertmanager or a webhook, or another address than the vendor's usual one (PagerDuty's and Atlassian's
            regions).
        secret_file: the routing key (PagerDuty), API key (JSM), bearer token (Alertmanager), signing secret (webhook),
            or apprise URL (chats and mail); relative to the registry's folder.
        fallback: who is told when this route fails; where nobody is named, the default routes (for chats nobody).
        escalate_seconds: after so long without delivery the fallback is told.
        updates: news under the same key are sent; chats get a line only when the switch moves.
        changes: the start of each ring is told (PagerDuty's change events).
        drills: drills are told too.
        per_minute: at most so many sends a minute; what the vendor documents if not given.
        labels: more labels, for Alertmanager's routing.
        responders: teams by id, for JSM.
    """

    channel: ChannelKind
    least: Level | None = None
    url: str = ""
    secret_file: str = ""
    fallback: str = ""
    escalate_seconds: Annotated[int, Meta(ge=5, le=86_400)] = 60
    updates: bool = True
    changes: bool = False
    drills: bool = False
    per_minute: Annotated[int, Meta(ge=0, le=10_000)] = 0
    labels: dict[Annotated[str, Meta(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*$")], _Text] = {}
    responders: Annotated[list[_Text], Meta(max_length=50)] = []

    @property
    def threshold(self) -> Level:
        """From which level on it is told."""
        return self.least or (Level.CHAT if self.channel in CHATS else Level.HIGH)


class Vendor(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Who makes updates.

    Attributes:
        names: how rollouts and signers call it beside its own name.
        watching: what it hears while the switch is only watching: `none` or `chat`.
        co_victim: how loud it is told that another's rollout crashes devices in its module; `none`, `chat`, or `same`.
        shares: vendors that may see its incidents; one does where both name each other.
    """

    routes: Annotated[list[_Name], Meta(min_length=1, max_length=16)]
    names: Annotated[list[_Text], Meta(max_length=64)] = []
    watching: Annotated[str, Meta(pattern="^(none|chat)$")] = "none"
    co_victim: Annotated[str, Meta(pattern="^(none|chat|same)$")] = "chat"
    shares: Annotated[list[_Name], Meta(max_length=256)] = []


class ProductRule(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A product whose rollouts go elsewhere than to the vendor named in them, for instance a driver sold by another."""

    product: _Text
    vendor: _Name
    sold_by: Annotated[str, Meta(max_length=256)] = ""


class ModuleRule(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Whose module it is."""

    match: _Text
    vendor: _Name
    aliases: Annotated[list[_Text], Meta(max_length=64)] = []
    signer: Annotated[str, Meta(max_length=256)] = ""


class Window(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True, rename={"starts": "from"}):
    """A maintenance window: nobody is told, a kill apart unless `kills` says that too.

    Attributes:
        vendor: whose incidents; empty for all.
        route: over which route; empty for all.
    """

    starts: dt.datetime
    until: dt.datetime
    reason: _Text
    vendor: Annotated[str, Meta(max_length=48)] = ""
    route: Annotated[str, Meta(max_length=48)] = ""
    kills: bool = False


class DefaultRoutes(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Who is told what nobody claims, and when Cordon can't see."""

    routes: Annotated[list[_Name], Meta(min_length=1, max_length=16)]
    watching: Annotated[str, Meta(pattern="^(none|chat)$")] = "none"


class RegistryFile(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The file as it is written."""

    schema: Annotated[int, Meta(ge=1, le=1)] = 1
    default: DefaultRoutes
    routes: Annotated[dict[_Name, Route], Meta(min_length=1, max_length=ROUTES_MAX)]
    vendors: Annotated[dict[_Name, Vendor], Meta(max_length=10_000)] = {}
    products: Annotated[list[ProductRule], Meta(max_length=10_000)] = []
    modules: Annotated[list[ModuleRule], Meta(max_length=10_000)] = []
    maintenance: Annotated[list[Window], Meta(max_length=1000)] = []
    lanes: Annotated[list[_Text], Meta(min_length=1, max_length=16)] = msgspec.field(
        default_factory=lambda: [LIVE_LANE]
    )


@dataclass(frozen=True, slots=True)
class Owned:
    """Who owns something, and by which rule.

    Attributes:
        owner: the vendor's name in the registry, or `default`.
        why: the rule in words.
    """

    owner: str
    why: str


class Registry:
    """One version of the file, with its questions."""

    def __init__(self, file: RegistryFile) -> None:
        """Take a file that was checked (`parse`)."""
        self._file = file
        self._names = {said.casefold(): name for name, vendor in file.vendors.items() for said in (name, *vendor.names)}

    @property
    def routes(self) -> Mapping[str, Route]:
        """Every route by name."""
        return self._file.routes

    @property
    def vendors(self) -> Mapping[str, Vendor]:
        """Every vendor by name."""
        return self._file.vendors

    @property
    def lanes(self) -> Sequence[str]:
        """The lanes whose kills page."""
        return self._file.lanes

    def owner_of_rollout(self, vendor: str, product: str) -> Owned:
        """Return who is told of a rollout of this vendor's product."""
        fitting = [
            rule
            for rule in self._file.products
            if _fits(rule.product, product) and (not rule.sold_by or rule.sold_by.casefold() == vendor.casefold())
        ]
        if fitting:
            best = max(fitting, key=lambda rule: (bool(rule.sold_by), *_exactness(rule.product)))
            return Owned(best.vendor, f"product rule {best.product!r} gives it to {best.vendor}")
        name = self._names.get(vendor.casefold())
        if name is not None:
            said = "its name" if name == vendor.casefold() else f"its other name {vendor!r}"
            return Owned(name, f"the rollout names vendor {name} by {said}")
        return Owned(DEFAULT_OWNER, f"no product rule fits, and no vendor is called {vendor!r}: the default routes")

    def owner_of_module(self, module: str, signer: str = "") -> Owned:
        """Return whose module it is."""
        fitting: list[tuple[tuple[bool, bool, int], ModuleRule, str]] = []
        for rule in self._file.modules:
            if rule.signer and signer and rule.signer.casefold() != signer.casefold():
                continue
            patterns = [pattern for pattern in (rule.match, *rule.aliases) if _fits(pattern, module)]
            if patterns:
                pattern = max(patterns, key=_exactness)
                fitting.append(((bool(rule.signer and signer), *_exactness(pattern)), rule, pattern))
        if fitting:
            # `max` keeps the first of equals: the first in the file.
            _, rule, pattern = max(fitting, key=lambda one: one[0])
            by = f"alias {pattern!r} of rule {rule.match!r}" if pattern != rule.match else f"rule {pattern!r}"
            named = f" and signer {rule.signer!r}" if rule.signer and signer else ""
            unknown = (
                f"; its signer {rule.signer!r} was not checked, none was given" if rule.signer and not signer else ""
            )
            others = len(fitting) - 1
            beaten = f"; it beats {others} other rule{'s' if others > 1 else ''} that fit" if others else ""
            return Owned(rule.vendor, f"module {by}{named} gives it to {rule.vendor}{unknown}{beaten}")
        name = self._names.get(signer.casefold()) if signer else None
        if name is not None:
            return Owned(name, f"no module rule fits, but signer {signer!r} is vendor {name}")
        return Owned(DEFAULT_OWNER, f"no module rule fits {module!r}: the default routes")

    def routes_of(self, owner: str) -> Sequence[str]:
        """Return the names of an owner's routes; those of `default` for one that is not there (any more)."""
        vendor = self._file.vendors.get(owner)
        return vendor.routes if vendor is not None else self._file.default.routes

    def watching_of(self, owner: str) -> Level:
        """Return how loud an owner is told while the switch watches."""
        vendor = self._file.vendors.get(owner)
        return Level((vendor or self._file.default).watching)

    def co_victim_of(self, owner: str, level: Level) -> Level:
        """Return how loud an owner is told that another's rollout of this level crashes devices in its module."""
        vendor = self._file.vendors.get(owner)
        if vendor is None or vendor.co_victim == "none" or level is Level.NONE:
            return Level.NONE
        return level if vendor.co_victim == "same" else Level.CHAT

    def fallbacks_of(self, route: str) -> Sequence[str]:
        """Return who is told when a route fails: its fallback, or the default routes; never the route itself.

        A chat without a fallback has none: what is said there wakes nobody, and its silence should not either.
        """
        found = self._file.routes.get(route)
        if found is not None and found.fallback:
            return (found.fallback,)
        if found is not None and found.channel in CHATS:
            return ()
        return tuple(name for name in self._file.default.routes if name != route)

    def window(self, owner: str, route: str, level: Level, now_ms: int) -> Window | None:
        """Return the maintenance window that keeps an owner from being told over a route now, or None."""
        now = dt.datetime.fromtimestamp(now_ms / 1000, dt.UTC)
        for window in self._file.maintenance:
            if window.vendor not in ("", owner) or window.route not in ("", route):
                continue
            if (window.kills or level is not Level.CRITICAL) and window.starts <= now < window.until:
                return window
        return None


def parse(text: str) -> Registry:
    """Return the registry that a TOML text holds.

    Raises:
        RegistryError: it is no TOML, has a wrong or unknown field, or names something that is not in it.
    """
    try:
        file = msgspec.convert(tomllib.loads(text), RegistryFile)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, RecursionError) as error:
        raise RegistryError(f"the registry of routes can't be read: {error}") from error
    problems = _problems(file)
    if problems:
        raise RegistryError("the registry of routes: " + "; ".join(problems[:10]))
    return Registry(file)


def load(path: Path) -> Registry:
    """Return the registry in a file.

    Raises:
        RegistryError: it can't be read, or `parse` refuses it.
    """
    try:
        data = path.read_bytes()[: FILE_BYTES_MAX + 1]
        if len(data) > FILE_BYTES_MAX:
            raise RegistryError(f"{path}: a registry has at most {FILE_BYTES_MAX} bytes")
        return parse(data.decode())
    except (OSError, UnicodeDecodeError) as error:
        raise RegistryError(f"the registry of routes {path} can't be read: {error}") from error


def _problems(file: RegistryFile) -> list[str]:
    problems: list[str] = []
    known = f"known are {', '.join(sorted(file.routes)[:10])}"
    for owner, names in [("default", file.default.routes), *((n, v.routes) for n, v in file.vendors.items())]:
        problems += [f"{owner} names route {name!r}, {known}" for name in names if name not in file.routes]
    if DEFAULT_OWNER in file.vendors:
        problems.append("no vendor may be called 'default': write its routes under [default]")
    for name, route in file.routes.items():
        problems += _route_problems(file, name, route)
    problems += [f"product rule {r.product!r} gives to unknown vendor {r.vendor!r}" for r in file.products
                 if r.vendor not in file.vendors]  # fmt: skip
    problems += [f"module rule {r.match!r} gives to unknown vendor {r.vendor!r}" for r in file.modules
                 if r.vendor not in file.vendors]  # fmt: skip
    problems += [f"vendor {name} shares with unknown vendor {other!r}" for name, vendor in file.vendors.items()
                 for other in vendor.shares if other not in file.vendors]  # fmt: skip
    for window in file.maintenance:
        problems += _window_problems(file, window)
    return problems + _claimed_twice(file)


def _route_problems(file: RegistryFile, name: str, route: Route) -> list[str]:
    problems = []
    needs_url = route.channel in (ChannelKind.ALERTMANAGER, ChannelKind.WEBHOOK)
    if needs_url and not route.url:
        problems.append(f"route {name}: {route.channel.value} needs url")
    if route.url and not route.url.startswith(("https://", "http://")):
        problems.append(f"route {name}: url begins with https:// or http://")
    if route.channel is not ChannelKind.ALERTMANAGER and not route.secret_file:
        problems.append(f"route {name}: {route.channel.value} needs secret_file")
    if route.changes and route.channel is not ChannelKind.PAGERDUTY:
        problems.append(f"route {name}: only PagerDuty knows changes")
    if route.threshold is Level.NONE:
        problems.append(f"route {name}: least is chat, high or critical")
    seen, at = {name}, route.fallback
    while at:
        if at not in file.routes:
            problems.append(f"route {name}: its fallback {at!r} is no route")
            break
        if at in seen or len(seen) > FALLBACKS_MAX:
            problems.append(f"route {name}: its fallbacks go in a circle or are more than {FALLBACKS_MAX}")
            break
        seen.add(at)
        at = file.routes[at].fallback
    return problems


def _window_problems(file: RegistryFile, window: Window) -> list[str]:
    problems = []
    if window.starts.tzinfo is None or window.until.tzinfo is None:
        problems.append(f"maintenance {window.reason!r}: write times with their offset, such as 2024-07-19T04:00:00Z")
    elif window.starts >= window.until:
        problems.append(f"maintenance {window.reason!r}: it ends before it begins")
    if window.vendor and window.vendor not in file.vendors:
        problems.append(f"maintenance {window.reason!r}: no vendor {window.vendor!r}")
    if window.route and window.route not in file.routes:
        problems.append(f"maintenance {window.reason!r}: no route {window.route!r}")
    return problems


def _claimed_twice(file: RegistryFile) -> list[str]:
    problems, names = [], dict[str, str]()
    for vendor, found in file.vendors.items():
        called = {vendor.casefold(), *(name.casefold() for name in found.names)}
        problems += [
            f"vendors {names[said]} and {vendor} are both called {said!r}"
            for said in sorted(called)
            if names.setdefault(said, vendor) != vendor
        ]
    modules: dict[tuple[str, str], str] = {}
    for rule in file.modules:
        for pattern in (rule.match, *rule.aliases):
            key = (pattern.casefold(), rule.signer.casefold())
            if modules.setdefault(key, rule.vendor) != rule.vendor:
                problems.append(f"module {pattern!r} is claimed by {modules[key]} and {rule.vendor}")
    return problems


def _fits(pattern: str, name: str) -> bool:
    return fnmatch.fnmatchcase(name.casefold(), pattern.casefold())


def _exactness(pattern: str) -> tuple[bool, int]:
    wild = sum(pattern.count(mark) for mark in "*?[")
    return (wild == 0, len(pattern) - wild)
