"""What a lost worker's share of the load comes to, so that the account adds up without it.

Whoever gives a shard up books what was still to come: unknown up to the moment it was lost, since it may have sent that,
and missed from there on. Of a host that went with its node nobody knows more than its last word; but the rows that it
stored after that word are there, and `settle` takes them out of the unknown.
"""

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from loadtest import rounds
from loadtest.arrivals import nanoseconds
from loadtest.frames import StageCount, TargetCount
from loadtest.schedule import Schedule
from loadtest.store import Store

if TYPE_CHECKING:
    from loadtest.run import Snapshot

LAST_WORD_NS = 5_000_000_000
"""A host's last status is at most so much older than the last request that it tells of."""
STORED_SINCE = """
    SELECT stage, target, seq FROM requests
    WHERE run = {run:String} AND worker = {worker:UInt32} AND started_ns >= {since:Int64}"""


def nothing(stage: int, start_ns: int, targets: int) -> StageCount:
    return StageCount(stage=stage, start_ns=start_ns, targets=[TargetCount() for _ in range(targets)])


def write_off(
    schedule: Schedule, count: StageCount, next_seq: list[int], died_ns: int, until_ns: int | None = None
) -> None:
    """Book in `count` what this shard had still to send of the stage from `next_seq` on, up to `until_ns`: nobody will.

    Under closed load nothing is due: what its slots may have begun since the last report is unknown, and that is all.
    """
    spec = schedule.plan.stages[count.stage]
    last_due_ns = count.start_ns
    if spec.concurrency:
        _write_off_slots(schedule, count)
    else:
        for seq, offset_ns, _ in schedule.open(count.stage):
            due_ns = count.start_ns + offset_ns
            if until_ns is not None and due_ns > until_ns:
                break
            last_due_ns = due_ns
            for t, target in enumerate(count.targets):
                if seq >= next_seq[t]:
                    target.scheduled += 1
                    target.unknown += due_ns <= died_ns
                    target.missed_worker_lost += due_ns > died_ns
    planned_ns = count.start_ns + nanoseconds(spec.duration_s) if spec.duration_s else max(last_due_ns, time.time_ns())
    count.end_ns = planned_ns if until_ns is None else until_ns
    count.drained_ns = max(count.end_ns, time.time_ns())
    for target in count.targets:
        target.in_flight = target.oldest_ns = 0


def _write_off_slots(schedule: Schedule, count: StageCount) -> None:
    spec = schedule.plan.stages[count.stage]
    slots = len(schedule.slots(count.stage))
    queue = len(list(schedule.closed(count.stage))) if spec.requests is not None else None
    for target in count.targets:
        begun = slots if queue is None else max(0, min(slots, queue - target.scheduled))
        target.scheduled += begun
        target.unknown += begun


def settle(store: Store, snapshot: "Snapshot") -> None:
    """Move what a lost host stored after its last word from unknown to sent. The counts keep their `next_seq`."""
    for status in snapshot.hosts:
        if status.worker in snapshot.lost_hosts:
            since = {"run": snapshot.run, "worker": status.worker, "since": status.now_ns - LAST_WORD_NS}
            rows = store.query(STORED_SINCE, since)
            for count in status.stages:
                _settle(snapshot, count, [(row["stage"], row["target"], row["seq"]) for row in rows])


def _settle(snapshot: "Snapshot", count: StageCount, rows: Iterable[tuple[str, str, int]]) -> None:
    stage = (snapshot.plan.stages[count.stage].name, rounds.round_of(snapshot.plan, count.stage))
    late = [(target, seq) for name, target, seq in rows if (name, seq // rounds.SEQS) == stage]
    for target, booked in zip(snapshot.plan.targets, count.targets, strict=True):
        if booked.sent and not booked.next_seq:
            continue  # of a locustfile, whose requests have no place in a schedule: none is unknown
        sent = sum(name == target.name and seq >= booked.next_seq for name, seq in late)
        booked.sent += sent
        booked.done += sent
        for reason in ("unknown", "missed_worker_lost"):
            taken = min(sent, getattr(booked, reason))
            setattr(booked, reason, getattr(booked, reason) - taken)
            sent -= taken
        booked.scheduled += sent  # more than could be known of: closed load
