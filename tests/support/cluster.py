"""Two shards in one engine: databases `shard_0` and `shard_1` are what two servers would have as `insights_shard`.

The engine in process neither starts replicas nor connects to anybody. So the shards hold the tables of a single server,
and Merge tables stand for the Distributed ones; the replicated and the Distributed tables are created beside them, in
`replicated` and `distributed` with an in-memory Keeper, which shows that the engine takes them. `ON CLUSTER`, which
needs servers, is left out.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aggregator.clickhouse.client import Warehouse
from aggregator.clickhouse.migration_files import CREATE_LEDGER, cluster_of, read_migrations
from tests.support.clickhouse_http import ClickHouseServer

NAME, DATABASE = "insights", "insights"
SHARDS = ("shard_0", "shard_1")
REPLICATED, DISTRIBUTED = "replicated", "distributed"
ENGINE = re.compile(r"ENGINE = Distributed\('.*', '.*', '(\w+)', .*\)$")
CONFIG = """<clickhouse>
  <tcp_port>9000</tcp_port>
  <interserver_http_host>localhost</interserver_http_host>
  <zookeeper><implementation>testkeeper</implementation></zookeeper>
  <default_replica_path>/clickhouse/{database}/{table}</default_replica_path>
  <default_replica_name>r1</default_replica_name>
  <macros><shard>1</shard><replica>r1</replica></macros>
  <remote_servers><insights>SHARDS</insights></remote_servers>
</clickhouse>
"""
SHARD = "<shard><replica><host>localhost</host><port>9000</port></replica></shard>"


@contextmanager
def running_cluster(folder: Path) -> Iterator[str]:
    """The address of an engine with two empty shards."""
    config = folder / "config.xml"
    config.write_text(CONFIG.replace("SHARDS", SHARD * len(SHARDS)))
    with ClickHouseServer(folder / "data", config) as server:
        yield server.address


def migrate_cluster(address: str) -> None:
    """What `migrate(..., cluster=NAME)` executes, each statement where a real cluster would."""
    rendering = cluster_of(NAME, DATABASE)
    everywhere = Warehouse(address, "default")
    for name in (DATABASE, REPLICATED, DISTRIBUTED, *SHARDS):
        everywhere.command(f"CREATE DATABASE IF NOT EXISTS {name}")
    everywhere.close()
    shards = [Warehouse(address, name) for name in SHARDS]
    replicated = Warehouse(address, REPLICATED)
    created = set[str]()
    for statement in [CREATE_LEDGER.strip(), *(each for found in read_migrations() for each in found.statements)]:
        for shard in shards:
            shard.command(statement)
        rendered, *facades = (text.replace(f" ON CLUSTER `{NAME}`", "") for text in rendering.render(statement))
        # Without a Keeper they are read-only: no table gets further columns, and no view over these.
        if rendered.startswith("CREATE") and rendered.splitlines()[0] not in created:
            created.add(rendered.splitlines()[0])
            replicated.command(rendered)
        for facade in facades:
            distributed = facade.replace(f"`{DATABASE}`", DISTRIBUTED)
            replicated.command(distributed.replace(f"`{rendering.shard_database}`", REPLICATED))
            merged = ENGINE.sub(r"ENGINE = Merge(REGEXP('^shard_[01]$'), '^\1$')", facade)
            shards[0].command(merged.replace(f"`{rendering.shard_database}`", SHARDS[0]))
    for warehouse in (*shards, replicated):
        warehouse.close()
