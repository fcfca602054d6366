-- What a run and its stages were: fed by the spans that the driver makes with opentelemetry-sdk.
CREATE TABLE IF NOT EXISTS runs (
    run String,
    started_ns Int64,
    ended_ns Int64,
    plan_name LowCardinality(String),
    nonce String,
    plan String CODEC(ZSTD(3)) COMMENT 'the plan file as run, YAML',
    account String CODEC(ZSTD(3)) COMMENT 'JSON: verdict.Account'
) ENGINE = MergeTree
ORDER BY (started_ns, run)
SETTINGS non_replicated_deduplication_window = 1000;

CREATE MATERIALIZED VIEW IF NOT EXISTS runs_mv TO runs AS
SELECT
    SpanAttributes['loadtest.run'] AS run,
    toUnixTimestamp64Nano(Timestamp) AS started_ns,
    started_ns + toInt64(Duration) AS ended_ns,
    SpanAttributes['loadtest.plan.name'] AS plan_name,
    SpanAttributes['loadtest.nonce'] AS nonce,
    SpanAttributes['loadtest.plan'] AS plan,
    SpanAttributes['loadtest.account'] AS account
FROM otel_traces
WHERE ScopeName = 'loadtest' AND SpanKind = 'Internal' AND SpanName = 'run';

CREATE TABLE IF NOT EXISTS stages (
    run LowCardinality(String),
    stage LowCardinality(String),
    stage_index UInt32,
    round UInt16 COMMENT 'a stage of n rounds has n rows',
    warmup Bool,
    start_ns Int64 COMMENT 'the instant all workers agreed on',
    end_ns Int64 COMMENT 'end of arrivals: the window of every rate',
    drained_ns Int64,
    goodput Map(String, Float64) COMMENT 'the plan''s limits: metric, limit'
) ENGINE = MergeTree
ORDER BY (run, stage_index, round)
SETTINGS non_replicated_deduplication_window = 1000;

CREATE MATERIALIZED VIEW IF NOT EXISTS stages_mv TO stages AS
SELECT
    SpanAttributes['loadtest.run'] AS run,
    SpanAttributes['loadtest.stage'] AS stage,
    toUInt32OrZero(SpanAttributes['loadtest.stage.index']) AS stage_index,
    toUInt16OrZero(SpanAttributes['loadtest.round']) AS round,
    SpanAttributes['loadtest.warmup'] = 'true' AS warmup,
    toUnixTimestamp64Nano(Timestamp) AS start_ns,
    toInt64OrZero(SpanAttributes['loadtest.end_ns']) AS end_ns,
    start_ns + toInt64(Duration) AS drained_ns,
    JSONExtract(SpanAttributes['loadtest.goodput'], 'Map(String, Float64)') AS goodput
FROM otel_traces
WHERE ScopeName = 'loadtest' AND SpanKind = 'Internal' AND SpanName = 'stage';
