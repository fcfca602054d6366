"""deploy/, executed: every command, configuration and health check of compose.yaml that a program can be had for here.

`make containers` builds what this needs: .venv-image from the image's lock file, and the Collector and the compose
specification's own validator with Go. ClickHouse is stood in for by the embedded engine (store.py); Grafana and
dcgm-exporter cannot be had.
"""

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.containers.native import IMAGE, ROOT, Container, Network, compose, started, until

TOOLS = ROOT / ".tools/bin"
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root"),
    pytest.mark.skipif(not (IMAGE / "bin/ray").exists(), reason="no .venv-image; make containers makes it"),
    pytest.mark.timeout(400),
]
GET = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=10).read().decode())"
STATUS = """
import sys, urllib.request as u, urllib.error as e
try: print(u.urlopen(sys.argv[1], timeout=10).status)
except e.HTTPError as error: print(error.code)
"""
SEND = """
import sys, urllib.request as u
for path in ("traces", "metrics", "logs"):
    body = open(f"/otlp/{path}.json", "rb").read()
    request = u.Request(f"http://collector:4318/v1/{path}", body, {"content-type": "application/json"})
    print(u.urlopen(request, timeout=10).read().decode())
"""


class Stack:
    """The services that are up, and the store asked as a user would."""

    def __init__(self, network: Network, secrets: Path, plans: Path, running: ExitStack) -> None:
        self.network = network
        self.secrets = secrets
        self.plans = plans
        self.up: dict[str, Container] = {}
        self._running = running

    def start(self, service: str, **more: Any) -> Container:
        name = more.get("at") or service
        self.up[name] = self._running.enter_context(started(self.network, service, self.secrets, **more))
        return self.up[name]

    def submit(self, name: str, entrypoint: str, *options: str) -> "subprocess.CompletedProcess[str]":
        return self.job("submit", "--submission-id", name, *options, "--", *entrypoint.split())

    def job(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """As KubeRay's submitter does: by HTTP, from another pod, with the token in its environment."""
        verb, *rest = arguments
        token = (self.secrets / "auth_token").read_text()
        return self.up["simulator"].run(
            ["ray", "job", verb, "--address", "http://ray-head:8265", *rest],
            RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=token, within_s=200,
        )  # fmt: skip

    def processes(self) -> list[str]:
        """Of runs, on all nodes."""
        commands = []
        for name in ("ray-head", "ray-worker"):
            pids = subprocess.run(
                ["ip", "netns", "pids", self.network.namespace(name)], capture_output=True, text=True, check=True
            ).stdout.split()
            for pid in pids:
                with suppress(OSError):
                    command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
                    if any(word in command for word in ("loadtest run", "loadtest.worker", "HostActor")):
                        commands.append(command)
        return commands

    def query(self, sql: str) -> list[dict[str, Any]]:
        done = self.up["ray-head"].run(["loadtest", "store", "query", sql])
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    directory = tmp_path_factory.mktemp("compose")
    secrets = directory / "made"
    subprocess.run([ROOT / "deploy/secrets.sh", secrets], check=True)
    names = ["clickhouse", "store-setup", "ray-head", "ray-worker", "ray-worker-2", "simulator", "collector"]
    secrets.chmod(0o755)
    (directory / "plan").mkdir()
    (directory / "results").mkdir()
    os.chown(directory / "results", 10001, 0)
    (directory / "plan/plan.yaml").write_text((ROOT / "deploy/plans/simulator.yaml").read_text().replace("30", "5"))
    with Network(names, directory) as network, ExitStack() as running:
        stack = Stack(network, secrets, directory / "plan", running)
        stand_in = [f"{IMAGE}/bin/python", f"{ROOT}/tests/containers/store.py", "/var/lib/clickhouse/data", "/made"]
        stack.start("clickhouse", command=stand_in, binds=[f"{secrets}:/made"])
        until(stack.up["clickhouse"].healthy, 60, "the store is healthy")
        setup = stack.start("store-setup")
        assert setup.wait(60) == 0, setup.log.read_text()
        stack.start("simulator")
        stack.start("ray-head", binds=[f"{directory}/plan:/plan", f"{directory}/results:/results:rw"])
        until(stack.up["ray-head"].healthy, 90, "the head is healthy")
        stack.start("ray-worker")
        until(stack.up["ray-worker"].healthy, 90, "the worker is healthy")
        until(stack.up["simulator"].healthy, 30, "the simulator is healthy")
        yield stack


def test_the_root_is_read_only_and_the_user_has_no_power(stack: Stack):
    for name, container in stack.up.items():
        if name == "store-setup":
            continue
        shown = container.run(
            ["bash", "-c", "id -u; touch /x /usr/x /run/secrets/x; grep -E 'CapEff|NoNewPrivs' /proc/self/status"]
        )
        assert shown.stdout.split() == ["10001", "CapEff:", "0000000000000000", "NoNewPrivs:", "1"], name
        assert shown.stderr.count("Read-only file system") + shown.stderr.count("Permission denied") == 3, shown.stderr


def test_no_secret_is_in_an_environment(stack: Stack):
    passwords = [path.read_text() for path in stack.secrets.iterdir() if path.suffix != ".xml"]
    for name, container in stack.up.items():
        environment = " ".join(container.environment.values())
        assert not any(password in environment for password in passwords), name


def test_a_plan_runs_on_ray_as_the_compose_file_says(stack: Stack):
    done = stack.up["ray-head"].run(
        ["loadtest", "run", "/plans/simulator.yaml", "--on", "ray", "--quiet", "--run-id", "by-hand"], within_s=200
    )
    assert done.returncode in (0, 3), done.stdout + done.stderr  # 3: this machine has more to do
    (row,) = stack.query(
        "SELECT count() AS n, uniq(worker) AS workers FROM requests WHERE run = 'by-hand' AND NOT warmup"
    )
    assert row["n"] > 400
    assert "by-hand" in stack.up["ray-head"].run(["loadtest", "runs"]).stdout


def test_ray_answers_nobody_without_the_token(stack: Stack):
    simulator = stack.up["simulator"]
    asked = simulator.run([f"{IMAGE}/bin/python", "-c", STATUS, "http://ray-head:8265/api/jobs/"])
    assert asked.stdout.strip() in ("401", "403"), asked.stderr
    given = simulator.run(
        ["ray", "job", "list", "--address", "http://ray-head:8265"],
        RAY_AUTH_MODE="token",
        RAY_AUTH_TOKEN="a" * 32,
        within_s=60,
    )
    assert given.returncode != 0


def rendered() -> dict[str, Any]:
    """The RayJob of helm/ci/run.yaml."""
    if not (TOOLS / "helm").exists():
        pytest.skip("helm is not here; make chart builds it")
    from helm import check

    objects = check.objects(check.render(check.MATRIX / "run.yaml"))
    return next(of["spec"] for of in objects if of["kind"] == "RayJob")


def test_the_charts_entry_point_is_submitted_as_kuberay_does_and_runs_once(stack: Stack):
    spec = rendered()
    head = stack.up["ray-head"]
    entrypoint = " ".join(shlex.split(spec["entrypoint"].replace("'--workers' '4'", "'--workers' '1'")))
    first = stack.submit(spec["jobId"], entrypoint)
    run_id = spec["jobId"]
    (row,) = stack.query(f"SELECT count() AS n FROM requests WHERE run = '{run_id}' AND NOT warmup")
    assert row["n"] > 50, first.stdout + first.stderr
    again = stack.submit("the-same-by-mistake", entrypoint)
    assert again.returncode != 0
    assert "a run id runs once" in again.stdout + again.stderr
    (after,) = stack.query(f"SELECT count() AS n FROM requests WHERE run = '{run_id}' AND NOT warmup")
    assert after == row
    assert head.run(["ls", f"/results/{run_id}/report.html"]).returncode == 0


JOB = """
name: job
targets: [{{name: a, url: "http://simulator:8000/v1", dialect: openai-chat, model: sim-8b}}]
prompts: {{kind: synthetic, input_tokens: 20, output_tokens: 5}}
stages: [{{name: s, arrivals: {{kind: constant, rate: 20}}, {until}, drain_s: 10}}]
slos: [{{metric: ttft_ms, stat: p50, limit: {limit}}}]
fleet: {{cpus: 0.5}}
validity: {{schedule_lag: {lag}, shortfall: 0.5, uncertainty: 5000, start_spread: 5000, stolen: 1, worker_cpu: 1}}
"""


@pytest.mark.parametrize(
    ("name", "until_when", "limit", "lag", "status", "words"),
    [
        ("met", "requests: 60", 60_000, 5000, "SUCCEEDED", "met its objective"),
        ("breached", "requests: 60", 0.001, 5000, "FAILED", "failed with exit code 1,"),
        ("invalid", "requests: 60", 60_000, 0.0000001, "FAILED", "failed with exit code 3,"),
        ("wrong", "request: 60", 60_000, 5000, "FAILED", "failed with exit code 2,"),
    ],
)
def test_a_job_ends_as_its_run_does(
    stack: Stack, name: str, until_when: str, limit: float, lag: float, status: str, words: str
):
    (stack.plans / f"{name}.yaml").write_text(JOB.format(until=until_when, limit=limit, lag=lag))
    done = stack.submit(name, f"loadtest run /plan/{name}.yaml --on ray --run-id {name} --out /results/{name}")
    assert (done.returncode == 0) == (status == "SUCCEEDED"), done.stdout + done.stderr
    told = stack.job("status", name)
    assert status in (told.stdout + told.stderr).upper()
    logs = stack.job("logs", name).stdout
    assert words in done.stdout + done.stderr + logs, logs
    if name == "wrong":
        assert "request" in logs
    else:
        assert "report.html" in logs
    until(lambda: not stack.processes(), 15, f"nothing of {name} runs on any node")


@pytest.mark.parametrize(("name", "wait_s"), [("in-order", None), ("at-once", "0")])
def test_a_job_that_is_stopped_leaves_nothing(stack: Stack, name: str, wait_s: str | None):
    """And has a report, in the time that the image gives it."""
    (stack.plans / "long.yaml").write_text(JOB.format(until="duration_s: 300", limit=60_000, lag=5000))
    environment = json.dumps({"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": wait_s} if wait_s else {}})
    entrypoint = f"loadtest run /plan/long.yaml --on ray --run-id {name} --out /results/{name}"
    begun = stack.submit(name, entrypoint, "--no-wait", "--runtime-env-json", environment)
    assert begun.returncode == 0, begun.stdout + begun.stderr
    rows = f"SELECT count() AS n FROM requests WHERE run = '{name}'"
    until(lambda: stack.query(rows)[0]["n"] > 20, 90, "it sends")
    assert len(stack.processes()) >= 3, "driver, actor and worker"
    stopped = stack.job("stop", name)
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr
    until(lambda: not stack.processes(), 15, f"nothing of {name} runs on any node")
    told = stack.job("status", name)
    assert "stopped" in (told.stdout + told.stderr).lower()
    summary = stack.up["ray-head"].run(["cat", f"/results/{name}/summary.json"])
    assert (summary.returncode == 0) == (wait_s is None), "a report takes longer than being killed"
    if wait_s is None:
        figures = json.loads(summary.stdout)
        assert figures["interrupted"]
        assert figures["integrity"]["sent"] == figures["integrity"]["stored"] > 20


def test_the_charts_worker_joins_with_the_ports_that_its_network_policy_opens(stack: Stack):
    group = rendered()["rayClusterSpec"]["workerGroupSpecs"][0]
    options = [f"--{name}={value}" for name, value in group["rayStartParams"].items() if name != "disable-usage-stats"]
    worker = stack.start(
        "ray-worker", at="ray-worker-2",
        command=["ray", "start", "--address=ray-head:6379", "--disable-usage-stats", "--block", *options],
    )  # fmt: skip
    until(worker.healthy, 90, "the chart's worker is healthy")
    listening = worker.run(["ss", "-ltnH"]).stdout.split("\n")
    ports = {int(line.split()[3].rpartition(":")[2]) for line in listening if line.strip()}
    assert {6380, 6381, 52365} <= ports
    reachable = {
        line.split()[3].rpartition(":")[2] for line in listening if line and "127.0.0.1" not in line.split()[3]
    }
    allowed = {*map(str, range(6379, 6384)), "8265", "52365", "8080", *map(str, range(10002, 20000))}
    assert reachable <= allowed, reachable - allowed


OTLP = {
    "traces": {
        "resourceSpans": [
            {
                "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "vllm"}}]},
                "scopeSpans": [
                    {
                        "scope": {"name": "vllm"},
                        "spans": [
                            {
                                "traceId": "0af7651916cd43dd8448eb211c80319c",
                                "spanId": "b7ad6b7169203331",
                                "name": "llm_request",
                                "kind": 2,
                                "startTimeUnixNano": "",
                                "endTimeUnixNano": "",
                                "attributes": [{"key": "gen_ai.usage.input_tokens", "value": {"intValue": "12"}}],
                            }
                        ],
                    }
                ],
            }
        ]
    },
    "metrics": {
        "resourceMetrics": [
            {
                "scopeMetrics": [
                    {
                        "metrics": [
                            {
                                "name": "vllm:num_requests_running",
                                "gauge": {"dataPoints": [{"timeUnixNano": "", "asDouble": 3}]},
                            },
                            {
                                "name": "vllm:time_to_first_token_seconds",
                                "histogram": {
                                    "aggregationTemporality": 2,
                                    "dataPoints": [
                                        {
                                            "timeUnixNano": "",
                                            "count": "2",
                                            "sum": 0.5,
                                            "bucketCounts": ["1", "1"],
                                            "explicitBounds": [0.2],
                                        }
                                    ],
                                },
                            },
                        ]
                    }
                ]
            }
        ]
    },
    "logs": {
        "resourceLogs": [
            {"scopeLogs": [{"logRecords": [{"timeUnixNano": "", "body": {"stringValue": "CUDA out of memory"}}]}]}
        ]
    },
}


@pytest.mark.skipif(not (TOOLS / "otelcol").exists(), reason="no otelcol; make containers builds it")
def test_the_collector_puts_a_servers_telemetry_beside_the_runs(stack: Stack, tmp_path: Path):
    now = time.time_ns()
    for name, body in OTLP.items():
        text = json.dumps(body).replace('UnixNano": ""', f'UnixNano": "{now}"')
        (tmp_path / f"{name}.json").write_text(text)
    tmp_path.chmod(0o755)
    configuration = [f"{TOOLS}/otelcol", *compose()["services"]["collector"]["command"]]
    collector = stack.start("collector", command=configuration, binds=[f"{tmp_path}:/otlp"])
    health = [f"{IMAGE}/bin/python", "-c", GET, "http://collector:13133/"]
    until(lambda: "Server available" in collector.run(health).stdout, 30, "the collector is healthy")
    sent = collector.run([f"{IMAGE}/bin/python", "-c", SEND])
    assert sent.returncode == 0, sent.stderr

    def stored(sql: str) -> list[dict[str, Any]]:
        return until(lambda: stack.query(sql), 40, sql + collector.log.read_text()[-2000:])

    (span,) = stored("SELECT ServiceName, SpanName, SpanAttributes FROM otel_traces WHERE ScopeName = 'vllm'")
    assert span == {
        "ServiceName": "vllm",
        "SpanName": "llm_request",
        "SpanAttributes": {"gen_ai.usage.input_tokens": "12"},
    }
    assert stored("SELECT Value FROM otel_metrics_gauge WHERE MetricName = 'vllm:num_requests_running'") == [
        {"Value": 3}
    ]
    (histogram,) = stored(
        "SELECT toUInt32(Count) AS n FROM otel_metrics_histogram WHERE MetricName = 'vllm:time_to_first_token_seconds'"
    )
    assert histogram == {"n": 2}
    assert stored("SELECT Body FROM otel_logs") == [{"Body": "CUDA out of memory"}]
    assert stack.query("SELECT count() AS n FROM attempts WHERE model = ''") == [
        {"n": 0}
    ]  # a server's span is no request


@pytest.mark.skipif(not (TOOLS / "compose-spec").exists(), reason="no compose-spec; make containers builds it")
def test_the_compose_file_is_valid_and_the_validator_finds_what_is_not(tmp_path: Path):
    def validated(path: Path) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([TOOLS / "compose-spec", path], cwd=path.parent, capture_output=True, text=True)

    good = validated(ROOT / "deploy/compose.yaml")
    assert good.returncode == 0, good.stderr
    document = compose()
    document["services"]["grafana"]["healthchek"] = {}
    wrong = tmp_path / "compose.yaml"
    wrong.write_text(yaml.safe_dump(document))
    bad = validated(wrong)
    assert bad.returncode != 0
    assert "healthchek" in bad.stdout + bad.stderr


def test_what_is_in_the_image_is_listed(tmp_path: Path):
    tool = Path(sys.prefix).parent / ".venv-image-tools/bin/cyclonedx-py"
    if not tool.exists():
        pytest.skip("no .venv-image-tools; make containers makes it")
    listed = tmp_path / "sbom.json"
    subprocess.run(
        [
            tool, "environment", "--pyproject", ROOT / "pyproject.toml", "--output-reproducible", "--output-file", listed,
            IMAGE / "bin/python",
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    bill = json.loads(listed.read_text())
    assert (bill["bomFormat"], bill["metadata"]["component"]["name"]) == ("CycloneDX", "loadtest")
    names = {component["name"] for component in bill["components"]}
    assert {"ray", "chdb", "locust", "aiohttp"} <= names
    assert not {"pip", "urllib3-future", "niquests"} & names
