"""`insights doctor` names each fault that is planted, and none where none is."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from aggregator.planner import EPOCH
from aggregator.warehouse import Warehouse
from cli.doctor import clickhouse, kafka
from cli.doctor.finding import Finding, Level
from cli.doctor.report import report, run_doctor
from ingest.settings import IngestSettings
from tests.integration.test_gate import an_event, emitter
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
        **dict.fromkeys(("ClickHouse version", "schema", "clock", "deduplication windows", "rollup views"), Level.OK),
        **dict.fromkeys(
            ("parts", "mutations", "replicas", "retention", "rollup drift", "dead letters", "unpriced"), Level.OK
        ),
    }
    assert all(not finding.advice for finding in findings if finding.level is Level.OK)


def shorten_a_window(warehouse: Warehouse) -> None:
    warehouse.command("ALTER TABLE rollup_user MODIFY SETTING non_replicated_deduplication_window = 0")


def drop_a_view(warehouse: Warehouse) -> None:
    warehouse.command("DROP VIEW rollup_model_view")


def count_twice(warehouse: Warehouse) -> None:
    warehouse.command("INSERT INTO rollup_time SELECT * FROM rollup_time LIMIT 1 SETTINGS insert_deduplicate = 0")


def leave_a_mutation_that_fails(warehouse: Warehouse) -> None:
    warehouse.command(
        "ALTER TABLE request_logs UPDATE provider = toString(throwIf(1, 'planted')) WHERE 1 SETTINGS mutations_sync = 0"
    )
    for _ in range(200):
        if warehouse.query("SELECT 1 AS x FROM system.mutations WHERE latest_fail_reason != '' AND NOT is_done"):
            return
        warehouse.query("SELECT sleep(0.05)")


def write_dead_letters(warehouse: Warehouse) -> None:
    warehouse.command("INSERT INTO dead_letters (created_at, reason) SELECT now64(3), 'json_invalid' FROM numbers(40)")


def write_unpriced_rows(warehouse: Warehouse) -> None:
    rows = random_rows(3, 30, datetime.now(UTC) - timedelta(hours=5), timedelta(hours=1), first_offset=1000)
    insert_rows(warehouse, [row | {"cost": None} for row in rows])


def forget_a_migration(warehouse: Warehouse) -> None:
    warehouse.command("TRUNCATE TABLE schema_migrations")


PLANTED: dict[str, Callable[[Warehouse], None]] = {
    "deduplication windows": shorten_a_window,
    "rollup views": drop_a_view,
    "rollup drift": count_twice,
    "mutations": leave_a_mutation_that_fails,
    "dead letters": write_dead_letters,
    "unpriced": write_unpriced_rows,
    "schema": forget_a_migration,
}


@pytest.mark.parametrize(("check", "plant"), PLANTED.items(), ids=list(PLANTED))
def test_a_planted_fault_is_named(filled: Warehouse, check: str, plant: Callable[[Warehouse], None]) -> None:
    plant(filled)
    findings = by_check(clickhouse.examine(filled))
    assert findings[check].level is not Level.OK
    assert findings[check].advice
    others = {name for name, finding in findings.items() if finding.level is not Level.OK}
    assert others <= {check, "free disk"}


class Elsewhere:
    """The warehouse, but for one answer of its machine that a test cannot bring about."""

    def __init__(self, warehouse: Warehouse, word: str, rows: list[dict[str, Any]]) -> None:
        self._warehouse, self._word, self._rows = warehouse, word, rows

    def query(self, sql: str, *arguments: Any) -> list[dict[str, Any]]:
        return self._rows if self._word in sql else self._warehouse.query(sql, *arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._warehouse, name)


LATE_MS = (datetime.now(UTC) - timedelta(minutes=3) - EPOCH) // timedelta(milliseconds=1)
MACHINES: dict[str, tuple[str, list[dict[str, Any]], Level]] = {
    "ClickHouse version": ("version()", [{"version": "24.8.1.1"}], Level.FAULT),
    "clock": (
        "now64(3)",
        [{"millis": LATE_MS}],
        Level.FAULT,
    ),
    "free disk": ("system.disks", [{"name": "default", "free_space": 4, "total_space": 100}], Level.FAULT),
    "parts": ("system.parts", [{"table": "rollup_user", "partition": "202601", "parts": 400}], Level.WARNING),
    "replicas": ("system.replicas", [{"table": "request_logs", "is_readonly": 1, "absolute_delay": 0}], Level.FAULT),
}


@pytest.mark.parametrize("check", MACHINES)
def test_a_machine_in_need_is_named(filled: Warehouse, check: str) -> None:
    word, rows, level = MACHINES[check]
    elsewhere: Any = Elsewhere(filled, word, rows)
    finding = by_check(clickhouse.examine(elsewhere))[check]
    assert (finding.level, bool(finding.advice)) == (level, True)


def test_a_clickhouse_that_is_away_is_named() -> None:
    (finding,) = clickhouse.examine(Warehouse("http://user:secret@127.0.0.1:1/insights"))
    assert (finding.check, finding.level) == ("ClickHouse", Level.FAULT)
    assert "secret" not in finding.said


async def test_a_kafka_that_is_away_is_named() -> None:
    (finding,) = await kafka.examine(NOWHERE, "request-events", "router-insights")
    assert (finding.check, finding.level) == ("Kafka", Level.FAULT)
    assert NOWHERE in finding.said


async def test_a_topic_that_is_not_there_is_named(broker: str) -> None:
    (finding,) = await kafka.examine(broker, "no-such-topic-anywhere", "router-insights")
    assert (finding.check, finding.level) == ("topic", Level.FAULT)


async def test_records_that_nobody_reads_are_named(broker: str, topic: str) -> None:
    found = by_check(await kafka.examine(broker, topic, f"group-of-{topic}"))
    assert {finding.level for finding in found.values()} == {Level.OK}
    async with emitter(broker, topic) as events:
        await events.deliver([(b"k", str(an_event()).encode())] * 7)
    found = by_check(await kafka.examine(broker, topic, f"group-of-{topic}"))
    assert found["consumer lag"].level is Level.FAULT
    assert "has never read" in found["consumer lag"].said


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
    assert (found.level, found.said) == (Level.OK, f"{lag} records")
    monkeypatch.setattr(kafka, "LAG_RECORDS", lag - 1)
    found = by_check(await kafka.examine(broker, topic, group))["consumer lag"]
    assert (found.level, found.said) == (Level.WARNING, f"{lag} records")
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
