"""Offsets that somebody has set back, or that Kafka has lost: what is stored already is not stored again."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.structs import OffsetAndMetadata
from prometheus_client import REGISTRY

from aggregator.clickhouse.client import Warehouse
from aggregator.clickhouse.retention import Retention, set_retention
from ingest.consumer.batch import Batch, PartitionLog
from ingest.consumer.sink import Sink
from ingest.consumer.stored_records import OffsetSpan, StoredRecordsReader
from ingest.consumer.worker import Worker
from ingest.pricing import PriceBook
from ingest.topics.create import create_topics
from tests.integration.ingest.test_sink import HOUR_MS, StoredRecord, encode
from tests.integration.ingest.test_worker import (
    FailingSink,
    assert_exactly_once,
    events,
    make_settings,
    needs_apache_kafka,
    produce,
    running,
    stored,
    until,
)
from tests.support.kafka import PARTITIONS, PATIENCE_SECONDS

TABLES = ("request_logs", "request_payloads", "dead_letters")


async def set_back(broker: str, topic: str, offsets: dict[int, int]) -> None:
    """As `kafka-consumer-groups --reset-offsets` does: without metadata, while the group has no member."""
    async with AIOKafkaConsumer(
        bootstrap_servers=broker, group_id=f"group-of-{topic}", enable_auto_commit=False
    ) as consumer:
        consumer.assign([TopicPartition(topic, partition) for partition in offsets])
        await consumer.commit(
            {TopicPartition(topic, partition): OffsetAndMetadata(offset, "") for partition, offset in offsets.items()}
        )


def already_stored() -> float:
    return REGISTRY.get_sample_value("insights_already_stored_records_total") or 0.0


async def write_all(
    broker: str, topic: str, warehouse: Warehouse, produced: set[tuple[int, int]], **settings: Any
) -> None:
    """Run a worker until all of `produced` are stored."""
    async with running(Worker(make_settings(broker, topic, **settings), warehouse)) as task:
        await until(lambda: set(stored(warehouse, topic)) >= produced, task)


def with_bodies(count: int, prefix: str) -> list[bytes]:
    return [encode(request_id=f"{prefix}-{n}", input_tokens=n, request_body={"n": n}) for n in range(count)]


def payload_offsets(warehouse: Warehouse) -> list[tuple[int, int]]:
    rows = warehouse.query("SELECT source_partition AS partition, source_offset AS offset FROM request_payloads")
    return sorted((row["partition"], row["offset"]) for row in rows)


@needs_apache_kafka
@pytest.mark.parametrize("flush_rows", [50_000, 7])
@pytest.mark.parametrize("to", [0, 13])
async def test_records_that_are_read_again_are_not_stored_again(
    broker: str, topic: str, warehouse: Warehouse, flush_rows: int, to: int
) -> None:
    produced = await produce(broker, topic, [*with_bodies(150, "a"), b"broken", *events(50, prefix="b")], partition=0)
    await write_all(broker, topic, warehouse, produced)
    bodies = payload_offsets(warehouse)
    await set_back(broker, topic, {0: to})
    skipped = already_stored()
    produced |= await produce(broker, topic, events(40, prefix="later"), partition=0)
    await write_all(broker, topic, warehouse, produced, flush_rows=flush_rows)
    assert_exactly_once(warehouse, topic, produced)
    assert payload_offsets(warehouse) == bodies
    assert already_stored() - skipped == 201 - to


async def test_a_group_that_has_lost_its_offsets_stores_only_what_is_missing(
    broker: str, topic: str, warehouse: Warehouse
) -> None:
    produced = await produce(broker, topic, [*with_bodies(100, "a"), b"broken"])
    await write_all(broker, topic, warehouse, produced)
    bodies = payload_offsets(warehouse)
    produced |= await produce(broker, topic, events(50, prefix="later"))
    await write_all(broker, topic, warehouse, produced, kafka_group=f"another-group-of-{topic}", flush_rows=11)
    assert_exactly_once(warehouse, topic, produced)
    assert payload_offsets(warehouse) == bodies


async def test_a_worker_that_dies_before_its_commit_leaves_nothing_to_double_even_without_intents(
    broker: str, topic: str, warehouse: Warehouse
) -> None:
    """The embedded broker drops the metadata of commits, and so the intent."""
    produced = await produce(broker, topic, events(100))
    worker = Worker(make_settings(broker, topic), warehouse)
    worker._sink = FailingSink(warehouse, 1, RuntimeError("a defect"), after=True)
    with pytest.raises(RuntimeError, match="a defect"):
        async with asyncio.timeout(PATIENCE_SECONDS):
            await worker.run(asyncio.Event())
    produced |= await produce(broker, topic, events(30, prefix="later"))
    await write_all(broker, topic, warehouse, produced)
    assert_exactly_once(warehouse, topic, produced)


def delete(warehouse: Warehouse, table: str, condition: str) -> None:
    warehouse.command(f"ALTER TABLE {table} DELETE WHERE {condition} SETTINGS mutations_sync = 2")


def remove_from(warehouse: Warehouse, moment: str) -> None:
    """What a backup that was taken at `moment` does not have."""
    for table in TABLES:
        delete(warehouse, table, f"created_at >= '{moment}'")
    for table in ("rollup_model", "rollup_user"):
        warehouse.command(f"TRUNCATE TABLE {table}")


@needs_apache_kafka
async def test_after_a_restore_of_an_older_backup_only_the_missing_records_come_again(
    broker: str, topic: str, warehouse: Warehouse
) -> None:
    before = await produce(broker, topic, [*with_bodies(90, "a"), b"broken"])
    await write_all(broker, topic, warehouse, before)
    moment = warehouse.query("SELECT toString(max(created_at) + INTERVAL 1 MILLISECOND) AS at FROM request_logs")[0]
    after = await produce(broker, topic, [*with_bodies(70, "lost"), b"broken too"])
    await write_all(broker, topic, warehouse, before | after)
    bodies = payload_offsets(warehouse)
    remove_from(warehouse, moment["at"])
    assert set(stored(warehouse, topic)) < before | after
    await set_back(broker, topic, dict.fromkeys(range(PARTITIONS), 0))
    await write_all(broker, topic, warehouse, before | after)
    assert stored(warehouse, topic) == sorted(before | after)
    assert payload_offsets(warehouse) == bodies


async def recreate(broker: str, topic: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=broker)
    await admin.start()
    await admin.delete_topics([topic])
    await admin.close()
    await create_topics(broker, {topic: PARTITIONS}, timeout_seconds=PATIENCE_SECONDS)


@needs_apache_kafka
async def test_records_of_a_recreated_topic_are_never_taken_for_those_of_the_old_one(
    broker: str, topic: str, warehouse: Warehouse
) -> None:
    """Even though they are the same events at the same offsets, and the group's offsets were set by hand."""
    old = await produce(broker, topic, [*events(60), b"broken"], partition=0)
    await write_all(broker, topic, warehouse, old)
    await recreate(broker, topic)
    new = await produce(broker, topic, [*events(60), b"broken"], partition=0)
    assert new == old
    await set_back(broker, topic, {0: 0})
    async with running(Worker(make_settings(broker, topic), warehouse)) as task:
        await until(lambda: len(stored(warehouse, topic)) >= 2 * len(old), task)
    assert stored(warehouse, topic) == sorted([*old, *new])


# What a look finds, on the engine alone.

LOG = PartitionLog("request-events", "id-1", 0)


def batch(records: list[StoredRecord], topic_id: str = "id-1", created_at_ms: int = HOUR_MS) -> Batch:
    return Batch("request-events", 0, records, created_at_ms, 0, topic_id)


def write_again(warehouse: Warehouse, records: list[StoredRecord], before: int, created_at_ms: int) -> None:
    """As a worker does that begins at the first of `records` and knows no intent."""
    span = OffsetSpan(records[0].offset, records[-1].offset, before)
    found = StoredRecordsReader(warehouse).read(LOG, span)
    again = Batch("request-events", 0, records, created_at_ms, 0, LOG.topic_id, stored=found, is_reread=True)
    for _ in range(2):
        Sink(warehouse, PriceBook()).write(again)


def count(warehouse: Warehouse, table: str) -> int:
    return int(warehouse.query(f"SELECT count() AS n FROM {table}")[0]["n"])


def test_rows_of_an_earlier_version_count_only_for_the_record_that_they_were_made_of(warehouse: Warehouse) -> None:
    """They do not say which topic they are of, so their content must."""
    old = [StoredRecord(0, encode(request_id="a")), StoredRecord(1, b"broken"), StoredRecord(2, encode(request_id="c"))]
    Sink(warehouse, PriceBook()).write(batch(old, topic_id=""))
    new = [*old[:2], StoredRecord(2, encode(request_id="other")), StoredRecord(3, b"broken as well")]
    write_again(warehouse, new, before=3, created_at_ms=HOUR_MS + 1)
    assert [count(warehouse, table) for table in ("request_logs", "dead_letters")] == [3, 2]


def test_a_payload_without_its_row_is_not_stored_a_second_time(warehouse: Warehouse) -> None:
    """A worker was killed between the two, and then the offsets were set back."""
    records = [StoredRecord(n, encode(request_id=f"r-{n}", request_body={"n": n})) for n in range(5)]
    Sink(warehouse, PriceBook()).write(batch(records))
    delete(warehouse, "request_logs", "1")
    assert StoredRecordsReader(warehouse).before(LOG, 2) == 5
    write_again(warehouse, records, before=5, created_at_ms=HOUR_MS + 1)
    assert [count(warehouse, table) for table in TABLES] == [5, 5, 0]


def test_a_record_that_was_a_dead_letter_for_an_earlier_version_gets_no_row(warehouse: Warehouse) -> None:
    Sink(warehouse, PriceBook()).write(batch([StoredRecord(0, b"not valid for that version")]))
    write_again(warehouse, [StoredRecord(0, encode(request_body="b"))], before=1, created_at_ms=HOUR_MS + 1)
    assert [count(warehouse, table) for table in TABLES] == [0, 0, 1]
    Sink(warehouse, PriceBook()).write(batch([StoredRecord(1, encode())]))
    write_again(warehouse, [StoredRecord(1, b"not valid for this version")], before=2, created_at_ms=HOUR_MS + 1)
    assert [count(warehouse, table) for table in TABLES] == [1, 0, 1]


def test_a_row_that_retention_has_deleted_is_not_counted_in_rollups_again(warehouse: Warehouse) -> None:
    old = [StoredRecord(0, encode(timestamp="2020-01-01T00:00:00Z")), StoredRecord(1, encode())]
    Sink(warehouse, PriceBook()).write(batch(old))
    set_retention(warehouse, Retention(rows_days=400, bodies_days=400))
    warehouse.command("OPTIMIZE TABLE request_logs FINAL")
    later = [StoredRecord(2, encode(timestamp="2020-01-01T00:00:00Z"))]
    write_again(warehouse, [*old, *later], before=2, created_at_ms=HOUR_MS + 1)
    assert warehouse.query("SELECT sum(requests) AS n FROM rollup_model") == [{"n": 3}]


def test_rows_that_somebody_has_deleted_come_again_although_their_token_is_remembered(warehouse: Warehouse) -> None:
    records = [StoredRecord(n, encode(request_id=f"r-{n}")) for n in range(5)]
    Sink(warehouse, PriceBook()).write(batch(records))
    delete(warehouse, "request_logs", "source_offset >= 3")
    write_again(warehouse, records, before=5, created_at_ms=HOUR_MS + 1)
    assert count(warehouse, "request_logs") == 5


def test_a_look_sees_nothing_of_other_topics_partitions_or_ids(warehouse: Warehouse) -> None:
    sink = Sink(warehouse, PriceBook())
    records = [StoredRecord(n, encode(request_body="b")) for n in range(3)]
    sink.write(batch([*records, StoredRecord(3, b"broken")], topic_id="id-of-an-older-one"))
    sink.write(Batch("request-events", 1, records, HOUR_MS, 0, "id-1"))
    sink.write(Batch("other-events", 0, records, HOUR_MS, 0, "id-2"))
    reader = StoredRecordsReader(warehouse)
    assert reader.before(LOG, 0) == 0
    found = reader.read(LOG, OffsetSpan(0, 9, 10))
    assert not any(places.offsets or places.unnamed for places in (found.rows, found.payloads, found.dead_letters))
    assert found.rows_from == datetime(1970, 1, 1, tzinfo=UTC)
    assert not reader.is_inserting(LOG)
