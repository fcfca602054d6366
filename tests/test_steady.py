"""Warm-up that nobody declared: found where it was put, not found where there is none, and told. Seeds are fixed."""

import math
from collections.abc import Callable
from random import Random

import pytest

from loadtest.report.model import Summary, summary_of
from loadtest.report.summary import summary
from loadtest.report.warm_ups import sentences
from loadtest.steady import Beginning, WarmUp, beginning, truncation, worst
from loadtest.store import Store
from loadtest.validity import Account, Integrity
from tests.rows import CONTENT, answer
from tests.test_summary import store_run

Made = Callable[[Random, int], list[float]]


def independent(rng: Random, n: int) -> list[float]:
    return [0.5 * rng.gauss(0, 1) for _ in range(n)]


def alike(rng: Random, n: int, phi: float = 0.97) -> list[float]:
    """Each value is like the one before: as far as a hundred requests apart they are no strangers yet."""
    value, out = rng.gauss(0, 1) / math.sqrt(1 - phi * phi), []
    for _ in range(n):
        value = phi * value + rng.gauss(0, 1)
        out.append(0.3 * value)
    return out


def queue(rng: Random, n: int, load: float = 0.8) -> list[float]:
    """Logarithms of the times spent at a single server that has long been busy (Lindley's recursion)."""
    wait, out = 0.0, []
    for _ in range(2000 + n):
        service = rng.expovariate(1)
        out.append(math.log(wait + service))
        wait = max(0.0, wait + service - rng.expovariate(load))
    return out[2000:]


def batches(values: list[float]) -> list[float]:
    return [sum(values[at : at + 5]) / 5 for at in range(0, len(values) - 4, 5)]


def test_the_truncation_by_hand() -> None:
    """Without the 9 the others are equal: the sum of squares is 0. Constant data: nothing need be left out."""
    assert truncation([9.0, 1, 1, 1, 1, 1, 1, 1]) == 1
    assert truncation([1.0] * 8) == 0
    assert truncation([1.0, 2] * 8) == 0
    assert truncation([float(i) for i in range(10)]) == 5, "never more than half"


@pytest.mark.parametrize("made", [independent, alike, queue])
@pytest.mark.parametrize("n", [200, 1000])
def test_where_there_is_none_none_is_found(made: Made, n: int) -> None:
    rng = Random(5)
    found = [beginning(batches(made(rng, n))).found for _ in range(120)]
    assert found.count("none") >= 0.97 * len(found)


@pytest.mark.parametrize("of", [0.05, 0.3])
def test_a_change_is_found_where_it_was_made(of: float) -> None:
    """Twice as slow in the first part: found in most, and mostly within a quarter of its length."""
    rng, n = Random(6), 1000
    cuts = []
    for _ in range(60):
        values = [v + (math.log(2) if i < of * n else 0) for i, v in enumerate(independent(rng, n))]
        found = beginning(batches(values))
        if found.found == "beginning":
            cuts.append(5 * found.batches / (of * n))
            assert found.before > found.after
    assert len(cuts) >= 54
    assert sum(0.75 <= cut <= 1.25 for cut in cuts) >= 0.85 * len(cuts)


def test_a_slow_decay_is_found_to_where_it_is_lost_in_the_noise() -> None:
    rng = Random(7)
    values = [v + math.log(3) * math.exp(-i / 60) for i, v in enumerate(independent(rng, 1000))]
    found = beginning(batches(values))
    assert found.found == "beginning"
    assert 30 < 5 * found.batches < 240


def test_what_goes_on_changing_did_not_settle() -> None:
    rng = Random(8)
    drifting = [v + 2 * i / 1000 for i, v in enumerate(independent(rng, 1000))]
    assert beginning(batches(drifting)).found == "unsettled"


def test_too_little_is_unknown() -> None:
    assert beginning([1.0] * 19) == Beginning("unknown")


def test_of_two_metrics_the_one_that_took_longer_counts() -> None:
    none = WarmUp(found="none")
    short, long = (WarmUp(found="beginning", metric=name, until_s=s) for name, s in (("ttft_ms", 2), ("e2e_ms", 9)))
    assert worst([none, long, short]) == long
    assert worst([long, WarmUp(found="unsettled")]).found == "unsettled"


def store_with_slow_start(store: Store, run: str) -> Summary:
    """acme: 60 of 300 requests take 600 ms to the first token, the others 200 ms, give or take; globex: all 200 ms."""
    rng = Random(9)
    rows = []
    for i in range(300):
        for target, first_ms in (("acme", 600 if i < 60 else 200), ("globex", 200)):
            ms = first_ms * math.exp(0.1 * rng.gauss(0, 1))
            rows.append(
                answer((ms, CONTENT), (ms + 20, CONTENT), stage="peak", target=target, at_ms=i * 30, done_ms=ms + 25)
            )
    store_run(store, run, [], Account(Integrity(scheduled=600, sent=600)), {}, rows)
    return summary_of(summary(store, run))


def test_it_is_told_in_summary_and_sentence(store: Store) -> None:
    told = store_with_slow_start(store, "slow-start")
    peak = {name: target.stages["peak"].warm_up for name, target in told.targets.items()}
    assert peak["globex"] == WarmUp(found="none")
    acme = peak["acme"]
    assert (acme.found, acme.requests, acme.until_s) == ("beginning", 60, pytest.approx(1.8))
    assert acme.before_ms == pytest.approx(600, rel=0.1) or acme.metric == "e2e_ms"
    [words] = sentences(told, "peak")
    assert words.startswith("The first 1.8 s look like warm-up at acme (60 successes): its ")
    assert words.endswith("a stage before this one with warmup: true, and of 3 s, would keep them out.")
    assert told.targets["acme"].stages["closed"].warm_up == WarmUp(found="unknown")
    told.locustfile = {"locustfile": "locustfile.py"}
    assert list(sentences(told, "peak")) == [], "which has no stage to declare"
