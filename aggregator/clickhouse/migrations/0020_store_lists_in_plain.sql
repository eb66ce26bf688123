-- Rows of parts that cover the same time alternate when these are merged, and gathering an Array(LowCardinality) row by row
-- was a quarter of what merging request_logs took (docs/performance.md).
ALTER TABLE request_logs MODIFY COLUMN tags Array(String) CODEC(ZSTD(3));
ALTER TABLE request_logs MODIFY COLUMN tool_names Array(String) CODEC(ZSTD(3));
ALTER TABLE request_logs MODIFY COLUMN metadata_keys Array(String) DEFAULT JSONAllPaths(metadata) CODEC(ZSTD(3));
ALTER TABLE request_logs MODIFY COLUMN output_keys Array(String) DEFAULT JSONAllPaths(output) CODEC(ZSTD(3));
ALTER TABLE request_logs MODIFY COLUMN input_variable_keys Array(String) DEFAULT JSONAllPaths(variables) CODEC(ZSTD(3));
