"""Everything a report shows of one run, read from the store.

Figures come from the queries of metrics/. What stands here is counts of rows and instants of the rows themselves (errors,
requests in flight), which are facts and no metric.

A page has a budget, so that it stays below a megabyte whatever was run: charts for at most `GROUPS_DRAWN` pairs of
stage and target (the tables have all), and buckets of whole steps of `STEPS_S`, at most `POINTS` a stage and less where
many share `PAGE_CELLS`.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct

from loadtest import metrics, rounds
from loadtest.arrivals import Closed
from loadtest.definitions import TOOLS
from loadtest.gpu import figures as gpu
from loadtest.metrics import METRICS
from loadtest.report.model import (
    DRAWN,
    LANDMARKS,
    PERCENTILES,
    Curve,
    ErrorRow,
    Report,
    StageCharts,
    Stat,
    Summary,
    TargetSeries,
    Values,
    WorkerRow,
    summary_of,
)
from loadtest.report.others import said
from loadtest.report.summary import summary
from loadtest.schedule import Schedule
from loadtest.store import Store
from loadtest.types import Plan

Row = dict[str, Any]

POINTS = 150
FEWEST_POINTS = 20
PAGE_CELLS = 12_000
"""How many values all charts over time may have: each stands in the page twice, for the chart and in a table."""
SERIES_PER_TARGET = 14
STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400)
GROUPS_DRAWN = 24
GROUPS_COMPARED = 8
"""How many of them are shown by other tools' definitions as well: a table of 7 KB each."""

STAGE = "run = {run:String} AND NOT warmup AND stage = {stage:String}"
ONE_GROUP = f"{STAGE} AND target = {{target:String}}"


class Buckets(Struct, frozen=True):
    """Equal steps from a stage's start."""

    start_ns: int
    step_s: int
    n: int

    @property
    def step_ns(self) -> int:
        return self.step_s * 1_000_000_000

    def index(self, t_ns: int) -> int:
        return (t_ns - self.start_ns) // self.step_ns

    def place(self, rows: Sequence[Row], column: str, empty: float | None = None) -> Values:
        """The rows' values at their buckets; what lies outside is left out."""
        out: Values = [empty] * self.n
        for row in rows:
            if 0 <= (at := self.index(row["t_ns"])) < self.n:
                out[at] = row[column]
        return out


def gather(store: Store, run: str) -> Report:
    """Raises NoSuchRun."""
    figures = summary_of(summary(store, run))
    stored = store.query("SELECT plan FROM runs WHERE run = {run:String} ORDER BY ended_ns DESC LIMIT 1", {"run": run})
    plan = _plan(stored[0]["plan"])
    stages = _stages(store, run)
    targets = list(figures.targets)[:GROUPS_DRAWN]
    drawn = stages[: max(1, GROUPS_DRAWN // max(1, len(targets)))]
    read = _Reader(store, run, plan, figures)
    points = points_for(len(drawn), len(targets))
    groups = [(stage["stage"], target) for stage in drawn for target in targets]
    return Report(
        summary=figures,
        plan=plan,
        plan_yaml=stored[0]["plan"],
        stages=[read.charts(stage, targets, points) for stage in drawn],
        stages_left_out=len(stages) - len(drawn),
        targets_left_out=len(figures.targets) - len(targets),
        errors=_errors(store, run),
        others=said(store, run, list(TOOLS.values()), groups[:GROUPS_COMPARED], ("p50", "p99")),
        metrics=list(METRICS.values()),
        workers=_workers(store, run),
        environment=_environment(store, run),
    )


def points_for(stages: int, targets: int) -> int:
    """How many buckets a stage may have, so that the page stays small."""
    fit = PAGE_CELLS // max(1, stages * targets * SERIES_PER_TARGET)
    return max(FEWEST_POINTS, min(POINTS, fit))


def step_for(span_s: float, points: int) -> int:
    """The smallest step that covers the span with at most so many buckets."""
    enough = (step for step in STEPS_S if span_s / step <= points)
    return next(enough, math.ceil(span_s / points / 3600) * 3600)


def _plan(yaml: str) -> Plan | None:
    """None for the plan of another version, which this one cannot read: the report then shows its text alone."""
    try:
        return msgspec.yaml.decode(yaml, type=Plan)
    except msgspec.ValidationError:
        return None


def _stages(store: Store, run: str) -> list[Row]:
    sql = """
        SELECT stages.stage AS stage, stage_index, starts_ns, ends_ns, starts_ns[1] AS start_ns, ends_ns[-1] AS end_ns,
            greatest(end_ns, last_ns) AS until_ns
        FROM (
            SELECT stage, stage_index, groupArray(start_ns) AS starts_ns, groupArray(end_ns) AS ends_ns
            FROM (SELECT * FROM stages WHERE run = {run:String} AND NOT warmup ORDER BY round LIMIT 1 BY stage_index, round)
            GROUP BY stage, stage_index
        ) AS stages INNER JOIN (
            SELECT stage, max(done_ns) AS last_ns FROM requests WHERE run = {run:String} AND NOT warmup GROUP BY stage
        ) AS ended ON ended.stage = stages.stage
        ORDER BY stage_index"""
    return store.query(sql, {"run": run})


class _Reader:
    """The queries of one run's charts."""

    def __init__(self, store: Store, run: str, plan: Plan | None, figures: Summary) -> None:
        self._store = store
        self._run = run
        self._plan = plan
        self._figures = figures

    def charts(self, stage: Row, targets: Sequence[str], points: int) -> StageCharts:
        name: str = stage["stage"]
        span_s = (stage["until_ns"] - stage["start_ns"]) / 1e9
        step_s = step_for(span_s, points)
        buckets = Buckets(stage["start_ns"], step_s, max(1, math.ceil(span_s / step_s)))
        every = self._figures.targets
        figures = {target: every[target].stages[name] for target in targets if name in every[target].stages}
        gaps: Literal["itl_ms", "icl_ms"] = "itl_ms" if any(f.itl_ms.n for f in figures.values()) else "icl_ms"
        shares = shares_for(max((f.requests for f in figures.values()), default=0))
        return StageCharts(
            stage=name,
            start_ns=stage["start_ns"],
            end_ns=stage["end_ns"],
            bucket_s=step_s,
            offsets_s=[float(i * step_s) for i in range(buckets.n)],
            series=self._series(name, buckets, list(figures), gaps, self._offered(stage, buckets)),
            shares=shares,
            ttft=[self._curve(name, target, "ttft_ms", f.ttft_ms, shares) for target, f in figures.items()],
            e2e=[self._curve(name, target, "e2e_ms", f.e2e_ms, shares) for target, f in figures.items()],
            gap_metric=gaps,
        )

    def _offered(self, stage: Row, buckets: Buckets) -> Values:
        """None where conversations were held: when a further turn is due, the endpoint decides."""
        sql = f"SELECT max({rounds.TURN}) AS turn FROM requests WHERE {STAGE}"
        [row] = self._store.query(sql, {"run": self._run, "stage": stage["stage"]})
        return [None] * buckets.n if row["turn"] else offered(self._plan, stage, buckets)

    def _series(
        self, stage: str, buckets: Buckets, targets: list[str], gaps: str, offered_per_s: Values
    ) -> list[TargetSeries]:
        achieved = self._over_time(stage, "requests_per_s", buckets)
        ttft = self._over_time(stage, "ttft_ms", buckets)
        gap = self._over_time(stage, gaps, buckets)
        in_flight = self._in_flight(stage, buckets)
        errors = self._errors(stage, buckets)
        devices = self._devices(buckets) if self._figures.gpu else {}
        return [
            TargetSeries(
                target=target,
                offered_per_s=offered_per_s,
                achieved_per_s=buckets.place(achieved[target], "requests_per_s", empty=0),
                in_flight=carried(buckets, in_flight[target]),
                ttft_ms={p: buckets.place(ttft[target], f"ttft_ms_{p}") for p in PERCENTILES},
                itl_ms={p: buckets.place(gap[target], f"{gaps}_{p}") for p in PERCENTILES},
                errors=errors[target],
                devices=devices.get(target, {}),
            )
            for target in targets
        ]

    def _over_time(self, stage: str, metric: str, buckets: Buckets) -> dict[str, list[Row]]:
        origin = str(buckets.start_ns)
        return self._by_target(
            stage, metrics.series(metric, STAGE, buckets.step_ns, stats=PERCENTILES, origin_ns=origin)
        )

    def _devices(self, buckets: Buckets) -> dict[str, dict[str, Values]]:
        """What of the GPUs and engines is drawn, by target: only what a source gave."""
        until_ns = buckets.start_ns + buckets.n * buckets.step_ns
        sql = gpu.over_time(list(DRAWN.values()), buckets.start_ns, until_ns, buckets.step_ns)
        found: dict[tuple[str, str], list[Row]] = defaultdict(list)
        for row in self._store.query(sql, {"run": self._run}):
            found[row["target"], row["metric"]].append(row)
        out: dict[str, dict[str, Values]] = defaultdict(dict)
        for field, metric in DRAWN.items():
            for (target, of), rows in found.items():
                if of == metric:
                    out[target][field] = buckets.place(rows, "value")
        return out

    def _in_flight(self, stage: str, buckets: Buckets) -> dict[str, list[Row]]:
        """For each bucket in which something began or ended: the most at once, and how many at its end."""
        sql = f"""
            SELECT target, t_ns - positiveModulo(t_ns - {buckets.start_ns}, {buckets.step_ns}) AS t_ns,
                max(running) AS most, argMax(running, position) AS last
            FROM (
                SELECT target, t_ns, sum(change) OVER w AS running, row_number() OVER w AS position
                FROM (
                    SELECT target, tupleElement(event, 1) AS t_ns, tupleElement(event, 2) AS change
                    FROM requests ARRAY JOIN [(assumeNotNull(sent_ns), 1), (done_ns, -1)] AS event
                    WHERE {STAGE} AND sent_ns IS NOT NULL
                )
                WINDOW w AS (PARTITION BY target ORDER BY t_ns, change ROWS UNBOUNDED PRECEDING)
            )
            GROUP BY target, t_ns ORDER BY t_ns"""
        return self._by_target(stage, sql)

    def _errors(self, stage: str, buckets: Buckets) -> dict[str, dict[str, list[int]]]:
        """By the time of sending, as the latencies are, so that cause and effect stand above each other."""
        t_ns = "toUnixTimestamp64Nano(ts)"
        sql = f"""
            SELECT target, toString(error) AS word,
                {t_ns} - positiveModulo({t_ns} - {buckets.start_ns}, {buckets.step_ns}) AS t_ns, count() AS n
            FROM requests WHERE {STAGE} AND error != '' GROUP BY target, word, t_ns"""
        out: dict[str, dict[str, list[int]]] = defaultdict(dict)
        for target, rows in self._by_target(stage, sql).items():
            for row in rows:
                counts = out[target].setdefault(row["word"], [0] * buckets.n)
                counts[min(max(buckets.index(row["t_ns"]), 0), buckets.n - 1)] += row["n"]
        return out

    def _by_target(self, stage: str, sql: str) -> dict[str, list[Row]]:
        out: dict[str, list[Row]] = defaultdict(list)
        for row in self._store.query(sql, {"run": self._run, "stage": stage}):
            out[row["target"]].append(row)
        return out

    def _curve(self, stage: str, target: str, metric: str, stat: Stat, shares: list[float]) -> Curve:
        """Both populations are read off one sorted list: the successes first, then the failures, all infinite."""
        every = stat.with_failures.n if stat.with_failures else stat.n
        if not every or not stat.n:
            return Curve(target=target, value_ms=[None] * len(shares), with_failures_ms=[None] * len(shares))
        levels = [(math.floor(share * n) + 0.5) / every for n in (stat.n, every) for share in shares]
        sql = metrics.order_statistics(metric, levels, math.inf, ONE_GROUP)
        [row] = self._store.query(sql, {"run": self._run, "stage": stage, "target": target})
        values: Values = [v if math.isfinite(v) else None for v in row["q"]]
        return Curve(target=target, value_ms=values[: len(shares)], with_failures_ms=values[len(shares) :])


def shares_for(requests: int) -> list[float]:
    """Where percentile curves are read off: evenly to the median, then ever denser, as far as so many requests tell."""
    nines = math.log10(max(requests, 10))
    start = math.log10(2)
    steps = max(1, round((nines - start) / 0.05))
    upper = [round(1 - 10 ** -(start + (nines - start) * i / steps), 7) for i in range(steps + 1)]
    return sorted({*(i / 20 for i in range(10)), *upper, *(p for p in LANDMARKS if p <= upper[-1])})


def carried(buckets: Buckets, rows: list[Row]) -> Values:
    """The most requests in flight in each bucket; where nothing began or ended, as many as before."""
    found = {buckets.index(row["t_ns"]): row for row in rows}
    out: Values = []
    running = 0
    for index in range(buckets.n):
        row = found.get(index)
        out.append(max(running, row["most"]) if row else running)
        running = row["last"] if row else running
    return out


def offered(plan: Plan | None, stage: Row, buckets: Buckets) -> Values:
    """Requests due per second, by the plan's own schedule: what was missed was offered, too. None under closed load."""
    out: Values = [None] * buckets.n
    if plan is None or isinstance(plan.stages[stage["stage_index"]].arrivals, Closed):
        return out
    due = [0] * buckets.n
    as_run = rounds.expanded(plan)
    name = plan.stages[stage["stage_index"]].name
    indices = [index for index, each in enumerate(as_run.stages) if each.name == name]
    windows = zip(stage["starts_ns"], stage["ends_ns"], strict=True)
    for index, (start_ns, end_ns) in zip(indices, windows, strict=False):  # an interrupted run had fewer rounds
        for _, offset_ns, _ in Schedule(as_run, 0, 1).open(index):
            if offset_ns >= end_ns - start_ns:
                break
            due[min(buckets.index(start_ns + offset_ns), buckets.n - 1)] += 1
    last = min(buckets.n, math.ceil((stage["end_ns"] - stage["start_ns"]) / buckets.step_ns))
    return [n / buckets.step_s for n in due[:last]] + out[last:]


def _errors(store: Store, run: str) -> list[ErrorRow]:
    sql = """
        SELECT target, stage, toString(error) AS error, toString(any(fault)) AS fault, count() AS requests,
            argMin(error_detail, ts) AS detail, argMin(trace_id, ts) AS trace_id
        FROM requests WHERE run = {run:String} AND NOT warmup AND error != ''
        GROUP BY target, stage, error ORDER BY requests DESC, target, stage, error"""
    return [msgspec.convert(row, ErrorRow) for row in store.query(sql, {"run": run})]


def _workers(store: Store, run: str) -> list[WorkerRow]:
    sql = """
        SELECT toInt64OrZero(SpanAttributes['loadtest.worker']) AS worker,
            toInt64OrZero(SpanAttributes['loadtest.restarts']) AS restarts,
            toFloat64OrZero(SpanAttributes['loadtest.cpu_s']) AS cpu_s,
            toInt64OrZero(SpanAttributes['loadtest.peak_rss_bytes']) AS peak_rss_bytes,
            JSONExtract(SpanAttributes['loadtest.problems'], 'Array(String)') AS problems
        FROM otel_traces
        WHERE ServiceName = 'loadtest' AND SpanName = 'worker' AND SpanKind = 'Internal'
            AND SpanAttributes['loadtest.run'] = {run:String}
        ORDER BY worker LIMIT 1 BY worker"""
    return [msgspec.convert(row, WorkerRow) for row in store.query(sql, {"run": run})]


def _environment(store: Store, run: str) -> dict[str, str]:
    sql = """
        SELECT ScopeVersion AS version, ResourceAttributes AS resource FROM otel_traces
        WHERE ServiceName = 'loadtest' AND SpanName = 'run' AND SpanKind = 'Internal'
            AND SpanAttributes['loadtest.run'] = {run:String} LIMIT 1"""
    return next(
        ({"loadtest": row["version"], **_resource(row["resource"])} for row in store.query(sql, {"run": run})), {}
    )


def _resource(attributes: Mapping[str, str]) -> dict[str, str]:
    names = {"host.name": "on host", "process.runtime.version": "Python", "telemetry.sdk.version": "opentelemetry-sdk"}
    return {word: attributes[name] for name, word in names.items() if attributes.get(name)}
