"""Templates of the panels' SQL, over METRICS (loadtest.metrics) and the samples (loadtest.samples)."""

from collections.abc import Sequence
from typing import Literal

from loadtest import metrics, samples
from loadtest.metrics import BY, SENT_NS, Window

STEP = "{step_ns:Int64}"
WINDOW = Window("{from_ns:Int64}", "{to_ns:Int64}")
PERCENTILES = ("p50", "p95", "p99")


def selected(*names: str, column: str = "{name}") -> str:
    """The condition for rows that the selection takes in; a variable of which nothing is chosen takes in everything."""
    return " AND ".join(
        f"(empty({{{name}:Array(String)}}) OR {column.replace('{name}', name)} IN {{{name}:Array(String)}})"
        for name in names
    )


REQUESTS = selected("kind", "run", "stage", "target", "model", "region")
SAMPLES = selected("run", "stage", "target", column="Attributes['loadtest.{name}']")
OF_RUN = selected("run", column="Attributes['loadtest.run']")
SAMPLED_BY = samples.labels(("loadtest.stage", "loadtest.target"))


def _settled() -> str:
    """Sent before the oldest request that is still in flight, of each target.

    Requests become rows when they end. Of those sent since, the quick ones have ended and the slow ones have not: a
    percentile of them would flatter the endpoint, the more the worse it hangs. How old the oldest is, the workers report;
    a run that has ended, or has been silent for a minute, holds nothing back: of a time range that is over nothing is read.
    """
    over = "SELECT run FROM events WHERE event IN ('run_ended', 'run_failed')"
    reports = (
        "SELECT Attributes['loadtest.run'] AS run, Attributes['loadtest.target'] AS target, max(TimeUnix) AS at, "
        f"argMax({samples.AT_NS} - toInt64(Value * 1e9), TimeUnix) AS oldest_ns FROM otel_metrics_gauge "
        f"PREWHERE MetricName = 'loadtest.oldest_age_s' AND {samples.within(WINDOW)} AND TimeUnix > now() - 62 "
        f"WHERE {OF_RUN} AND run NOT IN ({over}) GROUP BY run, target, Attributes"
    )
    newest = f"SELECT *, max(at) OVER (PARTITION BY run) AS newest FROM ({reports})"
    live = (
        f"SELECT target, min(oldest_ns) AS t_ns FROM ({newest}) "
        "WHERE at > newest - 2 AND newest > now() - 60 GROUP BY target ORDER BY target"
    )
    # one scalar, written twice, is computed once
    ends = (
        f"(SELECT (arrayConcat([''], groupArray(target)), arrayConcat([toInt64(0)], groupArray(t_ns))) FROM ({live}))"
    )
    return f"{SENT_NS} < transform(target, {ends}.1, {ends}.2, toInt64({2**63 - 1}))"


SETTLED = _settled()


def percentiles(metric: str, stats: Sequence[str] = PERCENTILES) -> str:
    """Of the requests sent in each bucket of time, as far as all of them are known."""
    of = metrics.series(metric, f"{REQUESTS} AND {SETTLED}", STEP, by=BY, stats=stats, window=WINDOW)
    shown = ", ".join(f"{metric}_{stat} AS {stat}" for stat in stats)
    return _over_time(of, f"stage, target, {shown}")


def figure(metric: str, label: str) -> str:
    """A rate, or a share, over time, in a column `label`."""
    share = metrics.METRICS[metric].kind == "share"
    where = f"{REQUESTS} AND {SETTLED}" if share else REQUESTS
    return _over_time(metrics.series(metric, where, STEP, window=WINDOW), f"stage, target, {metric} AS {label}")


def heat(metric: str) -> str:
    """How many values there were of each size, over the selected targets and stages."""
    of = metrics.heatmap(metric, f"{REQUESTS} AND {SETTLED}", STEP, window=WINDOW)
    return f"SELECT fromUnixTimestamp64Nano(t_ns) AS time, low, high, count FROM ({of}) ORDER BY time, low"


def gauge(name: str, label: str, over_series: Literal["avg", "min", "max", "sum"] = "max") -> str:
    of = samples.gauge(name, SAMPLES, STEP, by=SAMPLED_BY, window=WINDOW, over_series=over_series)
    return _over_time(of, f"stage, target, value AS {label}")


def offered_and_achieved() -> str:
    """Two rates side by side: what came due, and what was answered without a fault."""
    offered = samples.rate("loadtest.scheduled", SAMPLES, STEP, by=SAMPLED_BY, window=WINDOW)
    achieved = metrics.series("requests_per_s", REQUESTS, STEP, window=WINDOW)
    both = (
        f"SELECT t_ns, stage, target, value AS offered, NULL AS achieved FROM ({offered}) UNION ALL "
        f"SELECT t_ns, stage, target, NULL AS offered, requests_per_s AS achieved FROM ({achieved})"
    )
    of = f"SELECT t_ns, stage, target, any(offered) AS offered, any(achieved) AS achieved FROM ({both}) GROUP BY ALL"
    return _over_time(of, "stage, target, offered, achieved")


def runs() -> str:
    """The newest runs that began before the end of the time range, those that go on as well."""
    over = "countIf(event IN ('run_ended', 'run_failed')) > 0 OR min(ts) < now64(9) - INTERVAL 1 DAY"
    known = (
        "SELECT run, plan_name AS plan, fromUnixTimestamp64Nano(started_ns) AS began, "
        "fromUnixTimestamp64Nano(ended_ns) AS last FROM runs UNION ALL "
        "SELECT run, JSONExtractString(argMin(data, ts), 'plan_name') AS plan, min(ts) AS began, "
        f"if({over}, max(ts), now64(9)) AS last FROM events GROUP BY run"
    )
    return (
        "SELECT run, max(plan) AS plan, min(began) AS started, max(last) AS ended, "
        "toUnixTimestamp64Milli(started) - 5000 AS from_ms, toUnixTimestamp64Milli(ended) + 5000 AS to_ms "
        f"FROM ({known}) GROUP BY run HAVING started < fromUnixTimestamp64Nano({WINDOW.to_ns}) ORDER BY started DESC LIMIT 50"
    )


def counts_so_far() -> str:
    """The newest counts of each stage and target that the workers reported in this time range."""
    counts, gauges = ("scheduled", "sent", "done", "failed", "missed"), ("in_flight", "oldest_age_s")
    newest = f"{_latest(counts, 'sum')} UNION ALL {_latest(gauges, 'gauge')}"
    columns = ", ".join(f"anyIf(value, name = 'loadtest.{name}') AS {name}" for name in (*counts, *gauges))
    return (
        f"SELECT fromUnixTimestamp64Nano(max(at_ns)) AS reported, stage, target, {columns} "
        f"FROM ({newest}) GROUP BY stage, target ORDER BY min(at_ns), stage, target"
    )


def _latest(names: Sequence[str], table: Literal["gauge", "sum"]) -> str:
    full = [f"loadtest.{name}" for name in names]
    return samples.latest(full, SAMPLES, table=table, by=SAMPLED_BY, window=WINDOW)


def failed_share() -> str:
    """Of the requests sent in this time range."""
    of = metrics.figures(["error_rate"], f"{REQUESTS} AND {SETTLED} AND {WINDOW.of_requests}")
    return f"SELECT target, stage, error_rate FROM ({of}) WHERE error_rate_n > 0 ORDER BY target, stage"


def errors_over_time() -> str:
    """How many requests failed in each bucket, by the error's word. By the end of the request, so that none is held back."""
    return (
        f"SELECT fromUnixTimestamp64Nano(t_ns) AS time, target, error, count() AS failed FROM "
        f"(SELECT {metrics.bucket('done_ns', STEP)}, target, error FROM requests WHERE {REQUESTS} AND error != '' "
        f"AND {WINDOW.ended}) GROUP BY time, target, error ORDER BY time"
    )


def errors_by_word() -> str:
    return (
        "SELECT target, error, fault, count() AS failed, anyLast(error_detail) AS example FROM requests "
        f"WHERE {REQUESTS} AND error != '' AND {WINDOW.ended} GROUP BY target, error, fault ORDER BY failed DESC"
    )


def latency_against_rate(metric: str, stat: str) -> str:
    """For each bucket of time a point: how many requests a second were answered, and how long those sent then took."""
    rate = metrics.series("requests_per_s", REQUESTS, STEP, window=WINDOW)
    of = metrics.series(metric, f"{REQUESTS} AND {SETTLED}", STEP, stats=[stat], window=WINDOW)
    return (
        f"SELECT target, stage, requests_per_s AS x, {metric}_{stat} AS y FROM ({of}) AS latency "
        f"JOIN ({rate}) AS rate USING (t_ns, stage, target) ORDER BY target, x"
    )


def generator_lag() -> str:
    """The generator's own delays, worst over its workers' requests."""
    lags = ("schedule_lag_ms", "read_lag_ms")
    parts = [metrics.series(name, REQUESTS, STEP, by=(), stats=["p99"], window=WINDOW) for name in lags]
    shown = "schedule_lag_ms_p99 AS schedule_lag_p99, read_lag_ms_p99 AS read_lag_p99"
    return _over_time(f"SELECT * FROM ({parts[0]}) AS a FULL JOIN ({parts[1]}) AS b USING (t_ns)", shown)


def worker_cpu() -> str:
    by = samples.labels(("loadtest.worker",))
    of = samples.rate("loadtest.worker.cpu_s", OF_RUN, STEP, by=by, window=WINDOW, per="sample")
    return _over_time(of, "worker, value AS cores")


def _over_time(of: str, columns: str, where: str = "true") -> str:
    return f"SELECT fromUnixTimestamp64Nano(t_ns) AS time, {columns} FROM ({of}) WHERE {where} ORDER BY time"


PROBES = f"kind = 'probe' AND {selected('run', 'stage', 'target', 'model', 'region')} AND NOT warmup"
MEASURED = f"{REQUESTS} AND NOT warmup"


def uptime() -> str:
    """What the probes sent in each bucket of time met with: 0 all failed, 1 some did, 2 none did."""
    of = metrics.series("success_rate", PROBES, STEP, window=WINDOW)
    return _over_time(
        of, "stage, target, multiIf(success_rate = 0, 0, success_rate < 1, 1, 2) AS state", "success_rate_n > 0"
    )


def error_budget() -> str:
    """Uptime in probes, and how much of the failures that {objective} allows is left; below 0 it is overdrawn."""
    of = metrics.figures(["success_rate"], f"{PROBES} AND {WINDOW.of_requests}")
    budget = "1 - (1 - success_rate) / nullIf(1 - toFloat64OrNull({objective:String}), 0)"
    return (
        "SELECT target, stage, success_rate AS uptime, success_rate_n AS probes, "
        f"success_rate_n - success_rate_hits AS failed, {budget} AS budget_left FROM ({of}) ORDER BY target, stage"
    )


def by_hour_of_day(metric: str, stats: Sequence[str] = PERCENTILES) -> str:
    """Over all days of the time range, UTC."""
    where = f"{MEASURED} AND {WINDOW.of_requests}"
    of = metrics.figures([metric], where, by=("toHour(ts, 'UTC') AS hour", *BY), stats=stats)
    pairs = ", ".join(f"('{stat}', {metric}_{stat})" for stat in stats)
    return (
        f"SELECT stage, target, pair.1 AS stat, toFloat64(hour) AS x, pair.2 AS y FROM ({of}) "
        f"ARRAY JOIN [{pairs}] AS pair WHERE y IS NOT NULL ORDER BY target, stage, stat, x"
    )


def side_by_side() -> str:
    """The targets' figures over the whole time range."""
    names = ("ttft_ms", "itl_ms", "e2e_ms", "output_speed", "error_rate")
    of = metrics.figures(names, f"{MEASURED} AND {WINDOW.of_requests}", stats=PERCENTILES)
    shown = [f"{name}_{stat}" for name in names[:3] for stat in PERCENTILES]
    return (
        f"SELECT target, stage, error_rate_n AS requests, error_rate, {', '.join(shown)}, output_speed_p50 FROM ({of})"
    )


def price_against_speed() -> str:
    """A point a target: its median output speed, and what a million output tokens cost by its newest price."""
    of = metrics.figures(["output_speed"], f"{MEASURED} AND {WINDOW.of_requests}", stats=["p50"])
    told = "JSONExtractKeysAndValues(SpanAttributes['loadtest.prices'], 'Tuple(Float64, Float64, String)')"
    prices = (
        "SELECT told.1 AS target, argMax(told.2, Timestamp) AS price FROM otel_traces "
        f"ARRAY JOIN {told} AS told WHERE ServiceName = 'loadtest' AND SpanName = 'run' GROUP BY target"
    )
    return (
        "SELECT stage, target, price.3 AS currency, output_speed_p50 AS x, price.2 AS y "
        f"FROM ({of}) AS speeds JOIN ({prices}) AS prices USING (target) WHERE x IS NOT NULL ORDER BY x"
    )


WATCHED = (
    "(empty({run:Array(String)}) OR Attributes['loadtest.run'] IN arrayPushBack({run:Array(String)}, '')) "
    "AND (empty({target:Array(String)}) OR hasAny(splitByChar(',', Attributes['loadtest.target']), {target:Array(String)}))"
)
"""Samples of GPUs and engines: of the chosen runs or of no run, of what the chosen targets run on."""
OF_GPU = "Attributes['hw.type'] = 'gpu'"
_SHORT_ID = "replaceRegexpOne(Attributes['hw.id'], '^(GPU-[0-9a-f]{8})[-0-9a-f]+', '\\\\1')"
GPU = f"trimLeft(concat(Attributes['loadtest.target'], ' ', {_SHORT_ID})) AS gpu"
ENGINE = ("Attributes['loadtest.target'] AS target", "Attributes['engine.id'] AS engine")


def gpu(name: str, label: str, within_bucket: Literal["avg", "min", "max"] = "avg") -> str:
    of = samples.gauge(name, f"{WATCHED} AND {OF_GPU}", STEP, by=(GPU,), window=WINDOW, within_bucket=within_bucket)
    return _over_time(of, f"gpu, value AS {label}")


def engine(name: str, label: str) -> str:
    of = samples.gauge(name, WATCHED, STEP, by=ENGINE, window=WINDOW)
    return _over_time(of, f"target, engine, value AS {label}")


def throttling() -> str:
    """A source counts for how long a clock was held down, or says whether it is now: the larger of what is known. A count that
    was read a little later than its sample's time says has grown by more than the time between them: all of it is the most."""
    by = (GPU, "Attributes['reason'] AS reason")
    counted = samples.rate("gpu.throttle.time", WATCHED, STEP, by=by, window=WINDOW, per="sample")
    seen = samples.gauge("gpu.throttle.active", WATCHED, STEP, by=by, window=WINDOW, within_bucket="avg")
    both = f"SELECT * FROM ({counted}) UNION ALL SELECT * FROM ({seen})"
    of = f"SELECT t_ns, gpu, reason, least(max(value), 1) AS value FROM ({both}) GROUP BY t_ns, gpu, reason"
    return _over_time(of, "gpu, reason, value AS throttled")


def energy_per_token() -> str:
    """As the metric energy_per_token: the power of a target's GPUs together, over its output tokens a second."""
    served = "arrayJoin(splitByChar(',', Attributes['loadtest.target'])) AS target"
    watts = samples.gauge(
        "hw.power", f"{WATCHED} AND {OF_GPU}", STEP, by=(served,), window=WINDOW, within_bucket="avg", over_series="sum"
    )
    tokens = metrics.series("output_tokens_per_s", REQUESTS, STEP, window=WINDOW)
    both = (
        f"SELECT t_ns, target, value AS w, NULL AS tokens_per_s FROM ({watts}) "
        f"UNION ALL SELECT t_ns, target, NULL, output_tokens_per_s FROM ({tokens})"  # dearer as a join
    )
    of = f"SELECT t_ns, target, sum(w) / sum(tokens_per_s) AS j FROM ({both}) GROUP BY t_ns, target"
    return _over_time(of, "target, j AS energy", "isFinite(j)")


EXPECTED = (
    "hw.gpu.utilization", "hw.gpu.memory.usage", "hw.power", "hw.energy", "hw.temperature", "gpu.clock.sm",
    "gpu.throttle.time", "gpu.throttle.active", "engine.queue_length", "engine.batch_size", "engine.kv_cache_utilization",
)  # fmt: skip
"""What the GPU dashboard shows. Of a target that lacks one of them it says so."""
_VALUE = "argMax(Value, TimeUnix)"


def provided() -> str:
    """The newest value of each name and device of each target, with its age at the end of the time range."""
    names = f"[{', '.join(map(repr, EXPECTED))}]"
    newest = " UNION ALL ".join(
        f"SELECT MetricName, Attributes, {_VALUE} AS value, any(MetricUnit) AS unit, max({samples.AT_NS}) AS at_ns "
        f"FROM otel_metrics_{table} PREWHERE MetricName IN {names} AND {samples.within(WINDOW)} "
        "GROUP BY MetricName, Attributes"  # attributes are looked into once a series, and not in each sample
        for table in ("gauge", "sum")
    )
    series = (
        "SELECT Attributes['loadtest.target'] AS target, MetricName AS name, "
        "concat(Attributes['hw.id'], Attributes['engine.id'], if(Attributes['reason'] = '', '', ' '), Attributes['reason']) "
        "AS device, Attributes['loadtest.source_metric'] AS source, toString(round(argMax(value, at_ns), 4)) AS newest, "
        f"any(unit) AS unit, ({WINDOW.to_ns} - max(at_ns)) / 1e9 AS age_s FROM ({newest}) "
        f"WHERE {WATCHED} GROUP BY target, name, device, source"
    )
    missing = (
        "SELECT target, arrayJoin(arrayFilter(n -> NOT has(names, n), "
        f"{names})) AS name, '' AS device, '' AS source, 'not provided' AS newest, '' AS unit, NULL AS age_s "
        f"FROM (SELECT target, groupUniqArray(name) AS names FROM ({series}) GROUP BY target)"
    )
    return f"SELECT * FROM ({series} UNION ALL {missing}) ORDER BY target, name, device"


ORDERS = ("ttft_ms", "e2e_ms", "tpot_ms", "schedule_lag_ms")


def requests() -> str:
    """Single requests of the time range, those with the largest {metric} first: as many as one looks at."""
    failed = "({error:String} = '' OR error = {error:String})"
    of = metrics.rows([*ORDERS, "connect_ms", "uncertainty_ms"], f"{REQUESTS} AND {failed} AND {WINDOW.of_requests}")
    by = ", ".join(f"{{metric:String}} = '{name}', {name}" for name in ORDERS)
    return (
        "SELECT fromUnixTimestamp64Nano(t_ns) AS time, trace_id AS trace, run, stage, target, seq, "
        f"{', '.join(ORDERS)}, connect_ms, uncertainty_ms, error FROM ({of}) "
        f"ORDER BY multiIf({by}, e2e_ms) DESC NULLS LAST, t_ns LIMIT 100"
    )


TRACE = "trace_id = {trace:String}"
KINDS = "['empty', 'reasoning', 'content', 'tool call', 'media', 'usage']"


def chunks() -> str:
    """How an answer grew: after so many milliseconds so many chunks had arrived."""
    arrays = "chunk_offset_ns AS offset_ns, chunk_kind AS kind_, arrayEnumerate(chunk_offset_ns) AS number"
    return (
        f"SELECT {KINDS}[kind_ + 1] AS chunk, offset_ns / 1e6 AS x, toFloat64(number) AS y "
        f"FROM attempts ARRAY JOIN {arrays} WHERE {TRACE} ORDER BY x"
    )


def phases() -> str:
    """Where the time of one request went."""
    parts = {
        "waited for a worker": "started_ns - due_ns",
        "name looked up": "dns_dur_ns",
        "connected": "connect_dur_ns",
        "TLS": "tls_dur_ns",
        "to the first byte": "first_byte_ns - sent_ns",
        "from there to the first token": "sent_ns + first_token_ns - first_byte_ns",
        "first to last token": "last_token_ns - first_token_ns",
        "to the end": "done_ns - sent_ns - ifNull(last_token_ns, first_byte_ns - sent_ns)",
    }
    pairs = ", ".join(f"('{name}', ({sql}) / 1e6)" for name, sql in parts.items())
    return (
        f"SELECT part.1 AS phase, part.2 AS ms FROM attempts ARRAY JOIN [{pairs}] AS part "
        f"WHERE {TRACE} AND ms IS NOT NULL"
    )


def trace_spans() -> str:
    """Every span of the trace, ours and those that the endpoint's own exporters sent to this store."""
    return (
        f"SELECT Timestamp AS time, ServiceName AS service, SpanName AS span, SpanKind AS kind, "
        f"dateDiff('microsecond', min(Timestamp) OVER (), Timestamp) / 1000 AS after_ms, Duration / 1e6 AS dur_ms, "
        f"StatusCode AS status, StatusMessage AS message, SpanId AS span_id, ParentSpanId AS parent FROM otel_traces "
        f"WHERE {_OF_TRACE} ORDER BY Timestamp"
    )


def trace_attributes() -> str:
    return (
        "SELECT SpanName AS span, pair.1 AS attribute, pair.2 AS value FROM otel_traces "
        "ARRAY JOIN CAST(SpanAttributes, 'Array(Tuple(String, String))') AS pair "
        f"WHERE {_OF_TRACE} AND attribute NOT LIKE 'loadtest.chunk\\_%' ORDER BY Timestamp, span, attribute"
    )


def meanwhile() -> str:
    """Samples of its target's GPUs and engines between sending and end; where there is none, the last one before, if it
    is not older than 60 s: `age_s` says how old it was when the request was sent."""
    facts = "any(run), any(target), any(ifNull(sent_ns, started_ns)), any(done_ns)"
    run, target, sent_ns, done_ns = (f"request.{number}" for number in range(1, 5))
    window = Window(f"{sent_ns} - 60000000000", f"{done_ns} + 1")
    mine = (
        f"has(splitByChar(',', Attributes['loadtest.target']), {target}) AND Attributes['loadtest.run'] IN ('', {run})"
    )
    during = f"{samples.AT_NS} >= {sent_ns}"
    return (
        f"WITH (SELECT ({facts}) FROM attempts WHERE {TRACE}) AS request "
        "SELECT MetricName AS name, concat(any(Attributes['hw.id']), any(Attributes['engine.id'])) AS device, "
        f"any(Attributes['reason']) AS reason, countIf({during}) AS during, "
        f"if(during > 0, minIf(Value, {during}), {_VALUE}) AS lowest, "
        f"if(during > 0, maxIf(Value, {during}), {_VALUE}) AS highest, any(MetricUnit) AS unit, "
        f"if(during > 0, 0, ({sent_ns} - max({samples.AT_NS})) / 1e9) AS age_s FROM otel_metrics_gauge "
        f"PREWHERE match(MetricName, '^(hw|gpu|engine)[.]') AND {samples.within(window)} WHERE {mine} "  # maps are read last
        "GROUP BY name, Attributes ORDER BY name, device, reason"
    )


_TRACE_TIMES = "SELECT {} FROM otel_traces_trace_id_ts WHERE TraceId = {{trace:String}}"
_OF_TRACE = (
    f"TraceId = {{trace:String}} AND Timestamp >= ({_TRACE_TIMES.format('min(Start)')}) "
    f"AND Timestamp <= ({_TRACE_TIMES.format('max(End)')}) + 1"
)
