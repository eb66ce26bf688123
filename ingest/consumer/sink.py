"""Inserts a batch into the raw tables, three inserts under one token; views feed the rollups."""

import threading
import time
from collections import Counter
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
from opentelemetry.trace import get_tracer

from aggregator.clickhouse.client import Warehouse
from aggregator.clickhouse.tables import DEAD_LETTERS, REQUEST_LOGS, REQUEST_PAYLOADS
from aggregator.rollups.rebuild import current_generation
from ingest import metrics
from ingest.consumer.batch import Batch
from ingest.consumer.dead_letter_limit import NO_LIMIT, DeadLetterLimit, DeadLetterWatch
from ingest.consumer.usage_increments import usage_of
from ingest.pricing import PriceBook, ReloadingPriceBook, price_events
from ingest.pricing.without_cost import unpriced_reasons
from ingest.transform.decoder import Decoder, Rejection
from ingest.transform.enrichment import with_derived
from ingest.transform.rows import dead_letters, request_logs, request_payloads
from ingest.transform.token_usage import with_usage_source

TRACER = get_tracer(__name__)

# Shorter than what a rebuild waits for after it has opened a new generation (aggregator/rollups/rebuild.py).
GENERATION_SECONDS = 1.0


def _count_unpriced(rows: pa.Table) -> None:
    reasons = unpriced_reasons(rows, rows["is_error"], rows["cost"])
    for found in pc.value_counts(reasons.drop_null()).to_pylist():
        metrics.UNPRICED.labels(found["values"]).inc(found["counts"])


class Sink:
    """Writes batches to the warehouse; every method may be called from several threads at once."""

    def __init__(
        self, warehouse: Warehouse, prices: PriceBook | ReloadingPriceBook, limit: DeadLetterLimit = NO_LIMIT
    ) -> None:
        self._warehouse = warehouse
        self._watch = DeadLetterWatch(limit)
        self._prices = prices
        # The prices of each token until its batch is written: a second try with other prices would complete the
        # rollups with costs that differ from those of the rows that the first try has left.
        self._chosen: dict[str, PriceBook] = {}
        self._local = threading.local()
        self._generation = 0
        self._generation_read_at = -GENERATION_SECONDS

    @property
    def _decoder(self) -> Decoder:
        """Each thread has its own: a decoder is for one thread."""
        if not hasattr(self._local, "decoder"):
            self._local.decoder = Decoder()
        decoder: Decoder = self._local.decoder
        return decoder

    def generation(self) -> int:
        """The rollup generation that a batch declared now belongs to."""
        if time.monotonic() - self._generation_read_at >= GENERATION_SECONDS:
            self._generation = current_generation(self._warehouse)
            self._generation_read_at = time.monotonic()
        return self._generation

    def write(self, batch: Batch) -> pa.Table:
        """Decode, price and insert a batch; its rows count once however often this is called with the same batch.

        Returns what the batch adds to usage (the columns of `increment.SCHEMA`).

        Rows go last: a request whose row is visible has its payload. Raises what the warehouse raises, and
        DeadLetterLimitError, before anything is written, when too much of what arrives is broken.
        """
        with metrics.DECODE_SECONDS.time():
            with TRACER.start_as_current_span("decode"):
                decoded = self._decoder.decode([record.value for record in batch.records])
                events = with_derived(with_usage_source(decoded.events))
                self._watch.observe(batch, decoded.rejections)
                with_bodies, rejections = events, decoded.rejections
                if batch.stored is not None:
                    with_bodies = batch.stored.missing_payloads(batch.records, events)
                    rejections = batch.stored.missing_dead_letters(batch.records, rejections)
                    events = batch.stored.missing_rows(batch.records, events)
            with TRACER.start_as_current_span("price"):
                costs = price_events(events, self._prices_for(batch))
        with metrics.INSERT_SECONDS.time():
            self._insert(DEAD_LETTERS, dead_letters(batch, rejections), batch)
            self._insert(REQUEST_PAYLOADS, request_payloads(batch, with_bodies), batch)
            rows = request_logs(batch, events, costs)
            self._insert(REQUEST_LOGS, rows, batch)
        self._chosen.pop(batch.token, None)
        self._count(batch, len(events), rejections, decoded.unknown_fields)
        _count_unpriced(rows)
        return usage_of(events, rows["is_error"], costs["cost"])

    def _prices_for(self, batch: Batch) -> PriceBook:
        return self._chosen.setdefault(batch.token, self._prices.current())

    def _insert(self, table: str, rows: pa.Table, batch: Batch) -> None:
        if not len(rows):
            return
        with TRACER.start_as_current_span(
            "insert", attributes={"db.collection.name": table, "insights.rows": len(rows)}
        ):
            # Compressing bodies takes a fifth of the ingest process's CPU, and saves only a quarter of their size.
            is_compressed = table != REQUEST_PAYLOADS
            self._warehouse.shard_for(batch.partition).insert(table, rows, batch.token, is_compressed)

    def _count(self, batch: Batch, rows: int, rejections: Sequence[Rejection], unknown_fields: Counter[str]) -> None:
        metrics.RECORDS.labels(batch.partition).inc(len(batch.records))
        metrics.ALREADY_STORED.inc(len(batch.records) - rows - len(rejections))
        metrics.BATCH_RECORDS.observe(len(batch.records))
        metrics.ROWS.inc(rows)
        metrics.UNKNOWN_FIELDS.inc(unknown_fields.total())
        for rejection in rejections:
            metrics.DEAD_LETTERS.labels(rejection.reason).inc()
