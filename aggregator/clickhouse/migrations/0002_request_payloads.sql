-- Headers and bodies, apart from the narrow rows so that no list or aggregate ever reads them.
CREATE TABLE IF NOT EXISTS request_payloads
(
    timestamp DateTime64(6, 'UTC') CODEC(Delta, ZSTD),
    request_id String CODEC(ZSTD),
    created_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD),
    source_partition UInt32 CODEC(T64, ZSTD),
    source_offset UInt64 CODEC(Delta, ZSTD),

    -- Whose payload it is, so that it can be confined to them without a look at request_logs.
    user_id String CODEC(ZSTD),
    api_key_id String CODEC(ZSTD),

    request_headers String CODEC(ZSTD(3)),
    request_body String CODEC(ZSTD(3)),
    response_headers String CODEC(ZSTD(3)),
    response_body String CODEC(ZSTD(3)),
    response_body_raw String CODEC(ZSTD(3)),
    llm_parameters String CODEC(ZSTD(3)),
    input_variables String CODEC(ZSTD(3)),

    -- What a request says and what is answered, without JSON around it (ingest/transform/enrichment.py).
    input_text String CODEC(ZSTD(3)),
    output_text String CODEC(ZSTD(3)),

    -- Words are runs of letters and digits in lower case: hasAllTokens(input_text, 'Refund policy') finds both, in any case.
    INDEX input_words input_text TYPE text(tokenizer = splitByNonAlpha, preprocessor = lowerUTF8(input_text)),
    INDEX output_words output_text TYPE text(tokenizer = splitByNonAlpha, preprocessor = lowerUTF8(output_text))
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(timestamp)
ORDER BY (timestamp, request_id)
-- Read by a page's keys, a few rows from many places: a granule has a megabyte at most, or a page of 1,000 reads millions
-- of bodies. Where there are none it has 1,024 rows: merging costs most by the granule (decision 19).
-- Window and base as in request_logs.
SETTINGS non_replicated_deduplication_window = 10000, index_granularity = 1024, index_granularity_bytes = 1048576,
    merge_selector_base = 10;
