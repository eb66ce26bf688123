"""From a request that is emitted to its alert on the topic, and the memory of an aggregator with many budgets.

`make motion` (ARGS="--rate 5000 --seconds 60 --keys 100000"): Apache Kafka, ClickHouse's engine behind HTTP, one
`insights ingest` and one `insights aggregate`, all on this machine. Each api key has a budget and events come from all
of them at the given rate. Among them are probes: a request of a key whose budget allows one request, so that its alert
is due at once. A probe's time runs from before it is handed to the emitter to the time that Kafka gives its alert.
"""

import argparse
import asyncio
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from rich.console import Console
from rich.table import Table

from aggregator.migrations import migrate
from aggregator.motion.alert import Alert
from aggregator.motion.budget import Budget, Unit
from aggregator.motion.period import Period
from aggregator.motion.scope import Scope, ScopeKind
from aggregator.motion.topics import ALERTS, BUDGET_STATUS, BUDGETS, create_motion_topics
from aggregator.warehouse import Warehouse
from cli.connection import connect
from ingest.emitter import EventEmitter
from ingest.topics import create_topics
from tests.support.clickhouse_http import ClickHouseServer
from tests.support.kafka import KafkaServer

TOPIC = "request-events"
PARTITIONS = 6
PROBES_PER_SECOND = 5
STEP_SECONDS = 0.1
READY_SECONDS = 600.0
PATIENCE_SECONDS = 60.0
MODELS = ("gpt-4o", "gpt-4o-mini", "claude-sonnet-4-5", "gemini-2.5-flash")


def budget(name: str, key: str, limit: int) -> Budget:
    scope = Scope(kind=ScopeKind.API_KEY, value=key)
    return Budget.model_validate(
        {"id": name, "scope": scope, "unit": Unit.REQUESTS, "limit": limit, "period": Period.MONTH, "thresholds": [100]}
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


def start(command: str, log: Path, **settings: str) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, **{f"INSIGHTS_{name.upper()}": value for name, value in settings.items()}}
    with log.open("ab") as file:
        return subprocess.Popen([sys.executable, "-m", "cli.main", command], env=environment, stderr=file, stdout=file)


def resident_mb(process: "subprocess.Popen[bytes]", peak: bool) -> float:
    text = Path(f"/proc/{process.pid}/status").read_text()
    found = re.search(rf"{'VmHWM' if peak else 'VmRSS'}:\s+(\d+) kB", text)
    return int(found[1]) / 1024 if found else 0.0


async def count_statuses(address: str) -> int:
    partition = TopicPartition(BUDGET_STATUS, 0)
    async with AIOKafkaConsumer(bootstrap_servers=address) as consumer:
        return int((await consumer.end_offsets([partition]))[partition])


async def load(emitter: EventEmitter, rate: int, seconds: float, keys: int, name: str) -> dict[str, float]:
    """Emit at the rate; when each probe was emitted (Unix seconds), by its budget."""
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


async def alert_times(address: str, wanted: set[str]) -> dict[str, float]:
    """When Kafka got the alert of each budget (Unix seconds)."""
    found: dict[str, float] = {}
    async with AIOKafkaConsumer(bootstrap_servers=address, auto_offset_reset="earliest") as consumer:
        consumer.assign([TopicPartition(ALERTS, 0)])
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not wanted <= found.keys() and time.monotonic() < deadline:
            for records in (await consumer.getmany(timeout_ms=200)).values():
                for record in records:
                    found.setdefault(Alert.model_validate_json(record.value).budget_id, record.timestamp / 1000)
    return found


def show(delays: list[float], missing: int, rss_mb: float, peak_mb: float, arguments: argparse.Namespace) -> None:
    table = Table("measure", "value", title=f"{arguments.rate:,} events/s for {arguments.seconds:g} s")
    for percent in (50, 95, 99, 100):
        table.add_row(f"emit to alert, p{percent}", f"{np.percentile(delays, percent):.2f} s")
    table.add_row("probes, without an alert", f"{len(delays) + missing}, {missing}")
    table.add_row(f"memory of the aggregator, {arguments.keys:,} api keys with budgets", f"{rss_mb:,.0f} MB")
    table.add_row("its peak", f"{peak_mb:,.0f} MB")
    Console().print(table)


async def measure(folder: Path, kafka: str, clickhouse: str, arguments: argparse.Namespace) -> None:
    url = f"{clickhouse}/motion"
    warehouse = Warehouse(url)
    migrate(warehouse)
    await create_topics(kafka, {TOPIC: PARTITIONS}, timeout_seconds=30)
    await create_motion_topics(kafka)
    probes = int(arguments.seconds * PROBES_PER_SECOND) + 1
    budgets = [budget(f"b-{n}", f"key-{n}", 10**9) for n in range(arguments.keys)]
    await put_budgets(kafka, [*budgets, *(budget(f"probe-{n}", f"probe-{n}", 1) for n in range(probes))])
    settings = {"kafka_bootstrap_servers": kafka, "clickhouse_url": url, "metrics_port": "0"}
    log = folder / "services.log"
    ingest, aggregate = start("ingest", log, **settings), start("aggregate", log, **settings)
    try:
        deadline = time.monotonic() + READY_SECONDS
        while await count_statuses(kafka) < len(budgets):
            if time.monotonic() > deadline or aggregate.poll() is not None:
                raise SystemExit(f"the aggregator did not get ready\n{log.read_text()[-3000:]}")
            await asyncio.sleep(0.5)
        emitter = await connect(kafka, TOPIC)
        await load(emitter, arguments.rate, 5.0, arguments.keys, "warm-up")
        emitted = await load(emitter, arguments.rate, arguments.seconds, arguments.keys, "probe")
        times = await alert_times(kafka, set(emitted))
        await emitter.close()
        delays = [times[name] - at for name, at in emitted.items() if name in times]
        show(delays, len(emitted) - len(delays), resident_mb(aggregate, False), resident_mb(aggregate, True), arguments)
    finally:
        for process in (ingest, aggregate):
            process.terminate()
            process.wait(timeout=30)
        warehouse.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=int, default=5_000)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--keys", type=int, default=100_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="insights-motion-") as name:
        folder = Path(name)
        with KafkaServer(folder / "kafka") as kafka, ClickHouseServer(folder / "clickhouse") as clickhouse:
            asyncio.run(measure(folder, kafka.address, clickhouse.address, arguments))


if __name__ == "__main__":
    main()
