"""The filter tree as it is sent: groups of filters and groups, joined by AND or OR.

There are two kinds of errors: what is no such tree (`ValueError`s of pydantic: 422), and a tree that means nothing, as
with an operator that its field does not have (the error type `semantic`: 400).
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import isfinite
from typing import Annotated, Any, Literal, NoReturn, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    StrictStr,
    Tag,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError
from pydantic_core.core_schema import no_info_after_validator_function
from typing_extensions import TypeAliasType

from api.analytics.filters.fields import ALL_OPERATORS, BY_NAME, INTENTS, FieldKind

MAX_DEPTH = 10
MAX_FILTERS = 200
MAX_ELEMENTS = 10_000
MAX_TEXT = 10_000
# Parts of an error's location that are not in the body have this form.
GROUP, FILTER = "<group>", "<filter>"

WITHOUT_VALUE = frozenset({"is_null", "is_not_null", "is_true", "is_false", "is_empty", "is_not_empty"})
LISTS = frozenset({"in", "not_in"})
# More than RFC 3339 (aggregator/times.py): people type dates without a time, and times without a zone.
ISO8601 = re.compile(
    r"(?P<date>\d{4}-\d{2}-\d{2})([Tt ](?P<time>\d{2}:\d{2}(:\d{2}(\.\d+)?)?)(?P<zone>[Zz]|[+-]\d{2}:?\d{2})?)?",
    re.ASCII,
)
MICROSECOND, DAY = timedelta(microseconds=1), timedelta(days=1)

Scalar = str | int | float | bool
# Microseconds since 1970 in UTC, end exclusive: one microsecond for an instant, a day for a date.
Moment = tuple[int, int]


def semantic(at: str, message: str) -> PydanticCustomError:
    """An error that is answered with 400; `at` is the property it is about."""
    return PydanticCustomError("semantic", "{message}", {"at": at, "message": message})


def _shape(at: str, message: str) -> NoReturn:
    raise PydanticCustomError("shape", "{message}", {"at": at, "message": message})


@dataclass(frozen=True)
class OneOf:
    """Annotation of a text that must be one of `names`, which its JSON Schema lists."""

    names: tuple[str, ...]
    what: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "string", "enum": list(self.names)}

    def _check(self, value: str) -> str:
        if value not in self.names:
            raise PydanticCustomError("choice", f"is no {self.what}; allowed: {', '.join(self.names)}")
        return value


def parse_moment(text: str) -> Moment:
    """ISO 8601 to a range of instants; without a zone UTC is meant. Raises ValueError."""
    matched = ISO8601.fullmatch(text)
    if matched is None:
        raise ValueError("must be ISO 8601, like 2026-01-31 or 2026-01-31T12:00:00Z")
    date, time, zone = matched["date"], matched["time"] or "00:00", matched["zone"] or "Z"
    local = datetime.fromisoformat(f"{date}T{time}+00:00")
    offset = timedelta()
    if zone not in "Zz":
        hours, minutes = int(zone[1:3]), int(zone[-2:])
        if hours > 23 or minutes > 59:
            raise ValueError("has an offset from UTC that does not exist")
        offset = timedelta(hours=hours, minutes=minutes) * (-1 if zone[0] == "-" else 1)
    start = local - datetime.fromisoformat("1970-01-01T00:00+00:00") - offset
    width = DAY if matched["time"] is None else MICROSECOND
    return start // MICROSECOND, (start + width) // MICROSECOND


def _text(value: Any, at: str) -> str:
    if not isinstance(value, str):
        _shape(at, "must be a text")
    check_text(value, at)
    return value


def _text_or_number(value: Any, at: str) -> Scalar:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        _shape(at, "must be a text or a number")
    return _scalar(value, at)


def _number(value: Any, at: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        _shape(at, "must be a number")
    try:
        return float(_scalar(value, at))
    except OverflowError:
        _shape(at, "is too large for a number")


def _scalar(value: Any, at: str) -> Scalar:
    if not isinstance(value, str | int | float | bool):
        _shape(at, "must be a text, a number, true or false")
    if isinstance(value, str):
        check_text(value, at)
    if isinstance(value, float) and not isfinite(value):
        _shape(at, "must be a finite number")
    return value


def _moment(value: Any, at: str) -> Moment:
    try:
        return parse_moment(_text(value, at))
    except ValueError as error:
        if isinstance(error, PydanticCustomError):
            raise
        reason = str(error) if str(error).startswith(("must", "has")) else f"is no time: {error}"
        _shape(at, reason)


ELEMENT: dict[FieldKind, Callable[[Any, str], Any]] = {
    FieldKind.IDENTIFIER: _text_or_number,
    FieldKind.STRING: _text,
    FieldKind.INTENT: _text,
    FieldKind.TEXT: _text,
    FieldKind.NUMERIC: _number,
    FieldKind.DATETIME: _moment,
    FieldKind.BOOLEAN: _scalar,
    FieldKind.ARRAY: _text,
    FieldKind.NESTED: _scalar,
}


def check_text(text: str, at: str) -> None:
    """Refuses long texts, and lone surrogates: JSON can spell them, but no text of a log has one."""
    if len(text) > MAX_TEXT:
        _shape(at, f"has {len(text)} characters; at most {MAX_TEXT}")
    try:
        text.encode()
    except UnicodeEncodeError:
        _shape(at, "is not valid Unicode")


FilterField = TypeAliasType("FilterField", Annotated[StrictStr, OneOf(tuple(BY_NAME), "field")])
FilterOperator = TypeAliasType("FilterOperator", Annotated[StrictStr, OneOf(ALL_OPERATORS, "operator")])
FilterLogic = TypeAliasType("FilterLogic", Literal["AND", "OR"])


class Filter(BaseModel):
    """A condition on one field."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    field: FilterField = Field(description="What is compared.")
    operator: FilterOperator = Field(description="How it is compared; which are allowed depends on the field.")
    value: Annotated[
        Any,
        WithJsonSchema(
            {
                "anyOf": [
                    {"type": "string"},
                    {"type": "number"},
                    {"type": "boolean"},
                    # Of texts, numbers or booleans; lists of a choice are more than some generators can read.
                    {"type": "array", "items": {}, "maxItems": MAX_ELEMENTS},
                    {"type": "null"},
                ]
            }
        ),
    ] = Field(
        None,
        description="What the operator compares with: two values for `between`, a list for `in` and `not_in`, none"
        " for tests of"
        " presence and of truth.",
    )
    nested_key: StrictStr | None = Field(
        None, description="Dotted key inside `metadata`, `output` or `input_variables`. Required there, and only there."
    )

    @model_validator(mode="after")
    def _fits_its_field(self) -> Self:
        field = BY_NAME[self.field]
        if self.operator not in field.operators:
            raise semantic(
                "operator", f"{self.operator} is no operator of {self.field}; allowed: {', '.join(field.operators)}"
            )
        if field.kind is FieldKind.NESTED and self.nested_key is None:
            raise semantic("nested_key", f"{self.field} needs one")
        if field.kind is not FieldKind.NESTED and self.nested_key is not None:
            raise semantic("nested_key", f"{self.field} has no keys inside")
        check_text(self.nested_key or "", "nested_key")
        _ = self.operand
        return self

    @property
    def kind(self) -> FieldKind:
        return BY_NAME[self.field].kind

    @property
    def operand(self) -> Any:
        """The value, checked and of the field's type: one, a list, `(low, high)` of `between`, or None."""
        element = ELEMENT[self.kind]
        if self.operator in WITHOUT_VALUE:
            if self.value is not None:
                raise semantic("value", f"{self.operator} takes none")
            return None
        if self.operator == "between":
            if not isinstance(self.value, list) or len(self.value) != 2:
                _shape("value", "must be [low, high]")
            low, high = (element(bound, f"value[{place}]") for place, bound in enumerate(self.value))
            if low > high:
                raise semantic("value", "the first must not be above the second")
            return low, high
        if self.operator in LISTS:
            return [self._word(element(item, f"value[{place}]"), f"value[{place}]") for place, item in self._items()]
        return self._word(element(self.value, "value"), "value")

    def _items(self) -> Iterable[tuple[int, Any]]:
        if not isinstance(self.value, list):
            _shape("value", "must be a list")
        if len(self.value) > MAX_ELEMENTS:
            _shape("value", f"has {len(self.value)} elements; at most {MAX_ELEMENTS}")
        return enumerate(self.value)

    def _word(self, value: Any, at: str) -> Any:
        if self.kind is FieldKind.INTENT and value not in INTENTS[self.field]:
            raise semantic(at, f"is no {self.field}; allowed: {', '.join(INTENTS[self.field])}")
        if self.kind is FieldKind.TEXT and self.operator in ("contains", "not_contains") and not has_word(value):
            raise semantic(at, "must hold a word to look for")
        return value


def has_word(text: str) -> bool:
    """Whether the text index would find a token in it: a letter or digit, or anything beyond ASCII."""
    return any(letter.isalnum() or not letter.isascii() for letter in text)


def _is_group(value: Any) -> str:
    if isinstance(value, dict):
        return GROUP if "filters" in value or "logic" in value else FILTER
    return GROUP if isinstance(value, FilterGroup) else FILTER


class FilterGroup(BaseModel):
    """Filters and groups, all of which (AND) or any of which (OR) must hold; an empty one always holds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    logic: FilterLogic = Field("AND", description="`AND`, the default: all must hold. `OR`: any.")
    filters: list[
        Annotated[
            Annotated[Filter, Tag(FILTER)] | Annotated["FilterGroup", Tag(GROUP)],
            Discriminator(_is_group),
        ]
    ] = Field(description="Filters and groups.")


def _check_size(tree: Any) -> Any:
    """Refuses trees that are too deep or too large, before anything recurses into them."""
    pending, count = [("", tree, 1)], 0
    while pending:
        path, node, depth = pending.pop()
        children = node.get("filters") if isinstance(node, dict) else None
        if not isinstance(children, list):
            count += 1
            continue
        if depth > MAX_DEPTH:
            raise semantic(path, f"groups nest at most {MAX_DEPTH} deep")
        pending.extend((f"{path}.filters[{n}]", child, depth + 1) for n, child in enumerate(children))
        count += not children
        if count + len(pending) > MAX_FILTERS:
            raise semantic(path, f"has more than {MAX_FILTERS} filters")
    return tree


FilterTree = Annotated[FilterGroup, BeforeValidator(_check_size)]
