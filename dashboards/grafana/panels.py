"""The words that the boards are written in: panels with Cordon's units, colours and empty states.

A thin layer on Grafana's foundation SDK, so that a board's file says what is shown and nothing of how Grafana spells
it. Colours are Okabe and Ito's, which people with any colour vision tell apart; none carries a meaning alone, since
every series has its name beside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from grafana_foundation_sdk.builders import common as build_common
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders import prometheus as build_prometheus
from grafana_foundation_sdk.builders import stat as build_stat
from grafana_foundation_sdk.builders import statetimeline as build_states
from grafana_foundation_sdk.builders import table as build_table
from grafana_foundation_sdk.builders import text as build_text
from grafana_foundation_sdk.builders import timeseries as build_series
from grafana_foundation_sdk.cog import builder as cog_builder
from grafana_foundation_sdk.cog import variants
from grafana_foundation_sdk.models import common, dashboard
from grafana_foundation_sdk.models import text as text_models

from dashboards.grafana.provision.resources import CLICKHOUSE_TYPE, CLICKHOUSE_UID, PROMETHEUS_UID
from dashboards.grafana.queries import Language, Query, query

CLICKHOUSE = dashboard.DataSourceRef(type_val=CLICKHOUSE_TYPE, uid=CLICKHOUSE_UID)
PROMETHEUS = dashboard.DataSourceRef(type_val="prometheus", uid=PROMETHEUS_UID)

# Okabe and Ito (2008), "Color Universal Design".
BLUE, ORANGE, GREEN, RED, SKY, YELLOW, PURPLE, GREY = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#56B4E9",
    "#F0E442",
    "#CC79A7",
    "#8C8C8C",
)
STATE_COLORS = {
    "observing": GREEN, "watching": SKY, "held": ORANGE, "killed": RED, "released": BLUE, "muted": GREY,
    "healthy": GREEN, "regressed": RED, "no_data": GREY, "error": PURPLE,
    "proceed": GREEN, "unknown": GREY, "hold": ORANGE, "kill": RED,
}  # fmt: skip
NO_ROWS = "nothing in this time"

Panel = cog_builder.Builder[dashboard.Panel]


class SqlTarget(variants.Dataquery):
    """A query for the ClickHouse data source, which the SDK does not know."""

    def __init__(self, asked: Query, *, table: bool, ref: str) -> None:
        """Take the query; `table` for rows as they are, else a time series."""
        self._asked, self._table, self._ref = asked, table, ref

    def to_json(self) -> dict[str, object]:
        """Return the target as the data source's version 4 keeps it."""
        return {
            "datasource": CLICKHOUSE,
            "editorType": "sql",
            "format": 1 if self._table else 0,
            "queryType": "table" if self._table else "timeseries",
            "rawSql": self._asked.text,
            "refId": self._ref,
        }


class _SqlQuery(cog_builder.Builder[variants.Dataquery]):
    def __init__(self, asked: Query, *, table: bool, ref: str) -> None:
        self._target = SqlTarget(asked, table=table, ref=ref)

    def build(self) -> variants.Dataquery:
        return self._target


@dataclass(frozen=True, slots=True)
class Asked:
    """A panel's query.

    Attributes:
        name: of the query file.
        legend: how Prometheus' series are named, such as `{{stage}}`.
    """

    name: str
    legend: str = ""


def _targets(panel: Any, asked: Sequence[Asked], *, table: bool, instant: bool = False) -> Any:
    for number, one in enumerate(asked):
        found, ref = query(one.name), chr(ord("A") + number)
        if found.language is Language.SQL:
            panel.datasource(CLICKHOUSE).with_target(_SqlQuery(found, table=table, ref=ref))
        else:
            target = build_prometheus.Dataquery().expr(found.text).legend_format(one.legend).ref_id(ref)
            panel.datasource(PROMETHEUS).with_target(target.instant() if instant else target.range())
    return panel


def _described(panel: Any, title: str, asked: Sequence[Asked], about: str) -> Any:
    description = " ".join(filter(None, [" ".join(query(one.name).about for one in asked), about]))
    return panel.title(title).description(description).no_value(NO_ROWS)


def _colors(by_name: dict[str, str]) -> list[tuple[str, list[dashboard.DynamicConfigValue]]]:
    return [
        (name, [dashboard.DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": color})])
        for name, color in by_name.items()
    ]


def series(
    title: str,
    *asked: Asked,
    unit: str = "short",
    about: str = "",
    colors: dict[str, str] | None = None,
    log: bool = False,
    bars: bool = False,
    dashed: Sequence[str] = (),
    band: tuple[str, str] | None = None,
    width: int = 12,
    height: int = 8,
) -> Panel:
    """Return a plot over time.

    Args:
        title: of the panel.
        asked: its queries.
        unit: Grafana's id of the unit.
        about: what else to know, behind what the queries say of themselves.
        colors: of series that always mean the same.
        log: a logarithmic axis.
        bars: stacked bars instead of lines.
        dashed: series that are bounds or what is normal, drawn dashed.
        band: lower and upper series whose space between is filled.
        width: of 24.
        height: in Grafana's rows.
    """
    panel = build_series.Panel().unit(unit).span(width).height(height).min(0)
    panel = _described(_targets(panel, asked, table=False), title, asked, about)
    panel.legend(
        build_common.VizLegendOptions()
        .show_legend(True)
        .placement(common.LegendPlacement.BOTTOM)
        .display_mode(common.LegendDisplayMode.LIST)
    )
    panel.tooltip(build_common.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI))
    panel.color_scheme(build.FieldColor().mode(dashboard.FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
    panel.line_width(2).fill_opacity(60 if bars else 8).show_points(common.VisibilityMode.AUTO).span_nulls(300_000)
    if bars:
        panel.draw_style(common.GraphDrawStyle.BARS)
        panel.stacking(build_common.StackingConfig().mode(common.StackingMode.NORMAL))
    if log:
        scale = build_common.ScaleDistributionConfig().type(common.ScaleDistribution.LOG).log(10)
        panel.scale_distribution(scale)
    for name, values in _colors(colors or {}):
        panel.override_by_name(name, values)
    for name in dashed:
        style = {"fill": "dash", "dash": [8, 6]}
        panel.override_by_name(name, [
            dashboard.DynamicConfigValue(id_val="custom.lineStyle", value=style),
            dashboard.DynamicConfigValue(id_val="custom.fillOpacity", value=0),
        ])  # fmt: skip
    if band is not None:
        panel.override_by_name(band[1], [dashboard.DynamicConfigValue(id_val="custom.fillBelowTo", value=band[0])])
    return panel  # type: ignore[no-any-return]


def number(
    title: str,
    asked: Asked,
    *,
    unit: str = "short",
    about: str = "",
    steps: Sequence[tuple[float, str]] = (),
    field: str = "",
    width: int = 4,
    height: int = 4,
) -> Panel:
    """Return one number, coloured from each of `steps` (value, colour) on; `field` names the column to show."""
    panel = build_stat.Panel().unit(unit).span(width).height(height)
    panel = _described(_targets(panel, [asked], table=True, instant=True), title, [asked], about)
    fields = f"/^{field}$/" if field else ""
    panel.reduce_options(build_common.ReduceDataOptions().calcs(["lastNotNull"]).fields(fields).values(False))
    panel.graph_mode(common.BigValueGraphMode.NONE).color_mode(common.BigValueColorMode.VALUE)
    thresholds = [dashboard.Threshold(value=None, color=BLUE)]
    thresholds += [dashboard.Threshold(value=value, color=color) for value, color in steps]
    panel.thresholds(build.ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE).steps(thresholds))
    panel.color_scheme(build.FieldColor().mode(dashboard.FieldColorModeId.THRESHOLDS))
    return panel  # type: ignore[no-any-return]


def word(title: str, asked: Asked, *, field: str, about: str = "", width: int = 4, height: int = 4) -> Panel:
    """Return one word of a closed set, in the colour that it has everywhere."""
    panel = build_stat.Panel().span(width).height(height)
    panel = _described(_targets(panel, [asked], table=True), title, [asked], about)
    panel.reduce_options(build_common.ReduceDataOptions().calcs(["lastNotNull"]).fields(f"/^{field}$/").values(False))
    panel.graph_mode(common.BigValueGraphMode.NONE).color_mode(common.BigValueColorMode.BACKGROUND_SOLID)
    panel.mappings([_state_mapping()])
    return panel  # type: ignore[no-any-return]


def states(title: str, *asked: Asked, about: str = "", width: int = 24, height: int = 6) -> Panel:
    """Return states over time, in the colours that they have everywhere."""
    panel = build_states.Panel().span(width).height(height)
    panel = _described(_targets(panel, asked, table=True), title, asked, about)
    panel.mappings([_state_mapping()]).merge_values(True).show_value(common.VisibilityMode.AUTO)
    panel.legend(
        build_common.VizLegendOptions()
        .show_legend(False)
        .placement(common.LegendPlacement.BOTTOM)
        .display_mode(common.LegendDisplayMode.LIST)
    )
    return panel  # type: ignore[no-any-return]


def table(
    title: str,
    asked: Asked,
    *,
    about: str = "",
    units: dict[str, str] | None = None,
    links: dict[str, str] | None = None,
    widths: dict[str, int] | None = None,
    heat: Sequence[str] = (),
    width: int = 24,
    height: int = 9,
) -> Panel:
    """Return rows.

    Args:
        title: of the panel.
        asked: its query.
        about: what else to know.
        units: Grafana's unit by column.
        links: where a column's values lead, a URL by column.
        widths: of columns, in pixels.
        heat: columns whose cells are filled by their value.
        width: of 24.
        height: in Grafana's rows.
    """
    panel = build_table.Panel().span(width).height(height).filterable(True)
    panel = _described(_targets(panel, [asked], table=True), title, [asked], about)
    panel.override_by_regexp("^(decision|state|verdict)$", [
        dashboard.DynamicConfigValue(id_val="mappings", value=[_state_mapping()]),
        dashboard.DynamicConfigValue(id_val="custom.cellOptions", value={"type": "color-text"}),
    ])  # fmt: skip
    for name, unit in (units or {}).items():
        panel.override_by_name(name, [dashboard.DynamicConfigValue(id_val="unit", value=unit)])
    for name, pixels in (widths or {}).items():
        panel.override_by_name(name, [dashboard.DynamicConfigValue(id_val="custom.width", value=pixels)])
    for name, url in (links or {}).items():
        link = [{"title": "open", "url": url, "targetBlank": False}]
        panel.override_by_name(name, [dashboard.DynamicConfigValue(id_val="links", value=link)])
    for name in heat:
        panel.override_by_name(name, [
            dashboard.DynamicConfigValue(
                id_val="custom.cellOptions", value={"type": "color-background", "mode": "gradient"}
            ),
            dashboard.DynamicConfigValue(id_val="color", value={"mode": "continuous-blues"}),
        ])  # fmt: skip
    return panel  # type: ignore[no-any-return]


def words(title: str, text: str, *, width: int = 24, height: int = 3) -> Panel:
    """Return a text in Markdown."""
    panel = build_text.Panel().title(title).mode(text_models.TextMode.MARKDOWN).content(text)
    return panel.span(width).height(height).transparent(True)


def _state_mapping() -> dashboard.ValueMap:
    options = {
        word: dashboard.ValueMappingResult(text=word, color=color, index=number)
        for number, (word, color) in enumerate(STATE_COLORS.items())
    }
    return dashboard.ValueMap(options=options)
