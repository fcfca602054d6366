"""The fleet on Ray: the same run as locally, and nothing left behind."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import made_tokenizers as made
import pytest

from loadtest.errors import RunFailed
from loadtest.types import Fleet
from tests.processes import command, is_open, pids, wait_until

LOADTEST = str(Path(sys.executable).with_name("loadtest"))
RAY = str(Path(sys.executable).with_name("ray"))
KEY = "sk-ray-5Hn3cXp8RvWq1JtUzGf6"

TOO_SLOW = "The current node timed out during startup"
PLAN = """
name: ray
seed: 5
targets:
  - name: a
    url: "{url}/v1"
    dialect: openai-chat
    model: m
    key: env:TEST_KEY
    body: {{simulate: {{usage: false}}}}
tokenizer: tokenizer.json
prompts: {{kind: dataset, path: prompts.jsonl}}
stages:
  - {{name: open, arrivals: {{kind: poisson, rate: 30}}, duration_s: 3}}
  - {{name: closed, arrivals: {{kind: closed}}, concurrency: 4, requests: 40}}
"""


@pytest.fixture
def plan(simulator: str, tmp_path: Path) -> Path:
    path = tmp_path / "plan.yaml"
    path.write_text(PLAN.format(url=simulator))
    made.save(made.byte_level(300), tmp_path)
    lines = [{"prompt": f"what is {n} plus {n}", "max_tokens": 3 + n % 4} for n in range(7)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def run(plan: Path, *options: str, **environment: str) -> tuple[dict[str, object], subprocess.CompletedProcess[str]]:
    out = plan.parent / f"out-{environment.get('RAY_ADDRESS', options[1])}"
    clean = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(
        [LOADTEST, "run", str(plan), "--store", str(plan.parent / "store"), "--out", str(out), *options],
        env={**clean, "TEST_KEY": KEY, "STARTED_FOR": str(plan), **environment},
        capture_output=True, text=True, timeout=200, cwd=plan.parent,
    )  # fmt: skip
    if TOO_SLOW in done.stderr:
        pytest.skip(f"Ray itself waits 30 s for its own start, and here it took longer: {done.stderr}")
    summary = out / "summary.json"
    return json.loads(summary.read_text()) if summary.exists() else {}, done


def environment_of(pid: int) -> str:
    """What a process was started with: empty once it has ended."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
    except OSError:
        return ""


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """A Ray that is not ours: started by its own command, found through RAY_ADDRESS."""
    port = 20_000 + os.getpid() % 10_000
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
    start = [RAY, "start", "--head", f"--port={port}", "--num-cpus=2", "--include-dashboard=false", "--block"]
    with subprocess.Popen(start, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as head:
        try:
            wait_until(lambda: is_open(port), 120)
            yield f"127.0.0.1:{port}"
        finally:
            head.terminate()  # `ray stop` would end every Ray of this machine
            head.wait(120)


@pytest.mark.filterwarnings("ignore")  # Ray's own: it is in this process here
def test_a_ray_that_does_not_start_is_told_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    from cluster.connect import connect

    def init(**_: object) -> None:
        raise Exception(f"{TOO_SLOW}. This could happen")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    for name in ("RAY_USAGE_STATS_ENABLED", "RAY_gcs_rpc_server_reconnect_timeout_s"):
        monkeypatch.setenv(name, "0")  # as they are afterwards is none of the other tests' business
    with pytest.raises(RunFailed, match=f"no Ray could be started here: {TOO_SLOW}.*nothing was sent"):
        connect(Fleet(), 2)


@pytest.mark.timeout(600)
def test_ray_and_local_are_the_same_run(plan: Path) -> None:
    on_ray, done = run(plan, "--on", "ray", "--workers", "2")
    assert done.returncode in (0, 3), done.stdout + done.stderr  # 3: a busy machine may send late
    assert [pid for pid in pids() if str(plan) in environment_of(pid)] == [], "of the Ray that it started"
    logs = [p for p in Path("/tmp/ray").glob("session_*/logs/**/*") if p.is_file() and KEY.encode() in p.read_bytes()]
    assert logs == []
    assert KEY not in done.stdout + done.stderr
    locally, done = run(plan, "--on", "local", "--workers", "1")
    assert done.returncode in (0, 3), done.stdout + done.stderr
    assert on_ray["integrity"] == locally["integrity"]
    for facts in ("requests", "ok", "input_tokens", "output_tokens", "errors"):
        assert on_ray["targets"]["a"][facts] == locally["targets"]["a"][facts]  # type: ignore[index]
    assert on_ray["targets"]["a"]["output_tokens"] > 0, "counted by the tokenizer"  # type: ignore[index]
    assert on_ray["generator"]["workers"] == 2  # type: ignore[index]


@pytest.mark.timeout(600)
def test_cluster_that_others_started_is_left_running(plan: Path, cluster: str) -> None:
    summary, done = run(plan, "--on", "ray", "--workers", "2", RAY_ADDRESS=cluster)
    assert done.returncode in (0, 3), done.stdout + done.stderr
    integrity = summary["integrity"]
    assert integrity["sent"] == integrity["stored"] > 100  # type: ignore[index]
    assert summary["targets"]["a"]["output_tokens"] > 0, "the tokenizer came along"  # type: ignore[index]
    assert (plan.parent / f"out-{cluster}" / "worker-1.frames").stat().st_size > 1000, (
        "frames came from the actors' nodes"
    )
    assert not list(Path("/tmp").glob(f"loadtest-{summary['run']}-*")), "nothing stays on a node"
    assert any("gcs_server" in command(pid) for pid in pids()), "it was not ours to stop"
    _, done = run(plan, "--on", "ray", "--workers", "3", RAY_ADDRESS="127.0.0.1:1")
    assert done.returncode == 2
    assert "no Ray at 127.0.0.1:1" in done.stderr


LOCUSTFILE = """
from locust import constant
from helper import Base
class Chat(Base):
    model, key, wait_time = "m", "env:TEST_KEY", constant(0.05)
"""
HELPER = """
from locust import task
from loadtest import InferenceUser
class Base(InferenceUser):
    abstract = True
    @task
    def ask(self):
        where = "shipped" if "/loadtest-2" in __file__ else "at home"
        self.client.chat("What is a locust?", max_tokens=3, name=where)
"""


@pytest.mark.timeout(600)
def test_a_locustfile_reaches_nodes_that_do_not_have_it(simulator: str, tmp_path: Path, cluster: str) -> None:
    (tmp_path / "locustfile.py").write_text(LOCUSTFILE)
    (tmp_path / "helper.py").write_text(HELPER)
    out = tmp_path / "out"
    done = subprocess.run(
        [
            LOADTEST, "run", "--locustfile", "locustfile.py", "--users", "4", "--spawn-rate", "10", "--run-time", "3s",
            "--host", f"{simulator}/v1", "--on", "ray", "--workers", "2", "--store", "store", "--out", "out",
            "--", "--json-file", "table",
        ],
        env={**os.environ, "TEST_KEY": KEY, "RAY_ADDRESS": cluster}, capture_output=True, text=True, timeout=200,
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode in (0, 3), done.stdout + done.stderr
    summary = json.loads((out / "summary.json").read_text())
    [row] = json.loads((tmp_path / "table.json").read_text())
    assert row["num_requests"] == summary["targets"]["chat shipped"]["requests"] == summary["integrity"]["stored"] > 20
    assert summary["targets"]["chat shipped"]["stages"]["load"]["ttft_ms"]["n"] == row["num_requests"]
    assert summary["generator"]["workers"] == 2
    assert not list(Path("/tmp").glob(f"loadtest-{summary['run']}-*")), "nothing stays on a node"
    assert not [f for f in tmp_path.rglob("*") if f.is_file() and KEY.encode() in f.read_bytes()]
