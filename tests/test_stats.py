"""Special functions against exact sums and published tables; intervals against simulated samples."""

import math
from collections.abc import Callable
from fractions import Fraction
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest import stats
from loadtest.stats import Stat, parse_stat

# Special functions


def exact_binomial_cdf(k: int, n: int, p: Fraction) -> float:
    return float(sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k + 1)))


@given(n=st.integers(1, 60), k=st.integers(-1, 61), percent=st.integers(1, 99))
def test_binomial_cdf_is_the_exact_sum(n: int, k: int, percent: int) -> None:
    expected = 0.0 if k < 0 else exact_binomial_cdf(min(k, n), n, Fraction(percent, 100))
    assert stats.binomial_cdf(k, n, percent / 100) == pytest.approx(expected, rel=1e-10, abs=1e-13)


def test_binomial_cdf_of_a_million() -> None:
    """By symmetry P(X < n/2) = (1 - P(X = n/2)) / 2, and P(X = n/2) is known to many digits by Stirling's series."""
    n = 1_000_000
    middle = math.exp(math.lgamma(n + 1) - 2 * math.lgamma(n / 2 + 1) - n * math.log(2))
    assert stats.binomial_cdf(n // 2 - 1, n, 0.5) == pytest.approx((1 - middle) / 2, abs=1e-8)


@given(k=st.integers(0, 80), mean=st.floats(0.01, 60))
def test_gamma_cdf_is_the_poisson_sum(k: int, mean: float) -> None:
    """P(Poisson(mean) <= k) = 1 - P(k + 1, mean)."""
    poisson = math.fsum(math.exp(-mean + i * math.log(mean) - math.lgamma(i + 1)) for i in range(k + 1))
    assert 1 - stats.gamma_cdf(mean, k + 1) == pytest.approx(poisson, abs=1e-12)


@given(level=st.floats(0.001, 0.999), a=st.floats(0.5, 500), b=st.floats(0.5, 500))
def test_quantiles_invert_their_functions(level: float, a: float, b: float) -> None:
    assert stats.beta_cdf(stats.beta_quantile(level, a, b), a, b) == pytest.approx(level, abs=1e-9)
    assert stats.gamma_cdf(stats.gamma_quantile(level, a), a) == pytest.approx(level, abs=1e-9)


@pytest.mark.parametrize(("degrees", "expected"), [(1, 12.706), (2, 4.303), (10, 2.228), (30, 2.042), (120, 1.980)])
def test_t_quantile_as_in_every_table(degrees: int, expected: float) -> None:
    assert stats.t_quantile(0.975, degrees) == pytest.approx(expected, abs=5e-4)


# Intervals, against published values


@pytest.mark.parametrize(
    ("n", "ranks"),
    # Conover, Practical Nonparametric Statistics: 95% intervals of the median, the r-th smallest to the r-th largest
    [(5, (None, None)), (6, (0, 5)), (10, (1, 8)), (20, (5, 14)), (50, (17, 32)), (100, (39, 60))],
)
def test_ranks_of_the_median(n: int, ranks: tuple[int | None, int | None]) -> None:
    assert stats.quantile_ranks(n, 0.5) == ranks


def test_the_largest_of_368_values_bounds_the_p99() -> None:
    """0.99^368 = 0.0248 is the first power below 0.025."""
    assert 0.99**368 <= 0.025 < 0.99**367
    assert stats.quantile_ranks(367, 0.99) == (358, None)
    assert stats.quantile_ranks(368, 0.99) == (359, 367)


@pytest.mark.parametrize(
    ("level", "beyond", "queries"),
    # LoadGen's own figures: 459 and 44 with none beyond the limit (docs/early_stopping.md of mlcommons/endpoints, and
    # "would need to run at least 438 more" after 21 of its logs), 662 with one at p99, 64 with one at p90
    [(0.99, 0, 459), (0.9, 0, 44), (0.99, 1, 662), (0.9, 1, 64)],
)
def test_mlperfs_early_stopping_needs_so_many_queries(level: float, beyond: int, queries: int) -> None:
    def passes(n: int) -> bool:
        _, high = stats.quantile_ranks(n, level, stats.MLPERF_TAIL)
        return high is not None and high < n - beyond  # the value at `high` keeps the limit

    assert passes(queries)
    assert not passes(queries - 1)


@given(n=st.integers(1, 3000), beyond=st.integers(0, 60), level=st.sampled_from([0.9, 0.95, 0.99, 0.999]))
def test_mlperfs_rule_is_an_interval_with_ends_at_99_percent(n: int, beyond: int, level: float) -> None:
    """LoadGen: met if I(p; h, t + 1) <= 1 - c, with t queries beyond the limit and h = n - t within it."""
    beyond = min(beyond, n)
    within = n - beyond
    met = within > 0 and stats.beta_cdf(level, within, beyond + 1) <= 0.01
    _, high = stats.quantile_ranks(n, level, stats.MLPERF_TAIL)
    assert (high is not None and high < within) == met


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 5
    [(81, 263, 0.2527, 0.3676), (15, 148, 0.0578, 0.1617), (0, 20, 0.0, 0.1684), (1, 29, 0.0009, 0.1776)],
)
def test_clopper_pearson_as_published(hits: int, n: int, low: float, high: float) -> None:
    assert stats.share_interval(hits, n) == pytest.approx((low, high), abs=5e-5)


def test_a_share_of_nothing_is_unknown() -> None:
    assert stats.share_interval(0, 0) == (0, 1)


@pytest.mark.parametrize(
    ("count", "low", "high"),
    # Garwood 1936, as in every table of Poisson limits
    [(0, 0.0, 3.689), (1, 0.0253, 5.572), (5, 1.623, 11.668), (10, 4.795, 18.390), (100, 81.364, 121.627)],
)
def test_limits_of_a_count_as_published(count: int, low: float, high: float) -> None:
    assert stats.total_interval(count, count) == pytest.approx((low, high), abs=5e-4)


def test_a_total_of_equal_amounts_is_a_scaled_count() -> None:
    low, high = stats.total_interval(10, 10)
    assert stats.total_interval(70, 490) == pytest.approx((7 * low, 7 * high))


def test_mean_interval_by_hand() -> None:
    """n = 11, t(0.975, 10) = 2.228, half = 2.228 * 3 / sqrt(11)."""
    assert stats.mean_interval(50, 3, 11) == pytest.approx((50 - 2.0154, 50 + 2.0154), abs=1e-3)
    assert stats.mean_interval(50, 0, 1) == (None, None)
    assert stats.mean_interval(math.inf, math.nan, 9) == (math.inf, math.inf)


def test_the_bootstrap_is_repeatable_and_exact_where_nothing_varies() -> None:
    blocks = [(3.0, 4.0), (1.0, 4.0), (2.0, 2.0), (0.0, 5.0)] * 10
    assert stats.ratio_interval(blocks) == stats.ratio_interval(blocks)
    assert stats.ratio_interval([(1.0, 4.0)] * 50) == (0.25, 0.25)


# Coverage: at a nominal 95%, at least 93% of seeded samples must give an interval that holds the truth


def coverage(trials: int, holds: Callable[[Random], bool]) -> float:
    rng = Random(20)
    return sum(holds(rng) for _ in range(trials)) / trials


@pytest.mark.parametrize(("n", "level"), [(60, 0.5), (500, 0.9), (900, 0.99)])
def test_percentile_intervals_cover(n: int, level: float) -> None:
    truth = -math.log(1 - level)
    low, high = stats.quantile_ranks(n, level)

    def holds(rng: Random) -> bool:
        values = sorted(rng.expovariate(1) for _ in range(n))
        return (low is None or values[low] <= truth) and (high is None or truth <= values[high])

    assert coverage(1000, holds) >= 0.93


@pytest.mark.parametrize(("n", "share"), [(50, 0.02), (200, 0.5), (400, 0.01)])
def test_share_intervals_cover(n: int, share: float) -> None:
    known: dict[int, tuple[float, float]] = {}

    def holds(rng: Random) -> bool:
        hits = sum(rng.random() < share for _ in range(n))
        low, high = known.setdefault(hits, stats.share_interval(hits, n))
        return low <= share <= high

    assert coverage(1000, holds) >= 0.93


def poisson(rng: Random, mean: float) -> int:
    count, at = 0, rng.expovariate(1)
    while at < mean:
        count, at = count + 1, at + rng.expovariate(1)
    return count


@pytest.mark.parametrize("mean", [3, 40])
def test_limits_of_a_count_cover(mean: float) -> None:
    def holds(rng: Random) -> bool:
        count = poisson(rng, mean)
        low, high = stats.total_interval(count, count)
        return low <= mean <= high

    assert coverage(1000, holds) >= 0.93


def test_limits_of_a_compound_total_cover() -> None:
    """40 requests on average, of 1 to 200 tokens each: 40 * 100.5."""

    def holds(rng: Random) -> bool:
        tokens = [rng.randint(1, 200) for _ in range(poisson(rng, 40))]
        low, high = stats.total_interval(sum(tokens), sum(v * v for v in tokens))
        return low <= 40 * 100.5 <= high

    assert coverage(1000, holds) >= 0.93


def test_mean_intervals_cover() -> None:
    def holds(rng: Random) -> bool:
        values = [rng.gauss(100, 15) for _ in range(12)]
        mean = sum(values) / 12
        low, high = stats.mean_interval(mean, math.sqrt(sum((v - mean) ** 2 for v in values) / 11), 12)
        return low is not None and high is not None and low <= 100 <= high

    assert coverage(1000, holds) >= 0.93


def paced_requests(rng: Random, count: int) -> list[list[float]]:
    """Each request has a pace of its own, so that its 40 gaps are alike. A gap is pace * noise, both uniform."""
    return [[pace * rng.random() for _ in range(40)] for pace in (rng.random() for _ in range(count))]


def true_quantile(level: float) -> float:
    """P(product of two uniforms <= x) = x - x log(x)."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if middle - middle * math.log(middle) < level else (low, middle)
    return low


@pytest.mark.parametrize("level", [0.5, 0.9])
def test_pooled_intervals_cover_because_whole_requests_are_resampled(level: float) -> None:
    truth = true_quantile(level)

    def holds(rng: Random) -> bool:
        requests = paced_requests(rng, 60)
        pooled = sorted(gap for request in requests for gap in request)
        own = pooled[int(level * len(pooled))]
        below = [(float(sum(gap < own for gap in request)), 40.0) for request in requests]
        low, high = stats.pooled_levels(below, level, resamples=200)
        return (low < 0 or pooled[int(low * 2400)] <= truth) and (high >= 1 or truth <= pooled[int(high * 2400)])

    assert coverage(300, holds) >= 0.93


def test_gaps_taken_as_independent_would_not_cover() -> None:
    truth = true_quantile(0.5)
    low, high = stats.quantile_ranks(2400, 0.5)
    assert low is not None
    assert high is not None

    def holds(rng: Random) -> bool:
        pooled = sorted(gap for request in paced_requests(rng, 60) for gap in request)
        return pooled[low] <= truth <= pooled[high]

    assert coverage(300, holds) < 0.6


# Requests under load are not independent: what the same intervals are then worth, which report and docs say


def in_a_queue(rng: Random, n: int, load: float) -> list[float]:
    """Times in the system at a single server that has been busy for a while (Lindley's recursion)."""
    wait, out = 0.0, []
    for _ in range(300 + n):
        service = rng.expovariate(1)
        out.append(wait + service)
        wait = max(0.0, wait + service - rng.expovariate(load))
    return out[300:]


@pytest.mark.parametrize(("load", "least", "most"), [(0.2, 0.75, 0.97), (0.5, 0.35, 0.8), (0.8, 0.05, 0.45)])
@pytest.mark.parametrize("level", [0.5, 0.99])
def test_within_one_stage_intervals_cover_the_less_the_busier_it_is(
    load: float, least: float, most: float, level: float
) -> None:
    """Each interval of 1,000 requests: of the percentile, of the share beyond its true value, of the mean."""
    truth, n = -math.log(1 - level) / (1 - load), 1000
    low, high = stats.quantile_ranks(n, level)
    assert low is not None
    assert high is not None
    found = {"percentile": 0, "share": 0, "mean": 0}
    rng = Random(20)
    for _ in range(100):
        values = sorted(in_a_queue(rng, n, load))
        found["percentile"] += values[low] <= truth <= values[high]
        ends = stats.share_interval(sum(value > truth for value in values), n)
        found["share"] += ends[0] <= 1 - level <= ends[1]
        mean = math.fsum(values) / n
        ends = stats.mean_interval(mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1)), n)  # type: ignore[assignment]
        found["mean"] += ends[0] <= 1 / (1 - load) <= ends[1]
    assert all(least <= covered / 100 <= most for covered in found.values()), found


# The stat of a figure


@pytest.mark.parametrize(
    ("text", "stat"),
    [
        ("p50", Stat("p50", 0.5)),
        ("p5", Stat("p5", 0.05)),
        ("p99", Stat("p99", 0.99)),
        ("p99.9", Stat("p999", 0.999)),
        ("p999", Stat("p999", 0.999)),
        ("p99.99", Stat("p9999", 0.9999)),
        ("p9999", Stat("p9999", 0.9999)),
        ("p99.0", Stat("p99", 0.99)),
        ("p12.5", Stat("p12_5", 0.125)),
        ("mean", Stat("mean", None)),
    ],
)
def test_stats_that_can_be_asked_for(text: str, stat: Stat) -> None:
    assert parse_stat(text) == stat


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("max", "no number of requests can show a maximum; write p99.9"),
        ("p100", "no number of requests can show a maximum; write p99.9"),
        ("min", "no number of requests can show a minimum; write p1"),
        ("p0", "no number of requests can show a minimum; write p1"),
        ("p0.0", "a percentile lies above 0 and below 100; write p1"),
        ("median", "'median' is not a stat; write p50"),
        ("avg", "'avg' is not a stat; write mean"),
        ("P99", "'P99' is not a stat; write p99"),
        ("0.99", "'0.99' is not a stat; write p99"),
        (".999", "'.999' is not a stat; write p99.9"),
        ("99.9%", "'99.9%' is not a stat; write p99.9"),
        ("0", "'0' is not a stat; write p50, p90, p95, p99, p99.9 or mean"),
        ("p995", "write p50, p90, p95, p99, p99.9 or mean"),
        ("99", "'99' is not a stat; write p99"),
        ("", "'' is not a stat"),
    ],
)
def test_stats_that_cannot(text: str, says: str) -> None:
    with pytest.raises(ValueError, match="is not a stat") as raised:
        parse_stat(text)
    assert says in str(raised.value)


def test_the_difference_of_two_means_has_welchs_interval() -> None:
    """Worked out by hand: means 3 and 6, variances 2.5 and 10 of five each, so an error of 2.5 and 5.88 degrees of freedom."""
    low, high = stats.difference_interval([1, 2, 3, 4, 5], [2, 4, 6, 8, 10])
    assert low == pytest.approx(-3 - 2.4592 * 2.5**0.5, abs=2e-3)
    assert high == pytest.approx(-3 + 2.4592 * 2.5**0.5, abs=2e-3)
    assert stats.difference_interval([1.0], [1.0, 2.0]) == (None, None)
    assert stats.difference_interval([1.0, math.inf], [1.0, 2.0]) == (None, None)
    assert stats.difference_interval([3.0, 3.0], [1.0, 1.0]) == (2.0, 2.0)
