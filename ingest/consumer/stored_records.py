"""What the tables hold of a partition's log already, for a worker that begins where no intent says so.

Somebody has set the group's offsets back, or Kafka has lost them. The batches then get other borders, so that no token
recognises them; and a table forgets tokens, and a backup has none. But every row, payload and dead letter names the
offset of its record, and the topic by the id that Kafka gave it. Rows of before there were ids, or of a broker without
them, may be of an earlier topic of that name: such a row counts only for a record with the same content.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import structlog

from aggregator.clickhouse.client import DatabaseError, Warehouse
from aggregator.clickhouse.retention import RetentionError, kept_from
from aggregator.clickhouse.tables import DEAD_LETTERS, REQUEST_LOGS, REQUEST_PAYLOADS
from aggregator.times import EPOCH
from ingest.consumer.batch import PartitionLog, Record
from ingest.transform.decoder import Rejection

log = structlog.get_logger(__name__)

ACCESS_DENIED = 497
NEVER_MS = -1

OF_LOG = "source_partition = {partition:UInt32} AND source_topic_id IN ('', {topic_id:String})"
OF_TOPIC = f"source_topic = {{topic:String}} AND {OF_LOG}"
EVENT_CONTENT = "concat(toString(toUnixTimestamp64Micro(timestamp)), ' ', request_id)"
LETTER_CONTENT = "concat(toString(toUnixTimestamp64Milli(record_timestamp)), ' ', toString(value_bytes))"
# By table: which rows are of the log, and what tells the contents of two records apart. Payloads do not name the topic.
TABLES = {
    REQUEST_LOGS: (OF_TOPIC, EVENT_CONTENT),
    REQUEST_PAYLOADS: (OF_LOG, EVENT_CONTENT),
    DEAD_LETTERS: (OF_TOPIC, LETTER_CONTENT),
}
LAST = """
SELECT count() AS places, max(source_offset) AS last FROM {table} WHERE {of_log} AND source_offset >= {{first:UInt64}}
"""
PLACES = """
SELECT groupArrayIf(source_offset, source_topic_id != '') AS offsets,
    groupArrayIf((source_offset, {content}), source_topic_id = '') AS unnamed
FROM {table} WHERE {of_log} AND source_offset BETWEEN {{first:UInt64}} AND {{last:UInt64}}
AND created_at != fromUnixTimestamp64Milli({{besides_ms:Int64}}, 'UTC')
"""
INSERTS = """
SELECT count() AS inserts FROM system.processes
WHERE query_kind = 'Insert' AND startsWith(Settings['insert_deduplication_token'], {prefix:String})
"""


@dataclass(frozen=True)
class StoredPlaces:
    """Offsets that a table has rows of; `unnamed` are those of rows without a topic id, each with its content."""

    offsets: frozenset[int]
    unnamed: frozenset[tuple[int, str]]

    def has(self, offset: int, content: str = "") -> bool:
        return offset in self.offsets or (offset, content) in self.unnamed


class OffsetSpan(NamedTuple):
    """Offsets `first` to `last`, both included; `before` is the offset from which on nothing is stored."""

    first: int
    last: int
    before: int


@dataclass(frozen=True)
class StoredRecords:
    """What is stored of a span of a partition's log.

    Of events before `rows_from` retention may have deleted the rows, which the rollups go on counting. Those below
    `span.before` were written once, because a partition is written in order, so they count as stored.
    """

    span: OffsetSpan
    rows: StoredPlaces
    payloads: StoredPlaces
    dead_letters: StoredPlaces
    rows_from: datetime

    def missing_rows(self, records: Sequence[Record], events: pa.Table) -> pa.Table:
        """The events that have no row yet, and are no dead letter of an earlier version either."""
        expired = pc.less(events["timestamp"], pa.scalar(self.rows_from, events["timestamp"].type)).to_pylist()
        is_missing = [
            not (self.rows.has(record.offset, content) or self._is_dead(record))
            and not (is_expired and record.offset < self.span.before)
            for (record, content), is_expired in zip(_contents(records, events), expired, strict=True)
        ]
        return events.filter(pa.array(is_missing, pa.bool_()))

    def missing_payloads(self, records: Sequence[Record], events: pa.Table) -> pa.Table:
        """The events that have no payload yet. Payloads go in before rows, so one may be there alone."""
        is_missing = [
            not (self.payloads.has(record.offset, content) or self._is_dead(record))
            for record, content in _contents(records, events)
        ]
        return events.filter(pa.array(is_missing, pa.bool_()))

    def missing_dead_letters(self, records: Sequence[Record], rejections: Sequence[Rejection]) -> list[Rejection]:
        """The rejections that are no dead letter yet, nor a row of a version that took them for valid."""
        sources = [(records[rejection.row_index], rejection) for rejection in rejections]
        return [
            rejection for record, rejection in sources if not (self.rows.has(record.offset) or self._is_dead(record))
        ]

    def _is_dead(self, record: Record) -> bool:
        return self.dead_letters.has(record.offset, _letter_content(record))


def _contents(records: Sequence[Record], events: pa.Table) -> list[tuple[Record, str]]:
    """Of each event its record, and what tells it apart."""
    micros = events["timestamp"].cast(pa.int64()).to_pylist()
    indexes, names = events["row_index"].to_pylist(), events["request_id"].to_pylist()
    return [(records[index], f"{micro} {name}") for index, micro, name in zip(indexes, micros, names, strict=True)]


def _letter_content(record: Record) -> str:
    return f"{max(record.timestamp, 0)} {len(record.value or b'')}"


class StoredRecordsReader:
    """Looks into the tables; every method blocks, may be called from several threads, and raises what the warehouse
    raises. Nothing but the offset narrows a look down, so it scans a column of each table: for starts without an
    intent only."""

    def __init__(self, warehouse: Warehouse) -> None:
        self._warehouse = warehouse

    def is_inserting(self, partition_log: PartitionLog) -> bool:
        """Whether ClickHouse still works at an insert of an earlier worker, which a look would not see yet."""
        prefix = f"{partition_log.topic}/{partition_log.partition}/"
        shard = self._warehouse.shard_for(partition_log.partition)
        try:
            return bool(shard.query(INSERTS, {"prefix": prefix})[0]["inserts"])
        except DatabaseError as error:
            if error.code != ACCESS_DENIED:
                raise
            log.warning("running_inserts_unknown", reason="no right to read system.processes")
            return False

    def before(self, partition_log: PartitionLog, first: int) -> int:
        """The offset from which on nothing is stored; 0 if that holds from `first` on."""
        values = {**partition_log._asdict(), "first": first}
        found = [
            self._warehouse.query(LAST.format(table=table, of_log=of_log), values)[0]
            for table, (of_log, _) in TABLES.items()
        ]
        return max((row["last"] + 1 for row in found if row["places"]), default=0)

    def read(self, partition_log: PartitionLog, span: OffsetSpan, besides_ms: int = NEVER_MS) -> StoredRecords:
        """What is stored of a span, but for what the batch of `besides_ms` (its `created_at`) has stored."""
        values = {
            **partition_log._asdict(), "first": span.first, "last": span.last, "besides_ms": besides_ms
        }  # fmt: skip
        places = {}
        for table, (of_log, content) in TABLES.items():
            [row] = self._warehouse.query(PLACES.format(table=table, of_log=of_log, content=content), values)
            places[table] = StoredPlaces(frozenset(row["offsets"]), frozenset(map(tuple, row["unnamed"])))
        return StoredRecords(
            span, places[REQUEST_LOGS], places[REQUEST_PAYLOADS], places[DEAD_LETTERS], self._rows_from()
        )

    def _rows_from(self) -> datetime:
        try:
            return kept_from(self._warehouse)
        except RetentionError as error:
            log.warning("retention_unknown", reason=str(error))
            return EPOCH
