"""Query parameters: how they are read, and those that several resources share.

Unknown and repeated ones are refused: no typo may widen a query.
"""

import re
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Self, get_args

from fastapi import Request
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from aggregator.times import RFC3339, Span, request_time
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


Instant = Annotated[
    datetime,
    BeforeValidator(_check_rfc3339),
    AfterValidator(request_time),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2026-01-31T12:00:00Z"]}),
]


def _is_integer(annotation: Any) -> bool:
    """Also where it has bounds or may be None."""
    return annotation is int or any(map(_is_integer, get_args(annotation)))


class QueryParameters(BaseModel):
    """The query string of an endpoint.

    Each name may be written in lowerCamelCase, too: clients that are made from a proto do. They may also write out what
    is not set, as an empty text or a 0; it counts as left out.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _as_clients_write_it(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        names = {to_camel(name): name for name in cls.model_fields}
        for other, name in names.items():
            if other != name and {other, name} <= given.keys():
                message = f"{name} and {other} are the same parameter: give one of them"
                raise PydanticCustomError("both_names", message, {"messages": {name: message, other: message}})
        read = {names.get(name, str(name)): value for name, value in given.items()}
        return {name: value for name, value in read.items() if not cls._is_unset(name, value)}

    @classmethod
    def _is_unset(cls, name: str, value: Any) -> bool:
        if name not in cls.model_fields:
            return False
        return value == "" or (value in (0, "0") and _is_integer(cls.model_fields[name].annotation))


class NoParameters(QueryParameters):
    """The query string of an endpoint without parameters, which refuses any."""


class TimeRange(QueryParameters):
    """`start_time <= timestamp < end_time`, as aware UTC datetimes; None is unbounded."""

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
