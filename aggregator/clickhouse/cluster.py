"""The same migrations for a cluster of shards and replicas.

Every node has two databases. `<database>_shard` is the schema of a single server on replicated tables: workers write
there, and its views feed its rollups. `<database>` has a Distributed table of the same name for each of its tables,
and queries read these. So inserts and queries are the same as on a single server.

Rows of a Kafka partition always go to the same shard (`Warehouse.shard_for`): a shard recognises the token of a batch
only if it has seen it.
"""

import re
from collections.abc import Iterable, Iterator

from aggregator.clickhouse.client import Warehouse
from aggregator.errors import InsightsError

ENGINE_OF_ROWS = "SELECT engine FROM system.tables WHERE database = currentDatabase() AND name = 'request_logs'"

# The statements that migrations may have. `Cluster.render` refuses any other.
KNOWN = re.compile(
    r"^(?P<verb>CREATE TABLE IF NOT EXISTS|CREATE MATERIALIZED VIEW IF NOT EXISTS|ALTER TABLE"
    r"|DROP TABLE IF EXISTS|DROP VIEW IF EXISTS) (?P<name>\w+)\b"
)
ENGINE = re.compile(r"\bENGINE = (\w*MergeTree)\b")
WINDOW = re.compile(r"\bnon_replicated_deduplication_window = (\d+)")
SORTED_BY = re.compile(r"\bORDER BY (\([^()]+\)|\w+)")
SOURCE_PARTITION = re.compile(r"^\s*source_partition UInt32\b", re.MULTILINE)
# Replicated tables forget a token after an hour by default, single ones only when the window is full. Kafka keeps
# records as long as this by default.
WINDOW_SECONDS = 7 * 24 * 3600


class ClusterError(InsightsError):
    """The operation works on a single server only. The message says what to do on a cluster."""


class Cluster:
    """Renders migrations for the cluster `name` of the servers' `remote_servers`.

    `statements` are those of all migrations: a table's CREATE TABLE decides its sharding key, and each ALTER TABLE
    replaces its Distributed table. Raises ClusterError for an unknown statement.
    """

    def __init__(self, name: str, database: str, statements: Iterable[str]) -> None:
        self.name = name
        self.database = database
        self.shard_database = f"{database}_shard"
        self._keys = {
            found["name"]: _sharding_key(statement)
            for statement in statements
            if (found := KNOWN.match(statement)) and found["verb"].startswith("CREATE TABLE")
        }

    @property
    def databases(self) -> Iterator[str]:
        for name in (self.database, self.shard_database):
            yield f"CREATE DATABASE IF NOT EXISTS `{name}` ON CLUSTER `{self.name}`"

    def render(self, statement: str) -> list[str]:
        """The statements to execute instead, in the shard's database."""
        found = KNOWN.match(statement)
        if not found:
            raise ClusterError(f"there is no rendering for a cluster of: {statement.splitlines()[0]}")
        code = f"{found[0]} ON CLUSTER `{self.name}`{statement[found.end() :]}"
        code = WINDOW.sub(
            rf"replicated_deduplication_window = \1, replicated_deduplication_window_seconds = {WINDOW_SECONDS}", code
        )
        if found["verb"].startswith("CREATE TABLE"):
            code, engines = ENGINE.subn(r"ENGINE = Replicated\1", code)
            if engines != 1:
                raise ClusterError(f"table {found['name']}: only engines of the MergeTree family are replicated")
        return [code, *self._facade(found["verb"], found["name"])]

    def _facade(self, verb: str, table: str) -> Iterator[str]:
        """The Distributed table in front of `table`. It holds no rows, so it can be replaced at any time."""
        if table not in self._keys:
            return
        if verb.startswith("DROP"):
            yield f"DROP TABLE IF EXISTS `{self.database}`.{table} ON CLUSTER `{self.name}`"
            return
        yield (
            f"CREATE OR REPLACE TABLE `{self.database}`.{table} ON CLUSTER `{self.name}` AS"
            f" `{self.shard_database}`.{table}"
            f" ENGINE = Distributed('{self.name}', '{self.shard_database}', '{table}', {self._keys[table]})"
        )


def _sharding_key(create_table: str) -> str:
    """SQL. Rows with a Kafka partition stay on the shard that workers write them to; others follow their key."""
    if SOURCE_PARTITION.search(create_table):
        return "source_partition"
    sorted_by = SORTED_BY.search(create_table)
    if not sorted_by:
        raise ClusterError(f"no ORDER BY to shard by in: {create_table.splitlines()[0]}")
    return f"cityHash64({sorted_by[1].strip('()')})"


def _engine_of_rows(warehouse: Warehouse) -> str:
    found = warehouse.query(ENGINE_OF_ROWS)
    return str(found[0]["engine"]) if found else ""


def is_shard(warehouse: Warehouse) -> bool:
    """Whether this is a shard's own database."""
    return _engine_of_rows(warehouse).startswith("Replicated")


def is_cluster(warehouse: Warehouse) -> bool:
    """Whether the rows are replicated or distributed."""
    return _engine_of_rows(warehouse).startswith(("Replicated", "Distributed"))


def refuse_on_cluster(warehouse: Warehouse, what: str) -> None:
    """Raises ClusterError on a cluster, where `what` would change one shard or replica and not the others."""
    if is_cluster(warehouse):
        raise ClusterError(f"{what} is not supported on a cluster yet; see docs/deploy.md for what to do instead")
