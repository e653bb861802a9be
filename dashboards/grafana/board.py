"""What every board has alike: folder, tags, variables, annotations, links to the others and to the runbooks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.models import dashboard

from dashboards.grafana.panels import CLICKHOUSE, Panel
from dashboards.grafana.queries import query

TAG = "cordon"
RUNBOOKS = "https://github.com/cordon-project/cordon/tree/main/deploy/runbooks"
# Variables by name: label, whether several may be chosen.
VARIABLES: dict[str, tuple[str, bool]] = {
    "product": ("Product", True),
    "version": ("Version", True),
    "ring": ("Ring", True),
    "os_build": ("OS build", True),
    "tenant": ("Tenant", True),
    "rollout": ("Rollout", False),
}
ANNOTATIONS = {
    "rings": ("Rings", "#0072B2"),
    "decisions": ("Decisions", "#D55E00"),
    "rollout_rings": ("Rings", "#0072B2"),
    "rollout_decisions": ("Decisions", "#D55E00"),
}


@dataclass(frozen=True, slots=True)
class Row:
    """A titled row of panels, from left to right."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True, slots=True)
class Board:
    """One board.

    Attributes:
        uid: fixed for ever: links from pages and runbooks go by it.
        title: as it stands in the list.
        about: what question it answers, for whom.
        variables: names of `VARIABLES`, those that others depend on first.
        annotations: names of `ANNOTATIONS`.
        rows: what is shown.
        span: how far back it looks when it is opened.
    """

    uid: str
    title: str
    about: str
    variables: Sequence[str]
    annotations: Sequence[str]
    rows: Sequence[Row]
    span: str = "now-6h"

    def build(self) -> dashboard.Dashboard:
        """Return the board as Grafana keeps it."""
        made = build.Dashboard(self.title).uid(self.uid).description(self.about).tags([TAG]).timezone("utc")
        made.time(self.span, "now").refresh("30s").tooltip(dashboard.DashboardCursorSync.CROSSHAIR).readonly()
        for name in self.variables:
            made.with_variable(_variable(name))
        for name in self.annotations:
            made.annotation(_annotation(name))
        others = build.DashboardLink("Cordon").type(dashboard.DashboardLinkType.DASHBOARDS).tags([TAG])
        made.link(others.as_dropdown(True).include_vars(True).keep_time(True))
        made.link(
            build.DashboardLink("Runbooks").type(dashboard.DashboardLinkType.LINK).url(RUNBOOKS).target_blank(True)
        )
        for row in self.rows:
            made.with_row(build.Row(row.title))
            for panel in row.panels:
                made.with_panel(panel)
        return made.build()


def annotation_target(name: str) -> dict[str, Any]:
    """Return what the ClickHouse data source runs for an annotation; the SDK has no word for it."""
    return {
        "editorType": "sql",
        "format": 1,
        "queryType": "table",
        "rawSql": query(f"annotations/{name}").text,
        "refId": "Anno",
    }


def _variable(name: str) -> build.QueryVariable:
    label, several = VARIABLES[name]
    found = query(f"variables/{name}")
    made = build.QueryVariable(name).label(label).description(found.about).query(found.text).datasource(CLICKHOUSE)
    made.refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(dashboard.VariableSort.DISABLED)
    made.multi(several).include_all(several)
    if several:
        made.current(dashboard.VariableOption(selected=True, text=["All"], value=["$__all"]))
    return made


def _annotation(name: str) -> build.AnnotationQuery:
    label, color = ANNOTATIONS[name]
    return build.AnnotationQuery().name(label).datasource(CLICKHOUSE).enable(True).icon_color(color)
