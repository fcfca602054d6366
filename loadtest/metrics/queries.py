"""The queries that metrics are asked with: figures, series, heatmaps, and what intervals are made of."""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Literal, NamedTuple

from loadtest.gpu.figures import joined, means
from loadtest.metrics.table import BY, BY_ROUND, FAILED, METRICS, OK, STATS
from loadtest.rounds import OF_SEQ
from loadtest.stats import Stat, parse_stat
from loadtest.steady import BATCH, MOST_BATCHES
from loadtest.types import Metric

SENT_NS = "toUnixTimestamp64Nano(ts)"
EDGES = (
    0.0,
    *(round(digits * 10.0**power, 2) for power in range(-1, 5) for digits in (1, 1.5, 2.2, 3.3, 4.7, 6.8)),
    100_000.0,
)
"""Where the sizes of a heatmap begin: six to a decade (IEC 60063's E6), from a tenth to a hundred thousand."""


class Window(NamedTuple):
    """A time range, in SQL: from `from_ns` on, before `to_ns`."""

    from_ns: str
    to_ns: str

    @property
    def of_requests(self) -> str:
        """Sent in it."""
        return f"ts >= fromUnixTimestamp64Nano({self.from_ns}) AND ts < fromUnixTimestamp64Nano({self.to_ns})"

    @property
    def ended(self) -> str:
        """Requests that ended in it."""
        return f"{self.under_way} AND done_ns < {self.to_ns}"

    @property
    def under_way(self) -> str:
        """Requests of which a part is in it."""
        return f"ts < fromUnixTimestamp64Nano({self.to_ns}) AND done_ns >= {self.from_ns}"


def bucket(instant: str, step_ns: int | str, origin_ns: str = "0") -> str:
    """`t_ns`: where the bucket begins that an instant falls in.

    Not by positiveModulo, which divides anew for each value: that took half of the time of a rate's query.
    """
    since = instant if origin_ns == "0" else f"(({instant} - ({origin_ns})) % {step_ns} + {step_ns})"
    return f"{instant} - {since} % {step_ns} AS t_ns"


def last_attempts(where: str) -> str:
    """The condition for the rows of `attempts` that say how the requests which meet `where` ended."""
    last = f"SELECT stage, target, seq, max(attempt) FROM attempts WHERE {where} GROUP BY stage, target, seq"
    return f"{where} AND (stage, target, seq, attempt) IN ({last})"


def figures(
    names: Sequence[str],
    where: str,
    *,
    by: Sequence[str] = BY,
    stats: Sequence[str] = STATS,
    failures: bool = False,
    table: Literal["requests", "attempts"] = "requests",
) -> str:
    """A query of the figures of `names` for each group of `by`, over the rows of `requests` that meet `where`.

    With the table `attempts` and `last_attempts`, those of what became of requests after retries: only for shares and
    metrics with one value a request.

    `where` and `by` are SQL over `requests`; values belong in parameters (`run = {run:String}`), never in the text.
    Columns, beside those of `by`:

        request, pooled   NAME_p50, ..., NAME_p999, NAME_mean for each stat, NAME_n: the number of values,
                          NAME_sd beside the mean of a request metric: the sample's standard deviation
        share             NAME, NAME_n: the number of rows that count, NAME_hits: the ones among them
        rate              NAME, NAME_total: amount within the window, NAME_window_s: how long that is,
                          NAME_squares: sum of each request's amount squared
        ratio             NAME, and NAME_total, NAME_window_s, NAME_squares of the rate below it
    """
    metrics = [METRICS[name] for name in names]
    _refuse_mixing(metrics, by)
    parsed = [parse_stat(stat) for stat in stats]
    parts = [_aggregates(metric, parsed, _Rows(where, by), failures) for metric in metrics]
    columns = {name: sql for part in parts for name, sql in part.columns.items()}
    named = {name: sql for part in parts for name, sql in part.named.items()}
    return _select(_Columns(columns, named), _source(metrics, where, table), where, by)


def series(
    name: str,
    where: str,
    step_ns: int | str,
    *,
    by: Sequence[str] = BY,
    stats: Sequence[str] = STATS,
    failures: bool = False,
    origin_ns: str = "0",
    window: Window | None = None,
) -> str:
    """The figures of one metric over time: `figures`' columns and `t_ns`, the start of each bucket, ascending.

    A request counts in the bucket it was sent in, so that a percentile says what requests of that moment met with; a
    rate's amounts count when they happened, over the whole bucket and not clipped to a stage's window: a `where` that
    cuts by the time of sending leaves out what requests sent before did in it. So a time range is given as `window`,
    which cuts each by its own instants. Buckets begin at multiples of `step_ns` from `origin_ns` (both numbers or SQL).
    A bucket in which nothing happened has no row.
    """
    metric = METRICS[name]
    _refuse_mixing([metric], by)
    if metric.kind == "ratio":
        raise ValueError(f"{name} over time is a gauge's (loadtest.samples) over a rate's series")
    if metric.kind == "rate":
        return _rate_over_time(metric, where, step_ns, by, origin_ns, window)
    if window:
        where = f"{where} AND {window.of_requests}"
    keys = (bucket(SENT_NS, step_ns, origin_ns), *by)
    columns = _aggregates(metric, [parse_stat(stat) for stat in stats], _Rows(where, keys), failures)
    return _select(columns, _source([metric], where), where, keys)


def _rate_over_time(
    metric: Metric, where: str, step_ns: int | str, by: Sequence[str], origin_ns: str, window: Window | None
) -> str:
    """Each request adds, for each run of its amounts that fall in one bucket, what their running total grew by: to join it
    with each of its amounts costs twice as much, and to join it with its buckets, summing over all amounts in each, a fifth
    more."""
    name = metric.name
    begins, outside, ended = bucket("t", step_ns, origin_ns).removesuffix(" AS t_ns"), -1, -2
    if window:
        where = f"{where} AND {window.under_way}"
        begins = f"if(t >= {window.from_ns} AND t < {window.to_ns}, {begins}, {outside})"
    of = _source([metric], where) if "goodput_limits" in metric.sql else "requests"
    keys = [key.rpartition(" AS ")[2] for key in by]
    each = f"SELECT {', '.join([*by, f'{metric.sql} AS amounts', f'{metric.at} AS instants'])} FROM {of} WHERE {where}"
    runs = (
        f"SELECT {', '.join(keys)}, arrayMap(t -> {begins}, instants) AS buckets, arrayCumSum(amounts) AS so_far, "
        f"arrayMap((own, next) -> own != next, buckets, arrayPopFront(arrayPushBack(buckets, {ended}))) AS is_last "
        f"FROM ({each})"
    )
    totals = "arrayPushFront(arrayFilter((total, last) -> last, so_far, is_last), 0)"
    added = (
        f"SELECT {', '.join(keys)}, t_ns, amount FROM ({runs}) ARRAY JOIN "
        "arrayFilter((own, last) -> last, buckets, is_last) AS t_ns, "
        f"arrayPopFront(arrayDifference({totals})) AS amount"
    )
    columns = _Columns(
        {name: f"{name}_total / ({step_ns} / 1e9)", f"{name}_total": "if(isNaN(sum(amount)), NULL, sum(amount))"}
    )
    return _select(columns, f"({added})", f"t_ns != {outside}", ("t_ns", *keys))


def heatmap(name: str, where: str, step_ns: int | str, *, window: Window) -> str:
    """How many values of a metric were in each bucket of time and size: `t_ns`, `low`, `high`, `count`.

    Sizes are the intervals [low, high) between EDGES. A bucket that holds nothing has no row. These are counts, so that
    requests of several stages and targets may be among them.
    """
    metric = METRICS[name]
    of = _values(metric, failures=False, group=_Rows(where, ()))
    edges = ", ".join(map(str, EDGES))
    values = of.sql if metric.kind == "pooled" else f"[{of.sql}]"
    low = f"roundDown(assumeNotNull(value), [{edges}]) AS low"
    high = f"transform(low, [{edges}], [{edges.partition(', ')[2]}, inf])"
    source = f"{_source([metric], where)} ARRAY JOIN {values} AS value"
    condition = f"{where} AND {window.of_requests} AND {of.condition} AND value IS NOT NULL"
    keys = (bucket(SENT_NS, step_ns), low)
    return _select(_Columns({"high": high, "count": "count()"}), source, condition, keys)


def rows(names: Sequence[str], where: str) -> str:
    """A query of single requests, in the order of sending: who they are and the value of each metric.

    Null, or an empty array for a pooled metric, where the request is not in the population. A rate's column is its amount
    within its stage's window.
    """
    metrics = [METRICS[name] for name in names]
    sent = "toUnixTimestamp64Nano(ts) AS t_ns"
    who = ("run", "stage", "target", "seq", "attempt", "trace_id", sent, "error", "fault")
    values = {m.name: _amount(m) if m.at else _of_one_row(m) for m in metrics}
    return f"SELECT {', '.join([*who, *_named(values)])} FROM {_source(metrics, where)} WHERE {where} ORDER BY t_ns"


def batch_means(name: str, where: str, size: int = BATCH, most: int = MOST_BATCHES) -> str:
    """Means of the logarithms of consecutive values above 0, for each target, in the order of sending.

    Columns: `target`, `batch`, `n`: how many values (`size`, or as many as make at most `most` batches), `first_ns`: when the
    first of them was sent, `mean`. Values that do not fill a last batch are left out.
    """
    positions = (
        f"SELECT target, t_ns, {name} AS value, row_number() OVER (PARTITION BY target ORDER BY t_ns) - 1 AS position, "
        f"greatest({size}, intDiv(count() OVER (PARTITION BY target) + {most - 1}, {most})) AS size "
        f"FROM ({rows([name], where)}) WHERE {name} > 0"
    )
    return (
        "SELECT target, intDiv(position, size) AS batch, count() AS n, min(t_ns) AS first_ns, avg(log(value)) AS mean "
        f"FROM ({positions}) GROUP BY target, batch HAVING n = any(size) ORDER BY target, batch"
    )


def order_statistics(name: str, levels: Sequence[float], limit: float, where: str, *, by: Sequence[str] = BY) -> str:
    """With failures: `q`, the elements at index floor(level n) of each group's `n` sorted values; how many are `worse`.

    Any level in [0, 1): the level (i + 0.5) / n yields the element at index i, which is how intervals are read off.
    Worse is above `limit`, or below it where higher is better. Where n is 0, `q` says nothing.
    """
    metric = METRICS[name]
    _refuse_mixing([metric], by)
    of = _values(metric, failures=True, group=_Rows(where, by))
    if metric.kind == "pooled":
        worse = f"sumIf({_count_worse(metric, of, limit)}, {of.condition})"
    else:
        worse = f"countIf({of.condition} AND {_worse(metric, of.sql, limit)})"
    columns = {"q": _quantiles(metric, of, levels), "n": _number(metric, of), "worse": worse}
    return _select(_Columns(columns), _source([metric], where), where, by)


def blocks(name: str, at: float, where: str, count: int) -> str:
    """With failures, a pooled metric's requests of one stage and target dealt at random into at most `count` blocks.

    Columns: `requests` in the block that have values, their number `n` and sum `total`, how many are `below` `at`. The
    deal is by trace id, a hash of the identity: random, yet always the same.
    """
    metric = METRICS[name]
    of = _values(metric, failures=True, group=_Rows(where, BY))
    columns = {
        "requests": f"countIf({of.condition} AND {of.size} > 0)",
        "n": f"sumIf({of.size}, {of.condition})",
        "total": f"sumArrayIf({of.sql}, {of.condition})",
        "below": f"sumIf(arrayCount(v -> v < {at!r}, {of.sql}), {of.condition})",
    }
    return _select(_Columns(columns), "requests", where, (f"cityHash64(trace_id) % {count} AS block",))


class _Rows:
    """The rows a figure is taken of: which meet `where`, grouped by `by`."""

    def __init__(self, where: str, by: Sequence[str]) -> None:
        self.where = where
        self.by = tuple(by)

    @property
    def key(self) -> str:
        return f"toString(({', '.join([*(_unaliased(key) for key in self.by), '0'])}))"


class _Values(NamedTuple):
    """What a figure is taken of: `sql` of the rows that meet `condition`, where it makes `size` values."""

    sql: str
    condition: str
    size: str


def _values(metric: Metric, failures: bool, group: _Rows) -> _Values:
    if metric.population == "requests":
        return _Values(metric.sql, "true", "1")
    applies = f" AND {metric.applies}" if metric.applies else ""
    if not failures:
        return _Values(metric.sql, f"{OK}{applies}", metric.count)
    worst = "inf" if metric.better == "lower" else "0."
    condition = f"({OK} OR {FAILED}){applies}"
    if metric.kind == "request":
        return _Values(f"if({OK}, {metric.sql}, {worst})", condition, "1")
    copies = _copies(metric, group)
    return _Values(
        f"if({OK}, {metric.sql}, arrayWithConstant({copies}, {worst}))",
        condition,
        f"if({OK}, {metric.count}, toInt64({copies}))",
    )


def _of_one_row(metric: Metric) -> str:
    if metric.kind == "share":
        return metric.sql
    of = _values(metric, False, _Rows("", ()))
    return f"if({of.condition}, {of.sql}, {'[]' if metric.kind == 'pooled' else 'NULL'})"


def _copies(metric: Metric, group: _Rows) -> str:
    """How many values a success of the row's group has on average, at least 1."""
    successes = f"{OK} AND {metric.applies}" if metric.applies else OK
    mean = f"if(countIf({successes}) = 0, 1, greatest(1, round(avgIf({metric.count}, {successes}))))"
    each = f"SELECT {group.key} AS key, toUInt64({mean}) AS copies FROM requests WHERE {group.where} GROUP BY key"
    return f"(SELECT CAST(groupArray((key, copies)), 'Map(String, UInt64)') FROM ({each}))[{group.key}]"


class _Columns(NamedTuple):
    """Columns of a SELECT, name -> SQL, and expressions that they name."""

    columns: dict[str, str]
    named: Mapping[str, str] = MappingProxyType({})


def _aggregates(metric: Metric, stats: Sequence[Stat], group: _Rows, failures: bool) -> _Columns:
    if metric.kind == "share":
        return _share(metric)
    return _rate(metric, group) if metric.at else _stats(metric, stats, _values(metric, failures, group))


def _stats(metric: Metric, stats: Sequence[Stat], of: _Values) -> _Columns:
    name = metric.name
    array = "Array" if metric.kind == "pooled" else ""
    columns = {f"{name}_n": _number(metric, of)}
    levels = [stat.level for stat in stats if stat.level is not None]
    for stat in stats:
        if stat.level is not None:
            figure = f"{name}_q[{levels.index(stat.level) + 1}]"
        else:
            figure = f"avg{array}If({of.sql}, {of.condition})"
            if not array:
                columns[f"{name}_sd"] = f"if({name}_n < 2, NULL, stddevSampIf({of.sql}, {of.condition}))"
        columns[f"{name}_{stat.label}"] = f"if({name}_n = 0, NULL, {figure})"
    return _Columns(columns, {f"{name}_q": _quantiles(metric, of, levels)} if levels else {})


def _quantiles(metric: Metric, of: _Values, levels: Sequence[float]) -> str:
    array = "Array" if metric.kind == "pooled" else ""
    return f"quantilesExact{array}If({', '.join(map(repr, levels))})({of.sql}, {of.condition})"


def _number(metric: Metric, of: _Values) -> str:
    pooled = metric.kind == "pooled"
    n = f"sumIf({of.size}, {of.condition})" if pooled else f"countIf({of.sql}, {of.condition})"
    return f"if({_unknown(metric)}, 0, {n})" if metric.population == "successes" else n


def _unknown(metric: Metric) -> str:
    """There are successes, and none of them has a value."""
    applies = f"{OK} AND {metric.applies}" if metric.applies else OK
    has_value = f"{metric.count} > 0" if metric.kind == "pooled" else f"({metric.sql}) IS NOT NULL"
    return f"countIf({applies}) > 0 AND countIf({applies} AND {has_value}) = 0"


def _share(metric: Metric) -> _Columns:
    return _Columns(
        {
            metric.name: f"avg({metric.sql})",
            f"{metric.name}_n": f"count({metric.sql})",
            f"{metric.name}_hits": f"sum({metric.sql})",
        }
    )


def _rate(metric: Metric, group: _Rows) -> _Columns:
    name = metric.name
    rate = f"{name}_total / nullIf({name}_window_s, 0)"
    window_ns = "end_ns - start_ns" if BY_ROUND in group.by else "all_rounds_ns"
    columns = {
        name: f"any({name}_mean) / nullIf({rate}, 0)" if metric.kind == "ratio" else rate,
        f"{name}_window_s": f"any({window_ns}) / 1e9",
        f"{name}_total": f"if(isNaN(sum({name}_amount)), NULL, sum({name}_amount))",
        f"{name}_squares": f"if(isNaN(sum({name}_amount)), NULL, sum({name}_amount * {name}_amount))",
    }
    return _Columns(columns, {f"{name}_amount": _amount(metric)})


def _amount(metric: Metric) -> str:
    """What one request adds to a rate within its stage's window."""
    return f"arraySum((amount, t) -> if(t >= start_ns AND t <= end_ns, amount, 0), {metric.sql}, {metric.at})"


def _worse(metric: Metric, of: str, limit: float) -> str:
    return f"{of} {'>' if metric.better == 'lower' else '<'} {limit!r}"


def _count_worse(metric: Metric, of: _Values, limit: float) -> str:
    return f"arrayCount(v -> {_worse(metric, 'v', limit)}, {of.sql})"


def _source(metrics: Iterable[Metric], where: str, table: str = "requests") -> str:
    metrics = list(metrics)
    runs = f"(SELECT DISTINCT run FROM {table} WHERE {where})"
    for gauge in {metric.sampled for metric in metrics if metric.sampled and metric.kind != "ratio"}:
        table = f"({joined(table, gauge, where, 'sampled')}) AS requests"
    if not any(metric.at for metric in metrics):
        return table
    stages = (
        "SELECT run, stage, round, start_ns, end_ns AS stage_end_ns, goodput AS goodput_limits, "
        "mapApply((of, own_end_ns) -> (of, end_ns - own_end_ns), target_end_ns) AS sooner_ns, "
        "sum(end_ns - start_ns) OVER (PARTITION BY run, stage) AS stage_ns, "
        "sumMap(sooner_ns) OVER (PARTITION BY run, stage) AS all_sooner_ns "
        "FROM (SELECT * FROM stages LIMIT 1 BY run, stage, round)"
    )
    rows = f"SELECT *, {OF_SEQ} AS round FROM {table}"
    for metric in metrics:
        if metric.kind == "ratio":
            known = means(metric.sampled, runs, "mean")
            same = "r.run = m.run AND r.stage = m.stage AND r.target = m.target"
            rows = f"SELECT r.*, m.mean AS {metric.name}_mean FROM ({rows}) AS r LEFT JOIN ({known}) AS m ON {same}"
    joined_rows = f"({rows}) AS requests LEFT JOIN ({stages}) AS stages USING (run, stage, round)"
    return (
        "(SELECT requests.*, start_ns, goodput_limits, stage_end_ns - sooner_ns[toString(target)] AS end_ns, "
        f"stage_ns - all_sooner_ns[toString(target)] AS all_rounds_ns FROM {joined_rows}) AS requests"
    )


def _select(columns: _Columns, source: str, where: str, by: Sequence[str]) -> str:
    named = f"WITH {', '.join(_named(columns.named))} " if columns.named else ""
    keys = [key.rpartition(" AS ")[2] for key in by]
    grouped = f" GROUP BY {', '.join(keys)} ORDER BY {', '.join(keys)}" if keys else ""
    return f"{named}SELECT {', '.join([*by, *_named(columns.columns)])} FROM {source} WHERE {where}{grouped}"


def _named(columns: Mapping[str, str]) -> list[str]:
    return [f"{sql} AS {name}" for name, sql in columns.items()]


def _unaliased(key: str) -> str:
    return key.rpartition(" AS ")[0] or key


def _refuse_mixing(metrics: Iterable[Metric], by: Sequence[str]) -> None:
    """Endpoints' figures are never taken across stages or targets; the generator's own may be."""
    mixed = [m.name for m in metrics if m.population == "successes" and not {"stage", "target"} <= set(by)]
    if mixed:
        raise ValueError(f"{', '.join(mixed)} cannot be taken across stages or targets: group by both, not {tuple(by)}")
