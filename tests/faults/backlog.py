"""How much memory a worker needs while it works off a backlog: `python -m tests.faults.backlog [--gigabytes 2]`.

Real Apache Kafka, ClickHouse in its own process, and `insights ingest` as the process that is measured. Records are of
mixed sizes, 300 bytes to 900 kB. Prints the backlog, the time, and the worker's peak resident memory; exits 1 when the
peak is above the bound or when a record is missing.
"""

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from aggregator.clickhouse.client import Warehouse
from aggregator.clickhouse.migrate import migrate
from cli.local_stack.supervisor import start_supervised, stop_supervised
from ingest.topics.create import create_topics
from router_insights.emitter.event_emitter import EventEmitter
from tests.faults.stack import Stack, running_stack
from tests.support.processes import peak_bytes

TOPIC = "backlog"
PARTITIONS = 6
BOUND_BYTES = 1536 * 1024 * 1024
BODY_CHARS = (0, 0, 0, 0, 300, 3_000, 30_000, 900_000)
WEIGHTS = (50, 50, 50, 50, 40, 30, 10, 1)


def event(rng: random.Random, number: int) -> bytes:
    size = rng.choices(BODY_CHARS, WEIGHTS)[0]
    start = rng.randrange(1000)
    return json.dumps(
        {
            "request_id": f"r-{number}", "timestamp": "2026-11-21T10:00:00Z", "model_name": "gpt-4o",
            "status": "success", "user_id": f"u-{number % 100}", "input_tokens": number % 5000, "output_tokens": 10,
            "request_body": "".join(f"word {start + n} " for n in range(size // 10)),
        }
    ).encode()  # fmt: skip


async def fill(stack: Stack, total_bytes: int, progress: Progress) -> int:
    """Produce until `total_bytes` of values are in Kafka; how many records that took."""
    rng, number, produced = random.Random(7), 0, 0
    task = progress.add_task("backlog, bytes", total=total_bytes)
    async with EventEmitter(stack.kafka.address, topic=TOPIC, compression=None) as emitter:
        while produced < total_bytes:
            value = event(rng, number)
            await emitter.emit_raw(str(number).encode(), value)
            number, produced = number + 1, produced + len(value)
            progress.update(task, completed=produced)
    return number


def find_worker(supervisor: int) -> int:
    children = subprocess.run(
        ["pgrep", "-P", str(supervisor)], capture_output=True, text=True, check=True
    ).stdout.split()
    return next(int(pid) for pid in children if "ingest" in Path(f"/proc/{pid}/cmdline").read_text())


def work_off(stack: Stack, records: int, progress: Progress) -> tuple[int, int, float]:
    """Run `insights ingest` until it has stored `records`: rows stored, peak memory, seconds."""
    warehouse = Warehouse(stack.clickhouse.address, "backlog")
    migrate(warehouse)
    settings = {
        "KAFKA_BOOTSTRAP_SERVERS": stack.kafka.address, "KAFKA_TOPIC": TOPIC, "METRICS_PORT": "0",
        "CLICKHOUSE_URL": f"{stack.clickhouse.address}/backlog",
    }  # fmt: skip
    environment = {**os.environ, **{f"INSIGHTS_{name}": value for name, value in settings.items()}}
    command = [sys.executable, "-m", "cli.main", "ingest"]
    with (stack.folder / "worker.log").open("ab") as log:
        supervisor = start_supervised(command, grace_seconds=15, output=log, environment=environment)
    began, stored, peak = time.monotonic(), 0, 0
    task = progress.add_task("stored, records", total=records)
    while stored < records and supervisor.poll() is None and time.monotonic() - began < 900:
        time.sleep(0.5)
        stored = warehouse.query("SELECT count() AS n FROM request_logs")[0]["n"]
        peak = max(peak, peak_bytes(find_worker(supervisor.pid)))
        progress.update(task, completed=stored)
    seconds = time.monotonic() - began
    stop_supervised(supervisor)
    return stored, peak, seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=2.0)
    gigabytes = parser.parse_args().gigabytes
    with (
        tempfile.TemporaryDirectory(prefix="router-insights-backlog-") as folder,
        running_stack(Path(folder)) as stack,
        Progress(console=Console(stderr=True)) as progress,
    ):
        asyncio.run(create_topics(stack.kafka.address, {TOPIC: PARTITIONS}, timeout_seconds=30))
        records = asyncio.run(fill(stack, int(gigabytes * 1e9), progress))
        stored, peak, seconds = work_off(stack, records, progress)
    print(
        f"backlog {gigabytes:g} GB in {records:,} records; stored {stored:,} in {seconds:.0f} s"
        f" ({gigabytes * 1000 / seconds:.0f} MB/s); worker's peak memory {peak / 2**20:,.0f} MiB,"
        f" bound {BOUND_BYTES / 2**20:,.0f} MiB"
    )
    return 0 if stored == records and peak <= BOUND_BYTES else 1


if __name__ == "__main__":
    sys.exit(main())
