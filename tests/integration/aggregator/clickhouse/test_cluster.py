"""Migrations on a cluster, and the protocol through replicated tables (tests/support/cluster.py says what is real)."""

from collections.abc import Iterator

import pytest

from aggregator.clickhouse.client import Warehouse
from aggregator.clickhouse.cluster import Cluster, ClusterError, is_shard
from aggregator.clickhouse.migrate import migrate
from aggregator.clickhouse.migration_files import CREATE_LEDGER, Migration, cluster_of, read_migrations
from aggregator.clickhouse.retention import Retention, set_retention
from aggregator.rollups.measures import COST, REQUESTS, Dimension
from aggregator.rollups.planner import Question, compile_answer
from aggregator.rollups.rebuild import rebuild, verify
from aggregator.tables.dead_letters import Selection, drop
from aggregator.times import EVERYTHING
from api.errors import ApiError
from api.security.permissions import Caller, Restriction, Scope
from cli.adapters.clickhouse import DatabaseUrlError, open_warehouse
from ingest.consumer.batch import Batch
from ingest.consumer.sink import Sink
from ingest.pricing import PriceBook
from ingest.pricing.reprice import reprice
from tests.integration.ingest.test_sink import HOUR_MS, StoredRecord, encode
from tests.support.api import reader_for
from tests.support.cluster import DISTRIBUTED, REPLICATED, SHARDS, migrate_cluster, running_cluster

PARTITIONS = 3
STATEMENTS = [statement for migration in read_migrations() for statement in migration.statements]
SETTINGS_OF_TABLES = (
    "SELECT name, engine_full FROM system.tables WHERE database = 'replicated' AND engine LIKE 'Replicated%'"
)
COUNTS = "SELECT _database AS shard, source_partition AS partition, count() AS rows FROM request_logs GROUP BY ALL"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_cluster(tmp_path_factory.mktemp("cluster")) as address:
        migrate_cluster(address)
        yield address


@pytest.fixture
def cluster(address: str) -> Iterator[Warehouse]:
    warehouse = Warehouse(address, "insights", shards=[Warehouse(address, name) for name in SHARDS])
    yield warehouse
    warehouse.close()


def batch(partition: int, first: int, count: int = 20, bad: int = 2) -> Batch:
    values = [encode(request_id=f"r-{partition}-{first + n}") for n in range(count)] + [b"{"] * bad
    records = [StoredRecord(first + place, value) for place, value in enumerate(values)]
    return Batch("request-events", partition, records, HOUR_MS, 0)


@pytest.mark.parametrize("statement", [CREATE_LEDGER.strip(), *STATEMENTS], ids=lambda text: text.splitlines()[0][:60])
def test_every_statement_of_every_migration_renders_to_what_the_engine_parses(
    statement: str, warehouse: Warehouse
) -> None:
    rendering = cluster_of("insights", "insights")
    for rendered in rendering.render(statement):
        assert " ON CLUSTER `insights`" in rendered
        assert "non_replicated" not in rendered
        assert warehouse.query(f"EXPLAIN AST {rendered}")


def test_a_single_server_gets_the_text_as_it_is(empty_warehouse: Warehouse) -> None:
    migrate(empty_warehouse)
    engines = empty_warehouse.query("SELECT DISTINCT engine FROM system.tables WHERE database = currentDatabase()")
    assert not {row["engine"] for row in engines} & {"Distributed", "ReplicatedMergeTree"}


def test_tokens_are_remembered_as_long_as_kafka_keeps_records(address: str, cluster: Warehouse) -> None:
    engines = {row["name"]: row["engine_full"] for row in cluster.query(SETTINGS_OF_TABLES)}
    assert len(engines) > 6
    for name in ("request_logs", "request_payloads", "dead_letters", "rollup_model", "rollup_user"):
        assert "replicated_deduplication_window = 10000" in engines[name]
        assert "replicated_deduplication_window_seconds = 604800" in engines[name]


def test_a_batch_that_is_written_twice_counts_once_in_rows_rollups_and_dead_letters(cluster: Warehouse) -> None:
    sink = Sink(cluster, PriceBook())
    batches = [batch(partition, first) for partition in range(PARTITIONS) for first in (0, 100)]
    for each in batches:
        sink.write(each)
    for each in batches:
        # A worker that comes next has a sink of its own.
        Sink(cluster, PriceBook()).write(each)
    counts = cluster.query(COUNTS)
    assert {(row["shard"], row["partition"], row["rows"]) for row in counts} == {
        ("shard_0", 0, 40), ("shard_1", 1, 40), ("shard_0", 2, 40)
    }  # fmt: skip
    assert cluster.query("SELECT count() AS letters FROM dead_letters")[0]["letters"] == 2 * len(batches)
    assert all(drift.is_zero for drift in verify(cluster))
    question = Question((REQUESTS, COST), EVERYTHING, group_by=Dimension.MODEL)
    sql, parameters = compile_answer(question, "requests DESC", 10)
    assert cluster.query(sql, parameters)[0]["requests"] == 20 * len(batches)


def test_an_insert_that_failed_in_a_rollup_is_completed_by_the_retry(cluster: Warehouse) -> None:
    shard = cluster.shard_for(1)
    shard.command("ALTER TABLE rollup_user ADD CONSTRAINT closed CHECK requests = 0")
    late = batch(1, 1_000)
    before = cluster.query("SELECT sum(requests) AS n FROM rollup_user")[0]["n"]
    with pytest.raises(Exception, match="closed"):
        Sink(cluster, PriceBook()).write(late)
    shard.command("ALTER TABLE rollup_user DROP CONSTRAINT closed")
    Sink(cluster, PriceBook()).write(late)
    assert cluster.query("SELECT sum(requests) AS n FROM rollup_user")[0]["n"] == before + 20
    assert all(drift.is_zero for drift in verify(cluster))


def test_what_would_change_one_shard_only_is_refused(cluster: Warehouse) -> None:
    for warehouse in (cluster.in_database(DISTRIBUTED), cluster.in_database(REPLICATED)):
        with pytest.raises(ClusterError, match="rebuilding rollups is not supported"):
            rebuild(warehouse, EVERYTHING)
        with pytest.raises(ClusterError, match="repricing is not supported"):
            reprice(warehouse, EVERYTHING, PriceBook())
        with pytest.raises(ClusterError, match="deleting dead letters is not supported"):
            drop(warehouse, Selection())
        with pytest.raises(ClusterError, match="set INSIGHTS_CLICKHOUSE_CLUSTER"):
            set_retention(warehouse, Retention(90, 30))
    # Asking what repricing would change is no change.
    assert reprice(cluster, EVERYTHING, PriceBook(), dry_run=True).changed_rows == 0


def test_a_key_that_sees_only_some_rows_sees_nothing(cluster: Warehouse) -> None:
    confined = Caller("confined", frozenset({Scope.READ}), Restriction(user_id="ada"))
    warehouse = cluster.in_database(DISTRIBUTED)
    with pytest.raises(ApiError, match="not supported on a cluster"):
        reader_for(warehouse, confined).query("SELECT * FROM request_logs", {})
    warehouse.close()


def test_a_worker_takes_only_shards_for_shards(address: str) -> None:
    assert is_shard(open_warehouse(f"{address}/insights", f"{address}/{REPLICATED}").shard_for(1))
    with pytest.raises(DatabaseUrlError, match="has no replicated tables"):
        open_warehouse(f"{address}/insights", f"{address}/insights")


def test_partitions_go_to_shards_by_their_number() -> None:
    shards = [Warehouse("http://nowhere:1"), Warehouse("http://nowhere:2")]
    warehouse = Warehouse("http://nowhere:3", shards=shards)
    assert [shards.index(warehouse.shard_for(partition)) for partition in range(5)] == [0, 1, 0, 1, 0]
    assert Warehouse("http://nowhere:3").shard_for(7).database == "insights"


@pytest.mark.parametrize(
    "statement",
    [
        "OPTIMIZE TABLE request_logs FINAL",
        "INSERT INTO request_logs SELECT * FROM old",
        "CREATE TABLE IF NOT EXISTS notes (a UInt8) ENGINE = Memory",
        "CREATE TABLE notes (a UInt8) ENGINE = MergeTree ORDER BY a",
    ],
)
def test_a_statement_without_a_rendering_is_an_error(statement: str) -> None:
    with pytest.raises(ClusterError):
        Cluster("insights", "insights", []).render(statement)


def test_checksums_are_of_the_text_and_not_of_a_rendering() -> None:
    text = "CREATE TABLE IF NOT EXISTS things (x UInt8) ENGINE = MergeTree ORDER BY x;\n"
    assert Migration(1, "0001_things", text).checksum == "e3ce2d284031e2bd79cbe132541a308c"
