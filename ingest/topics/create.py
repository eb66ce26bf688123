"""Creating the topics of events, and waiting until they can be used."""

import asyncio
from collections.abc import Mapping
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError

from aggregator.topic_creation import create_missing
from router_insights.errors import KafkaUnavailableError

POLL_SECONDS = 0.05


async def create_topics(
    bootstrap_servers: str,
    partitions: Mapping[str, int],
    *,
    replication_factor: int = 1,
    timeout_seconds: float = 10.0,
    **client_options: Any,
) -> dict[str, int]:
    """Create the topics of `partitions` (name to number of partitions) that are not there yet.

    Returns when each has its leaders, with the number of partitions it really has: a topic that existed keeps
    its own. `client_options` go to aiokafka (`security_protocol`, `sasl_mechanism`, `ssl_context`, ...).
    Raises KafkaUnavailableError when Kafka does not answer in time, TopicError when it refuses.
    """
    admin = AIOKafkaAdminClient(
        bootstrap_servers=bootstrap_servers, request_timeout_ms=int(timeout_seconds * 1000), **client_options
    )
    try:
        async with asyncio.timeout(timeout_seconds):
            await admin.start()
            await create_missing(
                admin, [NewTopic(name, count, replication_factor) for name, count in partitions.items()]
            )
            return await _wait_for_leaders(admin, list(partitions))
    except (KafkaError, OSError) as error:
        raise KafkaUnavailableError(
            f"Kafka at {bootstrap_servers} did not create the topics {', '.join(partitions)}"
            f" within {timeout_seconds:g} s: {str(error) or type(error).__name__}"
        ) from error
    finally:
        await admin.close()


async def _wait_for_leaders(admin: AIOKafkaAdminClient, names: list[str]) -> dict[str, int]:
    """The number of partitions by topic, once each has its leaders: Kafka takes a moment for a new topic."""
    while True:
        described = await admin.describe_topics(names)
        if all(topic["partitions"] and all(p["leader"] >= 0 for p in topic["partitions"]) for topic in described):
            return {topic["topic"]: len(topic["partitions"]) for topic in described}
        await asyncio.sleep(POLL_SECONDS)
