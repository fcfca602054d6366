"""SLOs judged on evidence worked out by hand."""

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest import stats, verdict
from loadtest.metrics import METRICS
from loadtest.types import Slo, Verdict
from loadtest.verdict import Evidence


def evidence(value: float | None, low: float | None, high: float | None, more: int | None = 7) -> Evidence:
    return Evidence(value=value, low=low, high=high, requests=100, further=lambda _: more)


def judge(metric: str, limit: float, on: Evidence, stat: str | None = None) -> Verdict:
    return verdict.judge(Slo(metric=metric, limit=limit, stat=stat), METRICS[metric], "t", "s", on)


@pytest.mark.parametrize(
    ("metric", "limit", "low", "high", "outcome"),
    [
        ("ttft_ms", 100, 80, 100, "met"),  # a limit is itself still within
        ("ttft_ms", 100, 80, 101, "undecided"),
        ("ttft_ms", 100, 100, 101, "undecided"),
        ("ttft_ms", 100, 101, 120, "breached"),
        ("ttft_ms", 100, 101, None, "breached"),  # unbounded above, but already too long
        ("ttft_ms", 100, 80, None, "undecided"),
        ("ttft_ms", 100, None, 90, "met"),
        ("ttft_ms", 100, 90, math.inf, "undecided"),
        ("ttft_ms", 100, math.inf, math.inf, "breached"),
        ("output_speed", 30, 30, 40, "met"),  # higher is better: a minimum
        ("output_speed", 30, 29, 40, "undecided"),
        ("output_speed", 30, 20, 29, "breached"),
        ("output_speed", 30, None, 40, "undecided"),
        ("success_rate", 0.99, 0.991, 1, "met"),
    ],
)
def test_an_outcome_is_where_the_interval_lies(
    metric: str, limit: float, low: float | None, high: float | None, outcome: str
) -> None:
    judged = judge(metric, limit, evidence(95, low, high))
    assert judged.outcome == outcome
    assert judged.more_requests == (7 if outcome == "undecided" else 0)


def test_what_is_undecided_says_what_would_decide() -> None:
    assert judge("ttft_ms", 100, evidence(95, 80, 120, 1234)).advice == (
        "About 1,234 further requests would decide, if they go as these did."
    )
    too_near = judge("ttft_ms", 100, evidence(95, 80, 120, None))
    assert too_near.more_requests is None
    assert too_near.advice.startswith("More than 1,000,000 further requests")


def test_a_figure_that_does_not_exist_is_undecided_and_says_why() -> None:
    judged = judge("goodput", 5, verdict.no_evidence("A needed figure is unknown."))
    assert (judged.outcome, judged.value, judged.more_requests) == ("undecided", None, None)
    assert judged.advice == "A needed figure is unknown. goodput has no value here."


def test_an_infinite_percentile_says_to_look_at_the_errors() -> None:
    judged = judge("ttft_ms", 100, evidence(math.inf, math.inf, math.inf), "p99")
    assert judged.outcome == "breached"
    assert "Too many requests failed" in judged.advice


# How many further requests


@pytest.mark.parametrize(
    ("hits", "n", "allowed", "more"),
    [
        (0, 0, 0.01, 368),  # 0.99^368 = 0.0248
        (0, 100, 0.01, 268),
        (0, 10, 0.1, 26),  # 0.9^36 = 0.0225
        (0, 10, 0.0, None),  # no number of requests shows that nothing ever fails
        (10, 1000, 0.01, None),  # the share is the limit
        (499, 50_000, 0.01, None),  # too near
    ],
)
def test_further_requests_for_a_share(hits: int, n: int, allowed: float, more: int | None) -> None:
    assert verdict.further_for_share(hits, n, allowed) == more


@given(n=st.integers(1, 400), data=st.data(), allowed=st.sampled_from([0.01, 0.1, 0.5]))
def test_further_requests_decide_and_one_fewer_does_not(n: int, data: st.DataObject, allowed: float) -> None:
    hits = data.draw(st.integers(0, n))
    more = verdict.further_for_share(hits, n, allowed)
    if more is None:
        return
    assert decided(-(-hits * (n + more) // n), hits * (n + more) // n, n + more, allowed)
    if more > 1:
        m = n + more - 1
        assert not decided(-(-hits * m // n), hits * m // n, m, allowed)


def decided(upper: int, lower: int, m: int, allowed: float) -> bool:
    return stats.share_interval(upper, m)[1] <= allowed or stats.share_interval(lower, m)[0] >= allowed


@given(st.integers(1, 2000), st.sampled_from([0.5, 0.9, 0.99]), st.data())
def test_a_percentile_within_a_limit_is_a_share_beyond_it(n: int, level: float, data: st.DataObject) -> None:
    """The interval's ends and the binomial statement about the share beyond the limit decide alike."""
    beyond = data.draw(st.integers(0, n))
    values = [1.0] * (n - beyond) + [3.0] * beyond  # the limit is 2
    low, high = (None if rank is None else values[rank] for rank in stats.quantile_ranks(n, level))
    value = values[math.floor(level * n)]
    outcome = judge("ttft_ms", 2, evidence(value, low, high), "p99").outcome
    within = stats.binomial_cdf(beyond, n, 1 - level) <= 0.025
    above = 1 - stats.binomial_cdf(beyond - 1, n, 1 - level) <= 0.025
    assert outcome == ("met" if within else "breached" if above else "undecided")


def test_further_requests_for_a_percentile_count_what_is_beyond() -> None:
    on = verdict.percentile_evidence(METRICS["ttft_ms"], 0.99, 80, 70, None, worse=0, n=100)
    assert judge("ttft_ms", 100, on, "p99").more_requests == 268
    slow_end = verdict.percentile_evidence(METRICS["output_speed"], 0.01, 40, None, 50, worse=0, n=100)
    assert judge("output_speed", 30, slow_end, "p1").more_requests == 268


@pytest.mark.parametrize(
    ("worse", "n", "outcome", "more"),
    [
        (0, 459, "met", 0),
        (0, 21, "undecided", 438),  # as LoadGen says of 21 queries
        (0, 300, "undecided", 159),  # and of 300
        (1, 459, "undecided", 203),  # 662 with one beyond the limit
        (40, 459, "breached", 0),
    ],
)
def test_mlperfs_rule_decides_and_counts_as_loadgen_does(worse: int, n: int, outcome: str, more: int) -> None:
    low, high = stats.quantile_ranks(n, 0.99, stats.MLPERF_TAIL)
    values = [50.0] * (n - worse) + [200.0] * worse
    ends = [None if rank is None else values[rank] for rank in (low, high)]
    on = verdict.mlperf_evidence(METRICS["ttft_ms"], 0.99, values[math.floor(0.99 * n)], *ends, worse=worse, n=n)
    slo = Slo(metric="ttft_ms", stat="p99", limit=100, rule="mlperf")
    judged = verdict.judge(slo, METRICS["ttft_ms"], "t", "s", on)
    assert (judged.outcome, judged.more_requests, judged.rule) == (outcome, more, "mlperf")
    assert ("if they all keep the limit" in judged.advice) == (outcome == "undecided")


def test_further_requests_for_a_mean_by_hand() -> None:
    """An interval of 100 +- 10 from 50 requests must be 4 times narrower to leave out 102.5: 50 * 16 requests."""
    on = verdict.mean_evidence(100, 90, 110, 50)
    assert judge("ttft_ms", 102.5, on, "mean").more_requests == 750
    assert judge("ttft_ms", 100, on, "mean").more_requests is None


def test_further_requests_for_a_rate() -> None:
    """400 requests in 10 s, +- 2 * sqrt(400) / 10 = 4 or so: 38/s would be shown by about four times as many."""
    on = verdict.rate_evidence(400, 400, window_s=10, requests=400)
    assert on.value == 40
    assert (on.low, on.high) == pytest.approx((36.176, 44.119), abs=1e-3)  # Garwood: 361.76 and 441.19
    judged = judge("requests_per_s", 38, on)
    assert judged.outcome == "undecided"
    assert judged.more_requests is not None
    assert 1000 <= judged.more_requests <= 1300
    assert judge("requests_per_s", 36, on).outcome == "met"
    assert judge("requests_per_s", 45, on).outcome == "breached"


def test_a_rate_of_nothing_is_judged_too() -> None:
    on = verdict.rate_evidence(0, 0, window_s=10, requests=50)
    assert judge("requests_per_s", 1, on).outcome == "breached"  # at most 0.37/s


def test_share_evidence_by_hand() -> None:
    on = verdict.share_evidence(0, 400)
    assert (on.value, on.low) == (0, 0)
    assert on.high == pytest.approx(1 - 0.025 ** (1 / 400))
    assert judge("error_rate", 0.01, on).outcome == "met"
    assert judge("error_rate", 0.0, on).outcome == "undecided"


def test_pooled_evidence_narrows_with_the_square_root() -> None:
    """2% of the gaps may be beyond, 1% are, +- 2%: four times the requests halve that."""
    on = verdict.pooled_evidence(20, 18, None, 100, share_worse=0.01, share_half_width=0.02, allowed=0.02)
    assert judge("itl_ms", 30, on, "p98").more_requests == 300


# False verdicts are rare: the error that a limit exactly at the truth lets through


@pytest.mark.parametrize("outcome", ["met", "breached"])
def test_a_limit_at_the_truth_is_seldom_decided(outcome: str) -> None:
    rng, n, level = Random(3), 500, 0.9
    low, high = stats.quantile_ranks(n, level)
    assert low is not None
    assert high is not None
    limit = -math.log(1 - level)

    def decides(values: list[float]) -> bool:
        on = evidence(values[math.floor(level * n)], values[low], values[high])
        return judge("ttft_ms", limit, on, "p90").outcome == outcome

    decided_so = sum(decides(sorted(rng.expovariate(1) for _ in range(n))) for _ in range(400))
    assert decided_so / 400 <= 0.04  # nominally at most 0.025
