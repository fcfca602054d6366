"""How many workers one driver holds: the control plane with stand-ins for senders. `make bench-scale` writes docs/cluster.md.

The driver, the fleet, Ray, the store's recorder and the live view are the real ones; a stand-in sends nothing, but answers
each call as a host does, with counts, samples and the instant at which it began. A hundred stand-ins share an actor's
process, so that a thousand fit one machine; each has calls of its own, so the driver pays for each as it would for a host.
"""

import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import ray
from msgspec import Struct
from msgspec.structs import replace

from cluster.fleet import RayFleet
from loadtest import live
from loadtest import plan as plans
from loadtest.control import Control
from loadtest.detach import new_run_id
from loadtest.frames import Setup, StageCount, TargetCount
from loadtest.host import Sample, Status
from loadtest.recorder import Recorder
from loadtest.run import Driver, Interrupts, Snapshot
from loadtest.store import open_store

PAGE = Path(__file__).parent.parent / "docs/cluster.md"
BEGIN, END = "<!-- made by bench/scale.py -->", "<!-- end -->"
SIZES = (10, 100, 1000)
AN_ACTOR = 125
RESULTS_PER_S = 5
SECONDS = 15
PLAN = f"""
name: scale
targets: [{{name: a, url: "http://127.0.0.1:9/v1", dialect: openai-chat, model: m}}]
prompts: {{kind: synthetic, input_tokens: 20, output_tokens: 5}}
stages: [{{name: s, arrivals: {{kind: constant, rate: 100}}, duration_s: {SECONDS}}}]
fleet: {{workers: 1, cpus: 0.01}}
"""


class StandIn:
    """What a host says, without a worker: so many results a second."""

    def __init__(self, worker: int) -> None:
        self.status = Status(worker=worker, state="ready", host=f"{os.getpid()}")
        self.count: StageCount | None = None
        self.told = 0

    def begin(self, start_ns: int) -> None:
        self.count = StageCount(0, start_ns, [TargetCount()], first_start_ns=time.time_ns())

    def poll(self) -> Status:
        now_ns = time.time_ns()
        if self.count is None:
            return self.status
        lasted_s = min((now_ns - self.count.first_start_ns) / 1e9, SECONDS)
        done = int(lasted_s * RESULTS_PER_S)
        over_ns = self.count.start_ns + SECONDS * 1_000_000_000
        ended_ns = over_ns if now_ns >= over_ns else 0
        sample = Sample("a", "s", now_ns, 100.0, 200.0, 1.0, 20, None)
        self.count = replace(
            self.count,
            targets=[TargetCount(scheduled=done, sent=done, done=done, next_seq=done)],
            end_ns=ended_ns,
            drained_ns=ended_ns,
        )
        samples = [sample] * (done - self.told)
        self.told = done
        return replace(self.status, stages=[self.count], samples=samples, now_ns=now_ns, read=done, stored=done)


class Many:
    """The stand-ins that share one actor's process."""

    def __init__(self) -> None:
        self.hosts: dict[int, StandIn] = {}

    def where(self, _worker: int) -> tuple[str, str]:
        return ray.get_runtime_context().get_node_id(), ray.util.get_node_ip_address()

    def open(self, worker: int, *_: Any) -> None:
        self.hosts[worker] = StandIn(worker)

    def now_ns(self, _worker: int) -> int:
        return time.time_ns()

    def clean(self, _worker: int) -> None:
        pass

    def call(self, worker: int, method: str, *arguments: Any) -> Any:
        host = self.hosts[worker]
        if method == "poll":
            return host.poll()
        if method == "start_stage":
            wait_s = (arguments[1] - time.time_ns()) / 1e9
            threading.Timer(max(0.0, wait_s), host.begin, [arguments[1]]).start()
        if method == "close":
            host.status = replace(host.status, finished=True)
        return None


class Method:
    def __init__(self, of_actor: Any, worker: int) -> None:
        self._of_actor = of_actor
        self._worker = worker

    def remote(self, *arguments: Any) -> Any:
        return self._of_actor.remote(self._worker, *arguments)


class Handle:
    """One stand-in's, as an actor's own handle would be."""

    def __init__(self, actor: Any, worker: int) -> None:
        for name in ("where", "open", "now_ns", "clean", "call"):
            setattr(self, name, Method(getattr(actor, name), worker))


class ManyFleet(RayFleet):
    def _start(self, _actor: Any) -> list[Any]:
        count = -(-self.workers // AN_ACTOR)
        self._shared = [ray.remote(Many).options(num_cpus=0).remote() for _ in range(count)]
        return [Handle(self._shared[worker // AN_ACTOR], worker) for worker in range(self.workers)]

    def call(self, method: str, *args: Any) -> list[Any]:
        began = time.monotonic()
        answers = super().call(method, *args)
        if method == "poll":
            self.polls.append((began, time.monotonic() - began))
        return answers

    polls: list[tuple[float, float]]

    def close(self) -> None:
        self._actors = {}
        for actor in self._shared:
            ray.kill(actor)
        super().close()


class Figures(Struct):
    workers: int
    start_p99_ms: float
    start_spread_ms: float
    heartbeat_p50_s: float
    heartbeat_p99_s: float
    poll_p50_ms: float
    results_per_s: float
    results_lost: int
    cpu_share: float  # of one core
    rss_mb: float

    @property
    def row(self) -> str:
        cells = [
            f"{self.workers:,}", f"{self.start_p99_ms:.1f} ms", f"{self.start_spread_ms:.1f} ms",
            f"{self.heartbeat_p50_s:.2f} s", f"{self.heartbeat_p99_s:.2f} s", f"{self.poll_p50_ms:.0f} ms",
            f"{self.results_per_s:,.0f}", f"{self.results_lost}", f"{self.cpu_share:.0%}",
            f"{1000 * self.cpu_share / self.workers:.2f} ms", f"{self.rss_mb:.0f} MB",
        ]  # fmt: skip
        return "| " + " | ".join(cells) + " |"


HEAD = (
    "| workers | start, p99 | start, spread | heartbeat, p50 | p99 | a poll of all | results/s | lost | driver's CPU | "
    "a worker and second | driver's RSS |"
)


def measure(workers: int, directory: Path) -> Figures:
    plan = plans.with_workers(plans.parse(PLAN, directory), workers)
    run = new_run_id()
    interrupts, taken, cpu = Interrupts(), [0], [0.0, 0.0]

    def show(snapshot: Snapshot) -> None:
        taken[0] += sum(len(host.samples) for host in snapshot.hosts)
        recorder.note(snapshot)
        view.show(snapshot)
        if snapshot.phase == "running":
            cpu[1] = cpu_s()
            cpu[0] = cpu[0] or cpu[1]

    with open_store(str(directory / "store")) as store:
        store.migrate()
        setups = [Setup(run, plan, {}, shard, workers) for shard in range(workers)]
        with Control(run, directory, interrupts) as control, Recorder(store.address, plan, run, "") as recorder:
            view = control.beside(live.view())
            fleet = ManyFleet(setups, store.address, directory, lambda words: print(words, file=sys.stderr))
            fleet.polls = []
            try:
                snapshot = Driver(plan, run, fleet, show, interrupts).go()
            finally:
                fleet.close()
    starts = sorted((host.stages[0].first_start_ns - host.stages[0].start_ns) / 1e6 for host in snapshot.hosts)
    begins = [began for began, _ in fleet.polls]
    gaps = sorted(later - earlier for earlier, later in pairwise(begins))
    lasted = sorted(seconds for _, seconds in fleet.polls)
    done = sum(host.stages[0].targets[0].done for host in snapshot.hosts)
    return Figures(
        workers=workers,
        start_p99_ms=at(starts, 0.99),
        start_spread_ms=starts[-1] - starts[0],
        heartbeat_p50_s=at(gaps, 0.5),
        heartbeat_p99_s=at(gaps, 0.99),
        poll_p50_ms=1000 * at(lasted, 0.5),
        results_per_s=taken[0] / SECONDS,
        results_lost=done - taken[0],
        cpu_share=(cpu[1] - cpu[0]) / SECONDS,
        rss_mb=rss_mb(),
    )


def at(values: list[float], share: float) -> float:
    return values[min(len(values) - 1, int(share * len(values)))]


def cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def rss_mb() -> float:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize() / 1e6


def main() -> None:
    """Each size in a process of its own, so that no figure holds what another left."""
    if len(sys.argv) > 1:
        # the store ends a few seconds after its last user
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
            print(measure(int(sys.argv[1]), Path(directory)).row, flush=True)
        return
    rows = []
    for size in SIZES:
        done = subprocess.run(
            [sys.executable, "-m", "bench.scale", str(size)], check=True, stdout=subprocess.PIPE, text=True
        )
        rows += [line for line in done.stdout.splitlines() if line.startswith("| ")]
        print(rows[-1], flush=True)
    columns = HEAD.count("|") - 1
    table = "\n".join([HEAD, "|" + "---|" * columns, *rows])
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{table}\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
