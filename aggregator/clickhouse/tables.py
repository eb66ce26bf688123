"""The tables of requests: their names and the columns that other modules rely on. The .sql files create them."""

REQUEST_LOGS = "request_logs"
REQUEST_PAYLOADS = "request_payloads"
DEAD_LETTERS = "dead_letters"

# The key of a row, in request_logs and in request_payloads; the primary key of both begins with the same columns.
KEY_COLUMNS = ("timestamp", "request_id", "created_at", "source_partition", "source_offset")
# Columns of request_payloads that hold a request's headers and bodies as they were sent.
PAYLOAD_COLUMNS = (
    "request_headers",
    "request_body",
    "response_headers",
    "response_body",
    "response_body_raw",
    "llm_parameters",
    "input_variables",
)
# What the column `details` of request_logs holds, in its order. To change it takes a migration that writes it again.
DETAIL_COLUMNS = (
    "provider",
    "api_key_prefix",
    "api_key_hash",
    "api_key_address",
    "api_key_name",
    "status",
    "status_code",
    "is_error",
    "error_type",
    "usage",
    "usage_source",
    "service_tier",
    "tags",
    "metadata",
    "prompt_id",
    "prompt_version_number",
    "prompt_name",
    "tool_names",
    "turn_count",
    "tool_call_count",
    "storage_location",
    "storage_row_index",
    "storage_batch_id",
    "use_object_storage",
)
