"""The event contract: what a gateway sends for each request. This model is its only definition.

The emitter checks what it takes by it. The service derives everything else from it: the JSON Schema that it publishes,
the columns that its decoder builds, its documentation.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from router_insights.emitter.contract import END_OF_TIME, EPOCH, RFC3339, START_OF_TIME, TOKEN_COLUMNS
from router_insights.errors import ErrorDetail, InvalidEventError

MAX_REQUEST_ID_CHARS = 128
# A billion tokens at the dearest known price stays below the million dollars that Decimal(18, 12) holds.
MAX_TOKENS = 1_000_000_000
MAX_UINT32 = 2**32 - 1
# Of units that are not tokens: pixels, characters, seconds.
MAX_QUANTITY = 10**12
# Objects and arrays inside one another. Far above any real body, below what parsers refuse.
MAX_NESTING = 100


def _reject(kind: str, message: str) -> PydanticCustomError:
    return PydanticCustomError(kind, message)


def _parse_rfc3339(text: str) -> datetime:
    match = RFC3339.fullmatch(text)
    if not match:
        raise _reject("timestamp_format", "must be RFC 3339 with a zone, or epoch milliseconds as an integer")
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    fraction, zulu, sign, offset_hours, offset_minutes = match.groups()[6:]
    zone = timezone.utc
    if not zulu:
        offset = timedelta(hours=int(offset_hours), minutes=int(offset_minutes))
        if offset >= timedelta(hours=24) or int(offset_minutes) > 59:
            raise _reject("timestamp_format", "the zone's offset must be below 24:00")
        zone = timezone(offset if sign == "+" else -offset)
    micros = int((fraction or "0")[:6].ljust(6, "0"))
    try:
        return datetime(year, month, day, hour, minute, second, micros, zone).astimezone(timezone.utc)
    except (ValueError, OverflowError):
        raise _reject("timestamp_format", "is not a date and time that exists") from None


def _guessed_unit(number: int) -> str:
    """What a number that is no time in milliseconds may be; '' where no unit makes it one."""
    milliseconds = {"seconds": number * 1_000, "microseconds": number // 1_000, "nanoseconds": number // 1_000_000}
    for unit, value in milliseconds.items():
        if _milliseconds(START_OF_TIME) <= value < _milliseconds(END_OF_TIME):
            return f"; {number} looks like {unit}, the field takes milliseconds"
    return ""


def _milliseconds(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(milliseconds=1)


def parse_timestamp(value: Any, *, earliest: datetime = START_OF_TIME) -> datetime:
    """RFC 3339 text with a zone, or epoch milliseconds, to an aware UTC datetime of whole microseconds.

    Digits past the microsecond are cut. Raises PydanticCustomError for anything else, leap seconds and
    moments outside `earliest` to 2099 included; for a number it says in which unit it would be inside.
    """
    if isinstance(value, datetime) and value.tzinfo is not None:
        moment = value.astimezone(timezone.utc)
    elif isinstance(value, str):
        moment = _parse_rfc3339(value)
    elif isinstance(value, int) and not isinstance(value, bool):
        if not _milliseconds(earliest) <= value < _milliseconds(END_OF_TIME):
            raise _reject("timestamp_range", f"{_bounds(earliest)}{_guessed_unit(value)}")
        moment = EPOCH + timedelta(milliseconds=value)
    else:
        raise _reject("timestamp_format", "must be RFC 3339 with a zone, or epoch milliseconds as an integer")
    if not earliest <= moment < END_OF_TIME:
        raise _reject("timestamp_range", _bounds(earliest))
    return moment


def _bounds(earliest: datetime) -> str:
    return f"must be from {earliest:%Y-%m-%d} up to, not including, {END_OF_TIME:%Y-%m-%d}"


def field_path(location: Sequence[str | int]) -> str:
    """A pydantic error location as `tags[1]` or `metadata.x`; empty for the event as a whole."""
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    return path


def _leaf_paths(value: dict[str, JsonValue], prefix: str = "") -> list[str]:
    """The dotted path of every leaf; arrays are leaves."""
    paths = []
    for key, item in value.items():
        path = f"{prefix}.{key}" if prefix else key
        paths.extend(_leaf_paths(item, path) if isinstance(item, dict) and item else [path])
    return paths


def _objects_in_arrays(value: JsonValue, inside: bool = False) -> list[dict[str, JsonValue]]:
    """The objects that are elements of arrays, at any depth: paths are counted in each on its own."""
    if isinstance(value, list):
        return [found for item in value for found in _objects_in_arrays(item, inside=True)]
    if not isinstance(value, dict):
        return []
    below = [found for item in value.values() for found in _objects_in_arrays(item)]
    return [value, *below] if inside else below


def repeated_path(value: dict[str, JsonValue]) -> str | None:
    """A dotted path that two values of an object claim ({"a": {"b": 1}, "a.b": 2}), or None.

    A path that is also the beginning of another counts, since no nested object could be made of both.
    """
    for scope in [value, *_objects_in_arrays(value)]:
        counts = Counter(_leaf_paths(scope))
        prefixes = {path[:cut] for path in counts for cut, char in enumerate(path) if char == "."}
        for path, count in counts.items():
            if count > 1 or path in prefixes:
                return path
    return None


def check_free_json(value: Any) -> Any:
    """Refuse what JSON or a column cannot hold: NaN, infinities, NUL characters, too much nesting.

    Raises PydanticCustomError.
    """
    todo = [(value, 1)]
    while todo:
        item, depth = todo.pop()
        if depth > MAX_NESTING:
            raise _reject("too_deep", f"is nested deeper than {MAX_NESTING} levels")
        if isinstance(item, float) and not math.isfinite(item):
            raise _reject("not_finite", "holds NaN or an infinite number")
        if isinstance(item, str) and "\0" in item:
            raise _reject("nul_character", "holds a NUL character")
        if isinstance(item, dict):
            todo.extend((part, depth) for part in item)
            todo.extend((part, depth + 1) for part in item.values())
        elif isinstance(item, list):
            todo.extend((part, depth + 1) for part in item)
    return value


def _check_dotted_depth(value: JsonValue) -> None:
    """ClickHouse nests what a dot in a key stands for, so it counts as a level."""
    todo = [(value, 1)]
    while todo:
        item, depth = todo.pop()
        if depth > MAX_NESTING:
            raise _reject("too_deep", f"is nested deeper than {MAX_NESTING} levels, each dot in a key being one")
        if isinstance(item, dict):
            todo.extend((part, depth + 1 + key.count(".")) for key, part in item.items())
        elif isinstance(item, list):
            todo.extend((part, depth + 1) for part in item)


def check_paths(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Raises PydanticCustomError when two values claim one path, or one is too deep."""
    _check_dotted_depth(value)
    path = repeated_path(value)
    if path is not None:
        raise PydanticCustomError("path_collision", "has two values for the path {path}", {"path": path[:200]})
    return value


def _check_units(value: dict[str, int | float]) -> dict[str, int | float]:
    for unit in value:
        if unit in TOKEN_COLUMNS:
            context = {"unit": unit, "field": TOKEN_COLUMNS[unit]}
            raise PydanticCustomError("unit_is_field", "{unit} goes into the field {field}", context)
    return value


def _check_nul(value: str) -> str:
    if "\0" in value:
        raise _reject("nul_character", "holds a NUL character")
    return value


def _integer_as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _text_or_structure(value: Any) -> Any:
    if not isinstance(value, str | dict | list):
        raise _reject("body_type", "must be a string, an object or an array")
    return value


Text = Annotated[str, AfterValidator(_check_nul)]
RequestId = Annotated[str, StringConstraints(min_length=1, max_length=MAX_REQUEST_ID_CHARS), AfterValidator(_check_nul)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=256), AfterValidator(_check_nul)]
Word = Annotated[str, StringConstraints(min_length=1, max_length=64), AfterValidator(_check_nul)]
Tokens = Annotated[int, Field(ge=0, le=MAX_TOKENS)]
Count = Annotated[int, Field(ge=0, le=MAX_UINT32)]
Quantity = Annotated[
    int | float,
    Field(ge=0, le=MAX_QUANTITY),
    WithJsonSchema({"type": "number", "minimum": 0, "maximum": MAX_QUANTITY}),
]
Units = Annotated[dict[Word, Quantity], Field(max_length=64), AfterValidator(_check_units)]
FreeObject = Annotated[dict[str, JsonValue], AfterValidator(check_free_json)]
Body = Annotated[
    JsonValue,
    BeforeValidator(_text_or_structure),
    AfterValidator(check_free_json),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "object"}, {"type": "array", "items": {}}]}),
]


class RequestEvent(BaseModel):
    """One request through the gateway, as it is put on the topic `request-events` (one JSON object a record).

    `input_tokens` is the whole prompt, cache reads and cache writes included (the OpenTelemetry GenAI
    convention); `output_tokens` includes thinking tokens. JSON null is the same as absent. Types are not
    coerced. Unknown fields are ignored and counted.
    """

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True, allow_inf_nan=False)

    request_id: RequestId = Field(description="The gateway's id of the request; also the key of the Kafka record.")
    timestamp: Annotated[
        datetime,
        BeforeValidator(parse_timestamp),
        WithJsonSchema(
            {
                "anyOf": [
                    {"type": "string", "format": "date-time"},
                    {"type": "integer", "minimum": _milliseconds(START_OF_TIME)},
                ]
            }
        ),
    ] = Field(
        description="When the request began, from 2015 up to, not including, 2100: RFC 3339 with a zone, or epoch"
        " milliseconds."
    )
    model_name: Name = Field(description="The model, as the gateway writes it.")
    status: Word = Field(description="`success`, `error`, `timeout`, or the gateway's own word, in any case.")

    provider: Text | None = Field(
        None,
        description="Who served the model, like `openai`; prices are found without it where the model's name is"
        " enough.",
    )
    user_id: Text | None = Field(None, description="The user who spends; absent: nobody is named.")
    api_key_id: Text | None = Field(None, description="Id of the key that was used; absent: none is named.")
    api_key_prefix: Text | None = Field(None, description="The first characters of that key; absent: unknown.")
    api_key_hash: Text | None = Field(None, description="Hash of that key; absent: unknown.")
    api_key_address: Text | None = Field(None, description="Address that belongs to that key; absent: unknown.")
    api_key_name: Text | None = Field(None, description="Name of that key; absent: unknown.")
    status_code: Annotated[int, Field(ge=0, le=999)] | None = Field(
        None, description="HTTP status of the answer, 0 to 999; absent: unknown."
    )
    error_type: Text | None = Field(None, description="The kind of the failure; absent: none is named.")
    error_message: Text | None = Field(None, description="What the failure said; absent: nothing.")

    input_tokens: Tokens | None = Field(
        None, description="Tokens of the whole prompt, cache reads and cache writes included; absent: unknown."
    )
    output_tokens: Tokens | None = Field(None, description="Tokens of the answer, thinking included; absent: unknown.")
    cached_input_tokens: Tokens | None = Field(
        None, description="Of the input tokens, those read from the provider's cache; absent: unknown."
    )
    cache_creation_input_tokens: Tokens | None = Field(
        None, description="Of the input tokens, those written to the provider's cache; absent: unknown."
    )
    thinking_tokens: Tokens | None = Field(
        None, description="Of the output tokens, those spent on thinking; absent: unknown."
    )
    usage: Units | None = Field(
        None, description="Further quantities by the catalogue's units, `web_searches` and the like; absent: none."
    )
    service_tier: Text | None = Field(
        None,
        description="The tier that served, like `batch` or `priority`, where prices depend on it; absent: the usual"
        " one.",
    )

    duration_ms: Count | None = Field(None, description="Milliseconds, as the caller saw it; absent: unknown.")
    upstream_duration_ms: Count | None = Field(
        None, description="Milliseconds, as the gateway saw the provider; absent: unknown."
    )
    time_to_first_token_ms: Count | None = Field(
        None, description="Milliseconds until the first token of the answer; absent: unknown."
    )

    request_headers: FreeObject | None = Field(
        None, description="Headers of the request; credentials in them are redacted before they are stored."
    )
    request_body: Body | None = Field(None, description="What the client sent: text, or JSON; absent: not kept.")
    response_headers: FreeObject | None = Field(
        None, description="Headers of the response; credentials in them are redacted before they are stored."
    )
    response_body: Body | None = Field(None, description="What the provider answered: text, or JSON; absent: not kept.")
    response_body_raw: Text | None = Field(
        None, description="The answer as text, as it came, like a stream; absent: not kept."
    )
    llm_parameters: FreeObject | None = Field(
        None, description="Parameters of the model, like `temperature`; absent: unknown."
    )

    tags: list[Text] | None = Field(None, description="Words to filter and group by; absent: none.")
    metadata: Annotated[FreeObject, AfterValidator(check_paths)] | None = Field(
        None,
        description="Anything to filter and group by. Nested keys are flattened by dots, null values are dropped;"
        " absent:"
        " none.",
    )
    prompt_id: Annotated[Text, BeforeValidator(_integer_as_text)] | None = Field(
        None, description="Id of the prompt template; absent: none."
    )
    prompt_version_number: Count | None = Field(None, description="Version of the prompt template; absent: none.")
    prompt_name: Text | None = Field(None, description="Name of the prompt template; absent: none.")
    input_variables: FreeObject | None = Field(None, description="Variables of the prompt template; absent: none.")
    tool_names: list[Text] | None = Field(
        None, description="Names of the tools that the model called; absent: those that the response names."
    )
    turn_count: Count | None = Field(None, description="Turns of the conversation; absent: as the bodies say.")
    tool_call_count: Count | None = Field(None, description="Tool calls of the request; absent: as the bodies say.")
    session_id: Text | None = Field(None, description="The session it belongs to; absent: none.")
    trace_id: Text | None = Field(None, description="The trace it belongs to; absent: none.")

    @model_validator(mode="after")
    def _cache_within_input(self) -> "RequestEvent":
        cached = (self.cached_input_tokens or 0) + (self.cache_creation_input_tokens or 0)
        if cached > (self.input_tokens or 0):
            raise PydanticCustomError(
                "cache_exceeds_input",
                "input_tokens ({input}) must include cached_input_tokens and"
                " cache_creation_input_tokens ({cached} together)",
                {"input": self.input_tokens or 0, "cached": cached},
            )
        return self


FIELD_NAMES = tuple(RequestEvent.model_fields)


def encode(event: RequestEvent | Mapping[str, Any]) -> tuple[bytes, bytes]:
    """An event as the key and the value of its Kafka record.

    Raises InvalidEventError for a mapping that is not a valid event, and for text that Unicode cannot encode (lone
    surrogates).
    """
    try:
        valid = event if isinstance(event, RequestEvent) else RequestEvent.model_validate(event)
        return valid.request_id.encode(), valid.model_dump_json(exclude_none=True).encode()
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        details = [ErrorDetail(field_path(item["loc"]), item["msg"]) for item in found]
        # Without its cause, which prints what was sent.
        raise InvalidEventError(details) from None
    except ValueError:
        raise InvalidEventError([ErrorDetail("", "has text that Unicode cannot encode")]) from None
