"""What has to change in a Grafana: the resources wanted, compared with those that are there.

Pure but for the Grafana it is given. Invariant: a field that Cordon does not set is Grafana's or a person's, and is no
difference; so a Grafana that was brought up to date has none.
"""

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from dashboards.grafana.provision.resources import Kind, Resource


class Grafana(Protocol):
    """A Grafana, as far as provisioning goes."""

    def check(self) -> str:
        """Return its version.

        Raises:
            GrafanaError: it is not there, refuses the token, or is too old.
        """
        ...

    def find(self, kind: Kind, uid: str) -> Mapping[str, Any] | None:
        """Return what it holds under that uid, in the form that `put` takes; None if nothing.

        Raises:
            GrafanaError: it can't be asked.
        """
        ...

    def put(self, resource: Resource, *, exists: bool) -> None:
        """Create or replace the resource.

        Raises:
            GrafanaError: it is refused.
        """
        ...


class GrafanaError(Exception):
    """Grafana could not be asked or told; the message says what to do."""


class MemoryGrafana:
    """A Grafana in memory: the twin that the tests of planning use."""

    def __init__(self, version: str = "11.6.0") -> None:
        """Begin empty."""
        self._version = version
        self.held: dict[tuple[Kind, str], dict[str, Any]] = {}

    def check(self) -> str:
        """Return the version."""
        return self._version

    def find(self, kind: Kind, uid: str) -> Mapping[str, Any] | None:
        """Return what is held."""
        return self.held.get((kind, uid))

    def put(self, resource: Resource, *, exists: bool) -> None:
        """Hold it, with fields of its own beside, as a Grafana has them."""
        key = (resource.kind, resource.uid)
        if exists != (key in self.held):
            raise GrafanaError(f"{resource.kind} {resource.uid}: {'not there' if exists else 'there already'}")
        version = self.held.get(key, {}).get("version", 0)
        own = {"id": len(self.held) + 1, "version": version + 1}
        self.held[key] = {**json.loads(json.dumps(dict(resource.body))), **own}


class Action(StrEnum):
    """What has to be done with a resource."""

    CREATE = "create"
    UPDATE = "update"
    NOTHING = "unchanged"


@dataclass(frozen=True, slots=True)
class Change:
    """What has to be done with one resource.

    Attributes:
        lines: the difference as `diff -u` shows it; empty where there is none.
    """

    resource: Resource
    action: Action
    lines: Sequence[str]


def plan(wanted: Sequence[Resource], grafana: Grafana) -> list[Change]:
    """Return what has to change, in the order of `wanted`.

    Raises:
        GrafanaError: Grafana can't be asked.
    """
    return [_change(resource, grafana.find(resource.kind, resource.uid)) for resource in wanted]


def apply(changes: Sequence[Change], grafana: Grafana) -> None:
    """Make the changes.

    Raises:
        GrafanaError: one is refused; those before it are made, and doing all of it again is harmless.
    """
    for change in changes:
        if change.action is not Action.NOTHING:
            grafana.put(change.resource, exists=change.action is Action.UPDATE)


def _change(resource: Resource, found: Mapping[str, Any] | None) -> Change:
    if found is None:
        return Change(resource, Action.CREATE, _lines({}, resource.body, resource.uid))
    seen = _part(found, resource.body)
    lines = _lines(seen, resource.body, resource.uid)
    return Change(resource, Action.UPDATE if lines else Action.NOTHING, lines)


def _part(found: Any, asked: Any) -> Any:
    """Return of `found` what `asked` speaks of: Grafana adds ids, versions and defaults of its own."""
    if isinstance(asked, Mapping) and isinstance(found, Mapping):
        return {name: _part(found[name], asked[name]) for name in asked if name in found}
    if isinstance(asked, list) and isinstance(found, list):
        pairs = [_part(one, other) for one, other in zip(found, asked, strict=False)]
        return pairs + found[len(asked) :]
    return found


def _lines(before: Any, after: Any, name: str) -> list[str]:
    texts = [json.dumps(one, indent=1, sort_keys=True, ensure_ascii=False).splitlines() for one in (before, after)]
    return list(difflib.unified_diff(texts[0], texts[1], f"grafana/{name}", f"cordon/{name}", lineterm="", n=1))
