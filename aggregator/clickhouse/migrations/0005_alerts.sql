-- Alerts of budgets and of models' behaviour, each once (aggregator/budgets/notifications.py writes them).
CREATE TABLE IF NOT EXISTS alerts
(
    created_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD),
    alert_id String,
    kind LowCardinality(String),
    scope_kind LowCardinality(String),
    scope_value String,
    budget_id String,
    threshold_percent UInt16,
    value Decimal(38, 12),
    limit Decimal(38, 12),
    period_start DateTime64(3, 'UTC'),
    period_end DateTime64(3, 'UTC'),
    message String,
    -- Of the process that wrote the row: it posts the alert to the webhook, and no other does.
    claim String DEFAULT ''
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(created_at)
ORDER BY (created_at, alert_id)
TTL toDateTime(created_at) + INTERVAL 400 DAY
SETTINGS non_replicated_deduplication_window = 10000;
