"""What happened, stage by stage: latency against load first, then each stage's distributions and its course over time."""

import msgspec

from loadtest.report import stops, warm_ups
from loadtest.report.figures import Axis, Line, Spec, XAxis, figure, spans_decades
from loadtest.report.markup import Html, h
from loadtest.report.model import Report, StageCharts, Stat
from loadtest.report.sections.charts import (
    SHADES,
    Stage,
    color,
    devices,
    distribution,
    error_chart,
    in_flight,
    label,
    latencies,
    throughput,
)
from loadtest.report.words import listing, plural, seconds, utc
from loadtest.types import Stage as PlannedStage

FEWEST_LOADS = 3
"""Latency against load is drawn from so many stages on, if the load differs by half."""


def stages(report: Report) -> Html:
    lead = f"Each stage on its own: no figure is taken across stages or targets.{_left_out(report)}"
    drawn = [_stage(report, position, charts) for position, charts in enumerate(report.stages)]
    empty = h("div", "No request of a measured stage was stored: there is nothing to draw.", class_="empty")
    title = h("h2", "What happened, stage by stage?")
    return h("section", title, h("p", lead, class_="lead"), _latency_against_load(report), drawn or empty, id="stages")


def _left_out(report: Report) -> str:
    stages, targets = report.stages_left_out, report.targets_left_out
    parts = [plural(n, noun) for n, noun in ((stages, "further stage"), (targets, "further target")) if n]
    return f" Not drawn, so that the page stays small: {listing(parts)}; the tables above have them." if parts else ""


def _stage(report: Report, position: int, charts: StageCharts) -> Html:
    targets = report.summary.targets
    figures = {name: target.stages[charts.stage] for name, target in targets.items() if charts.stage in target.stages}
    stage = Stage(f"s{position}", charts, list(targets), figures)
    planned = next((each for each in (report.plan.stages if report.plan else []) if each.name == charts.stage), None)
    rows = [
        [distribution(stage, "ttft_ms"), distribution(stage, "e2e_ms")],
        [throughput(stage), in_flight(stage)],
        devices(stage),
        latencies(stage, "ttft_ms"),
        latencies(stage, charts.gap_metric),
        [error_chart(stage, series) for series in charts.series],
    ]
    grids = [h("div", row, class_="charts many" if len(row) > 2 else "charts") for row in rows if row]
    told = [
        _about(charts, planned),
        *stops.sentences(report.summary, charts.stage),
        *warm_ups.sentences(report.summary, charts.stage),
    ]
    about = [h("p", words, class_="lead") for words in told]
    return h("div", h("h3", f"Stage {charts.stage}"), about, grids, class_="stage")


def _about(charts: StageCharts, planned: PlannedStage | None) -> str:
    when = f"{utc(charts.start_ns)}, {seconds((charts.end_ns - charts.start_ns) / 1e9)}"
    each = f"one point is {seconds(charts.bucket_s)}"
    return f"{arrivals(planned)}, {when}; {each}." if planned else f"{when}; {each}."


def arrivals(planned: PlannedStage) -> str:
    """`Poisson arrivals, rate 20`, `Closed load, concurrency 64`: the plan's own words."""
    keys: dict[str, object] = msgspec.to_builtins(planned.arrivals)
    kind = keys.pop("kind")
    told = [f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}" for key, value in keys.items()]
    if planned.rounds > 1:
        told.append(f"{planned.rounds} rounds")
    if planned.concurrency:
        told.append(f"concurrency {planned.concurrency:,}")
    words = ", ".join(["closed load" if kind == "closed" else f"{kind} arrivals", *told])
    return words.replace(", to ", " to ").capitalize()


def _latency_against_load(report: Report) -> Html | None:
    """A point a stage, at the rate that the target completed in it."""
    points = {name: _points(report, name) for name in report.summary.targets}
    rates = sorted({rate for found in points.values() for rate in found})
    if len(report.stages) < FEWEST_LOADS or len(rates) < FEWEST_LOADS or rates[-1] < 1.5 * rates[0]:
        return None
    order = list(report.summary.targets)
    lines = [
        Line(
            label=f"{label(name)} {p}",
            color=color(order, name),
            shade=SHADES[p],
            points=True,
            joined=True,
            values=[getattr(found[rate], p) if rate in found else None for rate in rates],
        )
        for name, found in points.items()
        for p in ("p50", "p99")
    ]
    x = XAxis(label="requests completed per second", unit="/s", zero=True, values=rates)
    y = Axis(label="ms", unit="ms", log=spans_decades(line.values for line in lines))
    spec = Spec(kind="line", x=x, y=y, series=lines, height=230)
    question = "How does the first token slow down as load rises?"
    answer = "One point a stage, at the rate it completed; latencies of the successes."
    return h("div", figure("load", question, answer, spec, wide=True), class_="charts")


def _points(report: Report, target: str) -> dict[float, Stat]:
    own = report.summary.targets[target].stages
    found = [own[charts.stage] for charts in report.stages if charts.stage in own]
    return {each.requests_per_s: each.ttft_ms for each in found if each.requests_per_s and each.ttft_ms.n}
