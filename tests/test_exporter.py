"""Spans of opentelemetry-sdk in otel_traces, as the Collector would have written them."""

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, Tracer, TraceState

from loadtest.exporter import SpanExporter
from loadtest.store import Store

START_NS = 1_760_097_600_123_456_789


@pytest.fixture
def exporter(store: Store) -> Iterator[SpanExporter]:
    with Store.connect(store.address) as own:
        yield SpanExporter(own)


def provider() -> TracerProvider:
    return TracerProvider(resource=Resource({"service.name": "loadtest", "host.cpus": 2}), shutdown_on_exit=False)


def make_tracer(exporter: SpanExporter) -> Tracer:
    made = provider()
    made.add_span_processor(SimpleSpanProcessor(exporter))
    return made.get_tracer("loadtest", "1.2.3")


def rows(store: Store, trace_id: int) -> list[dict[str, Any]]:
    sql = (
        "SELECT * EXCEPT (Timestamp, `Events.Timestamp`), toUnixTimestamp64Nano(Timestamp) AS at_ns, "
        "arrayMap(t -> toUnixTimestamp64Nano(t), `Events.Timestamp`) AS event_ns "
        "FROM otel_traces WHERE TraceId = {id:String} ORDER BY at_ns"
    )
    return store.query(sql, {"id": f"{trace_id:032x}"})


def test_a_span_with_everything(store: Store, exporter: SpanExporter) -> None:
    tracer = make_tracer(exporter)
    elsewhere = SpanContext(
        0xABC, 0xDEF, is_remote=True, trace_flags=TraceFlags(1), trace_state=TraceState([("k", "v")])
    )
    parent = tracer.start_span("parent", start_time=START_NS, kind=SpanKind.SERVER)
    span = tracer.start_span(
        "chat llama",
        kind=SpanKind.CLIENT,
        start_time=START_NS + 1,
        links=[Link(elsewhere, {"why": "retry", "n": 1})],
        attributes={
            "s": "text",
            "t": True,
            "i": -5,
            "f": 0.25,
            "whole": 3.0,
            "many": ["a", 'b"'],
            "flags": [True, False],
        },
    )
    child_of_nothing = span.get_span_context()
    span.add_event("first token", {"index": 0}, timestamp=START_NS + 2)
    span.add_event("done", timestamp=START_NS + 3)
    span.set_status(Status(StatusCode.ERROR, "it broke"))
    span.end(START_NS + 1_000_000_001)
    parent.end(START_NS + 5)
    assert exporter.failure is None

    (row,) = rows(store, child_of_nothing.trace_id)
    assert row["at_ns"] == START_NS + 1
    assert row["Duration"] == 1_000_000_000
    assert row["SpanId"] == f"{child_of_nothing.span_id:016x}"
    assert row["ParentSpanId"] == ""
    assert row["TraceState"] == ""
    assert (row["SpanName"], row["SpanKind"]) == ("chat llama", "Client")
    assert (row["StatusCode"], row["StatusMessage"]) == ("Error", "it broke")
    assert (row["ServiceName"], row["ScopeName"], row["ScopeVersion"]) == ("loadtest", "loadtest", "1.2.3")
    assert row["ResourceAttributes"] == {"service.name": "loadtest", "host.cpus": "2"}
    assert row["SpanAttributes"] == {
        "s": "text",
        "t": "true",
        "i": "-5",
        "f": "0.25",
        "whole": "3",
        "many": '["a","b\\""]',
        "flags": "[true,false]",
    }
    assert row["event_ns"] == [START_NS + 2, START_NS + 3]
    assert row["Events.Name"] == ["first token", "done"]
    assert row["Events.Attributes"] == [{"index": "0"}, {}]
    assert row["Links.TraceId"] == ["0" * 29 + "abc"]
    assert row["Links.SpanId"] == ["0" * 13 + "def"]
    assert row["Links.TraceState"] == ["k=v"]
    assert row["Links.Attributes"] == [{"why": "retry", "n": "1"}]


def test_parents_kinds_and_status_words(store: Store, exporter: SpanExporter) -> None:
    tracer = make_tracer(exporter)
    with tracer.start_as_current_span("root", start_time=START_NS, end_on_exit=False) as root:
        for offset, kind in enumerate(SpanKind, 1):
            span = tracer.start_span(kind.name, kind=kind, start_time=START_NS + offset)
            span.set_status(StatusCode.OK)
            span.end(START_NS)  # a clock that went back must not wrap around
        root.end(START_NS + 10)
    found = rows(store, root.get_span_context().trace_id)
    assert [row["SpanKind"] for row in found] == ["Internal", "Internal", "Server", "Client", "Producer", "Consumer"]
    assert [row["StatusCode"] for row in found] == ["Unset"] + ["Ok"] * 5
    assert [row["ParentSpanId"] for row in found] == [""] + [f"{root.get_span_context().span_id:016x}"] * 5
    assert [row["Duration"] for row in found] == [10] + [0] * 5


def test_the_spans_of_a_run_and_its_stages_fill_their_tables(store: Store, exporter: SpanExporter) -> None:
    tracer = make_tracer(exporter)
    run = {
        "loadtest.run": "exported",
        "loadtest.plan.name": "peak",
        "loadtest.nonce": "n1",
        "loadtest.plan": "name: peak\n",
    }
    tracer.start_span("run", start_time=START_NS, attributes=run | {"loadtest.account": "{}"}).end(START_NS + 9)
    stage = {"loadtest.run": "exported", "loadtest.stage": "warm", "loadtest.stage.index": 0, "loadtest.warmup": True}
    tracer.start_span("stage", start_time=START_NS, attributes=stage | {"loadtest.end_ns": START_NS + 4}).end(
        START_NS + 6
    )
    where = {"run": "exported"}
    (found,) = store.query("SELECT * FROM runs WHERE run = {run:String}", where)
    assert found["started_ns"] == START_NS
    assert found["ended_ns"] == START_NS + 9
    assert (found["plan_name"], found["nonce"], found["plan"], found["account"]) == ("peak", "n1", "name: peak\n", "{}")
    (found,) = store.query("SELECT * FROM stages WHERE run = {run:String}", where)
    assert (found["stage"], found["stage_index"], found["warmup"]) == ("warm", 0, True)
    assert (found["start_ns"], found["end_ns"], found["drained_ns"]) == (START_NS, START_NS + 4, START_NS + 6)
    assert store.query("SELECT count() AS n FROM requests WHERE run = {run:String}", where) == [{"n": 0}]


def test_behind_the_batch_processor_nothing_is_lost(store: Store, exporter: SpanExporter) -> None:
    made = provider()
    made.add_span_processor(BatchSpanProcessor(exporter, max_export_batch_size=64))
    tracer = made.get_tracer("someone else's")
    with tracer.start_as_current_span("root") as root:
        for n in range(200):
            tracer.start_span(f"span {n}").end()
    assert made.force_flush()
    assert len(rows(store, root.get_span_context().trace_id)) == 201
    made.shutdown()
    assert exporter.failure is None


def finished_span() -> Any:
    memory, made = InMemorySpanExporter(), provider()
    made.add_span_processor(SimpleSpanProcessor(memory))
    made.get_tracer("t").start_span("one").end()
    return memory.get_finished_spans()[0]


def test_the_same_spans_exported_twice_are_stored_once(store: Store, exporter: SpanExporter) -> None:
    span = finished_span()
    assert exporter.export([span]) is SpanExportResult.SUCCESS
    assert exporter.export([span]) is SpanExportResult.SUCCESS
    assert len(rows(store, span.context.trace_id)) == 1


def test_a_failure_is_returned_and_its_reason_kept(store: Store) -> None:
    own = Store.connect(store.address)
    exporter = SpanExporter(own)
    own._command("CREATE DATABASE IF NOT EXISTS without_tables")
    own._client.database = "without_tables"
    assert exporter.export([finished_span()]) is SpanExportResult.FAILURE
    assert exporter.failure
    assert exporter.failure.startswith("1 spans were not stored: ")
    assert "otel_traces" in exporter.failure
    own.close()


def test_after_shutdown_nothing_is_accepted(store: Store, exporter: SpanExporter) -> None:
    exporter.shutdown()
    exporter.shutdown()
    assert exporter.force_flush()
    assert exporter.export([finished_span()]) is SpanExportResult.FAILURE
    assert exporter.failure == "1 spans were not stored: the exporter was shut down before"
    assert store.query("SELECT 1 AS x") == [{"x": 1}]


def test_no_spans_are_no_trouble(exporter: SpanExporter) -> None:
    assert exporter.export([]) is SpanExportResult.SUCCESS
    assert exporter.failure is None
