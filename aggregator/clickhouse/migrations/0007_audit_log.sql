-- Who changed what. No TTL: it is small, and asked for late.
CREATE TABLE IF NOT EXISTS audit_log
(
    at DateTime64(3, 'UTC') DEFAULT now64(3),
    actor String,
    action LowCardinality(String),
    target String,
    details String
)
ENGINE = MergeTree
PARTITION BY toYear(at)
ORDER BY at;
