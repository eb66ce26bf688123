"""Which partitions the worker holds, and where each of them starts: on assignment, and after its log has changed."""

import asyncio
import time
from collections.abc import Collection
from typing import NamedTuple

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import IllegalStateError, KafkaError
from aiokafka.structs import OffsetAndMetadata

from ingest import metrics
from ingest.consumer.commits import COMMIT_SECONDS, BatchCommits
from ingest.consumer.group_coordinator import GroupCoordinator, Member
from ingest.consumer.intent import CommitMetadata, WriteIntent
from ingest.consumer.partition_buffer import PartitionBuffer
from ingest.settings import IngestSettings

log = structlog.get_logger(__name__)

# How long a worker takes to leave its group: a part of `stop_seconds`.
LEAVE_SECONDS = 1.0
SKIP_SECONDS = 1.0
RETRY_FETCH_SECONDS = 0.05
TOPIC_POLL_SECONDS = 0.2


class Assignment(ConsumerRebalanceListener):  # type: ignore[misc]
    """Keeps `buffers` at one for each partition that Kafka has assigned to this worker.

    Buffers are opened in the background. Kafka's client sends no heartbeat before `on_partitions_assigned` has
    returned, and what is read there takes as long as Kafka likes: a worker that waited would lose its session, join
    again, and go on so.

    `failure` is what went wrong on an assignment, for the worker to raise: aiokafka would log it and go on without
    the partitions.
    """

    def __init__(
        self,
        consumer: AIOKafkaConsumer,
        coordinator: GroupCoordinator,
        commits: BatchCommits,
        buffers: dict[TopicPartition, PartitionBuffer],
        settings: IngestSettings,
    ) -> None:
        self.failure: Exception | None = None
        self._consumer = consumer
        self._coordinator = coordinator
        self._commits = commits
        self._buffers = buffers
        self._settings = settings
        self._opening: asyncio.Task[None] | None = None

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Begin to open the partitions; nothing is fetched of them until it is known from where."""
        self._consumer.pause(*assigned)
        self._opening = asyncio.create_task(self._open_or_fail(assigned, self._coordinator.member))

    async def _open_or_fail(self, assigned: Collection[TopicPartition], member: Member) -> None:
        try:
            await self._open(assigned, member)
        except Exception as error:
            self.failure = error

    async def _open(self, assigned: Collection[TopicPartition], member: Member) -> None:
        """A buffer for each partition at its committed offset, with the intent that is found there."""
        began = time.monotonic()
        if assigned:
            # Ids first: of a topic that is created again meanwhile, the id is found to be old before the first intent.
            topic_ids = dict(zip(assigned, await asyncio.gather(*map(self.topic_id, assigned)), strict=True))
            committed = await self._coordinator.read(assigned)
            beginnings = await self._consumer.beginning_offsets(list(assigned))
            for partition in assigned:
                topic_id = topic_ids[partition]
                start = starting_point(partition.partition, committed[partition], topic_id, beginnings[partition])
                self._consumer.seek(partition, start.position)
                self._consumer.resume(partition)
                # From here on "none was stored" is a number, which an alert sees, and not the absence of one.
                metrics.RECORDS.labels(partition.partition).inc(0)
                self._buffers[partition] = PartitionBuffer(
                    partition, start.position, start.intent, self._settings, member, topic_id,
                    start.stored_before, start.reread_before,
                )  # fmt: skip
        log.info(
            "partitions_assigned", partitions=sorted(partition.partition for partition in assigned),
            opened_seconds=round(time.monotonic() - began, 3),
        )  # fmt: skip

    async def _stop_opening(self) -> None:
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait([self._opening])
            self._opening = None

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """Finish the batches in flight within a time bound and commit them. The partition's next worker writes the
        others by their intents."""
        await self._stop_opening()
        buffers = [buffer for partition in revoked if (buffer := self._buffers.pop(partition, None)) is not None]
        for buffer in buffers:
            # A commit that waits for its coordinator would go out under the next generation: too late for this intent.
            if buffer.is_declaring_intent and buffer.batch_in_flight is not None:
                buffer.batch_in_flight.cancel()
        tasks = [buffer.batch_in_flight for buffer in buffers if buffer.batch_in_flight is not None]
        if tasks:
            timeout_seconds = max(0.0, self._settings.stop_seconds - COMMIT_SECONDS - LEAVE_SECONDS)
            done, _ = await asyncio.wait(tasks, timeout=timeout_seconds)
            for task in done:
                if not task.cancelled() and (error := task.exception()) is not None:
                    log.warning("batch_left_to_plan", error=str(error)[:500])
        await self._commits.commit_written([buffer for buffer in buffers if not buffer.is_lost])
        for buffer in buffers:
            buffer.is_lost = True

    async def topic_id(self, partition: TopicPartition) -> str:
        """The id of the partition's topic; waits while there is no such topic."""
        while True:
            try:
                return await self._coordinator.topic_id(partition)
            except KafkaError as error:
                if not error.retriable:
                    raise
                await asyncio.sleep(TOPIC_POLL_SECONDS)

    async def end(self, partition: TopicPartition) -> int:
        """The offset of the next record that can be read of the partition one day."""
        ends: dict[TopicPartition, int] = await self._consumer.end_offsets([partition])
        return ends[partition]

    async def start_over(self, buffer: PartitionBuffer, dropped: int) -> None:
        """Read a topic that was created again from its beginning; `dropped` fetched records are not written."""
        partition = buffer.partition
        topic_id = await self.topic_id(partition)
        beginning = (await self._consumer.beginning_offsets([partition]))[partition]
        if self._buffers.get(partition) is not buffer:
            return
        metrics.RECREATED_TOPICS.labels(partition.partition).inc()
        log.error(
            "topic_recreated", partition=partition.partition, position=buffer.position, beginning=beginning,
            dropped=dropped + buffer.buffered,
        )  # fmt: skip
        self._buffers[partition] = PartitionBuffer(
            partition, beginning, None, self._settings, buffer.member, topic_id, stored_before=None
        )
        self._consumer.seek(partition, beginning)

    async def skip_missing(self, positions: dict[TopicPartition, int]) -> None:
        """Move on where the log does not hold the next offset. What fails here is tried again after the next fetch."""
        try:
            async with asyncio.timeout(SKIP_SECONDS):
                for partition, position in positions.items():
                    buffer = self._buffers.get(partition)
                    if buffer is not None and buffer.batch_in_flight is None:
                        await self._skip(buffer, position)
        except (IllegalStateError, KafkaError, TimeoutError) as error:
            log.warning("skip_failed", reason=str(error) or type(error).__name__)
        await asyncio.sleep(RETRY_FETCH_SECONDS)

    async def _skip(self, buffer: PartitionBuffer, position: int) -> None:
        """Go to where the log goes on, and report how many records are missing."""
        partition = buffer.partition
        if await self.topic_id(partition) != buffer.topic_id:
            await self.start_over(buffer, 0)
            return
        beginning = (await self._consumer.beginning_offsets([partition]))[partition]
        # An end before the position: an unclean election of a leader has cut the log.
        target = beginning if position < beginning else (await self._consumer.end_offsets([partition]))[partition]
        self._consumer.seek(partition, target)
        buffer.position = target
        missing = abs(target - position)
        metrics.SKIPPED_RECORDS.labels(partition.partition).inc(missing)
        log.error("log_truncated", partition=partition.partition, position=position, target=target, missing=missing)


class StartingPoint(NamedTuple):
    """The offset that a partition is read from, the intent whose batch is written first, and the bounds of the commit's
    metadata; `stored_before` is None if nobody knows."""

    position: int
    intent: WriteIntent | None = None
    stored_before: int | None = None
    reread_before: int = 0


def starting_point(partition: int, committed: OffsetAndMetadata, topic_id: str, beginning: int) -> StartingPoint:
    """Where to begin. Only a worker's own commit says what is stored; whatever else has set the offset does not."""
    if committed.offset < 0:
        return StartingPoint(beginning)
    metadata = CommitMetadata.from_metadata(committed.metadata)
    if metadata is None:
        return StartingPoint(committed.offset)
    if metadata.topic_id and metadata.topic_id != topic_id:
        metrics.RECREATED_TOPICS.labels(partition).inc()
        log.error("topic_recreated", partition=partition, position=committed.offset, beginning=beginning, dropped=0)
        return StartingPoint(beginning)
    return StartingPoint(committed.offset, metadata.intent, metadata.stored_before, metadata.reread_before)
