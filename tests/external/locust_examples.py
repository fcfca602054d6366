"""Locust's own examples, unmodified, on the fleet: make test-locust-examples [EXAMPLES=basic.py]

Each runs for a few seconds with two workers against a server started here; then the rows in the store are held against
Locust's own table, name for name. Prints a Markdown table; ends with 1 if an example that is to run did not.
What an example imports beyond Locust must be importable (PYTHONPATH); what it needs beyond that is not there, and it says so.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil  # of Locust
from msgspec import Struct, field

LOADTEST = Path(sys.executable).with_name("loadtest")
RUN_TIME_S = 6
SHAPE_TIME_S = 14


class Example(Struct):
    path: str
    shape: bool = False  # it would go on for minutes: ended by Ctrl-C
    web: bool = False  # it is its own server, on Locust's page
    options: list[str] = field(default_factory=list)
    host: bool = True  # --host stands in for the example's own
    environment: dict[str, str] = field(default_factory=dict)
    server: str = ""  # a program of the example's own that must run
    requests: bool = True  # it makes some
    runs: bool = True
    note: str = ""


E = Example
EXAMPLES = [
    E("add_command_line_argument.py", options=["--my-argument", "hello"], requests=False),
    E("basic.py"),
    E(
        "bottlenecked_server.py",
        web=True,
        runs=False,
        note="asserts a page of Locust's in each process: Locust itself cannot run it on workers",
    ),
    E("browse_docs_sequence_test.py"),
    E("browse_docs_test.py"),
    E("csrf_form_authentication.py"),
    E("custom_messages.py", requests=False),
    E("custom_shape/double_wave.py", shape=True),
    E("custom_shape/stages.py", shape=True),
    E("custom_shape/staging_user_classes.py", shape=True),
    E("custom_shape/step_load.py", shape=True),
    E("custom_shape/wait_user_count.py", shape=True),
    E("custom_wait_function.py"),
    E("custom_xmlrpc_client/xmlrpc_locustfile.py", host=False, server="custom_xmlrpc_client/server.py"),
    E("debugging.py"),
    E("debugging_advanced.py"),
    E("dispatch_test_scripts/locustfile.py", shape=True),
    E("dns_ex.py", note="asks public DNS servers"),
    E("dynamic_user_credentials.py"),
    E("events.py"),
    E("extend_web_ui.py"),
    E("fast_http_locust.py"),
    E("grpc/locustfile.py", host=False),
    E("locustfile.py"),
    E("manual_stats_reporting.py"),
    E("markov_taskset.py", requests=False),
    E("milvus/locustfile.py", runs=False, note="needs pymilvus and a Milvus"),
    E("mongodb/locustfile.py", runs=False, note="needs pymongo and a MongoDB"),
    E("mqtt/locustfile.py", note="no broker here: each connection fails"),
    E("mqtt/locustfile_custom_mqtt_client.py", note="no broker here: each connection fails"),
    E("multiple_hosts.py", environment={"API_HOST": "{url}"}),
    E("nested_inline_tasksets.py"),
    E("open_closed_workload.py", requests=False),
    E("openai_ex.py", environment={"OPENAI_API_KEY": "none", "OPENAI_BASE_URL": "{url}/v1"}),
    E("postgres/locustfile.py", runs=False, note="needs psycopg and a PostgreSQL"),
    E("qdrant/locustfile.py", runs=False, note="needs qdrant_client and a Qdrant"),
    E("response_validations.py"),
    E("rest.py"),
    E(
        "sdk_session_patching/session_patch_locustfile.py",
        runs=False,
        note="needs archivist, the library that it tests",
    ),
    E("semaphore_wait.py"),
    E("socketio/socketio_ex.py", note="no server of its kind here"),
    E("stop_on_threshold.py"),
    E("terraform/aws/plan/basic.py"),
    E("test_pytest.py", note="goes to www.locust.io by its full URL"),
    E("testdata_from_csv.py"),
    E(
        "testdata_management.py",
        runs=False,
        note="fetches its data from postman-echo.com, with no way to another server",
    ),
    E("use_as_lib.py", runs=False, note="no locustfile: a program that starts Locust itself"),
    E("web_ui_auth/basic.py"),
    E("web_ui_auth/custom_form.py"),
    E("web_ui_cache_stats.py"),
    E("worker_index.py", runs=False, note="needs locust_plugins"),
    E("x-forwarded-for.py"),
]


class Handler(BaseHTTPRequestHandler):
    """Answers what the examples ask for."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        said = self.rfile.read(int(self.headers["Content-Length"] or 0))
        path = self.path.partition("?")[0]
        status, kind, body = 200, "text/html", "<a class='internal' href='/page'>Locust</a>"
        if path in ("/get", "/post"):
            kind, body = (
                "application/json",
                json.dumps({"args": json.loads(said or b"{}"), "data": json.loads(said or b"{}")}),
            )
        elif path == "/authenticate":
            kind, body = "application/json", json.dumps({"message": f"Welcome {json.loads(said)['username']}!"})
        elif path == "/checkout/confirm":
            kind, body = "application/json", json.dumps({"orderId": 42})
        elif path == "/sign-in" and self.command == "GET":
            body = '<form name="authenticity_token" value="t"></form>'
        elif path == "/sign-in":
            status = 302
        elif path == "/v1/responses":
            usage = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
            kind, body = "application/json", json.dumps({"id": "r", "object": "response", "output": [], "usage": usage})
        elif path.startswith(("/does_not_exist", "/error")):
            status = 404
        elif path == "/":
            body = f"<div class='toctree-wrapper'>{body}</div>"
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/welcome")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(b"" if self.command == "HEAD" else body.encode())

    do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = do_OPTIONS = do_GET

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serving() -> Iterator[str]:
    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@contextmanager
def running(program: Path | None) -> Iterator[None]:
    if program is None:
        yield
        return
    process = subprocess.Popen(
        [sys.executable, program], cwd=program.parent, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 20
        while not any(each.status == psutil.CONN_LISTEN for each in psutil.Process(process.pid).net_connections()):
            assert time.monotonic() < deadline, f"{program} listens nowhere"
            time.sleep(0.05)
        yield
    finally:
        process.kill()
        process.wait()


def run(example: Example, root: Path, url: str, place: Path) -> tuple[bool, str]:
    """Whether it ran, and what came of it."""
    file = root / "examples" / example.path
    name = example.path.replace("/", "-").removesuffix(".py")
    out, own = place / name, place / f"{name}-table"
    command = [str(LOADTEST), "run", "--locustfile", str(file), "--users", "6", "--spawn-rate", "10", "--workers", "2"]
    command += ["--stop-timeout", "10", "--quiet", "--store", str(place / "store"), "--out", str(out)]
    command += [] if example.shape else ["--run-time", f"{RUN_TIME_S}s"]
    command += ["--host", url] if example.host and not example.web else []
    command += ["--web", "--host", "http://127.0.0.1:8189"] if example.web else []
    command += ["--", "--json-file", str(own), *example.options]
    command += ["--autostart", "--autoquit", "0", "--web-port", "8189"] if example.web else []
    added = {key: value.format(url=url) for key, value in example.environment.items()}
    with running(root / "examples" / example.server if example.server else None):
        process = subprocess.Popen(
            command, cwd=file.parent, env={**os.environ, **added}, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            said, _ = process.communicate(timeout=SHAPE_TIME_S if example.shape else 90)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            said, _ = process.communicate(timeout=60)
    if not example.requests and "made no request: no user fired" in said:
        return True, f"makes no request, so there is nothing to report: exit status {process.returncode}"
    if not (out / "summary.json").exists():
        return False, said.strip().splitlines()[-1].strip() if said.strip() else f"status {process.returncode}"
    return compared(out, own, process.returncode)


def compared(out: Path, own: Path, status: int) -> tuple[bool, str]:
    summary = json.loads((out / "summary.json").read_text())
    rows = {
        name: target["requests"] - target["errors"].get("cancelled", 0) for name, target in summary["targets"].items()
    }
    table = {
        " ".join(f"{row['method']} {row['name']}".split())[:200]: row["num_requests"]
        for row in json.loads(Path(f"{own}.json").read_text())
    }
    failed = sum(sum(target["errors"].values()) for target in summary["targets"].values())
    same = {name: n for name, n in rows.items() if n} == table
    words = f"{sum(rows.values())} rows, Locust counts {sum(table.values())}; {failed} failed; exit status {status}"
    return same, words


def main() -> int:
    root = Path(sys.argv[1]).resolve()
    chosen = [e for e in EXAMPLES if not sys.argv[2:] or e.path in sys.argv[2:]]
    unexpected: list[str] = []
    print("| example | runs | what came of it |\n|---|---|---|", flush=True)
    with serving() as url, tempfile.TemporaryDirectory(prefix="locust-examples-", ignore_cleanup_errors=True) as place:
        store = subprocess.Popen(
            [LOADTEST, "store", "serve", "--store", f"{place}/store"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            for example in chosen:
                ran, words = run(example, root, url, Path(place))
                unexpected += [example.path] if ran != example.runs else []
                note = f" ({example.note})" if example.note else ""
                print(f"| `{example.path}` | {'yes' if ran else 'no'} | {words}{note} |", flush=True)
        finally:
            store.send_signal(signal.SIGINT)
            store.wait(60)
    for path in unexpected:
        print(f"{path}: not as expected", file=sys.stderr)
    return 1 if unexpected else 0


if __name__ == "__main__":
    sys.exit(main())
