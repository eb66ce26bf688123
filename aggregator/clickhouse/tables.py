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
