"""What is left to say when nobody can read it, and of options that name nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

LOADTEST = str(Path(sys.executable).with_name("loadtest"))


@pytest.mark.parametrize("command", ["metrics", "validate --schema", "--help"])
def test_a_reader_that_goes_away_is_no_error(command: str) -> None:
    with subprocess.Popen(
        [LOADTEST, *command.split()], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(100) == 141


@pytest.mark.parametrize("command", ["metrics", "validate --schema"])
def test_a_full_disk_is_told(command: str) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([LOADTEST, *command.split()], stdout=full, stderr=subprocess.PIPE, text=True, timeout=200)
    assert (done.returncode, done.stderr) == (
        4,
        "loadtest: standard output cannot be written: No space left on device\n",
    )


def test_letters_that_a_terminal_does_not_have_cost_nothing_but_themselves() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii:strict", "PYTHONUTF8": "0"}
    done = subprocess.run(
        [LOADTEST, "calibrate", "no-such-plän.yaml"], env=environment, capture_output=True, text=True, timeout=200
    )
    assert (done.returncode, done.stderr.partition(" does not exist")[0]) == (2, "loadtest: no-such-pl?n.yaml")


def refused(*arguments: str) -> str:
    done = subprocess.run([LOADTEST, *arguments], capture_output=True, text=True, timeout=200)
    assert (done.returncode, done.stdout) == (2, "")
    return done.stderr


def test_an_empty_store_is_not_the_default_one() -> None:
    assert refused("runs", "--store", "").startswith("loadtest: the store given is empty; write clickhouse://")


def test_a_certificate_that_is_none_is_named(tmp_path: Path) -> None:
    path = tmp_path / "zz.pem"
    assert str(path) in refused("simulate", "--port", "0", "--tls-cert", str(path))
    path.write_text("no certificate")
    assert f"{path} does not hold a certificate" in refused("simulate", "--port", "0", "--tls-cert", str(path))
