"""Results become rows of otel_traces and, through the view, of `requests`: nothing is lost or changed on the way."""

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loadtest import spans
from loadtest.spans import ARRAYS, ATTRIBUTES
from loadtest.store import Store
from loadtest.types import FAULT_OF, ChunkKind, Plan, Result

FIELDS = {field.name for field in msgspec.structs.fields(Result)} - {"attributes"}  # those are attributes already
TARGETS = {"acme": {"gen_ai.operation.name": "chat", "gen_ai.request.model": "llama", "loadtest.region": "eu"}}
NOON_NS = 1_760_097_600_000_000_000  # 2025-10-10 12:00 UTC
HOUR_NS = 3600 * 10**9
RUNS = (f"spans-{n}" for n in count())

SOME = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
instant_ns = st.integers(NOON_NS - HOUR_NS, NOON_NS + HOUR_NS)
dur_ns = st.integers(0, 10**12)
u16, u32, u64 = (st.integers(0, 2**bits - 1) for bits in (16, 32, 64))

FACTS: dict[str, st.SearchStrategy[Any]] = {
    "run": st.just(""),  # each example takes a run of its own
    "stage": text,
    "seq": u64,
    "target": st.just("acme"),
    "worker": u32,
    "trace_id": st.integers(0, 2**128 - 1).map("{:032x}".format),
    "kind": st.sampled_from(["load", "capacity", "probe"]),
    "warmup": st.booleans(),
    "attempt": st.integers(0, 255),
    "max_tokens": st.none() | u32,
    "streamed": st.booleans(),
    "due_ns": st.none() | instant_ns,
    "started_ns": instant_ns,
    "sent_ns": st.none() | instant_ns,
    "done_ns": instant_ns,
    "dns_dur_ns": st.none() | dur_ns,
    "connect_dur_ns": st.none() | dur_ns,
    "tls_dur_ns": st.none() | dur_ns,
    "first_byte_ns": st.none() | instant_ns,
    "status": st.none() | u16,
    "error": st.none() | st.sampled_from(sorted(FAULT_OF)),
    "error_detail": text,
    "finish_reason": text,
    "input_tokens": st.none() | u32,
    "output_tokens": st.none() | u32,
    "reasoning_tokens": st.none() | u32,
    "cached_tokens": st.none() | u32,
    "token_source": st.sampled_from(["usage", "usage_matched", "tokenizer", "unknown"]),
    "request_id": text,
    "response_id": text,
    "response_model": text,
    "remote_address": text,
    "reused": st.booleans(),
    "reconnects": st.integers(0, 255),
    "proxy": text,
    "retry_after_s": st.none() | st.floats(0, 1e9),
    "request_bytes": u32,
    "response_bytes": u64,
    "tcp_rtt_us": st.none() | u32,
    "tcp_retransmits": st.none() | u32,
    "clock": st.sampled_from(["kernel", "user"]),
    "read_lag_ns": dur_ns,
    "uncertainty_ns": dur_ns,
}
CHUNK = st.tuples(instant_ns, st.sampled_from([int(kind) for kind in ChunkKind]), u32, u32)


@st.composite
def results(draw: Callable[..., Any]) -> Result:
    chunks = draw(st.lists(CHUNK, max_size=5))
    known = draw(st.booleans())
    return Result(
        **{name: draw(values) for name, values in FACTS.items()},
        chunk_ns=[chunk[0] for chunk in chunks],
        chunk_kind=[chunk[1] for chunk in chunks],
        chunk_bytes=[chunk[2] for chunk in chunks],
        chunk_tokens=[chunk[3] for chunk in chunks] if known else [],
    )


def stored(store: Store, run: str) -> list[Result]:
    """The rows of `attempts` read back as Results, in the order of their attempt to be told apart: `worker`."""
    rows = store.query(
        "SELECT *, toUnixTimestamp64Nano(ts) AS ts_ns FROM attempts WHERE run = {run:String}", {"run": run}
    )
    return [_result(row) for row in rows]


def _result(row: dict[str, Any]) -> Result:
    start_ns = row["started_ns"] if row["sent_ns"] is None else row["sent_ns"]
    assert row["ts_ns"] == start_ns
    assert row["fault"] == FAULT_OF.get(row["error"], "")
    assert (row["model"], row["operation"], row["region"]) == ("llama", "chat", "eu")
    row = row | {"error": row["error"] or None, "chunk_ns": [start_ns + offset for offset in row["chunk_offset_ns"]]}
    return msgspec.convert({name: row[name] for name in FIELDS}, Result)


def insert(store: Store, batch: Sequence[Result]) -> str:
    run = next(RUNS)
    for result in batch:
        result.run = run
    store.insert("otel_traces", spans.columns(batch, TARGETS))
    return run


def in_order(batch: Sequence[Result]) -> list[bytes]:
    return sorted(msgspec.msgpack.encode(result) for result in batch)


def test_every_fact_is_an_attribute_and_a_column(store: Store) -> None:
    """A new field of Result fails here until spans.py and a migration have it too."""
    of_the_span = {"trace_id", "error_detail", "chunk_ns"}
    assert set(ATTRIBUTES) | set(ARRAYS) | of_the_span == FIELDS
    assert set(FACTS) | set(ARRAYS) | {"chunk_ns"} == FIELDS, "give the new field a strategy here"
    columns = {row["name"] for row in store.query("DESCRIBE TABLE requests")}
    assert FIELDS - {"chunk_ns"} | {"chunk_offset_ns"} <= columns
    names = list(ATTRIBUTES.values()) + list(ARRAYS.values())
    assert len(names) == len(set(names))


@SOME
@given(st.lists(results(), min_size=1, max_size=20))
def test_results_come_back_as_they_were(store: Store, batch: list[Result]) -> None:
    run = insert(store, batch)
    assert in_order(stored(store, run)) == in_order(batch)


def test_requests_are_first_attempts(store: Store) -> None:
    """With the columns that metrics ask for."""
    first = Result(run="", stage="s", seq=0, target="acme", worker=0, trace_id="0" * 32, started_ns=1, done_ns=2)
    run = insert(store, [first, msgspec.structs.replace(first, attempt=1), msgspec.structs.replace(first, attempt=2)])
    asked = "SELECT attempt, token_chunks, tokens_known, streamed_tokens FROM {} WHERE run = {{run:String}}"
    rows = {table: store.query(asked.format(table), {"run": run}) for table in ("requests", "attempts")}
    assert sorted(row["attempt"] for row in rows["attempts"]) == [0, 1, 2]
    assert rows["requests"] == [{"attempt": 0, "token_chunks": 0, "tokens_known": False, "streamed_tokens": None}]


def test_a_result_worked_out_by_hand(store: Store) -> None:
    result = Result(
        run="",
        stage="peak",
        seq=7,
        target="acme",
        worker=1,
        trace_id="00112233445566778899aabbccddeeff",
        started_ns=NOON_NS + 1,
        sent_ns=NOON_NS + 3,
        done_ns=NOON_NS + 1_000_000_003,
        chunk_ns=[NOON_NS + 50_000_003, NOON_NS + 70_000_004],
        chunk_kind=[0, 2],
        chunk_bytes=[10, 20],
        error="truncated",
        error_detail="ended without a terminal marker",
        clock="kernel",
    )
    run = insert(store, [result])
    of_run = "FROM otel_traces WHERE SpanAttributes['loadtest.run'] = {run:String}"
    (span,) = store.query(f"SELECT *, toUnixTimestamp64Nano(Timestamp) AS ns {of_run}", {"run": run})
    assert span["ns"] == NOON_NS + 3
    assert span["TraceId"] == "00112233445566778899aabbccddeeff"
    assert span["SpanId"] == "8899aabbccddeeff"
    assert (span["SpanName"], span["SpanKind"], span["ServiceName"]) == ("chat llama", "Client", "loadtest")
    assert span["Duration"] == 1_000_000_000
    assert (span["StatusCode"], span["StatusMessage"]) == ("Error", "ended without a terminal marker")
    attributes = span["SpanAttributes"]
    assert attributes["loadtest.chunk_offset_ns"] == "[50000000,70000001]"
    assert attributes["loadtest.chunk_kind"] == "[0,2]"
    assert attributes["error.type"] == "truncated"
    assert attributes["loadtest.fault"] == "endpoint"
    assert "gen_ai.usage.output_tokens" not in attributes
    (row,) = store.query(
        "SELECT first_token_ns, last_token_ns, token_chunks FROM requests WHERE run = {run:String}", {"run": run}
    )
    assert row == {"first_token_ns": 70_000_001, "last_token_ns": 70_000_001, "token_chunks": 1}


KEYS = [*ATTRIBUTES.values(), *ARRAYS.values(), "loadtest.chunk_offset_ns", "loadtest.fault", "loadtest.region"]
garbage = text | st.sampled_from(
    [
        "",
        "nan",
        "-1",
        "1e999",
        "[",
        "[1,2",
        "[-1]",
        "[300,1]",
        '["x"]',
        "{}",
        "null",
        "[1,[2]]",
        "9" * 40,
        "[" + "1," * 500 + "1]",
    ]
)


@SOME
@given(st.lists(st.dictionaries(st.sampled_from(KEYS), garbage), min_size=1, max_size=10))
def test_garbage_attributes_are_stored_and_fail_nothing(store: Store, attributes: list[dict[str, str]]) -> None:
    run = next(RUNS)
    n = len(attributes)
    rows = {
        "Timestamp": [NOON_NS] * n,
        "SpanKind": ["Client"] * n,
        "ScopeName": ["loadtest"] * n,
        "SpanAttributes": [given | {"loadtest.run": run} for given in attributes],
    }
    store.insert("otel_traces", rows)
    where = {"run": run}
    assert store.query("SELECT count() AS n FROM attempts WHERE run = {run:String}", where) == [{"n": n}]
    lengths = (
        "SELECT countIf(length(chunk_kind) != length(chunk_offset_ns) OR length(chunk_bytes) != length(chunk_offset_ns) OR "
        "length(chunk_tokens) NOT IN (0, length(chunk_offset_ns))) AS uneven FROM attempts WHERE run = {run:String}"
    )
    assert store.query(lengths, where) == [{"uneven": 0}]


def test_foreign_spans_are_not_requests(store: Store) -> None:
    run = next(RUNS)
    own = {"SpanKind": "Client", "ScopeName": "loadtest"}
    foreign = [
        own | {"ScopeName": "vllm"},
        own | {"ScopeName": ""},
        own | {"SpanKind": "Server"},
        own | {"SpanKind": "Internal", "SpanName": "anything"},
    ]
    rows = [
        {"Timestamp": NOON_NS, "SpanName": "", "SpanAttributes": {"loadtest.run": run}} | row for row in [*foreign, own]
    ]
    store.insert("otel_traces", {name: [row[name] for row in rows] for name in rows[0]})
    where = {"run": run}
    assert store.query(
        "SELECT count() AS n FROM otel_traces WHERE SpanAttributes['loadtest.run'] = {run:String}", where
    ) == [{"n": 5}]
    assert store.query("SELECT count() AS n FROM requests WHERE run = {run:String}", where) == [{"n": 1}]
    assert store.query("SELECT count() AS n FROM runs WHERE run = {run:String}", where) == [{"n": 0}]


def test_a_batch_repeated_is_stored_once(store: Store) -> None:
    """Also where the batch is large enough to travel in several blocks."""
    run = next(RUNS)
    one = Result(
        run=run, stage="s", seq=0, target="acme", worker=0, trace_id="0" * 32, started_ns=NOON_NS, done_ns=NOON_NS
    )
    one.chunk_ns, one.chunk_kind, one.chunk_bytes = [NOON_NS] * 200, [2] * 200, [9] * 200
    batch = [msgspec.structs.replace(one, seq=seq) for seq in range(5000)]
    columns = spans.columns(batch, TARGETS)
    for _ in range(2):
        store.insert("otel_traces", columns, token=f"{run}-0-0")
    (row,) = store.query(
        "SELECT count() AS n, uniqExact(seq) AS u FROM requests WHERE run = {run:String}", {"run": run}
    )
    assert row == {"n": 5000, "u": 5000}


def test_what_is_the_same_for_all_requests_to_a_target() -> None:
    plan = msgspec.convert(
        {
            "name": "x",
            "targets": [
                {"name": "a", "url": "https://a.example/v1", "dialect": "openai-chat", "model": "m", "region": "eu"},
                {"name": "b", "url": "http://[::1]:8000/v1", "dialect": "openai-completions", "model": "n"},
            ],
            "prompts": {"kind": "synthetic", "input_tokens": {"mean": 1}, "output_tokens": {"mean": 1}},
            "stages": [{"name": "s", "arrivals": {"kind": "closed"}, "concurrency": 1, "requests": 1}],
        },
        Plan,
    )
    assert spans.target_attributes(plan) == {
        "a": {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "a",
            "gen_ai.request.model": "m",
            "server.address": "a.example",
            "server.port": "443",
            "loadtest.region": "eu",
        },
        "b": {
            "gen_ai.operation.name": "text_completion",
            "gen_ai.provider.name": "b",
            "gen_ai.request.model": "n",
            "server.address": "::1",
            "server.port": "8000",
            "loadtest.region": "",
        },
    }
