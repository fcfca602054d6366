"""What a run looks like while it goes on, for those who watch its store: counts once a second, and what happens.

The driver hands over each snapshot; a thread of its own writes, so that a slow store holds nothing up. Requests become
rows when they end: that some are in flight, and for how long already, is known from the workers' reports alone. Counts
are added up over workers, which keeps a thousand of them to a few rows a second; what is a worker's own stays apart.

Nothing a figure rests on goes this way. Events that the store does not take wait for the next second, so that a run is
not shown as going on because its last words met a store that was busy; counts are overtaken by the next second's. An
event that cannot be put in words for the store at all is given up, and no other with it.
"""

import contextlib
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any

import msgspec
from msgspec import Struct

from loadtest import plan as plans
from loadtest import rounds, spans, telemetry
from loadtest.errors import UserError
from loadtest.locustfiles.names import named
from loadtest.report.words import plural
from loadtest.run import Snapshot, StageTimes
from loadtest.store import Address, Store, StoreError
from loadtest.telemetry import Point
from loadtest.types import Plan

EVERY_S = 1.0
MOST_WAITING = 10_000
"""Events that wait for the store; of more, the oldest are given up and counted."""
LAST_TRIES = 3
LAST_S = 10.0
"""At the end nothing is begun after so long: a run does not wait for a store that hangs."""


class Event(Struct, frozen=True, kw_only=True):
    """One row of the table `events`."""

    ts_ns: int
    event: str
    text: str
    stage: str = ""
    target: str = ""
    worker: int | None = None
    data: Mapping[str, Any] = {}


class Recorder:
    """Within `with`: `note` each snapshot, `say` what else happens. Neither waits for the store."""

    def __init__(self, address: Address, plan: Plan, run: str, text: str | None = None) -> None:
        self._address = address
        self._plan = plan
        self._text = text  # in place of the plan's own
        self._run = run
        self._lock = threading.Lock()
        self._events: list[Event] = []
        self._sending: list[Event] = []  # inserted with one token until the store has them
        self._given_up = 0
        self._failure = ""
        self._points: list[Point] = []
        self._pointed_ns = 0
        self._seen = _Seen()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._write_for_ever, name="recorder", daemon=True)
        self._batch = self._pointed = 0

    def __enter__(self) -> "Recorder":
        started = Event(
            ts_ns=time.time_ns(),
            event="run_started",
            text=f"run of the plan {self._plan.name} started",
            data={
                "plan_name": self._plan.name,
                "nonce": self._plan.nonce,
                "plan": self._text or plans.dump(self._plan),
            },
        )
        self.say(started)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            why = str(error) if isinstance(error, UserError) else f"internal error: {type(error).__name__}"
            self.say(Event(ts_ns=time.time_ns(), event="run_failed", text=why))
        self._over.set()
        self._thread.join()
        if lost := self._given_up + len(self._sending) + len(self._events):
            words = f"{plural(lost, 'event')} of the run (its stages, verdicts, end) not stored: {self._failure}"
            print(f"warning: {words}; dashboards may show it as going on", file=sys.stderr)

    def say(self, event: Event) -> None:
        with self._lock:
            self._keep([event])

    def say_verdicts(self, figures: Mapping[str, Any]) -> None:
        """How it ended; `figures` in the form of summary.json."""
        now_ns = time.time_ns()
        for slo in figures["slos"]:
            figure = " ".join(filter(None, (slo["stat"], slo["metric"])))
            text = f"{figure} of {slo['target']} in stage {slo['stage']}: {slo['outcome']}"
            self.say(
                Event(ts_ns=now_ns, event="verdict", text=text, stage=slo["stage"], target=slo["target"], data=slo)
            )
        reasons = figures["validity"]["reasons"]
        self.say(
            Event(
                ts_ns=now_ns,
                event="run_ended",
                text="INVALID: " + "; ".join(reasons) if reasons else "VALID",
                data={"outcome": figures["outcome"], "integrity": figures["integrity"]},
            )
        )

    def note(self, snapshot: Snapshot) -> None:
        snapshot = named(snapshot)
        due = snapshot.phase == "done" or snapshot.now_ns - self._pointed_ns >= EVERY_S * 1e9
        points = list(_points(snapshot)) if due else []
        with self._lock:
            self._keep(self._seen.news(snapshot))
            if due:
                self._points = points
                self._pointed_ns = snapshot.now_ns

    def _write_for_ever(self) -> None:
        store: Store | None = None
        while not self._over.wait(EVERY_S):
            store = self._write(store)
        until = time.monotonic() + LAST_S
        for attempt in range(LAST_TRIES):
            time.sleep(min(attempt, 1) * EVERY_S)
            store = self._write(store)
            if not (self._sending or self._events) or time.monotonic() > until:
                break
        if store:
            store.close()

    def _write(self, store: Store | None) -> Store | None:
        """What waits, over the connection that there is, or a new one; where that fails, events go on waiting."""
        try:
            store = store or Store.connect(self._address)
        except Exception as e:  # noqa: BLE001  # nothing here may end the run, nor the words after it
            self._failure = _said(e)
            return None
        self._write_events(store)
        with contextlib.suppress(Exception):  # of theirs, none is missed
            self._write_points(store)
        return store

    def _write_events(self, store: Store) -> None:
        while events := self._next():
            try:
                store.insert("events", self._columns(events), f"{self._run}-events-{self._batch}")
                self._sending = []
            except StoreError as e:
                self._failure = _said(e)
                return
            except Exception as e:  # noqa: BLE001  # one of them is the cause: it is looked for by halves
                self._failure = _said(e)
                self._halve(events)

    def _halve(self, events: list[Event]) -> None:
        """Send the first half next; a single one is given up."""
        half = len(events) // 2
        with self._lock:
            if half:
                self._events[:0] = events[half:]
            else:
                self._given_up += 1
        self._sending = events[:half]
        self._batch += 1

    def _write_points(self, store: Store) -> None:
        with self._lock:
            points, self._points = self._points, []
        self._pointed += 1
        telemetry.insert(store, points, spans.RESOURCE, f"{self._run}-recorder-{self._pointed}")

    def _next(self) -> list[Event]:
        if not self._sending:
            with self._lock:
                self._sending, self._events = self._events, []
            self._batch += 1
        return self._sending

    def _keep(self, events: Iterable[Event]) -> None:
        """Within the lock."""
        self._events += events
        if (over := len(self._events) - MOST_WAITING) > 0:
            self._given_up += over
            del self._events[:over]

    def _columns(self, events: list[Event]) -> dict[str, list[Any]]:
        return {
            "ts": [e.ts_ns for e in events],
            "run": [self._run] * len(events),
            "event": [e.event for e in events],
            "kind": [self._plan.kind] * len(events),
            "stage": [e.stage for e in events],
            "target": [e.target for e in events],
            "worker": [e.worker for e in events],
            "text": [e.text for e in events],
            "data": [msgspec.json.encode(e.data).decode() for e in events],
        }


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, StoreError) else f"internal error: {type(error).__name__}: {error}"


class _Seen:
    """What has been told of a run already: the next snapshot's news are the rest."""

    def __init__(self) -> None:
        self._started = 0
        self._ended: set[int] = set()
        self._restarts: dict[int, int] = {}
        self._lost: set[int] = set()
        self._interrupted = False
        self._refused = False

    def news(self, snapshot: Snapshot) -> Iterator[Event]:
        yield from self._of_stages(snapshot)
        yield from self._of_workers(snapshot)
        if snapshot.interrupted and not self._interrupted:
            self._interrupted = True
            yield Event(ts_ns=snapshot.now_ns, event="interrupted", text="the run was interrupted")
        if snapshot.refusals and not self._refused:
            self._refused = True
            for refusal in snapshot.refusals:
                yield Event(
                    ts_ns=snapshot.now_ns,
                    event="target_refused",
                    text=refusal.says,
                    stage=refusal.stage,
                    target=refusal.target,
                    data={"requests": refusal.requests},
                )

    def _of_stages(self, snapshot: Snapshot) -> Iterator[Event]:
        for number, times in enumerate(snapshot.times):
            if number >= self._started:
                yield _of_stage(snapshot, times, "stage_started", times.start_ns, "began")
            if times.drained_ns and number not in self._ended:
                self._ended.add(number)
                yield _of_stage(snapshot, times, "stage_ended", times.end_ns, "sent its last request")
        self._started = len(snapshot.times)

    def _of_workers(self, snapshot: Snapshot) -> Iterator[Event]:
        for host in snapshot.hosts:
            if host.restarts > self._restarts.get(host.worker, 0):
                self._restarts[host.worker] = host.restarts
                why = host.deaths[-1]
                yield Event(ts_ns=snapshot.now_ns, event="worker_restarted", text=why, worker=host.worker)
        failed = {host.worker for host in snapshot.hosts if host.state == "failed"}
        for worker in sorted(failed.union(snapshot.lost_hosts) - self._lost):
            self._lost.add(worker)
            why = snapshot.losses.get(worker, f"worker {worker} was lost")
            yield Event(ts_ns=snapshot.now_ns, event="worker_lost", text=why, worker=worker)


def _of_stage(snapshot: Snapshot, times: StageTimes, event: str, ts_ns: int, words: str) -> Event:
    stage = snapshot.plan.stages[times.stage]
    round_ = rounds.round_of(snapshot.plan, times.stage)
    which = f"round {round_ + 1} of stage {stage.name}" if stage.rounds > 1 else f"stage {stage.name}"
    return Event(
        ts_ns=ts_ns,
        event=event,
        text=f"{which} {words}",
        stage=stage.name,
        data={"round": round_, "warmup": stage.warmup},
    )


COUNTS = ("scheduled", "sent", "done", "failed")
LAST_WORDS_NS = 3_000_000_000
"""For so long after its drain a stage's counts, which change no more, are still written: at least once."""


def _points(snapshot: Snapshot) -> Iterator[Point]:
    """Of each stage and target that is not over, and of each worker."""
    now_ns, run = snapshot.now_ns, {"loadtest.run": snapshot.run, "loadtest.kind": snapshot.plan.kind}
    for times in snapshot.times:
        if times.drained_ns and now_ns - times.drained_ns > LAST_WORDS_NS:
            continue
        stage = snapshot.plan.stages[times.stage]
        of_stage = {"loadtest.stage": stage.name, "loadtest.round": str(rounds.round_of(snapshot.plan, times.stage))}
        counts = [count for host in snapshot.hosts for count in host.stages if count.stage == times.stage]
        for index, target in enumerate(snapshot.plan.targets):
            mine = [count.targets[index] for count in counts]
            about = {**run, **of_stage, "loadtest.target": target.name}
            oldest_ns = min((count.oldest_ns for count in mine if count.oldest_ns), default=now_ns)
            yield Point("loadtest.in_flight", "{request}", sum(c.in_flight for c in mine), now_ns, about)
            yield Point("loadtest.oldest_age_s", "s", max(now_ns - oldest_ns, 0) / 1e9, now_ns, about)
            totals = {name: sum(getattr(count, name) for count in mine) for name in COUNTS}
            totals["missed"] = sum(count.missed_cap + count.missed_worker_lost for count in mine)
            for name, value in totals.items():
                yield Point(f"loadtest.{name}", "{request}", value, now_ns, about, times.start_ns)
    for host in snapshot.hosts:
        about = {**run, "loadtest.worker": str(host.worker)}
        yield Point("loadtest.worker.cpu_s", "s", host.cpu_s, now_ns, about, snapshot.started_ns)
        yield Point("loadtest.worker.stored", "{request}", host.stored, now_ns, about, snapshot.started_ns)
        yield Point("loadtest.worker.read", "{request}", host.read, now_ns, about, snapshot.started_ns)
        yield Point("loadtest.worker.rss_bytes", "By", host.peak_rss_bytes, now_ns, about)
