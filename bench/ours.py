"""One `loadtest run` against the truth server, and what it stored, request by request beside the truth."""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.servers import TruthServer
from loadtest.frames import Report, Unpacker, decode_frame
from loadtest.store import Store
from loadtest.types import TOKEN_KINDS

ROWS = """
    SELECT trace_id, worker, error, error_detail, uncertainty_ns, chunk_offset_ns AS chunks, chunk_kind AS kinds
    FROM requests WHERE run = {run:String} AND NOT warmup"""
TOKENS = tuple(map(int, TOKEN_KINDS))


@dataclass(frozen=True)
class Load:
    """A closed stage: `streams` at a time, each `rounds` answers of `tokens` tokens one after the other."""

    streams: int
    tokens: int = 100
    rounds: int = 4
    workers: int = 1
    stream: bool = True
    ramp_up_s: float = 2
    drain_s: float = 60


@dataclass(frozen=True)
class Matched:
    """One request: what was stored of it and what the server did. Offsets from the request's begin, nanoseconds."""

    ours_ns: list[int]  # of each token, from `sent_ns`
    read_ns: list[int]  # of each token, from when the server's program had read the request
    arrived_ns: list[int]  # the same from when the request had reached the server's kernel


@dataclass(frozen=True)
class Worker:
    """What one worker process reported of itself."""

    cpu_s: float  # since its stage began
    start_cpu_s: float  # before: imports, the plan, the first prompts
    rss_bytes: int  # the most that it held
    start_rss_bytes: int  # the most before its stage began


@dataclass(frozen=True)
class Ours:
    load: Load
    summary: dict[str, Any]
    matched: list[Matched]
    chunks: int  # that the server wrote
    requests: int  # that the server answered
    stored: int
    errors: dict[str, int]
    workers: list[Worker]
    server_cpu_s: float
    most_in_flight: int

    @property
    def cpu_s(self) -> float:
        """Of all worker processes, without their start."""
        return sum(worker.cpu_s for worker in self.workers)

    @property
    def us_per_chunk(self) -> float:
        return self.cpu_s / self.chunks * 1e6

    @property
    def us_per_request(self) -> float:
        return self.cpu_s / self.requests * 1e6


def plan(name: str, server: TruthServer, load: Load) -> dict[str, Any]:
    """In YAML's subset of JSON."""
    target: dict[str, Any] = {
        "name": "truth",
        "url": f"{server.url}/v1",
        "dialect": "openai-chat",
        "model": "paced",
        "stream": load.stream,
    }
    if server.authority:
        target["ca_file"] = str(server.authority)
    stage = {
        "name": "paced",
        "arrivals": {"kind": "closed"},
        "concurrency": load.streams,
        "requests": load.streams * load.rounds,
        "ramp_up_s": load.ramp_up_s,
        "drain_s": load.drain_s,
    }
    return {
        "name": name,
        "seed": 1,
        "targets": [target],
        "prompts": {"kind": "synthetic", "input_tokens": 50, "output_tokens": load.tokens},
        "stages": [stage],
        "fleet": {"workers": load.workers},
    }


def run(name: str, server: TruthServer, load: Load, store: Store, directory: Path) -> Ours:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    path = directory / "plan.json"
    path.write_text(json.dumps(plan(name, server, load)))
    server_before_s = server.truth()["cpu_s"]
    command = [Path(sys.executable).with_name("loadtest"), "run", path, "--quiet", "--out", directory]
    ended = subprocess.run(
        [*map(str, command), "--store", str(store.address)], capture_output=True, text=True, timeout=600
    )
    if ended.returncode not in (0, 3, 5):  # 3: INVALID is a finding here, not a failure
        raise RuntimeError(f"loadtest run exited with {ended.returncode}: {ended.stderr or ended.stdout}")
    truth = server.truth()
    summary = json.loads((directory / "summary.json").read_text())
    rows = store.query(ROWS, {"run": summary["run"]})
    errors: dict[str, int] = {}
    for row in rows:
        if row["error"]:
            errors[row["error"]] = errors.get(row["error"], 0) + 1
    return Ours(
        load=load,
        summary=summary,
        matched=match(rows, truth["requests"]),
        chunks=sum(len(request["chunk_ns"]) for request in truth["requests"]),
        requests=len(truth["requests"]),
        stored=len(rows),
        errors=errors,
        workers=[worker((directory / f"worker-{k}.frames").read_bytes()) for k in range(load.workers)],
        server_cpu_s=truth["cpu_s"] - server_before_s,
        most_in_flight=truth["most_in_flight"],
    )


def match(rows: Sequence[Mapping[str, Any]], requests: Sequence[Mapping[str, Any]]) -> list[Matched]:
    """Rows and the server's records by trace id. A pair of which one lost a token is left out, and is missed there."""
    truth_of = {request["trace"]: request for request in requests}
    pairs = []
    for row in rows:
        truth = truth_of.get(row["trace_id"])
        if truth is None or row["error"]:
            continue
        tokens = [at for at, kind in zip(row["chunks"], row["kinds"], strict=True) if kind in TOKENS]
        if len(tokens) == len(truth["chunk_ns"]):
            pairs.append(
                Matched(
                    tokens,
                    [at - truth["read_ns"] for at in truth["chunk_ns"]],
                    [at - truth["arrived_ns"] for at in truth["chunk_ns"]],
                )
            )
    return pairs


def worker(frames: bytes) -> Worker:
    """From the reports that a worker makes ten times a second: the last one before it took its first request up, and
    the first one after its stages were over. What Locust does to end (some 20 ms, `inspect.stack` among it) is no chunk's."""
    reports = [frame for frame in map(decode_frame, Unpacker().feed(frames)) if isinstance(frame, Report)]
    stages = len(reports[-1].stages)
    last = next(
        report
        for report in reports
        if len(report.stages) == stages and all(stage.drained_ns for stage in report.stages)
    )
    began_ns = min(stage.first_start_ns for stage in last.stages)
    before = [report for report in reports if report.at_ns < began_ns][-1]
    return Worker(
        cpu_s=last.cpu_s - before.cpu_s,
        start_cpu_s=before.cpu_s,
        rss_bytes=reports[-1].peak_rss_bytes,
        start_rss_bytes=before.peak_rss_bytes,
    )
