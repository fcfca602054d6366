-- From where a request was sent: the name of its worker's region in the plan's fleet; empty where the plan has none.
ALTER TABLE attempts ADD COLUMN IF NOT EXISTS vantage LowCardinality(String)
    COMMENT 'region of the worker; the column region is that of the target' AFTER region;

CREATE OR REPLACE VIEW requests AS
SELECT *, token_chunks, first_token_ns, first_content_ns, last_token_ns, tokens_known, first_chunk_tokens, streamed_tokens
FROM attempts WHERE attempt = 0;

-- Made anew under another name, not altered: a view whose query was altered no longer knows, once the server has started again, which inserts
-- it has seen (tests/test_embedded.py), so that a repeated one is stored twice.
DROP VIEW IF EXISTS attempts_mv;

CREATE MATERIALIZED VIEW IF NOT EXISTS attempts_of_spans_mv TO attempts AS
WITH
    JSONExtract(SpanAttributes['loadtest.chunk_offset_ns'], 'Array(Int64)') AS offsets,
    length(offsets) AS chunks,
    JSONExtract(SpanAttributes['loadtest.chunk_tokens'], 'Array(UInt32)') AS tokens
SELECT
    Timestamp AS ts,
    SpanAttributes['loadtest.run'] AS run,
    SpanAttributes['loadtest.kind'] AS kind,
    SpanAttributes['loadtest.stage'] AS stage,
    SpanAttributes['loadtest.warmup'] = 'true' AS warmup,
    toUInt64OrZero(SpanAttributes['loadtest.seq']) AS seq,
    SpanAttributes['loadtest.target'] AS target,
    toUInt8OrZero(SpanAttributes['loadtest.attempt']) AS attempt,
    toUInt32OrZero(SpanAttributes['loadtest.worker']) AS worker,
    TraceId AS trace_id,
    SpanAttributes['gen_ai.request.model'] AS model,
    SpanAttributes['gen_ai.operation.name'] AS operation,
    SpanAttributes['loadtest.region'] AS region,
    SpanAttributes['loadtest.vantage'] AS vantage,
    toUInt32OrNull(SpanAttributes['gen_ai.request.max_tokens']) AS max_tokens,
    SpanAttributes['gen_ai.request.stream'] = 'true' AS streamed,
    toInt64OrNull(SpanAttributes['loadtest.due_ns']) AS due_ns,
    toInt64OrZero(SpanAttributes['loadtest.started_ns']) AS started_ns,
    toInt64OrNull(SpanAttributes['loadtest.sent_ns']) AS sent_ns,
    toInt64OrZero(SpanAttributes['loadtest.done_ns']) AS done_ns,
    toInt64OrNull(SpanAttributes['loadtest.dns_dur_ns']) AS dns_dur_ns,
    toInt64OrNull(SpanAttributes['loadtest.connect_dur_ns']) AS connect_dur_ns,
    toInt64OrNull(SpanAttributes['loadtest.tls_dur_ns']) AS tls_dur_ns,
    toInt64OrNull(SpanAttributes['loadtest.first_byte_ns']) AS first_byte_ns,
    offsets AS chunk_offset_ns,
    arrayResize(JSONExtract(SpanAttributes['loadtest.chunk_kind'], 'Array(UInt8)'), chunks) AS chunk_kind,
    arrayResize(JSONExtract(SpanAttributes['loadtest.chunk_bytes'], 'Array(UInt32)'), chunks) AS chunk_bytes,
    if(empty(tokens), tokens, arrayResize(tokens, chunks)) AS chunk_tokens,
    toUInt16OrNull(SpanAttributes['http.response.status_code']) AS status,
    SpanAttributes['error.type'] AS error,
    SpanAttributes['loadtest.fault'] AS fault,
    StatusMessage AS error_detail,
    SpanAttributes['gen_ai.response.finish_reasons'] AS finish_reason,
    toUInt32OrNull(SpanAttributes['gen_ai.usage.input_tokens']) AS input_tokens,
    toUInt32OrNull(SpanAttributes['gen_ai.usage.output_tokens']) AS output_tokens,
    toUInt32OrNull(SpanAttributes['gen_ai.usage.reasoning.output_tokens']) AS reasoning_tokens,
    toUInt32OrNull(SpanAttributes['gen_ai.usage.cache_read.input_tokens']) AS cached_tokens,
    SpanAttributes['loadtest.token_source'] AS token_source,
    SpanAttributes['loadtest.request_id'] AS request_id,
    SpanAttributes['gen_ai.response.id'] AS response_id,
    SpanAttributes['gen_ai.response.model'] AS response_model,
    SpanAttributes['network.peer.address'] AS remote_address,
    SpanAttributes['loadtest.reused'] = 'true' AS reused,
    toUInt8OrZero(SpanAttributes['loadtest.reconnects']) AS reconnects,
    SpanAttributes['loadtest.proxy'] AS proxy,
    toFloat64OrNull(SpanAttributes['loadtest.retry_after_s']) AS retry_after_s,
    toUInt32OrZero(SpanAttributes['loadtest.request_bytes']) AS request_bytes,
    toUInt64OrZero(SpanAttributes['loadtest.response_bytes']) AS response_bytes,
    toUInt32OrNull(SpanAttributes['loadtest.tcp_rtt_us']) AS tcp_rtt_us,
    toUInt32OrNull(SpanAttributes['loadtest.tcp_retransmits']) AS tcp_retransmits,
    SpanAttributes['loadtest.clock'] AS clock,
    toInt64OrZero(SpanAttributes['loadtest.read_lag_ns']) AS read_lag_ns,
    toInt64OrZero(SpanAttributes['loadtest.uncertainty_ns']) AS uncertainty_ns
FROM otel_traces
WHERE ScopeName = 'loadtest' AND SpanKind = 'Client';
