"""What a committed board says of its panels: read from the very JSON that Grafana imports.

The first step of a preview. Invariant: nothing about a panel is known here that does not stand in the JSON; a name, a
kind of panel or a rule that is not known is an error that lists what is.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any, Final

KINDS: Final = ("timeseries", "state-timeline", "stat", "table")
_COLOR: Final = re.compile(r"#[0-9A-Fa-f]{6}")
_SPAN: Final = re.compile(r"now-(\d+)([mhd])")
_SPAN_SECONDS: Final = {"m": 60, "h": 3600, "d": 86_400}
Config = Mapping[str, Any]


class PreviewError(Exception):
    """No preview can be made; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel.

    Attributes:
        label: its title; with its kind in brackets where the board has two of that title.
        title: what stands over it.
        kind: Grafana's name of it, such as `timeseries`.
        about: its description.
        sql: its queries, macros and all; none where it asks something else than the store.
        defaults: the field configuration, by dotted name (`unit`, `custom.lineWidth`).
        overrides: rules that change it for some fields, as they stand in the JSON.
        options: of the panel.
        columns: its width, of 24.
        rows: its height, in Grafana's rows.
    """

    label: str
    title: str
    kind: str
    about: str
    sql: Sequence[str]
    defaults: Config
    overrides: Sequence[Config]
    options: Config
    columns: int
    rows: int

    def config(self, name: str) -> dict[str, Any]:
        """Return the configuration of the field of that name: the defaults, and what overrides make of them.

        Raises:
            PreviewError: a rule matches fields by something else than their names.
        """
        found = dict(self.defaults)
        for rule in self.overrides:
            if _matches(rule["matcher"], name):
                found |= {one["id"]: one["value"] for one in rule["properties"]}
        return found

    @property
    def no_value(self) -> str:
        """What is written where there is nothing to show."""
        return str(self.defaults.get("noValue", "No data"))


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable of a board: its name, the query that lists its values, and whether several may be chosen."""

    name: str
    sql: str
    several: bool


@dataclass(frozen=True, slots=True)
class Annotation:
    """Moments that a board marks in every plot over time: what they are called, their colour, their query."""

    name: str
    color: str
    sql: str


@dataclass(frozen=True, slots=True)
class Board:
    """A board.

    Attributes:
        uid: its fixed name.
        title: as it stands in the list.
        span_seconds: how far back it looks when it is opened.
        panels: all but the rows' titles.
        variables: those that others depend on first.
        annotations: what it marks.
    """

    uid: str
    title: str
    span_seconds: int
    panels: Sequence[Panel]
    variables: Sequence[Variable]
    annotations: Sequence[Annotation]

    def panel(self, label: str) -> Panel:
        """Return the panel of that label.

        Raises:
            PreviewError: there is none; or it is of a kind, or asks a source, that no preview is made of.
        """
        found = {panel.label: panel for panel in self.panels}.get(label)
        if found is None:
            names = ", ".join(repr(panel.label) for panel in self.panels)
            raise PreviewError(f"board {self.uid} has no panel {label!r}; its panels: {names}")
        if found.kind not in KINDS:
            raise PreviewError(
                f"panel {label!r} is of the kind {found.kind!r}; previews are made of: {', '.join(KINDS)}"
            )
        if not found.sql:
            raise PreviewError(
                f"panel {label!r} asks Prometheus, and previews ask the store only: choose another, or use a Grafana"
            )
        return found


def _folder() -> Traversable:
    return resources.files("dashboards.grafana") / "json"


def uids() -> list[str]:
    """Return the names of all committed boards."""
    return sorted(file.name.removesuffix(".json") for file in _folder().iterdir())


def committed(uid: str) -> Board:
    """Return the committed board of that name.

    Raises:
        PreviewError: there is none.
    """
    if uid not in uids():
        raise PreviewError(f"there is no board {uid!r}; the boards: {', '.join(uids())}")
    text = (_folder() / f"{uid}.json").read_text(encoding="utf-8")
    return board_of(json.loads(text))


def board_of(made: Config) -> Board:
    """Return what a board's JSON says."""
    panels = [panel for panel in made["panels"] if panel["type"] != "row"]
    titles = Counter(panel["title"] for panel in panels)
    listed = made.get("templating", {}).get("list", [])
    variables = [Variable(one["name"], one["query"], bool(one.get("multi"))) for one in listed]
    annotations = [
        Annotation(one["name"], color(one["iconColor"]), one["target"]["rawSql"])
        for one in made.get("annotations", {}).get("list", [])
    ]
    return Board(
        made["uid"],
        made["title"],
        _seconds(made["time"]["from"]),
        [_panel(panel, titles[panel["title"]] > 1) for panel in panels],
        variables,
        annotations,
    )


def color(text: str) -> str:
    """Return a colour as the boards write it, which is safe to put into a style sheet.

    Raises:
        PreviewError: it is written in another way.
    """
    if not _COLOR.fullmatch(text):
        raise PreviewError(f"colour {text!r} is not known here: write it as #0072B2")
    return text


def _panel(made: Config, shared: bool) -> Panel:
    fields = made.get("fieldConfig", {})
    defaults = {name: value for name, value in fields.get("defaults", {}).items() if name != "custom"}
    custom = fields.get("defaults", {}).get("custom", {})
    title, kind = made["title"], made["type"]
    return Panel(
        label=f"{title} ({kind})" if shared else title,
        title=title,
        kind=kind,
        about=made.get("description", ""),
        sql=[target["rawSql"] for target in made["targets"] if "rawSql" in target],
        defaults=defaults | {f"custom.{name}": value for name, value in custom.items()},
        overrides=fields.get("overrides", []),
        options=made.get("options", {}),
        columns=made["gridPos"]["w"],
        rows=made["gridPos"]["h"],
    )


def _matches(matcher: Config, name: str) -> bool:
    if matcher["id"] == "byName":
        return bool(matcher["options"] == name)
    if matcher["id"] == "byRegexp":
        return re.search(matcher["options"], name) is not None
    raise PreviewError(f"a rule matches fields {matcher['id']!r}; previews know byName and byRegexp")


def _seconds(text: str) -> int:
    found = _SPAN.fullmatch(text)
    if found is None:
        raise PreviewError(f"time range {text!r} is not known here: write it as now-6h")
    return int(found[1]) * _SPAN_SECONDS[found[2]]
