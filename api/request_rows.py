"""Rows of request_logs and request_payloads: their key, reading them by it, and their extent in time."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from aggregator.clickhouse.sql import instants
from aggregator.clickhouse.tables import KEY_COLUMNS
from aggregator.times import Span, micros
from api.security.reader import Reader

KEY = f"({', '.join(KEY_COLUMNS)})"
KEY_HASH = f"cityHash64{KEY} AS key_hash"
# The timestamps find the granules by the primary key, the hashes the rows, and both are short whatever the ids
# look like. Rows whose hashes are equal are distinguished by the whole key.
OF_KEYS = f"""
WHERE timestamp IN {instants("timestamps_us")}
AND cityHash64{KEY} IN {{hashes:Array(UInt64)}}
"""
OLDEST_AND_NEWEST = "SELECT min(timestamp) AS oldest, max(timestamp) AS newest FROM request_logs"

Row = dict[str, Any]


class Extent(NamedTuple):
    """The times of the oldest and of the newest request."""

    oldest: datetime
    newest: datetime

    def within(self, span: Span) -> "Extent":
        return Extent(max(self.oldest, span.start or self.oldest), min(self.newest, span.end or self.newest))


def extent_of(found: Row) -> Extent:
    """`found` is the row that OLDEST_AND_NEWEST returns."""
    return Extent(found["oldest"].replace(tzinfo=UTC), found["newest"].replace(tzinfo=UTC))


def key_of(row: Row) -> tuple[Any, ...]:
    """The columns that identify a row."""
    return tuple(row[name] for name in KEY_COLUMNS)


def keys_bound(keys: Sequence[Row]) -> dict[str, Any]:
    """The values that OF_KEYS binds, for rows of the key columns and `key_hash`."""
    return {
        "timestamps_us": sorted({micros(key["timestamp"]) for key in keys}),
        "hashes": [key["key_hash"] for key in keys],
    }


def in_order_of(keys: Sequence[Row], rows: Iterable[Row]) -> list[Row]:
    """`rows` in the order of their `keys`."""
    found = {key_of(row): row for row in rows}
    # A row may have reached the end of its time to live since its key was read.
    return [found[key] for key in map(key_of, keys) if key in found]


def rows_by_key(reader: Reader, sql: str, keys: list[Row]) -> list[Row]:
    """The rows of `keys` that `sql` (with OF_KEYS) reads, in the order of `keys`."""
    return in_order_of(keys, reader.query(sql, keys_bound(keys))) if keys else []
