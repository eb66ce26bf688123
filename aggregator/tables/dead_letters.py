"""Dead letters: records that did not become rows, and why. They can be replayed or dropped."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from aggregator.clickhouse.client import Warehouse
from aggregator.clickhouse.cluster import refuse_on_cluster
from aggregator.clickhouse.sql import Binder, all_of, time_range
from aggregator.times import EVERYTHING, Span

COLUMNS = """
    created_at, source_topic, source_partition, source_offset, record_timestamp, reason, field, message,
    hex(key) AS key_hex, hex(value) AS value_hex, value_bytes, is_truncated, headers
"""
BY_REASON = """
SELECT reason, field, count() AS letters, min(created_at) AS first, max(created_at) AS last FROM dead_letters
WHERE {where} GROUP BY reason, field ORDER BY letters DESC, reason, field
"""
PAGE = """
SELECT {columns} FROM dead_letters WHERE {where}
ORDER BY created_at DESC, source_topic DESC, source_partition DESC, source_offset DESC LIMIT {limit}
"""
DROP = "DELETE FROM dead_letters WHERE {where}"


@dataclass(frozen=True)
class Selection:
    """Dead letters of a reason, written within a span, from a place in Kafka; None does not restrict."""

    reason: str | None = None
    span: Span = EVERYTHING
    topic: str | None = None
    partition: int | None = None
    offset: int | None = None

    def where(self) -> tuple[str, dict[str, Any]]:
        """A condition, and the parameters that it binds."""
        binder = Binder()
        columns = {
            "reason": (self.reason, "String"),
            "source_topic": (self.topic, "String"),
            "source_partition": (self.partition, "UInt32"),
            "source_offset": (self.offset, "UInt64"),
        }
        equals = [
            f"{column} = {binder.bind(value, type_name)}"
            for column, (value, type_name) in columns.items()
            if value is not None
        ]
        return all_of(time_range("created_at", self.span), *equals), binder.parameters


@dataclass(frozen=True)
class DeadLetter:
    """A record as it was read from Kafka, with secrets redacted, and cut off past 1 MB."""

    created_at: datetime
    topic: str
    partition: int
    offset: int
    record_timestamp: datetime
    reason: str
    field: str
    message: str
    key: bytes
    value: bytes
    value_bytes: int
    is_truncated: bool
    headers: Sequence[dict[str, str]]

    @property
    def place(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"


def _letter(row: dict[str, Any]) -> DeadLetter:
    return DeadLetter(
        created_at=row["created_at"],
        topic=row["source_topic"],
        partition=row["source_partition"],
        offset=row["source_offset"],
        record_timestamp=row["record_timestamp"],
        reason=row["reason"],
        field=row["field"],
        message=row["message"],
        key=bytes.fromhex(row["key_hex"]),
        value=bytes.fromhex(row["value_hex"]),
        value_bytes=row["value_bytes"],
        is_truncated=row["is_truncated"],
        headers=row["headers"],
    )


def reasons(warehouse: Warehouse, selection: Selection) -> list[dict[str, Any]]:
    """The number of each reason and field, largest first, with the times of the first and the last."""
    where, values = selection.where()
    return warehouse.query(BY_REASON.format(where=where), values)


def newest(warehouse: Warehouse, selection: Selection, limit: int) -> list[DeadLetter]:
    """The newest of the selection, newest first."""
    where, values = selection.where()
    rows = warehouse.query(PAGE.format(columns=COLUMNS, where=where, limit=int(limit)), values)
    return [_letter(row) for row in rows]


def drop(warehouse: Warehouse, selection: Selection) -> int:
    """Delete the selection, and return how many there were. Raises ClusterError on a cluster."""
    refuse_on_cluster(warehouse, "deleting dead letters")
    where, values = selection.where()
    count = sum(int(row["letters"]) for row in reasons(warehouse, selection))
    warehouse.command(DROP.format(where=where), values)
    return count
