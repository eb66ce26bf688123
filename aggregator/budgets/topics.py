"""The topics of the budgets, created by the first process that needs them."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from aggregator.topic_creation import create_missing

INCREMENTS = "usage-increments"
BUDGETS = "budgets"
BUDGET_STATUS = "budget-status"
ALERTS = "alerts"
REPLICAS = 3
POLL_SECONDS = 0.05
COMPACTED = {"cleanup.policy": "compact"}


@dataclass(frozen=True)
class BudgetTopic:
    name: str
    partitions: int
    configs: dict[str, str] = field(default_factory=dict)


TOPICS = (
    # Older ones say nothing that ClickHouse does not.
    BudgetTopic(INCREMENTS, 6, {"retention.ms": "3600000"}),
    # One partition, so that who reads it to the end knows all.
    BudgetTopic(BUDGETS, 1, COMPACTED),
    BudgetTopic(BUDGET_STATUS, 1, COMPACTED),
    BudgetTopic(ALERTS, 1),
)


async def create_budget_topics(bootstrap_servers: str, **client_options: Any) -> int:
    """Create those that are not there yet, on up to REPLICAS brokers. Returns on how many.

    Raises TopicError when Kafka refuses one, KafkaError when it does not answer.
    """
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers, request_timeout_ms=10_000, **client_options)
    try:
        await admin.start()
        replicas = min(len((await admin.describe_cluster())["brokers"]), REPLICAS)
        await create_missing(admin, [NewTopic(t.name, t.partitions, replicas, topic_configs=t.configs) for t in TOPICS])
    finally:
        await admin.close()
    return replicas


async def partitions_of(bootstrap_servers: str, topic: str, **client_options: Any) -> int:
    """How many partitions a topic has; waits for one that was just made."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers, request_timeout_ms=10_000, **client_options)
    try:
        await admin.start()
        while True:
            [described] = await admin.describe_topics([topic])
            if described["partitions"]:
                return len(described["partitions"])
            await asyncio.sleep(POLL_SECONDS)
    finally:
        await admin.close()
