"""Arrivals against their definitions. Seeds are fixed, so each statistical test passes or fails for good."""

from collections.abc import Callable
from itertools import islice, pairwise, takewhile
from math import erf, exp, factorial, sqrt
from random import Random
from statistics import fmean, pvariance

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from loadtest.arrivals import Arrivals, Closed, Constant, Gamma, Poisson, Ramp, nanoseconds
from loadtest.prompts import Synthetic, Tokens
from loadtest.schedule import Schedule
from loadtest.types import Plan, Stage, Target

N = 20_000
KS_LIMIT = 1.95
"""Kolmogorov's statistic sqrt(n) * D lies above this in one of a thousand samples of the right distribution."""

Pattern = Constant | Poisson | Gamma | Ramp


def seeded(seed: int = 7) -> Plan:
    return Plan(
        name="p",
        seed=seed,
        targets=[Target(name="t", url="http://127.0.0.1", dialect="http")],
        prompts=Synthetic(input_tokens=Tokens(mean=5)),
        stages=[Stage(name="s", arrivals=Constant(rate=1), requests=1)],
    )


def first(pattern: Pattern, n: int, duration_s: float | None = None) -> list[float]:
    return list(islice(pattern.offsets(seeded().rng("arrivals/peak"), duration_s), n))


def gaps(pattern: Pattern) -> list[float]:
    due = first(pattern, N)
    return [due[0], *(later - earlier for earlier, later in pairwise(due))]


def ks(values: list[float], distribution: Callable[[float], float]) -> float:
    ordered = sorted(values)
    n = len(ordered)
    distance = max(max((i + 1) / n - distribution(x), distribution(x) - i / n) for i, x in enumerate(ordered))
    return sqrt(n) * distance


def test_constant_is_n_over_rate_without_drift() -> None:
    assert [nanoseconds(s) for s in first(Constant(rate=3), 4)] == [0, 333_333_333, 666_666_667, 1_000_000_000]
    due = Constant(rate=0.1).offsets(Random(0), None)
    assert nanoseconds(next(islice(due, 1_000_000, None))) == 10_000_000 * 10**9


def test_poisson_gaps_are_exponential() -> None:
    values = gaps(Poisson(rate=20))
    assert fmean(values) == pytest.approx(1 / 20, rel=0.02)
    assert pvariance(values) == pytest.approx(1 / 400, rel=0.05)
    assert ks(values, lambda x: 1 - exp(-20 * x)) < KS_LIMIT
    assert ks(values, lambda x: 1 - exp(-21 * x)) > KS_LIMIT  # the test can tell 5% apart


def test_poisson_gaps_are_independent() -> None:
    values = gaps(Poisson(rate=1))
    correlation = fmean((a - 1) * (b - 1) for a, b in pairwise(values))
    assert abs(correlation) < 3 / sqrt(N)


@pytest.mark.parametrize(
    ("burstiness", "distribution"),
    [
        (0.5, lambda x: erf(sqrt(10 * x))),  # gamma of shape 1/2, scale 1/10
        (1.0, lambda x: 1 - exp(-20 * x)),
        (2.0, lambda x: 1 - exp(-40 * x) * (1 + 40 * x)),  # Erlang of two phases, each at rate 40
        (4.0, lambda x: 1 - exp(-80 * x) * (1 + 80 * x + (80 * x) ** 2 / 2 + (80 * x) ** 3 / 6)),
    ],
)
def test_gamma_gaps_keep_the_mean_and_have_the_burstiness(
    burstiness: float, distribution: Callable[[float], float]
) -> None:
    values = gaps(Gamma(rate=20, burstiness=burstiness))
    assert fmean(values) == pytest.approx(1 / 20, rel=0.03)
    assert sqrt(pvariance(values)) / fmean(values) == pytest.approx(1 / sqrt(burstiness), rel=0.03)
    assert ks(values, distribution) < KS_LIMIT


def counts(due: list[float], window_s: float) -> list[int]:
    """How many fall into each whole window."""
    out = [0] * int(due[-1] / window_s)
    for s in due:
        if (window := int(s / window_s)) < len(out):
            out[window] += 1
    return out


@pytest.mark.parametrize(
    ("pattern", "dispersion"),
    [
        (Poisson(rate=20), 1),
        (Gamma(rate=20, burstiness=0.25), 4),  # a renewal process: variance / mean of a count nears that of a gap, 1/b
        (Gamma(rate=20, burstiness=4), 0.25),
        (Constant(rate=20), 0),
    ],
)
def test_counts_scatter_as_the_definition_has_it(pattern: Pattern, dispersion: float) -> None:
    """Variance over mean of the requests in each of some 400 windows of 2.5 s, 50 requests each."""
    found = counts(first(pattern, N), 2.5)
    assert fmean(found) == pytest.approx(50, rel=0.05)
    assert pvariance(found) / fmean(found) == pytest.approx(dispersion, rel=0.2, abs=0.01)


@given(
    from_=st.floats(0, 50),
    to=st.floats(0.01, 50),
    duration_s=st.floats(1, 60),
    at=st.floats(0, 1),
    rate=st.floats(0.5, 50),
)
def test_regular_arrivals_never_stray_from_the_integral_of_their_rate(
    from_: float, to: float, duration_s: float, at: float, rate: float
) -> None:
    """At any instant t as many are due as the rate's integral up to t, give or take one."""
    t = at * duration_s
    ramp = list(takewhile(lambda s: s <= t, Ramp(from_=from_, to=to).offsets(Random(0), duration_s)))
    integral = from_ * t + (to - from_) / duration_s * t * t / 2
    assert abs(len(ramp) - integral) <= 1 + 1e-6
    even = list(takewhile(lambda s: s <= t, Constant(rate=rate).offsets(Random(0), None)))
    assert abs(len(even) - rate * t) <= 1 + 1e-6


# Split over workers: what each worker sends, and what they send together


def sent_by(pattern: Pattern, shard: int, shards: int) -> list[float]:
    stage = Stage(name="peak", arrivals=pattern, requests=N)
    plan = replace(seeded(), stages=[stage])
    return [due_ns / 1e9 for _, due_ns, _ in Schedule(plan, shard, shards).open(0)]


def between(due: list[float]) -> list[float]:
    return [later - earlier for earlier, later in pairwise(due)]


@pytest.mark.parametrize("shards", [2, 5])
def test_workers_together_are_a_poisson_process(shards: int) -> None:
    each = [sent_by(Poisson(rate=20), shard, shards) for shard in range(shards)]
    together = sorted(s for own in each for s in own)
    assert len(together) == N
    assert ks(between(together), lambda x: 1 - exp(-20 * x)) < KS_LIMIT
    found = counts(together, 2.5)
    assert pvariance(found) / fmean(found) == pytest.approx(1, rel=0.2)


@pytest.mark.parametrize("shards", [2, 5])
def test_a_worker_alone_sends_each_nth_of_them(shards: int) -> None:
    """Its gaps are sums of n exponential ones: Erlang of n phases, mean n / rate, variance n / rate ** 2."""

    def erlang(x: float) -> float:
        return 1 - exp(-20 * x) * sum((20 * x) ** k / factorial(k) for k in range(shards))

    for shard in range(shards):
        own = between(sent_by(Poisson(rate=20), shard, shards))
        assert fmean(own) == pytest.approx(shards / 20, rel=0.03)
        assert pvariance(own) == pytest.approx(shards / 400, rel=0.1)
        assert ks(own, erlang) < KS_LIMIT


def test_workers_share_a_bursty_process_evenly() -> None:
    each = [sent_by(Gamma(rate=20, burstiness=0.25), shard, 4) for shard in range(4)]
    assert [len(own) for own in each] == [N // 4] * 4
    found = counts(sorted(s for own in each for s in own), 2.5)
    assert pvariance(found) / fmean(found) == pytest.approx(4, rel=0.2)


def test_ramp_is_the_inverse_of_the_cumulative_rate() -> None:
    # from 0 to 10/s over 10 s: t seconds see t * t / 2 requests, so request n is due at sqrt(2 n)
    due = first(Ramp(from_=0, to=10), 50, 10)
    assert due[:3] == pytest.approx([0, sqrt(2), 2])
    assert due[32] == pytest.approx(8)
    assert len([s for s in due if s < 10]) == 50


def test_a_flat_ramp_is_constant() -> None:
    assert first(Ramp(from_=4, to=4), 100, 5) == pytest.approx(first(Constant(rate=4), 100))


def test_a_falling_ramp_ends_where_its_rate_is_zero() -> None:
    # from 10/s to 0 over 10 s: t seconds see 10 t - t * t / 2, which is 32 at 4 s, 42 at 6 s and never more than 50
    due = first(Ramp(from_=10, to=0), 1000, 10)
    assert due[32] == pytest.approx(4)
    assert due[42] == pytest.approx(6)
    assert len(due) == 51
    assert due[50] == pytest.approx(10)


def test_a_ramp_without_a_duration_is_refused() -> None:
    with pytest.raises(ValueError, match="duration_s"):
        first(Ramp(from_=1, to=2), 1)


@pytest.mark.parametrize(
    "pattern", [Constant(rate=20), Poisson(rate=20), Gamma(rate=20, burstiness=0.3), Ramp(from_=5, to=35)]
)
def test_as_many_fall_due_as_expected(pattern: Pattern) -> None:
    within = sum(1 for s in islice(pattern.offsets(Random(3), 500), 20_000) if s < 500)
    assert within == pytest.approx(pattern.expected(500), rel=0.04)


@pytest.mark.parametrize("pattern", [Poisson(rate=50), Gamma(rate=50, burstiness=0.1), Ramp(from_=90, to=1)])
def test_offsets_ascend(pattern: Pattern) -> None:
    due = first(pattern, 400, 10)
    assert due == sorted(due)


def test_values_for_a_seed_are_the_same_under_every_python() -> None:
    def pinned(pattern: Pattern) -> list[int]:
        return [nanoseconds(s) for s in first(pattern, 4)]

    assert pinned(Poisson(rate=20)) == [25434002, 119173570, 130161270, 246690600]
    assert pinned(Gamma(rate=20, burstiness=0.5)) == [5455591, 88454129, 122569798, 124769969]
    assert pinned(Gamma(rate=20, burstiness=4)) == [42808682, 72226586, 129267771, 178766906]


def test_a_dimension_has_a_generator_of_its_own() -> None:
    assert seeded().rng("arrivals/peak").random() == 0.39871126724263073
    assert seeded().rng("arrivals/other").random() != 0.39871126724263073
    assert seeded(8).rng("arrivals/peak").random() != 0.39871126724263073


def test_every_pattern_is_part_of_the_union() -> None:
    tags = [kind.__struct_config__.tag for kind in (Constant, Poisson, Gamma, Ramp, Closed)]
    assert tags == ["constant", "poisson", "gamma", "ramp", "closed"]
    assert set(Arrivals.__args__) == {Constant, Poisson, Gamma, Ramp, Closed}
