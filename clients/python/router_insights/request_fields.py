"""What is asked for, as query parameters: from keyword arguments, a mapping, or a message of the proto service."""

from collections.abc import Mapping
from datetime import datetime, timezone
from decimal import Decimal
from enum import Enum
from typing import Any

import msgspec


def parameters_of(request: Any, keywords: Mapping[str, Any]) -> dict[str, str]:
    """Query parameters; None is left out.

    Raises TypeError for a request of another kind and for values that no parameter can be, ValueError for a time
    without a zone.
    """
    return {name: _text(name, value) for name, value in fields_of(request, keywords).items() if value is not None}


def fields_of(request: Any, keywords: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `request` or, where that is None, the keyword arguments."""
    if request is None:
        return dict(keywords)
    if keywords:
        raise TypeError(f"give a request or keyword arguments, not both: {', '.join(sorted(keywords))}")
    if isinstance(request, Mapping):
        return dict(request)
    if hasattr(request, "to_json"):  # of Buf's protobuf-py
        decoded: dict[str, Any] = msgspec.json.decode(request.to_json(use_proto_field_name=True))
        return decoded
    if hasattr(request, "DESCRIPTOR"):  # of Google's protobuf, which whoever has such a message has
        from google.protobuf.json_format import MessageToDict

        fields: dict[str, Any] = MessageToDict(request, preserving_proto_field_name=True)
        return fields
    raise TypeError(f"a request is a proto message or a mapping, not {type(request).__name__}")


def _text(name: str, value: Any) -> str:
    if isinstance(value, datetime):
        return rfc3339(name, value)
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, bool) and name.startswith("is_"):
        return "true" if value else "false"
    if isinstance(value, str | int | float | Decimal) and not isinstance(value, bool):
        return str(value)
    raise TypeError(f"{name}: must be text, a number or a time, not {type(value).__name__}")


def rfc3339(name: str, moment: datetime) -> str:
    """In UTC, with microseconds. Raises ValueError that names the field for a time without a zone."""
    if moment.tzinfo is None:
        raise ValueError(f"{name}: must have a time zone, such as datetime.now(timezone.utc)")
    return moment.astimezone(timezone.utc).isoformat(timespec="microseconds").replace("+00:00", "Z")
