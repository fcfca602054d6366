"""Requests as Results, short enough to work out their figures by hand, and the way they take into a store."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple
from uuid import uuid4

from loadtest import spans
from loadtest.gpu.names import SAMPLED
from loadtest.gpu.scrape import Scrape
from loadtest.gpu.scraper import COLUMNS, Encoder
from loadtest.gpu.series import Series
from loadtest.rounds import SEQS
from loadtest.store import Store
from loadtest.types import ChunkKind, Result, trace_id

EMPTY, REASONING, CONTENT, TOOL_CALL, MEDIA, USAGE = ChunkKind
START_NS = 1_760_000_000_000_000_000
WINDOW_S = 10
SPAN_OF_TARGET = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m"}


def ns(ms: float) -> int:
    return round(ms * 1e6)


def answer(
    *chunks: tuple[float, ChunkKind],
    at_ms: float = 0,
    done_ms: float = 1000,
    due_ms: float | None = None,
    tokens: Sequence[int] = (),
    **facts: Any,
) -> Result:
    """One request. `at_ms` and `due_ms`: from the stage's start; chunks and `done_ms`: from when it was sent."""
    sent_ns = START_NS + ns(at_ms)
    facts = {"run": "", "stage": "s", "seq": 0, "target": "t", "worker": 0, "trace_id": "", "clock": "kernel"} | facts
    facts = {"started_ns": sent_ns - 1000, "first_byte_ns": sent_ns + 1000} | facts
    return Result(
        sent_ns=sent_ns,
        done_ns=sent_ns + ns(done_ms),
        due_ns=None if due_ms is None else START_NS + ns(due_ms),
        chunk_ns=[sent_ns + ns(ms) for ms, _ in chunks],
        chunk_kind=[int(kind) for _, kind in chunks],
        chunk_bytes=[100 for _ in chunks],
        chunk_tokens=list(tokens),
        **facts,
    )


def failure(error: str, **facts: Any) -> Result:
    return answer(error=error, **{"done_ms": 5, **facts})


usage = partial(answer, token_source="usage")
matched = partial(answer, token_source="usage_matched")


def insert(
    store: Store,
    run: str,
    rows: Sequence[Result],
    goodput: dict[str, float],
    sooner_ms: Mapping[str, float] | None = None,
) -> None:
    """Store copies of the rows under `run`, and a stage row for each stage and round they name.

    A row whose seq is n * SEQS is of round n; rounds begin 20 s after each other. `sooner_ms`: how long before the others
    a target had sent all its requests.
    """
    named = [_identified(run, row.seq // SEQS * SEQS + seq, row) for seq, row in enumerate(rows)]
    store.insert("otel_traces", spans.columns(named, dict.fromkeys({row.target for row in rows}, SPAN_OF_TARGET)))
    stages = sorted({(row.stage, row.seq // SEQS) for row in rows})
    names = sorted({stage for stage, _ in stages})
    starts_ns = [START_NS + 2 * WINDOW_S * number * 1_000_000_000 for _, number in stages]
    n = len(stages)
    columns: dict[str, list[Any]] = {
        "run": [run] * n,
        "stage": [stage for stage, _ in stages],
        "stage_index": [names.index(stage) for stage, _ in stages],
        "round": [number for _, number in stages],
        "warmup": [stage == "warm-up" for stage, _ in stages],
        "start_ns": starts_ns,
        "end_ns": [start_ns + WINDOW_S * 1_000_000_000 for start_ns in starts_ns],
        "target_end_ns": [
            {target: start_ns + WINDOW_S * 1_000_000_000 - ns(ms) for target, ms in (sooner_ms or {}).items()}
            for start_ns in starts_ns
        ],
        "drained_ns": [start_ns + 2 * WINDOW_S * 1_000_000_000 for start_ns in starts_ns],
        "goodput": [goodput] * n,
    }
    store.insert("stages", columns)


class Sample(NamedTuple):
    """One value of one device. `at_ms` is from the stage's start; `age_ms` is how long before it may have been taken."""

    at_ms: float
    value: float
    device: str = "0"
    targets: str = "t"
    name: str = "hw.gpu.utilization"
    age_ms: float = 0
    reason: str = ""
    error: str = ""


def sample(store: Store, run: str, samples: Sequence[Sample], every_s: float = 1, stale_s: float = 5) -> None:
    """Store samples as a run's scraper does."""
    scrapes = []
    for each in samples:
        table = SAMPLED[each.name].table
        attributes = {
            "loadtest.run": run,
            "loadtest.source": "s",
            "loadtest.target": each.targets,
            "hw.id": each.device,
            "reason": each.reason,
            "error.type": each.error,
        }
        series = Series(each.name, SAMPLED[each.name].unit, table, attributes, hardware=True)
        at_ns = START_NS + ns(each.at_ms)
        scrapes.append(Scrape("s", at_ns, from_ns=at_ns - ns(each.age_ms), samples=[(series, each.value)]))
    for table, columns in COLUMNS.items():
        if rows := Encoder().rows(scrapes, table):
            store.insert_rows(f"otel_metrics_{table}", columns, rows, uuid4().hex)
    store.insert("gpu_sources", {
        "run": [run], "source": ["s"], "kind": ["dcgm"], "url": [""], "targets": [{"t": ["*"]}],
        "every_s": [every_s], "stale_s": [stale_s], "since": [START_NS - 60_000_000_000],
    })  # fmt: skip


def _identified(run: str, seq: int, row: Result) -> Result:
    identity = {"run": run, "seq": seq, "trace_id": trace_id(run, row.stage, seq, row.target, 0)}
    return Result(**{name: getattr(row, name) for name in row.__struct_fields__} | identity)
