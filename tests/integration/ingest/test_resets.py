"""Random resets, kills and restores of one partition, against the plainest reference: each record is stored once.

The writer, its look at the tables and the engine are the real ones. Kafka's group is a variable here, so that a
hundred lives of a worker take seconds; tests/faults does the same with processes on Apache Kafka.
"""

import asyncio
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pyarrow as pa
import pytest
from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.structs import OffsetAndMetadata
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from aggregator.clickhouse.client import DatabaseError, Warehouse
from aggregator.rollups import rebuild
from ingest.consumer.assignment import Assignment, starting_point
from ingest.consumer.batch import Batch
from ingest.consumer.batch_writer import BatchWriter
from ingest.consumer.commits import BatchCommits
from ingest.consumer.daemon_executor import DaemonExecutor
from ingest.consumer.group_coordinator import GroupCoordinator, Member
from ingest.consumer.partition_buffer import PartitionBuffer
from ingest.consumer.sink import Sink
from ingest.consumer.stored_records import StoredRecordsReader
from ingest.consumer.usage_increments import IncrementProducer
from ingest.pricing import PriceBook
from ingest.settings import IngestSettings
from tests.support.events import MINIMAL

TABLES = ("request_logs", "request_payloads", "dead_letters")
OFFSETS = """
SELECT source_offset AS offset FROM {table} WHERE source_topic_id = {{topic_id:String}} ORDER BY offset
"""
MOMENT = "SELECT toString(now64(3)) AS at"


@dataclass
class Group:
    """What Kafka keeps of a consumer group, for one partition: the committed offset, and no fence."""

    committed: OffsetAndMetadata = field(default_factory=lambda: OffsetAndMetadata(-1, ""))
    member = Member(1, "member")

    async def commit(self, member: Member, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        [self.committed] = offsets.values()

    def set_to(self, offset: int) -> None:
        """By hand; -1 for an offset that is lost."""
        self.committed = OffsetAndMetadata(offset, "")


@dataclass
class OneTopic:
    """What a writer asks of its assignment."""

    id: str
    last: int

    async def topic_id(self, partition: TopicPartition) -> str:
        return self.id

    async def end(self, partition: TopicPartition) -> int:
        return self.last + 1


class KilledError(Exception):
    pass


class MortalSink(Sink):
    """Dies at its `kill_at`th insert, before or after ClickHouse has it."""

    def __init__(self, warehouse: Warehouse, kill_at: int, is_after: bool) -> None:
        super().__init__(warehouse, PriceBook())
        self.left, self.is_after = kill_at, is_after

    def _insert(self, table: str, rows: pa.Table, batch: Batch) -> None:
        self.left -= 1
        if self.left == 0 and not self.is_after:
            raise KilledError
        super()._insert(table, rows, batch)
        if self.left == 0:
            raise KilledError


@dataclass(frozen=True)
class Work:
    """One life of a worker: it writes batches of `sizes` records, and is killed at an insert unless that is 0."""

    sizes: Sequence[int]
    kill_at: int
    is_after: bool


@dataclass(frozen=True)
class Reset:
    """The group's offset is set to this share of the log, or lost."""

    share: float | None


@dataclass(frozen=True)
class Restore:
    """ClickHouse gets a backup back that was taken after so many steps; then everything is read again."""

    step: int


def works(kills: int) -> st.SearchStrategy[Work]:
    sizes = st.lists(st.integers(1, 9), min_size=1, max_size=5)
    return st.builds(Work, sizes, kill_at=st.integers(0, kills), is_after=st.booleans())


STEPS = st.lists(
    st.one_of(
        works(kills=9),
        works(kills=9),
        st.builds(Reset, st.none() | st.floats(0, 1)),
        st.builds(Restore, st.integers(0, 7)),
    ),
    min_size=2,
    max_size=8,
)
# (gap before the record as markers and compaction leave it, kind)
LOGS = st.lists(st.tuples(st.sampled_from([0, 0, 0, 1, 3]), st.sampled_from("eebx")), min_size=10, max_size=40)


def records_of(topic: str, kinds: Sequence[tuple[int, str]]) -> list[ConsumerRecord]:
    """Events, events with a body (b), and broken records (x)."""
    records, offset = [], 0
    for gap, kind in kinds:
        offset += gap
        event = {**MINIMAL, "request_id": f"{topic}-{offset}"} | ({"request_body": "b"} if kind == "b" else {})
        value = b"broken" if kind == "x" else json.dumps(event).encode()
        records.append(ConsumerRecord(topic, 0, offset, 1_700_000_000_000, 0, None, value, None, 0, len(value), ()))
        offset += 1
    return records


class Partition:
    """A log, its group, and the warehouse."""

    def __init__(self, warehouse: Warehouse, kinds: Sequence[tuple[int, str]]) -> None:
        self.warehouse, self.topic_id, self.group = warehouse, str(uuid.uuid4()), Group()
        self.place = TopicPartition(f"topic-{self.topic_id[:8]}", 0)
        self.records = records_of(self.place.topic, kinds)
        self.moments: list[str] = []

    async def take(self, step: Work | Reset | Restore) -> None:
        self.moments.append(self.warehouse.query(MOMENT)[0]["at"])
        if isinstance(step, Work):
            await self.work(step)
        elif isinstance(step, Reset):
            self.group.set_to(-1 if step.share is None else round(step.share * self.records[-1].offset))
        else:
            moment = self.moments[step.step % len(self.moments)]
            for table in TABLES:
                condition = f"source_topic_id = '{self.topic_id}' AND created_at >= '{moment}'"
                self.warehouse.command(f"ALTER TABLE {table} DELETE WHERE {condition} SETTINGS mutations_sync = 2")
            self.group.set_to(0)

    async def work(self, step: Work) -> None:
        start = starting_point(0, self.group.committed, self.topic_id, 0)
        buffer = PartitionBuffer(
            self.place, start.position, start.intent, IngestSettings(), self.group.member, self.topic_id,
            start.stored_before, start.reread_before,
        )  # fmt: skip
        writer, threads = self._writer(MortalSink(self.warehouse, step.kill_at, step.is_after))
        try:
            for size in step.sizes:
                waiting = [record for record in self.records if record.offset >= buffer.position]
                if buffer.replay is not None:
                    size = sum(record.offset <= buffer.replay.last for record in waiting)
                if not waiting[:size]:
                    break
                buffer.add(waiting[:size])
                await writer.write_next(buffer)
            await writer.commits.commit_written([buffer])
        except KilledError:
            pass
        finally:
            threads.close()

    def _writer(self, sink: Sink) -> tuple[BatchWriter, DaemonExecutor]:
        threads = DaemonExecutor(1)
        writer = BatchWriter(
            settings=IngestSettings(),
            sink=sink,
            increments=IncrementProducer("127.0.0.1:9"),
            receipts=None,
            commits=BatchCommits(cast(GroupCoordinator, self.group)),
            assignment=cast(Assignment, OneTopic(self.topic_id, self.records[-1].offset)),
            stored=StoredRecordsReader(self.warehouse),
            insert_threads=threads,
            intent_thread=threads,
            stopping=asyncio.Event(),
        )
        return writer, threads

    def offsets(self, table: str) -> list[int]:
        return [row["offset"] for row in self.warehouse.query(OFFSETS.format(table=table), {"topic_id": self.topic_id})]

    def expected(self) -> dict[str, list[int]]:
        def of(condition: Any) -> list[int]:
            return [record.offset for record in self.records if condition(record.value or b"")]

        return {
            "request_logs": of(lambda value: value != b"broken"),
            "request_payloads": of(lambda value: b"request_body" in value),
            "dead_letters": of(lambda value: value == b"broken"),
        }


TO_THE_END = Work([1_000, 1_000], kill_at=0, is_after=False)


@given(kinds=LOGS, steps=STEPS)
@settings(
    max_examples=12,
    deadline=None,
    # Not shrunk, which takes minutes: an example is short.
    phases=(Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_after_any_resets_kills_and_restores_each_record_is_stored_once(
    warehouse: Warehouse, kinds: Sequence[tuple[int, str]], steps: Sequence[Work | Reset | Restore]
) -> None:
    async def live() -> Partition:
        partition = Partition(warehouse, kinds)
        for step in steps:
            await partition.take(step)
        # Somebody may have set the offset forward as well.
        partition.group.set_to(0)
        await partition.take(TO_THE_END)
        return partition

    before = drift(warehouse)
    partition = asyncio.run(live())
    assert {table: partition.offsets(table) for table in TABLES} == partition.expected()
    # A backup that is given back has rollups like its rows; here they keep what was counted.
    if not any(isinstance(step, Restore) for step in steps):
        assert drift(warehouse) == before


def drift(warehouse: Warehouse) -> list[Any]:
    return [(found.rollup, found.drifted_groups) for found in rebuild.verify(warehouse)]


async def test_a_rollup_that_failed_behind_rows_that_were_read_again_is_completed_by_the_next_worker(
    warehouse: Warehouse,
) -> None:
    partition = Partition(warehouse, [(0, "e")] * 20)
    await partition.take(Work([10], kill_at=0, is_after=False))
    partition.group.set_to(0)
    warehouse.command("ALTER TABLE rollup_model ADD CONSTRAINT never CHECK requests > 1000000")
    with pytest.raises(DatabaseError, match="never"):
        await partition.take(Work([15], kill_at=0, is_after=False))
    assert len(partition.offsets("request_logs")) == 15
    warehouse.command("ALTER TABLE rollup_model DROP CONSTRAINT never")
    await partition.take(TO_THE_END)
    assert partition.offsets("request_logs") == list(range(20))
    assert [found for found in rebuild.verify(warehouse) if not found.is_zero] == []
