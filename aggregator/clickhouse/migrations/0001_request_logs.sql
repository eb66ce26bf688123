-- One row per Kafka record, without headers and bodies.
-- Who sends repeats from row to row, so user, key and what is known of the key are LowCardinality; where a part has too
-- many of them ClickHouse stores them in plain. Lists are Array(String): merging an Array(LowCardinality) is slow
-- (decision 19).
CREATE TABLE IF NOT EXISTS request_logs
(
    timestamp DateTime64(6, 'UTC') CODEC(Delta, ZSTD),
    request_id String CODEC(ZSTD),

    created_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD),
    source_topic LowCardinality(String),
    source_partition UInt32 CODEC(T64, ZSTD),
    source_offset UInt64 CODEC(Delta, ZSTD),
    -- The rollup partition that the row was counted in (aggregator/rollups/rebuild.py).
    generation UInt32 CODEC(Delta, ZSTD),

    provider LowCardinality(String),
    model_name LowCardinality(String),
    user_id LowCardinality(String) CODEC(ZSTD),
    api_key_id LowCardinality(String) CODEC(ZSTD),
    api_key_prefix LowCardinality(String),
    api_key_hash LowCardinality(String) CODEC(ZSTD),
    api_key_address LowCardinality(String) CODEC(ZSTD),
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
    -- GCD: costs are whole tokens times a price of few digits, so a block of them has a large common divisor.
    -- What a fee adds, nearly always 0, is stored; the cost before it is computed where it is read (decision 18).
    cost Nullable(Decimal(18, 12)) CODEC(GCD, T64, ZSTD),
    cost_fee Nullable(Decimal(18, 12)) DEFAULT NULL CODEC(GCD, T64, ZSTD),
    cost_before_fee Nullable(Decimal(18, 12)) ALIAS cost - cost_fee,
    input_tokens_cost Nullable(Decimal(18, 12)) CODEC(GCD, T64, ZSTD),
    input_tokens_cost_fee Nullable(Decimal(18, 12)) DEFAULT NULL CODEC(GCD, T64, ZSTD),
    input_tokens_cost_before_fee Nullable(Decimal(18, 12)) ALIAS input_tokens_cost - input_tokens_cost_fee,
    cached_input_tokens_cost Nullable(Decimal(18, 12)) CODEC(GCD, T64, ZSTD),
    cached_input_tokens_cost_fee Nullable(Decimal(18, 12)) DEFAULT NULL CODEC(GCD, T64, ZSTD),
    cached_input_tokens_cost_before_fee Nullable(Decimal(18, 12))
        ALIAS cached_input_tokens_cost - cached_input_tokens_cost_fee,
    cache_creation_input_tokens_cost Nullable(Decimal(18, 12)) CODEC(GCD, T64, ZSTD),
    cache_creation_input_tokens_cost_fee Nullable(Decimal(18, 12)) DEFAULT NULL CODEC(GCD, T64, ZSTD),
    cache_creation_input_tokens_cost_before_fee Nullable(Decimal(18, 12))
        ALIAS cache_creation_input_tokens_cost - cache_creation_input_tokens_cost_fee,
    output_tokens_cost Nullable(Decimal(18, 12)) CODEC(GCD, T64, ZSTD),
    output_tokens_cost_fee Nullable(Decimal(18, 12)) DEFAULT NULL CODEC(GCD, T64, ZSTD),
    output_tokens_cost_before_fee Nullable(Decimal(18, 12)) ALIAS output_tokens_cost - output_tokens_cost_fee,
    other_cost Nullable(Decimal(18, 12)) CODEC(GCD, T64, ZSTD),
    other_cost_fee Nullable(Decimal(18, 12)) DEFAULT NULL CODEC(GCD, T64, ZSTD),
    other_cost_before_fee Nullable(Decimal(18, 12)) ALIAS other_cost - other_cost_fee,
    fee_rate Decimal(9, 6) CODEC(ZSTD),
    price_id LowCardinality(String),
    price_version LowCardinality(String),

    tags Array(String) CODEC(ZSTD(3)),
    metadata JSON,
    metadata_keys Array(String) DEFAULT JSONAllPaths(metadata) CODEC(ZSTD(3)),
    session_id String CODEC(ZSTD),
    trace_id String CODEC(ZSTD),
    prompt_id String CODEC(ZSTD),
    prompt_version_number Nullable(UInt32) CODEC(T64, ZSTD),
    prompt_name LowCardinality(String),

    -- Derived from bodies at ingest (ingest/transform/enrichment.py).
    tool_names Array(String) CODEC(ZSTD(3)),
    turn_count Nullable(UInt32) CODEC(T64, ZSTD),
    tool_call_count Nullable(UInt32) CODEC(T64, ZSTD),
    is_json Bool,
    is_tool_call Bool,
    is_plain_text Bool DEFAULT NOT is_json AND NOT is_tool_call,
    -- `output` and `variables` are flat: every dotted path (indexes of arrays dropped) holds the list of its scalars as
    -- text, so that any value under a path can be compared without knowing its type:
    --   getSubcolumn(output, concat({path:String}, '.:`Array(Nullable(String))`'))
    output JSON(max_dynamic_paths = 256),
    output_keys Array(String) DEFAULT JSONAllPaths(output) CODEC(ZSTD(3)),
    variables JSON(max_dynamic_paths = 256),
    input_variable_keys Array(String) DEFAULT JSONAllPaths(variables) CODEC(ZSTD(3)),
    user_intent LowCardinality(String),
    agent_intent LowCardinality(String),

    storage_location String CODEC(ZSTD),
    storage_row_index Nullable(UInt32) CODEC(T64, ZSTD),
    storage_batch_id String CODEC(ZSTD),
    use_object_storage Bool,

    -- A page with a filter that few rows pass skips the granules that hold none of them.
    INDEX user_values user_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX api_key_values api_key_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX model_values model_name TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX status_values status TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX status_code_values status_code TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX duration_range duration_ms TYPE minmax GRANULARITY 1,

    -- One log by its id.
    PROJECTION by_request_id INDEX request_id TYPE basic
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(timestamp)
ORDER BY (timestamp, request_id)
-- The window: tokens of batches, which make a retried insert count once (docs/delivery.md).
-- The codec: of column files that name none (dictionaries, JSON paths, projections), LZ4 otherwise.
-- The base: ten parts are merged at a time instead of five, so each row is rewritten half as often (docs/performance.md).
SETTINGS non_replicated_deduplication_window = 10000, default_compression_codec = 'ZSTD(1)', merge_selector_base = 10;
