"""One partition while it is ours: its unwritten records, the batch in hand, the plan to write again."""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from itertools import islice

from aiokafka import ConsumerRecord, TopicPartition

from ingest.consumer.batch import WriteIntent
from ingest.consumer.group_coordinator import Member
from ingest.settings import IngestSettings


class PartitionBuffer:
    """Buffers records of a partition and says when a batch is due. Times are `time.monotonic()` seconds."""

    def __init__(
        self,
        partition: TopicPartition,
        position: int,
        replay: WriteIntent | None,
        settings: IngestSettings,
        member: Member,
        topic_id: str,
    ) -> None:
        self.partition = partition
        self.position = position
        self.replay = replay
        # Who holds the partition, and in which of the topics that have had this name.
        self.member = member
        self.topic_id = topic_id
        self.batch_in_hand: asyncio.Task[None] | None = None
        self.is_lost = False
        # While nothing is being written yet; `planned_at` is in seconds of the wall clock, which a suspended
        # machine does not stop.
        self.is_planning = False
        self.planned_at = 0.0
        # The next offset to plan, once a batch is written that no later plan has confirmed.
        self.unconfirmed: int | None = None
        # Of a batch; the worker lowers it when many partitions share its memory.
        self.batch_bytes = settings.flush_bytes
        self._settings = settings
        self._buffer: deque[ConsumerRecord] = deque()
        self._sizes: deque[int] = deque()
        self._buffered_bytes = 0
        self._oldest = 0.0
        self._last_added = 0.0
        self._written_at = time.monotonic()

    def add(self, records: Sequence[ConsumerRecord]) -> None:
        """Take fetched records; `position` is then the next offset to fetch."""
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
        """Whether to fetch no more: a whole batch waits."""
        if self.replay is not None:
            return self.has_replay_at_hand
        return len(self._buffer) >= self._settings.flush_rows or self._buffered_bytes >= self.batch_bytes

    @property
    def buffered(self) -> int:
        return len(self._buffer)

    @property
    def waited_seconds(self) -> float:
        """How long the oldest record has been here."""
        return time.monotonic() - self._oldest if self._buffer else 0.0

    @property
    def has_replay_at_hand(self) -> bool:
        return self.replay is not None and self.position > self.replay.last

    def written(self, next_offset: int) -> None:
        """A batch is in ClickHouse; the offset is confirmed by the next plan, or when the lane falls idle."""
        self.unconfirmed = next_offset
        self._written_at = time.monotonic()

    def is_idle_for(self, seconds: float) -> bool:
        is_idle = not self._buffer and self.batch_in_hand is None
        return is_idle and time.monotonic() - self._written_at >= seconds

    def is_due(self, flush_seconds: float) -> bool:
        """Whether a batch can be taken now: a plan is complete, or the rows, bytes or time are reached."""
        if self.is_lost or self.batch_in_hand is not None:
            return False
        if self.replay is not None:
            return self.has_replay_at_hand
        if not self._buffer:
            return False
        return self.is_full or time.monotonic() - self._oldest >= flush_seconds

    def take(self) -> list[ConsumerRecord]:
        """The records of the next batch; of the plan's batch while there is a plan."""
        count = self._fitting() if self.replay is None else self._planned(self.replay)
        records = [self._buffer.popleft() for _ in range(count)]
        self._buffered_bytes -= sum(self._sizes.popleft() for _ in range(count))
        self._oldest = self._last_added
        return records

    def _planned(self, replay: WriteIntent) -> int:
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
