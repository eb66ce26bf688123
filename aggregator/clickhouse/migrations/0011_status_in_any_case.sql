-- A status is compared without its case (Dimension.STATUS). Parts of before have no such index until they are merged.
ALTER TABLE request_logs
    DROP INDEX IF EXISTS status_values,
    ADD INDEX IF NOT EXISTS status_words lower(status) TYPE bloom_filter(0.01) GRANULARITY 1;
