"""What may stand in a query string. Whatever else stands there is refused: a typo must never widen a query."""

import re
from collections import Counter
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Self
from zoneinfo import available_timezones

from fastapi import Request
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from aggregator.rollups.planner import EPOCH, Span
from api.errors import invalid_argument

# No row lies outside (the event contract sees to it), so bounds beyond are moved here without changing the answer.
LAST_MOMENT = datetime(2100, 1, 1, tzinfo=UTC)
RFC3339 = re.compile(r"\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(\.\d+)?([Zz]|[+-]\d{2}:\d{2})", re.ASCII)
MAX_UINT32 = 2**32 - 1
TIMEZONES = frozenset(available_timezones())


def _check_rfc3339(value: Any) -> Any:
    if not isinstance(value, str) or not RFC3339.fullmatch(value):
        raise PydanticCustomError(
            "rfc3339",
            "must be RFC 3339 with a zone, like 2026-01-31T12:00:00Z (write the + of an offset as %2B)",
        )
    # pydantic reads up to nine digits of a second, the standard sets no limit; rows have six.
    return re.sub(r"(\.\d{6})\d+", r"\1", value)


def _within_epoch(moment: datetime) -> datetime:
    return min(max(moment, EPOCH), LAST_MOMENT).astimezone(UTC)


Instant = Annotated[
    datetime,
    BeforeValidator(_check_rfc3339),
    AfterValidator(_within_epoch),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2026-01-31T12:00:00Z"]}),
]


def _check_timezone(value: str) -> str:
    if value not in TIMEZONES:
        raise PydanticCustomError("timezone", "must be the name of an IANA time zone, like Europe/Berlin")
    return value


Timezone = Annotated[str, AfterValidator(_check_timezone)]
Milliseconds = Annotated[int, Field(ge=0, le=MAX_UINT32)]
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


class NoParameters(BaseModel):
    """An endpoint that takes none, and says so when it is given one."""

    model_config = ConfigDict(extra="forbid")


class TimeRange(BaseModel):
    """`start_time <= timestamp < end_time`, as aware UTC datetimes; None is unbounded."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    start_time: Instant | None = Field(None, description="Inclusive. RFC 3339 with a zone.")
    end_time: Instant | None = Field(None, description="Exclusive. RFC 3339 with a zone.")

    @model_validator(mode="after")
    def _start_before_end(self) -> Self:
        _check_order(self, "start_time", "end_time")
        return self

    @property
    def span(self) -> Span:
        return Span(self.start_time, self.end_time)


def _check_order(model: BaseModel, low: str, high: str) -> None:
    smallest, largest = getattr(model, low), getattr(model, high)
    if smallest is not None and largest is not None and smallest > largest:
        messages = {low: f"must not be above {high}", high: f"must not be below {low}"}
        raise PydanticCustomError("order", f"{low} must not be above {high}", {"messages": messages})


class LogParameters(TimeRange):
    """Filters are joined by AND and compare exactly; the empty string finds rows without the value."""

    user_id: str | None = Field(None, examples=["user-17"])
    api_key_id: str | None = Field(None, examples=["key-3"])
    model_name: str | None = Field(None, examples=["gpt-5-mini"])
    status: str | None = Field(None, description="`success`, `error`, `timeout`, or the gateway's own word.")
    status_code: StatusCode | None = Field(None, examples=[429])
    min_duration_ms: Milliseconds | None = Field(None, description="Inclusive.")
    max_duration_ms: Milliseconds | None = Field(None, description="Inclusive.")
    page_size: int = Field(50, ge=1, le=1000)
    page_token: str = Field("", description="`next_page_token` of the page before; empty for the first page.")
    order_by: OrderBy = Field(OrderBy.TIMESTAMP, description="Rows without the value come last in both directions.")
    order_direction: OrderDirection = OrderDirection.DESC

    @model_validator(mode="after")
    def _durations_in_order(self) -> Self:
        _check_order(self, "min_duration_ms", "max_duration_ms")
        return self


class StatsParameters(TimeRange):
    user_id: str | None = Field(None, examples=["user-17"])
    model_name: str | None = Field(None, examples=["gpt-5-mini"])
    group_by: GroupBy = GroupBy.MODEL
    metric: StatsMetric = StatsMetric.COUNT
    limit: int = Field(10_000, ge=1, le=10_000, description="Groups in the answer; totals always cover all of them.")
    timezone: Timezone = Field("UTC", description="IANA time zone whose hours and days are meant.")


def refuse_repeats(request: Request) -> None:
    """Of a parameter given twice the framework would take the last and drop the other."""
    counts = Counter(name for name, _ in request.query_params.multi_items())
    for name, count in counts.items():
        if count > 1:
            raise invalid_argument(name, f"is given {count} times, allowed is once")
