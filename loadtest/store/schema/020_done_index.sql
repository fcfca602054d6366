-- What ended in a time range (rates, errors) is asked for by its end, which the order of the table knows nothing about.
ALTER TABLE attempts ADD INDEX IF NOT EXISTS idx_done done_ns TYPE minmax GRANULARITY 1;

ALTER TABLE attempts MATERIALIZE INDEX idx_done;
