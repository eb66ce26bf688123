"""How long rows are kept, and the text that people and models wrote. The sums in rollups are kept for ever.

ClickHouse deletes rows past their TTL when it merges parts, a whole day of UTC at a time. From then on a rollup counts
more than the raw rows: comparing the two, or recomputing the rollup, is right only from `kept_from` on.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from aggregator.clickhouse.client import Warehouse
from aggregator.clickhouse.cluster import ClusterError, is_cluster
from aggregator.clickhouse.migration_files import runner
from aggregator.clickhouse.tables import REQUEST_LOGS, REQUEST_PAYLOADS
from aggregator.errors import InsightsError
from aggregator.times import EPOCH, Span

# The columns of request_logs that people and models wrote. They expire with the bodies.
WRITTEN_COLUMNS = ("error_message", "output", "output_keys", "variables", "input_variable_keys")
# Budgets count a month from rows where no rollup knows what they ask for; a month of another time zone is longer.
LEAST_ROW_DAYS = 35

EXPIRY = "toStartOfDay(timestamp) + toIntervalDay({days})"
EXPIRY_SHOWN = re.compile(r"toStartOfDay\(timestamp\) \+ toIntervalDay\((\d+)\)")
TABLE_TTL = re.compile(r" TTL (.+?)(?: SETTINGS |$)", re.DOTALL)
# On a cluster the rows are in the shard's database.
DEFINITIONS = f"""
SELECT name, engine_full, create_table_query FROM system.tables
WHERE database IN (currentDatabase(), concat(currentDatabase(), '_shard')) AND engine LIKE '%MergeTree'
AND name IN ('{REQUEST_LOGS}', '{REQUEST_PAYLOADS}')
"""
REACHED = "SELECT max(rows_from) AS marked, toStartOfDay(now('UTC')) AS today FROM retention_marks"
MARK = """
INSERT INTO retention_marks (rows_from) SETTINGS async_insert = 0, distributed_foreground_insert = 1
VALUES ({rows_from:DateTime('UTC')})
"""
STOCK = f"""
SELECT count() AS stored, min(timestamp) AS oldest,
    countIf({{days:UInt32}} > 0 AND {EXPIRY.format(days="{days:UInt32}")} <= now('UTC')) AS expired
FROM {{table:Identifier}}
"""


class RetentionError(InsightsError):
    """A retention that would break something, or a TTL that insights did not set. The message says what to do."""


@dataclass(frozen=True)
class Retention:
    """Days that rows, and bodies with the other text that people wrote, are kept; None is for ever.

    Days are in UTC, and the day of the request counts: kept 30 days, rows of 1 March expire as 31 March begins.
    """

    rows_days: int | None = None
    bodies_days: int | None = None

    def check(self) -> None:
        """Raises RetentionError for rows that budgets need, and for bodies that are kept longer than their rows."""
        rows, bodies = self.rows_days, self.bodies_days
        if rows is not None and rows < LEAST_ROW_DAYS:
            raise RetentionError(f"rows must be kept {LEAST_ROW_DAYS} days or more: budgets of a month count them")
        if rows is not None and (bodies is None or bodies > rows):
            raise RetentionError(f"bodies cannot be kept longer than rows, which are kept {rows} days: set both")


@dataclass(frozen=True)
class Stock:
    """How many rows a table holds, and how many of them a retention would delete now."""

    table: str
    days: int | None
    stored: int
    expired: int
    oldest: datetime | None


def _definitions(warehouse: Warehouse) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in warehouse.query(DEFINITIONS)}


def _days(definition: dict[str, Any] | None) -> int | None:
    found = TABLE_TTL.search(definition["engine_full"]) if definition else None
    if not definition or not found:
        return None
    shown = EXPIRY_SHOWN.fullmatch(found[1])
    if not shown:
        raise RetentionError(
            f"{definition['name']} has a TTL that insights did not set ({found[1]}), so that nobody knows which rows"
            f" are whole: ALTER TABLE {definition['name']} REMOVE TTL, then insights retention set"
        )
    return int(shown[1])


def current(warehouse: Warehouse) -> Retention:
    """The retention in force. Raises RetentionError for a TTL of another form."""
    tables = _definitions(warehouse)
    return Retention(_days(tables.get(REQUEST_LOGS)), _days(tables.get(REQUEST_PAYLOADS)))


def stocks(warehouse: Warehouse, retention: Retention) -> list[Stock]:
    """The rows and bodies that are stored, and those of them that `retention` would delete now."""
    found = []
    for table, days in ((REQUEST_LOGS, retention.rows_days), (REQUEST_PAYLOADS, retention.bodies_days)):
        row = warehouse.query(STOCK, {"table": table, "days": days or 0})[0]
        oldest = row["oldest"].replace(tzinfo=UTC) if row["stored"] else None
        found.append(Stock(table, days, row["stored"], row["expired"], oldest))
    return found


def kept_from(warehouse: Warehouse) -> datetime:
    """The moment from which every row is stored, and will be for another day; EPOCH if no row was ever deleted.

    Raises RetentionError as `current` does.
    """
    [row] = warehouse.query(REACHED)
    marked, today = (row[name].replace(tzinfo=UTC) for name in ("marked", "today"))
    days = _days(_definitions(warehouse).get(REQUEST_LOGS))
    # The day after tomorrow minus the days kept: no later row expires before tomorrow has passed.
    reached: datetime = marked if days is None else max(marked, today + timedelta(days=2 - days))
    return reached


def with_rows(warehouse: Warehouse, span: Span) -> Span:
    """The part of `span` that has all of its rows, cut at a whole hour. Raises RetentionError as `current` does."""
    start = kept_from(warehouse)
    return span if start <= (span.start or EPOCH) else Span(start, span.end)


def set_retention(warehouse: Warehouse, wanted: Retention, cluster: str = "") -> None:
    """Set the TTLs, on every node of `cluster` if one is named. ClickHouse deletes expired rows at once, in the
    background, and rewrites parts for it.

    How far the previous retention has reached is recorded first, since a longer one brings no row back. Raises
    RetentionError, and ClusterError on a cluster that is not named.
    """
    wanted.check()
    if is_cluster(warehouse) and not cluster:
        raise ClusterError("on a cluster set INSIGHTS_CLICKHOUSE_CLUSTER, as for insights migrate")
    reached = kept_from(warehouse)
    if reached > EPOCH:
        warehouse.command(MARK, {"rows_from": reached})
    run = runner(warehouse, cluster)
    for statement in _statements(wanted, _definitions(warehouse)):
        run(statement)


def _statements(wanted: Retention, tables: dict[str, dict[str, Any]]) -> Iterator[str]:
    """The statements that set the TTLs. ClickHouse refuses to remove a TTL from a table that has none."""
    columns = [_of_column(name, wanted.bodies_days, tables) for name in WRITTEN_COLUMNS]
    changes = [change for change in columns if change]
    if changes:
        yield f"ALTER TABLE {REQUEST_LOGS} {', '.join(changes)}"
    for table, days in ((REQUEST_LOGS, wanted.rows_days), (REQUEST_PAYLOADS, wanted.bodies_days)):
        if days is not None:
            yield f"ALTER TABLE {table} MODIFY TTL {EXPIRY.format(days=days)}"
        elif table in tables and TABLE_TTL.search(tables[table]["engine_full"]):
            yield f"ALTER TABLE {table} REMOVE TTL"


def _of_column(name: str, days: int | None, tables: dict[str, dict[str, Any]]) -> str:
    if days is not None:
        return f"MODIFY COLUMN {name} TTL {EXPIRY.format(days=days)}"
    definition = tables[REQUEST_LOGS]["create_table_query"] if REQUEST_LOGS in tables else ""
    has_one = re.search(rf"`{name}` [^,]*? TTL ", definition)
    return f"MODIFY COLUMN {name} REMOVE TTL" if has_one else ""
