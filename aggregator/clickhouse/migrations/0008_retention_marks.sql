-- Rows from before `rows_from` may have been deleted by a retention that was in force once
-- (aggregator/clickhouse/retention.py).
CREATE TABLE IF NOT EXISTS retention_marks
(
    rows_from DateTime('UTC'),
    marked_at DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = MergeTree
ORDER BY rows_from;
