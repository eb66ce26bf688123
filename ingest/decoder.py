"""A batch of raw record values becomes columns, and every value that is not a valid event becomes a rejection.

Whole batches are parsed by DuckDB, in C++ and without the GIL. The fast path keeps only rows that it can prove
to be valid under the event model; every other row goes through the model itself, which either yields the same
columns or the exact reason of the rejection. So the model stays the only definition of what is valid.
"""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ValidationError

from ingest import secrets
from ingest.events import (
    FIELD_NAMES,
    FIRST_TIMESTAMP,
    LAST_TIMESTAMP,
    MAX_NESTING,
    RequestEvent,
    repeated_path,
)
from ingest.screen import MAX_EVENT_BYTES, Screen, json_types

HEADER_FIELDS = ("request_headers", "response_headers")


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

_TIMESTAMP = (
    r"^\d{4}-\d{2}-\d{2}[Tt ](?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,6})?(?:Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)$"
)
# An exponent or a length with which a number may be infinite.
_HUGE_NUMBER = r"[:\[,]-?[0-9][0-9.]*[eE]\+?[0-9]{3}|[0-9]{300}"
# Everything in compact JSON that is a scalar member of an object, so that what is left is its shape.
_SCALAR_MEMBER = r':(?:"(?:[^"\\]|\\.)*"|[^{"\[][^,}]*)'


def _quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _may_be_too_deep(text: str) -> str:
    """SQL that is true where JSON text has as many opening brackets as levels are allowed. CASE is lazy, AND is not."""
    braces = " + ".join(f"length({text}) - length(replace({text}, '{bracket}', ''))" for bracket in "[{")
    return f"CASE WHEN length({text}) >= {2 * MAX_NESTING} THEN {braces} >= {MAX_NESTING} END"


def _doubts() -> str:
    """SQL that is true for a row that has passed the screen but whose values are not proven to be valid."""
    first_ms, last_ms = (int(moment.timestamp() * 1000) for moment in (FIRST_TIMESTAMP, LAST_TIMESTAMP))
    doubts = [r"contains(v, '\u0000')", "timestamp IS NULL"]
    doubts.append(f"epoch_us(timestamp) NOT BETWEEN {first_ms * 1000} AND {last_ms * 1000 - 1}")
    doubts.append(
        "coalesce(e.cached_input_tokens, 0)::BIGINT + coalesce(e.cache_creation_input_tokens, 0)"
        " > coalesce(e.input_tokens, 0)"
    )
    for field in JSON_FIELDS:
        # A text is in no doubt, whatever it holds; one that looks like JSON is looked at all the same.
        huge = f"regexp_matches(e.{field}, {_quote(_HUGE_NUMBER)})"
        doubts.append(f"CASE WHEN e.{field}[1] IN ('{{', '[') THEN {huge} OR {_may_be_too_deep(f'e.{field}')} END")
    doubts += [f"regexp_matches({field}, {_quote(secrets.JSON_SECRET_LEFT)})" for field in HEADER_FIELDS]
    # Fields that nobody asked for are not looked into, but parsers refuse them when nested too deep.
    doubts.append(f"CASE WHEN has_odd_keys THEN {_may_be_too_deep('v')} END")
    return "\n OR ".join(f"coalesce({doubt}, false)" for doubt in doubts)


def _transform_type(field: str) -> str | list[str]:
    if field in LIST_FIELDS:
        return ["VARCHAR"]
    if field in INTEGER_FIELDS:
        return "USMALLINT" if field == "status_code" else "UINTEGER"
    return "VARCHAR"  # objects and arrays as compact JSON text


def _output(field: str) -> str:
    """SQL for a field's column in the shape of EVENT_SCHEMA."""
    if field == "timestamp":
        return "epoch_us(timestamp) AS timestamp"
    if field in HEADER_FIELDS:
        return f"coalesce({field}, '') AS {field}"
    if field in LIST_FIELDS:
        return f"coalesce(e.{field}, []) AS {field}"
    if field == "metadata":
        return "coalesce(e.metadata, '{}') AS metadata"
    if field in INTEGER_FIELDS:
        return f"e.{field} AS {field}"
    return f"coalesce(e.{field}, '') AS {field}"


def _decode_sql() -> str:
    shape = json.dumps({field: _transform_type(field) for field in FIELD_NAMES})
    headers = ", ".join(
        f"regexp_replace(e.{field}, {_quote(secrets.JSON_SECRET_STRING)},"
        f" {_quote(secrets.JSON_SECRET_REPLACEMENT)}, 'g') AS {field}"
        for field in HEADER_FIELDS
    )
    present = " + ".join(f"(e.{field} IS NOT NULL)::UTINYINT" for field in FIELD_NAMES)
    outputs = ",\n    ".join(_output(field) for field in FIELD_NAMES)
    return f"""
WITH parsed AS (
    SELECT row_index, v, json_keys(v) AS keys, json_transform(v, {_quote(shape)}) AS e FROM raw
), typed AS (
    SELECT *, {headers},
        -- As many keys as fields: no key is unknown, repeated or null.
        len(keys) != {present} AS has_odd_keys,
        CASE
            WHEN regexp_matches(e.timestamp, {_quote(_TIMESTAMP)}) THEN TRY_CAST(e.timestamp AS TIMESTAMPTZ)
            WHEN json_type(v, '$.timestamp') = 'UBIGINT' THEN make_timestamptz(TRY_CAST(e.timestamp AS BIGINT) * 1000)
        END AS timestamp
    FROM parsed
)
SELECT row_index,
    CASE WHEN has_odd_keys THEN keys::JSON::VARCHAR END AS odd_keys,
    regexp_replace(e.metadata, {_quote(_SCALAR_MEMBER)}, ':0', 'g') AS metadata_shape,
    {_doubts()} AS is_doubtful,
    {outputs}
FROM typed
"""


DECODE = _decode_sql()


@lru_cache(maxsize=4096)
def _unknown_keys(keys_text: str) -> tuple[str, ...] | None:
    """The keys that are no fields of an event; None when a key is repeated."""
    keys = json.loads(keys_text)
    if len(set(keys)) != len(keys):
        return None
    return tuple(key for key in keys if key not in FIELD_NAMES)


@lru_cache(maxsize=4096)
def _paths_are_distinct(metadata_shape: str) -> bool:
    """Whether no dotted path can occur twice in JSON of this shape (its scalars are replaced by 0)."""

    def no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in pairs}) != len(pairs):
            raise ValueError("repeated key")
        return dict(pairs)

    try:
        shape = json.loads(metadata_shape, object_pairs_hook=no_repeats)
    except ValueError:
        return False
    return repeated_path(shape) is None


def _true_where(column: pa.ChunkedArray, accept: Callable[[str], bool]) -> pa.ChunkedArray:
    """`accept` of every value, called once per distinct value; true for null."""
    encoded = column.combine_chunks().dictionary_encode()
    verdicts = pa.array([accept(text.as_py()) for text in encoded.dictionary], pa.bool_())
    return pc.fill_null(verdicts.take(encoded.indices), True)


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _row(row_index: int, event: RequestEvent) -> dict[str, Any]:
    """An event as a row of EVENT_SCHEMA."""
    row: dict[str, Any] = {"row_index": row_index, **event.model_dump()}
    for field in (*TEXT_FIELDS, *JSON_FIELDS):
        if field != "timestamp" and not isinstance(row[field], str):
            row[field] = "" if row[field] is None else _compact(row[field])
    if not event.usage:
        row["usage"] = ""
    for field in HEADER_FIELDS:
        headers = getattr(event, field)
        row[field] = "" if headers is None else _compact(secrets.redact_headers(headers))
    for field in LIST_FIELDS:
        row[field] = row[field] or []
    row["metadata"] = row["metadata"] or "{}"
    return row


def field_path(location: Sequence[str | int]) -> str:
    """A pydantic error location as `tags[1]` or `metadata.x`; empty for the event as a whole."""
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    return path


def decode_one(row_index: int, value: bytes | None) -> dict[str, Any] | Rejection:
    """One value through the model: a row of EVENT_SCHEMA, or the first reason why it is none."""
    if not value:
        return Rejection(row_index, "empty", "", "the record has no value")
    if len(value) > MAX_EVENT_BYTES:
        message = f"the record has {len(value):,} bytes, more than the {MAX_EVENT_BYTES:,} that are allowed"
        return Rejection(row_index, "too_large", "", message)
    try:
        return _row(row_index, RequestEvent.model_validate_json(value))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        return Rejection(row_index, first["type"], field_path(first["loc"]), first["msg"])


def open_duckdb() -> duckdb.DuckDBPyConnection:
    """An engine of one thread: batches of different partitions are what runs side by side."""
    connection = duckdb.connect(config={"threads": 1, "autoinstall_known_extensions": False})
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def _text_array(texts: Sequence[bytes]) -> pa.Array:
    """UTF-8 texts as an Arrow array, in one copy: growing a buffer to 32 MB costs more than parsing it."""
    offsets = np.zeros(len(texts) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)), out=offsets[1:])
    return pa.LargeStringArray.from_buffers(len(texts), pa.py_buffer(offsets), pa.py_buffer(b"".join(texts)))


class Decoder:
    """Decodes batches on a DuckDB connection that no other thread uses."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._duckdb = connection
        self._screen = Screen()

    def decode(self, values: Sequence[bytes | None]) -> Decoded:
        """Split a batch into events and rejections. Never raises for what a value holds."""
        texts, doubtful = self._screened(values)
        proven, more_doubtful, unknown = self._parse(texts)
        rejections, rows = [], []
        for row_index in sorted([*doubtful, *more_doubtful]):
            outcome = decode_one(row_index, values[row_index])
            if isinstance(outcome, Rejection):
                rejections.append(outcome)
            else:
                rows.append(outcome)
        if rows:
            proven = pa.concat_tables([proven, pa.Table.from_pylist(rows, EVENT_SCHEMA)]).sort_by("row_index")
        return Decoded(proven, rejections, unknown)

    def _screened(self, values: Sequence[bytes | None]) -> tuple[pa.Table, list[int]]:
        """The values that pass the screen, for DuckDB, and the indexes of the rest."""
        passes = self._screen.passes
        doubtful = [row_index for row_index, value in enumerate(values) if not passes(value)]
        indexes = np.delete(np.arange(len(values), dtype=np.uint64), doubtful)
        texts = [values[row_index] or b"" for row_index in indexes.tolist()]
        return pa.table({"row_index": indexes, "v": _text_array(texts)}), doubtful

    def _parse(self, raw: pa.Table) -> tuple[pa.Table, list[int], Counter[str]]:
        """The rows that are proven to be valid, the indexes of the others, and the unknown fields of the former."""
        self._duckdb.register("raw", raw)
        parsed = self._duckdb.sql(DECODE).to_arrow_table()
        self._duckdb.unregister("raw")
        is_proven = pc.and_(
            pc.and_(
                _true_where(parsed["odd_keys"], lambda text: _unknown_keys(text) is not None),
                _true_where(parsed["metadata_shape"], _paths_are_distinct),
            ),
            pc.invert(parsed["is_doubtful"].combine_chunks()),
        )
        doubtful = parsed["row_index"].filter(pc.invert(is_proven)).to_pylist()
        proven = parsed.filter(is_proven) if doubtful else parsed
        unknown: Counter[str] = Counter()
        for count in proven["odd_keys"].drop_null().value_counts():
            for key in _unknown_keys(count["values"].as_py()) or ():
                unknown[key] += count["counts"].as_py()
        return proven.select(EVENT_SCHEMA.names).cast(EVENT_SCHEMA), doubtful, unknown
