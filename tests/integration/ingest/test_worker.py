"""The worker on a real broker and the real engine. Kill -9 and friends are in tests/faults; these are the
cases that one process can show."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from prometheus_client import REGISTRY

from aggregator.clickhouse.client import Warehouse, WarehouseUnavailableError
from aggregator.rollups import rebuild
from ingest.consumer.batch import Batch
from ingest.consumer.dead_letter_limit import DeadLetterLimitError
from ingest.consumer.group_coordinator import Member
from ingest.consumer.partition_buffer import PartitionBuffer
from ingest.consumer.sink import Sink
from ingest.consumer.worker import Worker
from ingest.pricing import PriceBook
from ingest.settings import IngestSettings
from tests.support.events import MINIMAL
from tests.support.kafka import PATIENCE_SECONDS, stack

needs_apache_kafka = pytest.mark.skipif(
    stack() == "embedded", reason="the embedded broker drops commit metadata; run with INSIGHTS_TEST_STACK=kafka"
)
# For the batches in flight.
STOP_SECONDS = 60.0
STORED = """
SELECT source_partition AS partition, source_offset AS offset FROM request_logs WHERE source_topic = {topic:String}
UNION ALL
SELECT source_partition, source_offset FROM dead_letters WHERE source_topic = {topic:String}
"""


def make_settings(broker: str, topic: str, **overrides: Any) -> IngestSettings:
    values = {
        "kafka_bootstrap_servers": broker,
        "kafka_topic": topic,
        "kafka_group": f"group-of-{topic}",
        "kafka_session_timeout_ms": 1000 if stack() == "embedded" else 6000,
        "flush_seconds": 0.1,
        "metrics_port": 0,
    }
    return IngestSettings(**{**values, **overrides})


@asynccontextmanager
async def running(worker: Worker) -> AsyncIterator["asyncio.Task[None]"]:
    """The worker at work inside the block, stopped in good order after it."""
    stop = asyncio.Event()
    task = asyncio.create_task(worker.run(stop))
    try:
        yield task
    finally:
        stop.set()
        await task


async def until(condition: Callable[[], bool], *tasks: "asyncio.Task[None]", seconds: float = PATIENCE_SECONDS) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            for task in tasks:
                if task.done():
                    task.result()
            await asyncio.sleep(0.05)


async def produce(broker: str, topic: str, values: list[bytes], partition: int | None = None) -> set[tuple[int, int]]:
    """(partition, offset) of everything produced."""
    producer = AIOKafkaProducer(bootstrap_servers=broker, enable_idempotence=False)
    await producer.start()
    try:
        futures = [await producer.send(topic, value, partition=partition) for value in values]
        return {(sent.partition, sent.offset) for sent in await asyncio.gather(*futures)}
    finally:
        await producer.stop()


def events(count: int, prefix: str = "r") -> list[bytes]:
    return [json.dumps({**MINIMAL, "request_id": f"{prefix}-{n}", "input_tokens": n}).encode() for n in range(count)]


def stored(warehouse: Warehouse, topic: str) -> list[tuple[int, int]]:
    rows = warehouse.query(STORED, {"topic": topic})
    return sorted((row["partition"], row["offset"]) for row in rows)


async def until_stored(
    warehouse: Warehouse, topic: str, produced: set[tuple[int, int]], *tasks: "asyncio.Task[None]"
) -> None:
    await until(lambda: len(stored(warehouse, topic)) >= len(produced), *tasks)


def assert_exactly_once(warehouse: Warehouse, topic: str, produced: set[tuple[int, int]]) -> None:
    assert stored(warehouse, topic) == sorted(produced)
    assert [drift for drift in rebuild.verify(warehouse) if not drift.is_zero] == []


async def test_every_record_becomes_one_row_or_one_dead_letter(broker: str, topic: str, warehouse: Warehouse) -> None:
    produced = await produce(broker, topic, [*events(500), b"broken", b"", b"\xff" * 10])
    async with running(Worker(make_settings(broker, topic), warehouse)) as task:
        await until_stored(warehouse, topic, produced, task)
    assert_exactly_once(warehouse, topic, produced)
    assert warehouse.query("SELECT count() AS n FROM dead_letters")[0]["n"] == 3


async def test_a_worker_goes_on_where_the_last_one_stopped(broker: str, topic: str, warehouse: Warehouse) -> None:
    produced: set[tuple[int, int]] = set()
    for life in range(3):
        produced |= await produce(broker, topic, events(50, prefix=f"life-{life}"))
        async with running(Worker(make_settings(broker, topic), warehouse)) as task:
            await until_stored(warehouse, topic, produced, task)
    assert_exactly_once(warehouse, topic, produced)


async def test_small_batches_keep_the_order_of_offsets_whole(broker: str, topic: str, warehouse: Warehouse) -> None:
    produced = await produce(broker, topic, events(200), partition=0)
    async with running(Worker(make_settings(broker, topic, flush_rows=7), warehouse)) as task:
        await until_stored(warehouse, topic, produced, task)
    assert_exactly_once(warehouse, topic, produced)
    batches = warehouse.query("SELECT count() AS n FROM request_logs GROUP BY created_at ORDER BY n DESC")
    assert batches[0]["n"] <= 14  # two batches may be planned within a millisecond


class FailingSink(Sink):
    """Fails the first `failures` writes: before anything is written, or after, when only the answer is lost."""

    def __init__(self, warehouse: Warehouse, failures: int, error: Exception, after: bool) -> None:
        super().__init__(warehouse, PriceBook())
        self.failures, self.error, self.after = failures, error, after

    def write(self, batch: Batch) -> Any:
        usage = super().write(batch) if self.after or self.failures <= 0 else None
        self.failures -= 1
        if self.failures >= 0:
            raise self.error
        return usage


@pytest.mark.parametrize("after", [False, True], ids=["nothing written", "answer lost"])
async def test_what_clickhouse_refuses_for_a_while_is_written_once(
    broker: str, topic: str, warehouse: Warehouse, after: bool
) -> None:
    produced = await produce(broker, topic, events(100))
    worker = Worker(make_settings(broker, topic), warehouse)
    worker._sink = sink = FailingSink(warehouse, 4, WarehouseUnavailableError("away"), after)
    retries_before = REGISTRY.get_sample_value("insights_insert_retries_total") or 0.0
    async with running(worker) as task:
        await until(lambda: len(stored(warehouse, topic)) >= len(produced) and sink.failures <= 0, task)
        produced |= await produce(broker, topic, events(20, prefix="later"))
        await until_stored(warehouse, topic, produced, task)
    assert_exactly_once(warehouse, topic, produced)
    assert (REGISTRY.get_sample_value("insights_insert_retries_total") or 0.0) >= retries_before + 4


@pytest.mark.parametrize(
    "after", [False, pytest.param(True, marks=needs_apache_kafka)], ids=["nothing written", "all written"]
)
async def test_a_worker_that_fails_for_good_stops_and_its_successor_writes_the_batch_once(
    broker: str, topic: str, warehouse: Warehouse, after: bool
) -> None:
    produced = await produce(broker, topic, events(100))
    worker = Worker(make_settings(broker, topic), warehouse)
    worker._sink = FailingSink(warehouse, 1, RuntimeError("a defect"), after)
    with pytest.raises(RuntimeError, match="a defect"):
        async with asyncio.timeout(PATIENCE_SECONDS):
            await worker.run(asyncio.Event())
    produced |= await produce(broker, topic, events(30, prefix="later"))
    replays_before = REGISTRY.get_sample_value("insights_replayed_batches_total") or 0.0
    async with running(Worker(make_settings(broker, topic), warehouse)) as task:
        await until_stored(warehouse, topic, produced, task)
    assert_exactly_once(warehouse, topic, produced)
    if stack() != "embedded":
        assert (REGISTRY.get_sample_value("insights_replayed_batches_total") or 0.0) > replays_before


@needs_apache_kafka
async def test_workers_that_come_and_go_share_the_partitions_without_loss_or_doubling(
    broker: str, topic: str, warehouse: Warehouse
) -> None:
    settings = make_settings(broker, topic)
    produced: set[tuple[int, int]] = set()
    async with running(Worker(settings, warehouse)) as first:
        produced |= await produce(broker, topic, events(300, prefix="a"))
        async with running(Worker(settings, warehouse)) as second:
            produced |= await produce(broker, topic, events(300, prefix="b"))
            await until_stored(warehouse, topic, produced, first, second)
            produced |= await produce(broker, topic, events(300, prefix="c"))
        produced |= await produce(broker, topic, events(300, prefix="d"))
        await until_stored(warehouse, topic, produced, first)
    assert_exactly_once(warehouse, topic, produced)


@needs_apache_kafka
async def test_records_that_kafka_deleted_are_counted_and_the_rest_is_read(
    broker: str, topic: str, warehouse: Warehouse
) -> None:
    produced = await produce(broker, topic, events(50), partition=0)
    settings = make_settings(broker, topic)
    async with running(Worker(settings, warehouse)) as task:
        await until_stored(warehouse, topic, produced, task)
    missing = await produce(broker, topic, events(40, prefix="lost"), partition=0)
    rest = await produce(broker, topic, events(10, prefix="kept"), partition=0)
    admin = AIOKafkaAdminClient(bootstrap_servers=broker)
    await admin.start()
    await admin.delete_records({TopicPartition(topic, 0): RecordsToDelete(min(offset for _, offset in rest))})
    await admin.close()
    before = REGISTRY.get_sample_value("insights_truncated_records_total", {"partition": "0"}) or 0.0
    async with running(Worker(settings, warehouse)) as task:
        await until_stored(warehouse, topic, produced | rest, task)
    assert_exactly_once(warehouse, topic, produced | rest)
    after = REGISTRY.get_sample_value("insights_truncated_records_total", {"partition": "0"}) or 0.0
    assert after - before == len(missing)


async def test_a_broken_producer_stops_the_worker_before_its_records_are_drained(
    broker: str, topic: str, warehouse: Warehouse
) -> None:
    good = await produce(broker, topic, events(50), partition=0)
    settings = make_settings(broker, topic, dead_letters_in_a_row=500)
    async with running(Worker(settings, warehouse)) as task:
        await until_stored(warehouse, topic, good, task)
    broken = await produce(broker, topic, [b"broken"] * 2000, partition=0)
    with pytest.raises(DeadLetterLimitError, match=r"no valid events, more than INSIGHTS_DEAD_LETTERS_IN_A_ROW=500"):
        async with asyncio.timeout(PATIENCE_SECONDS):
            await Worker(settings, warehouse).run(asyncio.Event())
    assert len(stored(warehouse, topic)) <= len(good) + 500
    lenient = make_settings(broker, topic, dead_letters_in_a_row=5000)
    async with running(Worker(lenient, warehouse)) as task:
        await until_stored(warehouse, topic, good | broken, task)
    assert_exactly_once(warehouse, topic, good | broken)


async def test_a_stop_under_load_finishes_the_batches_in_flight(broker: str, topic: str, warehouse: Warehouse) -> None:
    produced = await produce(broker, topic, events(2000))
    settings = make_settings(broker, topic, flush_rows=50)
    async with running(Worker(settings, warehouse)) as task:
        await until(lambda: len(stored(warehouse, topic)) > 0, task)
        stopped_at = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - stopped_at < STOP_SECONDS
    async with running(Worker(settings, warehouse)) as task:
        await until_stored(warehouse, topic, produced, task)
    assert_exactly_once(warehouse, topic, produced)


async def test_no_more_batches_are_taken_ahead_than_there_are_threads_and_who_waits_longest_is_first(
    warehouse: Warehouse,
) -> None:
    settings = make_settings("127.0.0.1:9", "t", insert_threads=1, flush_seconds=0.001)
    worker, member = Worker(settings, warehouse), Member(1, "member")
    for number in (2, 0, 1):
        buffer = PartitionBuffer(TopicPartition("t", number), 0, None, settings, member, "id")
        buffer.add([ConsumerRecord("t", number, 0, 0, 0, None, b"x", None, 0, 1, ())])
        worker._buffers[buffer.partition] = buffer
        await asyncio.sleep(0.01)
    assert [buffer.partition.partition for buffer in worker._next_due()] == [2]
    is_released = threading.Event()
    jobs = [asyncio.create_task(worker._insert_threads.run(is_released.wait)) for _ in range(2)]
    async with asyncio.timeout(PATIENCE_SECONDS):
        # One is at work, the other waits.
        while worker._insert_threads.waiting != 1:  # noqa: ASYNC110 - a thread
            await asyncio.sleep(0.01)
    assert worker._next_due() == []
    is_released.set()
    await asyncio.gather(*jobs)
    assert [buffer.partition.partition for buffer in worker._next_due()] == [2]
    worker._insert_threads.close()
    worker._intent_thread.close()
