"""What CI looks at: how long our steps take beside a yardstick of the same run, on the same bytes.

Ratios of CPU time, medians of interleaved rounds: a slow or busy machine slows both sides.
"""

import statistics
import tempfile
import time
from collections.abc import Callable

import msgspec

from aggregator.clickhouse.client import Warehouse
from aggregator.clickhouse.migrate import migrate
from ingest.consumer.batch import Batch, Record
from ingest.consumer.sink import Sink
from ingest.pricing import PriceBook, price_events
from ingest.transform.decoder import Decoder
from tests.benchmarks.contenders import raw_writer
from tests.benchmarks.events import make
from tests.integration.ingest.test_sink import StoredRecord

ROUNDS = 5


def _medians(steps: dict[str, Callable[[int], object]]) -> dict[str, float]:
    spent: dict[str, list[float]] = {name: [] for name in steps}
    for round_ in range(ROUNDS):
        for name, step in steps.items():
            started = time.process_time()
            step(round_)
            spent[name].append(time.process_time() - started)
    return {name: statistics.median(times) for name, times in spent.items()}


def ratios(events: int) -> dict[str, tuple[float, float]]:
    """By name, (what was found, what it may be): about twice what it is when all is well."""
    values = [value for _, value in make(events)]
    with tempfile.TemporaryDirectory(prefix="router-insights-smoke-") as folder:
        warehouse = Warehouse(f"chdb://{folder}")
        migrate(warehouse)
        decoder, book = Decoder(), PriceBook()
        sink = Sink(warehouse, book)
        decoded = decoder.decode(values).events
        passthrough = raw_writer(warehouse)

        def write(round_: int) -> None:
            first = round_ * len(values)
            records: list[Record] = [StoredRecord(first + place, value) for place, value in enumerate(values)]
            sink.write(Batch("smoke", 0, records, 1_800_000_000_000, 0))

        spent = _medians(
            {
                "parse": lambda _: [msgspec.json.decode(value) for value in values if value.endswith(b"}")],
                "decode": lambda _: decoder.decode(values),
                "price": lambda _: price_events(decoded, book),
                "write": write,
                "passthrough": lambda _: passthrough(values),
            }
        )
        warehouse.close()
    return {name: (spent[step] / spent[yardstick], limit) for name, step, yardstick, limit in LIMITS}


# Name, step, yardstick, twice the ratio that was measured.
LIMITS = (
    ("decoding, beside parsing every value with msgspec", "decode", "parse", 1.8),
    ("pricing, beside decoding", "price", "decode", 0.12),
    ("a whole batch, beside inserting the raw bytes", "write", "passthrough", 3.8),
)
