"""Workers as an operator runs them, on a backlog that lasts for minutes, ClickHouse in a process of its own."""

import asyncio
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx2
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError

from aggregator.migrations import migrate
from aggregator.warehouse import Warehouse
from tests.benchmarks.bench_motion import start
from tests.faults.backlog import peak_bytes
from tests.support.clickhouse_http import ClickHouseServer

GROUP = "bench-sustained"
POLL_SECONDS = 0.25
SAMPLE_SECONDS = 1.0
STOP_SECONDS = 30
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

Process = subprocess.Popen[bytes]


@contextmanager
def _worker(bootstrap: str, topic: str, clickhouse: str, log: Path) -> Iterator[Process]:
    """`insights ingest`, until the end of the block."""
    process = start(
        "ingest", log, kafka_bootstrap_servers=bootstrap, kafka_topic=topic, kafka_group=GROUP, metrics_port="0",
        clickhouse_url=clickhouse,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.terminate()
        process.wait(STOP_SECONDS)


def _cpu_seconds(pid: int) -> float:
    """Of all of its threads, so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_A_SECOND


def _resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES


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
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="router-insights-bench-")))
        server = stack.enter_context(ClickHouseServer(folder / "clickhouse"))
        warehouse = Warehouse(server.address)
        migrate(warehouse)
        log = folder / "workers.log"
        processes = [stack.enter_context(_worker(bootstrap, topic, server.address, log)) for _ in range(workers)]
        figures = asyncio.run(_watch(bootstrap, records, server.address, processes, log))
        figures["rows"] = warehouse.query("SELECT count() AS n FROM request_logs")[0]["n"]
        warehouse.close()
    return {"contender": "ours, ClickHouse apart", "workers": workers, **figures}


async def _watch(bootstrap: str, records: int, engine: str, processes: Sequence[Process], log: Path) -> dict[str, Any]:
    pids = [process.pid for process in processes]

    def cpu() -> tuple[float, float]:
        return sum(map(_cpu_seconds, pids)), float(httpx2.get(f"{engine}/cpu").text)

    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        while not (first := await _committed(admin)):
            _check(processes, log)
            await asyncio.sleep(POLL_SECONDS)
        began, before = time.monotonic(), cpu()
        samples, stored = [(0.0, 0, sum(map(_resident_bytes, pids)))], first
        while stored < records:
            _check(processes, log)
            await asyncio.sleep(POLL_SECONDS)
            stored, seconds = await _committed(admin), time.monotonic() - began
            if seconds - samples[-1][0] >= SAMPLE_SECONDS:
                samples.append((seconds, stored - first, sum(map(_resident_bytes, pids))))
        seconds, after = time.monotonic() - began, cpu()
    finally:
        await admin.close()
    return {
        "records": records - first, "seconds": seconds, "cpu_seconds": after[0] - before[0],
        "engine_cpu_seconds": after[1] - before[1], "peak_bytes": sum(map(peak_bytes, pids)), "samples": samples,
    }  # fmt: skip


def _check(processes: Sequence[Process], log: Path) -> None:
    if any(process.poll() is not None for process in processes):
        raise RuntimeError(f"a worker has ended: {log.read_text()[-3000:]}")
