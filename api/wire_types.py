"""Types of values in requests and answers: how each is written in JSON."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BeforeValidator, JsonValue, PlainSerializer, WithJsonSchema
from pydantic_core import from_json


def _aware(value: Any) -> Any:
    """The driver returns UTC columns without a zone."""
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) and value.tzinfo is None else value


def rfc3339(moment: datetime, timespec: str = "microseconds") -> str:
    return moment.astimezone(UTC).isoformat(timespec=timespec).replace("+00:00", "Z")


def dollars(amount: Decimal) -> str:
    """Decimal notation with all twelve places, as stored."""
    return f"{amount:.12f}"


def _parse_object(value: Any) -> Any:
    """Stored JSON text as an object; other text stands unchanged under the key `unreadable`."""
    if not isinstance(value, str):
        return value
    if not value:
        return None
    try:
        parsed = from_json(value, allow_inf_nan=False)
        # A number like 1e400 is read as infinity, of which an answer would make null.
        json.dumps(parsed, allow_nan=False)
    except ValueError:
        parsed = None
    return parsed if isinstance(parsed, dict) else {"unreadable": value}


Moment = Annotated[
    datetime,
    BeforeValidator(_aware),
    PlainSerializer(rfc3339, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
Dollars = Annotated[
    Decimal,
    PlainSerializer(dollars, return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^-?\d+\.\d{12}$"}),
]
Rate = Annotated[
    Decimal,
    PlainSerializer(lambda rate: f"{rate:.6f}", return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^-?\d+\.\d{6}$"}),
]
PlainNumber = Annotated[
    Decimal,
    PlainSerializer(lambda number: f"{number.normalize():f}", return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^-?\d+(\.\d+)?$"}),
]
JsonObject = Annotated[dict[str, JsonValue] | None, BeforeValidator(_parse_object)]
