"""METRICS: every figure this tool shows, each defined once, as SQL over one row of `requests`.

Terminal, web page, Grafana, SLOs and report all ask this module for their queries and write no metric SQL of their
own, so they cannot disagree. `Metric.sql` is always an expression over one row (columns:
store/schema/002_requests.sql); what it yields, and what is then done with it, follows from `Metric.kind`:

    request   a nullable number: one value a request. Asked for with a stat (p99, mean)
    pooled    an array of numbers: many values a request, pooled over requests. Asked for with a stat
    share     a nullable 0 or 1: the share of ones among the rows that are not null
    rate      an array of amounts, beside `Metric.at`, an array of the instants they happened at: the amounts within a
              window, over the window. NaN is an amount that is not known, and makes the rate null

A rate may also use the columns `start_ns`, `end_ns` and `goodput` of the request's row in `stages`.

Rules that hold for all of them:

- Percentiles are `quantileExact`: the element at index floor(p n) of the sorted values. Nothing is interpolated or
  sketched.
- The population is the successes (`fault` is empty). With `failures=True` each request that failed by the endpoint's or
  the network's fault counts as +infinity (as 0 where higher is better), so that a 429 in 5 ms or a time-out cannot
  improve a latency. Faults of the client and the generator are in neither. For a pooled metric a failed request counts
  as many times as a success of its group has values on average, at least once: 2% failed requests are 2% of the gaps.
- A group whose successes have no value (closed load has no due time, a server that does not count tokens) has none with
  failures either: unknown is not infinite.
- No percentile is taken across stages or targets.
- A series is bucketed by the time of sending, a rate by the instants of its amounts.
"""

from collections.abc import Callable, Iterable, Sequence

from loadtest.stats import Stat, parse_stat
from loadtest.types import TOKEN_KINDS, Metric

BY = ("stage", "target")
STATS = ("p50", "p90", "p95", "p99", "p99.9", "mean")

OK = "fault = ''"
FAILED = "fault IN ('endpoint', 'network')"
_KINDS = f"({', '.join(str(int(kind)) for kind in TOKEN_KINDS)})"
_TOKEN_OFFSETS = f"arrayFilter((t, k) -> k IN {_KINDS}, chunk_offset_ns, chunk_kind)"
_TOKEN_COUNTS = (
    f"if(empty(chunk_tokens), arrayWithConstant(token_chunks, 1), "
    f"arrayFilter((n, k) -> k IN {_KINDS}, chunk_tokens, chunk_kind))"
)
_GAPS = f"if(streamed, arrayMap(t -> t / 1e6, arrayPopFront(arrayDifference({_TOKEN_OFFSETS}))), [])"
_TOKEN_GAPS = (
    f"multiIf(NOT tokens_known, [], empty(chunk_tokens), {_GAPS}, "
    f"arrayFlatten(arrayMap((gap, n) -> arrayWithConstant(n, gap / n), {_GAPS}, "
    f"if(streamed, arrayPopFront({_TOKEN_COUNTS}), []))))"
)
_TPOT = (
    "if(streamed_tokens > first_chunk_tokens, "
    "(last_token_ns - first_token_ns) / 1e6 / (streamed_tokens - first_chunk_tokens), NULL)"
)
_TTFT = "first_token_ns / 1e6"
_E2E = "(done_ns - sent_ns) / 1e6"
_TOKEN_AMOUNTS = (
    f"multiIf(tokens_known AND token_chunks > 0, arrayMap(n -> toFloat64(n), {_TOKEN_COUNTS}), "
    "streamed_tokens IS NOT NULL, "
    "arrayWithConstant(greatest(token_chunks, 1), "
    "toFloat64(assumeNotNull(streamed_tokens)) / greatest(token_chunks, 1)), "
    f"{OK}, arrayWithConstant(greatest(token_chunks, 1), nan), [])"
)
_TOKEN_INSTANTS = (
    f"multiIf(token_chunks > 0 AND (tokens_known OR streamed_tokens IS NOT NULL OR {OK}), "
    f"arrayMap(t -> assumeNotNull(sent_ns) + t, {_TOKEN_OFFSETS}), "
    f"streamed_tokens IS NOT NULL OR {OK}, [done_ns], [])"
)

GOODPUT_LIMITS = ("ttft_ms", "ttfo_ms", "tpot_ms", "e2e_ms", "due_ttft_ms", "due_e2e_ms", "output_speed")
"""The metrics that a plan's `goodput:` may limit: those with one value a request that an endpoint answers for."""


def _goodput(metrics: Iterable[Metric]) -> str:
    """1 where a success met every limit, 0 where it or the request failed, NaN where a needed figure is unknown."""
    met = " AND ".join(f"(NOT mapContains(goodput, '{m.name}') OR {_within(m)})" for m in metrics)
    return f"[multiIf(empty(goodput), nan, NOT ({OK}), 0., ifNull(toFloat64({met}), nan))]"


def _within(metric: Metric) -> str:
    compared = "<=" if metric.better == "lower" else ">="
    within = f"{metric.sql} {compared} goodput['{metric.name}']"
    if metric.name in ("tpot_ms", "output_speed"):  # one token or one chunk of them: there is no pace to be too slow
        return f"(streamed_tokens <= first_chunk_tokens OR {within})"
    return within


_REQUEST_METRICS = (
    Metric(
        name="ttft_ms",
        unit="ms",
        kind="request",
        better="lower",
        sql=_TTFT,
        applies="streamed",
        doc="Time to first token: from just before the first byte of the request is written to the arrival of the "
        "first token chunk. A token chunk carries reasoning, content, a tool call or media; role-only, empty, usage "
        "and keep-alive chunks are none. Reasoning counts. Null where the answer was not streamed.",
    ),
    Metric(
        name="ttfo_ms",
        unit="ms",
        kind="request",
        better="lower",
        sql="first_content_ns / 1e6",
        applies="streamed",
        doc="Time to first output: as ttft_ms, to the first chunk of content. Reasoning does not count. Null where "
        "an answer has no content.",
    ),
    Metric(
        name="icl_ms",
        unit="ms",
        kind="pooled",
        better="lower",
        sql=_GAPS,
        applies="streamed",
        doc="Inter-chunk latency: the gaps between consecutive token chunks, pooled over requests.",
    ),
    Metric(
        name="itl_ms",
        unit="ms",
        kind="pooled",
        better="lower",
        sql=_TOKEN_GAPS,
        applies="streamed",
        doc="Inter-token latency: each gap between token chunks divided by the tokens of the chunk that ended it, "
        "once for each of those tokens, pooled over requests. None where tokens per chunk are unknown: icl_ms stands "
        "then.",
    ),
    Metric(
        name="tpot_ms",
        unit="ms",
        kind="request",
        better="lower",
        sql=_TPOT,
        applies="streamed",
        doc="Time per output token: (last - first token chunk) / (n - k). n: output tokens, without reasoning "
        "tokens that were never streamed; k: tokens in the first token chunk where known, else 1, and the report "
        "marks it. Null where n <= k or n is unknown.",
    ),
    Metric(
        name="e2e_ms",
        unit="ms",
        kind="request",
        better="lower",
        sql=_E2E,
        doc="End to end: from just before the first byte of the request is written to the end of the answer.",
    ),
    Metric(
        name="due_ttft_ms",
        unit="ms",
        kind="request",
        better="lower",
        sql="(sent_ns + first_token_ns - due_ns) / 1e6",
        applies="streamed AND due_ns IS NOT NULL",
        doc="ttft_ms from the instant the request was due: what an arriving user would have felt. Null under closed "
        "load.",
    ),
    Metric(
        name="due_e2e_ms",
        unit="ms",
        kind="request",
        better="lower",
        sql="(done_ns - due_ns) / 1e6",
        applies="due_ns IS NOT NULL",
        doc="e2e_ms from the instant the request was due: what an arriving user would have felt. Null under closed "
        "load.",
    ),
    Metric(
        name="output_speed",
        unit="tokens/s",
        kind="request",
        better="higher",
        sql=f"1000 / nullIf({_TPOT}, 0)",
        applies="streamed",
        doc="1000 / tpot_ms, for each request. Null where tpot_ms is null or 0.",
    ),
)

_ALL = (
    *_REQUEST_METRICS,
    Metric(
        name="output_tokens_per_s",
        unit="tokens/s",
        kind="rate",
        better="higher",
        sql=_TOKEN_AMOUNTS,
        at=_TOKEN_INSTANTS,
        doc="Tokens whose chunk arrived within [stage start, end of arrivals], over that time. Where tokens per "
        "chunk are unknown and their total is known, the total is spread evenly over the token chunks; the tokens of "
        "an answer that was not streamed count at its end; reasoning tokens that were never streamed have no chunk "
        "and do not count. Tokens of failed requests count as far as they are known. Null where a success's tokens "
        "are unknown: a sum of the others would understate the endpoint.",
    ),
    Metric(
        name="requests_per_s",
        unit="1/s",
        kind="rate",
        better="higher",
        sql=f"if({OK}, [1.], [])",
        at=f"if({OK}, [done_ns], [])",
        doc="Requests that completed, without a fault, within [stage start, end of arrivals], over that time.",
    ),
    Metric(
        name="error_rate",
        unit="1",
        kind="share",
        better="lower",
        sql="if(fault IN ('client', 'generator'), NULL, fault != '')",
        doc="Requests that failed by the endpoint's or the network's fault, among all that ended by other than "
        "client and generator faults; those are listed apart.",
    ),
    Metric(
        name="success_rate",
        unit="1",
        kind="share",
        better="higher",
        sql=f"if(fault IN ('client', 'generator'), NULL, {OK})",
        doc="1 - error_rate. A load run never yields uptime: that word belongs to probes.",
    ),
    Metric(
        name="goodput",
        unit="1/s",
        kind="rate",
        better="higher",
        sql=_goodput(m for m in _REQUEST_METRICS if m.name in GOODPUT_LIMITS),
        at="[done_ns]",
        doc="Requests that met every limit of the plan's `goodput:` and completed within [stage start, end of "
        "arrivals], over that time. Failures miss. A limit on tpot_ms or output_speed is met where n <= k. Null where "
        "the plan sets no limits, or a needed figure of a success is unknown and no other limit was missed.",
    ),
    Metric(
        name="schedule_lag_ms",
        unit="ms",
        kind="request",
        better="lower",
        sql="(started_ns - due_ns) / 1e6",
        population="requests",
        doc="From the instant a request was due to the instant a worker took it up: the generator's fault alone, "
        "over all requests whatever became of them. Null under closed load.",
    ),
    Metric(
        name="connect_ms",
        unit="ms",
        kind="request",
        better="lower",
        sql="if(reused, NULL, (ifNull(dns_dur_ns, 0) + connect_dur_ns + ifNull(tls_dur_ns, 0)) / 1e6)",
        applies="NOT reused",
        doc="DNS, connect and TLS together. Null on a reused connection.",
    ),
    Metric(
        name="read_lag_ms",
        unit="ms",
        kind="request",
        better="lower",
        sql="if(clock = 'kernel', read_lag_ns / 1e6, NULL)",
        population="requests",
        doc="The longest time that a chunk of the request lay in the kernel before it was read, over all requests "
        "whatever became of them. Null where the kernel did not stamp the chunks.",
    ),
    Metric(
        name="uncertainty_ms",
        unit="ms",
        kind="request",
        better="lower",
        sql="if(clock = 'kernel', uncertainty_ns / 1e6, NULL)",
        population="requests",
        doc="The largest uncertainty of a stamp of the request (0 where no read held two chunks), over all requests "
        "whatever became of them. Null where the kernel did not stamp the chunks.",
    ),
)

METRICS: dict[str, Metric] = {metric.name: metric for metric in _ALL}


def needs_stat(metric: str) -> bool:
    """True for a metric that is asked for with a stat (p99, mean); False for a rate or a share, which is one number."""
    return METRICS[metric].kind in ("request", "pooled")


def figures(
    names: Sequence[str],
    where: str,
    *,
    by: Sequence[str] = BY,
    stats: Sequence[str] = STATS,
    failures: bool = False,
) -> str:
    """A query of the figures of `names` for each group of `by`, over the rows of `requests` that meet `where`.

    `where` and `by` are SQL over `requests`; values belong in parameters (`run = {run:String}`), never in the text.
    Columns, beside those of `by`:

        request, pooled   NAME_p50, ..., NAME_p999, NAME_mean for each stat, NAME_n: the number of values,
                          NAME_sd beside the mean of a request metric: the sample's standard deviation
        share             NAME, NAME_n: the number of rows that count, NAME_hits: the ones among them
        rate              NAME, NAME_total: amount within the window, NAME_squares: sum of each request's amount squared
    """
    metrics = [METRICS[name] for name in names]
    _refuse_mixing(metrics, by)
    columns: dict[str, str] = {}
    for metric in metrics:
        columns |= _aggregates(metric, [parse_stat(stat) for stat in stats], _Rows(where, by), failures)
    return _select(columns, _source(metrics), where, by)


def series(
    name: str,
    where: str,
    step_ns: int,
    *,
    by: Sequence[str] = BY,
    stats: Sequence[str] = STATS,
    failures: bool = False,
    origin_ns: str = "0",
) -> str:
    """The figures of one metric over time: `figures`' columns and `t_ns`, the start of each bucket, ascending.

    A request counts in the bucket it was sent in, so that a percentile says what requests of that moment met with; a
    rate's amounts count when they happened, over the whole bucket and not clipped to a stage's window. Buckets begin at
    multiples of `step_ns` from `origin_ns` (SQL). A bucket in which nothing happened has no row.
    """
    metric = METRICS[name]
    _refuse_mixing([metric], by)
    instant = "at_ns" if metric.kind == "rate" else "toUnixTimestamp64Nano(ts)"
    t_ns = f"{instant} - positiveModulo({instant} - ({origin_ns}), {step_ns}) AS t_ns"
    if metric.kind != "rate":
        keys = (t_ns, *by)
        columns = _aggregates(metric, [parse_stat(stat) for stat in stats], _Rows(where, keys), failures)
        return _select(columns, _source([metric]), where, keys)
    total = "sum(amount)"
    columns = {
        name: f"if(isNaN({total}), NULL, {total} / {step_ns / 1e9!r})",
        f"{name}_total": f"if(isNaN({total}), NULL, {total})",
    }
    source = f"{_source([metric])} ARRAY JOIN {metric.sql} AS amount, {metric.at} AS at_ns"
    return _select(columns, source, where, (t_ns, *by))


def rows(names: Sequence[str], where: str, *, failures: bool = False) -> str:
    """A query of single requests: who they are and the value of each metric, an array for a pooled one.

    A rate's column is its amount within its stage's window.
    """
    metrics = [METRICS[name] for name in names]
    who = ("run", "stage", "target", "seq", "attempt", "trace_id", "ts", "error", "fault")
    values = {m.name: _amount(m) if m.kind == "rate" else value(m, failures=failures) for m in metrics}
    return f"SELECT {', '.join([*who, *_named(values)])} FROM {_source(metrics)} WHERE {where} ORDER BY ts"


def order_statistics(name: str, levels: Sequence[float], limit: float, where: str, *, by: Sequence[str] = BY) -> str:
    """With failures: `q`, the elements at index floor(level n) of each group's sorted values, and how many are `worse`.

    Any level in [0, 1): the level (i + 0.5) / n yields the element at index i, which is how intervals are read off.
    Worse is above `limit`, or below it where higher is better.
    """
    metric = METRICS[name]
    _refuse_mixing([metric], by)
    of = value(metric, failures=True, group=_Rows(where, by))
    pooled = metric.kind == "pooled"
    worse = f"sum({_count_worse(metric, of, limit)})" if pooled else f"countIf({_worse(metric, of, limit)})"
    quantiles = f"quantilesExact{'Array' if pooled else ''}({', '.join(map(repr, levels))})({of})"
    return _select({"q": quantiles, "worse": worse}, "requests", where, by)


def blocks(name: str, at: float, limit: float, where: str, count: int) -> str:
    """With failures, a pooled metric's requests of one stage and target dealt at random into at most `count` blocks.

    Columns: `requests` in the block that have values, their number `n` and sum `total`, how many are `below` `at` and
    how many `worse` than `limit`. The deal is by trace id, a hash of the identity: random, yet always the same.
    """
    metric = METRICS[name]
    of = value(metric, failures=True, group=_Rows(where, BY))
    columns = {
        "requests": f"countIf(notEmpty({of}))",
        "n": f"sum(length({of}))",
        "total": f"sum(arraySum({of}))",
        "below": f"sum(arrayCount(v -> v < {at!r}, {of}))",
        "worse": f"sum({_count_worse(metric, of, limit)})",
    }
    return _select(columns, "requests", where, (f"cityHash64(trace_id) % {count} AS block",))


class _Rows:
    """The rows a figure is taken of: which meet `where`, grouped by `by`."""

    def __init__(self, where: str, by: Sequence[str]) -> None:
        self.where = where
        self.by = tuple(by)

    @property
    def key(self) -> str:
        return f"toString(({', '.join([*(_unaliased(key) for key in self.by), '0'])}))"


def value(metric: Metric, *, failures: bool, group: _Rows | None = None) -> str:
    """One row's value: null (an empty array) where the row is not in the population.

    `group` is needed for a pooled metric with failures, to know how often a failed request counts.
    """
    pooled = metric.kind == "pooled"
    if metric.population == "requests" or metric.kind == "share":
        return metric.sql
    if not failures:
        return f"if({OK}, {metric.sql}, {'[]' if pooled else 'NULL'})"
    worst = "inf" if metric.better == "lower" else "0."
    if pooled:
        worst = f"arrayWithConstant({_copies(metric, group)}, {worst})" if group else f"[{worst}]"
    failed = f"{FAILED} AND {metric.applies}" if metric.applies else FAILED
    return f"multiIf({OK}, {metric.sql}, {failed}, {worst}, {'[]' if pooled else 'NULL'})"


def _copies(metric: Metric, group: _Rows) -> str:
    """How many values a success of the row's group has on average, at least 1."""
    mean = f"if(countIf({OK}) = 0, 1, greatest(1, round(avgIf(length({metric.sql}), {OK}))))"
    each = f"SELECT {group.key} AS key, toUInt64({mean}) AS copies FROM requests WHERE {group.where} GROUP BY key"
    return f"(SELECT CAST(groupArray((key, copies)), 'Map(String, UInt64)') FROM ({each}))[{group.key}]"


def _aggregates(metric: Metric, stats: Sequence[Stat], group: _Rows, failures: bool) -> dict[str, str]:
    return _AGGREGATES[metric.kind](metric, stats, group, failures)


def _stats(metric: Metric, stats: Sequence[Stat], group: _Rows, failures: bool) -> dict[str, str]:
    pooled = "Array" if metric.kind == "pooled" else ""
    of = value(metric, failures=failures, group=group)
    n = f"count{pooled}({of})"
    if failures and metric.population == "successes":
        applies = f"{OK} AND {metric.applies}" if metric.applies else OK
        has_value = f"notEmpty({metric.sql})" if pooled else f"({metric.sql}) IS NOT NULL"
        n = f"if(countIf({applies}) > 0 AND countIf({OK} AND {has_value}) = 0, 0, {n})"
    levels = [stat.level for stat in stats if stat.level is not None]
    quantiles = f"quantilesExact{pooled}({', '.join(map(repr, levels))})({of})"
    columns = {f"{metric.name}_n": n}
    for stat in stats:
        figure = f"avg{pooled}({of})" if stat.level is None else f"{quantiles}[{levels.index(stat.level) + 1}]"
        columns[f"{metric.name}_{stat.label}"] = f"if({n} = 0, NULL, {figure})"
        if stat.level is None and not pooled:
            columns[f"{metric.name}_sd"] = f"if({n} < 2, NULL, stddevSamp({of}))"
    return columns


def _share(metric: Metric, stats: Sequence[Stat], group: _Rows, failures: bool) -> dict[str, str]:  # noqa: ARG001
    return {
        metric.name: f"avg({metric.sql})",
        f"{metric.name}_n": f"count({metric.sql})",
        f"{metric.name}_hits": f"sum({metric.sql})",
    }


def _rate(metric: Metric, stats: Sequence[Stat], group: _Rows, failures: bool) -> dict[str, str]:  # noqa: ARG001
    amount = _amount(metric)
    total = f"sum({amount})"
    return {
        metric.name: f"if(isNaN({total}), NULL, {total} / nullIf(any(end_ns - start_ns) / 1e9, 0))",
        f"{metric.name}_total": f"if(isNaN({total}), NULL, {total})",
        f"{metric.name}_squares": f"if(isNaN({total}), NULL, sum({amount} * {amount}))",
    }


_AGGREGATES: dict[str, Callable[[Metric, Sequence[Stat], _Rows, bool], dict[str, str]]] = {
    "request": _stats,
    "pooled": _stats,
    "share": _share,
    "rate": _rate,
}


def _amount(metric: Metric) -> str:
    """What one request adds to a rate within its stage's window."""
    return f"arraySum((amount, t) -> if(t >= start_ns AND t <= end_ns, amount, 0), {metric.sql}, {metric.at})"


def _worse(metric: Metric, of: str, limit: float) -> str:
    return f"{of} {'>' if metric.better == 'lower' else '<'} {limit!r}"


def _count_worse(metric: Metric, of: str, limit: float) -> str:
    return f"arrayCount(v -> {_worse(metric, 'v', limit)}, {of})"


def _source(metrics: Iterable[Metric]) -> str:
    if not any(metric.kind == "rate" for metric in metrics):
        return "requests"
    stages = "SELECT run, stage, start_ns, end_ns, goodput FROM stages LIMIT 1 BY run, stage"
    return f"requests LEFT JOIN ({stages}) AS stages USING (run, stage)"


def _select(columns: dict[str, str], source: str, where: str, by: Sequence[str]) -> str:
    keys = [key.rpartition(" AS ")[2] for key in by]
    grouped = f" GROUP BY {', '.join(keys)} ORDER BY {', '.join(keys)}" if keys else ""
    return f"SELECT {', '.join([*by, *_named(columns)])} FROM {source} WHERE {where}{grouped}"


def _named(columns: dict[str, str]) -> list[str]:
    return [f"{sql} AS {name}" for name, sql in columns.items()]


def _unaliased(key: str) -> str:
    return key.rpartition(" AS ")[0] or key


def _refuse_mixing(metrics: Iterable[Metric], by: Sequence[str]) -> None:
    """Endpoints' figures are never taken across stages or targets; the generator's own may be."""
    mixed = [m.name for m in metrics if m.population == "successes" and not {"stage", "target"} <= set(by)]
    if mixed:
        raise ValueError(f"{', '.join(mixed)} cannot be taken across stages or targets: group by both, not {tuple(by)}")


def catalogue() -> str:
    """docs/metrics.md."""
    out = [
        "# Metrics",
        "",
        "Every figure in the terminal, on the pages, in Grafana, in an SLO and in the report is one of these.",
        "Each is SQL over one row of the table `requests`: a number, an array of values to pool, a 0 or 1",
        "to take the share of, or, for a rate, an array of amounts and another of the instants they happened at.",
        "Made by `python -m loadtest.metrics > docs/metrics.md`.",
        "",
        "| metric | unit | kind | better | stat |",
        "|---|---|---|---|---|",
    ]
    out += [
        f"| [`{m.name}`](#{m.name}) | {m.unit} | {m.kind} | {m.better} | {'yes' if needs_stat(m.name) else 'none'} |"
        for m in METRICS.values()
    ]
    out += ["", _RULES]
    for m in METRICS.values():
        out += ["", f"## {m.name}", "", m.doc, "", "```sql", m.sql]
        out += ["-- at", m.at] if m.kind == "rate" else []
        out += ["```"]
    return "\n".join(out) + "\n"


_RULES = (__doc__ or "").partition("\nRules that hold for all of them:\n")[2].strip()


if __name__ == "__main__":
    print(catalogue(), end="")
