"""Every source of a plan, asked once a step for as long as a run goes on, into the store: a thread with an event loop.

Steps are those of the clock, `every_s` long, and sources are asked in the middle of each, so that a sample falls into its
step even if it is a little late. A step that was missed is a failed scrape by the word `late`. The store is written beside
it, one batch at a time: what it does not take waits, so that a slow store holds no scrape up.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from struct import Struct
from typing import Any

from loadtest import __version__
from loadtest.gpu.scrape import Scrape, Source
from loadtest.gpu.series import Series
from loadtest.spans import RESOURCE
from loadtest.store import Address, Store, StoreError
from loadtest.telemetry import CUMULATIVE, SCOPE
from loadtest.types import Gpu

MOST_WAITING = 2000
"""Scrapes that wait for the store; of more, the oldest are given up and counted."""
WRITE_EVERY_S = 1.9
"""An insert costs the store the same whether it brings one step or two."""
LAST_TRIES = 3
LAST_PAUSE_S = 0.5
MOST_MISSED = 60
"""Steps in a row that are booked one by one."""


class Tally:
    def __init__(self) -> None:
        self.scrapes = self.failed = 0
        self.last_failure = ""

    def add(self, scrape: Scrape) -> None:
        self.scrapes += 1
        if scrape.error:
            self.failed += 1
            self.last_failure = f"{scrape.error}, {scrape.detail}"


class Scraper:
    """Within `with`. Raises PlanError where a source can never answer. `latest` holds each source's last scrape, `tally` how
    many there were of it and how many of them failed."""

    def __init__(
        self,
        gpu: Gpu,
        keys: Mapping[str, str],
        common: Mapping[str, str],
        address: Address | None,
        on_step: Callable[[], None] = lambda: None,
    ) -> None:
        self.latest: dict[str, Scrape] = {}
        self.tally: dict[str, Tally] = {source.name: Tally() for source in gpu.sources}
        self.given_up = 0
        self._gpu = gpu
        self._common = common
        self._on_step = on_step
        self._sources = [Source(source, keys.get(source.name), common, gpu.every_s) for source in gpu.sources]
        self._writer = Writer(address, gpu, common["loadtest.run"]) if address else None
        self._writing: asyncio.Task[None] | None = None
        self._written_s = 0.0
        self._stop = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._running = threading.Event()
        self.failure = ""
        """Why it stopped by itself, or stored nothing, which it should not."""
        self._thread = threading.Thread(target=self._run, name="scraper", daemon=True)

    def __enter__(self) -> "Scraper":
        self._thread.start()
        self._running.wait()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._loop is not None
        with suppress(RuntimeError):  # the loop has ended by itself
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        """Whatever goes wrong here must not end the run, nor go unsaid."""
        try:
            asyncio.run(self._go())
        except Exception as e:  # noqa: BLE001
            self.failure = f"{type(e).__name__}: {e}"

    async def _go(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._running.set()
        try:
            await self._sample()
        finally:
            for source in self._sources:
                await source.close()
            if self._writing:
                await self._writing
            if self._writer:
                await asyncio.to_thread(self._writer.close)
                self.given_up = self._writer.given_up
                self.failure = self._writer.failure

    async def _sample(self) -> None:
        step_ns = int(self._gpu.every_s * 1e9)
        step = (time.time_ns() + step_ns // 2) // step_ns
        while not await self._stopped_before(step * step_ns + step_ns // 2):
            now = time.time_ns() // step_ns
            missed = [n * step_ns + step_ns // 2 for n in islice(range(step, now), MOST_MISSED)]
            late = [source.missed(at_ns) for at_ns in missed for source in self._sources]
            scrapes = late + await asyncio.gather(*(source.scrape() for source in self._sources))
            step = max(step, now) + 1
            self.latest |= {scrape.source: scrape for scrape in scrapes}
            for scrape in scrapes:
                self.tally[scrape.source].add(scrape)
            self._store(scrapes)
            self._on_step()

    def _store(self, scrapes: Sequence[Scrape]) -> None:
        if self._writer is None:
            return
        self._writer.add(scrapes)
        idle = self._writing is None or self._writing.done()
        if idle and time.monotonic() - self._written_s >= WRITE_EVERY_S:
            self._written_s = time.monotonic()
            self._writing = asyncio.create_task(asyncio.to_thread(self._writer.write))

    async def _stopped_before(self, at_ns: int) -> bool:
        try:
            async with asyncio.timeout(max(at_ns - time.time_ns(), 0) / 1e9):
                await self._stop.wait()
        except TimeoutError:
            return False
        return True


class Writer:
    """Scrapes -> rows. `add` is of the loop, the rest of one other thread at a time."""

    def __init__(self, address: Address, gpu: Gpu, run: str) -> None:
        self.given_up = 0
        self.failure = ""
        """What else than the store went wrong, last."""
        self._address = address
        self._gpu = gpu
        self._run = run
        self._store: Store | None = None
        self._lock = threading.Lock()
        self._waiting: list[Scrape] = []
        self._batch: list[Scrape] = []  # inserted with one token until the store has it
        self._number = 0
        self._encoder = Encoder()
        self._since_ns = time.time_ns()

    def add(self, scrapes: Sequence[Scrape]) -> None:
        with self._lock:
            self._waiting += scrapes
            if (over := len(self._waiting) - MOST_WAITING) > 0:
                self.given_up += over
                del self._waiting[:over]

    def write(self) -> None:
        """Store what waits; where the store does not take it, it goes on waiting."""
        try:
            self._write()
        except StoreError:
            pass  # it is said at the end, by how many were given up
        except Exception as e:  # noqa: BLE001  # a fault of ours: what it was is said at the end as well
            self.failure = f"{type(e).__name__}: {e}"

    def close(self) -> None:
        for attempt in range(LAST_TRIES):
            if attempt:
                time.sleep(attempt * LAST_PAUSE_S)
            self.write()
            if not self._batch and not self._waiting:
                break
        self.given_up += len(self._batch) + len(self._waiting)
        if self._store:
            self._store.close()

    def _write(self) -> None:
        if not self._batch:
            with self._lock:
                self._batch, self._waiting = self._waiting, []
        if not self._batch:
            return
        store = self._store or self._begin()
        for table, columns in COLUMNS.items():
            if rows := self._encoder.rows(self._batch, table):
                store.insert_rows(f"otel_metrics_{table}", columns, rows, f"{self._run}-samples-{self._number}")
        self._batch = []
        self._number += 1

    def _begin(self) -> Store:
        self._store = store = Store.connect(self._address)
        sources = self._gpu.sources
        rows: dict[str, list[Any]] = {
            "run": [self._run] * len(sources),
            "source": [source.name for source in sources],
            "kind": [source.kind for source in sources],
            "url": [source.url for source in sources],
            "targets": [source.targets for source in sources],
            "every_s": [self._gpu.every_s] * len(sources),
            "stale_s": [self._gpu.stale_s] * len(sources),
            "since": [self._since_ns] * len(sources),
        }
        store.insert("gpu_sources", rows, f"{self._run}-gpu-sources")
        return store


_SAME = ("ResourceAttributes", "ScopeName", "ScopeVersion", "ServiceName", "MetricName", "MetricUnit", "Attributes")
_VALUES = ("StartTimeUnix", "TimeUnix", "Value")
COLUMNS = {
    "gauge": (*_SAME, *_VALUES),
    "sum": ("AggregationTemporality", "IsMonotonic", *_SAME, *_VALUES),
}
"""Of otel_metrics_gauge and otel_metrics_sum, in the order of a row."""
MOST_REMEMBERED = 100_000


class Encoder:
    """Scrapes -> rows in RowBinary. All but the last three columns of a series' rows are the same each time: encoded once.

    A gauge's StartTimeUnix is since when the value may be as it is; a sum's is 0: since when a source counts is not known.
    """

    def __init__(self) -> None:
        self._same: dict[Series, bytes] = {}

    def rows(self, scrapes: Sequence[Scrape], table: str) -> bytes:
        if len(self._same) > MOST_REMEMBERED:
            self._same.clear()
        same = self._same
        parts: list[bytes] = []
        for scrape in scrapes:
            at = scrape.at_ns
            now = _INSTANTS.pack(at if table == "gauge" else 0, at)
            then = _INSTANTS.pack(min(scrape.from_ns or at, at), at) if table == "gauge" else now
            for series, value in (*scrape.samples, *scrape.own):
                if series.table == table:
                    if (head := same.get(series)) is None:
                        head = same[series] = _head(series)
                    parts += (head, then if series.hardware else now, _VALUE.pack(value))
        return b"".join(parts)


_INSTANTS = Struct("<qq")
_VALUE = Struct("<d")


def _head(series: Series) -> bytes:
    counts = Struct("<iB").pack(CUMULATIVE, 1) if series.table == "sum" else b""
    names = (SCOPE, __version__, RESOURCE["service.name"], series.name, series.unit)
    return counts + _map(RESOURCE) + b"".join(map(_text, names)) + _map(series.attributes)


def _map(pairs: Mapping[str, str]) -> bytes:
    return _length(len(pairs)) + b"".join(_text(key) + _text(value) for key, value in pairs.items())


def _text(text: str) -> bytes:
    data = text.encode(errors="replace")
    return _length(len(data)) + data


def _length(n: int) -> bytes:
    """LEB128."""
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)
