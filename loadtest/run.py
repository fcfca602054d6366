"""The driver: one run from a plan to an account, over any fleet of hosts.

It decides when stages start, watches, and adds up. It sends nothing itself and knows neither Ray nor Locust: a fleet is
whatever can call a method on all its hosts (local.py here, cluster.fleet on Ray).
"""

import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, MappingProxyType
from typing import Any, Protocol

import msgspec
from msgspec import Struct, field

from loadtest import losses
from loadtest.detach import new_run_id as new_run_id
from loadtest.errors import Interrupted, RunFailed
from loadtest.frames import Setup, StageCount
from loadtest.host import Status
from loadtest.locustfiles.host import host_of
from loadtest.progress import DevicesNow
from loadtest.refusals import Refusals
from loadtest.schedule import Schedule
from loadtest.store import Address
from loadtest.types import Plan, Stage
from loadtest.validity import Refusal

POLL_EVERY_S = 0.2
START_LEAD_S = 0.3
READY_WITHIN_S = 60
INTERRUPT_DRAIN_S = 5
LOSS_DRAIN_S = 2
CLOSE_WITHIN_S = 30


class Place(Struct, frozen=True):
    """Where a worker runs, and what is known of the clock there: `offset_ns` ahead of the driver's, give or take."""

    node: str = ""  # empty: on the driver's own machine
    vantage: str = ""  # the name of its region in the plan's fleet
    offset_ns: int = 0
    error_ns: int = 0


class Fleet(Protocol):
    """Hosts somewhere. `call` answers in the order of the shards, None for a host that is gone; gone is for good."""

    workers: int
    start_lead_s: float
    poll_every_s: float

    @property
    def lost(self) -> Mapping[int, str]:
        """Worker -> what became of it."""

    def call(self, method: str, *args: Any) -> list[Any]: ...

    def places(self) -> list[Place]: ...

    def fetch_frames(self) -> None: ...

    def close(self) -> None: ...


Say = Callable[[str], None]
"""Takes a sentence about what is waited for."""
Check = Callable[[], None]
"""Raises where nobody wants to wait any more."""


class LocalFleet:
    """Hosts as threads of this process, their workers as its children."""

    start_lead_s = START_LEAD_S
    poll_every_s = POLL_EVERY_S
    lost: Mapping[int, str] = MappingProxyType({})

    def __init__(
        self,
        setups: Sequence[Setup],
        address: Address,
        directory: Path,
        _say: Say | None = None,
        _check: Check | None = None,
    ) -> None:
        if setups[0].plan.fleet.regions:
            raise RunFailed("fleet.regions names places of a Ray cluster; run it with --on ray and RAY_ADDRESS")
        self._hosts = [host_of(setup, address, str(directory)) for setup in setups]
        self.workers = len(setups)

    def call(self, method: str, *args: Any) -> list[Any]:
        return [getattr(host, method)(*args) for host in self._hosts]

    def places(self) -> list[Place]:
        return [Place()] * self.workers

    def fetch_frames(self) -> None:
        """They were written where they belong."""

    def close(self) -> None:
        self.call("kill")


class StageTimes(Struct):
    """When a stage was, over all workers; 0 while not known."""

    stage: int
    start_ns: int
    end_ns: int = 0
    drained_ns: int = 0
    target_end_ns: dict[str, int] = field(default_factory=dict)  # of those whose last request was sent before `end_ns`


class Snapshot(Struct):
    """The state of a run at one moment: what a view shows and what the account is added up from."""

    plan: Plan
    run: str
    started_ns: int
    now_ns: int
    stage: int | None  # the newest one started
    times: list[StageTimes]
    hosts: list[Status]
    lost_hosts: list[int] = field(default_factory=list)
    losses: dict[int, str] = field(default_factory=dict)  # what became of each of them
    places: list[Place] = field(default_factory=list)  # of each worker
    interrupted: bool = False
    refusals: list[Refusal] = field(default_factory=list)  # for which the run is ended
    phase: str = "starting"  # starting, waiting (for a test to be started by hand), running, draining, storing, done
    of_locustfile: bool = False  # its counts bring the names of their targets: locustfiles/names.py
    notes: list[str] = field(default_factory=list)  # what else a view may show of the load
    devices: list[DevicesNow] = field(default_factory=list)  # of the plan's `gpu:`, now


View = Callable[[Snapshot], None]


class Interrupts:
    """Counts Ctrl-C (and SIGTERM, and a closed terminal): the first ends the run in order, the second at once."""

    def __init__(self) -> None:
        self.count = 0
        self._event = threading.Event()

    @contextmanager
    def caught(self) -> Iterator["Interrupts"]:
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {s: signal.signal(s, self._on_signal) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        try:
            yield self
        finally:
            for signal_number, handler in before.items():
                signal.signal(signal_number, handler)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self.interrupt()

    def interrupt(self) -> None:
        """What Ctrl-C does, for others that may."""
        self.count += 1
        self._event.set()

    def check(self) -> None:
        """For those that wait before there is load: one is enough then."""
        if self.count:
            raise Interrupted("interrupted; nothing was sent")

    def wait(self, seconds: float) -> None:
        """Sleep, but not through an interrupt that is not dealt with yet."""
        self._event.wait(seconds)
        self._event.clear()


class Driver:
    """One run. `go` returns the last snapshot, which holds every count."""

    def __init__(
        self,
        plan: Plan,
        run: str,
        fleet: Fleet,
        view: View,
        interrupts: Interrupts,
        ends_early: Callable[[int, Snapshot], bool] = lambda *_: False,
    ) -> None:
        """`ends_early`: whether a stage, by its index, is to end before its planned end; see stopping.py."""
        self.plan = plan
        self.ends_early = ends_early
        self.fleet = fleet
        self.view = view
        self.interrupts = interrupts
        self.times: list[StageTimes] = []
        self.snapshot = Snapshot(
            plan=plan, run=run, started_ns=time.time_ns(), now_ns=time.time_ns(), stage=None, times=self.times, hosts=[]
        )
        self._refusals = Refusals(plan)
        self._stopped = 0  # interrupts passed on to the fleet
        self._statuses: list[Status] = []
        self._lost_ns: dict[int, int] = {}  # when each lost host was noticed

    def go(self) -> Snapshot:
        self.fleet.call("prepare")
        self._wait(lambda: all(s.state != "starting" for s in self._statuses), READY_WITHIN_S, "workers to be ready")
        self._refuse_if_failed()
        self.snapshot.started_ns = time.time_ns()
        for index, stage in enumerate(self.plan.stages):
            if self._ending() or self._all_failed():
                break
            self._run_stage(index, stage)
        self._wait(self._all_drained, None)
        self.snapshot.phase = "storing"
        self.fleet.call("close")
        self._wait(lambda: all(s.finished for s in self._statuses), CLOSE_WITHIN_S)
        self._write_off_lost()
        self.snapshot.places = self.fleet.places()
        self.snapshot.phase = "done"
        self.snapshot.hosts = [msgspec.structs.replace(s, samples=[]) for s in self.snapshot.hosts]  # they were shown
        self.view(self.snapshot)
        return self.snapshot

    def _run_stage(self, index: int, stage: Stage) -> None:
        start_ns = time.time_ns() + int(self.fleet.start_lead_s * 1e9)
        if self.times and self.plan.stages[index - 1].overlap:
            start_ns = max(start_ns, self.times[-1].end_ns)
        self.snapshot.stage = index
        self.snapshot.phase = "running"
        times = StageTimes(index, start_ns)
        self.times.append(times)
        self.fleet.call("start_stage", index, start_ns)
        if stage.overlap and stage.duration_s is not None:
            end_ns = start_ns + int(stage.duration_s * 1e9)
            times.end_ns = end_ns
            ahead_ns = int((self.fleet.start_lead_s + 2 * self.fleet.poll_every_s) * 1e9)
            self._wait(lambda: time.time_ns() >= end_ns - ahead_ns or self._ending(), None)
        else:
            self._wait(lambda: self._all_drained() or self._end_early(index, stage), None)
            self._wait(self._all_drained, None)

    def _end_early(self, index: int, stage: Stage) -> bool:
        """End a stage that goes on, where it is to end."""
        if self.snapshot.phase != "running" or self._ending() or not self.ends_early(index, self.snapshot):
            return False
        self.fleet.call("stop", stage.drain_s, index)
        return True

    def _wait(self, until: Callable[[], bool], within_s: float | None, what: str | None = None) -> None:
        """Poll and show until it is so. With `what`, too late is an error; without, it is what the account will say."""
        deadline = time.monotonic() + within_s if within_s is not None else None
        while True:
            self._poll()
            if until():
                return
            if deadline and time.monotonic() > deadline:
                if what:
                    raise RunFailed(f"waited {within_s:g} s in vain for {what}; {self._hint()}")
                return
            self.interrupts.wait(self.fleet.poll_every_s)
            self._pass_interrupts_on()

    def _poll(self) -> None:
        answers = self.fleet.call("poll")
        self._statuses = [s for s in answers if s is not None]
        known = {s.worker: s for s in self.snapshot.hosts}
        self.snapshot.hosts = [known.get(k) if s is None else s for k, s in enumerate(answers)]  # type: ignore[misc]
        self.snapshot.hosts = [s for s in self.snapshot.hosts if s is not None]
        self.snapshot.lost_hosts = [k for k, s in enumerate(answers) if s is None]
        self.snapshot.losses = dict(self.fleet.lost)
        self.snapshot.now_ns = time.time_ns()
        for times in self.times:
            counts = self._counts(times.stage)
            if counts and len(counts) == len(self._statuses) and all(c.drained_ns for c in counts):
                times.end_ns = max(c.end_ns for c in counts)
                times.drained_ns = max(c.drained_ns for c in counts)
                times.target_end_ns = self._target_ends(counts)
        if self.snapshot.phase in ("running", "draining") and self.times:
            ended = all(c.end_ns for c in self._counts(self.times[-1].stage) or [StageCount(0, 0, [])])
            self.snapshot.phase = "draining" if ended else "running"
        self.view(self.snapshot)
        self._end_for_losses()
        self._end_for_refusals()

    def _counts(self, stage: int) -> list[StageCount]:
        return [count for status in self._statuses for count in status.stages if count.stage == stage]

    def _target_ends(self, counts: Sequence[StageCount]) -> dict[str, int]:
        """Of a closed stage of so many requests: a target that answers sooner has sent its last one sooner."""
        ends = {
            target.name: [count.targets[k].end_ns for count in counts if k < len(count.targets)]
            for k, target in enumerate(self.plan.targets)
        }
        return {name: max(each) for name, each in ends.items() if each and all(each)}

    def _all_drained(self) -> bool:
        return all(times.drained_ns for times in self.times) or not self._statuses

    def _all_failed(self) -> bool:
        return all(s.state == "failed" for s in self._statuses)

    def _ending(self) -> bool:
        return bool(self.interrupts.count or self._lost_ns or self.snapshot.refusals)

    def _end_for_losses(self) -> None:
        """What is left without a host that is gone for good is not the plan's load: nobody shall pay for it."""
        new = set(self.snapshot.lost_hosts) - self._lost_ns.keys()
        if new and self.snapshot.phase == "starting":
            raise RunFailed(f"{self.snapshot.losses[min(new)]} before the run began; nothing was sent")
        if new and not self._lost_ns and not self._stopped:
            self._stop(LOSS_DRAIN_S)
        self._lost_ns |= dict.fromkeys(new, time.time_ns())

    def _end_for_refusals(self) -> None:
        """More of what a target refuses altogether would tell nothing. A locustfile's author decides alone what it is
        to do then."""
        samples = (sample for status in self._statuses for sample in status.samples)
        found = self._refusals.found(samples, self._oldest_s)
        if found and not self.snapshot.of_locustfile and not self._ending():
            self.snapshot.refusals = found
            self._stop(INTERRUPT_DRAIN_S)

    def _oldest_s(self, name: str) -> float:
        """For how long the oldest request in flight to a target is so, by the clock of its worker."""
        target = [each.name for each in self.plan.targets].index(name)
        ages_ns = (
            status.now_ns - count.targets[target].oldest_ns
            for status in self._statuses
            for count in status.stages
            if len(count.targets) > target and count.targets[target].oldest_ns
        )
        return max(ages_ns, default=0) / 1e9

    def _write_off_lost(self) -> None:
        """What the lost hosts had to send while the others still did."""
        known = {status.worker: status for status in self.snapshot.hosts}
        for worker, lost_ns in self._lost_ns.items():
            schedule = Schedule(self.plan, worker, self.fleet.workers)
            status = known.setdefault(worker, Status(worker=worker, state="failed"))
            counts = {count.stage: count for count in status.stages}
            for times in self.times:
                count = counts.setdefault(
                    times.stage, losses.nothing(times.stage, times.start_ns, len(self.plan.targets))
                )
                if not count.drained_ns:
                    next_seq = [target.next_seq for target in count.targets]
                    losses.write_off(schedule, count, next_seq, lost_ns, times.end_ns or lost_ns)
            status.stages = list(counts.values())
        self.snapshot.hosts = [known[worker] for worker in sorted(known)]

    def _refuse_if_failed(self) -> None:
        if failed := [s for s in self._statuses if s.state == "failed"]:
            raise RunFailed("; ".join(failed[0].problems))

    def _hint(self) -> str:
        problems = [p for s in self._statuses for p in s.problems]
        return problems[0] if problems else "their logs are beside the frame files"

    def _pass_interrupts_on(self) -> None:
        if self.interrupts.count > self._stopped:
            self._stopped = self.interrupts.count
            self.snapshot.interrupted = True
            self._stop(INTERRUPT_DRAIN_S if self._stopped == 1 else 0.0)

    def _stop(self, drain_s: float) -> None:
        self.fleet.call("stop", drain_s)


def with_nonce(plan: Plan) -> Plan:
    """The plan as run: a fresh nonce unless it fixes one."""
    return plan if plan.nonce else msgspec.structs.replace(plan, nonce=secrets.token_hex(4))
