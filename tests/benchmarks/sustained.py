"""Workers as an operator runs them, on a backlog that lasts for minutes, ClickHouse in a process of its own."""

import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx2
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError

from aggregator.clickhouse.client import Warehouse
from aggregator.clickhouse.migrate import migrate
from tests.benchmarks.workers import Workers, running
from tests.support.clickhouse_http import ClickHouseServer

GROUP = "bench-sustained"
POLL_SECONDS = 0.25
SAMPLE_SECONDS = 1.0


async def _committed(admin: AIOKafkaAdminClient) -> int:
    """Records of the group that are stored: a worker commits what ClickHouse has taken."""
    try:
        offsets = await admin.list_consumer_group_offsets(GROUP)
    except GroupCoordinatorNotAvailableError:
        return 0  # A Kafka that is new: its topic of groups is still being made.
    return sum(max(0, each.offset) for each in offsets.values())


def measure_sustained(bootstrap: str, topic: str, records: int, workers: int) -> dict[str, Any]:
    """Rate, CPU and memory of `workers` processes in one group that store `records` of the topic, all of it.

    Time begins with the first records that are stored, so that the start of the processes is no part of it, and those
    first records do not count. Raises RuntimeError when a worker ends before the topic does.
    """
    with (
        tempfile.TemporaryDirectory(prefix="router-insights-bench-") as folder,
        ClickHouseServer(Path(folder) / "clickhouse") as server,
    ):
        warehouse = Warehouse(server.address)
        migrate(warehouse)
        with running(bootstrap, topic, GROUP, server.address, workers, Path(folder) / "workers.log") as processes:
            figures = asyncio.run(_watch(bootstrap, records, server.address, processes))
        figures["rows"] = warehouse.query("SELECT count() AS n FROM request_logs")[0]["n"]
        warehouse.close()
    return {"contender": "ours, ClickHouse apart", "workers": workers, **figures}


async def _watch(bootstrap: str, records: int, engine: str, workers: Workers) -> dict[str, Any]:
    def cpu() -> tuple[float, float]:
        return workers.cpu_seconds, float(httpx2.get(f"{engine}/cpu").text)

    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        while not (first := await _committed(admin)):
            workers.check()
            await asyncio.sleep(POLL_SECONDS)
        began, before = time.monotonic(), cpu()
        samples, stored = [(0.0, 0, workers.resident_bytes)], first
        while stored < records:
            workers.check()
            await asyncio.sleep(POLL_SECONDS)
            stored, seconds = await _committed(admin), time.monotonic() - began
            if seconds - samples[-1][0] >= SAMPLE_SECONDS:
                samples.append((seconds, stored - first, workers.resident_bytes))
        seconds, after, peak = time.monotonic() - began, cpu(), workers.peak_bytes
    finally:
        await admin.close()
    return {
        "records": records - first, "seconds": seconds, "cpu_seconds": after[0] - before[0],
        "engine_cpu_seconds": after[1] - before[1], "peak_bytes": peak, "samples": samples,
    }  # fmt: skip
