-- Sums of request_logs by bucket of time, fed by views. Measures and dimensions are those of aggregator/rollups/measures.py
-- (a test compares them); the bucket stands first in the key, as most questions name a range of time.
-- `generation` is part of the partition: a rebuild replaces whole partitions that ingestion no longer writes to.
-- Days, hours and months are projections: they lie in the parts of their table, so they cannot differ from it (decision 15).
-- Months and hours have fewer dimensions, so that few groups are merged (decision 17).
-- Settings: merges make projections again from the merged rows, as rows of one group are summed then; the others as in
-- request_logs.

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
    duration_ms_histogram AggregateFunction(quantilesExactWeighted(0.5, 0.95, 0.99), UInt16, UInt8),

    PROJECTION daily
    (
        SELECT
            provider, model_name, status,
            toStartOfDay(bucket),
            sum(requests),
            sum(errors),
            sum(unpriced),
            sum(input_tokens),
            sum(output_tokens),
            sum(cached_input_tokens),
            sum(cache_creation_input_tokens),
            sum(thinking_tokens),
            sum(cost),
            sum(cost_before_fee),
            sum(input_tokens_cost),
            sum(cached_input_tokens_cost),
            sum(cache_creation_input_tokens_cost),
            sum(output_tokens_cost),
            sum(duration_ms_sum),
            sum(duration_ms_count),
            quantilesExactWeightedMergeState(0.5, 0.95, 0.99)(duration_ms_histogram)
        GROUP BY provider, model_name, status, toStartOfDay(bucket)
    ),
    PROJECTION hourly
    (
        SELECT
            status,
            toStartOfHour(bucket),
            sum(requests),
            sum(errors),
            sum(unpriced),
            sum(input_tokens),
            sum(output_tokens),
            sum(cached_input_tokens),
            sum(cache_creation_input_tokens),
            sum(thinking_tokens),
            sum(cost),
            sum(cost_before_fee),
            sum(input_tokens_cost),
            sum(cached_input_tokens_cost),
            sum(cache_creation_input_tokens_cost),
            sum(output_tokens_cost),
            sum(duration_ms_sum),
            sum(duration_ms_count),
            quantilesExactWeightedMergeState(0.5, 0.95, 0.99)(duration_ms_histogram)
        GROUP BY status, toStartOfHour(bucket)
    ),
    PROJECTION monthly
    (
        SELECT
            provider, model_name, status,
            toDateTime(toStartOfMonth(bucket), 'UTC'),
            sum(requests),
            sum(errors),
            sum(unpriced),
            sum(input_tokens),
            sum(output_tokens),
            sum(cached_input_tokens),
            sum(cache_creation_input_tokens),
            sum(thinking_tokens),
            sum(cost),
            sum(cost_before_fee),
            sum(input_tokens_cost),
            sum(cached_input_tokens_cost),
            sum(cache_creation_input_tokens_cost),
            sum(output_tokens_cost),
            sum(duration_ms_sum),
            sum(duration_ms_count),
            quantilesExactWeightedMergeState(0.5, 0.95, 0.99)(duration_ms_histogram)
        GROUP BY provider, model_name, status, toDateTime(toStartOfMonth(bucket), 'UTC')
    )
)
ENGINE = AggregatingMergeTree
PARTITION BY (toYYYYMM(bucket), generation)
ORDER BY (bucket, provider, model_name, status)
SETTINGS non_replicated_deduplication_window = 10000, default_compression_codec = 'ZSTD(1)', merge_selector_base = 10,
    deduplicate_merge_projection_mode = 'rebuild';

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
    sum(ifNull(request_logs.cost - request_logs.fees[1], 0)) AS cost_before_fee,
    sum(ifNull(request_logs.input_tokens_cost, 0)) AS input_tokens_cost,
    sum(ifNull(request_logs.cached_input_tokens_cost, 0)) AS cached_input_tokens_cost,
    sum(ifNull(request_logs.cache_creation_input_tokens_cost, 0)) AS cache_creation_input_tokens_cost,
    sum(ifNull(request_logs.output_tokens_cost, 0)) AS output_tokens_cost,
    sum(ifNull(duration_ms, 0)) AS duration_ms_sum,
    count(duration_ms) AS duration_ms_count,
    quantilesExactWeightedStateIf(0.5, 0.95, 0.99)(toUInt16(1 + (assumeNotNull(duration_ms) > 0) + ceil(log(greatest(assumeNotNull(duration_ms), 1)) / log((1.01 / 0.99)))), 1, isNotNull(duration_ms)) AS duration_ms_histogram
FROM request_logs
GROUP BY bucket, provider, model_name, status, generation;

-- Per user and API key; hourly, since a user rarely sends in every quarter of an hour. In projections the bucket stands
-- last: the groups of one user lie side by side.
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
    duration_ms_histogram AggregateFunction(quantilesExactWeighted(0.5, 0.95, 0.99), UInt16, UInt8),

    PROJECTION daily
    (
        SELECT
            user_id, api_key_id, model_name, status,
            toStartOfDay(bucket),
            sum(requests),
            sum(errors),
            sum(unpriced),
            sum(input_tokens),
            sum(output_tokens),
            sum(cached_input_tokens),
            sum(cache_creation_input_tokens),
            sum(thinking_tokens),
            sum(cost),
            sum(cost_before_fee),
            sum(input_tokens_cost),
            sum(cached_input_tokens_cost),
            sum(cache_creation_input_tokens_cost),
            sum(output_tokens_cost),
            sum(duration_ms_sum),
            sum(duration_ms_count),
            quantilesExactWeightedMergeState(0.5, 0.95, 0.99)(duration_ms_histogram)
        GROUP BY user_id, api_key_id, model_name, status, toStartOfDay(bucket)
    ),
    PROJECTION monthly
    (
        SELECT
            user_id, api_key_id,
            toDateTime(toStartOfMonth(bucket), 'UTC'),
            sum(requests),
            sum(errors),
            sum(unpriced),
            sum(input_tokens),
            sum(output_tokens),
            sum(cached_input_tokens),
            sum(cache_creation_input_tokens),
            sum(thinking_tokens),
            sum(cost),
            sum(cost_before_fee),
            sum(input_tokens_cost),
            sum(cached_input_tokens_cost),
            sum(cache_creation_input_tokens_cost),
            sum(output_tokens_cost),
            sum(duration_ms_sum),
            sum(duration_ms_count),
            quantilesExactWeightedMergeState(0.5, 0.95, 0.99)(duration_ms_histogram)
        GROUP BY user_id, api_key_id, toDateTime(toStartOfMonth(bucket), 'UTC')
    )
)
ENGINE = AggregatingMergeTree
PARTITION BY (toYYYYMM(bucket), generation)
ORDER BY (bucket, user_id, api_key_id, model_name, status)
SETTINGS non_replicated_deduplication_window = 10000, default_compression_codec = 'ZSTD(1)', merge_selector_base = 10,
    deduplicate_merge_projection_mode = 'rebuild';

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
    sum(ifNull(request_logs.cost - request_logs.fees[1], 0)) AS cost_before_fee,
    sum(ifNull(request_logs.input_tokens_cost, 0)) AS input_tokens_cost,
    sum(ifNull(request_logs.cached_input_tokens_cost, 0)) AS cached_input_tokens_cost,
    sum(ifNull(request_logs.cache_creation_input_tokens_cost, 0)) AS cache_creation_input_tokens_cost,
    sum(ifNull(request_logs.output_tokens_cost, 0)) AS output_tokens_cost,
    sum(ifNull(duration_ms, 0)) AS duration_ms_sum,
    count(duration_ms) AS duration_ms_count,
    quantilesExactWeightedStateIf(0.5, 0.95, 0.99)(toUInt16(1 + (assumeNotNull(duration_ms) > 0) + ceil(log(greatest(assumeNotNull(duration_ms), 1)) / log((1.01 / 0.99)))), 1, isNotNull(duration_ms)) AS duration_ms_histogram
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
