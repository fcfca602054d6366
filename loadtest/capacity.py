"""What a plan asks of its workers, and what a worker can give: whether it will do, before anything is sent.

A worker is one process with one core. What it does costs CPU by the request and by the chunk, so a plan's need is

    cores = requests/s x CPU of a request + chunks/s x CPU of a chunk

and a worker is full at `FULL` of a core: above 90% for three seconds on end a run is INVALID (validity.py), and random
arrivals come in bursts. The two costs are those that `loadtest calibrate` measured on this machine, else `GUESS`, which
is three times what a server's core took that it was measured on: a plan that it waves through is no trouble anywhere.

Where a plan leaves to the endpoint what is coming, something must be assumed, and what was is told: an answer of unknown
length has `TOKENS` tokens, a chunk carries one, and under closed load a stream brings `PACE_PER_S` chunks a second and an
answer that is not streamed takes `WHOLE_S`.
"""

from collections.abc import Iterator
from math import ceil

from msgspec import Struct

from loadtest import dialects
from loadtest.arrivals import Closed, Ramp
from loadtest.prompts import Dataset, mean_turns
from loadtest.types import Plan, Stage, Target

FULL = 0.7
TOKENS = 256
PACE_PER_S = 50.0
WHOLE_S = 0.1
TLS_FACTOR = 1.6
"""CPU of a chunk over TLS by that of a plain one, at most (bench/RESULTS.md)."""


class Capacity(Struct, frozen=True):
    """CPU that a worker needs, in microseconds."""

    request_us: float
    chunk_us: float
    measured_at: str = ""  # empty: a guess

    @property
    def requests_per_s(self) -> float:
        """That fill a worker."""
        return FULL * 1e6 / self.request_us

    @property
    def chunks_per_s(self) -> float:
        return FULL * 1e6 / self.chunk_us


GUESS = Capacity(request_us=400, chunk_us=45)


class Need(Struct, frozen=True, kw_only=True):
    """What a stage asks of all workers together."""

    stage: str
    requests_per_s: float = 0
    chunks_per_s: float = 0
    cores: float = 0
    assumed: tuple[str, ...] = ()

    @property
    def workers(self) -> int:
        return max(1, ceil(self.cores / FULL))

    def __add__(self, other: "Need") -> "Need":
        return Need(
            stage=f"{other.stage} with {self.stage}",
            requests_per_s=self.requests_per_s + other.requests_per_s,
            chunks_per_s=self.chunks_per_s + other.chunks_per_s,
            cores=self.cores + other.cores,
            assumed=tuple(dict.fromkeys(self.assumed + other.assumed)),
        )


def busiest(plan: Plan, capacity: Capacity) -> Need:
    """Of the stage that asks for most; a stage that overlaps the next one goes on beside it."""
    needs: list[Need] = []
    for index, stage in enumerate(plan.stages):
        need = _of_stage(plan, stage, capacity)
        overlapped = index > 0 and plan.stages[index - 1].overlap
        needs.append(needs[-1] + need if overlapped else need)
    return max(needs, key=lambda need: need.cores)


def warnings(plan: Plan, capacity: Capacity, cores: int | None = None) -> Iterator[str]:
    """A sentence where the plan's workers will not do. `cores`: of this machine, if they run here."""
    need = busiest(plan, capacity)
    if need.workers <= plan.fleet.workers:
        return
    known = f"as calibrated on {capacity.measured_at[:10]}"
    guessed = "by a cautious guess; `loadtest calibrate` measures this machine"
    have = "1 worker is" if plan.fleet.workers == 1 else f"{plan.fleet.workers:,} workers are"
    yield (
        f"stage {need.stage} needs {need.workers:,} workers ({words(need)}; {known if capacity.measured_at else guessed})"
        f", and {have} planned: the run may turn out INVALID; {remedy(need.workers, cores)}"
    )


def remedy(workers: int, cores: int | None) -> str:
    """What to write where so many are needed: a worker has a core, and what drives them needs one too."""
    if cores is None or workers <= max(cores - 1, 1):
        return f"write --workers {workers}"
    here = f"{cores} cores" if cores > 1 else "one core"
    return (
        f"this machine has {here}, too few for them: lower the load, or run it on a machine with {workers + 1} cores or "
        f"on several with --on ray, and there write --workers {workers}"
    )


def words(need: Need) -> str:
    """`400 requests/s with 60,000 chunks/s, taking answers for 256 tokens long`."""
    chunks = f" with {need.chunks_per_s:,.0f} chunks/s" if need.chunks_per_s else ""
    rate = f"{need.requests_per_s:,.0f}" if need.requests_per_s >= 100 else f"{need.requests_per_s:.3g}"
    return ", ".join([f"{rate} requests/s{chunks}", *need.assumed])


def _of_stage(plan: Plan, stage: Stage, capacity: Capacity) -> Need:
    needs = [_of_target(plan, stage, target, capacity) for target in plan.targets]
    return Need(
        stage=stage.name,
        requests_per_s=sum(need.requests_per_s for need in needs),
        chunks_per_s=sum(need.chunks_per_s for need in needs),
        cores=sum(need.cores for need in needs),
        assumed=tuple(dict.fromkeys(words for need in needs for words in need.assumed)),
    )


def _of_target(plan: Plan, stage: Stage, target: Target, capacity: Capacity) -> Need:
    streams = dialects.load(target.dialect).streams(target)
    turns = mean_turns(plan.prompts)
    assumed: list[str] = []
    tokens = plan.prompts.output_tokens.mean if plan.prompts.output_tokens else TOKENS
    if streams and not plan.prompts.output_tokens:
        assumed.append(f"taking answers for {TOKENS} tokens long")
    if isinstance(stage.arrivals, Closed):
        concurrency = stage.concurrency or 0
        answer_s = tokens / PACE_PER_S if streams else WHOLE_S
        think_s = plan.prompts.think_s * (1 - 1 / turns) if isinstance(plan.prompts, Dataset) else 0
        rate = concurrency / (answer_s + think_s)
        pace = f"streams of {PACE_PER_S:g} chunks/s" if streams else f"answers after {1000 * WHOLE_S:g} ms"
        assumed.append(f"taking the endpoint to send {pace}")
    elif isinstance(stage.arrivals, Ramp):
        rate = max(stage.arrivals.from_, stage.arrivals.to) * turns
    else:
        rate = stage.arrivals.rate * turns
    chunks_per_s = rate * tokens if streams else 0.0
    chunk_us = capacity.chunk_us * (TLS_FACTOR if target.url.startswith("https:") else 1)
    return Need(
        stage=stage.name,
        requests_per_s=rate,
        chunks_per_s=chunks_per_s,
        cores=(rate * capacity.request_us + chunks_per_s * chunk_us) / 1e6,
        assumed=tuple(assumed),
    )
