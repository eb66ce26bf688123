"""The two commits of the delivery protocol, both made as the member that the partition was assigned to."""

import asyncio
import time
from collections.abc import Collection

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, UnknownTopicOrPartitionError
from aiokafka.structs import OffsetAndMetadata
from opentelemetry.trace import get_tracer

from ingest import metrics
from ingest.consumer.batch import Batch
from ingest.consumer.group_coordinator import GroupCoordinator, PartitionLostError
from ingest.consumer.partition_buffer import PartitionBuffer

log = structlog.get_logger(__name__)
TRACER = get_tracer(__name__)

# A part of `stop_seconds`. A commit that does not get through leaves the intent, which is as safe.
COMMIT_SECONDS = 1.0


class TopicChangedError(Exception):
    """The topic was deleted and created again: its old records are gone, and offsets count from 0 again.

    `dropped` records of the batch are not written: some of them may be of the new topic and are read again.
    """

    def __init__(self, dropped: int) -> None:
        super().__init__(dropped)
        self.dropped = dropped


class BatchCommits:
    """Commits for the buffers of one worker."""

    def __init__(self, coordinator: GroupCoordinator) -> None:
        self._coordinator = coordinator

    async def declare_intent(self, buffer: PartitionBuffer, batch: Batch) -> None:
        """Commit the batch's first offset, and with it what is about to be written.

        Raises PartitionLostError when the partition is no longer ours, TopicChangedError when the topic is gone.
        """
        metadata = buffer.metadata(batch.first, batch.intent).to_metadata()
        try:
            with TRACER.start_as_current_span("plan"):
                await self._commit([buffer], {buffer.partition: OffsetAndMetadata(batch.first, metadata)})
        except UnknownTopicOrPartitionError as error:
            raise TopicChangedError(len(batch.records)) from error
        buffer.declared_at = time.time()

    async def commit_written(self, buffers: Collection[PartitionBuffer]) -> None:
        """Commit what is written, without an intent. A failure is logged: the intent before it still holds."""
        waiting = [buffer for buffer in buffers if buffer.uncommitted is not None]
        if not waiting:
            return
        offsets = {buffer.partition: _without_intent(buffer) for buffer in waiting}
        try:
            with TRACER.start_as_current_span("commit"):
                async with asyncio.timeout(COMMIT_SECONDS):
                    await self._commit(waiting, offsets)
        except (KafkaError, PartitionLostError, TimeoutError) as error:
            log.info("confirm_failed", partitions=len(waiting), reason=str(error) or type(error).__name__)

    async def _commit(
        self, buffers: Collection[PartitionBuffer], offsets: dict[TopicPartition, OffsetAndMetadata]
    ) -> None:
        """Commit for the buffers of one assignment."""
        if any(buffer.is_lost for buffer in buffers):
            raise PartitionLostError
        await self._coordinator.commit(next(iter(buffers)).member, offsets)
        for buffer in buffers:
            buffer.uncommitted = None
            metrics.COMMITTED_OFFSET.labels(buffer.partition.partition).set(offsets[buffer.partition].offset)


def _without_intent(buffer: PartitionBuffer) -> OffsetAndMetadata:
    offset = buffer.uncommitted or 0
    return OffsetAndMetadata(offset, buffer.metadata(offset).to_metadata())
