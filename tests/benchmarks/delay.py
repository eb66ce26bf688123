"""From emitting an event to seeing it through the API's query, while the worker is under load."""

import asyncio
import json
import tempfile
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import numpy as np
from aiokafka import AIOKafkaProducer

from aggregator.migrations import migrate
from aggregator.warehouse import Warehouse
from api.logs import LOOKUP_SETTINGS, NEWEST_OF_ID
from ingest.settings import IngestSettings
from ingest.topics import create_topics
from ingest.worker import Worker
from tests.benchmarks.events import make
from tests.benchmarks.ingest import PARTITIONS

TOPIC = "bench-delay"
STEP_SECONDS = 0.05
PROBE_SECONDS = 0.02
SEEN_SECONDS = 60


def measure_delay(bootstrap: str, rate: int, seconds: int) -> dict[str, Any]:
    """Percentiles of the delay of one probe every STEP_SECONDS among `rate` other events a second.

    Producer, worker, engine and API query share this process, so the delay is an upper bound.
    """
    return asyncio.run(_measure(bootstrap, rate, seconds))


async def _measure(bootstrap: str, rate: int, seconds: int) -> dict[str, Any]:
    await create_topics(bootstrap, {TOPIC: PARTITIONS}, timeout_seconds=30)
    pool = make(min(rate * seconds, 200_000))
    sent: dict[str, float] = {}
    delays: list[float] = []
    with tempfile.TemporaryDirectory(prefix="router-insights-delay-") as folder:
        warehouse = Warehouse(f"chdb://{folder}")
        migrate(warehouse)
        stop = asyncio.Event()
        settings = IngestSettings(kafka_bootstrap_servers=bootstrap, kafka_topic=TOPIC, metrics_port=0)
        consuming = asyncio.create_task(Worker(settings, warehouse).run(stop))
        emitted = asyncio.Event()
        probing = asyncio.create_task(_probe(warehouse, sent, delays, emitted))
        steps = int(seconds / STEP_SECONDS)
        async with AIOKafkaProducer(bootstrap_servers=bootstrap, compression_type="lz4", linger_ms=10) as producer:
            started = time.monotonic()
            for step in range(steps):
                for place in range(int(rate * STEP_SECONDS)):
                    key, value = pool[(step * int(rate * STEP_SECONDS) + place) % len(pool)]
                    await producer.send(TOPIC, value, key)
                name = f"probe-{step}"
                event = {
                    "request_id": name, "timestamp": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
                    "model_name": "gpt-4o", "status": "success",
                }  # fmt: skip
                sent[name] = time.monotonic()
                await producer.send(TOPIC, json.dumps(event).encode(), name.encode())
                await asyncio.sleep(max(0.0, started + (step + 1) * STEP_SECONDS - time.monotonic()))
            emitted_seconds = time.monotonic() - started
        emitted.set()
        with suppress(TimeoutError):
            await asyncio.wait_for(probing, SEEN_SECONDS)
        stop.set()
        await consuming
        warehouse.close()
    p50, p95, p99 = (float(each) for each in np.percentile(delays, (50, 95, 99)))
    return {
        "asked_events_per_second": rate, "events_per_second": steps * int(rate * STEP_SECONDS) / emitted_seconds,
        "probes": len(delays),
        "unseen": len(sent), "p50_s": p50, "p95_s": p95, "p99_s": p99,
    }  # fmt: skip


async def _probe(warehouse: Warehouse, sent: dict[str, float], delays: list[float], emitted: asyncio.Event) -> None:
    """Ask for the oldest probe that is not visible yet until all are."""
    while sent or not emitted.is_set():
        for name, started in list(sent.items()):
            found = await asyncio.to_thread(warehouse.query, NEWEST_OF_ID, {"request_id": name}, dict(LOOKUP_SETTINGS))
            if not found:
                break
            delays.append(time.monotonic() - started)
            del sent[name]
        await asyncio.sleep(PROBE_SECONDS)
