"""The driver of a run whose load Locust makes: it starts Locust's master, watches it and the hosts, and ends in order.

The master says who does what and when; the hosts' workers say what came of it. To what watches and adds up, a test is a
stage and a request's name a target (names.py).
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from msgspec.structs import replace

from loadtest.errors import RunFailed
from loadtest.frames import Unpacker
from loadtest.locustfiles import options
from loadtest.locustfiles.frames import (
    MasterCommand,
    MasterFailed,
    MasterReady,
    MasterReport,
    MasterSetup,
    MasterStop,
    decode_frame,
    pack,
)
from loadtest.locustfiles.names import named
from loadtest.run import (
    CLOSE_WITHIN_S,
    INTERRUPT_DRAIN_S,
    READY_WITHIN_S,
    Driver,
    Fleet,
    Interrupts,
    Snapshot,
    StageTimes,
    View,
)
from loadtest.types import Plan

END_WITHIN_S = 10
LOG_LINES_QUOTED = 3


class Master:
    """The master's process, seen from outside: plain Python, as a host is."""

    def __init__(self, setup: MasterSetup, directory: Path) -> None:
        self.ready: MasterReady | None = None
        self.report: MasterReport | None = None
        self.over = threading.Event()  # it has ended
        self.log_path = directory / "locust-master.log"
        self._failed = ""
        self._lock = threading.Lock()
        self._stopped = False
        frames_in, frames_out = os.pipe()
        with self.log_path.open("wb") as log:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "loadtest.locustfiles.master", str(frames_out)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=(frames_out,),
                start_new_session=True,  # Ctrl-C is for the driver alone
            )
        os.close(frames_out)
        self._send(setup)
        threading.Thread(target=self._read, args=(frames_in,), name="locust-master", daemon=True).start()

    def wait_ready(self, within_s: float) -> MasterReady:
        """It has read the locustfile and takes workers. Raises RunFailed with what Locust has to say otherwise."""
        deadline = time.monotonic() + within_s
        while self.ready is None and not self.over.wait(0.02) and time.monotonic() < deadline:
            pass
        if self.ready is None or self.over.is_set():
            said = self._failed or f"nothing within {within_s:g} s"
            raise RunFailed(f"Locust's master: {said}\n{self._last_lines()}".rstrip())
        return self.ready

    @property
    def lost(self) -> bool:
        """It has ended, and not in order."""
        return self.over.is_set() and self._child.returncode != 0

    def stop(self, drain_s: float) -> None:
        self._send(MasterStop(drain_s))

    def close(self) -> None:
        with self._lock:
            if self._child.stdin and not self._child.stdin.closed:
                try:
                    self._child.stdin.close()
                except BrokenPipeError:
                    pass
        if not self.over.wait(END_WITHIN_S):
            self._child.kill()
            self._child.wait()

    def _send(self, command: MasterCommand) -> None:
        with self._lock:
            if self._child.stdin and not self._child.stdin.closed:
                try:
                    self._child.stdin.write(pack(command))
                    self._child.stdin.flush()
                except BrokenPipeError:
                    pass  # it has ended: `over` says so

    def _read(self, frames_in: int) -> None:
        unpacker = Unpacker()
        with os.fdopen(frames_in, "rb", buffering=0) as pipe:
            while data := pipe.read(1 << 16):
                for payload in unpacker.feed(data):
                    frame = decode_frame(payload)
                    if isinstance(frame, MasterReady):
                        self.ready = frame
                    elif isinstance(frame, MasterReport):
                        self.report = frame
                    elif isinstance(frame, MasterFailed):
                        self._failed = frame.reason
        self._child.wait()
        self.over.set()

    def _last_lines(self) -> str:
        lines = [
            line for line in self.log_path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()
        ]
        return "\n".join(f"  {line.strip()}" for line in lines[-LOG_LINES_QUOTED:])


class LocustDriver(Driver):
    def __init__(
        self, plan: Plan, run: str, fleet: Fleet, view: View, interrupts: Interrupts, master: Master, page: str
    ) -> None:
        super().__init__(plan, run, fleet, view, interrupts)
        self.snapshot.of_locustfile = True
        self._master = master
        self._page = page

    def go(self, say_page: Callable[[str], None] = lambda _: None) -> Snapshot:
        self.fleet.call("prepare")
        self._wait(self._begun, READY_WITHIN_S, "workers to be ready")
        self._refuse_if_failed()
        if self._master.over.is_set() and not self._stopped:
            raise RunFailed(f"Locust's master ended before the load began; see {self._master.log_path}")
        self.snapshot.started_ns = time.time_ns()
        if self._page:
            self.snapshot.phase = "waiting"
            say_page(self._page)
        self._wait(lambda: self._master.over.is_set() or self._all_failed(), None)
        if not self._all_drained():
            self.fleet.call("stop", 0.0)  # the master went without them
            self._wait(self._all_drained, END_WITHIN_S)
        self.snapshot.phase = "storing"
        self.fleet.call("close")
        self._wait(lambda: all(s.finished for s in self._statuses), CLOSE_WITHIN_S)
        self.snapshot.places = self.fleet.places()
        self.snapshot.phase = "done"
        self.snapshot.hosts = [replace(status, samples=[]) for status in self.snapshot.hosts]  # they were shown
        if self._master.lost:
            self._book_lost_master()
        self.view(self.snapshot)
        return named(self.snapshot)

    def _begun(self) -> bool:
        """All workers have joined, or nobody waits for them any more."""
        return self._master.over.is_set() or all(s.state != "starting" for s in self._statuses)

    def _book_lost_master(self) -> None:
        """The load ended before its time, and not by the endpoint's doing: as with a worker that is lost."""
        number = self.fleet.workers
        self.snapshot.lost_hosts = [*self.snapshot.lost_hosts, number]
        self.snapshot.losses[number] = f"Locust's master ended in mid-run; see {self._master.log_path}"

    def _poll(self) -> None:
        if (told := self._master.report) is not None:
            page = [f"page {self._page}"] if self._page else []
            self.snapshot.notes = [f"users: {told.users:,} of {told.target_users:,}", *page]
        super()._poll()
        self._note_tests()

    def _note_tests(self) -> None:
        """A stage for each test that a worker has begun."""
        for index in sorted({count.stage for status in self._statuses for count in status.stages}):
            counts = self._counts(index)
            if index == len(self.times):
                self.times.append(StageTimes(index, 0))
                self.snapshot.stage = index
                self.snapshot.plan = _with_stage(self.snapshot.plan, index)
            times = self.times[index]
            times.start_ns = min(count.start_ns for count in counts)
            done = all(count.drained_ns for count in counts)
            times.end_ns = max(count.end_ns for count in counts) if done else 0
            times.drained_ns = max(count.drained_ns for count in counts) if done else 0
        if self.times and self.snapshot.phase in ("starting", "running", "draining", "waiting"):
            ended = all(count.end_ns for count in self._counts(len(self.times) - 1))
            drained = bool(self.times[-1].drained_ns)
            self.snapshot.phase = "waiting" if drained and self._page else "draining" if ended else "running"

    def _all_drained(self) -> bool:
        return all(times.drained_ns for times in self.times)

    def _pass_interrupts_on(self) -> None:
        if self.interrupts.count > self._stopped:
            self._stopped = self.interrupts.count
            self.snapshot.interrupted = not self._page or self.snapshot.phase == "running"
            self._stop(INTERRUPT_DRAIN_S if self._stopped == 1 else 0.0)
            if self._stopped > 1:
                self.fleet.call("stop", 0.0)

    def _stop(self, drain_s: float) -> None:
        self._master.stop(drain_s)


def _with_stage(plan: Plan, index: int) -> Plan:
    return replace(plan, stages=[*plan.stages[:index], replace(plan.stages[0], name=options.stage_name(index))])
