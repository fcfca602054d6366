"""Starting a simulator: from what a user typed, and as a child process for tests and examples."""

import os
import resource
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from selectors import EVENT_READ, DefaultSelector

from msgspec import json

from loadtest.simulator import profile as profiles
from loadtest.simulator.profile import Profile, Tls
from loadtest.simulator.server import serve

STDIN = "-"
STOP_S = 5.0


def run(
    profile: str,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    key: str | None = None,
    tls_cert: str | None = None,
    tls_key: str | None = None,
    truth: int = 0,
) -> None:
    """Serve until stopped, and print one line that ends with the URL when ready.

    `profile` is a preset's name, a YAML file, or "-": one line of JSON on standard input, the end of which then ends
    the server. `key` is env:NAME or file:PATH. Raises ValueError or OSError, saying what is wrong.
    """
    if tls_key and not tls_cert:
        raise ValueError("a TLS key was given without a certificate; give both")
    if tls_cert:
        _check_certificate(tls_cert, tls_key)
    from_stdin = profile == STDIN
    chosen = profiles.parse(sys.stdin.buffer.readline(), "stdin") if from_stdin else profiles.load(profile)
    _allow_many_connections()
    serve(
        chosen,
        host,
        port,
        key=secret(key) if key else None,
        tls=Tls(tls_cert, tls_key) if tls_cert else None,
        truth_capacity=truth,
        ready=lambda url: print(f"simulated provider {chosen.name!r} is ready at {url}", flush=True),
        lifeline=sys.stdin.buffer if from_stdin else None,
    )


def _check_certificate(certificate: str, key: str | None) -> None:
    """Before the server says it in words of its own, which name no file."""
    for path in filter(None, (certificate, key)):
        with open(path, "rb"):
            pass  # an OSError names the file
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except ssl.SSLError as e:
        holds = f"{certificate} and {key} are not" if key else f"{certificate} does not hold"
        raise ValueError(f"{holds} a certificate with its key, in PEM form and without a passphrase: {e.reason}") from e


def secret(reference: str) -> str:
    """What env:NAME or file:PATH refers to. ValueError where it cannot be had."""
    kind, _, name = reference.partition(":")
    if kind == "env" and name:
        if value := os.environ.get(name, "").strip():
            return value
        raise ValueError(f"the key is {reference}, but the environment has no {name}; set it")
    if kind == "file" and name:
        if value := Path(name).read_text().strip():
            return value
        raise ValueError(f"the key is {reference}, but that file is empty")
    raise ValueError("the key must be a reference, env:NAME or file:PATH, so that the secret is in no process list")


def _allow_many_connections() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@contextmanager
def start(
    profile: Profile,
    *,
    key: str | None = None,
    tls: Tls | None = None,
    truth_capacity: int = 10_000,
    start_s: float = 30.0,
) -> Iterator[str]:
    """A simulator on a free port of 127.0.0.1; its URL, without /v1. `key` is a reference: env:NAME or file:PATH.

    The profile travels through the child's standard input, and the child ends when that does: it cannot outlive us.
    """
    command = [sys.executable, "-m", "loadtest.simulator", "--profile", "-", "--truth", str(truth_capacity)]
    command += ["--key", key] if key else []
    command += ["--tls-cert", tls.certificate] if tls else []
    command += ["--tls-key", tls.key] if tls and tls.key else []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        try:
            process.stdin.write(json.encode(profile) + b"\n")
            process.stdin.flush()
            yield _url(process, start_s)
        finally:
            _stop(process)


def _url(process: subprocess.Popen[bytes], start_s: float) -> str:
    assert process.stdout is not None
    with DefaultSelector() as selector:
        selector.register(process.stdout, EVENT_READ)
        line = process.stdout.readline() if selector.select(start_s) else b""
    if not line.strip():
        raise RuntimeError(f"the simulator did not start within {start_s:g} s; what it said is above")
    return line.split()[-1].decode()


def _stop(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
