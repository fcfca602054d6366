"""The worker process: wait until due, fire, hand over the Result; or, for a locustfile, Locust's own worker (locustfiles/).

It is a child of a host (host.py), which talks to it as frames.py says: Locust may monkey-patch everything here and nothing
there. A Locust `Environment` with one `User` follows the plan, and Locust's events fire, so that listeners work; the shots
themselves are greenlets of ours, because a Locust user sends one request at a time and open load may not wait for it.
"""

import locust  # first: it monkey-patches what every other module imports  # isort: skip

import argparse
import contextlib
import gc
import importlib.util
import os
import resource
import sys
import time
from collections.abc import Iterator

import gevent
import gevent.os
from gevent.event import Event
from gevent.queue import Queue

from loadtest import retries, rounds
from loadtest.arrivals import Closed, nanoseconds
from loadtest.clock import Alarm
from loadtest.fire import Fire
from loadtest.frames import (
    Command,
    Failed,
    Ready,
    Resume,
    Setup,
    StageCount,
    StartStage,
    Stop,
    TargetCount,
    Unpacker,
    decode_command,
)
from loadtest.outbox import REPORT_EVERY_S, Outbox, report
from loadtest.prompts import NO_ANSWERS, TURN_SEQS, Prompt
from loadtest.schedule import Schedule
from loadtest.types import Result

DESCRIPTORS_IN_RESERVE = 64
YOUNG_OBJECTS = 10_000
"""So many between two collections: a request makes hardly a cycle, and what is in flight is not garbage."""


class StageRun:
    """One stage on this shard: its arrivals, what is in flight, its counts."""

    def __init__(self, worker: "Worker", command: StartStage) -> None:
        plan = worker.setup.plan
        self.worker = worker
        self.index = command.stage
        self.spec = plan.stages[command.stage]
        self.start_ns = command.start_ns
        self.resume = command.resume
        self.resumed_ns = time.time_ns()
        self.first_seq = rounds.first_seq(plan, command.stage)
        self.counts = [TargetCount(next_seq=self.first_seq) for _ in plan.targets]
        self.caps = [_share(t.max_in_flight, worker.setup.shard, worker.setup.shards) for t in plan.targets]
        self.in_flight: list[dict[gevent.Greenlet, int]] = [{} for _ in plan.targets]  # -> started_ns, oldest first
        self.conversing: set[gevent.Greenlet] = set()  # under open load, those of several turns
        self.is_open = not isinstance(self.spec.arrivals, Closed)
        duration_s = self.spec.duration_s
        self.planned_end_ns = sys.maxsize if duration_s is None else self.start_ns + nanoseconds(duration_s)
        self.alarm = Alarm()
        self.stopping = Event()
        self.drain_deadline_ns = 0
        self.first_start_ns = self.end_ns = self.drained_ns = 0
        self.last_start_ns = [command.start_ns for _ in plan.targets]  # under closed load

    def run(self) -> None:
        self.alarm.sleep_until(self.start_ns)
        self.first_start_ns = time.time_ns()
        end_ns = self._closed() if isinstance(self.spec.arrivals, Closed) else self._open()
        self.end_ns = min(end_ns, time.time_ns()) if self.alarm.stopped else end_ns
        self._drain()
        self.drained_ns = time.time_ns()
        self.alarm.close()

    def stop(self, drain_s: float) -> None:
        self.drain_deadline_ns = time.time_ns() + nanoseconds(drain_s)
        self.alarm.stop()
        self.stopping.set()

    def count(self) -> StageCount:
        for count, flying in zip(self.counts, self.in_flight, strict=True):
            count.in_flight = len(flying)
            count.oldest_ns = next(iter(flying.values()), 0)
        return StageCount(
            stage=self.index,
            start_ns=self.start_ns,
            targets=self.counts,
            first_start_ns=self.first_start_ns,
            end_ns=self.end_ns,
            drained_ns=self.drained_ns,
        )

    def _open(self) -> int:
        """Send what is due when it is due. Returns the end of arrivals."""
        schedule = self.worker.schedule
        shards = self.worker.setup.shards
        last_due_ns, next_seq = self.start_ns, self.first_seq
        for seq, offset_ns, order in schedule.open(self.index):
            next_seq = seq + shards
            last_due_ns = due_ns = self.start_ns + offset_ns
            if self.resume and self._skip(self.resume, seq, due_ns):
                continue
            prompts = schedule.prompts(self.index, seq)
            if not self.alarm.sleep_until(due_ns):
                break
            for target in order:
                self._take_open(seq, target, due_ns, prompts[target])
        all_sent = self.spec.requests is not None and next_seq >= self.first_seq + self.spec.requests
        if self.spec.duration_s is None or all_sent:
            return self._until_conversations_end(last_due_ns)
        end_ns = self.start_ns + nanoseconds(self.spec.duration_s)
        self.alarm.sleep_until(end_ns)
        return end_ns

    def _until_conversations_end(self, last_due_ns: int) -> int:
        """Where the number of requests ends a stage, the conversations that began go on to their ends, or to the
        stage's. Returns when the last request was due, or its turn began."""
        while self.conversing and not self._is_over():
            gevent.sleep(0.02)
        return max(last_due_ns, self.worker.last_start_ns)

    def _skip(self, resume: Resume, seq: int, due_ns: int) -> bool:
        """After a restart: book what came due without us; True when there is nothing to send."""
        if seq >= resume.next_seq[0] and due_ns >= self.resumed_ns:
            return False
        if seq >= resume.next_seq[0]:
            for count in self.counts:
                count.scheduled += 1
                count.next_seq = seq + 1
                if due_ns <= resume.died_ns:
                    count.unknown += 1
                else:
                    count.missed_worker_lost += 1
        return True

    def _take_open(self, seq: int, target: int, due_ns: int, prompt: Prompt) -> None:
        count, flying = self.counts[target], self.in_flight[target]
        count.scheduled += 1
        count.next_seq = seq + 1
        cap = self.caps[target]
        if cap is not None and len(flying) >= cap:
            count.missed_cap += 1
            return
        count.sent += 1
        greenlet = gevent.Greenlet(self._converse, seq, target, due_ns, prompt)
        flying[greenlet] = time.time_ns()
        if prompt.turns > 1:
            self.conversing.add(greenlet)
        greenlet.start()

    def _closed(self) -> int:
        """Keep the slots busy. Returns the end of arrivals: the stage's end, or its last start where `requests` ended it."""
        schedule = self.worker.schedule
        offsets = schedule.slots(self.index)
        end_ns = None if self.spec.duration_s is None else self.start_ns + nanoseconds(self.spec.duration_s)
        slots = []
        for target in range(len(self.counts)):
            queue = self._queue(target)
            slots += [gevent.spawn(self._slot, target, queue, self.start_ns + nanoseconds(s), end_ns) for s in offsets]
        if end_ns is not None and self.spec.requests is None:
            self.alarm.sleep_until(end_ns)
            return end_ns
        done = gevent.spawn(gevent.joinall, slots)
        left_s = None if end_ns is None else max(end_ns - time.time_ns(), 0) / 1e9
        gevent.wait([done, self.stopping], left_s, count=1)
        return max(self.worker.last_start_ns, self.start_ns)

    def _queue(self, target: int) -> Iterator[int]:
        """This shard's seqs of one target, in order; after a restart, past what the last process may have sent."""
        for seq in self.worker.schedule.closed(self.index):
            if self.resume and seq < self.resume.restart_seq[target]:
                if seq >= self.resume.next_seq[target]:
                    self.counts[target].scheduled += 1
                    self.counts[target].unknown += 1
                continue
            yield seq

    def _slot(self, target: int, queue: Iterator[int], begin_ns: int, end_ns: int | None) -> None:
        if self.stopping.wait(max(0, begin_ns - time.time_ns()) / 1e9):
            return
        while not self.alarm.stopped and (end_ns is None or time.time_ns() < end_ns):
            seq = next(queue, None)
            if seq is None:
                self.counts[target].end_ns = self.last_start_ns[target]
                return
            prompt = self.worker.schedule.prompt(self.index, seq, target)
            count = self.counts[target]
            count.scheduled += 1
            count.sent += 1
            count.next_seq = seq + 1
            started_ns = time.time_ns()
            self.worker.last_start_ns = self.last_start_ns[target] = started_ns
            self.in_flight[target][gevent.getcurrent()] = started_ns
            self._converse(seq, target, None, prompt)

    def _converse(self, seq: int, target: int, due_ns: int | None, prompt: Prompt) -> None:
        """A request, and the turns after it where it begins a conversation: each is due when the one before was done and
        thought about. It ends where a turn fails, and no turn begins after the stage's end."""
        answers: dict[int, str] | None = {} if prompt.own_answers else None
        result = self._fire(seq, target, due_ns, prompt, 0, answers)
        for turn in range(1, prompt.turns):
            due_ns = result.done_ns + nanoseconds(prompt.think_s)
            if result.error or self.stopping.wait(max(0, due_ns - time.time_ns()) / 1e9) or self._is_over():
                break
            if not self._begin_turn(target):
                break
            result = self._fire(seq, target, due_ns if self.is_open else None, prompt, turn, answers)
        self.worker.fire.end_conversation(seq, target)
        self.conversing.discard(gevent.getcurrent())

    def _is_over(self) -> bool:
        return self.alarm.stopped or time.time_ns() >= self.planned_end_ns

    def _begin_turn(self, target: int) -> bool:
        """Count a further turn; False where the target's cap holds it back."""
        count, flying, cap = self.counts[target], self.in_flight[target], self.caps[target]
        count.scheduled += 1
        if self.is_open and cap is not None and len(flying) >= cap:
            count.missed_cap += 1
            return False
        count.sent += 1
        self.worker.last_start_ns = flying[gevent.getcurrent()] = time.time_ns()
        if count.end_ns:
            count.end_ns = self.worker.last_start_ns
        return True

    def _fire(
        self, seq: int, target: int, due_ns: int | None, prompt: Prompt, turn: int, answers: dict[int, str] | None
    ) -> Result:
        """The request, and its retries where the plan wants them: it is in flight until the last of them has ended."""
        if turn:
            prompt = self.worker.schedule.prompt(self.index, seq, target, turn, answers or NO_ANSWERS)
        attempt = 0
        result, wait_s = self._fire_once(seq, target, due_ns, prompt, turn, attempt, answers)
        while wait_s is not None and not self.stopping.wait(wait_s):
            attempt += 1
            result, wait_s = self._fire_once(seq, target, due_ns, prompt, turn, attempt, answers)
        self.in_flight[target].pop(gevent.getcurrent())
        return result

    def _fire_once(
        self,
        seq: int,
        target: int,
        due_ns: int | None,
        prompt: Prompt,
        turn: int,
        attempt: int,
        answers: dict[int, str] | None,
    ) -> tuple[Result, float | None]:
        """The result, and in how many seconds to try again. `done` and `failed` are of first attempts, as all figures
        are."""
        seq += turn * TURN_SEQS
        result = self.worker.shoot(self.index, seq, target, due_ns, prompt, attempt=attempt, answers=answers)
        count = self.counts[target]
        if attempt:
            count.retried += 1
        else:
            count.done += 1
            count.failed += result.error is not None
        self.worker.hand_over(result)
        wanted = self.worker.setup.plan.targets[target].retries
        return result, retries.wait_s(wanted, result, self.spec.drain_s)

    def _drain(self) -> None:
        deadline_ns = time.time_ns() + nanoseconds(self.spec.drain_s)
        if self.drain_deadline_ns:
            deadline_ns = min(deadline_ns, self.drain_deadline_ns)
        while any(self.in_flight) and time.time_ns() < deadline_ns:
            gevent.sleep(0.02)
            if self.drain_deadline_ns:
                deadline_ns = min(deadline_ns, self.drain_deadline_ns)
        self.stopping.set()  # for those that wait to try again
        flying = [greenlet for by_target in self.in_flight for greenlet in by_target]
        for greenlet in flying:
            self.worker.fire.cancel(greenlet)
        gevent.joinall(flying, timeout=2)


class PlanUser(locust.User):  # type: ignore[misc]
    """The Locust user of a worker: it follows the commands that the host sends until they end."""

    @locust.task  # type: ignore[untyped-decorator]
    def follow(self) -> None:
        self.environment.worker.follow()
        raise locust.exception.StopUser


class Worker:
    def __init__(self, outbox: Outbox, setup: Setup) -> None:
        self.outbox = outbox
        self.setup = setup
        self.commands: Queue = Queue()
        self.schedule = Schedule(setup.plan, setup.shard, setup.shards)
        _ = self.schedule.source  # open the dataset now: not at the first due time
        self.fire = Fire(setup.plan, setup.keys, setup.run, setup.shard)
        self.shoot = (
            self.fire.__call__
        )  # as a method it takes no C stack, of which every request in flight keeps a copy
        self.stages: list[StageRun] = []
        self.last_start_ns = 0
        self.dialects = {target.name: target.dialect for target in setup.plan.targets}
        self.environment = locust.env.Environment(user_classes=[PlanUser], events=locust.events)
        self.environment.worker = self

    def start(self) -> None:
        if self.setup.plan.fleet.listeners:
            _import_listeners(self.setup.plan.fleet.listeners)
        runner = self.environment.create_local_runner()
        self.environment.events.init.fire(environment=self.environment, runner=runner, web_ui=None)
        runner.start(1, spawn_rate=1)
        gevent.spawn(self._report_for_ever)

    def follow(self) -> None:
        """Run the stages that the host starts, side by side where they overlap."""
        for command in iter(self.commands.get, None):
            if isinstance(command, StartStage):
                stage = StageRun(self, command)
                self.stages.append(stage)
                gevent.spawn(self._run_stage, stage)
            elif isinstance(command, Stop):
                for stage in self.stages:
                    if command.stage in (None, stage.index):
                        stage.stop(command.drain_s)

    def _run_stage(self, stage: StageRun) -> None:
        try:
            stage.run()
        except Exception as e:
            self.outbox.put(Failed(f"stage {stage.spec.name}: {type(e).__name__}: {e}"))
            self.outbox.flush_for(1)
            raise
        self.report()

    def hand_over(self, result: Result) -> None:
        self.outbox.put(result)
        reached_ns = result.sent_ns or result.started_ns
        self.environment.events.request.fire(
            request_type=self.dialects[result.target],
            name=f"{result.target} {result.stage}",
            response_time=(result.done_ns - reached_ns) / 1e6,
            response_length=result.response_bytes,
            response=None,
            context={"trace_id": result.trace_id, "seq": result.seq},
            exception=RequestFailed(result.error, result.error_detail) if result.error else None,
            start_time=reached_ns / 1e9,
            url=None,
        )

    def report(self) -> None:
        self.outbox.put(report(self.outbox, [stage.count() for stage in self.stages]))
        self.outbox.flush()

    def _report_for_ever(self) -> None:
        while True:
            self.report()
            self.outbox.end_if_unread()
            gevent.sleep(REPORT_EVERY_S)

    def close(self) -> None:
        """The host has closed our stdin: say the last word and let Locust's listeners say theirs."""
        self.commands.put(None)
        with gevent.Timeout(5, False):
            self.environment.runner.quit()
            self.environment.events.quitting.fire(environment=self.environment)
            self.environment.events.quit.fire(exit_code=0)
        self.report()
        self.outbox.flush_for(2)


class RequestFailed(Exception):
    """What Locust's listeners get as `exception`: the error word and its detail."""


def _share(total: int | None, shard: int, shards: int) -> int | None:
    return None if total is None else total // shards + (shard < total % shards)


def _import_listeners(path: str) -> None:
    spec = importlib.util.spec_from_file_location("listeners", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"fleet.listeners {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


def raise_open_files_limit() -> int:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def check_open_files(setup: Setup, limit: int) -> str | None:
    """A sentence when a stage's concurrency cannot fit this process's descriptors."""
    for stage in setup.plan.stages:
        slots = (_share(stage.concurrency, setup.shard, setup.shards) or 0) * len(setup.plan.targets)
        if slots > limit - DESCRIPTORS_IN_RESERVE:
            return (
                f"stage {stage.name} needs {slots} connections in one worker, but the limit of open files is {limit}; "
                f"use more workers or raise it (ulimit -n {slots + DESCRIPTORS_IN_RESERVE})"
            )
    return None


def commands(fd: int) -> Iterator[Command]:
    """What the host says, until it closes its end."""
    os.set_blocking(fd, False)
    unpacker = Unpacker()
    while data := gevent.os.nb_read(fd, 1 << 16):
        for payload in unpacker.feed(data):
            yield decode_command(payload)


def main() -> None:
    gevent.config.track_greenlet_tree = False  # who spawned whom: a stack of frames kept for each request
    parser = argparse.ArgumentParser(description="A worker of a load test. Started by its host, not by people.")
    parser.add_argument("frames_fd", type=int)
    outbox = Outbox(parser.parse_args().frames_fd)
    inbox = commands(sys.stdin.fileno())
    setup = next(inbox, None)
    if not isinstance(setup, Setup):
        return
    limit = raise_open_files_limit()
    try:
        if problem := check_open_files(setup, limit):
            raise ValueError(problem)
        if setup.locust is not None:
            from loadtest.locustfiles import worker as of_locustfile

            of_locustfile.run(setup, setup.locust, outbox, inbox, limit)
            return
        worker = Worker(outbox, setup)
        worker.start()
    except Exception as e:
        outbox.put(Failed(f"{type(e).__name__}: {e}"))
        outbox.flush_for(2)
        raise
    gc.collect()
    gc.freeze()  # what was imported lives for ever: let no collection walk it during the run
    gc.set_threshold(YOUNG_OBJECTS)
    outbox.put(Ready(os.getpid(), limit))
    outbox.flush()
    for command in inbox:
        worker.commands.put(command)
    worker.close()


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # greenlets in flight have nobody left to report to
