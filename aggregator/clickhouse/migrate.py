"""Numbered, forward-only, checksummed SQL migrations.

Every statement is idempotent (`IF NOT EXISTS`), so two processes that migrate at once do no harm and a
migration that failed half way is simply run again; no lock is needed. A cluster gets the same text, rendered
(cluster.py), under the same checksum.
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from aggregator.clickhouse.client import Warehouse
from aggregator.clickhouse.cluster import Cluster
from aggregator.errors import InsightsError

MIGRATIONS_FOLDER = Path(__file__).with_name("migrations")
FILE_NAME = re.compile(r"^(\d{4})_[a-z0-9_]+\.sql$")

CREATE_LEDGER = """
CREATE TABLE IF NOT EXISTS schema_migrations
(
    number UInt32,
    name String,
    checksum String,
    applied_at DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = MergeTree
ORDER BY number
"""
READ_LEDGER = "SELECT DISTINCT number, name, checksum FROM schema_migrations ORDER BY number"
LEDGER_EXISTS = """
SELECT count() AS found FROM system.tables WHERE database = {database:String} AND name = 'schema_migrations'
"""
WRITE_LEDGER = """
INSERT INTO schema_migrations (number, name, checksum) SETTINGS distributed_foreground_insert = 1
VALUES ({number:UInt32}, {name:String}, {checksum:String})
"""

FOREIGN_SCHEMA = (
    "the database {database} was made by an unreleased version of router-insights (it has the migration {name}) and"
    " cannot be upgraded: name an empty database in INSIGHTS_CLICKHOUSE_URL, or another --data-dir for insights up, and"
    " send the events again, from Kafka with another INSIGHTS_KAFKA_GROUP or from files with insights replay"
)


class MigrationError(InsightsError):
    """The files and the database's ledger disagree; the message says which migration and how."""


class ForeignSchemaError(MigrationError):
    """The database has migrations that no release has; the message says how to move its events."""


@dataclass(frozen=True)
class Migration:
    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return hashlib.blake2b(self.sql.encode(), digest_size=16).hexdigest()

    @property
    def statements(self) -> list[str]:
        """Statements end with `;` at the end of a line; comment lines are dropped."""
        code = "\n".join(line for line in self.sql.splitlines() if not line.lstrip().startswith("--"))
        return [part.strip() for part in re.split(r";\s*(?:\n|$)", code) if part.strip()]


def read_migrations(folder: Path = MIGRATIONS_FOLDER) -> list[Migration]:
    """The migrations of a folder in order.

    Numbers may have gaps: branches get theirs before they are merged, and one may never need it.
    Raises MigrationError for a file name that is not `NNNN_name.sql` and for a number that is there twice.
    """
    found = []
    for path in sorted(folder.glob("*.sql")):
        match = FILE_NAME.match(path.name)
        if not match:
            raise MigrationError(f"{path.name}: a migration is named NNNN_name.sql")
        found.append(Migration(int(match[1]), path.stem, path.read_text()))
    numbers = [migration.number for migration in found]
    if len(set(numbers)) < len(numbers):
        raise MigrationError(f"each migration has a number of its own, found {numbers}")
    return found


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


def cluster_of(name: str, database: str, folder: Path = MIGRATIONS_FOLDER) -> Cluster:
    """The cluster `name` with the tables of a folder's migrations. Raises MigrationError as `read_migrations` does."""
    statements = [statement for migration in read_migrations(folder) for statement in migration.statements]
    return Cluster(name, database, [CREATE_LEDGER.strip(), *statements])


def migrate(warehouse: Warehouse, folder: Path = MIGRATIONS_FOLDER, cluster: str = "") -> list[Migration]:
    """Bring the database up to date, on every node of `cluster` if one is named; returns the migrations that were
    applied. Raises MigrationError as `pending` does."""
    migrations = read_migrations(folder)
    run = runner(warehouse, cluster, folder)
    run(CREATE_LEDGER.strip())
    todo = pending(warehouse, migrations)
    for migration in todo:
        for statement in migration.statements:
            run(statement)
        warehouse.command(
            WRITE_LEDGER,
            {"number": migration.number, "name": migration.name, "checksum": migration.checksum},
        )
    return todo


def runner(warehouse: Warehouse, cluster: str = "", folder: Path = MIGRATIONS_FOLDER) -> Callable[[str], None]:
    """What executes a statement as migrations have them, on every node of `cluster` if one is named; the databases are
    there when it returns."""
    if not cluster:
        warehouse.create_database()
        return warehouse.command
    rendering = cluster_of(cluster, warehouse.database, folder)
    server = warehouse.in_database("default")
    for statement in rendering.databases:
        server.command(statement)
    server.close()
    shard = warehouse.in_database(rendering.shard_database)

    def run(statement: str) -> None:
        for rendered in rendering.render(statement):
            shard.command(rendered)

    return run
