"""`stop_when`: whole runs that end early, and what the interval at the last of several looks is worth, by simulation."""

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from statistics import NormalDist

import msgspec
import pytest

from loadtest import plan as plans
from loadtest import rounds, stats
from loadtest.account import account
from loadtest.detach import new_run_id
from loadtest.errors import PlanError
from loadtest.frames import Setup
from loadtest.report.model import summary_of
from loadtest.report.stops import sentences
from loadtest.report.summary import summary
from loadtest.run import Driver, Interrupts, LocalFleet
from loadtest.session import record
from loadtest.stopping import FEWEST, LOOK_TAIL, Stopping, next_look
from loadtest.store import Store
from loadtest.types import Plan
from tests.test_run import make_plan

# What an interval is worth whose making was ended when it was narrow enough

ranks = cache(stats.quantile_ranks)
Draw = Callable[[Random], float]
LOGNORMAL: Draw = lambda rng: math.exp(0.5 * rng.gauss(0, 1))  # noqa: E731
EXPONENTIAL: Draw = lambda rng: rng.expovariate(1)  # noqa: E731
HEAVY: Draw = lambda rng: rng.paretovariate(2.5)  # noqa: E731


def looked_until_narrow(
    rng: Random, draw: Draw, level: float, width: float, tail: float, grown: Callable[[int], int]
) -> tuple[float, float]:
    """The interval at the look that ended it."""
    values: list[float] = []
    wanted = FEWEST
    while True:
        values += [draw(rng) for _ in range(wanted - len(values))]
        values.sort()
        low, high = ranks(wanted, level, tail)
        if low is not None and high is not None:
            value = values[int(level * wanted)]
            if (values[high] - values[low]) / value <= width:
                return values[low], values[high]
        wanted = grown(wanted)


def covered(
    trials: int, draw: Draw, truth: float, level: float, width: float, tail: float, grown: Callable[[int], int]
) -> float:
    rng = Random(20)
    ends = (looked_until_narrow(rng, draw, level, width, tail, grown) for _ in range(trials))
    return sum(low <= truth <= high for low, high in ends) / trials


@pytest.mark.parametrize(("level", "width"), [(0.5, 0.15), (0.9, 0.2), (0.99, 0.4)])
@pytest.mark.parametrize(
    ("draw", "quantile"),
    [
        (LOGNORMAL, lambda p: math.exp(0.5 * NormalDist().inv_cdf(p))),
        (EXPONENTIAL, lambda p: -math.log(1 - p)),
        (HEAVY, lambda p: (1 - p) ** -0.4),
    ],
    ids=["log-normal", "exponential", "heavy tail"],
)
def test_the_interval_that_ends_a_stage_covers(
    draw: Draw, quantile: Callable[[float], float], level: float, width: float
) -> None:
    assert covered(250, draw, quantile(level), level, width, LOOK_TAIL, next_look) >= 0.95


def test_looking_after_each_request_at_95_percent_would_not() -> None:
    assert covered(400, HEAVY, 0.1**-0.4, 0.9, 0.2, stats.TAIL, lambda n: n + 1) < 0.94


# Whole runs


def play(plan: Plan, store: Store, directory: Path, workers: int = 1) -> dict[str, object]:
    """A run as `loadtest run` makes it, without its files. Returns the content of summary.json."""
    run, as_run = new_run_id(), rounds.expanded(plan)
    stopping = Stopping(as_run, store.query)
    fleet = LocalFleet([Setup(run, as_run, {}, shard, workers) for shard in range(workers)], store.address, directory)
    try:
        snapshot = Driver(as_run, run, fleet, lambda _: None, Interrupts(), stopping).go()
    finally:
        fleet.close()
    stored = store.query("SELECT count() AS n FROM requests WHERE run = {run:String}", {"run": run})[0]["n"]
    booked = account(snapshot, stored)
    booked.stops = stopping.stops
    record(store, snapshot, booked)
    return summary(store, run)


def test_a_stage_ends_when_the_interval_is_narrow_enough(simulator: str, store: Store, tmp_path: Path) -> None:
    """Each of two rounds, on both workers and for both targets; it was planned to last for minutes.

    What an answer takes is the script's: on a busy machine it would grow and grow, and no interval of it become narrow.
    """
    plan = make_plan(
        simulator,
        "name: peak, arrivals: {kind: poisson, rate: 50}, duration_s: 300, drain_s: 5, rounds: 2, "
        "stop_when: {metric: e2e_ms, stat: p50, relative_width: 0.9}",
    )
    scripted = {"simulate": {"ttft_ms": 100, "chunks": 1}}
    targets = [msgspec.structs.replace(target, body=scripted) for target in plan.targets]
    figures = play(msgspec.structs.replace(plan, targets=targets), store, tmp_path, workers=2)
    told = summary_of(figures)
    stops = told.stages["peak"].stops
    assert [(stop.round, stop.reached) for stop in stops] == [(0, True), (1, True)]
    for stop in stops:
        assert [each.target for each in stop.intervals] == ["a", "b"]
        for each in stop.intervals:
            assert each.requests >= FEWEST
            assert each.low is not None
            assert each.high is not None
            assert each.value is not None
            assert each.low <= each.value <= each.high <= each.low + 0.9 * each.value
    integrity = told.integrity
    assert integrity.adds_up
    assert integrity.missed == integrity.lost == 0
    assert 4 * FEWEST <= integrity.sent < 4 * 50 * 150
    words = list(sentences(told, "peak"))
    assert words[0].startswith("Round 1: Ended once the End-to-end latency p50 was known to 90% of it, after ")


def test_a_stage_that_is_never_known_so_well_ends_as_planned(simulator: str, store: Store, tmp_path: Path) -> None:
    plan = make_plan(
        simulator,
        "name: short, arrivals: {kind: closed}, concurrency: 8, duration_s: 1.5, drain_s: 5, "
        "stop_when: {metric: error_rate, relative_width: 0.1}",
    )
    told = summary_of(play(plan, store, tmp_path))
    [stop] = told.stages["short"].stops
    assert not stop.reached
    [words] = sentences(told, "short")
    assert words.startswith("Ended as planned: the Error rate was not known to 10% of it")


@pytest.mark.parametrize(
    ("stage", "problem"),
    [
        ("warmup: true, stop_when: {metric: ttft_ms, stat: p50, relative_width: 0.1}", "warmup: true; leave one"),
        ("overlap: true, stop_when: {metric: ttft_ms, stat: p50, relative_width: 0.1}", "overlap: true; leave one"),
        (
            "stop_when: {metric: ttft, stat: p50, relative_width: 0.1}",
            "stop_when.metric is 'ttft'; did you mean ttft_ms",
        ),
        (
            "stop_when: {metric: ttft_ms, relative_width: 0.1}",
            "stop_when.stat is missing; ttft_ms has a value for each",
        ),
        (
            "stop_when: {metric: goodput, relative_width: 0.1}",
            "stop_when.metric is 'goodput', which is known at a stage's",
        ),
        ("stop_when: {metric: ttft_ms, stat: p50, relative_width: 0}", "relative_width is 0; it must be above 0"),
        ("concurrency: 1, stop_when: {metric: due_e2e_ms, stat: p50, relative_width: 1}", "which closed load does not"),
    ],
)
def test_what_a_plan_may_not_ask_for(stage: str, problem: str) -> None:
    arrivals = "{kind: closed}" if "concurrency" in stage else "{kind: constant, rate: 1}"
    with pytest.raises(PlanError) as caught:
        plans.parse(f"""
name: p
targets: [{{name: a, url: "http://api.example", dialect: openai-chat}}]
prompts: {{kind: synthetic, input_tokens: 5}}
stages:
  - {{name: s, arrivals: {arrivals}, duration_s: 9, {stage}}}
  - {{name: t, arrivals: {{kind: constant, rate: 1}}, requests: 1}}
""", "/")  # fmt: skip
    assert problem in str(caught.value)
