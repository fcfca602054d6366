"""How long each panel's query takes on a store of many requests: `python -m bench.panels --store DIR`.

A day of load on two targets, 10,000,000 requests of 64 tokens each unless told otherwise, made inside the store by
INSERT ... SELECT, with their spans and with a day of samples of eight GPUs; then each panel's query over five minutes in
the middle of it, as the reader asks over HTTP: the median of several. The store is kept, and found again.
"""

import argparse
import time
from collections.abc import Iterator
from statistics import median

import httpx

from dashboards.panels import PANELS
from dashboards.types import Panel, Selection
from loadtest.store import Store, directory, open_store

DAY_NS = 86_400_000_000_000
MS_NS = 1_000_000
WINDOW_S, LIMIT_MS, ROUNDS = 300, 150, 7
AT_ONCE = 250_000
TOKENS = 64
BEGAN_NS = 1_793_664_000_000_000_000  # 2026-11-03 00:00 UTC
RUN = "bench-panels"
PLAN = "targets: [{name: acme}, {name: globex}]"

REQUESTS = """
    INSERT INTO attempts (ts, run, kind, stage, warmup, seq, target, attempt, worker, trace_id, model, operation, region,
        streamed, due_ns, started_ns, sent_ns, done_ns, first_byte_ns, chunk_offset_ns, chunk_kind, chunk_bytes, status,
        error, fault, finish_reason, input_tokens, output_tokens, token_source, reused, request_bytes, response_bytes, clock,
        read_lag_ns, uncertainty_ns)
    WITH
        number AS n, cityHash64(n) AS dice,
        {began} + intDiv(n, 2) * intDiv({day}, intDiv({requests}, 2)) AS at_ns,
        dice % 200 = 0 AS failed,
        toInt64(80000000 + (dice % 1000) * 400000 + if(dice % 50 = 0, 2000000000, 0)) AS first_ns,
        toInt64(8000000 + dice % 4000000) AS gap_ns,
        if(failed, [], arrayMap(i -> first_ns + i * gap_ns + toInt64(bitAnd(dice + i * 7919, 1048575)), range({tokens})))
            AS offsets
    SELECT fromUnixTimestamp64Nano(at_ns), '{run}', 'load', 'steady', false, intDiv(n, 2), if(n % 2, 'globex', 'acme'), 0,
        n % 8, lower(hex(sipHash128(n))), 'm', 'chat', 'eu', true, at_ns, at_ns + 200000, at_ns,
        if(failed, at_ns + 5000000, at_ns + offsets[-1] + 50000), at_ns + 2000000, offsets,
        arrayWithConstant(length(offsets), toUInt8(2)), arrayWithConstant(length(offsets), toUInt32(180)),
        if(failed, 503, 200), if(failed, 'overloaded', ''), if(failed, 'endpoint', ''), if(failed, '', 'stop'), 550,
        if(failed, NULL, {tokens}), if(failed, 'unknown', 'usage_matched'), true, 2200, 12000, 'kernel', 30000, 0
    FROM numbers({offset}, {count})"""
SPANS = """
    INSERT INTO otel_traces (Timestamp, TraceId, SpanId, SpanName, SpanKind, ServiceName, ScopeName, SpanAttributes, Duration)
    SELECT fromUnixTimestamp64Nano({began} + intDiv(number, 2) * intDiv({day}, intDiv({requests}, 2))),
        lower(hex(sipHash128(number))), lower(hex(cityHash64(number))), 'chat m', 'Client', 'bench', 'bench',
        map('loadtest.run', '{run}', 'loadtest.stage', 'steady', 'loadtest.target', if(number % 2, 'globex', 'acme'),
            'gen_ai.request.model', 'm', 'http.response.status_code', '200', 'loadtest.seq', toString(intDiv(number, 2))),
        800000000
    FROM numbers({offset}, {count})"""
GAUGES = """
    INSERT INTO otel_metrics_gauge (ServiceName, MetricName, MetricUnit, Attributes, TimeUnix, Value)
    SELECT 'loadtest', name, '', map('loadtest.run', '{run}', 'loadtest.target', if(device % 2, 'globex', 'acme'),
            'loadtest.stage', 'steady', 'hw.type', 'gpu', 'hw.id', concat('GPU-', toString(device)),
            'engine.id', toString(device), 'loadtest.source_metric', name),
        fromUnixTimestamp64Nano({began} + toInt64(number) * 1000000000), cityHash64(number, device) % 1000 / 1000
    FROM numbers({offset}, {count}) ARRAY JOIN range(8) AS device ARRAY JOIN ['hw.gpu.utilization', 'hw.gpu.memory.usage',
        'hw.power', 'hw.temperature', 'gpu.clock.sm', 'engine.queue_length', 'engine.batch_size',
        'engine.kv_cache_utilization', 'loadtest.in_flight', 'loadtest.oldest_age_s'] AS name"""
SUMS = """
    INSERT INTO otel_metrics_sum (ServiceName, MetricName, MetricUnit, Attributes, StartTimeUnix, TimeUnix, Value)
    SELECT 'loadtest', name, '', map('loadtest.run', '{run}', 'loadtest.target', if(device % 2, 'globex', 'acme'),
            'loadtest.stage', 'steady', 'hw.id', concat('GPU-', toString(device)), 'reason', 'thermal',
            'loadtest.worker', toString(device)),
        fromUnixTimestamp64Nano({began}), fromUnixTimestamp64Nano({began} + toInt64(number) * 1000000000), number
    FROM numbers({offset}, {count}) ARRAY JOIN range(8) AS device ARRAY JOIN ['gpu.throttle.time', 'loadtest.scheduled',
        'loadtest.sent', 'loadtest.done', 'loadtest.failed', 'loadtest.missed', 'loadtest.worker.cpu_s'] AS name"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", required=True, help="a directory; filled unless it is")
    parser.add_argument("--requests", type=int, default=10_000_000)
    parser.add_argument("--tokens", type=int, default=TOKENS)
    given = parser.parse_args()
    with open_store(given.store) as store:
        store.migrate()
        fill(store, given.requests, given.tokens)
        measure(store)


def fill(store: Store, requests: int, tokens: int) -> None:
    sizes = {"attempts": requests, "otel_traces": requests, "otel_metrics_gauge": 86_400, "otel_metrics_sum": 86_400}
    statements = dict(zip(sizes, (REQUESTS, SPANS, GAUGES, SUMS), strict=True))
    address = store.address
    url = f"{address.scheme}://{address.host}:{address.port}/?database={address.database}"
    with httpx.Client(auth=(address.user, address.password), timeout=600, trust_env=False) as client:
        for table, size in sizes.items():
            began_s = time.monotonic()
            if store.query(f"SELECT count() AS n FROM {table}")[0]["n"]:
                continue
            for offset, count in _batches(size, AT_ONCE if size == requests else 10_800):
                values = {"began": BEGAN_NS, "day": DAY_NS, "requests": requests, "tokens": tokens, "run": RUN}
                statement = statements[table].format(**values, offset=offset, count=count)
                client.post(url, content=statement).raise_for_status()
            print(f"{table}: filled in {time.monotonic() - began_s:.0f} s", flush=True)
    if not store.query("SELECT count() AS n FROM runs")[0]["n"]:
        run = {"run": RUN, "started_ns": BEGAN_NS, "ended_ns": BEGAN_NS + DAY_NS, "plan_name": "bench", "plan": PLAN}
        store.insert("runs", {name: [value] for name, value in run.items()})
    sizes_sql = (
        "SELECT table, sum(rows) AS n, sum(bytes_on_disk) AS bytes FROM system.parts WHERE active "
        "AND database = currentDatabase() AND rows > 1000 GROUP BY table ORDER BY table"
    )
    for row in store.query(sizes_sql):
        print(f"{row['table']:<26} {row['n']:>12,} rows {row['bytes'] / 1e6:>10,.0f} MB")


def _batches(size: int, at_once: int) -> Iterator[tuple[int, int]]:
    for offset in range(0, size, at_once):
        yield offset, min(at_once, size - offset)


def measure(store: Store) -> None:
    assert store.address.directory
    from_ns = BEGAN_NS + DAY_NS // 2
    others = {"objective": "0.999", "metric": "ttft_ms", "error": "", "trace": trace_of(store, from_ns)}
    asked = Selection(from_ns=from_ns, to_ns=from_ns + WINDOW_S * 1000 * MS_NS, run=(RUN,), others=others)
    slow = 0
    with Store.connect(directory.reader_of(store.address.directory)) as reader:
        for panel in PANELS:
            took_ms, rows = _timed(reader, panel, asked)
            slow += took_ms > LIMIT_MS
            mark = "  above the limit" if took_ms > LIMIT_MS else ""
            print(f"| {panel.dashboard} | {panel.title} | {rows:,} | {took_ms:.0f} |{mark}", flush=True)
    print(f"{slow} of {len(PANELS)} above {LIMIT_MS} ms")


def trace_of(store: Store, from_ns: int) -> str:
    """A request that was answered, sent at about that time."""
    sql = "SELECT trace_id FROM requests WHERE ts >= fromUnixTimestamp64Nano({at:Int64}) AND fault = '' LIMIT 1"
    return str(store.query(sql, {"at": from_ns})[0]["trace_id"])


def _timed(reader: Store, panel: Panel, asked: Selection) -> tuple[float, int]:
    times, rows = [], 0
    for _ in range(ROUNDS):
        began_s = time.monotonic()
        rows = len(reader.query(panel.sql, asked.params()))
        times.append((time.monotonic() - began_s) * 1000)
    return median(times), rows


if __name__ == "__main__":
    main()
