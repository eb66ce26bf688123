"""How long it takes to reprice a month of rows while ingestion goes on, and whether the rollups agree afterwards."""

import tempfile
import threading
import time

from aggregator.clickhouse.client import Warehouse
from aggregator.clickhouse.migrate import migrate
from aggregator.rollups import rebuild
from aggregator.times import Span
from ingest.consumer.batch import Batch
from ingest.consumer.sink import Sink
from ingest.pricing import PriceBook
from ingest.pricing.operator_file import parse
from ingest.pricing.reprice import reprice
from router_insights.emitter.event import parse_timestamp
from tests.integration.ingest.test_sink import StoredRecord, encode

MONTH = Span(parse_timestamp("2026-10-01T00:00:00Z"), parse_timestamp("2026-11-01T00:00:00Z"))
MODELS = ("gpt-4o", "gpt-4o-mini", "gpt-5", "gpt-5-mini", "claude-sonnet-4-5", "claude-opus-4-5", "gemini-2.5-pro",
          "gemini-2.5-flash", "deepseek-chat", "my-own")  # fmt: skip
# 300 users, some of whom send far more than others, each with two keys and three models.
FILL = """
INSERT INTO request_logs (timestamp, request_id, created_at, source_topic, source_partition, source_offset, model_name,
    user_id, api_key_id, status, usage_source, input_tokens, output_tokens, cached_input_tokens, duration_ms)
WITH toUInt32(300 * pow(cityHash64(number, 1) % 1000000 / 1000000, 2)) AS user
SELECT toDateTime64('2026-10-01 00:00:00', 6, 'UTC') + toIntervalMicrosecond(cityHash64(number) % 2678400000000),
    lower(hex(sipHash128(number))), now64(3), 'request-events', number % 6, number,
    {models:Array(String)}[1 + (user + cityHash64(number, 7) % 3) % 10], concat('user-', toString(user)),
    concat('key-', toString(user * 2 + number % 2)), 'success', 'reported',
    1000 + cityHash64(number, 3) % 300000, cityHash64(number, 4) % 4000, cityHash64(number, 5) % 1000,
    cityHash64(number, 6) % 60000
FROM numbers({rows:UInt64})
"""
BATCH_ROWS = 1_000


class Ingestion:
    """Writes batches of the same month in a thread, one after the other, until it is stopped."""

    def __init__(self, warehouse: Warehouse, prices: PriceBook) -> None:
        self._sink, self._stop, self.rows = Sink(warehouse, prices), threading.Event(), 0
        # Offsets of its own: the same ones again would be taken for the same records.
        self._first = time.time_ns()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Ingestion":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        assert self.rows, "nothing was ingested meanwhile"

    def _run(self) -> None:
        while not self._stop.wait(0.25):
            fields = {"timestamp": "2026-10-15T12:00:00Z", "input_tokens": 1000, "output_tokens": 10}
            places = range(self._first, self._first + BATCH_ROWS)
            records = [StoredRecord(place, encode(request_id=f"new-{place}", **fields)) for place in places]
            self._sink.write(Batch("request-events", 9, records, time.time_ns() // 10**6, self._sink.generation()))
            self._first += BATCH_ROWS
            self.rows += BATCH_ROWS


def measure(warehouse: Warehouse, name: str, book: PriceBook) -> None:
    marks: dict[str, float] = {}
    started = time.perf_counter()
    with Ingestion(warehouse, book) as ingestion:
        repriced = reprice(
            warehouse, MONTH, book, progress=lambda step, *_: marks.update({step: time.perf_counter() - started})
        )
        seconds = time.perf_counter() - started
    steps = ", ".join(f"{step} until {at:.1f} s" for step, at in marks.items())
    rows = sum(each.rows for each in repriced.totals)
    print(f"{name}: {rows:,} rows, {repriced.changed_rows:,} changed, {seconds:.1f} s")
    print(f"    {steps}; {ingestion.rows:,} rows arrived meanwhile")
    drifted = [drift for drift in rebuild.verify(warehouse) if not drift.is_zero]
    print(f"    drift afterwards: {drifted or 0}")


def run(rows: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        warehouse = Warehouse(f"chdb://{folder}")
        migrate(warehouse)
        warehouse.client.command(FILL, {"models": list(MODELS), "rows": rows})
        corrected = PriceBook(parse("prices: [{model: my-own, input: 1, output: 2}]", "bench"), "corrected")
        measure(warehouse, "every row", PriceBook())
        measure(warehouse, "one model of ten", corrected)
        measure(warehouse, "nothing to change", corrected)
        warehouse.close()
