"""Part 1: from Kafka into ClickHouse, side by side on the same bytes."""

import asyncio
import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from aiokafka import AIOKafkaProducer
from rich.console import Console

from ingest.topics.create import create_topics
from tests.benchmarks.contenders import Task
from tests.benchmarks.events import Record
from tests.support.clickhouse_http import ClickHouseServer
from tests.support.kafka import KafkaServer

PARTITIONS = 6
TIMEOUT_SECONDS = 900
# Of the name of a contender: with the engine in a process of its own.
APART = ", ClickHouse apart"


@contextmanager
def broker() -> Iterator[str]:
    """An Apache Kafka of its own. Raises KafkaMissingError."""
    with (
        tempfile.TemporaryDirectory(prefix="router-insights-bench-kafka-") as folder,
        KafkaServer(Path(folder), settings={"message.max.bytes": "12000000"}) as server,
    ):
        yield server.address


async def produce(bootstrap: str, records: Sequence[Record], repeat: int = 1, partitions: int = PARTITIONS) -> str:
    """A new topic with the records, `repeat` times over, lz4; its name."""
    topic = f"bench-{uuid.uuid4().hex[:8]}"
    await create_topics(bootstrap, {topic: partitions}, timeout_seconds=30)
    async with AIOKafkaProducer(
        bootstrap_servers=bootstrap, compression_type="lz4", linger_ms=50, max_batch_size=512 * 1024,
        max_request_size=12_000_000, acks=1,
    ) as producer:  # fmt: skip
        for _ in range(repeat):
            for number, (key, value) in enumerate(records):
                await producer.send(topic, value, key, number % partitions)
    return topic


def run(contender: str, task: Task) -> dict[str, Any]:
    """The figures of one run in a process of its own, and with the engine in another one if the contender's name ends
    with APART. Raises RuntimeError with what it said when it fails."""
    if not contender.endswith(APART):
        return _run(contender, task)
    with (
        tempfile.TemporaryDirectory(prefix="router-insights-bench-") as folder,
        ClickHouseServer(Path(folder) / "clickhouse") as server,
    ):
        figures = _run(contender.removesuffix(APART), task.model_copy(update={"clickhouse": server.address}))
    return {**figures, "contender": contender}


def _run(contender: str, task: Task) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.benchmarks.contenders", contender, task.model_dump_json()]
    # A process that ends by `os._exit`, as Faust's does, leaves its files behind.
    with tempfile.TemporaryDirectory(prefix="router-insights-bench-") as folder:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False,
            env={**os.environ, "TMPDIR": folder},
        )  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        raise RuntimeError(f"{contender} failed: {done.stderr[-3000:]}")
    figures: dict[str, Any] = msgspec.json.decode(lines[-1])
    return figures


def compare(
    bootstrap: str, records: Sequence[Record], counts: dict[str, int], rounds: int, console: Console
) -> list[dict[str, Any]]:
    """Every contender on the first `counts[contender]` records, in turn, `rounds` times over."""
    topics: dict[int, str] = {}
    for count in set(counts.values()):
        topics[count] = asyncio.run(produce(bootstrap, records[:count]))
    results = []
    for number in range(rounds):
        order = list(counts)
        for contender in order if number % 2 == 0 else reversed(order):
            count = counts[contender]
            task = Task(bootstrap=bootstrap, topic=topics[count], partitions=PARTITIONS, records=len(records[:count]))
            figures = run(contender, task)
            console.print(
                f"  {contender:29} {figures['records'] / figures['seconds']:9,.0f} events/s"
                f" {figures['cpu_seconds'] / count * 1e6:7.1f} µs CPU/event"
                f" and {figures['engine_cpu_seconds'] / count * 1e6:5.1f} of an engine apart"
                f" {figures['peak_bytes'] / 2**20:6,.0f} MiB"
            )
            results.append(figures)
    return results
