"""A page of a search, as the contract has it: an envelope with numbers of pages, and short items without bodies."""

import json
import re
from datetime import UTC, timedelta
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from aggregator.clickhouse.tables import KEY_COLUMNS
from api.analytics.search.find import SearchTotal, find, search_of
from api.analytics.search.request import SearchQuery
from api.request_rows import OF_KEYS, Row, rows_by_key
from api.security.reader import Reader
from api.wire_types import Moment

# What every JSON reader takes for the same number.
LARGEST_NUMBER = 2**53 - 1
COLUMNS = {
    "engine": "model_name",
    "provider_type": "provider",
    "price": "cost",
    "tags_array": "tags",
}
PLAIN = (
    "input_tokens", "output_tokens", "status", "error_type", "prompt_id", "prompt_version_number", "user_id",
    "api_key_id", "session_id", "trace_id", "turn_count", "tool_call_count", "tool_names", "prompt_name",
)  # fmt: skip
READ = f"""
SELECT {", ".join(KEY_COLUMNS)}, {", ".join((*COLUMNS.values(), *PLAIN))}, duration_ms,
    toJSONString(request_logs.metadata) AS metadata
FROM request_logs {OF_KEYS}
"""

EXAMPLE: JsonDict = {
    "id": 1004,
    "engine": "claude-sonnet-4-6",
    "provider_type": "anthropic",
    "input_tokens": 400,
    "output_tokens": 200,
    "price": 0.15,
    "request_start_time": "2025-06-02T18:00:00.000000Z",
    "request_end_time": "2025-06-02T18:00:03.000000Z",
    "latency": 3.0,
    "tags_array": ["production"],
    "metadata": [{"environment": "prod", "flag": True}],
    "scores": [],
    "status": "success",
    "error_type": "",
    "prompt_id": "",
    "prompt_version_number": None,
    "user_id": "user-17",
    "api_key_id": "key-3",
    "session_id": "",
    "trace_id": "",
    "turn_count": 1,
    "tool_call_count": 2,
    "tool_names": ["search_database", "send_email"],
}


class FoundRequest(BaseModel):
    """One request; `GET /v1/request-logs/{request_id}` has everything about it."""

    id: int | str = Field(description="The request id: an integer if it is one, else the text it is.")
    engine: str
    provider_type: str
    input_tokens: int | None
    output_tokens: int | None
    price: float | None = Field(description="Dollars, fee included; null when no price or no usage is known.")
    request_start_time: Moment
    request_end_time: Moment | None = Field(description="Null when the duration is not known.")
    latency: float | None = Field(description="Seconds.")
    tags_array: list[str]
    metadata: list[dict[str, Any]] = Field(description="One object with all of it; empty when there is none.")
    scores: list[dict[str, Any]] = Field(description="Always empty: requests are not scored here.")
    status: str
    error_type: str
    prompt_id: str
    prompt_version_number: int | None
    user_id: str
    api_key_id: str
    session_id: str
    trace_id: str
    turn_count: int | None
    tool_call_count: int | None
    tool_names: list[str]
    prompt_name: str | None = Field(None, description="Only with `include_prompt_name`.")


class SearchAnswer(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "success": True,
                    "items": [EXAMPLE],
                    "page": 1,
                    "pages": 1,
                    "per_page": 10,
                    "total": 1,
                    "total_is_approximate": False,
                    "has_next": False,
                    "has_prev": False,
                    "next_num": None,
                    "prev_num": None,
                }
            ]
        }
    )

    success: Literal[True]
    items: list[FoundRequest]
    page: int
    pages: int
    per_page: int
    total: int
    total_is_approximate: bool = Field(description="True: there are more than `total`, and pages end there.")
    has_next: bool
    has_prev: bool
    next_num: int | None
    prev_num: int | None


def public_id(request_id: str) -> int | str:
    """An integer where the text is how that integer is written."""
    if not re.fullmatch("0|[1-9][0-9]{0,15}", request_id):
        return request_id
    number = int(request_id)
    return number if number <= LARGEST_NUMBER else request_id


def _item(row: Row, with_prompt_name: bool) -> FoundRequest:
    fields = {name: row[name] for name in PLAIN} | {name: row[column] for name, column in COLUMNS.items()}
    started, duration_ms, metadata = (
        row["timestamp"].replace(tzinfo=UTC),
        row["duration_ms"],
        json.loads(row["metadata"]),
    )
    fields |= {
        "id": public_id(row["request_id"]),
        "request_start_time": started,
        "request_end_time": None if duration_ms is None else started + timedelta(milliseconds=duration_ms),
        "latency": None if duration_ms is None else duration_ms / 1000,
        "metadata": [metadata] if metadata else [],
        "scores": [],
    }
    prompt_name = fields.pop("prompt_name")
    if with_prompt_name:
        fields["prompt_name"] = prompt_name or None
    return FoundRequest(**fields)


def answer_search(reader: Reader, query: SearchQuery) -> SearchAnswer:
    """Raises ApiError 400 for words or a filter that cannot be looked for."""
    search = search_of(reader, query)
    total, keys = find(reader, search, query.limit, (query.number - 1) * query.limit)
    rows = rows_by_key(reader, READ, keys)
    return _envelope(query, total, [_item(row, bool(query.include_prompt_name)) for row in rows])


def _envelope(query: SearchQuery, total: SearchTotal, items: list[FoundRequest]) -> SearchAnswer:
    number, pages = query.number, -(-total.found // query.limit)
    return SearchAnswer(
        success=True,
        items=items,
        page=number,
        pages=pages,
        per_page=query.limit,
        total=total.found,
        total_is_approximate=not total.is_exact,
        has_next=number < pages,
        has_prev=number > 1,
        next_num=number + 1 if number < pages else None,
        prev_num=number - 1 if number > 1 else None,
    )
