"""When a batch of a partition is due and what is in it; and what bounds a worker's memory."""

from typing import Any

from aiokafka import ConsumerRecord, TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from ingest.consumer.group_coordinator import Member
from ingest.consumer.intent import WriteIntent
from ingest.consumer.partition_buffer import PartitionBuffer
from ingest.settings import IngestSettings

NEVER, NOW = 3600.0, 0.0


def buffer(replay: WriteIntent | None = None, **settings: Any) -> PartitionBuffer:
    return PartitionBuffer(
        TopicPartition("t", 0), 0, replay, IngestSettings(**settings), Member(1, "member"), "topic-id"
    )


def records(*sizes: int, first: int = 0) -> list[ConsumerRecord]:
    """Records with values of `sizes` bytes."""
    return [
        ConsumerRecord("t", 0, first + place, 0, 0, None, b"x" * size, None, -1, size, ())
        for place, size in enumerate(sizes)
    ]


def test_a_batch_is_due_at_its_rows_its_bytes_or_its_time_whichever_comes_first() -> None:
    by_rows = buffer(flush_rows=3)
    by_rows.add(records(1, 1))
    assert not by_rows.is_due(NEVER)
    by_rows.add(records(1, first=2))
    assert by_rows.is_due(NEVER)

    by_bytes = buffer(flush_bytes=100)
    by_bytes.add(records(99))
    assert not by_bytes.is_due(NEVER)
    by_bytes.add(records(1, first=1))
    assert by_bytes.is_due(NEVER)

    by_time = buffer()
    assert not by_time.is_due(NOW)
    by_time.add(records(1))
    assert not by_time.is_due(NEVER)
    assert by_time.is_due(NOW)


@given(
    sizes=st.lists(st.integers(0, 50), min_size=1, max_size=60),
    rows=st.integers(1, 10),
    size=st.integers(1, 120),
)
def test_batches_hold_every_record_once_in_order_and_end_where_a_limit_is_reached(
    sizes: list[int], rows: int, size: int
) -> None:
    filled = buffer(flush_rows=rows, flush_bytes=size)
    filled.add(records(*sizes))
    batches = []
    while filled.buffered:
        batches.append(filled.take())
    assert [record.offset for batch in batches for record in batch] == list(range(len(sizes)))
    for batch in batches:
        lengths = [len(record.value or b"") for record in batch]
        assert len(batch) <= rows
        # Only the last record may lie past the limit: a record larger than it would never be written otherwise.
        assert sum(lengths[:-1]) < size
        is_last = batch is batches[-1]
        assert is_last or len(batch) == rows or sum(lengths) >= size
    assert not filled.is_full


def test_an_intent_is_due_once_all_its_records_are_there_and_is_taken_whole() -> None:
    replayed = buffer(WriteIntent(last=4, created_at_ms=0, generation=0, digest=""), flush_rows=2)
    replayed.add(records(1, 1, 1, 1))
    # Past the row limit, and fetching must go on all the same.
    assert not replayed.is_full
    assert not replayed.is_due(NOW)
    replayed.add(records(1, 1, first=4))
    assert replayed.is_full
    assert replayed.is_due(NEVER)
    assert [record.offset for record in replayed.take()] == [0, 1, 2, 3, 4]
