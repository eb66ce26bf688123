"""Waiting for what the embedded broker has taken: it forgets everything when it stops.

Whoever sends over HTTP waits for an answer anyway; this is for gateways that speak Kafka.
"""

import asyncio

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition

from ingest.receipts import Receipts

log = structlog.get_logger(__name__)

DRAIN_SECONDS = 15.0
POLL_SECONDS = 0.05
# A broker on the same machine answers sooner than this when it has more records.
END_READ_MS = 200


async def accepted_offsets(servers: str, topic: str, partitions: int) -> dict[int, int]:
    """By partition, the offset after the last record that the embedded broker has accepted.

    Its own latest offset is one past the *first* record of the last batch, so the last batches are read. Raises
    TimeoutError when it does not answer within DRAIN_SECONDS.
    """
    wanted = [TopicPartition(topic, number) for number in range(partitions)]
    async with AIOKafkaConsumer(bootstrap_servers=servers) as consumer:
        consumer.assign(wanted)
        latest = await consumer.end_offsets(wanted)
        for partition in wanted:
            consumer.seek(partition, max(0, latest[partition] - 1))
        # An empty read is the end only when the record before the latest offset was read.
        async with asyncio.timeout(DRAIN_SECONDS):
            while await consumer.getmany(timeout_ms=END_READ_MS) or not await _has_reached(consumer, latest):
                pass
        return {partition.partition: await consumer.position(partition) for partition in wanted}


async def _has_reached(consumer: AIOKafkaConsumer, latest: dict[TopicPartition, int]) -> bool:
    return all([await consumer.position(partition) >= offset for partition, offset in latest.items()])


async def drain(servers: str, topic: str, partitions: int, receipts: Receipts) -> None:
    """Wait until the worker has stored all records that the broker has accepted; log how many it has not."""
    try:
        accepted = await accepted_offsets(servers, topic, partitions)
    except TimeoutError:
        log.error("records_lost_with_the_embedded_broker", reason="the broker does not say how many it has taken")
        return

    def left() -> int:
        return sum(max(0, end - receipts.next_offsets.get(partition, 0)) for partition, end in accepted.items())

    try:
        async with asyncio.timeout(DRAIN_SECONDS):
            while left():  # noqa: ASYNC110 - nothing sets an event for it
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError:
        log.error("records_lost_with_the_embedded_broker", records=left())
