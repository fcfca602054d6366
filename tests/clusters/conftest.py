"""Ray clusters of several nodes on this machine, and runs on them."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import wait_until, workers_of

LOADTEST = str(Path(sys.executable).with_name("loadtest"))
NODE = {"object_store_memory": 80 << 20}


@pytest.fixture
def make_cluster() -> Iterator[Callable[..., Any]]:
    """Called with the options of each node (the first is the head): a ray.cluster_utils.Cluster, ended with the test."""
    from ray.cluster_utils import Cluster

    made: list[Any] = []

    def make(*nodes: dict[str, Any]) -> Any:
        head = {"include_dashboard": False, **NODE, **nodes[0]}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        made.append(cluster)
        for options in nodes[1:]:
            cluster.add_node(wait=False, **NODE, **options)
        cluster.wait_for_nodes()
        return cluster

    yield make
    for cluster in made:
        cluster.shutdown()


class Run:
    """`loadtest run` in a process of its own."""

    def __init__(self, plan: Path, address: str, *options: str) -> None:
        self.out = plan.parent / "out"
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            [LOADTEST, "run", str(plan), "--on", "ray", "--store", str(plan.parent / "store"), "--out", str(self.out),
             *options],
            env={**os.environ, "RAY_ADDRESS": address, "RAY_USAGE_STATS_ENABLED": "0"}, cwd=plan.parent,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
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

    def wait_for_load(self, cluster: Any, workers: int, within_s: float = 90) -> None:
        """Until the driver says that the load goes on."""

        def so() -> bool:
            assert self.process.poll() is None, self.text
            return " running a: " in self.text

        wait_until(so, within_s)
        assert len(workers_of(cluster)) == workers

    def summary(self) -> dict[str, Any]:
        return json.loads((self.out / "summary.json").read_text())


@pytest.fixture
def start_run() -> Iterator[Callable[..., Run]]:
    made: list[Run] = []

    def start(*arguments: Any) -> Run:
        made.append(Run(*arguments))
        return made[-1]

    yield start
    for run in made:
        run.end()
