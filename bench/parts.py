"""What is measured, part by part: each is one function, that starts what it needs, measures, and returns its figures.

A figure is a ratio or an error within one part, in which whatever is compared runs on one machine in one minute; a
figure in microseconds is only told. Where CPU per chunk is a ratio to the C floor, the floor runs before and after, and
the mean of the two counts.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from bench import ours
from bench.figures import errors
from bench.ours import Load, Ours
from bench.servers import Certificate, Pace, TruthServer, build_floor, certificate, run_floor, truth_server
from loadtest.store import Store, open_store

HERE = Path(__file__).parent
LEVELS = (100, 400, 800)
TOKENS = 100
SLOW = Pace(ttft_ms=1000, itl_ms=800)
MANY, MANY_TOKENS = 8000, 50


@dataclass(frozen=True)
class Figure:
    what: str
    measured: float
    unit: str = ""
    asked: float | None = None  # None: told, not asked for
    must_be: Literal["at most", "at least"] = "at most"
    note: str = ""

    @property
    def met(self) -> bool | None:
        if self.asked is None:
            return None
        return self.measured <= self.asked if self.must_be == "at most" else self.measured >= self.asked


@dataclass(frozen=True)
class Part:
    """`data` is what the figures were made of."""

    figures: list[Figure]
    data: Any


class Bench:
    """Where a part finds its programs and its store. `rounds`: answers of each stream."""

    def __init__(self, directory: Path, server_python: Path, store: Store, rounds: int) -> None:
        self.directory = directory
        self.server_python = server_python
        self.store = store
        self.rounds = rounds
        self.floor_program = build_floor(directory)

    def server(self, pace: Pace = Pace(), authority: Certificate | None = None) -> Any:  # noqa: B008 frozen
        return truth_server(self.server_python, pace, authority)

    def floor_us(self, server: TruthServer, streams: int) -> float:
        return run_floor(self.floor_program, server, streams, TOKENS, self.rounds).us_per_chunk

    def ours(self, server: TruthServer, load: Load) -> Ours:
        return ours.run("bench", server, load, self.store, self.directory / "run")


@contextmanager
def opened(directory: Path, server_python: Path, rounds: int) -> Iterator[Bench]:
    with open_store(str(directory / "store")) as store:
        store.migrate()
        yield Bench(directory, server_python, store, rounds)


# Our own


def precision(bench: Bench) -> Part:
    """Errors against the server's truth, and CPU per chunk against the C floor."""
    figures, data = [], []
    with bench.server() as server:
        for streams in LEVELS:
            before_us = bench.floor_us(server, streams)
            run = bench.ours(server, Load(streams, TOKENS, bench.rounds))
            floor_us = (before_us + bench.floor_us(server, streams)) / 2
            found = errors(run.matched)
            worst = streams == max(LEVELS)
            where = f"{streams} streams: "
            figures += [
                Figure(f"{where}error of TTFT, p50", found.ttft_at_kernel_p50, "ms", 0.3 if worst else None),
                Figure(f"{where}error of TTFT, p99", found.ttft_at_kernel_p99, "ms", 2 if worst else None),
                Figure(f"{where}error of ITL, p50", found.itl_matched_p50, "ms", 0.3),
                Figure(f"{where}error of ITL, p99", found.itl_matched_p99, "ms", 0.3),
                Figure(f"{where}CPU per chunk / C floor", run.us_per_chunk / floor_us, "×", 1.8),
                Figure(f"{where}requests lost or failed", missing(run), "", 0),
            ]
            data.append({"streams": streams, "floor_us": floor_us, "floors_us": [before_us, 2 * floor_us - before_us]})
            data[-1] |= {"errors": asdict(found), **told(run)}
    return Part(figures, data)


def missing(run: Ours) -> int:
    """Requests that the plan had and that are not in the store, without an error, with every chunk of the server's."""
    return run.load.streams * run.load.rounds - len(run.matched)


def told(run: Ours) -> dict[str, Any]:
    return {
        "us_per_chunk": run.us_per_chunk if run.chunks else None,
        "chunks": run.chunks,
        "requests": run.requests,
        "stored": run.stored,
        "failed": run.errors,
        "workers": [asdict(worker) for worker in run.workers],
        "host_cpu_s": run.summary["generator"]["host_cpu_s"],
        "server_cpu_s": run.server_cpu_s,
        "most_in_flight": run.most_in_flight,
        "valid": run.summary["validity"]["valid"],
        "reasons": run.summary["validity"]["reasons"],
    }


def many(bench: Bench) -> Part:
    """As many streams as the limit of open files lets one worker have, and the memory that they take."""
    with bench.server(SLOW) as server:
        run = bench.ours(server, Load(MANY, MANY_TOKENS, rounds=1, ramp_up_s=20))
    [worker] = run.workers
    kb = (worker.rss_bytes - worker.start_rss_bytes) / MANY / 1000
    ours_failed = sum(n for word, n in run.errors.items() if word in ("generator", "cancelled"))
    return Part(
        [
            Figure(f"{MANY:,} streams on one worker: errors of ours", ours_failed, "", 0),
            Figure(f"{MANY:,} streams on one worker: requests lost or failed", missing(run), "", 0),
            Figure("streams at the same time", run.most_in_flight, "", MANY, "at least"),
            Figure(f"memory per stream, {MANY_TOKENS} chunks of each kept", kb, "kB", 25),
        ],
        told(run),
    )


def tls(bench: Bench) -> Part:
    load = Load(400, TOKENS, bench.rounds)
    with bench.server() as plain, bench.server(authority=certificate(bench.directory)) as sealed:
        before = bench.ours(plain, load)
        run = bench.ours(sealed, load)
        after = bench.ours(plain, load)
    plain_us = (before.us_per_chunk + after.us_per_chunk) / 2
    found = errors(run.matched)
    return Part(
        [
            Figure("TLS, 400 streams: CPU per chunk / plain", run.us_per_chunk / plain_us, "×", 1.6),
            Figure("TLS, 400 streams: error of TTFT, p99", found.ttft_at_kernel_p99, "ms"),
            Figure("TLS, 400 streams: error of ITL, p99", found.itl_matched_p99, "ms"),
            Figure("TLS, 400 streams: requests lost or failed", missing(run), "", 0),
        ],
        {"plain_us": plain_us, "errors": asdict(found), **told(run)},
    )


def workers(bench: Bench) -> Part:
    """Chunks per CPU second are what a worker's core can carry: wall time would measure the server beside them."""
    with bench.server() as server:
        before = bench.ours(server, Load(400, TOKENS, bench.rounds))
        two = bench.ours(server, Load(800, TOKENS, bench.rounds, workers=2))
        after = bench.ours(server, Load(400, TOKENS, bench.rounds))
    one_us = (before.us_per_chunk + after.us_per_chunk) / 2
    ratio = 2 * one_us / two.us_per_chunk
    return Part(
        [
            Figure("two workers: chunks per CPU second of each / one worker's", ratio, "×", 1.9, "at least"),
            Figure("two workers: requests lost or failed", missing(two), "", 0),
        ],
        {"one_us": one_us, **told(two)},
    )


def requests(bench: Bench) -> Part:
    """Answers without streaming, beside Locust's own client."""
    users, seconds = 64, 8
    with bench.server() as server:
        before = fast_http(server, users, seconds)
        run = bench.ours(server, Load(users, TOKENS, rounds=600, stream=False))
        after = fast_http(server, users, seconds)
    locust_us = (before["us_per_request"] + after["us_per_request"]) / 2
    whole_us = run.us_per_request + run.summary["generator"]["host_cpu_s"] / run.requests * 1e6
    return Part(
        [
            Figure(
                "without streaming: requests per core / FastHttpUser's",
                locust_us / run.us_per_request,
                "×",
                1.3,
                "at least",
            ),
            Figure(
                "the same, with the CPU of the host that writes the spans",
                locust_us / whole_us,
                "×",
                note="not in the worker",
            ),
            Figure("requests that are not a span in the store", users * 600 - run.stored, "", 0),
        ],
        {"locust": [before, after], "us_per_request": run.us_per_request, "whole_us": whole_us, **told(run)},
    )


def fast_http(server: TruthServer, users: int, seconds: float) -> dict[str, float]:
    command = [sys.executable, str(HERE / "fast_http.py"), server.url, str(users), str(seconds)]
    said: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return said


PARTS: Mapping[str, Callable[[Bench], Part]] = {
    "precision": precision,
    "requests": requests,
    "workers": workers,
    "tls": tls,
    "many": many,
}
