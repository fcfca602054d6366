"""Was the real-time clock set or slewed: pairs of it and the raw monotonic clock, about one a second.

Every duration of a request is a difference of real-time stamps, because that is the clock the kernel stamps with. The
raw clock is never corrected, so where the two disagree, a duration is wrong by the difference.
"""

import time
from collections import deque

from msgspec import Struct

EVERY_NS = 1_000_000_000
TRIES = 5
CLOSE_ENOUGH_NS = 5_000
STEP_NS = 5_000_000
"""The limit of the validity rule clock_step. What is less within a second is a slew, if it goes on."""
SLEW_OVER_NS = 10_000_000_000


class Pair(Struct, frozen=True):
    real_ns: int
    raw_ns: int


def pair() -> Pair:
    """Both clocks at one instant, to some microseconds: a process that loses its core between two reads tries again."""
    best, best_ns = Pair(0, 0), 1 << 62
    for _ in range(TRIES):
        before_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        real_ns = time.time_ns()
        took_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW) - before_ns
        if took_ns < best_ns:
            best, best_ns = Pair(real_ns, before_ns + took_ns // 2), took_ns
        if best_ns <= CLOSE_ENOUGH_NS:
            break
    return best


class Skew:
    """The largest step between two pairs, and the largest slew over ten seconds without one."""

    def __init__(self) -> None:
        self.step_ns = 0
        self.slew_ppm = 0.0
        self._pairs: deque[Pair] = deque()

    def restart(self) -> None:
        """Another process, perhaps another machine: its pairs are not compared with those so far."""
        self._pairs.clear()

    def note(self, new: Pair) -> None:
        """A pair at least a second younger than the last one; others tell nothing new."""
        if self._pairs and new.raw_ns - self._pairs[-1].raw_ns < EVERY_NS:
            return
        if self._pairs:
            step_ns = abs(_disagreement_ns(self._pairs[-1], new))
            self.step_ns = max(self.step_ns, step_ns)
            if step_ns > STEP_NS:
                self._pairs.clear()
        self._pairs.append(new)
        while len(self._pairs) > 1 and new.raw_ns - self._pairs[1].raw_ns >= SLEW_OVER_NS:
            self._pairs.popleft()
        span_ns = new.raw_ns - self._pairs[0].raw_ns
        if span_ns >= SLEW_OVER_NS:
            self.slew_ppm = max(self.slew_ppm, 1e6 * abs(_disagreement_ns(self._pairs[0], new)) / span_ns)


def _disagreement_ns(a: Pair, b: Pair) -> int:
    return (b.real_ns - a.real_ns) - (b.raw_ns - a.raw_ns)
