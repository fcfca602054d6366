"""Rounds: a stage run several times is one stage, of requests that no round repeats."""

from pathlib import Path
from typing import Any

import pytest

from loadtest import rounds
from loadtest.arrivals import Closed, Constant, Poisson
from loadtest.report.gather import Buckets, offered
from loadtest.report.summary import summary
from loadtest.rounds import SEQS
from loadtest.schedule import Schedule
from loadtest.session import record
from loadtest.store import Store
from loadtest.types import Plan, Stage
from tests.test_run import KillOnce, Watched, adds_up, drive, make_plan, rows
from tests.test_schedule import plan_of


def expanded(*stages: Stage) -> Plan:
    return rounds.expanded(plan_of(*stages))


def test_to_who_runs_it_a_stage_of_rounds_is_several_stages() -> None:
    written = plan_of(
        Stage(name="warm", arrivals=Constant(rate=1), requests=1, warmup=True),
        Stage(name="s", arrivals=Constant(rate=1), requests=1, rounds=3),
    )
    plan = rounds.expanded(written)
    assert [stage.name for stage in plan.stages] == ["warm", "s", "s", "s"]
    assert [rounds.round_of(plan, index) for index in range(4)] == [0, 0, 1, 2]
    assert rounds.original(plan) == written


@pytest.mark.parametrize("shards", [1, 3])
def test_rounds_draw_their_own_arrivals_and_prompts(shards: int) -> None:
    plan = expanded(Stage(name="s", arrivals=Poisson(rate=20), requests=10, rounds=2))
    drawn = [
        sorted((seq, due) for shard in range(shards) for seq, due, _ in Schedule(plan, shard, shards).open(index))
        for index in (0, 1)
    ]
    assert [[seq for seq, _ in each] for each in drawn] == [list(range(10)), [SEQS + i for i in range(10)]]
    assert [due for _, due in drawn[0]] != [due for _, due in drawn[1]]
    schedule = Schedule(plan, 0, 1)
    prompts = [schedule.prompt(index, seq).messages[0]["content"] for index in (0, 1) for seq, _ in drawn[index]]
    assert len(set(prompts)) == 20
    alone = plan_of(Stage(name="s", arrivals=Poisson(rate=20), requests=10))
    assert [due for _, due, _ in Schedule(alone, 0, 1).open(0)] == [due for _, due in drawn[0]], "the first is as ever"


def test_closed_rounds_are_split_whole() -> None:
    plan = expanded(Stage(name="c", arrivals=Closed(), concurrency=3, requests=7, rounds=2))
    seqs = [list(Schedule(plan, shard, 4).closed(1)) for shard in range(4)]
    assert sorted(seq for own in seqs for seq in own) == [SEQS + i for i in range(7)]
    assert seqs[3] == []
    assert all(own == sorted(own) for own in seqs)


def test_offered_load_is_drawn_round_by_round() -> None:
    """Two rounds of 2 s at 5/s, with 3 s from one start to the next."""
    plan = plan_of(Stage(name="s", arrivals=Constant(rate=5), duration_s=2, rounds=2))
    starts = [1_000_000_000_000, 1_003_000_000_000]
    ends = [start + 2_000_000_000 for start in starts]
    stage = {"stage_index": 0, "starts_ns": starts, "ends_ns": ends, "start_ns": starts[0], "end_ns": ends[1]}
    assert offered(plan, stage, Buckets(starts[0], 1, 6)) == [5, 5, 0, 5, 5, None]


OPEN = "name: open, arrivals: {kind: poisson, rate: 40}, duration_s: 0.6, drain_s: 5, rounds: 3"
CLOSED = "name: closed, arrivals: {kind: closed}, concurrency: 4, requests: 12, drain_s: 5, rounds: 2"


def test_rounds_of_a_run_are_one_stage(simulator: str, store: Store, tmp_path: Path) -> None:
    snapshot, booked = drive(make_plan(simulator, OPEN, CLOSED), store, tmp_path, workers=2)
    record(store, snapshot, booked)
    assert adds_up(booked)
    for before, after in zip(snapshot.times, snapshot.times[1:], strict=False):
        assert after.start_ns > before.drained_ns
    found = rows(store, snapshot, f"stage, target, seq, {rounds.OF_SEQ}")
    assert len(set(found)) == len(found) == booked.integrity.stored
    counted: dict[Any, int] = {}
    for stage, target, _, number in found:
        counted[stage, target, number] = counted.get((stage, target, number), 0) + 1
    assert {key: n for key, n in counted.items() if key[0] == "closed"} == {
        ("closed", target, number): 12 for target in "ab" for number in (0, 1)
    }
    assert all(counted["open", "a", number] == counted["open", "b", number] > 0 for number in range(3))
    figures = summary(store, snapshot.run)
    assert [(name, stage["rounds"]) for name, stage in figures["stages"].items()] == [("open", 3), ("closed", 2)]
    own = figures["targets"]["a"]["stages"]["open"]
    assert own["requests"] == sum(counted["open", "a", number] for number in range(3))
    windows = [(times.start_ns, times.end_ns) for times in snapshot.times[:3]]
    done = [
        ns for ns, stage, target in rows(store, snapshot, "done_ns, stage, target") if (stage, target) == ("open", "a")
    ]
    within = sum(start_ns <= ns <= end_ns for ns in done for start_ns, end_ns in windows)
    assert own["requests_per_s"] == pytest.approx(within / 1.8, rel=0.001), "over three windows of 0.6 s"
    assert [each["note"][:29] for each in figures["compare"]] == [
        "The stage had 3 rounds: wheth",
        "The stage had 2 rounds: wheth",
    ]


LINKED = f"""
    SELECT r.SpanAttributes['loadtest.stage'] AS stage, {rounds.OF_SEQ} AS round,
        s.SpanAttributes['loadtest.stage'] AS linked_stage, toUInt64(s.SpanAttributes['loadtest.round']) AS linked_round,
        count() AS n, uniqExact(r.TraceId) AS traces, uniqExact(s.TraceId) AS stage_traces
    FROM (
        SELECT *, toUInt64(SpanAttributes['loadtest.seq']) AS seq FROM otel_traces
        WHERE SpanKind = 'Client' AND SpanAttributes['loadtest.run'] = {{run:String}}
    ) AS r
    LEFT JOIN (SELECT * FROM otel_traces WHERE SpanName = 'stage') AS s
        ON r.Links.TraceId[1] = s.TraceId AND r.Links.SpanId[1] = s.SpanId
    GROUP BY 1, 2, 3, 4"""


def test_each_request_links_to_the_span_of_its_stage_and_round(simulator: str, store: Store, tmp_path: Path) -> None:
    """And has a trace of its own; run, stages and workers are one."""
    stages = (
        "name: once, arrivals: {kind: constant, rate: 50}, requests: 3",
        ("name: twice, arrivals: {kind: constant, rate: 50}, requests: 4, rounds: 2"),
    )
    snapshot, booked = drive(make_plan(simulator, *stages), store, tmp_path)
    record(store, snapshot, booked)
    found = store.query(LINKED, {"run": snapshot.run})
    assert all((row["stage"], row["round"]) == (row["linked_stage"], row["linked_round"]) for row in found)
    counts = {(row["stage"], row["round"]): (row["n"], row["traces"], row["stage_traces"]) for row in found}
    assert counts == {("once", 0): (6, 6, 1), ("twice", 0): (8, 8, 1), ("twice", 1): (8, 8, 1)}
    own = "SELECT SpanName, ParentSpanId = '' AS root, count() AS n, uniqExact(TraceId) AS traces, uniqExact(SpanId) AS spans"
    rows_of_run = store.query(
        f"{own} FROM otel_traces WHERE SpanKind = 'Internal' AND SpanAttributes['loadtest.run'] = {{run:String}} "
        "GROUP BY 1, 2 ORDER BY 1",
        {"run": snapshot.run},
    )
    assert [tuple(row.values()) for row in rows_of_run] == [
        ("run", True, 1, 1, 1),
        ("stage", False, 3, 1, 3),
        ("worker", False, 1, 1, 1),
    ]


def test_a_worker_killed_in_the_second_round(simulator: str, store: Store, tmp_path: Path) -> None:
    class KillInSecond(KillOnce):
        def __call__(self, snapshot: Any) -> None:
            if len(snapshot.times) == 2:
                super().__call__(snapshot)

    stage = "name: open, arrivals: {kind: constant, rate: 30}, duration_s: 2, drain_s: 5, rounds: 2"
    snapshot, booked = drive(make_plan(simulator, stage), store, tmp_path, workers=2, view=Watched(KillInSecond(0.5)))
    assert adds_up(booked)
    assert booked.integrity.scheduled == 2 * 2 * 60
    identities = rows(store, snapshot, "stage, target, seq")
    assert len(identities) == len(set(identities))
    assert booked.integrity.missed_by["worker_lost"] > 0
