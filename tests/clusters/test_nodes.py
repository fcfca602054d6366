"""What becomes of a run when something of its cluster comes, goes or is elsewhere, as docs/cluster.md says; nothing is left."""

import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from conftest import LOADTEST, NODE, PLAN

from loadtest import plan as plans
from loadtest.account import account
from loadtest.errors import Interrupted, RunFailed
from loadtest.frames import Setup
from loadtest.run import Interrupts, Snapshot
from loadtest.store import Store
from loadtest.validity import Facts, validity
from tests.processes import alive, below, command, of_node, wait_until, workers_of

pytestmark = pytest.mark.timeout(240)
REGIONS = "regions: [{name: eu, labels: {where: eu}}, {name: us, labels: {where: us}}]"


@pytest.fixture(autouse=True)
def _nothing_is_left(cluster: Any) -> Iterator[None]:
    yield
    wait_until(lambda: not workers_of(cluster) and not actors_of(cluster), 15)


def actors_of(cluster: Any) -> list[int]:
    return [pid for node in cluster.list_all_nodes() for pid in below(of_node(node)) if "HostActor" in command(pid)]


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):  # Ray has ended it
            os.kill(pid, signal.SIGCONT)


def adds_up(summary: dict[str, Any]) -> bool:
    i = summary["integrity"]
    return bool(i["scheduled"] == i["sent"] + i["missed"] + i["unknown"] and i["sent"] == i["stored"] + i["lost"])


def whole(summary: dict[str, Any]) -> bool:
    i = summary["integrity"]
    return bool(i["scheduled"] == i["sent"] == i["stored"] > 0)


def test_regions(cluster: Any, start_run: Callable[..., Any], write_plan: Callable[..., Path], simulator: str) -> None:
    run = start_run(write_plan(simulator, 4, REGIONS, "requests: 120"), cluster.address)
    assert run.wait(120) == 0, run.text
    summary = run.summary()
    assert whole(summary)
    assert [(each["vantage"], each["requests"]) for each in summary["vantages"]] == [("eu", 60), ("us", 60)]
    assert all(each["ttft_ms"]["p50"] > 0 for each in summary["vantages"])
    assert "How does it look from each region?" in (run.out / "report.html").read_text()
    assert 0 < summary["generator"]["clock_offset_ms"] < 100


def own(cluster: Any, second: Any) -> str:
    """Two regions, each on a cluster of its own, and one more in the first."""
    first = f"address: '{cluster.address}'"
    return (
        f"regions: [{{name: eu, {first}, labels: {{where: eu}}}}, {{name: us, address: '{second.address}'}}, "
        f"{{name: elsewhere, {first}, labels: {{where: us}}}}]"
    )


def test_regions_on_clusters_of_their_own(
    cluster: Any,
    second_cluster: Any,
    start_run: Callable[..., Any],
    write_plan: Callable[..., Path],
    simulator: str,
) -> None:
    run = start_run(write_plan(simulator, 4, own(cluster, second_cluster), "requests: 120"), "")
    assert run.wait(120) == 0, run.text
    summary = run.summary()
    assert whole(summary)
    seen = {each["vantage"]: each["requests"] for each in summary["vantages"]}
    assert seen == {"eu": 60, "us": 30, "elsewhere": 30}, "workers 0 and 3, 1, 2"
    assert 0 < summary["generator"]["clock_offset_ms"] < 100
    assert {f"worker-{worker}.frames" for worker in range(4)} == {path.name for path in run.out.glob("*.frames")}
    assert not list(run.out.glob("cluster-*.log")), "nobody had anything to complain about"


def test_a_region_that_is_lost_ends_the_run(
    cluster: Any,
    second_cluster: Any,
    start_run: Callable[..., Any],
    write_plan: Callable[..., Path],
    simulator: str,
) -> None:
    run = start_run(write_plan(simulator, 4, own(cluster, second_cluster)), "")
    run.wait_for(" running a: ")
    killed = time.time()
    second_cluster.remove_node(second_cluster.head_node, allow_graceful=False)
    assert run.wait(60) == 3, run.text
    summary = run.summary()
    ended_s = datetime.fromisoformat(summary["ended_at"]).timestamp() - killed
    print(
        f"ended {ended_s:.1f} s after the region's loss, reported after {time.time() - killed:.1f} s: {summary['integrity']}"
    )
    assert ended_s < 15
    assert adds_up(summary)
    assert summary["generator"]["workers_lost"] == 1
    assert "worker 1 on node " in summary["validity"]["reasons"][0]


def test_a_process_that_holds_a_cluster_may_die(
    cluster: Any,
    second_cluster: Any,
    start_run: Callable[..., Any],
    write_plan: Callable[..., Path],
    simulator: str,
) -> None:
    """Its cluster's workers end, as a dead driver's do."""
    run = start_run(write_plan(simulator, 4, own(cluster, second_cluster)), "")
    run.wait_for(" running a: ")
    assert len([*workers_of(cluster), *workers_of(second_cluster)]) == 4
    holders = [pid for pid in below(run.process.pid) if "cluster.regions" in command(pid)]
    assert len(holders) == 2
    os.kill(min(holders), signal.SIGKILL)
    assert run.wait(60) == 3, run.text
    summary = run.summary()
    assert adds_up(summary)
    assert summary["generator"]["workers_lost"] == 3
    assert "worker 0 in eu, elsewhere at " in summary["validity"]["reasons"][0]
    wait_until(lambda: not [*workers_of(cluster), *workers_of(second_cluster)], 15)


def test_a_region_without_its_cluster_is_named(
    cluster: Any, start_run: Callable[..., Any], write_plan: Callable[..., Path], simulator: str
) -> None:
    regions = f"regions: [{{name: eu, address: '{cluster.address}'}}, {{name: us, address: '127.0.0.1:1'}}]"
    run = start_run(write_plan(simulator, 2, regions), "")
    assert run.wait(60) == 2
    assert "us at 127.0.0.1:1: no Ray at 127.0.0.1:1" in run.text
    assert "correct the address of the region" in run.text


class ActorsOf:
    """Classes for a process that cannot import what is defined here."""

    @staticmethod
    def shifted() -> Any:
        from cluster.actor import HostActor

        class ShiftedHost(HostActor):
            """On the node in us, the clock is a quarter of a second ahead."""

            def now_ns(self) -> int:
                import ray

                labels = ray.get_runtime_context().get_node_labels()
                return super().now_ns() + (250_000_000 if labels.get("where") == "us" else 0)

        ShiftedHost.__module__ = "__main__"  # pickled by value
        return ShiftedHost

    @staticmethod
    def full_disk() -> Any:
        from cluster.actor import HostActor

        class HostOnAFullDisk(HostActor):
            def open(self, *_: Any) -> None:
                raise OSError(28, "No space left on device", "/tmp/loadtest-r")

        HostOnAFullDisk.__module__ = "__main__"
        return HostOnAFullDisk

    @staticmethod
    def hanging(begun: Path) -> Any:
        from cluster.actor import HostActor

        class HostOnADiskThatHangs(HostActor):
            """Of worker 1: its node is there, and answers nothing more."""

            def open(self, setup: Setup, *rest: Any) -> None:
                import threading

                if setup.shard == 1:
                    begun.touch()
                    threading.Event().wait()
                super().open(setup, *rest)

        HostOnADiskThatHangs.__module__ = "__main__"
        return HostOnADiskThatHangs


@pytest.fixture
def setups(simulator: str, tmp_path: Path) -> list[Setup]:
    plan = plans.parse(PLAN.format(url=simulator, workers=2, fleet=REGIONS, until="requests: 10"), tmp_path)
    return [Setup("clocks", plan, {}, shard, 2) for shard in range(2)]


@pytest.mark.filterwarnings("ignore")  # Ray's own: it is in this process here
def test_a_clock_that_is_ahead_is_found(
    cluster: Any, setups: list[Setup], store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cluster.fleet import RayFleet

    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    fleet = RayFleet(setups, store.address, tmp_path, lambda _: None, actor=ActorsOf.shifted())
    try:
        eu, us = fleet.places()
    finally:
        fleet.close()
    assert abs(eu.offset_ns) <= eu.error_ns
    assert abs(us.offset_ns - 250_000_000) <= us.error_ns
    booked = account(Snapshot(setups[0].plan, "clocks", 0, 0, None, [], [], places=[eu, us]), 0)
    assert booked.generator.clock_offset_ms >= 250
    assert any(reason.startswith("clock_offset: ") for reason in validity(Facts(account=booked)).reasons)


@pytest.mark.filterwarnings("ignore")
def test_what_a_host_raises_is_said_in_a_sentence(
    cluster: Any, setups: list[Setup], store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cluster.fleet import RayFleet

    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    with pytest.raises(RunFailed) as failure:
        RayFleet(setups, store.address, tmp_path, lambda _: None, actor=ActorsOf.full_disk())
    assert re.fullmatch(
        r"worker 0 on node \S+ \(\w+\) failed: OSError: \[Errno 28\] No space left on device: '/tmp/loadtest-r'; "
        "nothing was sent",
        str(failure.value),
    )


@pytest.mark.filterwarnings("ignore")
def test_a_host_that_does_not_take_its_work_is_named_in_time(
    cluster: Any, setups: list[Setup], store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cluster import fleet

    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    monkeypatch.setattr(fleet, "OPEN_WITHIN_S", 4.0)
    began = time.monotonic()
    with pytest.raises(RunFailed) as failure:
        fleet.RayFleet(setups, store.address, tmp_path, lambda _: None, actor=ActorsOf.hanging(tmp_path / "begun"))
    assert time.monotonic() - began < 60, "nobody waits for ever, not even for its end"
    assert re.fullmatch(
        r"worker 1 on node \S+ \(\w+\) did not take its work within 4 s; nothing was sent", str(failure.value)
    )


@pytest.mark.filterwarnings("ignore")
def test_who_waits_for_hosts_to_take_their_work_may_be_interrupted(
    cluster: Any, setups: list[Setup], store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cluster.fleet import OPEN_WITHIN_S, RayFleet

    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    interrupts, begun = Interrupts(), tmp_path / "begun"
    at_s: list[float] = []

    def interrupt() -> None:
        wait_until(begun.exists, 60)
        at_s.append(time.monotonic())
        interrupts.interrupt()

    threading.Thread(target=interrupt).start()
    with pytest.raises(Interrupted, match="interrupted; nothing was sent"):
        RayFleet(setups, store.address, tmp_path, lambda _: None, interrupts.check, actor=ActorsOf.hanging(begun))
    assert time.monotonic() - at_s[0] < OPEN_WITHIN_S / 3


def test_what_the_cluster_lacks_is_named(
    cluster: Any, start_run: Callable[..., Any], write_plan: Callable[..., Path], simulator: str
) -> None:
    fleet = "wait_s: 3, resources: {nic: 1}, regions: [{name: mars, labels: {where: mars}}]"
    run = start_run(write_plan(simulator, 2, fleet), cluster.address)
    assert run.wait(60) == 2
    for words in (
        "waiting for 2 workers with 0.5 CPU, 1 nic each, spread, in mars, on 3 nodes so far",
        "not placed within 3 s",
        "no node has the labels where=mars of region mars",
        "of 2 nic the cluster has 0",
    ):
        assert words in run.text  # fmt: skip


def test_a_node_that_joins_late_is_waited_for(
    cluster: Any, start_run: Callable[..., Any], write_plan: Callable[..., Path], simulator: str
) -> None:
    fleet = "wait_s: 100, regions: [{name: late, labels: {where: late}}]"
    run = start_run(write_plan(simulator, 2, fleet, "requests: 60"), cluster.address)
    run.wait_for("no node has the labels where=late of region late")
    node = cluster.add_node(labels={"where": "late"}, **NODE)
    assert run.wait(100) == 0, run.text
    assert whole(run.summary())
    cluster.remove_node(node)


def test_the_head_restarts_in_mid_run(
    cluster: Any,
    start_run: Callable[..., Any],
    write_plan: Callable[..., Path],
    simulator: str,
    wait_for_requests: Callable[[int], float],
) -> None:
    run = start_run(write_plan(simulator, 2, until="duration_s: 8"), cluster.address)
    run.wait_for_load(cluster, 2)
    cluster.head_node.kill_gcs_server()
    wait_for_requests(60)  # without one
    cluster.head_node.start_gcs_server()
    assert run.wait(60) == 0, run.text
    assert whole(run.summary())


def test_a_node_that_stops_for_a_while_is_slow_and_not_lost(
    cluster: Any,
    start_run: Callable[..., Any],
    write_plan: Callable[..., Path],
    simulator: str,
    wait_for_requests: Callable[[int], float],
) -> None:
    run = start_run(write_plan(simulator, 2, until="duration_s: 8"), cluster.address)
    run.wait_for_load(cluster, 2)
    with stopped(actors_of(cluster)[0]):
        wait_for_requests(120)  # two of the four seconds of the lease
    assert run.wait(60) == 0, run.text
    assert whole(run.summary())


def test_those_that_fall_silent_one_after_the_other_are_waited_for_once(
    cluster: Any,
    start_run: Callable[..., Any],
    write_plan: Callable[..., Path],
    simulator: str,
    wait_for_requests: Callable[[int], float],
) -> None:
    """As the workers of a node do that is cut off. Nobody else's lease runs out meanwhile."""
    run = start_run(write_plan(simulator, 4), cluster.address)
    run.wait_for_load(cluster, 4)
    first, second = actors_of(cluster)[:2]
    silent = time.time()
    with stopped(first):
        wait_for_requests(90)
        with stopped(second):
            assert run.wait(60) == 3, run.text
    summary = run.summary()
    ended_s = datetime.fromisoformat(summary["ended_at"]).timestamp() - silent
    print(f"ended {ended_s:.1f} s after the first fell silent: {summary['integrity']}")
    assert ended_s < 15
    assert adds_up(summary)
    assert summary["generator"]["workers_lost"] == 2


def test_a_dead_actor_ends_the_run_at_once(
    cluster: Any, start_run: Callable[..., Any], write_plan: Callable[..., Path], simulator: str
) -> None:
    run = start_run(write_plan(simulator, 2), cluster.address)
    run.wait_for_load(cluster, 2)
    os.kill(actors_of(cluster)[0], signal.SIGKILL)
    assert run.wait(60) == 3, run.text
    summary = run.summary()
    assert adds_up(summary)
    assert summary["generator"]["workers_lost"] == 1


def test_a_killed_driver_leaves_nothing(
    cluster: Any, start_run: Callable[..., Any], write_plan: Callable[..., Path], simulator: str
) -> None:
    run = start_run(write_plan(simulator, 4), cluster.address)
    run.wait_for_load(cluster, 4)
    workers = workers_of(cluster)
    run.process.send_signal(signal.SIGKILL)
    took_s = wait_until(lambda: not any(map(alive, workers)) and not actors_of(cluster), 15)
    print(f"nothing left after {took_s:.1f} s")


def test_sigterm_ends_a_run_in_order(
    cluster: Any,
    start_run: Callable[..., Any],
    write_plan: Callable[..., Path],
    simulator: str,
    wait_for_requests: Callable[[int], float],
) -> None:
    """As `ray job stop` and Kubernetes send it; Ray's own handler would exit without a report."""
    run = start_run(write_plan(simulator, 2), cluster.address)
    run.wait_for_load(cluster, 2)
    wait_for_requests(60)
    run.process.terminate()
    assert run.wait(60) == 130, run.text
    assert whole(run.summary()), run.summary()["integrity"]
    assert run.summary()["interrupted"]


@pytest.mark.parametrize(
    ("fleet", "number"),
    [
        ("regions: [{{name: late, labels: {{where: late}}}}]", signal.SIGTERM),
        ("regions: [{{name: eu, address: '{0}'}}, {{name: late, labels: {{where: late}}}}]", signal.SIGINT),
    ],
    ids=["one cluster", "two"],
)
def test_who_waits_for_nodes_may_be_interrupted(
    cluster: Any,
    start_run: Callable[..., Any],
    write_plan: Callable[..., Path],
    simulator: str,
    fleet: str,
    number: int,
) -> None:
    run = start_run(write_plan(simulator, 2, fleet.format(cluster.address)), cluster.address)
    run.wait_for("no node has the labels where=late of region late")
    run.process.send_signal(number)
    assert run.wait(60) == 130, run.text
    assert "loadtest: interrupted; nothing was sent" in run.text


class Terminal:
    """Commands without their run's terminal."""

    def __init__(self, cluster: Any, directory: Path) -> None:
        self.directory = directory
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_gcs")}
        self.environment["RAY_ADDRESS"] = cluster.address

    def __call__(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [LOADTEST, *arguments], env=self.environment, cwd=self.directory, capture_output=True, text=True, timeout=120
        )  # fmt: skip

    def attach(self, run: str) -> str:
        """What it shows first; then Ctrl-C, which leaves the run alone."""
        with subprocess.Popen(
            [LOADTEST, "attach", run], env=self.environment, cwd=self.directory,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        ) as attached:  # fmt: skip
            assert attached.stderr
            line = attached.stderr.readline()
            attached.send_signal(signal.SIGINT)
            attached.stderr.read()
            assert attached.wait(30) == 130
            return line

    def stop(self, run: str) -> dict[str, Any]:
        stopped = self("stop", run)
        assert stopped.returncode == 130, stopped.stdout + stopped.stderr
        found: dict[str, Any] = json.loads((self.directory / "out" / "summary.json").read_text())
        return found


def test_a_detached_run_is_stopped_from_elsewhere(
    cluster: Any, write_plan: Callable[..., Path], simulator: str, tmp_path: Path
) -> None:
    loadtest = Terminal(cluster, tmp_path)
    plan = write_plan(simulator, 4)
    started = loadtest("run", str(plan), "--on", "ray", "--detach", "--store", "store", "--out", "out")
    assert started.returncode == 0, started.stderr
    run = started.stdout.split()[1]
    assert len(workers_of(cluster)) == 4
    wait_until(lambda: " requests/s" in loadtest("status", run).stdout, 60)
    summary = loadtest.stop(run)
    assert whole(summary)
    assert summary["interrupted"]


LOCUSTFILE = """
from locust import constant, task
from loadtest import InferenceUser
class Chat(InferenceUser):
    model, wait_time = "m", constant(0.05)
    @task
    def ask(self): self.client.chat("What is a locust?", max_tokens=3)
"""


def test_a_detached_locustfile_is_stopped_from_elsewhere(cluster: Any, simulator: str, tmp_path: Path) -> None:
    loadtest = Terminal(cluster, tmp_path)
    (tmp_path / "locustfile.py").write_text(LOCUSTFILE)
    started = loadtest(
        "run", "--locustfile", "locustfile.py", "--users", "6", "--spawn-rate", "10", "--host", f"{simulator}/v1",
        "--on", "ray", "--workers", "2", "--detach", "--store", "store", "--out", "out",
    )  # fmt: skip
    assert started.returncode == 0, started.stderr
    run = started.stdout.split()[1]
    assert len(workers_of(cluster)) == 2
    wait_until(lambda: "chat m: " in loadtest("status", run).stdout, 30)
    assert "users: " in loadtest.attach(run) or "chat m" in loadtest.attach(run)
    summary = loadtest.stop(run)
    assert whole(summary)
    assert summary["interrupted"]
    assert summary["targets"]["chat m"]["requests"] == summary["integrity"]["sent"]


def test_a_node_that_dies_ends_the_run(
    cluster: Any, start_run: Callable[..., Any], write_plan: Callable[..., Path], simulator: str
) -> None:
    """Three nodes, six workers: INVALID within 15 s of the loss, with an account that adds up. The last test of this node."""
    run = start_run(write_plan(simulator, 6, "per_node: 2"), cluster.address)
    run.wait_for_load(cluster, 6)
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
