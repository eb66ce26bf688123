"""The files of migrations, and how their statements are run: on a single server, or on every node of a cluster."""

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

# A line of a migration whose measures older rows were not counted by.
REBUILDS_ROLLUPS = re.compile(r"^-- Then: rebuild rollups$", re.MULTILINE)

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


class MigrationError(InsightsError):
    """The files and the database's ledger disagree; the message says which migration and how."""


@dataclass(frozen=True)
class Migration:
    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return hashlib.blake2b(self.sql.encode(), digest_size=16).hexdigest()

    @property
    def rebuilds_rollups(self) -> bool:
        """Whether the rollups of older rows have to be computed again after it."""
        return bool(REBUILDS_ROLLUPS.search(self.sql))

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


def cluster_of(name: str, database: str, folder: Path = MIGRATIONS_FOLDER) -> Cluster:
    """The cluster `name` with the tables of a folder's migrations. Raises MigrationError as `read_migrations` does."""
    statements = [statement for migration in read_migrations(folder) for statement in migration.statements]
    return Cluster(name, database, [CREATE_LEDGER.strip(), *statements])


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
