"""opentelemetry-sdk's spans -> rows of otel_traces, as the OpenTelemetry Collector's ClickHouse exporter writes them.

For the few spans that people make: of runs, stages and workers, and whatever a user adds. Request spans do not come this
way (spans.py says why).
"""

import base64
import threading
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

import msgspec
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter as SdkExporter
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.trace import SpanContext

from loadtest.store import Store, StoreError


class SpanExporter(SdkExporter):
    """Writes to a Store that stays its caller's: to close, and to use in no other thread while spans may end."""

    def __init__(self, store: Store) -> None:
        self.failure: str | None = None
        """Why the last export that failed did: the SDK drops what export returns."""
        self._store = store
        self._lock = threading.Lock()
        self._closed = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        if not spans:
            return SpanExportResult.SUCCESS
        rows = columns(spans)
        try:
            with self._lock:
                if self._closed:
                    raise StoreError("the exporter was shut down before")
                self._store.insert("otel_traces", rows, token=_token(rows))
        except StoreError as error:
            self.failure = f"{len(spans)} spans were not stored: {error}"
            return SpanExportResult.FAILURE
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        with self._lock:
            self._closed = True

    def force_flush(self, timeout_millis: int = 30000) -> bool:  # noqa: ARG002
        """Nothing is held back here."""
        return True


def columns(spans: Sequence[ReadableSpan]) -> dict[str, list[Any]]:
    """Column name of otel_traces -> values, one each a span."""
    rows = [_row(span) for span in spans]
    return {name: [row[name] for row in rows] for name in (rows[0] if rows else {})}


def _row(span: ReadableSpan) -> dict[str, Any]:
    start_ns, end_ns = span.start_time or 0, span.end_time or 0
    scope = span.instrumentation_scope
    resource = _texts(span.resource.attributes)
    return {
        "Timestamp": start_ns,
        "TraceId": _trace_id(span.context),
        "SpanId": _span_id(span.context),
        "ParentSpanId": _span_id(span.parent),
        "TraceState": _trace_state(span.context),
        "SpanName": span.name,
        "SpanKind": span.kind.name.capitalize(),
        "ServiceName": resource.get("service.name", ""),
        "ResourceAttributes": resource,
        "ScopeName": scope.name if scope else "",
        "ScopeVersion": (scope.version if scope else None) or "",
        "SpanAttributes": _texts(span.attributes),
        "Duration": max(end_ns - start_ns, 0),
        "StatusCode": span.status.status_code.name.capitalize(),
        "StatusMessage": span.status.description or "",
        "Events.Timestamp": [event.timestamp for event in span.events],
        "Events.Name": [event.name for event in span.events],
        "Events.Attributes": [_texts(event.attributes) for event in span.events],
        "Links.TraceId": [_trace_id(link.context) for link in span.links],
        "Links.SpanId": [_span_id(link.context) for link in span.links],
        "Links.TraceState": [_trace_state(link.context) for link in span.links],
        "Links.Attributes": [_texts(link.attributes) for link in span.links],
    }


def _texts(attributes: Mapping[str, object] | None) -> dict[str, str]:
    return {name: _text(value) for name, value in (attributes or {}).items()}


def _text(value: object) -> str:
    """As the Collector's `Value.AsString`."""
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case float():
            return repr(value).removesuffix(".0")
        case bytes():
            return base64.b64encode(value).decode()
        case Mapping() | Sequence():
            return msgspec.json.encode(value).decode()
        case _:
            return str(value)


def _trace_id(context: SpanContext | None) -> str:
    return format(context.trace_id, "032x") if context else ""


def _span_id(context: SpanContext | None) -> str:
    return format(context.span_id, "016x") if context else ""


def _trace_state(context: SpanContext | None) -> str:
    return context.trace_state.to_header() if context else ""


def _token(rows: Mapping[str, Sequence[str]]) -> str:
    """The same spans, exported twice, are stored once."""
    ids = [a + b for a, b in zip(rows.get("TraceId", ()), rows.get("SpanId", ()), strict=True)]
    return "spans-" + blake2b(" ".join(ids).encode(), digest_size=16).hexdigest()
