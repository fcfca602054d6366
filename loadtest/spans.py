"""Result -> columns of otel_traces.

A span made by the SDK costs twenty times what appending the same facts to columns does, and a load generator that spends
its core on spans measures itself. So request spans are built as columns here; the few spans of runs, stages and workers
are made by opentelemetry-sdk and written by `SpanExporter` (exporter.py) to the same table.

Attribute names follow the OpenTelemetry GenAI conventions (open-telemetry/semantic-conventions-genai, status Development;
the Python constants are deprecated, so the names stand here); what those lack is under `loadtest.`.
"""

import socket
from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b
from typing import Any
from urllib.parse import urlsplit

import msgspec

from loadtest import __version__, dialects
from loadtest.prompts import TURN_SEQS
from loadtest.rounds import SEQS
from loadtest.types import FAULT_OF, Plan, Result

SCOPE = "loadtest"
RESOURCE = {"service.name": "loadtest", "service.version": __version__, "host.name": socket.gethostname()}

ATTRIBUTES = {
    "run": "loadtest.run",
    "kind": "loadtest.kind",
    "stage": "loadtest.stage",
    "warmup": "loadtest.warmup",
    "seq": "loadtest.seq",
    "target": "loadtest.target",
    "attempt": "loadtest.attempt",
    "worker": "loadtest.worker",
    "max_tokens": "gen_ai.request.max_tokens",
    "streamed": "gen_ai.request.stream",
    "due_ns": "loadtest.due_ns",
    "started_ns": "loadtest.started_ns",
    "sent_ns": "loadtest.sent_ns",
    "done_ns": "loadtest.done_ns",
    "dns_dur_ns": "loadtest.dns_dur_ns",
    "connect_dur_ns": "loadtest.connect_dur_ns",
    "tls_dur_ns": "loadtest.tls_dur_ns",
    "first_byte_ns": "loadtest.first_byte_ns",
    "status": "http.response.status_code",
    "error": "error.type",
    "finish_reason": "gen_ai.response.finish_reasons",
    "input_tokens": "gen_ai.usage.input_tokens",
    "output_tokens": "gen_ai.usage.output_tokens",
    "reasoning_tokens": "gen_ai.usage.reasoning.output_tokens",
    "cached_tokens": "gen_ai.usage.cache_read.input_tokens",
    "token_source": "loadtest.token_source",
    "request_id": "loadtest.request_id",
    "response_id": "gen_ai.response.id",
    "response_model": "gen_ai.response.model",
    "remote_address": "network.peer.address",
    "reused": "loadtest.reused",
    "reconnects": "loadtest.reconnects",
    "proxy": "loadtest.proxy",
    "retry_after_s": "loadtest.retry_after_s",
    "request_bytes": "loadtest.request_bytes",
    "response_bytes": "loadtest.response_bytes",
    "tcp_rtt_us": "loadtest.tcp_rtt_us",
    "tcp_retransmits": "loadtest.tcp_retransmits",
    "clock": "loadtest.clock",
    "read_lag_ns": "loadtest.read_lag_ns",
    "uncertainty_ns": "loadtest.uncertainty_ns",
}
"""Scalar fields of Result -> span attribute. `trace_id` and `error_detail` are columns of the span itself."""

ARRAYS = {
    "chunk_kind": "loadtest.chunk_kind",
    "chunk_bytes": "loadtest.chunk_bytes",
    "chunk_tokens": "loadtest.chunk_tokens",
}
"""Array fields of Result -> attribute, as JSON. `chunk_ns` travels as offsets from `sent_ns`."""

_json = msgspec.json.Encoder()


def target_attributes(plan: Plan, vantage: str = "") -> dict[str, dict[str, str]]:
    """What is the same for all requests of a worker to a target: name -> attributes."""
    out = {}
    for target in plan.targets:
        url = urlsplit(target.url)
        out[target.name] = {
            "gen_ai.operation.name": dialects.load(target.dialect).OPERATION,
            "gen_ai.provider.name": target.name,
            "gen_ai.request.model": target.model,
            "server.address": url.hostname or "",
            "server.port": str(url.port or (443 if url.scheme == "https" else 80)),
            "loadtest.region": target.region,
            **({"loadtest.vantage": vantage} if vantage else {}),
        }
    return out


@lru_cache(maxsize=1024)
def id_of(run: str, *name: str | int) -> str:
    """The span id, 16 hex digits, of what a run itself makes a span of, known before that is made; without a name its
    trace id, 32."""
    return blake2b("\0".join((run, *map(str, name))).encode(), digest_size=8 if name else 16).hexdigest()


def _id_of_stage(result: Result) -> str:
    return id_of(result.run, "stage", result.stage, result.seq % TURN_SEQS // SEQS)


def columns(results: Iterable[Result], targets: dict[str, dict[str, str]]) -> dict[str, list[Any]]:
    """Column name of otel_traces -> values, one each a result; `targets` is from `target_attributes`. What a target does
    not say of a request, because no plan names it, the result's own `attributes` do.

    Each links to the span of its stage, of which it is no part: a trace is a request, which the endpoint's own spans may
    join. `Timestamp` is `sent_ns`, or `started_ns` where nothing was sent, in integer nanoseconds.
    """
    rows = list(results)
    n = len(rows)
    starts = [r.sent_ns or r.started_ns for r in rows]
    of_targets = [r.attributes or targets[r.target] for r in rows]
    return {
        "Timestamp": starts,
        "TraceId": [r.trace_id for r in rows],
        "SpanId": [r.trace_id[16:] for r in rows],
        "SpanName": [_span_name(r, target) for r, target in zip(rows, of_targets, strict=True)],
        "SpanKind": ["Client"] * n,
        "ServiceName": [RESOURCE["service.name"]] * n,
        "ResourceAttributes": [RESOURCE] * n,
        "ScopeName": [SCOPE] * n,
        "ScopeVersion": [__version__] * n,
        "SpanAttributes": [
            _attributes(r, start) | target for r, start, target in zip(rows, starts, of_targets, strict=True)
        ],
        "Duration": [max(r.done_ns - start, 0) for r, start in zip(rows, starts, strict=True)],
        "StatusCode": ["Error" if r.error else "Unset" for r in rows],
        "StatusMessage": [r.error_detail for r in rows],
        "Links.TraceId": [[id_of(r.run)] for r in rows],
        "Links.SpanId": [[_id_of_stage(r)] for r in rows],
        "Links.TraceState": [[""]] * n,
        "Links.Attributes": [[{}]] * n,
    }


def _span_name(result: Result, target: dict[str, str]) -> str:
    if not target.get("gen_ai.request.model") and result.attributes:
        return result.target  # as Locust's own table names it: GET /basket
    return f"{target['gen_ai.operation.name']} {target['gen_ai.request.model']}".rstrip()


def _attributes(result: Result, start_ns: int) -> dict[str, str]:
    out = {}
    for name, attribute in ATTRIBUTES.items():
        value = getattr(result, name)
        if value is None or value == "":
            continue
        out[attribute] = ("true" if value else "false") if isinstance(value, bool) else str(value)
    if result.error:
        out["loadtest.fault"] = FAULT_OF[result.error]
    if result.chunk_ns:
        out["loadtest.chunk_offset_ns"] = _json.encode([t - start_ns for t in result.chunk_ns]).decode()
        for name, attribute in ARRAYS.items():
            if values := getattr(result, name):
                out[attribute] = _json.encode(values).decode()
    return out
