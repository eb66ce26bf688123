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
    service_tier LowCardinality(String),

    duration_ms Nullable(UInt32) CODEC(T64, ZSTD),
    upstream_duration_ms Nullable(UInt32) CODEC(T64, ZSTD),
    time_to_first_token_ms Nullable(UInt32) CODEC(T64, ZSTD),

    -- Dollars. NULL means unknown (no price, or no usage reported), never free.
    -- GCD: costs are whole tokens times a price of few digits, so a block of them has a large common divisor.
    cost Nullable(Decimal(18, 12)) CODEC(GCD, T64, ZSTD),
    input_tokens_cost Nullable(Decimal(18, 12)) CODEC(GCD, T64, ZSTD),
    cached_input_tokens_cost Nullable(Decimal(18, 12)) CODEC(GCD, T64, ZSTD),
    cache_creation_input_tokens_cost Nullable(Decimal(18, 12)) CODEC(GCD, T64, ZSTD),
    output_tokens_cost Nullable(Decimal(18, 12)) CODEC(GCD, T64, ZSTD),
    other_cost Nullable(Decimal(18, 12)) CODEC(GCD, T64, ZSTD),
    -- What a fee adds to each of them, nearly always 0, and then [] (decisions 18 and 20). The cost before it is computed
    -- where it is read; of [] every element is 0.
    cost_fee Nullable(Decimal(18, 12)) EPHEMERAL,
    input_tokens_cost_fee Nullable(Decimal(18, 12)) EPHEMERAL,
    cached_input_tokens_cost_fee Nullable(Decimal(18, 12)) EPHEMERAL,
    cache_creation_input_tokens_cost_fee Nullable(Decimal(18, 12)) EPHEMERAL,
    output_tokens_cost_fee Nullable(Decimal(18, 12)) EPHEMERAL,
    other_cost_fee Nullable(Decimal(18, 12)) EPHEMERAL,
    fees Array(Decimal(18, 12)) DEFAULT if(
        arrayExists(fee -> fee != 0, [
            ifNull(cost_fee, 0),
            ifNull(input_tokens_cost_fee, 0),
            ifNull(cached_input_tokens_cost_fee, 0),
            ifNull(cache_creation_input_tokens_cost_fee, 0),
            ifNull(output_tokens_cost_fee, 0),
            ifNull(other_cost_fee, 0)
        ]),
        [
            ifNull(cost_fee, 0),
            ifNull(input_tokens_cost_fee, 0),
            ifNull(cached_input_tokens_cost_fee, 0),
            ifNull(cache_creation_input_tokens_cost_fee, 0),
            ifNull(output_tokens_cost_fee, 0),
            ifNull(other_cost_fee, 0)
        ],
        []
    ) CODEC(ZSTD),
    cost_before_fee Nullable(Decimal(18, 12)) ALIAS cost - fees[1],
    input_tokens_cost_before_fee Nullable(Decimal(18, 12)) ALIAS input_tokens_cost - fees[2],
    cached_input_tokens_cost_before_fee Nullable(Decimal(18, 12)) ALIAS cached_input_tokens_cost - fees[3],
    cache_creation_input_tokens_cost_before_fee Nullable(Decimal(18, 12)) ALIAS cache_creation_input_tokens_cost - fees[4],
    output_tokens_cost_before_fee Nullable(Decimal(18, 12)) ALIAS output_tokens_cost - fees[5],
    other_cost_before_fee Nullable(Decimal(18, 12)) ALIAS other_cost - fees[6],
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

    -- What a page and a single log show, and neither reprice nor retention changes, but for columns with many values: a JSON
    -- list in the order of DETAIL_COLUMNS (aggregator/clickhouse/tables.py). They open one column instead of 24 (decision
    -- 20). What no query filters, groups or sums by is stored here only: ingest sends it, and no SELECT can name it.
    api_key_prefix String EPHEMERAL,
    api_key_hash String EPHEMERAL,
    api_key_address String EPHEMERAL,
    api_key_name String EPHEMERAL,
    usage_source String EPHEMERAL,
    storage_location String EPHEMERAL,
    storage_row_index Nullable(UInt32) EPHEMERAL,
    storage_batch_id String EPHEMERAL,
    use_object_storage Bool EPHEMERAL,
    details String DEFAULT toJSONString(tuple(
        provider,
        api_key_prefix,
        api_key_hash,
        api_key_address,
        api_key_name,
        status,
        status_code,
        is_error,
        error_type,
        usage,
        usage_source,
        service_tier,
        tags,
        toJSONString(metadata),
        prompt_id,
        prompt_version_number,
        prompt_name,
        tool_names,
        turn_count,
        tool_call_count,
        storage_location,
        storage_row_index,
        storage_batch_id,
        use_object_storage
    )) CODEC(ZSTD(3)),

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
