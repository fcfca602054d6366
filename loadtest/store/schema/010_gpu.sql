-- What a run samples beside its requests, from where, and which devices serve which target. The samples themselves are in
-- otel_metrics_gauge and otel_metrics_sum, with the source's name as Attributes['loadtest.source'].
CREATE TABLE IF NOT EXISTS gpu_sources (
    run LowCardinality(String),
    source LowCardinality(String),
    kind LowCardinality(String) COMMENT 'dcgm, amd, vllm, sglang, tgi, triton, trtllm, prometheus, nvml, or auto',
    url String COMMENT 'what is asked; empty for nvml',
    targets Map(String, Array(String)) COMMENT 'target -> its devices here, by index or id; *: all',
    every_s Float64 COMMENT 'from one sample to the next',
    stale_s Float64 COMMENT 'a value known to be older stands for nothing',
    since DateTime64(9)
) ENGINE = MergeTree
ORDER BY (run, source)
SETTINGS non_replicated_deduplication_window = 1000;
