"""Locust files on the fleet, with Locust's own master and workers: what Locust counts is what is stored, row for row."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.client import RemoteDisconnected
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import requests

from loadtest.account import account
from loadtest.detach import new_run_id
from loadtest.errors import Interrupted, PlanError, RunFailed
from loadtest.locustfiles import options
from loadtest.locustfiles.names import named
from loadtest.locustfiles.options import Options
from loadtest.locustfiles.outcomes import outcome
from loadtest.locustfiles.session import LOOPBACK, Load
from loadtest.run import Interrupts, LocalFleet, Snapshot
from loadtest.store import Store
from loadtest.validity import Account, Facts, validity
from tests.test_run import adds_up

HELPER = """
def path_of(user): return "/fast?user=" + user.environment.parsed_options.who
"""
EVERYTHING = """
import time
from xmlrpc.client import Fault, ServerProxy
from locust import FastHttpUser, HttpUser, User, between, constant, events, tag, task
from helper import path_of

@events.init_command_line_parser.add_listener
def _(parser): parser.add_argument("--who", default="nobody")

class Plain(HttpUser):
    wait_time = between(0.01, 0.05)
    @task(5)
    def hello(self): self.client.get("/hello?n=1")
    @task
    def fails(self): self.client.post("/error")
    @task
    def lost(self): self.client.get("/missing", name="lost things")
    @tag("never")
    @task(50)
    def tagged(self): self.client.get("/never")

class Fast(FastHttpUser):
    wait_time = constant(0.02)
    @task
    def world(self): self.client.get(path_of(self), name="/fast")
    @task
    def checked(self):
        with self.client.get("/hello", name="/checked", catch_response=True) as answer:
            answer.failure("not what I wanted") if answer.text == "hello" else answer.success()
    @task
    def forgiven(self):
        with self.client.get("/error", name="/forgiven", catch_response=True) as answer: answer.success()
    @task
    def nobody(self): self.client.get("http://127.0.0.1:9/", name="/refused")

class Rpc(User):
    fixed_count = 1
    wait_time = constant(0.05)
    @task
    def call(self):
        begun, failed = time.perf_counter(), None
        try: ServerProxy(self.host).answer()
        except Fault as e: failed = e
        self.environment.events.request.fire(request_type="xmlrpc", name="answer", response_length=0, exception=failed,
            response_time=(time.perf_counter() - begun) * 1000, context={})
    @task
    def odd(self):
        self.environment.events.request.fire(request_type="odd", name="odd", response_time=None, response_length=0,
            exception=None, response=ServerProxy(self.host), start_time="now", url=object())
    @task
    def broken(self): raise LookupError("of the author")
"""
SHAPED = """
from locust import FastHttpUser, LoadTestShape, constant, task
class Quick(FastHttpUser):
    wait_time = constant(0.05)
    @task
    def hello(self): self.client.get("/hello")
class Steps(LoadTestShape):
    def tick(self): return None if self.get_run_time() > 3 else (2 if self.get_run_time() < 1 else 4, 10)
"""
SLOW = """
from locust import HttpUser, task
class Patient(HttpUser):
    @task
    def slow(self): self.client.get("/slow", name="slow")
"""
STEADY = """
from locust import FastHttpUser, constant, task
class Quick(FastHttpUser):
    wait_time = constant(0.02)
    @task
    def hello(self): self.client.get("/hello")
"""


class Server(ThreadingHTTPServer):
    """Counts what it was asked for, by method and path."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: Counter[str] = Counter()
        self.lock = threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        with self.server.lock:
            self.server.asked[f"{self.command} {path}"] += 1
        if path == "/slow":
            time.sleep(20)
        body = (self.rfile.read(int(self.headers["Content-Length"] or 0)) and b"hello") or b"hello"
        status = {"/error": 500, "/missing": 404}.get(path, 200)
        if path == "/RPC2":
            body = (
                b"<?xml version='1.0'?><methodResponse><fault><value><struct><member><name>faultCode</name><value><int>4"
                b"</int></value></member><member><name>faultString</name><value>no</value></member></struct></value>"
                b"</fault></methodResponse>"
            )
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "text/xml" if path == "/RPC2" else "text/plain")
        self.send_header("X-Request-Id", "r-1")
        self.end_headers()
        with contextlib.suppress(BrokenPipeError):
            self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as served:
        thread = threading.Thread(target=served.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield served
        served.shutdown()
        thread.join()


def asked_for(tmp_path: Path, text: str, server: Server, **more: Any) -> Options:
    path = tmp_path / "locustfile.py"
    path.write_text(text)
    (tmp_path / "helper.py").write_text(HELPER)
    return Options(locustfile=path, host=server.url, **{"users": 6, "spawn_rate": 100.0, "workers": 1, **more})


def drive(
    asked: Options,
    store: Store,
    tmp_path: Path,
    act: Callable[[Snapshot], None] = lambda _: None,
    interrupts: Interrupts | None = None,
) -> tuple[Snapshot, Account]:
    out = tmp_path / "out"
    out.mkdir(parents=True)
    load = Load(asked, new_run_id(), LOOPBACK, LocalFleet, store.address, out, lambda _: None)
    snapshot = load.drive(act, interrupts or Interrupts())
    stored = store.query("SELECT count() AS n FROM requests WHERE run = {run:String}", {"run": snapshot.run})
    return snapshot, account(snapshot, stored[0]["n"])


def rows(store: Store, snapshot: Snapshot, columns: str = "*", more: str = "") -> list[dict[str, Any]]:
    return store.query(f"SELECT {columns} FROM attempts WHERE run = {{run:String}} {more}", {"run": snapshot.run})


def locusts_table(path: Path) -> dict[str, tuple[int, int]]:
    """Locust's own count of requests and failures, by name."""
    return {
        f"{row['method']} {row['name']}": (row["num_requests"], row["num_failures"])
        for row in json.loads(path.with_suffix(".json").read_text())
    }


def by_target(store: Store, snapshot: Snapshot) -> dict[str, tuple[int, int]]:
    found = rows(store, snapshot, "target, count() AS n, countIf(error != '') AS failed", "GROUP BY target")
    return {row["target"]: (row["n"], row["failed"]) for row in found}


def test_each_request_of_an_unmodified_file_is_a_row(store: Store, server: Server, tmp_path: Path) -> None:
    own = tmp_path / "locust"
    asked = asked_for(
        tmp_path, EVERYTHING, server, workers=2, run_time="2s", exclude_tags=["never"],
        more=["--json-file", str(own), "--who", "sk-secret-of-the-author"],
    )  # fmt: skip
    handed_on: list[Snapshot] = []  # as to `loadtest attach`
    snapshot, booked = drive(
        asked,
        store,
        tmp_path,
        lambda s: handed_on.append(msgspec.msgpack.decode(msgspec.msgpack.encode(s), type=Snapshot)),
    )
    table = locusts_table(own)
    assert {target.name for target in named(handed_on[-1]).plan.targets} == set(table)
    assert by_target(store, snapshot) == table
    assert set(table) == {
        "GET /hello?n=1", "POST /error", "GET lost things", "GET /fast", "GET /checked", "GET /forgiven", "GET /refused",
        "xmlrpc answer", "odd odd",
    }  # fmt: skip
    assert adds_up(booked)
    assert booked.integrity.sent == booked.integrity.stored == sum(n for n, _ in table.values()) > 100
    assert server.asked["GET /fast"] == table["GET /fast"][0]
    assert booked.integrity.unknown == booked.integrity.missed == 0
    assert {s.worker for s in snapshot.hosts if s.read} == {0, 1}
    assert snapshot.plan.targets[0].name == "GET /checked", "in the order of Locust's table"

    errors = rows(
        store, snapshot, "target, error, any(fault) AS fault, any(status) AS status", "GROUP BY target, error"
    )
    assert {row["target"]: (row["error"], row["fault"], row["status"]) for row in errors} == {
        "GET /hello?n=1": ("", "", 200), "GET /fast": ("", "", 200), "GET /forgiven": ("", "", 500),
        "POST /error": ("http_5xx", "endpoint", 500), "GET lost things": ("http_4xx", "client", 404),
        "GET /checked": ("failed", "endpoint", 200), "GET /refused": ("connect", "network", None),
        "xmlrpc answer": ("failed", "endpoint", None), "odd odd": ("", "", None),
    }  # fmt: skip
    detail = {
        row["target"]: row["d"] for row in rows(store, snapshot, "target, any(error_detail) AS d", "GROUP BY target")
    }
    assert detail["GET /checked"] == "not what I wanted"
    assert detail["xmlrpc answer"] == "Fault: <Fault 4: 'no'>"
    assert any("raised LookupError" in problem for host in snapshot.hosts for problem in host.problems)
    _facts_are_facts(rows(store, snapshot))
    assert "sk-secret" not in options.record(asked, snapshot.plan)
    attached = msgspec.structs.replace(asked, more=["--who=sk-secret", "-wsk-secret", "-w=sk-secret"])
    recorded = msgspec.yaml.decode(options.record(attached, snapshot.plan))
    assert recorded["locustfile"]["options"] == ["--who", "-w", "-w"]


def _facts_are_facts(found: list[dict[str, Any]]) -> None:
    """What Locust's event does not carry is not there."""
    assert len({(row["seq"], row["target"]) for row in found}) == len({row["seq"] for row in found}) == len(found)
    for row in found:
        assert (row["streamed"], row["clock"], row["token_source"]) == (False, "user", "unknown")
        assert row["chunk_offset_ns"] == []
        assert row["first_byte_ns"] is row["output_tokens"] is row["due_ns"] is None
        if row["target"] == "odd odd":
            assert row["sent_ns"] is None, "it had no response time"
            continue
        assert row["started_ns"] == row["sent_ns"] < row["done_ns"]
        assert (row["stage"], row["kind"]) == ("load", "load")
        assert row["operation"] == ("xmlrpc" if row["target"].startswith("xmlrpc") else "http")
        assert row["request_id"] == ("r-1" if row["status"] else "")


def test_a_shape_ends_the_run_and_a_killed_worker_is_told(store: Store, server: Server, tmp_path: Path) -> None:
    own = tmp_path / "locust"
    asked = asked_for(tmp_path, SHAPED, server, users=None, spawn_rate=None, workers=2, more=["--json-file", str(own)])
    killed: list[int] = []

    def kill_one(snapshot: Snapshot) -> None:
        old_enough = snapshot.times and snapshot.now_ns - snapshot.times[0].start_ns > 5e8
        if old_enough and not killed and all(host.read for host in snapshot.hosts):
            killed.append(snapshot.hosts[0].pid)
            os.kill(snapshot.hosts[0].pid, signal.SIGKILL)

    snapshot, booked = drive(asked, store, tmp_path, kill_one)
    assert killed
    assert adds_up(booked)
    assert booked.generator.workers_restarted == 1
    assert not snapshot.interrupted
    reasons = {reason.partition(":")[0] for reason in validity(Facts(account=booked)).reasons}
    assert "worker_lost" in reasons
    i = booked.integrity
    assert i.stored <= server.asked["GET /hello"]
    assert 0 <= i.lost <= 2, "its two users had one request each in flight"
    found = rows(store, snapshot, "seq, worker")
    assert len({row["seq"] for row in found}) == len(found), "the restarted worker numbers on"
    assert sum(n for n, _ in locusts_table(own).values()) <= i.stored, (
        "what it had not yet told Locust's master is a row"
    )


def test_what_an_endpoint_never_answered_shows(store: Store, server: Server, tmp_path: Path) -> None:
    """Locust's event would not tell of it: its users are killed in the middle."""
    asked = asked_for(tmp_path, SLOW, server, users=3)
    interrupts, seen = Interrupts(), []

    def interrupt_once_in_flight(snapshot: Snapshot) -> None:
        seen.append(sum(count.in_flight for host in snapshot.hosts for s in host.stages for count in s.targets))
        if seen[-1] == 3 and interrupts.count < 2:
            interrupts.count += 1

    snapshot, booked = drive(asked, store, tmp_path, interrupt_once_in_flight, interrupts)
    assert snapshot.interrupted
    assert max(seen) == 3
    assert adds_up(booked)
    assert by_target(store, snapshot) == {"GET slow": (3, 3)}
    assert {row["error"] for row in rows(store, snapshot, "error")} == {"cancelled"}


def test_an_interrupt_before_the_load_ends_at_once(store: Store, server: Server, tmp_path: Path) -> None:
    interrupts = Interrupts()
    interrupts.count = 1
    with pytest.raises(Interrupted, match="nothing was sent"):
        drive(asked_for(tmp_path, STEADY, server, workers=2), store, tmp_path, interrupts=interrupts)
    assert not server.asked


def test_tests_started_on_locusts_page_are_stages(store: Store, server: Server, tmp_path: Path) -> None:
    asked = asked_for(tmp_path, STEADY, server, web=True)
    interrupts = Interrupts()
    started, stopped = [0], [0]

    def by_hand(snapshot: Snapshot) -> None:
        page = next((note.split()[1] for note in snapshot.notes if note.startswith("page ")), "")
        requests = sum(count.done for host in snapshot.hosts for s in host.stages for count in s.targets)
        if snapshot.phase == "running" and stopped[0] < started[0] and requests > 20 * started[0]:
            stopped[0] += httpx.post(f"{page}/stop", timeout=20).json()["success"]
        elif snapshot.phase == "waiting" and page and started[0] == stopped[0] == len(snapshot.times) < 2:
            form = {"user_count": "2", "spawn_rate": "10", "host": server.url}
            started[0] += httpx.post(f"{page}/swarm", data=form).json()["success"]
        elif snapshot.phase == "waiting" and stopped[0] == 2:
            interrupts.count = 1

    snapshot, booked = drive(asked, store, tmp_path, by_hand, interrupts)
    assert adds_up(booked)
    assert not snapshot.interrupted
    found = rows(store, snapshot, "stage, count() AS n", "GROUP BY stage ORDER BY stage")
    assert [row["stage"] for row in found] == ["load", "load-2"]
    assert sum(row["n"] for row in found) == server.asked["GET /hello"] == booked.integrity.sent


@pytest.mark.parametrize(
    ("text", "more", "says"),
    [
        ("import nothing_like_it", [], "No module named 'nothing_like_it'"),
        ("x = 1", [], "No User class found"),
        (STEADY.replace('self.client.get("/hello")', "pass"), ["--run-time", "1"], "the locustfile made no request"),
        (STEADY, ["--host", ""], "You must specify the base host"),
        (STEADY, ["--whom", "me"], "unrecognized arguments: --whom"),
    ],
)
def test_a_file_that_cannot_run_sends_nothing(
    text: str, more: list[str], says: str, store: Store, server: Server, tmp_path: Path
) -> None:
    with pytest.raises(RunFailed, match=says):
        drive(asked_for(tmp_path, text, server, more=more), store, tmp_path)
    assert not server.asked


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"run_time": "soon"}, "--run-time is 'soon'; write seconds"),
        ({"more": ["--processes", "4"]}, "--processes cannot be given"),
        ({"more": ["-u", "4"]}, "write --users before it"),
        ({"locustfile": Path("plan.yaml")}, "plan.yaml does not exist"),
        ({"slos": ["e2e p99 5"]}, "--slo 'e2e p99 5': metric is 'e2e'; did you mean e2e_ms"),
        ({"slos": ["e2e_ms 5"]}, "stat is missing"),
        ({"slos": ["error_rate low"]}, "write a metric, a stat and a limit"),
    ],
)
def test_a_wrong_call_is_refused(more: dict[str, Any], says: str) -> None:
    with pytest.raises(PlanError, match=says):
        options.check(Options(**{"locustfile": Path(__file__), **more}))


INFERENCE = """
from locust import constant, task
from loadtest import InferenceUser
class Chat(InferenceUser):
    model, key, wait_time = "sim-8b", "env:TEST_LOCUST_KEY", constant(0.02)
    @task
    def ask(self):
        answer = self.client.chat("What is a locust?", max_tokens=6, temperature=0.2)
        assert answer.error is None and answer.output_tokens == 6 == len(answer.chunk_ms), answer.result
        assert 0 < answer.ttft_ms == answer.chunk_ms[0] <= answer.e2e_ms and len(answer.text.split()) >= 3, answer.text
    @task
    def complete(self): self.client.complete("Once upon a time", max_tokens=3, name="story")
    @task
    def checked(self):
        with self.client.chat("x", max_tokens=2, name="checked", catch_response=True) as answer: answer.failure("too short")
    @task
    def refused(self): self.client.chat("x", model="", name="fault", simulate={"status": 429})
"""
KEY = "sk-locust-8Dk2mZq7"


def test_inference_users_have_the_whole_timeline(
    store: Store, simulator: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "locustfile.py"
    path.write_text(INFERENCE)
    asked = Options(locustfile=path, host=f"{simulator}/v1", users=4, spawn_rate=100, run_time="2s")
    with pytest.raises(PlanError, match="TEST_LOCUST_KEY is empty or not there"):
        drive(asked, store, tmp_path / "1")
    monkeypatch.setenv("TEST_LOCUST_KEY", KEY)
    snapshot, booked = drive(asked, store, tmp_path / "2")
    assert adds_up(booked)
    assert not [problem for host in snapshot.hosts for problem in host.problems], "each answer was as its task expects"
    found = rows(store, snapshot, "*, first_token_ns, last_token_ns")
    assert len(found) == booked.integrity.sent > 20
    for row in found:
        expected = {"chat sim-8b": 6, "text_completion story": 3, "chat checked": 2, "chat fault": None}[row["target"]]
        assert row["output_tokens"] == expected
        assert len(row["chunk_offset_ns"]) >= (expected or 0)
        assert (row["clock"], row["streamed"], row["seq"] >= 0) == ("kernel", True, True)
        failed = {"chat checked": "failed", "chat fault": "rate_limited"}.get(row["target"], "")
        assert row["error"] == failed
        assert row["model"] == "sim-8b"
        assert row["operation"] in row["target"]
        if expected:
            assert 0 < row["first_token_ns"] <= row["last_token_ns"] <= row["done_ns"] - row["sent_ns"]
    assert not [file for file in (tmp_path / "2").rglob("*") if file.is_file() and KEY.encode() in file.read_bytes()]


TEAM = """
from locust import constant, task
from loadtest import InferenceUser
class Keyed(InferenceUser):
    abstract, model, wait_time, expects = True, "sim-8b", constant(0.02), "of-team"
    key = "file:key"
    @task
    def ask(self):
        assert self.own_secret() == self.expects, self.expects
        self.client.chat("x", max_tokens=2, name=type(self).__name__)
"""
TEAMS = """
from team import Keyed
class Theirs(Keyed): pass
class Ours(Keyed):
    key, expects = "file:key", "of-us"
"""


def test_a_key_is_beside_the_file_that_names_it(store: Store, simulator: str, tmp_path: Path) -> None:
    """Two files of the same relative path are two keys."""
    (tmp_path / "team").mkdir()
    (tmp_path / "team" / "__init__.py").write_text(TEAM)
    (tmp_path / "team" / "key").write_text("of-team")
    (tmp_path / "key").write_text("of-us")
    (tmp_path / "locustfile.py").write_text(TEAMS)
    asked = Options(
        locustfile=tmp_path / "locustfile.py", host=f"{simulator}/v1", users=4, spawn_rate=100, run_time="1s"
    )
    snapshot, _ = drive(asked, store, tmp_path / "out")
    assert not [problem for host in snapshot.hosts for problem in host.problems]
    assert {row["target"] for row in rows(store, snapshot, "target")} == {"chat Ours", "chat Theirs"}


def test_what_the_master_cannot_make_of_a_user_is_said_at_once(store: Store, server: Server, tmp_path: Path) -> None:
    text = INFERENCE.replace('"env:TEST_LOCUST_KEY"', "5")
    with pytest.raises(RunFailed, match="Locust's master: AttributeError: 'int' object"):
        drive(asked_for(tmp_path, text, server), store, tmp_path)


UNTIL_THREE = """
import gevent
from locust import events
seen = []
@events.request.add_listener
def _(request_type, name, **_):
    if (request_type, name) == ("TTFT", "turn 1"): seen.append(name)
@events.init.add_listener
def _(environment, **_): gevent.spawn(wait, environment.runner)
def wait(runner):
    while len(seen) < 3: gevent.sleep(0.02)
    runner.quit()
"""


def test_the_example_runs_under_plain_locust_too(simulator: str, tmp_path: Path) -> None:
    locust = Path(sys.executable).with_name("locust")
    example = Path(__file__).parent.parent / "examples" / "locustfile.py"
    (tmp_path / "until.py").write_text(UNTIL_THREE)
    done = subprocess.run(
        [
            locust, "-f", f"{example},until.py", "--headless", "-u", "8", "-r", "50", "-t", "80s", "-H", f"{simulator}/v1",
            "--json",
        ],
        capture_output=True, text=True, cwd=tmp_path, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    table = {(row["method"], row["name"]): row["num_requests"] for row in json.loads(done.stdout)}
    assert table["chat", "turn 1"] == table["TTFT", "turn 1"] >= 3, table


class CatchResponseError(Exception):
    """Locust's own is known by its name: to import Locust here would monkey-patch the tests."""


def wrapped(*causes: BaseException) -> BaseException:
    """Each in the arguments of the one before it, as requests and urllib3 do."""
    *outer, inner = causes
    for one in reversed(outer):
        one.args = (*one.args, inner)
        inner = one
    return inner


@pytest.mark.parametrize(
    ("exception", "status", "word"),
    [
        (None, 500, None),
        (CatchResponseError("too slow"), 200, "failed"),
        (CatchResponseError("too slow"), 503, "overloaded"),
        (requests.HTTPError("429 Client Error"), 429, "rate_limited"),
        (requests.ConnectTimeout("timed out"), None, "timeout_connect"),
        (requests.ReadTimeout("read timed out"), None, "timeout_idle"),
        (requests.exceptions.SSLError("certificate verify failed"), None, "tls"),
        (requests.TooManyRedirects("Exceeded 30 redirects"), None, "redirect"),
        (requests.exceptions.ChunkedEncodingError("broken"), None, "truncated"),
        (wrapped(requests.ConnectionError(), ConnectionRefusedError(111, "refused")), None, "connect"),
        (wrapped(requests.ConnectionError(), socket.gaierror(-2, "not known")), None, "dns"),
        (wrapped(requests.ConnectionError(), RemoteDisconnected("closed")), None, "truncated"),
        (wrapped(requests.ConnectionError(), ConnectionResetError(104, "reset")), None, "reset"),
        (wrapped(requests.ConnectionError(), OSError(24, "Too many open files")), None, "generator"),
        (wrapped(requests.ConnectionError(), OSError(113, "No route to host")), None, "connect"),
        (TimeoutError("timed out"), None, "timeout_total"),
        (KeyError("of a client nobody knows"), None, "failed"),
        ("words and no exception", None, "failed"),
    ],
)
def test_what_a_client_met_has_its_word(exception: Any, status: int | None, word: str | None) -> None:
    found, detail = outcome(exception, status)
    assert found == word
    assert bool(detail) == bool(word)


def test_a_query_and_credentials_in_a_clients_words_are_kept_nowhere() -> None:
    found = requests.HTTPError("404 Client Error: Not Found for url: https://me:pw@host:80/x?key=sk-secret&n=1")
    assert outcome(found, 404)[1] == "HTTPError: 404 Client Error: Not Found for url: https://...host:80/x?..."
    found = requests.ConnectionError(
        "HTTPPool(host='h', port=80): Max retries exceeded with url: /x?key=sk-secret (Caused by)"
    )
    assert outcome(found, None)[1].endswith("with url: /x?... (Caused by)")
    by_author = type("CatchResponseError", (Exception,), {})("is it /x?a=1")
    assert outcome(by_author, 200)[1] == "is it /x?a=1"


@pytest.mark.parametrize("key", ["sk-secret", "user:sk-secret"])
def test_a_key_in_place_of_a_reference_is_refused_and_not_quoted(
    key: str, store: Store, server: Server, tmp_path: Path
) -> None:
    text = INFERENCE.replace("env:TEST_LOCUST_KEY", key)
    with pytest.raises(PlanError, match="must be env:NAME or file:PATH") as refused:
        drive(asked_for(tmp_path, text, server), store, tmp_path)
    assert "sk-secret" not in str(refused.value)
    assert not server.asked


def test_the_command_judges_and_reports(server: Server, tmp_path: Path) -> None:
    path = asked_for(tmp_path, STEADY, server).locustfile
    done = subprocess.run(
        [
            Path(sys.executable).with_name("loadtest"), "run", "-f", path, "-u", "2", "-r", "10", "-t", "2s", "-H", server.url,
            "--slo", "e2e_ms p50 0.001", "--slo", "error_rate 0.5 @ GET /nobody-asks-for", "--quiet",
            "--store", "store", "--out", "out",
        ],
        cwd=tmp_path, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode in (1, 3), done.stderr  # 3: a busy machine
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    outcomes = {(slo["metric"], slo["target"]): slo["outcome"] for slo in summary["slos"]}
    assert outcomes["e2e_ms", "GET /hello"] == "breached"
    assert outcomes["error_rate", "GET /nobody-asks-for"] == "undecided"
    [unseen] = [slo for slo in summary["slos"] if slo["target"] == "GET /nobody-asks-for"]
    assert unseen["advice"] == "no request had the name GET /nobody-asks-for; names seen: GET /hello"
    assert list(summary["targets"]) == ["GET /hello"], "what no request was sent to is no target"
    assert summary["locustfile"]["file"] == "locustfile.py"
    assert summary["targets"]["GET /hello"]["requests"] == server.asked["GET /hello"] > 0
    report = (tmp_path / "out/report.html").read_text()
    assert unseen["advice"] in report
    assert "loadtest run --locustfile locustfile.py --users 2" in report
    assert "user space: an answer's time" in report
    assert "Do the targets differ" not in report, "names of requests are not rivals"
