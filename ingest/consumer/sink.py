"""A batch becomes rows: decoded, priced, and inserted once into the raw tables (the rollups follow by views)."""

import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import reduce

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from opentelemetry.trace import get_tracer

from aggregator.clickhouse.client import Warehouse
from aggregator.clickhouse.tables import DEAD_LETTERS, PAYLOAD_COLUMNS, REQUEST_LOGS, REQUEST_PAYLOADS
from aggregator.rollups.rebuild import current_generation
from ingest import metrics
from ingest.consumer.batch import Batch, Record
from ingest.consumer.dead_letter_limit import NO_LIMIT, DeadLetterLimit, DeadLetterWatch
from ingest.consumer.usage_increments import usage_of
from ingest.pricing import PriceBook, ReloadingPriceBook, price_events
from ingest.transform.decoder import Decoded, Decoder, Rejection
from ingest.transform.enrichment import with_derived
from ingest.transform.redaction import MARK, is_secret, redact_bytes
from ingest.transform.token_usage import with_usage_source

TRACER = get_tracer(__name__)

MAX_DEAD_LETTER_BYTES = 1_000_000
TRUNCATION_MARK = b"... [truncated]"
# Shorter than what a rebuild waits for after it has opened a new generation (aggregator/rollups/rebuild.py).
GENERATION_SECONDS = 1.0

TEXT_FIELDS = ("input_text", "output_text")
STORED_OFFSETS = """
SELECT source_offset AS offset FROM {table} WHERE created_at = fromUnixTimestamp64Milli({{created_at_ms:Int64}}, 'UTC')
AND source_partition = {{partition:UInt32}} AND source_offset BETWEEN {{first:UInt64}} AND {{last:UInt64}}
"""
ERROR_STATUSES = pa.array(["error", "timeout"])


def is_error(events: pa.Table) -> pa.ChunkedArray:
    """A request failed if it says so in any of three places: its status, its status code, its error type."""
    by_status = pc.is_in(pc.utf8_lower(events["status"]), ERROR_STATUSES)
    by_code = pc.fill_null(pc.greater_equal(events["status_code"], 400), False)
    return pc.or_(pc.or_(by_status, by_code), pc.not_equal(events["error_type"], ""))


def _constant(value: object, type_: pa.DataType, length: int) -> pa.Array:
    return pa.repeat(pa.scalar(value, type_), length)


def _provenance(batch: Batch, events: pa.Table) -> dict[str, pa.Array]:
    offsets = np.fromiter((record.offset for record in batch.records), np.uint64, len(batch.records))
    return {
        "created_at": _constant(batch.created_at, pa.timestamp("ms", "UTC"), len(events)),
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
    return {"name": name, "value": MARK if is_secret(name) else value.decode(errors="replace")}


def dead_letters(batch: Batch, rejections: Sequence[Rejection]) -> pa.Table:
    """Rows of dead_letters: the bytes as they came but for secrets, cut with a mark past 1 MB."""
    rows = [_dead_letter(batch, batch.records[rejection.row_index], rejection) for rejection in rejections]
    return pa.Table.from_pylist(rows, DEAD_LETTER_SCHEMA)


def _dead_letter(batch: Batch, record: Record, rejection: Rejection) -> dict[str, object]:
    original = record.value or b""
    value = redact_bytes(original)
    is_truncated = len(value) > MAX_DEAD_LETTER_BYTES
    if is_truncated:
        value = value[:MAX_DEAD_LETTER_BYTES] + TRUNCATION_MARK
    return {
        "created_at": batch.created_at,
        "source_topic": batch.topic,
        "source_partition": batch.partition,
        "source_offset": record.offset,
        "record_timestamp": datetime.fromtimestamp(max(record.timestamp, 0) / 1000, UTC),
        "reason": rejection.reason,
        "field": rejection.field,
        "message": rejection.message,
        "key": record.key or b"",
        "value": value,
        "value_bytes": len(original),
        "is_truncated": is_truncated,
        "headers": [_header(name, content) for name, content in record.headers],
    }


DEAD_LETTER_SCHEMA = pa.schema(
    [
        ("created_at", pa.timestamp("ms", "UTC")),
        ("source_topic", pa.string()),
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


def _count_unpriced(events: pa.Table, costs: pa.Table) -> None:
    is_unpriced, is_missing = pc.is_null(costs["cost"]), pc.equal(events["usage_source"], "missing")
    no_usage = pc.sum(pc.and_(is_unpriced, is_missing)).as_py() or 0
    metrics.UNPRICED.labels("no_usage").inc(no_usage)
    metrics.UNPRICED.labels("no_price").inc(costs["cost"].null_count - no_usage)


class Sink:
    """Writes batches to the warehouse; every method may be called from several threads at once."""

    def __init__(
        self, warehouse: Warehouse, prices: PriceBook | ReloadingPriceBook, limit: DeadLetterLimit = NO_LIMIT
    ) -> None:
        self._warehouse = warehouse
        self._watch = DeadLetterWatch(limit)
        self._prices = prices
        # By token, until the batch is written: with other prices a second try would complete the rollups with
        # costs that differ from those of the rows that the first try has left.
        self._chosen: dict[str, PriceBook] = {}
        self._local = threading.local()
        self._generation = 0
        self._generation_read_at = -GENERATION_SECONDS

    @property
    def _decoder(self) -> Decoder:
        """A thread's own."""
        if not hasattr(self._local, "decoder"):
            self._local.decoder = Decoder()
        decoder: Decoder = self._local.decoder
        return decoder

    def generation(self) -> int:
        """The rollup generation that a batch planned now belongs to."""
        if time.monotonic() - self._generation_read_at >= GENERATION_SECONDS:
            self._generation = current_generation(self._warehouse)
            self._generation_read_at = time.monotonic()
        return self._generation

    def write(self, batch: Batch) -> pa.Table:
        """Write a batch, once however often it is called with the same batch; returns what it adds to usage.

        Rows go last: a request whose row is visible has its payload. Raises what the warehouse raises, and
        DeadLetterLimitError, before anything is written, when too much of what arrives is broken.
        """
        with metrics.DECODE_SECONDS.time():
            with TRACER.start_as_current_span("decode"):
                decoded = self._decoder.decode([record.value for record in batch.records])
                events = with_derived(with_usage_source(decoded.events))
                self._watch.observe(batch, decoded.rejections)
            with TRACER.start_as_current_span("price"):
                costs = price_events(events, self._prices_for(batch))
        with metrics.INSERT_SECONDS.time():
            self._insert(DEAD_LETTERS, dead_letters(batch, decoded.rejections), batch)
            self._insert(REQUEST_PAYLOADS, request_payloads(batch, events), batch)
            rows = request_logs(batch, events, costs)
            self._insert(REQUEST_LOGS, rows, batch)
        self._chosen.pop(batch.token, None)
        self._count(batch, decoded)
        _count_unpriced(events, costs)
        return usage_of(events, rows["is_error"], costs["cost"])

    def stored_offsets(self, batch: Batch) -> dict[str, set[int]]:
        """By table, which records of the batch are there already. It looks through whole tables: for the rare case
        that the batch's own token is lost."""
        values = {
            "created_at_ms": batch.created_at_ms, "partition": batch.partition, "first": batch.first, "last": batch.last
        }  # fmt: skip
        return {
            table: {
                row["offset"]
                for row in self._warehouse.shard_for(batch.partition).query(STORED_OFFSETS.format(table=table), values)
            }
            for table in (DEAD_LETTERS, REQUEST_PAYLOADS, REQUEST_LOGS)
        }

    def _prices_for(self, batch: Batch) -> PriceBook:
        book = self._prices.current() if isinstance(self._prices, ReloadingPriceBook) else self._prices
        return self._chosen.setdefault(batch.token, book)

    def _insert(self, table: str, rows: pa.Table, batch: Batch) -> None:
        if stored := batch.stored.get(table):
            rows = rows.filter(pc.invert(pc.is_in(rows["source_offset"], pa.array(stored, pa.uint64()))))
        if not len(rows):
            return
        with TRACER.start_as_current_span(
            "insert", attributes={"db.collection.name": table, "insights.rows": len(rows)}
        ):
            # To squeeze bodies takes a fifth of the ingest process's CPU, and leaves three quarters of what it sends.
            is_compressed = table != REQUEST_PAYLOADS
            self._warehouse.shard_for(batch.partition).insert(table, rows, batch.token, is_compressed)

    def _count(self, batch: Batch, decoded: Decoded) -> None:
        metrics.RECORDS.labels(batch.partition).inc(len(batch.records))
        metrics.BATCH_RECORDS.observe(len(batch.records))
        metrics.ROWS.inc(len(decoded.events))
        metrics.UNKNOWN_FIELDS.inc(decoded.unknown_fields.total())
        for rejection in decoded.rejections:
            metrics.DEAD_LETTERS.labels(rejection.reason).inc()
