"""The table of alert rules. Each is one query that yields a number for each thing that may be wrong, and a limit for it.

Rules read no dashboard's variables, and no Grafana macros: the store's own clock says what is recent. What counts as an
endpoint's failure is counted in probes alone (`kind = 'probe'`), so that a capacity test that overloads an endpoint on
purpose wakes nobody up. Each says what having no rows and a failing query mean: docs/runbook.md has a section for each.
"""

from typing import Literal

from msgspec import Struct

from dashboards.types import DashboardName
from loadtest import metrics, samples
from loadtest.metrics import FAILED, OK, SENT_NS, Window
from loadtest.validity import RULES

OBJECTIVE = 0.999
"""The share of probes that shall succeed: what the burn rate is counted from."""


class Alert(Struct, frozen=True, kw_only=True):
    """Fires for each row whose `value` has been above `above` for `for_s`. The row's other columns are its labels."""

    name: str  # its uid in Grafana, and the heading of its section in the runbook
    title: str
    sql: str
    above: float
    for_s: int
    severity: Literal["page", "ticket"]
    summary: str  # with {{ $labels.x }} and {{ $values.A.Value }} as Grafana has it
    no_data: Literal["OK", "NoData", "Alerting"] = "OK"
    on_error: Literal["OK", "Error", "Alerting"] = "Error"
    panel: tuple[DashboardName, str]  # where to look first


def _last(seconds: int) -> Window:
    return Window(f"toUnixTimestamp64Nano(now64(9) - INTERVAL {seconds} SECOND)", "toUnixTimestamp64Nano(now64(9))")


def _burn(long_s: int, short_s: int) -> str:
    """How many times faster than the objective allows the budget is used up, over both windows; 0 below two failures.

    The long window says that it matters, the short one that it still goes on (Google, The Site Reliability Workbook,
    chapter 5).
    """

    def over(seconds: int) -> str:
        probes = f"kind = 'probe' AND NOT warmup AND {_last(seconds).of_requests}"
        of = metrics.figures(["success_rate"], probes)
        burned = f"(1 - success_rate) / {1 - OBJECTIVE:.6g}"
        return f"SELECT stage, target, {burned} AS burn, success_rate_n - success_rate_hits AS failed FROM ({of})"

    return (
        "SELECT target, stage, if(short.failed >= 2, least(long.burn, short.burn), 0) AS value "
        f"FROM ({over(long_s)}) AS long JOIN ({over(short_s)}) AS short USING (target, stage) "
        "WHERE isFinite(long.burn) AND isFinite(short.burn)"
    )


def _down() -> str:
    """How many probes in a row have failed, of the last ten minutes."""
    return (
        f"SELECT target, stage, toFloat64(countIf({FAILED} AND {SENT_NS} > last_ok_ns)) AS value FROM ("
        f"SELECT *, maxIf({SENT_NS}, {OK}) OVER (PARTITION BY target, stage) AS last_ok_ns FROM requests "
        f"WHERE kind = 'probe' AND NOT warmup AND {_last(600).of_requests}) GROUP BY target, stage"
    )


def _silent() -> str:
    """How many times longer than the longest pause of the last day, of a minute at least, a target has not been probed.

    Only where it was probed for an hour or more: a few probes by hand are no prober.
    """
    gaps = "SELECT target, ts, ts - lagInFrame(ts, 1, ts) OVER (PARTITION BY target ORDER BY ts) AS gap FROM requests"
    seconds = "dateDiff('second', {}, {})"
    return (
        f"SELECT target, {seconds.format('max(ts)', 'now64(9)')} / greatest(max(toFloat64(gap)), 60) AS value "
        f"FROM ({gaps} WHERE kind = 'probe' AND {_last(86_400).of_requests}) GROUP BY target "
        f"HAVING {seconds.format('min(ts)', 'max(ts)')} >= 3600"
    )


def _throttled() -> str:
    """Share of the last five minutes that a GPU's clock was held down, but for the limits that it always works under: of
    its power, and of GPUs that keep step."""
    window, by = _last(300), ("Attributes['hw.id'] AS gpu", "Attributes['reason'] AS reason")
    harmful = "Attributes['reason'] NOT IN ('power', 'sync_boost')"
    every = 300_000_000_000
    counted = samples.rate("gpu.throttle.time", harmful, every, by=by, window=window)
    seen = samples.gauge("gpu.throttle.active", harmful, every, by=by, window=window, within_bucket="avg")
    # two buckets may share the window: a count's growth adds up over them, of a share the larger one counts
    grown = f"SELECT gpu, reason, sum(value) AS value FROM ({counted}) GROUP BY gpu, reason"
    shares = f"SELECT gpu, reason, max(value) AS value FROM ({seen}) GROUP BY gpu, reason"
    return f"SELECT gpu, reason, max(value) AS value FROM ({grown} UNION ALL {shares}) GROUP BY gpu, reason"


def _generator() -> str:
    """What of a running generator is beyond its limit, as a multiple of that limit: its delays, its CPU, lost workers."""
    window = _last(120)
    lag = metrics.figures(["schedule_lag_ms"], window.of_requests, by=("run",), stats=["p99"])
    span = "dateDiff('second', min(TimeUnix), max(TimeUnix))"
    cores = (
        f"SELECT {', '.join(_RUN_AND_WORKER)}, (max(Value) - min(Value)) / {span} AS cores FROM otel_metrics_sum "
        f"WHERE MetricName = 'loadtest.worker.cpu_s' AND {samples.within(window)} GROUP BY run, worker HAVING {span} >= 30"
    )
    lost = f"SELECT run, count() AS n FROM events WHERE event = 'worker_lost' AND {window.of_requests} GROUP BY run"
    lag_limit, cpu_limit = RULES["schedule_lag"].limit, RULES["worker_cpu"].limit
    return (
        f"SELECT run, 'schedule_lag' AS what, schedule_lag_ms_p99 / {lag_limit!r} AS value FROM ({lag}) "
        "WHERE schedule_lag_ms_n > 0 UNION ALL "
        f"SELECT run, 'worker_cpu', max(cores) / {cpu_limit!r} FROM ({cores}) GROUP BY run UNION ALL "
        f"SELECT run, 'worker_lost', toFloat64(n) * 2 FROM ({lost})"
    )


_RUN_AND_WORKER = samples.labels(("loadtest.run", "loadtest.worker"))


def _behind() -> str:
    """For how many seconds the results that a running generator has read wait for the store, at the best moment of the
    last minute."""
    window = _last(60)
    at = "SELECT Attributes['loadtest.run'] AS run, TimeUnix, sumIf(Value, MetricName = 'loadtest.worker.read') AS read, "
    counts = (
        f"{at}sumIf(Value, MetricName = 'loadtest.worker.stored') AS stored FROM otel_metrics_sum "
        f"WHERE MetricName IN ('loadtest.worker.read', 'loadtest.worker.stored') AND {samples.within(window)} "
        "GROUP BY run, TimeUnix"
    )
    rate = "greatest((max(read) - min(read)) / greatest(dateDiff('second', min(TimeUnix), max(TimeUnix)), 1), 1)"
    return f"SELECT run, min(read - stored) / {rate} AS value FROM ({counts}) GROUP BY run HAVING count() >= 10"


def _burning(
    name: str, title: str, long_s: int, short_s: int, above: float, severity: Literal["page", "ticket"], share: str
) -> Alert:
    return Alert(
        name=name,
        title=title,
        sql=_burn(long_s, short_s),
        above=above,
        for_s=0,
        severity=severity,
        summary="{{ $labels.target }} uses up its error budget {{ $values.A.Value }} times too fast: at this rate "
        f"{share}. Counted in probes.",
        panel=("providers", "budget"),
    )


ALERTS = (
    _burning("burn-fast", "Error budget burns fast", 3600, 300, 14.4, "page", "two percent of a month's in an hour"),
    _burning("burn-slow", "Error budget burns", 21_600, 1800, 6, "ticket", "five percent of a month's in six hours"),
    Alert(
        name="endpoint-down",
        title="Endpoint down",
        sql=_down(),
        above=2,
        for_s=0,
        severity="page",
        summary="{{ $labels.target }}: the last {{ $values.A.Value }} probes failed, one after the other.",
        panel=("providers", "uptime"),
    ),
    Alert(
        name="prober-silent",
        title="Prober silent",
        sql=_silent(),
        above=2,
        for_s=60,
        severity="page",
        summary="{{ $labels.target }} has not been probed for {{ $values.A.Value }} times its longest pause of the last "
        "day: whether it is up is not known.",
        panel=("providers", "uptime"),
    ),
    Alert(
        name="gpu-throttling",
        title="GPU throttling",
        sql=_throttled(),
        above=0.1,
        for_s=60,
        severity="ticket",
        summary="The clock of {{ $labels.gpu }} was held down for {{ $values.A.Value }} of the last five minutes "
        "({{ $labels.reason }}).",
        panel=("gpu", "throttling"),
    ),
    Alert(
        name="generator-unhealthy",
        title="Generator unhealthy",
        sql=_generator(),
        above=1,
        for_s=60,
        severity="ticket",
        summary="The generator of {{ $labels.run }} is beyond its limit: {{ $labels.what }}, {{ $values.A.Value }} times. "
        "What it measures now is its own delay.",
        panel=("live", "generator-lag"),
    ),
    Alert(
        name="store-behind",
        title="Store behind",
        sql=_behind(),
        above=10,
        for_s=60,
        severity="ticket",
        summary="Results of {{ $labels.run }} wait {{ $values.A.Value }} s for the store.",
        on_error="Alerting",
        panel=("live", "generator-cpu"),
    ),
)
