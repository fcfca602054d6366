"""What becomes of a run when something of its cluster goes: each ends as docs/cluster.md says, and leaves nothing behind."""

import os
import signal
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from processes import alive, below, of_node, wait_until, workers_of

pytestmark = pytest.mark.timeout(240)

PLAN = """
name: lost
seed: 5
targets: [{{name: a, url: "{url}/v1", dialect: openai-chat, model: m}}]
prompts: {{kind: synthetic, input_tokens: 20, output_tokens: 5}}
stages: [{{name: long, arrivals: {{kind: constant, rate: 60}}, duration_s: {seconds}}}]
fleet: {{workers: {workers}, cpus: 0.5, {fleet}}}
"""


@pytest.fixture
def plan(simulator: str, tmp_path: Path) -> Callable[..., Path]:
    def write(workers: int, seconds: float = 90, fleet: str = "placement: spread") -> Path:
        path = tmp_path / "plan.yaml"
        path.write_text(PLAN.format(url=simulator, seconds=seconds, workers=workers, fleet=fleet))
        return path

    return write


def adds_up(summary: dict[str, Any]) -> bool:
    i = summary["integrity"]
    return i["scheduled"] == i["sent"] + i["missed"] + i["unknown"] and i["sent"] == i["stored"] + i["lost"]


def test_a_node_that_dies_ends_the_run(
    make_cluster: Callable[..., Any], start_run: Callable[..., Any], plan: Callable[..., Path]
) -> None:
    """Three nodes, six workers: INVALID within 15 s of the loss, with an account that adds up."""
    cluster = make_cluster(*[{"num_cpus": 1}] * 3)
    run = start_run(plan(6, fleet="per_node: 2"), cluster.address)
    run.wait_for_load(cluster, 6)
    time.sleep(1)  # of load, so that there is something to lose
    node = cluster.list_all_nodes()[-1]
    gone = below(of_node(node))
    killed = time.time()
    cluster.remove_node(node, allow_graceful=False)
    assert run.wait(60) == 3, run.text
    summary = run.summary()
    ended_s = datetime.fromisoformat(summary["ended_at"]).timestamp() - killed
    print(f"ended {ended_s:.1f} s after the loss, reported after {time.time() - killed:.1f} s: {summary['integrity']}")
    assert ended_s < 15
    assert adds_up(summary)
    assert not summary["interrupted"]
    assert summary["generator"]["workers_lost"] == 2
    assert summary["integrity"]["unknown"] + summary["integrity"]["missed"] > 0
    assert any("worker_lost: 2 worker process(es)" in reason for reason in summary["validity"]["reasons"])
    wait_until(lambda: not any(map(alive, gone)), 15)
    assert workers_of(cluster) == []


def test_a_killed_driver_leaves_nothing(
    make_cluster: Callable[..., Any], start_run: Callable[..., Any], plan: Callable[..., Path]
) -> None:
    cluster = make_cluster({"num_cpus": 1}, {"num_cpus": 1})
    run = start_run(plan(4, fleet="per_node: 2"), cluster.address)
    run.wait_for_load(cluster, 4)
    workers = workers_of(cluster)
    run.process.send_signal(signal.SIGKILL)
    took_s = wait_until(lambda: not any(map(alive, workers)) and not actors_of(cluster), 15)
    print(f"nothing left after {took_s:.1f} s")
    wait_until(lambda: not list(Path("/tmp").glob(f"loadtest-{run.out}-*")), 1)


def test_a_dead_actor_ends_the_run_at_once(
    make_cluster: Callable[..., Any], start_run: Callable[..., Any], plan: Callable[..., Path]
) -> None:
    cluster = make_cluster({"num_cpus": 2})
    run = start_run(plan(2), cluster.address)
    run.wait_for_load(cluster, 2)
    os.kill(actors_of(cluster)[0], signal.SIGKILL)
    assert run.wait(15) == 3, run.text
    summary = run.summary()
    assert adds_up(summary)
    assert summary["generator"]["workers_lost"] == 1
    assert workers_of(cluster) == []


def actors_of(cluster: Any) -> list[int]:
    from processes import command

    return [pid for node in cluster.list_all_nodes() for pid in below(of_node(node)) if "HostActor" in command(pid)]
