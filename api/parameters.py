"""Query parameters that several resources share. Unknown and repeated ones are refused: no typo may widen a query."""

import re
from collections import Counter
from datetime import UTC, datetime
from typing import Annotated, Any, Self

from fastapi import Request
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from aggregator.times import END_OF_TIME, EPOCH, RFC3339, Span
from api.errors import invalid_argument


def _check_rfc3339(value: Any) -> Any:
    # A space is what a URL makes of a + that is not encoded, so here it is refused in place of the T, too.
    if not isinstance(value, str) or " " in value or not RFC3339.fullmatch(value):
        raise PydanticCustomError(
            "rfc3339",
            "must be RFC 3339 with a zone, like 2026-01-31T12:00:00Z (write the + of an offset as %2B)",
        )
    # pydantic reads up to nine digits of a second, the standard sets no limit; rows have six.
    return re.sub(r"(\.\d{6})\d+", r"\1", value)


def _within_epoch(moment: datetime) -> datetime:
    """No request starts outside, so a bound that is moved here selects the same rows."""
    return min(max(moment, EPOCH), END_OF_TIME).astimezone(UTC)


Instant = Annotated[
    datetime,
    BeforeValidator(_check_rfc3339),
    AfterValidator(_within_epoch),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2026-01-31T12:00:00Z"]}),
]


class NoParameters(BaseModel):
    """The query string of an endpoint without parameters, which refuses any."""

    model_config = ConfigDict(extra="forbid")


class TimeRange(BaseModel):
    """`start_time <= timestamp < end_time`, as aware UTC datetimes; None is unbounded."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    start_time: Instant | None = Field(
        None, description="Start of the time range, inclusive. RFC 3339 with a zone; without it, no lower bound."
    )
    end_time: Instant | None = Field(
        None, description="End of the time range, exclusive. RFC 3339 with a zone; without it, no upper bound."
    )

    @model_validator(mode="after")
    def _start_before_end(self) -> Self:
        check_order(self, "start_time", "end_time")
        return self

    @property
    def span(self) -> Span:
        return Span(self.start_time, self.end_time)


def check_order(model: BaseModel, low: str, high: str) -> None:
    """Raises a validation error that names both fields when the value of `low` is above that of `high`."""
    smallest, largest = getattr(model, low), getattr(model, high)
    if smallest is not None and largest is not None and smallest > largest:
        messages = {low: f"must not be above {high}", high: f"must not be below {low}"}
        raise PydanticCustomError("order", f"{low} must not be above {high}", {"messages": messages})


async def refuse_repeats(request: Request) -> None:
    """Raises ApiError 400 for a parameter given twice, of which the framework would silently take the last."""
    counts = Counter(name for name, _ in request.query_params.multi_items())
    for name, count in counts.items():
        if count > 1:
            raise invalid_argument(name, f"is given {count} times, allowed is once")
