"""Differences between targets over rounds: by hand, from stored rows, and how often identical targets are told apart."""

import math
from random import Random
from typing import Any

import pytest

from loadtest.report.compare import COMPARED, FEWEST_ROUNDS, Difference, compare, difference
from loadtest.rounds import SEQS
from loadtest.store import Store
from loadtest.types import Result, Slo
from tests.rows import CONTENT, answer, failure, insert


def of(*pairs: tuple[float, float]) -> Difference:
    return difference("ttft_ms", "p50", ("a", "b"), pairs)


def test_a_difference_by_hand() -> None:
    """Differences 1 to 5: mean 3, deviation 1.5811, t(0.975, 4) = 2.7764, half = 2.7764 * 1.5811 / sqrt(5) = 1.9632."""
    found = of((101, 100), (104, 102), (103, 100), (110, 106), (105, 100))
    assert (found.difference, found.rounds, found.means) == (3, 5, (104.6, 101.6))
    assert (found.low, found.high) == pytest.approx((3 - 1.9632, 3 + 1.9632), abs=1e-3)
    assert found.outcome == "higher"
    assert of((100, 101), (102, 104), (100, 103), (106, 110), (100, 105)).outcome == "lower"
    assert of((99, 100), (104, 102), (97, 100), (110, 106), (105, 106)).outcome == "undecided"


def test_differences_that_are_the_same_in_each_round_are_certain() -> None:
    found = of(*[(12.0, 10.0)] * 5)
    assert (found.low, found.high, found.outcome) == (2, 2, "higher")
    assert of(*[(10.0, 10.0)] * 5).outcome == "undecided"


def test_too_few_rounds_and_infinite_ones_decide_nothing() -> None:
    few = of(*[(12.0, 10.0)] * 4)
    assert (few.outcome, few.low, few.note) == ("undecided", None, "Only 4 rounds have this figure.")
    infinite = of((math.inf, 10), *[(12.0, 10.0)] * 5)
    assert (infinite.outcome, infinite.difference, infinite.means) == ("undecided", None, (None, pytest.approx(10)))
    assert infinite.note == "In 1 of 6 rounds too many requests failed for a finite figure."


# From stored rows


def rounds_of(count: int) -> list[Result]:
    """acme's first token comes after 100 + 10 n ms in round n, globex' 20 ms later; globex fails once in the last."""
    out = []
    for n in range(count):
        for i in range(10):
            shot: dict[str, Any] = {"stage": "s", "seq": n * SEQS, "at_ms": n * 20_000 + i * 500, "done_ms": 400}
            out.append(answer((100 + 10 * n, CONTENT), target="acme", **shot))
            failed = n == count - 1 and i == 9
            out.append(
                failure("overloaded", target="globex", **shot)
                if failed
                else answer((120 + 10 * n, CONTENT), target="globex", **shot)
            )
    return out


def asker(store: Store, run: str) -> Any:
    return lambda sql: store.query(sql, {"run": run})


def test_figures_are_taken_for_each_round(store: Store) -> None:
    insert(store, "rounds", rounds_of(6), {})
    [found] = compare(asker(store, "rounds"), {"s": 6}, ["acme", "globex"], [])
    assert (found.stage, found.rounds, found.note) == ("s", 6, "")
    by = {(d.metric, d.stat): d for d in found.differences}
    assert by.keys() == set(COMPARED) - {("tpot_ms", "p50"), ("output_tokens_per_s", None)}, "those have no tokens"
    p50 = by["ttft_ms", "p50"]
    assert (p50.targets, p50.means, p50.difference, p50.low, p50.high) == (
        ("acme", "globex"),
        (125, 145),
        -20,
        -20,
        -20,
    )
    assert p50.outcome == "lower"
    assert by["ttft_ms", "p99"].note == "In 1 of 6 rounds too many requests failed for a finite figure."
    rate = by["requests_per_s", None]
    assert rate.means == pytest.approx((1, (5 * 1 + 0.9) / 6)), "ten in 10 s, in a window for each round"
    assert by["error_rate", None].difference == pytest.approx(-0.1 / 6)


def test_a_rate_over_all_rounds_has_all_their_windows(store: Store) -> None:
    from loadtest import metrics

    insert(store, "windows", rounds_of(3), {})
    rows = store.query(metrics.figures(["requests_per_s"], "run = {run:String}"), {"run": "windows"})
    assert {row["target"]: row["requests_per_s"] for row in rows} == pytest.approx({"acme": 30 / 30, "globex": 29 / 30})


def test_objectives_are_compared_too_and_every_pair_of_targets(store: Store) -> None:
    rows = [
        answer((ms, CONTENT), (ms + 30, CONTENT), stage="s", seq=n * SEQS, at_ms=n * 20_000, target=target)
        for n in range(5)
        for target, ms in (("a", 100), ("b", 200), ("c", 400 + n))
    ]
    insert(store, "three", rows, {})
    slos = [Slo(metric="icl_ms", stat="p90", limit=100), Slo(metric="ttft_ms", stat="p50", limit=100)]
    [found] = compare(asker(store, "three"), {"s": 5}, ["a", "b", "c"], slos)
    assert [(d.targets, d.difference) for d in found.differences if d.metric == "icl_ms"] == [
        (("a", "b"), 0),
        (("a", "c"), 0),
        (("b", "c"), 0),
    ]
    ttft = [d for d in found.differences if (d.metric, d.stat) == ("ttft_ms", "p50")]
    assert [d.difference for d in ttft] == [-100, -302, -202]


def test_a_stage_that_was_run_once_is_not_compared_and_says_why(store: Store) -> None:
    once, often = compare(asker(store, "nothing"), {"once": 1, "often": 4}, ["a", "b"], [])
    assert once.note.startswith(
        f"The stage had one round: whether targets differ is not said from fewer than {FEWEST_ROUNDS}"
    )
    assert often.note.startswith("The stage had 4 rounds")
    assert once.differences == often.differences == []
    assert compare(asker(store, "nothing"), {"once": 1}, ["a"], []) == []


# How often two identical targets are told apart: queues at 80% utilisation, drained before each round


def queue(rng: Random, gaps: list[float]) -> list[float]:
    """Times in the system, by Lindley's recursion: service takes 1 on average."""
    wait, out = 0.0, []
    for gap in gaps:
        service = rng.expovariate(1)
        out.append(wait + service)
        wait = max(0.0, wait + service - gap)
    return out


def percentile(values: list[float], level: float) -> float:
    return sorted(values)[int(level * len(values))]


@pytest.mark.parametrize(("rounds", "level"), [(10, 0.5), (10, 0.99), (5, 0.5)])
def test_identical_queues_are_seldom_told_apart(rounds: int, level: float) -> None:
    rng, trials, told_apart = Random(20), 200, 0
    for _ in range(trials):
        pairs = []
        for _ in range(rounds):
            gaps = [rng.expovariate(0.8) for _ in range(200)]
            pairs.append((percentile(queue(rng, gaps), level), percentile(queue(rng, gaps), level)))
        told_apart += of(*pairs).outcome != "undecided"
    assert told_apart / trials <= 0.08  # nominally 0.05


def test_a_real_difference_is_found() -> None:
    """One of the queues serves 20% faster."""
    rng, found = Random(20), 0
    for _ in range(50):
        pairs = []
        for _ in range(10):
            gaps = [rng.expovariate(0.8) for _ in range(200)]
            faster = [0.8 * spent for spent in queue(rng, [gap / 0.8 for gap in gaps])]
            pairs.append((percentile(faster, 0.5), percentile(queue(rng, gaps), 0.5)))
        found += of(*pairs).outcome == "lower"
    assert found / 50 > 0.9


def test_the_interval_over_rounds_covers_the_true_difference() -> None:
    """Of queues at 80% and at 70%, each begun empty: their rounds' medians differ by so much on average."""
    rng = Random(21)

    def medians() -> tuple[float, float]:
        gaps = [rng.expovariate(0.8) for _ in range(200)]
        return percentile(queue(rng, gaps), 0.5), percentile(queue(rng, [gap / 0.875 for gap in gaps]), 0.5)

    truth = sum(a - b for a, b in (medians() for _ in range(4000))) / 4000
    covered = 0
    for _ in range(200):
        found = of(*(medians() for _ in range(10)))
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= truth <= found.high
    assert covered / 200 >= 0.88  # nominally 0.95; differences of skewed figures, ten of them
