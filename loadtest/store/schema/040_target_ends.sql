-- A closed stage of so many requests ends for each target when its last one is sent: who answers sooner has sent them sooner, and its rates
-- are not to be divided by the time that the slowest target took.
ALTER TABLE stages ADD COLUMN IF NOT EXISTS target_end_ns Map(String, Int64)
    COMMENT 'end of arrivals of the targets for which it came before end_ns' AFTER end_ns;

-- Made anew under another name, as in 030.
DROP VIEW IF EXISTS stages_mv;

CREATE MATERIALIZED VIEW IF NOT EXISTS stages_of_spans_mv TO stages AS
SELECT
    SpanAttributes['loadtest.run'] AS run,
    SpanAttributes['loadtest.stage'] AS stage,
    toUInt32OrZero(SpanAttributes['loadtest.stage.index']) AS stage_index,
    toUInt16OrZero(SpanAttributes['loadtest.round']) AS round,
    SpanAttributes['loadtest.warmup'] = 'true' AS warmup,
    toUnixTimestamp64Nano(Timestamp) AS start_ns,
    toInt64OrZero(SpanAttributes['loadtest.end_ns']) AS end_ns,
    JSONExtract(SpanAttributes['loadtest.target_end_ns'], 'Map(String, Int64)') AS target_end_ns,
    start_ns + toInt64(Duration) AS drained_ns,
    JSONExtract(SpanAttributes['loadtest.goodput'], 'Map(String, Float64)') AS goodput
FROM otel_traces
WHERE ScopeName = 'loadtest' AND SpanKind = 'Internal' AND SpanName = 'stage';
