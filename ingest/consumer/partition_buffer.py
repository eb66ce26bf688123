"""One assigned partition: its unwritten records, the batch in flight, the intent to write again."""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from itertools import islice

from aiokafka import ConsumerRecord, TopicPartition

from ingest.consumer.batch import PartitionLog
from ingest.consumer.group_coordinator import Member
from ingest.consumer.intent import CommitMetadata, WriteIntent
from ingest.consumer.stored_records import StoredRecords
from ingest.settings import IngestSettings


class PartitionBuffer:
    """Buffers records of a partition until a batch is due. Times are `time.monotonic()` seconds.

    `position` is the next offset to fetch. `replay` is the intent of an earlier worker, until its batch is written.
    `stored_before` and `reread_before` are those of the commit's metadata; the first is None until somebody has looked.
    """

    def __init__(
        self,
        partition: TopicPartition,
        position: int,
        replay: WriteIntent | None,
        settings: IngestSettings,
        member: Member,
        topic_id: str,
        stored_before: int | None = 0,
        reread_before: int = 0,
    ) -> None:
        self.partition = partition
        self.position = position
        self.replay = replay
        # Who holds the partition, and the id of the topic: several may have had this name.
        self.member = member
        self.topic_id = topic_id
        self.stored_before = stored_before
        self.reread_before = reread_before
        # What was found there, for a span of offsets.
        self.stored: StoredRecords | None = None
        self.batch_in_flight: asyncio.Task[None] | None = None
        self.is_lost = False
        # While nothing is being written yet; `declared_at` is in seconds of the wall clock, which a suspended
        # machine does not stop.
        self.is_declaring_intent = False
        self.declared_at = 0.0
        # The offset after the last written batch, until a commit has taken it.
        self.uncommitted: int | None = None
        # The size at which a batch ends; the worker lowers it when many partitions share its memory.
        self.batch_bytes = settings.flush_bytes
        self._settings = settings
        self._buffer: deque[ConsumerRecord] = deque()
        self._sizes: deque[int] = deque()
        self._buffered_bytes = 0
        self._taken = 0
        self._oldest = 0.0
        self._last_added = 0.0
        self._written_at = time.monotonic()

    @property
    def log(self) -> PartitionLog:
        return PartitionLog(self.partition.topic, self.topic_id, self.partition.partition)

    def metadata(self, offset: int, intent: WriteIntent | None = None) -> CommitMetadata:
        """The metadata of a commit of `offset`; a bound that is passed is no longer in it."""
        stored_before = self.stored_before or 0
        return CommitMetadata(
            topic_id=self.topic_id,
            intent=intent,
            stored_before=stored_before if offset < stored_before else 0,
            reread_before=self.reread_before if offset < self.reread_before else 0,
        )

    def add(self, records: Sequence[ConsumerRecord]) -> None:
        """Take fetched records."""
        self._last_added = time.monotonic()
        if not self._buffer:
            self._oldest = self._last_added
        sizes = [_size(record) for record in records]
        self._buffer.extend(records)
        self._sizes.extend(sizes)
        self._buffered_bytes += sum(sizes)
        self.position = records[-1].offset + 1

    @property
    def is_full(self) -> bool:
        """Whether a whole batch waits, so that no more is to be fetched."""
        if self.replay is not None:
            return self.has_whole_replay
        return len(self._buffer) >= self._settings.flush_rows or self._buffered_bytes >= self.batch_bytes

    @property
    def buffered(self) -> int:
        return len(self._buffer)

    @property
    def unwritten(self) -> int:
        """Records that were fetched and are not in ClickHouse yet."""
        return len(self._buffer) + self._taken

    @property
    def waited_seconds(self) -> float:
        """How long the oldest record has been in the buffer."""
        return time.monotonic() - self._oldest if self._buffer else 0.0

    @property
    def has_whole_replay(self) -> bool:
        return self.replay is not None and self.position > self.replay.last

    def mark_written(self, next_offset: int) -> None:
        """A batch is in ClickHouse; its offset is committed with the next intent, or when the partition falls idle."""
        self.uncommitted = next_offset
        self._taken = 0
        self._written_at = time.monotonic()

    def is_idle_for(self, seconds: float) -> bool:
        is_idle = not self._buffer and self.batch_in_flight is None
        return is_idle and time.monotonic() - self._written_at >= seconds

    def is_due(self, flush_seconds: float) -> bool:
        """Whether a batch can be taken now: a replay is complete, or the rows, bytes or time are reached."""
        if self.is_lost or self.batch_in_flight is not None:
            return False
        if self.replay is not None:
            return self.has_whole_replay
        if not self._buffer:
            return False
        return self.is_full or time.monotonic() - self._oldest >= flush_seconds

    def take(self) -> list[ConsumerRecord]:
        """The records of the next batch; of the replayed batch while there is one."""
        count = self._fitting() if self.replay is None else self._replayed(self.replay)
        records = [self._buffer.popleft() for _ in range(count)]
        self._buffered_bytes -= sum(self._sizes.popleft() for _ in range(count))
        self._oldest = self._last_added
        self._taken = count
        return records

    def _replayed(self, replay: WriteIntent) -> int:
        return sum(record.offset <= replay.last for record in self._buffer)

    def _fitting(self) -> int:
        """How many records a batch takes: up to a number, or to the one that passes the size."""
        taken_bytes = 0
        for count, size in enumerate(islice(self._sizes, self._settings.flush_rows)):
            if taken_bytes >= self.batch_bytes:
                return count
            taken_bytes += size
        return min(len(self._sizes), self._settings.flush_rows)


def _size(record: ConsumerRecord) -> int:
    return len(record.value or b"") + len(record.key or b"")
