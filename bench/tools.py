"""The other tools as bench/definitions.py runs them: how each is installed, called and read.

A tool is one `Runner`: the version on PyPI, a command line, and where in its output the figures stand.
"""

import json
import os
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
OUTPUT_TOKENS = 20
TIMEOUT_S = 900

Figures = dict[str, dict[str, float]]
"""Definition -> stat -> value."""


@dataclass(frozen=True)
class Place:
    """What a tool needs: where to send, what to count with, and where to write."""

    url: str  # without /v1
    relay: str  # the same, for a tool that cannot add to the body of its requests
    tokenizer: Path
    out: Path
    requests: int
    body: str  # JSON: what is added to each request


@dataclass(frozen=True)
class Runner:
    """How a tool is installed and run, and where its figures are found."""

    tool: str  # in TOOLS
    requirement: str
    command: Callable[[Path, Place], list[str]]  # the environment's bin directory
    read: Callable[[Path], Figures]
    pythons: tuple[str, ...] = ("python3.12", "python3.13", "python3.11")
    parts: str = ""  # only this directory of the wheel, without its requirements, and `also` instead
    also: tuple[str, ...] = ()


def stats_of(found: Mapping[str, float], names: Mapping[str, str], scale: float = 1) -> dict[str, float]:
    """The tool's names of stats -> ours."""
    return {ours: float(found[theirs]) * scale for theirs, ours in names.items() if found.get(theirs) is not None}


def same(*stats: str) -> dict[str, str]:
    return {stat: stat for stat in stats}


# AIPerf


def aiperf_command(bin: Path, place: Place) -> list[str]:
    return [
        f"{bin}/aiperf", "profile", "-m", "m", "--tokenizer", str(place.tokenizer), "--url", place.url,
        "--endpoint-type", "chat", "--streaming", "--concurrency", "1", "--request-count", str(place.requests),
        "--isl", "50", "--osl", str(OUTPUT_TOKENS), "--extra-inputs", place.body,
        "--artifact-dir", str(place.out), "--ui", "none",
    ]  # fmt: skip


def aiperf_figures(out: Path) -> Figures:
    found = json.loads((out / "profile_export_aiperf.json").read_text())
    names = {
        "aiperf.ttft_ms": "time_to_first_token",
        "aiperf.ttfo_ms": "time_to_first_output_token",
        "aiperf.itl_ms": "inter_token_latency",
        "aiperf.icl_ms": "inter_chunk_latency",
        "aiperf.e2e_ms": "request_latency",
    }
    stats = {"avg": "mean", **same("p25", "p50", "p75", "p90")}
    return {ours: stats_of(found[theirs], stats) for ours, theirs in names.items()}


# GuideLLM


def guidellm_command(bin: Path, place: Place) -> list[str]:
    backend = {
        "kind": "openai_http",
        "target": place.url,
        "model": "m",
        "request_format": "/v1/chat/completions",
        "extras": {"body": json.loads(place.body)},
    }
    return [
        f"{bin}/guidellm", "run", "--backend", json.dumps(backend), "--profile", "kind=synchronous",
        "--constraint", f"kind=max_requests,count={place.requests}",
        "--data", f"kind=synthetic_text,prompt_tokens=50,output_tokens={OUTPUT_TOKENS}",
        "--tokenizer", f"kind=hf_auto,model={place.tokenizer}",
        "--output", f"kind=json,path={place.out / 'report.json'}",
        "--disable-console-interactive",
    ]  # fmt: skip


def guidellm_figures(out: Path) -> Figures:
    [benchmark] = json.loads((out / "report.json").read_text())["benchmarks"]
    names = {
        "guidellm.ttft_ms": ("time_to_first_token_ms", 1),
        "guidellm.ttfot_ms": ("time_to_first_output_token_ms", 1),
        "guidellm.itl_ms": ("inter_token_latency_ms", 1),
        "guidellm.tpot_ms": ("time_per_output_token_ms", 1),
        "guidellm.e2e_ms": ("request_latency", 1000),
    }
    figures = {}
    for ours, (theirs, scale) in names.items():
        found = benchmark["metrics"][theirs]["successful"]
        values = {"mean": found["mean"], **found["percentiles"]}
        figures[ours] = stats_of(values, same("mean", "p25", "p50", "p75", "p90"), scale)
    return figures


# genai-bench


def genai_bench_command(bin: Path, place: Place) -> list[str]:
    return [
        f"{bin}/genai-bench", "benchmark", "--api-backend", "openai", "--api-base", place.url, "--api-key", "none",
        "--task", "text-to-text", "--api-model-name", "m", "--model-tokenizer", str(place.tokenizer),
        "--num-concurrency", "1", "--traffic-scenario", f"D(50,{OUTPUT_TOKENS})", "--max-time-per-run", "10",
        "--max-requests-per-run", str(place.requests), "--additional-request-params", place.body,
        "--experiment-base-dir", str(place.out), "--experiment-folder-name", "run", "--metrics-time-unit", "ms",
    ]  # fmt: skip


def genai_bench_figures(out: Path) -> Figures:
    [path] = (out / "run").glob("*num_concurrency_1_*.json")
    found = json.loads(path.read_text())["aggregated_metrics"]["stats"]
    names = {"genai_bench.ttft_ms": "ttft", "genai_bench.tpot_ms": "tpot", "genai_bench.e2e_ms": "e2e_latency"}
    stats = same("mean", "p25", "p50", "p75", "p90")
    return {ours: stats_of(found[theirs], stats) for ours, theirs in names.items()}


# EvalScope


def evalscope_command(bin: Path, place: Place) -> list[str]:
    return [
        f"{bin}/evalscope", "perf", "--model", "m", "--url", f"{place.url}/v1/chat/completions", "--api", "openai",
        "--parallel", "1", "-n", str(place.requests), "--dataset", "random", "--tokenizer-path", str(place.tokenizer),
        "--min-prompt-length", "50", "--max-prompt-length", "50", "--prefix-length", "0",
        "--max-tokens", str(OUTPUT_TOKENS), "--min-tokens", str(OUTPUT_TOKENS), "--extra-args", place.body,
        "--outputs-dir", str(place.out),
    ]  # fmt: skip


def evalscope_figures(prefix: str) -> Callable[[Path], Figures]:
    """The mean is in one file, in the names of its table; the percentiles are in another."""

    def read(out: Path) -> Figures:
        [summary] = [json.loads(path.read_text()) for path in out.rglob("benchmark_summary.json")]
        [rows] = [json.loads(path.read_text()) for path in out.rglob("benchmark_percentile.json")]
        by_percent = {row["Percentiles"]: row for row in rows}
        names = {
            "ttft_ms": ("TTFT (ms)", "Avg TTFT (ms)", 1),
            "tpot_ms": ("TPOT (ms)", "Avg TPOT (ms)", 1),
            "itl_ms": ("ITL (ms)", "Avg ITL (ms)", 1),
            "e2e_ms": ("Latency (s)", "Avg Latency (s)", 1000),
        }
        stats = {"25%": "p25", "50%": "p50", "75%": "p75", "90%": "p90"}
        return {
            f"{prefix}.{ours}": {"mean": summary[mean] * scale}
            | {stat: by_percent[percent][theirs] * scale for percent, stat in stats.items()}
            for ours, (theirs, mean, scale) in names.items()
        }

    return read


# inference-perf


def inference_perf_command(bin: Path, place: Place) -> list[str]:
    config = {
        "api": {"type": "chat", "streaming": True},
        "data": {"type": "mock"},
        "load": {
            "type": "concurrent",
            "stages": [{"num_requests": place.requests, "concurrency_level": 1}],
            "num_workers": 1,
        },
        "server": {"type": "vllm", "model_name": "m", "base_url": place.relay, "ignore_eos": True},
        "tokenizer": {"pretrained_model_name_or_path": str(place.tokenizer)},
        "storage": {"local_storage": {"path": str(place.out / "reports")}},
    }
    path = place.out / "config.yaml"
    path.write_text(json.dumps(config))  # JSON is YAML
    return [f"{bin}/inference-perf", "--config_file", str(path)]


def inference_perf_figures(out: Path) -> Figures:
    found = json.loads((out / "reports" / "stage_0_lifecycle_metrics.json").read_text())["successes"]["latency"]
    names = {
        "inference_perf.ttft_ms": "time_to_first_token",
        "inference_perf.tpot_ms": "time_per_output_token",
        "inference_perf.itl_ms": "inter_token_latency",
        "inference_perf.ntpot_ms": "normalized_time_per_output_token",
        "inference_perf.e2e_ms": "request_latency",
    }
    stats = {"median": "p50", **same("mean", "p25", "p75", "p90")}
    return {ours: stats_of(found[theirs], stats, 1000) for ours, theirs in names.items()}


# vLLM: the engine takes 8 GB; its request function and its statistics are two files of the wheel


def vllm_command(bin: Path, place: Place) -> list[str]:
    site = next(bin.parent.glob("lib/python3*/site-packages"))
    arguments = [
        str(site),
        place.url,
        place.body,
        str(place.requests),
        str(OUTPUT_TOKENS),
        str(place.out / "result.json"),
    ]
    return [f"{bin}/python", str(HERE / "vllm_parts.py"), *arguments]


def vllm_figures(prefix: str) -> Callable[[Path], Figures]:
    def read(out: Path) -> Figures:
        found: dict[str, dict[str, float]] = json.loads((out / "result.json").read_text())
        names = {"ttft_ms": "ttft", "tpot_ms": "tpot", "itl_ms": "itl", "e2e_ms": "e2el"}
        return {f"{prefix}.{ours}": found[theirs] for ours, theirs in names.items()}

    return read


VLLM_PARTS = {"parts": "vllm/benchmarks/", "also": ("aiohttp", "numpy", "tqdm", "regex")}
RUNNERS = (
    Runner("aiperf", "aiperf==0.13.0", aiperf_command, aiperf_figures),
    Runner("guidellm", "guidellm==0.8.1", guidellm_command, guidellm_figures),
    Runner("genai_bench", "genai-bench==0.0.5", genai_bench_command, genai_bench_figures),
    Runner(
        "inference_perf", "inference-perf==0.7.0", inference_perf_command, inference_perf_figures,
        pythons=("python3.12", "python3.13"),
    ),
    Runner("vllm", "vllm==0.32.0", vllm_command, vllm_figures("vllm"), **VLLM_PARTS),  # type: ignore[arg-type]
    Runner("vllm_033", "vllm==0.33.0", vllm_command, vllm_figures("vllm_033"), **VLLM_PARTS),  # type: ignore[arg-type]
    Runner("evalscope", "evalscope[perf]==1.11.0", evalscope_command, evalscope_figures("evalscope")),
    Runner("evalscope_112", "evalscope[perf]==1.14.1", evalscope_command, evalscope_figures("evalscope_112")),
)  # fmt: skip

NOT_RUN = {
    "mlcommons": "not on PyPI",
    "llmperf": "not on PyPI",
    "mlperf_loadgen": "a library without a client of its own: what it is told is what it reports",
    "artificial_analysis": "not published",
}


# Installing


def environment_of(runner: Runner, venvs: Path) -> Path:
    """The bin directory of the tool's virtual environment, which is made where it is not there."""
    name = runner.requirement.partition(" @ ")[0]
    directory = venvs / name.replace("==", "-").replace("[", "-").replace("]", "")
    if not (directory / "installed").exists():
        print(f"{runner.requirement}: installing into {directory}", flush=True)
        shutil.rmtree(directory, ignore_errors=True)
        subprocess.run([_python(runner.pythons), "-m", "venv", str(directory)], check=True)
        _install(runner, directory)
        (directory / "installed").touch()
    return directory / "bin"


def _python(names: Sequence[str]) -> str:
    """The first of these interpreters that there is."""
    for name in names:
        if shutil.which(name) and subprocess.run([name, "-c", ""], capture_output=True, check=False).returncode == 0:
            return name
    raise LookupError(f"it needs {' or '.join(names)}, which is not here")


def _install(runner: Runner, directory: Path) -> None:
    python = str(directory / "bin" / "python")
    uv = shutil.which("uv")
    install = [uv, "pip", "install", "-q", "--python", python] if uv else [python, "-m", "pip", "install", "-q"]
    if not runner.parts:
        subprocess.run([*install, runner.requirement], check=True)
        return
    subprocess.run([*install, *runner.also], check=True)
    site = next(directory.glob("lib/python3*/site-packages"))
    with tempfile.TemporaryDirectory() as wheels:
        download = [python, "-m", "pip", "download", "-q", "--no-deps", "-d", wheels, runner.requirement]
        subprocess.run(download, check=True)
        [wheel] = Path(wheels).glob("*.whl")
        with zipfile.ZipFile(wheel) as packed:
            packed.extractall(site, [name for name in packed.namelist() if name.startswith(runner.parts)])


def theirs(runner: Runner, place: Place, venvs: Path) -> Figures:
    bin = environment_of(runner, venvs)
    log = place.out / "log.txt"
    with log.open("w") as written:
        command = runner.command(bin, place)
        settings = {"PATH": f"{bin}:{os.environ['PATH']}", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}
        done = subprocess.run(
            command,
            env={**os.environ, **settings},
            cwd=place.out,
            stdout=written,
            stderr=subprocess.STDOUT,
            timeout=TIMEOUT_S,
            check=False,
        )
    if done.returncode != 0:
        raise RuntimeError(f"it ended with status {done.returncode}:\n{log.read_text()[-2000:]}")
    return runner.read(place.out)
