-- A key is known by the SHA-256 of what its holder sends; it never changes, so that there is nothing to update.
CREATE TABLE IF NOT EXISTS api_keys
(
    key_hash FixedString(64),
    name String,
    prefix String,
    scopes Array(LowCardinality(String)),
    user_id Nullable(String),
    api_key_ids Array(String),
    created_at DateTime64(3, 'UTC') DEFAULT now64(3),
    created_by String
)
ENGINE = MergeTree
ORDER BY key_hash;

-- A row here ends the key, for good.
CREATE TABLE IF NOT EXISTS api_key_revocations
(
    key_hash FixedString(64),
    revoked_at DateTime64(3, 'UTC') DEFAULT now64(3),
    revoked_by String
)
ENGINE = MergeTree
ORDER BY key_hash;

-- Each API process adds a row for each key it has seen, at most once a minute; merges keep the last.
CREATE TABLE IF NOT EXISTS api_key_uses
(
    key_hash FixedString(64),
    last_used_at SimpleAggregateFunction(max, DateTime64(3, 'UTC'))
)
ENGINE = AggregatingMergeTree
ORDER BY key_hash;
