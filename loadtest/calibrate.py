"""`loadtest calibrate`: what one worker can do on this machine, measured, and how near to the truth its stamps are.

Two workers, as they work in a run, fire one after the other at null_endpoint.py in a process of its own:

1. requests that are not streamed, as fast as they go: CPU of a request
2. streams, more each time until a worker is full to `capacity.FULL`: CPU of a chunk, which is what they cost beside
   their requests; and how far TTFT and ITL are off the endpoint's own stamps at each of these loads

Rates follow from CPU and not from the wall clock, since the endpoint runs on the same machine and is the slower side
of it on a small one. The result is kept in the user's data directory, for this machine and version of loadtest; not where
something else used the machine meanwhile (disturbance.py), as plans are held against it for long.
"""

import json
import os
import platform
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from statistics import median

import httpx
import msgspec
from msgspec import Struct, field
from msgspec.structs import replace
from rich.console import Console

from loadtest import __version__, capacity
from loadtest import plan as plans
from loadtest.arrivals import Closed
from loadtest.capacity import FULL, Capacity
from loadtest.disturbance import Disturbance, between, moment
from loadtest.errors import NotKept, RunFailed
from loadtest.frames import Failed, Frame, Ready, Report, Setup, StartStage, Unpacker, decode_frame, pack
from loadtest.null_endpoint import FIRST_S, PACE_S, Truth
from loadtest.progress import percentile
from loadtest.prompts import Synthetic, Tokens
from loadtest.report.words import percent
from loadtest.store.address import default_directory
from loadtest.types import TOKEN_KINDS, Plan, Result, Stage, Target

FILE = "calibration.json"
TOKENS = 100  # of a stream
STREAM_S = FIRST_S + (TOKENS - 1) * PACE_S
EVENTS = TOKENS + 2  # what ended it, and the usage
AT_ONCE = 32  # requests that are not streamed
STEPS = (64, 90, 128, 181, 256, 362, 512, 724, 1024, 1448, 2048)  # streams
MOST_STEPS = 4
KEPT_UP = 0.9
PARTIES = 3
ROUNDS = 6
FULL_ENOUGH = 0.8 * FULL
RAMP_S, STAGE_S = 1.1, 2.3
START_LEAD_S = 0.2
START_WITHIN_S, PLAYED_WITHIN_S = 20, 30

Say = Callable[[str], None]


class Spread(Struct):
    """Of absolute errors."""

    p50: float
    p99: float

    @classmethod
    def of(cls, errors_ms: list[float]) -> "Spread":
        return cls(percentile(errors_ms, 0.5) or 0.0, percentile(errors_ms, 0.99) or 0.0)


class Load(Struct, kw_only=True):
    """What a worker did while it held so many streams."""

    streams: int
    chunks_per_s: float
    offered_per_s: float  # what the endpoint sends if it keeps its pace
    busy: float  # share of a core that the worker used
    ttft_error_ms: Spread
    itl_error_ms: Spread


class Calibration(Struct, kw_only=True):
    version: str
    machine: str
    cores: int
    measured_at: str
    request_us: float  # CPU of the worker for a request and its answer in one piece
    chunk_us: float  # and for each chunk of a stream
    loads: list[Load]  # ever more streams; the last one fills a worker, if this machine lets it
    disturbed: Disturbance = field(default_factory=Disturbance)  # of one that is kept: within its limits

    @property
    def capacity(self) -> Capacity:
        return Capacity(self.request_us, self.chunk_us, self.measured_at)


# what is kept


def machine() -> str:
    """What a calibration holds for: the host, its processor, how many of its cores we may use, the interpreter."""
    return f"{platform.node()}, {_processor()}, {cores()} cores, {platform.python_implementation()} {platform.python_version()}"


def cores() -> int:
    """That this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def kept(environ: Mapping[str, str] = os.environ) -> Calibration | None:
    """The calibration of this machine by this version, if there is one that can be read."""
    return _kept(default_directory(environ) / FILE).get(machine())


def keep(calibration: Calibration, environ: Mapping[str, str] = os.environ) -> Path:
    """Beside those of other machines that share the directory."""
    path = default_directory(environ) / FILE
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    content = msgspec.json.encode([*(_kept(path) | {calibration.machine: calibration}).values()])
    part = path.with_name(f"{FILE}.{os.getpid()}.part")
    part.write_bytes(msgspec.json.format(content, indent=1) + b"\n")
    part.replace(path)
    return path


def _kept(path: Path) -> dict[str, Calibration]:
    try:
        found = msgspec.json.decode(path.read_bytes(), type=list[Calibration])
    except (OSError, msgspec.DecodeError):
        return {}
    return {each.machine: each for each in found if each.version == __version__}


def known(environ: Mapping[str, str] = os.environ) -> Capacity:
    """What a worker can do here: as measured, else as guessed."""
    found = kept(environ)
    return found.capacity if found else capacity.GUESS


# how it is told


def text(calibration: Calibration) -> Iterator[str]:
    able = calibration.capacity
    when = calibration.measured_at[:16].replace("T", " ")
    yield f"One worker on {calibration.machine} (loadtest {calibration.version}, {when} UTC)"
    yield ""
    yield f"  requests, not streamed {able.requests_per_s:>9,.0f} /s {calibration.request_us:>8.3g} µs of CPU each"
    yield f"  chunks of streams      {able.chunks_per_s:>9,.0f} /s {calibration.chunk_us:>8.3g} µs of CPU each"
    yield f"  at {FULL:.0%} of a core, which is as full as a worker should be: above 90% a run is INVALID"
    yield ""
    yield "  How far its times were off the endpoint's own, in ms:"
    yield "                              TTFT              ITL"
    yield "  streams  chunks/s  core      p50      p99      p50      p99"
    for load in calibration.loads:
        errors = (load.ttft_error_ms.p50, load.ttft_error_ms.p99, load.itl_error_ms.p50, load.itl_error_ms.p99)
        figures = "".join(f"{error:9.3f}" for error in errors)
        yield f"  {load.streams:7,}{load.chunks_per_s:10,.0f}{load.busy:6.0%}{figures}"
    yield f"  {calibration.disturbed.words().capitalize()}."
    most = calibration.loads[-1]
    if most.chunks_per_s < KEPT_UP * most.offered_per_s:
        yield f"  The endpoint was to send {most.offered_per_s:,.0f} a second: this machine is too small for both of them."
    elif calibration.cores < PARTIES:
        shared = "one core" if calibration.cores == 1 else f"{calibration.cores} cores"
        yield f"  Endpoint, worker and this command shared {shared}: the pauses of each are in these errors."


def text_of_plan(plan: Plan, able: Capacity) -> Iterator[str]:
    """What a plan needs of it."""
    need, planned = capacity.busiest(plan, able), plan.fleet.workers
    yield f"{plan.name}, at its busiest in stage {need.stage}: {capacity.words(need)}"
    who = "one worker" if planned == 1 else f"the {planned:,} workers"
    share = need.cores / FULL / planned
    enough = (
        f"{who} planned will do"
        if need.workers <= planned
        else f"it takes {need.workers:,}: {capacity.remedy(need.workers, cores())}"
    )
    yield f"  {percent(share)} of what {who} can do; {enough}"


def as_json(calibration: Calibration, plan: Plan | None) -> dict[str, object]:
    able = calibration.capacity
    out = msgspec.to_builtins(calibration) | {
        "requests_per_s": able.requests_per_s,
        "chunks_per_s": able.chunks_per_s,
    }
    if plan is not None:
        need = capacity.busiest(plan, able)
        out["plan"] = {
            "name": plan.name,
            "stage": need.stage,
            "requests_per_s": need.requests_per_s,
            "chunks_per_s": need.chunks_per_s,
            "assumed": need.assumed,
            "workers_planned": plan.fleet.workers,
            "workers_needed": need.workers,
            "share": need.cores / FULL / plan.fleet.workers,
        }
    return dict(out)


def calibrate(path: Path | None, as_json_: bool) -> None:
    """`loadtest calibrate`: measure, keep, and say. Raises UserError."""
    plan = plans.load(path) if path else None
    console = Console(stderr=True)
    if console.is_terminal:
        with console.status("calibrating, which takes some fifteen seconds") as status:
            found = measure(lambda doing: status.update(f"calibrating, which takes some fifteen seconds: {doing}"))
    else:
        found = measure(lambda doing: print(f"calibrating: {doing}", file=sys.stderr, flush=True))
    tell(found, plan, as_json_)


def tell(found: Calibration, plan: Plan | None, as_json_: bool) -> None:
    """Print it, and keep it if the machine did nothing else. Raises NotKept."""
    where, problem = _keep_or_why_not(found)
    if as_json_:
        print(json.dumps(as_json(found, plan) | {"kept": not problem}, indent=1))
    else:
        for line in [*text(found), "", *(text_of_plan(plan, found.capacity) if plan else ())]:
            print(line)
    if problem:
        raise NotKept(problem)
    if not as_json_:
        print(f"Kept in {where}, which run and validate go by.")


def _keep_or_why_not(found: Calibration) -> tuple[Path | None, str]:
    if reasons := list(found.disturbed.reasons()):
        before = known()
        by = f"the one of {before.measured_at[:10]}" if before.measured_at else "a cautious guess"
        return None, (
            f"this calibration is not kept, since the machine was busy: {'; '.join(reasons)}, and calibrate again; run and "
            f"validate go on by {by}"
        )
    try:
        return keep(found), ""
    except OSError as e:
        return None, (
            f"this calibration cannot be kept: {e.filename}: {e.strerror}; name a directory of yours in XDG_DATA_HOME"
        )


# the measurement


class Measured(Struct):
    """What a worker did in one stage."""

    results: list[Result]
    cpu_s: float  # of the stage and its drain
    steady_s: float  # of the part after the ramp in which requests were due
    steady_cpu_s: float
    steady_chunks: int
    rounds_us: list[float]  # CPU for each result that ended, in ROUNDS parts of the steady time


def measure(say: Say = lambda _: None, steps: Sequence[int] = STEPS, stage_s: float = STAGE_S) -> Calibration:
    """Takes some fifteen seconds. `steps`: numbers of streams to choose from. Raises RunFailed where a worker does not
    run."""
    begin = moment()
    found, varied = _measure(say, steps, stage_s)
    return replace(found, disturbed=between(begin, moment(), varied))


def _measure(say: Say, steps: Sequence[int], stage_s: float) -> tuple[Calibration, float]:
    """The calibration, and how far the cost of a request varied."""
    with ExitStack() as ending:
        url = ending.enter_context(_endpoint())
        of_requests, of_streams = (ending.enter_context(_Worker()) for _ in range(2))
        say("requests that are not streamed")
        of_requests.begin(_setup(url, (AT_ONCE,), stage_s, stream=False))
        whole = _measured(of_requests, 0, stage_s)
        request_us = 1e6 * whole.cpu_s / len(whole.results)
        of_streams.begin(_setup(url, steps, stage_s, stream=True))
        chunk_us, loads = _fill(of_streams, url, request_us, say, steps, stage_s)
        found = Calibration(
            version=__version__,
            machine=machine(),
            cores=cores(),
            measured_at=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
            request_us=request_us,
            chunk_us=chunk_us,
            loads=loads,
        )
        return found, _varied(whole.rounds_us)


def _fill(
    worker: "_Worker", url: str, request_us: float, say: Say, steps: Sequence[int], stage_s: float
) -> tuple[float, list[Load]]:
    """More streams each time, until a worker is full: a chunk costs the less the more of them there are, so each step
    is as large as the cost at the one before allows."""
    loads: list[Load] = []
    step, chunk_us = 0, 0.0
    while True:
        say(f"{steps[step]:,} streams, {steps[step] * EVENTS / STREAM_S:,.0f} chunks a second")
        measured = _measured(worker, step, stage_s)
        chunks = sum(len(result.chunk_ns) for result in measured.results)
        chunk_us = max(1e6 * measured.cpu_s - request_us * len(measured.results), 0) / chunks
        loads.append(_load(url, steps[step], measured))
        fitting = [at for at, streams in enumerate(steps) if streams * loads[-1].busy / steps[step] <= FULL]
        if len(loads) == MOST_STEPS or loads[-1].busy >= FULL_ENOUGH or max(fitting, default=0) <= step:
            return chunk_us, loads
        step = max(fitting)


def _setup(url: str, concurrency: Sequence[int], stage_s: float, *, stream: bool) -> Setup:
    """A stage of closed load for each concurrency."""
    plan = Plan(
        name="calibrate",
        targets=[Target(name="null", url=f"{url}/v1", dialect="openai-chat", model="null", stream=stream)],
        prompts=Synthetic(input_tokens=Tokens(mean=50), output_tokens=Tokens(mean=TOKENS)),
        stages=[
            Stage(name=f"s{n}", arrivals=Closed(), concurrency=n, duration_s=stage_s, ramp_up_s=RAMP_S)
            for n in concurrency
        ],
    )
    return Setup("calibrate", plan, {}, 0, 1)


def _measured(worker: "_Worker", stage: int, stage_s: float) -> Measured:
    start_ns, results = worker.play(stage)
    if failed := [result for result in results if result.error]:
        raise RunFailed(
            f"{len(failed)} of {len(results)} requests to the null endpoint failed: {failed[0].error_detail}"
        )
    before = [report for report in worker.reports if report.at_ns <= start_ns][-1]
    steady = [r for r in worker.reports if RAMP_S <= (r.at_ns - start_ns) / 1e9 <= stage_s]
    first, last = steady[0], steady[-1]
    within = range(first.at_ns, last.at_ns)
    bounds = [steady[at * (len(steady) - 1) // ROUNDS] for at in range(ROUNDS + 1)]
    return Measured(
        results=results,
        cpu_s=worker.reports[-1].cpu_s - before.cpu_s,
        steady_s=(last.at_ns - first.at_ns) / 1e9,
        steady_cpu_s=last.cpu_s - first.cpu_s,
        steady_chunks=sum(t in within for result in results for t in result.chunk_ns),
        rounds_us=[
            1e6 * (end.cpu_s - begin.cpu_s) / max(sum(begin.at_ns <= r.done_ns < end.at_ns for r in results), 1)
            for begin, end in pairwise(bounds)
        ],
    )


def _varied(costs_us: Sequence[float]) -> float:
    """By the second largest and smallest: one hiccup of some tenths of a second is not what the others are. 1 where the
    worker had no CPU time to tell them by."""
    middle = sorted(costs_us)[1:-1]
    typical_us = median(costs_us)
    return (max(middle) - min(middle)) / typical_us if typical_us else 1.0


def _load(url: str, streams: int, measured: Measured) -> Load:
    answer = httpx.get(f"{url}/truth", timeout=30, trust_env=False)
    truth = {stream.trace_id: stream for stream in msgspec.json.decode(answer.content, type=Truth).streams}
    ttft_ms: list[float] = []
    itl_ms: list[float] = []
    for result in measured.results:
        true = truth[result.trace_id]
        heard_ns = [t for t, kind in zip(result.chunk_ns, result.chunk_kind, strict=True) if kind in TOKEN_KINDS]
        ttft_ns = heard_ns[0] - (result.sent_ns or 0)
        ttft_ms.append(abs(ttft_ns - (true.chunk_ns[0] - true.arrived_ns)) / 1e6)
        gaps = zip(pairwise(heard_ns), pairwise(true.chunk_ns), strict=True)
        itl_ms += [abs((b - a) - (d - c)) / 1e6 for (a, b), (c, d) in gaps]
    return Load(
        streams=streams,
        chunks_per_s=measured.steady_chunks / measured.steady_s,
        offered_per_s=streams * EVENTS / STREAM_S,
        busy=measured.steady_cpu_s / measured.steady_s,
        ttft_error_ms=Spread.of(ttft_ms),
        itl_error_ms=Spread.of(itl_ms),
    )


class _Worker:
    """A worker process without a host: what it finds is kept here, and stored nowhere."""

    def __init__(self) -> None:
        self.results: list[Result] = []
        self.reports: list[Report] = []
        self._unpacker = Unpacker()

    def __enter__(self) -> "_Worker":
        self._frames, frames_out = os.pipe()
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-m", "loadtest.worker", str(frames_out)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(frames_out,),
            start_new_session=True,  # Ctrl-C is for us alone
        )
        os.close(frames_out)
        return self

    def __exit__(self, *_: object) -> None:
        self._child.kill()
        self._child.communicate()
        os.close(self._frames)

    def begin(self, setup: Setup) -> None:
        self._send(setup)
        self._read_until(lambda frame: isinstance(frame, Ready), START_WITHIN_S)

    def play(self, stage: int) -> tuple[int, list[Result]]:
        """Run a stage and its drain. Returns when it began, and its results."""

        def drained(frame: Frame) -> bool:
            return isinstance(frame, Report) and any(c.stage == stage and c.drained_ns for c in frame.stages)

        start_ns = time.time_ns() + round(START_LEAD_S * 1e9)
        self.results = []
        self._send(StartStage(stage, start_ns))
        self._read_until(drained, PLAYED_WITHIN_S)
        return start_ns, self.results

    def _send(self, command: Setup | StartStage) -> None:
        assert self._child.stdin is not None
        self._child.stdin.write(pack(command))
        self._child.stdin.flush()

    def _read_until(self, last: Callable[[Frame], bool], within_s: float) -> None:
        deadline = time.monotonic() + within_s
        while (left_s := deadline - time.monotonic()) > 0:
            readable = select.select([self._frames], [], [], left_s)[0]
            data = os.read(self._frames, 1 << 20) if readable else b""
            if readable and not data:
                raise RunFailed("the worker that was to be measured ended in the middle of it")
            frames = [decode_frame(payload) for payload in self._unpacker.feed(data)]
            self.results += [frame for frame in frames if isinstance(frame, Result)]
            self.reports += [frame for frame in frames if isinstance(frame, Report)]
            if failed := [frame for frame in frames if isinstance(frame, Failed)]:
                raise RunFailed(f"the worker that was to be measured failed: {failed[0].reason}")
            if any(map(last, frames)):
                return
        raise RunFailed(f"the worker that was to be measured did not get ready or done within {within_s:g} s")


@contextmanager
def _endpoint() -> Iterator[str]:
    command = [sys.executable, "-P", "-m", "loadtest.null_endpoint"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield process.stdout.readline().decode().strip()
        finally:
            process.stdin.close()
            process.wait(START_WITHIN_S)
