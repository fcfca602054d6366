"""docs/runbook.md: its commands are executed, its tables agree with the program.

A block's first line names it. ClickHouse is stood in for by the same engine behind the same HTTP interface, told by its
configuration where backups may go, as deploy/clickhouse/config.xml tells the server.
"""

import json
import re
import secrets
import shutil
import subprocess
import sys
import textwrap
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sample_run
import typer
import yaml

from loadtest import capacity
from loadtest.cli import app
from loadtest.store import open_store
from loadtest.validity import RULES

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs/runbook.md").read_text()
SERVER = """
import sys
from pathlib import Path
import uvicorn
from loadtest.store import engine
from loadtest.store.http import Interface
engine.OPTIONS += "&backups.allowed_path=" + sys.argv[3]
passwords = {"loadtest": Path(sys.argv[2]).read_text()}
config = uvicorn.Config(Interface(engine.Engine(Path(sys.argv[1]), "loadtest"), passwords), port=0, log_level="warning")
server = uvicorn.Server(config)
listener = config.bind_socket()
listener.listen()
print(listener.getsockname()[1], flush=True)
server.run([listener])
"""


def block(name: str) -> str:
    """The commands of the block that begins with the comment `# name`."""
    lines = TEXT.split(f"    # {name}")[1].splitlines()[1:]
    commands = []
    for line in lines:
        if line and not line.startswith("    "):
            break
        if line.strip().startswith("# "):
            break
        commands.append(line)
    return textwrap.dedent("\n".join(commands)).strip()


def bash(commands: str, cwd: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands], cwd=cwd, capture_output=True, text=True, timeout=200,
        env={"PATH": path, "HOME": str(cwd), **environment},
    )  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with a run, which nobody uses any more."""
    directory = tmp_path / "store"
    with open_store(str(directory)) as opened:
        opened.migrate()
        sample_run.insert(opened)
    return directory


@pytest.mark.skipif(not shutil.which("flock"), reason="no flock")
def test_an_embedded_store_is_backed_up_and_restored_as_the_runbook_says(store: Path, tmp_path: Path):
    with open_store(str(store)) as used:  # somebody uses it: the copy would be torn
        used.query("SELECT 1")
        busy = bash(block("embedded: back up"), tmp_path, STORE=str(store))
        assert busy.returncode == 1
        assert not (tmp_path / "backup.tar").exists()
    wait = 'for _ in $(seq 100); do flock --nonblock "$STORE/lock" true && break; sleep 0.3; done\n'
    done = bash(wait + block("embedded: back up"), tmp_path, STORE=str(store))
    assert done.returncode == 0, done.stderr
    shutil.rmtree(store)
    restored = bash(block("embedded: restore"), tmp_path)
    assert restored.returncode == 0, restored.stderr
    assert sample_run.RUN[:16] in restored.stdout


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets/password").write_text(secrets.token_urlsafe(16))
    (tmp_path / "backups").mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, tmp_path / "data", tmp_path / "secrets/password", tmp_path / "backups"],
        stdout=subprocess.PIPE, text=True, cwd=tmp_path,
    )  # fmt: skip
    try:
        assert process.stdout
        yield f"127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.terminate()
        process.communicate(timeout=200)


@pytest.mark.skipif(not shutil.which("curl"), reason="no curl")
def test_clickhouse_is_backed_up_and_restored_as_the_runbook_says(server: str, tmp_path: Path):
    spec = f"clickhouse://loadtest@{server}/loadtest?password=file:{tmp_path}/secrets/password"
    with open_store(spec) as store:
        store.migrate()
        sample_run.insert(store)
        before = store.query("SELECT count() AS n, sum(cityHash64(*)) AS content FROM attempts")
    allowed = ET.parse(ROOT / "deploy/clickhouse/config.xml").findtext("backups/allowed_path")
    assert allowed

    def run(name: str) -> None:
        commands = block(name)
        assert allowed in commands  # the path that the server's configuration allows
        done = bash(commands.replace(allowed, f"{tmp_path}/backups/"), tmp_path, URL=f"http://{server}/")
        assert done.returncode == 0, done.stdout + done.stderr

    run("clickhouse: back up")
    password = (tmp_path / "secrets/password").read_text()
    dropped = bash(
        f'curl -sS --fail-with-body -u "loadtest:{password}" http://{server}/ --data-binary "DROP DATABASE loadtest SYNC"',
        tmp_path,
    )
    assert dropped.returncode == 0, dropped.stdout
    run("clickhouse: restore")
    with open_store(spec) as store:
        assert store.query("SELECT count() AS n, sum(cityHash64(*)) AS content FROM attempts") == before
        assert store.migrate() == []
        sample_run.insert(store)  # the views are there again: rows that come now reach the typed table
        assert store.query("SELECT count() AS n FROM attempts")[0]["n"] == 2 * before[0]["n"]


def test_what_the_store_holds_is_said(store: Path, tmp_path: Path):
    for name in ("both: what the store holds", "tables: bring them to this version, and say what they hold"):
        done = bash(block(name), tmp_path, LOADTEST_STORE=str(store))
        assert done.returncode == 0, done.stderr
        assert "attempts" in done.stdout


def test_a_plan_is_sized_and_a_run_looked_into_as_the_runbook_says(store: Path, tmp_path: Path):
    shutil.copy(ROOT / "deploy/plans/simulator.yaml", tmp_path / "plan.yaml")
    calibrate, validate = block("capacity").splitlines()
    assert calibrate == "loadtest calibrate"  # test_calibrate.py does that
    done = bash(validate, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "about 608 requests to each target" in done.stdout
    done = bash(block("why a run is INVALID").replace("DIR", str(store)), tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["run"] == sample_run.RUN


@pytest.mark.skipif(not (ROOT / ".tools/bin/helm").exists(), reason="helm is not here; make chart builds it")
def test_the_chart_takes_what_the_runbook_gives_it(tmp_path: Path):
    """As far as it goes without a cluster: what would be applied."""
    [upgrade] = [line for line in block("cluster").splitlines() if line.startswith("helm upgrade ")]
    (tmp_path / "values.yaml").write_text((ROOT / "helm/ci/run.yaml").read_text())
    shutil.copy(ROOT / "deploy/plans/simulator.yaml", tmp_path / "plan.yaml")
    (tmp_path / "helm").symlink_to(ROOT / "helm")
    done = bash(upgrade.replace("helm upgrade ", f"{ROOT}/.tools/bin/helm template "), tmp_path)
    assert done.returncode == 0, done.stderr
    [job] = [each for each in yaml.safe_load_all(done.stdout) if each and each["kind"] == "RayJob"]
    assert "after-upgrade" in job["spec"]["entrypoint"]


def test_every_block_is_executed_or_needs_a_cluster():
    named = set(re.findall(r"^    +# (.+)$", TEXT, re.MULTILINE))
    executed = re.findall(r'(?:block|run)\("([^"]+)"\)|"((?:both|tables): [^"]+)"', Path(__file__).read_text())
    beginnings = tuple(one or other for one, other in executed)
    assert named
    assert {name for name in named if not name.startswith(beginnings)} == set()
    assert not re.findall(r"\n\n {4,}[^ #].*", TEXT), "each has its name"


def test_a_password_is_rotated_as_the_runbook_says(tmp_path: Path):
    (tmp_path / "deploy").mkdir()
    shutil.copy(ROOT / "deploy/secrets.sh", tmp_path / "deploy/secrets.sh")
    bash("deploy/secrets.sh secrets", tmp_path)
    before = {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}
    done = bash(block("passwords: a new one for the readers (Grafana)"), tmp_path)
    assert done.returncode == 0, done.stderr
    after = {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}
    assert {name for name in before if after[name] != before[name]} == {"reader-password", "users.xml"}


def test_every_command_and_option_that_is_named_exists():
    named = re.findall(r"(?:^    +|`)loadtest( [^`\n|#]*)", TEXT, re.MULTILINE)
    assert len(named) > 8
    for text in set(named):
        words = text.split()
        command: Any = typer.main.get_command(app)
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]
        assert not hasattr(command, "commands") or words == ["--version"], f"loadtest{text}"
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options, f"loadtest{text}"


def test_every_reason_to_be_invalid_is_in_the_table():
    section = TEXT.split("## What INVALID means")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    assert sorted(re.findall(r"`(\w+)`", " ".join(rows))) == sorted(RULES)


def test_the_sizing_table_is_what_the_program_reckons_with():
    """With its guess, and with the figures that stand above the table."""
    found = re.search(r"(\d+) µs of CPU a request .* and ([\d.]+) µs a chunk", TEXT)
    assert found
    measured = capacity.Capacity(float(found[1]), float(found[2]))
    rows = re.findall(
        r"^\| answers of (\d+) chunks?.*?\| ([\d,]+) \| ([\d,]*) *\| ([\d,]+) \| ([\d,]*) *\|$", TEXT, re.MULTILINE
    )
    assert len(rows) == 4
    for chunks, *told in rows:
        for cost, requests, streams in ((measured, *told[:2]), (capacity.GUESS, *told[2:])):
            per_s = capacity.FULL * 1e6 / (cost.request_us + int(chunks) * cost.chunk_us)
            assert float(requests.replace(",", "")) == pytest.approx(per_s, rel=0.02)
            if streams:
                assert float(streams.replace(",", "")) == pytest.approx(
                    per_s * int(chunks) / capacity.PACE_PER_S, rel=0.02
                )
