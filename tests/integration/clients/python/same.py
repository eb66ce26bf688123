"""Whether a typed answer says what the JSON says that anybody else gets."""

from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec

# What only says that there is no error.
WITHOUT_FIELD = {"success"}


def assert_same(answer: Any, plain: Any, path: str = "answer") -> None:
    """Every value of the JSON, in the type that the client promises: Decimal, aware datetime, structs."""
    if isinstance(answer, msgspec.Struct):
        fields = {field.encode_name: field.name for field in msgspec.structs.fields(answer)}
        assert set(plain) - WITHOUT_FIELD <= set(fields), f"{path} has more than {type(answer).__name__}"
        for encoded, name in fields.items():
            if encoded in plain:
                assert_same(getattr(answer, name), plain[encoded], f"{path}.{name}")
            else:
                assert getattr(answer, name) is None, f"{path}.{name}"
    elif isinstance(answer, datetime):
        assert answer.tzinfo is not None, path
        assert answer == datetime.fromisoformat(plain), path
    elif isinstance(answer, Decimal):
        assert answer == Decimal(str(plain)), path
    elif isinstance(answer, dict):
        assert list(answer) == list(plain), path
        for key, value in answer.items():
            assert_same(value, plain[key], f"{path}[{key!r}]")
    elif isinstance(answer, list | tuple):
        assert len(answer) == len(plain), path
        for number, value in enumerate(answer):
            assert_same(value, plain[number], f"{path}[{number}]")
    else:
        assert type(answer) is type(plain), path
        assert answer == plain, path
