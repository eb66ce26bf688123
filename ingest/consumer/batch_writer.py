"""Writes a batch of one partition: declares its intent, inserts it with retries, publishes what it adds to usage."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar, TypeVarTuple

import structlog
from aiokafka.errors import IllegalStateError
from opentelemetry.trace import get_current_span, get_tracer
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_delay, wait_exponential_jitter

from aggregator.clickhouse.client import is_transient
from ingest import metrics
from ingest.consumer.assignment import Assignment
from ingest.consumer.batch import Batch, Record
from ingest.consumer.commits import BatchCommits, TopicChangedError
from ingest.consumer.daemon_executor import DaemonExecutor
from ingest.consumer.group_coordinator import PartitionLostError
from ingest.consumer.intent import WriteIntent
from ingest.consumer.partition_buffer import PartitionBuffer
from ingest.consumer.sink import Sink
from ingest.consumer.stored_records import NEVER_MS, OffsetSpan, StoredRecords, StoredRecordsReader
from ingest.consumer.usage_increments import IncrementProducer
from ingest.receipts import Receipts
from ingest.settings import IngestSettings

Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")

log = structlog.get_logger(__name__)
# Spans go nowhere unless `cli.tracing` has set up where to.
TRACER = get_tracer(__name__)

# How many offsets one look at what is stored covers: a look scans a column of each table, and its answer is in memory.
LOOK_OFFSETS = 200_000
LOOK_AGAIN_SECONDS = 0.2


@dataclass(frozen=True)
class BatchWriter:
    """Writes batches of any partition, several at once. Once `stopping` is set it retries nothing."""

    settings: IngestSettings
    sink: Sink
    increments: IncrementProducer
    commits: BatchCommits
    assignment: Assignment
    stored: StoredRecordsReader
    insert_threads: DaemonExecutor
    # Apart from the insert threads, so that no intent waits for an insert.
    intent_thread: DaemonExecutor
    stopping: asyncio.Event
    # Told of every stored batch, where somebody in this process waits for it.
    receipts: Receipts | None

    async def write_next(self, buffer: PartitionBuffer) -> None:
        """Declare the next batch and write it, or write again what an earlier worker had declared."""
        began_ns = time.time_ns() - int(buffer.waited_seconds * 1e9)
        with TRACER.start_as_current_span("batch", start_time=began_ns):
            TRACER.start_span("fetch", start_time=began_ns).end()
            await self._write_batch(buffer)

    async def _write_batch(self, buffer: PartitionBuffer) -> None:
        try:
            batch = await self._next_batch(buffer)
            if batch is not None:
                get_current_span().set_attributes(_span_attributes(batch))
                if self.receipts is not None:
                    self.receipts.begin(batch)
                increments = await self._retry(buffer, self._insert, buffer, batch)
                buffer.mark_written(batch.next_offset)
                if self.receipts is not None:
                    self.receipts.add(batch)
                await self.increments.emit(increments)
            buffer.replay = None
        except (IllegalStateError, PartitionLostError) as error:
            metrics.LOST_PARTITIONS.inc()
            log.info("partition_lost", partition=buffer.partition.partition, reason=str(error) or type(error).__name__)
            buffer.is_lost = True
        except TopicChangedError as error:
            await self.assignment.start_over(buffer, error.dropped)

    async def _next_batch(self, buffer: PartitionBuffer) -> Batch | None:
        """The batch to write, once its intent is committed."""
        intent, records = buffer.replay, buffer.take()
        topic, partition = buffer.partition
        if intent is not None:
            return await self._batch_of_intent(buffer, intent, records)
        buffer.is_declaring_intent = True
        stored = await self._stored_of(buffer, records[0].offset, records[-1].offset)
        generation = await self._retry(buffer, self.intent_thread.run, self.sink.generation)
        created_at_ms = time.time_ns() // 1_000_000
        is_reread = records[0].offset < buffer.reread_before
        batch = Batch(
            topic, partition, records, created_at_ms, generation, buffer.topic_id, stored=stored, is_reread=is_reread
        )
        if await self.assignment.topic_id(buffer.partition) != buffer.topic_id:
            raise TopicChangedError(len(records))
        await self.commits.declare_intent(buffer, batch)
        buffer.is_declaring_intent = False
        return batch

    async def _batch_of_intent(
        self, buffer: PartitionBuffer, intent: WriteIntent, records: Sequence[Record]
    ) -> Batch | None:
        """The batch of an earlier worker's intent, or what Kafka still has of it; None when that is nothing."""
        metrics.REPLAYS.inc()
        if not records:
            log.error("planned_records_gone", partition=buffer.partition.partition, last=intent.last)
            return None
        topic, partition = buffer.partition
        batch = Batch(
            topic, partition, records, intent.created_at_ms, intent.generation, buffer.topic_id, found_intent=intent,
            is_reread=records[0].offset < buffer.reread_before,
        )  # fmt: skip
        if batch.digest == intent.digest:
            if batch.first >= (buffer.stored_before or 0):
                return batch
            # What its own first try has stored is for the token to recognise, which also completes the rollups.
            return await self._without_stored(buffer, batch, besides_ms=batch.created_at_ms)
        # Retention has deleted the beginning of the batch, so that its token can no longer be made.
        log.error("planned_records_changed", partition=batch.partition, first=batch.first, last=batch.last)
        return await self._without_stored(buffer, batch)

    async def _without_stored(self, buffer: PartitionBuffer, batch: Batch, besides_ms: int = NEVER_MS) -> Batch:
        span = OffsetSpan(batch.first, batch.last, before=buffer.stored_before or 0)
        stored = await self._retry(buffer, self.insert_threads.run, self.stored.read, buffer.log, span, besides_ms)
        return replace(batch, stored=stored)

    async def _stored_of(self, buffer: PartitionBuffer, first: int, last: int) -> StoredRecords | None:
        """What is stored of a batch that nobody has declared; None where that is nothing, which a worker finds out once
        and then knows."""
        if buffer.stored_before is None:
            await self._look(buffer, first)
        before = buffer.stored_before or 0
        if first >= before:
            buffer.stored = None
            return None
        known, wanted = buffer.stored, min(last, before - 1)
        if known is None or not known.span.first <= first <= wanted <= known.span.last:
            span = OffsetSpan(first, min(max(wanted, first + LOOK_OFFSETS - 1), before - 1), before)
            found: StoredRecords = await self._retry(
                buffer, self.insert_threads.run, self.stored.read, buffer.log, span, NEVER_MS
            )
            buffer.stored = found
        return buffer.stored

    async def _look(self, buffer: PartitionBuffer, first: int) -> None:
        """Find out from which offset on nothing is stored, once no earlier worker's insert is under way any more. What
        the log has beyond that may have been stored, too, before a backup was given back."""
        while await self._retry(buffer, self.insert_threads.run, self.stored.is_inserting, buffer.log):
            await asyncio.sleep(LOOK_AGAIN_SECONDS)
            if buffer.is_lost:
                raise PartitionLostError
        end = await self.assignment.end(buffer.partition)
        before: int = await self._retry(buffer, self.insert_threads.run, self.stored.before, buffer.log, first)
        if before:
            log.warning("records_may_be_stored", partition=buffer.log.partition, first=first, before=before)
        buffer.stored_before, buffer.reread_before = before, max(before, end)

    async def _retry(
        self, buffer: PartitionBuffer, function: Callable[[*Arguments], Awaitable[Result]], *arguments: *Arguments
    ) -> Result:
        """Call ClickHouse, and retry what may pass by itself. The partition is written no further meanwhile."""

        def should_retry(error: BaseException) -> bool:
            return is_transient(error) and not buffer.is_lost

        out_of_time = stop_after_delay(self.settings.insert_retry_seconds)

        def should_stop(state: RetryCallState) -> bool:
            return buffer.is_lost or self.stopping.is_set() or out_of_time(state)

        def report(state: RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome else None
            metrics.RETRIES.inc()
            partition = buffer.partition.partition
            log.warning("insert_retry", partition=partition, attempt=state.attempt_number, error=str(error)[:500])

        retrying = AsyncRetrying(
            retry=retry_if_exception(should_retry),
            stop=should_stop,
            wait=wait_exponential_jitter(multiplier=0.2, max=15),
            before_sleep=report,
            reraise=True,
        )
        return await retrying(function, *arguments)

    async def _insert(self, buffer: PartitionBuffer, batch: Batch) -> Mapping[int, bytes]:
        """Try once; returns the increments to send. A worker that was frozen, or has been trying, for long asks Kafka
        first whether the batch is still its own: ClickHouse forgets tokens after a while."""
        if time.time() - buffer.declared_at > self.settings.kafka_session_timeout_ms / 1000:
            await self.commits.declare_intent(buffer, batch)
        # Every line that is logged on the way names the batch.
        with structlog.contextvars.bound_contextvars(batch=batch.token):
            return await self.insert_threads.run(self._write, batch)

    def _write(self, batch: Batch) -> Mapping[int, bytes]:
        return self.increments.encoded(batch, self.sink.write(batch))


def _span_attributes(batch: Batch) -> dict[str, str | int]:
    """A batch as attributes of a span, by OpenTelemetry's names where it has any."""
    return {
        "messaging.system": "kafka",
        "messaging.destination.name": batch.topic,
        "messaging.destination.partition.id": str(batch.partition),
        "messaging.batch.message_count": len(batch.records),
        "insights.first_offset": batch.first,
        "insights.last_offset": batch.last,
        "insights.batch": batch.token,
        "insights.is_replay": batch.found_intent is not None,
    }
