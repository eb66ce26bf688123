-- Headers and bodies, apart from the narrow rows so that no list or aggregate ever reads them.
CREATE TABLE IF NOT EXISTS request_payloads
(
    timestamp DateTime64(6, 'UTC') CODEC(Delta, ZSTD),
    request_id String CODEC(ZSTD),
    created_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD),
    source_partition UInt32 CODEC(T64, ZSTD),
    source_offset UInt64 CODEC(Delta, ZSTD),

    request_headers String CODEC(ZSTD(3)),
    request_body String CODEC(ZSTD(3)),
    response_headers String CODEC(ZSTD(3)),
    response_body String CODEC(ZSTD(3)),
    response_body_raw String CODEC(ZSTD(3)),
    llm_parameters String CODEC(ZSTD(3)),
    input_variables String CODEC(ZSTD(3))
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(timestamp)
ORDER BY (timestamp, request_id)
-- Read by a page's keys, a few rows from many places: small granules, or a page of 1,000 reads millions of bodies.
SETTINGS non_replicated_deduplication_window = 10000, index_granularity = 256;
