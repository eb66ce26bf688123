import random
import re
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from aggregator.clickhouse.client import DatabaseError, Warehouse
from aggregator.clickhouse.migrate import ForeignSchemaError, migrate, pending
from aggregator.clickhouse.migration_files import MigrationError, read_migrations
from aggregator.clickhouse.retention import WRITTEN_COLUMNS
from aggregator.clickhouse.tables import DETAIL_COLUMNS
from aggregator.cost_explanation import COST_COLUMNS
from aggregator.rollups import measures, rebuild
from aggregator.rollups.measures import (
    DURATION_HISTOGRAM,
    DURATION_MAX,
    DURATION_MIN,
    MEASURES,
    REQUESTS,
    ROLLUPS,
    UNPRICED,
    Bucket,
    Dimension,
    Rollup,
)
from aggregator.rollups.planner import Question, compile_answer
from aggregator.times import Span
from api.security.permissions import CONTENT_COLUMNS
from cli.doctor.clickhouse import projections
from cli.doctor.finding import Severity
from ingest.pricing import PRICED_SCHEMA
from tests.conftest import CREATED
from tests.support.rows import Row, insert_rows, random_rows, why_unpriced

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


def _of_rollup(rollup: Rollup) -> tuple[str, str, dict[str, str]]:
    """The statements that create its table and, last, its view; what was last said of each projection."""
    statements = [statement for migration in read_migrations() for statement in migration.statements]
    (table,) = (each for each in statements if each.startswith(f"CREATE TABLE IF NOT EXISTS {rollup.table}\n"))
    *_, view = (each for each in statements if f" {rollup.table}_view TO {rollup.table} AS" in each)
    about = [table, *(each for each in statements if each.startswith(f"ALTER TABLE {rollup.table}\n"))]
    projections = {
        found[1]: found[2]
        for each in about
        for found in re.finditer(r"PROJECTION (\w+)\n    \(\n(.*?)\n    \)", each, re.DOTALL)
    }
    return table, view, projections


NAMES = {Bucket.HOUR: "hourly", Bucket.DAY: "daily", Bucket.MONTH: "monthly"}


@pytest.mark.parametrize("rollup", ROLLUPS, ids=lambda rollup: rollup.table)
def test_a_rollup_has_the_measures_and_summaries_of_the_catalogue(rollup: Rollup) -> None:
    table, view, projections = _of_rollup(rollup)
    keys = ", ".join(rollup.dimensions)
    measured = ",\n    ".join(f"{measure.from_raw} AS {measure.name}" for measure in MEASURES)
    columns = ",\n    ".join(["generation", *rollup.dimensions])
    assert view.endswith(f"{columns},\n    {measured}\nFROM request_logs\nGROUP BY bucket, {keys}, generation")
    assert f"ORDER BY (bucket, {keys})" in table
    merged = ",\n            ".join(measure.merge.format(column=measure.name) for measure in MEASURES)
    assert set(projections) == {NAMES[summary.grain] for summary in rollup.summaries[:-1]}
    for summary in rollup.summaries[:-1]:
        grouped = f"{', '.join(summary.dimensions)},\n            {summary.start}"
        assert (
            f"SELECT\n            {grouped},\n            {merged}\n        GROUP BY"
            in projections[NAMES[summary.grain]]
        )


# What a database of the first schema has to become.
BEFORE = [migration for migration in read_migrations() if migration.number < 9]


@pytest.fixture
def of_before(empty_warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Warehouse:
    """A database of the version whose `unpriced` counted every request without a cost, with rows of two months."""
    monkeypatch.setattr(rebuild, "SETTLE_SECONDS", 0.05)
    for migration in BEFORE:
        (tmp_path / f"{migration.name}.sql").write_text(migration.sql)
    migrate(empty_warehouse, tmp_path)
    insert_rows(empty_warehouse, OLD_ROWS)
    return empty_warehouse


OLD_ROWS = random_rows(5, 400, span=timedelta(days=5))
LATE_ROWS = random_rows(6, 40, span=timedelta(days=5), first_offset=10_000)
SUMS = ", ".join(f"{measure.merge.format(column=measure.name)} AS {measure.name}" for measure in MEASURES[:-1])


def assert_counted_by_reason(warehouse: Warehouse, rows: list[Row]) -> None:
    reasons = Counter(map(why_unpriced, rows))
    durations = [row["duration_ms"] for row in rows if row["duration_ms"] is not None]
    for rollup in ROLLUPS:
        [found] = warehouse.query(f"SELECT {SUMS} FROM {rollup.table}")
        assert (found["requests"], found["unpriced"]) == (len(rows), reasons["no_price"])
        assert found["missing_usage"] == reasons["no_usage"]
        assert found["failed_without_usage"] == reasons["failed_without_usage"]
        assert (found["duration_ms_min"], found["duration_ms_max"]) == (min(durations), max(durations))
    assert all(drift.is_zero for drift in rebuild.verify(warehouse))
    assert projections(warehouse).level is Severity.OK


def test_rows_of_before_are_counted_by_why_they_have_no_cost(of_before: Warehouse) -> None:
    assert min(Counter(map(why_unpriced, OLD_ROWS)).values()) > 10
    assert migrate(of_before) == read_migrations()[len(BEFORE) :]
    assert_counted_by_reason(of_before, OLD_ROWS)
    assert migrate(of_before) == []


@pytest.mark.parametrize("seed", range(4))
def test_an_upgrade_that_is_killed_anywhere_while_rows_arrive_is_completed_by_the_next(
    of_before: Warehouse, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    rng = random.Random(seed)
    todo = pending(of_before, read_migrations())
    statements = [statement for migration in todo for statement in migration.statements]
    for statement in statements[: rng.randint(0, len(statements))]:
        of_before.command(statement)
    # Workers go on: also while there is no view.
    insert_rows(of_before, LATE_ROWS)
    pieces, rebuild_slice = iter(range(rng.randint(0, 3))), rebuild._rebuild_slice

    def dies(*arguments: Any) -> None:
        if next(pieces, None) is None:
            raise KeyboardInterrupt
        rebuild_slice(*arguments)

    with monkeypatch.context() as killing:
        killing.setattr(rebuild, "_rebuild_slice", dies)
        with pytest.raises(KeyboardInterrupt):
            migrate(of_before)
    assert pending(of_before, read_migrations()) == todo
    assert migrate(of_before) == todo
    assert_counted_by_reason(of_before, OLD_ROWS + LATE_ROWS)


def test_times_whose_rows_have_gone_keep_their_sums_and_their_percentiles(of_before: Warehouse) -> None:
    """Nobody knows any more why they have no cost, or what their extremes were."""
    question = Question((REQUESTS, UNPRICED, DURATION_MIN, DURATION_MAX, DURATION_HISTOGRAM), group_by=Dimension.MODEL)
    before = [row["p"] for row in of_before.query(PERCENTILES_OF_BEFORE)]
    of_before.command("INSERT INTO retention_marks (rows_from) VALUES ('2026-03-01')")
    of_before.command("TRUNCATE TABLE request_logs")
    insert_rows(of_before, random_rows(7, 5, datetime(2026, 3, 5, tzinfo=UTC), timedelta(days=1), 20_000))
    migrate(of_before)
    until_march = replace(question, span=Span(None, datetime(2026, 3, 1, tzinfo=UTC)))
    totals, *groups = of_before.query(*compile_answer(until_march, "group_key", 100))
    assert totals["requests"] == len(OLD_ROWS)
    assert totals["unpriced"] == sum(row["cost"] is None for row in OLD_ROWS)
    assert [row["duration_ms_histogram"] for row in groups] == before
    assert projections(of_before).level is Severity.OK


PERCENTILES_OF_BEFORE = f"""
SELECT arrayMap(slot -> {measures._MIDDLE_MS}, quantilesExactWeightedMerge(0.5, 0.95, 0.99)(duration_ms_histogram)) AS p
FROM rollup_model GROUP BY model_name ORDER BY model_name
"""


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
