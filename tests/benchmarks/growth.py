"""Part 3: how cost grows with users, models, batch size and partitions, and the bytes that a request takes on disk."""

import asyncio
import statistics
import tempfile
import time
from dataclasses import replace
from typing import Any

from rich.console import Console

from aggregator.clickhouse.client import Warehouse
from aggregator.clickhouse.migrate import migrate
from ingest.consumer.batch import Batch
from ingest.consumer.sink import Sink
from ingest.pricing import PriceBook
from tests.benchmarks import ingest
from tests.benchmarks.contenders import Task
from tests.benchmarks.events import SEED, make
from tests.benchmarks.rows import FILL, Shape
from tests.integration.ingest.test_sink import StoredRecord

SIZES = """
SELECT table, sum(rows) AS rows, sum(bytes_on_disk) AS bytes, count() AS parts FROM system.parts
WHERE active AND database = {database:String} GROUP BY table
"""
COLUMNS = """
SELECT column, sum(column_bytes_on_disk) AS bytes FROM system.parts_columns
WHERE active AND database = {database:String} AND table = 'request_logs' GROUP BY column ORDER BY bytes DESC LIMIT 12
"""


def _sizes(warehouse: Warehouse) -> dict[str, Any]:
    for row in warehouse.query(SIZES, {"database": warehouse.database}):
        warehouse.command(f"OPTIMIZE TABLE {row['table']} FINAL")
    found = warehouse.query(SIZES, {"database": warehouse.database})
    return {row["table"]: {name: int(row[name]) for name in ("rows", "bytes", "parts")} for row in found}


def _fill(folder: str, shape: Shape) -> dict[str, Any]:
    warehouse = Warehouse(f"chdb://{folder}", f"growth_{shape.users}_{shape.models}")
    migrate(warehouse)
    bound = {"seed": SEED, "users": shape.users, "models": shape.models, "days": shape.days, "rows": shape.rows}
    started = time.process_time()
    warehouse.command(FILL, {**bound, "first": 0, "chunk": shape.rows})
    cpu_seconds = time.process_time() - started
    sizes = _sizes(warehouse)
    warehouse.command(f"DROP DATABASE {warehouse.database}")
    warehouse.close()
    return {"cpu_us_per_row": cpu_seconds / shape.rows * 1e6, "tables": sizes}


def _ingest(folder: str, count: int, batch_rows: int) -> dict[str, Any]:
    """Whole batches through the sink, as the worker writes them."""
    warehouse = Warehouse(f"chdb://{folder}", f"growth_batch_{batch_rows}")
    migrate(warehouse)
    sink = Sink(warehouse, PriceBook())
    values = [value for _, value in make(count)]
    started = time.process_time()
    for first in range(0, len(values), batch_rows):
        part = values[first : first + batch_rows]
        records = [StoredRecord(first + place, value) for place, value in enumerate(part)]
        sink.write(Batch("growth", 0, records, 1_800_000_000_000 + first, 0))
    cpu_seconds = time.process_time() - started
    sizes = _sizes(warehouse)
    columns = warehouse.query(COLUMNS, {"database": warehouse.database})
    warehouse.command(f"DROP DATABASE {warehouse.database}")
    warehouse.close()
    rows = sizes["request_logs"]["rows"]
    return {
        "cpu_us_per_event": cpu_seconds / len(values) * 1e6,
        "tables": sizes,
        "bytes_per_row": sizes["request_logs"]["bytes"] / rows,
        "largest_columns": {row["column"]: round(int(row["bytes"]) / rows, 2) for row in columns},
    }


def grow(console: Console, rows: int) -> dict[str, Any]:
    """Figures by what grows."""
    results: dict[str, Any] = {"users": {}, "models": {}, "batch_rows": {}}
    base = Shape(rows, days=1)
    with tempfile.TemporaryDirectory(prefix="router-insights-growth-") as folder:
        for users in (1_000, 10_000, 100_000, 1_000_000):
            results["users"][users] = _fill(folder, replace(base, users=users))
            _report(console, f"{users:,} users", results["users"][users], rows)
        for models in (10, 100, 1_000):
            results["models"][models] = _fill(folder, replace(base, models=models))
            _report(console, f"{models:,} models", results["models"][models], rows)
        for batch_rows in (1_000, 5_000, 20_000, 50_000):
            found = _ingest(folder, min(rows, 100_000), batch_rows)
            results["batch_rows"][batch_rows] = found
            console.print(
                f"  batches of {batch_rows:6,}: {found['cpu_us_per_event']:6.1f} µs CPU/event,"
                f" {found['bytes_per_row']:.1f} bytes a row"
            )
    return results


def by_partitions(bootstrap: str, count: int, rounds: int, console: Console) -> dict[int, Any]:
    """The worker on the same events in topics of 1, 6 and 24 partitions, in turn: medians, engine included."""
    records = make(count)
    topics = {number: asyncio.run(ingest.produce(bootstrap, records, partitions=number)) for number in (1, 6, 24)}
    runs: dict[int, list[dict[str, Any]]] = {number: [] for number in topics}
    for _ in range(rounds):
        for number, topic in topics.items():
            task = Task(bootstrap=bootstrap, topic=topic, partitions=number, records=count)
            runs[number].append(ingest.run("ours", task))
            console.print(f"  {number:2} partitions: {runs[number][-1]['cpu_seconds'] / count * 1e6:6.1f} µs CPU/event")
    return {number: _medians(found) for number, found in runs.items()}


def _medians(runs: list[dict[str, Any]]) -> dict[str, float]:
    return {
        "cpu_us_per_event": statistics.median(run["cpu_seconds"] / run["records"] * 1e6 for run in runs),
        "events_per_second": statistics.median(run["records"] / run["seconds"] for run in runs),
        "peak_mib": max(run["peak_bytes"] for run in runs) / 2**20,
    }


def _report(console: Console, name: str, found: dict[str, Any], rows: int) -> None:
    tables = found["tables"]
    sizes = ", ".join(f"{table} {tables[table]['bytes'] / rows:.1f}" for table in sorted(tables) if "ro" in table)
    console.print(f"  {name:16} {found['cpu_us_per_row']:6.1f} µs CPU/row; bytes a request: {sizes}")
