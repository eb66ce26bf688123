"""Rows and bodies go when their time has come; rollups stay, and nothing takes what has gone for an error."""

import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from typer.testing import CliRunner

from aggregator.clickhouse.client import Warehouse
from aggregator.clickhouse.migration_files import cluster_of
from aggregator.clickhouse.retention import (
    LEAST_ROW_DAYS,
    Retention,
    RetentionError,
    _definitions,
    _statements,
    current,
    kept_from,
    set_retention,
    stocks,
    with_rows,
)
from aggregator.rollups import rebuild
from aggregator.rollups.measures import COST, REQUESTS, ROLLUPS, Dimension
from aggregator.rollups.planner import Question, compile_answer
from aggregator.times import EPOCH, EVERYTHING, Span
from cli.commands.retention import run_set, run_show
from cli.doctor import clickhouse
from cli.doctor.finding import Severity
from cli.local_stack import repair
from cli.local_stack.repair import repair_rollups
from cli.main import app
from ingest.pricing import PriceBook
from ingest.pricing import reprice as repricing
from ingest.pricing.operator_file import parse
from ingest.pricing.reprice import reprice
from tests.support.rows import insert_rows, random_rows

ROWS_DAYS, BODIES_DAYS = 40, 10
KEPT = Retention(ROWS_DAYS, BODIES_DAYS)
BODIES = """
INSERT INTO request_payloads (timestamp, request_id, source_offset, request_body, input_text)
SELECT timestamp, request_id, source_offset, 'a body', 'a text' FROM request_logs
"""
WRITTEN = """
ALTER TABLE request_logs UPDATE output = '{"a":["x"]}', output_keys = ['a'], variables = '{"b":["y"]}',
input_variable_keys = ['b'], error_message = 'quoted' WHERE 1 SETTINGS mutations_sync = 1
"""
HAS_WRITTEN = """
error_message != '' AND output_keys = ['a'] AND input_variable_keys = ['b'] AND toString(output) != '{}'
AND toString(variables) != '{}'
"""
LACKS_WRITTEN = """
error_message = '' AND empty(output_keys) AND empty(input_variable_keys) AND toString(output) = '{}'
AND toString(variables) = '{}'
"""


def midnight() -> datetime:
    """Of today. Should a test run over it, what is a day from any border is still right."""
    return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def rows_of_90_days(seed: int = 1, count: int = 900, first_offset: int = 0) -> list[dict[str, Any]]:
    return random_rows(seed, count, midnight() - timedelta(days=89), timedelta(days=89), first_offset=first_offset)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rebuild, "SETTLE_SECONDS", 0.0)


@pytest.fixture
def filled(warehouse: Warehouse) -> Warehouse:
    insert_rows(warehouse, rows_of_90_days())
    warehouse.command(BODIES)
    warehouse.command(WRITTEN)
    return warehouse


def settle(warehouse: Warehouse) -> None:
    """Let the mutations of a change end, and merge what is there: that is when rows go."""
    for _ in range(600):
        if not warehouse.query("SELECT 1 FROM system.mutations WHERE database = currentDatabase() AND NOT is_done"):
            break
        warehouse.query("SELECT sleep(0.05)")
    for table in ("request_logs", "request_payloads"):
        warehouse.command(f"OPTIMIZE TABLE {table} FINAL")


def count(warehouse: Warehouse, table: str, condition: str = "1") -> int:
    return int(warehouse.query(f"SELECT count() AS n FROM {table} WHERE {condition}")[0]["n"])


def sums(warehouse: Warehouse, before: str = "1") -> dict[str, tuple[Any, ...]]:
    return {
        rollup.table: tuple(
            warehouse.query(
                f"SELECT sum(requests) AS n, sum(cost) AS c, sum(duration_ms_sum) AS d,"
                f" toString(quantilesExactWeightedMerge(0.5, 0.95, 0.99)(duration_ms_histogram)) AS q"
                f" FROM {rollup.table} WHERE {before}"
            )[0].values()
        )
        for rollup in ROLLUPS
    }


def test_rows_and_what_people_wrote_go_in_their_time_and_no_sum_of_a_rollup_changes(filled: Warehouse) -> None:
    before = sums(filled)
    set_retention(filled, KEPT)
    settle(filled)
    first_row, first_body = (midnight() - timedelta(days=days - 1) for days in (ROWS_DAYS, BODIES_DAYS))
    expected = [row["timestamp"] for row in rows_of_90_days()]
    assert count(filled, "request_logs") == sum(moment >= first_row for moment in expected) > 300
    young = sum(moment >= first_body for moment in expected)
    assert count(filled, "request_payloads") == count(filled, "request_logs", HAS_WRITTEN) == young > 60
    assert count(filled, "request_logs", LACKS_WRITTEN) == count(filled, "request_logs") - young
    assert sums(filled) == before
    assert current(filled) == KEPT


def test_a_kept_row_is_still_found_by_its_id_and_its_words(filled: Warehouse) -> None:
    set_retention(filled, KEPT)
    settle(filled)
    newest = filled.query("SELECT request_id FROM request_logs ORDER BY timestamp DESC LIMIT 1")[0]["request_id"]
    found = filled.query("SELECT count() AS n FROM request_logs WHERE request_id = {id:String}", {"id": newest})
    assert found[0]["n"] >= 1
    assert count(filled, "request_payloads", "hasAllTokens(input_text, 'text')") == count(filled, "request_payloads")


def test_rows_that_come_late_are_counted_and_go_as_well(filled: Warehouse) -> None:
    set_retention(filled, KEPT)
    before = sums(filled)
    old = random_rows(7, 50, midnight() - timedelta(days=80), timedelta(days=20), first_offset=10_000)
    insert_rows(filled, old)
    settle(filled)
    assert count(filled, "request_logs", "source_offset >= 10000") == 0
    assert {name: values[0] - before[name][0] for name, values in sums(filled).items()} == {
        rollup.table: 50 for rollup in ROLLUPS
    }
    assert all(drift.is_zero for drift in rebuild.verify(filled))


def test_what_has_gone_is_no_drift_and_no_rebuild_takes_it_from_the_rollups(filled: Warehouse) -> None:
    before = sums(filled)
    set_retention(filled, KEPT)
    settle(filled)
    drifts = rebuild.verify(filled)
    assert all(drift.is_zero and drift.groups > 100 for drift in drifts)
    assert all(drift.is_zero for drift in rebuild.rebuild(filled, EVERYTHING))
    assert sums(filled) == before
    # Nor one of a time that has gone altogether.
    rebuild.rebuild(filled, Span(midnight() - timedelta(days=89), midnight() - timedelta(days=60)))
    assert sums(filled) == before
    by_check = {finding.check: finding for finding in clickhouse.examine(filled)}
    assert (by_check["rollup drift"].level, by_check["retention"].level) == (Severity.OK, Severity.OK)
    assert by_check["retention"].observed == "rows 40 days, bodies 10 days"


def test_drift_of_a_time_that_has_its_rows_is_still_seen_and_mended(filled: Warehouse) -> None:
    before = sums(filled)
    set_retention(filled, KEPT)
    settle(filled)
    filled.command(
        "INSERT INTO rollup_model SELECT * FROM rollup_model WHERE bucket >= now() - INTERVAL 20 DAY"
        " SETTINGS insert_deduplicate = 0"
    )
    assert [drift.rollup for drift in rebuild.verify(filled) if not drift.is_zero] == ["rollup_model"]
    rebuild.rebuild(filled, EVERYTHING)
    assert sums(filled) == before


def test_repricing_leaves_times_alone_whose_rows_have_gone(filled: Warehouse) -> None:
    border = kept_from_after(filled, KEPT)
    settle(filled)
    old, new = f"bucket < toDateTime('{border:%F %T}', 'UTC')", f"bucket >= toDateTime('{border:%F %T}', 'UTC')"
    before = sums(filled, old)
    # The day before the border still has rows, which are as old as that of the rollups.
    of_rows = f"SELECT count() AS n, sum(cost) AS cost FROM request_logs WHERE {old.replace('bucket', 'timestamp')}"
    stored_before = filled.query(of_rows)
    assert stored_before[0]["n"] > 0
    rates = ", ".join(f"{{model: {model!r}, input: 7, output: 9}}" for model in ("gpt-5", "gpt-5-mini"))
    repriced = reprice(filled, EVERYTHING, PriceBook(parse(f"prices: [{rates}]", "p"), "new"))
    assert repriced.changed_rows > 0
    assert sums(filled, old) == before
    assert filled.query(of_rows) == stored_before
    assert all(drift.is_zero for drift in repriced.drifts)
    totals = filled.query(f"SELECT sum(cost) AS cost FROM rollup_model WHERE {new}")[0]["cost"]
    stored = filled.query(f"SELECT sum(cost) AS cost FROM request_logs WHERE {new.replace('bucket', 'timestamp')}")
    assert totals == stored[0]["cost"] > Decimal(0)


@pytest.fixture
def unclamped(filled: Warehouse, monkeypatch: pytest.MonkeyPatch) -> Warehouse:
    """Rows have gone, and nobody who compares, rebuilds or reprices asks from when on they are there."""
    set_retention(filled, KEPT)
    settle(filled)
    for module in (rebuild, repricing):
        monkeypatch.setattr(module, "with_rows", lambda warehouse, span: span)
    return filled


def test_without_the_clamp_what_has_gone_would_be_drift(unclamped: Warehouse) -> None:
    """The controls of the tests above: each of the three does harm where the border is not asked for."""
    assert not any(drift.is_zero for drift in rebuild.verify(unclamped))


def test_without_the_clamp_a_rebuild_would_take_what_has_gone_from_the_rollups(unclamped: Warehouse) -> None:
    before = sums(unclamped)
    rebuild.rebuild(unclamped, EVERYTHING)
    left = count(unclamped, "request_logs")
    assert {name: values[0] for name, values in sums(unclamped).items()} == dict.fromkeys(before, left)
    assert left < before["rollup_model"][0]


def test_without_the_clamp_repricing_would_take_what_has_gone_from_the_rollups(unclamped: Warehouse) -> None:
    before = sums(unclamped)
    rates = ", ".join(f"{{model: {model!r}, input: 7, output: 9}}" for model in ("gpt-5", "gpt-5-mini"))
    reprice(unclamped, EVERYTHING, PriceBook(parse(f"prices: [{rates}]", "p"), "new"))
    assert all(values[0] < before[name][0] for name, values in sums(unclamped).items())


def test_the_repair_after_a_kill_leaves_what_has_gone_in_the_rollups(
    engine_url: str, filled: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rollups of old days keep their sums while a batch that a kill has cut off is completed."""
    before = sums(filled)
    set_retention(filled, KEPT)
    settle(filled)
    # The engine of all tests takes one directory, and each test has a database of its own in it.
    monkeypatch.setattr(repair, "Warehouse", lambda url: Warehouse(url, filled.database))

    def generations() -> int:
        return count(filled, "rollup_generations")

    opened = generations()
    repair_rollups(engine_url)
    assert (sums(filled), generations()) == (before, opened), "nothing was cut off, so nothing is computed"
    cut_off = "bucket >= now() - INTERVAL 20 DAY"
    filled.command(f"ALTER TABLE rollup_user DELETE WHERE {cut_off} SETTINGS mutations_sync = 1")
    assert sums(filled) != before
    repair_rollups(engine_url)
    assert sums(filled) == before
    assert generations() > opened


def test_without_the_clamp_the_repair_after_a_kill_would_take_what_has_gone(
    engine_url: str, unclamped: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sums(unclamped)
    monkeypatch.setattr(repair, "Warehouse", lambda url: Warehouse(url, unclamped.database))
    repair_rollups(engine_url)
    assert all(values[0] < before[name][0] for name, values in sums(unclamped).items())


def kept_from_after(warehouse: Warehouse, retention: Retention) -> datetime:
    set_retention(warehouse, retention)
    return kept_from(warehouse)


@pytest.mark.parametrize("later", [Retention(80, 80), Retention()], ids=["longer", "for ever"])
def test_a_longer_retention_brings_no_row_back_and_does_not_forget_that(filled: Warehouse, later: Retention) -> None:
    before, border = sums(filled), kept_from_after(filled, KEPT)
    settle(filled)
    set_retention(filled, later)
    settle(filled)
    assert current(filled) == later
    assert kept_from(filled) == border
    assert all(drift.is_zero for drift in rebuild.verify(filled))
    rebuild.rebuild(filled, EVERYTHING)
    assert sums(filled) == before


def test_what_is_set_twice_or_never_is_no_error(filled: Warehouse) -> None:
    for retention in (Retention(), Retention(None, 20), Retention(None, 20), Retention()):
        set_retention(filled, retention)
        assert current(filled) == retention
    insert_rows(filled, rows_of_90_days(seed=3, first_offset=50_000))
    settle(filled)
    assert count(filled, "request_logs", "source_offset >= 50000") == 900


def test_every_moment_is_judged_as_the_days_between_say(warehouse: Warehouse) -> None:
    """`kept_from` against counting days, and against what ClickHouse calls expired."""
    choose = random.Random(5)
    for days in choose.sample(range(LEAST_ROW_DAYS, 4_000), 2):
        set_retention(warehouse, Retention(days, days))
        warehouse.command("TRUNCATE TABLE retention_marks")
        first_kept = midnight() - timedelta(days=days - 1)
        assert timedelta(days=1) <= kept_from(warehouse) - first_kept <= timedelta(days=2)
        row = random_rows(days, 1, kept_from(warehouse), timedelta(seconds=1), first_offset=days)
        insert_rows(warehouse, row)
        assert sum(stock.expired for stock in stocks(warehouse, Retention(days, days))) == 0
        assert stocks(warehouse, Retention(days - 3, days - 3))[0].expired >= 1
        warehouse.command("TRUNCATE TABLE request_logs")


def test_a_span_is_cut_where_rows_have_gone_and_only_there(filled: Warehouse) -> None:
    assert kept_from(filled) == EPOCH
    assert with_rows(filled, EVERYTHING) == EVERYTHING
    border, day = kept_from_after(filled, KEPT), timedelta(days=1)
    assert with_rows(filled, EVERYTHING) == Span(border, None)
    assert with_rows(filled, Span(border + day, border + 2 * day)) == Span(border + day, border + 2 * day)
    assert with_rows(filled, Span(border - day, border + day)) == Span(border, border + day)
    assert with_rows(filled, Span(border - 2 * day, border - day)).is_empty


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (Retention(LEAST_ROW_DAYS - 1, 1), "35 days or more"),
        (Retention(60, None), "longer than rows"),
        (Retention(60, 61), "longer than rows"),
    ],
)
def test_a_retention_that_breaks_something_is_refused(warehouse: Warehouse, wanted: Retention, said: str) -> None:
    with pytest.raises(RetentionError, match=said):
        set_retention(warehouse, wanted)
    assert current(warehouse) == Retention()


def test_a_ttl_that_was_set_by_hand_is_named_and_nothing_is_rebuilt(filled: Warehouse) -> None:
    before = sums(filled)
    filled.command("ALTER TABLE request_logs MODIFY TTL toDateTime(timestamp) + INTERVAL 2 MONTH")
    with pytest.raises(RetentionError, match=r"toIntervalMonth\(2\)"):
        rebuild.verify(filled)
    with pytest.raises(RetentionError, match=r"toIntervalMonth\(2\)"):
        rebuild.rebuild(filled, EVERYTHING)
    found = {finding.check: finding for finding in clickhouse.examine(filled)}
    assert found["retention"].level is Severity.FAULT
    assert "REMOVE TTL" in found["retention"].advice
    assert found["rollup drift"].observed == "not compared"
    assert sums(filled) == before


def test_questions_that_rollups_answer_are_answered_for_times_without_rows(filled: Warehouse) -> None:
    question = Question((REQUESTS, COST), Span(midnight() - timedelta(days=89), midnight()), group_by=Dimension.MODEL)
    sql, parameters = compile_answer(question, "requests DESC, group_key", 10)
    before = filled.query(sql, parameters)
    set_retention(filled, KEPT)
    settle(filled)
    assert filled.query(sql, parameters) == before


def test_the_command_shows_what_would_go_asks_and_writes_it_down(
    filled: Warehouse, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    going = sum(row["timestamp"] < midnight() - timedelta(days=ROWS_DAYS - 1) for row in rows_of_90_days())
    run_set(filled, KEPT, "", dry_run=True, yes=False)
    said = capsys.readouterr().out
    assert "for ever → 40 days" in said
    assert f"{going:,}" in said
    assert current(filled) == Retention()
    run_set(filled, KEPT, "", dry_run=False, yes=True)
    assert current(filled) == KEPT
    settle(filled)
    capsys.readouterr()
    run_show(filled)
    said = capsys.readouterr().out
    assert "40 days" in said
    assert f"Rows before {kept_from(filled):%F} UTC" in said
    entries = filled.query("SELECT action, details FROM audit_log")
    assert entries == [{"action": "retention.set", "details": '{"bodies_days": 10, "rows_days": 40}'}]


@pytest.mark.parametrize("words", [["--rows", "0"], ["--rows", "soon"], ["--bodies", "-3"], ["--rows", "99999"], []])
def test_days_that_are_none_are_refused_before_anything_is_asked(words: list[str]) -> None:
    done = CliRunner().invoke(app, ["retention", "set", *words])
    assert done.exit_code == 2


def test_a_cluster_gets_it_on_every_node(warehouse: Warehouse) -> None:
    rendering = cluster_of("insights", "insights")
    set_retention(warehouse, KEPT)
    statements = [*_statements(KEPT, {}), *_statements(Retention(), _definitions(warehouse))]
    assert len(statements) == 6
    for statement in statements:
        first, *facades = rendering.render(statement)
        assert " ON CLUSTER `insights` " in first
        assert all("Distributed" in facade for facade in facades)
        for text in (first, *facades):
            assert warehouse.query(f"EXPLAIN AST {text}")
