"""One source, asked once a step: an exporter over HTTP, or the GPUs of this machine.

A scrape that fails is a sample as well: `up` is 0, with the word why. Nothing is carried over from one scrape to the next.

What a hardware exporter shows it has taken at a pace of its own: dcgm-exporter every 30 s, unless it is told otherwise.
So of its values it is kept since when they may be as they are: since the scrape before the first that showed them.
"""

import asyncio
import queue
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Generic, TypeVar

import httpx
from msgspec import Struct, field

from loadtest.errors import PlanError
from loadtest.gpu.exposition import Malformed
from loadtest.gpu.names import SAMPLED
from loadtest.gpu.nvml import NoNvml, Nvml, Value
from loadtest.gpu.series import Reader, Series
from loadtest.types import GpuSource

MOST_BYTES = 32 * 2**20
ACCEPT = "text/plain;version=0.0.4;q=1,*/*;q=0.1"

Sample = tuple[Series, float]
Answer = TypeVar("Answer")


class Scrape(Struct):
    """What a source said at one instant. `error` is empty where it answered; `own` is about the scrape itself."""

    source: str
    at_ns: int
    duration_s: float = 0.0
    error: str = ""
    detail: str = ""
    from_ns: int = 0  # since when the hardware's values may be as they are
    samples: list[Sample] = field(default_factory=list)
    own: list[Sample] = field(default_factory=list)


class Failed(Exception):
    def __init__(self, word: str, detail: str) -> None:
        self.word = word
        self.detail = detail


class Source:
    """Raises PlanError where it can never answer."""

    def __init__(self, config: GpuSource, key: str | None, common: Mapping[str, str], timeout_s: float) -> None:
        self.config = config
        self._timeout_s = timeout_s
        self._common = {**common, "loadtest.source": config.name}
        self._reader = Reader(config.kind, self._common, config.targets, config.metrics)
        self._values: list[float] = []
        self._changed_ns = self._asked_ns = 0
        self._own: dict[tuple[str, str], Series] = {}
        self._nvml = Aside(_nvml(config).read) if config.kind == "nvml" else None
        self._key = key
        self._verify = _verify(config)
        self._client: httpx.AsyncClient | None = None  # made when it is first asked: a source never asked holds nothing

    async def scrape(self) -> Scrape:
        scrape = Scrape(self.config.name, time.time_ns())
        begun = time.monotonic()
        try:
            async with asyncio.timeout(self._timeout_s):
                scrape.samples = await self._samples()
        except Failed as e:
            scrape.error, scrape.detail = e.word, e.detail
        except TimeoutError:
            scrape.error, scrape.detail = "timeout", f"no answer within {self._timeout_s:g} s"
        scrape.duration_s = time.monotonic() - begun
        scrape.from_ns = self._since_ns(scrape)
        return self.told(scrape)

    def missed(self, at_ns: int) -> Scrape:
        """A scrape that was due and not made."""
        scrape = Scrape(self.config.name, at_ns, error="late", detail="the machine that asks was too slow to ask")
        return self.told(scrape)

    def told(self, scrape: Scrape) -> Scrape:
        """With what is told of the scrape itself."""
        scrape.own = [(self._about("up", scrape.error), float(not scrape.error))]
        if scrape.error != "late":
            scrape.own.append((self._about("scrape_duration_seconds"), scrape.duration_s))
            scrape.own.append((self._about("scrape_samples_scraped"), float(len(scrape.samples))))
        return scrape

    async def close(self) -> None:
        if self._nvml:
            self._nvml.end()
        if self._client:
            await self._client.aclose()

    async def _samples(self) -> list[Sample]:
        try:
            if self._nvml is not None:
                return self._reader.take(await self._values_of(self._nvml))
            samples = self._reader.read(await self._text())
        except Malformed as e:
            raise Failed("malformed", str(e)) from None
        except NoNvml as e:
            raise Failed("nvml", str(e)) from None
        if not samples:
            raise Failed("empty", f"it answers, and shows nothing that kind {self.config.kind} is known by")
        return samples

    async def _values_of(self, nvml: "Aside[list[Value]]") -> list[Value]:
        answer = nvml.ask()
        if answer is None:
            raise Failed("timeout", f"NVML has not come back from the call of {nvml.under_way_s:.0f} s ago")
        return await asyncio.wrap_future(answer)

    async def _text(self) -> str:
        parts, size = [], 0
        self._client = client = self._client or _client(self._key, self._verify)
        try:
            async with client.stream("GET", self.config.url) as answer:
                if answer.status_code != 200:
                    raise Failed(f"http_{answer.status_code}", f"it answers {answer.status_code}")
                async for part in answer.aiter_bytes():
                    parts.append(part)
                    size += len(part)
                    if size > MOST_BYTES:
                        raise Failed("too_large", f"it shows more than {MOST_BYTES >> 20} MiB")
        except httpx.ConnectError as e:
            raise Failed("tls" if "SSL" in str(e) else "connect", str(e)) from None
        except httpx.DecodingError as e:
            raise Failed("malformed", str(e)) from None
        except httpx.HTTPError as e:
            raise Failed("reset", type(e).__name__) from None
        return b"".join(parts).decode("utf-8", "replace")

    def _since_ns(self, scrape: Scrape) -> int:
        values = [value for series, value in scrape.samples if series.hardware]
        if values and values != self._values:
            self._values, self._changed_ns = values, self._asked_ns or scrape.at_ns
        if values:
            self._asked_ns = scrape.at_ns
        return self._changed_ns

    def _about(self, name: str, error: str = "") -> Series:
        if (name, error) not in self._own:
            attributes = {**self._common, **({"error.type": error} if error else {})}
            if self.config.targets:
                attributes["loadtest.target"] = ",".join(self.config.targets)
            self._own[name, error] = Series(name, SAMPLED[name].unit, "gauge", attributes)
        return self._own[name, error]


class Aside(Generic[Answer]):
    """A call that may block for ever, made in one daemon thread of its own: a call that hangs is not made again before it
    has come back, and the end of the process does not wait for it."""

    def __init__(self, call: Callable[[], Answer]) -> None:
        self._call = call
        self._asked: queue.SimpleQueue[Future[Answer] | None] = queue.SimpleQueue()
        self._answer: Future[Answer] | None = None
        self._asked_s = 0.0
        self._thread: threading.Thread | None = None

    @property
    def under_way_s(self) -> float:
        """For how long the call that was made last has been going on."""
        return time.monotonic() - self._asked_s

    def ask(self) -> Future[Answer] | None:
        """The answer to come; None while a call has not come back."""
        if self._answer and not self._answer.done():
            return None
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="aside", daemon=True)
            self._thread.start()
        answer: Future[Answer] = Future()
        self._answer = answer
        self._asked_s = time.monotonic()
        self._asked.put(answer)
        return answer

    def end(self) -> None:
        """Returns at once; the thread ends when its call has come back."""
        self._asked.put(None)

    def _run(self) -> None:
        while answer := self._asked.get():
            if not answer.set_running_or_notify_cancel():
                continue
            try:
                answer.set_result(self._call())
            except Exception as e:  # noqa: BLE001  # it is raised where the answer is awaited
                answer.set_exception(e)


def _nvml(config: GpuSource) -> Nvml:
    try:
        return Nvml()
    except NoNvml as e:
        raise PlanError(
            f"gpu source {config.name} is of kind nvml, but this machine shows no NVIDIA GPU ({e}); leave it "
            "out, or scrape the exporter of the machine that has the GPU"
        ) from None


def _client(key: str | None, verify: ssl.SSLContext | bool) -> httpx.AsyncClient:
    """Redirects are not followed, and no proxy is asked: whoever was named gets the key, and nobody else."""
    headers = {"accept": ACCEPT} | ({"authorization": f"Bearer {key}"} if key else {})
    return httpx.AsyncClient(headers=headers, verify=verify, trust_env=False, timeout=None)


def _verify(config: GpuSource) -> ssl.SSLContext | bool:
    """Raises PlanError where its ca_file cannot be used."""
    verify: ssl.SSLContext | bool = False
    if config.url.startswith("https:"):
        verify = ssl.create_default_context()
        if config.ca_file:
            try:
                verify.load_verify_locations(config.ca_file)
            except OSError as e:  # ssl.SSLError is one
                why = e.strerror if not isinstance(e, ssl.SSLError) else "it holds no certificate in PEM form"
                raise PlanError(f"gpu source {config.name}: ca_file {config.ca_file} cannot be used: {why}") from None
    return verify
