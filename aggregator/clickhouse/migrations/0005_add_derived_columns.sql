-- What is derived from bodies at ingest (ingest/derive.py), for search and analytics. Rows from before have none.

-- `output` and `variables` are flat: every dotted path (indexes of arrays dropped) holds the list of its scalars as text,
-- so that any value under a path can be compared without knowing its type:
--   getSubcolumn(output, concat({path:String}, '.:`Array(Nullable(String))`'))
ALTER TABLE request_logs
    ADD COLUMN IF NOT EXISTS is_json Bool,
    ADD COLUMN IF NOT EXISTS is_tool_call Bool,
    ADD COLUMN IF NOT EXISTS is_plain_text Bool DEFAULT NOT is_json AND NOT is_tool_call,
    ADD COLUMN IF NOT EXISTS output JSON(max_dynamic_paths = 256),
    ADD COLUMN IF NOT EXISTS output_keys Array(LowCardinality(String)) DEFAULT JSONAllPaths(output),
    ADD COLUMN IF NOT EXISTS variables JSON(max_dynamic_paths = 256),
    ADD COLUMN IF NOT EXISTS input_variable_keys Array(LowCardinality(String)) DEFAULT JSONAllPaths(variables),
    ADD COLUMN IF NOT EXISTS metadata_keys Array(LowCardinality(String)) DEFAULT JSONAllPaths(metadata),
    ADD COLUMN IF NOT EXISTS user_intent LowCardinality(String),
    ADD COLUMN IF NOT EXISTS agent_intent LowCardinality(String);

-- Words are runs of letters and digits in lower case: hasAllTokens(input_text, 'Refund policy') finds both, in any case.
ALTER TABLE request_payloads
    ADD COLUMN IF NOT EXISTS input_text String CODEC(ZSTD(3)),
    ADD COLUMN IF NOT EXISTS output_text String CODEC(ZSTD(3)),
    ADD INDEX IF NOT EXISTS input_words input_text TYPE text(
        tokenizer = splitByNonAlpha, preprocessor = lowerUTF8(input_text)),
    ADD INDEX IF NOT EXISTS output_words output_text TYPE text(
        tokenizer = splitByNonAlpha, preprocessor = lowerUTF8(output_text));
