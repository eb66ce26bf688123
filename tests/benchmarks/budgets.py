"""How long an alert takes from the emitted request to the topic, and the memory of an aggregator with many budgets.

Apache Kafka, ClickHouse's engine behind HTTP, one `insights ingest` and one `insights aggregate` run on this machine.
Each api key has a budget, and events come from all keys at the given rate. Among them are probes: a request of a key
whose budget allows one request, so that its alert is due at once. The delay of a probe runs from before it is handed to
the emitter to the timestamp of its alert in Kafka. Timestamps show where the time goes: `created_at` of the batch, the
timestamp of its increment, `created_at` of the alert and the timestamp of the alert.
"""

import asyncio
import json
import random
import re
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import httpx2
import numpy as np
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from rich.console import Console
from rich.table import Table

from aggregator.budgets.alert import Alert
from aggregator.budgets.budget import Budget, BudgetUnit
from aggregator.budgets.increment import decode
from aggregator.budgets.period import BudgetPeriod
from aggregator.budgets.subject import Subject, SubjectKind, partition_of
from aggregator.budgets.topics import ALERTS, BUDGET_STATUS, BUDGETS, INCREMENTS, create_budget_topics, partitions_of
from aggregator.clickhouse.client import Warehouse
from aggregator.clickhouse.migrate import migrate
from ingest.producer.connection import connect
from ingest.topics.create import create_topics
from router_insights.emitter.event_emitter import EventEmitter
from tests.benchmarks.workers import start_insights
from tests.support.clickhouse_http import ClickHouseServer
from tests.support.kafka import KafkaServer, free_port, read_topic
from tests.support.processes import family_cpu_seconds, peak_bytes, resident_bytes

TOPIC = "request-events"
PARTITIONS = 6
PROBES_PER_SECOND = 5
STEP_SECONDS = 0.1
READY_SECONDS = 600.0
PATIENCE_SECONDS = 60.0
# Words of their command lines.
PROCESSES = {"ingest": "cli.main ingest", "aggregate": "cli.main aggregate", "ClickHouse": "clickhouse_http",
             "Kafka": "kafka.Kafka", "the load": "tests.benchmarks budgets"}  # fmt: skip
MODELS = ("gpt-4o", "gpt-4o-mini", "claude-sonnet-4-5", "gemini-2.5-flash")


@dataclass(frozen=True)
class Load:
    """`rate` events a second for `seconds`, from `keys` api keys."""

    rate: int
    seconds: float
    keys: int


def budget(name: str, key: str, limit: int) -> Budget:
    scope = Subject(kind=SubjectKind.API_KEY, value=key)
    return Budget.model_validate(
        {
            "id": name,
            "scope": scope,
            "unit": BudgetUnit.REQUESTS,
            "limit": limit,
            "period": BudgetPeriod.MONTH,
            "thresholds": [100],
        }
    )


def event(rng: random.Random, request_id: str, key: str) -> tuple[bytes, bytes]:
    value = {
        "request_id": request_id,
        "timestamp": datetime.now(UTC).isoformat(),
        "model_name": rng.choice(MODELS),
        "status": "success",
        "user_id": f"user-{rng.randrange(5000)}",
        "api_key_id": key,
        "input_tokens": rng.randrange(5000),
        "output_tokens": rng.randrange(500),
        "duration_ms": rng.randrange(9000),
        "tags": ["batch"],
    }
    return request_id.encode(), json.dumps(value).encode()


async def put_budgets(address: str, budgets: list[Budget]) -> None:
    async with AIOKafkaProducer(bootstrap_servers=address, linger_ms=20) as producer:
        sent = [
            await producer.send(BUDGETS, one.model_dump_json().encode(), one.id.encode(), partition=0)
            for one in budgets
        ]
        await asyncio.gather(*sent)


async def count_statuses(address: str) -> int:
    partition = TopicPartition(BUDGET_STATUS, 0)
    async with AIOKafkaConsumer(bootstrap_servers=address) as consumer:
        return int((await consumer.end_offsets([partition]))[partition])


async def emit(emitter: EventEmitter, rate: int, seconds: float, keys: int, name: str) -> dict[str, float]:
    """Emit events at the rate. Returns when each probe was emitted (Unix seconds), by its budget."""
    rng, probes = random.Random(1), dict[str, float]()
    loop, number = asyncio.get_running_loop(), 0
    started = loop.time()
    for step in range(int(seconds / STEP_SECONDS)):
        events = [event(rng, f"r-{number + n}", f"key-{rng.randrange(keys)}") for n in range(int(rate * STEP_SECONDS))]
        number += len(events)
        if step % int(1 / STEP_SECONDS / PROBES_PER_SECOND) == 0:
            probe = f"{name}-{len(probes)}"
            events[len(events) // 2] = event(rng, probe, probe)
            probes[probe] = time.time()
        for key, value in events:
            await emitter.emit_raw(key, value)
        await asyncio.sleep(max(0.0, started + (step + 1) * STEP_SECONDS - loop.time()))
    await emitter.flush()
    print(f"emitted {number:,} events in {loop.time() - started:.1f} s", flush=True)
    return probes


async def alerts_of(address: str, wanted: set[str]) -> dict[str, tuple[float, float]]:
    """When the alert of each budget was created and when Kafka got it (Unix seconds)."""
    found: dict[str, tuple[float, float]] = {}
    async with AIOKafkaConsumer(bootstrap_servers=address, auto_offset_reset="earliest") as consumer:
        consumer.assign([TopicPartition(ALERTS, 0)])
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not wanted <= found.keys() and time.monotonic() < deadline:
            for records in (await consumer.getmany(timeout_ms=200)).values():
                for record in records:
                    alert = Alert.model_validate_json(record.value)
                    found.setdefault(alert.budget_id, (alert.created_at.timestamp(), record.timestamp / 1000))
    return found


class Journey(NamedTuple):
    """When a probe passed each point (Unix seconds)."""

    emitted: float
    batched: float
    increment_sent: float
    counted: float
    alert_sent: float


STAGES = (
    "waits for its batch",
    "batch priced, stored, encoded and sent",
    "increment read and counted",
    "alert sent",
)


async def journeys(
    address: str, warehouse: Warehouse, emitted: Mapping[str, float], alerted: Mapping[str, tuple[float, float]]
) -> list[Journey]:
    """One for each probe whose increment was sent and whose alert has come."""
    rows = warehouse.query(
        "SELECT request_id, source_partition, source_offset, toUnixTimestamp64Milli(created_at) AS created_at_ms"
        " FROM request_logs WHERE startsWith(request_id, 'probe-')"
    )
    partitions = await partitions_of(address, INCREMENTS)
    increments: dict[tuple[int, int], list[tuple[int, int, float]]] = {}
    for record in await read_topic(address, INCREMENTS):
        source = decode(record.value).source
        sent = (source.first, source.last, record.timestamp / 1000)
        increments.setdefault((record.partition, source.partition), []).append(sent)
    found = []
    for row in rows:
        name, offset = row["request_id"], row["source_offset"]
        target = partition_of(SubjectKind.API_KEY.value, name, partitions)
        sent_at = [
            at for first, last, at in increments.get((target, row["source_partition"]), []) if first <= offset <= last
        ]
        if sent_at and name in alerted and name in emitted:
            found.append(Journey(emitted[name], row["created_at_ms"] / 1000, min(sent_at), *alerted[name]))
    return found


def show_stages(found: list[Journey]) -> None:
    table = Table("stage", "p50 s", "p95 s", "mean s", title=f"where the time of {len(found)} probes went")
    for number, stage in enumerate(STAGES):
        taken = [journey[number + 1] - journey[number] for journey in found]
        figures = (*np.percentile(taken, (50, 95)), np.mean(taken))
        table.add_row(stage, *(f"{figure:.2f}" for figure in figures))
    Console().print(table)


def show_batches(text: str) -> None:
    """Means of a batch, from the worker's metrics."""
    found = dict(
        re.findall(r"^(insights_\w+_(?:sum|count)|insights_increments_dropped_total) (\S+)$", text, re.MULTILINE)
    )
    means = {
        name: float(found[f"insights_{name}_sum"]) / max(1.0, float(found[f"insights_{name}_count"]))
        for name in ("decode_seconds", "insert_seconds", "batch_records")
    }
    print(
        f"a batch: {means['batch_records']:.0f} records, decoded in {means['decode_seconds']:.3f} s,"
        f" inserted in {means['insert_seconds']:.3f} s;"
        f" {float(found['insights_increments_dropped_total']):.0f} without increments",
        flush=True,
    )


def show(delays: list[float], missing: int, aggregator: int, planned: Load) -> None:
    table = Table("measure", "value", title=f"{planned.rate:,} events/s for {planned.seconds:g} s")
    for percent in (50, 95, 99, 100):
        table.add_row(f"emit to alert, p{percent}", f"{np.percentile(delays, percent):.2f} s")
    table.add_row("probes, without an alert", f"{len(delays) + missing}, {missing}")
    table.add_row(f"memory of the aggregator, {planned.keys:,} api keys with budgets", _mb(resident_bytes(aggregator)))
    table.add_row("its peak", _mb(peak_bytes(aggregator)))
    Console().print(table)


def _mb(size: int) -> str:
    return f"{size / 2**20:,.0f} MB"


async def measure(folder: Path, kafka: str, clickhouse: str, planned: Load) -> None:
    url = f"{clickhouse}/budgets"
    warehouse = Warehouse(url)
    migrate(warehouse)
    await create_topics(kafka, {TOPIC: PARTITIONS}, timeout_seconds=30)
    await create_budget_topics(kafka)
    probes = int(planned.seconds * PROBES_PER_SECOND) + 1
    budgets = [budget(f"b-{n}", f"key-{n}", 10**9) for n in range(planned.keys)]
    await put_budgets(kafka, [*budgets, *(budget(f"probe-{n}", f"probe-{n}", 1) for n in range(probes))])
    settings = {"kafka_bootstrap_servers": kafka, "clickhouse_url": url}
    log, port = folder / "services.log", free_port()
    ingest = start_insights("ingest", log, **settings, metrics_port=str(port))
    aggregate = start_insights("aggregate", log, **settings, metrics_port="0")
    try:
        deadline = time.monotonic() + READY_SECONDS
        while await count_statuses(kafka) < len(budgets):
            if time.monotonic() > deadline or aggregate.poll() is not None:
                raise SystemExit(f"the aggregator did not get ready\n{log.read_text()[-3000:]}")
            await asyncio.sleep(0.5)
        emitter = await connect(kafka, TOPIC)
        await emit(emitter, planned.rate, 5.0, planned.keys, "warm-up")
        before = family_cpu_seconds(PROCESSES)
        emitted = await emit(emitter, planned.rate, planned.seconds, planned.keys, "probe")
        used = {
            name: (seconds - before[name]) / planned.seconds for name, seconds in family_cpu_seconds(PROCESSES).items()
        }
        alerted = await alerts_of(kafka, set(emitted))
        await emitter.close()
        show_batches((await asyncio.to_thread(httpx2.get, f"http://127.0.0.1:{port}/metrics")).text)
        print("processors in use: " + ", ".join(f"{name} {share:.2f}" for name, share in used.items()), flush=True)
        show_stages(await journeys(kafka, warehouse, emitted, alerted))
        delays = [alerted[name][1] - at for name, at in emitted.items() if name in alerted]
        show(delays, len(emitted) - len(delays), aggregate.pid, planned)
    finally:
        for process in (ingest, aggregate):
            process.terminate()
            process.wait(timeout=30)
        warehouse.close()


def run(planned: Load) -> None:
    """Print how long alerts take by stage, and the memory of the aggregator."""
    with tempfile.TemporaryDirectory(prefix="insights-budgets-") as name:
        folder = Path(name)
        with KafkaServer(folder / "kafka") as kafka, ClickHouseServer(folder / "clickhouse") as clickhouse:
            asyncio.run(measure(folder, kafka.address, clickhouse.address, planned))
