"""The charts of one stage, each a question, an answer in words, and what charts.js draws."""

import math
from itertools import chain

from msgspec import Struct

from loadtest.report.figures import Axis, Line, Mark, Spec, XAxis, ceiling, figure, nothing, spans_decades
from loadtest.report.marks import COLORS
from loadtest.report.markup import Html
from loadtest.report.model import LANDMARKS, PERCENTILES, Curve, StageCharts, StageFigures, Stat, TargetSeries, Values
from loadtest.report.words import count, listing, percent, plural, seconds, sig3
from loadtest.types import FAULT_OF

SHADES = {"p50": 1, "p95": 2, "p99": 3}
DASHES: tuple[tuple[int, int] | None, ...] = (None, (7, 3), (2, 3), (10, 3))
"""Targets beyond the palette take its colours again with another dash."""
LABEL_LENGTH = 16
MOST_NAMED = 4
"""More targets than that are left to a chart's table."""
BETWEEN = {"itl_ms": "tokens", "icl_ms": "chunks"}
TICKS = ((0.0, "min"), (0.5, "p50"), (0.9, "p90"), (0.99, "p99"), (0.999, "p99.9"), (0.9999, "p99.99"))


class Stage(Struct, frozen=True):
    """One stage as its charts need it."""

    ident: str  # begins the id of each figure; charts of one stage share their cursor by it
    charts: StageCharts
    order: list[str]  # of all targets: gives each its colour
    figures: dict[str, StageFigures]

    def of(self, target: str) -> StageFigures:
        return self.figures.get(target, StageFigures())

    def chart_id(self, name: str, target: str) -> str:
        return f"{self.ident}-{name}-{self.order.index(target)}"

    def over_time(self, y: Axis, lines: list[Line]) -> Spec:
        offsets_s = self.charts.offsets_s
        planned_s = (self.charts.end_ns - self.charts.start_ns) / 1e9
        drained = [Mark(planned_s, "arrivals end")] if offsets_s[-1] >= planned_s > 0 else []
        x = XAxis(label="time since the stage's start", unit="s", values=offsets_s)
        return Spec(kind="line", x=x, y=y, series=lines, marks=drained, group=self.ident)

    def clock_rows(self) -> dict[int, str]:
        return {i: f"{int(t) // 60}:{int(t) % 60:02d}" for i, t in enumerate(self.charts.offsets_s)}


def color(order: list[str], target: str) -> str:
    return f"t{order.index(target) % COLORS}"


def label(target: str) -> str:
    return target if len(target) <= LABEL_LENGTH else target[: LABEL_LENGTH - 1] + "…"


def _line(stage: Stage, target: str, values: Values, what: str = "") -> Line:
    dash = DASHES[stage.order.index(target) // COLORS % len(DASHES)]
    name = f"{target}, {what}" if what else target
    return Line(label=label(target), name=name, color=color(stage.order, target), dash=dash, values=values)


def throughput(stage: Stage) -> Html:
    series = stage.charts.series
    lines = [_line(stage, each.target, each.achieved_per_s, "achieved") for each in series]
    offered = next((each.offered_per_s for each in series if any(each.offered_per_s)), None)
    if offered is not None:
        lines.insert(0, Line(label="offered", color="ink-3", dash=(4, 4), width=1.25, values=offered))
    parts = [f"{each.target} {sig3(stage.of(each.target).requests_per_s)}" for each in series]
    of = f"; {sig3(_mean(offered))} were offered to each" if offered is not None else ""
    return figure(
        f"{stage.ident}-throughput",
        "Did the targets keep up with the load they were offered?" if offered else "How much did the targets complete?",
        f"Completed requests per second: {listing(parts, MOST_NAMED)}{of}.",
        stage.over_time(Axis(label="requests/s", unit="/s"), lines),
        rows=stage.clock_rows(),
    )


def _mean(values: Values) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known)


def in_flight(stage: Stage) -> Html:
    series = stage.charts.series
    peaks = [(each.target, max((v for v in each.in_flight if v is not None), default=0)) for each in series]
    parts = [f"{count(round(most))} at {target}" for target, most in peaks]
    return figure(
        f"{stage.ident}-in-flight",
        "Did unanswered requests pile up?",
        f"At most at the same time: {listing(parts, MOST_NAMED)}.",
        stage.over_time(
            Axis(label="requests in flight"), [_line(stage, each.target, each.in_flight) for each in series]
        ),
        rows=stage.clock_rows(),
    )


SHARES = {"utilization": "GPUs busy", "kv_cache_utilization": "KV cache taken"}


def devices(stage: Stage) -> list[Html]:
    """What the GPUs and engines did beside the load; nothing where no source gave it."""
    shares = [
        (each.target, key, each.devices[key]) for each in stage.charts.series for key in SHARES if key in each.devices
    ]
    queues = [
        (each.target, each.devices["queue_length"]) for each in stage.charts.series if "queue_length" in each.devices
    ]
    out = []
    if shares:
        lines = [_line(stage, target, _times(100, values), SHARES[key]) for target, key, values in shares]
        for line, (_, key, _) in zip(lines, shares, strict=True):
            line.shade = SHADES["p95"] if key == "utilization" else SHADES["p99"]
            line.label = f"{line.label} {'GPU' if key == 'utilization' else 'KV'}"
        parts = [f"{SHARES[key]} {percent(_most(values))} at {target}" for target, key, values in shares]
        question = "How busy were the GPUs, and how full their caches?"
        spec = stage.over_time(Axis(label="percent of what there is", unit="%", max=100), lines)
        told = f"Highest mean of {seconds(stage.charts.bucket_s)}: {listing(parts, MOST_NAMED)}."
        out.append(figure(f"{stage.ident}-devices", question, told, spec, rows=stage.clock_rows()))
    if queues:
        parts = [f"{sig3(_most(values))} at {target}" for target, values in queues]
        spec = stage.over_time(
            Axis(label="requests waiting"), [_line(stage, target, values) for target, values in queues]
        )
        most = f"Highest mean of {seconds(stage.charts.bucket_s)}"
        told = f"{most}: {listing(parts, MOST_NAMED)}, of all engines of a target together."
        out.append(
            figure(f"{stage.ident}-queue", "Did requests wait inside the engines?", told, spec, rows=stage.clock_rows())
        )
    return out


def _times(factor: float, values: Values) -> Values:
    return [None if value is None else value * factor for value in values]


def _most(values: Values) -> float:
    return max((value for value in values if value is not None), default=0)


def latencies(stage: Stage, metric: str) -> list[Html]:
    """A chart a target, all on one scale."""
    rows = [each.ttft_ms if metric == "ttft_ms" else each.itl_ms for each in stage.charts.series]
    every = list(chain.from_iterable(quantiles.values() for quantiles in rows))
    y = Axis(label="ms", unit="ms", log=spans_decades(every), max=ceiling(every))
    targets = [each.target for each in stage.charts.series]
    return [_latency(stage, target, metric, quantiles, y) for target, quantiles in zip(targets, rows, strict=True)]


def _latency(stage: Stage, target: str, metric: str, quantiles: dict[str, Values], y: Axis) -> Html:
    stat: Stat = getattr(stage.of(target), metric)
    told = ", ".join(f"{p} {sig3(getattr(stat, p))} ms" for p in PERCENTILES)
    if metric in BETWEEN:
        question = f"How steadily did {target} send its {BETWEEN[metric]}?"
        answer = f"From one to the next: {told} ({plural(stat.n, 'gap')}).{_exact_to(stage.of(target), stat)}"
    else:
        question = f"How long did {target} take to its first token?"
        answer = f"From sending to first token: {told} ({count(stat.n)} successes).{_exact_to(stage.of(target), stat)}"
    ident = stage.chart_id(metric.removesuffix("_ms"), target)
    if not any(value is not None for values in quantiles.values() for value in values):
        return nothing(ident, question, _why_nothing(stage.of(target), target))
    lines = [Line(label=p, color=color(stage.order, target), shade=SHADES[p], values=quantiles[p]) for p in PERCENTILES]
    return figure(ident, question, answer, stage.over_time(y, lines), rows=stage.clock_rows())


def _exact_to(own: StageFigures, stat: Stat) -> str:
    if not own.blurred(stat.p50):
        return ""
    return f" Read them with care: 1% of the requests have a stamp that is exact to {sig3(own.uncertainty_p99_ms)} ms only."


def _why_nothing(own: StageFigures, target: str) -> str:
    if not own.requests:
        return f"No request to {target} ended in this stage."
    if not own.ok:
        tried = plural(own.requests, "request")
        return f"None of {tried} to {target} succeeded, so there is no latency to show: see the errors."
    return f"The {count(own.ok)} successes of {target} were not streamed or carried no token, so this was not measured."


def error_chart(stage: Stage, series: TargetSeries) -> Html:
    """Stacked, the most frequent word at the bottom; the hue says whose fault, the shade which word."""
    own = stage.of(series.target)
    question = f"What went wrong at {series.target}, and when?"
    ident = stage.chart_id("errors", series.target)
    if not series.errors:
        clean = f"Nothing: {plural(own.requests, 'request')} without an error."
        return nothing(ident, question, clean if own.requests else "No request ended in this stage.")
    spec = stage.over_time(Axis(label=f"failed requests per {seconds(stage.charts.bucket_s)}"), _error_lines(series))
    spec.kind = "stack"
    spec.x.max = stage.charts.offsets_s[-1] + stage.charts.bucket_s
    answer = f"{plural(sum(own.errors.values()), 'request')} of {count(own.requests)} failed."
    return figure(ident, question, answer, spec, rows=stage.clock_rows())


def _error_lines(series: TargetSeries) -> list[Line]:
    totals = {word: sum(counts) for word, counts in series.errors.items()}
    lines: list[Line] = []
    for word in sorted(totals, key=lambda word: -totals[word]):
        fault = FAULT_OF.get(word, "endpoint")
        before = sum(line.color == fault for line in lines)
        legend = f"{word} ({count(totals[word])})"
        lines.append(Line(label=legend, name=word, color=fault, shade=max(1, 3 - before), values=series.errors[word]))
    return lines


def distribution(stage: Stage, metric: str) -> Html:
    """Percentiles on an axis of nines, with failures as +infinity: a target's line ends where its failures begin."""
    curves = stage.charts.ttft if metric == "ttft_ms" else stage.charts.e2e
    question = f"How long is the tail of the {'first token' if metric == 'ttft_ms' else 'whole answer'}?"
    ident = f"{stage.ident}-{metric.removesuffix('_ms')}-tail"
    if not any(value is not None for curve in curves for value in curve.value_ms):
        return nothing(
            ident, question, "No request of this stage has this figure, so there is no distribution to show."
        )
    good = {name: own for name, own in stage.figures.items() if own.ok}
    parts = [f"{name} {sig3(getattr(own, metric).p99)} ms" for name, own in good.items()]
    answer = f"p99 of the successes: {listing(parts, MOST_NAMED)}. One in a hundred took longer."
    if any(own.ok < own.requests for own in stage.figures.values()):
        answer += " A line ends where failures begin; dotted, the successes alone."
    shares = stage.charts.shares
    x = XAxis(
        label="percentile of requests",
        note="p90, p99 and p99.9 stand equally far apart",
        unit="nines",
        values=[nines(share) for share in shares],
        ticks=[(nines(share), name) for share, name in TICKS if share <= shares[-1]],
    )
    lines = list(chain.from_iterable(_tail_lines(stage, curve) for curve in curves))
    y = Axis(label="ms", unit="ms", log=spans_decades(curve.value_ms for curve in curves))
    rows = {i: f"p{100 * share:.6g}" for i, share in enumerate(shares) if share in LANDMARKS}
    return figure(ident, question, answer, Spec(kind="line", x=x, y=y, series=lines, height=230), rows=rows)


def nines(share: float) -> float:
    """Where a percentile stands on an axis that gives each further nine the same width."""
    return abs(math.log10(1 - share))


def _tail_lines(stage: Stage, curve: Curve) -> list[Line]:
    own = stage.of(curve.target)
    if own.ok == own.requests:
        return [_line(stage, curve.target, curve.value_ms)]
    whole = _line(stage, curve.target, curve.with_failures_ms, "with failures")
    whole.label = f"{label(curve.target)}: {percent(1 - own.ok / own.requests)} failed"
    alone = _line(stage, curve.target, curve.value_ms, "successes")
    alone.label, alone.shade, alone.dash, alone.width = f"{label(curve.target)}, successes", 2, (3, 3), 1.25
    return [whole, alone]
