"""How messages are read and written: as ProtoJSON, and in protobuf's binary form.

Both refuse what a message does not have, so that a typo never widens a query.
"""

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any, TypeVar

from protobuf import DescField, DescFieldValueScalar, Message, ScalarType

from api.connect.errors import connect_error
from api.errors import ApiError, invalid_argument

Asked = TypeVar("Asked", bound=Message)

EXPECTED = {
    ScalarType.STRING: "must be text",
    ScalarType.INT32: "must be a whole number of 32 bits",
    ScalarType.INT64: "must be a whole number of 64 bits",
}
A_TIME = "must be RFC 3339 with a zone, like 2026-01-31T12:00:00Z"


class JsonCodec:
    def name(self) -> str:
        return "json"

    def encode(self, message: Message) -> bytes:
        return message.to_json().encode()

    def decode(self, data: bytes | bytearray, message_class: type[Asked]) -> Asked:
        """Raises ConnectError that names the field."""
        try:
            return _read(_object(bytes(data)), message_class)
        except ApiError as error:
            raise connect_error(error) from None


class BinaryCodec:
    def name(self) -> str:
        return "proto"

    def encode(self, message: Message) -> bytes:
        return message.to_binary()

    def decode(self, data: bytes | bytearray, message_class: type[Asked]) -> Asked:
        """Raises ConnectError for a field that this version does not know, ValueError for what is no message."""
        message = message_class.from_binary(data)
        if message.to_binary() != message.to_binary(write_unknown_fields=False):
            raise connect_error(ApiError(400, "The message has a field that this version does not know."))
        return message


CODECS = (JsonCodec(), BinaryCodec())


def _object(data: bytes) -> dict[str, Any]:
    try:
        given = json.loads(data.decode(), object_pairs_hook=_object_once)
    except (ValueError, RecursionError):
        raise ApiError(400, "The body is not valid JSON.") from None
    if not isinstance(given, dict):
        raise ApiError(400, "The body must be a JSON object.")
    return given


def _object_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    _refuse_repeats(name for name, _ in pairs)
    return dict(pairs)


def _refuse_repeats(names: Iterable[str]) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            raise invalid_argument(name, f"is given {count} times, allowed is once")


def _read(given: dict[str, Any], message_class: type[Asked]) -> Asked:
    fields = {name: field for field in message_class.desc().fields for name in (field.name, field.json_name)}
    for name, value in given.items():
        if name not in fields:
            known = {field.json_name: None for field in fields.values()}
            raise invalid_argument(name, "is not a field of this message", known)
        _check(name, value, fields[name], message_class)
    _refuse_repeats(fields[name].json_name for name in given)
    return message_class.from_json(json.dumps(given))


def _check(name: str, value: Any, field: DescField, message_class: type[Message]) -> None:
    """Every field takes a single value. Nested ones may end the process in the library's own reader."""
    is_single = not isinstance(value, dict | list)
    try:
        if is_single:
            message_class.from_json(json.dumps({name: value}))
    except (ValueError, TypeError, OverflowError):
        is_single = False
    if not is_single:
        raise invalid_argument(
            name, EXPECTED[field.value.scalar] if isinstance(field.value, DescFieldValueScalar) else A_TIME
        )
