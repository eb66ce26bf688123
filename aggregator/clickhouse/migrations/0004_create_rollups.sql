-- Rollups at rest. Columns and expressions are those of aggregator/catalogue.py (a test compares them).
-- `generation` is part of the partition: a rebuild replaces whole partitions that ingestion no longer writes to.

-- Everything, by status: the cheapest answer to a question without model or user.
CREATE TABLE IF NOT EXISTS rollup_time
(
    bucket DateTime('UTC') CODEC(Delta, ZSTD),
    generation UInt32,
    status LowCardinality(String),
    requests SimpleAggregateFunction(sum, UInt64),
    errors SimpleAggregateFunction(sum, UInt64),
    unpriced SimpleAggregateFunction(sum, UInt64),
    input_tokens SimpleAggregateFunction(sum, UInt64),
    output_tokens SimpleAggregateFunction(sum, UInt64),
    cached_input_tokens SimpleAggregateFunction(sum, UInt64),
    cache_creation_input_tokens SimpleAggregateFunction(sum, UInt64),
    thinking_tokens SimpleAggregateFunction(sum, UInt64),
    cost SimpleAggregateFunction(sum, Decimal(38, 12)),
    cost_before_fee SimpleAggregateFunction(sum, Decimal(38, 12)),
    input_tokens_cost SimpleAggregateFunction(sum, Decimal(38, 12)),
    cached_input_tokens_cost SimpleAggregateFunction(sum, Decimal(38, 12)),
    cache_creation_input_tokens_cost SimpleAggregateFunction(sum, Decimal(38, 12)),
    output_tokens_cost SimpleAggregateFunction(sum, Decimal(38, 12)),
    duration_ms_sum SimpleAggregateFunction(sum, UInt64),
    duration_ms_count SimpleAggregateFunction(sum, UInt64),
    duration_ms_sketch AggregateFunction(quantilesDD(0.01, 0.5, 0.95, 0.99), Nullable(UInt32))
)
ENGINE = AggregatingMergeTree
PARTITION BY (toYYYYMM(bucket), generation)
ORDER BY (bucket, status)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE MATERIALIZED VIEW IF NOT EXISTS rollup_time_view TO rollup_time AS
SELECT
    toStartOfInterval(timestamp, INTERVAL 15 MINUTE) AS bucket,
    generation,
    status,
    count() AS requests,
    countIf(is_error) AS errors,
    countIf(isNull(request_logs.cost)) AS unpriced,
    sum(ifNull(request_logs.input_tokens, 0)) AS input_tokens,
    sum(ifNull(request_logs.output_tokens, 0)) AS output_tokens,
    sum(ifNull(request_logs.cached_input_tokens, 0)) AS cached_input_tokens,
    sum(ifNull(request_logs.cache_creation_input_tokens, 0)) AS cache_creation_input_tokens,
    sum(ifNull(request_logs.thinking_tokens, 0)) AS thinking_tokens,
    sum(ifNull(request_logs.cost, 0)) AS cost,
    sum(ifNull(request_logs.cost_before_fee, 0)) AS cost_before_fee,
    sum(ifNull(request_logs.input_tokens_cost, 0)) AS input_tokens_cost,
    sum(ifNull(request_logs.cached_input_tokens_cost, 0)) AS cached_input_tokens_cost,
    sum(ifNull(request_logs.cache_creation_input_tokens_cost, 0)) AS cache_creation_input_tokens_cost,
    sum(ifNull(request_logs.output_tokens_cost, 0)) AS output_tokens_cost,
    sum(ifNull(duration_ms, 0)) AS duration_ms_sum,
    count(duration_ms) AS duration_ms_count,
    quantilesDDState(0.01, 0.5, 0.95, 0.99)(duration_ms) AS duration_ms_sketch
FROM request_logs
GROUP BY bucket, status, generation;

-- Per model.
CREATE TABLE IF NOT EXISTS rollup_model
(
    bucket DateTime('UTC') CODEC(Delta, ZSTD),
    generation UInt32,
    provider LowCardinality(String),
    model_name LowCardinality(String),
    status LowCardinality(String),
    requests SimpleAggregateFunction(sum, UInt64),
    errors SimpleAggregateFunction(sum, UInt64),
    unpriced SimpleAggregateFunction(sum, UInt64),
    input_tokens SimpleAggregateFunction(sum, UInt64),
    output_tokens SimpleAggregateFunction(sum, UInt64),
    cached_input_tokens SimpleAggregateFunction(sum, UInt64),
    cache_creation_input_tokens SimpleAggregateFunction(sum, UInt64),
    thinking_tokens SimpleAggregateFunction(sum, UInt64),
    cost SimpleAggregateFunction(sum, Decimal(38, 12)),
    cost_before_fee SimpleAggregateFunction(sum, Decimal(38, 12)),
    input_tokens_cost SimpleAggregateFunction(sum, Decimal(38, 12)),
    cached_input_tokens_cost SimpleAggregateFunction(sum, Decimal(38, 12)),
    cache_creation_input_tokens_cost SimpleAggregateFunction(sum, Decimal(38, 12)),
    output_tokens_cost SimpleAggregateFunction(sum, Decimal(38, 12)),
    duration_ms_sum SimpleAggregateFunction(sum, UInt64),
    duration_ms_count SimpleAggregateFunction(sum, UInt64),
    duration_ms_sketch AggregateFunction(quantilesDD(0.01, 0.5, 0.95, 0.99), Nullable(UInt32))
)
ENGINE = AggregatingMergeTree
PARTITION BY (toYYYYMM(bucket), generation)
ORDER BY (bucket, provider, model_name, status)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE MATERIALIZED VIEW IF NOT EXISTS rollup_model_view TO rollup_model AS
SELECT
    toStartOfInterval(timestamp, INTERVAL 15 MINUTE) AS bucket,
    generation,
    provider,
    model_name,
    status,
    count() AS requests,
    countIf(is_error) AS errors,
    countIf(isNull(request_logs.cost)) AS unpriced,
    sum(ifNull(request_logs.input_tokens, 0)) AS input_tokens,
    sum(ifNull(request_logs.output_tokens, 0)) AS output_tokens,
    sum(ifNull(request_logs.cached_input_tokens, 0)) AS cached_input_tokens,
    sum(ifNull(request_logs.cache_creation_input_tokens, 0)) AS cache_creation_input_tokens,
    sum(ifNull(request_logs.thinking_tokens, 0)) AS thinking_tokens,
    sum(ifNull(request_logs.cost, 0)) AS cost,
    sum(ifNull(request_logs.cost_before_fee, 0)) AS cost_before_fee,
    sum(ifNull(request_logs.input_tokens_cost, 0)) AS input_tokens_cost,
    sum(ifNull(request_logs.cached_input_tokens_cost, 0)) AS cached_input_tokens_cost,
    sum(ifNull(request_logs.cache_creation_input_tokens_cost, 0)) AS cache_creation_input_tokens_cost,
    sum(ifNull(request_logs.output_tokens_cost, 0)) AS output_tokens_cost,
    sum(ifNull(duration_ms, 0)) AS duration_ms_sum,
    count(duration_ms) AS duration_ms_count,
    quantilesDDState(0.01, 0.5, 0.95, 0.99)(duration_ms) AS duration_ms_sketch
FROM request_logs
GROUP BY bucket, provider, model_name, status, generation;

-- Per user and api key; hourly, since a user rarely sends in every quarter of an hour.
CREATE TABLE IF NOT EXISTS rollup_user
(
    bucket DateTime('UTC') CODEC(Delta, ZSTD),
    generation UInt32,
    user_id String,
    api_key_id String,
    model_name LowCardinality(String),
    status LowCardinality(String),
    requests SimpleAggregateFunction(sum, UInt64),
    errors SimpleAggregateFunction(sum, UInt64),
    unpriced SimpleAggregateFunction(sum, UInt64),
    input_tokens SimpleAggregateFunction(sum, UInt64),
    output_tokens SimpleAggregateFunction(sum, UInt64),
    cached_input_tokens SimpleAggregateFunction(sum, UInt64),
    cache_creation_input_tokens SimpleAggregateFunction(sum, UInt64),
    thinking_tokens SimpleAggregateFunction(sum, UInt64),
    cost SimpleAggregateFunction(sum, Decimal(38, 12)),
    cost_before_fee SimpleAggregateFunction(sum, Decimal(38, 12)),
    input_tokens_cost SimpleAggregateFunction(sum, Decimal(38, 12)),
    cached_input_tokens_cost SimpleAggregateFunction(sum, Decimal(38, 12)),
    cache_creation_input_tokens_cost SimpleAggregateFunction(sum, Decimal(38, 12)),
    output_tokens_cost SimpleAggregateFunction(sum, Decimal(38, 12)),
    duration_ms_sum SimpleAggregateFunction(sum, UInt64),
    duration_ms_count SimpleAggregateFunction(sum, UInt64),
    duration_ms_sketch AggregateFunction(quantilesDD(0.01, 0.5, 0.95, 0.99), Nullable(UInt32))
)
ENGINE = AggregatingMergeTree
PARTITION BY (toYYYYMM(bucket), generation)
ORDER BY (bucket, user_id, api_key_id, model_name, status)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE MATERIALIZED VIEW IF NOT EXISTS rollup_user_view TO rollup_user AS
SELECT
    toStartOfInterval(timestamp, INTERVAL 1 HOUR) AS bucket,
    generation,
    user_id,
    api_key_id,
    model_name,
    status,
    count() AS requests,
    countIf(is_error) AS errors,
    countIf(isNull(request_logs.cost)) AS unpriced,
    sum(ifNull(request_logs.input_tokens, 0)) AS input_tokens,
    sum(ifNull(request_logs.output_tokens, 0)) AS output_tokens,
    sum(ifNull(request_logs.cached_input_tokens, 0)) AS cached_input_tokens,
    sum(ifNull(request_logs.cache_creation_input_tokens, 0)) AS cache_creation_input_tokens,
    sum(ifNull(request_logs.thinking_tokens, 0)) AS thinking_tokens,
    sum(ifNull(request_logs.cost, 0)) AS cost,
    sum(ifNull(request_logs.cost_before_fee, 0)) AS cost_before_fee,
    sum(ifNull(request_logs.input_tokens_cost, 0)) AS input_tokens_cost,
    sum(ifNull(request_logs.cached_input_tokens_cost, 0)) AS cached_input_tokens_cost,
    sum(ifNull(request_logs.cache_creation_input_tokens_cost, 0)) AS cache_creation_input_tokens_cost,
    sum(ifNull(request_logs.output_tokens_cost, 0)) AS output_tokens_cost,
    sum(ifNull(duration_ms, 0)) AS duration_ms_sum,
    count(duration_ms) AS duration_ms_count,
    quantilesDDState(0.01, 0.5, 0.95, 0.99)(duration_ms) AS duration_ms_sketch
FROM request_logs
GROUP BY bucket, user_id, api_key_id, model_name, status, generation;

-- The generation that new rows belong to is the largest one here (0 when empty).
CREATE TABLE IF NOT EXISTS rollup_generations
(
    generation UInt32,
    started_at DateTime64(3, 'UTC'),
    reason String
)
ENGINE = MergeTree
ORDER BY generation;
