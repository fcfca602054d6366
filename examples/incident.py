"""An incident, played through the real path: `python examples/incident.py --store DIR --minutes 10`.

Two simulated providers under one load plan, with probes beside it and the GPUs and engines sampled once a second. In ten
minutes (any other number stretches or squeezes them):

    0:00  normal load
    2:00  load rises until both are past saturation: queues fill, latency rises, requests are refused
    5:00  load is normal again, queues drain
    5:30  one of acme's two replicas runs hot: its clock falls, acme's latency rises            (until 7:30)
    8:00  budget answers every request with 500                                                (until 9:30)

It ends with a line of JSON, also in OUT/incident.json: the runs' ids and when what happened, in nanoseconds, so that
whoever draws or alerts on it can be checked against it.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

from loadtest.simulator import Profile, start
from loadtest.simulator.profile import Event

LOADTEST = Path(sys.executable).with_name("loadtest")
NORMAL, RISING, BACK = ("normal", 0, 120), ("rising", 120, 300), ("back", 300, 600)
HOT, DOWN = (330, 450), (480, 570)
GENERATED_WITHIN_S = 90
MOST_PROBES_PER_S = 5.0
LOAD = """\
name: incident
seed: 1
targets:
  - {{name: acme, url: "{acme}/v1", dialect: openai-chat, model: sim-8b, region: eu,
     price: {{input_per_million: 0.3, output_per_million: 0.6}}}}
  - {{name: budget, url: "{budget}/v1", dialect: openai-chat, model: sim-8b, region: us,
     price: {{input_per_million: 0.1, output_per_million: 0.2}}}}
prompts: {{kind: synthetic, input_tokens: {{mean: 200, stdev: 50}}, output_tokens: {{mean: 40, stdev: 8}}}}
stages:
  - {{name: normal, arrivals: {{kind: poisson, rate: 4}}, duration_s: {normal}, overlap: true, drain_s: 30}}
  - {{name: rising, arrivals: {{kind: ramp, from: 4, to: 16}}, duration_s: {rising}, overlap: true, drain_s: 30}}
  - {{name: back, arrivals: {{kind: poisson, rate: 4}}, duration_s: {back}, drain_s: 30}}
slos:
  - {{metric: ttft_ms, stat: p90, limit: 1500}}
  - {{metric: error_rate, limit: 0.02}}
goodput: {{ttft_ms: 1500, tpot_ms: 120}}
validity: {{schedule_lag: 1000, uncertainty: 1000}}   # it shares its machine with what it measures
gpu:
  sources:
    - {{name: acme-gpus, kind: dcgm, url: "{acme}/gpu/metrics", targets: {{acme: ["*"]}}}}
    - {{name: acme-engines, kind: vllm, url: "{acme}/metrics", targets: {{acme: ["*"]}}}}
    - {{name: budget-gpu, kind: dcgm, url: "{budget}/gpu/metrics", targets: {{budget: ["0"]}}}}
    - {{name: budget-engine, kind: vllm, url: "{budget}/metrics", targets: {{budget: ["0"]}}}}
"""
PROBE = """\
name: incident-probes
kind: probe
seed: 2
targets:
  - {{name: acme, url: "{acme}/v1", dialect: openai-chat, model: sim-8b, region: eu}}
  - {{name: budget, url: "{budget}/v1", dialect: openai-chat, model: sim-8b, region: us}}
prompts: {{kind: synthetic, input_tokens: 20, output_tokens: 5}}
stages:
  - {{name: probe, arrivals: {{kind: constant, rate: {rate:.3f}}}, duration_s: {duration}, drain_s: 30}}
validity: {{schedule_lag: 1000, uncertainty: 1000}}
"""


def profiles(scale: float) -> tuple[Profile, Profile]:
    """acme has two replicas, of which one runs hot; budget has one that holds more, and fails for a while."""

    def event(span: tuple[int, int], **what: object) -> Event:
        return Event(at_s=span[0] * scale, for_s=(span[1] - span[0]) * scale, **what)  # type: ignore[arg-type]

    engine = {"decode_base_ms": 40, "decode_per_sequence_ms": 0.5, "jitter": 0.05, "max_waiting": 64}
    acme = Profile(
        name="acme", replicas=2, max_batch=8, kv_cache_tokens=4096, seed=1, **engine,  # type: ignore[arg-type]
        events=(event(HOT, replica=1, clock=0.25),),
    )  # fmt: skip
    budget = Profile(
        name="budget", max_batch=16, kv_cache_tokens=8192, seed=2, **engine,  # type: ignore[arg-type]
        events=(event(DOWN, fault="http_5xx"),),
    )  # fmt: skip
    return acme, budget


@contextmanager
def running(plan: Path, out: Path, store: str) -> Iterator[subprocess.Popen[bytes]]:
    """`loadtest run`, ended with us."""
    command = [str(LOADTEST), "run", str(plan), "--store", store, "--out", str(out), "--quiet"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.terminate()


def generating_since_ns(urls: list[str], load: subprocess.Popen[bytes]) -> int:
    """Wait for the first request: the providers' events count from it."""
    deadline = time.monotonic() + GENERATED_WITHIN_S
    with httpx.Client(trust_env=False) as client:
        while load.poll() is None and time.monotonic() < deadline:
            texts = [client.get(f"{url}/metrics").text for url in urls]
            if all("prompt_tokens_total" in text and _prompt_tokens(text) > 0 for text in texts):
                return time.time_ns()
            time.sleep(0.05)
    raise SystemExit("the load did not start; what it said is above")


def _prompt_tokens(text: str) -> float:
    return sum(
        float(line.rpartition(" ")[2]) for line in text.split("\n") if line.startswith("vllm:prompt_tokens_total")
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", default="runs/incident/store", help="a directory, or clickhouse://...")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--out", type=Path, default=Path("runs/incident"))
    options = parser.parse_args()
    scale = options.minutes / 10
    out: Path = options.out / time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    out.mkdir(parents=True)
    with ExitStack() as stack:
        acme, budget = (stack.enter_context(start(profile, truth_capacity=0)) for profile in profiles(scale))
        urls = {"acme": acme, "budget": budget}
        durations = {name: (end - begin) * scale for name, begin, end in (NORMAL, RISING, BACK)}
        (out / "load.yaml").write_text(LOAD.format(**urls, **durations))
        (out / "probe.yaml").write_text(
            PROBE.format(**urls, rate=min(0.5 / scale, MOST_PROBES_PER_S), duration=600 * scale)
        )
        print(
            f"acme at {acme}, budget at {budget}; {options.minutes:g} minutes of load into {options.store}", flush=True
        )
        load = stack.enter_context(running(out / "load.yaml", out / "load", options.store))
        began_ns = generating_since_ns([acme, budget], load)
        probe = stack.enter_context(running(out / "probe.yaml", out / "probe", options.store))
        statuses = {"load": load.wait(), "probe": probe.wait()}
    return told(out, scale, began_ns, statuses)


def told(out: Path, scale: float, began_ns: int, statuses: dict[str, int]) -> int:
    """What happened when. A breached or undecided objective is what the incident is for."""
    failed = {name: status for name, status in statuses.items() if status not in (0, 1, 3, 5)}
    for name in (name for name, status in statuses.items() if status == 3):
        print(f"{name} is INVALID: this machine was too busy with other things to time it well", file=sys.stderr)
    if failed:
        print(f"these ended otherwise than they should: {failed}", file=sys.stderr)
        return max(failed.values())
    runs = {name: json.loads((out / name / "summary.json").read_text())["run"] for name in statuses}
    spans = {"normal": NORMAL[1:], "rising": RISING[1:], "back": BACK[1:], "acme_hot": HOT, "budget_down": DOWN}
    when = {name: [began_ns + int(s * scale * 1e9) for s in span] for name, span in spans.items()}
    found = json.dumps({"runs": runs, "began_ns": began_ns, "when_ns": when, "scale": scale})
    (out / "incident.json").write_text(found + "\n")
    print(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
