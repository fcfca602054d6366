"""Where a stage's beginning ends and its steady state begins: what looks like warm-up that nobody declared.

MSER-5: of a series of means of five consecutive values, leave out the beginning whose absence makes the rest's mean
best known, that is, minimises the sum of squares about it by the square of their number (White, Cobb and Spratt, A
Comparison of Five Steady-State Truncation Heuristics for Simulation, Winter Simulation Conference 2000; the five from
Spratt's thesis of 1998). At most half is left out. Latencies are skewed, so
the series is of their logarithms.

The rule always names some beginning, also where there is none. So it is believed only if that beginning differs from the
rest by more than parts of the rest, at least eight of them and each no longer than it, differ among themselves, by
Student's t at 99.9%; parts and not single means, because neighbours are alike where there are queues. Where it names more
than a third, and eight parts of the whole lie on a slope, as surely, the series did not settle. How often a change that was
made is then found, and where, and how seldom one that was not, is simulated in tests/test_steady.py.
"""

from collections.abc import Sequence
from math import exp, sqrt
from statistics import fmean, linear_regression, stdev
from typing import Literal

from msgspec import Struct

from loadtest.stats import t_quantile

BATCH = 5
MOST_BATCHES = 2000
"""Longer series are of means of more than five values."""
FEWEST_BATCHES = 20
PARTS = 8
LATE = 0.35
LEVEL = 0.9995
"""Two-sided 99.9%."""

Found = Literal["none", "beginning", "unsettled", "unknown"]


class Beginning(Struct, frozen=True):
    found: Found
    batches: int = 0  # that it has
    before: float = 0.0  # mean of the series there
    after: float = 0.0  # and of the rest


def truncation(series: Sequence[float]) -> int:
    """MSER's: how many values to leave out, at most half of them."""
    total = squares = 0.0
    best, least = 0, float("inf")
    for left_out in range(len(series) - 1, -1, -1):
        value = series[left_out]
        total, squares = total + value, squares + value * value
        n = len(series) - left_out
        if left_out <= len(series) // 2:
            deviations = max(squares - total * total / n, 0.0) / n**2
            if deviations <= least:
                best, least = left_out, deviations
    return best


def beginning(series: Sequence[float]) -> Beginning:
    """Of a series of batch means, in time order."""
    if len(series) < FEWEST_BATCHES:
        return Beginning("unknown")
    centre = fmean(series)
    cut = truncation([value - centre for value in series])
    if not cut:
        return Beginning("none")
    first, rest = series[:cut], series[cut:]
    if cut >= LATE * len(series) and _drifts(series):
        return Beginning("unsettled", cut, fmean(first), fmean(rest))
    size = min(cut, len(rest) // PARTS)
    parts = [fmean(rest[at : at + size]) for at in range(0, len(rest) - size + 1, size)]
    spread = stdev(parts) * sqrt(1 + 1 / len(parts))
    if abs(fmean(first) - fmean(rest)) <= t_quantile(LEVEL, len(parts) - 1) * spread:
        return Beginning("none")
    return Beginning("beginning", cut, fmean(first), fmean(rest))


def _drifts(series: Sequence[float]) -> bool:
    """Whether the means of equal parts lie on a slope, by Student's t of least squares, as surely as above."""
    size = len(series) // PARTS
    means = [fmean(series[at : at + size]) for at in range(0, size * PARTS, size)]
    slope, intercept = linear_regression(range(PARTS), means)
    squares = sum((mean - intercept - slope * at) ** 2 for at, mean in enumerate(means))
    error = sqrt(squares / (PARTS - 2) / sum((at - (PARTS - 1) / 2) ** 2 for at in range(PARTS)))
    return abs(slope) > t_quantile(LEVEL, PARTS - 2) * error


class WarmUp(Struct, frozen=True, kw_only=True):
    """What was found of one target in one stage, by the metric that took longest."""

    found: Found
    metric: str | None = None
    until_s: float | None = None  # from the stage's start
    requests: int | None = None  # in it
    before_ms: float | None = None  # a typical value (the geometric mean) there
    after_ms: float | None = None  # and of the rest


def warm_up(found: Beginning, metric: str, first_s: Sequence[float], size: int) -> WarmUp:
    """In the words of people. `first_s`: when each batch of `size` requests began, from the stage's start."""
    if found.found in ("none", "unknown"):
        return WarmUp(found=found.found)
    return WarmUp(
        found=found.found,
        metric=metric,
        until_s=first_s[found.batches],
        requests=found.batches * size,
        before_ms=exp(found.before),
        after_ms=exp(found.after),
    )


def worst(found: Sequence[WarmUp]) -> WarmUp:
    """Of several metrics: the one that never settled, else the one that took longest."""
    order: dict[Found, int] = {"unsettled": 3, "beginning": 2, "none": 1, "unknown": 0}
    return max(found, key=lambda each: (order[each.found], each.until_s or 0))
