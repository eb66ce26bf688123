-- What a fee adds to a cost is stored, nearly always 0, instead of the cost without it, which is computed where it is
-- read. Why no kill and no second process can harm: decisions/0037.

ALTER TABLE request_logs
    ADD COLUMN IF NOT EXISTS cost_fee Nullable(Decimal(18, 12)) DEFAULT cost - cost_before_fee CODEC(GCD, T64, ZSTD) AFTER cost,
    ADD COLUMN IF NOT EXISTS input_tokens_cost_fee Nullable(Decimal(18, 12)) DEFAULT input_tokens_cost - input_tokens_cost_before_fee CODEC(GCD, T64, ZSTD) AFTER input_tokens_cost,
    ADD COLUMN IF NOT EXISTS cached_input_tokens_cost_fee Nullable(Decimal(18, 12)) DEFAULT cached_input_tokens_cost - cached_input_tokens_cost_before_fee CODEC(GCD, T64, ZSTD) AFTER cached_input_tokens_cost,
    ADD COLUMN IF NOT EXISTS cache_creation_input_tokens_cost_fee Nullable(Decimal(18, 12)) DEFAULT cache_creation_input_tokens_cost - cache_creation_input_tokens_cost_before_fee CODEC(GCD, T64, ZSTD) AFTER cache_creation_input_tokens_cost,
    ADD COLUMN IF NOT EXISTS output_tokens_cost_fee Nullable(Decimal(18, 12)) DEFAULT output_tokens_cost - output_tokens_cost_before_fee CODEC(GCD, T64, ZSTD) AFTER output_tokens_cost,
    ADD COLUMN IF NOT EXISTS other_cost_fee Nullable(Decimal(18, 12)) DEFAULT other_cost - other_cost_before_fee CODEC(GCD, T64, ZSTD) AFTER other_cost
    SETTINGS alter_sync = 2;

-- Of columns that are computed already it gives what is there.
ALTER TABLE request_logs
    UPDATE
    cost_fee = cost - cost_before_fee,
    input_tokens_cost_fee = input_tokens_cost - input_tokens_cost_before_fee,
    cached_input_tokens_cost_fee = cached_input_tokens_cost - cached_input_tokens_cost_before_fee,
    cache_creation_input_tokens_cost_fee = cache_creation_input_tokens_cost - cache_creation_input_tokens_cost_before_fee,
    output_tokens_cost_fee = output_tokens_cost - output_tokens_cost_before_fee,
    other_cost_fee = other_cost - other_cost_before_fee
    WHERE true
    SETTINGS mutations_sync = 2, distributed_ddl_task_timeout = 86400;

-- Made anew under their names, as in migration 11. ClickHouse drops no column that a view names.
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
    sum(ifNull(request_logs.cost - request_logs.cost_fee, 0)) AS cost_before_fee,
    sum(ifNull(request_logs.input_tokens_cost, 0)) AS input_tokens_cost,
    sum(ifNull(request_logs.cached_input_tokens_cost, 0)) AS cached_input_tokens_cost,
    sum(ifNull(request_logs.cache_creation_input_tokens_cost, 0)) AS cache_creation_input_tokens_cost,
    sum(ifNull(request_logs.output_tokens_cost, 0)) AS output_tokens_cost,
    sum(ifNull(duration_ms, 0)) AS duration_ms_sum,
    count(duration_ms) AS duration_ms_count,
    quantilesExactWeightedStateIf(0.5, 0.95, 0.99)(toUInt16(1 + (assumeNotNull(duration_ms) > 0) + ceil(log(greatest(assumeNotNull(duration_ms), 1)) / log((1.01 / 0.99)))), 1, isNotNull(duration_ms)) AS duration_ms_histogram
FROM request_logs
GROUP BY bucket, provider, model_name, status, generation;
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
    sum(ifNull(request_logs.cost - request_logs.cost_fee, 0)) AS cost_before_fee,
    sum(ifNull(request_logs.input_tokens_cost, 0)) AS input_tokens_cost,
    sum(ifNull(request_logs.cached_input_tokens_cost, 0)) AS cached_input_tokens_cost,
    sum(ifNull(request_logs.cache_creation_input_tokens_cost, 0)) AS cache_creation_input_tokens_cost,
    sum(ifNull(request_logs.output_tokens_cost, 0)) AS output_tokens_cost,
    sum(ifNull(duration_ms, 0)) AS duration_ms_sum,
    count(duration_ms) AS duration_ms_count,
    quantilesExactWeightedStateIf(0.5, 0.95, 0.99)(toUInt16(1 + (assumeNotNull(duration_ms) > 0) + ceil(log(greatest(assumeNotNull(duration_ms), 1)) / log((1.01 / 0.99)))), 1, isNotNull(duration_ms)) AS duration_ms_histogram
FROM request_logs
GROUP BY bucket, user_id, api_key_id, model_name, status, generation;

ALTER TABLE request_logs
    MODIFY COLUMN cost_fee Nullable(Decimal(18, 12)) DEFAULT NULL,
    MODIFY COLUMN input_tokens_cost_fee Nullable(Decimal(18, 12)) DEFAULT NULL,
    MODIFY COLUMN cached_input_tokens_cost_fee Nullable(Decimal(18, 12)) DEFAULT NULL,
    MODIFY COLUMN cache_creation_input_tokens_cost_fee Nullable(Decimal(18, 12)) DEFAULT NULL,
    MODIFY COLUMN output_tokens_cost_fee Nullable(Decimal(18, 12)) DEFAULT NULL,
    MODIFY COLUMN other_cost_fee Nullable(Decimal(18, 12)) DEFAULT NULL
    SETTINGS alter_sync = 2;

-- In one statement: nobody sees a table without them.
ALTER TABLE request_logs
    DROP COLUMN IF EXISTS cost_before_fee,
    DROP COLUMN IF EXISTS input_tokens_cost_before_fee,
    DROP COLUMN IF EXISTS cached_input_tokens_cost_before_fee,
    DROP COLUMN IF EXISTS cache_creation_input_tokens_cost_before_fee,
    DROP COLUMN IF EXISTS output_tokens_cost_before_fee,
    DROP COLUMN IF EXISTS other_cost_before_fee,
    ADD COLUMN cost_before_fee Nullable(Decimal(18, 12)) ALIAS cost - cost_fee AFTER cost_fee,
    ADD COLUMN input_tokens_cost_before_fee Nullable(Decimal(18, 12)) ALIAS input_tokens_cost - input_tokens_cost_fee AFTER input_tokens_cost_fee,
    ADD COLUMN cached_input_tokens_cost_before_fee Nullable(Decimal(18, 12)) ALIAS cached_input_tokens_cost - cached_input_tokens_cost_fee AFTER cached_input_tokens_cost_fee,
    ADD COLUMN cache_creation_input_tokens_cost_before_fee Nullable(Decimal(18, 12)) ALIAS cache_creation_input_tokens_cost - cache_creation_input_tokens_cost_fee AFTER cache_creation_input_tokens_cost_fee,
    ADD COLUMN output_tokens_cost_before_fee Nullable(Decimal(18, 12)) ALIAS output_tokens_cost - output_tokens_cost_fee AFTER output_tokens_cost_fee,
    ADD COLUMN other_cost_before_fee Nullable(Decimal(18, 12)) ALIAS other_cost - other_cost_fee AFTER other_cost_fee
    SETTINGS alter_sync = 2, mutations_sync = 2;
