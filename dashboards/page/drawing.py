"""A panel and the rows of its query -> what the page draws: a chart, bars, figures, states or a table, with an answer in words.

Pure: no store, no clock. The scripts of the page draw what they are given and decide nothing, so that colours, words and
rounding are the report's own.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from msgspec import Struct

from dashboards.page.links import Target, following
from dashboards.page.units import Shown, shown
from dashboards.types import Panel, Selection, Severity
from loadtest.history import Objective
from loadtest.metrics import METRICS
from loadtest.report.figures import Axis, Heat, Limit, Line, Mark, Spec, XAxis, short, spans_decades
from loadtest.report.marks import COLORS
from loadtest.report.words import NOT_KNOWN, count, listing, plural, told_apart
from loadtest.types import FAULT_OF

Row = Mapping[str, Any]
SHADES = {"p50": 1, "p90": 2, "p95": 2, "p99": 3, "p99.9": 3}
HOURS = [(float(hour), f"{hour:02d}:00") for hour in range(0, 25, 6)]
MOST_NAMED = 4
MOST_NAMED_POINTS = 8
MOST_LINES = 40
MOST_OBJECTIVES = 3
MOST_NAMED_LINES = 24
NAME_LENGTH = 20
LABEL_LENGTH = 30
MOST_QUIET = 8
ASKED_FOR = ("offered",)
"""Numbers that others are held against."""
MOST_ROWS = 500
MOST_BUCKETS = 2000
NO_LABELS = ("time", "low", "high", "count", "state", "x", "y")


class Figure(Struct, omit_defaults=True):
    """One figure of a stat or a bar."""

    name: str
    figure: str
    unit: str
    value: float | None
    color: str = ""
    severity: Severity | None = None
    href: str = ""


class Figures(Struct):
    kind: Literal["stat", "bar"]
    figures: list[Figure]
    most: float | None  # where a bar is full


class Segment(Struct):
    start: float
    end: float
    state: int


class Lane(Struct):
    name: str
    color: str
    segments: list[Segment]


class States(Struct):
    """`words` names the states, `severities` says how bad each is."""

    kind: Literal["states"]
    start: float
    end: float
    words: list[str]
    severities: list[Severity]
    lanes: list[Lane]


class Cell(Struct, omit_defaults=True):
    text: str
    href: str = ""
    severity: Severity | None = None
    color: str = ""


class Column(Struct):
    name: str
    unit: str
    is_text: bool


class Table(Struct):
    kind: Literal["table"]
    columns: list[Column]
    rows: list[list[Cell]]
    left_out: int


class Drawing(Struct, omit_defaults=True):
    """`answer` stands under the question; for `empty` and `failed` it says why nothing is drawn."""

    panel: str
    state: Literal["ok", "empty", "failed"]
    answer: str
    shape: Spec | Figures | States | Table | None = None
    links: list[list[Target]] = []  # of a chart: one list a line, where a click on it leads
    took_ms: float = 0


class Painter(Struct, frozen=True):
    """What drawings of one page have in common: the time range, who has which colour, what happened when, and what the plans
    of the runs have set as objectives."""

    selection: Selection
    order: Sequence[str]  # of targets: each keeps its colour wherever it appears
    marks: Sequence[Mark] = ()
    objectives: Sequence[Objective] = ()

    def draw(self, panel: Panel, rows: Sequence[Row]) -> Drawing:
        if not rows:
            return Drawing(panel.name, "empty", panel.empty)
        return DRAWN[panel.view](self, panel, rows)

    def color(self, labels: Mapping[str, str], position: int) -> str:
        """A target's own; an error's by whose fault it is; else by position."""
        target = labels.get("target")
        if target in self.order:
            return f"t{self.order.index(target) % COLORS}"
        word = next((value for value in labels.values() if value in FAULT_OF), None)
        return FAULT_OF[word] if word else f"t{(len(self.order) + position) % COLORS}"

    @property
    def start_s(self) -> float:
        return self.selection.from_ns / 1e9

    @property
    def end_s(self) -> float:
        return self.selection.to_ns / 1e9

    @property
    def step_s(self) -> float:
        return self.selection.step_ns / 1e9

    def grid(self, rows: Sequence[Row]) -> list[float]:
        """Every bucket of the time range: where nothing was, there is to be a gap, also at its ends. Where that would be too
        many, those from the first row to the last."""
        begin, end = self.start_s, self.end_s - 1e-9
        if (end - begin) / self.step_s > MOST_BUCKETS:
            times = [seconds(row["time"]) for row in rows]
            begin, end = min(times), max(times)
        first = math.floor(begin / self.step_s)
        return [i * self.step_s for i in range(first, min(math.floor(end / self.step_s), first + MOST_BUCKETS) + 1)]


def seconds(time: datetime) -> float:
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()


def split(panel: Panel, row: Row) -> tuple[list[str], list[str]]:
    """Names of the columns that are labels, and of those that are numbers."""
    return [name for name in panel.labels if name in row], [
        n for n in row if n not in panel.labels and n not in NO_LABELS
    ]


def time_series(painter: Painter, panel: Panel, rows: Sequence[Row]) -> Drawing:
    labels, numbers = split(panel, rows[0])
    unit = shown(panel.unit, [row[name] for row in rows for name in numbers])
    grid = painter.grid(rows)
    found = _values(painter, grid, rows, labels, numbers, unit)
    kept = dict(list(found.items())[:MOST_LINES])
    links = [[following(link, dict(group), painter.selection) for link in panel.links] for group, _ in kept]
    stack = "error" in labels
    lines = _stacked(kept) if stack else _lines(painter, panel, kept, numbers)
    spec = Spec(
        kind="stack" if stack else "line",
        x=XAxis(
            label="time, UTC", unit="utc", values=grid, min=grid[0], max=grid[-1] + (painter.step_s if stack else 0)
        ),
        y=_axis(panel, unit, [line.values for line in lines]),
        series=lines,
        marks=[mark for mark in painter.marks if grid[0] <= mark.x <= grid[-1]],
        limits=_limits(painter, panel, unit),
        group="time",
    )
    return Drawing(panel.name, "ok", _newest(lines, unit, len(found) - len(kept)), spec, links)


Group = tuple[tuple[str, str], ...]  # label, value
Found = dict[tuple[Group, str], list[float | None]]  # of a group and the name of a number


def _values(
    painter: Painter, grid: Sequence[float], rows: Sequence[Row], labels: list[str], numbers: list[str], unit: Shown
) -> Found:
    """Each group's values of each number, at their places in the grid."""
    first = grid[0]
    found: Found = {}
    for row in rows:
        place = round((seconds(row["time"]) - first) / painter.step_s)
        if not 0 <= place < len(grid):
            continue
        group = _group(labels, row)
        for name in numbers:
            found.setdefault((group, name), [None] * len(grid))[place] = short(unit.scaled(row[name]))
    return found


def _lines(painter: Painter, panel: Panel, found: Found, numbers: Sequence[str]) -> list[Line]:
    """A hue for each target, or else for each group; of percentiles the higher the stronger; what was asked for dashed."""
    groups = sorted({_but_stage(group) for group, _ in found})  # so that each keeps its hue from panel to panel
    percentiles = [name for name in numbers if name in SHADES]
    ends = _ends(found)
    short_names = _short_names(groups)
    lines = []
    for (group, number), values in found.items():
        own = _but_stage(group)
        word = [_word(number)] if len(numbers) > 1 else []
        told = ([short_names[pair] for pair in own] if len(groups) > 1 else []) + word
        name = [_told(*pair) for pair in group] + (word or ([] if group else [_word(number)]))
        quiet = len(found) > MOST_QUIET and not any(values)  # many lines that never left 0 need no names
        named = ends[own, number] == group and not quiet and len(found) <= MOST_NAMED_LINES
        dashed = number in ASKED_FOR
        lines.append(
            Line(
                label=cut(" ".join(told)) if named else "",
                name=" ".join(name) or panel.title,
                color=painter.color(dict(group), groups.index(own) if group else numbers.index(number)),
                shade=SHADES[number] if number in percentiles and len(percentiles) > 1 else 3,
                dash=(4, 4) if dashed else None,
                width=1.25 if dashed else 1.75,
                values=values,
                points="alone",
            )
        )
    return lines


def _short_names(groups: Sequence[Group]) -> dict[tuple[str, str], str]:
    """Each label's value as short as its fellows allow, by label and value."""
    out: dict[tuple[str, str], str] = {}
    for label in dict.fromkeys(label for group in groups for label, _ in group):
        values = list(dict.fromkeys(value for group in groups for name, value in group if name == label))
        out |= {(label, v): _told(label, name) for v, name in told_apart(values, NAME_LENGTH).items()}
    return out


def _told(label: str, value: str) -> str:
    """A bare number does not say what it is."""
    return f"{_word(label)} {value}" if value.isdigit() else value


def _but_stage(group: Group) -> Group:
    """Stages follow each other: they are one line's pieces, not lines of their own."""
    return tuple(pair for pair in group if pair[0] != "stage")


def _ends(found: Found) -> dict[tuple[Group, str], Group]:
    """Which of a line's pieces goes on longest: there its name stands."""
    last = {key: max((i for i, v in enumerate(values) if v is not None), default=-1) for key, values in found.items()}
    out: dict[tuple[Group, str], Group] = {}
    for (group, number), at in last.items():
        key = (_but_stage(group), number)
        if key not in out or at >= last[out[key], number]:
            out[key] = group
    return out


def _stacked(found: Found) -> list[Line]:
    """Errors: the hue says whose fault, the shade which of them; the most frequent lowest."""
    totals = {key: sum(v or 0 for v in values) for key, values in found.items()}
    targets = {value for group, _ in found for label, value in group if label == "target"}
    lines: list[Line] = []
    for key in found:
        group = dict(key[0])
        color = FAULT_OF.get(group["error"], "endpoint")
        before = sum(line.color == color for line in lines)
        name = group["error"] if len(targets) == 1 else " ".join(group.values())
        label = f"{name} ({count(round(totals[key]))})"
        lines.append(Line(label=label, name=name, color=color, shade=max(1, 3 - before), values=found[key]))
    return lines


def cut(label: str) -> str:
    """At a line's end there is little room."""
    return label if len(label) <= LABEL_LENGTH else label[: LABEL_LENGTH - 1] + "…"


def _word(column: str) -> str:
    return column.replace("_", " ")


def _axis(panel: Panel, unit: Shown, values: Sequence[Sequence[float | None]]) -> Axis:
    log = panel.log and spans_decades(values)
    return Axis(label=unit.axis or _word(panel.title), unit=unit.suffix, log=log)


def _limits(painter: Painter, panel: Panel, unit: Shown) -> list[Limit]:
    """The plan's objectives on what is drawn; of what no plan judges, the panel's own."""
    words = {"warn": "look at it", "bad": "limit", "ok": ""}
    own = [
        Limit(unit.scaled(each.at) or 0, f"{words[each.severity]} {unit.text(each.at)}")
        for each in panel.thresholds
        if each.severity != "ok"
    ]
    set_by_plan = {
        " ".join(filter(None, ("objective", each.target, each.stat, unit.text(each.limit)))): each.limit
        for each in painter.objectives
        if each.metric in panel.metrics and _is_drawn(panel, METRICS[each.metric].unit)
    }
    shown = list(set_by_plan.items())[:MOST_OBJECTIVES]
    if more := len(set_by_plan) - len(shown):
        said, at = shown.pop()
        shown.append((f"{said}; {more} more not drawn", at))
    return own + [Limit(unit.scaled(at) or 0, said) for said, at in shown]


def _is_drawn(panel: Panel, unit: str) -> bool:
    """Upwards: a scatter's other metric goes to the right."""
    return panel.unit == {"1": "share"}.get(unit, unit)


def _newest(lines: Sequence[Line], unit: Shown, left_out: int) -> str:
    """The last value of each line; of percentiles the highest alone."""
    parts = []
    for line in lines:
        known = [value for value in line.values if value is not None]
        if known and line.shade == 3 and (line.label or len(lines) == 1):
            parts.append(f"{line.label or ''} {unit.scaled_text(known[-1])}".strip())
    more = f" {plural(left_out, 'further line')} not drawn." if left_out else ""
    return f"Last: {listing(parts, MOST_NAMED)}.{more}" if parts else more.strip()


def heatmap(painter: Painter, panel: Panel, rows: Sequence[Row]) -> Drawing:
    """One field for all targets chosen: counts add up."""
    unit = shown(panel.unit, [row["low"] for row in rows])
    grid = painter.grid(rows)
    bounds = sorted({(float(row["low"]), float(row["high"])) for row in rows if math.isfinite(row["high"])})
    if not bounds:
        return Drawing(panel.name, "empty", panel.empty)
    least = (
        min((low for low, _ in bounds if low > 0), default=bounds[0][1]) / 1.5
    )  # where 0 stands: sizes grow by a factor
    edges = sorted({max(bound, least) for pair in bounds for bound in pair})
    counts: dict[tuple[int, int], int] = {}
    for row in rows:
        place = round((seconds(row["time"]) - grid[0]) / painter.step_s)
        low = max(float(row["low"]), least)
        if 0 <= place < len(grid) and low in edges[:-1]:
            key = (place, edges.index(low))
            counts[key] = counts.get(key, 0) + int(row["count"])
    targets = {row.get("target", "") for row in rows}
    only = targets.pop() if len(targets) == 1 else ""
    color = painter.color({"target": only}, 0) if only else "ink-2"
    scaled = [unit.scaled(edge) or 0.0 for edge in edges]
    spec = Spec(
        kind="heat",
        x=XAxis(label="time, UTC", unit="utc", values=grid, min=grid[0], max=grid[-1] + painter.step_s),
        y=Axis(label=unit.axis or _word(panel.title), unit=unit.suffix, log=True),
        series=[],
        heat=Heat(color, painter.step_s, scaled, [(x, y, n) for (x, y), n in counts.items()]),
        marks=list(painter.marks),
        group="time",
    )
    total = sum(counts.values())
    return Drawing(panel.name, "ok", f"{plural(total, 'value')}; the stronger a cell, the more of them.", spec)


def scatter(painter: Painter, panel: Panel, rows: Sequence[Row]) -> Drawing:
    labels, _ = split(panel, rows[0])
    across, up = shown(panel.x_unit, [r["x"] for r in rows]), shown(panel.unit, [r["y"] for r in rows])
    known = [r for r in rows if r["x"] is not None and r["y"] is not None]
    points = sorted(
        ((across.scaled(r["x"]), up.scaled(r["y"]), _group(labels, r)) for r in known), key=lambda p: p[0] or 0
    )
    groups = list(dict.fromkeys(group for _, _, group in points))
    telling = _telling(groups)
    lines = []
    for i, group in enumerate(groups):
        shade = SHADES.get(dict(group).get("stat", ""), 3)
        name = " ".join(_told(*pair) for pair in group)
        told = " ".join(_told(*pair) for pair in group if pair[0] in telling)
        lines.append(
            Line(
                label=cut(told) if len(groups) <= MOST_NAMED_POINTS or shade == 3 else "",
                name=name,
                color=painter.color(dict(group), i),
                shade=shade,
                values=[short(y) if of == group else None for _, y, of in points],
                points=True,
                joined=panel.lines,
                width=1.75 if panel.lines else 0,
            )
        )
    of_day: dict[str, Any] = {"max": 24.0, "ticks": HOURS} if panel.x_unit == "hour" else {}
    spec = Spec(
        kind="line",
        x=XAxis(label=across.axis, unit=across.suffix, values=[x or 0 for x, _, _ in points], zero=True, **of_day),
        y=_axis(panel, up, [line.values for line in lines]),
        series=lines,
        limits=_limits(painter, panel, up),
    )
    return Drawing(panel.name, "ok", f"{plural(len(points), 'point')}.", spec)


def _group(labels: Sequence[str], row: Row) -> Group:
    return tuple((label, row[label] or NOT_KNOWN) for label in labels)


def _telling(groups: Sequence[Group]) -> set[str]:
    """The labels that tell groups apart: what all of them share needs no saying."""
    labels = list(dict.fromkeys(label for group in groups for label, _ in group))
    return {label for label in labels if len({dict(group)[label] for group in groups}) > 1} or set(labels[-1:])


def figures(painter: Painter, panel: Panel, rows: Sequence[Row]) -> Drawing:
    """Stats and bars: a figure for each row and number."""
    labels, numbers = split(panel, rows[0])
    out: list[Figure] = []
    for row in rows[:MOST_ROWS]:
        about = {label: row[label] or NOT_KNOWN for label in labels}
        for name in numbers:
            unit = shown(panel.units.get(name, panel.unit), [row[name]])
            words = [*about.values(), *([_word(name)] if len(numbers) > 1 or not labels else [])]
            out.append(
                Figure(
                    name=" ".join(words) or panel.title,
                    figure=unit.text(row[name]).removesuffix(unit.suffix).strip(),
                    unit=unit.suffix,
                    value=short(number_of(row[name])),
                    color=painter.color(about, 0) if labels else "",
                    severity=severity(panel, row[name]) or _judged(painter, name, row),
                    href=_first_link(painter, panel, row),
                )
            )
    kind: Literal["stat", "bar"] = "stat" if panel.view == "stat" else "bar"
    known = [each.value for each in out if each.value is not None]
    told = [f"{each.name} {each.figure}{_joined(each.unit)}" for each in out]
    return Drawing(
        panel.name,
        "ok",
        f"{listing(told, MOST_NAMED)}." if kind == "bar" else "",
        Figures(kind, out, max(known, default=None)),
    )


def _joined(unit: str) -> str:
    return unit if unit == "%" else f" {unit}" if unit else ""


def state_timeline(painter: Painter, panel: Panel, rows: Sequence[Row]) -> Drawing:
    """A lane for each set of labels; a state holds for its bucket, and what was not looked at stays empty."""
    labels, _ = split(panel, rows[0])
    lanes: dict[Group, list[Segment]] = {}
    for row in rows:
        start = seconds(row["time"])
        segments = lanes.setdefault(_group(labels, row), [])
        last = segments[-1] if segments else None
        if last and last.state == row["state"] and start - last.end < painter.step_s / 2:
            last.end = start + painter.step_s
        else:
            segments.append(Segment(start, start + painter.step_s, int(row["state"])))
    telling = _telling(list(lanes))
    drawn = [
        Lane(" ".join(_told(*pair) for pair in group if pair[0] in telling), painter.color(dict(group), i), segments)
        for i, (group, segments) in enumerate(sorted(lanes.items()))
    ]
    severities = [severity(panel, i) or "ok" for i in range(len(panel.states))]
    answer = f"{listing([_standing(lane, panel.states) for lane in drawn], MOST_NAMED)}."
    shape = States("states", painter.start_s, painter.end_s, list(panel.states), severities, drawn)
    return Drawing(panel.name, "ok", answer, shape)


def _standing(lane: Lane, words: Sequence[str]) -> str:
    state = lane.segments[-1].state
    return f"{lane.name} {words[state] if state < len(words) else state}".strip()


def table(painter: Painter, panel: Panel, rows: Sequence[Row]) -> Drawing:
    names = list(rows[0])
    text = {name for name in names if any(isinstance(row[name], str | datetime | list) for row in rows)}
    units = {name: shown(panel.units.get(name, ""), [row[name] for row in rows]) for name in names if name not in text}
    suffixes = {name: units[name].suffix if name in units else "" for name in names}
    columns = [
        Column(
            _word(re.sub(rf"_{suffixes[name]}(?=_|$)", "", name) if suffixes[name] else name),
            suffixes[name],
            name in text,
        )
        for name in names
    ]
    body = [
        [_cell(painter, panel, name, row, units.get(name), i == 0) for i, name in enumerate(names)]
        for row in rows[:MOST_ROWS]
    ]
    left_out = max(0, len(rows) - MOST_ROWS)
    answer = f"{plural(len(rows), 'row')}" + (f", {MOST_ROWS} of them shown." if left_out else ".")
    return Drawing(panel.name, "ok", answer, Table("table", columns, body, left_out))


def _cell(painter: Painter, panel: Panel, name: str, row: Row, unit: Shown | None, first: bool) -> Cell:
    value = row[name]
    if isinstance(value, datetime):
        at = value if value.tzinfo else value.replace(tzinfo=UTC)
        words = f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}.{at.microsecond // 1000:03d}"
    elif unit is None:
        words = str(value) if value not in (None, "") else NOT_KNOWN
    else:
        words = unit.text(value).removesuffix(unit.suffix).strip() if unit.suffix else unit.text(value)
    return Cell(
        text=words,
        href=_first_link(painter, panel, row) if _is_linked(panel, name, first) else "",
        severity=severity(panel, value) if name == "value" else None,
        color=painter.color({"target": value}, 0) if name == "target" and value in painter.order else "",
    )


def _is_linked(panel: Panel, name: str, first: bool) -> bool:
    """The one cell of a row that leads on: what the link is about, or else the first one."""
    return name in panel.links[0].take.values() if panel.links and len(panel.links[0].take) == 1 else first


def _first_link(painter: Painter, panel: Panel, row: Row) -> str:
    if not panel.links:
        return ""
    return following(panel.links[0], row, painter.selection).at(row.get("time"))


def number_of(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def severity(panel: Panel, value: Any) -> Severity | None:
    """Of the highest threshold that the value has reached."""
    known = number_of(value)
    reached = [each for each in panel.thresholds if known is not None and known >= each.at]
    return max(reached, key=lambda each: each.at).severity if reached else None


def _judged(painter: Painter, metric: str, row: Row) -> Severity | None:
    """By the plan's objectives on that share or rate."""
    known = number_of(row[metric])
    mine = [
        each
        for each in painter.objectives
        if each.metric == metric and not each.stat and each.target in (None, row.get("target"))
    ]
    if known is None or not mine:
        return None
    lower = METRICS[metric].better == "lower"
    return "bad" if any(known > each.limit if lower else known < each.limit for each in mine) else "ok"


DRAWN: Mapping[str, Callable[[Painter, Panel, Sequence[Row]], Drawing]] = {
    "time series": time_series,
    "heatmap": heatmap,
    "scatter": scatter,
    "stat": figures,
    "bar": figures,
    "state timeline": state_timeline,
    "table": table,
}
