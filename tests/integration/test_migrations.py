import math
import shutil
from pathlib import Path

import pytest

from aggregator import rollups
from aggregator.catalogue import MEASURES, Dimension
from aggregator.migrations import MIGRATIONS_FOLDER, MigrationError, migrate, pending, read_migrations
from aggregator.planner import EVERYTHING, Question, compile_answer
from aggregator.warehouse import DatabaseError, Warehouse
from tests.conftest import CREATED
from tests.support.rows import insert_rows, random_rows

PROJECTIONS_OF_PARTS = """
SELECT DISTINCT table, arraySort(projections) AS projections FROM system.parts
WHERE active AND database = currentDatabase() AND table IN ('rollup_model', 'rollup_user')
"""
LEDGER = "SELECT number, name FROM schema_migrations ORDER BY number"


def write(folder: Path, **files: str) -> Path:
    for name, sql in files.items():
        (folder / f"{name.removeprefix('m')}.sql").write_text(sql)
    return folder


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


def migrate_up_to(number: int, warehouse: Warehouse, folder: Path) -> None:
    for path in sorted(MIGRATIONS_FOLDER.glob("*.sql")):
        if int(path.name[:4]) <= number:
            shutil.copy(path, folder)
    migrate(warehouse, folder=folder)


def test_rows_of_before_migration_18_are_in_the_months_of_after(empty_warehouse: Warehouse, tmp_path: Path) -> None:
    migrate_up_to(17, empty_warehouse, tmp_path)
    insert_rows(empty_warehouse, random_rows(5, 300))
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
    monkeypatch.setattr(rollups, "SETTLE_SECONDS", 0.0)
    migrate_up_to(10, empty_warehouse, tmp_path)
    insert_rows(empty_warehouse, random_rows(5, 300))
    migrate(empty_warehouse)
    question = Question(MEASURES, group_by=Dimension.MODEL)
    before = empty_warehouse.query(*compile_answer(question, "group_key", 100))
    assert [row["requests"] for row in before if row["is_total"]] == [300]
    assert all(math.isnan(level) for row in before for level in row["duration_ms_histogram"])
    assert all(drift.is_zero for drift in rollups.rebuild(empty_warehouse, EVERYTHING))
    after = empty_warehouse.query(*compile_answer(question, "group_key", 100))
    assert not any(math.isnan(level) for row in after for level in row["duration_ms_histogram"])
    sums = [[{**row, "duration_ms_histogram": None} for row in found] for found in (before, after)]
    assert sums[0] == sums[1]


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
