"""The bench: `make bench`, or one part of it by `.venv/bin/python -m bench.run --only precision`.

Writes bench/results.json, in which a part that was not run keeps its last figures and their date, and from it
bench/RESULTS.md with its chart.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import tempfile
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench import chart, page, parts

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
VENVS = HERE.parent / ".venv-bench"
OURS = ("locust", "gevent", "httptools", "msgspec", "chdb")


def machine(server_python: Path) -> dict[str, Any]:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    model = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine()
    )
    uvloop = [str(server_python), "-c", "import uvloop; print(uvloop.__version__)"]
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "open_files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "versions": {name: version(name) for name in OURS}
        | {"uvloop of the server": subprocess.run(uvloop, check=True, capture_output=True, text=True).stdout.strip()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="some parts, with commas: " + ", ".join(parts.PARTS))
    parser.add_argument("--rounds", type=int, default=4, help="answers of each stream")
    parser.add_argument("--server-python", type=Path, default=VENVS / "server" / "bin" / "python")
    options = parser.parse_args()
    wanted = options.only.split(",") if options.only else list(parts.PARTS)
    unknown = set(wanted) - set(parts.PARTS)
    if unknown:
        parser.error(f"no part is called {', '.join(sorted(unknown))}; there are {', '.join(parts.PARTS)}")
    with (
        tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as scratch,
        parts.opened(Path(scratch), options.server_python.absolute(), options.rounds) as bench,
    ):
        for name in wanted:
            print(f"{name}: measuring", flush=True)
            part = parts.PARTS[name](bench)
            keep(name, part, f"python -m bench.run --only {name} --rounds {options.rounds}", options.server_python)
    print(HERE / "RESULTS.md")


def keep(name: str, part: parts.Part, command: str, server_python: Path) -> None:
    """Print a part's figures, and put them in the place of its last ones."""
    for figure in part.figures:
        print(f"  {page.sentence(figure)}", flush=True)
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"parts": {}}
    results["parts"][name] = {
        "measured_at": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "command": command,
        "machine": machine(server_python),
        "load": os.getloadavg()[0],
        "figures": [asdict(figure) for figure in part.figures],
        "data": part.data,
    }
    write(results)


def write(results: dict[str, Any]) -> None:
    ours = [name for name in parts.PARTS if name in results["parts"]]
    peers = sorted(name for name in results["parts"] if name not in parts.PARTS)
    results["parts"] = {name: results["parts"][name] for name in (*ours, *peers)}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    (HERE / "results.svg").write_text(chart.svg(results))
    (HERE / "RESULTS.md").write_text(page.markdown(results))


if __name__ == "__main__":
    main()
