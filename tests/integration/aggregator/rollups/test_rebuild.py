import random
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from aggregator.clickhouse.client import Warehouse
from aggregator.rollups import planner, rebuild
from aggregator.rollups.measures import MEASURES, ROLLUPS, Bucket, Dimension, Rollup
from aggregator.rollups.planner import Question, compile_answer
from aggregator.times import EVERYTHING, Span
from tests.support.rows import START, insert_rows, random_rows


@pytest.fixture
def filled(warehouse: Warehouse) -> Warehouse:
    insert_rows(warehouse, random_rows(3, 800, span=timedelta(days=5)))
    return warehouse


@pytest.fixture
def quick_settling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rebuild, "SETTLE_SECONDS", 0.05)


def drifted(warehouse: Warehouse, span: Span = EVERYTHING) -> dict[str, int]:
    return {drift.rollup: drift.drifted_groups for drift in rebuild.verify(warehouse, span) if not drift.is_zero}


def test_rollups_fed_by_the_views_have_no_drift(filled: Warehouse) -> None:
    drifts = rebuild.verify(filled)
    assert [drift.rollup for drift in drifts] == [rollup.table for rollup in ROLLUPS]
    assert all(drift.groups > 10 and drift.is_zero for drift in drifts)
    # All of one insert: no limit on groups may cut a view's answer.
    assert drifts[-1].groups > 500


@pytest.mark.parametrize("rollup", ROLLUPS, ids=lambda rollup: rollup.table)
def test_a_damaged_rollup_drifts_and_a_rebuild_mends_it(
    filled: Warehouse, quick_settling: None, rollup: Rollup
) -> None:
    filled.command(f"ALTER TABLE {rollup.table} DELETE WHERE status = 'success' SETTINGS mutations_sync = 2")
    (drift,) = [drift for drift in rebuild.verify(filled) if not drift.is_zero]
    assert drift.rollup == rollup.table
    assert drift.differences["requests"] > 100
    assert drift.differences["duration_ms_histogram"] > 0
    assert all(drift.is_zero for drift in rebuild.rebuild(filled, EVERYTHING))
    assert drifted(filled) == {}


def test_rows_counted_twice_are_a_drift_that_a_rebuild_mends(filled: Warehouse, quick_settling: None) -> None:
    filled.command("INSERT INTO rollup_model SELECT * FROM rollup_model SETTINGS insert_deduplicate = 0")
    assert set(drifted(filled)) == {"rollup_model"}
    rebuild.rebuild(filled, EVERYTHING)
    assert drifted(filled) == {}


def test_a_month_that_has_lost_all_its_rows_is_rebuilt_to_nothing(filled: Warehouse, quick_settling: None) -> None:
    """Somebody deleted requests, as the law may ask for; ClickHouse would not replace a partition by nothing."""
    filled.command("ALTER TABLE request_logs DELETE WHERE timestamp < '2026-02-01' SETTINGS mutations_sync = 2")
    assert set(drifted(filled)) == {rollup.table for rollup in ROLLUPS}
    rebuild.rebuild(filled, EVERYTHING)
    assert drifted(filled) == {}
    for rollup in ROLLUPS:
        months = filled.query(f"SELECT DISTINCT toYYYYMM(bucket) AS month FROM {rollup.table}")
        assert [row["month"] for row in months] == [202602]


def answers(warehouse: Warehouse) -> list[str]:
    """Of everything, by each dimension and by day, hour and user's model; as text, since NaN equals nothing."""
    questions = [Question(MEASURES, group_by=group_by) for group_by in (*Dimension, Bucket.DAY, Bucket.HOUR)]
    questions.append(Question(MEASURES, equals={Dimension.USER: "alice"}, group_by=Dimension.MODEL))
    return [str(warehouse.query(*compile_answer(question, "group_key", 1000))) for question in questions]


@pytest.mark.parametrize("seed", range(5))
def test_projections_equal_the_rows_whatever_was_done_to_their_tables(
    filled: Warehouse, quick_settling: None, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    rng, offsets = random.Random(seed), iter(range(800, 10**6, 100))

    def insert() -> None:
        rows = random_rows(seed, 100, span=timedelta(days=5), first_offset=next(offsets))
        for _ in range(rng.randint(1, 3)):
            insert_rows(filled, rows)

    def merge() -> None:
        for rollup in ROLLUPS:
            filled.command(f"OPTIMIZE TABLE {rollup.table} FINAL")

    def damage_and_rebuild() -> None:
        table = rng.choice(ROLLUPS).table
        filled.command(f"INSERT INTO {table} SELECT * FROM {table} SETTINGS insert_deduplicate = 0")
        rebuild.rebuild(filled, EVERYTHING)

    def rebuild_some() -> None:
        rebuild.rebuild(filled, Span(START + timedelta(days=1, minutes=7), START + timedelta(days=3)))

    steps: list[Callable[[], None]] = [insert, insert, merge, damage_and_rebuild, rebuild_some]
    for step in rng.choices(steps, k=6):
        step()
    by_projections = answers(filled)
    monkeypatch.setattr(planner, "ROLLUPS", ())
    assert by_projections == answers(filled)


def test_a_rebuild_of_a_range_leaves_the_rest_alone(filled: Warehouse, quick_settling: None) -> None:
    filled.command("ALTER TABLE rollup_user DELETE WHERE 1 SETTINGS mutations_sync = 2")
    middle = Span(START + timedelta(days=2, minutes=7), START + timedelta(days=3, minutes=3))
    rebuild.rebuild(filled, middle)
    assert drifted(filled, middle) == {}
    assert set(drifted(filled)) == {"rollup_user"}


def test_a_rebuild_of_nothing_changes_nothing(filled: Warehouse, quick_settling: None) -> None:
    future = Span(datetime(2050, 1, 1, tzinfo=UTC), datetime(2050, 2, 1, tzinfo=UTC))
    drifts = rebuild.rebuild(filled, future)
    assert [(drift.groups, drift.drifted_groups) for drift in drifts] == [(0, 0)] * len(ROLLUPS)
    assert drifted(filled) == {}


def test_progress_counts_up_to_the_number_of_partitions(filled: Warehouse, quick_settling: None) -> None:
    seen: list[tuple[int, int]] = []
    rebuild.rebuild(filled, EVERYTHING, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(n, len(seen)) for n in range(1, len(seen) + 1)]
    assert len(seen) == len(ROLLUPS) * 2  # January and February


@pytest.fixture
def ingestion(filled: Warehouse) -> Iterator[threading.Event]:
    """Rows keep arriving in another thread, each counted in the generation of its moment, until the event is set."""
    stop = threading.Event()

    def insert() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            generation = rebuild.current_generation(filled)
            rows = random_rows(1000 + number, 20, span=timedelta(days=5), first_offset=number * 1000)
            for row in rows:
                row["generation"] = generation
            insert_rows(filled, rows)

    thread = threading.Thread(target=insert)
    thread.start()
    yield stop
    stop.set()
    thread.join()


def test_a_rebuild_while_rows_arrive_loses_and_doubles_nothing(filled: Warehouse, ingestion: threading.Event) -> None:
    for _ in range(2):
        rebuild.rebuild(filled, EVERYTHING)
    ingestion.set()
    rebuild.rebuild(filled, Span(START, START + timedelta(hours=1)))
    assert drifted(filled) == {}
    assert filled.query("SELECT count() AS n FROM request_logs")[0]["n"] > 820
    assert filled.query("SELECT uniqExact(generation) AS n FROM request_logs")[0]["n"] >= 2


def test_no_staging_table_stays_behind(filled: Warehouse, quick_settling: None) -> None:
    rebuild.rebuild(filled, EVERYTHING)
    left = filled.query("SELECT name FROM system.tables WHERE database = currentDatabase() AND name LIKE '%rebuild%'")
    assert left == []


def test_tables_hold_exactly_what_the_catalogue_says(warehouse: Warehouse) -> None:
    for rollup in ROLLUPS:
        columns = warehouse.query(
            "SELECT name FROM system.columns WHERE database = currentDatabase() AND table = {table:String}",
            {"table": rollup.table},
        )
        expected = ["bucket", "generation", *rollup.dimensions, *(measure.name for measure in MEASURES)]
        assert [column["name"] for column in columns] == expected
