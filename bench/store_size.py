"""What a request takes on the store's disk, by the length of its answer: `python -m bench.store_size`.

Rows are made as a run makes them (spans.columns), with arrivals that jitter, since equal ones would compress to nothing.
Printed as the table of docs/runbook.md; no load is sent.
"""

import random
import tempfile

from loadtest import spans
from loadtest.store import Store, open_store
from loadtest.types import ChunkKind, Result, trace_id

REQUESTS = 20_000
BATCH = 2_000
CHUNKS = (0, 50, 150)
SIZES = """
    SELECT sum(bytes_on_disk) AS bytes FROM system.parts
    WHERE active AND database = currentDatabase() AND table IN ('otel_traces', 'attempts')"""
TARGET = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "llama-3.1-70b"}
START_NS = 1_790_000_000_000_000_000


def result(seq: int, chunks: int, random: random.Random) -> Result:
    sent_ns = START_NS + seq * 10_000_000 + random.randrange(5_000_000)
    at_ns, chunk_ns = sent_ns + int(random.lognormvariate(19, 0.4)), []
    for _ in range(chunks):
        at_ns += int(random.gammavariate(8, 2_500_000))
        chunk_ns.append(at_ns)
    return Result(
        run="size", stage="load", seq=seq, target="acme", worker=seq % 4, trace_id=trace_id("size", "load", seq, "acme", 0),
        warmup=False, due_ns=sent_ns - 50_000, started_ns=sent_ns - 40_000, sent_ns=sent_ns, done_ns=at_ns + 100_000,
        chunk_ns=chunk_ns, chunk_kind=[ChunkKind.CONTENT] * chunks, chunk_bytes=[random.randrange(150, 330) for _ in chunk_ns],
        status=200, input_tokens=random.randrange(300, 900), output_tokens=chunks, token_source="usage_matched",
        request_id=f"req_{random.getrandbits(96):024x}", response_id=f"chatcmpl-{random.getrandbits(96):024x}",
        clock="kernel", read_lag_ns=random.randrange(90_000), uncertainty_ns=random.randrange(50_000),
    )  # fmt: skip


def bytes_per_request(store: Store, chunks: int) -> float:
    """After a merge, as rows are a while later."""
    seeded = random.Random(7)
    for begin in range(0, REQUESTS, BATCH):
        rows = [result(seq, chunks, seeded) for seq in range(begin, begin + BATCH)]
        store.insert("otel_traces", spans.columns(rows, {"acme": TARGET}), token=f"{chunks}-{begin}")
    for table in ("otel_traces", "attempts"):
        store._command(f"OPTIMIZE TABLE {table} FINAL")
    return float(store.query(SIZES)[0]["bytes"]) / REQUESTS


def main() -> None:
    print("| chunks an answer | bytes a request | requests in 100 GB |\n|---:|---:|---:|")
    for chunks in CHUNKS:
        with (
            tempfile.TemporaryDirectory(prefix="loadtest-size-", ignore_cleanup_errors=True) as directory,
            open_store(directory) as store,
        ):
            store.migrate()
            size = bytes_per_request(store, chunks)
        print(f"| {chunks} | {size:,.0f} | {100e9 / size / 1e6:,.0f} million |")


if __name__ == "__main__":
    main()
