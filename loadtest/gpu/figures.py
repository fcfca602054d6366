"""SQL that joins samples to requests and to stages: what the devices of a target did meanwhile.

Time is cut into steps of the run's `every_s`. A step's value is the mean of the samples taken in it, over the devices that
serve the target; a step without a sample has none, and none is made up. A value that its source may have taken more than
`stale_s` before is not used. docs/gpu.md tells it in words.
"""

from collections.abc import Sequence

RUNS = "SELECT run, max(every_s) AS every_s, max(stale_s) AS stale_s FROM gpu_sources GROUP BY run"
DEVICE = "concat(Attributes['loadtest.source'], ' ', Attributes['hw.id'], Attributes['engine.id'])"
ONE_RUN = "({run:String})"
SUMMED = (
    "hw.power",
    "hw.gpu.memory.usage",
    "hw.gpu.memory.limit",
    "engine.running",
    "engine.queue_length",
    "engine.batch_size",
)
"""Of these a target has what its devices have together; of the others, their mean."""
SHOWN = (
    *SUMMED,
    "hw.gpu.utilization",
    "hw.temperature",
    "gpu.clock.sm",
    "gpu.throttle.active",
    "engine.kv_cache_utilization",
)
STEPS_NEEDED = 0.95
"""Share of a stage's steps that must have a value before energy is told: power is added up over them."""


def _of_targets(table: str, names: str, runs: str) -> str:
    """Samples as they are, one row for each target that they stand for."""
    return (
        f"SELECT Attributes['loadtest.run'] AS run, MetricName AS metric, Attributes['reason'] AS reason, {DEVICE} AS device, "
        "toUnixTimestamp64Nano(TimeUnix) AS at_ns, (at_ns - toUnixTimestamp64Nano(StartTimeUnix)) / 1e9 AS age_s, "
        "Value AS value, arrayJoin(splitByChar(',', Attributes['loadtest.target'])) AS target "
        f"FROM otel_metrics_{table} WHERE ServiceName = 'loadtest' AND MetricName IN {names} "
        f"AND Attributes['loadtest.run'] IN {runs} AND Attributes['loadtest.source'] != '' AND target != '' "
        f"AND TimeUnix >= (SELECT min(since) FROM gpu_sources WHERE run IN {runs})"
    )


def samples(names: str, runs: str = ONE_RUN) -> str:
    """Samples of gauges: run, target, metric, reason, device, step_ns, every_ns, value, age_s. `names` and `runs` are SQL
    sets: a list, or a subquery in brackets."""
    return (
        "SELECT run, target, metric, reason, device, at_ns - at_ns % every_ns AS step_ns, every_ns, value, age_s "
        f"FROM ({_of_targets('gauge', names, runs)}) AS s "
        f"INNER JOIN (SELECT run, stale_s, toInt64(every_s * 1e9) AS every_ns FROM ({RUNS})) AS r USING run "
        "WHERE age_s <= stale_s"
    )


def joined(table: str, name: str, where: str, column: str) -> str:
    """`table` of requests with a column more: the mean of the sampled gauge `name` over the steps that overlap
    [sent, done], null where none does.

    A step overlaps if it begins by `done` and ends after `sent`. So the mean is the difference of two running totals: of
    the steps that began by `done`, and of those that had ended by `sent`. Each is one look into a sorted list.
    """
    taken = samples(f"('{name}')", f"(SELECT DISTINCT run FROM {table} WHERE {where})")
    columns = "run, target, step_ns, any(every_ns) AS every_ns, avg(value) AS v"
    steps = f"SELECT {columns} FROM ({taken}) GROUP BY run, target, step_ns"
    totals = (
        "SELECT run, target, step_ns AS began_ns, step_ns + every_ns AS ended_ns, sum(v) OVER so_far AS total, "
        f"count() OVER so_far AS n FROM ({steps}) "
        "WINDOW so_far AS (PARTITION BY run, target ORDER BY step_ns ROWS UNBOUNDED PRECEDING)"
    )
    rows = f"SELECT *, ifNull(sent_ns, done_ns) AS begun_ns FROM {table} WHERE {where}"
    begun = (
        f"SELECT r.*, t.total AS until_total, t.n AS until_n FROM ({rows}) AS r ASOF LEFT JOIN ({totals}) AS t "
        "ON r.run = t.run AND r.target = t.target AND r.done_ns >= t.began_ns"
    )
    return (
        f"SELECT u.*, if(until_n > b.n, (until_total - b.total) / (until_n - b.n), NULL) AS {column} FROM ({begun}) AS u "
        f"ASOF LEFT JOIN ({totals}) AS b ON u.run = b.run AND u.target = b.target AND u.begun_ns >= b.ended_ns"
    )


def _stages(runs: str) -> str:
    return (
        "SELECT run, stage, start_ns, end_ns, sum(end_ns - start_ns) OVER (PARTITION BY run, stage) AS stage_ns "
        f"FROM (SELECT * FROM stages WHERE run IN {runs} LIMIT 1 BY run, stage, round)"
    )


def of_stages(shown: Sequence[str] = SHOWN, runs: str = ONE_RUN) -> str:
    """What the devices of each target did in each stage of a run, within [start, end of arrivals]: `run`, `stage`, `target`,
    `metric`, `reason`, `mean`, `least` and `most` over the steps (of all devices together, if the metric is SUMMED; `least`
    and `most` of the others are of one device), `devices`, `steps` with a value, `oldest_s`, and `covered`: the share of the
    stage that those steps are.

    A step in which fewer devices answered than in others is left out of what is added up over devices.
    """
    names = f"({', '.join(repr(name) for name in shown)})"
    summed = f"metric IN ({', '.join(repr(name) for name in SUMMED)})"
    in_stages = (
        "SELECT s.run AS run, stage, target, metric, reason, device, step_ns, every_ns, stage_ns, value, age_s "
        f"FROM ({samples(names, runs)}) AS s INNER JOIN ({_stages(runs)}) AS w ON s.run = w.run "
        "WHERE step_ns + every_ns / 2 >= start_ns AND step_ns + every_ns / 2 < end_ns"
    )
    of_devices = f"SELECT * EXCEPT (value, age_s), avg(value) AS v, max(age_s) AS age FROM ({in_stages}) GROUP BY ALL"
    steps = (
        "SELECT run, stage, target, metric, reason, step_ns, any(every_ns) AS step_dur_ns, any(stage_ns) AS dur_ns, "
        "count() AS k, "
        f"if({summed}, sum(v), avg(v)) AS value, if({summed}, sum(v), max(v)) AS peak, if({summed}, sum(v), min(v)) AS low, "
        "max(age) AS age "
        f"FROM ({of_devices}) GROUP BY run, stage, target, metric, reason, step_ns"
    )
    whole = f"SELECT *, max(k) OVER (PARTITION BY run, stage, target, metric, reason) AS all_k FROM ({steps})"
    return (
        "SELECT run, stage, target, metric, reason, avg(value) AS mean, min(low) AS least, max(peak) AS most, "
        "max(k) AS devices, count() AS steps, "
        "max(age) AS oldest_s, least(count() * any(step_dur_ns) / any(dur_ns), 1) AS covered, any(dur_ns) / 1e9 AS stage_s "
        f"FROM ({whole}) WHERE k = all_k OR NOT {summed} GROUP BY run, stage, target, metric, reason"
    )


def means(name: str, runs: str, column: str) -> str:
    """The mean of one gauge in each stage of `runs`, in `column`, as far as enough of the stage is known: `run`, `stage`,
    `target`."""
    known = f"metric = '{name}' AND covered >= {STEPS_NEEDED}"
    return f"SELECT run, stage, target, toNullable(mean) AS {column} FROM ({of_stages((name,), runs)}) WHERE {known}"


def over_time(names: Sequence[str], start_ns: int, end_ns: int, bucket_ns: int) -> str:
    """`names` in buckets of time from `start_ns` on, before `end_ns`: `target`, `metric`, `t_ns`, `value`, of all devices
    together if the metric is SUMMED, else their mean. A bucket without a sample has no row; nor has one to be added up in
    which fewer devices answered than in others."""
    middle = "step_ns + intDiv(every_ns, 2)"
    listed, summed = ", ".join(map(repr, names)), ", ".join(map(repr, SUMMED))
    of_devices = (
        f"SELECT target, metric, device, {start_ns} + intDiv({middle} - {start_ns}, {bucket_ns}) * {bucket_ns} AS t_ns, "
        f"avg(value) AS v FROM ({samples(f'({listed})')}) WHERE {middle} >= {start_ns} AND {middle} < {end_ns} "
        "GROUP BY target, metric, device, t_ns"
    )
    together = (
        f"SELECT target, metric, t_ns, metric IN ({summed}) AS added, if(added, sum(v), avg(v)) AS value, count() AS k, "
        f"max(k) OVER (PARTITION BY target, metric) AS all_k FROM ({of_devices}) GROUP BY target, metric, t_ns"
    )
    return f"SELECT target, metric, t_ns, value FROM ({together}) WHERE k = all_k OR NOT added ORDER BY target, metric, t_ns"


def throttled() -> str:
    """By how much the counters of throttling grew within each stage: `stage`, `target`, `reason`, `seconds` over all devices
    together. A count that fell was begun anew."""
    counters = _of_targets("sum", "('gpu.throttle.time')", ONE_RUN)
    grown = (
        "SELECT run, target, reason, at_ns, value - lagInFrame(value, 1, value) OVER "
        "(PARTITION BY target, device, reason ORDER BY at_ns ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) AS more, value "
        f"FROM ({counters})"
    )
    return (
        "SELECT stage, target, reason, sum(if(more < 0, value, more)) AS seconds "
        f"FROM ({grown}) AS g INNER JOIN ({_stages(ONE_RUN)}) AS w ON g.run = w.run "
        "WHERE at_ns >= start_ns AND at_ns < end_ns GROUP BY stage, target, reason"
    )


SCRAPES = """
    WITH
        (SELECT min(since) FROM gpu_sources WHERE run = {run:String}) AS first,
        answers AS (
            SELECT Attributes['loadtest.source'] AS source, MetricName AS metric, Attributes['error.type'] AS word, Value,
                (toUnixTimestamp64Nano(TimeUnix) - toUnixTimestamp64Nano(StartTimeUnix)) / 1e9 AS age_s
            FROM otel_metrics_gauge
            WHERE ServiceName = 'loadtest' AND Attributes['loadtest.run'] = {run:String} AND TimeUnix >= first AND source != ''
        )
    SELECT s.source AS source, any(s.kind) AS kind, any(s.targets) AS targets, countIf(metric = 'up') AS scrapes,
        countIf(metric = 'up' AND Value = 0) AS failed,
        sumMapIf(map(word, toUInt64(1)), metric = 'up' AND Value = 0) AS errors,
        maxIf(Value, metric = 'scrape_duration_seconds') AS slowest_s,
        toUInt64(maxIf(Value, metric = 'scrape_samples_scraped')) AS values, max(age_s) AS oldest_s
    FROM (SELECT * FROM gpu_sources WHERE run = {run:String} LIMIT 1 BY source) AS s
    LEFT JOIN answers AS a ON s.source = a.source
    GROUP BY source ORDER BY source"""
"""How each source of a run answered: scrapes, how many failed by which words, the slowest, how many values it gave at most,
and the greatest age that one of them may have had."""
