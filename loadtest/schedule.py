"""Which requests one of n workers makes, and when: pure, lazy, and the same whole for any n.

Worker `shard` of `shards` makes the requests whose seq modulo `shards` is `shard`, to every target, so that a pair of
targets is always compared on one worker. Under open load each worker draws all due times of a stage and keeps its own:
that costs a microsecond for each request of the others and no word between workers. Closed load has no due times; there
a worker owns a part of the slots and of the numbers, and its slots take their next request from that one queue.
"""

from collections.abc import Iterator
from functools import cached_property
from hashlib import blake2b
from itertools import count, islice

from loadtest import rounds, tokens
from loadtest.arrivals import Closed, nanoseconds
from loadtest.prompts import NO_ANSWERS, Answers, Prompt, Source
from loadtest.types import Plan, Stage

RAMP_UP_S = 2
RAMP_UP_SHARE = 0.1


class Schedule:
    def __init__(self, plan: Plan, shard: int, shards: int) -> None:
        if not 0 <= shard < shards:
            raise ValueError(f"shard is {shard}; it must be from 0 to {shards - 1}, one below shards")
        self.plan = plan
        self.shard = shard
        self.shards = shards

    @cached_property
    def source(self) -> Source:
        """The prompts. Opening a dataset or a tokenizer takes time: whoever sends asks for this before it says that
        it is ready."""
        tokenizer = tokens.opened(self.plan.tokenizer) if self.plan.tokenizer else None
        return self.plan.prompts.open(self.plan.seed, self.plan.nonce, tokenizer)

    def prompt(self, stage: int, seq: int, target: int = 0, turn: int = 0, answers: Answers = NO_ANSWERS) -> Prompt:
        return self.source(self.plan.stages[stage].name, seq, self.plan.targets[target].name, turn, answers)

    def prompts(self, stage: int, seq: int) -> list[Prompt]:
        """The prompt for each target: one and the same, but for the salt that `cache: defeat` gives each request."""
        if self.plan.prompts.cache != "defeat":
            return [self.prompt(stage, seq)] * len(self.plan.targets)
        return [self.prompt(stage, seq, target) for target in range(len(self.plan.targets))]

    def open(self, stage: int) -> Iterator[tuple[int, int, tuple[int, ...]]]:
        """(seq, due in nanoseconds from the stage's start, targets in their order) of this shard, in time order."""
        name = self.plan.stages[stage].name
        for seq, due_ns in enumerate(_due_times_ns(self.plan, stage), rounds.first_seq(self.plan, stage)):
            if seq % self.shards == self.shard:
                yield seq, due_ns, target_order(self.plan.seed, name, seq, len(self.plan.targets))

    def closed(self, stage: int) -> Iterator[int]:
        """The seqs of this shard's queue, ascending. Each target has a queue of its own, with the same seqs."""
        spec = self.plan.stages[stage]
        sharing = self._sharing(spec)
        if self.shard >= sharing:
            return iter(())
        begin = rounds.first_seq(self.plan, stage)
        first = begin + (self.shard - begin) % sharing
        return count(first, sharing) if spec.requests is None else iter(range(first, begin + spec.requests, sharing))

    def slots(self, stage: int) -> list[float]:
        """When each of this shard's slots takes its first request, in seconds from the stage's start, for each target.

        The slots of all shards together start evenly over the ramp-up.
        """
        spec = self.plan.stages[stage]
        concurrency = spec.concurrency or 0
        sharing = self._sharing(spec)
        if self.shard >= sharing:
            return []
        return [ramp_up_s(spec) * slot / concurrency for slot in range(self.shard, concurrency, sharing)]

    def _sharing(self, spec: Stage) -> int:
        """How many shards take part in a closed stage: none has less than one slot."""
        return min(self.shards, spec.concurrency or 0)


def ramp_up_s(stage: Stage) -> float:
    """Over how long the slots of a closed stage start: what the plan says, or 2 s, or a tenth of a shorter stage."""
    if stage.ramp_up_s is not None:
        return stage.ramp_up_s
    return RAMP_UP_S if stage.duration_s is None else min(RAMP_UP_S, RAMP_UP_SHARE * stage.duration_s)


def target_order(seed: int, stage: str, seq: int, targets: int) -> tuple[int, ...]:
    """The order in which `seq` goes to the targets.

    As many consecutive seqs as there are targets rotate one random permutation, so that each target is first, second,
    and so on exactly once in each such block, and no regular alternation can fall in step with anything.
    """
    if targets == 1:
        return (0,)
    block, turn = divmod(seq, targets)
    draw = int.from_bytes(blake2b(f"{seed}\0order\0{stage}\0{block}".encode()).digest())
    order = list(range(targets))
    for last in range(targets - 1, 0, -1):
        draw, pick = divmod(draw, last + 1)
        order[last], order[pick] = order[pick], order[last]
    return tuple(order[turn:] + order[:turn])


def _due_times_ns(plan: Plan, index: int) -> Iterator[int]:
    """The due times of all shards, ascending. At the stage's end itself nothing is due any more."""
    stage, round_ = plan.stages[index], rounds.round_of(plan, index)
    if isinstance(stage.arrivals, Closed):
        raise ValueError(f"stage {stage.name} is closed load: it has slots and no due times")
    offsets_s = stage.arrivals.offsets(
        plan.rng(f"arrivals/{stage.name}" + (f"/{round_}" if round_ else "")), stage.duration_s
    )
    end_ns = None if stage.duration_s is None else nanoseconds(stage.duration_s)
    for offset_s in islice(offsets_s, stage.requests):
        due_ns = nanoseconds(offset_s)
        if end_ns is not None and due_ns >= end_ns:
            return
        yield due_ns
