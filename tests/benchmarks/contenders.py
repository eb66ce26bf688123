"""The ways from Kafka into ClickHouse that are compared, each run in a process of its own.

`python -m tests.benchmarks.contenders NAME JSON` takes every record of a topic into an empty database and prints its
figures as JSON. All use aiokafka with the same settings, two insert threads, batches of at most 50,000 records or
32 MB, and the tables and views of `insights migrate`. The engine is in the same process or, where the task has the
address of one, behind HTTP in a process of its own, as in production: then CPU and memory are the ingest process's.

- `ours`: the ingest worker as it is;
- `passthrough`: raw bytes `FORMAT JSONEachRow`, no check, no price, at least once: a generic connector at its best;
- `pydantic`: the event model for each record, rows inserted in batches, no price;
- `faust`: a Faust agent that takes batches of raw bytes and inserts them like `passthrough`.
"""

import asyncio
import gc
import json
import os
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import wraps
from typing import Any

import httpx2
from aiokafka import AIOKafkaConsumer, TopicPartition
from pydantic import BaseModel

from aggregator.clickhouse.client import Warehouse
from aggregator.clickhouse.migrate import migrate
from aggregator.clickhouse.tables import PAYLOAD_COLUMNS
from ingest import metrics
from ingest.consumer import sink, worker
from ingest.consumer.batch import Batch
from ingest.consumer.partition_buffer import PartitionBuffer
from ingest.settings import IngestSettings
from ingest.transform.decoder import Decoder
from router_insights.emitter.event import RequestEvent
from tests.support.processes import peak_bytes

POLL_SECONDS = 0.05
BATCH_ROWS = 50_000
BATCH_BYTES = 32 * 1024 * 1024
JSON_SETTINGS = {
    "async_insert": 0,
    "input_format_skip_unknown_fields": 1,
    "input_format_null_as_default": 1,
    "input_format_allow_errors_num": 1_000_000_000,
    "input_format_json_read_objects_as_strings": 1,
    "date_time_input_format": "best_effort",
    "max_partitions_per_insert_block": 0,
}


class Task(BaseModel):
    """What a contender is to do: `records` are in `topic`."""

    bootstrap: str
    topic: str
    partitions: int
    records: int
    clickhouse: str | None = None


@dataclass
class Figures:
    """Of the time from the first record that was fetched to the last that was committed. CPU is that of the whole
    process, with the engine if that is in it; `engine_cpu_seconds` is that of an engine apart.
    `stages` is CPU seconds of this process's Python threads by what they did."""

    contender: str
    records: int
    rows: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    engine_cpu_seconds: float = 0.0
    peak_bytes: int = 0
    stages: dict[str, float] = field(default_factory=dict)


class Stopwatch:
    """CPU seconds of threads by stage; a stage inside another counts for itself only."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._local = threading.local()
        self._lock = threading.Lock()

    def timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(*arguments: Any, **named: Any) -> Any:
            outer, self._local.inner = getattr(self._local, "inner", 0.0), 0.0
            started = time.thread_time()
            try:
                return function(*arguments, **named)
            finally:
                spent = time.thread_time() - started
                with self._lock:
                    self.seconds[stage] += spent - self._local.inner
                self._local.inner = outer + spent

        return call

    def watch(self, owner: Any, name: str, stage: str) -> None:
        setattr(owner, name, self.timed(stage, getattr(owner, name)))


class Meter:
    """Starts with the first record and stops with the last."""

    def __init__(self, contender: str, task: Task) -> None:
        self.figures = Figures(contender, task.records)
        self._clickhouse = task.clickhouse
        self._start: tuple[float, float, float] | None = None

    def begin(self, *_: object) -> None:
        if self._start is None:
            self._start = time.perf_counter(), time.process_time(), self._engine_cpu()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._start[0] if self._start else 0.0

    def _engine_cpu(self) -> float:
        return float(httpx2.get(f"{self._clickhouse}/cpu").text) if self._clickhouse else 0.0

    def end(self, warehouse: Warehouse) -> Figures:
        _, cpu, engine_cpu = self._start or (0.0, 0.0, 0.0)
        self.figures.seconds = self.seconds
        self.figures.cpu_seconds = time.process_time() - cpu
        self.figures.engine_cpu_seconds = self._engine_cpu() - engine_cpu
        self.figures.peak_bytes = peak_bytes(os.getpid())
        self.figures.rows = warehouse.query("SELECT count() AS n FROM request_logs")[0]["n"]
        return self.figures


def _consumer(task: Task) -> AIOKafkaConsumer:
    return AIOKafkaConsumer(
        bootstrap_servers=task.bootstrap, group_id=f"bench-{os.getpid()}", enable_auto_commit=False,
        auto_offset_reset="earliest", isolation_level="read_committed",
        max_partition_fetch_bytes=worker.FETCH_BYTES_PER_PARTITION,
    )  # fmt: skip


def run_ours(task: Task, warehouse: Warehouse) -> Figures:
    meter, watch = Meter("ours", task), Stopwatch()
    add = PartitionBuffer.add

    def begin_and_add(buffer: PartitionBuffer, records: Sequence[Any]) -> None:
        meter.begin()
        add(buffer, records)

    setattr(PartitionBuffer, "add", begin_and_add)  # noqa: B010 - it is a method, which mypy lets nobody assign
    watch.watch(Decoder, "decode", "decode")
    for name in ("with_usage_source", "with_derived", "request_logs", "request_payloads", "dead_letters"):
        watch.watch(sink, name, name)
    watch.watch(sink, "price_events", "price")
    watch.watch(Warehouse, "insert", "insert, calling thread")
    watch.watch(Batch.__dict__["digest"], "func", "digest")
    settings = IngestSettings(
        kafka_bootstrap_servers=task.bootstrap, kafka_topic=task.topic, kafka_group=f"bench-{os.getpid()}",
        metrics_port=0,
    )  # fmt: skip

    gc.set_threshold(worker.OBJECTS_BETWEEN_COLLECTIONS)

    async def run() -> Figures:
        stop = asyncio.Event()
        loop_cpu = time.thread_time()
        consuming = asyncio.create_task(worker.Worker(settings, warehouse).run(stop))
        while not consuming.done():
            await asyncio.sleep(POLL_SECONDS / 5)
            if _stored() >= task.records:
                break
        figures = meter.end(warehouse)
        watch.seconds["fetch, declare and commit"] = time.thread_time() - loop_cpu - watch.seconds["digest"]
        stop.set()
        await consuming
        python = sum(watch.seconds.values())
        others = "other threads" if task.clickhouse else "ClickHouse's threads"
        figures.stages = {**watch.seconds, others: figures.cpu_seconds - python}
        return figures

    return asyncio.run(run())


def _stored() -> int:
    found = [sample for family in metrics.RECORDS.collect() for sample in family.samples]
    return int(sum(sample.value for sample in found if sample.name.endswith("_total")))


async def _pump(task: Task, meter: Meter, write: Callable[[Sequence[bytes]], None]) -> None:
    """Batches per partition through two threads, committed after the insert: at least once."""
    consumer, pool = _consumer(task), ThreadPoolExecutor(2)
    loop = asyncio.get_running_loop()
    places = [TopicPartition(task.topic, number) for number in range(task.partitions)]
    buffers: dict[TopicPartition, list[bytes]] = {place: [] for place in places}
    sizes, offsets = Counter[TopicPartition](), dict.fromkeys(places, 0)
    running: dict[TopicPartition, asyncio.Future[None]] = {}
    taken = 0
    await consumer.start()
    consumer.assign(places)
    while taken < task.records or any(buffers.values()) or running:
        for place in [place for place, each in running.items() if each.done()]:
            running.pop(place).result()
            await consumer.commit({place: offsets[place]})
        wanted = [place for place in places if len(buffers[place]) < BATCH_ROWS and sizes[place] < BATCH_BYTES]
        fetched = await consumer.getmany(*wanted, timeout_ms=50, max_records=20_000) if wanted else {}
        for place, found in fetched.items():
            meter.begin()
            buffers[place] += [record.value for record in found]
            sizes[place] += sum(len(record.value) for record in found)
            offsets[place] = found[-1].offset + 1
            taken += len(found)
        for place in places:
            is_full = len(buffers[place]) >= BATCH_ROWS or sizes[place] >= BATCH_BYTES
            if place not in running and buffers[place] and (is_full or taken >= task.records):
                batch, buffers[place], sizes[place] = buffers[place], [], 0
                running[place] = loop.run_in_executor(pool, write, batch)
        if not wanted and running:
            await asyncio.wait(running.values(), return_when=asyncio.FIRST_COMPLETED)
    await consumer.stop()


def raw_writer(warehouse: Warehouse) -> Callable[[Sequence[bytes]], None]:
    """Inserts raw bytes. One parse feeds both tables: a Null table whose views fill them is faster than two inserts."""
    payload = ", ".join(f"{name} String" for name in PAYLOAD_COLUMNS)
    columns = warehouse.query(
        "SELECT name, type FROM system.columns WHERE database = currentDatabase() AND table = 'request_logs'"
        " AND default_kind IN ('', 'EPHEMERAL')"
    )
    log = ", ".join(f"{row['name']} {row['type']}" for row in columns)
    names = ", ".join(row["name"] for row in columns)
    warehouse.command(f"CREATE TABLE landing ({log}, {payload}) ENGINE = Null")
    warehouse.command(f"CREATE MATERIALIZED VIEW landing_logs TO request_logs AS SELECT {names} FROM landing")
    fields = ", ".join(PAYLOAD_COLUMNS)
    has_payload = " OR ".join(f"{name} != ''" for name in PAYLOAD_COLUMNS)
    warehouse.command(
        "CREATE MATERIALIZED VIEW landing_payloads TO request_payloads AS"
        f" SELECT timestamp, request_id, created_at, source_partition, source_offset, {fields} FROM landing"
        f" WHERE {has_payload}"
    )

    def write(values: Sequence[bytes]) -> None:
        warehouse.client.raw_insert(
            "landing", insert_block=b"\n".join(values), fmt="JSONEachRow", settings=JSON_SETTINGS
        )

    return write


def run_passthrough(task: Task, warehouse: Warehouse) -> Figures:
    meter = Meter("passthrough", task)
    write = raw_writer(warehouse)
    asyncio.run(_pump(task, meter, write))
    return meter.end(warehouse)


def run_pydantic(task: Task, warehouse: Warehouse) -> Figures:
    meter = Meter("pydantic", task)
    json_names = {"request_headers", "request_body", "response_headers", "response_body", "llm_parameters",
                  "input_variables", "usage"}  # fmt: skip
    payload = list(PAYLOAD_COLUMNS)
    logs = [name for name in RequestEvent.model_fields if name not in payload]

    def text(name: str, value: Any) -> Any:
        if name == "metadata":
            return value or {}
        if name in json_names:
            return value if isinstance(value, str) else "" if value is None else json.dumps(value)
        return ([] if name in {"tags", "tool_names"} else "") if value is None and name in texts else value

    found = warehouse.query(
        "SELECT name, type FROM system.columns WHERE database = currentDatabase() AND table = 'request_logs'"
    )
    texts = {row["name"] for row in found if not row["type"].startswith("Nullable")}

    def write(values: Sequence[bytes]) -> None:
        log_rows, payload_rows = [], []
        for value in values:
            try:
                event = RequestEvent.model_validate_json(value)
            except ValueError:
                continue
            log_rows.append([text(name, getattr(event, name)) for name in logs])
            row = [text(name, getattr(event, name)) for name in payload]
            if any(row):
                payload_rows.append([event.timestamp, event.request_id, *row])
        warehouse.client.insert("request_logs", log_rows, column_names=logs)
        if payload_rows:
            names = ["timestamp", "request_id", *payload]
            warehouse.client.insert(
                "request_payloads", [[c or "" for c in row] for row in payload_rows], column_names=names
            )

    asyncio.run(_pump(task, meter, write))
    return meter.end(warehouse)


def run_faust(task: Task, warehouse: Warehouse) -> Figures:
    import faust

    meter = Meter("faust", task)
    write = raw_writer(warehouse)
    with tempfile.TemporaryDirectory() as folder:
        app = faust.App(
            f"bench-{os.getpid()}", broker=f"kafka://{task.bootstrap}", datadir=folder, web_enabled=False,
            store="memory://", consumer_auto_offset_reset="earliest", topic_partitions=task.partitions,
        )  # fmt: skip
        topic = app.topic(task.topic, value_type=bytes, value_serializer="raw", key_serializer="raw")
        taken = 0

        @app.agent(topic)
        async def store(stream: Any) -> None:
            nonlocal taken
            async for values in stream.take(5_000, within=1.0):
                meter.begin()
                await asyncio.to_thread(write, values)
                taken += len(values)
                if taken >= task.records:
                    # Faust has taken stdout for its log.
                    print(json.dumps(asdict(meter.end(warehouse))), file=sys.__stdout__, flush=True)
                    os._exit(0)

        faust.Worker(app, loglevel="error").execute_from_commandline()
    return meter.figures


CONTENDERS: dict[str, Callable[[Task, Warehouse], Figures]] = {
    "ours": run_ours,
    "passthrough": run_passthrough,
    "pydantic": run_pydantic,
    "faust": run_faust,
}


def main() -> None:
    task = Task.model_validate_json(sys.argv[2])
    with tempfile.TemporaryDirectory(prefix="router-insights-bench-") as folder:
        warehouse = Warehouse(task.clickhouse or f"chdb://{folder}")
        migrate(warehouse)
        print(json.dumps(asdict(CONTENDERS[sys.argv[1]](task, warehouse))), flush=True)
        warehouse.close()


if __name__ == "__main__":
    main()
