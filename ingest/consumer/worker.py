"""The ingest loop: Kafka records in, each written exactly once, offsets out.

The protocol (docs/delivery.md), with one batch in hand per partition:
1. The offset of the batch's first record is committed, with the plan of the batch as metadata. Kafka fences
   the commit by the member and generation that the partition was assigned to, so a worker that has lost it
   cannot plan.
2. The batch is inserted under a token made of its offsets and bytes.
3. The next plan's commit confirms it; so does a bare commit when the partition falls idle or is given up.
4. A plan found on assignment is written again, as exactly that batch, before anything new.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar, TypeVarTuple

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import (
    IllegalStateError,
    KafkaConnectionError,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    UnknownTopicOrPartitionError,
)
from aiokafka.structs import OffsetAndMetadata
from opentelemetry.trace import get_current_span, get_tracer
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_delay, wait_exponential_jitter

from aggregator.clickhouse.client import Warehouse, is_transient
from ingest import metrics
from ingest.consumer.batch import Batch, CommitMetadata, Record, WriteIntent
from ingest.consumer.dead_letter_limit import DeadLetterLimit
from ingest.consumer.executor import DaemonExecutor
from ingest.consumer.group_coordinator import GroupCoordinator, PartitionLostError
from ingest.consumer.partition_buffer import PartitionBuffer
from ingest.consumer.sink import Sink
from ingest.consumer.usage_increments import IncrementProducer
from ingest.pricing import PriceBook, ReloadingPriceBook
from ingest.settings import IngestSettings
from ingest.topics.create import KafkaUnavailableError

Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")

log = structlog.get_logger(__name__)
# Spans go nowhere unless `cli.tracing` has set up where to.
TRACER = get_tracer(__name__)

POLL_MS = 50
FETCH_BYTES_PER_PARTITION = 4 * 1024 * 1024
MAX_POLL_RECORDS = 20_000
# How long it may take to notice partitions that were added, or a topic that is there again.
METADATA_AGE_MS = 10_000
# A flush interval is stretched once a worker owns more partitions than this, so that the number of parts
# ClickHouse has to merge stays bounded: parts per second = partitions x tables / interval.
PARTITIONS_PER_INTERVAL = 6
IDLE_CONFIRM_SECONDS = 2.0
# Both are parts of `stop_seconds`: a confirmation that does not get through leaves a plan, which is as good.
CONFIRM_SECONDS = 1.0
LEAVE_SECONDS = 1.0
SKIP_SECONDS = 1.0
TOPIC_POLL_SECONDS = 0.2
# For a process that does nothing else: values of a batch live for a moment and hold no cycles, and Python's usual 700
# makes it walk them again and again.
OBJECTS_BETWEEN_COLLECTIONS = 100_000
# Well below aiokafka's `max_poll_interval_ms`.
STAY_SECONDS = 60.0


class TopicChangedError(Exception):
    """The topic was deleted and made anew; what it held is gone, and offsets count from 0 again.

    `dropped` records were at hand and are not written: some of them may be of the new topic and are read again.
    """

    def __init__(self, dropped: int) -> None:
        super().__init__(dropped)
        self.dropped = dropped


class Worker:
    """Writes the partitions that Kafka assigns to it until it is told to stop.

    `run` raises what ClickHouse or Kafka answer when that cannot pass by itself, or has not passed within
    `insert_retry_seconds`; no offset past the failure is ever committed, so a restart goes on there.
    """

    def __init__(self, settings: IngestSettings, warehouse: Warehouse) -> None:
        self._settings = settings
        prices = ReloadingPriceBook(settings.prices_file) if settings.prices_file else PriceBook()
        limit = DeadLetterLimit(
            settings.dead_letters_in_a_row, settings.dead_letter_share, settings.dead_letter_window_records
        )
        self._sink = Sink(warehouse, prices, limit)
        self._lanes: dict[TopicPartition, PartitionBuffer] = {}
        self._threads = DaemonExecutor(settings.insert_threads)
        # Of its own, so that no plan waits for an insert.
        self._planning_thread = DaemonExecutor(1)
        self._increments = IncrementProducer(settings.kafka_bootstrap_servers, **settings.client_options())
        self._stopping = asyncio.Event()
        self._failure: Exception | None = None
        self._fetched_at = time.monotonic()

    async def run(self, stop: asyncio.Event) -> None:
        """Consume until `stop` is set, then finish the batches in hand, confirm them and leave the group."""
        settings = self._settings
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=settings.kafka_bootstrap_servers,
            **settings.client_options(),
            group_id=settings.kafka_group,
            enable_auto_commit=False,
            # Positions are set explicitly on assignment; a log that ends before them must never be jumped silently.
            auto_offset_reset="none",
            isolation_level="read_committed",
            session_timeout_ms=settings.kafka_session_timeout_ms,
            heartbeat_interval_ms=settings.kafka_session_timeout_ms // 3,
            max_partition_fetch_bytes=FETCH_BYTES_PER_PARTITION,
            metadata_max_age_ms=METADATA_AGE_MS,
        )
        self._group = GroupCoordinator(self._consumer, settings.kafka_group)
        try:
            self._consumer.subscribe([settings.kafka_topic], listener=_Listener(self))
            try:
                await self._connect()
                self._increments.start()
                await self._loop(stop)
            finally:
                await self._leave()
        finally:
            await self._increments.close()
            self._threads.close()
            self._planning_thread.close()

    async def _connect(self) -> None:
        try:
            await self._consumer.start()
        except KafkaConnectionError as error:
            servers = self._settings.kafka_bootstrap_servers
            raise KafkaUnavailableError(f"Kafka at {servers} does not answer") from error

    async def _leave(self) -> None:
        """Give up all partitions and leave the group, within `stop_seconds` even if nobody answers any more."""
        self._stopping.set()
        await self._give_up(list(self._lanes))
        try:
            async with asyncio.timeout(LEAVE_SECONDS):
                await self._consumer.stop()
        except (KafkaError, TimeoutError, asyncio.CancelledError) as error:
            # aiokafka lets out the cancellation of a fetch that waited for a broker that is away; nobody cancelled us.
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise
            log.warning("left_without_goodbye", reason=str(error) or type(error).__name__)
            await self._group.hang_up()

    async def _loop(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await self._fetch()
            if self._failure is not None:
                raise self._failure
            self._share_memory()
            for lane in list(self._lanes.values()):
                self._raise_failure(lane)
            for lane in self._next_lanes():
                lane.batch_in_hand = asyncio.create_task(self._write_next(lane))
            await self._confirm([lane for lane in self._lanes.values() if lane.is_idle_for(IDLE_CONFIRM_SECONDS)])

    def _next_lanes(self) -> list[PartitionBuffer]:
        """Whose batch is to be taken now, the longest waiting first.

        A batch that waits for a thread grows no more, so only as many are taken ahead as there are threads: what
        arrives in the meantime goes with those that are left.
        """
        lanes = self._lanes.values()
        flush_seconds = self._settings.flush_seconds * max(1.0, len(lanes) / PARTITIONS_PER_INTERVAL)
        due = sorted(
            (lane for lane in lanes if lane.is_due(flush_seconds)), key=lambda lane: lane.waited_seconds, reverse=True
        )
        ahead = self._threads.waiting + sum(lane.is_planning and lane.batch_in_hand is not None for lane in lanes)
        return due[: max(0, self._settings.insert_threads - ahead)]

    def _share_memory(self) -> None:
        """Each partition may hold one batch in hand and one that waits."""
        share = self._settings.buffer_bytes // max(1, 2 * len(self._lanes))
        for lane in self._lanes.values():
            lane.batch_bytes = min(self._settings.flush_bytes, share)

    async def _fetch(self) -> None:
        """Take what has arrived for the partitions that have room; the others keep what the consumer has fetched."""
        wanted = [lane.partition for lane in self._lanes.values() if not lane.is_full]
        if self._lanes and not wanted:
            await self._wait_for_room()
            return
        try:
            fetched = await self._consumer.getmany(*wanted, timeout_ms=POLL_MS, max_records=MAX_POLL_RECORDS)
        except OffsetOutOfRangeError as error:
            await self._skip_missing(error.args[0])
            return
        except (NoOffsetForPartitionError, IllegalStateError):
            # aiokafka looked for a committed offset before `_take_over` had set the position; or a rebalance in the
            # background has taken one of the partitions, and its lane is about to go.
            await asyncio.sleep(POLL_MS / 1000)
            return
        self._fetched_at = time.monotonic()
        for partition, records in fetched.items():
            lane = self._lanes.get(partition)
            if lane is not None:
                lane.add(records)
                self._measure_lag(lane)

    def _measure_lag(self, lane: PartitionBuffer) -> None:
        end = self._consumer.highwater(lane.partition)
        if end is not None:
            metrics.LAG.labels(lane.partition.partition).set(max(end - lane.position, 0) + lane.buffered)

    async def _wait_for_room(self) -> None:
        """Every partition holds a whole batch behind the one in hand."""
        tasks = [lane.batch_in_hand for lane in self._lanes.values() if lane.batch_in_hand is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=POLL_MS / 1000, return_when=asyncio.FIRST_COMPLETED)
        else:
            # All of them are lost. The rebalance that takes them away needs the event loop, too.
            await asyncio.sleep(POLL_MS / 1000)
        if time.monotonic() - self._fetched_at >= STAY_SECONDS:
            await self._show_up()

    async def _show_up(self) -> None:
        """Kafka takes away the partitions of a consumer that asks for nothing for minutes. Nothing can come of a
        partition that is paused; what is fetched of it is dropped, and fetched again."""
        partition = next(iter(self._lanes))
        with suppress(IllegalStateError):
            self._consumer.pause(partition)
            await self._consumer.getmany(partition, timeout_ms=0)
            self._consumer.resume(partition)
        self._fetched_at = time.monotonic()

    def _raise_failure(self, lane: PartitionBuffer) -> None:
        """Forget a batch that is done; re-raise what made it fail for good."""
        task = lane.batch_in_hand
        if task is not None and task.done():
            lane.batch_in_hand = None
            task.result()

    async def _write_next(self, lane: PartitionBuffer) -> None:
        """Plan the next batch and write it, or write again what an earlier worker had planned."""
        began_ns = time.time_ns() - int(lane.waited_seconds * 1e9)
        with TRACER.start_as_current_span("batch", start_time=began_ns):
            TRACER.start_span("fetch", start_time=began_ns).end()
            await self._write_batch(lane)

    async def _write_batch(self, lane: PartitionBuffer) -> None:
        try:
            batch = await self._next_batch(lane)
            if batch is not None:
                get_current_span().set_attributes(_described(batch))
                increments = await self._patiently(lane, self._insert, lane, batch)
                lane.written(batch.next_offset)
                await self._increments.emit(increments)
            lane.replay = None
        except (IllegalStateError, PartitionLostError) as error:
            metrics.LOST_PARTITIONS.inc()
            log.info("partition_lost", partition=lane.partition.partition, reason=str(error) or type(error).__name__)
            lane.is_lost = True
        except TopicChangedError as error:
            await self._start_over(lane, error.dropped)

    async def _next_batch(self, lane: PartitionBuffer) -> Batch | None:
        plan, records = lane.replay, lane.take()
        topic, partition = lane.partition
        if plan is not None:
            return await self._planned_batch(lane, plan, records)
        lane.is_planning = True
        generation = await self._patiently(lane, self._planning_thread.run, self._sink.generation)
        batch = Batch(topic, partition, records, time.time_ns() // 1_000_000, generation)
        if await self._topic_id(lane.partition) != lane.topic_id:
            raise TopicChangedError(len(records))
        await self._plan(lane, batch)
        lane.is_planning = False
        return batch

    async def _planned_batch(self, lane: PartitionBuffer, plan: WriteIntent, records: Sequence[Record]) -> Batch | None:
        """The batch of a plan that was found, or what Kafka still has of it; None when that is nothing."""
        metrics.REPLAYS.inc()
        if not records:
            log.error("planned_records_gone", partition=lane.partition.partition, last=plan.last)
            return None
        topic, partition = lane.partition
        batch = Batch(topic, partition, records, plan.created_at_ms, plan.generation, found_plan=plan)
        if batch.digest == plan.digest:
            return batch
        # Retention has deleted the beginning of the batch, so that its token can no longer be made.
        log.error("planned_records_changed", partition=batch.partition, first=batch.first, last=batch.last)
        stored = await self._patiently(lane, self._threads.run, self._sink.stored_offsets, batch)
        return replace(batch, stored=stored)

    async def _topic_id(self, partition: TopicPartition) -> str:
        """Waits while there is no such topic."""
        while True:
            try:
                return await self._group.topic_id(partition)
            except KafkaError as error:
                if not error.retriable:
                    raise
                await asyncio.sleep(TOPIC_POLL_SECONDS)

    async def _start_over(self, lane: PartitionBuffer, dropped: int) -> None:
        """Read a topic that was made anew from its beginning."""
        partition = lane.partition
        topic_id = await self._topic_id(partition)
        beginning = (await self._consumer.beginning_offsets([partition]))[partition]
        if self._lanes.get(partition) is not lane:
            return
        metrics.RECREATED_TOPICS.labels(partition.partition).inc()
        log.error(
            "topic_recreated", partition=partition.partition, position=lane.position, beginning=beginning,
            dropped=dropped + lane.buffered,
        )  # fmt: skip
        self._lanes[partition] = PartitionBuffer(partition, beginning, None, self._settings, lane.member, topic_id)
        self._consumer.seek(partition, beginning)

    async def _patiently(
        self, lane: PartitionBuffer, function: Callable[[*Arguments], Awaitable[Result]], *arguments: *Arguments
    ) -> Result:
        """Call ClickHouse, again and again for what may pass; the partition fetches no more meanwhile."""

        def should_retry(error: BaseException) -> bool:
            return is_transient(error) and not lane.is_lost

        def give_up() -> bool:
            return lane.is_lost or self._stopping.is_set()

        out_of_time = stop_after_delay(self._settings.insert_retry_seconds)

        def report(state: RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome else None
            metrics.RETRIES.inc()
            partition = lane.partition.partition
            log.warning("insert_retry", partition=partition, attempt=state.attempt_number, error=str(error)[:500])

        retrying = AsyncRetrying(
            retry=retry_if_exception(should_retry),
            stop=lambda state: give_up() or out_of_time(state),
            wait=wait_exponential_jitter(multiplier=0.2, max=15),
            before_sleep=report,
            reraise=True,
        )
        return await retrying(function, *arguments)

    async def _insert(self, lane: PartitionBuffer, batch: Batch) -> Mapping[int, bytes]:
        """One try; the increments to be sent. A worker that was stopped for long, or has been trying for long, asks
        Kafka first whether the batch is still its own: ClickHouse forgets tokens after a while."""
        if time.time() - lane.planned_at > self._settings.kafka_session_timeout_ms / 1000:
            await self._plan(lane, batch)
        # Every line that is logged on the way names the batch.
        with structlog.contextvars.bound_contextvars(batch=batch.token):
            return await self._threads.run(self._write, batch, lane.topic_id)

    def _write(self, batch: Batch, topic_id: str) -> Mapping[int, bytes]:
        return self._increments.encoded(batch, topic_id, self._sink.write(batch))

    async def _plan(self, lane: PartitionBuffer, batch: Batch) -> None:
        """Raises PartitionLostError when the partition is no longer ours, TopicChangedError when it is gone."""
        mark = CommitMetadata(topic_id=lane.topic_id, plan=batch.plan)
        try:
            with TRACER.start_as_current_span("plan"):
                await self._commit([lane], {lane.partition: OffsetAndMetadata(batch.first, mark.to_metadata())})
        except UnknownTopicOrPartitionError as error:
            raise TopicChangedError(len(batch.records)) from error
        lane.planned_at = time.time()

    async def _confirm(self, lanes: Collection[PartitionBuffer]) -> None:
        """Commit what is written without planning anything new."""
        waiting = [lane for lane in lanes if lane.unconfirmed is not None]
        if not waiting:
            return
        offsets = {
            lane.partition: OffsetAndMetadata(lane.unconfirmed, CommitMetadata(topic_id=lane.topic_id).to_metadata())
            for lane in waiting
        }
        try:
            with TRACER.start_as_current_span("commit"):
                async with asyncio.timeout(CONFIRM_SECONDS):
                    await self._commit(waiting, offsets)
        except (KafkaError, PartitionLostError, TimeoutError) as error:
            log.info("confirm_failed", partitions=len(waiting), reason=str(error) or type(error).__name__)

    async def _commit(
        self, lanes: Collection[PartitionBuffer], offsets: dict[TopicPartition, OffsetAndMetadata]
    ) -> None:
        """Commit for lanes of one assignment."""
        if any(lane.is_lost for lane in lanes):
            raise PartitionLostError
        await self._group.commit(next(iter(lanes)).member, offsets)
        for lane in lanes:
            lane.unconfirmed = None
            metrics.COMMITTED_OFFSET.labels(lane.partition.partition).set(offsets[lane.partition].offset)

    async def _skip_missing(self, positions: dict[TopicPartition, int]) -> None:
        """The log does not hold what comes next. What fails here is tried again after the next fetch."""
        try:
            async with asyncio.timeout(SKIP_SECONDS):
                for partition, position in positions.items():
                    lane = self._lanes.get(partition)
                    if lane is not None and lane.batch_in_hand is None:
                        await self._skip(lane, position)
        except (IllegalStateError, KafkaError, TimeoutError) as error:
            log.warning("skip_failed", reason=str(error) or type(error).__name__)
        await asyncio.sleep(POLL_MS / 1000)

    async def _skip(self, lane: PartitionBuffer, position: int) -> None:
        """Go to where the log goes on, and say how much is missing."""
        partition = lane.partition
        if await self._topic_id(partition) != lane.topic_id:
            await self._start_over(lane, 0)
            return
        beginning = (await self._consumer.beginning_offsets([partition]))[partition]
        # An end before the position: an unclean election of a leader has cut the log.
        target = beginning if position < beginning else (await self._consumer.end_offsets([partition]))[partition]
        self._consumer.seek(partition, target)
        lane.position = target
        missing = abs(target - position)
        metrics.SKIPPED_RECORDS.labels(partition.partition).inc(missing)
        log.error("log_truncated", partition=partition.partition, position=position, target=target, missing=missing)

    async def _take_over(self, assigned: Collection[TopicPartition]) -> None:
        """Open a lane for each partition at its committed offset, with the plan that is found there."""
        if assigned:
            member = self._group.member
            committed = await self._group.read(assigned)
            beginnings = await self._consumer.beginning_offsets(list(assigned))
            for partition in assigned:
                topic_id = await self._topic_id(partition)
                position, plan = _starting_point(
                    partition.partition, committed[partition], topic_id, beginnings[partition]
                )
                self._consumer.seek(partition, position)
                self._lanes[partition] = PartitionBuffer(partition, position, plan, self._settings, member, topic_id)
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
            patience_seconds = max(0.0, self._settings.stop_seconds - CONFIRM_SECONDS - LEAVE_SECONDS)
            done, _ = await asyncio.wait(tasks, timeout=patience_seconds)
            for task in done:
                if not task.cancelled() and (error := task.exception()) is not None:
                    log.warning("batch_left_to_plan", error=str(error)[:500])
        await self._confirm([lane for lane in lanes if not lane.is_lost])
        for lane in lanes:
            lane.is_lost = True


def _described(batch: Batch) -> dict[str, str | int]:
    """What a span says of a batch, by OpenTelemetry's names where it has any."""
    return {
        "messaging.system": "kafka",
        "messaging.destination.name": batch.topic,
        "messaging.destination.partition.id": str(batch.partition),
        "messaging.batch.message_count": len(batch.records),
        "insights.first_offset": batch.first,
        "insights.last_offset": batch.last,
        "insights.batch": batch.token,
        "insights.is_replay": batch.found_plan is not None,
    }


def _starting_point(
    partition: int, found: OffsetAndMetadata, topic_id: str, beginning: int
) -> tuple[int, WriteIntent | None]:
    """Where a partition is to be read from, and the plan to be written first."""
    if found.offset < 0:
        return beginning, None
    mark = CommitMetadata.from_metadata(found.metadata)
    if mark.topic_id and mark.topic_id != topic_id:
        metrics.RECREATED_TOPICS.labels(partition).inc()
        log.error("topic_recreated", partition=partition, position=found.offset, beginning=beginning, dropped=0)
        return beginning, None
    return found.offset, mark.plan


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
