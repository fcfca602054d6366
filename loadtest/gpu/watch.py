"""`loadtest gpu watch`: what sources show now, as a table, without a run; and kept in the store, as a run would.

What a device does not give is a dash, and the legend says what it means: never 0. A source that does not answer keeps its
row, with the word why and since when; its last values are not shown as if they were of now.
"""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from loadtest import plan as plans
from loadtest.detach import new_run_id
from loadtest.errors import PlanError, UserError
from loadtest.gpu.names import RULES
from loadtest.gpu.scrape import Sample, Scrape
from loadtest.gpu.scraper import Scraper
from loadtest.report.words import sig3
from loadtest.rules import gpu_problems
from loadtest.run import Interrupts
from loadtest.store import Address, open_store
from loadtest.types import Gpu, GpuSource

NONE = "–"
LEGEND = f"{NONE} not provided by this source"
GPU_COLUMNS = (
    ("used", "hw.gpu.utilization", 100, "%"),
    ("memory", "hw.gpu.memory.usage", 2**-30, "GiB"),
    ("power", "hw.power", 1, "W"),
    ("temp", "hw.temperature", 1, "°C"),
    ("clock", "gpu.clock.sm", 1e-6, "MHz"),
)
ENGINE_COLUMNS = (
    ("running", "engine.running", 1, ""),
    ("waiting", "engine.queue_length", 1, ""),
    ("batch", "engine.batch_size", 1, ""),
    ("KV cache", "engine.kv_cache_utilization", 100, "%"),
)


def watch(what: Sequence[str], every_s: float | None, for_s: float | None, keep: bool, store: str | None) -> None:
    """Until Ctrl-C, or for so long. Raises UserError."""
    gpu, keys, plan_store = sources(what)
    if every_s is not None:
        gpu = Gpu(sources=gpu.sources, every_s=every_s, stale_s=gpu.stale_s)
    with ExitStack() as stack:
        interrupts = stack.enter_context(Interrupts().caught())
        address: Address | None = None
        if keep:
            database = stack.enter_context(open_store(plan_store if store is None else store))
            database.migrate()
            address = database.address
        run = f"watch-{new_run_id()}"
        scraper = stack.enter_context(Scraper(gpu, keys, {"loadtest.run": run, "loadtest.kind": "watch"}, address))
        _show(scraper, gpu, interrupts, for_s)
    kept = f"; kept in {address} as loadtest.run {run}" if address else ""
    silent = [name for name, tally in scraper.tally.items() if tally.failed == tally.scrapes]
    if len(silent) == len(scraper.tally):
        why = "; ".join(f"{name}: {scraper.tally[name].last_failure or 'not asked'}" for name in silent)
        raise UserError(f"no source answered even once: {why}; correct the URL, or start the exporter")
    print(f"watched {', '.join(source.name for source in gpu.sources)}{kept}", file=sys.stderr)


def sources(what: Sequence[str]) -> tuple[Gpu, dict[str, str], str | None]:
    """What to ask: of a plan, or of URLs and `nvml`; the keys, and the plan's store. Raises PlanError."""
    if len(what) == 1 and what[0] != "nvml" and "://" not in what[0]:
        plan = plans.load(Path(what[0]))
        if plan.gpu is None:
            raise PlanError(f"{what[0]} has no gpu:, which says what to watch (docs/gpu.md); or name URLs")
        return plan.gpu, plans.resolve_gpu_keys(plan), plan.store
    named = [_source(each, number) for number, each in enumerate(what)]
    gpu = Gpu(sources=named)
    if problems := list(gpu_problems(gpu, [])):
        raise PlanError("\n".join(f"{what[i]}: {problem}" for i, problem in problems))
    return gpu, {}, None


def _source(what: str, number: int) -> GpuSource:
    if what == "nvml":
        return GpuSource(name="nvml", kind="nvml")
    try:
        parts = urlsplit(what)
        host = f"{parts.hostname or ''}-{parts.port or ''}".rstrip("-")
    except ValueError:
        host = ""
    return GpuSource(name=f"{number + 1}-{host or 'source'}"[:64].replace(":", "."), url=what)


def _show(scraper: Scraper, gpu: Gpu, interrupts: Interrupts, for_s: float | None) -> None:
    console = Console()
    until = time.monotonic() + for_s if for_s is not None else None
    live = Live(console=console, auto_refresh=False) if console.is_terminal else None
    with live or ExitStack():
        while not interrupts.count and (until is None or time.monotonic() < until):
            left_s = gpu.every_s if until is None else min(gpu.every_s, max(until - time.monotonic(), 0))
            interrupts.wait(left_s)
            if live:
                live.update(table(scraper.latest, gpu, time.time_ns()), refresh=True)
    if not live:
        console.print(table(scraper.latest, gpu, time.time_ns()))


def table(latest: Mapping[str, Scrape], gpu: Gpu, now_ns: int) -> Group:
    """One row a device, sources in the order of the plan."""
    answered = [latest[source.name] for source in gpu.sources if source.name in latest]
    parts: list[Table | Text] = [_of_sources(gpu, latest, now_ns)]
    for title, columns in (("GPU", GPU_COLUMNS), ("engine", ENGINE_COLUMNS)):
        names = {name for _, name, _, _ in columns}
        if rows := [row for scrape in answered for row in _rows(scrape, columns, names, now_ns)]:
            heads = [
                title,
                "source",
                "target",
                *(["held back"] if title == "GPU" else []),
                "age",
                *(c[0] for c in columns),
            ]
            empty = [at for at, head in enumerate(heads) if head == "target" and all(row[at] == NONE for row in rows)]
            made = Table()
            for head in _without(empty, heads):
                words = head in (title, "source", "target", "held back")
                made.add_column(head, justify="left" if words else "right", overflow="fold", no_wrap=not words)
            for row in rows:
                made.add_row(*_without(empty, row))
            parts.append(made)
    return Group(*parts, Text(LEGEND, style="dim"))


def _without(columns: Sequence[int], row: Sequence[str]) -> list[str]:
    return [cell for at, cell in enumerate(row) if at not in columns]


def _kind(source: GpuSource, scrape: Scrape) -> str:
    """Of `auto`, what it turned out to be: all kinds that the source's own names are of."""
    if source.kind != "auto":
        return source.kind
    shown = {sample[0].attributes.get("loadtest.source_metric") for sample in scrape.samples}
    found = [kind for kind, rules in RULES.items() if any(rule.metric in shown for rule in rules)]
    return ", ".join(found) or "of no known kind"


def _of_sources(gpu: Gpu, latest: Mapping[str, Scrape], now_ns: int) -> Table:
    made = Table()
    for head in ("source", "kind", "answers", "took", "values", ""):
        made.add_column(head, overflow="fold", no_wrap=head in ("took", "values"))
    for source in gpu.sources:
        scrape = latest.get(source.name)
        if scrape is None:
            made.add_row(source.name, source.kind, "not asked yet", NONE, NONE, "")
        elif scrape.error:
            answer = Text(f"no: {scrape.error}", "bold red")
            made.add_row(source.name, source.kind, answer, _ms(scrape), NONE, scrape.detail)
        else:
            age_s = _age_s(scrape, now_ns)
            old = "" if age_s <= gpu.stale_s else f"its values have not changed for {age_s:.0f} s"
            made.add_row(
                source.name, _kind(source, scrape), "yes", _ms(scrape), str(len(scrape.samples)), Text(old, "yellow")
            )
    return made


def _rows(
    scrape: Scrape, columns: Sequence[tuple[str, str, float, str]], names: set[str], now_ns: int
) -> Iterator[tuple[str, ...]]:
    devices: dict[str, list[Sample]] = {}
    for sample in scrape.samples:
        if sample[0].name in names or sample[0].name == "gpu.throttle.active":
            devices.setdefault(_device(sample), []).append(sample)
    for device, samples in devices.items():
        values = {series.name: value for series, value in samples if series.name in names}
        if not values:
            continue
        hardware = any(series.hardware for series, _ in samples)
        age_s = _age_s(scrape, now_ns) if hardware else max(now_ns - scrape.at_ns, 0) / 1e9
        target = samples[0][0].attributes.get("loadtest.target", NONE)
        cells = [_cell(values.get(name), scale, unit) for _, name, scale, unit in columns]
        held = [_held(samples)] if hardware else []
        yield device, scrape.source, target, *held, f"{age_s:.0f} s", *cells


def _held(samples: Sequence[Sample]) -> str:
    known = [(s.attributes["reason"], value) for s, value in samples if s.name == "gpu.throttle.active"]
    return ", ".join(reason for reason, value in known if value > 0) or ("no" if known else NONE)


def _device(sample: Sample) -> str:
    own = sample[0].attributes
    return own.get("gpu.index") or own.get("hw.id") or own.get("engine.id") or own.get("model_name") or "0"


def _cell(value: float | None, scale: float, unit: str) -> str:
    return NONE if value is None else f"{sig3(value * scale)} {unit}".rstrip()


def _age_s(scrape: Scrape, now_ns: int) -> float:
    return max(now_ns - (scrape.from_ns or scrape.at_ns), 0) / 1e9


def _ms(scrape: Scrape) -> str:
    return f"{scrape.duration_s * 1e3:.0f} ms"
