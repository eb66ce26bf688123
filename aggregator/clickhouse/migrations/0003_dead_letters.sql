-- Records that are not valid events: the bytes as they came (secrets masked), and why.
CREATE TABLE IF NOT EXISTS dead_letters
(
    created_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD),
    source_topic LowCardinality(String),
    source_partition UInt32 CODEC(T64, ZSTD),
    source_offset UInt64 CODEC(Delta, ZSTD),
    record_timestamp DateTime64(3, 'UTC') CODEC(Delta, ZSTD),

    reason LowCardinality(String),
    field String CODEC(ZSTD),
    message String CODEC(ZSTD),

    key String CODEC(ZSTD),
    value String CODEC(ZSTD(3)),
    value_bytes UInt64 CODEC(T64, ZSTD),
    is_truncated Bool,
    headers Array(Tuple(name String, value String))
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(created_at)
ORDER BY (created_at, source_topic, source_partition, source_offset)
TTL toDateTime(created_at) + INTERVAL 90 DAY
SETTINGS non_replicated_deduplication_window = 10000;
