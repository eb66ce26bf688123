"""What a search is answered with: an envelope with numbers of pages, and short items without bodies."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from api.wire_types import Moment

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
