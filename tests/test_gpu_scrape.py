"""Sources asked over real sockets: what they answer, what goes wrong and by which word, and what of it is stored."""

import asyncio
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest
import trustme
from rich.console import Console

from loadtest.cli import app
from loadtest.errors import PlanError
from loadtest.gpu.names import SAMPLED
from loadtest.gpu.now import seen
from loadtest.gpu.nvml import NoNvml, Nvml
from loadtest.gpu.scrape import Aside, Scrape, Source
from loadtest.gpu.scraper import MOST_WAITING, Scraper, Writer
from loadtest.gpu.watch import sources, table
from loadtest.progress import DevicesNow
from loadtest.simulator import Profile, Tls, start
from loadtest.store import Address, Store
from loadtest.types import Gpu, GpuSource

KEY = "sk-of-the-exporter"
POWER = 'DCGM_FI_DEV_POWER_USAGE{{gpu="0",UUID="GPU-a"}} {}\n'


class Exporter(BaseHTTPRequestHandler):
    """Its path says what it does."""

    asked: ClassVar[list[tuple[str, str | None]]] = []
    powers: ClassVar[list[float]] = []
    held = threading.Event()

    def do_GET(self) -> None:
        self.asked.append((self.path, self.headers["Authorization"]))
        match self.path:
            case "/power":
                self._say(POWER.format(self.powers.pop(0)))
            case "/keyed":
                self._say(POWER.format(1), 200 if self.headers["Authorization"] == f"Bearer {KEY}" else 401)
            case "/500":
                self._say("no", 500)
            case "/elsewhere":
                self._say("", 302, {"Location": "/power"})
            case "/html":
                self._say("<html>welcome</html>")
            case "/other":
                self._say("some_other_metric 1\n")
            case "/hangs":
                self.held.wait(30)
            case "/resets":
                linger = struct.pack("ii", 1, 0)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self.connection.close()
            case "/endless":
                self.send_response(200)
                self.end_headers()
                line = b"# " + b"x" * 2**20 + b"\n"
                for _ in range(100):
                    try:
                        self.wfile.write(line)
                    except OSError:
                        return

    def _say(self, text: str, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass

    def finish(self) -> None:
        try:
            super().finish()
        except (OSError, ValueError):
            pass  # the connection was reset on purpose


@pytest.fixture(scope="module")
def exporter() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Exporter) as server:
        server.handle_error = lambda *_: None  # type: ignore[method-assign]
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        Exporter.held.set()
        server.shutdown()
        thread.join()


def scraped(config: GpuSource, key: str | None = None, times: int = 1, timeout_s: float = 10) -> list[Scrape]:
    async def several() -> list[Scrape]:
        source = Source(config, key, {"loadtest.run": "r"}, timeout_s)
        out = [await source.scrape() for _ in range(times)]
        await source.close()
        return out

    return asyncio.run(several())


def source(url: str, **facts: Any) -> GpuSource:
    return GpuSource(**{"name": "s", "kind": "dcgm", "url": url} | facts)


def free_port() -> int:
    with closing(socket.socket()) as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


# One source


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("/500", "http_500"),
        ("/keyed", "http_401"),
        ("/elsewhere", "http_302"),
        ("/html", "malformed"),
        ("/other", "empty"),
        ("/resets", "reset"),
        ("/endless", "too_large"),
    ],
)
def test_a_scrape_that_fails_is_a_sample(exporter: str, path: str, word: str) -> None:
    [scrape] = scraped(source(exporter + path, targets={"a": ["*"]}))
    assert (scrape.error, scrape.samples) == (word, [])
    up, took, values = scrape.own
    assert (up[0].name, up[1], up[0].attributes["error.type"], up[0].attributes["loadtest.target"]) == (
        "up",
        0,
        word,
        "a",
    )
    assert (took[0].name, took[1]) == ("scrape_duration_seconds", scrape.duration_s)
    assert (values[0].name, values[1]) == ("scrape_samples_scraped", 0)


def test_who_does_not_answer_has_failed_by_the_next_step(exporter: str) -> None:
    [scrape] = scraped(source(f"{exporter}/hangs"), timeout_s=0.2)
    assert (scrape.error, scrape.detail) == ("timeout", "no answer within 0.2 s")
    [scrape] = scraped(source(f"http://127.0.0.1:{free_port()}/"))
    assert scrape.error == "connect"


def test_a_key_is_sent_to_its_source_and_told_to_nobody(exporter: str) -> None:
    Exporter.asked.clear()
    [scrape] = scraped(source(f"{exporter}/keyed"), KEY)
    assert (scrape.error, [value for _, value in scrape.samples]) == ("", [1.0])
    [scrape] = scraped(source(f"{exporter}/elsewhere"), KEY)
    assert [path for path, key in Exporter.asked if key] == ["/keyed", "/elsewhere"]  # it was not followed to /power
    assert KEY not in str(scrape)


def test_a_certificate_must_be_trusted(tmp_path: Any) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "server.pem"))
    with start(Profile(), tls=Tls(str(tmp_path / "server.pem"))) as url:
        [distrusted] = scraped(source(f"{url}/gpu/metrics"))
        [trusted] = scraped(source(f"{url}/gpu/metrics", ca_file=str(tmp_path / "ca.pem")))
    assert (distrusted.error, trusted.error) == ("tls", "")
    assert trusted.samples
    with pytest.raises(PlanError, match=r"s: ca_file .*server\.key cannot be used: No such file"):
        scraped(source("https://h/", ca_file=str(tmp_path / "server.key")))


def test_how_old_a_value_may_be_is_known_from_when_it_changed(exporter: str) -> None:
    """An exporter that takes its values less often than it is asked: 10, 10, 20, 20, 20."""
    Exporter.powers = [10, 10, 20, 20, 20]
    scrapes = scraped(source(f"{exporter}/power"), times=5)
    at = [scrape.at_ns for scrape in scrapes]
    assert [scrape.from_ns for scrape in scrapes] == [at[0], at[0], at[1], at[1], at[1]]


def test_values_of_an_engine_are_of_now(simulator: str) -> None:
    scrapes = scraped(source(f"{simulator}/metrics", kind="vllm"), times=2)
    assert all(scrape.from_ns == 0 for scrape in scrapes)
    assert {series.name for series, _ in scrapes[0].samples} == {
        name for name in SAMPLED if name.startswith("engine.") and "prefix" not in name
    }


def test_without_a_gpu_nvml_is_refused_in_a_sentence() -> None:
    try:
        Nvml()
    except NoNvml:
        pass
    else:
        pytest.skip("this machine has an NVIDIA GPU")
    with pytest.raises(PlanError, match="gpu source s is of kind nvml, but this machine shows no NVIDIA GPU"):
        Source(GpuSource(name="s", kind="nvml"), None, {}, 1)


def test_nvml_is_asked_in_the_call_and_not_by_whoever_goes_through_its_answer() -> None:
    """The call is a thread's, since NVML may block; the answer is gone through in the event loop."""
    nvml = object.__new__(Nvml)
    nvml._devices = [({"gpu": "0"}, None)]  # NVML is not started, or has no such GPU
    with pytest.raises(NoNvml, match="NVML says of GPU 0"):
        nvml.read()


def test_a_call_that_hangs_is_not_made_again_and_nothing_waits_for_it(simulator: str) -> None:
    """As a GPU that has fallen off its bus: NVML does not come back."""
    calls: list[int] = []
    held = threading.Event()

    def hangs() -> list[Any]:
        calls.append(1)
        held.wait(60)
        return []

    steps: list[int] = []
    gpu = Gpu(sources=[source(simulator)], every_s=0.1)
    scraper = Scraper(gpu, {}, {"loadtest.run": "r"}, None, lambda: steps.append(1))
    scraper._sources[0]._nvml = Aside(hangs)  # no driver here hangs on demand
    try:
        with scraper:
            until(lambda: len(steps) >= 4)
            ended = time.monotonic()
        assert time.monotonic() - ended < 30, "the end waited for the call"
    finally:
        held.set()
    assert calls == [1]
    tally = scraper.tally["s"]
    assert tally.failed == tally.scrapes >= 4
    assert tally.last_failure.startswith(("timeout, NVML has not come back from the call of", "late, "))


def test_what_a_call_aside_raises_is_raised_where_it_is_awaited() -> None:
    def fails() -> None:
        raise NoNvml("gone")

    aside = Aside(fails)
    for _ in range(2):
        answer = aside.ask()
        assert answer is not None
        with pytest.raises(NoNvml, match="gone"):
            answer.result(20)
    aside.end()
    assert aside._thread
    aside._thread.join(20)
    assert not aside._thread.is_alive()


# All of them, into the store


def rows(store: Store, run: str, name: str) -> list[dict[str, Any]]:
    return store.query(
        "SELECT toUnixTimestamp64Nano(TimeUnix) AS at_ns, toUnixTimestamp64Nano(StartTimeUnix) AS from_ns, Value AS value, "
        "Attributes AS a FROM otel_metrics_gauge "
        "WHERE MetricName = {name:String} AND Attributes['loadtest.run'] = {run:String} ORDER BY at_ns",
        {"run": run, "name": name},
    )


def until(condition: Any, within_s: float = 60) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def test_every_step_has_a_row_though_a_source_is_gone(store: Store, simulator: str) -> None:
    there = source(f"{simulator}/gpu/metrics", name="there", targets={"t": ["0"]})
    gone = source(f"http://127.0.0.1:{free_port()}/", name="gone")
    gpu = Gpu(sources=[there, gone], every_s=0.2)
    with Scraper(gpu, {}, {"loadtest.run": "both"}, store.address, lambda: None) as scraper:
        until(lambda: scraper.tally["there"].scrapes - scraper.tally["there"].failed >= 4)
    assert scraper.given_up == 0
    assert scraper.tally["gone"].failed == scraper.tally["gone"].scrapes == scraper.tally["there"].scrapes
    assert scraper.tally["gone"].last_failure.startswith(("connect, ", "late, "))
    up = rows(store, "both", "up")
    assert [row["value"] for row in up if row["a"]["loadtest.source"] == "there"].count(1.0) >= 4
    failed = [row for row in up if row["a"]["loadtest.source"] == "gone"]
    assert {(row["value"], row["a"]["error.type"]) for row in failed} <= {(0.0, "connect"), (0.0, "late")}
    power = rows(store, "both", "hw.power")
    assert len(power) == sum(row["value"] == 1 for row in up)
    assert {row["a"]["loadtest.target"] for row in power} == {"t"}
    assert all(row["from_ns"] <= row["at_ns"] for row in power)
    known = store.query("SELECT source, kind, targets, every_s FROM gpu_sources WHERE run = 'both' ORDER BY source")
    assert known == [
        {"source": "gone", "kind": "dcgm", "targets": {}, "every_s": 0.2},
        {"source": "there", "kind": "dcgm", "targets": {"t": ["0"]}, "every_s": 0.2},
    ]
    sums = store.query(
        "SELECT MetricName AS name, any(toUnixTimestamp64Nano(StartTimeUnix)) AS since FROM otel_metrics_sum "
        "WHERE Attributes['loadtest.run'] = 'both' GROUP BY name ORDER BY name"
    )
    assert sums == [{"name": "gpu.throttle.time", "since": 0}, {"name": "hw.energy", "since": 0}]


def test_a_step_that_was_missed_is_booked_as_late(store: Store, simulator: str) -> None:
    """The loop is held up for three steps and a half, as by a machine that has other things to do."""
    steps: list[int] = []

    def busy() -> None:
        steps.append(1)
        if len(steps) == 1:
            time.sleep(0.7)

    gpu = Gpu(sources=[source(f"{simulator}/gpu/metrics")], every_s=0.2)
    with Scraper(gpu, {}, {"loadtest.run": "late"}, store.address, busy):
        until(lambda: len(steps) >= 3)
    up = rows(store, "late", "up")
    late = [row for row in up if row["a"].get("error.type") == "late"]
    assert len(late) >= 3
    assert len({row["at_ns"] // 200_000_000 for row in up}) == len(up)  # one row a step, no step twice


def test_a_fault_of_ours_ends_the_sampling_and_not_the_run(store: Store, simulator: str) -> None:
    def fault() -> None:
        raise ZeroDivisionError("of ours")

    gpu = Gpu(sources=[source(f"{simulator}/gpu/metrics")], every_s=0.1)
    with Scraper(gpu, {}, {"loadtest.run": "fault"}, store.address, fault) as scraper:
        until(lambda: scraper.failure)
    assert scraper.failure == "ZeroDivisionError: of ours"


def test_what_the_store_does_not_take_is_counted(simulator: str) -> None:
    nowhere = Address(scheme="http", host="127.0.0.1", port=free_port(), user="u", password="", database="d")
    writer = Writer(nowhere, Gpu(sources=[source(simulator)]), "r")
    writer.add([Scrape("s", at) for at in range(MOST_WAITING + 5)])
    writer.write()
    writer.close()
    assert writer.given_up == MOST_WAITING + 5


def test_a_fault_in_writing_is_said(store: Store, simulator: str) -> None:
    steps: list[int] = []
    gpu = Gpu(sources=[source(f"{simulator}/gpu/metrics")], every_s=0.1)
    with Scraper(gpu, {}, {"loadtest.run": "writing"}, store.address, lambda: steps.append(1)) as scraper:
        assert scraper._writer
        scraper._writer._encoder = None  # type: ignore[assignment]  # a fault of ours
        until(lambda: len(steps) >= 2)
    assert scraper.failure.startswith("AttributeError: ")
    assert scraper.given_up == scraper.tally["s"].scrapes


# The table of loadtest gpu watch


def shown(scrapes: list[Scrape], gpu: Gpu, now_ns: int) -> str:
    console = Console(width=160, force_terminal=False)
    with console.capture() as capture:
        console.print(table({scrape.source: scrape for scrape in scrapes}, gpu, now_ns))
    return capture.get()


def test_the_table_shows_what_there_is_and_what_there_is_not(exporter: str) -> None:
    Exporter.powers = [612.4]
    power = source(f"{exporter}/power", name="node1", targets={"acme": ["0"]})
    broken = source(f"{exporter}/500", name="node2")
    unasked = source("http://h/", name="node3")
    scrapes = [*scraped(power), *scraped(broken)]
    text = shown(scrapes, Gpu(sources=[power, broken, unasked]), scrapes[0].at_ns + 12_000_000_000)
    lines = [line for line in text.split("\n") if "│" in line]
    assert [line.split("│")[1:4] for line in lines[:3]] == [
        [" node1  ", " dcgm ", " yes           "],
        [" node2  ", " dcgm ", " no: http_500  "],
        [" node3  ", " dcgm ", " not asked yet "],
    ]
    assert "its values have not changed for 12 s" in lines[0]
    assert [cell.strip() for cell in lines[3].split("│")[1:-1]] == [
        *("0", "node1", "acme", "–", "12 s"),
        *("–", "–", "612 W", "–", "–"),
    ]
    assert "– not provided by this source" in text


def test_of_each_target_it_is_told_what_its_devices_do_now(exporter: str) -> None:
    Exporter.powers = [612.4, 100]
    node1, node2 = (source(f"{exporter}/power", name=f"node{n}", targets={"acme": ["0"]}) for n in (1, 2))
    broken = source(f"{exporter}/500", name="node3", targets={"budget": ["0"]})
    gpu = Gpu(sources=[node1, node2, broken], stale_s=5)
    latest = {scrape.source: scrape for each in gpu.sources for scrape in scraped(each)}
    now_ns = max(scrape.at_ns for scrape in latest.values())

    def told(after_s: float) -> list[DevicesNow]:
        return list(seen(latest, gpu, ["acme", "budget", "unwatched"], now_ns + round(after_s * 1e9)))

    budget = DevicesNow(target="budget", failed={"node3": "http_500"})
    assert told(1) == [DevicesNow(target="acme", power_w=712.4), budget]
    [acme, _] = told(12)
    assert acme == DevicesNow(target="acme", stale_s=acme.stale_s), "what is too old stands for nothing"
    assert acme.stale_s == pytest.approx(12, abs=1)


def test_a_kind_that_was_found_out_is_shown_and_names_stand_in_full(simulator: str) -> None:
    watched = [source(f"{simulator}{path}", kind="auto", name=f"a-source-with-a-long-name-{number}")
               for number, path in enumerate(("/metrics", "/gpu/metrics"))]  # fmt: skip
    scrapes = [scrape for each in watched for scrape in scraped(each)]
    console = Console(width=80, force_terminal=False)
    with console.capture() as capture:
        console.print(table({scrape.source: scrape for scrape in scrapes}, Gpu(sources=watched), scrapes[0].at_ns))
    text = capture.get()
    assert [line.split("│")[2].strip() for line in text.splitlines() if "│ yes" in line] == ["vllm", "dcgm"]
    assert "…" not in text
    assert "target" not in text, "of sources that were given none"


def test_watch_looks_at_urls(simulator: str, capsys: pytest.CaptureFixture[str]) -> None:
    app(["gpu", "watch", f"{simulator}/metrics", "--for", "1.2", "--every", "0.5", "--no-keep"], standalone_mode=False)
    out = capsys.readouterr()
    assert "running" in out.out
    assert "yes" in out.out
    assert "watched 1-127.0.0.1-" in out.err


def test_watch_says_what_it_cannot_watch(tmp_path: Any) -> None:
    with pytest.raises(PlanError, match="ftp://x: url must be http:// or https://"):
        sources(["ftp://x"])
    with pytest.raises(PlanError, match="does not exist; name a plan file"):
        sources(["nope.yaml"])
    plan = tmp_path / "plan.yaml"
    plan.write_text(
        'name: p\ntargets: [{name: t, url: "http://h", dialect: http}]\nprompts: {kind: synthetic, input_tokens: 1}\n'
        "stages: [{name: s, arrivals: {kind: constant, rate: 1}, duration_s: 1}]\n"
    )
    with pytest.raises(PlanError, match="has no gpu:, which says what to watch"):
        sources([str(plan)])
