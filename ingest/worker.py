"""The ingest loop: Kafka records in, each written exactly once, offsets out.

The protocol (docs/architecture.md), with one batch in hand per partition:
1. The offset of the batch's first record is committed, with the plan of the batch as metadata. Kafka fences
   the commit by group generation, so a worker that has lost the partition cannot plan.
2. The batch is inserted under a token made of its offsets and bytes.
3. The next plan's commit confirms it; so does a bare commit when the partition falls idle or is given up.
4. A plan found on assignment is written again, as exactly that batch, before anything new.
"""

import asyncio
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar, TypeVarTuple

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import (
    CommitFailedError,
    IllegalStateError,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
)
from aiokafka.structs import OffsetAndMetadata
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry,
    retry_if_exception,
    retry_if_exception_type,
    stop_after_attempt,
    stop_after_delay,
    wait_exponential_jitter,
)

from aggregator.warehouse import Warehouse, is_transient
from ingest import metrics
from ingest.batch import Batch, Plan
from ingest.lane import Lane
from ingest.pricing import PriceBook, PriceWatch
from ingest.settings import IngestSettings
from ingest.sink import Sink

Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")

log = structlog.get_logger(__name__)

POLL_MS = 50
FETCH_BYTES_PER_PARTITION = 4 * 1024 * 1024
MAX_POLL_RECORDS = 20_000
# A flush interval is stretched once a worker owns more partitions than this, so that the number of parts
# ClickHouse has to merge stays bounded: parts per second = partitions x tables / interval.
PARTITIONS_PER_INTERVAL = 6
IDLE_CONFIRM_SECONDS = 2.0
CONFIRM_SECONDS = 3.0


class PartitionLostError(Exception):
    """The partition belongs to another worker now; its batch is left to the plan that was committed."""


class Worker:
    """Writes the partitions that Kafka assigns to it until it is told to stop.

    `run` raises what ClickHouse or Kafka answer when that cannot pass by itself, or has not passed within
    `insert_retry_seconds`; no offset past the failure is ever committed, so a restart goes on there.
    """

    def __init__(self, settings: IngestSettings, warehouse: Warehouse) -> None:
        self._settings = settings
        prices = PriceWatch(settings.prices_file) if settings.prices_file else PriceBook()
        self._sink = Sink(warehouse, prices)
        self._lanes: dict[TopicPartition, Lane] = {}
        self._threads = ThreadPoolExecutor(settings.insert_threads, thread_name_prefix="insert")
        self._stopping = asyncio.Event()
        self._failure: Exception | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Consume until `stop` is set, then finish the batches in hand, confirm them and leave the group."""
        settings = self._settings
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=settings.kafka_bootstrap_servers,
            group_id=settings.kafka_group,
            enable_auto_commit=False,
            # Positions are set explicitly on assignment; a log that ends before them must never be jumped silently.
            auto_offset_reset="none",
            isolation_level="read_committed",
            session_timeout_ms=settings.kafka_session_timeout_ms,
            heartbeat_interval_ms=settings.kafka_session_timeout_ms // 3,
            max_partition_fetch_bytes=FETCH_BYTES_PER_PARTITION,
        )
        self._admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap_servers)
        await self._admin.start()
        try:
            self._consumer.subscribe([settings.kafka_topic], listener=_Listener(self))
            await self._consumer.start()
            try:
                await self._loop(stop)
            finally:
                self._stopping.set()
                await self._give_up(list(self._lanes))
                await self._consumer.stop()
        finally:
            await self._admin.close()
            self._threads.shutdown(wait=False, cancel_futures=True)

    async def _loop(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await self._fetch()
            if self._failure is not None:
                raise self._failure
            flush_seconds = self._settings.flush_seconds * max(1.0, len(self._lanes) / PARTITIONS_PER_INTERVAL)
            for lane in list(self._lanes.values()):
                self._raise_failure(lane)
                if lane.is_due(flush_seconds):
                    lane.batch_in_hand = asyncio.create_task(self._write_next(lane))
                elif lane.unconfirmed is not None and lane.is_idle_for(IDLE_CONFIRM_SECONDS):
                    await self._confirm(lane)
                self._throttle(lane)

    async def _fetch(self) -> None:
        try:
            fetched = await self._consumer.getmany(timeout_ms=POLL_MS, max_records=MAX_POLL_RECORDS)
        except OffsetOutOfRangeError as error:
            await self._skip_truncated(error.args[0])
            return
        except NoOffsetForPartitionError:
            # aiokafka looked for a committed offset before `_take_over` had set the position.
            return
        for partition, records in fetched.items():
            lane = self._lanes.get(partition)
            if lane is not None:
                lane.add(records)
                self._measure_lag(lane)

    def _measure_lag(self, lane: Lane) -> None:
        end = self._consumer.highwater(lane.partition)
        if end is not None:
            metrics.LAG.labels(lane.partition.partition).set(max(end - lane.position, 0) + lane.buffered)

    def _throttle(self, lane: Lane) -> None:
        """Keep at most one whole batch waiting behind the one in hand."""
        is_paused = lane.partition in self._consumer.paused()
        # A rebalance in the background may have taken the partition; its lane is about to go.
        with suppress(IllegalStateError):
            if lane.is_full and not is_paused:
                self._consumer.pause(lane.partition)
            elif is_paused and not lane.is_full:
                self._consumer.resume(lane.partition)

    def _raise_failure(self, lane: Lane) -> None:
        """Forget a batch that is done; re-raise what made it fail for good."""
        task = lane.batch_in_hand
        if task is not None and task.done():
            lane.batch_in_hand = None
            task.result()

    async def _write_next(self, lane: Lane) -> None:
        """Plan the next batch and write it, or write again what an earlier worker had planned."""
        try:
            batch = await self._next_batch(lane)
            if batch is not None:
                await self._write(lane, batch)
                lane.written(batch.next_offset)
            lane.replay = None
        except (CommitFailedError, IllegalStateError, PartitionLostError) as error:
            metrics.LOST_PARTITIONS.inc()
            log.info("partition_lost", partition=lane.partition.partition, reason=str(error) or type(error).__name__)
            lane.is_lost = True

    async def _next_batch(self, lane: Lane) -> Batch | None:
        plan, records = lane.replay, lane.take()
        topic, partition = lane.partition
        if plan is None:
            generation = await self._in_thread(self._sink.generation)
            batch = Batch(topic, partition, records, time.time_ns() // 1_000_000, generation)
            lane.is_planning = True
            await self._commit(lane, batch.first, batch.plan.to_metadata())
            lane.is_planning = False
            return batch
        metrics.REPLAYS.inc()
        if not records:
            log.error("planned_records_gone", partition=partition, last=plan.last)
            return None
        batch = Batch(topic, partition, records, plan.created_at_ms, plan.generation)
        if batch.digest != plan.digest:
            # Retention has deleted a part of the batch, or the topic is another one of the same name.
            log.warning("planned_records_changed", partition=partition, first=batch.first, last=batch.last)
        return batch

    async def _write(self, lane: Lane, batch: Batch) -> None:
        """Insert the batch, trying again for what may pass; the partition's fetching pauses meanwhile."""

        def should_retry(error: BaseException) -> bool:
            return is_transient(error) and not lane.is_lost

        def give_up() -> bool:
            return lane.is_lost or self._stopping.is_set()

        out_of_time = stop_after_delay(self._settings.insert_retry_seconds)

        def report(state: RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome else None
            metrics.RETRIES.inc()
            log.warning(
                "insert_retry", partition=batch.partition, first=batch.first, attempt=state.attempt_number,
                error=str(error)[:500],
            )  # fmt: skip

        retrying = AsyncRetrying(
            retry=retry_if_exception(should_retry),
            stop=lambda state: give_up() or out_of_time(state),
            wait=wait_exponential_jitter(multiplier=0.2, max=15),
            before_sleep=report,
            reraise=True,
        )
        await retrying(self._in_thread, self._sink.write, batch)

    async def _in_thread(self, function: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)

    async def _commit(self, lane: Lane, offset: int, metadata: str) -> None:
        if lane.is_lost:
            raise PartitionLostError
        await self._consumer.commit({lane.partition: OffsetAndMetadata(offset, metadata)})
        lane.unconfirmed = None
        metrics.COMMITTED_OFFSET.labels(lane.partition.partition).set(offset)

    async def _confirm(self, lane: Lane) -> None:
        """Commit what is written without planning anything new."""
        if lane.unconfirmed is None:
            return
        try:
            async with asyncio.timeout(CONFIRM_SECONDS):
                await self._commit(lane, lane.unconfirmed, "")
        except (KafkaError, PartitionLostError, TimeoutError) as error:
            log.info("confirm_failed", partition=lane.partition.partition, reason=str(error) or type(error).__name__)

    async def _skip_truncated(self, positions: dict[TopicPartition, int]) -> None:
        """The log no longer holds what comes next: go to where it begins, and say how much is missing."""
        beginnings = await self._consumer.beginning_offsets(list(positions))
        for partition, position in positions.items():
            beginning = beginnings[partition]
            missing = max(beginning - position, 0)
            metrics.SKIPPED_RECORDS.labels(partition.partition).inc(missing)
            log.error(
                "log_truncated", partition=partition.partition, position=position, beginning=beginning, missing=missing
            )
            self._consumer.seek(partition, beginning)
            if lane := self._lanes.get(partition):
                lane.position = beginning

    @retry(retry=retry_if_exception_type(KafkaError), stop=stop_after_attempt(5), wait=wait_exponential_jitter(multiplier=0.1, max=2))
    async def _committed(self, partitions: list[TopicPartition]) -> dict[TopicPartition, OffsetAndMetadata]:
        """Committed offsets with their metadata, which the consumer's own `committed` hides."""
        if not partitions:
            return {}
        found = await self._admin.list_consumer_group_offsets(self._settings.kafka_group, partitions=partitions)
        return dict(found)

    async def _take_over(self, assigned: Collection[TopicPartition]) -> None:
        """Open a lane for each partition at its committed offset, with the plan that is found there."""
        committed = await self._committed(list(assigned))
        beginnings = await self._consumer.beginning_offsets(list(assigned)) if assigned else {}
        for partition in assigned:
            found = committed.get(partition, OffsetAndMetadata(-1, ""))
            position = found.offset if found.offset >= 0 else beginnings[partition]
            plan = Plan.from_metadata(found.metadata)
            self._consumer.seek(partition, position)
            self._lanes[partition] = Lane(partition, position, plan, self._settings)
        log.info("partitions_assigned", partitions=sorted(partition.partition for partition in assigned))

    async def _give_up(self, revoked: Collection[TopicPartition]) -> None:
        """Finish the batches in hand within a time bound and confirm them; what is left is left to its plan."""
        lanes = [lane for partition in revoked if (lane := self._lanes.pop(partition, None)) is not None]
        for lane in lanes:
            # A commit that waits for its coordinator would go out under the next generation: too late for this plan.
            if lane.is_planning and lane.batch_in_hand is not None:
                lane.batch_in_hand.cancel()
        tasks = [lane.batch_in_hand for lane in lanes if lane.batch_in_hand is not None]
        if tasks:
            done, _ = await asyncio.wait(tasks, timeout=self._settings.stop_seconds)
            for task in done:
                if not task.cancelled() and (error := task.exception()) is not None:
                    log.warning("batch_left_to_plan", error=str(error)[:500])
        for lane in lanes:
            await self._confirm(lane)
            lane.is_lost = True


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        await self._worker._give_up(revoked)

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        try:
            await self._worker._take_over(assigned)
        except Exception as error:  # aiokafka would log it and go on without the partitions
            self._worker._failure = error
