-- Durations as counts per bucket (catalogue.py): a group of a few requests, as most are, takes a third of the time that a
-- DDSketch took to merge. Groups from before have none until `insights rollups rebuild`.

-- A view is made anew under its name, by which ClickHouse knows tokens, so a batch that is written again still counts once.
-- After ALTER TABLE ... MODIFY QUERY it would not (tests/faults/test_clickhouse_http.py). `alter_sync = 2`: every replica has
-- the column before its view needs it.

ALTER TABLE rollup_model ADD COLUMN IF NOT EXISTS duration_ms_histogram AggregateFunction(quantilesExactWeighted(0.5, 0.95, 0.99), UInt16, UInt8) SETTINGS alter_sync = 2;
DROP VIEW IF EXISTS rollup_model_view;
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
    quantilesExactWeightedStateIf(0.5, 0.95, 0.99)(toUInt16(1 + (assumeNotNull(duration_ms) > 0) + ceil(log(greatest(assumeNotNull(duration_ms), 1)) / log((1.01 / 0.99)))), 1, isNotNull(duration_ms)) AS duration_ms_histogram
FROM request_logs
GROUP BY bucket, provider, model_name, status, generation;
ALTER TABLE rollup_model DROP COLUMN IF EXISTS duration_ms_sketch;

ALTER TABLE rollup_user ADD COLUMN IF NOT EXISTS duration_ms_histogram AggregateFunction(quantilesExactWeighted(0.5, 0.95, 0.99), UInt16, UInt8) SETTINGS alter_sync = 2;
DROP VIEW IF EXISTS rollup_user_view;
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
    quantilesExactWeightedStateIf(0.5, 0.95, 0.99)(toUInt16(1 + (assumeNotNull(duration_ms) > 0) + ceil(log(greatest(assumeNotNull(duration_ms), 1)) / log((1.01 / 0.99)))), 1, isNotNull(duration_ms)) AS duration_ms_histogram
FROM request_logs
GROUP BY bucket, user_id, api_key_id, model_name, status, generation;
ALTER TABLE rollup_user DROP COLUMN IF EXISTS duration_ms_sketch;

-- rollup_model answers what it did.
DROP VIEW IF EXISTS rollup_time_view;
DROP TABLE IF EXISTS rollup_time;
