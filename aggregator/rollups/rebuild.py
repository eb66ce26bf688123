"""Checking rollups against raw rows, and rebuilding them while ingestion goes on.

Every raw row carries the `generation` it was counted in, and rollups are partitioned by (month, generation).
A rebuild first opens a new generation, so that ingestion no longer writes to the older partitions. Then it recomputes
each of these in a staging table and replaces the partition, which ClickHouse does atomically. A batch may still be in
flight under an old generation; the rebuild verifies afterwards and repeats if there is drift.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from aggregator.clickhouse.client import Warehouse
from aggregator.clickhouse.cluster import refuse_on_cluster
from aggregator.clickhouse.retention import with_rows
from aggregator.clickhouse.sql import all_of, time_range
from aggregator.clickhouse.tables import REQUEST_LOGS
from aggregator.rollups.measures import DURATION_HISTOGRAM, MEASURES, ROLLUPS, Bucket, Measure, Rollup
from aggregator.rollups.planner import ceiling, floor
from aggregator.times import EVERYTHING, Span

# Workers read the generation before a batch, and use it for less than this.
SETTLE_SECONDS = 3.0
TRIES = 3

CURRENT_GENERATION = "SELECT max(generation) AS generation FROM rollup_generations"
OPEN_GENERATION = """
INSERT INTO rollup_generations (generation, started_at, reason)
VALUES ({generation:UInt32}, now64(3), {reason:String})
"""
LEFTOVERS = """
SELECT name FROM system.tables WHERE database = currentDatabase() AND match(name, '^rollup_[a-z]+_rebuild_[0-9]+$')
AND metadata_modification_time < now() - INTERVAL 1 DAY
"""


@dataclass(frozen=True)
class Drift:
    """How far a rollup is from the raw rows: groups compared, groups that differ, sums of absolute differences."""

    rollup: str
    groups: int
    drifted_groups: int
    differences: dict[str, int | Decimal]

    @property
    def is_zero(self) -> bool:
        return self.drifted_groups == 0


def align(span: Span) -> Span:
    """The span widened to whole hours, the coarsest buckets that a rollup's table has."""
    return Span(span.start and floor(span.start, Bucket.HOUR), span.end and ceiling(span.end, Bucket.HOUR))


def _drift_of(measure: Measure) -> str:
    """SQL that is 0 where both sides agree. A histogram that differs counts as 1."""
    if measure is DURATION_HISTOGRAM:
        rollup, raw = (f"anyIf(sides.{measure.name}, side = {side})" for side in (1, 0))
        return f"toUInt8({rollup} != {raw})"
    rollup, raw = (f"sumIf(sides.{measure.name}, side = {side})" for side in (1, 0))
    return f"abs({rollup} - {raw})"


def _value(measure: Measure, table: str) -> str:
    """SQL for a measure of a group on one side. For a histogram it is the answer as text: to compare states, ClickHouse
    would merge those of both sides again, which took half of the time, and the NaN of an empty one equals nothing."""
    value = measure.from_raw if table == REQUEST_LOGS else measure.merge.format(column=f"{table}.{measure.name}")
    if measure is DURATION_HISTOGRAM:
        value = f"toString(finalizeAggregation({value}))"
    return f"{value} AS {measure.name}"


def _grouped(rollup: Rollup, table: str, side: int, span: Span, newest: int) -> str:
    keys = ", ".join(dimension.value for dimension in rollup.dimensions)
    if table == REQUEST_LOGS:
        bucket, column = f"{rollup.bucket_of('timestamp')} AS bucket", "timestamp"
    else:
        bucket, column = "bucket", "bucket"
    values = ", ".join(_value(measure, table) for measure in MEASURES)
    return (
        f"SELECT {bucket}, {keys}, {side} AS side, {values} FROM {table} "
        f"WHERE {all_of(time_range(column, span), f'generation <= {newest}')} GROUP BY bucket, {keys}"
    )


NEWEST_GENERATION = 2**32 - 1


def verify(warehouse: Warehouse, span: Span = EVERYTHING, newest: int = NEWEST_GENERATION) -> list[Drift]:
    """Compare every rollup with the raw rows, group by group, over the span widened to whole hours.

    Only rows of generations up to `newest` count: those that a rebuild has closed do not change while rows arrive.
    Times whose rows retention has deleted do not count. Raises RetentionError where it is unknown which these are.
    """
    aligned = with_rows(warehouse, align(span))
    return [_verify_one(warehouse, rollup, aligned, newest) for rollup in ROLLUPS]


def _verify_one(warehouse: Warehouse, rollup: Rollup, span: Span, newest: int) -> Drift:
    keys = ", ".join(dimension.value for dimension in rollup.dimensions)
    drifts = ", ".join(f"{_drift_of(measure)} AS {measure.name}_drift" for measure in MEASURES)
    totals = ", ".join(f"sum({measure.name}_drift) AS {measure.name}" for measure in MEASURES)
    any_drift = " OR ".join(f"{measure.name}_drift != 0" for measure in MEASURES)
    sql = f"""
    SELECT count() AS groups, countIf({any_drift}) AS drifted_groups, {totals} FROM (
        SELECT bucket, {keys}, {drifts} FROM (
            {_grouped(rollup, rollup.table, 1, span, newest)}
            UNION ALL {_grouped(rollup, REQUEST_LOGS, 0, span, newest)}
        ) AS sides GROUP BY bucket, {keys}
    )"""
    row = warehouse.query(sql)[0]
    return Drift(rollup.table, row.pop("groups"), row.pop("drifted_groups"), row)


def current_generation(warehouse: Warehouse) -> int:
    return int(warehouse.query(CURRENT_GENERATION)[0]["generation"])


@dataclass(frozen=True)
class _Slice:
    """One partition of one rollup, to be recomputed."""

    rollup: Rollup
    month: int
    generation: int

    @property
    def partition(self) -> str:
        return f"({self.month}, {self.generation})"


def _slices(warehouse: Warehouse, span: Span, newest: int) -> Iterator[_Slice]:
    in_raw, in_rollup = (all_of(time_range(column, span)) for column in ("timestamp", "bucket"))
    raw = f"SELECT toYYYYMM(timestamp) AS month, generation FROM {REQUEST_LOGS} WHERE {in_raw}"
    for rollup in ROLLUPS:
        kept = f"SELECT toYYYYMM(bucket) AS month, generation FROM {rollup.table} WHERE {in_rollup}"
        sql = (
            f"SELECT DISTINCT month, generation FROM ({raw} UNION ALL {kept}) "
            "WHERE generation <= {newest:UInt32} ORDER BY month, generation"
        )
        for row in warehouse.query(sql, {"newest": newest}):
            yield _Slice(rollup, row["month"], row["generation"])


def _swap(warehouse: Warehouse, piece: _Slice, staging: str) -> str:
    """The change that puts the staging table in place. ClickHouse cannot replace a partition from an empty table."""
    if warehouse.query(f"SELECT 1 FROM {staging} LIMIT 1"):
        return f"REPLACE PARTITION {piece.partition} FROM {staging}"
    return f"DROP PARTITION {piece.partition}"


def _rebuild_slice(warehouse: Warehouse, piece: _Slice, span: Span, staging: str) -> None:
    """Recompute the partition in `staging`, then replace it."""
    table = piece.rollup.table
    keys = ", ".join(["bucket", "generation", *(dimension.value for dimension in piece.rollup.dimensions)])
    names = ", ".join(measure.name for measure in MEASURES)
    merged = ", ".join(m.merge.format(column=f"{table}.{m.name}") for m in MEASURES)
    counted = ", ".join(measure.from_raw for measure in MEASURES)
    in_raw, in_rollup = (all_of(time_range(column, span)) for column in ("timestamp", "bucket"))
    insert = f"INSERT INTO {staging} ({keys}, {names}) SETTINGS insert_deduplicate = 0, async_insert = 0"
    warehouse.command(f"CREATE TABLE {staging} AS {table}")
    try:
        warehouse.command(
            f"{insert} SELECT {keys}, {merged} FROM {table} WHERE toYYYYMM(bucket) = {piece.month}"
            f" AND generation = {piece.generation} AND NOT ({in_rollup}) GROUP BY {keys}"
        )
        raw_keys = keys.replace("bucket", f"{piece.rollup.bucket_of('timestamp')} AS bucket", 1)
        warehouse.command(
            f"{insert} SELECT {raw_keys}, {counted} FROM {REQUEST_LOGS} WHERE toYYYYMM(timestamp) = {piece.month}"
            f" AND generation = {piece.generation} AND {in_raw} GROUP BY {keys}"
        )
        warehouse.command(f"ALTER TABLE {table} {_swap(warehouse, piece, staging)}")
    finally:
        warehouse.command(f"DROP TABLE IF EXISTS {staging} SYNC")


def rebuild(
    warehouse: Warehouse,
    span: Span,
    reason: str = "rebuild",
    progress: Callable[[int, int], Any] = lambda done, total: None,
) -> list[Drift]:
    """Recompute every rollup over `span` (widened to whole hours) and return the drift that is left.

    Readers see each partition either before or after the rebuild, and ingestion continues. It is safe to interrupt
    and to run again. `progress` is called with (partitions done, partitions in all). Times whose rows retention has
    deleted keep their sums, in partitions that have every column and projection. Raises ClusterError on a cluster, and
    RetentionError as `verify` does.
    """
    refuse_on_cluster(warehouse, "rebuilding rollups")
    aligned = align(span)
    for row in warehouse.query(LEFTOVERS):
        warehouse.command(f"DROP TABLE IF EXISTS `{row['name']}`")
    for _ in range(TRIES):
        closed = current_generation(warehouse)
        warehouse.command(OPEN_GENERATION, {"generation": closed + 1, "reason": reason})
        time.sleep(SETTLE_SECONDS)
        pieces = list(_slices(warehouse, aligned, closed))
        for done, piece in enumerate(pieces, start=1):
            # For each piece, since days may pass meanwhile.
            whole = with_rows(warehouse, aligned)
            _rebuild_slice(warehouse, piece, whole, f"{piece.rollup.table}_rebuild_{closed}")
            progress(done, len(pieces))
        drifts = verify(warehouse, span, newest=closed)
        if all(drift.is_zero for drift in drifts):
            break
    return drifts
