"""Two hosts, 50 ms and 1% loss apart: endpoint, store, driver and Ray's head on one of them, the workers on the other."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from conftest import LOADTEST
from networks import ADDRESSES, Link, is_possible

from tests.processes import alive, below, command, is_open, wait_until

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(not is_possible(), reason="network namespaces need root, iproute2 and /dev/net/tun"),
]

RAY = str(Path(sys.executable).with_name("ray"))
HERE, THERE = ADDRESSES
ROUND_TRIP_MS = 50
PLAN = """
name: far
seed: 5
nonce: fixed
targets:
  - name: a
    url: "{url}/v1"
    dialect: openai-chat
    model: m
    body: {{simulate: {{ttft_ms: 100, chunks: 20, gaps_ms: 10}}}}
prompts: {{kind: synthetic, input_tokens: 20, output_tokens: 20}}
stages: [{{name: s, arrivals: {{kind: constant, rate: 15}}, {until}}}]
fleet: {{workers: 2, cpus: 0.5}}
validity: {{schedule_lag: 5000, shortfall: 0.5, uncertainty: 5000, start_spread: 5000, stolen: 1, worker_cpu: 1}}
"""
FORWARD = """
import asyncio, sys
async def serve(reader, writer):
    there = await asyncio.open_connection("127.0.0.1", int(sys.argv[3]))
    async def copy(source, sink):
        try:
            while piece := await source.read(65536):
                sink.write(piece)
                await sink.drain()
        except ConnectionError:
            pass
        sink.close()
    await asyncio.gather(copy(reader, there[1]), copy(there[0], writer))
async def main():
    async with await asyncio.start_server(serve, sys.argv[1], int(sys.argv[2])) as server:
        await server.serve_forever()
asyncio.run(main())
"""


class Hosts:
    """What runs on both."""

    def __init__(self, link: Link, directory: Path) -> None:
        self.link = link
        self.directory = directory
        self.started: list[subprocess.Popen[bytes]] = []
        self.node: subprocess.Popen[bytes]  # of Ray, on the far host

    def start(self, host: int, *arguments: str) -> "subprocess.Popen[bytes]":
        log = (self.directory / f"process-{len(self.started)}.log").open("wb")
        with log:
            process = subprocess.Popen(
                [*self.link.inside[host], *arguments],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                cwd=self.directory,
                env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"},
            )
        self.started.append(process)
        return process

    def await_port(self, host: int, address: str, port: int) -> None:
        look = f"import socket; socket.create_connection(({address!r}, {port}), 1)"

        def answers() -> bool:
            assert all(p.poll() is None for p in self.started), [p.args for p in self.started if p.poll() is not None]
            return not subprocess.run(
                [*self.link.inside[host], sys.executable, "-c", look], capture_output=True
            ).returncode

        wait_until(answers, 90, every_s=0.5)

    def end(self) -> None:
        for process in reversed(self.started):
            if process.poll() is None:
                process.terminate()
        for process in self.started:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    directory = tmp_path_factory.mktemp("hosts")
    with Link(delay_s=ROUND_TRIP_MS / 2000, loss=0.01) as link:
        made = Hosts(link, directory)
        try:
            made.start(0, LOADTEST, "simulate", "--host", HERE, "--port", "8000")
            made.start(0, LOADTEST, "store", "serve", "--store", "store", "--port", "8123")
            made.start(0, sys.executable, "-c", FORWARD, HERE, "8124", "8123")
            ray = (RAY, "start", "--block", "--object-store-memory=80000000")
            head = ("--head", f"--node-ip-address={HERE}", "--port=6379", "--num-cpus=0", "--include-dashboard=false")
            made.start(0, *ray, *head)
            made.await_port(0, HERE, 6379)
            made.node = made.start(1, *ray, f"--address={HERE}:6379", f"--node-ip-address={THERE}", "--num-cpus=1")
            made.await_port(0, HERE, 8000)
            made.await_port(0, "127.0.0.1", 8123)
            wait_until((directory / "store" / "server.json").exists, 60)
            passwords = json.loads((directory / "store" / "server.json").read_text())["passwords"]
            (directory / "password").write_text(passwords["default"])
            yield made
        finally:
            made.end()


@pytest.fixture
def far_run(hosts: Hosts, start_run: Callable[..., Any]) -> Callable[[Path], Any]:
    store = f"clickhouse://default@{HERE}:8124/loadtest?password=file:{hosts.directory}/password"
    return lambda plan: start_run(plan, f"{HERE}:6379", "--store", store, inside=hosts.link.inside[0])


@pytest.fixture
def plan(tmp_path: Path) -> Callable[[str, str], Path]:
    def write(url: str, until: str) -> Path:
        path = tmp_path / "plan.yaml"
        path.write_text(PLAN.format(url=url, until=until))
        return path

    return write


def near_run(plan: Path) -> dict[str, Any]:
    """The same on loopback, without Ray."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with subprocess.Popen([LOADTEST, "simulate", "--port", str(port)], stdout=subprocess.DEVNULL) as simulator:
        try:
            plan.write_text(plan.read_text().replace(f"http://{HERE}:8000", f"http://127.0.0.1:{port}"))
            wait_until(lambda: is_open(port), 60)
            out = plan.parent / "near"
            subprocess.run(
                [LOADTEST, "run", str(plan), "--store", str(plan.parent / "near-store"), "--out", str(out), "--quiet"],
                check=True, stdout=subprocess.DEVNULL,
            )  # fmt: skip
        finally:
            simulator.terminate()
    found: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return found


def test_nothing_changes_but_for_the_delay(far_run: Callable[[Path], Any], plan: Callable[[str, str], Path]) -> None:
    path = plan(f"http://{HERE}:8000", "requests: 150")
    run = far_run(path)
    assert run.wait(120) == 0, run.text
    far, near = run.summary(), near_run(path)
    assert far["integrity"] == near["integrity"]
    assert far["integrity"]["stored"] == 150
    for facts in ("requests", "ok", "errors", "input_tokens", "output_tokens"):
        assert far["targets"]["a"][facts] == near["targets"]["a"][facts]
    of_far, of_near = far["targets"]["a"]["stages"]["s"], near["targets"]["a"]["stages"]["s"]
    for name in ("connect_ms", "ttft_ms", "itl_ms", "e2e_ms"):
        print(name, {stat: (of_near[name][stat], of_far[name][stat]) for stat in ("p50", "p95", "p99")})
    print({name: far["generator"][name] for name in ("clock_offset_ms", "start_spread_ms", "start_spread_error_ms")})
    for name in ("ttft_ms", "e2e_ms"):
        assert ROUND_TRIP_MS - 5 < of_far[name]["p50"] - of_near[name]["p50"] < ROUND_TRIP_MS + 50
    assert abs(of_far["itl_ms"]["p50"] - of_near["itl_ms"]["p50"]) < 5
    assert ROUND_TRIP_MS / 2 <= far["generator"]["clock_offset_ms"] < 100, "one clock, known to half a round trip"


def test_a_region_here_and_one_there_on_clusters_of_their_own(
    hosts: Hosts, far_run: Callable[[Path], Any], plan: Callable[[str, str], Path]
) -> None:
    """The driver's host is a node of both."""
    head = ("--head", f"--node-ip-address={HERE}", "--port=6390", "--num-cpus=1", "--include-dashboard=false")
    near_head = hosts.start(0, RAY, "start", "--block", "--object-store-memory=80000000", *head)
    hosts.await_port(0, HERE, 6390)
    path = plan(f"http://{HERE}:8000", "requests: 150")
    near, far = f"{{name: near, address: '{HERE}:6390'}}", f"{{name: far, address: '{HERE}:6379'}}"
    path.write_text(path.read_text().replace("cpus: 0.5", f"cpus: 0.5, regions: [{near}, {far}]"))
    run = far_run(path)
    assert run.wait(120) == 0, run.text
    summary = run.summary()
    assert summary["integrity"]["scheduled"] == summary["integrity"]["stored"] == 150
    seen = {each["vantage"]: each for each in summary["vantages"]}
    assert {name: each["requests"] for name, each in seen.items()} == {"near": 75, "far": 75}
    ttft_ms = {name: each["ttft_ms"]["p50"] for name, each in seen.items()}
    print(f"TTFT p50 by vantage: {ttft_ms}, clocks within {summary['generator']['clock_offset_ms']} ms")
    assert ROUND_TRIP_MS - 5 < ttft_ms["far"] - ttft_ms["near"] < ROUND_TRIP_MS + 50
    assert ROUND_TRIP_MS / 2 <= summary["generator"]["clock_offset_ms"] < 100
    near_head.terminate()
    near_head.wait(30)


def test_a_host_that_is_cut_off(hosts: Hosts, far_run: Callable[[Path], Any], plan: Callable[[str, str], Path]) -> None:
    """The driver gives it up, and what runs there ends by itself. The last test of this link."""
    run = far_run(plan(f"http://{HERE}:8000", "duration_s: 120"))
    wait_until(lambda: run.text.count(" running a: ") > 1, 90)  # five seconds of load
    there = [pid for pid in below(hosts.node.pid) if "loadtest.worker" in command(pid) or "HostActor" in command(pid)]
    assert len(there) == 4, "two workers and their actors"
    hosts.link.cut()
    cut = time.time()
    assert run.wait(60) == 3, run.text
    i = run.summary()["integrity"]
    ended_s = datetime.fromisoformat(run.summary()["ended_at"]).timestamp() - cut
    print(f"ended {ended_s:.1f} s after the cut, reported after {time.time() - cut:.1f} s: {i}")
    assert ended_s < 15
    assert i["scheduled"] == i["sent"] + i["missed"] + i["unknown"]
    assert i["sent"] == i["stored"] + i["lost"]
    assert run.summary()["generator"]["workers_lost"] == 2
    wait_until(lambda: not any(map(alive, there)), 30)
    print(f"nothing ran there any more {time.time() - cut:.1f} s after the cut")
