"""The command as a user calls it: exit statuses, what is left behind, and that a key shows nowhere."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from loadtest.frames import Unpacker, decode_frame
from loadtest.simulator import Profile, start
from loadtest.store import open_store
from loadtest.types import Result

LOADTEST = str(Path(sys.executable).with_name("loadtest"))
KEY = "sk-test-7Qx9vKw2LmZr4TbN8sYd"

PLAN = """
name: cli
targets:
  - {{name: a, url: "{url}/v1", dialect: openai-chat, model: m, key: "env:TEST_KEY"{target}}}
prompts: {{kind: synthetic, input_tokens: 10, output_tokens: 4}}
stages:
  - {{name: only, arrivals: {{kind: constant, rate: {rate}}}, duration_s: {duration_s}}}
slos:
  - {{metric: ttft_ms, stat: p50, limit: {limit}}}
fleet: {{workers: 2}}
# these tests share their machine with others
validity: {{stolen: 1, throttled: 1, worker_cpu: 1, shortfall: 1, schedule_lag: 100000, uncertainty: 100000,
  start_spread: 100000}}
"""


class Place:
    """A directory with a store of its own, where commands run."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.environment = {
            **{name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
            "LOADTEST_STORE": str(directory / "store"),
            "TEST_KEY": KEY,
        }

    def plan(self, url: str, limit: float = 5000, rate: float = 30, duration_s: float = 2, target: str = "") -> Path:
        path = self.directory / "plan.yaml"
        path.write_text(PLAN.format(url=url, limit=limit, rate=rate, duration_s=duration_s, target=target))
        return path

    def command(self, *arguments: str | Path) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [LOADTEST, *map(str, arguments)], cwd=self.directory, env=self.environment, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(self, *arguments: str | Path) -> tuple[int, str, str]:
        process = self.command(*arguments)
        out, err = process.communicate(timeout=200)
        return process.returncode, out, err


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    """A simulated provider that wants the key."""
    os.environ["TEST_KEY_OF_PROVIDER"] = KEY
    with start(
        Profile(name="test", decode_base_ms=1, decode_per_sequence_ms=0.01), key="env:TEST_KEY_OF_PROVIDER"
    ) as url:
        yield url


Said = tuple[int, str, str]  # exit status, standard output, standard error


@pytest.fixture(scope="module")
def met(provider: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, Said]:
    """A run that met its objective, where it was, and what it said."""
    place = Place(tmp_path_factory.mktemp("met"))
    return place, place.run("run", place.plan(provider), "--out", "out")


def until(condition: Callable[[], bool], within_s: float = 60) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.05)


def processes_mentioning(text: str) -> list[bytes]:
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if text.encode() in command:
            found.append(command)
    return found


def test_met_run_leaves_its_files_and_nothing_else(met: tuple[Place, Said]) -> None:
    place, (status, out, err) = met
    assert status == 0, err
    made = place.directory / "out"
    assert {path.suffix for path in made.iterdir()} == {".json", ".html", ".yaml", ".frames", ".log"}
    summary = json.loads((made / "summary.json").read_text())
    assert summary["provenance"]["keys"] == {"a": f"sha256:{sha256(KEY.encode()).hexdigest()[:16]}"}
    assert summary["integrity"] == {
        "scheduled": 60, "sent": 60, "missed": 0, "unknown": 0, "stored": 60, "lost": 0, "retried": 0, "retries_lost": 0,
        "missed_by": {},
    }  # fmt: skip
    assert summary["targets"]["a"]["stages"]["only"]["ok"] == 60
    assert summary["generator"]["workers"] == 2
    assert str(made / "report.html") in out
    until(lambda: not processes_mentioning(str(place.directory)))
    assert [p.name for p in (place.directory / "store").iterdir() if "lock" in p.name or "lease" in p.name] == []


def test_key_shows_nowhere(place: Place, provider: str) -> None:
    """In no file that a run leaves, no row, no output and no process list; the run works, so the key was there."""
    process = place.command("run", place.plan(provider, rate=60), "--out", "out")
    commands: list[bytes] = []
    while process.poll() is None:
        commands += processes_mentioning("loadtest")
        time.sleep(0.2)
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert any(b"loadtest.worker" in command for command in commands)
    assert not [command for command in commands if KEY.encode() in command]
    assert KEY not in out + err
    leaks = [path for path in place.directory.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    assert leaks == []
    with open_store(str(place.directory / "store")) as store:
        assert store.query("SELECT count() AS n FROM otel_traces WHERE ServiceName = 'loadtest'")[0]["n"] > 100
        for column in ("toString(SpanAttributes)", "toString(ResourceAttributes)", "StatusMessage", "SpanName"):
            assert store.query(f"SELECT count() AS n FROM otel_traces WHERE {column} LIKE '%{KEY}%'")[0]["n"] == 0


def test_wrong_key_is_not_echoed(place: Place, provider: str) -> None:
    place.environment["TEST_KEY"] = "sk-wrong-but-secret"
    status, out, err = place.run("run", place.plan(provider), "--out", "out")
    assert status == 3, "401 for every request is the plan's fault: INVALID"
    assert "http_4xx" in out
    assert "sk-wrong-but-secret" not in out + err
    leaks = [path for path in place.directory.rglob("*") if path.is_file() and b"sk-wrong-but" in path.read_bytes()]
    assert leaks == []


def test_breached_objective_is_status_1(place: Place, provider: str) -> None:
    status, out, _ = place.run("run", place.plan(provider, limit=0.01), "--out", "out")
    assert status == 1
    assert "breached" in out


def figures(text: str) -> Any:
    """To twelve digits: the store adds a mean's values up in an order of its own."""
    return json.loads(text, parse_float=lambda number: float(f"{float(number):.12g}"))


def test_report_of_a_stored_run(met: tuple[Place, Said]) -> None:
    place, _ = met
    status, out, err = place.run("report", "last", "--format", "json")
    assert status == 0, err
    assert figures(out) == figures((place.directory / "out" / "summary.json").read_text())
    status, out, _ = place.run("report", "--format", "csv")
    header, row = out.splitlines()
    assert dict(zip(header.split(","), row.split(","), strict=True))["ok"] == "60"
    status, out, _ = place.run("report", "--check")
    assert status == 0
    assert Path(out.strip().splitlines()[-1]).name == "report.html"
    status, out, _ = place.run("runs")
    assert out.splitlines()[1].split()[1] == "cli"
    status, _, err = place.run("report", "nosuch")
    assert status == 2
    assert "loadtest runs lists them" in err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rate": -5}, "stages[0].arrivals.rate is -5"),
        ({"target": ", keey: x"}, "keey"),
        ({"target": ", dialect: openai-char"}, "dialect"),
    ],
)
def test_wrong_plan_is_status_2_and_sends_nothing(
    place: Place, provider: str, change: dict[str, object], words: str
) -> None:
    status, out, err = place.run("run", place.plan(provider, **change), "--out", "out")  # type: ignore[arg-type]
    assert status == 2
    assert words in err
    assert out == ""
    assert not (place.directory / "out").exists()
    assert not (place.directory / "store").exists()


def test_directory_of_another_run_is_refused(met: tuple[Place, Said]) -> None:
    place, _ = met
    plan = place.directory / "plan.yaml"
    before = (place.directory / "out" / "summary.json").read_text()
    status, _, err = place.run("run", plan, "--out", "out")
    assert status == 2
    assert "give another --out" in err
    assert (place.directory / "out" / "summary.json").read_text() == before
    (place.directory / "file").touch()
    status, _, err = place.run("run", plan, "--out", "file/out")
    assert status == 2
    assert "nothing can be written" in err


def test_files_that_cannot_be_written_are_told_and_none_is_half_there(place: Place, provider: str) -> None:
    out = place.directory / "out"
    (out / "summary.json").mkdir(parents=True)  # as good as a full disk, and root is stopped by it too
    status, shown, err = place.run("run", place.plan(provider, duration_s=1), "--out", "out", "--quiet")
    assert status == 4
    assert "a met its objective." in shown, "the verdict is not lost with it"
    told = (
        r"summary\.json cannot be written: Is a directory; the run is in the store: .*loadtest report (\S+) --out DIR"
    )
    found = re.search(told, err)
    assert found, err
    assert "internal error" not in err
    assert not list(out.glob(".*")), "nothing half written is left"
    assert place.run("attach", found[1])[0] == status
    assert place.run("report", found[1], "--out", "elsewhere")[0] == 0
    assert place.run("report", found[1], "--format", "json", "--out", "out")[:2] == (2, "")


def test_missing_key_is_status_2(place: Place, provider: str) -> None:
    del place.environment["TEST_KEY"]
    status, _, err = place.run("run", place.plan(provider))
    assert status == 2
    assert "TEST_KEY" in err


def test_a_plan_beside_a_locustfile_is_refused(place: Place) -> None:
    status, _, err = place.run("run", "--locustfile", "locustfile.py", "plan.yaml")
    assert status == 2
    assert "a run is of a plan or of a locustfile" in " ".join(err.replace("│", " ").split())


def test_password_on_the_command_line_is_refused(place: Place, provider: str) -> None:
    status, _, err = place.run("run", place.plan(provider), "--store", "clickhouse://me:hunter2@localhost:1/x")
    assert status == 2
    assert "hunter2" not in err
    assert "LOADTEST_STORE" in err


def test_ctrl_c_drains_reports_and_leaves_nothing(place: Place, provider: str) -> None:
    process = place.command("run", place.plan(provider, duration_s=60), "--out", "out")
    frames = place.directory / "out" / "worker-0.frames"
    until(lambda: frames.exists() and frames.stat().st_size > 4000)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=200)
    assert process.returncode == 130, err
    summary = json.loads((place.directory / "out" / "summary.json").read_text())
    assert 0 < summary["integrity"]["stored"] == summary["integrity"]["sent"]
    assert (place.directory / "out" / "report.html").exists()
    until(lambda: not processes_mentioning(str(place.directory)))


def test_store_that_dies_in_mid_run_is_told_and_loses_nothing(place: Place, provider: str) -> None:
    process = place.command("run", place.plan(provider, duration_s=3), "--out", "out")
    frames = [place.directory / "out" / f"worker-{k}.frames" for k in (0, 1)]
    until(lambda: frames[0].exists() and frames[0].stat().st_size > 4000)
    server = json.loads((place.directory / "store" / "server.json").read_text())
    os.kill(server["pid"], signal.SIGKILL)
    _, err = process.communicate(timeout=200)
    assert process.returncode == 3, err
    assert "its results are in" in err
    results = [
        f for path in frames for f in map(decode_frame, Unpacker().feed(path.read_bytes())) if isinstance(f, Result)
    ]
    assert len(results) == 90, "every request is on disk"
    assert place.run("runs")[0] == 0, "the store recovers"


def test_help_is_there_for_every_command(place: Place) -> None:
    status, out, _ = place.run("--help")
    assert status == 0
    for command in ("run", "report", "runs", "metrics", "validate", "simulate", "store"):
        assert command in out
        assert place.run(command, "--help")[0] == 0


def test_validate_says_what_it_would_send(place: Place) -> None:
    status, out, _ = place.run("validate", place.plan("http://127.0.0.1:9"))
    assert status == 0
    assert "60" in out
    capped = place.plan("http://127.0.0.1:9", target=", max_in_flight: 3")
    assert place.run("validate", capped, "--workers", "3")[0] == 0
    status, _, err = place.run("validate", capped, "--workers", "4")
    assert (status, "max_in_flight is 3" in err) == (2, True), err
    del place.environment["TEST_KEY"]
    status, _, err = place.run("validate", place.plan("http://127.0.0.1:9"))
    assert (status, err) == (2, place.run("run", place.plan("http://127.0.0.1:9"))[2])
    assert "TEST_KEY" in err
    status, out, _ = place.run("validate", "--schema")
    assert status == 0
    assert json.loads(out)["$schema"].startswith("https://json-schema.org/")


def test_a_run_id_runs_once(place: Place, provider: str):
    plan = place.plan(provider, rate=5, duration_s=1)
    code, _, err = place.run("run", plan, "--quiet", "--run-id", "nightly-1")
    assert code == 5, err  # five requests decide nothing
    assert json.loads((place.directory / "runs/nightly-1/summary.json").read_text())["run"] == "nightly-1"

    code, _, err = place.run("run", plan, "--quiet", "--run-id", "nightly-1", "--out", place.directory / "again")
    assert code == 2
    assert "nightly-1 is in the store" in err
    assert "a run id runs once" in err
    assert not (place.directory / "again").exists()  # nothing was begun, nothing sent

    code, _, err = place.run("run", plan, "--quiet", "--run-id", "../etc")
    assert code == 2
    assert "--run-id is '../etc'" in err
