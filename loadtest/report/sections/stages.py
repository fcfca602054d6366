"""What happened over time and how it was distributed: the charts of each measured stage, and latency against load."""

import math
from itertools import chain

import msgspec

from loadtest.report.figures import Axis, Line, Mark, Spec, XAxis, ceiling, figure, nothing, spans_decades
from loadtest.report.marks import COLORS
from loadtest.report.markup import Html, h
from loadtest.report.model import (
    LANDMARKS,
    PERCENTILES,
    Curve,
    Report,
    StageCharts,
    StageFigures,
    Stat,
    TargetSeries,
    Values,
)
from loadtest.report.words import count, listing, percent, plural, seconds, sig3, utc
from loadtest.types import FAULT_OF, Stage

SHADES = {"p50": 1, "p95": 2, "p99": 3}
DASHES: list[tuple[int, int] | None] = [None, (7, 3), (2, 3), (10, 3)]
LABEL_LENGTH = 16
MOST_NAMED = 4
"""More targets than that are left to the table of a chart."""
GAP_TITLES = {"itl_ms": "tokens", "icl_ms": "chunks"}


def load_and_time(report: Report) -> Html:
    found = [_stage(report, stage) for stage in report.stages]
    empty = h("div", "No request of a measured stage was stored: there is nothing to draw.", class_="empty")
    lead = f"Each stage on its own: no figure is taken across stages or targets.{_left_out(report)}"
    against_load = latency_against_load(report)
    return h(
        "section",
        h("h2", "What happened, stage by stage?"),
        h("p", lead, class_="lead"),
        against_load,
        found or empty,
        id="stages",
    )


def _left_out(report: Report) -> str:
    stages, targets = report.stages_left_out, report.targets_left_out
    parts = [plural(n, noun) for n, noun in ((stages, "further stage"), (targets, "further target")) if n]
    return f" Not drawn, so that the page stays small: {listing(parts)}; the tables above have them." if parts else ""


def _stage(report: Report, stage: StageCharts) -> Html:
    figures = {name: t.stages[stage.stage] for name, t in report.summary.targets.items() if stage.stage in t.stages}
    order = list(report.summary.targets)
    ident = f"s{report.stages.index(stage)}"
    plan = next((s for s in (report.plan.stages if report.plan else []) if s.name == stage.stage), None)
    title = h("h3", f"Stage {stage.stage}")
    about = h("p", _about(stage, plan), class_="lead")
    rows = [
        [_distribution(ident, stage, order, figures, metric) for metric in ("ttft_ms", "e2e_ms")],
        [_throughput(ident, stage, order, figures), _in_flight(ident, stage, order)],
        _latencies(ident, stage, order, figures, "ttft_ms"),
        _latencies(ident, stage, order, figures, stage.gap_metric),
        [_errors(ident, stage, order, s, figures.get(s.target, StageFigures())) for s in stage.series],
    ]
    grids = [h("div", row, class_="charts many" if len(row) > 2 else "charts") for row in rows]
    return h("div", title, about, grids, class_="stage")


def _about(stage: StageCharts, plan: Stage | None) -> str:
    span = f"{utc(stage.start_ns)}, {seconds((stage.end_ns - stage.start_ns) / 1e9)}"
    bucket = f"one point is {seconds(stage.bucket_s)}"
    return f"{arrivals(plan)}, {span}; {bucket}." if plan else f"{span}; {bucket}."


def arrivals(plan: Stage) -> str:
    """`poisson arrivals, rate 20`, `closed load, concurrency 64`: the plan's own words."""
    keys: dict[str, object] = msgspec.to_builtins(plan.arrivals)
    kind = keys.pop("kind")
    word = "closed load" if kind == "closed" else f"{kind} arrivals"
    told = [
        f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in keys.items()
        if value is not None
    ]
    if plan.concurrency:
        told.append(f"concurrency {plan.concurrency:,}")
    return ", ".join([word, *told]).capitalize()


def _color(order: list[str], target: str) -> str:
    return f"t{order.index(target) % COLORS}"


def _dash(order: list[str], target: str) -> tuple[int, int] | None:
    return DASHES[order.index(target) // COLORS % len(DASHES)]


def _label(target: str) -> str:
    return target if len(target) <= LABEL_LENGTH else target[: LABEL_LENGTH - 1] + "…"


def _time(stage: StageCharts) -> XAxis:
    return XAxis(label="time since the stage's start", unit="s", values=stage.offsets_s)


def _drain(stage: StageCharts) -> list[Mark]:
    """Where nothing new was due any more, if the last answers took long enough to show."""
    planned_s = (stage.end_ns - stage.start_ns) / 1e9
    return [Mark(planned_s, "arrivals end")] if stage.offsets_s[-1] >= planned_s > 0 else []


def _clock_rows(stage: StageCharts) -> dict[int, str]:
    return {i: f"{int(t) // 60}:{int(t) % 60:02d}" for i, t in enumerate(stage.offsets_s)}


def _throughput(ident: str, stage: StageCharts, order: list[str], figures: dict[str, StageFigures]) -> Html:
    question = "Did the targets keep up with the load they were offered?"
    lines = [
        Line(
            label=_label(s.target),
            name=f"{s.target}, achieved",
            color=_color(order, s.target),
            dash=_dash(order, s.target),
            values=s.achieved_per_s,
        )
        for s in stage.series
    ]
    offered = next((s.offered_per_s for s in stage.series if any(v for v in s.offered_per_s)), None)
    if offered is not None:
        lines.insert(0, Line(label="offered", color="ink-3", dash=(4, 4), width=1.25, values=offered))
    parts = [f"{s.target} {sig3(f.requests_per_s)}" for s in stage.series if (f := figures.get(s.target))]
    mean = _mean(offered) if offered is not None else None
    answer = f"Completed: {listing(parts, MOST_NAMED)} requests/s" + (
        f", of {sig3(mean)} offered." if mean is not None else "."
    )
    spec = Spec(
        kind="line",
        x=_time(stage),
        marks=_drain(stage),
        y=Axis(label="requests/s", unit="/s"),
        series=lines,
        group=ident,
    )
    return figure(f"{ident}-throughput", question, answer, spec, rows=_clock_rows(stage))


def _mean(values: Values) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None


def _in_flight(ident: str, stage: StageCharts, order: list[str]) -> Html:
    lines = [
        Line(label=_label(s.target), color=_color(order, s.target), dash=_dash(order, s.target), values=s.in_flight)
        for s in stage.series
    ]
    peaks = [
        f"{count(round(max((v for v in s.in_flight if v is not None), default=0)))} at {s.target}" for s in stage.series
    ]
    spec = Spec(
        kind="line", x=_time(stage), marks=_drain(stage), y=Axis(label="requests in flight"), series=lines, group=ident
    )
    return figure(
        f"{ident}-in-flight",
        "Did unanswered requests pile up?",
        f"At most {listing(peaks, MOST_NAMED)} at once.",
        spec,
        rows=_clock_rows(stage),
    )


def _latencies(
    ident: str, stage: StageCharts, order: list[str], figures: dict[str, StageFigures], metric: str
) -> list[Html]:
    """A chart a target, all with one scale."""
    rows = [_quantiles(series, metric) for series in stage.series]
    every = list(chain.from_iterable(values.values() for values in rows))
    y = Axis(label="ms", unit="ms", log=spans_decades(every), max=ceiling(every))
    return [
        _latency(ident, stage, order, series, figures.get(series.target, StageFigures()), metric, quantiles, y)
        for series, quantiles in zip(stage.series, rows, strict=True)
    ]


def _quantiles(series: TargetSeries, metric: str) -> dict[str, Values]:
    return series.ttft_ms if metric == "ttft_ms" else series.itl_ms


def _latency(
    ident: str,
    stage: StageCharts,
    order: list[str],
    series: TargetSeries,
    own: StageFigures,
    metric: str,
    quantiles: dict[str, Values],
    y: Axis,
) -> Html:
    target = series.target
    between = GAP_TITLES.get(metric)
    question = (
        f"How steadily did {target} send its {between}?"
        if between
        else f"How long did {target} take to its first token?"
    )
    chart_id = f"{ident}-{metric.removesuffix('_ms')}-{order.index(target)}"
    stat: Stat = getattr(own, metric)
    if not any(v is not None for values in quantiles.values() for v in values):
        return nothing(chart_id, question, _why_nothing(own, target))
    told = ", ".join(f"{p} {sig3(getattr(stat, p))} ms" for p in PERCENTILES)
    of = "gaps" if between else "successes"
    answer = f"{told}{' from one to the next' if between else ''}, over {count(stat.n)} {of}."
    lines = [
        Line(label=p, color=_color(order, target), shade=SHADES[p], values=quantiles[p])
        for p in PERCENTILES
        if p in quantiles
    ]
    spec = Spec(kind="line", x=_time(stage), marks=_drain(stage), y=y, series=lines, group=ident)
    return figure(chart_id, question, answer, spec, rows=_clock_rows(stage))


def _why_nothing(own: StageFigures, target: str) -> str:
    if not own.requests:
        return f"No request to {target} ended in this stage."
    if not own.ok:
        tried = plural(own.requests, "request")
        return f"None of {tried} to {target} succeeded, so there is no latency to show: see the errors."
    return f"The {count(own.ok)} successes of {target} were not streamed or carried no token, so this was not measured."


def _errors(ident: str, stage: StageCharts, order: list[str], series: TargetSeries, own: StageFigures) -> Html:
    question = f"What went wrong at {series.target}, and when?"
    chart_id = f"{ident}-errors-{order.index(series.target)}"
    words = sorted(series.errors, key=lambda word: -sum(series.errors[word]))
    if not words:
        return nothing(
            chart_id,
            question,
            f"Nothing: {plural(own.requests, 'request')} without an error." if own.requests else "No request ended.",
        )
    seen: dict[str, int] = {}
    lines = []
    for word in words:
        fault = FAULT_OF.get(word, "endpoint")
        seen[fault] = seen.get(fault, 0) + 1
        lines.append(
            Line(
                label=f"{word} ({count(sum(series.errors[word]))})",
                name=word,
                color=fault,
                shade=max(1, 4 - seen[fault]),
                values=series.errors[word],
            )
        )
    answer = f"{plural(sum(own.errors.values()), 'request')} of {count(own.requests)} failed."
    x = _time(stage)
    x.max = stage.offsets_s[-1] + stage.bucket_s
    spec = Spec(
        kind="stack", x=x, y=Axis(label=f"failed requests per {seconds(stage.bucket_s)}"), series=lines, group=ident
    )
    return figure(chart_id, question, answer, spec, rows=_clock_rows(stage))


def nines(share: float) -> float:
    """Where a percentile stands on an axis that gives each further nine the same width."""
    return abs(math.log10(1 - share))


def _distribution(
    ident: str, stage: StageCharts, order: list[str], figures: dict[str, StageFigures], metric: str
) -> Html:
    curves: list[Curve] = stage.ttft if metric == "ttft_ms" else stage.e2e
    what = "first token" if metric == "ttft_ms" else "whole answer"
    question = f"How long is the tail of the {what}?"
    chart_id = f"{ident}-{metric.removesuffix('_ms')}-tail"
    if not any(v is not None for curve in curves for v in curve.value_ms):
        return nothing(chart_id, question, "No request of this stage succeeded, so there is no distribution to show.")
    lines = []
    for curve in curves:
        own = figures.get(curve.target, StageFigures())
        color, dash = _color(order, curve.target), _dash(order, curve.target)
        lines.append(
            Line(
                label=_label(curve.target),
                name=f"{curve.target}, with failures",
                color=color,
                dash=dash,
                values=curve.with_failures_ms,
            )
        )
        if own.ok < own.requests:
            lines[-1].label = f"{_label(curve.target)}: {percent(1 - own.ok / own.requests)} failed"
            lines.append(
                Line(
                    label=f"{_label(curve.target)}, successes",
                    name=f"{curve.target}, successes",
                    color=color,
                    shade=2,
                    dash=(3, 3),
                    width=1.25,
                    values=curve.value_ms,
                )
            )
    failing = any(f.ok < f.requests for f in figures.values())
    note = " A line ends where failures begin; dotted, the successes alone." if failing else ""
    parts = [f"{name} {sig3(getattr(f, metric).p99)} ms" for name, f in figures.items() if f.ok]
    answer = f"One in a hundred successes took longer than {listing(parts, MOST_NAMED)}.{note}"
    x = XAxis(
        label="percentile of requests, each nine the same width",
        unit="nines",
        values=[nines(p) for p in stage.shares],
        ticks=_ticks(stage.shares),
    )
    every = [curve.value_ms for curve in curves]
    y = Axis(label="ms", unit="ms", log=spans_decades(every))
    spec = Spec(kind="line", x=x, y=y, series=lines, height=230)
    return figure(chart_id, question, answer, spec, rows=_tail_rows(stage))


TICKS = ((0.0, "min"), (0.5, "p50"), (0.9, "p90"), (0.99, "p99"), (0.999, "p99.9"), (0.9999, "p99.99"))


def _tail_rows(stage: StageCharts) -> dict[int, str]:
    return {i: f"p{100 * p:.6g}" for i, p in enumerate(stage.shares) if p in LANDMARKS}


def _ticks(shares: list[float]) -> list[tuple[float, str]]:
    return [(nines(p), label) for p, label in TICKS if p <= max(shares)]


def latency_against_load(report: Report) -> Html | None:
    """Over the stages of one run: drawn where at least three stages reached different rates."""
    names = [stage.stage for stage in report.stages]
    points: dict[str, list[tuple[float, Stat]]] = {}
    for name, target in report.summary.targets.items():
        found = [
            (f.requests_per_s, f.ttft_ms)
            for stage in names
            if (f := target.stages.get(stage)) and f.requests_per_s and f.ttft_ms.n
        ]
        points[name] = sorted(found, key=lambda point: point[0])
    rates = sorted({rate for found in points.values() for rate, _ in found})
    if len(rates) < 3 or rates[-1] < 1.5 * rates[0] or len(names) < 3:
        return None
    order = list(report.summary.targets)
    lines = [
        Line(
            label=f"{_label(name)} {p}",
            color=_color(order, name),
            shade=SHADES[p],
            points=True,
            joined=True,
            values=[{r: getattr(s, p) for r, s in found}.get(rate) for rate in rates],
        )
        for name, found in points.items()
        for p in ("p50", "p99")
    ]
    y = Axis(label="ms", unit="ms", log=spans_decades([list(line.values) for line in lines]))
    spec = Spec(
        kind="line",
        x=XAxis(label="requests completed per second", unit="/s", values=rates),
        y=y,
        series=lines,
        height=230,
    )
    chart = figure(
        "load",
        "How does the first token slow down as load rises?",
        "One point a stage, at the rate it completed.",
        spec,
        wide=True,
    )
    return h("div", chart, class_="charts")
