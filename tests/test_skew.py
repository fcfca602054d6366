"""Steps and slews of the real-time clock, from pairs worked out by hand."""

import time

import pytest

from loadtest import skew
from loadtest.skew import Pair, Skew

S = 1_000_000_000
MS = 1_000_000


def after(*disagreements_ms: float) -> Skew:
    """A pair a second; by how much the real-time clock is ahead of the raw one at each."""
    watched = Skew()
    for second, ms in enumerate(disagreements_ms):
        watched.note(Pair(1_700_000_000 * S + second * S + round(ms * MS), 40 * S + second * S))
    return watched


def test_a_clock_that_agrees() -> None:
    watched = after(*[7.0] * 20)
    assert (watched.step_ns, watched.slew_ppm) == (0, 0)


@pytest.mark.parametrize("step_ms", [250.0, -250.0, -3_600_000.0])
def test_a_step_either_way_is_no_slew(step_ms: float) -> None:
    watched = after(0, 0, step_ms, *[step_ms] * 12)
    assert watched.step_ns == abs(step_ms) * MS
    assert watched.slew_ppm == 0


def test_a_slew_is_what_ten_seconds_show() -> None:
    watched = after(*[2.0 * second for second in range(11)])  # 2 ms a second
    assert watched.slew_ppm == pytest.approx(2000)
    assert watched.step_ns == 2 * MS
    assert after(*[2.0 * second for second in range(10)]).slew_ppm == 0, "nine seconds are too few"


def test_the_largest_of_either_counts() -> None:
    watched = after(*[0.0] * 11, *[second * 0.4 for second in range(11)], *[4.0] * 20)
    assert watched.slew_ppm == pytest.approx(400)


def test_another_process_begins_anew() -> None:
    watched = after(0, 0)
    watched.restart()
    watched.note(Pair(5 * S, 9000 * S))
    assert watched.step_ns == 0


def test_a_pair_is_of_one_instant() -> None:
    first, second = skew.pair(), skew.pair()
    assert abs((second.real_ns - first.real_ns) - (second.raw_ns - first.raw_ns)) < 5 * MS
    assert abs(first.real_ns - time.time_ns()) < 10 * S
