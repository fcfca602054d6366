"""A worker that is gone: what was still to come of its share is booked, and what it stored after its last word is found."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rows import START_NS, answer, insert

from loadtest import losses
from loadtest import plan as plans
from loadtest.account import account
from loadtest.frames import Setup, StageCount, TargetCount
from loadtest.host import Status
from loadtest.run import Driver, Interrupts, Place, RunFailed, Snapshot, StageTimes
from loadtest.schedule import Schedule
from loadtest.store import Store
from loadtest.types import Plan
from loadtest.validity import Facts, validity

SECOND_NS = 1_000_000_000
PLAN = """
name: lost
nonce: fixed
targets: [{{name: t, url: "http://127.0.0.1:9/v1", dialect: openai-chat, model: m}}]
prompts: {{kind: synthetic, input_tokens: 20, output_tokens: 5}}
stages: [{{name: s, {stage}}}]
fleet: {{workers: 2}}
"""
OPEN = "arrivals: {kind: constant, rate: 10}, duration_s: 10"


def plan_of(stage: str) -> Plan:
    return plans.parse(PLAN.format(stage=stage), Path.cwd())


def counted(scheduled: int, sent: int, next_seq: int) -> StageCount:
    return StageCount(0, START_NS, [TargetCount(scheduled=scheduled, sent=sent, next_seq=next_seq)])


def test_what_was_due_is_unknown_up_to_the_loss_and_missed_from_there_on() -> None:
    count = counted(20, 20, next_seq=40)  # worker 0 of 2: five a second, lost after its fourth second
    losses.write_off(Schedule(plan_of(OPEN), 0, 2), count, [40], START_NS + 6 * SECOND_NS, START_NS + 8 * SECOND_NS)
    target = count.targets[0]
    assert (target.sent, target.unknown, target.missed_worker_lost) == (20, 11, 10), "due at 4.0 ... 6.0, 6.2 ... 8.0"
    assert target.scheduled == target.sent + target.unknown + target.missed_worker_lost
    assert count.drained_ns


@pytest.mark.parametrize(("stage", "unknown"), [("duration_s: 10", 3), ("requests: 42", 1)])
def test_each_slot_of_a_closed_stage_may_have_begun_one_more(stage: str, unknown: int) -> None:
    """Worker 0 of 2 has three of six slots, and half of the 42 numbers."""
    count = counted(20, 20, next_seq=40)
    plan = plan_of(f"arrivals: {{kind: closed}}, concurrency: 6, {stage}")
    losses.write_off(Schedule(plan, 0, 2), count, [40], START_NS, START_NS + SECOND_NS)
    assert (count.targets[0].scheduled, count.targets[0].unknown) == (20 + unknown, unknown)


def test_what_it_stored_after_its_last_word_was_sent(store: Store) -> None:
    rows = [answer(at_ms=100 * seq, due_ms=100 * seq, stage="s", worker=0) for seq in range(8)]
    insert(store, "settled", rows, {})
    count = counted(8, 4, next_seq=5)
    count.targets[0].unknown, count.targets[0].missed_worker_lost = 2, 2
    status = Status(worker=0, state="ready", stages=[count], now_ns=START_NS)
    snapshot = Snapshot(plan_of(OPEN), "settled", 0, 0, 0, [], [status], lost_hosts=[0])
    losses.settle(store, snapshot)
    assert (count.targets[0].sent, count.targets[0].unknown, count.targets[0].missed_worker_lost) == (7, 0, 1)
    assert count.targets[0].scheduled == 8, "seqs 5, 6 and 7 were there"


class OneDies:
    """A fleet whose second host is gone from the third poll of the stage on."""

    workers, start_lead_s, poll_every_s = 2, 0.0, 0.01

    def __init__(self, dies_in: str = "stage") -> None:
        self.lost: dict[int, str] = {}
        self.calls: list[tuple[Any, ...]] = []
        self.polls = 0
        self.dies_in = dies_in

    def call(self, method: str, *args: Any) -> list[Any]:
        self.calls.append((method, *args))
        if method != "poll":
            return [None, None]
        self.polls += any(name == "start_stage" for name, *_ in self.calls)
        if self.polls > 2 or self.dies_in == "start":
            self.lost[1] = "worker 1 on node far is gone"
        stopped = any(name in ("stop", "close") for name, *_ in self.calls)
        states = [Status(worker=k, state="ready", now_ns=1, finished=stopped) for k in range(2)]
        for status in states if self.polls else []:
            count = counted(5, 5, next_seq=10)
            count.first_start_ns = START_NS
            count.end_ns = count.drained_ns = START_NS + 3 * SECOND_NS if stopped else 0
            status.stages = [count]
        return [None if status.worker in self.lost else status for status in states]

    def places(self) -> list[Place]:
        return [Place(), Place("far", "", 2_000_000, 500_000)]

    def fetch_frames(self) -> None: ...

    def close(self) -> None: ...


def test_a_lost_host_ends_the_run_and_the_account_adds_up() -> None:
    fleet = OneDies()
    snapshot = Driver(plan_of(OPEN), "r", fleet, lambda _: None, Interrupts()).go()
    assert [call for call in fleet.calls if call[0] == "stop"] == [("stop", 2)]
    booked = account(snapshot, stored=10)
    i = booked.integrity
    assert i.scheduled == i.sent + i.missed + i.unknown
    assert i.unknown + i.missed > 0
    assert booked.generator.workers_lost == 1
    assert not booked.interrupted
    reason = validity(Facts(account=booked)).reasons[0]
    assert reason.startswith("worker_lost: 1 worker process(es) were lost or had to be restarted: worker 1 on node far")


def test_a_host_that_is_lost_before_the_run_is_no_run() -> None:
    with pytest.raises(RunFailed, match="worker 1 on node far is gone before the run began; nothing was sent"):
        Driver(plan_of(OPEN), "r", OneDies("start"), lambda _: None, Interrupts()).go()


def test_starts_are_compared_by_the_drivers_clock() -> None:
    """The far node's clock is 2 ms ahead, known to half a millisecond: what looks like 3 ms is 1 ms."""
    stages = [[StageCount(0, START_NS, [TargetCount()], first_start_ns=START_NS + ns)] for ns in (0, 3_000_000)]
    hosts = [Status(worker=k, state="ready", stages=stages[k]) for k in range(2)]
    places = OneDies().places()
    snapshot = Snapshot(plan_of(OPEN), "r", 0, 0, 0, [StageTimes(0, START_NS)], hosts, places=places)
    generator = account(snapshot, 0).generator
    assert (generator.start_spread_ms, generator.start_spread_error_ms) == (1.0, 0.5)
    assert generator.clock_offset_ms == 2.5


def test_a_plan_with_regions_needs_a_cluster() -> None:
    from loadtest.run import LocalFleet

    regions = "fleet: {workers: 2, regions: [{name: eu, labels: {where: eu}}]}"
    plan = plans.parse(PLAN.format(stage=OPEN).replace("fleet: {workers: 2}", regions), Path.cwd())
    setups = [Setup("r", plan, {}, 0, 1)]
    with pytest.raises(RunFailed, match="RAY_ADDRESS"):
        LocalFleet(setups, SimpleNamespace(), Path.cwd())  # type: ignore[arg-type]
