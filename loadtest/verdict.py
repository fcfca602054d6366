"""Is an SLO met, breached or undecided; what to do about it. Pure: summary.py has the SQL.

An SLO is decided by the 95% interval of its figure: met if the whole interval is within the limit, breached if the
whole interval is beyond it, else undecided, with the number of further requests that would decide if what was seen goes
on. Failed requests count as +infinity, so a percentile of latency is also a statement about the share of requests that
were too slow or failed. An interval's end that the sample cannot bound is None and never decides.

`rule: mlperf` of an SLO decides a percentile as MLPerf's early stopping does: met if, with t of n requests beyond the
limit, n - t is at least the smallest h with I(p; h, t + 1) <= 1 - 0.99 (I: the regularised incomplete beta function;
with none beyond, p99 takes 459 requests and p90 44). That is the same statement about the share of requests beyond the
limit, P(at most t of n) <= 0.01, so it is the same interval with ends at 99%. MLPerf knows no breach: here it is the
opposite statement, at 99% too. Further requests are counted as MLPerf does, as if every one of them kept the limit.
"""

from collections.abc import Callable
from math import ceil, inf
from typing import Literal

from msgspec import Struct

from loadtest.stats import MLPERF_TAIL, TAIL, binomial_cdf, share_interval, total_interval
from loadtest.types import Metric, Slo, Verdict

FURTHER_REQUESTS_CAP = 1_000_000


class Evidence(Struct, kw_only=True):
    """A figure with its interval, and how many further requests would decide a limit if what was seen goes on.

    `requests` is what the figure rests on. `further(limit)` is None where no number up to the cap would do.
    """

    value: float | None
    low: float | None
    high: float | None
    requests: int
    further: Callable[[float], int | None]
    note: str = ""
    if_they: str = "go as these did"


def judge(slo: Slo, metric: Metric, target: str, stage: str, evidence: Evidence) -> Verdict:
    """The verdict for one target and stage. A limit is a maximum, or a minimum where higher is better."""
    outcome = _outcome(metric, slo.limit, evidence)
    more = evidence.further(slo.limit) if outcome == "undecided" else None
    return Verdict(
        metric=slo.metric,
        stat=slo.stat,
        limit=slo.limit,
        target=target,
        stage=stage,
        value=evidence.value,
        low=evidence.low,
        high=evidence.high,
        outcome=outcome,
        more_requests=0 if outcome != "undecided" else more,
        advice=" ".join(filter(None, (evidence.note, _advice(metric, outcome, more, evidence)))),
        rule=slo.rule,
    )


def unseen(slo: Slo, target: str, stage: str, advice: str) -> Verdict:
    """Nothing was sent there, so nothing is known, and no number of further requests would do."""
    return Verdict(
        slo.metric, slo.stat, slo.limit, target, stage, None, None, None, "undecided", None, advice, slo.rule
    )


Outcome = Literal["met", "breached", "undecided"]


def _outcome(metric: Metric, limit: float, evidence: Evidence) -> Outcome:
    if evidence.value is None:
        return "undecided"
    low = -inf if evidence.low is None else evidence.low
    high = inf if evidence.high is None else evidence.high
    if metric.better == "higher":
        return "met" if low >= limit else "breached" if high < limit else "undecided"
    return "met" if high <= limit else "breached" if low > limit else "undecided"


def _advice(metric: Metric, outcome: str, more: int | None, evidence: Evidence) -> str:
    if outcome == "breached" and evidence.value == inf:
        return "Too many requests failed for the figure to be finite: see the errors."
    if outcome != "undecided":
        return ""
    if evidence.value is None:
        return f"{metric.name} has no value here."
    if more is None:
        return f"More than {FURTHER_REQUESTS_CAP:,} further requests would be needed: the figure is too near the limit."
    return f"About {more:,} further requests would decide, if they {evidence.if_they}."


def no_evidence(note: str) -> Evidence:
    return Evidence(value=None, low=None, high=None, requests=0, further=lambda _: None, note=note)


def percentile_evidence(
    metric: Metric, level: float, value: float, low: float | None, high: float | None, worse: int, n: int
) -> Evidence:
    """`low` and `high`: the values at `stats.quantile_ranks`. `worse` of the `n` values are beyond the limit.

    p99 <= limit says that at most 1% are above it: a binomial statement, and what further requests are counted by.
    """
    allowed = 1 - level if metric.better == "lower" else level
    return Evidence(value=value, low=low, high=high, requests=n, further=lambda _: further_for_share(worse, n, allowed))


def mlperf_evidence(
    metric: Metric, level: float, value: float, low: float | None, high: float | None, worse: int, n: int
) -> Evidence:
    """As `percentile_evidence`, for `stats.quantile_ranks` at MLPERF_TAIL."""
    allowed = 1 - level if metric.better == "lower" else level
    return Evidence(
        value=value,
        low=low,
        high=high,
        requests=n,
        further=lambda _: _fewest(lambda more: binomial_cdf(worse, n + more, allowed) <= MLPERF_TAIL),
        note="By MLPerf's early-stopping rule, at 99%.",
        if_they="all keep the limit",
    )


def pooled_evidence(
    value: float,
    low: float | None,
    high: float | None,
    requests: int,
    share_worse: float,
    share_half_width: float,
    allowed: float,
) -> Evidence:
    """For a percentile of pooled values: `share_half_width` is that of the share beyond it, requests resampled."""
    distance = abs(allowed - share_worse)
    return Evidence(
        value=value,
        low=low,
        high=high,
        requests=requests,
        further=lambda _: further_by_square_root(requests, share_half_width, distance),
    )


def mean_evidence(value: float, low: float | None, high: float | None, n: int) -> Evidence:
    half = 0.0 if low is None or high is None else (high - low) / 2
    return Evidence(
        value=value,
        low=low,
        high=high,
        requests=n,
        further=lambda limit: further_by_square_root(n, half, abs(limit - value)) if n > 1 else 1,
    )


def share_evidence(hits: int, n: int, tail: float = TAIL) -> Evidence:
    low, high = share_interval(hits, n, tail)
    return Evidence(
        value=hits / n, low=low, high=high, requests=n, further=lambda limit: further_for_share(hits, n, limit)
    )


def rate_evidence(total: float, squares: float, window_s: float, requests: int) -> Evidence:
    """`requests` is how many were sent in the window: further ones are counted at that rate."""
    low, high = total_interval(total, squares)

    def further(limit: float) -> int | None:
        def decides(more: int) -> bool:
            longer = 1 + more / requests
            low, high = total_interval(total * longer, squares * longer)
            return low >= limit * window_s * longer or high < limit * window_s * longer

        return _fewest(decides) if requests else None

    return Evidence(
        value=total / window_s, low=low / window_s, high=high / window_s, requests=requests, further=further
    )


def further_for_share(hits: int, n: int, allowed: float) -> int | None:
    """Requests beyond `n` until a share that stays at hits / n is shown to be within or beyond `allowed`."""

    def decides(more: int) -> bool:
        m = n + more
        upper = -(-hits * m // n) if n else 0
        lower = hits * m // n if n else 0
        return binomial_cdf(upper, m, allowed) <= TAIL or 1 - binomial_cdf(lower - 1, m, allowed) <= TAIL

    return _fewest(decides)


def further_by_square_root(n: int, half_width: float, distance: float) -> int | None:
    """Requests beyond `n` until an interval that narrows with the square root of their number leaves the limit out."""
    if distance == 0:
        return None
    more = max(1, ceil(n * (half_width / distance) ** 2) - n)
    return more if more <= FURTHER_REQUESTS_CAP else None


def _fewest(decides: Callable[[int], bool]) -> int | None:
    """The fewest further requests that decide, by doubling and halving; None beyond the cap."""
    high = 1
    while not decides(high):
        if high >= FURTHER_REQUESTS_CAP:
            return None
        high = min(high * 2, FURTHER_REQUESTS_CAP)
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if decides(middle) else (middle, high)
    return high
