"""The same migrations for a cluster of shards and replicas.

Every node has two databases. `<database>_shard` is the schema of a single server on replicated tables: workers write
there, and its views feed its rollups. `<database>` has a Distributed table of the same name for each of its tables,
and this is what everybody reads. So neither an insert nor a query is another one on a cluster.

Rows of a Kafka partition always go to the same shard (`Warehouse.shard_for`): a shard recognises the token of a batch
only if it has seen it.
"""

import re
from collections.abc import Iterable, Iterator

from aggregator.clickhouse.client import Warehouse
from aggregator.errors import InsightsError

ENGINE_OF_ROWS = "SELECT engine FROM system.tables WHERE database = currentDatabase() AND name = 'request_logs'"

# The statements that migrations consist of; what else one may need must be taught here first.
KNOWN = re.compile(
    r"^(?P<verb>CREATE TABLE IF NOT EXISTS|CREATE MATERIALIZED VIEW IF NOT EXISTS|ALTER TABLE"
    r"|DROP TABLE IF EXISTS|DROP VIEW IF EXISTS) (?P<name>\w+)\b"
)
ENGINE = re.compile(r"\bENGINE = (\w*MergeTree)\b")
WINDOW = re.compile(r"\bnon_replicated_deduplication_window = (\d+)")
SORTED_BY = re.compile(r"\bORDER BY (\([^()]+\)|\w+)")
SOURCE_PARTITION = re.compile(r"^\s*source_partition UInt32\b", re.MULTILINE)
# Replicated tables forget tokens after an hour, whatever room there is; single ones do not. As long as Kafka keeps
# records by default.
WINDOW_SECONDS = 7 * 24 * 3600


class ClusterError(InsightsError):
    """Something that works on a single server only was asked of a cluster; the message says what to do instead."""


class Cluster:
    """Renders migrations for the cluster `name` of the servers' `remote_servers`.

    `statements` are those of all migrations: a table that is altered gets its Distributed table anew, by the
    sharding key that follows from how it was created. Raises ClusterError for a statement it does not know.
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
        """What to execute instead, in the shard's database."""
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
        """The Distributed table that stands for `table`; one that is there is replaced at once, and holds nothing."""
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
    """SQL: rows with a Kafka partition go where workers put them; others where rows of the same key are."""
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
    """Raises ClusterError on a cluster: better than to change one shard, or one replica, and not the others."""
    if is_cluster(warehouse):
        raise ClusterError(f"{what} is not supported on a cluster yet; see docs/deploy.md for what to do instead")
