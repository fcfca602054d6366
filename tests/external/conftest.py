"""Servers that nobody here wrote, started on loopback from .venv-external with a tiny model made on the spot."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import made_tokenizers as made
import pytest

BIN = Path(__file__).parents[2] / ".venv-external/bin"
MODELS = Path(__file__).with_name("made_models.py")
STARTS_WITHIN_S = 120
STOPS_WITHIN_S = 10

Serve = Callable[..., str]


def made_model(kind: str, directory: Path) -> Path:
    """A directory with tokenizer.json and a tiny random model for it."""
    made.save(made.byte_level(2000), directory)
    subprocess.run([BIN / "python", MODELS, kind, directory], check=True, capture_output=True, timeout=STARTS_WITHIN_S)
    return directory


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tokenizer of all the made models."""
    return made.save(made.byte_level(2000), tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="session")
def transformers_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_model("transformers", tmp_path_factory.mktemp("transformers"))


@pytest.fixture(scope="session")
def gguf_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_model("gguf", tmp_path_factory.mktemp("gguf")) / "model.gguf"


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """serve(argv, health): start a server, `{port}` in argv filled in; its URL once `health` answers 200."""
    running: list[subprocess.Popen[bytes]] = []
    directory = tmp_path_factory.mktemp("server")

    def serve(argv: Sequence[str], health: str) -> str:
        port = free_port()
        log = directory / f"{len(running)}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [word.format(port=port) for word in argv],
                stdout=file,
                stderr=subprocess.STDOUT,
                cwd=directory,
                env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(directory), "OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )
        running.append(process)
        url = f"http://127.0.0.1:{port}"
        await_answer(url + health, process, log)
        return url

    yield serve
    for process in running:
        end(process)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def await_answer(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + STARTS_WITHIN_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            with urlopen(url, timeout=5):
                return
        except (URLError, OSError):
            time.sleep(0.1)
    raise AssertionError(f"{process.args} does not answer at {url}: {log.read_text(errors='replace')[-2000:]}")


def end(process: "subprocess.Popen[bytes]") -> None:
    """With all of its own children: they share its group."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return
        try:
            process.wait(STOPS_WITHIN_S)
            return
        except subprocess.TimeoutExpired:
            continue
