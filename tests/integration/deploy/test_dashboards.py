"""Every panel's SQL, with Grafana's macros expanded, on the real schema with rows in it."""

import json
import re
import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from aggregator.clickhouse.client import Warehouse
from aggregator.clickhouse.migrate import migrate
from deploy.grafana.dashboards import FOLDER, build
from deploy.grafana.panels import BOARDS, COUNT, DOLLARS, MS, SHARE, TEXT, TIME, Board, GrafanaPanel
from ingest.consumer.sink import Sink
from ingest.pricing import PriceBook
from tests.integration.ingest.test_sink import batch_of
from tests.support.rows import START, insert_rows, random_rows

FROM_MS = int(START.timestamp() // 3600 * 3600 * 1000)
TO_MS = FROM_MS + int(timedelta(days=4).total_seconds() * 1000)
PANELS = [pytest.param(board, panel, id=f"{board.uid}: {panel.title}") for board in BOARDS for panel in board.panels]
# Panels of rows, each with its reason in the description; all others ask rollups, dead letters or alerts.
OF_ROWS = {"Tags", "Time to first token", "Newest failures", "From request to row", "Partitions"}
ALERT = """
INSERT INTO alerts (created_at, alert_id, kind, scope_kind, scope_value, budget_id, threshold_percent, value, limit,
    period_start, period_end, message)
SELECT fromUnixTimestamp64Milli({at:Int64}), 'a', 'budget', 'user', 'ada', 'b', 80, 8, 10,
    fromUnixTimestamp64Milli({at:Int64}), fromUnixTimestamp64Milli({at:Int64}), 'ada has spent 80 %'
"""


def expand(sql: str, chosen: dict[str, list[str]]) -> str:
    """As the data source does (its macros of version 4) and Grafana's `sqlstring` format of variables."""
    sql = re.sub(
        r"\$__timeFilter_ms\((\w+)\)",
        rf"\1 >= fromUnixTimestamp64Milli({FROM_MS}) AND \1 <= fromUnixTimestamp64Milli({TO_MS})",
        sql,
    )
    sql = re.sub(
        r"\$__timeFilter\((\w+)\)", rf"\1 >= toDateTime({FROM_MS // 1000}) AND \1 <= toDateTime({TO_MS // 1000})", sql
    )
    sql = re.sub(r"\$__timeInterval\((\w+)\)", r"toStartOfInterval(toDateTime(\1), INTERVAL 3600 second)", sql)

    def condition(match: re.Match[str]) -> str:
        values = chosen.get(match[3])
        quoted = ",".join("'" + value.replace("'", "''") + "'" for value in values or [])
        return f"{match[1]} IN ({quoted})" if values else "1=1"

    sql = re.sub(r"\$__conditionalAll\((\w+) IN \(\$\{(\w+):sqlstring\}\), \$(\w+)\)", condition, sql)
    assert "$" not in sql
    return sql


@pytest.fixture(scope="module")
def filled(engine_url: str) -> Iterator[Warehouse]:
    warehouse = Warehouse(engine_url, database=f"test_{uuid.uuid4().hex[:12]}")
    migrate(warehouse)
    insert_rows(warehouse, random_rows(seed=7, count=3_000))
    Sink(warehouse, PriceBook()).write(batch_of(b"broken", b"{}"))
    # One in the time that is looked at.
    warehouse.command("ALTER TABLE dead_letters REMOVE TTL")
    warehouse.command(
        "INSERT INTO dead_letters (created_at, source_topic, reason, field)"
        f" VALUES (fromUnixTimestamp64Milli({FROM_MS + 1000}), 't', 'bad_json', '')"
    )
    warehouse.command(ALERT, {"at": FROM_MS + 1000})
    yield warehouse
    warehouse.command(f"DROP DATABASE {warehouse.database}")
    warehouse.close()


@pytest.mark.parametrize(("board", "panel"), PANELS)
def test_a_panel_answers_with_its_columns(filled: Warehouse, board: Board, panel: GrafanaPanel) -> None:
    rows = filled.query(expand(panel.sql, {}))
    assert rows
    assert list(rows[0]) == list(panel.units)
    for column, unit in panel.units.items():
        values = [row[column] for row in rows if row[column] is not None]
        assert values, column
        check_unit(column, unit, values)


def check_unit(column: str, unit: str, values: list[Any]) -> None:
    """The unit is what the values are in."""
    if unit == TIME:
        assert all(hasattr(value, "year") for value in values)
    elif unit == TEXT:
        assert not any(isinstance(value, float) for value in values)
    else:
        assert all(isinstance(value, int | float) for value in values)
    if unit == SHARE and column != "threshold":
        assert all(value >= 0 for value in values)
    named = {"cost": DOLLARS, "requests": COUNT, "duration_ms": MS, "p95": MS}
    if column in named and unit != "s":
        assert unit == named[column]


@pytest.mark.parametrize(("board", "panel"), PANELS)
def test_variables_narrow_a_panel_and_odd_values_are_values(
    filled: Warehouse, board: Board, panel: GrafanaPanel
) -> None:
    chosen = {name: ["gpt-5", "meta/llama: 'big'", "a'; DROP TABLE request_logs; --"] for name in board.variables}
    rows = filled.query(expand(panel.sql, {"model": chosen.get("model", [])}))
    if "model" in panel.units and "${model" in panel.sql:
        assert {row["model"] for row in rows} == {"gpt-5", "meta/llama: 'big'"}
    assert filled.query("SELECT count() AS n FROM request_logs")[0]["n"] == 3_000


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_variables_list_values_of_the_time(filled: Warehouse, board: Board) -> None:
    for sql in board.variables.values():
        assert filled.query(expand(sql, {}))


@pytest.mark.parametrize(("board", "panel"), PANELS)
def test_rows_are_read_only_where_no_rollup_holds_the_answer(board: Board, panel: GrafanaPanel) -> None:
    reads_rows = "FROM request_logs" in panel.sql
    assert reads_rows == (panel.title in OF_ROWS)
    if reads_rows:
        assert "rows" in panel.description.lower()
        # The macro of seconds would not use the primary key of a DateTime64.
        assert "$__timeFilter_ms(timestamp)" in panel.sql


def test_the_sums_of_the_dashboard_are_those_of_the_rows(filled: Warehouse) -> None:
    shown = filled.query(expand(BOARDS[0].panels[0].sql, {}))[0]["cost"]
    stored = filled.query("SELECT toFloat64(sum(cost)) AS cost FROM request_logs")[0]["cost"]
    assert shown == pytest.approx(stored)


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_the_committed_json_is_what_the_code_makes(board: Board) -> None:
    """`make dashboards` writes it."""
    text = (FOLDER / f"{board.uid}.json").read_text()
    assert text == build(board)
    made = json.loads(text)
    assert made["uid"] == board.uid
    assert [panel["title"] for panel in made["panels"]] == [panel.title for panel in board.panels]
    assert {panel["datasource"]["uid"] for panel in made["panels"]} == {"insights"}


def test_no_dashboard_is_left_behind() -> None:
    assert {path.stem for path in FOLDER.glob("*.json")} == {board.uid for board in BOARDS}
