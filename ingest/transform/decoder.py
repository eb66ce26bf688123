"""Decodes a batch of raw record values to columns; every value that is not a valid event becomes a rejection.

The fast path keeps only values that it can prove to be valid under the event model: one pass of msgspec
(strict_json.py), then whole columns in Arrow. Every other value goes through the model itself, which yields either the
same columns or the exact reason of the rejection. So the model stays the only definition of what is valid.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ValidationError

from aggregator.times import END_OF_TIME, START_OF_TIME
from ingest.transform.strict_json import (
    HEADER_FIELDS,
    MAX_EVENT_BYTES,
    StrictDecoder,
    headers_text,
    json_text,
    json_types,
)
from ingest.transform.surrogates import without_lone_surrogates
from router_insights.emitter.event import FIELD_NAMES, RequestEvent, field_path

# Few enough to stay in the processor's cache while they are Python objects, and to be gone before Python counts them.
ROWS_AT_ONCE = 1_000


@dataclass(frozen=True)
class Rejection:
    """Why a value is not a valid event: its place in the batch, a stable reason, the field's path, a sentence."""

    row_index: int
    reason: str
    field: str
    message: str


@dataclass(frozen=True)
class Decoded:
    """`events` has `row_index` and a column per field (EVENT_SCHEMA), in order; the rest are `rejections`."""

    events: pa.Table
    rejections: list[Rejection]
    unknown_fields: Counter[str]


def _fields_of(*types: str) -> tuple[str, ...]:
    return tuple(field for field in FIELD_NAMES if json_types(field) == set(types))


INTEGER_FIELDS = _fields_of("integer")
OBJECT_FIELDS = _fields_of("object")
LIST_FIELDS = _fields_of("array")
BODY_FIELDS = _fields_of("string", "object", "array")
TEXT_FIELDS = _fields_of("string")
JSON_FIELDS = (*OBJECT_FIELDS, *BODY_FIELDS)


def _arrow_type(field: str) -> pa.DataType:
    if field == "timestamp":
        return pa.timestamp("us", "UTC")
    if field == "status_code":
        return pa.uint16()
    if field in INTEGER_FIELDS:
        return pa.uint32()
    return pa.list_(pa.string()) if field in LIST_FIELDS else pa.string()


EVENT_SCHEMA = pa.schema([("row_index", pa.uint64()), *((field, _arrow_type(field)) for field in FIELD_NAMES)])

# Within what Arrow reads as the model does; another spelling goes to the model.
_TIMESTAMP = (
    r"^\d{4}-\d{2}-\d{2}[T ](?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,6})?(?:Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)$"
)
_MICROSECONDS = pa.timestamp("us", "UTC")


def _timestamps(values: Sequence[str | int]) -> pa.Array:
    """Microseconds UTC; null where the value is not proven to be a moment."""
    texts = pa.array([value if isinstance(value, str) else None for value in values], pa.string())
    texts = pc.if_else(pc.match_substring_regex(texts, _TIMESTAMP), texts, None)
    try:
        moments = texts.cast(_MICROSECONDS)
    except pa.ArrowInvalid:
        # One day that does not exist makes Arrow refuse all of them.
        moments = pa.array([_moment(text) for text in texts.to_pylist()], _MICROSECONDS)
    if moments.null_count:
        last_ms = int(END_OF_TIME.timestamp() * 1000)
        numbers = [value * 1000 if isinstance(value, int) and value < last_ms else None for value in values]
        moments = pc.coalesce(moments, pa.array(numbers, pa.int64()).cast(_MICROSECONDS))
    in_range = pc.and_(pc.greater_equal(moments, START_OF_TIME), pc.less(moments, END_OF_TIME))
    return pc.if_else(in_range, moments, None)


def _moment(text: str | None) -> datetime | None:
    try:
        return None if text is None else datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _column(field: str, values: Sequence[Any]) -> pa.Array:
    """A field's column in the shape of EVENT_SCHEMA; a timestamp that is not proven is null."""
    type_ = EVENT_SCHEMA.field(field).type
    if field == "timestamp":
        return _timestamps(values)
    if field in LIST_FIELDS:
        return pa.array([value or [] for value in values], type_)
    if field in INTEGER_FIELDS:
        return pa.array(values, type_)
    if field == "prompt_id":
        values = [str(value) if isinstance(value, int) else value for value in values]
    default = "{}" if field == "metadata" else ""
    if not any(values):
        return pa.repeat(pa.scalar(default, type_), len(values))
    return pc.fill_null(pa.array(values, type_), default)


def _columns(row_indexes: Sequence[int], rows: Sequence[Sequence[Any]]) -> pa.Table:
    if not rows:
        return EVENT_SCHEMA.empty_table()
    columns = [_column(field, values) for field, values in zip(FIELD_NAMES, zip(*rows, strict=True), strict=True)]
    return pa.Table.from_arrays([pa.array(row_indexes, pa.uint64()), *columns], schema=EVENT_SCHEMA)


def _is_proven(events: pa.Table) -> pa.ChunkedArray:
    """Whether the moment is one, and the caches are within the input."""
    whole, read, written = (
        pc.fill_null(events[field].cast(pa.int64()), 0)
        for field in ("input_tokens", "cached_input_tokens", "cache_creation_input_tokens")
    )
    return pc.and_(pc.is_valid(events["timestamp"]), pc.less_equal(pc.add(read, written), whole))


def _row(row_index: int, event: RequestEvent) -> dict[str, Any]:
    """An event as a row of EVENT_SCHEMA."""
    row: dict[str, Any] = {"row_index": row_index, **event.model_dump()}
    for field in (*TEXT_FIELDS, *JSON_FIELDS):
        if field != "timestamp" and not isinstance(row[field], str):
            row[field] = "" if row[field] is None else json_text(row[field])
    if not event.usage:
        row["usage"] = ""
    for field in HEADER_FIELDS:
        headers = getattr(event, field)
        row[field] = "" if headers is None else headers_text(headers)
    for field in LIST_FIELDS:
        row[field] = row[field] or []
    row["metadata"] = row["metadata"] or "{}"
    return row


def decode_one(row_index: int, value: bytes | None) -> dict[str, Any] | Rejection:
    """One value through the model: a row of EVENT_SCHEMA, or the first reason why it is none."""
    if not value:
        return Rejection(row_index, "empty", "", "the record has no value")
    if len(value) > MAX_EVENT_BYTES:
        message = f"the record has {len(value):,} bytes, more than the {MAX_EVENT_BYTES:,} that are allowed"
        return Rejection(row_index, "too_large", "", message)
    try:
        return _row(row_index, RequestEvent.model_validate_json(without_lone_surrogates(value)))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        return Rejection(row_index, first["type"], field_path(first["loc"]), first["msg"])


class Decoder:
    """Decodes batches, for one thread at a time."""

    def __init__(self) -> None:
        self._screen = StrictDecoder()

    def decode(self, values: Sequence[bytes | None]) -> Decoded:
        """Split a batch into events and rejections. Never raises for what a value holds."""
        proven, doubtful, unknown = self._screened(values)
        rejections, rows = [], []
        for row_index in doubtful:
            outcome = decode_one(row_index, values[row_index])
            if isinstance(outcome, Rejection):
                rejections.append(outcome)
            else:
                rows.append(outcome)
        if rows:
            proven = pa.concat_tables([proven, pa.Table.from_pylist(rows, EVENT_SCHEMA)]).sort_by("row_index")
        return Decoded(proven, rejections, unknown)

    def _screened(self, values: Sequence[bytes | None]) -> tuple[pa.Table, list[int], Counter[str]]:
        """The events that are proven to be valid, the indexes of the other values, and the unknown fields."""
        unknown: Counter[str] = Counter()
        tables, doubtful = [EVENT_SCHEMA.empty_table()], []
        for start in range(0, len(values), ROWS_AT_ONCE):
            events, others = self._screen_some(values[start : start + ROWS_AT_ONCE], start, unknown)
            tables.append(events)
            doubtful += others
        return pa.concat_tables(tables).combine_chunks(), doubtful, unknown

    def _screen_some(
        self, values: Sequence[bytes | None], start: int, unknown: Counter[str]
    ) -> tuple[pa.Table, list[int]]:
        read = self._screen.read
        places, rows, doubtful = [], [], []
        for row_index, value in enumerate(values, start):
            fields = read(value, unknown)
            if fields is None:
                doubtful.append(row_index)
            else:
                places.append(row_index)
                rows.append(fields)
        events = _columns(places, rows)
        is_proven = _is_proven(events)
        unproven = events["row_index"].filter(pc.invert(is_proven)).to_pylist()
        return events.filter(is_proven) if unproven else events, sorted([*doubtful, *unproven])
