import math
import random
import shutil
from pathlib import Path

import pytest

from aggregator.clickhouse.client import DatabaseError, Warehouse
from aggregator.clickhouse.migrate import MIGRATIONS_FOLDER, MigrationError, migrate, pending, read_migrations
from aggregator.rollups import rebuild
from aggregator.rollups.measures import MEASURES, Dimension
from aggregator.rollups.planner import Question, compile_answer
from aggregator.times import EVERYTHING
from tests.conftest import CREATED
from tests.support.rows import COSTS, LOG_SCHEMA_17, Row, insert_rows, random_rows

PROJECTIONS_OF_PARTS = """
SELECT DISTINCT table, arraySort(projections) AS projections FROM system.parts
WHERE active AND database = currentDatabase() AND table IN ('rollup_model', 'rollup_user')
"""
LEDGER = "SELECT number, name FROM schema_migrations ORDER BY number"


def write(folder: Path, **files: str) -> Path:
    for name, sql in files.items():
        (folder / f"{name.removeprefix('m')}.sql").write_text(sql)
    return folder


def migrate_to(number: int, warehouse: Warehouse, folder: Path) -> None:
    """Only the migrations up to `number`."""
    for path in MIGRATIONS_FOLDER.glob("*.sql"):
        if int(path.name[:4]) <= number:
            shutil.copy(path, folder)
    migrate(warehouse, folder=folder)


def test_an_empty_database_gets_every_migration_once(empty_warehouse: Warehouse) -> None:
    applied = migrate(empty_warehouse)
    assert applied == read_migrations()
    assert migrate(empty_warehouse) == []
    assert [row["name"] for row in empty_warehouse.query(LEDGER)] == [migration.name for migration in applied]


def test_a_dry_run_says_what_would_be_applied_and_changes_nothing(empty_warehouse: Warehouse) -> None:
    empty_warehouse.create_database()
    planned = migrate(empty_warehouse, dry_run=True)
    assert [migration.name for migration in planned] == [migration.name for migration in read_migrations()]
    assert empty_warehouse.query("SHOW TABLES") == []


def test_a_migration_that_failed_half_way_is_completed_by_the_next_run(
    empty_warehouse: Warehouse, tmp_path: Path
) -> None:
    good = "CREATE TABLE IF NOT EXISTS a (x UInt8) ENGINE = MergeTree ORDER BY x;\n"
    folder = write(tmp_path, m0001_create_things=good + "CREATE TABLE broken;\n")
    with pytest.raises(DatabaseError, match="Incorrect CREATE query"):
        migrate(empty_warehouse, folder=folder)
    write(tmp_path, m0001_create_things=good + "CREATE TABLE IF NOT EXISTS b AS a;\n")
    assert [migration.name for migration in migrate(empty_warehouse, folder=folder)] == ["0001_create_things"]
    assert {row["name"] for row in empty_warehouse.query("SHOW TABLES")} == {"a", "b", "schema_migrations"}


def test_an_edited_migration_is_refused(warehouse: Warehouse, tmp_path: Path) -> None:
    folder = write(tmp_path, m0001_create_request_logs="SELECT 1;\n")
    with pytest.raises(MigrationError, match="0001_create_request_logs was edited after it was applied"):
        pending(warehouse, read_migrations(folder))


def test_a_database_newer_than_the_code_is_refused(warehouse: Warehouse) -> None:
    with pytest.raises(MigrationError, match=r"does not know: upgrade"):
        pending(warehouse, read_migrations()[:2])


@pytest.mark.parametrize(
    ("files", "message"),
    [
        pytest.param({"m0001_a": "", "m0001_b": ""}, "a number of its own", id="same number twice"),
        pytest.param({"m1_a": ""}, "NNNN_verb_object", id="file name"),
    ],
)
def test_a_folder_that_does_not_count_up_is_refused(tmp_path: Path, files: dict[str, str], message: str) -> None:
    write(tmp_path, **files)
    with pytest.raises(MigrationError, match=message):
        read_migrations(tmp_path)


def test_statements_end_with_a_semicolon_at_the_end_of_a_line(tmp_path: Path) -> None:
    write(tmp_path, m0001_a="-- a comment; with a semicolon\nSELECT ';' AS a;\n\nSELECT 2\n;\nSELECT 3")
    (migration,) = read_migrations(tmp_path)
    assert migration.statements == ["SELECT ';' AS a", "SELECT 2", "SELECT 3"]


def test_rows_of_before_migration_18_are_in_the_months_of_after(empty_warehouse: Warehouse, tmp_path: Path) -> None:
    migrate_to(17, empty_warehouse, tmp_path)
    insert_rows(empty_warehouse, random_rows(5, 300), schema=LOG_SCHEMA_17)
    migrate(empty_warehouse)
    insert_rows(empty_warehouse, random_rows(6, 200, first_offset=300))
    sql, parameters = compile_answer(Question(MEASURES, group_by=Dimension.USER), "group_key", 100)
    assert empty_warehouse.query(sql, parameters)[0]["requests"] == 500
    parts = empty_warehouse.query(PROJECTIONS_OF_PARTS)
    assert {row["table"]: row["projections"] for row in parts} == {
        "rollup_model": ["daily", "hourly", "monthly"],
        "rollup_user": ["daily", "monthly"],
    }


def test_percentiles_of_before_migration_11_are_unknown_until_a_rebuild_and_sums_stay(
    empty_warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebuild, "SETTLE_SECONDS", 0.0)
    migrate_to(10, empty_warehouse, tmp_path)
    insert_rows(empty_warehouse, random_rows(5, 300), schema=LOG_SCHEMA_17)
    migrate(empty_warehouse)
    question = Question(MEASURES, group_by=Dimension.MODEL)
    before = empty_warehouse.query(*compile_answer(question, "group_key", 100))
    assert [row["requests"] for row in before if row["is_total"]] == [300]
    assert all(math.isnan(level) for row in before for level in row["duration_ms_histogram"])
    assert all(drift.is_zero for drift in rebuild.rebuild(empty_warehouse, EVERYTHING))
    after = empty_warehouse.query(*compile_answer(question, "group_key", 100))
    assert not any(math.isnan(level) for row in after for level in row["duration_ms_histogram"])
    sums = [[{**row, "duration_ms_histogram": None} for row in found] for found in (before, after)]
    assert sums[0] == sums[1]


FEES = next(migration.statements for migration in read_migrations() if migration.number == 19)
COST_COLUMNS = [f"{name}{suffix}" for name in COSTS for suffix in ("", "_before_fee")]


def rows_with_and_without_fees() -> list[Row]:
    """A fifth unpriced, half of the others without a fee, some with a discount."""
    rows = random_rows(11, 300)
    for row in rows[::2]:
        row.update({f"{name}_before_fee": row[name] for name in COSTS})
    return rows


@pytest.fixture
def of_17(empty_warehouse: Warehouse, tmp_path: Path) -> Warehouse:
    """A database of before the fees, with rows in several parts and months."""
    migrate_to(17, empty_warehouse, tmp_path)
    for start in (0, 100, 200):
        insert_rows(empty_warehouse, rows_with_and_without_fees()[start : start + 100], schema=LOG_SCHEMA_17)
    return empty_warehouse


def assert_costs_are_as_they_were(warehouse: Warehouse) -> None:
    names = ", ".join(["source_offset", *COST_COLUMNS])
    found = warehouse.query(f"SELECT {names} FROM request_logs ORDER BY source_offset")
    assert found == [{name: row[name] for name in found[0]} for row in rows_with_and_without_fees()]
    types = {row["type"] for row in warehouse.query(f"DESCRIBE (SELECT {', '.join(COST_COLUMNS)} FROM request_logs)")}
    assert types == {"Nullable(Decimal(18, 12))"}
    kinds = "SELECT name FROM system.columns WHERE database = currentDatabase() AND table = 'request_logs'"
    computed = warehouse.query(f"{kinds} AND default_kind = 'ALIAS'")
    assert {row["name"] for row in computed} == {f"{name}_before_fee" for name in COSTS}
    assert all(drift.is_zero for drift in rebuild.verify(warehouse))


@pytest.mark.parametrize("done", range(len(FEES) + 1))
def test_costs_before_fees_stay_wherever_migration_19_was_killed_and_a_batch_of_before_counts_once(
    of_17: Warehouse, done: int
) -> None:
    for number, statement in enumerate(FEES[:done], 1):
        # The one that was killed waits for nothing.
        of_17.command(statement.replace("mutations_sync = 2", "mutations_sync = 0") if number == done else statement)
    migrate(of_17)
    assert_costs_are_as_they_were(of_17)
    insert_rows(of_17, rows_with_and_without_fees()[:100])
    assert_costs_are_as_they_were(of_17)
    for statement in FEES:
        of_17.command(statement)
    assert_costs_are_as_they_were(of_17)


def test_no_cost_before_fees_goes_before_what_the_fee_adds_is_written(of_17: Warehouse) -> None:
    """What ClickHouse sees to by itself: a client that no longer waits for the update does no harm."""
    for statement in FEES[:-1]:
        of_17.command(statement)
    of_17.command("SYSTEM STOP MERGES request_logs")
    of_17.command(FEES[1].replace("mutations_sync = 2", "mutations_sync = 0"))
    with pytest.raises(DatabaseError, match="Cannot drop column cost_before_fee because it's affected by mutation"):
        of_17.command(FEES[-1])
    of_17.command("SYSTEM START MERGES request_logs")
    migrate(of_17)
    assert_costs_are_as_they_were(of_17)


@pytest.mark.parametrize("seed", range(6))
def test_two_processes_that_run_migration_19_at_once_leave_the_same(of_17: Warehouse, seed: int) -> None:
    rng = random.Random(seed)
    left = [list(FEES), list(FEES)]
    while any(left):
        process = rng.choice([statements for statements in left if statements])
        of_17.command(process.pop(0))
    assert_costs_are_as_they_were(of_17)


def test_what_a_worker_of_before_migration_19_writes_is_refused_whole(of_17: Warehouse) -> None:
    migrate(of_17)
    with pytest.raises(DatabaseError, match="No such column cost_before_fee"):
        insert_rows(of_17, random_rows(12, 50, first_offset=1000), schema=LOG_SCHEMA_17)
    assert_costs_are_as_they_were(of_17)
    insert_rows(of_17, random_rows(12, 50, first_offset=1000))
    assert of_17.query("SELECT count() AS n FROM request_logs") == [{"n": 350}]
    assert all(drift.is_zero for drift in rebuild.verify(of_17))


LISTS = "tags, tool_names, metadata_keys, output_keys, input_variable_keys"
LISTS_OF_ROWS = f"SELECT source_offset, {LISTS}, metadata FROM request_logs ORDER BY source_offset"
TYPES_OF_LISTS = f"SELECT DISTINCT {', '.join(f'toTypeName({name})' for name in LISTS.split(', '))} FROM request_logs"


def test_lists_of_before_migration_20_hold_what_they_held(empty_warehouse: Warehouse, tmp_path: Path) -> None:
    migrate_to(19, empty_warehouse, tmp_path)
    insert_rows(empty_warehouse, random_rows(20, 300))
    before = empty_warehouse.query(LISTS_OF_ROWS)
    assert any(row["tags"] for row in before)
    assert any(row["metadata_keys"] for row in before)
    migrate(empty_warehouse)
    assert empty_warehouse.query(LISTS_OF_ROWS) == before
    insert_rows(empty_warehouse, random_rows(21, 100, first_offset=300))
    after = empty_warehouse.query(LISTS_OF_ROWS)
    assert after[:300] == before
    assert all(row["metadata_keys"] for row in after if row["metadata"])
    (types,) = empty_warehouse.query(TYPES_OF_LISTS)
    assert set(types.values()) == {"Array(String)"}


def test_a_database_of_before_keeps_its_table_of_payloads(empty_warehouse: Warehouse, tmp_path: Path) -> None:
    for path in MIGRATIONS_FOLDER.glob("*.sql"):
        if 0 < int(path.name[:4]) < 20:
            shutil.copy(path, tmp_path)
    migrate(empty_warehouse, folder=tmp_path)
    rows = random_rows(22, 50)
    insert_rows(empty_warehouse, rows)
    table = empty_warehouse.query("SHOW CREATE TABLE request_payloads")
    stored = empty_warehouse.query("SELECT * FROM request_payloads ORDER BY ALL")
    assert [migration.number for migration in migrate(empty_warehouse)] == [0, 20]
    assert empty_warehouse.query("SHOW CREATE TABLE request_payloads") == table
    assert empty_warehouse.query("SELECT * FROM request_payloads ORDER BY ALL") == stored


def test_the_databases_of_tests_are_what_migrations_make(warehouse: Warehouse) -> None:
    other = warehouse.in_database(f"{warehouse.database}_other")
    migrate(other)
    found = [
        [row["statement"].replace(each.database, "database") for row in each.query(CREATED)]
        for each in (warehouse, other)
    ]
    assert found[0] == found[1]
    assert len(found[0]) > 12
    assert pending(warehouse, read_migrations()) == []
    warehouse.command(f"DROP DATABASE {other.database}")
    other.close()
