"""What the bench starts and stops: the truth server, the C floor, and certificates for TLS."""

import json
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
START_S = 20


@dataclass(frozen=True)
class Pace:
    """Of each stream: when its first token comes after the request, and the others after one another."""

    ttft_ms: float = 50
    itl_ms: float = 20


@dataclass(frozen=True)
class Certificate:
    """Paths of PEM files: for 127.0.0.1, its key, and the authority to trust."""

    chain: Path
    key: Path
    authority: Path


@dataclass(frozen=True)
class TruthServer:
    url: str
    pid: int
    authority: Path | None = None

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def truth(self) -> dict[str, Any]:
        """What truth_server.py recorded since this was last called."""
        with urllib.request.urlopen(f"{self.url}/truth", timeout=120, context=self._trust()) as answer:
            report: dict[str, Any] = json.load(answer)
            return report

    def _trust(self) -> Any:
        if self.authority is None:
            return None
        import ssl

        return ssl.create_default_context(cafile=str(self.authority))


@contextmanager
def truth_server(python: Path, pace: Pace, certificate: Certificate | None = None) -> Iterator[TruthServer]:
    """truth_server.py run by `python`, which has uvloop. It ends with its standard input, hence with us."""
    command = [str(python), str(HERE / "truth_server.py"), f"--ttft-ms={pace.ttft_ms}", f"--itl-ms={pace.itl_ms}"]
    if certificate:
        command += [f"--tls-cert={certificate.chain}", f"--tls-key={certificate.key}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        try:
            url = process.stdout.readline().strip()
            if not url:
                raise RuntimeError(f"the truth server did not start: {' '.join(command)}")
            yield TruthServer(url, process.pid, certificate.authority if certificate else None)
        finally:
            process.stdin.close()
            try:
                process.wait(START_S)
            except subprocess.TimeoutExpired:
                process.kill()


def build_floor(directory: Path) -> Path:
    program = directory / "floor"
    subprocess.run(["cc", "-O2", "-o", str(program), str(HERE / "floor.c")], check=True)
    return program


@dataclass(frozen=True)
class Floor:
    chunks: int
    cpu_s: float
    us_per_chunk: float


def run_floor(program: Path, server: TruthServer, streams: int, tokens: int, rounds: int) -> Floor:
    """CPU per chunk that the truth server wrote: reads may find two of them."""
    server.truth()
    arguments = [str(server.port), str(streams), str(tokens), str(rounds)]
    said = subprocess.run([str(program), *arguments], check=True, capture_output=True, text=True).stdout
    cpu_s = json.loads(said)["cpu_s"]
    chunks = sum(len(request["chunk_ns"]) for request in server.truth()["requests"])
    return Floor(chunks, cpu_s, cpu_s / chunks * 1e6)


def certificate(directory: Path) -> Certificate:
    """Made on the spot, for 127.0.0.1."""
    import trustme

    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    made = Certificate(directory / "chain.pem", directory / "key.pem", directory / "authority.pem")
    for blob, path in ((issued.private_key_pem, made.key), (authority.cert_pem, made.authority)):
        blob.write_to_path(str(path))
    for index, blob in enumerate(issued.cert_chain_pems):
        blob.write_to_path(str(made.chain), append=index > 0)
    return made
