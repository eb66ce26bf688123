"""Creating topics."""

import asyncio
from collections.abc import Mapping
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, NoError, TopicAlreadyExistsError, for_code

from aggregator.errors import InsightsError

REQUEST_EVENTS_TOPIC = "request-events"
POLL_SECONDS = 0.05


class KafkaUnavailableError(InsightsError):
    """Kafka does not answer or did not take events: try again later.

    `failed` counts the events that were given up on and `failed_keys` are their keys, in order. Such an event
    is not in Kafka, unless Kafka stored it and only its answer was lost.
    """

    def __init__(self, message: str, failed_keys: list[bytes | None] | None = None) -> None:
        super().__init__(message)
        self.failed_keys = failed_keys or []

    @property
    def failed(self) -> int:
        return len(self.failed_keys)


class TopicError(InsightsError):
    """Kafka refused to create a topic; the message says which and why."""


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
            await _create(admin, partitions, replication_factor)
            return await _wait_for_leaders(admin, list(partitions))
    except (KafkaError, OSError) as error:
        raise KafkaUnavailableError(
            f"Kafka at {bootstrap_servers} did not create the topics {', '.join(partitions)}"
            f" within {timeout_seconds:g} s: {str(error) or type(error).__name__}"
        ) from error
    finally:
        await admin.close()


async def _create(admin: AIOKafkaAdminClient, partitions: Mapping[str, int], replication_factor: int) -> None:
    response = await admin.create_topics(
        [NewTopic(name, count, replication_factor) for name, count in partitions.items()]
    )
    for name, code, message in response.topic_errors:
        if for_code(code) not in {NoError, TopicAlreadyExistsError}:
            raise TopicError(f"topic {name}: {message or for_code(code).__name__}")


async def _wait_for_leaders(admin: AIOKafkaAdminClient, names: list[str]) -> dict[str, int]:
    """A topic that was just created takes Kafka a moment to hand out."""
    while True:
        described = await admin.describe_topics(names)
        if all(topic["partitions"] and all(p["leader"] >= 0 for p in topic["partitions"]) for topic in described):
            return {topic["topic"]: len(topic["partitions"]) for topic in described}
        await asyncio.sleep(POLL_SECONDS)
