"""What the stored rows of one stage and target say about a figure: its interval, and what more requests would tell."""

from collections.abc import Callable
from math import ceil, isinf
from typing import Any

import msgspec

from loadtest import metrics, stats, verdict
from loadtest.metrics import METRICS
from loadtest.stats import parse_stat
from loadtest.types import Slo
from loadtest.verdict import Evidence

Row = dict[str, Any]
Ask = Callable[[str], list[Row]]
"""Runs a query for one run, stage and target."""

MEASURED = "run = {run:String} AND NOT warmup"
ONE_GROUP = f"{MEASURED} AND stage = {{stage:String}} AND target = {{target:String}}"

BLOCKS = 1000  # more requests than that are resampled in random groups, so that the cost is bounded
FEWEST_TO_RESAMPLE = 30  # fewer requests say too little about how requests differ
FEWEST_IN_TAIL = 10  # and so do fewer that have a value beyond the percentile


def evidence(
    ask: Ask, slo: Slo, row: Row, requests: int, *, rows: str = ONE_GROUP, tail: float = stats.TAIL
) -> Evidence:
    """`row`: of `metrics.figures` with failures, for the metric and stat of `slo`; `requests`: all of the group.

    `rows`: which they are, in SQL. `tail`: how often an end of the interval may be wrong; of a rate, 2.5% at all times.
    """
    metric = METRICS[slo.metric]
    if metric.kind == "rate":
        total = row.get(f"{metric.name}_total")
        if total is None or not row[f"{metric.name}_window_s"]:
            return verdict.no_evidence(_why_null(metric.name))
        return verdict.rate_evidence(total, row[f"{metric.name}_squares"], row[f"{metric.name}_window_s"], requests)
    n = row.get(f"{metric.name}_n", 0)
    if not n:
        return verdict.no_evidence("No request counts here." if metric.kind == "share" else _why_null(metric.name))
    if metric.kind == "share":
        return verdict.share_evidence(row[f"{metric.name}_hits"], n, tail)
    stat = parse_stat(slo.stat or "")
    value = row[f"{metric.name}_{stat.label}"]
    if metric.kind == "pooled":
        return _pooled(ask, slo, value, stat.level, rows, tail)
    if stat.level is None:
        return verdict.mean_evidence(value, *stats.mean_interval(value, row[f"{metric.name}_sd"], n, tail), n)
    return _percentile(ask, slo, value, stat.level, n, rows, tail)


def _why_null(metric: str) -> str:
    return {
        "goodput": "A figure that `goodput:` limits is unknown for some request, or the plan has no limits.",
        "output_tokens_per_s": "The endpoint did not say how many tokens some of its answers have.",
        "itl_ms": "Tokens per chunk are unknown; icl_ms can be judged instead.",
    }.get(metric, "No request here has this figure.")


def _percentile(ask: Ask, slo: Slo, value: float, level: float, n: int, rows: str, tail: float) -> Evidence:
    mlperf = slo.rule == "mlperf"
    ranks = stats.quantile_ranks(n, level, stats.MLPERF_TAIL if mlperf else tail)
    levels = [(rank + 0.5) / n if rank is not None else level for rank in ranks]
    [row] = ask(metrics.order_statistics(slo.metric, levels, slo.limit, rows))
    low, high = (None if rank is None else bound for rank, bound in zip(ranks, row["q"], strict=True))
    of = verdict.mlperf_evidence if mlperf else verdict.percentile_evidence
    return of(METRICS[slo.metric], level, value, low, high, row["worse"], n)


def _pooled(ask: Ask, slo: Slo, value: float, level: float | None, where: str, tail: float) -> Evidence:
    """Requests are resampled, not gaps: the gaps of one answer are alike."""
    metric = METRICS[slo.metric]
    rows = ask(metrics.blocks(slo.metric, value, where, BLOCKS))
    requests = sum(row["requests"] for row in rows)
    in_tail = requests if level is None else sum(row["n"] > row["below"] for row in rows)
    missing = max(FEWEST_TO_RESAMPLE - requests, ceil((FEWEST_IN_TAIL / in_tail - 1) * requests))
    if missing > 0:
        note = f"{requests} requests, {in_tail} of them in the tail, are too few to say how requests differ."
        few = verdict.mean_evidence(value, None, None, requests)
        return msgspec.structs.replace(few, note=note, further=lambda _: missing)
    if level is None:
        totals = [(r["total"], r["n"]) for r in rows]
        low, high = (value, value) if isinf(value) else stats.ratio_interval(totals, tail=tail)
        return verdict.mean_evidence(value, low, high, requests)
    ends = stats.pooled_levels([(row["below"], row["n"]) for row in rows], level, tail=tail)
    levels = [end if 0 <= end < 1 else level for end in ends]
    [row] = ask(metrics.order_statistics(slo.metric, levels, slo.limit, where))
    bounds = [bound if 0 <= end < 1 else None for end, bound in zip(ends, row["q"], strict=True)]
    return verdict.pooled_evidence(
        value,
        bounds[0],
        bounds[1],
        requests,
        share_worse=row["worse"] / row["n"],
        share_half_width=(ends[1] - ends[0]) / 2,
        allowed=1 - level if metric.better == "lower" else level,
    )
