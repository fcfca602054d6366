"""The same streams for other tools: how far their TTFT is from the server's truth, and their CPU per chunk.

    make bench-peers                          all that install
    python -m bench.peers --only aiperf       one of them

Each tool runs twice against the truth server, with few and with many answers of each stream: its CPU per chunk is the
difference in CPU time (all of its processes) over that in chunks, so that its start does not count. What it reports of
TTFT in the longer run is held against what the server recorded in that run. MLCommons endpoints is not on PyPI; it is
installed from its repository, or from what LOADTEST_BENCH_ENDPOINTS names.
"""

import argparse
import json
import os
import resource
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.definitions import make_tokenizer
from bench.figures import quantile
from bench.ours import Load
from bench.parts import TOKENS, Bench, Figure, Part, opened
from bench.run import VENVS, keep
from bench.servers import TruthServer
from bench.tools import RUNNERS, Figures, Place, Runner, environment_of

ENDPOINTS = "git+https://github.com/mlcommons/endpoints@ea332753"
STREAMS = 100
FEW, MANY = 2, 8
TIMEOUT_S = 600


@dataclass(frozen=True)
class Peer:
    """How a tool is told to keep so many streams, and where it says its TTFT: p50 and p99 in ms."""

    runner: Runner
    command: Callable[[Path, Place], list[str]]
    ttft_ms: Callable[[Path], tuple[float, float]]


def _runner(tool: str) -> Runner:
    return next(runner for runner in RUNNERS if runner.tool == tool)


def aiperf_command(bin: Path, place: Place) -> list[str]:
    return [
        f"{bin}/aiperf", "profile", "-m", "m", "--tokenizer", str(place.tokenizer), "--url", place.url,
        "--endpoint-type", "chat", "--streaming", "--concurrency", str(STREAMS), "--request-count", str(place.requests),
        "--isl", "50", "--osl", str(TOKENS), "--artifact-dir", str(place.out), "--ui", "none",
    ]  # fmt: skip


def aiperf_ttft(out: Path) -> tuple[float, float]:
    found = json.loads((out / "profile_export_aiperf.json").read_text())["time_to_first_token"]
    return found["p50"], found["p99"]


def guidellm_command(bin: Path, place: Place) -> list[str]:
    backend = {"kind": "openai_http", "target": place.url, "model": "m", "request_format": "/v1/chat/completions"}
    return [
        f"{bin}/guidellm", "run", "--backend", json.dumps(backend), "--profile", f"kind=concurrent,streams={STREAMS}",
        "--constraint", f"kind=max_requests,count={place.requests}",
        "--data", f"kind=synthetic_text,prompt_tokens=50,output_tokens={TOKENS}",
        "--tokenizer", f"kind=hf_auto,model={place.tokenizer}",
        "--output", f"kind=json,path={place.out / 'report.json'}", "--disable-console-interactive",
    ]  # fmt: skip


def guidellm_ttft(out: Path) -> tuple[float, float]:
    [benchmark] = json.loads((out / "report.json").read_text())["benchmarks"]
    found = benchmark["metrics"]["time_to_first_token_ms"]["successful"]["percentiles"]
    return found["p50"], found["p99"]


def genai_bench_command(bin: Path, place: Place) -> list[str]:
    return [
        f"{bin}/genai-bench", "benchmark", "--api-backend", "openai", "--api-base", place.url, "--api-key", "none",
        "--task", "text-to-text", "--api-model-name", "m", "--model-tokenizer", str(place.tokenizer),
        "--num-concurrency", str(STREAMS), "--traffic-scenario", f"D(50,{TOKENS})", "--max-time-per-run", "10",
        "--max-requests-per-run", str(place.requests), "--experiment-base-dir", str(place.out),
        "--experiment-folder-name", "run", "--metrics-time-unit", "ms",
    ]  # fmt: skip


def genai_bench_ttft(out: Path) -> tuple[float, float]:
    [path] = (out / "run").glob(f"*num_concurrency_{STREAMS}_*.json")
    found = json.loads(path.read_text())["aggregated_metrics"]["stats"]["ttft"]
    return found["p50"], found["p99"]


def endpoints_command(bin: Path, place: Place) -> list[str]:
    prompts = place.out / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": "hello " * 50 + str(i)}) + "\n" for i in range(place.requests)))
    return [
        f"{bin}/inference-endpoint", "benchmark", "online", "--endpoints", place.url, "--model", str(place.tokenizer),
        "--dataset", str(prompts), "--duration", "0", "--load-pattern", "concurrency", "--concurrency", str(STREAMS),
        "--num-samples", str(place.requests), "--streaming", "on", "--max-output-tokens", str(TOKENS),
        "--report-dir", str(place.out / "report"), "--no-cpu-affinity", "--workers", "1",
    ]  # fmt: skip


def endpoints_ttft(out: Path) -> tuple[float, float]:
    metrics = json.loads((out / "report" / "metrics" / "final_snapshot.json").read_text())["metrics"]
    found = next(metric for metric in metrics if metric["name"] == "ttft_ns")["percentiles"]
    return found["50.0"] / 1e6, found["99.0"] / 1e6


def _nothing(_: Path) -> Figures:
    return {}


PEERS = (
    Peer(_runner("aiperf"), aiperf_command, aiperf_ttft),
    Peer(_runner("guidellm"), guidellm_command, guidellm_ttft),
    Peer(_runner("genai_bench"), genai_bench_command, genai_bench_ttft),
    Peer(
        Runner(
            "mlcommons",
            f"inference-endpoint @ {os.environ.get('LOADTEST_BENCH_ENDPOINTS', ENDPOINTS)}",
            endpoints_command,
            _nothing,
            pythons=("python3.12", "python3.13"),
        ),
        endpoints_command,
        endpoints_ttft,
    ),
)


@dataclass(frozen=True)
class Ran:
    cpu_s: float
    chunks: int
    ttft_ms: tuple[float, float]
    true_ttft_ms: tuple[float, float]


def ran(peer: Peer, bin: Path, place: Place, server: TruthServer) -> Ran:
    place.out.mkdir(parents=True)
    server.truth()
    before_s = _children_cpu_s()
    settings = {"PATH": f"{bin}:{os.environ['PATH']}", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}
    done = subprocess.run(
        peer.command(bin, place), env={**os.environ, **settings}, cwd=place.out, check=False, timeout=TIMEOUT_S,
        capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"it ended with status {done.returncode}: {(done.stderr or done.stdout)[-500:]}")
    requests = server.truth()["requests"]
    first_ms = [(r["chunk_ns"][0] - r["arrived_ns"]) / 1e6 for r in requests if r["chunk_ns"]]
    true_ms = (quantile(first_ms, 0.5), quantile(first_ms, 0.99))
    chunks = sum(len(r["chunk_ns"]) for r in requests)
    return Ran(_children_cpu_s() - before_s, chunks, peer.ttft_ms(place.out), true_ms)


def _children_cpu_s() -> float:
    """Of all processes that have ended and were waited for, theirs among them."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measured(peer: Peer, bench: Bench) -> Part:
    """One tool, and we before it on the same server."""
    bin = environment_of(peer.runner, VENVS)
    tokenizer = bench.directory / "tokenizer"
    if not tokenizer.exists():
        make_tokenizer(tokenizer)
    with bench.server() as server:
        run = bench.ours(server, Load(STREAMS, TOKENS, MANY))
        few, many = (
            ran(peer, bin, Place(server.url, server.url, tokenizer, bench.directory / f"{peer.runner.tool}-{rounds}",
                                 STREAMS * rounds, ""), server)
            for rounds in (FEW, MANY)
        )  # fmt: skip
    us_per_chunk = (many.cpu_s - few.cpu_s) / (many.chunks - few.chunks) * 1e6
    ours_ms = quantile([m.ours_ns[0] / 1e6 for m in run.matched], 0.99)
    ours_error_ms = ours_ms - quantile([m.arrived_ns[0] / 1e6 for m in run.matched], 0.99)
    error_ms = many.ttft_ms[1] - many.true_ttft_ms[1]
    name = peer.runner.requirement.partition(" @ ")[0]
    return Part(
        [
            Figure(f"{name}: error of its TTFT p99", error_ms, "ms", note=f"it says {many.ttft_ms[1]:.1f} ms"),
            Figure("ours beside it", ours_error_ms, "ms"),
            Figure(
                f"{name}: CPU per chunk / ours", us_per_chunk / run.us_per_chunk, "×", note=f"{us_per_chunk:.0f} µs"
            ),
        ],
        {"few": vars(few), "many": vars(many), "us_per_chunk": us_per_chunk, "ours_us_per_chunk": run.us_per_chunk},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="some, with commas: " + ", ".join(peer.runner.tool for peer in PEERS))
    parser.add_argument("--server-python", type=Path, default=VENVS / "server" / "bin" / "python")
    options = parser.parse_args()
    wanted = options.only.split(",") if options.only else [peer.runner.tool for peer in PEERS]
    with (
        tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as scratch,
        opened(Path(scratch), options.server_python.absolute(), MANY) as bench,
    ):
        for peer in PEERS:
            if peer.runner.tool in wanted:
                print(f"{peer.runner.tool}: measuring", flush=True)
                try:
                    part = measured(peer, bench)
                except Exception as e:  # noqa: BLE001 whatever becomes of one tool, the others are measured
                    print(f"{peer.runner.tool}: {type(e).__name__}: {e}", flush=True)
                    continue
                command = f"python -m bench.peers --only {peer.runner.tool}"
                keep(f"peer {peer.runner.tool}", part, command, options.server_python)


if __name__ == "__main__":
    main()
