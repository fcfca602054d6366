"""What those who watch a store see of a run while it goes on, and what `loadtest runs` says of one that has no end."""

import dataclasses
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loadtest import history
from loadtest.detach import new_run_id
from loadtest.errors import RunFailed
from loadtest.frames import Setup
from loadtest.host import Status
from loadtest.recorder import Event, Recorder
from loadtest.run import Driver, Interrupts, LocalFleet, Snapshot
from loadtest.store import Address, Store, open_store
from loadtest.types import Plan
from tests.test_run import KillOnce, Watched, make_plan

STAGE = "name: open, arrivals: {kind: constant, rate: 20}, duration_s: 3, drain_s: 5"
EVENTS = "SELECT event, stage, worker, kind, text, data FROM events WHERE run = {run:String} ORDER BY ts, event"
LAST = """
    SELECT argMax(Value, TimeUnix) AS value FROM merge(currentDatabase(), '^otel_metrics_(gauge|sum)$')
    WHERE MetricName = {name:String} AND Attributes['loadtest.run'] = {run:String}
        AND Attributes['loadtest.target'] = {target:String}"""


def recorded(plan: Plan, store: Store, directory: Path, watch: Callable[[Snapshot], Any], workers: int = 1) -> Snapshot:
    run = new_run_id()
    fleet = LocalFleet([Setup(run, plan, {}, k, workers) for k in range(workers)], store.address, directory)
    with Recorder(store.address, plan, run) as recorder:

        def show(snapshot: Snapshot) -> None:
            recorder.note(snapshot)
            watch(snapshot)

        try:
            return Driver(plan, run, fleet, show, Interrupts()).go()
        finally:
            fleet.close()


def last(store: Store, run: str, name: str, target: str = "") -> Any:
    return store.query(LAST, {"name": name, "run": run, "target": target})[0]["value"]


def test_counts_and_events_of_a_run_are_in_the_store_while_it_goes_on(
    simulator: str, store: Store, tmp_path: Path
) -> None:
    plan = make_plan(simulator, STAGE, kind="capacity")
    seen: list[int] = []

    def look(snapshot: Snapshot) -> None:
        if snapshot.phase == "running":
            seen.append(int(last(store, snapshot.run, "loadtest.sent", "a")))

    snapshot = recorded(plan, store, tmp_path, look)
    assert any(0 < n < 60 for n in seen), "counts before the end"
    for target in ("a", "b"):
        values = {name: last(store, snapshot.run, f"loadtest.{name}", target) for name in ("scheduled", "sent", "done")}
        assert values == {"scheduled": 60, "sent": 60, "done": 60}
        assert last(store, snapshot.run, "loadtest.in_flight", target) == 0
        assert last(store, snapshot.run, "loadtest.failed", target) == 0
    assert last(store, snapshot.run, "loadtest.worker.cpu_s") > 0
    told = store.query(EVENTS, {"run": snapshot.run})
    assert [(e["event"], e["stage"], e["kind"]) for e in told] == [
        ("run_started", "", "capacity"),
        ("stage_started", "open", "capacity"),
        ("stage_ended", "open", "capacity"),
    ]
    assert "kind: capacity" in told[0]["data"]
    kinds = store.query("SELECT DISTINCT kind FROM requests WHERE run = {run:String}", {"run": snapshot.run})
    assert kinds == [{"kind": "capacity"}]


def test_a_hanging_endpoint_shows_as_requests_in_flight_that_grow_old(
    store: Store, simulator: str, tmp_path: Path
) -> None:
    stage = "name: s, arrivals: {kind: constant, rate: 10}, duration_s: 3, drain_s: 1"
    plan = make_plan(simulator, stage)
    hangs = plan.targets[0].__class__(
        name="hangs", url=plan.targets[0].url, dialect="openai-chat", model="m", body={"simulate": {"ttft_ms": 60_000}}
    )
    plan = plan.__class__(**{f: getattr(plan, f) for f in plan.__struct_fields__} | {"targets": [hangs]})
    snapshot = recorded(plan, store, tmp_path, lambda _: None)
    [row] = store.query(
        "SELECT max(if(MetricName = 'loadtest.in_flight', Value, 0)) AS most, "
        "max(if(MetricName = 'loadtest.oldest_age_s', Value, 0)) AS oldest_s FROM otel_metrics_gauge "
        "WHERE Attributes['loadtest.run'] = {run:String}",
        {"run": snapshot.run},
    )
    assert row["most"] > 15
    assert 1 < row["oldest_s"] < 60


def test_a_worker_that_dies_and_verdicts_are_events(simulator: str, store: Store, tmp_path: Path) -> None:
    kill = KillOnce(after_s=1)
    snapshot = recorded(make_plan(simulator, STAGE), store, tmp_path, Watched(kill), workers=2)
    slo = {"metric": "ttft_ms", "stat": "p99", "target": "a", "stage": "open", "outcome": "met"}
    validity = {"reasons": ["worker_lost: 1 worker process(es) were lost"]}
    figures = {"slos": [slo], "validity": validity, "outcome": "invalid", "integrity": {"sent": 1}}
    with Recorder(store.address, snapshot.plan, f"{snapshot.run}-end") as ended:
        ended.say_verdicts(figures)
    told = store.query(EVENTS, {"run": snapshot.run})
    assert [(e["event"], e["worker"]) for e in told if e["event"] == "worker_restarted"] == [("worker_restarted", 0)]
    told = store.query(EVENTS, {"run": f"{snapshot.run}-end"})
    assert {e["event"]: e["text"] for e in told} == {
        "run_started": "run of the plan test started",
        "verdict": "p99 ttft_ms of a in stage open: met",
        "run_ended": "INVALID: worker_lost: 1 worker process(es) were lost",
    }


def test_what_failed_is_told_and_a_store_that_is_gone_holds_nothing_up(
    store: Store, simulator: str, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = make_plan(simulator, STAGE)
    with pytest.raises(RunFailed), Recorder(store.address, plan, "failed"):
        raise RunFailed("no workers")
    told = store.query(EVENTS, {"run": "failed"})
    assert [(e["event"], e["text"]) for e in told][-1] == ("run_failed", "no workers")
    with Recorder(Address("http", "127.0.0.1", 9, "loadtest", "nobody", ""), plan, "nowhere"):
        pass
    words = capsys.readouterr().err
    assert words.startswith("warning: 1 event of the run (its stages, verdicts, end) not stored: the store ")


def test_what_the_store_did_not_take_is_stored_once_it_does(
    store: Store, simulator: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """For a while the table is away; what was said meanwhile, and at the end, is there once."""
    verdict = {"metric": "ttft_ms", "stat": "p99", "target": "a", "stage": "open", "outcome": "met"}
    figures = {"slos": [verdict], "validity": {"reasons": []}, "outcome": "passed", "integrity": {}}
    with Recorder(store.address, make_plan(simulator, STAGE), "away") as recorder:
        until(lambda: store.query(EVENTS, {"run": "away"}))
        store._command("RENAME TABLE events TO events_away")
        try:
            recorder.say(Event(ts_ns=time.time_ns(), event="interrupted", text="meanwhile"))
            until(lambda: recorder._failure)
        finally:
            store._command("RENAME TABLE events_away TO events")
        recorder.say_verdicts(figures)
    told = store.query(EVENTS, {"run": "away"})
    assert sorted(e["event"] for e in told) == ["interrupted", "run_ended", "run_started", "verdict"]
    assert capsys.readouterr().err == ""


def test_counts_are_stored_though_events_are_not(store: Store, simulator: str) -> None:
    points = "SELECT count() AS n FROM otel_metrics_gauge WHERE Attributes['loadtest.run'] = 'uneventful'"
    plan = make_plan(simulator, STAGE)
    now_ns = time.time_ns()
    hosts = [Status(worker=0, state="ready")]
    snapshot = Snapshot(plan, "uneventful", now_ns, now_ns, stage=0, times=[], hosts=hosts, phase="running")
    with Recorder(store.address, plan, "uneventful") as recorder:
        store._command("RENAME TABLE events TO events_away")
        try:
            recorder.say(Event(ts_ns=now_ns, event="interrupted", text="meanwhile"))
            recorder.note(snapshot)
            until(lambda: store.query(points)[0]["n"])
            assert recorder._failure
        finally:
            store._command("RENAME TABLE events_away TO events")


def test_an_event_that_cannot_be_told_holds_up_neither_the_run_nor_its_end(
    store: Store, simulator: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Though all of them go in one insert."""
    with Recorder(store.address, make_plan(simulator, STAGE), "odd") as recorder:
        recorder.say(Event(ts_ns=time.time_ns(), event="interrupted", text="", data={"of": object()}))
        recorder.say(Event(ts_ns=time.time_ns(), event="run_ended", text="VALID"))
    assert [e["event"] for e in store.query(EVENTS, {"run": "odd"})] == ["run_started", "run_ended"]
    words = capsys.readouterr().err
    assert words.startswith(
        "warning: 1 event of the run (its stages, verdicts, end) not stored: internal error: TypeError"
    )


def test_the_end_is_tried_again_where_the_store_was_never_there(
    store: Store, simulator: str, capsys: pytest.CaptureFixture[str]
) -> None:
    late = dataclasses.replace(store.address, database="late")
    recorder = Recorder(late, make_plan(simulator, STAGE), "late")

    def make_tables() -> None:
        until(lambda: recorder._failure)
        with Store.connect(store.address) as another:
            another._command("CREATE DATABASE late")
            another._command(f"CREATE TABLE late.events AS {store.address.database}.events")

    thread = threading.Thread(target=make_tables)
    thread.start()
    with recorder:
        pass
    thread.join()
    assert capsys.readouterr().err == ""
    assert store.query("SELECT event FROM late.events") == [{"event": "run_started"}]


def until(condition: Callable[[], Any], within_s: float = 60, every_s: float = 0.02) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(every_s)


PLAN = """
name: killed
targets: [{{name: a, url: "{url}/v1", dialect: openai-chat, model: m}}]
prompts: {{kind: synthetic, input_tokens: 20, output_tokens: 5}}
stages: [{{name: s, arrivals: {{kind: constant, rate: 20}}, duration_s: 60}}]
"""


def test_a_run_whose_driver_was_killed_is_listed(simulator: str, tmp_path: Path) -> None:
    """With its store's server: the rows that it had acknowledged are there."""
    (tmp_path / "plan.yaml").write_text(PLAN.format(url=simulator))
    program = str(Path(sys.executable).with_name("loadtest"))
    at = ["--store", str(tmp_path / "store")]
    driver = subprocess.Popen(
        [program, "run", str(tmp_path / "plan.yaml"), "--quiet", "--out", str(tmp_path / "out"), *at]
    )
    with open_store(str(tmp_path / "store")) as store:  # not by the command: it would be asked very often
        store.migrate()
        until(lambda: [run.going_on for run in history.listed(store)] == [True], every_s=0.5)
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        until(lambda: [run.going_on for run in history.listed(store)] == [False], every_s=0.5)
    listed = subprocess.run([program, "runs", *at], capture_output=True, text=True, check=True).stdout
    assert "killed" in listed
    assert "its driver was lost" in listed
