-- Fewer bytes a row and fewer granules a query: measured in docs/performance.md.

-- The type of column files that name no codec (dictionaries, JSON paths, projections, sketches): ZSTD, not LZ4.
ALTER TABLE request_logs MODIFY SETTING default_compression_codec = 'ZSTD(1)';
ALTER TABLE rollup_time MODIFY SETTING default_compression_codec = 'ZSTD(1)';
ALTER TABLE rollup_model MODIFY SETTING default_compression_codec = 'ZSTD(1)';
ALTER TABLE rollup_user MODIFY SETTING default_compression_codec = 'ZSTD(1)';

-- Who sends repeats from row to row; where a part has too many of them ClickHouse stores them in plain.
ALTER TABLE request_logs MODIFY COLUMN user_id LowCardinality(String) CODEC(ZSTD);
ALTER TABLE request_logs MODIFY COLUMN api_key_id LowCardinality(String) CODEC(ZSTD);
ALTER TABLE request_logs MODIFY COLUMN api_key_hash LowCardinality(String) CODEC(ZSTD);
ALTER TABLE request_logs MODIFY COLUMN api_key_address LowCardinality(String) CODEC(ZSTD);

-- Costs are whole tokens times a price of few digits, so a block of them has a large common divisor.
ALTER TABLE request_logs MODIFY COLUMN cost Nullable(Decimal(18, 12)) CODEC(GCD, T64, ZSTD);
ALTER TABLE request_logs MODIFY COLUMN cost_before_fee Nullable(Decimal(18, 12)) CODEC(GCD, T64, ZSTD);
ALTER TABLE request_logs MODIFY COLUMN input_tokens_cost Nullable(Decimal(18, 12)) CODEC(GCD, T64, ZSTD);
ALTER TABLE request_logs MODIFY COLUMN input_tokens_cost_before_fee Nullable(Decimal(18, 12)) CODEC(GCD, T64, ZSTD);
ALTER TABLE request_logs MODIFY COLUMN cached_input_tokens_cost Nullable(Decimal(18, 12)) CODEC(GCD, T64, ZSTD);
ALTER TABLE request_logs MODIFY COLUMN cached_input_tokens_cost_before_fee Nullable(Decimal(18, 12)) CODEC(GCD, T64, ZSTD);
ALTER TABLE request_logs MODIFY COLUMN cache_creation_input_tokens_cost Nullable(Decimal(18, 12)) CODEC(GCD, T64, ZSTD);
ALTER TABLE request_logs MODIFY COLUMN cache_creation_input_tokens_cost_before_fee Nullable(Decimal(18, 12)) CODEC(GCD, T64, ZSTD);
ALTER TABLE request_logs MODIFY COLUMN output_tokens_cost Nullable(Decimal(18, 12)) CODEC(GCD, T64, ZSTD);
ALTER TABLE request_logs MODIFY COLUMN output_tokens_cost_before_fee Nullable(Decimal(18, 12)) CODEC(GCD, T64, ZSTD);

-- A page with a filter that few rows pass: skip the granules that hold none. Rows that are there get them when their
-- parts are merged.
ALTER TABLE request_logs ADD INDEX IF NOT EXISTS user_values user_id TYPE bloom_filter(0.01) GRANULARITY 1;
ALTER TABLE request_logs ADD INDEX IF NOT EXISTS api_key_values api_key_id TYPE bloom_filter(0.01) GRANULARITY 1;
ALTER TABLE request_logs ADD INDEX IF NOT EXISTS model_values model_name TYPE bloom_filter(0.01) GRANULARITY 1;
ALTER TABLE request_logs ADD INDEX IF NOT EXISTS status_values status TYPE bloom_filter(0.01) GRANULARITY 1;
ALTER TABLE request_logs ADD INDEX IF NOT EXISTS status_code_values status_code TYPE bloom_filter(0.01) GRANULARITY 1;
ALTER TABLE request_logs ADD INDEX IF NOT EXISTS duration_range duration_ms TYPE minmax GRANULARITY 1;
