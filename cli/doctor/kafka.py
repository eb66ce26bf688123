"""Checks of Kafka, and whether the workers keep up."""

import asyncio
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from tenacity import AsyncRetrying, retry_if_exception, stop_after_delay, wait_fixed

from cli.doctor.finding import Finding, Severity, judge

TIMEOUT_SECONDS = 10.0
# A broker creates the topic of committed offsets at the first request for a group, and has no coordinator until then.
RETRY_SECONDS = 5.0
# At 50,000 events a second a worker has read this much in less than a minute.
LAG_RECORDS = 1_000_000


async def examine(bootstrap_servers: str, topic: str, group: str, **client_options: Any) -> list[Finding]:
    """The findings of every check, or the one that Kafka does not answer. `client_options` go to aiokafka."""
    options = {"bootstrap_servers": bootstrap_servers, **client_options}
    admin = AIOKafkaAdminClient(request_timeout_ms=int(TIMEOUT_SECONDS * 1000), **options)
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            await admin.start()
            return await _retrying(_examine, admin, options, topic, group)
    except (KafkaError, OSError, TimeoutError) as error:
        advice = "see whether it runs, and whether INSIGHTS_KAFKA_BOOTSTRAP_SERVERS names it"
        return [Finding("Kafka", Severity.FAULT, f"{bootstrap_servers}: {str(error) or type(error).__name__}", advice)]
    finally:
        await admin.close()


def _is_retriable(error: BaseException) -> bool:
    return isinstance(error, KafkaError) and bool(error.retriable)


_retrying = AsyncRetrying(
    retry=retry_if_exception(_is_retriable), stop=stop_after_delay(RETRY_SECONDS), wait=wait_fixed(0.2), reraise=True
)


async def _examine(admin: AIOKafkaAdminClient, options: dict[str, Any], topic: str, group: str) -> list[Finding]:
    if topic not in await admin.list_topics():
        advice = "create it, or set INSIGHTS_KAFKA_TOPIC to the one that the gateway writes to"
        return [Finding("topic", Severity.FAULT, f"there is no topic {topic}", advice)]
    (described,) = await admin.describe_topics([topic])
    numbers = sorted(partition["partition"] for partition in described["partitions"])
    leaderless = [p["partition"] for p in described["partitions"] if p["leader"] < 0]
    observed = f"partitions without a leader: {leaderless}" if leaderless else f"{topic}, {len(numbers)} partitions"
    advice = "see which broker is down"
    found = [judge("topic", observed, advice, warning=False, fault=bool(leaderless))]
    partitions = [TopicPartition(topic, number) for number in numbers]
    async with AIOKafkaConsumer(**options) as consumer:
        first, last = await consumer.beginning_offsets(partitions), await consumer.end_offsets(partitions)
    committed = await admin.list_consumer_group_offsets(group, partitions=partitions)
    return [*found, _lag(partitions, first, last, {tp: at.offset for tp, at in committed.items()}, group)]


def _lag(
    partitions: list[TopicPartition],
    first: dict[TopicPartition, int],
    last: dict[TopicPartition, int],
    committed: dict[TopicPartition, int],
    group: str,
) -> Finding:
    """A committed offset is where the batch in flight begins, so a worker that keeps up lags by up to one batch."""
    # The embedded broker's last offset is behind its last batch's first record.
    lag = sum(max(0, last[tp] - max(first[tp], committed.get(tp, -1))) for tp in partitions)
    unread = sum(last[tp] - first[tp] for tp in partitions if committed.get(tp, -1) < 0)
    if unread:
        advice = "run `insights ingest`; if it runs, see that its INSIGHTS_KAFKA_GROUP is this one"
        observed = f"{unread:,} records in partitions that group {group} has never read"
        return Finding("consumer lag", Severity.FAULT, observed, advice)
    advice = "run more workers, up to one for each partition; see whether ClickHouse takes their inserts"
    return judge("consumer lag", f"{lag:,} records", advice, warning=lag > LAG_RECORDS)
