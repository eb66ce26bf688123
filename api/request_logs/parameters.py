"""The query parameters of request logs and of their statistics."""

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, model_validator

from aggregator.times import Timezone
from api.parameters import TimeRange, check_order

MAX_UINT32 = 2**32 - 1

Milliseconds = Annotated[int, Field(ge=0, le=MAX_UINT32)]
IsError = Annotated[
    bool | None,
    Field(
        description="Only requests that failed (true), by their status, status code or error type, or only the others;"
        " without it, all.",
        examples=[True],
    ),
]
StatusCode = Annotated[int, Field(ge=0, le=999)]


class OrderBy(StrEnum):
    TIMESTAMP = "timestamp"
    DURATION_MS = "duration_ms"
    INPUT_TOKENS = "input_tokens"
    OUTPUT_TOKENS = "output_tokens"


class OrderDirection(StrEnum):
    ASC = "asc"
    DESC = "desc"


class GroupBy(StrEnum):
    MODEL = "model"
    USER = "user"
    API_KEY = "api_key"
    STATUS = "status"
    HOUR = "hour"
    DAY = "day"


class StatsMetric(StrEnum):
    COUNT = "count"
    TOKENS = "tokens"
    COST = "cost"
    LATENCY = "latency"
    ERRORS = "errors"


class LogParameters(TimeRange):
    """Filters are joined by AND and compare exactly, a status in any case. An empty text and a 0 filter nothing."""

    user_id: str | None = Field(None, description="Only logs of this user; without it, of all.", examples=["user-17"])
    api_key_id: str | None = Field(
        None, description="Only logs of this key of the gateway; without it, of all.", examples=["key-3"]
    )
    model_name: str | None = Field(
        None, description="Only logs of this model; without it, of all.", examples=["gpt-5-mini"]
    )
    status: str | None = Field(
        None,
        description="Only logs of this status: `success`, `error`, `timeout`, or the gateway's own word, in upper or"
        " lower case. Without it, of all.",
        examples=["error"],
    )
    is_error: IsError = None
    status_code: StatusCode | None = Field(
        None, description="Only logs with this HTTP status; without it, with any and with none.", examples=[429]
    )
    min_duration_ms: Milliseconds | None = Field(
        None,
        description="Only logs that took this many milliseconds or more; without it, no lower bound.",
        examples=[500],
    )
    max_duration_ms: Milliseconds | None = Field(
        None,
        description="Only logs that took this many milliseconds or less; without it, no upper bound.",
        examples=[9000],
    )
    page_size: int = Field(50, ge=1, le=1000, description="Logs of a page at most; 50 without it.")
    page_token: str = Field("", description="`next_page_token` of the page before; empty for the first page.")
    order_by: OrderBy = Field(
        OrderBy.TIMESTAMP,
        description="What logs are ordered by; `timestamp` without it. Logs without the value come last in both"
        " directions.",
    )
    order_direction: OrderDirection = Field(
        OrderDirection.DESC, description="`desc` (the default): newest or largest first."
    )

    @model_validator(mode="after")
    def _durations_in_order(self) -> Self:
        check_order(self, "min_duration_ms", "max_duration_ms")
        return self


class StatsParameters(TimeRange):
    user_id: str | None = Field(
        None, description="Only requests of this user; without it, of all.", examples=["user-17"]
    )
    model_name: str | None = Field(
        None, description="Only requests of this model; without it, of all.", examples=["gpt-5-mini"]
    )
    is_error: IsError = None
    group_by: GroupBy = Field(GroupBy.MODEL, description="What a group is; `model` without it.")
    metric: StatsMetric = Field(
        StatsMetric.COUNT,
        description="What `value` holds and groups are ordered by: requests (`count`, the default), `tokens` (input"
        " plus"
        " output), `cost` in dollars, `latency` (average milliseconds), or `errors`.",
    )
    limit: int = Field(
        10_000, ge=1, le=10_000, description="Groups at most; 10000 without it. Totals always cover all of them."
    )
    timezone: Timezone = Field(
        "UTC", description="IANA time zone whose hours and days are meant; UTC without it.", examples=["Europe/Berlin"]
    )
