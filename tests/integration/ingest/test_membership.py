"""A worker stays a member of its group however long it takes to find out where its partitions start."""

import asyncio
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.structs import OffsetAndMetadata

from aggregator.clickhouse.client import Warehouse
from ingest.consumer.group_coordinator import GroupCoordinator, Member
from ingest.consumer.worker import Worker
from tests.integration.ingest.test_worker import (
    assert_exactly_once,
    events,
    make_settings,
    produce,
    running,
    until,
    until_stored,
)

SESSION_MS = 6000


class SlowCoordinator(GroupCoordinator):
    """Answers where partitions start after twice the session timeout, as one may that has just started."""

    assigned_to: list[Member]

    def __init__(self, consumer: AIOKafkaConsumer, group_id: str) -> None:
        super().__init__(consumer, group_id)
        self.assigned_to = []

    async def read(self, partitions: Any) -> dict[TopicPartition, OffsetAndMetadata]:
        self.assigned_to.append(self.member)
        await asyncio.sleep(2 * SESSION_MS / 1000)
        return await super().read(partitions)


async def test_a_slow_recovery_costs_no_membership(
    broker: str, topic: str, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.consumer.worker.GroupCoordinator", SlowCoordinator)
    produced = await produce(broker, topic, events(50))
    worker = Worker(make_settings(broker, topic, kafka_session_timeout_ms=SESSION_MS), warehouse)
    async with running(worker) as task:
        await until_stored(warehouse, topic, produced, task)
        coordinator = worker._coordinator
        assert isinstance(coordinator, SlowCoordinator)
        assert coordinator.assigned_to == [coordinator.member]
    assert_exactly_once(warehouse, topic, produced)


async def test_heartbeats_begin_with_the_membership(
    broker: str, topic: str, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """aiokafka sends the first one a third of the session after the listener has returned, so that is when a worker
    must have returned: at once, not after a recovery that is slow."""
    monkeypatch.setattr("ingest.consumer.worker.GroupCoordinator", SlowCoordinator)
    worker = Worker(make_settings(broker, topic, kafka_session_timeout_ms=SESSION_MS), warehouse)
    async with running(worker) as task:
        await until(lambda: bool(getattr(getattr(worker, "_coordinator", None), "assigned_to", [])), task)
        loop = asyncio.get_running_loop()
        joined_at = loop.time()
        await until(lambda: worker._coordinator._coordinator._heartbeat_task is not None, task)
        assert loop.time() - joined_at < SESSION_MS / 1000 / 3
        assert worker._buffers == {}
