"""Whole runs: plan to account over real worker processes, a real endpoint and a real store; and what happens to them."""

import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest

from loadtest import plan as plans
from loadtest import rounds
from loadtest.account import account
from loadtest.detach import new_run_id
from loadtest.errors import RunFailed
from loadtest.frames import Setup
from loadtest.run import Driver, Interrupts, LocalFleet, Snapshot, View
from loadtest.store import Address, Store
from loadtest.types import Plan
from loadtest.validity import RULES, Account, Facts, validity
from tests.test_arrivals import KS_LIMIT, ks

PLAN = """
name: test
seed: 3
nonce: fixed
targets:
  - {{name: a, url: "{url}/v1", dialect: openai-chat, model: m}}
  - {{name: b, url: "{url}/v1", dialect: openai-chat, model: m}}
prompts: {{kind: synthetic, input_tokens: 20, output_tokens: 5}}
stages:
{stages}
"""


class Watched:
    """A view that keeps what it saw and may act on it."""

    def __init__(self, act: Callable[[Snapshot], None] = lambda _: None) -> None:
        self.seen: list[tuple[str, int, float]] = []  # phase, in flight, age of the oldest in s
        self.act = act

    def __call__(self, snapshot: Snapshot) -> None:
        counts = [target for host in snapshot.hosts for stage in host.stages for target in stage.targets]
        oldest_ns = min((count.oldest_ns for count in counts if count.oldest_ns), default=snapshot.now_ns)
        self.seen.append((snapshot.phase, sum(c.in_flight for c in counts), (snapshot.now_ns - oldest_ns) / 1e9))
        self.act(snapshot)


def make_plan(url: str, *stages: str, **changes: Any) -> Plan:
    plan = plans.parse(PLAN.format(url=url, stages="\n".join(f"  - {{{stage}}}" for stage in stages)), Path.cwd())
    return msgspec.structs.replace(plan, **changes)


def drive(
    plan: Plan,
    store: Store,
    directory: Path,
    workers: int = 1,
    view: View | None = None,
    interrupts: Interrupts | None = None,
    address: Address | None = None,
) -> tuple[Snapshot, Account]:
    """One run without its report. The account holds what the store holds."""
    run, plan = new_run_id(), rounds.expanded(plan)
    setups = [Setup(run, plan, {}, shard, workers) for shard in range(workers)]
    fleet = LocalFleet(setups, address or store.address, directory)
    try:
        snapshot = Driver(plan, run, fleet, view or Watched(), interrupts or Interrupts()).go()
    finally:
        fleet.close()
    stored = store.query("SELECT count() AS n FROM requests WHERE run = {run:String}", {"run": run})[0]["n"]
    return snapshot, account(snapshot, stored)


def rows(store: Store, snapshot: Snapshot, columns: str) -> list[tuple[Any, ...]]:
    found = store.query(
        f"SELECT {columns} FROM requests WHERE run = {{run:String}} ORDER BY stage, target, seq", {"run": snapshot.run}
    )
    return [tuple(row.values()) for row in found]


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    except (OSError, IndexError):
        return 0


def _cmdline(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


class KillOnce:
    """Kills worker 0 once the run's newest stage is `after_s` old."""

    def __init__(self, after_s: float) -> None:
        self.after_s = after_s
        self.killed = False

    def __call__(self, snapshot: Snapshot) -> None:
        old_enough = snapshot.times and snapshot.now_ns - snapshot.times[-1].start_ns > self.after_s * 1e9
        if old_enough and not self.killed:
            self.killed = True
            os.kill(snapshot.hosts[0].pid, signal.SIGKILL)


def adds_up(booked: Account) -> bool:
    i = booked.integrity
    return i.scheduled == i.sent + i.missed + i.unknown and i.sent == i.stored + i.lost and min(i.unknown, i.lost) >= 0


OPEN = "name: open, arrivals: {kind: poisson, rate: 40}, duration_s: 2, drain_s: 5"
CLOSED = "name: closed, arrivals: {kind: closed}, concurrency: 6, requests: 60"


def test_a_run_is_the_same_for_any_number_of_workers(simulator: str, store: Store, tmp_path: Path) -> None:
    plan = make_plan(
        simulator, "name: warm, arrivals: {kind: constant, rate: 10}, duration_s: 0.5, warmup: true", OPEN, CLOSED
    )
    one, booked_one = drive(plan, store, tmp_path / "1", workers=1)
    three, booked_three = drive(plan, store, tmp_path / "3", workers=3)
    what = "stage, target, seq, request_bytes, input_tokens, warmup, error"
    assert rows(store, one, what) == rows(store, three, what)
    assert len(rows(store, one, what)) == booked_one.integrity.stored == booked_three.integrity.stored > 250
    due = "stage, target, seq, due_ns"
    offsets = [
        [
            d - next(t.start_ns for t in snapshot.times if plan.stages[t.stage].name == stage)
            for stage, _, _, d in found
            if d
        ]
        for snapshot, found in ((one, rows(store, one, due)), (three, rows(store, three, due)))
    ]
    assert offsets[0] == offsets[1]
    for snapshot in (one, three):
        of_one = [
            (started_ns, started_ns - due_ns)
            for target, stage, started_ns, due_ns in rows(store, snapshot, "target, stage, started_ns, due_ns")
            if (target, stage) == ("a", "open")
        ]
        gaps_s = [(later - earlier) / 1e9 for (earlier, _), (later, _) in pairwise(sorted(of_one))]
        is_poisson = ks(gaps_s, lambda x: 1 - math.exp(-40 * x)) < KS_LIMIT
        is_late = max(lag_ns for _, lag_ns in of_one) > RULES["schedule_lag"].limit * 1e6
        assert is_poisson or is_late, "they really left as a Poisson process, or the machine was too busy and we say so"
    for booked in (booked_one, booked_three):
        assert adds_up(booked)
        assert (booked.integrity.missed, booked.integrity.unknown, booked.integrity.lost) == (0, 0, 0)


def test_targets_are_paired(simulator: str, store: Store, tmp_path: Path) -> None:
    snapshot, _ = drive(make_plan(simulator, OPEN), store, tmp_path)
    by_target: dict[str, list[tuple[Any, ...]]] = {"a": [], "b": []}
    for target, *facts in rows(store, snapshot, "target, seq, due_ns, request_bytes, worker"):
        by_target[target].append(tuple(facts))
    assert by_target["a"] == by_target["b"]
    first = rows(store, snapshot, "argMin(target, started_ns) OVER (PARTITION BY seq)")
    assert 0.2 < sum(name == ("a",) for name in first) / len(first) < 0.8, "each goes first about half the time"


def test_killed_worker_under_open_load(simulator: str, store: Store, tmp_path: Path) -> None:
    plan = make_plan(simulator, "name: open, arrivals: {kind: constant, rate: 50}, duration_s: 7, drain_s: 5")
    snapshot, booked = drive(plan, store, tmp_path, workers=2, view=Watched(KillOnce(1)))
    assert adds_up(booked)
    assert booked.integrity.scheduled == 2 * 350
    assert booked.generator.workers_restarted == 1
    assert booked.integrity.missed_by["worker_lost"] > 0
    assert sum(booked.unsent["open"].values()) == booked.integrity.missed + booked.integrity.unknown
    reasons = {reason.partition(":")[0] for reason in validity(Facts(account=booked)).reasons}
    assert {"worker_lost", "missed"} <= reasons <= {"worker_lost", "missed", "unknown", "spans_lost"}
    assert booked.integrity.unknown <= 2 * 50 / 2, (
        "what was due within a report's time, a tenth of a second on a free machine"
    )
    late = [seq for seq, worker in rows(store, snapshot, "seq, worker") if worker == 0 and seq > 250]
    assert late, "the restarted worker took its share up again"


def test_a_closed_stage_of_so_many_requests_ends_for_each_target_with_its_last_one(
    simulator: str, store: Store, tmp_path: Path
) -> None:
    plan = make_plan(simulator, "name: s, arrivals: {kind: closed}, concurrency: 2, requests: 8, drain_s: 10")
    slow = msgspec.structs.replace(plan.targets[1], body={"simulate": {"ttft_ms": 700, "chunks": 1}})
    snapshot, _ = drive(msgspec.structs.replace(plan, targets=[plan.targets[0], slow]), store, tmp_path, workers=2)
    sql = "SELECT target, max(started_ns) AS ns FROM requests WHERE run = {run:String} GROUP BY target ORDER BY target"
    [a, b] = store.query(sql, {"run": snapshot.run})
    [times] = snapshot.times
    assert times.target_end_ns == {each["target"]: pytest.approx(each["ns"], abs=500_000_000) for each in (a, b)}
    assert times.target_end_ns["b"] <= times.end_ns
    assert b["ns"] - a["ns"] > 1_000_000_000


def test_killed_worker_under_closed_load(simulator: str, store: Store, tmp_path: Path) -> None:
    slow = {"simulate": {"ttft_ms": 100, "chunks": 3, "gaps_ms": 50}}
    plan = make_plan(simulator, "name: closed, arrivals: {kind: closed}, concurrency: 8, duration_s: 5, drain_s: 5")
    plan = msgspec.structs.replace(plan, targets=[msgspec.structs.replace(t, body=slow) for t in plan.targets])
    snapshot, booked = drive(plan, store, tmp_path, workers=2, view=Watched(KillOnce(1)))
    assert adds_up(booked)
    assert booked.generator.workers_restarted == 1
    assert booked.integrity.unknown <= 2 * 4, "at most one request a slot of the dead worker"
    identities = rows(store, snapshot, "stage, target, seq")
    assert len(identities) == len(set(identities)), "no request was sent twice"


def test_worker_that_cannot_start_is_told(simulator: str, store: Store, tmp_path: Path) -> None:
    listeners = tmp_path / "listeners.py"
    listeners.write_text("raise ValueError('no listeners today')")
    plan = make_plan(simulator, OPEN)
    plan = msgspec.structs.replace(plan, fleet=msgspec.structs.replace(plan.fleet, listeners=str(listeners)))
    with pytest.raises(RunFailed, match="no listeners today"):
        drive(plan, store, tmp_path)


def test_locust_listeners_hear_the_run(simulator: str, store: Store, tmp_path: Path) -> None:
    heard = tmp_path / "heard"
    listeners = tmp_path / "listeners.py"
    listeners.write_text(
        "from locust import events\n"
        "@events.request.add_listener\n"
        "def on_request(request_type, name, response_time, response_length, exception, context, **_):\n"
        f"    with open({str(heard)!r}, 'a') as f:\n"
        "        print(request_type, name, response_time > 0, response_length > 0, exception, file=f)\n"
        "@events.test_stop.add_listener\n"
        "def on_stop(environment, **_):\n"
        f"    with open({str(heard)!r}, 'a') as f:\n"
        "        print('stop', environment.stats.total.num_requests, file=f)\n"
    )
    plan = make_plan(simulator, "name: few, arrivals: {kind: constant, rate: 20}, requests: 5")
    plan = msgspec.structs.replace(plan, fleet=msgspec.structs.replace(plan.fleet, listeners=str(listeners)))
    drive(plan, store, tmp_path)
    lines = heard.read_text().splitlines()
    assert sorted(lines[:-1]) == ["openai-chat a few True True None"] * 5 + ["openai-chat b few True True None"] * 5
    assert lines[-1] == "stop 10"


def test_cap_makes_requests_missed_and_not_late(simulator: str, store: Store, tmp_path: Path) -> None:
    plan = make_plan(simulator, "name: open, arrivals: {kind: constant, rate: 20}, requests: 20")
    slow = msgspec.structs.replace(plan.targets[0], max_in_flight=2, body={"simulate": {"ttft_ms": 3000, "chunks": 1}})
    plan = msgspec.structs.replace(plan, targets=[slow, plan.targets[1]])
    snapshot, booked = drive(plan, store, tmp_path)
    assert booked.integrity.missed_by == {"cap": 18}
    assert booked.capped == {"open": {"a": 18}}
    assert adds_up(booked)
    assert len([1 for (target,) in rows(store, snapshot, "target") if target == "b"]) == 20


def test_what_outlasts_the_drain_is_cancelled(simulator: str, store: Store, tmp_path: Path) -> None:
    plan = make_plan(simulator, "name: open, arrivals: {kind: constant, rate: 10}, requests: 3, drain_s: 0.5")
    hanging = {"simulate": {"ttft_ms": 60_000, "chunks": 1}}
    plan = msgspec.structs.replace(plan, targets=[msgspec.structs.replace(plan.targets[0], body=hanging)])
    began = time.monotonic()
    snapshot, booked = drive(plan, store, tmp_path)
    assert rows(store, snapshot, "error, fault") == [("cancelled", "generator")] * 3
    assert booked.integrity.stored == 3
    assert time.monotonic() - began < 50, "less than the answer takes"


def test_hanging_endpoint_is_seen_while_it_hangs(simulator: str, store: Store, tmp_path: Path) -> None:
    plan = make_plan(simulator, "name: open, arrivals: {kind: constant, rate: 10}, duration_s: 2, drain_s: 1.5")
    hanging = {"simulate": {"ttft_ms": 60_000, "chunks": 1}}
    plan = msgspec.structs.replace(plan, targets=[msgspec.structs.replace(plan.targets[0], body=hanging)])
    view = Watched()
    drive(plan, store, tmp_path, view=view)
    assert max(in_flight for _, in_flight, _ in view.seen) == 20
    assert max(age for phase, _, age in view.seen if phase == "running") > 1.2


def test_a_slow_endpoint_never_shows_as_lag_of_ours(simulator: str, store: Store, tmp_path: Path) -> None:
    """The same prompts at the same times to a quick target and to one that says nothing for three seconds, longer than
    the stage: to both everything leaves within the stage, and no later to the one than to the other."""
    plan = make_plan(simulator, "name: open, arrivals: {kind: constant, rate: 40}, duration_s: 2, drain_s: 10")
    slow = msgspec.structs.replace(plan.targets[1], body={"simulate": {"ttft_ms": 3000}})
    plan = msgspec.structs.replace(plan, targets=[plan.targets[0], slow])
    most_in_flight = [0]

    def look(snapshot: Snapshot) -> None:
        counts = [stage.targets[1] for host in snapshot.hosts for stage in host.stages]
        most_in_flight[0] = max(most_in_flight[0], sum(count.in_flight for count in counts))

    snapshot, booked = drive(plan, store, tmp_path, view=Watched(look))
    assert adds_up(booked)
    assert booked.integrity.sent == 2 * 80
    assert most_in_flight[0] == 80, "none waited for another's answer"
    lag_ms = {
        name: sorted((started_ns - due_ns) / 1e6 for target, started_ns, due_ns in found if target == name)
        for found in [rows(store, snapshot, "target, started_ns, due_ns")]
        for name in ("a", "b")
    }
    assert lag_ms["b"][40] < lag_ms["a"][40] + 5, "of a pair, whose order is drawn, both leave at once"
    end_ns = snapshot.times[0].end_ns
    assert all(started_ns < end_ns + 10**9 for (started_ns,) in rows(store, snapshot, "started_ns"))


def test_stages_in_order_and_overlapping(simulator: str, store: Store, tmp_path: Path) -> None:
    slow = {"simulate": {"ttft_ms": 1500, "chunks": 1}}
    stages = (
        "name: first, arrivals: {kind: constant, rate: 10}, duration_s: 1, overlap: true",
        "name: second, arrivals: {kind: constant, rate: 10}, duration_s: 1",
        "name: third, arrivals: {kind: constant, rate: 10}, duration_s: 0.5",
    )
    plan = make_plan(simulator, *stages)
    plan = msgspec.structs.replace(plan, targets=[msgspec.structs.replace(plan.targets[0], body=slow)])
    snapshot, booked = drive(plan, store, tmp_path)
    first, second, third = snapshot.times
    assert second.start_ns == first.end_ns, "overlap: at the end of arrivals, not of the drain"
    assert third.start_ns > second.drained_ns, "no overlap: the drain is waited for"
    assert booked.integrity.stored == 25


@pytest.fixture
def interrupts() -> Iterator[Interrupts]:
    with Interrupts().caught() as caught:
        yield caught


def test_interrupt_drains_and_keeps_what_was_measured(
    simulator: str, store: Store, tmp_path: Path, interrupts: Interrupts
) -> None:
    plan = make_plan(simulator, "name: open, arrivals: {kind: constant, rate: 20}, duration_s: 60")

    def interrupt(snapshot: Snapshot) -> None:
        if snapshot.times and snapshot.now_ns - snapshot.times[-1].start_ns > 1e9 and not interrupts.count:
            os.kill(os.getpid(), signal.SIGINT)

    began = time.monotonic()
    snapshot, booked = drive(plan, store, tmp_path, workers=2, view=Watched(interrupt), interrupts=interrupts)
    assert time.monotonic() - began < 60, "less than the stage would have taken"
    assert snapshot.interrupted
    assert booked.interrupted
    assert adds_up(booked)
    assert booked.integrity.lost == 0
    assert 20 <= booked.integrity.stored < 2 * 20 * 60
    assert not [
        p for p in os.listdir("/proc") if p.isdigit() and _parent(int(p)) == os.getpid() and b"worker" in _cmdline(p)
    ]


def test_an_interrupt_reaches_a_worker_that_is_being_restarted(
    simulator: str, store: Store, tmp_path: Path, interrupts: Interrupts
) -> None:
    plan = make_plan(simulator, "name: open, arrivals: {kind: constant, rate: 20}, duration_s: 90, drain_s: 5")
    kill = KillOnce(0.5)

    def view(snapshot: Snapshot) -> None:
        kill(snapshot)
        if any(host.state == "restarting" for host in snapshot.hosts) and not interrupts.count:
            interrupts.interrupt()

    snapshot, booked = drive(plan, store, tmp_path, view=Watched(view), interrupts=interrupts)
    assert snapshot.interrupted
    assert adds_up(booked)
    assert booked.integrity.scheduled < 2 * 20 * 60


def test_second_interrupt_ends_at_once(simulator: str, store: Store, tmp_path: Path, interrupts: Interrupts) -> None:
    plan = make_plan(simulator, "name: open, arrivals: {kind: constant, rate: 20}, duration_s: 60")
    hanging = {"simulate": {"ttft_ms": 60_000, "chunks": 1}}
    plan = msgspec.structs.replace(plan, targets=[msgspec.structs.replace(plan.targets[0], body=hanging)])
    began_ns: list[int] = []

    def interrupt(snapshot: Snapshot) -> None:
        age_ns = snapshot.now_ns - snapshot.times[-1].start_ns if snapshot.times else 0
        if (age_ns > 0.5e9 and interrupts.count == 0) or (age_ns > 1e9 and interrupts.count == 1):
            began_ns.append(snapshot.now_ns)
            os.kill(os.getpid(), signal.SIGINT)

    snapshot, booked = drive(plan, store, tmp_path, view=Watched(interrupt), interrupts=interrupts)
    assert snapshot.times[0].drained_ns - began_ns[0] < 5e9, "no drain of five seconds"
    assert {error for (error,) in rows(store, snapshot, "error")} == {"cancelled"}
    assert adds_up(booked)


def test_quiet_view_of_a_status_with_samples(simulator: str, store: Store, tmp_path: Path) -> None:
    """Each finished request is handed to the view exactly once, however often it asks."""
    samples: list[str] = []

    def collect(snapshot: Snapshot) -> None:
        samples.extend(sample.target for host in snapshot.hosts for sample in host.samples)

    drive(make_plan(simulator, CLOSED), store, tmp_path, workers=2, view=Watched(collect))
    assert sorted(samples) == ["a"] * 60 + ["b"] * 60
