-- One row per Kafka record. `generation` names the rollup partition the row was counted in (see rollups.py).
CREATE TABLE IF NOT EXISTS request_logs
(
    timestamp DateTime64(6, 'UTC') CODEC(Delta, ZSTD),
    request_id String CODEC(ZSTD),

    created_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD),
    source_topic LowCardinality(String),
    source_partition UInt32 CODEC(T64, ZSTD),
    source_offset UInt64 CODEC(Delta, ZSTD),
    generation UInt32 CODEC(Delta, ZSTD),

    provider LowCardinality(String),
    model_name LowCardinality(String),
    user_id String CODEC(ZSTD),
    api_key_id String CODEC(ZSTD),
    api_key_prefix LowCardinality(String),
    api_key_hash String CODEC(ZSTD),
    api_key_address String CODEC(ZSTD),
    api_key_name LowCardinality(String),

    status LowCardinality(String),
    status_code Nullable(UInt16),
    error_type LowCardinality(String),
    error_message String CODEC(ZSTD),
    is_error Bool,

    input_tokens Nullable(UInt32) CODEC(T64, ZSTD),
    output_tokens Nullable(UInt32) CODEC(T64, ZSTD),
    cached_input_tokens Nullable(UInt32) CODEC(T64, ZSTD),
    cache_creation_input_tokens Nullable(UInt32) CODEC(T64, ZSTD),
    thinking_tokens Nullable(UInt32) CODEC(T64, ZSTD),
    -- Further quantities by the units of the price catalogue: JSON, '' if there are none.
    usage String CODEC(ZSTD),
    -- reported by the gateway, extracted from the response, or missing.
    usage_source LowCardinality(String),
    service_tier LowCardinality(String),

    duration_ms Nullable(UInt32) CODEC(T64, ZSTD),
    upstream_duration_ms Nullable(UInt32) CODEC(T64, ZSTD),
    time_to_first_token_ms Nullable(UInt32) CODEC(T64, ZSTD),

    -- Dollars. NULL means unknown (no price, or no usage reported), never free.
    cost Nullable(Decimal(18, 12)) CODEC(ZSTD),
    cost_before_fee Nullable(Decimal(18, 12)) CODEC(ZSTD),
    input_tokens_cost Nullable(Decimal(18, 12)) CODEC(ZSTD),
    input_tokens_cost_before_fee Nullable(Decimal(18, 12)) CODEC(ZSTD),
    cached_input_tokens_cost Nullable(Decimal(18, 12)) CODEC(ZSTD),
    cached_input_tokens_cost_before_fee Nullable(Decimal(18, 12)) CODEC(ZSTD),
    cache_creation_input_tokens_cost Nullable(Decimal(18, 12)) CODEC(ZSTD),
    cache_creation_input_tokens_cost_before_fee Nullable(Decimal(18, 12)) CODEC(ZSTD),
    output_tokens_cost Nullable(Decimal(18, 12)) CODEC(ZSTD),
    output_tokens_cost_before_fee Nullable(Decimal(18, 12)) CODEC(ZSTD),
    other_cost Nullable(Decimal(18, 12)) CODEC(ZSTD),
    other_cost_before_fee Nullable(Decimal(18, 12)) CODEC(ZSTD),
    fee_rate Decimal(9, 6) CODEC(ZSTD),
    price_id LowCardinality(String),
    price_version LowCardinality(String),

    tags Array(LowCardinality(String)),
    metadata JSON,
    prompt_id String CODEC(ZSTD),
    prompt_version_number Nullable(UInt32) CODEC(T64, ZSTD),
    prompt_name LowCardinality(String),
    tool_names Array(LowCardinality(String)),
    turn_count Nullable(UInt32) CODEC(T64, ZSTD),
    tool_call_count Nullable(UInt32) CODEC(T64, ZSTD),
    session_id String CODEC(ZSTD),
    trace_id String CODEC(ZSTD),

    storage_location String CODEC(ZSTD),
    storage_row_index Nullable(UInt32) CODEC(T64, ZSTD),
    storage_batch_id String CODEC(ZSTD),
    use_object_storage Bool,

    PROJECTION by_request_id INDEX request_id TYPE basic
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(timestamp)
ORDER BY (timestamp, request_id)
SETTINGS non_replicated_deduplication_window = 10000;
