"""How many records of each partition are not stored yet, measured on a clock.

A fetch tells how far the log reaches, but none is made of a partition whose buffer is full, and after the last one its
number stands for ever. So Kafka is asked. The end is the last stable offset: what open transactions have written cannot
be read. Markers of transactions and aborted records take offsets, too; they count until the consumer has passed them,
which it does without the worker seeing any record. The embedded broker counts the last
batch of a producer as one record until it is fetched.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import IllegalStateError, KafkaError

from ingest import metrics
from ingest.consumer.partition_buffer import PartitionBuffer

log = structlog.get_logger(__name__)

EVERY_SECONDS = 2.0
# A measurement that takes longer is given up; the next one asks again.
GIVE_UP_SECONDS = 10.0


class LagGauge:
    """Keeps `insights_lag_records` at what `buffers` have before them; a partition that is given away has no lag."""

    def __init__(self, consumer: AIOKafkaConsumer, buffers: Mapping[TopicPartition, PartitionBuffer]) -> None:
        self._consumer = consumer
        self._buffers = buffers
        self._shown: set[int] = set()

    async def keep(self) -> None:
        """Measure until cancelled. While Kafka does not answer, the last measurement stands."""
        while True:
            try:
                async with asyncio.timeout(GIVE_UP_SECONDS):
                    await self.measure()
            except (KafkaError, TimeoutError) as error:
                log.warning("lag_unknown", reason=str(error) or type(error).__name__)
            await asyncio.sleep(EVERY_SECONDS)

    async def measure(self) -> None:
        """Raises KafkaError."""
        self._forget_others()
        ends = await self._consumer.end_offsets(list(self._buffers)) if self._buffers else {}
        for partition, end in ends.items():
            # A rebalance may have taken the partition while Kafka answered.
            with suppress(IllegalStateError, KeyError):
                buffer = self._buffers[partition]
                unread = max(end - await self._consumer.position(partition), 0)
                metrics.LAG.labels(partition.partition).set(unread + buffer.unwritten)
                self._shown.add(partition.partition)
        self._forget_others()

    def _forget_others(self) -> None:
        """Another worker shows the partitions that this one has lost."""
        held = {partition.partition for partition in self._buffers}
        for number in self._shown - held:
            metrics.LAG.remove(number)
        self._shown &= held
