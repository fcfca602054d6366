"""The nouns of the dashboards.

A panel's SQL is one template. Its values are ClickHouse's own parameters, `{run:Array(String)}`, so that the local page
runs it as it stands, with the values bound by the server (`Selection.params`), and Grafana with each parameter replaced by
Grafana's variable or macro (grafana/sql.py). No value ever becomes part of a statement's text.
"""

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct, field

DashboardName = Literal["live", "providers", "gpu", "request"]
View = Literal["time series", "stat", "heatmap", "state timeline", "bar", "scatter", "table"]
Unit = Literal[
    "ms",
    "s",
    "1/s",
    "tokens/s",
    "share",
    "percent",
    "count",
    "bytes",
    "W",
    "C",
    "Hz",
    "J/token",
    "money/Mtok",
    "hour",
    "state",
    "",
]
Severity = Literal["ok", "warn", "bad"]


class Threshold(Struct, frozen=True):
    """From `at` on, a value is of this severity."""

    at: float
    severity: Severity


class Link(Struct, frozen=True):
    """From a point, a bar or a row to another dashboard, with the selection kept but for what the point says.

    `take`: variable of that dashboard -> column of this panel. The time range there is as here, or so many seconds
    `around_s` the point's `time`, or `between` two columns of milliseconds since 1970.
    """

    title: str
    to: DashboardName
    take: Mapping[str, str] = {}
    around_s: int | None = None
    between: tuple[str, str] | None = None


class Panel(Struct, frozen=True, kw_only=True):
    """One panel. What its query's columns are follows from its view, in any order:

    time series      `time`, any labels (text), one or more numbers: a line for each number and set of labels
    state timeline   `time`, labels, `state`: a number, which `states` names
    heatmap          `time`, `low`, `high`, `count`: how many values were in [low, high) in the bucket of `time`
    stat             labels, numbers: one figure for each
    bar              labels, numbers
    scatter          labels, `x` and `y`: a point a row, ascending by `x`
    table            anything; `units` says in what a column is

    Times are DateTime64 and ascend. A bucket of time without values has no row: a gap is a gap.
    """

    dashboard: DashboardName
    name: str  # unique in its dashboard; also in its URL
    title: str
    question: str
    view: View
    sql: str
    labels: tuple[str, ...] = ("stage", "target")  # the columns that tell lines, bars or points apart
    metrics: tuple[str, ...] = ()  # of metrics.METRICS; the others' names are those of otel_metrics_*
    unit: Unit = ""
    units: Mapping[str, Unit] = {}  # of single columns
    x_unit: Unit = ""  # scatter
    log: bool = False  # the axis of values is logarithmic
    lines: bool = False  # scatter: points of one set of labels are joined
    states: tuple[str, ...] = ()  # state timeline: the words for 0, 1, 2
    thresholds: tuple[Threshold, ...] = ()
    links: tuple[Link, ...] = ()
    width: int = 12  # of 24
    height: int = 8
    empty: str = "Nothing in this time range."  # what it means that there is no row


class Variable(Struct, frozen=True):
    """What a dashboard can be narrowed to. `sql`: its values, in a column `value`; none: typed in by hand."""

    name: str
    label: str
    sql: str = ""
    options: tuple[str, ...] = ()  # instead of `sql`
    several: bool = True  # several may be chosen; none: all of them. Otherwise one, the first one if none is chosen
    default: str = ""


class Dashboard(Struct, frozen=True, kw_only=True):
    name: DashboardName
    title: str
    doc: str
    variables: tuple[Variable, ...]
    range_s: int  # the time range it opens with
    refresh_s: int | None = None


class Selection(Struct, frozen=True, kw_only=True):
    """What a template's parameters are: of several, none means all of them."""

    from_ns: int
    to_ns: int
    step_ns: int = 1_000_000_000
    run: tuple[str, ...] = ()
    target: tuple[str, ...] = ()
    model: tuple[str, ...] = ()
    region: tuple[str, ...] = ()
    stage: tuple[str, ...] = ()
    kind: tuple[str, ...] = ()
    others: Mapping[str, str] = field(default_factory=dict)  # variables of one value: trace, metric ...

    def params(self) -> dict[str, object]:
        """For Store.query."""
        several = {name: list(getattr(self, name)) for name in ("run", "target", "model", "region", "stage", "kind")}
        return {"from_ns": self.from_ns, "to_ns": self.to_ns, "step_ns": self.step_ns, **several, **self.others}
