"""The table of panels as Grafana's dashboards, through grafana-foundation-sdk.

A dashboard's and the data source's uid are fixed, so that links and pushes find them again. Every query is of the
ClickHouse plugin; what differs from the local page is only how a parameter is written (sql.py) and, for a heatmap, that
Grafana wants a column for each size.
"""

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from grafana_foundation_sdk.builders import (
    barchart,
    common,
    dashboard,
    heatmap,
    stat,
    statetimeline,
    table,
    timeseries,
    xychart,
)
from grafana_foundation_sdk.cog import builder as cogbuilder
from grafana_foundation_sdk.cog import variants
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as common_model
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models import heatmap as heatmap_model
from grafana_foundation_sdk.models import xychart as xychart_model

from dashboards.grafana import sql
from dashboards.panels import DASHBOARDS, EVENTS, PANELS
from dashboards.types import Dashboard, Link, Panel, Severity, Unit, Variable
from loadtest.metrics import EDGES

PLUGIN = "grafana-clickhouse-datasource"
PLUGIN_VERSION = "4.20.0"
DATASOURCE_UID = "loadtest-clickhouse"
FOLDER_UID = "loadtest"
TIME_SERIES, TABLE = 0, 1
"""`format` of a query: Grafana makes series of rows with a time and texts, or takes the rows as they are."""
UNITS: dict[Unit, str] = {
    "ms": "ms",
    "s": "s",
    "1/s": "reqps",
    "tokens/s": "suffix: tokens/s",
    "share": "percentunit",
    "percent": "percent",
    "count": "short",
    "bytes": "bytes",
    "W": "watt",
    "C": "celsius",
    "Hz": "hertz",
    "J/token": "suffix: J/token",
    "money/Mtok": "suffix: per 1M tokens",
    "hour": "suffix: h",
    "state": "short",
    "": "short",
}
COLORS: dict[Severity, str] = {"ok": "green", "warn": "orange", "bad": "red"}


class Query(variants.Dataquery):
    """A query as the ClickHouse plugin reads it."""

    def __init__(self, raw_sql: str, form: int) -> None:
        self.raw_sql = raw_sql
        self.form = form

    def to_json(self) -> dict[str, object]:
        return {
            "refId": "A",
            "datasource": {"type": PLUGIN, "uid": DATASOURCE_UID},
            "editorType": "sql",
            "rawSql": self.raw_sql,
            "format": self.form,
            "pluginVersion": PLUGIN_VERSION,
        }


class _Built(cogbuilder.Builder[Any]):
    """What is whole already, where the SDK asks for a builder."""

    def __init__(self, built: Any) -> None:
        self.built = built

    def build(self) -> Any:
        return self.built


def source() -> common_model.DataSourceRef:
    return common_model.DataSourceRef(type_val=PLUGIN, uid=DATASOURCE_UID)


def uid(name: str) -> str:
    return f"loadtest-{name}"


def dashboards() -> dict[str, dict[str, Any]]:
    """Name -> the dashboard as JSON."""
    return {each.name: _plain(_dashboard(each).build()) for each in DASHBOARDS}


def _plain(built: Any) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(JSONEncoder(sort_keys=True).encode(built))
    for variable in plain["templating"]["list"]:  # here and below: defaults of the SDK that Grafana 13 does not know
        for name in ("auto", "auto_count", "auto_min"):
            variable.pop(name, None)
    for panel in plain["panels"]:
        if panel["type"] == "table":
            panel["options"].pop("footer", None)
    return plain


def _dashboard(of: Dashboard) -> dashboard.Dashboard:
    built = (
        dashboard.Dashboard(f"loadtest: {of.title}")
        .uid(uid(of.name))
        .description(of.doc)
        .tags(["loadtest"])
        .timezone("utc")
        .time(f"now-{of.range_s}s", "now")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .editable()
        .link(_Built(_to_each_other()))
        .annotation(_events())
    )
    if of.refresh_s:
        built.refresh(f"{of.refresh_s}s")
    for variable in of.variables:
        built.with_variable(_variable(variable))
    for number, panel in enumerate((panel for panel in PANELS if panel.dashboard == of.name), 1):
        built.with_panel(_panel(panel, number, of))
    return built


def _to_each_other() -> Any:
    link = (
        dashboard.DashboardLink("loadtest").type(model.DashboardLinkType.DASHBOARDS).tags(["loadtest"]).keep_time(True)
    )
    built: Any = link.build()
    built.placement = None  # at the top, where they are seen, and not in the menu that is the SDK's default
    return built


def _events() -> dashboard.AnnotationQuery:
    query = _Built(Query(sql.render(EVENTS), TABLE))
    return (
        dashboard.AnnotationQuery()
        .name("What happened")
        .datasource(source())
        .enable(True)
        .icon_color("blue")
        .target(query)
    )


def _variable(variable: Variable) -> Any:
    if variable.sql:
        query = dashboard.QueryVariable(variable.name).label(variable.label).datasource(source())
        query.query(sql.render(variable.sql)).refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        return query.multi(True).include_all(True).all_value(sql.ALL).current(_ALL) if variable.several else query
    if variable.options:
        custom = dashboard.CustomVariable(variable.name).label(variable.label).values(",".join(variable.options))
        if variable.several:
            return custom.multi(True).include_all(True).all_value(sql.ALL).current(_ALL)
        return custom.current(model.VariableOption(text=variable.default, value=variable.default))
    return dashboard.TextBoxVariable(variable.name).label(variable.label).default_value(variable.default)


_ALL = model.VariableOption(text=["All"], value=["$__all"])


def _panel(panel: Panel, number: int, of: Dashboard) -> Any:
    built, form, statement = _VIEWS[panel.view](panel)
    built.id(number).title(panel.title).description(panel.question).datasource(source())
    built.span(panel.width).height(panel.height).no_value(panel.empty).interval("1s")
    built.with_target(_Built(Query(sql.render(statement), form)))
    if panel.unit and panel.view != "table":
        built.unit(UNITS[panel.unit])
    if panel.thresholds:
        built.thresholds(_thresholds(panel))
    for column, unit in panel.units.items():
        built.override_by_name(column, [model.DynamicConfigValue("unit", UNITS[unit])])
    if panel.view == "table":
        for link in panel.links:
            built.override_by_name(
                next(iter(link.take.values())), [model.DynamicConfigValue("links", [_link(panel, link, of)])]
            )
    elif panel.links:
        built.data_links([_Built(_link(panel, link, of)) for link in panel.links])
    return built


def _thresholds(panel: Panel) -> dashboard.ThresholdsConfig:
    first, *others = panel.thresholds
    steps = [model.Threshold(value=None, color=COLORS[first.severity])]
    steps += [model.Threshold(value=each.at, color=COLORS[each.severity]) for each in others]
    return dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(steps)


def _link(panel: Panel, link: Link, of: Dashboard) -> dict[str, object]:
    """A data link: the other dashboard with our variables, but for what the point itself says."""
    there = next(each for each in DASHBOARDS if each.name == link.to)
    ours = {variable.name for variable in of.variables}
    parts = [f"${{{v.name}:queryparam}}" for v in there.variables if v.name in ours and v.name not in link.take]
    place = "__field.labels" if panel.view == "time series" else "__data.fields"
    parts += [f"var-{name}=${{{place}.{column}:percentencode}}" for name, column in link.take.items()]
    if link.between:
        parts += [f"{name}=${{{place}.{column}}}" for name, column in zip(("from", "to"), link.between, strict=True)]
    elif link.around_s:
        parts.append(f"time=${{__value.time}}&time.window={2000 * link.around_s}")
    else:
        parts.append("${__url_time_range}")
    return {"title": link.title, "url": f"/d/{quote(uid(link.to))}?{'&'.join(parts)}", "targetBlank": False}


_Drawn = tuple[Any, int, str]
"""A panel's builder, the format of its query, its statement."""


def _time_series(panel: Panel) -> _Drawn:
    name = " ".join(["${__field.name}", *(f"${{__field.labels.{label}}}" for label in panel.labels)])
    built = timeseries.Panel().display_name(name).span_nulls(False).show_points(common_model.VisibilityMode.AUTO)
    built.color_scheme(_BY_NAME).line_width(1).fill_opacity(0).legend(_LEGEND).tooltip(_ALL_SERIES)
    if panel.thresholds:
        dashed = common.GraphThresholdsStyleConfig().mode(common_model.GraphThresholdsStyleMode.DASHED)
        built.thresholds_style(dashed)
    _scale(built, panel)
    return built, TIME_SERIES, panel.sql


_BY_NAME = dashboard.FieldColor().mode(model.FieldColorModeId.PALETTE_CLASSIC_BY_NAME)
_LEGEND = (
    common.VizLegendOptions()
    .display_mode(common_model.LegendDisplayMode.LIST)
    .placement(common_model.LegendPlacement.BOTTOM)
    .show_legend(True)
)
_ALL_SERIES = (
    common.VizTooltipOptions().mode(common_model.TooltipDisplayMode.MULTI).sort(common_model.SortOrder.DESCENDING)
)


def _scale(built: Any, panel: Panel) -> None:
    if panel.log:
        log = common.ScaleDistributionConfig().type(common_model.ScaleDistribution.LOG).log(10)
        built.scale_distribution(log)
    else:
        built.min(0)


def _state_timeline(panel: Panel) -> _Drawn:
    texts = {
        str(number): model.ValueMappingResult(text=word, index=number, color=COLORS[panel.thresholds[number].severity])
        for number, word in enumerate(panel.states)
    }
    built = statetimeline.Panel().mappings([model.ValueMap(options=texts)]).merge_values(True).row_height(0.8)
    built.display_name(" ".join(f"${{__field.labels.{label}}}" for label in panel.labels))
    built.show_value(common_model.VisibilityMode.AUTO)
    return built, TIME_SERIES, panel.sql


def _heatmap(panel: Panel) -> _Drawn:
    """A row a time and a column a size. Times without values are filled with nothing, so that cells are equally wide."""
    unit = f" {panel.unit}" if panel.unit else ""
    sizes = zip(EDGES, [*EDGES[1:], float("inf")], strict=True)
    columns = ", ".join(f'sumIf(count, low = {low!r}) AS "{high:g}{unit}"' for low, high in sizes)
    filled = f"SELECT time, {columns} FROM ({panel.sql}) GROUP BY time ORDER BY time"
    rows = heatmap.RowsHeatmapOptions().layout(common_model.HeatmapCellLayout.LE)
    built = heatmap.Panel().calculate(False).rows_frame(rows).filter_values(heatmap.FilterValueRange().le(1e-9))
    built.color(
        heatmap.HeatmapColorOptions()
        .mode(heatmap_model.HeatmapColorMode.SCHEME)
        .scheme("Blues")
        .steps(64)
        .reverse(False)
    )
    return built, TABLE, filled


def _stat(panel: Panel) -> _Drawn:
    reduce = common.ReduceDataOptions().values(True).calcs(["lastNotNull"]).fields("")
    built = stat.Panel().reduce_options(reduce).graph_mode(common_model.BigValueGraphMode.NONE)
    return built.color_mode(common_model.BigValueColorMode.VALUE), TABLE, panel.sql


def _bar(panel: Panel) -> _Drawn:
    built = (
        barchart.Panel().x_field(panel.labels[0]).orientation(common_model.VizOrientation.HORIZONTAL).legend(_LEGEND)
    )
    return built.show_value(common_model.VisibilityMode.AUTO), TABLE, panel.sql


def _scatter(panel: Panel) -> _Drawn:
    """Each set of labels is a frame of its own, which the chart takes its first two numbers of."""
    show = xychart_model.XYShowMode.POINTS_AND_LINES if panel.lines else xychart_model.XYShowMode.POINTS
    built = xychart.Panel().mapping(xychart_model.SeriesMapping.AUTO).show(show).legend(_LEGEND)
    by = model.DataTransformerConfig(
        id_val="partitionByValues",
        options={"fields": list(panel.labels), "keepFields": False, "naming": {"asLabels": True}},
    )
    built.with_transformation(by)
    built.override_by_name("x", [model.DynamicConfigValue("unit", UNITS[panel.x_unit])])
    _scale(built, panel)
    return built, TABLE, panel.sql


def _table(panel: Panel) -> _Drawn:
    return table.Panel().cell_height(common_model.TableCellHeight.SM).filterable(True), TABLE, panel.sql


_VIEWS: dict[str, Callable[[Panel], _Drawn]] = {
    "time series": _time_series,
    "state timeline": _state_timeline,
    "heatmap": _heatmap,
    "stat": _stat,
    "bar": _bar,
    "scatter": _scatter,
    "table": _table,
}
