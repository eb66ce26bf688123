"""Rows of the raw tables, built from a batch and its decoded columns. Pure: nothing is read or written."""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import reduce

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from aggregator.clickhouse.tables import PAYLOAD_COLUMNS
from ingest.consumer.batch import Batch, Record
from ingest.transform.decoder import Rejection
from ingest.transform.redaction import MARK, redact_bytes, redact_text
from ingest.transform.secret_names import is_secret

MAX_DEAD_LETTER_BYTES = 1_000_000
TRUNCATION_MARK = b"... [truncated]"
TEXT_FIELDS = ("input_text", "output_text")
ERROR_STATUSES = pa.array(["error", "timeout"])
ERROR_CODE = 400


def is_error(events: pa.Table) -> pa.ChunkedArray:
    """What counts as an error, everywhere: a request that says so in any of three places. Its status is `error` or
    `timeout` in any case, its status code is 400 or more, or it has an error type. Stored, and never judged again."""
    by_status = pc.is_in(pc.ascii_lower(events["status"]), ERROR_STATUSES)
    by_code = pc.fill_null(pc.greater_equal(events["status_code"], ERROR_CODE), False)
    return pc.or_(pc.or_(by_status, by_code), pc.not_equal(events["error_type"], ""))


def _constant(value: object, type_: pa.DataType, length: int) -> pa.Array:
    return pa.repeat(pa.scalar(value, type_), length)


def _provenance(batch: Batch, events: pa.Table) -> dict[str, pa.Array]:
    offsets = np.fromiter((record.offset for record in batch.records), np.uint64, len(batch.records))
    return {
        "created_at": _constant(batch.created_at, pa.timestamp("ms", "UTC"), len(events)),
        "source_topic_id": _constant(batch.topic_id, pa.string(), len(events)),
        "source_partition": _constant(batch.partition, pa.uint32(), len(events)),
        "source_offset": pa.array(offsets[events["row_index"].to_numpy()]),
    }


def request_logs(batch: Batch, events: pa.Table, costs: pa.Table) -> pa.Table:
    """Rows of request_logs; `costs` is aligned with `events`."""
    table = events.drop_columns(["row_index", *PAYLOAD_COLUMNS, *TEXT_FIELDS])
    added = {
        **_provenance(batch, events),
        "source_topic": _constant(batch.topic, pa.string(), len(events)),
        "generation": _constant(batch.generation, pa.uint32(), len(events)),
        "is_error": is_error(events),
        **{name: costs[name] for name in costs.column_names},
    }
    for name, column in added.items():
        table = table.append_column(name, column)
    return table.combine_chunks()


def request_payloads(batch: Batch, events: pa.Table) -> pa.Table:
    """Rows of request_payloads for the events that have any header or body."""
    has_payload = reduce(pc.or_, (pc.not_equal(events[name], "") for name in PAYLOAD_COLUMNS))
    kept = events if pc.all(has_payload).as_py() else events.filter(has_payload)
    table = kept.select(["timestamp", "request_id", "user_id", "api_key_id", *PAYLOAD_COLUMNS, *TEXT_FIELDS])
    for name, column in _provenance(batch, kept).items():
        table = table.append_column(name, column)
    return table.combine_chunks()


def _header(name: str, value: bytes) -> dict[str, str]:
    return {"name": name, "value": MARK if is_secret(name) else redact_text(value.decode(errors="replace"))}


def dead_letters(batch: Batch, rejections: Sequence[Rejection]) -> pa.Table:
    """Rows of dead_letters: the bytes as they came but for secrets, cut with a mark past 1 MB."""
    rows = [_dead_letter(batch, batch.records[rejection.row_index], rejection) for rejection in rejections]
    return pa.Table.from_pylist(rows, DEAD_LETTER_SCHEMA)


def _dead_letter(batch: Batch, record: Record, rejection: Rejection) -> dict[str, object]:
    original = record.value or b""
    # No more than is kept, and a margin for what redaction shortens: a scan of many megabytes holds up the worker.
    value = redact_bytes(original[: 2 * MAX_DEAD_LETTER_BYTES])
    is_truncated = len(value) > MAX_DEAD_LETTER_BYTES
    if is_truncated:
        value = value[:MAX_DEAD_LETTER_BYTES] + TRUNCATION_MARK
    return {
        "created_at": batch.created_at,
        "source_topic": batch.topic,
        "source_topic_id": batch.topic_id,
        "source_partition": batch.partition,
        "source_offset": record.offset,
        "record_timestamp": datetime.fromtimestamp(max(record.timestamp, 0) / 1000, UTC),
        "reason": rejection.reason,
        "field": rejection.field,
        "message": rejection.message,
        "key": redact_bytes(record.key or b""),
        "value": value,
        "value_bytes": len(original),
        "is_truncated": is_truncated,
        "headers": [_header(name, content) for name, content in record.headers],
    }


DEAD_LETTER_SCHEMA = pa.schema(
    [
        ("created_at", pa.timestamp("ms", "UTC")),
        ("source_topic", pa.string()),
        ("source_topic_id", pa.string()),
        ("source_partition", pa.uint32()),
        ("source_offset", pa.uint64()),
        ("record_timestamp", pa.timestamp("ms", "UTC")),
        ("reason", pa.string()),
        ("field", pa.string()),
        ("message", pa.string()),
        ("key", pa.binary()),
        ("value", pa.binary()),
        ("value_bytes", pa.uint64()),
        ("is_truncated", pa.bool_()),
        ("headers", pa.list_(pa.struct([("name", pa.string()), ("value", pa.string())]))),
    ]
)
