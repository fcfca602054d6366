"""Supervises one worker process: reads its frames, keeps them, stores them; plain Python, no gevent.

Two threads. The reader empties the worker's pipe into the run's frame file and never waits for anything else. The storer
follows that file at its own pace: frames -> Results -> columns -> store. So the file is the buffer between a fast worker and
a slow store, nothing is held in memory, and what the store could not take is still on disk.

Every public method returns at once; whoever drives (a local fleet, a Ray actor) learns the rest from `poll`.
"""

import fcntl
import os
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any, Literal

import msgspec
from msgspec import Struct, field

from loadtest import losses, pressure, refusals, rounds, spans
from loadtest.frames import (
    UNREAD_S,
    UNREAD_STATUS,
    Failed,
    Ready,
    Report,
    Resume,
    Setup,
    StageCount,
    StartStage,
    Stop,
    TargetCount,
    Unpacker,
    decode_frame,
    pack,
    peek,
)
from loadtest.pressure import Gauge, Pressure
from loadtest.prompts import TURN_SEQS
from loadtest.schedule import Schedule
from loadtest.skew import Pair, Skew
from loadtest.store import Address, Store, StoreError
from loadtest.types import TOKEN_KINDS, Result

STORE_EVERY_S = 1.0  # an insert of one row costs the store what one of three hundred does
READ_BYTES = 1 << 20
LOOK_EVERY_NS = 500_000_000
RESTARTS = 3
CLOSE_WITHIN_S = 10


class Sample(Struct, array_like=True):
    """One finished request, as the live view needs it: a handful of numbers and not its timeline."""

    target: str
    stage: str
    done_ns: int
    ttft_ms: float | None
    e2e_ms: float
    lag_ms: float | None
    output_tokens: int
    error: str | None
    status: int | None = None  # these two of a refused one alone, see refusals.py
    detail: str = ""


class Status(Struct):
    """What a host knows at the moment of asking. Counts are cumulative, samples are new since the last asking."""

    worker: int
    state: Literal["starting", "ready", "restarting", "closing", "closed", "failed"]
    pid: int = 0  # of the worker process, as long as there is one
    finished: bool = False  # no thread of this host runs any more
    stages: list[StageCount] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    users: int = 0  # Locust's, under a locustfile
    stored: int = 0
    read: int = 0  # results that arrived here
    dropped: int = 0
    restarts: int = 0
    deaths: list[str] = field(default_factory=list)  # a sentence for each process that ended in mid-run
    cpu_s: float = 0
    host: str = ""  # host name and process id: local hosts share one process
    host_cpu_s: float = 0
    peak_rss_bytes: int = 0
    clock_step_ns: int = 0  # see validity.Generator, as for these two
    clock_slew_ppm: float = 0
    pressure: Pressure = field(default_factory=Pressure)
    now_ns: int = 0
    problems: list[str] = field(default_factory=list)


class Host:
    def __init__(self, setup: Setup, address: Address, directory: str) -> None:
        self.setup = setup
        self._address = address
        self._directory = Path(directory)
        self._directory.mkdir(parents=True, exist_ok=True)
        self.frames_path = self._directory / f"worker-{setup.shard}.frames"
        self._schedule = Schedule(setup.plan, setup.shard, setup.shards)
        self._lock = threading.Lock()
        self._status = Status(worker=setup.shard, state="starting")
        self._booked: dict[int, StageCount] = {}  # counts of processes that died, by stage
        self._newest: dict[int, StageCount] = {}  # counts of the living one
        self._started: dict[int, StartStage] = {}
        self._resumes: dict[int, Resume] = {}
        self._ended: dict[int, Stop] = {}  # stages that were told to end before their time
        self._stopped: Stop | None = None  # the whole run, as its interruption does
        self._reported_ns = 0  # of the newest report
        self._since_report: list[bytes] = []  # results read since the last report: what it could not count yet
        self._cpu_of_the_dead_s = 0.0
        self._looked_ns = 0  # raw monotonic clock of the newest report that was looked at for pressure
        self._skew = Skew()
        self._gauge = Gauge()
        self._no_more_frames = threading.Event()
        self._close_by = float("inf")  # monotonic
        self._child: subprocess.Popen[bytes] | None = None
        self._cpu_before_s = _cpu_s()
        self._store: Store | None = None  # the storer thread's

    # what the driver calls

    def prepare(self) -> None:
        self.frames_path.touch()
        for body in (self._supervise, self._store_what_comes):
            threading.Thread(target=body, name=f"{body.__name__}-{self.setup.shard}", daemon=True).start()

    def start_stage(self, stage: int, start_ns: int) -> None:
        with self._lock:
            self._started[stage] = StartStage(stage, start_ns)
            if self._status.state == "failed":
                self._write_off(stage)
            elif self._status.state == "ready":
                self._send(self._started[stage])

    def stop(self, drain_s: float, stage: int | None = None) -> None:
        """End the run, or one stage of it."""
        with self._lock:
            command = Stop(drain_s, stage)
            if stage is not None:
                self._ended[stage] = command
            else:
                self._stopped = command
            self._send(command)

    def close(self) -> None:
        """End the worker; `poll` says "closed" when its last frame is in the store."""
        with self._lock:
            if self._status.state in ("closed", "closing"):
                return
            self._status.state = "closing"
            self._close_by = time.monotonic() + CLOSE_WITHIN_S
            child = self._child
        if child and child.stdin:
            _close_quietly(child.stdin)
            threading.Thread(target=_end_within, args=(child, CLOSE_WITHIN_S / 2), daemon=True).start()

    def kill(self) -> None:
        """At once: no last word, nothing more stored."""
        with self._lock:
            self._status.state = "closing"
            self._close_by = 0
            if self._child:
                self._child.kill()

    def poll(self) -> Status:
        with self._lock:
            status = self._status
            status.stages = [self._total(stage) for stage in sorted(self._booked.keys() | self._newest.keys())]
            status.host_cpu_s = _cpu_s() - self._cpu_before_s
            status.host = f"{spans.RESOURCE['host.name']}:{os.getpid()}"
            status.now_ns = time.time_ns()
            self._status = msgspec.structs.replace(status, samples=[])
            return status

    @property
    def finished(self) -> bool:
        return self._status.finished

    def read_frames(self, offset: int, size: int) -> bytes:
        """A piece of the frame file, for a driver on another machine."""
        with self.frames_path.open("rb") as file:
            file.seek(offset)
            return file.read(size)

    # the reader thread: one process after the other

    def _supervise(self) -> None:
        try:
            for _ in range(RESTARTS + 1):
                exit_status = self._run_worker()
                with self._lock:
                    if self._status.state in ("closing", "failed"):
                        if exit_status:
                            self._book_dead()
                        return
                    self._book_dead()
                    self._status.restarts += 1
                    self._status.state = "restarting"
                    self._status.deaths.append(f"worker {self.setup.shard} {_ended(exit_status)} in mid-run")
                    self._problem(self._status.deaths[-1])
            with self._lock:
                self._fail(f"worker {self.setup.shard} was given up after {RESTARTS} restarts; see {self._log_path}")
        except Exception as e:  # noqa: BLE001 a thread's exception is nobody's, a failed host is the driver's
            with self._lock:
                self._fail(f"host of worker {self.setup.shard}: {type(e).__name__}: {e}")
        finally:
            self._no_more_frames.set()

    def _run_worker(self) -> int:
        """Start a worker process and read its frames to their end. Returns its exit status."""
        frames_in, frames_out = os.pipe()
        _enlarge(frames_in)
        with self._log_path.open("ab") as log:
            child = subprocess.Popen(
                [sys.executable, "-m", "loadtest.worker", str(frames_out)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=(frames_out,),
                start_new_session=True,  # Ctrl-C is for the driver alone
            )
        os.close(frames_out)
        with self._lock:
            self._child = child
            self._send(self.setup)
            if self._status.state == "closing":  # closed before it began
                _close_quietly(child.stdin)
        unpacker = Unpacker()
        with self.frames_path.open("ab", buffering=0) as file, os.fdopen(frames_in, "rb", buffering=0) as pipe:
            while data := pipe.read(1 << 20):
                for payload in unpacker.feed(data):
                    self._on_frame(payload)
                file.write(data)
        status = child.wait()
        _close_quietly(child.stdin)
        return status

    def _on_frame(self, payload: bytes) -> None:
        if peek(payload).type == "result":
            with self._lock:
                self._since_report.append(payload)
            return
        frame = decode_frame(payload)
        with self._lock:
            if isinstance(frame, Report):
                self._on_report(frame)
            elif isinstance(frame, Ready):
                self._on_ready(frame)
            elif isinstance(frame, Failed):
                self._fail(frame.reason)

    def _on_ready(self, ready: Ready) -> None:
        self._status.pid = ready.pid
        if self._status.state == "closing":
            return
        self._status.state = "ready"
        for stage, command in self._started.items():
            if stage in self._resumes:
                self._send(msgspec.structs.replace(command, resume=self._resumes[stage]))
            elif stage not in self._booked:
                self._send(command)
            if stage in self._ended:
                self._send(self._ended[stage])
        if self._stopped:
            self._send(self._stopped)

    def _on_report(self, report: Report) -> None:
        status = self._status
        self._since_report.clear()
        self._reported_ns = report.at_ns
        self._newest = {count.stage: count for count in report.stages}
        status.cpu_s = self._cpu_of_the_dead_s + report.cpu_s
        status.peak_rss_bytes = max(status.peak_rss_bytes, report.peak_rss_bytes)
        status.dropped = max(status.dropped, report.dropped_frames)
        self._skew.note(Pair(report.at_ns, report.monotonic_raw_ns))
        status.clock_step_ns, status.clock_slew_ppm = self._skew.step_ns, self._skew.slew_ppm
        if report.monotonic_raw_ns - self._looked_ns >= LOOK_EVERY_NS:
            self._looked_ns = report.monotonic_raw_ns
            self._look_for_pressure(report)

    def _look_for_pressure(self, report: Report) -> None:
        """While a measured stage goes on, and once when it has ended."""
        measuring = any(c.first_start_ns and not c.drained_ns and self._measures(c.stage) for c in report.stages)
        if measuring or self._gauge.running:
            self._gauge.note(pressure.moment(self._status.pid, report.monotonic_raw_ns, report.cpu_s))
        if not measuring:
            self._gauge.pause()
        self._status.pressure = self._gauge.pressure

    def _measures(self, stage: int) -> bool:
        return not self.setup.plan.stages[stage].warmup

    def _book_dead(self) -> None:
        """What the dead process had counted is final; say where the next one takes up."""
        died_ns = time.time_ns()
        late = [decode_frame(payload) for payload in self._since_report]
        for stage, count in self._newest.items():
            if count.drained_ns:
                self._resumes.pop(stage, None)
                self._booked[stage] = self._total(stage)
                continue
            results = [r for r in late if isinstance(r, Result) and rounds.is_of(self.setup.plan, stage, r)]
            restart = [self._settle(stage, t, count.targets[t], results) for t in range(len(count.targets))]
            next_seq = [target.next_seq for target in count.targets]
            self._resumes[stage] = Resume(next_seq, restart, died_ns)
            self._booked[stage] = self._total(stage)
        for stage, command in self._started.items():
            if stage not in self._newest and stage not in self._booked:  # died before it said anything of this stage
                nothing = [rounds.first_seq(self.setup.plan, stage)] * len(self.setup.plan.targets)
                self._resumes[stage] = Resume(nothing, self._past_slots(stage, nothing), died_ns)
                self._booked[stage] = losses.nothing(stage, command.start_ns, len(nothing))
        self._newest = {}
        self._since_report = []
        self._looked_ns = 0
        self._skew.restart()
        self._gauge.pause()
        self._cpu_of_the_dead_s = self._status.cpu_s

    def _settle(self, stage: int, target: int, count: TargetCount, late: list[Result]) -> int:
        """Book results that came after the last report, so that they are not unknown. Returns `restart_seq`."""
        name = self.setup.plan.targets[target].name
        first = [r for r in late if r.target == name and not r.attempt]
        seqs = [r.seq for r in first if TURN_SEQS > r.seq >= count.next_seq]
        turns = sum(r.seq >= TURN_SEQS and r.started_ns > self._reported_ns for r in first)
        count.retried += sum(r.target == name and r.attempt > 0 for r in late)
        count.scheduled += turns
        count.sent += len(seqs) + turns
        count.done += len(seqs) + turns
        count.unknown -= len(seqs)  # the next process will count them among the unknown
        count.in_flight = count.oldest_ns = 0
        return self._past_slots(stage, [max([count.next_seq, *(seq + 1 for seq in seqs)])])[0]

    def _past_slots(self, stage: int, seqs: list[int]) -> list[int]:
        """Under closed load: past what every slot may have started without a report. Open load: nothing to skip."""
        concurrency = self.setup.plan.stages[stage].concurrency or 0
        queues = min(self.setup.shards, concurrency)
        return [seq + len(self._schedule.slots(stage)) * queues for seq in seqs] if concurrency else seqs

    def _total(self, stage: int) -> StageCount:
        booked, newest = self._booked.get(stage), self._newest.get(stage)
        if booked is None or newest is None:
            known = booked or newest
            assert known is not None
            return known
        return msgspec.structs.replace(
            newest,
            targets=[added(a, b) for a, b in zip(booked.targets, newest.targets, strict=True)],
            first_start_ns=booked.first_start_ns or newest.first_start_ns,
        )

    def _fail(self, reason: str) -> None:
        self._problem(reason)
        self._status.state = "failed"
        self._book_dead()
        for stage in self._started:
            if stage in self._resumes:
                self._write_off(stage)

    def _write_off(self, stage: int) -> None:
        """Nobody will send the rest of this shard: unknown up to the death, missed from there on."""
        targets = len(self.setup.plan.targets)
        resume = self._resumes.pop(stage, None) or Resume([0] * targets, [0] * targets, 0)
        count = self._booked.get(stage) or losses.nothing(stage, self._started[stage].start_ns, targets)
        losses.write_off(self._schedule, count, resume.next_seq, resume.died_ns)
        self._booked[stage] = count

    # the storer thread

    def _store_what_comes(self) -> None:
        targets = spans.target_attributes(self.setup.plan, self.setup.vantage)
        unpacker, batch = Unpacker(), 0
        with self.frames_path.open("rb") as file:
            while True:
                last_round = self._no_more_frames.is_set()
                data = file.read(READ_BYTES)
                results = [r for r in map(decode_frame, unpacker.feed(data)) if isinstance(r, Result)]
                if results:
                    self._note(results)
                    stored = self._insert(
                        spans.columns(results, targets), f"{self.setup.run}-{self.setup.shard}-{batch}"
                    )
                    batch += 1
                    with self._lock:
                        self._status.stored += len(results) if stored else 0
                if len(data) < READ_BYTES:  # caught up
                    if last_round and not data:
                        break
                    self._no_more_frames.wait(STORE_EVERY_S)
        if self._store:
            self._store.close()
        with self._lock:
            if self._status.state != "failed":
                self._status.state = "closed"
            self._status.finished = True

    def _insert(self, columns: dict[str, list[Any]], token: str) -> bool:
        """Insert once, however often it takes: the token makes a repeated insert one. False when time was up.

        Until the run closes there is no hurry: what is not stored yet is in the frame file, not in memory.
        """
        wait_s = 0.1
        while True:
            try:
                self._store = self._store or Store.connect(self._address)
                self._store.insert("otel_traces", columns, token=token)
                return True
            except StoreError as e:
                rows = len(columns["TraceId"])
                given_up = time.monotonic() > self._close_by
                with self._lock:
                    if given_up:
                        self._problem(f"{rows} results of worker {self.setup.shard} were not stored: {e}")
                    elif wait_s > 1:
                        self._problem(f"results of worker {self.setup.shard} wait in {self.frames_path}: {e}")
                if given_up:
                    return False
                time.sleep(min(wait_s, 5))
                wait_s *= 2

    def _note(self, results: list[Result]) -> None:
        samples = [_sample(result) for result in results if not result.attempt]
        with self._lock:
            self._status.read += len(results)
            self._status.samples += samples

    # small things; the lock is held

    @property
    def _log_path(self) -> Path:
        return self._directory / f"worker-{self.setup.shard}.log"

    def _problem(self, sentence: str) -> None:
        if sentence not in self._status.problems:
            self._status.problems.append(sentence)

    def _send(self, command: Setup | StartStage | Stop) -> None:
        if self._child and self._child.stdin and not self._child.stdin.closed:
            try:
                self._child.stdin.write(pack(command))
                self._child.stdin.flush()
            except BrokenPipeError:
                pass  # it is dead: the reader thread finds out and restarts it


def _ended(exit_status: int) -> str:
    if exit_status == UNREAD_STATUS:
        return f"ended itself, as nobody had read what it measured for {UNREAD_S:g} s,"
    return f"ended with status {exit_status}"


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _sample(result: Result) -> Sample:
    sent_ns = result.sent_ns or result.started_ns
    pairs = zip(result.chunk_ns, result.chunk_kind, strict=True)
    first_ns = next((t for t, kind in pairs if kind in TOKEN_KINDS), None) if result.streamed else None
    refused = result.error in refusals.WORDS
    return Sample(
        target=result.target,
        stage=result.stage,
        done_ns=result.done_ns,
        ttft_ms=None if first_ns is None else (first_ns - sent_ns) / 1e6,
        e2e_ms=(result.done_ns - sent_ns) / 1e6,
        lag_ms=None if result.due_ns is None else (result.started_ns - result.due_ns) / 1e6,
        output_tokens=result.output_tokens or 0,
        error=result.error,
        status=result.status if refused else None,
        detail=result.error_detail if refused else "",
    )


def added(dead: TargetCount, living: TargetCount) -> TargetCount:
    return TargetCount(
        scheduled=dead.scheduled + living.scheduled,
        sent=dead.sent + living.sent,
        missed_cap=dead.missed_cap + living.missed_cap,
        missed_worker_lost=dead.missed_worker_lost + living.missed_worker_lost,
        unknown=dead.unknown + living.unknown,
        done=dead.done + living.done,
        failed=dead.failed + living.failed,
        in_flight=living.in_flight,
        oldest_ns=living.oldest_ns,
        next_seq=max(dead.next_seq, living.next_seq),
        retried=dead.retried + living.retried,
        end_ns=living.end_ns and max(dead.end_ns, living.end_ns),
    )


def _enlarge(pipe_fd: int) -> None:
    try:
        fcntl.fcntl(pipe_fd, fcntl.F_SETPIPE_SZ, 1 << 20)
    except (OSError, AttributeError):
        pass  # the default of 64 KiB works too: the worker keeps what does not fit


def _close_quietly(stream: IO[bytes] | None) -> None:
    if stream:
        try:
            stream.close()
        except BrokenPipeError:
            pass


def _end_within(child: subprocess.Popen[bytes], seconds: float) -> None:
    try:
        child.wait(seconds)
    except subprocess.TimeoutExpired:
        child.kill()
