"""The catalogue's units of tokens that are fields of an event and columns of request_logs."""

# Thinking tokens. They are a part of the output, which few prices charge apart.
REASONING = "output_reasoning_tokens"
# Column by unit.
TOKEN_COLUMNS = {
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "cache_read_tokens": "cached_input_tokens",
    "cache_write_tokens": "cache_creation_input_tokens",
    REASONING: "thinking_tokens",
}
