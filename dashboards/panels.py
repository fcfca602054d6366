"""The table of panels: every one that Grafana and the local page show. A new panel is a new entry, and nothing else.

Each names metrics of the catalogue; its SQL is made by queries.py over loadtest.metrics and loadtest.samples, so that a
figure here is the report's figure.
"""

from dashboards import queries as q
from dashboards.types import Dashboard, Link, Panel, Threshold, Variable

BEHIND = Link("The requests behind it", "request", {"target": "target", "stage": "stage"}, around_s=60)

RUN = Variable("run", "Run", "SELECT run AS value FROM runs ORDER BY started_ns DESC LIMIT 200")
TARGET = Variable(
    "target", "Target", f"SELECT DISTINCT target AS value FROM requests WHERE {q.selected('run')} ORDER BY value"
)
MODEL = Variable(
    "model", "Model", f"SELECT DISTINCT model AS value FROM requests WHERE {q.selected('run')} ORDER BY value"
)
REGION = Variable(
    "region", "Region", f"SELECT DISTINCT region AS value FROM requests WHERE {q.selected('run')} ORDER BY value"
)
STAGE = Variable(
    "stage", "Stage", f"SELECT DISTINCT stage AS value FROM requests WHERE {q.selected('run')} ORDER BY value"
)
KIND = Variable("kind", "Kind", options=("load", "capacity", "probe"))

DASHBOARDS = (
    Dashboard(
        name="live",
        title="Live run",
        doc="One run while it goes on, or as it was: what was asked of each endpoint, what came back, and whether the "
        "generator kept up.",
        variables=(RUN, TARGET, MODEL, REGION, STAGE, KIND),
        range_s=900,
        refresh_s=5,
    ),
)

PANELS = (
    Panel(
        dashboard="live",
        name="counts",
        title="Counts so far",
        question="How much was asked of each target, and what is still under way?",
        view="table",
        sql=q.counts_so_far(),
        units={"oldest_age_s": "s"},
        width=24,
        height=5,
        empty="No worker has reported in this time range.",
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
    Panel(
        dashboard="live",
        name="ttft",
        title="Time to first token",
        question="How long until the first token, of the requests sent at each moment?",
        view="time series",
        metrics=("ttft_ms",),
        sql=q.percentiles("ttft_ms"),
        unit="ms",
        log=True,
        links=(BEHIND,),
    ),
    Panel(
        dashboard="live",
        name="ttft-heat",
        title="Time to first token, all of them",
        question="Is there one group of answers, or a fast and a slow one?",
        view="heatmap",
        metrics=("ttft_ms",),
        sql=q.heat("ttft_ms"),
        unit="ms",
    ),
    Panel(
        dashboard="live",
        name="itl",
        title="Between tokens",
        question="How evenly do tokens flow once they do?",
        view="time series",
        metrics=("itl_ms",),
        sql=q.percentiles("itl_ms"),
        unit="ms",
        log=True,
        links=(BEHIND,),
    ),
    Panel(
        dashboard="live",
        name="itl-heat",
        title="Between tokens, all of them",
        question="Do tokens stall for some, though the median is calm?",
        view="heatmap",
        metrics=("itl_ms",),
        sql=q.heat("itl_ms"),
        unit="ms",
    ),
    Panel(
        dashboard="live",
        name="e2e",
        title="End to end",
        question="How long until the whole answer is there?",
        view="time series",
        metrics=("e2e_ms",),
        sql=q.percentiles("e2e_ms"),
        unit="ms",
        log=True,
        links=(BEHIND,),
    ),
    Panel(
        dashboard="live",
        name="e2e-heat",
        title="End to end, all of them",
        question="Is there one group of answers, or a fast and a slow one?",
        view="heatmap",
        metrics=("e2e_ms",),
        sql=q.heat("e2e_ms"),
        unit="ms",
    ),
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
        thresholds=(Threshold(0, "ok"), Threshold(0.01, "warn"), Threshold(0.05, "bad")),
        links=(BEHIND,),
    ),
    Panel(
        dashboard="live",
        name="errors",
        title="Errors by word",
        question="What goes wrong, and since when?",
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
        view="time series",
        metrics=("schedule_lag_ms", "read_lag_ms"),
        sql=q.generator_lag(),
        unit="ms",
        log=True,
        thresholds=(Threshold(0, "ok"), Threshold(10, "warn"), Threshold(50, "bad")),
        width=6,
    ),
    Panel(
        dashboard="live",
        name="generator-cpu",
        title="Generator: CPU",
        question="Is a worker short of its core?",
        view="time series",
        sql=q.worker_cpu(),
        unit="share",
        thresholds=(Threshold(0, "ok"), Threshold(0.7, "warn"), Threshold(0.9, "bad")),
        width=6,
    ),
)
