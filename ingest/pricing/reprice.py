"""Computes the costs of stored rows again with the prices in force now, and rebuilds the rollups after them.

Rows are priced in batches like new ones. What differs goes into a table of changes, and one mutation takes it over:
ClickHouse rewrites the cost columns of the parts that hold such rows, each part at once, and rows that arrive meanwhile
are in parts of their own. Deduplication tokens and keys stay as they are.
"""

import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from aggregator.clickhouse.client import Warehouse
from aggregator.clickhouse.cluster import refuse_on_cluster
from aggregator.clickhouse.retention import with_rows
from aggregator.clickhouse.sql import all_of, time_range
from aggregator.clickhouse.tables import REQUEST_LOGS
from aggregator.cost_explanation import COST_COLUMNS
from aggregator.errors import InsightsError
from aggregator.rollups import rebuild
from aggregator.rollups.rebuild import Drift
from aggregator.times import EPOCH, Span
from ingest.pricing import PRICED_SCHEMA, PriceBook, price_events
from ingest.pricing.without_cost import unpriced_reasons

PIECE_ROWS = 250_000
POLL_SECONDS = 0.2
MINUTE = timedelta(minutes=1)

# What makes a Kafka record unique, also where a topic was created again.
KEY = ("source_topic", "source_partition", "source_offset", "created_at")
PRICED = tuple(PRICED_SCHEMA.names)
AMOUNTS = tuple(name for name in PRICED if "cost" in name or name == "fee_rate")
FEES = tuple(f"{name}_fee" for name in COST_COLUMNS)
# Fees as they were priced: null where the cost is.
FEES_OF_ROW = tuple(
    f"if(isNull({name}), NULL, fees[{place}]) AS {name}_fee" for place, name in enumerate(COST_COLUMNS, 1)
)
TOKENS = tuple(
    f"{kind}_tokens" for kind in ("input", "output", "cached_input", "cache_creation_input", "thinking")
)  # fmt: skip
USED = ("timestamp", "provider", "model_name", "user_id", "api_key_id", "service_tier", "usage", *TOKENS)
READ = (*KEY, *USED, "is_error", *(name for name in AMOUNTS if name not in FEES), *FEES_OF_ROW)
LEFTOVERS = """
SELECT name FROM system.tables WHERE database = currentDatabase() AND match(name, '^reprice_[0-9a-f]{32}$')
AND metadata_modification_time < now() - INTERVAL 1 DAY
"""
COLUMN_TYPES = f"""
SELECT name, type FROM system.columns
WHERE database = currentDatabase() AND table = '{REQUEST_LOGS}' AND name IN {{names:Array(String)}}
"""
UNFINISHED = f"""
SELECT parts_to_do, latest_fail_reason FROM system.mutations
WHERE database = currentDatabase() AND table = '{REQUEST_LOGS}' AND NOT is_done
AND position(command, {{changes:String}}) > 0
"""
STOP = f"""
KILL MUTATION WHERE database = currentDatabase() AND table = '{REQUEST_LOGS}'
AND position(command, {{changes:String}}) > 0
"""

Progress = Callable[[str, int, int], Any]


class RepriceError(InsightsError):
    """ClickHouse could not write the new costs; what it has written stays, and the same command goes on from there."""


@dataclass
class ModelTotals:
    """Rows of a model, how many of them change, and what all of them cost; dollars."""

    model_name: str
    rows: int = 0
    changed_rows: int = 0
    old_cost: Decimal = Decimal(0)
    new_cost: Decimal = Decimal(0)
    old_unpriced: int = 0
    new_unpriced: int = 0

    def add(self, more: "ModelTotals") -> None:
        for field in fields(self):
            if field.name != "model_name":
                setattr(self, field.name, getattr(self, field.name) + getattr(more, field.name))


@dataclass(frozen=True)
class Repriced:
    """The totals by model, and the drift of the rollups afterwards (none were touched in a dry run)."""

    totals: list[ModelTotals]
    drifts: list[Drift]

    @property
    def changed_rows(self) -> int:
        return sum(each.changed_rows for each in self.totals)


def reprice(
    warehouse: Warehouse, span: Span, book: PriceBook, model: str = "", dry_run: bool = False,
    progress: Progress = lambda step, done, total: None,
) -> Repriced:  # fmt: skip
    """Price the rows of `span` (of one model, unless it is '') with `book`, write those whose cost changes, and
    rebuild the rollups of the span. Ingestion may go on; interrupted, it can be run again.

    Times of which retention has deleted rows are left as they are, or rollups would no longer agree with what they
    were made from. `progress` is called with what is being done, and how much of how much. Raises RepriceError,
    RetentionError, and ClusterError on a cluster unless it is dry.
    """
    if not dry_run:
        refuse_on_cluster(warehouse, "repricing")
    span = with_rows(warehouse, span)
    pieces = _pieces(warehouse, span, model)
    changes = "" if dry_run else _create_changes(warehouse)
    try:
        totals = _price(warehouse, pieces, book, model, changes, progress)
        repriced = Repriced(sorted(totals.values(), key=lambda each: each.model_name), [])
        if dry_run:
            return repriced
        if repriced.changed_rows:
            _apply(warehouse, span, changes, progress)
    finally:
        if changes:
            warehouse.command(STOP, {"changes": changes})
            warehouse.command(f"DROP TABLE IF EXISTS {changes} SYNC")
    return Repriced(repriced.totals, _rebuild(warehouse, span, repriced.changed_rows, progress))


def _rebuild(warehouse: Warehouse, span: Span, changed_rows: int, progress: Progress) -> list[Drift]:
    """Without changed rows too if there is drift: a run that was interrupted may have left them behind."""
    if not changed_rows:
        drifts = rebuild.verify(warehouse, span)
        if all(drift.is_zero for drift in drifts):
            return drifts
    return rebuild.rebuild(warehouse, span, "reprice", lambda done, total: progress("rebuilding rollups", done, total))


def _chosen(span: Span, model: str) -> str:
    """Which rows; `model` is bound as the value of that name."""
    return all_of(time_range("timestamp", span), "model_name = {model:String}" if model else "")


@dataclass(frozen=True)
class _Piece:
    span: Span
    rows: int


def _pieces(warehouse: Warehouse, span: Span, model: str) -> list[_Piece]:
    """The span cut at whole minutes into pieces of about PIECE_ROWS rows; where there are none there is no piece."""
    minutes = warehouse.query(
        f"SELECT toStartOfMinute(timestamp) AS minute, count() AS requests FROM {REQUEST_LOGS}"
        f" WHERE {_chosen(span, model)} GROUP BY minute ORDER BY minute",
        {"model": model},
    )
    cuts: list[tuple[datetime, int]] = []
    for row in minutes:
        minute, requests = row["minute"].replace(tzinfo=UTC), row["requests"]
        if cuts and cuts[-1][1] + requests <= PIECE_ROWS:
            cuts[-1] = cuts[-1][0], cuts[-1][1] + requests
        else:
            cuts.append((minute, requests))
    starts = [start for start, _ in cuts[1:]]
    ends = [*starts, span.end or (minutes[-1]["minute"].replace(tzinfo=UTC) + MINUTE if minutes else None)]
    begins = [span.start or EPOCH, *starts]
    return [_Piece(Span(begin, end), rows) for begin, end, (_, rows) in zip(begins, ends, cuts, strict=False)]


def _create_changes(warehouse: Warehouse) -> str:
    """A table of new costs by key, as ClickHouse looks up in a mutation. Its name is free of any other run's."""
    for row in warehouse.query(LEFTOVERS):
        warehouse.command(f"DROP TABLE IF EXISTS `{row['name']}` SYNC")
    found = warehouse.query(COLUMN_TYPES, {"names": [*KEY, *PRICED]})
    types = {row["name"]: row["type"] for row in found}
    columns = ", ".join(f"{name} {types[name]}" for name in (*KEY, *PRICED))
    changes = f"reprice_{uuid.uuid4().hex}"
    warehouse.command(f"CREATE TABLE {changes} ({columns}) ENGINE = Join(ANY, LEFT, {', '.join(KEY)})")
    return changes


def _price(
    warehouse: Warehouse, pieces: list[_Piece], book: PriceBook, model: str, changes: str, progress: Progress
) -> dict[str, ModelTotals]:  # fmt: skip
    """Price piece by piece, put what differs into `changes` (if it has a name), and add up by model."""
    totals: dict[str, ModelTotals] = {}
    done, expected = 0, sum(piece.rows for piece in pieces)
    for piece in pieces:
        sql = f"SELECT {', '.join(READ)} FROM {REQUEST_LOGS} WHERE {_chosen(piece.span, model)}"
        rows = warehouse.client.query_arrow(sql, {"model": model})
        priced = price_events(rows, book)
        is_changed = _is_changed(rows, priced)
        for each in _totals(rows, priced, is_changed):
            totals.setdefault(each.model_name, ModelTotals(each.model_name)).add(each)
        changed = pa.table({name: rows[name] for name in KEY} | {name: priced[name] for name in PRICED})
        if changes and pc.any(is_changed).as_py():
            warehouse.client.insert_arrow(changes, changed.filter(is_changed).combine_chunks())
        done += len(rows)
        progress("pricing rows", done, max(expected, done))
    return totals


def _is_changed(rows: pa.Table, priced: pa.Table) -> pa.ChunkedArray:
    """Which rows cost something else than before, in any bucket. No cost is negative, and a fee is unknown only where
    its cost is."""
    is_changed = pa.chunked_array([pa.repeat(pa.scalar(False), len(rows))])
    for name in AMOUNTS:
        old, new = (
            pc.fill_null(table[name].cast(PRICED_SCHEMA.field(name).type), Decimal(-1)) for table in (rows, priced)
        )
        is_changed = pc.or_(is_changed, pc.not_equal(old, new))
    return is_changed


def _totals(rows: pa.Table, priced: pa.Table, is_changed: pa.ChunkedArray) -> Iterator[ModelTotals]:
    columns = {
        "rows": pa.repeat(pa.scalar(1), len(rows)),
        "changed_rows": is_changed.cast(pa.int64()),
        "old_cost": pc.fill_null(rows["cost"], Decimal(0)),
        "new_cost": pc.fill_null(priced["cost"], Decimal(0)),
        "old_unpriced": _has_no_price(rows, rows["cost"]),
        "new_unpriced": _has_no_price(rows, priced["cost"]),
    }
    grouped = pa.table({"model_name": rows["model_name"].cast(pa.string())} | columns).group_by("model_name")
    for row in grouped.aggregate([(name, "sum") for name in columns]).to_pylist():
        yield ModelTotals(row["model_name"], **{name: row[f"{name}_sum"] for name in columns})


def _has_no_price(rows: pa.Table, cost: pa.ChunkedArray) -> pa.ChunkedArray:
    """1 for a row with usage and no known price: rows without usage have no cost under any prices."""
    is_unpriced = pc.equal(unpriced_reasons(rows, rows["is_error"].cast(pa.bool_()), cost), "no_price")
    return pc.fill_null(is_unpriced, False).cast(pa.int64())


def _apply(warehouse: Warehouse, span: Span, changes: str, progress: Progress) -> None:
    """Update the rows from `changes`, and wait until ClickHouse has. Parts outside the span are not touched."""
    key, table = ", ".join(KEY), f"'{warehouse.database}.{changes}'"
    new = {name: f"joinGet({table}, '{name}', {key})" for name in PRICED}
    fees = f"[{', '.join(f'ifNull({new[name]}, 0)' for name in FEES)}]"
    updates = ", ".join(f"{name} = {new[name]}" for name in PRICED if name not in FEES)
    updates += f", fees = if(arrayExists(fee -> fee != 0, {fees}), {fees}, [])"
    # Every change has a version, so that an empty one means there is none.
    where = all_of(time_range("timestamp", span), f"{new['price_version']} != ''")
    warehouse.command(
        f"ALTER TABLE {REQUEST_LOGS} UPDATE {updates}"
        f" WHERE {where}"
        " SETTINGS mutations_sync = 0, allow_nondeterministic_mutations = 1"
    )
    parts = 0
    while unfinished := warehouse.query(UNFINISHED, {"changes": changes}):
        if reason := unfinished[0]["latest_fail_reason"]:
            raise RepriceError(f"the new costs were not written: {reason}")
        parts = max(parts, unfinished[0]["parts_to_do"])
        progress("writing costs", parts - unfinished[0]["parts_to_do"], parts)
        time.sleep(POLL_SECONDS)
