"""The first look at a record value: strict JSON, and every field of a type and within bounds that the model takes.

msgspec checks both in one pass and hands out the values. What it takes is derived from the model's JSON Schema, so that
a value that passes has its types proven; what a schema cannot say is left to the decoder.
"""

from collections import Counter
from collections.abc import Callable, Set
from functools import lru_cache
from typing import Annotated, Any, Union

import msgspec
from pydantic_core import PydanticCustomError

from ingest.transform.redaction import redact_headers
from ingest.transform.surrogates import without_lone_surrogates
from router_insights.emitter.event import FIELD_NAMES, MAX_NESTING, RequestEvent, check_free_json, check_paths

# Above the largest bodies gateways log, below what would let one record starve a batch.
MAX_EVENT_BYTES = 8 * 1024 * 1024
# The largest bound msgspec takes; what a column holds is less.
MAX_INTEGER = 2**63 - 1
ESCAPED_NUL = rb"\u0000"
# Headers, parameters and labels of requests repeat: of each such field so many texts of up to a size are remembered.
REMEMBERED_TEXTS, REMEMBERED_BYTES = 4_096, 512

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


# What is nothing but an object or null: taken as JSON first, since its text may be remembered.
OBJECT_FIELDS = tuple(field for field in FIELD_NAMES if json_types(field) == {"object"} and field != "usage")


def _type_of(name: str, option: dict[str, Any]) -> Any:
    """The msgspec type of one JSON type."""
    if name == "integer":
        return Annotated[int, msgspec.Meta(ge=option.get("minimum", 0), le=option.get("maximum", MAX_INTEGER))]
    if name == "string":
        return Annotated[str, msgspec.Meta(min_length=option.get("minLength"), max_length=option.get("maxLength"))]
    if name == "object":
        return dict[str, Any]
    return list[str] if option.get("items", {}).get("type") == "string" else list[Any]


def _annotation(field: str) -> Any:
    if field == "usage":
        # Few events have it, and the model alone says which numbers it takes.
        return None
    if field in OBJECT_FIELDS:
        return msgspec.Raw
    types: list[Any] = [] if field in REQUIRED else [None]
    for option in variants(field):
        declared = option["type"]
        types += [_type_of(name, option) for name in ([declared] if isinstance(declared, str) else declared)]
    if field == "prompt_id":
        # The one text field that also takes integers.
        types.append(_type_of("integer", {}))
    return Union[(*types,)]


def _shape(forbid_unknown_fields: bool) -> type[msgspec.Struct]:
    """The required fields come first in the model, as they must here."""
    required = [(field, _annotation(field)) for field in FIELD_NAMES if field in REQUIRED]
    optional = [(field, _annotation(field), None) for field in FIELD_NAMES if field not in REQUIRED]
    return msgspec.defstruct("Shape", [*required, *optional], gc=False, forbid_unknown_fields=forbid_unknown_fields)


_encode = msgspec.json.Encoder().encode


def json_text(value: Any) -> str:
    """Compact JSON."""
    return _encode(value).decode()


def _has_plain_keys(value: dict[str, Any] | list[Any]) -> bool:
    """Whether no key in it holds a dot or is empty, at any depth: then no two values can claim one path."""
    if isinstance(value, dict):
        if "" in value or "." in "".join(value):
            return False
        value = list(value.values())
    return all(map(_has_plain_keys, [item for item in value if isinstance(item, dict | list)]))


def _metadata_text(metadata: dict[str, Any]) -> str:
    """Raises PydanticCustomError when two values claim one path."""
    text = json_text(metadata)
    # A key without a dot, and not empty, is one step of a path: no two of them meet.
    if ("." in text or '"":' in text) and not _has_plain_keys(metadata):
        check_paths(metadata)
    return text


def headers_text(headers: dict[str, Any]) -> str:
    """Compact JSON with secrets masked."""
    return json_text(redact_headers(headers))


HEADER_FIELDS = ("request_headers", "response_headers")
_SPECIAL_TEXTS: dict[str, Callable[[Any], str]] = {
    "metadata": _metadata_text,
    **dict.fromkeys(HEADER_FIELDS, headers_text),
}
# Where structures become text.
BODY_PLACES = tuple(place for place, field in enumerate(FIELD_NAMES) if {"object", "array"} <= json_types(field))


def _is_shallow(value: dict[str, Any] | list[Any]) -> bool:
    """Whether nothing in it can be too deep: all that `check_free_json`, which looks at each value one by one and took
    twice the time of all the rest where a body has many messages, still finds in strict JSON without NUL."""
    level = [value]
    for _ in range(MAX_NESTING - 1):
        level = [
            item
            for each in level
            for item in (each.values() if each.__class__ is dict else each)
            if item.__class__ is dict or item.__class__ is list
        ]
        if not level:
            return True
    return False


def _checked_text(value: Any, text_of: Callable[[Any], str]) -> str:
    """Raises PydanticCustomError for what is too deep, and what `text_of` raises."""
    text = text_of(value)
    if len(text) >= 2 * MAX_NESTING and text.count("{") + text.count("[") >= MAX_NESTING and not _is_shallow(value):
        check_free_json(value)
    return text


_read_object = msgspec.json.Decoder(dict[str, Any] | None).decode


def _object_texts(field: str) -> Callable[[bytes], str | None]:
    """From JSON of an object field to its text. Raises msgspec's errors and PydanticCustomError."""
    text_of = _SPECIAL_TEXTS.get(field, json_text)

    def read(raw: bytes) -> str | None:
        value = _read_object(raw)
        return None if value is None else _checked_text(value, text_of)

    remembered = lru_cache(REMEMBERED_TEXTS)(read)
    return lambda raw: remembered(raw) if len(raw) <= REMEMBERED_BYTES else read(raw)


class StrictDecoder:
    """Not for several threads at once."""

    def __init__(self) -> None:
        self._strict = msgspec.json.Decoder(_shape(forbid_unknown_fields=True)).decode
        self._lenient = msgspec.json.Decoder(_shape(forbid_unknown_fields=False)).decode
        self._object = msgspec.json.Decoder(dict[str, Any]).decode
        self._objects = [(FIELD_NAMES.index(field), _object_texts(field)) for field in OBJECT_FIELDS]

    def read(self, value: bytes | None, unknown: Counter[str]) -> list[Any] | None:
        """The fields of an event in the order of FIELD_NAMES, null where absent, structures as compact JSON text and
        secrets masked; None for what is not proven to be valid.

        What proves it lacks the text of the timestamp, and what fields say of each other. Fields that the model does
        not have are counted in `unknown`. Of a repeated field the last counts, if every one has a type that fits.
        """
        if value is None or len(value) > MAX_EVENT_BYTES or ESCAPED_NUL in value:
            return None
        fields = self._proven(value, unknown)
        if fields is None and (repaired := without_lone_surrogates(value)) != value:
            return self._proven(repaired, unknown)
        return fields

    def _proven(self, value: bytes, unknown: Counter[str]) -> list[Any] | None:
        try:
            # msgspec looks at the text of strings only when it builds them.
            if not value.isascii():
                value.decode()
            return self._fields(value, unknown)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, PydanticCustomError):
            return None

    def _fields(self, value: bytes, unknown: Counter[str]) -> list[Any]:
        """Raises what `_proven` catches."""
        unknown_names: Set[str] = frozenset()
        try:
            event = self._strict(value)
        except msgspec.ValidationError:
            event = self._lenient(value)
            members = self._object(value)
            # Nobody reads what unknown fields hold, but the model refuses some of it.
            check_free_json(members)
            unknown_names = members.keys() - FIELD_NAMES
        fields = list(msgspec.structs.astuple(event))
        for place, text_of in self._objects:
            raw = fields[place]
            if raw is not None:
                fields[place] = text_of(bytes(raw))
        for place in BODY_PLACES:
            body = fields[place]
            if body is not None and body.__class__ is not str:
                fields[place] = _checked_text(body, json_text)
        unknown.update(unknown_names)
        return fields
