"""From emitting an event to seeing its row, while workers are under load."""

import asyncio
import json
import sys
import tempfile
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError

from aggregator.clickhouse.client import Warehouse
from aggregator.clickhouse.migrate import migrate
from cli.local_stack.up import settled_members
from ingest.topics.create import create_topics
from tests.benchmarks.events import make
from tests.benchmarks.ingest import PARTITIONS
from tests.benchmarks.workers import Workers, running
from tests.support.clickhouse_http import ClickHouseServer

TOPIC = "bench-delay"
GROUP = "bench-delay"
POLL_SECONDS = 0.25
STEP_SECONDS = 0.05
STEPS_A_PROBE = 10
PROBE_SECONDS = 0.1
SEEN_SECONDS = 60
BATCH_BYTES = 1024 * 1024
# What of a server's configuration bears on the delay.
CONFIG_XML = Path(__file__).parents[2] / "deploy/clickhouse/config.d/insights.xml"
OF_CONFIG = "os_threads_nice_value_merge_mutate"
# Reading a whole row ten times a second, as the API does, would itself keep a good part of a processor busy. The other
# events are days older.
SEEN = """
SELECT request_id, timestamp FROM request_logs WHERE timestamp >= fromUnixTimestamp64Milli({since_ms:Int64}, 'UTC')
"""


def _config(folder: Path) -> Path:
    """A configuration that gives merges the priority that deploy gives them; without CAP_SYS_NICE it does nothing."""
    config = ElementTree.Element("clickhouse")
    config.extend(ElementTree.parse(CONFIG_XML).findall(OF_CONFIG))
    path = folder / "config.xml"
    path.write_bytes(ElementTree.tostring(config))
    return path


def measure_delay(bootstrap: str, rate: int, seconds: int, workers: int) -> dict[str, Any]:
    """Percentiles of the delay of one probe every half second among `rate` other events a second; each is up to
    PROBE_SECONDS too long.

    A probe's timestamp is when it was emitted, and it is seen when its row can be read. Producer, engine, workers and
    prober are processes of their own. Raises RuntimeError when a worker ends.
    """
    with (
        tempfile.TemporaryDirectory(prefix="router-insights-delay-") as folder,
        ClickHouseServer(Path(folder) / "clickhouse", _config(Path(folder))) as server,
    ):
        warehouse = Warehouse(server.address)
        migrate(warehouse)
        asyncio.run(create_topics(bootstrap, {TOPIC: PARTITIONS}, timeout_seconds=30))
        with running(bootstrap, TOPIC, GROUP, server.address, workers, Path(folder) / "workers.log") as processes:
            figures = asyncio.run(_measure(bootstrap, rate, seconds, warehouse, processes))
        warehouse.close()
    return {"workers": workers, "asked_events_per_second": rate, **figures}


async def _measure(bootstrap: str, rate: int, seconds: int, warehouse: Warehouse, workers: Workers) -> dict[str, Any]:
    await _joined(bootstrap, workers)
    delays: list[float] = []
    steps = int(seconds / STEP_SECONDS)
    command = [sys.executable, "-m", "tests.benchmarks.delay", bootstrap, str(rate), str(steps)]
    producing = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    with suppress(TimeoutError):
        await asyncio.wait_for(_probe(warehouse, steps, delays), 2 * seconds + SEEN_SECONDS)
    output, _ = await producing.communicate()
    workers.check()
    p50, p95, p99 = (float(each) for each in np.percentile(delays, (50, 95, 99)))
    return {
        "events_per_second": json.loads(output), "probes": len(delays),
        "unseen": len(range(0, steps, STEPS_A_PROBE)) - len(delays), "p50_s": p50, "p95_s": p95, "p99_s": p99,
    }  # fmt: skip


async def _joined(bootstrap: str, workers: Workers) -> None:
    """Wait until the partitions are shared out, so that no probe waits for a worker that is starting."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        while not await _is_shared_out(admin, len(workers)):
            workers.check()
            await asyncio.sleep(POLL_SECONDS)
    finally:
        await admin.close()


async def _is_shared_out(admin: AIOKafkaAdminClient, workers: int) -> bool:
    try:
        return await settled_members(admin, GROUP) == workers
    except GroupCoordinatorNotAvailableError:
        return False  # A Kafka that is new: its topic of groups is still being made.


async def _probe(warehouse: Warehouse, steps: int, delays: list[float]) -> None:
    """Ask every PROBE_SECONDS which probes are there, so that none waits for another."""
    since_ms = int(time.time() * 1000)
    unseen = {f"probe-{step}" for step in range(0, steps, STEPS_A_PROBE)}
    while unseen:
        rows = await asyncio.to_thread(warehouse.query, SEEN, {"since_ms": since_ms})
        now = datetime.now(UTC)
        seen = {row["request_id"]: row["timestamp"].replace(tzinfo=UTC) for row in rows if row["request_id"] in unseen}
        delays += [(now - emitted).total_seconds() for emitted in seen.values()]
        unseen -= seen.keys()
        await asyncio.sleep(PROBE_SECONDS)


async def _produce(bootstrap: str, rate: int, steps: int) -> float:
    """Emit `rate` events a second and a probe now and then; how many a second it came to.

    The events go in batches made by hand, which take a fraction of the processor that the worker needs, too.
    """
    a_step = int(rate * STEP_SECONDS)
    pool = make(min(a_step * steps, 200_000))
    async with AIOKafkaProducer(
        bootstrap_servers=bootstrap, compression_type="lz4", linger_ms=10, max_batch_size=BATCH_BYTES
    ) as producer:
        started = time.monotonic()
        for step in range(steps):
            for partition in range(PARTITIONS):
                batch = producer.create_batch()
                for place in range(step * a_step + partition, (step + 1) * a_step, PARTITIONS):
                    key, value = pool[place % len(pool)]
                    if batch.append(key=key, value=value, timestamp=None) is None:
                        raise RuntimeError(f"a step of {a_step} events does not fit into {PARTITIONS} batches")
                await producer.send_batch(batch, TOPIC, partition=partition)
            if step % STEPS_A_PROBE == 0:
                name, now = f"probe-{step}", datetime.now(UTC).isoformat().replace("+00:00", "Z")
                event = {"request_id": name, "timestamp": now, "model_name": "gpt-4o", "status": "success"}
                await producer.send(TOPIC, json.dumps(event).encode(), name.encode())
            await asyncio.sleep(max(0.0, started + (step + 1) * STEP_SECONDS - time.monotonic()))
        return a_step * steps / (time.monotonic() - started)


if __name__ == "__main__":
    print(asyncio.run(_produce(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
