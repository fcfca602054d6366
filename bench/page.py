"""RESULTS.md from results.json. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.parts import Figure

WHOSE = ("truth", "ours")
TITLES = {
    "precision": "Precision, and CPU per chunk",
    "requests": "Requests without streaming",
    "workers": "Two workers",
    "tls": "TLS",
    "many": "Many streams",
}


def markdown(results: Mapping[str, Any]) -> str:
    return "\n".join(_page(results)) + "\n"


def figures_of(part: Mapping[str, Any]) -> list[Figure]:
    return [Figure(**figure) for figure in part["figures"]]


def _page(results: Mapping[str, Any]) -> Iterator[str]:
    parts: Mapping[str, Any] = results["parts"]
    every = [figure for part in parts.values() for figure in figures_of(part)]
    asked = [figure for figure in every if figure.met is not None]
    missed = [figure for figure in asked if not figure.met]
    yield from INTRODUCTION.strip().splitlines()
    yield ""
    yield f"**{len(asked) - len(missed)} of {len(asked)} targets are met.**"
    if missed:
        yield from ("", "Missed:", "", *(f"- {sentence(figure)}" for figure in missed))
    yield from ("", "![What was measured, as bars](results.svg)")
    for name, part in parts.items():
        yield from ("", f"## {TITLES.get(name, name.replace('peer ', 'Beside '))}", "", f"{_measured(part)}", "")
        yield from _table(figures_of(part))
        yield from _told(name, part["data"])
    yield from ("", *METHOD.strip().splitlines())


def _measured(part: Mapping[str, Any]) -> str:
    machine = part["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    load = f", {part['load']:.1f} processes running or waiting for a core at its end" if "load" in part else ""
    return (
        f"`{part['command']}`, {part['measured_at']}: {machine['cores']} cores of {machine['processor']}, "
        f"{machine['system']}, Python {machine['python']}, {machine['open_files']:,} open files{load}; {versions}."
    )


def _table(figures: Sequence[Figure]) -> Iterator[str]:
    yield from ("| figure | asked | measured | measured / asked | |", "|---|---:|---:|---:|---|")
    for figure in figures:
        asked = "" if figure.asked is None else f"{figure.must_be} {amount(figure.asked, figure.unit)}"
        share = "" if not figure.asked else f"{figure.measured / figure.asked:.2f}"
        word = {True: "met", False: "**missed**", None: ""}[figure.met]
        end = "; ".join(part for part in (word, figure.note) if part)
        yield f"| {figure.what} | {asked} | {amount(figure.measured, figure.unit)} | {share} | {end} |"


def _told(name: str, data: Any) -> Iterator[str]:
    """What no target is about, and a reader wants to see."""
    if name == "precision":
        yield from ("", "Milliseconds; µs of CPU a chunk.", "")
        heads = [
            f"{metric} {stat}, {whose}" for metric in ("TTFT", "ITL") for stat in ("p50", "p99") for whose in WHOSE
        ]
        yield "| streams | " + " | ".join([*heads, "C floor, µs", "ours, µs", "server, µs"]) + " |"
        yield "|---:|" + "---:|" * 11
        for row in data:
            e = row["errors"]
            pairs = ("ttft_p50", "ttft_p99", "itl_p50", "itl_p99")
            cells = [f"{e[which]:.2f}" for name in pairs for which in (f"true_{name}", name)]
            server_us = row["server_cpu_s"] / row["chunks"] * 1e6
            cells += [f"{us:.1f}" for us in (row["floor_us"], row["us_per_chunk"], server_us)]
            yield f"| {row['streams']} | " + " | ".join(cells) + " |"


def sentence(figure: Figure) -> str:
    asked = "" if figure.asked is None else f", asked {figure.must_be} {amount(figure.asked, figure.unit)}"
    return f"{figure.what}: {amount(figure.measured, figure.unit)}{asked}{' (missed)' if figure.met is False else ''}"


def amount(value: float, unit: str) -> str:
    """Three significant digits."""
    digits = f"{value:,.0f}" if value == int(value) or abs(value) >= 100 else f"{value:.3g}"
    return f"{digits} {unit}" if unit else digits


INTRODUCTION = """
# What was measured

Written by `make bench` (peers: `make bench-peers`) from [results.json](results.json). Each figure is a ratio, or an
error, within one part, in which everything that is compared ran on the same machine in the same minutes. Microseconds
are of that machine and are only told.
"""

METHOD = """
## How

The truth is what [truth_server.py](truth_server.py) recorded: the kernel's stamp of the request's last byte, and the
instant before each token's write. An answer of ours and its truth are matched by trace id, so that no error hides in
equal quantiles: "error of TTFT, p99" is the 99th percentile of the size of the differences. The truth's TTFT begins when
the request has reached the server's kernel; until the server's program reads it, it waits at the server, and a client
has to count that. The table below the figures has the quantiles as the server's program saw them, from its own read.

CPU per chunk is user and system time of the worker process from its first request to the report that ends its stage, over
the chunks that the server wrote: sending, reading, stamping, parsing HTTP, SSE and JSON, and handing over every chunk's
time. Its start (imports) is left out; [floor.c](floor.c) reads the same streams with one epoll loop in C and only counts. Both
share the machine with the server and, in our case, with the host process and the store that keeps the spans.

A worker keeps what came of an answer until its end, some 0.3 kB a chunk: "memory per stream" is what its resident memory
grew by over its start, at its highest, over the number of streams, and grows with the length of the answers.

Where a core is not free for the worker, chunks of one stream lie together in the kernel, which keeps the last one's
stamp. Errors of many milliseconds at 400 or 800 streams are that: the run says so itself (`uncertainty_ms`, and INVALID
above its limit). On two cores the server alone takes two thirds of one at 800 streams.

A worker that is not busy still ticks (reports, timers): some 20 ms of CPU a second, a fifth of what it uses at 100
streams and little of what it uses at 800. The C floor does not tick. The ratio of requests without streaming moves with
what else runs: where each part says how many processes waited for a core, a figure from a machine that was not its own
is to be measured again on one that is, by the command above its table.
"""
