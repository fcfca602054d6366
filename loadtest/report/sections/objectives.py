"""The SLOs: value, interval, limit, and what follows, in word and shape."""

import math

from loadtest.report.headline import limit, measured
from loadtest.report.marks import css_class, named, outcome
from loadtest.report.markup import Html, h, text
from loadtest.report.model import Report, SloRow
from loadtest.report.words import NOT_KNOWN, metric_title, plural

WIDTH, HEIGHT = 150.0, 18.0


def objectives(report: Report) -> Html:
    title = h("h2", "Were the objectives met?")
    rows = report.summary.slos
    if not rows:
        words = "The plan sets no objective, so nothing is judged. Name a limit under `slos:` and the next report will."
        if report.summary.locustfile:
            words = "No objective was set, so nothing is judged. Name a limit with --slo and the next report will."
        return h("section", title, h("div", words, class_="empty"), id="objectives")
    order = {name: index for index, name in enumerate(report.summary.targets)}
    head = ("Outcome", "Objective", "Target", "Stage", "Limit", "Value", "95% interval", "")
    left = head[:4]
    body = [_row(row, order.get(row.target), report.summary.validity.valid) for row in rows]
    table = h(
        "table",
        h("thead", h("tr", [h("th", word, scope="col", class_="left" if word in left else None) for word in head])),
        h("tbody", body),
        class_="full slos",
    )
    return h("section", title, h("p", LEAD, class_="lead"), h("div", table, class_="scroll"), id="objectives")


MLPERF = "MLPerf's early-stopping rule: the interval's ends are at 99% each"
LEAD = (
    "An objective is met when the whole 95% interval of its figure keeps the limit, breached when the whole interval is"
    " beyond it, and undecided in between. A failed request counts as infinitely slow. Intervals are conditional on"
    " this stage of this run: requests under load are not independent, so they do not bound another stage or day."
)


def _row(row: SloRow, index: int | None, valid: bool) -> Html:
    return h(
        "tr",
        h("td", _outcome(row, valid), class_="left outcome-cell"),
        h(
            "th",
            metric_title(row.metric),
            f" {row.stat}" if row.stat else None,
            h("div", MLPERF, class_="small") if row.rule == "mlperf" else None,
            scope="row",
        ),
        h("td", row.target if index is None else named(index, row.target), class_="left name"),
        h("td", row.stage, class_="left name"),
        h("td", limit(row), data_label="Limit"),
        h("td", measured(row, row.value), data_label="Value"),
        h("td", interval(row), class_="small", data_label="95% interval"),
        h("td", picture(row)),
    )


def interval(row: SloRow) -> str:
    """`741 to 962 ms`; `from 741 ms` where the sample cannot bound the other end."""
    low, high = measured(row, row.low), measured(row, row.high)
    if row.low is None or row.high is None:
        return f"from {low}" if row.low is not None else f"up to {high}" if row.high is not None else NOT_KNOWN
    number, _, unit = high.partition(" ")
    return f"{low.removesuffix(f' {unit}') if unit else low} to {number}{f' {unit}' if unit else ''}"


def _outcome(row: SloRow, valid: bool) -> Html:
    if not valid:
        return outcome("none", f"{row.outcome}, but the run is INVALID")
    if row.outcome == "undecided":
        if_they = " if all keep the limit" if row.rule == "mlperf" else ""
        more = (
            f"about {plural(row.more_requests, 'more request')} would decide{if_they}"
            if row.more_requests
            else row.advice
        )
        return text(outcome("undecided"), h("div", more, class_="small") if more else None)
    return outcome(row.outcome)


def picture(row: SloRow) -> Html | None:
    """The interval as a bar, the value as a dot, the limit as an upright line; from 0, and cut off at the right."""
    if row.value is None:
        return None
    finite = [x for x in (row.limit, row.value, row.high, row.low) if x is not None and math.isfinite(x)]
    top = max(finite) * 1.12 or 1.0
    middle = HEIGHT / 2
    low = _x(0 if row.low is None else row.low, top)
    high = _x(math.inf if row.high is None else row.high, top)
    limit_x = _x(row.limit, top)
    return h(
        "svg",
        h("line", x1="0", x2=f"{WIDTH:g}", y1=f"{middle:g}", y2=f"{middle:g}", class_="axis"),
        h(
            "line",
            x1=f"{low:.1f}",
            x2=f"{max(high, low + 0.1):.1f}",
            y1=f"{middle:g}",
            y2=f"{middle:g}",
            class_="range",
        ),
        h("line", x1=f"{limit_x:.1f}", x2=f"{limit_x:.1f}", y1="3", y2=f"{HEIGHT - 3:g}", class_="limit"),
        h("circle", cx=f"{_x(row.value, top):.1f}", cy=f"{middle:g}", r="3.5", class_="value"),
        class_=f"interval {css_class(row.outcome)}",
        viewBox=f"0 0 {WIDTH:g} {HEIGHT:g}",
        role="img",
        aria_label=f"value {measured(row, row.value)}, limit {limit(row)}",
    )


def _x(value: float, top: float) -> float:
    return 4 + (WIDTH - 8) * min(value / top, 1.0) if math.isfinite(value) else WIDTH - 4
