"""What sampling costs: `python -m bench.telemetry`. Eight exporters of 250 series each, 2,000 values a second into the store.

The exporters are a process of their own and so is the store; what is told is the CPU time of the process that asks, parses
and writes, as a share of one core, and beside it that of the embedded store. It is compared with reading the same texts by
prometheus-client alone, in the same minute.
"""

import argparse
import multiprocessing
import resource
import tempfile
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from loadtest.gpu.names import RULES
from loadtest.gpu.scraper import Scraper
from loadtest.store import open_store
from loadtest.types import Gpu, GpuSource

SOURCES, GPUS = 8, 25
METRICS = [rule.metric for rule in RULES["dcgm"] if not rule.bit][:10]
LIMIT = 0.02


def text(turn: int) -> str:
    lines = []
    for number, metric in enumerate(METRICS):
        lines.append(f"# HELP {metric} What it says.\n# TYPE {metric} gauge")
        lines += [
            f'{metric}{{gpu="{g}",UUID="GPU-{g:032x}",pci_bus_id="00000000:{g:02X}:00.0",device="nvidia{g}",'
            f'modelName="NVIDIA H100 80GB HBM3",Hostname="node1",DCGM_FI_DRIVER_VERSION="570.86.15"}} {turn + number + g}.25'
            for g in range(GPUS)
        ]
    return "\n".join(lines) + "\n"


def exporters(connection: Connection) -> None:
    turns = iter(range(1_000_000))

    class Exporter(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = text(next(turns)).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Exporter) as server:
        connection.send(server.server_port)
        server.serve_forever()


def cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


def store_pid(directory: Path) -> int:
    """The process that has the directory's data open."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if str(directory) in (entry / "cmdline").read_text():
                    return int(entry.name)
            except OSError:
                continue
    raise SystemExit("the embedded store's process was not found")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60)
    seconds = parser.parse_args().seconds
    here, there = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=exporters, args=(there,), daemon=True)
    process.start()
    url = f"http://127.0.0.1:{here.recv()}/metrics"
    sources = [GpuSource(name=f"s{n}", kind="dcgm", url=url, targets={"t": ["*"]}) for n in range(SOURCES)]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory, open_store(directory) as store:
        store.migrate()
        scraper = Scraper(Gpu(sources=sources), {}, {"loadtest.run": "bench"}, store.address)
        with scraper:
            time.sleep(5)  # what is imported and remembered once
            pid = store_pid(Path(directory))
            before, before_store, begun = time.process_time(), cpu_of(pid), time.monotonic()
            time.sleep(seconds)
            share = (time.process_time() - before) / (time.monotonic() - begun)
            share_store = (cpu_of(pid) - before_store) / (time.monotonic() - begun)
        [rows] = store.query(
            "SELECT count() AS n FROM otel_metrics_gauge WHERE MetricName LIKE 'hw.%' OR MetricName LIKE 'gpu.%'"
        )
        [failed] = store.query("SELECT countIf(Value = 0) AS n FROM otel_metrics_gauge WHERE MetricName = 'up'")
    body = httpx.get(url, trust_env=False).text
    process.kill()
    begun_cpu = time.process_time()
    for _ in range(SOURCES):
        for family in text_string_to_metric_families(body):
            assert family.samples
    reference = time.process_time() - begun_cpu
    print(
        f"{len(METRICS) * GPUS * SOURCES:,} series a second from {SOURCES} sources for {seconds} s; "
        f"{rows['n']:,} rows of gauges, {failed['n']} failed scrapes"
    )
    print(
        f"asking, parsing and writing: {share:.2%} of a core (at most {LIMIT:.0%}: {'met' if share <= LIMIT else 'NOT met'})"
    )
    print(f"the embedded store: {share_store:.2%} of a core, niced")
    print(f"prometheus-client, parsing alone: {reference:.2%} of a core")
    print(f"largest memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
