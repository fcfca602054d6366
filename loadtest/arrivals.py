"""When requests are due: pure functions of a seeded generator, in seconds from the stage's start.

An arrival pattern is one struct: its tag is its `kind` in a plan, its fields are the plan's keys, `offsets` yields
ascending due times without end (whoever reads them stops at the stage's duration or number of requests).
"""

from collections.abc import Iterator
from random import Random

from msgspec import Struct, field


class Constant(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="constant"):
    rate: float  # requests/s and target

    def offsets(self, rng: Random, duration_s: float | None) -> Iterator[float]:
        raise NotImplementedError


class Ramp(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="ramp"):
    from_: float = field(name="from")
    to: float


class Closed(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="closed"):
    """No due times: `concurrency` slots, each sends its next request when its last one is done."""


Arrivals = Constant | Ramp | Closed
