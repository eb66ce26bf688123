"""What a batch adds to usage: the sums in SQL against sums in Python, and their way through the encoding."""

import asyncio
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from prometheus_client import REGISTRY

from aggregator.budgets.increment import ADDED, SOURCE, Source, decode, encode
from aggregator.budgets.subject import SubjectKind, partition_of
from aggregator.budgets.topics import INCREMENTS, create_budget_topics, partitions_of
from aggregator.clickhouse.client import Warehouse
from ingest.consumer.batch import Batch
from ingest.consumer.usage_increments import MAX_TAG_ROWS, SEND_SECONDS, IncrementProducer, messages, usage_of
from ingest.consumer.worker import Worker
from ingest.transform.rows import is_error
from tests.integration.ingest.test_sink import encode as event
from tests.integration.ingest.test_worker import make_settings, produce, running
from tests.support.kafka import PATIENCE_SECONDS
from tests.support.rows import LOG_SCHEMA, Row, random_rows, why_unpriced

PARTITIONS = 6
Sums = dict[tuple[str, str, int], list[Any]]


def usage_table(rows: list[Row]) -> pa.Table:
    table = pa.Table.from_pylist([{**row, "metadata": json.dumps(row["metadata"])} for row in rows], LOG_SCHEMA)
    return usage_of(table, is_error(table), table["cost"])


def scopes(row: Row) -> set[tuple[str, str]]:
    named = {("model", row["model_name"]), ("user", row["user_id"]), ("api_key", row["api_key_id"])}
    return {("total", ""), *(pair for pair in named if pair[1]), *(("tag", tag) for tag in row["tags"])}


def brute_force(rows: list[Row]) -> Sums:
    sums: Sums = defaultdict(lambda: [0, 0, 0, 0, 0, 0, Decimal(0), 0, 0])
    for row in rows:
        added = [
            1,
            int(row["is_error"]),
            *(int(why_unpriced(row) == reason) for reason in ("no_price", "no_usage", "failed_without_usage")),
            (row["input_tokens"] or 0) + (row["output_tokens"] or 0),
            row["cost"] or Decimal(0),
            row["duration_ms"] or 0,
            int(row["duration_ms"] is not None),
        ]
        for kind, value in scopes(row):
            key = (kind, value, int(row["timestamp"].timestamp() // 60))
            sums[key] = [a + b for a, b in zip(sums[key], added, strict=True)]
    return dict(sums)


@dataclass
class OneRecord:
    offset: int
    timestamp: int = 0
    key: bytes | None = None
    value: bytes | None = b""
    headers: Sequence[tuple[str, bytes]] = ()


def batch(first: int = 5, count: int = 3) -> Batch:
    return Batch("events", 4, [OneRecord(first + n) for n in range(count)], 0, 0, "topic-id")


def test_messages_of_an_earlier_and_of_a_later_version_are_read() -> None:
    """An earlier one knew no reasons, a later one may have more columns. Without another it is no increment."""
    source = Source(topic="events", topic_id="id", partition=1, first=2, last=3)
    table = usage_table(random_rows(seed=12, count=20))
    today = decode(encode(source, table))

    def message(columns: pa.Table) -> bytes:
        schema = columns.schema.with_metadata({SOURCE: source.model_dump_json().encode()})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, schema) as writer:
            writer.write_table(columns.cast(schema))
        return bytes(sink.getvalue())

    later = table.append_column("tomorrow", pa.array(range(len(table))))
    assert decode(message(later)) == today
    earlier = decode(message(table.drop_columns(list(ADDED))))
    assert earlier.usage == [usage._replace(missing_usage=0, failed_without_usage=0) for usage in today.usage]
    with pytest.raises(ValueError, match="an increment has a column"):
        decode(message(table.drop_columns(["cost"])))


def test_the_messages_hold_every_sum_once_and_in_the_partition_of_its_scope() -> None:
    rows = random_rows(seed=11, count=500)
    sent = messages(batch(), usage_table(rows), PARTITIONS)
    found: Sums = {}
    for partition, message in sent.items():
        increment = decode(message)
        assert increment.source == Source(topic="events", topic_id="topic-id", partition=4, first=5, last=7)
        for usage in increment.usage:
            assert partition_of(usage.kind, usage.value, PARTITIONS) == partition
            assert (usage.kind, usage.value, usage.minute) not in found
            found[(usage.kind, usage.value, usage.minute)] = list(usage[3:])
    assert found == brute_force(rows)
    assert {kind for kind, _, _ in found} == {kind.value for kind in SubjectKind}


def test_tags_of_their_own_for_each_request_are_bounded() -> None:
    rows = [{**row, "tags": [f"request-{n}", "all"]} for n, row in enumerate(random_rows(1, MAX_TAG_ROWS + 500))]
    kinds = usage_table(rows)["kind"].to_pylist()
    assert kinds.count("tag") == MAX_TAG_ROWS


def test_no_events_say_nothing() -> None:
    assert usage_table([]).num_rows == 0
    assert messages(batch(), usage_table([]), PARTITIONS) == {}


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"{}", id="JSON"),
        pytest.param(encode(batch_source := Source(topic="t", topic_id="", partition=0, first=0, last=0),
                            usage_table([]))[:40], id="cut"),
    ],
)  # fmt: skip
def test_what_is_no_increment_is_refused(message: bytes) -> None:
    with pytest.raises(ValueError, match=r".*"):
        decode(message)


async def test_a_kafka_that_is_away_neither_fails_nor_holds_up_a_batch() -> None:
    producer = IncrementProducer("127.0.0.1:9")
    producer.start()
    before = REGISTRY.get_sample_value("insights_increments_dropped_total") or 0.0
    usage = usage_table(random_rows(1, 10))
    # Kafka's client itself would try for 5 s.
    async with asyncio.timeout(SEND_SECONDS + 3.0):
        found = await asyncio.to_thread(producer.encoded, batch(), usage)
        await producer.emit(found)
    assert found == {}
    assert REGISTRY.get_sample_value("insights_increments_dropped_total") == before + 1
    await asyncio.sleep(0.05)
    await producer.close()


OF_RANGE = """
SELECT count() AS rows FROM request_logs WHERE source_partition = {partition:UInt32}
AND source_offset BETWEEN {first:UInt64} AND {last:UInt64}
"""


async def test_an_increment_is_sent_when_its_rows_are_stored_and_every_record_is_in_one(
    broker: str, topic: str, warehouse: Warehouse
) -> None:
    await create_budget_topics(broker)
    partitions = [TopicPartition(INCREMENTS, n) for n in range(await partitions_of(broker, INCREMENTS))]
    told: set[tuple[int, int]] = set()
    async with AIOKafkaConsumer(bootstrap_servers=broker) as consumer:
        consumer.assign(partitions)
        await consumer.seek_to_end()
        # Small batches, so that there are many.
        async with running(Worker(make_settings(broker, topic, flush_rows=20), warehouse)):
            # What is stored before the producer of increments is connected has none.
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not told:
                    await produce(broker, topic, [event()])
                    told |= await _told(consumer, topic, warehouse)
                produced = await produce(broker, topic, [event(request_id=f"r-{n}") for n in range(200)])
                while not produced <= told:
                    told |= await _told(consumer, topic, warehouse)


async def _told(consumer: AIOKafkaConsumer, topic: str, warehouse: Warehouse) -> set[tuple[int, int]]:
    """Partition and offset of the records of increments that have come; their rows must be there."""
    found = set()
    for records in (await consumer.getmany(timeout_ms=200)).values():
        for record in records:
            source = decode(record.value).source
            if source.topic != topic:
                continue
            values = {"partition": source.partition, "first": source.first, "last": source.last}
            assert warehouse.query(OF_RANGE, values)[0]["rows"] == source.last - source.first + 1
            found |= {(source.partition, offset) for offset in range(source.first, source.last + 1)}
    return found
