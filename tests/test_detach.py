"""A run without its terminal: started, looked at, attached to and stopped from others, through the commands themselves."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.processes import command, parent, pids, wait_until

LOADTEST = str(Path(sys.executable).with_name("loadtest"))
PLAN = """
name: detached
targets: [{{name: a, url: "{url}/v1", dialect: openai-chat, model: m}}]
prompts: {{kind: synthetic, input_tokens: 20, output_tokens: 5}}
stages: [{{name: s, arrivals: {{kind: constant, rate: 20}}, {until}}}]
"""


class Terminal:
    def __init__(self, directory: Path, url: str) -> None:
        self.directory = directory
        self.url = url
        self.sockets = Path(tempfile.mkdtemp(prefix="lt-"))  # short, as a socket's path must be

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [LOADTEST, *arguments], env={**os.environ, "XDG_RUNTIME_DIR": str(self.sockets)}, cwd=self.directory,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    def __call__(self, *arguments: str) -> tuple[int, str]:
        with self.start(*arguments) as process:
            out, err = process.communicate(timeout=200)
            return process.returncode, out + err

    def detach(self, until: str) -> str:
        """The id of the run that goes on, once its terminal is gone."""
        plan = self.directory / "plan.yaml"
        plan.write_text(PLAN.format(url=self.url, until=until))
        with self.start("run", str(plan), "--detach", "--store", "store") as process:
            out, err = process.communicate(timeout=200)
            assert process.returncode == 0, err
        return out.split()[1]


@pytest.fixture
def terminal(tmp_path: Path, simulator: str) -> Iterator[Callable[..., tuple[int, str]]]:
    made = Terminal(tmp_path, simulator)
    yield made
    made("stop", "last", "--quiet")  # of a test that failed before it did
    shutil.rmtree(made.sockets)


def test_a_run_outlives_its_terminal(terminal: Terminal) -> None:
    run = terminal.detach("duration_s: 600")
    out = terminal.directory / "runs" / run

    def tells_of_requests() -> bool:
        status, said = terminal("status", run)
        assert status == 0
        assert f"{run}: " in said
        return " requests/s" in said

    wait_until(tells_of_requests, 100)
    with terminal.start("attach", run[:10]) as attached:
        assert attached.stderr
        line = attached.stderr.readline()
        assert "requests/s" in line, line
        attached.send_signal(signal.SIGINT)
        rest = attached.stderr.read()
        assert attached.wait(100) == 130, rest
    status, said = terminal("stop", run)
    assert status == 130, said
    assert "report.html" in said
    summary = json.loads((out / "summary.json").read_text())
    assert summary["interrupted"]
    assert summary["integrity"]["sent"] == summary["integrity"]["stored"] > 0
    assert (out / "driver.log").stat().st_size > 0
    assert list(terminal.sockets.glob("loadtest/*.sock")) == []


def test_attach_ends_as_the_run_does(terminal: Terminal) -> None:
    run = terminal.detach("duration_s: 4")
    status, said = terminal("attach", run)
    summary = json.loads((terminal.directory / "runs" / run / "summary.json").read_text())
    assert status == summary["exit_status"] != 2
    assert "report.html" in said


def test_how_a_run_has_ended_is_told_afterwards(terminal: Terminal, tmp_path_factory: pytest.TempPathFactory) -> None:
    """From wherever the command is called."""
    run = terminal.detach("requests: 20")
    out = terminal.directory / "runs" / run
    terminal("attach", run, "--quiet")
    ended = json.loads((out / "summary.json").read_text())["exit_status"]
    terminal.directory = tmp_path_factory.mktemp("elsewhere")
    for command_, meant in (("attach", run), ("attach", "last"), ("stop", run)):
        status, said = terminal(command_, meant)
        assert status == ended, said
        assert str(out / "report.html") in said
    status, said = terminal("status", run[:12])
    assert status == 0
    assert said.startswith(f"{run}: over, exit status {ended}: ")
    assert str(out / "report.html") in said
    shutil.rmtree(out)
    status, said = terminal("attach", run)
    assert status == ended
    assert f"its results are no longer in {out}; loadtest report {run}" in said


def test_what_is_refused_is_refused_before_the_terminal_is_left(terminal: Terminal) -> None:
    plan = terminal.directory / "plan.yaml"
    plan.write_text("name: 5")
    status, said = terminal("run", str(plan), "--detach")
    assert status == 2
    assert "plan.yaml" in said
    assert not list((terminal.directory / "runs").iterdir())


def test_a_killed_driver_is_not_waited_for(terminal: Terminal) -> None:
    run = terminal.detach("duration_s: 60")
    with terminal.start("attach", run) as attached:
        assert attached.stderr
        attached.stderr.readline()
        driver = next(pid for pid in pids() if run_of(pid) == str(terminal.directory) and "attach" not in command(pid))
        workers = [pid for pid in pids() if parent(pid) == driver]
        os.kill(driver, signal.SIGKILL)
        assert "ended without a word" in attached.stderr.read()
        assert attached.wait(100) == 2
    wait_until(lambda: not any("loadtest.worker" in command(pid) for pid in workers), 60)
    status, said = terminal("status", run)
    assert status == 2
    assert f"no run {run} goes on on this machine" in said


def run_of(pid: int) -> str:
    """Where a `loadtest run` was started."""
    try:
        return os.readlink(f"/proc/{pid}/cwd") if "loadtest run" in command(pid) else ""
    except OSError:
        return ""
