import random
import re
from pathlib import Path

import pytest

from aggregator.clickhouse.client import DatabaseError, Warehouse
from aggregator.clickhouse.migrate import (
    ForeignSchemaError,
    MigrationError,
    migrate,
    pending,
    read_migrations,
)
from aggregator.clickhouse.retention import WRITTEN_COLUMNS
from aggregator.clickhouse.tables import DETAIL_COLUMNS
from aggregator.cost_explanation import COST_COLUMNS
from aggregator.rollups.measures import MEASURES, ROLLUPS, Rollup
from api.security.permissions import CONTENT_COLUMNS
from ingest.pricing import PRICED_SCHEMA
from tests.conftest import CREATED

LEDGER = "SELECT number, name FROM schema_migrations ORDER BY number"
THINGS = "CREATE TABLE IF NOT EXISTS things (x UInt8) ENGINE = MergeTree ORDER BY x;\n"
WIDER = "ALTER TABLE things ADD COLUMN IF NOT EXISTS y UInt8 DEFAULT x + 1;\n"


def write(folder: Path, **files: str) -> Path:
    for name, sql in files.items():
        (folder / f"{name.removeprefix('m')}.sql").write_text(sql)
    return folder


def test_an_empty_database_gets_every_migration_once(empty_warehouse: Warehouse) -> None:
    applied = migrate(empty_warehouse)
    assert applied == read_migrations()
    assert migrate(empty_warehouse) == []
    assert [row["name"] for row in empty_warehouse.query(LEDGER)] == [migration.name for migration in applied]


def test_a_later_migration_changes_the_tables_and_keeps_their_rows(empty_warehouse: Warehouse, tmp_path: Path) -> None:
    folder = write(tmp_path, m0001_things=THINGS)
    migrate(empty_warehouse, folder)
    empty_warehouse.command("INSERT INTO things VALUES (1)")
    write(tmp_path, m0002_wider_things=WIDER)
    assert [migration.name for migration in migrate(empty_warehouse, folder)] == ["0002_wider_things"]
    assert empty_warehouse.query("SELECT x, y FROM things") == [{"x": 1, "y": 2}]


def test_a_migration_that_came_late_with_a_lower_number_is_applied(empty_warehouse: Warehouse, tmp_path: Path) -> None:
    folder = write(tmp_path, m0001_things=THINGS, m0005_wider_things=WIDER)
    migrate(empty_warehouse, folder)
    write(tmp_path, m0003_other_things=THINGS.replace("things", "other_things"))
    assert [migration.number for migration in pending(empty_warehouse, read_migrations(folder))] == [3]
    assert [migration.number for migration in migrate(empty_warehouse, folder)] == [3]
    assert [row["number"] for row in empty_warehouse.query(LEDGER)] == [1, 3, 5]


def test_a_migration_that_failed_half_way_is_completed_by_the_next_run(
    empty_warehouse: Warehouse, tmp_path: Path
) -> None:
    folder = write(tmp_path, m0001_things=THINGS + "CREATE TABLE broken;\n")
    with pytest.raises(DatabaseError, match="Incorrect CREATE query"):
        migrate(empty_warehouse, folder)
    write(tmp_path, m0001_things=THINGS + "CREATE TABLE IF NOT EXISTS others AS things;\n")
    assert [migration.name for migration in migrate(empty_warehouse, folder)] == ["0001_things"]
    assert {row["name"] for row in empty_warehouse.query("SHOW TABLES")} == {"things", "others", "schema_migrations"}


def test_an_edited_migration_is_refused(empty_warehouse: Warehouse, tmp_path: Path) -> None:
    folder = write(tmp_path, m0001_things=THINGS)
    migrate(empty_warehouse, folder)
    write(tmp_path, m0001_things=THINGS + "SELECT 1;\n")
    with pytest.raises(MigrationError, match="0001_things was edited after it was applied"):
        migrate(empty_warehouse, folder)


def test_a_database_newer_than_the_code_is_refused(warehouse: Warehouse) -> None:
    with pytest.raises(MigrationError, match=r"does not know: upgrade"):
        pending(warehouse, read_migrations()[:2])


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(("0000_create_request_payloads", "0001_create_request_logs"), id="other names"),
        pytest.param(("0000_create_request_payloads",), id="a number before ours"),
    ],
)
def test_a_database_of_an_unreleased_version_is_refused_with_how_to_move_its_events(
    empty_warehouse: Warehouse, tmp_path: Path, names: tuple[str, ...]
) -> None:
    older = tmp_path / "older"
    older.mkdir()
    migrate(empty_warehouse, write(older, **{f"m{name}": THINGS for name in names}))
    empty_warehouse.command("INSERT INTO things VALUES (1)")
    refusal = (
        rf"made by an unreleased version .*{names[-1]}.* cannot be upgraded: .*INSIGHTS_KAFKA_GROUP .*insights replay"
    )
    with pytest.raises(ForeignSchemaError, match=refusal):
        migrate(empty_warehouse)
    assert {row["name"] for row in empty_warehouse.query("SHOW TABLES")} == {"things", "schema_migrations"}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        pytest.param({"m0001_a": "", "m0001_b": ""}, "a number of its own", id="same number twice"),
        pytest.param({"m1_a": ""}, "NNNN_name", id="file name"),
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


@pytest.mark.parametrize("seed", range(4))
def test_processes_that_migrate_at_once_or_are_killed_leave_the_same(
    empty_warehouse: Warehouse, migrated: tuple[str, list[str]], seed: int
) -> None:
    """Two of them in turns, the first killed somewhere; then one more."""
    rng = random.Random(seed)
    statements = [statement for migration in read_migrations() for statement in migration.statements]
    left = [statements[: rng.randrange(len(statements))], list(statements)]
    empty_warehouse.create_database()
    while any(left):
        empty_warehouse.command(rng.choice([statements for statements in left if statements]).pop(0))
    assert migrate(empty_warehouse) == read_migrations()
    template, created = migrated
    found = [row["statement"].replace(empty_warehouse.database, template) for row in empty_warehouse.query(CREATED)]
    assert found == created


def _of_rollup(rollup: Rollup) -> tuple[str, str]:
    """The statements that create its table and its view."""
    statements = [statement for migration in read_migrations() for statement in migration.statements]
    (table,) = (each for each in statements if each.startswith(f"CREATE TABLE IF NOT EXISTS {rollup.table}\n"))
    (view,) = (each for each in statements if f" {rollup.table}_view TO {rollup.table} AS" in each)
    return table, view


@pytest.mark.parametrize("rollup", ROLLUPS, ids=lambda rollup: rollup.table)
def test_a_rollup_has_the_measures_and_summaries_of_the_catalogue(rollup: Rollup) -> None:
    table, view = _of_rollup(rollup)
    keys = ", ".join(rollup.dimensions)
    measured = ",\n    ".join(f"{measure.from_raw} AS {measure.name}" for measure in MEASURES)
    columns = ",\n    ".join(["generation", *rollup.dimensions])
    assert view.endswith(f"{columns},\n    {measured}\nFROM request_logs\nGROUP BY bucket, {keys}, generation")
    assert f"ORDER BY (bucket, {keys})" in table
    merged = ",\n            ".join(measure.merge.format(column=measure.name) for measure in MEASURES)
    for summary in rollup.summaries[:-1]:
        grouped = f"{', '.join(summary.dimensions)},\n            {summary.start}"
        assert f"SELECT\n            {grouped},\n            {merged}\n        GROUP BY" in table
    assert table.count("PROJECTION") == len(rollup.summaries) - 1


def test_details_hold_what_is_said_of_them_and_nothing_that_changes_after_ingest() -> None:
    [create, *_] = read_migrations()[0].statements
    [listed] = re.findall(r"details String DEFAULT toJSONString\(tuple\(\n(.*?)\n    \)\)", create, re.DOTALL)
    # Metadata as text: dots in keys may nest it deeper than a JSON parser goes, which is then about this field alone.
    columns = [re.sub(r"^toJSONString\((metadata)\)$", r"\1", name.strip()) for name in listed.split(",\n")]
    assert tuple(columns) == DETAIL_COLUMNS
    changed = {*PRICED_SCHEMA.names, *WRITTEN_COLUMNS, *CONTENT_COLUMNS}
    assert changed.isdisjoint(DETAIL_COLUMNS)
    # Those of nothing but `details` are kept there.
    assert {name for name in sent_only(create) if not name.endswith("_fee")} <= set(DETAIL_COLUMNS)


def test_fees_are_in_the_order_of_the_costs() -> None:
    [create, *_] = read_migrations()[0].statements
    fees = [name for name in sent_only(create) if name.endswith("_fee")]
    assert fees == [f"{name}_fee" for name in COST_COLUMNS]
    assert re.findall(r"ifNull\((\w+), 0\)", create) == fees * 2
    computed = re.findall(r"(\w+)_before_fee Nullable\(Decimal\(18, 12\)\) ALIAS (\w+) - fees\[(\d)\]", create)
    assert computed == [(name, name, str(place)) for place, name in enumerate(COST_COLUMNS, 1)]


def sent_only(create_table: str) -> list[str]:
    """Columns that are not stored."""
    return re.findall(r"^    (\w+) .* EPHEMERAL,$", create_table, re.MULTILINE)


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
