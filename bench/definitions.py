"""Do our definitions of other tools agree with the tools? Runs them and us on one simulator.

    make bench-definitions                                       all of them: 8 GB of disk, ten minutes
    python -m bench.definitions --tools aiperf,guidellm          some; what is known of the others is kept

It writes docs/definitions.md, and beside it what that page is made of, definitions.json.

Each tool is installed from PyPI, at the version its definitions were read from, into a virtual environment of its own.
The simulator is scripted: every answer has the same chunks at the same pace, chosen so that the definitions part (a
role chunk long before the first token, reasoning before content, several tokens in a chunk, an end long after the last
token) and so slow, one stream at a time, that no tool is the bottleneck. What is left between a tool's figure and ours
is the definition, and the few milliseconds that its own client takes.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers

from bench.relay import relay
from bench.tools import NOT_RUN, OUTPUT_TOKENS, RUNNERS, Figures, Place, Runner, theirs
from loadtest.definitions import DEFINITIONS, TOOLS
from loadtest.report import others
from loadtest.simulator import Profile, start
from loadtest.simulator.script import WORDS
from loadtest.store import open_store

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "definitions.md"
RESULTS = HERE / "definitions.json"
REQUESTS = 20
AGREES = 0.02

SCRIPT: dict[str, Any] = {
    "role_ms": 240,
    "ttft_ms": 400,
    "reasoning": 2,
    "reasoning_field": "reasoning",
    "chunks": 15,
    "tokens_per_chunk": [1, 1, 1, 2, 1, 3, 1],
    "gaps_ms": [100, 60, 140, 80, 120, 100, 160, 40, 100],
    "end_ms": 80,
}

# Running


def make_tokenizer(directory: Path) -> Path:
    """A word is a token, as it is to the simulator. No hub is asked."""
    directory.mkdir()
    words = ["<unk>", "<s>", "</s>", *dict.fromkeys(WORDS), *(f"word{i}" for i in range(1000))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(directory / "tokenizer.json"))
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}
    template = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": template, **special}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    (directory / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": len(words)}))
    return directory


PLAN = """
name: definitions
targets:
  - {{name: simulator, url: "{url}/v1", dialect: openai-chat, model: m, body: {body}}}
prompts: {{kind: synthetic, input_tokens: {{mean: 50}}, output_tokens: {{mean: {tokens}}}}}
tokenizer: {tokenizer}
stages:
  - {{name: one-stream, arrivals: {{kind: closed}}, concurrency: 1, requests: {requests}}}
"""


def ours(place: Place) -> str:
    """A run of ours at the same simulator; its id. The store is in the place's directory."""
    plan = place.out / "plan.yaml"
    text = PLAN.format(
        url=place.url, body=place.body, tokens=OUTPUT_TOKENS, tokenizer=place.tokenizer, requests=place.requests
    )
    plan.write_text(text)
    command = [str(Path(sys.executable).parent / "loadtest"), "run", str(plan), "--quiet"]
    subprocess.run([*command, "--store", str(place.out / "store"), "--out", str(place.out / "run")], check=True)
    return str(json.loads((place.out / "run" / "summary.json").read_text())["run"])


def our_figures(directory: Path, run: str, tool: str, stats: Sequence[str]) -> Figures:
    with open_store(str(directory / "store")) as store:
        groups = others.groups(store, run)
        said = others.said(store, run, [TOOLS[tool]], groups, stats)
    return {s.name: {stat: value for stat, value in s.stats.items() if value is not None} for s in said}


# Comparing


@dataclass(frozen=True)
class Compared:
    """One figure of one tool beside ours, in ms."""

    name: str
    stat: str
    theirs: float
    ours: float

    @property
    def share(self) -> float:
        """How far theirs is from ours, as a share of ours."""
        return self.theirs / self.ours - 1 if self.ours else float(self.theirs != 0)

    @property
    def agrees(self) -> bool:
        return abs(self.share) <= AGREES

    @property
    def explained(self) -> str:
        """Why not, where they do not."""
        if self.agrees:
            return ""
        late_ms = self.theirs - self.ours
        definition = DEFINITIONS[self.name]
        if definition.of == "token" and definition.kind == "pooled":
            return f"its reader is {abs(late_ms):.1f} ms {'late' if late_ms > 0 else 'early'} at one end of a gap"
        return f"{abs(late_ms):.1f} ms in its own client"


def compared(theirs: Figures, ours: Figures) -> list[Compared]:
    return [
        Compared(name, stat, value, ours[name][stat])
        for name, stats in theirs.items()
        for stat, value in stats.items()
        if stat in ours.get(name, {})
    ]


def measured(runners: Sequence[Runner], venvs: Path, requests: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Tool by tool: its version and rows, or the problem that kept it from running."""
    added = {"simulate": SCRIPT}
    with (
        tempfile.TemporaryDirectory(prefix="definitions-", ignore_cleanup_errors=True) as scratch,
        start(Profile(name="definitions")) as url,
        relay(url, added) as relayed,
    ):
        directory = Path(scratch)
        tokenizer = make_tokenizer(directory / "tokenizer")
        places = {
            name: Place(url, relayed, tokenizer, directory / name, requests, json.dumps(added))
            for name in ("ours", *(runner.tool for runner in runners))
        }
        for place in places.values():
            place.out.mkdir()
        run = ours(places["ours"])
        for runner in runners:
            print(f"{runner.requirement}: running", flush=True)
            result = _of_tool(runner, places[runner.tool], venvs, places["ours"].out, run)
            yield runner.tool, {"requirement": runner.requirement, "requests": requests, **result}


def _of_tool(runner: Runner, place: Place, venvs: Path, stored: Path, run: str) -> dict[str, Any]:
    try:
        figures = theirs(runner, place, venvs)
    except Exception as e:  # noqa: BLE001 whatever becomes of one tool, the others are measured
        print(f"{runner.requirement}: {type(e).__name__}: {e}", flush=True)
        return {"problem": f"{type(e).__name__}: {e}".splitlines()[0]}
    stats = list(dict.fromkeys(stat for stats in figures.values() for stat in stats))
    rows = compared(figures, our_figures(stored, run, runner.tool, stats))
    print(f"{runner.requirement}: {sum(row.agrees for row in rows)} of {len(rows)} figures agree", flush=True)
    kept = [[row.name, row.stat, round(row.theirs, 4), round(row.ours, 4)] for row in rows]
    return {"measured_at": f"{datetime.now(UTC):%Y-%m-%d}", "rows": kept}


# The page


def page(results: Mapping[str, Any]) -> str:
    return "\n".join(_page(results)) + "\n"


def _page(results: Mapping[str, Any]) -> Iterator[str]:
    yield from INTRODUCTION.format(script=json.dumps(SCRIPT), agrees=f"{AGREES:.0%}", host=_host()).strip().splitlines()
    yield ""
    yield from ("| tool | figures | agree within 2% | largest difference of those that do not |", "|---|---:|---:|---|")
    for result in results.values():
        rows = [Compared(*row) for row in result.get("rows", [])]
        if rows:
            off = max((row for row in rows if not row.agrees), key=lambda row: abs(row.share), default=None)
            worst = f"{off.name} {off.stat}, {off.share:+.1%}: {off.explained}" if off else ""
            yield f"| {result['requirement']} | {len(rows)} | {sum(row.agrees for row in rows)} | {worst} |"
    yield from ("", "Not run, and so checked against their sources alone:", "")
    missing = {name: result["problem"] for name, result in results.items() if "problem" in result}
    yield from (f"- {TOOLS[name].title}: {why}" for name, why in {**missing, **NOT_RUN}.items())
    for name, result in results.items():
        if "rows" in result:
            yield from ("", f"## {TOOLS[name].title}", "")
            about = f"`{result['requirement']}`, {result['requests']} requests, {result['measured_at']}."
            yield f"{about} {TOOLS[name].differs}"
            yield from ("", "| figure | stat | theirs, ms | ours, ms | difference | |", "|---|---|---:|---:|---:|---|")
            yield from map(_row, (Compared(*row) for row in result["rows"]))


def _row(row: Compared) -> str:
    return f"| {row.name} | {row.stat} | {row.theirs:.2f} | {row.ours:.2f} | {row.share:+.2%} | {row.explained} |"


def _host() -> str:
    return f"{os.cpu_count()} cores, Python {platform.python_version()}, {platform.system()}"


INTRODUCTION = """
# Do the definitions agree with the tools?

Written by `make bench-definitions` ({host}). Each tool was run against the simulator, one request after another, and
so were we; the figures on the left are what the tool wrote down, those on the right are its definitions
([metrics.md](metrics.md)) over our stored run. Every answer was scripted alike, at a pace at which no tool is the
bottleneck:

```json
{script}
```

A role-only chunk comes 160 ms before the first token, two chunks of reasoning before the content, some chunks hold two
or three tokens, and finish reason and usage come 80 ms after the last token: by another tool's definition a figure
would be off by far more than {agrees}. What remains is the tools' own time: they begin their clock before they have
made the request, and read it when they come to read what has arrived.

vLLM is not installed whole, which takes a GPU's libraries: its request function and its statistics are run as they
stand in the wheel. inference-perf cannot add to the body of a request and is run through a relay that does.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare our definitions of other tools with the tools.")
    parser.add_argument("--tools", help="some of: " + ", ".join(r.tool for r in RUNNERS) + "; all unless given")
    parser.add_argument("--venvs", type=Path, default=HERE.parent / ".venv-bench", help="where tools are installed")
    parser.add_argument("--requests", type=int, default=REQUESTS)
    options = parser.parse_args()
    wanted = options.tools.split(",") if options.tools else [runner.tool for runner in RUNNERS]
    unknown = set(wanted) - {runner.tool for runner in RUNNERS}
    if unknown:
        parser.error(f"no tool is called {', '.join(sorted(unknown))}; there are {', '.join(r.tool for r in RUNNERS)}")
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for tool, result in measured([r for r in RUNNERS if r.tool in wanted], options.venvs.resolve(), options.requests):
        results[tool] = result
        RESULTS.write_text(json.dumps({r.tool: results[r.tool] for r in RUNNERS if r.tool in results}, indent=1) + "\n")
        PAGE.write_text(page(results))
    print(PAGE)


if __name__ == "__main__":
    main()
