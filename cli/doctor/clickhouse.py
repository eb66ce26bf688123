"""Checks of ClickHouse. Each reads a few system tables, or the rows of the last hours."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from aggregator.clickhouse.client import DatabaseError, Warehouse, WarehouseUnavailableError
from aggregator.clickhouse.migration_files import MigrationError
from aggregator.clickhouse.retention import RetentionError, current
from aggregator.clickhouse.tables import DEAD_LETTERS, REQUEST_LOGS, REQUEST_PAYLOADS
from aggregator.rollups.measures import ERRORS, REQUESTS, ROLLUPS, WITHOUT_COST
from aggregator.rollups.rebuild import verify
from aggregator.times import Span
from cli.adapters.clickhouse import missing_migrations
from cli.doctor.finding import Finding, Severity, judge
from cli.errors import sentence_for

# The oldest version with the text indexes and subcolumns of JSON that the API uses.
OLDEST_VERSION = (26, 3)
# The delivery protocol depends on it (docs/delivery.md).
DEDUPLICATION_WINDOW = 10_000
DEDUPLICATED = (REQUEST_LOGS, REQUEST_PAYLOADS, DEAD_LETTERS, *(rollup.table for rollup in ROLLUPS))
SKEW_SECONDS = 1.0
FREE_DISK_SHARE, LEAST_FREE_DISK_SHARE = 0.15, 0.05
# Share of the number of parts at which ClickHouse begins to slow inserts down.
PARTS_SHARE = 0.3
MUTATION_HOURS = 1.0
DEAD_LETTER_SHARE, MOST_DEAD_LETTER_SHARE = 0.01, 0.1
UNPRICED_SHARE = MISSING_USAGE_SHARE = 0.05
DRIFT_HOURS = 3

TABLES = """
SELECT name, engine_full FROM system.tables WHERE database = currentDatabase()
"""
PARTS = """
SELECT table, partition, count() AS parts FROM system.parts
WHERE database = currentDatabase() AND active GROUP BY table, partition ORDER BY parts DESC LIMIT 1
"""
# Such a part was inserted while a migration added the projection; it is never merged with parts that have it.
UNSUMMED = """
SELECT table, projection, countIf(NOT has(parts.projections, projection)) AS lacking
FROM system.parts AS parts
INNER JOIN (SELECT table, name AS projection FROM system.projections WHERE database = currentDatabase()) AS known
USING table
WHERE database = currentDatabase() AND active GROUP BY table, projection HAVING lacking > 0 ORDER BY table, projection
"""
DELAY_AT = "SELECT toUInt64(value) AS parts FROM system.merge_tree_settings WHERE name = 'parts_to_delay_insert'"
MUTATIONS = """
SELECT table, mutation_id, latest_fail_reason, dateDiff('minute', create_time, now()) / 60 AS hours
FROM system.mutations WHERE database = currentDatabase() AND NOT is_done ORDER BY create_time LIMIT 1
"""
DISKS = "SELECT name, free_space, total_space FROM system.disks WHERE total_space > 0"
REPLICAS = "SELECT table, is_readonly, absolute_delay FROM system.replicas WHERE database = currentDatabase()"
LAST_DAY = """
SELECT (SELECT count() FROM dead_letters WHERE created_at >= now() - INTERVAL 1 DAY) AS letters,
    (SELECT count() FROM request_logs WHERE timestamp >= now() - INTERVAL 1 DAY) AS rows
"""
WITHOUT_COST_OF_DAY = f"""
SELECT {", ".join(f"{each.from_raw} AS {each.name}" for each in (REQUESTS, ERRORS, *WITHOUT_COST))}
FROM request_logs WHERE timestamp >= now() - INTERVAL 1 DAY
"""


def version(warehouse: Warehouse) -> Finding:
    text = str(warehouse.query("SELECT version() AS version")[0]["version"])
    found = tuple(int(part) for part in re.findall(r"\d+", text)[:2])
    wanted = ".".join(map(str, OLDEST_VERSION))
    advice = f"upgrade ClickHouse to {wanted} or newer; this version is neither tested nor able to search text"
    return judge("ClickHouse version", text, advice, warning=False, fault=found < OLDEST_VERSION)


def schema(warehouse: Warehouse) -> Finding:
    try:
        missing = missing_migrations(warehouse)
    except MigrationError as error:
        return Finding(
            "schema", Severity.FAULT, str(error), "run the version of router-insights that the database is of"
        )
    names = ", ".join(migration.name for migration in missing)
    observed = f"lacks {names}" if missing else "up to date"
    return judge("schema", observed, "run `insights migrate`", warning=False, fault=bool(missing))


def deduplication(warehouse: Warehouse) -> Finding:
    """Without a window a retried insert counts twice. Replicated tables have one by default."""
    engines = {row["name"]: row["engine_full"] for row in warehouse.query(TABLES)}
    short = []
    for name in DEDUPLICATED:
        engine = engines.get(name, "")
        window = re.search(r"non_replicated_deduplication_window = (\d+)", engine)
        is_local = not engine.startswith(("Replicated", "Distributed", "Shared"))
        if is_local and (window is None or int(window[1]) < DEDUPLICATION_WINDOW):
            short.append(name)
    observed = f"too short or not set: {', '.join(short)}" if short else f"{len(DEDUPLICATED)} tables"
    advice = f"ALTER TABLE <table> MODIFY SETTING non_replicated_deduplication_window = {DEDUPLICATION_WINDOW}"
    return judge("deduplication windows", observed, advice, warning=False, fault=bool(short))


def views(warehouse: Warehouse) -> Finding:
    there = {row["name"] for row in warehouse.query(TABLES)}
    gone = [f"{rollup.table}_view" for rollup in ROLLUPS if f"{rollup.table}_view" not in there]
    observed = f"missing: {', '.join(gone)}" if gone else f"{len(ROLLUPS)} feed the rollups"
    advice = "create them as in clickhouse/migrations, then `insights rollups rebuild` since they went missing"
    return judge("rollup views", observed, advice, warning=False, fault=bool(gone))


def clock(warehouse: Warehouse) -> Finding:
    before = datetime.now(UTC)
    millis = warehouse.query("SELECT toUnixTimestamp64Milli(now64(3)) AS millis")[0]["millis"]
    here = before + (datetime.now(UTC) - before) / 2
    off = abs(millis / 1000 - here.timestamp())
    advice = "set both clocks by NTP: expiry of rows, rebuilds and `created_at` go by them"
    return judge("clock", f"{off:.2f} s apart", advice, warning=off > SKEW_SECONDS, fault=off > 10 * SKEW_SECONDS)


def disk(warehouse: Warehouse) -> Finding:
    shares = {row["name"]: row["free_space"] / row["total_space"] for row in warehouse.query(DISKS)}
    name, share = min(shares.items(), key=lambda item: item[1])
    advice = "add space, or let rows expire earlier; ClickHouse needs room to merge, and stops taking rows without"
    return judge(
        "free disk",
        f"{share:.0%} free on {name}",
        advice,
        warning=share < FREE_DISK_SHARE,
        fault=share < LEAST_FREE_DISK_SHARE,
    )


def parts(warehouse: Warehouse) -> Finding:
    most = warehouse.query(PARTS)
    delay_at = warehouse.query(DELAY_AT)[0]["parts"]
    if not most:
        return Finding("parts", Severity.OK, "none yet")
    count = most[0]["parts"]
    observed = f"{count} in partition {most[0]['partition']} of {most[0]['table']}; inserts slow down at {delay_at}"
    advice = "raise INSIGHTS_FLUSH_SECONDS or run fewer workers; see whether merges run (system.merges)"
    return judge("parts", observed, advice, warning=count > PARTS_SHARE * delay_at, fault=count > delay_at)


def projections(warehouse: Warehouse) -> Finding:
    lacking = warehouse.query(UNSUMMED)
    observed = ", ".join(f"{row['lacking']} parts of {row['table']} lack {row['projection']}" for row in lacking)
    advice = "; ".join(f"ALTER TABLE {row['table']} MATERIALIZE PROJECTION {row['projection']}" for row in lacking)
    return judge("projections", observed or "in every part", advice, warning=bool(lacking))


def mutations(warehouse: Warehouse) -> Finding:
    pending = warehouse.query(MUTATIONS)
    if not pending:
        return Finding("mutations", Severity.OK, "none pending")
    oldest = pending[0]
    why = str(oldest["latest_fail_reason"])
    observed = f"{oldest['mutation_id']} of {oldest['table']}, for {oldest['hours']:.1f} h"
    advice = f"KILL MUTATION WHERE mutation_id = '{oldest['mutation_id']}', mend why, and do it again"
    return judge(
        "mutations",
        f"{observed}: {why[:120]}" if why else observed,
        advice,
        warning=oldest["hours"] > MUTATION_HOURS,
        fault=bool(why),
    )


def replicas(warehouse: Warehouse) -> Finding:
    rows = warehouse.query(REPLICAS)
    closed = [row["table"] for row in rows if row["is_readonly"]]
    late = [f"{row['table']} {row['absolute_delay']} s" for row in rows if row["absolute_delay"] > 60]
    observed = f"read-only: {', '.join(closed)}" if closed else f"behind: {', '.join(late)}" if late else f"{len(rows)}"
    advice = "see whether Keeper answers, then SYSTEM RESTORE REPLICA"
    return judge("replicas", observed, advice, warning=bool(late), fault=bool(closed))


def drift(warehouse: Warehouse) -> Finding:
    """Compares whole hours that have passed, so that batches in flight do not count as drift."""
    end = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    try:
        drifts = verify(warehouse, Span(end - timedelta(hours=DRIFT_HOURS), end))
    except RetentionError:
        return Finding("rollup drift", Severity.WARNING, "not compared", "see the line about retention")
    off = [f"{found.rollup} in {found.drifted_groups} groups" for found in drifts if not found.is_zero]
    observed = ", ".join(off) if off else f"none in the last {DRIFT_HOURS} whole hours"
    advice = "`insights rollups verify`, and if it says the same `insights rollups rebuild`"
    return judge("rollup drift", observed, advice, warning=False, fault=bool(off))


def retention(warehouse: Warehouse) -> Finding:
    try:
        kept = current(warehouse)
    except RetentionError as error:
        observed, _, advice = str(error).partition(": ")
        return Finding("retention", Severity.FAULT, observed, advice)
    days = ("for ever" if days is None else f"{days} days" for days in (kept.rows_days, kept.bodies_days))
    return Finding("retention", Severity.OK, "rows {}, bodies {}".format(*days))


def dead_letters(warehouse: Warehouse) -> Finding:
    row = warehouse.query(LAST_DAY)[0]
    share = row["letters"] / max(1, row["letters"] + row["rows"])
    observed = f"{row['letters']:,} in a day, {share:.1%} of what arrived"
    advice = "`insights dead-letters list` says why; mend the gateway, then replay them"
    return judge(
        "dead letters", observed, advice, warning=share > DEAD_LETTER_SHARE, fault=share > MOST_DEAD_LETTER_SHARE
    )


def unpriced(warehouse: Warehouse) -> Finding:
    row = warehouse.query(WITHOUT_COST_OF_DAY)[0]
    share = row["unpriced"] / max(1, row["requests"] - row["missing_usage"] - row["failed_without_usage"])
    advice = "give the prices in INSIGHTS_PRICES_FILE, then `insights reprice`"
    return judge("unpriced", f"{share:.1%} of a day's requests with usage", advice, warning=share > UNPRICED_SHARE)


def missing_usage(warehouse: Warehouse) -> Finding:
    row = warehouse.query(WITHOUT_COST_OF_DAY)[0]
    share = row["missing_usage"] / max(1, row["requests"] - row["errors"])
    advice = "let the gateway report usage, or send the response's body"
    observed = f"{share:.1%} of a day's successful requests"
    return judge("missing usage", observed, advice, warning=share > MISSING_USAGE_SHARE)


# The checks of the tables run only when the schema is complete.
OF_THE_SERVER: tuple[Callable[[Warehouse], Finding], ...] = (version, schema, clock, disk)
OF_THE_TABLES: tuple[Callable[[Warehouse], Finding], ...] = (
    deduplication,
    views,
    parts,
    projections,
    mutations,
    replicas,
    retention,
    drift,
    dead_letters,
    unpriced,
    missing_usage,
)


def examine(warehouse: Warehouse) -> list[Finding]:
    """The findings of every check, or the one that ClickHouse does not answer."""
    try:
        found = [check(warehouse) for check in OF_THE_SERVER]
        if any(finding.check == "schema" and finding.level is Severity.FAULT for finding in found):
            return found
        return found + [check(warehouse) for check in OF_THE_TABLES]
    except WarehouseUnavailableError as error:
        advice = "see whether it runs, and whether INSIGHTS_CLICKHOUSE_URL names it"
        return [Finding("ClickHouse", Severity.FAULT, str(error).splitlines()[0], advice)]
    except DatabaseError as error:
        advice = "see whether its user may read the system tables, and the database"
        if "chdb engine" in str(error):
            advice = "the engine in process takes one process at a time"
        return [Finding("ClickHouse", Severity.FAULT, sentence_for(error) or str(error), advice)]
