"""Ray clusters of several nodes on this machine, and runs on them."""

import json
import os
import re
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.processes import wait_until, workers_of

LOADTEST = str(Path(sys.executable).with_name("loadtest"))
NODE = {"object_store_memory": 80 << 20, "num_cpus": 1}
PLAN = """
name: cluster
seed: 5
nonce: fixed
targets: [{{name: a, url: "{url}/v1", dialect: openai-chat, model: m}}]
prompts: {{kind: synthetic, input_tokens: 20, output_tokens: 5}}
stages: [{{name: s, arrivals: {{kind: constant, rate: 60}}, {until}}}]
fleet: {{workers: {workers}, cpus: 0.5, {fleet}}}
validity: {{schedule_lag: 5000, shortfall: 0.5, uncertainty: 5000, start_spread: 5000, stolen: 1, worker_cpu: 1}}
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Three nodes, one of them in eu and one in us, and a head that outlives its restart."""
    from ray.cluster_utils import Cluster

    durable = {
        "RAY_gcs_storage": "rocksdb",
        "RAY_gcs_storage_path": str(tmp_path_factory.mktemp("gcs")),
        "RAY_raylet_start_wait_time_s": "120",  # a busy machine is no failure
    }
    os.environ |= durable
    try:
        made = Cluster(initialize_head=True, head_node_args={"include_dashboard": False, **NODE})
        try:
            for region in ("eu", "us"):
                made.add_node(wait=False, labels={"where": region}, **NODE)
            made.wait_for_nodes()
            yield made
        finally:
            made.shutdown()
    finally:
        for name in durable:
            del os.environ[name]


@pytest.fixture
def second_cluster(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:  # noqa: ARG001 the first one comes first
    from ray.cluster_utils import Cluster

    for name in ("RAY_gcs_storage", "RAY_gcs_storage_path"):
        monkeypatch.delenv(name)
    made = Cluster(initialize_head=True, head_node_args={"include_dashboard": False, **NODE})
    try:
        yield made
    finally:
        made.shutdown()


class Run:
    """`loadtest run` in a process of its own."""

    def __init__(self, plan: Path, address: str, *options: str, inside: tuple[str, ...] = ()) -> None:
        self.out = plan.parent / "out"
        store = () if "--store" in options else ("--store", str(plan.parent / "store"))
        command = [*inside, LOADTEST, "run", str(plan), "--on", "ray", "--out", str(self.out), *store, *options]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_gcs")}
        self.process = subprocess.Popen(
            command,
            env={**environment, **({"RAY_ADDRESS": address} if address else {})},
            cwd=plan.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.text = ""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.text += line

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join()
        assert self.process.stdout
        self.process.stdout.close()

    def wait(self, within_s: float) -> int:
        try:
            self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"not over after {within_s} s: {self.text[-3000:]}") from None
        self._reader.join(5)
        return self.process.returncode

    def wait_for(self, words: str, within_s: float = 90) -> None:
        def so() -> bool:
            assert self.process.poll() is None, self.text
            return words in self.text

        wait_until(so, within_s)

    def wait_for_load(self, cluster: Any, workers: int) -> None:
        self.wait_for(" running a: ")
        assert len(workers_of(cluster)) == workers

    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.out / "summary.json").read_text())
        return found


@pytest.fixture
def wait_for_requests(simulator: str) -> Callable[[int], float]:
    """Waits until so many more are answered; plans here send 60 a second."""

    def answered() -> int:
        text = urllib.request.urlopen(f"{simulator}/metrics", timeout=10).read().decode()
        return sum(int(float(n)) for n in re.findall(r"^vllm:request_success_total\{.*\} (\S+)$", text, re.M))

    def wait(more: int) -> float:
        known = answered()
        return wait_until(lambda: answered() >= known + more, 30)

    return wait


@pytest.fixture
def start_run() -> Iterator[Callable[..., Run]]:
    made: list[Run] = []

    def start(*arguments: Any, **options: Any) -> Run:
        made.append(Run(*arguments, **options))
        return made[-1]

    yield start
    for run in made:
        run.end()


@pytest.fixture
def write_plan(tmp_path: Path) -> Callable[..., Path]:
    def write(url: str, workers: int, fleet: str = "placement: spread", until: str = "duration_s: 90") -> Path:
        path = tmp_path / "plan.yaml"
        path.write_text(PLAN.format(url=url, workers=workers, fleet=fleet, until=until))
        return path

    return write
