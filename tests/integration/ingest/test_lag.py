"""`insights_lag_records` is what Kafka holds and ClickHouse does not, at any time."""

import asyncio
import threading
from typing import Any

import pyarrow as pa
from aiokafka import AIOKafkaProducer, TopicPartition
from prometheus_client import REGISTRY

from aggregator.clickhouse.client import Warehouse
from ingest.consumer.batch import Batch
from ingest.consumer.lag import LagGauge
from ingest.consumer.sink import Sink
from ingest.consumer.worker import Worker
from ingest.pricing import PriceBook
from tests.integration.ingest.test_worker import (
    events,
    make_settings,
    needs_apache_kafka,
    produce,
    running,
    stored,
    until,
    until_stored,
)
from tests.support.kafka import PARTITIONS, stack


def lag(partition: int) -> float | None:
    return REGISTRY.get_sample_value("insights_lag_records", {"partition": str(partition)})


def total_lag() -> float:
    return sum(lag(partition) or 0.0 for partition in range(PARTITIONS))


def is_shown() -> bool:
    return all(lag(partition) is not None for partition in range(PARTITIONS))


class StuckSink(Sink):
    """Writes nothing until `go_on` is set."""

    def __init__(self, warehouse: Warehouse) -> None:
        super().__init__(warehouse, PriceBook())
        self.go_on = threading.Event()

    def write(self, batch: Batch) -> pa.Table:
        self.go_on.wait()
        return super().write(batch)


async def test_the_lag_is_what_is_not_stored_while_nothing_is_fetched_and_0_after_it(
    broker: str, topic: str, warehouse: Warehouse
) -> None:
    worker = Worker(make_settings(broker, topic, flush_rows=5), warehouse)
    worker._sink = sink = StuckSink(warehouse)
    async with running(worker) as task:
        await until(lambda: is_shown() and total_lag() == 0, task)
        produced = await produce(broker, topic, events(40), partition=1)
        await until(lambda: lag(1) == 40, task)
        # The buffer is full, so that no fetch tells of what comes now.
        produced |= await produce(broker, topic, events(30, prefix="more"), partition=1)
        # The embedded broker names the offset behind the first record of its last batch for the end.
        more = 1 if stack() == "embedded" else 30
        await until(lambda: lag(1) == 40 + more, task)
        assert stored(warehouse, topic) == []
        sink.go_on.set()
        await until_stored(warehouse, topic, produced, task)
        await until(lambda: total_lag() == 0, task)


async def test_a_partition_that_is_given_away_is_shown_no_more(broker: str, topic: str, warehouse: Warehouse) -> None:
    worker = Worker(make_settings(broker, topic), warehouse)
    async with running(worker) as task:
        await until(lambda: len(worker._buffers) == PARTITIONS, task)
        held = dict(worker._buffers)
        gauge = LagGauge(worker._consumer, held)
        await gauge.measure()
        assert is_shown()
        del held[TopicPartition(topic, 2)]
        await gauge.measure()
        assert [lag(partition) for partition in range(PARTITIONS)] == [0, 0, None]


def transactional(broker: str, topic: str) -> AIOKafkaProducer:
    return AIOKafkaProducer(bootstrap_servers=broker, transactional_id=f"of-{topic}")


async def send(producer: AIOKafkaProducer, topic: str, values: list[bytes]) -> set[tuple[int, int]]:
    sent: Any = [await producer.send(topic, value, partition=0) for value in values]
    return {(found.partition, found.offset) for found in await asyncio.gather(*sent)}


@needs_apache_kafka
async def test_markers_aborted_records_and_open_transactions_are_no_lag(
    broker: str, topic: str, warehouse: Warehouse
) -> None:
    async with (
        running(Worker(make_settings(broker, topic), warehouse)) as task,
        transactional(broker, topic) as producer,
    ):
        async with producer.transaction():
            produced = await send(producer, topic, events(20))
        await until_stored(warehouse, topic, produced, task)
        await until(lambda: is_shown() and total_lag() == 0, task)
        await producer.begin_transaction()
        aborted = await send(producer, topic, events(20, prefix="aborted"))
        await producer.abort_transaction()
        await until(lambda: total_lag() == 0, task)
        # Only markers and aborted records are left behind what is stored.
        assert max(aborted) > max(produced)
        await producer.begin_transaction()
        opened = await send(producer, topic, events(10, prefix="open"))
        await asyncio.sleep(5)
        assert total_lag() == 0
        await producer.commit_transaction()
        await until_stored(warehouse, topic, produced | opened, task)
        await until(lambda: total_lag() == 0, task)
    assert stored(warehouse, topic) == sorted(produced | opened)


@needs_apache_kafka
async def test_a_worker_that_starts_behind_markers_alone_has_no_lag(
    broker: str, topic: str, warehouse: Warehouse
) -> None:
    settings = make_settings(broker, topic)
    async with transactional(broker, topic) as producer, producer.transaction():
        produced = await send(producer, topic, events(20))
    async with running(Worker(settings, warehouse)) as task:
        await until_stored(warehouse, topic, produced, task)
    REGISTRY._names_to_collectors["insights_lag_records"]._metrics.clear()  # type: ignore[attr-defined]
    async with running(Worker(settings, warehouse)) as task:
        await until(lambda: is_shown() and total_lag() == 0, task)
