"""The ingest loop: Kafka records in, each written exactly once, offsets out.

The protocol (docs/delivery.md), with one batch in flight per partition:
1. Declare the intent: the offset of the batch's first record is committed, with the end of the batch as metadata.
   Kafka fences the commit by the member and generation that the partition was assigned to, so a worker that has
   lost the partition cannot declare anything (commits.py).
2. Insert the batch under a token made of its offsets and bytes (batch_writer.py, sink.py).
3. Commit: the next intent's commit does it; so does a commit without an intent when the partition falls idle or is
   revoked (commits.py).
4. An intent found on assignment is written again, as exactly that batch, before anything new (assignment.py).
"""

import asyncio
import time
from contextlib import suppress

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import (
    IllegalStateError,
    KafkaConnectionError,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
)

from aggregator.clickhouse.client import Warehouse
from ingest.consumer.assignment import LEAVE_SECONDS, Assignment
from ingest.consumer.batch_writer import BatchWriter
from ingest.consumer.commits import BatchCommits
from ingest.consumer.daemon_executor import DaemonExecutor
from ingest.consumer.dead_letter_limit import DeadLetterLimit
from ingest.consumer.group_coordinator import GroupCoordinator
from ingest.consumer.lag import LagGauge
from ingest.consumer.partition_buffer import PartitionBuffer
from ingest.consumer.sink import Sink
from ingest.consumer.stored_records import StoredRecordsReader
from ingest.consumer.usage_increments import IncrementProducer
from ingest.pricing import PriceBook, ReloadingPriceBook
from ingest.receipts import Receipts
from ingest.settings import IngestSettings
from router_insights.errors import KafkaUnavailableError

log = structlog.get_logger(__name__)

POLL_MS = 50
FETCH_BYTES_PER_PARTITION = 4 * 1024 * 1024
MAX_POLL_RECORDS = 20_000
# How long it may take to notice partitions that were added, or a topic that is there again.
METADATA_AGE_MS = 10_000
# A flush interval is stretched once a worker owns more partitions than this, so that the number of parts
# ClickHouse has to merge stays bounded: parts per second = partitions x tables / interval.
PARTITIONS_PER_INTERVAL = 6
IDLE_COMMIT_SECONDS = 2.0
# For a process that does nothing else: values of a batch live for a moment and hold no cycles, and Python's usual 700
# makes it walk them again and again.
OBJECTS_BETWEEN_COLLECTIONS = 100_000
# Well below aiokafka's `max_poll_interval_ms`, after which Kafka gives the partitions to others.
POLL_AT_LEAST_EVERY_SECONDS = 60.0


class Worker:
    """Writes the partitions that Kafka assigns to it until it is asked to stop.

    `run` raises the error of ClickHouse or Kafka that cannot pass by itself, or has not passed within
    `insert_retry_seconds`. No offset past the failure is ever committed, so a restart goes on there.

    `receipts` are told of every batch that is stored.
    """

    def __init__(self, settings: IngestSettings, warehouse: Warehouse, receipts: Receipts | None = None) -> None:
        self._settings = settings
        self._receipts = receipts
        self._flush_seconds = settings.flush_seconds
        prices = ReloadingPriceBook(settings.prices_file) if settings.prices_file else PriceBook()
        limit = DeadLetterLimit(
            settings.dead_letters_in_a_row, settings.dead_letter_share, settings.dead_letter_window_records
        )
        self._sink = Sink(warehouse, prices, limit)
        self._stored = StoredRecordsReader(warehouse)
        self._buffers: dict[TopicPartition, PartitionBuffer] = {}
        self._insert_threads = DaemonExecutor(settings.insert_threads)
        # A thread of its own, so that no intent waits for an insert.
        self._intent_thread = DaemonExecutor(1)
        self._increments = IncrementProducer(settings.kafka_bootstrap_servers, **settings.client_options())
        self._stopping = asyncio.Event()
        self._fetched_at = time.monotonic()

    async def run(self, stop: asyncio.Event) -> None:
        """Consume until `stop` is set, then finish the batches in flight, commit them and leave the group."""
        settings = self._settings
        self._consumer = _consumer(settings)
        self._coordinator = GroupCoordinator(self._consumer, settings.kafka_group)
        self._commits = BatchCommits(self._coordinator)
        self._assignment = Assignment(self._consumer, self._coordinator, self._commits, self._buffers, settings)
        self._writer = BatchWriter(
            settings=settings,
            sink=self._sink,
            increments=self._increments,
            commits=self._commits,
            assignment=self._assignment,
            stored=self._stored,
            insert_threads=self._insert_threads,
            intent_thread=self._intent_thread,
            stopping=self._stopping,
            receipts=self._receipts,
        )
        try:
            self._consumer.subscribe([settings.kafka_topic], listener=self._assignment)
            try:
                await self._connect()
                self._increments.start()
                measuring = asyncio.create_task(LagGauge(self._consumer, self._buffers).keep())
                try:
                    await self._loop(stop)
                finally:
                    measuring.cancel()
            finally:
                await self._leave()
        finally:
            await self._increments.close()
            self._insert_threads.close()
            self._intent_thread.close()

    def flush_at_once(self) -> None:
        """From now on no record waits for others."""
        self._flush_seconds = 0.0

    async def _connect(self) -> None:
        try:
            await self._consumer.start()
        except KafkaConnectionError as error:
            servers = self._settings.kafka_bootstrap_servers
            raise KafkaUnavailableError(f"Kafka at {servers} does not answer") from error

    async def _leave(self) -> None:
        """Release all partitions and leave the group, within `stop_seconds` even if Kafka does not answer."""
        self._stopping.set()
        await self._assignment.on_partitions_revoked(list(self._buffers))
        try:
            async with asyncio.timeout(LEAVE_SECONDS):
                await self._consumer.stop()
        except (KafkaError, TimeoutError, asyncio.CancelledError) as error:
            # aiokafka raises the cancellation of a fetch that waited for a broker; nobody has cancelled this task.
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise
            log.warning("left_without_goodbye", reason=str(error) or type(error).__name__)
            await self._coordinator.close_connections()

    async def _loop(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await self._fetch()
            if self._assignment.failure is not None:
                raise self._assignment.failure
            self._share_memory()
            for buffer in list(self._buffers.values()):
                self._collect_finished_batch(buffer)
            for buffer in self._next_due():
                buffer.batch_in_flight = asyncio.create_task(self._writer.write_next(buffer))
            idle = [buffer for buffer in self._buffers.values() if buffer.is_idle_for(IDLE_COMMIT_SECONDS)]
            await self._commits.commit_written(idle)

    def _next_due(self) -> list[PartitionBuffer]:
        """The buffers whose batch is to be taken now, the longest waiting first.

        A batch that waits for a thread grows no more, so only as many are taken ahead as there are threads: what
        arrives in the meantime goes with those that are left.
        """
        buffers = self._buffers.values()
        flush_seconds = self._flush_seconds * max(1.0, len(buffers) / PARTITIONS_PER_INTERVAL)
        due = sorted(
            (buffer for buffer in buffers if buffer.is_due(flush_seconds)),
            key=lambda buffer: buffer.waited_seconds,
            reverse=True,
        )
        declaring = sum(buffer.is_declaring_intent and buffer.batch_in_flight is not None for buffer in buffers)
        ahead = self._insert_threads.waiting + declaring
        return due[: max(0, self._settings.insert_threads - ahead)]

    def _share_memory(self) -> None:
        """Each partition may hold one batch in flight and one that waits."""
        share = self._settings.buffer_bytes // max(1, 2 * len(self._buffers))
        for buffer in self._buffers.values():
            buffer.batch_bytes = min(self._settings.flush_bytes, share)

    async def _fetch(self) -> None:
        """Add what has arrived to the buffers that have room. For the others the consumer keeps what it has fetched."""
        wanted = [buffer.partition for buffer in self._buffers.values() if not buffer.is_full]
        if self._buffers and not wanted:
            await self._wait_for_room()
            return
        try:
            fetched = await self._consumer.getmany(*wanted, timeout_ms=POLL_MS, max_records=MAX_POLL_RECORDS)
        except OffsetOutOfRangeError as error:
            await self._assignment.skip_missing(error.args[0])
            return
        except (NoOffsetForPartitionError, IllegalStateError):
            # aiokafka looked for a committed offset before the assignment had set the position; or a rebalance in the
            # background has taken one of the partitions, and its buffer is about to go.
            await asyncio.sleep(POLL_MS / 1000)
            return
        self._fetched_at = time.monotonic()
        for partition, records in fetched.items():
            buffer = self._buffers.get(partition)
            if buffer is not None:
                buffer.add(records)

    async def _wait_for_room(self) -> None:
        """Every partition holds a whole batch behind the one in flight."""
        tasks = [buffer.batch_in_flight for buffer in self._buffers.values() if buffer.batch_in_flight is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=POLL_MS / 1000, return_when=asyncio.FIRST_COMPLETED)
        else:
            # All of them are lost. The rebalance that revokes them needs the event loop, too.
            await asyncio.sleep(POLL_MS / 1000)
        if time.monotonic() - self._fetched_at >= POLL_AT_LEAST_EVERY_SECONDS:
            await self._poll_to_stay_in_group()

    async def _poll_to_stay_in_group(self) -> None:
        """Kafka revokes the partitions of a consumer that does not poll for minutes. This polls a paused partition,
        which returns nothing; what was fetched of it is dropped, and fetched again."""
        partition = next(iter(self._buffers))
        with suppress(IllegalStateError):
            self._consumer.pause(partition)
            await self._consumer.getmany(partition, timeout_ms=0)
            self._consumer.resume(partition)
        self._fetched_at = time.monotonic()

    def _collect_finished_batch(self, buffer: PartitionBuffer) -> None:
        """Raises what made the batch fail for good."""
        task = buffer.batch_in_flight
        if task is not None and task.done():
            buffer.batch_in_flight = None
            task.result()


def _consumer(settings: IngestSettings) -> AIOKafkaConsumer:
    return AIOKafkaConsumer(
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
