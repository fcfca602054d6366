"""Intervals: pure mathematics, nothing here knows a request or a query.

Every interval is two-sided at 95% and assumes independent observations. Requests under load are not independent
(queues correlate neighbours), so an interval is conditional on the stage it was measured in: what a repetition of the
same stage would give lies outside it more often than one time in twenty. The report says so.

The few special functions stand here because nothing else of a scientific library is needed. Sources:

    incomplete beta   continued fraction DLMF 8.17.22, by Lentz's method as in Press et al., Numerical Recipes, 6.4
    incomplete gamma  series DLMF 8.11.4 and continued fraction DLMF 8.9.2, chosen as in Numerical Recipes, 6.2
    inverses          bisection: slow, simple, cannot diverge
    percentiles       binomial order statistics, David and Nagaraja, Order Statistics, 7.1
    MLPerf's rule     early stopping of mlcommons/inference, loadgen/early_stopping.cc, told in docs/early_stopping.md
                      of mlcommons/endpoints: the same order statistics, each end at 99%
    shares            Clopper and Pearson, Biometrika 26 (1934)
    rates             Garwood, Biometrika 28 (1936); weighted: Fay and Feuer, Statistics in Medicine 16 (1997)
    pooled values     Woodruff, JASA 47 (1952): the interval of the distribution function, read off the sorted values;
                      that interval from a bootstrap over whole requests (Davison and Hinkley, Bootstrap Methods, 3.8)
                      with expanded percentiles (Hesterberg, What Teachers Should Know About the Bootstrap, 2014, 5.3)
"""

import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from math import exp, floor, inf, lgamma, log, log1p, sqrt
from random import Random
from statistics import NormalDist

from msgspec import Struct

CONFIDENCE = 0.95
TAIL = (1 - CONFIDENCE) / 2
MLPERF_TAIL = 0.01
_TINY = 1e-300
_PRECISION = 1e-15
_MAX_TERMS = 200_000


class Stat(Struct, frozen=True):
    """What is asked of a metric with many values: a percentile (level 0.99) or the mean (level None)."""

    label: str  # p99, p999, mean: the key in summary.json and the end of a column's name
    level: float | None


STAT = "p50, p90, p95, p99, p99.9 or mean"


def parse_stat(text: str) -> Stat:
    """`p50`, `p99.9` (also `p999`, `p9999`) or `mean`; anything else is a ValueError that says what to write."""
    if text == "mean":
        return Stat("mean", None)
    if text in ("max", "p100"):
        raise ValueError(f"{text} is not a stat: no number of requests can show a maximum; write p99.9")
    if text in ("min", "p0"):
        raise ValueError(f"{text} is not a stat: no number of requests can show a minimum; write p1")
    if match := re.fullmatch(r"p(99)(9+)", text):
        return _percentile(f"{match[1]}.{match[2]}")
    if match := re.fullmatch(r"p(\d{1,2}(?:\.\d+)?)", text):
        if Decimal(match[1]) == 0:
            raise ValueError(f"{text} is not a stat: a percentile lies above 0 and below 100; write p1")
        return _percentile(match[1])
    better = {"median": "p50", "avg": "mean", "average": "mean"}.get(text.lower())
    if match := re.fullmatch(r"p?(0?\.\d+|\d{1,2}(?:\.\d+)?)(?:th|%)?", text.lower()):
        level = Decimal(match[1]) * (100 if match[1].lstrip("0").startswith(".") else 1)
        better = f"p{level.normalize():f}" if level > 0 else None
    hint = f"write {better or STAT}"
    raise ValueError(f"{text!r} is not a stat; {hint}")


def _percentile(text: str) -> Stat:
    whole, _, fraction = text.partition(".")
    number = f"{int(whole)}.{fraction}".rstrip("0").rstrip(".")
    return Stat("p" + number.replace(".", "" if number.startswith("99.") else "_"), float(Decimal(number) / 100))


# Special functions


def beta_cdf(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function I_x(a, b)."""
    if x <= 0:
        return 0.0
    if x >= 1:
        return 1.0
    front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log1p(-x))
    if x < (a + 1) / (a + b + 2):
        return front * _beta_fraction(x, a, b) / a
    return 1 - front * _beta_fraction(1 - x, b, a) / b


def _beta_fraction(x: float, a: float, b: float) -> float:
    c = 1.0
    d = 1 / _away_from_zero(1 - (a + b) * x / (a + 1))
    result = d
    for m in range(1, _MAX_TERMS):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / _away_from_zero(1 + term * d)
            c = _away_from_zero(1 + term / c)
            result *= c * d
        if abs(c * d - 1) < _PRECISION:
            return result
    raise ArithmeticError(f"the incomplete beta function did not converge at x={x}, a={a}, b={b}")


def gamma_cdf(x: float, a: float) -> float:
    """The regularised lower incomplete gamma function P(a, x)."""
    if x <= 0:
        return 0.0
    front = exp(a * log(x) - x - lgamma(a))
    return front * _gamma_series(x, a) if x < a + 1 else 1 - front * _gamma_fraction(x, a)


def _gamma_series(x: float, a: float) -> float:
    term = result = 1 / a
    for n in range(1, _MAX_TERMS):
        term *= x / (a + n)
        result += term
        if term < result * _PRECISION:
            return result
    raise ArithmeticError(f"the incomplete gamma function did not converge at x={x}, a={a}")


def _gamma_fraction(x: float, a: float) -> float:
    b = x + 1 - a
    c = 1 / _TINY
    d = 1 / _away_from_zero(b)
    result = d
    for n in range(1, _MAX_TERMS):
        b += 2
        d = 1 / _away_from_zero(b - n * (n - a) * d)
        c = _away_from_zero(b - n * (n - a) / c)
        result *= c * d
        if abs(c * d - 1) < _PRECISION:
            return result
    raise ArithmeticError(f"the incomplete gamma function did not converge at x={x}, a={a}")


def _away_from_zero(x: float) -> float:
    return x if abs(x) > _TINY else _TINY


def _solve(rising: Callable[[float], float], level: float, low: float, high: float) -> float:
    """The x in [low, high] at which `rising` reaches `level`."""
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if rising(middle) < level else (low, middle)
    return (low + high) / 2


def binomial_cdf(k: int, n: int, p: float) -> float:
    """P(at most k of n), each with probability p."""
    if k < 0:
        return 0.0
    return 1.0 if k >= n else beta_cdf(1 - p, n - k, k + 1)


def beta_quantile(level: float, a: float, b: float) -> float:
    return _solve(lambda x: beta_cdf(x, a, b), level, 0, 1)


def gamma_quantile(level: float, a: float) -> float:
    return _solve(lambda x: gamma_cdf(x, a), level, 0, a + 40 * sqrt(a) + 40)


def t_quantile(level: float, degrees: float) -> float:
    """Student's t, level >= 0.5."""
    x = beta_quantile(2 * (1 - level), degrees / 2, 0.5)
    return sqrt(degrees * (1 / x - 1))


# Intervals


def quantile_ranks(n: int, level: float, tail: float = TAIL) -> tuple[int | None, int | None]:
    """Indices, from 0, of the sorted values that bound the quantile. None: n values cannot bound it on that side."""
    low = _largest(lambda rank: binomial_cdf(rank - 1, n, level) <= tail, n)
    high = _largest(lambda rank: binomial_cdf(rank - 1, n, level) < 1 - tail, n) + 1
    return (low - 1 if low >= 1 else None), (high - 1 if high <= n else None)


def _largest(holds: Callable[[int], bool], n: int) -> int:
    """The largest rank in 0..n for which `holds`, which is true up to there; 0 always holds."""
    low, high = 0, n
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle) else (low, middle - 1)
    return low


def share_interval(hits: int, n: int, tail: float = TAIL) -> tuple[float, float]:
    """Clopper-Pearson. Without observations: 0 to 1."""
    low = 0.0 if hits == 0 else beta_quantile(tail, hits, n - hits + 1)
    high = 1.0 if hits == n else beta_quantile(1 - tail, hits + 1, n - hits)
    return low, high


def total_interval(total: float, squares: float) -> tuple[float, float]:
    """The expected total of amounts that arrive at random; `squares` is the sum of their squares.

    Amounts of 1 give Garwood's interval of a count; others are scaled by the mean weight squares / total (Fay and Feuer
    take the largest weight for the high end, which no stored sum tells). A total of 0 is bounded as a count.
    """
    if total == 0:
        return 0.0, gamma_quantile(1 - TAIL, 1)
    weight = squares / total
    count = total / weight
    return weight * gamma_quantile(TAIL, count), weight * gamma_quantile(1 - TAIL, count + 1)


def mean_interval(mean: float, deviation: float, n: int, tail: float = TAIL) -> tuple[float | None, float | None]:
    """Student's t; `deviation` is the sample's standard deviation. An infinite mean is certain: a failure shows it."""
    if mean == inf:
        return inf, inf
    if n < 2:
        return None, None
    half = t_quantile(1 - tail, n - 1) * deviation / sqrt(n)
    return mean - half, mean + half


def difference_interval(first: Sequence[float], second: Sequence[float]) -> tuple[float | None, float | None]:
    """Of the mean of `first` less that of `second`, independent samples of any variances: Welch's t, with Satterthwaite's
    degrees of freedom (Welch, Biometrika 34, 1947). Unknown where a sample has fewer than two values or an infinite one."""
    if min(len(first), len(second)) < 2 or inf in map(abs, (*first, *second)):
        return None, None
    means, errors = [], []
    for sample in (first, second):
        n, mean = len(sample), sum(sample) / len(sample)
        means.append(mean)
        errors.append((sum((value - mean) ** 2 for value in sample) / (n - 1) / n, n - 1))
    variance = sum(error for error, _ in errors)
    difference = means[0] - means[1]
    if variance == 0:
        return difference, difference
    degrees = variance**2 / sum(error**2 / n for error, n in errors)
    half = t_quantile(1 - TAIL, degrees) * sqrt(variance)
    return difference - half, difference + half


def ratio_interval(
    blocks: Sequence[tuple[float, float]], seed: int = 0, resamples: int = 1000, tail: float = TAIL
) -> tuple[float, float]:
    """Of sum(part) / sum(whole) over blocks (part, whole), by a bootstrap that resamples whole blocks.

    Percentiles of the resampled ratios, taken further out the fewer the blocks are.
    """
    rng = Random(seed)
    n = len(blocks)
    ratios = sorted(_ratio(rng.choices(blocks, k=n)) for _ in range(resamples))
    expanded = NormalDist().cdf(-sqrt(n / (n - 1)) * t_quantile(1 - tail, n - 1))
    cut = floor(expanded * resamples)
    return ratios[cut], ratios[-1 - cut]


def pooled_levels(
    below: Sequence[tuple[float, float]], level: float, resamples: int = 1000, tail: float = TAIL
) -> tuple[float, float]:
    """Levels of the sorted pooled values that bound their quantile. Outside [0, 1): the sample cannot bound it there.

    `below`: for each block, how many of its values lie below the sample's own quantile, of how many. A level is held
    possible if the share below it strays from `level` no further than resampled shares stray from the sample's.
    """
    share = _ratio(below)
    fewest, most = ratio_interval(below, resamples=resamples, tail=tail)
    return level - (share - fewest), level + (most - share)


def _ratio(blocks: Sequence[tuple[float, float]]) -> float:
    parts, wholes = zip(*blocks, strict=True)
    return sum(parts) / sum(wholes) if any(wholes) else 0.0
