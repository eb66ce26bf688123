"""`insights doctor` names each fault that is planted, and none where none is."""

import math
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from aggregator.clickhouse.client import Warehouse
from aggregator.clickhouse.migrate import migrate
from aggregator.clickhouse.migration_files import read_migrations
from cli.doctor import clickhouse, kafka
from cli.doctor.clickhouse import PARTS_SHARE
from cli.doctor.finding import Finding, Severity
from cli.doctor.report import report, run_doctor
from ingest.settings import IngestSettings
from tests.integration.ingest.test_event_publisher import an_event, emitter
from tests.support.clickhouse_http import ClickHouseServer
from tests.support.cluster import REPLICATED, migrate_cluster, running_cluster
from tests.support.insights import insights
from tests.support.kafka import PARTITIONS
from tests.support.rows import insert_rows, random_rows

NOWHERE = "127.0.0.1:1"


def fresh_rows(count: int, **fields: Any) -> list[dict[str, Any]]:
    """Priced rows of the last whole hours."""
    end = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    rows = random_rows(seed=2, count=count, start=end - timedelta(hours=2, minutes=50), span=timedelta(hours=2))
    return [row | {"cost": row["cost"] or 0, **fields} for row in rows]


def by_check(findings: list[Finding]) -> dict[str, Finding]:
    assert len({finding.check for finding in findings}) == len(findings)
    return {finding.check: finding for finding in findings}


@pytest.fixture
def filled(warehouse: Warehouse) -> Warehouse:
    insert_rows(warehouse, fresh_rows(60))
    return warehouse


def test_a_healthy_warehouse_has_nothing_to_mend(filled: Warehouse) -> None:
    findings = clickhouse.examine(filled)
    assert {finding.check: finding.level for finding in findings if finding.check != "free disk"} == {
        **dict.fromkeys(
            ("ClickHouse version", "schema", "clock", "deduplication windows", "rollup views"), Severity.OK
        ),
        **dict.fromkeys(("unpriced", "missing usage"), Severity.OK),
        **dict.fromkeys(
            ("parts", "projections", "mutations", "replicas", "retention", "rollup drift", "dead letters"), Severity.OK
        ),
    }
    assert all(not finding.advice for finding in findings if finding.level is Severity.OK)


def shorten_a_window(warehouse: Warehouse) -> None:
    warehouse.command("ALTER TABLE rollup_user MODIFY SETTING non_replicated_deduplication_window = 0")


def drop_a_view(warehouse: Warehouse) -> None:
    warehouse.command("DROP VIEW rollup_model_view")


def count_twice(warehouse: Warehouse) -> None:
    warehouse.command("INSERT INTO rollup_model SELECT * FROM rollup_model LIMIT 1 SETTINGS insert_deduplicate = 0")


def leave_parts_without_a_projection(warehouse: Warehouse) -> None:
    query = "SELECT user_id, sum(requests) GROUP BY user_id"
    warehouse.command(f"ALTER TABLE rollup_user ADD PROJECTION planted ({query})")


def leave_a_mutation_that_fails(warehouse: Warehouse) -> None:
    warehouse.command(
        "ALTER TABLE request_logs UPDATE provider = toString(throwIf(1, 'planted')) WHERE 1 SETTINGS mutations_sync = 0"
    )
    for _ in range(1000):
        if warehouse.query("SELECT 1 AS x FROM system.mutations WHERE latest_fail_reason != '' AND NOT is_done"):
            return
        warehouse.query("SELECT sleep(0.05)")


def write_dead_letters(warehouse: Warehouse) -> None:
    warehouse.command("INSERT INTO dead_letters (created_at, reason) SELECT now64(3), 'json_invalid' FROM numbers(40)")


def write_rows_without_cost(warehouse: Warehouse, **fields: Any) -> None:
    rows = random_rows(3, 30, datetime.now(UTC) - timedelta(hours=5), timedelta(hours=1), first_offset=1000)
    insert_rows(warehouse, [row | {"cost": None, **fields} for row in rows])


def write_unpriced_rows(warehouse: Warehouse) -> None:
    write_rows_without_cost(warehouse, input_tokens=7)


NO_USAGE = {"input_tokens": None, "output_tokens": None, "usage": ""}


def write_rows_without_usage(warehouse: Warehouse) -> None:
    write_rows_without_cost(warehouse, **NO_USAGE, is_error=False)


def forget_a_migration(warehouse: Warehouse) -> None:
    warehouse.command("TRUNCATE TABLE schema_migrations")


PLANTED: dict[str, Callable[[Warehouse], None]] = {
    "deduplication windows": shorten_a_window,
    "rollup views": drop_a_view,
    "rollup drift": count_twice,
    "projections": leave_parts_without_a_projection,
    "mutations": leave_a_mutation_that_fails,
    "dead letters": write_dead_letters,
    "unpriced": write_unpriced_rows,
    "missing usage": write_rows_without_usage,
    "schema": forget_a_migration,
}


@pytest.mark.parametrize(("check", "plant"), PLANTED.items(), ids=list(PLANTED))
def test_a_planted_fault_is_named(filled: Warehouse, check: str, plant: Callable[[Warehouse], None]) -> None:
    plant(filled)
    findings = by_check(clickhouse.examine(filled))
    assert findings[check].level is not Severity.OK
    assert findings[check].advice
    others = {name for name, finding in findings.items() if finding.level is not Severity.OK}
    assert others <= {check, "free disk"}


def test_requests_that_failed_without_usage_are_nobodys_work(filled: Warehouse) -> None:
    write_rows_without_cost(filled, **NO_USAGE, is_error=True)
    assert all(finding.level is Severity.OK for finding in clickhouse.examine(filled) if finding.check != "free disk")


def test_the_advice_about_projections_mends_them(filled: Warehouse) -> None:
    leave_parts_without_a_projection(filled)
    for statement in clickhouse.projections(filled).advice.split("; "):
        filled.command(f"{statement} SETTINGS mutations_sync = 2")
    assert clickhouse.projections(filled) == Finding("projections", Severity.OK, "in every part")


def test_a_database_of_an_unreleased_version_is_a_fault(filled: Warehouse) -> None:
    filled.command("INSERT INTO schema_migrations (number, name) VALUES (0, '0000_create_request_payloads')")
    found = by_check(clickhouse.examine(filled))["schema"]
    assert found.level is Severity.FAULT
    assert "cannot be upgraded: name an empty database" in found.observed


STRAINED = """<clickhouse>
  <merge_tree>
    <parts_to_delay_insert>PARTS</parts_to_delay_insert>
    <max_bytes_to_merge_at_max_space_in_pool>1</max_bytes_to_merge_at_max_space_in_pool>
  </merge_tree>
  <storage_configuration><disks><archive>
    <type>local</type><path>FOLDER/archive/</path><keep_free_space_bytes>KEPT_FREE</keep_free_space_bytes>
  </archive></disks></storage_configuration>
</clickhouse>
"""
# So many parts are no cause for worry: more than migrations leave in the table that lists them.
FEW_PARTS = len(read_migrations()) + 1
DELAY_AT = math.ceil(FEW_PARTS / PARTS_SHARE)
LEFT_BYTES = 1024 * 1024


@pytest.fixture(scope="module")
def strained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseServer]:
    """A ClickHouse over HTTP that merges nothing, slows inserts down early, and has a disk of which but a megabyte may
    be used."""
    folder = tmp_path_factory.mktemp("strained")
    (folder / "archive").mkdir()
    config = folder / "config.xml"
    kept_free = shutil.disk_usage(folder).free - LEFT_BYTES
    text = STRAINED.replace("FOLDER", str(folder)).replace("KEPT_FREE", str(kept_free)).replace("PARTS", str(DELAY_AT))
    config.write_text(text)
    with ClickHouseServer(folder / "data", config) as server:
        warehouse = Warehouse(f"{server.address}/insights")
        migrate(warehouse)
        warehouse.close()
        yield server


def findings_of(server: ClickHouseServer) -> dict[str, Finding]:
    warehouse = Warehouse(f"{server.address}/insights")
    try:
        return by_check(clickhouse.examine(warehouse))
    finally:
        warehouse.close()


def test_parts_that_nobody_merges_are_named(strained: ClickHouseServer) -> None:
    """Small inserts, each a part of its own; ClickHouse begins to slow them down at DELAY_AT."""
    warehouse = Warehouse(f"{strained.address}/insights")

    def insert(numbers: range) -> Finding:
        for number in numbers:
            insert_rows(warehouse, fresh_rows(1, generation=0, source_offset=number))
        return by_check(clickhouse.examine(warehouse))["parts"]

    assert insert(range(FEW_PARTS)).level is Severity.OK
    found = insert(range(FEW_PARTS, FEW_PARTS + 1))
    assert (found.level, found.observed[:3]) == (Severity.WARNING, f"{FEW_PARTS + 1} ")
    found = insert(range(FEW_PARTS + 1, DELAY_AT + 1))
    assert (found.level, found.observed[:3]) == (Severity.FAULT, f"{DELAY_AT + 1} ")
    assert f"slow down at {DELAY_AT}" in found.observed
    assert "INSIGHTS_FLUSH_SECONDS" in found.advice
    warehouse.close()


def test_a_disk_without_room_is_named(strained: ClickHouseServer) -> None:
    found = findings_of(strained)["free disk"]
    assert (found.level, found.observed) == (Severity.FAULT, "0% free on archive")
    assert "add space" in found.advice


def test_a_server_of_another_time_and_age_is_named(strained: ClickHouseServer) -> None:
    """Neither can be brought about in this machine's engine: the front gives it other SQL to run."""
    assert {findings_of(strained)[check].level for check in ("clock", "ClickHouse version")} == {Severity.OK}
    strained.pretend({"now64(3)": "(now64(3) - toIntervalSecond(3))"})
    found = findings_of(strained)
    assert (found["clock"].level, found["ClickHouse version"].level) == (Severity.WARNING, Severity.OK)
    strained.pretend({"now64(3)": "(now64(3) + toIntervalMinute(3))", "version()": "'24.8.1.1'"})
    found = findings_of(strained)
    strained.pretend({})
    assert (found["clock"].level, found["ClickHouse version"].level) == (Severity.FAULT, Severity.FAULT)
    assert found["clock"].observed.startswith(("179.", "180."))
    assert found["ClickHouse version"].observed == "24.8.1.1"


def test_replicas_that_have_lost_their_keeper_are_named(tmp_path: Path) -> None:
    """The engine in process starts no replicas, so that these stay as a server has them whose Keeper is away."""
    with running_cluster(tmp_path) as address:
        migrate_cluster(address)
        warehouse = Warehouse(address, REPLICATED)
        found = clickhouse.replicas(warehouse)
        warehouse.close()
    assert found.level is Severity.FAULT
    assert "read-only" in found.observed
    assert "request_logs" in found.observed
    assert "Keeper" in found.advice


def test_the_command_names_what_is_wrong_with_a_server(strained: ClickHouseServer) -> None:
    strained.pretend({"now64(3)": "(now64(3) - toIntervalMinute(3))", "version()": "'24.8.1.1'"})
    done = insights(
        "doctor",
        INSIGHTS_CLICKHOUSE_URL=f"{strained.address}/insights",
        INSIGHTS_KAFKA_BOOTSTRAP_SERVERS=NOWHERE,
    )
    strained.pretend({})
    assert (done.returncode, done.stderr) == (1, "")
    [line] = [line for line in done.stdout.splitlines() if line.startswith("faults: ")]
    assert {"ClickHouse version", "clock", "free disk", "Kafka"} <= set(line.removeprefix("faults: ").split(", "))


def test_an_engine_that_somebody_else_has_open_is_named(strained: ClickHouseServer) -> None:
    """As while `insights up` runs."""
    done = insights(
        "doctor", INSIGHTS_CLICKHOUSE_URL=f"chdb://{strained.folder}", INSIGHTS_KAFKA_BOOTSTRAP_SERVERS=NOWHERE
    )
    told = " ".join(done.stdout.split())
    assert done.returncode == 1
    assert "faults: ClickHouse, Kafka" in told
    assert "one process at a time" in told


def test_a_clickhouse_that_is_away_is_named() -> None:
    (finding,) = clickhouse.examine(Warehouse("http://user:secret@127.0.0.1:1/insights"))
    assert (finding.check, finding.level) == ("ClickHouse", Severity.FAULT)
    assert "secret" not in finding.observed


async def test_a_kafka_that_is_away_is_named() -> None:
    (finding,) = await kafka.examine(NOWHERE, "request-events", "router-insights")
    assert (finding.check, finding.level) == ("Kafka", Severity.FAULT)
    assert NOWHERE in finding.observed


async def test_a_topic_that_is_not_there_is_named(broker: str) -> None:
    (finding,) = await kafka.examine(broker, "no-such-topic-anywhere", "router-insights")
    assert (finding.check, finding.level) == ("topic", Severity.FAULT)


async def test_records_that_nobody_reads_are_named(broker: str, topic: str) -> None:
    found = by_check(await kafka.examine(broker, topic, f"group-of-{topic}"))
    assert {finding.level for finding in found.values()} == {Severity.OK}
    async with emitter(broker, topic) as events:
        await events.deliver([(b"k", str(an_event()).encode())] * 7)
    found = by_check(await kafka.examine(broker, topic, f"group-of-{topic}"))
    assert found["consumer lag"].level is Severity.FAULT
    assert "has never read" in found["consumer lag"].observed


async def test_a_group_that_lags_is_named_with_how_far(
    broker: str, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`make test-kafka` runs it on Apache Kafka."""
    group = f"group-of-{topic}"
    async with emitter(broker, topic) as events:
        await events.deliver([(str(number).encode(), str(an_event()).encode()) for number in range(60)])
    partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]
    async with AIOKafkaConsumer(bootstrap_servers=broker, group_id=group, enable_auto_commit=False) as consumer:
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        # One record of each partition that has any is not read yet.
        await consumer.commit({partition: max(0, end - 1) for partition, end in ends.items()})
    lag = sum(end > 0 for end in ends.values())
    assert lag > 1
    found = by_check(await kafka.examine(broker, topic, group))["consumer lag"]
    assert (found.level, found.observed) == (Severity.OK, f"{lag} records")
    monkeypatch.setattr(kafka, "LAG_RECORDS", lag - 1)
    found = by_check(await kafka.examine(broker, topic, group))["consumer lag"]
    assert (found.level, found.observed) == (Severity.WARNING, f"{lag} records")
    assert "more workers" in found.advice


def test_the_exit_says_whether_there_is_a_fault(
    filled: Warehouse, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    settings = IngestSettings(kafka_bootstrap_servers=NOWHERE)
    assert run_doctor(settings, filled) is False
    out = capsys.readouterr().out
    assert "faults: Kafka" in out
    assert "INSIGHTS_KAFKA_BOOTSTRAP_SERVERS" in out
    assert report([]).row_count == 0


def test_a_group_that_is_past_the_embedded_broker_s_last_offset_lags_by_nothing() -> None:
    """Its last offset is one past the first record of its last batch; another partition's lag is not made up for."""
    ahead, behind = TopicPartition("t", 0), TopicPartition("t", 1)
    found = kafka._lag([ahead, behind], {ahead: 0, behind: 0}, {ahead: 1, behind: 10}, {ahead: 49, behind: 7}, "group")
    assert (found.level, found.observed) == (Severity.OK, "3 records")
