"""Numbered, forward-only, checksummed SQL migrations.

Every statement is idempotent (`IF NOT EXISTS`), so two processes that migrate at once do no harm and a
migration that failed half way is simply run again; no lock is needed. A cluster gets the same text, rendered
(cluster.py), under the same checksum.
"""

from pathlib import Path

import structlog

from aggregator.clickhouse.client import Warehouse
from aggregator.clickhouse.migration_files import (
    CREATE_LEDGER,
    MIGRATIONS_FOLDER,
    Migration,
    MigrationError,
    read_migrations,
    runner,
)
from aggregator.rollups.rebuild import rebuild
from aggregator.times import EVERYTHING

log = structlog.get_logger(__name__)

READ_LEDGER = "SELECT DISTINCT number, name, checksum FROM schema_migrations ORDER BY number"
LEDGER_EXISTS = """
SELECT count() AS found FROM system.tables WHERE database = {database:String} AND name = 'schema_migrations'
"""
ANY_ROW = "SELECT 1 FROM request_logs LIMIT 1"
WRITE_LEDGER = """
INSERT INTO schema_migrations (number, name, checksum) SETTINGS distributed_foreground_insert = 1
VALUES ({number:UInt32}, {name:String}, {checksum:String})
"""

FOREIGN_SCHEMA = (
    "the database {database} was made by an unreleased version of router-insights (it has the migration {name}) and"
    " cannot be upgraded: name an empty database in INSIGHTS_CLICKHOUSE_URL, or another --data-dir for insights up, and"
    " send the events again, from Kafka with another INSIGHTS_KAFKA_GROUP or from files with insights replay"
)


class ForeignSchemaError(MigrationError):
    """The database has migrations that no release has; the message says how to move its events."""


def pending(warehouse: Warehouse, migrations: list[Migration]) -> list[Migration]:
    """Those of `migrations` that the database has not seen.

    Raises MigrationError when an applied migration was edited, when the database is newer than the code, and when its
    migrations are others (ForeignSchemaError).
    """
    applied: dict[int, tuple[str, str]] = {}
    if warehouse.query(LEDGER_EXISTS, {"database": warehouse.database})[0]["found"]:
        rows = warehouse.query(READ_LEDGER)
        applied = {row["number"]: (row["name"], row["checksum"]) for row in rows}
    for migration in migrations:
        name, checksum = applied.get(migration.number, (migration.name, migration.checksum))
        if checksum == migration.checksum:
            continue
        if name != migration.name:
            raise ForeignSchemaError(FOREIGN_SCHEMA.format(database=warehouse.database, name=name))
        raise MigrationError(f"migration {name} was edited after it was applied; add a new one instead of changing it")
    unknown = sorted(set(applied) - {migration.number for migration in migrations})
    if unknown and unknown[0] < max((migration.number for migration in migrations), default=0):
        raise ForeignSchemaError(FOREIGN_SCHEMA.format(database=warehouse.database, name=applied[unknown[0]][0]))
    if unknown:
        raise MigrationError(f"the database has migrations {unknown} that this version does not know: upgrade it")
    return [migration for migration in migrations if migration.number not in applied]


def migrate(warehouse: Warehouse, folder: Path = MIGRATIONS_FOLDER, cluster: str = "") -> list[Migration]:
    """Bring the database up to date, on every node of `cluster` if one is named; returns the migrations that were
    applied.

    Rollups are rebuilt where a migration asks for it. Killed at any moment, it is run again from the first migration
    that is not in the ledger. Raises MigrationError as `pending` does, and where rollups are not right afterwards.
    """
    run = runner(warehouse, cluster, folder)
    run(CREATE_LEDGER.strip())
    todo = pending(warehouse, read_migrations(folder))
    for migration in todo:
        for statement in migration.statements:
            run(statement)
    if any(migration.rebuilds_rollups for migration in todo) and warehouse.query(ANY_ROW):
        _rebuild_rollups(warehouse, cluster)
    for migration in todo:
        warehouse.command(
            WRITE_LEDGER,
            {"number": migration.number, "name": migration.name, "checksum": migration.checksum},
        )
    return todo


def _rebuild_rollups(warehouse: Warehouse, cluster: str) -> None:
    """Only after all migrations: a rebuild computes the measures of this version, which may need each of them."""
    if cluster:
        log.warning("rollups_not_rebuilt", reason="this is not supported on a cluster yet; see CHANGELOG.md")
        return
    log.info("rebuilding_rollups_after_a_migration")
    if not all(drift.is_zero for drift in rebuild(warehouse, EVERYTHING, reason="migration")):
        raise MigrationError("rows arrived faster than rollups were rebuilt: run it again, or stop the workers for it")
