"""The tool `explain_request`: one request, and why it costs what it costs."""

import json
from typing import Any

from pydantic import Field, StrictBool, StrictStr

from api.analytics.request import Body
from api.errors import ApiError, ErrorDetail
from api.mcp.console_links import ConsolePage, page_address
from api.mcp.context import ToolAnswer, ToolContext
from api.request_logs.lookup import find_log
from api.security.auth import require
from api.security.permissions import Permission

# Of a body or of headers, as JSON text.
MAX_CHARACTERS = 4_000
BODIES = ("request_headers", "request_body", "response_headers", "response_body", "response_body_raw")
# Ids of storage, keys by other names, and what the explanation of the cost says better.
HIDDEN = (
    "id", "api_key_prefix", "api_key_hash", "api_key_address", "storage_location", "storage_row_index",
    "storage_batch_id", "use_object_storage", "input_tokens_cost_microdollar", "output_tokens_cost_microdollar",
)  # fmt: skip

COULD_BE_KNOWN = (
    "cost", "status_code", "input_tokens", "output_tokens", "cached_input_tokens", "duration_ms",
    "time_to_first_token_ms",
)  # fmt: skip


class ExplainArguments(Body):
    request_id: StrictStr = Field(min_length=1, max_length=10_000)
    bodies: StrictBool = Field(False, description=f"With headers and bodies, each cut at {MAX_CHARACTERS} characters.")


def answer_explanation(context: ToolContext, asked: ExplainArguments) -> ToolAnswer:
    """Raises ApiError 404 for a request that is not there, or not the caller's, 403 for bodies that are not theirs."""
    if asked.bodies:
        require(context.reader.caller, Permission.CONTENT)
    try:
        found = find_log(context.reader, asked.request_id)
    except ApiError as error:
        if error.status != 404:
            raise
        detail = ErrorDetail(field="request_id", message="there is no request with this id")
        raise ApiError(404, f"{detail.field}: {detail.message}", [detail]) from error
    log = found.model_dump(mode="json")
    hidden = (*HIDDEN, *BODIES)
    content: dict[str, Any] = {
        "request": {
            name: value
            for name, value in log.items()
            if name not in hidden and not name.endswith("_before_fee") and value not in ("", None, [], {})
        },
        # Not known, as against zero.
        "unknown": [name for name, value in log.items() if value is None and name in COULD_BE_KNOWN],
    }
    if asked.bodies:
        content["bodies"] = {name: _cut(log[name]) for name in BODIES if log[name] not in ("", None)}
    return ToolAnswer(content, page_address(ConsolePage.REQUESTS, found.request_id))


def _cut(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    more = len(text) - MAX_CHARACTERS
    return f"{text[:MAX_CHARACTERS]} [... {more} characters more]" if more > 0 else text
