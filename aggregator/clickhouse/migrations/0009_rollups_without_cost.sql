-- Requests without a cost by whose work they are (aggregator/rollups/measures.py), and the extremes of durations, beyond
-- which no percentile lies. `unpriced` counted every request without a cost until now.
-- Then: rebuild rollups
-- The line above says that the rows of before are counted again when these statements are done. The defaults of the
-- extremes stand for rows that retention has deleted: they leave percentiles as they are.
-- `alter_sync`: on a cluster every replica has the columns before its view names them.

ALTER TABLE rollup_model
    DROP PROJECTION IF EXISTS monthly,
    DROP PROJECTION IF EXISTS daily,
    DROP PROJECTION IF EXISTS hourly,
    ADD COLUMN IF NOT EXISTS missing_usage SimpleAggregateFunction(sum, UInt64) AFTER unpriced,
    ADD COLUMN IF NOT EXISTS failed_without_usage SimpleAggregateFunction(sum, UInt64) AFTER missing_usage,
    ADD COLUMN IF NOT EXISTS duration_ms_min SimpleAggregateFunction(min, UInt32) AFTER duration_ms_count,
    ADD COLUMN IF NOT EXISTS duration_ms_max SimpleAggregateFunction(max, UInt32) DEFAULT 4294967295 AFTER duration_ms_min,
    ADD PROJECTION monthly
    (
        SELECT
            provider, model_name, status,
            toDateTime(toStartOfMonth(bucket), 'UTC'),
            sum(requests),
            sum(errors),
            sum(unpriced),
            sum(missing_usage),
            sum(failed_without_usage),
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
            min(duration_ms_min),
            max(duration_ms_max),
            quantilesExactWeightedMergeState(0.5, 0.95, 0.99)(duration_ms_histogram)
        GROUP BY provider, model_name, status, toDateTime(toStartOfMonth(bucket), 'UTC')
    ),
    ADD PROJECTION daily
    (
        SELECT
            provider, model_name, status,
            toStartOfDay(bucket),
            sum(requests),
            sum(errors),
            sum(unpriced),
            sum(missing_usage),
            sum(failed_without_usage),
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
            min(duration_ms_min),
            max(duration_ms_max),
            quantilesExactWeightedMergeState(0.5, 0.95, 0.99)(duration_ms_histogram)
        GROUP BY provider, model_name, status, toStartOfDay(bucket)
    ),
    ADD PROJECTION hourly
    (
        SELECT
            status,
            toStartOfHour(bucket),
            sum(requests),
            sum(errors),
            sum(unpriced),
            sum(missing_usage),
            sum(failed_without_usage),
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
            min(duration_ms_min),
            max(duration_ms_max),
            quantilesExactWeightedMergeState(0.5, 0.95, 0.99)(duration_ms_histogram)
        GROUP BY status, toStartOfHour(bucket)
    )
SETTINGS alter_sync = 2;

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
    countIf(isNull(request_logs.cost) AND (isNotNull(request_logs.input_tokens) OR isNotNull(request_logs.output_tokens) OR request_logs.usage != '')) AS unpriced,
    countIf(isNull(request_logs.cost) AND NOT (isNotNull(request_logs.input_tokens) OR isNotNull(request_logs.output_tokens) OR request_logs.usage != '') AND NOT is_error) AS missing_usage,
    countIf(isNull(request_logs.cost) AND NOT (isNotNull(request_logs.input_tokens) OR isNotNull(request_logs.output_tokens) OR request_logs.usage != '') AND is_error) AS failed_without_usage,
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
    ifNull(min(request_logs.duration_ms), 4294967295) AS duration_ms_min,
    ifNull(max(request_logs.duration_ms), 0) AS duration_ms_max,
    quantilesExactWeightedStateIf(0.5, 0.95, 0.99)(toUInt16(1 + (assumeNotNull(duration_ms) > 0) + ceil(log(greatest(assumeNotNull(duration_ms), 1)) / log((1.01 / 0.99)))), 1, isNotNull(duration_ms)) AS duration_ms_histogram
FROM request_logs
GROUP BY bucket, provider, model_name, status, generation;

ALTER TABLE rollup_user
    DROP PROJECTION IF EXISTS monthly,
    DROP PROJECTION IF EXISTS daily,
    ADD COLUMN IF NOT EXISTS missing_usage SimpleAggregateFunction(sum, UInt64) AFTER unpriced,
    ADD COLUMN IF NOT EXISTS failed_without_usage SimpleAggregateFunction(sum, UInt64) AFTER missing_usage,
    ADD COLUMN IF NOT EXISTS duration_ms_min SimpleAggregateFunction(min, UInt32) AFTER duration_ms_count,
    ADD COLUMN IF NOT EXISTS duration_ms_max SimpleAggregateFunction(max, UInt32) DEFAULT 4294967295 AFTER duration_ms_min,
    ADD PROJECTION monthly
    (
        SELECT
            user_id, api_key_id,
            toDateTime(toStartOfMonth(bucket), 'UTC'),
            sum(requests),
            sum(errors),
            sum(unpriced),
            sum(missing_usage),
            sum(failed_without_usage),
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
            min(duration_ms_min),
            max(duration_ms_max),
            quantilesExactWeightedMergeState(0.5, 0.95, 0.99)(duration_ms_histogram)
        GROUP BY user_id, api_key_id, toDateTime(toStartOfMonth(bucket), 'UTC')
    ),
    ADD PROJECTION daily
    (
        SELECT
            user_id, api_key_id, model_name, status,
            toStartOfDay(bucket),
            sum(requests),
            sum(errors),
            sum(unpriced),
            sum(missing_usage),
            sum(failed_without_usage),
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
            min(duration_ms_min),
            max(duration_ms_max),
            quantilesExactWeightedMergeState(0.5, 0.95, 0.99)(duration_ms_histogram)
        GROUP BY user_id, api_key_id, model_name, status, toStartOfDay(bucket)
    )
SETTINGS alter_sync = 2;

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
    countIf(isNull(request_logs.cost) AND (isNotNull(request_logs.input_tokens) OR isNotNull(request_logs.output_tokens) OR request_logs.usage != '')) AS unpriced,
    countIf(isNull(request_logs.cost) AND NOT (isNotNull(request_logs.input_tokens) OR isNotNull(request_logs.output_tokens) OR request_logs.usage != '') AND NOT is_error) AS missing_usage,
    countIf(isNull(request_logs.cost) AND NOT (isNotNull(request_logs.input_tokens) OR isNotNull(request_logs.output_tokens) OR request_logs.usage != '') AND is_error) AS failed_without_usage,
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
    ifNull(min(request_logs.duration_ms), 4294967295) AS duration_ms_min,
    ifNull(max(request_logs.duration_ms), 0) AS duration_ms_max,
    quantilesExactWeightedStateIf(0.5, 0.95, 0.99)(toUInt16(1 + (assumeNotNull(duration_ms) > 0) + ceil(log(greatest(assumeNotNull(duration_ms), 1)) / log((1.01 / 0.99)))), 1, isNotNull(duration_ms)) AS duration_ms_histogram
FROM request_logs
GROUP BY bucket, user_id, api_key_id, model_name, status, generation;
