"""Regions on clusters that ask for a token, each for its own."""

import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.processes import is_open, wait_until

pytestmark = pytest.mark.timeout(240)
RAY = str(Path(sys.executable).with_name("ray"))


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The address of each, by the name of its region; its token is in NAME.token of the directory that `""` names."""
    directory = tmp_path_factory.mktemp("tokens")
    addresses, started = {"": str(directory)}, []
    try:
        for name in ("eu", "us"):
            token = directory / f"{name}.token"
            token.write_text(secrets.token_hex(32))
            port = free_port()
            command = [RAY, "start", "--head", f"--port={port}", "--num-cpus=1", "--include-dashboard=false", "--block"]
            asks = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
            with (directory / f"{name}.log").open("wb") as log:
                command.append("--object-store-memory=80000000")
                started.append(subprocess.Popen(command, env={**os.environ, **asks}, stdout=log, stderr=log))
            wait_until(lambda port=port: is_open(port), 90)  # type: ignore[misc]
            addresses[name] = f"127.0.0.1:{port}"
        yield addresses
    finally:
        for head in started:
            head.terminate()  # `ray stop` would end every Ray of this machine
        for head in started:
            head.wait(30)


def regions(heads: dict[str, str], **tokens: str) -> str:
    places = (
        f"{{name: {name}, address: '{heads[name]}', token_file: {heads['']}/{token}.token}}"
        for name, token in tokens.items()
    )
    return f"regions: [{', '.join(places)}]"


def test_each_cluster_gets_its_own_token(
    heads: dict[str, str], start_run: Callable[..., Any], write_plan: Callable[..., Path], simulator: str
) -> None:
    run = start_run(write_plan(simulator, 2, regions(heads, eu="eu", us="us"), "requests: 120"), "")
    assert run.wait(120) == 0, run.text
    summary = run.summary()
    assert summary["integrity"]["scheduled"] == summary["integrity"]["stored"] == 120
    assert {each["vantage"]: each["requests"] for each in summary["vantages"]} == {"eu": 60, "us": 60}
    tokens = [path.read_bytes() for path in Path(heads[""]).glob("*.token")]
    kept = [path for path in run.out.parent.rglob("*") if path.is_file()]
    assert len(kept) > 5
    assert not [path for path in kept for token in tokens if token in path.read_bytes()]


def test_the_token_of_another_cluster_opens_none(
    heads: dict[str, str], start_run: Callable[..., Any], write_plan: Callable[..., Path], simulator: str
) -> None:
    run = start_run(write_plan(simulator, 2, regions(heads, eu="eu", us="eu"), "requests: 120"), "")
    assert run.wait(120) == 2, run.text
    assert f"us at {heads['us']}: no Ray at {heads['us']}" in run.text
    assert "token_file of a region" in run.text
    assert (Path(heads[""]) / "eu.token").read_text() not in run.text


def test_a_token_that_is_not_there_is_named(
    heads: dict[str, str], start_run: Callable[..., Any], write_plan: Callable[..., Path], simulator: str
) -> None:
    run = start_run(write_plan(simulator, 2, regions(heads, eu="eu", us="none"), "requests: 120"), "")
    assert run.wait(120) == 2, run.text
    assert "token_file of region us cannot be read: " in run.text
    assert f"{heads['']}/none.token" in run.text
