"""What a search is answered with: an envelope with numbers of pages, and short items without bodies."""

from typing import Any

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
    engine: str = Field(description="The model.")
    provider_type: str = Field(description='Who served it; "" when the gateway named none.')
    input_tokens: int | None = Field(description="Tokens of the whole prompt; null when unknown.")
    output_tokens: int | None = Field(description="Tokens of the answer; null when unknown.")
    price: float | None = Field(description="Dollars, fee included; null when no price or no usage is known.")
    request_start_time: Moment = Field(description="When the request started, UTC.")
    request_end_time: Moment | None = Field(
        description="When the request ended, UTC; null when its duration is not known."
    )
    latency: float | None = Field(description="Seconds that it took; null when unknown.")
    tags_array: list[str] = Field(description="The gateway's tags; empty when there are none.")
    metadata: list[dict[str, Any]] = Field(description="One object with all of it; empty when there is none.")
    scores: list[dict[str, Any]] = Field(description="Always empty: requests are not scored here.")
    status: str = Field(description="`success`, `error`, `timeout`, or the gateway's own word.")
    error_type: str = Field(description='The kind of the failure; "" when absent.')
    prompt_id: str = Field(description='Id of the prompt template; "" when absent.')
    prompt_version_number: int | None = Field(description="Version of the prompt template; null when absent.")
    user_id: str = Field(description='Who asked; "" when the gateway named no user.')
    api_key_id: str = Field(description='The key that was used; "" when the gateway named none.')
    session_id: str = Field(description='The session it belongs to; "" when absent.')
    trace_id: str = Field(description='The trace it belongs to; "" when absent.')
    turn_count: int | None = Field(description="Turns of the conversation; null when unknown.")
    tool_call_count: int | None = Field(description="Tool calls of the request; null when unknown.")
    tool_names: list[str] = Field(description="Names of the tools that the model called; empty when it called none.")
    prompt_name: str | None = Field(
        None, description="Name of the prompt template, null when it has none; left out without `include_prompt_name`."
    )


class SearchAnswer(BaseModel):
    """A page of what was found."""

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

    success: bool = Field(description="Always true.")
    items: list[FoundRequest] = Field(description="What was found, closest or newest first unless sorted otherwise.")
    page: int = Field(description="Number of this page, from 1.")
    pages: int = Field(description="Number of the last page; 0 when nothing was found.")
    per_page: int = Field(description="Items of a page at most.")
    total: int = Field(description="Requests that were found.")
    total_is_approximate: bool = Field(description="True: there are more than `total`, and pages end there.")
    has_next: bool = Field(description="True: there is a next page.")
    has_prev: bool = Field(description="True: there is a page before.")
    next_num: int | None = Field(description="Number of the next page; null on the last.")
    prev_num: int | None = Field(description="Number of the page before; null on the first.")
