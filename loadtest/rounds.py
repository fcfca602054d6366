"""Rounds: a stage that is run several times, with a drain between, so that there is something to compare by.

Requests within a stage are not independent: a queue correlates neighbours, and a stage's own interval says little about
another stage like it. Rounds that begin on a drained endpoint are nearly so, and the spread between them is the honest
measure of a difference between targets (report/compare.py).

To those who run it, a stage of n rounds is n stages of one name, one after the other: `expanded`. Each round draws its
own arrivals, and counts its seqs from a billion of its own, so that a request is still (run, stage, seq, target,
attempt), a worker still seq mod n, and no round asks for what another has asked. Further turns of a conversation lie
beyond all rounds: a seq says its turn, its round and its conversation, and no two of them are alike.
"""

from msgspec.structs import replace

from loadtest.prompts import TURN_SEQS
from loadtest.types import Plan, Result, Stage

SEQS = 1_000_000_000
"""As many seqs as no stage has requests."""
OF_SEQ = f"intDiv(seq % {TURN_SEQS}, {SEQS})"
"""The round of a request, in SQL."""
TURN = f"intDiv(seq, {TURN_SEQS})"
"""Which turn of its conversation it is, from 0."""


def expanded(plan: Plan) -> Plan:
    """The plan as it is run: each stage as often as it has rounds."""
    return replace(plan, stages=[stage for stage in plan.stages for _ in range(stage.rounds)])


def original(plan: Plan) -> Plan:
    """The plan as it was written."""
    seen: dict[str, Stage] = {}
    for stage in plan.stages:
        seen.setdefault(stage.name, stage)
    return replace(plan, stages=list(seen.values()))


def round_of(plan: Plan, index: int) -> int:
    """Which round, from 0, the stage at `index` of an expanded plan is."""
    name = plan.stages[index].name
    return sum(stage.name == name for stage in plan.stages[:index])


def first_seq(plan: Plan, index: int) -> int:
    """Where the seqs of the stage at `index` of an expanded plan begin."""
    return round_of(plan, index) * SEQS


def is_of(plan: Plan, index: int, result: Result) -> bool:
    """Whether a request belongs to the stage at `index` of an expanded plan."""
    return result.stage == plan.stages[index].name and result.seq % TURN_SEQS // SEQS == round_of(plan, index)
