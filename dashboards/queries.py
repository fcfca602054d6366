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
    a run that has ended, or has been silent for a minute, holds nothing back.
    """
    over = "SELECT run FROM events WHERE event IN ('run_ended', 'run_failed')"
    reports = (
        "SELECT Attributes['loadtest.run'] AS run, Attributes['loadtest.target'] AS target, max(TimeUnix) AS at, "
        f"argMax({samples.AT_NS} - toInt64(Value * 1e9), TimeUnix) AS oldest_ns FROM otel_metrics_gauge "
        f"WHERE MetricName = 'loadtest.oldest_age_s' AND {samples.within(WINDOW)} AND {OF_RUN} "
        f"AND run NOT IN ({over}) GROUP BY run, target, Attributes"
    )
    newest = f"SELECT *, max(at) OVER (PARTITION BY run) AS newest FROM ({reports})"
    live = (
        f"SELECT target, min(oldest_ns) AS t_ns FROM ({newest}) "
        "WHERE at > newest - 2 AND newest > now() - 60 GROUP BY target ORDER BY target"
    )
    targets = f"(SELECT arrayConcat([''], groupArray(target)) FROM ({live}))"
    ends_ns = f"(SELECT arrayConcat([toInt64(0)], groupArray(t_ns)) FROM ({live}))"
    return f"{SENT_NS} < transform(target, {targets}, {ends_ns}, toInt64({2**63 - 1}))"


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
    return (
        "SELECT fromUnixTimestamp64Nano(t_ns) AS time, low, high, sum(count) AS count "
        f"FROM ({of}) GROUP BY time, low, high ORDER BY time, low"
    )


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


def counts_so_far() -> str:
    """The newest counts of each stage and target that the workers reported in this time range."""
    names = ("scheduled", "sent", "done", "failed", "missed")
    parts = [f"SELECT *, '{name}' AS name FROM ({_latest(name, 'sum')})" for name in names] + [
        f"SELECT *, '{name}' AS name FROM ({_latest(name, 'gauge')})" for name in ("in_flight", "oldest_age_s")
    ]
    columns = ", ".join(f"anyIf(value, name = '{name}') AS {name}" for name in (*names, "in_flight", "oldest_age_s"))
    return (
        f"SELECT fromUnixTimestamp64Nano(max(at_ns)) AS reported, stage, target, {columns} "
        f"FROM ({' UNION ALL '.join(parts)}) GROUP BY stage, target ORDER BY min(at_ns), stage, target"
    )


def _latest(name: str, table: Literal["gauge", "sum"]) -> str:
    return samples.latest(f"loadtest.{name}", SAMPLES, table=table, by=SAMPLED_BY, window=WINDOW)


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
    of = samples.rate("loadtest.worker.cpu_s", OF_RUN, STEP, by=by, window=WINDOW)
    return _over_time(of, "worker, value AS cores")


def _over_time(of: str, columns: str) -> str:
    return f"SELECT fromUnixTimestamp64Nano(t_ns) AS time, {columns} FROM ({of}) ORDER BY time"
