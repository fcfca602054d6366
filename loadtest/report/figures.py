"""Charts as data: what charts.js draws, with the question above it, the answer in words and the table behind it."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from msgspec import Struct, field, structs

from loadtest.report.markup import Html, data_script, h
from loadtest.report.model import Values
from loadtest.report.words import sig3

LOG_FROM_RATIO = 50
"""An axis is logarithmic where the largest value is this many times the smallest."""


class Axis(Struct, kw_only=True, omit_defaults=True):
    label: str
    unit: str = ""
    log: bool = False
    max: float | None = None
    ticks: list[tuple[float, str]] | None = None


class XAxis(Axis, kw_only=True):
    note: str = ""  # how to read the axis
    zero: bool = False  # begins at 0 though no value is there
    min: float | None = None
    values: list[float]


class Line(Struct, kw_only=True, omit_defaults=True):
    label: str  # at the line's end; empty: none
    color: str  # a custom property of the page: t0 ...
    values: Sequence[float | None]
    shade: int = 3
    dash: tuple[int, int] | None = None
    points: bool | Literal["alone"] = False  # alone: where the values beside it are not known
    joined: bool = False  # across values that are not known
    width: float = 1.75
    name: str | None = None  # in tooltip and table, where the label is too short to stand alone


class Mark(Struct):
    x: float
    label: str


class Limit(Struct):
    y: float
    label: str


class Heat(Struct):
    """How many values were in [edge, next edge) within `step` of a value of x: (index of x, index of the edge, count)."""

    color: str
    step: float
    edges: list[float]
    cells: list[tuple[int, int, int]]


class Spec(Struct, kw_only=True, omit_defaults=True):
    kind: Literal["line", "stack", "heat"]
    x: XAxis
    y: Axis
    series: list[Line]
    heat: Heat | None = None
    marks: list[Mark] = field(default_factory=list)
    limits: list[Limit] = field(default_factory=list)
    group: str | None = None
    height: int = 190


def figure(
    ident: str, question: str, answer: str, spec: Spec, wide: bool = False, rows: Mapping[int, str] | None = None
) -> Html:
    """A chart under its question. `rows` of the table: index of a value and what its row is called; else all."""
    drawn = structs.replace(
        spec, series=[structs.replace(line, values=[short(v) for v in line.values]) for line in spec.series]
    )
    return h(
        "figure",
        h("figcaption", h("h4", question), h("p", answer), _legend(spec)),
        h("div", axis_words(spec), class_="unit"),
        h("div", class_="plot", role="img", aria_label=f"{question} {answer} The figures are in the table below."),
        data_script(drawn),
        h("details", h("summary", "Figures"), h("div", _table(spec, rows), class_="scroll")),
        class_="chart wide" if wide else "chart",
        id=ident,
    )


def nothing(ident: str, question: str, words: str) -> Html:
    """Where there is nothing to draw, that is said."""
    return h("figure", h("figcaption", h("h4", question)), h("div", words, class_="empty"), id=ident, class_="none")


def axis_words(spec: Spec) -> str:
    up = f"{spec.y.label}{', logarithmic' if spec.y.log else ''}"
    across = f"{spec.x.label}{', logarithmic' if spec.x.log else ''}"
    return f"Vertical: {up}. Horizontal: {across}{f' ({spec.x.note})' if spec.x.note else ''}."


def spans_decades(values: Iterable[Sequence[float | None]]) -> bool:
    positive = [v for row in values for v in row if v is not None and v > 0 and math.isfinite(v)]
    return bool(positive) and max(positive) / min(positive) >= LOG_FROM_RATIO


def ceiling(values: Iterable[Values]) -> float | None:
    """One upper end for charts that stand beside each other, so that their heights compare."""
    finite = [v for row in values for v in row if v is not None and math.isfinite(v)]
    return max(finite) * 1.08 if finite and max(finite) > 0 else None


def short(value: float | None) -> float | None:
    """Four significant digits: less than a pixel, and a third of the bytes."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.4g}")


def _legend(spec: Spec) -> Html | None:
    if spec.kind == "line":
        return None
    return h("ul", [h("li", _swatch(line), line.label) for line in spec.series], class_="legend")


def _swatch(line: Line) -> Html:
    rect = h("rect", width="16", height="8", rx="2", fill="currentColor", class_=f"shade{line.shade}")
    return h("svg", rect, viewBox="0 0 16 8", class_=f"e-{line.color}", aria_hidden="true")


def _table(spec: Spec, rows: Mapping[int, str] | None) -> Html:
    head = h("tr", [h("th", word) for word in (spec.x.label, *(line.name or line.label for line in spec.series))])
    named = rows if rows is not None else {i: f"{x:g}" for i, x in enumerate(spec.x.values)}
    body = [
        h("tr", h("th", name), [h("td", sig3(line.values[index])) for line in spec.series])
        for index, name in named.items()
    ]
    return h(
        "table", h("caption", f"Values in {spec.y.label}", class_="small left"), h("thead", head), h("tbody", body)
    )
