"""The process of one of Locust's own workers: Locust's `main` as it is, whose events become Results.

It is the child of a host, as the worker of a plan is, and says the same things in the same frames. What Locust's event does
not carry stays unknown: no chunk, no time of the first byte, no tokens. The stamps are Locust's own: the moment when Python
got round to it.
"""

import gc
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import gevent
import locust
from locust import main as locust_main
from locust.exception import StopTest
from msgspec.structs import replace

from loadtest.fire import REQUEST_ID_HEADERS, retry_after_s
from loadtest.frames import Command, Failed, LocustSetup, Ready, Setup, StageCount, Stop, TargetCount
from loadtest.locustfiles import options
from loadtest.locustfiles.flights import Flight, Flights, target_name
from loadtest.locustfiles.outcomes import outcome
from loadtest.locustfiles.user import Fleet, RequestFailed
from loadtest.outbox import FLUSH_EVERY_S, REPORT_EVERY_S, Outbox, report
from loadtest.types import Result, trace_id

MOST_NAMES = 1000
MORE_NAMES = "(further names)"
HTTP = {"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"}


class Test:
    """One test, from Locust's `test_start` to its `test_stop`: a stage."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.start_ns = time.time_ns()
        self.end_ns = self.drained_ns = 0
        self.counts: dict[str, TargetCount] = {}

    def count(self, name: str) -> TargetCount:
        return self.counts.setdefault(name, TargetCount())

    def report(self, flights: Flights | tuple[()]) -> StageCount:
        counts = {name: _copy(count) for name, count in self.counts.items()}
        for flight in flights:
            count = counts.setdefault(flight.name, TargetCount())
            count.in_flight += 1
            count.oldest_ns = min(count.oldest_ns or flight.started_ns, flight.started_ns)
        for count in counts.values():
            count.sent = count.scheduled = count.done + count.in_flight
        return StageCount(
            stage=self.index,
            start_ns=self.start_ns,
            targets=list(counts.values()),
            first_start_ns=self.start_ns,
            end_ns=self.end_ns,
            drained_ns=self.drained_ns,
            names=list(counts),
        )


class LocustWorker:
    def __init__(self, outbox: Outbox, setup: Setup, what: LocustSetup, open_files_limit: int) -> None:
        self.outbox = outbox
        self.setup = setup
        self.what = what
        self.open_files_limit = open_files_limit
        self.environment: Any = None
        self.runner: Any = None
        self.ready = self.closing = self._stopping = False
        self.tests: list[Test] = []
        self.flights = Flights(self._cancelled)
        self._ended = what.first
        self._addresses: dict[str, dict[str, str]] = {}
        self._problems: dict[str, int] = {}

    def run(self, commands: Iterator[Command]) -> None:
        """Until the host closes our stdin."""
        told = gevent.spawn(self._follow, commands)
        self.flights.watch_clients()
        Fleet.present, Fleet.keys = True, self.setup.keys
        Fleet.watch = staticmethod(self.flights.of)
        locust.events.init.add_listener(self._on_init)
        sys.argv = [
            "locust", "-f", self.what.locustfile, "--worker",
            "--master-host", self.what.master_host, "--master-port", str(self.what.master_port), *self.what.arguments,
        ]  # fmt: skip
        status = _status_of_main()
        if not self.closing and not self.tests and (status or not self.ready):
            raise RuntimeError(f"Locust's worker ended with status {status} before any load; its log says why")
        self._end_test()
        self.report()
        told.join()
        self.outbox.flush_for(2)

    def _on_init(self, environment: Any, runner: Any, **_: Any) -> None:
        """After Locust's own listeners, so that what Locust counts is what is counted here."""
        self.environment, self.runner = environment, runner
        events = environment.events
        events.request.add_listener(self._on_request)
        events.user_error.add_listener(self._on_user_error)
        events.test_start.add_listener(self._on_test_start)
        events.test_stopping.add_listener(self._on_test_stopping)
        events.test_stop.add_listener(self._on_test_stop)
        runner.register_message("loadtest_stop", self._on_stop, concurrent=True)
        gevent.spawn(self._begin)

    def _begin(self) -> None:
        """Once the file's own init listeners are done."""
        gc.collect()
        gc.freeze()
        self.ready = True
        self.outbox.put(Ready(os.getpid(), self.open_files_limit))
        gevent.spawn(self._flush_for_ever)
        while True:
            self.report()
            self.outbox.end_if_unread()
            gevent.sleep(REPORT_EVERY_S)

    def _flush_for_ever(self) -> None:
        while True:
            self.outbox.flush()
            gevent.sleep(FLUSH_EVERY_S)

    def _look_for_stop_test(self) -> None:
        """A user that cannot be: without a host, without a key."""
        spawning = self.runner.spawning_greenlet if self.runner else None
        if spawning is not None and isinstance(spawning.exception, StopTest) and not self.closing:
            self.closing = True
            self.outbox.put(Failed(str(spawning.exception)))

    def report(self) -> None:
        self._look_for_stop_test()
        newest = self.tests[-1:]
        stages = [test.report(self.flights if test in newest else ()) for test in self.tests]
        users = self.runner.user_count if self.runner else 0
        problems = [f"{words} ({n} times)" if n > 1 else words for words, n in self._problems.items()]
        self.outbox.put(report(self.outbox, stages, users, problems))
        self.outbox.flush()

    # Locust's events

    def _on_test_start(self, environment: Any, **_: Any) -> None:
        index = getattr(environment.parsed_options, "loadtest_test", 0)
        if self.tests and self.tests[-1].index == index:
            self.tests[-1].start_ns = time.time_ns()  # it had requests before it began
        else:
            self.tests.append(Test(index))
        self.report()

    def _on_test_stopping(self, **_: Any) -> None:
        if self.tests:
            self.tests[-1].end_ns = self.tests[-1].end_ns or time.time_ns()

    def _on_test_stop(self, **_: Any) -> None:
        self._end_test()
        self.report()

    def _end_test(self) -> None:
        self._on_test_stopping()
        if self.tests:
            self.tests[-1].drained_ns = self.tests[-1].drained_ns or time.time_ns()

    def _on_user_error(self, exception: BaseException, **_: Any) -> None:
        """Of a task, not of a request. Its text may hold anything: it is in the log, which Locust writes."""
        words = f"a task of the locustfile raised {type(exception).__name__}; see the worker's log"
        self._problems[words] = self._problems.get(words, 0) + 1

    def _on_request(
        self,
        request_type: Any,
        name: Any,
        response_time: Any,
        response_length: Any,
        exception: Any = None,
        response: Any = None,
        start_time: Any = None,
        url: Any = None,
        **_: Any,
    ) -> None:
        """Whatever a client of the author's own puts into the event: Locust has counted it, so it is a row."""
        now_ns = time.time_ns()
        own = getattr(response, "result", None)
        if isinstance(own, Result):
            self._hand_over(self._as_called(own, request_type, name, exception, url))
            return
        duration_ms, started_s = _number(response_time), _number(start_time)
        duration_ns = None if duration_ms is None else round(duration_ms * 1e6)
        started_ns = now_ns - (duration_ns or 0) if started_s is None else round(started_s * 1e9)
        status = getattr(response, "status_code", None) or None
        result = self._result(
            self._known(target_name(request_type, name)),
            started_ns=started_ns,
            sent_ns=None if duration_ns is None else started_ns,
            done_ns=now_ns if duration_ns is None else started_ns + duration_ns,
            status=status if isinstance(status, int) and 100 <= status < 1000 else None,
            response_bytes=max(round(_number(response_length) or 0), 0),
            attributes=self._attributes(request_type, name, url),
        )
        result.error, result.error_detail = outcome(exception, result.status)
        _note_headers(result, getattr(response, "headers", None))
        self._hand_over(result)

    def _as_called(self, own: Result, request_type: Any, name: Any, exception: Any, url: Any) -> Result:
        """What InferenceUser's wire saw, whole; the verdict is the locustfile's."""
        identity = self._result(self._known(target_name(request_type, name)), started_ns=0, done_ns=0)
        result = replace(
            own, **{field: getattr(identity, field) for field in ("run", "stage", "seq", "target", "worker")}
        )
        result.attributes = self._attributes(request_type, name, url) | own.attributes
        if not exception:
            result.error, result.error_detail = None, ""
        elif not isinstance(exception, RequestFailed):
            result.error, result.error_detail = outcome(exception, None)
        return result

    def _cancelled(self, flight: Flight) -> None:
        method, _, name = flight.name.partition(" ")
        self._hand_over(
            self._result(
                self._known(flight.name),
                started_ns=flight.started_ns,
                sent_ns=flight.started_ns,
                done_ns=time.time_ns(),
                error="cancelled",
                error_detail="its user was stopped before the answer came",
                attributes=self._attributes(method, name, flight.url),
            )
        )

    def _result(self, target: str, **facts: Any) -> Result:
        test = self.tests[-1] if self.tests else self._early()
        seq = self._ended * self.setup.shards + self.setup.shard
        self._ended += 1
        stage = options.stage_name(test.index)
        return Result(
            run=self.setup.run,
            stage=stage,
            seq=seq,
            target=target,
            worker=self.setup.shard,
            trace_id=trace_id(self.setup.run, stage, seq, target, 0),
            streamed=False,
            **facts,
        )

    def _early(self) -> Test:
        """A request that the file makes before Locust's test begins is of the first one."""
        self.tests.append(Test(0))
        return self.tests[-1]

    def _hand_over(self, result: Result) -> None:
        count = self.tests[-1].count(result.target)
        count.done += 1
        count.failed += result.error is not None
        self.outbox.put(result)

    def _known(self, name: str) -> str:
        """A file that puts an id into each name would make as many rows of a report."""
        if not self.tests or name in self.tests[-1].counts or len(self.tests[-1].counts) < MOST_NAMES:
            return name
        self._problems[f"more than {MOST_NAMES} names of requests; give those with an id in their path one `name`"] = 1
        return f"{name.partition(' ')[0]} {MORE_NAMES}"

    def _attributes(self, request_type: Any, name: Any, url: Any) -> dict[str, str]:
        request_type, name = str(request_type or ""), str(name or "")
        kind = "http" if request_type.upper() in HTTP else request_type.lower()
        return {
            "gen_ai.operation.name": kind[:64],
            "gen_ai.request.model": "",
            "loadtest.request_type": request_type[:64],
            "loadtest.request_name": name[:200],
            **self._address(url),
        }

    def _address(self, url: Any) -> dict[str, str]:
        """Of the server, never the path: it may hold what is secret."""
        origin = "/".join(str(url or "").split("/", 3)[:3])
        if origin not in self._addresses and len(self._addresses) < MOST_NAMES:
            self._addresses[origin] = _server(origin)
        return self._addresses.get(origin, {})

    # what the host and the master say

    def _follow(self, commands: Iterator[Command]) -> None:
        for command in commands:
            if isinstance(command, Stop):
                gevent.spawn(self._stop, command.drain_s)
        self.closing = True
        if self.runner is None:
            os._exit(0)  # it waits for the master, and nothing was sent
        self._stop(0)
        self.runner.greenlet.kill(block=False)

    def _stop(self, drain_s: float) -> None:
        """Stop all users; what they have begun may run on for `drain_s`. Said again, it only hurries."""
        if self.runner is None or self._stopping:
            gevent.sleep(drain_s)
            if self._stopping:
                self.runner.user_greenlets.kill(block=False)
            return
        self._stopping = True
        self.environment.stop_timeout = drain_s
        try:
            self.runner.stop()
        finally:
            self._stopping = False
            self.environment.stop_timeout = 0  # or Locust waits as long once more before it is ready for another test

    def _on_stop(self, msg: Any, **_: Any) -> None:
        """The master asks before it quits: what is in flight may still end, and Locust's own table counts it."""
        self._stop(msg.data["drain_s"])
        self.runner._send_stats()
        self.runner.send_message("loadtest_stopped")


def _status_of_main() -> int:
    try:
        locust_main.main()
    except SystemExit as e:
        return e.code if isinstance(e.code, int) else int(e.code is not None)
    return 0


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _server(origin: str) -> dict[str, str]:
    try:
        parts = urlsplit(origin)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return {}
    return {"server.address": parts.hostname, "server.port": str(port)} if parts.hostname else {}


def _note_headers(result: Result, headers: Any) -> None:
    if not isinstance(headers, Mapping):  # whatever it is, to look into it may be a call of its own
        return
    for name in REQUEST_ID_HEADERS:
        if value := headers.get(name.decode()):
            result.request_id = str(value)[:200]
            break
    if value := headers.get("retry-after"):
        result.retry_after_s = retry_after_s(str(value), time.time())


def _copy(count: TargetCount) -> TargetCount:
    return TargetCount(done=count.done, failed=count.failed)


def run(setup: Setup, what: LocustSetup, outbox: Outbox, commands: Iterator[Command], open_files_limit: int) -> None:
    LocustWorker(outbox, setup, what, open_files_limit).run(commands)
