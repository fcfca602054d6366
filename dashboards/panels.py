"""The table of panels: every one that Grafana and the local page show. A new panel is a new entry, and nothing else.

Each names metrics of the catalogue; its SQL is made by queries.py over loadtest.metrics and loadtest.samples, so that a
figure here is the report's figure.
"""

from dashboards import queries as q
from dashboards.types import Dashboard, DashboardName, Link, Panel, Threshold, Unit, Variable
from loadtest.validity import RULES

NOT_PROVIDED = "Not provided by what was watched in this time range."
CHOOSE = "Choose a request above."
THE_TRACE = Link("This request", "request", {"trace": "trace"})
BEHIND = Link("The requests behind it", "request", {"target": "target", "stage": "stage"}, around_s=60)

RUNS = """
    SELECT run AS value FROM (
        SELECT run, ts AS began FROM events WHERE event = 'run_started'
        UNION ALL SELECT run, fromUnixTimestamp64Nano(started_ns) AS began FROM runs
    ) GROUP BY run ORDER BY min(began) DESC LIMIT 500"""
EVENTS = f"""
    SELECT ts AS time, if(text = '', event, concat(event, ': ', text)) AS text,
        arrayStringConcat(arrayFilter(v -> v != '', [event, stage, target]), ',') AS tags, run
    FROM events
    WHERE {q.selected("run")} AND {q.WINDOW.of_requests} AND event NOT IN ('run_started', 'stage_ended')
    ORDER BY ts LIMIT 500"""
"""Annotations: beginnings of stages, workers lost, verdicts."""


def _met(column: str, label: str) -> Variable:
    """What the requests of the chosen runs have in a column."""
    where = f"{q.selected('run')} AND {q.WINDOW.of_requests}"
    return Variable(column, label, f"SELECT DISTINCT {column} AS value FROM requests WHERE {where} ORDER BY value")


RUN = Variable("run", "Run", RUNS)
ONE_RUN = Variable("run", "Run", RUNS, several=False)
TARGET = _met("target", "Target")
MODEL = _met("model", "Model")
REGION = _met("region", "Region")
STAGE = _met("stage", "Stage")
OBJECTIVE = Variable("objective", "Objective", several=False, default="0.999")
METRIC = Variable("metric", "Slowest by", options=q.ORDERS, several=False, default="ttft_ms")
ERROR = Variable("error", "Error", several=False)
TRACE = Variable("trace", "Trace", several=False)
KIND = Variable("kind", "Kind", options=("load", "capacity", "probe"))

VARIABLES = (RUN, TARGET, MODEL, REGION, STAGE, KIND, OBJECTIVE, METRIC, ERROR, TRACE)

DASHBOARDS = (
    Dashboard(
        name="live",
        title="Live run",
        doc="One run while it goes on, or as it was: what was asked of each endpoint, what came back, and whether the "
        "generator kept up.",
        variables=(ONE_RUN, TARGET, MODEL, REGION, STAGE, KIND),
        range_s=900,
        refresh_s=5,
    ),
    Dashboard(
        name="providers",
        title="Providers",
        doc="Endpoints side by side over days: whether they were there, how quick they are at which hour, and for how "
        "much money.",
        variables=(RUN, TARGET, MODEL, REGION, STAGE, KIND, OBJECTIVE),
        range_s=7 * 86_400,
    ),
    Dashboard(
        name="gpu",
        title="GPU",
        doc="What the GPUs and the engines on them did, beside the load that made them do it. A target that stands for "
        "several replicas shows all of them: they are its context, not one request's cause.",
        variables=(RUN, TARGET, MODEL, REGION, STAGE, KIND),
        range_s=900,
        refresh_s=5,
    ),
    Dashboard(
        name="request",
        title="Request",
        doc="From a figure to the requests behind it, to one of them: when each chunk came, what the server's own spans "
        "say, and what its GPUs did meanwhile.",
        variables=(RUN, TARGET, MODEL, REGION, STAGE, KIND, ERROR, METRIC, TRACE),
        range_s=3600,
    ),
)


def _latency(dashboard: DashboardName, name: str, title: str, question: str, metric: str) -> Panel:
    return Panel(
        dashboard=dashboard,
        name=name,
        title=title,
        question=question,
        view="time series",
        metrics=(metric,),
        sql=q.percentiles(metric),
        unit="ms",
        log=True,
        links=(BEHIND,),
    )


def _heat(name: str, title: str, question: str, metric: str) -> Panel:
    return Panel(
        dashboard="live",
        name=name,
        title=title,
        question=question,
        view="heatmap",
        metrics=(metric,),
        sql=q.heat(metric),
        unit="ms",
    )


def _by_hour(name: str, title: str, question: str, metric: str) -> Panel:
    return Panel(
        dashboard="providers",
        name=name,
        title=title,
        question=question,
        view="scatter",
        labels=("target", "stage", "stat"),
        lines=True,
        metrics=(metric,),
        sql=q.by_hour_of_day(metric),
        x_unit="hour",
        unit="ms",
    )


def _of_gpu(
    name: str,
    title: str,
    question: str,
    sql: str,
    unit: Unit,
    labels: tuple[str, ...] = ("gpu",),
    thresholds: tuple[Threshold, ...] = (),
    empty: str = NOT_PROVIDED,
) -> Panel:
    return Panel(
        dashboard="gpu",
        name=name,
        title=title,
        question=question,
        view="time series",
        labels=labels,
        sql=sql,
        unit=unit,
        thresholds=thresholds,
        width=8,
        empty=empty,
    )


def _of_engine(
    name: str, title: str, question: str, sql: str, unit: Unit, thresholds: tuple[Threshold, ...] = ()
) -> Panel:
    return _of_gpu(name, title, question, sql, unit, ("target", "engine"), thresholds)


PANELS = (
    Panel(
        dashboard="live",
        name="counts",
        title="Counts so far",
        question="How much was asked of each target, and what is still under way?",
        view="table",
        sql=q.counts_so_far(),
        units={"oldest_age_s": "s"},
        width=16,
        height=6,
        empty="No worker has reported in this time range.",
    ),
    Panel(
        dashboard="live",
        name="failed",
        title="Failed",
        question="Which share of this time range's requests failed by the endpoint's or the network's fault?",
        view="stat",
        metrics=("error_rate",),
        sql=q.failed_share(),
        unit="share",
        empty="No request of this time range says anything of an endpoint: there were none, or all ended by the plan's or the "
        "generator's own fault (see the errors by word).",
        width=8,
        height=6,
    ),
    Panel(
        dashboard="live",
        name="rate",
        title="Offered and achieved rate",
        question="Does each endpoint answer as many requests as come due?",
        view="time series",
        metrics=("requests_per_s",),
        sql=q.offered_and_achieved(),
        unit="1/s",
        links=(BEHIND,),
    ),
    Panel(
        dashboard="live",
        name="in-flight",
        title="In flight",
        question="How many requests wait for their answer right now?",
        view="time series",
        sql=q.gauge("loadtest.in_flight", "in_flight", "sum"),
        unit="count",
        width=6,
    ),
    Panel(
        dashboard="live",
        name="oldest",
        title="Oldest request in flight",
        question="For how long has the oldest of them been waiting?",
        view="time series",
        sql=q.gauge("loadtest.oldest_age_s", "oldest_age"),
        unit="s",
        width=6,
    ),
    _latency(
        "live",
        "ttft",
        "Time to first token",
        "How long until the first token, of the requests sent at each moment?",
        "ttft_ms",
    ),
    _heat(
        "ttft-heat",
        "Time to first token, all of them",
        "Is there one group of answers, or a fast and a slow one?",
        "ttft_ms",
    ),
    _latency("live", "itl", "Between tokens", "How evenly do tokens flow once they do?", "itl_ms"),
    _heat("itl-heat", "Between tokens, all of them", "Do tokens stall for some, though the median is calm?", "itl_ms"),
    _latency("live", "e2e", "End to end", "How long until the whole answer is there?", "e2e_ms"),
    _heat("e2e-heat", "End to end, all of them", "Is there one group of answers, or a fast and a slow one?", "e2e_ms"),
    Panel(
        dashboard="live",
        name="tokens",
        title="Output tokens",
        question="How many tokens a second does each endpoint produce?",
        view="time series",
        metrics=("output_tokens_per_s",),
        sql=q.figure("output_tokens_per_s", "tokens"),
        unit="tokens/s",
    ),
    Panel(
        dashboard="live",
        name="saturation",
        title="Latency against rate",
        question="From which rate on does an answer take longer?",
        view="scatter",
        metrics=("requests_per_s", "ttft_ms"),
        sql=q.latency_against_rate("ttft_ms", "p95"),
        x_unit="1/s",
        unit="ms",
        log=True,
    ),
    Panel(
        dashboard="live",
        name="error-rate",
        title="Error rate",
        question="Which share of requests fails by the endpoint's or the network's fault?",
        view="time series",
        metrics=("error_rate",),
        sql=q.figure("error_rate", "error_rate"),
        unit="share",
        links=(BEHIND,),
    ),
    Panel(
        dashboard="live",
        name="errors",
        title="Errors by word",
        question="What goes wrong, and since when?",
        labels=("target", "error"),
        view="time series",
        sql=q.errors_over_time(),
        unit="count",
        links=(Link("The requests that failed so", "request", {"target": "target", "error": "error"}, around_s=60),),
        empty="No request failed in this time range.",
    ),
    Panel(
        dashboard="live",
        name="errors-by-word",
        title="Errors in this time range",
        question="How often did each error occur, and what did the endpoint say?",
        view="table",
        sql=q.errors_by_word(),
        units={"failed": "count"},
        links=(Link("The requests that failed so", "request", {"target": "target", "error": "error"}),),
        empty="No request failed in this time range.",
    ),
    Panel(
        dashboard="live",
        name="generator-lag",
        title="Generator: delay of its own",
        question="Does the generator send on time and read at once, so that the figures above are the endpoint's?",
        labels=(),
        view="time series",
        metrics=("schedule_lag_ms", "read_lag_ms"),
        sql=q.generator_lag(),
        unit="ms",
        log=True,
        thresholds=(Threshold(0, "ok"), Threshold(RULES["schedule_lag"].limit, "bad")),
        width=6,
    ),
    Panel(
        dashboard="live",
        name="generator-cpu",
        title="Generator: CPU",
        question="Is a worker short of its core?",
        labels=("worker",),
        view="time series",
        sql=q.worker_cpu(),
        unit="share",
        thresholds=(Threshold(0, "ok"), Threshold(RULES["worker_cpu"].limit, "bad")),
        width=6,
    ),
    Panel(
        dashboard="live",
        name="runs",
        title="Runs",
        question="Which runs are there to look at?",
        view="table",
        sql=q.runs(),
        links=(Link("This run, in its time", "live", {"run": "run"}, between=("from_ms", "to_ms")),),
        empty="No run began before the end of this time range.",
    ),
    Panel(
        dashboard="providers",
        name="uptime",
        title="Uptime",
        question="When was each endpoint there?",
        view="state timeline",
        metrics=("success_rate",),
        sql=q.uptime(),
        unit="state",
        states=("down", "degraded", "up"),
        thresholds=(Threshold(0, "bad"), Threshold(1, "warn"), Threshold(2, "ok")),
        width=24,
        height=7,
        empty="No probes in this time range. Uptime is counted in probes (kind: probe); a load run never yields it.",
    ),
    Panel(
        dashboard="providers",
        name="budget",
        title="Error budget",
        question="How many of the failures that the objective allows are used up?",
        view="table",
        metrics=("success_rate",),
        sql=q.error_budget(),
        units={"uptime": "share", "budget_left": "share", "probes": "count", "failed": "count"},
        empty="No probes in this time range.",
    ),
    Panel(
        dashboard="providers",
        name="price",
        title="Price against speed",
        question="Which endpoint gives the most speed for its price?",
        view="scatter",
        labels=("target", "stage", "currency"),
        metrics=("output_speed",),
        sql=q.price_against_speed(),
        x_unit="tokens/s",
        unit="money/Mtok",
        empty="No target has a price: its `price:` in the plan.",
    ),
    Panel(
        dashboard="providers",
        name="figures",
        title="Side by side",
        question="How do the endpoints compare over the whole time range?",
        view="table",
        metrics=("ttft_ms", "itl_ms", "e2e_ms", "output_speed", "error_rate"),
        sql=q.side_by_side(),
        units={
            **{f"{metric}_{stat}": "ms" for metric in ("ttft_ms", "itl_ms", "e2e_ms") for stat in q.PERCENTILES},
            "output_speed_p50": "tokens/s",
            "error_rate": "share",
            "requests": "count",
        },
        width=24,
        height=6,
    ),
    _by_hour(
        "ttft-by-hour",
        "Time to first token by hour of day",
        "At which hours (UTC) does each endpoint take longer to begin?",
        "ttft_ms",
    ),
    _by_hour(
        "e2e-by-hour", "End to end by hour of day", "At which hours (UTC) does a whole answer take longer?", "e2e_ms"
    ),
    Panel(
        dashboard="gpu",
        name="load",
        title="Load",
        question="What was asked of the endpoint, and what did it answer?",
        view="time series",
        metrics=("requests_per_s",),
        sql=q.offered_and_achieved(),
        unit="1/s",
    ),
    _latency("gpu", "ttft", "Time to first token", "What did those who asked feel of it?", "ttft_ms"),
    _of_gpu(
        "utilization",
        "GPU utilization",
        "Which share of the time did each GPU work?",
        q.gpu("hw.gpu.utilization", "utilization"),
        "share",
    ),
    _of_gpu(
        "memory",
        "GPU memory",
        "How much of its memory does each GPU use?",
        q.gpu("hw.gpu.memory.usage", "memory"),
        "bytes",
    ),
    _of_gpu("power", "Power", "How much power does each GPU draw?", q.gpu("hw.power", "power"), "W"),
    _of_gpu(
        "temperature",
        "Temperature",
        "Does a GPU become too hot?",
        q.gpu("hw.temperature", "temperature"),
        "C",
        thresholds=(Threshold(0, "ok"), Threshold(80, "warn"), Threshold(90, "bad")),
    ),
    _of_gpu("clock", "Clock", "Does each GPU run at full speed?", q.gpu("gpu.clock.sm", "clock", "min"), "Hz"),
    _of_gpu(
        "throttling",
        "Throttling",
        "Which share of the time was a GPU's clock held down, and why?",
        q.throttling(),
        "share",
        labels=("gpu", "reason"),
        thresholds=(Threshold(0, "ok"), Threshold(0.01, "warn"), Threshold(0.1, "bad")),
        empty="Not provided: the exporter leaves its counters of throttling out (deploy/dcgm/counters.csv has them).",
    ),
    _of_engine(
        "queue",
        "Queue length",
        "How many requests wait for their turn at each engine?",
        q.engine("engine.queue_length", "waiting"),
        "count",
    ),
    _of_engine(
        "batch",
        "Batch size",
        "How many requests does each engine work on at once?",
        q.engine("engine.batch_size", "batch"),
        "count",
    ),
    _of_engine(
        "kv-cache",
        "KV cache",
        "Is the cache full, so that requests must wait or be put back?",
        q.engine("engine.kv_cache_utilization", "taken"),
        "share",
        thresholds=(Threshold(0, "ok"), Threshold(0.9, "warn"), Threshold(0.98, "bad")),
    ),
    Panel(
        dashboard="gpu",
        name="energy",
        title="Energy per token",
        question="How much energy does an output token cost, if this load is all that the GPUs do?",
        view="time series",
        labels=("target",),
        metrics=("energy_per_token",),
        sql=q.energy_per_token(),
        unit="J/token",
        empty="Not provided, or no token was produced.",
    ),
    Panel(
        dashboard="gpu",
        name="provided",
        title="What each source provides",
        question="Which values are there, from where, and how old is the newest?",
        view="table",
        sql=q.provided(),
        units={"age_s": "s"},
        empty="Nothing was watched: `gpu:` in the plan, or `loadtest gpu watch`, does that.",
    ),
    Panel(
        dashboard="request",
        name="requests",
        title="Requests",
        question="Which requests are behind the figure, the slowest first?",
        view="table",
        metrics=("ttft_ms", "e2e_ms", "tpot_ms", "schedule_lag_ms", "connect_ms", "uncertainty_ms"),
        sql=q.requests(),
        units=dict.fromkeys((*q.ORDERS, "connect_ms", "uncertainty_ms"), "ms"),
        links=(THE_TRACE,),
        width=24,
    ),
    Panel(
        dashboard="request",
        name="chunks",
        title="Chunks",
        question="How did the answer arrive, and where did it stall?",
        view="scatter",
        labels=("chunk",),
        sql=q.chunks(),
        x_unit="ms",
        unit="count",
        empty=CHOOSE,
    ),
    Panel(
        dashboard="request",
        name="phases",
        title="Where its time went",
        question="What took how long?",
        view="bar",
        labels=("phase",),
        sql=q.phases(),
        unit="ms",
        empty=CHOOSE,
    ),
    Panel(
        dashboard="request",
        name="spans",
        title="Spans",
        question="What do the endpoint's own spans say of this request?",
        view="table",
        sql=q.trace_spans(),
        units={"after_ms": "ms", "dur_ms": "ms"},
        empty=CHOOSE,
    ),
    Panel(
        dashboard="request",
        name="attributes",
        title="Attributes",
        question="What else is known of it?",
        view="table",
        sql=q.trace_attributes(),
        empty=CHOOSE,
    ),
    Panel(
        dashboard="request",
        name="gpu",
        title="GPUs and engines meanwhile",
        question="In which state were the target's GPUs and engines while it ran?",
        view="table",
        sql=q.meanwhile(),
        units={"age_s": "s"},
        width=24,
        empty="Choose a request above; or its target's GPUs were not watched then.",
    ),
)
