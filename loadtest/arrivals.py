"""When requests are due: pure functions of a seeded generator, in seconds from the stage's start.

An arrival pattern is one struct: its class name in lower case is its `kind` in a plan, its fields are the plan's keys,
`expected` is the mean number of requests within a duration, and `offsets` yields ascending due times, without end
unless the pattern has one. Whoever reads them stops at the stage's duration or number of requests. Each due time is
computed from its own number where the definition allows it, so that no rounding adds up over a long stage; the one
conversion to integer nanoseconds is `nanoseconds`.

Only `random()` and `gammavariate` of `random.Random` are used: their values for a seed are pinned in the tests.
"""

from collections.abc import Iterator
from math import log, sqrt
from random import Random
from typing import Annotated

from msgspec import Meta, Struct, field

Rate = Annotated[float, Meta(gt=0, le=1_000_000, description="Requests per second, for each target.")]
RampRate = Annotated[float, Meta(ge=0, le=1_000_000, description="Requests per second, for each target; may be 0.")]
Burstiness = Annotated[
    float, Meta(ge=0.01, le=1_000, description="1 is Poisson; below 1 more bursty, above 1 more even.")
]


def nanoseconds(seconds: float) -> int:
    """The nearest integer nanosecond."""
    return round(seconds * 1_000_000_000)


class Pattern(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag=str.lower):
    """What all arrival patterns have in common: how they stand in a plan."""


class Constant(Pattern, frozen=True, kw_only=True):
    """Request n is due at n / rate, the first at 0."""

    rate: Rate

    def expected(self, duration_s: float) -> float:
        return self.rate * duration_s

    def offsets(self, _rng: Random, _duration_s: float | None) -> Iterator[float]:
        n = 0
        while True:
            yield n / self.rate
            n += 1


class Poisson(Pattern, frozen=True, kw_only=True):
    """Independent, exponentially distributed gaps with mean 1 / rate: many users who do not know of each other."""

    rate: Rate

    def expected(self, duration_s: float) -> float:
        return self.rate * duration_s

    def offsets(self, rng: Random, _duration_s: float | None) -> Iterator[float]:
        due_s = 0.0
        while True:
            due_s -= log(1.0 - rng.random()) / self.rate
            yield due_s


class Gamma(Pattern, frozen=True, kw_only=True):
    """Gamma distributed gaps of shape `burstiness` and mean 1 / rate, as in vLLM's benchmark.

    The coefficient of variation of a gap is 1 / sqrt(burstiness).
    """

    rate: Rate
    burstiness: Burstiness

    def expected(self, duration_s: float) -> float:
        return self.rate * duration_s

    def offsets(self, rng: Random, _duration_s: float | None) -> Iterator[float]:
        scale_s = 1 / (self.rate * self.burstiness)
        due_s = 0.0
        while True:
            due_s += rng.gammavariate(self.burstiness, scale_s)
            yield due_s


class Ramp(Pattern, frozen=True, kw_only=True):
    """A rate that changes linearly from `from` to `to` over the stage's duration.

    Not random: request n is due when the integral of the rate reaches n, so that from = to is `Constant`.
    """

    from_: RampRate = field(name="from")
    to: RampRate

    def expected(self, duration_s: float) -> float:
        return (self.from_ + self.to) / 2 * duration_s

    def offsets(self, _rng: Random, duration_s: float | None) -> Iterator[float]:
        if duration_s is None:
            raise ValueError("a ramp needs duration_s: the rate changes over it")
        slope = (self.to - self.from_) / duration_s
        yield 0.0
        n = 1
        while (square := self.from_ * self.from_ + 2 * slope * n) >= 0:  # negative: a falling rate reached 0 before n
            yield 2 * n / (self.from_ + sqrt(square))
            n += 1


class Closed(Pattern, frozen=True, kw_only=True):
    """No due times: `concurrency` slots, each sends its next request when its last one is done."""


Arrivals = Constant | Poisson | Gamma | Ramp | Closed
