"""What the terminal shows of a run in progress: `Watch` turns the driver's snapshots into a `Progress`. No I/O here.

The living count, not only the finished: an endpoint that hangs shows as requests in flight that grow and an oldest one
that ages, and as `stalled_s`, before a single one of them has ended. Percentiles here are over the requests that ended
within the last `WINDOW_S`: a look at the present that nothing quotes. The figures of a report are SQL over the store.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct, field

from loadtest.locustfiles.names import named
from loadtest.rounds import round_of

if TYPE_CHECKING:
    from loadtest.frames import TargetCount
    from loadtest.host import Sample
    from loadtest.run import Snapshot
    from loadtest.types import Plan

WINDOW_S = 10
STALLED_FROM_S = 3
"""Silence shorter than this is never told."""
STALLED_FROM_USUAL = 2
"""Nor is silence below so many times what an answer took at most of late."""


class TargetProgress(Struct, kw_only=True):
    """One target in the stage that runs. Rates and latencies are over the window; counts are of the stage so far."""

    name: str
    offered_per_s: float | None = None  # None under closed load, where nothing is due, and before anything was
    achieved_per_s: float = 0  # successes
    output_tokens_per_s: float = 0
    in_flight: int = 0
    oldest_age_s: float = 0
    stalled_s: float | None = None  # nothing ended for so long though requests are in flight; None: all is as usual
    ttft_p50_ms: float | None = None
    ttft_p99_ms: float | None = None
    e2e_p50_ms: float | None = None
    e2e_p99_ms: float | None = None
    ended: int = 0
    errors: dict[str, int] = field(default_factory=dict)  # by word
    missed: int = 0
    unknown: int = 0


class DevicesNow(Struct, kw_only=True):
    """What the GPUs and engines of one target do; None: not provided, or too old to be shown as of now."""

    target: str
    utilization: float | None = None
    power_w: float | None = None
    kv_cache: float | None = None
    queue: float | None = None
    stale_s: float | None = None  # how old the oldest value is, if it is too old
    failed: dict[str, str] = field(default_factory=dict)  # sources that do not answer, and the word why


class Progress(Struct, kw_only=True):
    run: str
    plan: str
    phase: str  # starting, running, draining, storing, done
    targets: list[TargetProgress]
    stage: str | None = None  # None before the first
    stage_index: int = 0
    stage_count: int = 0
    elapsed_s: float = 0  # of the stage, at most to the end of its arrivals; below 0 it is still to begin
    planned_s: float | None = None  # None: the stage ends after planned_requests
    planned_requests: int | None = None
    schedule_lag_p99_ms: float | None = None
    worker_states: list[str] = field(default_factory=list)
    workers_lost: int = 0
    interrupted: bool = False
    messages: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    devices: list[DevicesNow] = field(default_factory=list)
    tokens: bool = True  # whether its answers consist of any


class Watch:
    """Keeps what a window needs between snapshots: the samples of late, the counts of late, the errors of the stage."""

    def __init__(self) -> None:
        self._stage: int | None = None
        self._samples: deque[Sample] = deque()
        self._counts: deque[tuple[int, list[int]]] = deque()  # (now_ns, scheduled of each target)
        self._errors: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._last_end_ns: dict[str, int] = {}
        self._usual_e2e_ms: dict[str, float] = {}
        self._read_at_ns: dict[int, int] = {}  # worker -> of its status whose samples were taken

    def take(self, snapshot: "Snapshot") -> Progress:
        """Every snapshot must come by here, in order: its samples are new, and told once. One that comes twice is no harm."""
        snapshot = named(snapshot)
        self._begin_stage(snapshot)
        self._keep(snapshot)
        plan, index = snapshot.plan, snapshot.stage
        stage = plan.stages[index] if index is not None else None
        start_ns = snapshot.times[-1].start_ns if snapshot.times else snapshot.now_ns
        totals = [_total(snapshot, position) for position in range(len(plan.targets))]
        if snapshot.phase != "draining" or not self._counts:  # what was due is then over, and must not fade
            self._count(snapshot.now_ns, totals)
        now_ns = min(snapshot.now_ns, _arrivals_end_ns(snapshot, start_ns))
        open_load = stage is not None and stage.concurrency is None
        window_s = min(WINDOW_S, max((snapshot.now_ns - start_ns) / 1e9, 0.001))
        return Progress(
            run=snapshot.run,
            plan=plan.name,
            phase=snapshot.phase,
            targets=[
                self._target(target.name, total, snapshot.now_ns, window_s, self._offered(k) if open_load else None)
                for k, (target, total) in enumerate(zip(plan.targets, totals, strict=True))
            ],
            stage=_stage_name(plan, index) if index is not None else None,
            stage_index=len({each.name for each in plan.stages[: index or 0]} - {stage.name if stage else ""}),
            stage_count=len({each.name for each in plan.stages}),
            elapsed_s=(now_ns - start_ns) / 1e9,
            planned_s=stage.duration_s if stage else None,
            planned_requests=stage.requests if stage else None,
            schedule_lag_p99_ms=percentile([s.lag_ms for s in self._samples if s.lag_ms is not None], 0.99),
            worker_states=[host.state for host in snapshot.hosts],
            workers_lost=len(snapshot.lost_hosts),
            interrupted=snapshot.interrupted,
            messages=_messages(snapshot),
            notes=snapshot.notes,
            devices=snapshot.devices,
            tokens=any(target.dialect != "http" for target in plan.targets)
            or any(s.output_tokens for s in self._samples),
        )

    def _begin_stage(self, snapshot: "Snapshot") -> None:
        if snapshot.stage == self._stage:
            return
        self._stage = snapshot.stage
        self._samples.clear()
        self._counts.clear()
        self._errors = defaultdict(Counter)
        self._last_end_ns = {}

    def _keep(self, snapshot: "Snapshot") -> None:
        if self._stage is None:
            return
        name = snapshot.plan.stages[self._stage].name
        fresh = [host for host in snapshot.hosts if self._read_at_ns.get(host.worker) != host.now_ns]
        self._read_at_ns |= {host.worker: host.now_ns for host in fresh}
        new = sorted((s for host in fresh for s in host.samples if s.stage == name), key=lambda s: s.done_ns)
        for sample in new:
            self._last_end_ns[sample.target] = max(self._last_end_ns.get(sample.target, 0), sample.done_ns)
            if sample.error:
                self._errors[sample.target][sample.error] += 1
        self._samples.extend(new)
        while self._samples and self._samples[0].done_ns < snapshot.now_ns - WINDOW_S * 1_000_000_000:
            self._samples.popleft()

    def _count(self, now_ns: int, totals: Sequence["TargetCount"]) -> None:
        self._counts.append((now_ns, [total.scheduled for total in totals]))
        while len(self._counts) > 2 and self._counts[1][0] <= now_ns - WINDOW_S * 1_000_000_000:
            self._counts.popleft()

    def _offered(self, target: int) -> float | None:
        (first_ns, first), (last_ns, last) = self._counts[0], self._counts[-1]
        if last_ns <= first_ns or not last[target]:
            return None
        return (last[target] - first[target]) / ((last_ns - first_ns) / 1e9)

    def _target(
        self, name: str, total: "TargetCount", now_ns: int, window_s: float, offered_per_s: float | None
    ) -> TargetProgress:
        good = [s for s in self._samples if s.target == name and s.error is None]
        e2e_ms = [s.e2e_ms for s in good]
        ttft_ms = [s.ttft_ms for s in good if s.ttft_ms is not None]
        e2e_p99_ms = percentile(e2e_ms, 0.99)
        if e2e_p99_ms is not None:
            self._usual_e2e_ms[name] = e2e_p99_ms
        return TargetProgress(
            name=name,
            offered_per_s=offered_per_s,
            achieved_per_s=len(good) / window_s,
            output_tokens_per_s=sum(s.output_tokens for s in good) / window_s,
            in_flight=total.in_flight,
            oldest_age_s=max(0.0, (now_ns - total.oldest_ns) / 1e9) if total.oldest_ns else 0.0,
            stalled_s=self._stalled_s(name, total, now_ns),
            ttft_p50_ms=percentile(ttft_ms, 0.5),
            ttft_p99_ms=percentile(ttft_ms, 0.99),
            e2e_p50_ms=percentile(e2e_ms, 0.5),
            e2e_p99_ms=e2e_p99_ms,
            ended=total.done,
            errors=dict(self._errors[name].most_common()),
            missed=total.missed_cap + total.missed_worker_lost,
            unknown=total.unknown,
        )

    def _stalled_s(self, name: str, total: "TargetCount", now_ns: int) -> float | None:
        if not total.in_flight or not total.oldest_ns:
            return None
        silent_s = (now_ns - max(total.oldest_ns, self._last_end_ns.get(name, 0))) / 1e9
        usual_s = self._usual_e2e_ms.get(name, 0) / 1000
        return silent_s if silent_s >= max(STALLED_FROM_S, STALLED_FROM_USUAL * usual_s) else None


def _stage_name(plan: "Plan", index: int) -> str:
    """`peak`, or `peak, round 3 of 10`."""
    stage = plan.stages[index]
    return stage.name if stage.rounds == 1 else f"{stage.name}, round {round_of(plan, index) + 1} of {stage.rounds}"


def _arrivals_end_ns(snapshot: "Snapshot", start_ns: int) -> int:
    """When the stage stopped, or is to stop, sending; now where that is not known."""
    stage = snapshot.plan.stages[snapshot.stage] if snapshot.stage is not None else None
    if stage is None:
        return snapshot.now_ns
    ended_ns = [c.end_ns for host in snapshot.hosts for c in host.stages if c.stage == snapshot.stage]
    if snapshot.phase != "running" and any(ended_ns):
        return max(ended_ns)
    return snapshot.now_ns if stage.duration_s is None else start_ns + round(stage.duration_s * 1e9)


def _messages(snapshot: "Snapshot") -> list[str]:
    silent = "worker {} does not answer any more: it or its machine is lost"
    lost = [snapshot.losses.get(worker, silent.format(worker)) for worker in snapshot.lost_hosts]
    refused = [f"{refusal.says}; the run ends here" for refusal in snapshot.refusals]
    return list(dict.fromkeys([*refused, *lost, *(problem for host in snapshot.hosts for problem in host.problems)]))


def percentile(values: Iterable[float], share: float) -> float | None:
    """The element at index floor(share n) of the sorted values."""
    ordered = sorted(values)
    return ordered[int(share * len(ordered))] if ordered else None


def _total(snapshot: "Snapshot", target: int) -> "TargetCount":
    """A target's counts in the newest stage over all workers."""
    from loadtest.frames import TargetCount

    counts = [c.targets[target] for host in snapshot.hosts for c in host.stages if c.stage == snapshot.stage]
    return TargetCount(
        scheduled=sum(c.scheduled for c in counts),
        sent=sum(c.sent for c in counts),
        missed_cap=sum(c.missed_cap for c in counts),
        missed_worker_lost=sum(c.missed_worker_lost for c in counts),
        unknown=sum(c.unknown for c in counts),
        done=sum(c.done for c in counts),
        failed=sum(c.failed for c in counts),
        in_flight=sum(c.in_flight for c in counts),
        oldest_ns=min((c.oldest_ns for c in counts if c.oldest_ns), default=0),
    )
