"""METRICS: every figure this tool shows, each defined once, as SQL over one row of `requests`.

Terminal, web page, Grafana, SLOs and report all ask this module for their queries and write no metric SQL of their
own, so they cannot disagree. `Metric.sql` is always an expression over one row (columns:
store/schema/002_requests.sql); what it yields, and what is then done with it, follows from `Metric.kind`:

    request   a nullable number: one value a request. Asked for with a stat (p99, mean)
    pooled    an array of numbers: many values a request, pooled over requests. Asked for with a stat. `Metric.count` is
              how many they are, without making them
    share     a nullable 0 or 1: the share of ones among the rows that are not null
    rate      an array of amounts, beside `Metric.at`, an array of the instants they happened at: the amounts within a
              window, over the window. NaN is an amount that is not known, and makes the rate null
    ratio     as a rate, which the mean of the gauge `Metric.sampled` over the same window is divided by; null without it.
              No objective can be set on it: how far it may stray is not known

A rate may also use `start_ns`, `end_ns` and `goodput_limits` of the request's row in `stages`: of its round, where the
stage has several. Its window is then all of them together, or one each where the figure is asked for `BY_ROUND`.

A new metric is an entry in table.py.

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

from loadtest.metrics.queries import (
    EDGES,
    SENT_NS,
    Window,
    batch_means,
    blocks,
    bucket,
    figures,
    heatmap,
    last_attempts,
    order_statistics,
    rows,
    series,
)  # fmt: skip
from loadtest.metrics.table import BY, BY_ROUND, FAILED, GOODPUT_LIMITS, METRICS, OK, STATS, needs_stat

__all__ = [
    "BY", "BY_ROUND", "EDGES", "FAILED", "GOODPUT_LIMITS", "METRICS", "OK", "SENT_NS", "STATS", "Window", "batch_means",
    "blocks", "bucket", "catalogue", "figures", "heatmap", "last_attempts", "needs_stat", "order_statistics", "rows",
    "series",
]  # fmt: skip


def catalogue() -> str:
    """The first half of docs/metrics.md; definitions has the second."""
    out = [
        "# Metrics",
        "",
        "Every figure in the terminal, on the pages, in Grafana, in an SLO and in the report is one of these.",
        "Each is SQL over one row of the table `requests`: a number, an array of values to pool, a 0 or 1",
        "to take the share of, or, for a rate, an array of amounts and another of the instants they happened at.",
        "What other tools mean by the same words stands [below](#what-others-mean-by-the-same-words).",
        "Made by `python -m loadtest.definitions > docs/metrics.md`.",
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
        out += ["-- at", m.at] if m.at else ["-- count", m.count] if m.kind == "pooled" else []
        out += ["-- of the rows", m.applies] if m.applies else []
        out += ["-- sampled", m.sampled] if m.sampled else []
        out += ["```"]
    return "\n".join(out) + "\n"


_RULES = (__doc__ or "").partition("\nRules that hold for all of them:\n")[2].strip()
