"""From a request that is emitted to its alert on the topic, and the memory of an aggregator with many budgets.

`make motion` (ARGS="--rate 5000 --seconds 60 --keys 100000"): Apache Kafka, ClickHouse's engine behind HTTP, one
`insights ingest` and one `insights aggregate`, all on this machine. Each api key has a budget and events come from all
of them at the given rate. Among them are probes: a request of a key whose budget allows one request, so that its alert
is due at once. A probe's time runs from before it is handed to the emitter to the time that Kafka gives its alert.
What each left behind on its way tells how long every stage took: the batch's `created_at`, the time of its increment in
Kafka, the alert's `created_at` and its time in Kafka.
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
from collections.abc import Mapping
from contextlib import suppress
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
from aggregator.budgets.period import Period
from aggregator.budgets.subject import Subject, SubjectKind, partition_of
from aggregator.budgets.topics import ALERTS, BUDGET_STATUS, BUDGETS, INCREMENTS, create_motion_topics, partitions_of
from aggregator.clickhouse.client import Warehouse
from aggregator.clickhouse.migrate import migrate
from cli.adapters.emitter import connect
from ingest.producer.emitter import EventEmitter
from ingest.topics.create import create_topics
from tests.support.clickhouse_http import ClickHouseServer
from tests.support.kafka import KafkaServer, free_port, read_topic

TOPIC = "request-events"
PARTITIONS = 6
PROBES_PER_SECOND = 5
STEP_SECONDS = 0.1
READY_SECONDS = 600.0
PATIENCE_SECONDS = 60.0
# By words of their command line.
PROCESSES = {"ingest": "cli.main ingest", "aggregate": "cli.main aggregate", "ClickHouse": "clickhouse_http",
             "Kafka": "kafka.Kafka", "the load": "bench_motion"}  # fmt: skip
MODELS = ("gpt-4o", "gpt-4o-mini", "claude-sonnet-4-5", "gemini-2.5-flash")


def budget(name: str, key: str, limit: int) -> Budget:
    scope = Subject(kind=SubjectKind.API_KEY, value=key)
    return Budget.model_validate(
        {
            "id": name,
            "scope": scope,
            "unit": BudgetUnit.REQUESTS,
            "limit": limit,
            "period": Period.MONTH,
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


def start(command: str, log: Path, **settings: str) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, **{f"INSIGHTS_{name.upper()}": value for name, value in settings.items()}}
    with log.open("ab") as file:
        return subprocess.Popen([sys.executable, "-m", "cli.main", command], env=environment, stderr=file, stdout=file)


def resident_mb(process: "subprocess.Popen[bytes]", peak: bool) -> float:
    text = Path(f"/proc/{process.pid}/status").read_text()
    found = re.search(rf"{'VmHWM' if peak else 'VmRSS'}:\s+(\d+) kB", text)
    return int(found[1]) / 1024 if found else 0.0


def cpu_seconds() -> dict[str, float]:
    """User and system time so far of this process and of those that it has started, by what they are."""
    found, parents = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            parents[folder.name] = fields[1]
            found[folder.name] = (
                (folder / "cmdline").read_text().replace("\0", " "),
                (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"),
            )
    family = {str(os.getpid())}
    while grown := {process for process, parent in parents.items() if parent in family} - family:
        family |= grown
    return {
        name: sum(seconds for process, (command, seconds) in found.items() if process in family and words in command)
        for name, words in PROCESSES.items()
    }


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


async def alerts_of(address: str, wanted: set[str]) -> dict[str, tuple[float, float]]:
    """When the alert of each budget was made and when Kafka got it (Unix seconds)."""
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
    planned: float
    told: float
    counted: float
    alerted: float


STAGES = (
    "waits for its batch",
    "batch priced, stored, encoded and sent",
    "increment read and counted",
    "alert sent",
)


async def journeys(
    address: str, warehouse: Warehouse, emitted: Mapping[str, float], alerted: Mapping[str, tuple[float, float]]
) -> list[Journey]:
    """Of the probes whose increment was sent and whose alert has come."""
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
        told = [
            at for first, last, at in increments.get((target, row["source_partition"]), []) if first <= offset <= last
        ]
        if told and name in alerted and name in emitted:
            found.append(Journey(emitted[name], row["created_at_ms"] / 1000, min(told), *alerted[name]))
    return found


def show_stages(found: list[Journey]) -> None:
    table = Table("stage", "p50 s", "p95 s", "mean s", title=f"where {len(found)} probes were")
    for number, stage in enumerate(STAGES):
        taken = [journey[number + 1] - journey[number] for journey in found]
        figures = (*np.percentile(taken, (50, 95)), np.mean(taken))
        table.add_row(stage, *(f"{figure:.2f}" for figure in figures))
    Console().print(table)


def show_batches(text: str) -> None:
    """What the worker's metrics say of a batch."""
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
    settings = {"kafka_bootstrap_servers": kafka, "clickhouse_url": url}
    log, port = folder / "services.log", free_port()
    ingest = start("ingest", log, **settings, metrics_port=str(port))
    aggregate = start("aggregate", log, **settings, metrics_port="0")
    try:
        deadline = time.monotonic() + READY_SECONDS
        while await count_statuses(kafka) < len(budgets):
            if time.monotonic() > deadline or aggregate.poll() is not None:
                raise SystemExit(f"the aggregator did not get ready\n{log.read_text()[-3000:]}")
            await asyncio.sleep(0.5)
        emitter = await connect(kafka, TOPIC)
        await load(emitter, arguments.rate, 5.0, arguments.keys, "warm-up")
        before = cpu_seconds()
        emitted = await load(emitter, arguments.rate, arguments.seconds, arguments.keys, "probe")
        used = {name: (seconds - before[name]) / arguments.seconds for name, seconds in cpu_seconds().items()}
        alerted = await alerts_of(kafka, set(emitted))
        await emitter.close()
        show_batches((await asyncio.to_thread(httpx2.get, f"http://127.0.0.1:{port}/metrics")).text)
        print("processors in use: " + ", ".join(f"{name} {share:.2f}" for name, share in used.items()), flush=True)
        show_stages(await journeys(kafka, warehouse, emitted, alerted))
        delays = [alerted[name][1] - at for name, at in emitted.items() if name in alerted]
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
