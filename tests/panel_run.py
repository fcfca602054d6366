"""Real runs for the dashboards' tests: load on two targets of which one fails at times, probes, and what was sampled."""

import subprocess
import sys
import time
from pathlib import Path

from loadtest import telemetry
from loadtest.spans import RESOURCE
from loadtest.store import Store
from loadtest.telemetry import Point

LOADTEST = str(Path(sys.executable).with_name("loadtest"))
LOAD = """
name: panels
seed: 5
targets:
  - name: a
    url: "{url}/v1"
    dialect: openai-chat
    model: m
    region: north
    price: {{input_per_million: 0.5, output_per_million: 1.5}}
  - {{name: b, url: "{url}/v1", dialect: openai-chat, model: m, body: {{simulate: {{ttft_ms: 5, error: overloaded}}}}}}
prompts: {{kind: synthetic, input_tokens: 20, output_tokens: 8}}
stages:
  - {{name: warm-up, arrivals: {{kind: constant, rate: 10}}, duration_s: 0.5, warmup: true}}
  - {{name: steady, arrivals: {{kind: constant, rate: 20}}, duration_s: 3, drain_s: 5}}
slos: [{{metric: ttft_ms, stat: p50, limit: 500}}]
"""
PROBE = """
name: probe
kind: probe
targets:
  - {{name: a, url: "{url}/v1", dialect: openai-chat, model: m}}
  - {{name: b, url: "{url}/v1", dialect: openai-chat, model: m, body: {{simulate: {{ttft_ms: 5, error: http_5xx}}}}}}
prompts: {{kind: synthetic, input_tokens: 20, output_tokens: 8}}
stages: [{{name: probe, arrivals: {{kind: constant, rate: 5}}, duration_s: 1.5, drain_s: 5}}]
"""
GPU = {"hw.type": "gpu", "hw.id": "GPU-1", "loadtest.target": "a,b", "loadtest.source_metric": "made"}
ENGINE = {"engine.id": "0", "loadtest.target": "a", "loadtest.source_metric": "made"}


def made(store: Store, url: str, directory: Path) -> tuple[int, int]:
    """Both runs, in `store`. Returns the time range they were in."""
    from_ns = time.time_ns()
    for name, text in (("load", LOAD), ("probe", PROBE)):
        plan = directory / f"{name}.yaml"
        plan.write_text(text.format(url=url))
        out, where = str(directory / name), str(store.address.directory)
        command = [LOADTEST, "run", str(plan), "--quiet", "--store", where, "--out", out]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
        assert done.returncode in (0, 1, 3, 5), done.stderr  # 3: this machine may be busy with something else
    to_ns = time.time_ns()
    telemetry.insert(store, _sampled(from_ns, to_ns), RESOURCE, "panels")
    return from_ns, to_ns


def _sampled(from_ns: int, to_ns: int) -> list[Point]:
    """Once a second: half busy, 300 W, throttled for a tenth of the time."""
    points = []
    for number, at_ns in enumerate(range(from_ns, to_ns, 1_000_000_000)):
        gauges = {"hw.gpu.utilization": 0.5, "hw.gpu.memory.usage": 2e9, "hw.power": 300, "hw.temperature": 60}
        points += [Point(name, "", value, at_ns, GPU) for name, value in (gauges | {"gpu.clock.sm": 1.9e9}).items()]
        reason = {**GPU, "reason": "thermal"}
        points.append(Point("gpu.throttle.time", "s", 0.1 * number, at_ns, reason, start_ns=from_ns))
        engine = {"engine.queue_length": 3, "engine.batch_size": 8, "engine.kv_cache_utilization": 0.25}
        points += [Point(name, "", value, at_ns, ENGINE) for name, value in engine.items()]
    return points
