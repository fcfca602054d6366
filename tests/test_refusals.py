"""A plan that is refused by everything it is sent to: the run ends early, says why, and loses nothing."""

import contextlib
import itertools
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import pytest

from loadtest.frames import Unpacker, decode_frame
from loadtest.host import Sample, _sample
from loadtest.refusals import LEAST_S, PATIENCE_S, Refusals
from loadtest.report.summary import summary
from loadtest.run import Snapshot
from loadtest.session import record
from loadtest.simulator import Profile, start
from loadtest.store import Store
from loadtest.types import Plan, Result, Target
from tests.test_cli import Place
from tests.test_run import Watched, adds_up, drive, make_plan

QUICK = Profile(name="guarded", decode_base_ms=1, decode_per_sequence_ms=0.01, default_output_tokens=4)


@contextlib.contextmanager
def port_where_nobody_listens() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def test_a_wrong_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a plan of ten minutes nobody sends more than the first seconds; the report has it all."""
    monkeypatch.setenv("GUARD", "sk-the-right-one")
    place = Place(tmp_path)
    with start(QUICK, key="env:GUARD") as url:
        status, out, err = place.run("run", "--quiet", place.plan(url, rate=20, duration_s=600))
    assert (status, err) == (3, ""), out
    [run] = (tmp_path / "runs").iterdir()
    figures = msgspec.json.decode((run / "summary.json").read_bytes())
    [reason] = [r for r in figures["validity"]["reasons"] if r.startswith("refused: ")]
    assert "a: HTTP 401 from every request: is its key env:TEST_KEY right?" in reason
    assert "Incorrect API key provided" in reason
    assert "is its key env:TEST_KEY right?" in " ".join(out.split())
    integrity = figures["integrity"]
    assert 30 < integrity["sent"] < 20 * 60
    assert integrity["scheduled"] == integrity["sent"] == integrity["stored"]
    assert place.run("report", "--check", "--format", "json")[0] == 3
    _, listed, _ = place.run("runs")
    cells = listed.splitlines()[-1].split()
    assert (cells[0], cells[5], cells[-2:]) == (run.name, str(integrity["stored"]), ["100%", "INVALID"])


def test_each_way_of_being_refused_and_one_target_that_answers(simulator: str, store: Store, tmp_path: Path) -> None:
    warm = "name: warm, arrivals: {kind: constant, rate: 10}, duration_s: 3, warmup: true"
    plan = make_plan(simulator, warm, "name: peak, arrivals: {kind: constant, rate: 10}, duration_s: 600, drain_s: 60")
    good = plan.targets[0]
    with port_where_nobody_listens() as port:
        targets = [
            good,
            changed(good, "path", url=f"{simulator}/v2"),
            changed(good, "port", url=f"http://127.0.0.1:{port}/v1"),
            changed(good, "name", url="http://nonexistent.invalid/v1"),
            changed(good, "scheme", url=f"{simulator}/v1".replace("http:", "https:")),
            changed(good, "moved", body={"simulate": {"status": 307}}),
            changed(good, "body", body={"simulate": {"status": 400}}),
            changed(good, "busy", body={"simulate": {"status": 429}}),
        ]
        plan = msgspec.structs.replace(plan, targets=targets, validity={"refused": 20})
        snapshot, booked = drive(plan, store, tmp_path)
    assert adds_up(booked)
    assert booked.integrity.sent == booked.integrity.stored == booked.integrity.scheduled
    assert booked.integrity.sent < 8 * 10 * 60
    ended_for = {refusal.target for refusal in snapshot.refusals}
    found = {r.target: r for r in Refusals(plan).found(samples(tmp_path, snapshot))}
    assert ended_for, "the run was not ended"
    assert ended_for <= found.keys() == {"path", "port", "name", "scheme", "moved", "body"}
    for target, says in {
        "path": f"path: HTTP 404 from every request: is its url right (requests went to POST {simulator}/v2/chat/completions)",
        "port": f"port: connect from every request: are host and port of its url http://127.0.0.1:{port}/v1 right",
        "name": "name: dns from every request: is the host's name in its url http://nonexistent.invalid/v1 right",
        "scheme": "scheme: tls from every request: is its url https://127.0.0.1",
        "moved": "moved: HTTP 307 from every request: write the url that POST",
        "body": "body: HTTP 400 from every request: does the endpoint take its body and prompts of this length",
    }.items():
        assert found[target].says.startswith(says)
    assert f"127.0.0.1:{port} cannot be reached" in found["port"].says
    record(store, snapshot, booked)
    told = summary(store, snapshot.run)
    broken = {each["rule"] for each in told["validity"]["rules"] if each["value"] > each["limit"]}
    assert "refused" in broken
    assert "cancelled" not in broken


def changed(target: Target, name: str, **facts: object) -> Target:
    return msgspec.structs.replace(target, name=name, **facts)


def samples(directory: Path, snapshot: Snapshot) -> list[Sample]:
    """Of all results that the run's one worker handed over."""
    data = (directory / f"worker-{snapshot.hosts[0].worker}.frames").read_bytes()
    frames = map(decode_frame, Unpacker().feed(data))
    return [_sample(frame) for frame in frames if isinstance(frame, Result)]


def test_an_endpoint_that_fails_later_is_measured(store: Store, tmp_path: Path) -> None:
    """It answers, and then is gone: the run goes on to its end, and its figures say so."""
    with contextlib.ExitStack() as provider:
        url = provider.enter_context(start(QUICK))
        plan = make_plan(
            url,
            "name: before, arrivals: {kind: constant, rate: 20}, duration_s: 0.5",
            "name: after, arrivals: {kind: constant, rate: 20}, duration_s: 7",
            validity={"refused": 10},
        )

        def leave(snapshot: Snapshot) -> None:
            if snapshot.stage == 1:
                provider.close()

        snapshot, booked = drive(plan, store, tmp_path, view=Watched(leave))
    assert not snapshot.refusals
    assert booked.integrity.sent == 2 * 20 * 7.5
    assert adds_up(booked)
    gone = "SELECT countIf(error = 'connect') AS n FROM requests WHERE run = {run:String}"
    assert store.query(gone, {"run": snapshot.run})[0]["n"] > 200


@contextlib.contextmanager
def every_second_is_refused(until: threading.Event) -> Iterator[str]:
    """At once, by 400; the others begin to answer, and end once `until` is set."""
    turn = itertools.count()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            if next(turn) % 2:
                self.send_error(400)
                return
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            self.wfile.write(b'data: {"choices": [{"delta": {"content": "a"}}]}\n\n')
            assert until.wait(60)
            self.wfile.write(b"data: [DONE]\n\n")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            until.set()
            server.shutdown()
            thread.join()


def test_long_answers_beside_quick_refusals_are_waited_for(store: Store, tmp_path: Path) -> None:
    """All that has ended was refused, for longer than it takes to be ended: what is being answered has not ended yet."""
    all_sent = threading.Event()

    def let_them_end(snapshot: Snapshot) -> None:
        if snapshot.phase == "draining":
            all_sent.set()

    with every_second_is_refused(all_sent) as url:
        stage = f"name: s, arrivals: {{kind: constant, rate: 20}}, duration_s: {LEAST_S + 2}, drain_s: 30"
        plan = make_plan(url, stage)
        plan = msgspec.structs.replace(plan, targets=plan.targets[:1])
        snapshot, booked = drive(plan, store, tmp_path, view=Watched(let_them_end))
    assert not snapshot.refusals
    assert booked.integrity.sent == booked.integrity.stored == 20 * (LEAST_S + 2)
    ends = (
        "SELECT toString(error) AS end, count() AS n FROM requests WHERE run = {run:String} GROUP BY end ORDER BY end"
    )
    assert store.query(ends, {"run": snapshot.run}) == [{"end": "", "n": 70}, {"end": "http_4xx", "n": 70}]


# On samples made by hand


def sample(
    at_s: float, error: str | None = "http_4xx", status: int | None = 401, detail: str = "HTTP 401: no"
) -> Sample:
    return Sample("a", "peak", round(at_s * 1e9), None, 1.0, None, 0, error, status, detail)


def refused(count: int, over_s: float = LEAST_S) -> list[Sample]:
    return [sample(1 + over_s * i / (count - 1)) for i in range(count)]


@pytest.fixture
def plan() -> Plan:
    return make_plan("http://h", "name: peak, arrivals: {kind: constant, rate: 10}, duration_s: 600")


def test_how_many_and_how_long(plan: Plan) -> None:
    assert Refusals(plan).found(refused(30)) == []
    assert Refusals(plan).found(refused(1000, LEAST_S - 0.1)) == []
    [refusal] = Refusals(plan).found(refused(31))
    assert (refusal.target, refusal.stage, refusal.requests) == ("a", "peak", 31)
    assert refusal.says == "a: HTTP 401 from every request: it has no key: does it need one (key: env:NAME)? The first ended with: HTTP 401: no"  # fmt: skip  # noqa: E501


@pytest.mark.parametrize("took_s", [0.001, 3])
def test_what_is_in_flight_for_longer_than_a_refusal_takes_may_be_let_in(plan: Plan, took_s: float) -> None:
    """The seconds count anew from when it is not in flight any more: its end comes to be known later."""
    all_refused = [msgspec.structs.replace(each, e2e_ms=took_s * 1e3) for each in refused(61, 2 * LEAST_S)]
    before, after = all_refused[:31], all_refused[31:]
    waited_for = took_s + PATIENCE_S
    assert len(Refusals(plan).found(before, lambda _: waited_for - 0.1)) == 1
    watch = Refusals(plan)
    assert watch.found(before, lambda _: waited_for + 0.1) == []
    assert watch.found(after[:-1]) == []
    [refusal] = watch.found(after[-1:])
    assert refusal.requests == 61


@pytest.mark.parametrize(
    "word", [None, "rate_limited", "overloaded", "http_5xx", "timeout_connect", "reset", "cancelled"]
)
def test_one_that_ended_otherwise_is_enough(plan: Plan, word: str | None) -> None:
    watch = Refusals(plan)
    assert watch.found([sample(0, word, None, "")]) == []
    assert watch.found(refused(1000)) == []


def test_a_probe_and_a_plan_that_wants_it_go_on(plan: Plan) -> None:
    assert Refusals(msgspec.structs.replace(plan, kind="probe")).found(refused(1000)) == []
    assert Refusals(msgspec.structs.replace(plan, validity={"refused": 1000})).found(refused(1000)) == []


def test_what_most_of_them_said(plan: Plan) -> None:
    mixed = [*refused(40), *(sample(2, "redirect", 301, "HTTP 301 to /; x") for _ in range(10))]
    [refusal] = Refusals(plan).found(mixed)
    assert refusal.says.startswith("a: HTTP 401 from 40 of 50 requests: ")
