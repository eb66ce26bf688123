"""The first look at a record value: strict JSON, and every field of a type and within bounds that the model takes.

msgspec checks both in one pass, some 2 µs per event. What it takes is derived from the model's JSON Schema, so a value
that passes has its types proven; what a schema cannot say is left to the decoder's SQL.
"""

from typing import Annotated, Any, Union

import msgspec

from ingest.events import FIELD_NAMES, RequestEvent

# Above the largest bodies gateways log, below what would let one record starve a batch.
MAX_EVENT_BYTES = 8 * 1024 * 1024
# The largest bound msgspec takes; what a column holds is less.
MAX_INTEGER = 2**63 - 1

_SCHEMA = RequestEvent.model_json_schema()
REQUIRED = frozenset(_SCHEMA["required"])


def variants(field: str) -> list[dict[str, Any]]:
    """The JSON Schema alternatives of a field, without null."""
    schema = _SCHEMA["properties"][field]
    options = schema.get("anyOf") or schema.get("oneOf") or [schema]
    return [option for option in options if option.get("type") != "null"]


def json_types(field: str) -> set[str]:
    types: set[str] = set()
    for option in variants(field):
        declared = option["type"]
        types.update([declared] if isinstance(declared, str) else declared)
    return types


def _type_of(name: str, option: dict[str, Any]) -> Any:
    """The msgspec type of one JSON type; what is inside free-form JSON is only looked at as syntax."""
    if name == "integer":
        return Annotated[int, msgspec.Meta(ge=option.get("minimum", 0), le=option.get("maximum", MAX_INTEGER))]
    if name == "string":
        return Annotated[str, msgspec.Meta(min_length=option.get("minLength"), max_length=option.get("maxLength"))]
    if name == "object":
        return dict[str, msgspec.Raw]
    return list[str] if option.get("items", {}).get("type") == "string" else list[msgspec.Raw]


def _field_types(field: str) -> list[Any]:
    if field == "usage":
        # Few events have it, and the model alone says which numbers it takes.
        return []
    types = []
    for option in variants(field):
        declared = option["type"]
        types += [_type_of(name, option) for name in ([declared] if isinstance(declared, str) else declared)]
    # The one text field that also takes integers.
    return [*types, _type_of("integer", {})] if field == "prompt_id" else types


def _shape() -> type[msgspec.Struct]:
    required = [(field, Union[(*_field_types(field),)]) for field in FIELD_NAMES if field in REQUIRED]
    optional = [(field, Union[(*_field_types(field), None)], None) for field in FIELD_NAMES if field not in REQUIRED]
    return msgspec.defstruct("Shape", [*required, *optional], gc=False)


class Screen:
    """Not for several threads at once."""

    def __init__(self) -> None:
        self._decode = msgspec.json.Decoder(_shape()).decode

    def passes(self, value: bytes | None) -> bool:
        """Whether the value is strict JSON in UTF-8 and has the types of an event. A repeated field passes if every
        one of its values does; unknown fields pass whatever they hold."""
        if value is None or len(value) > MAX_EVENT_BYTES:
            return False
        try:
            self._decode(value)
            # msgspec looks at the text of strings only when it builds them.
            if not value.isascii():
                value.decode()
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False
        return True
