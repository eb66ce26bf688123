"""How ClickHouse goes about the queries of the request logs: what it skips, not how long it takes."""

import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from itertools import product
from typing import Any

import pytest

from aggregator.clickhouse.client import Warehouse
from aggregator.clickhouse.migrate import migrate
from aggregator.times import EPOCH, from_micros
from api.request_logs.cursor import Cursor
from api.request_logs.lookup import LOOKUP_SETTINGS, NEWEST_OF_ID, payload_query
from api.request_logs.page import FIRST_WINDOW, SELECT_KEYS, page_query
from api.request_logs.parameters import LogParameters, OrderDirection
from api.request_logs.rows import PAYLOADS, ROWS, SELECT_ROWS

# 200,000 rows over four months: four parts of several granules.
FILL = """
INSERT INTO request_logs (timestamp, request_id, created_at, source_offset, model_name, status, duration_ms)
SELECT toDateTime64('2026-01-01 00:00:00', 6, 'UTC') + toIntervalSecond(number * 50) AS timestamp,
    concat('req-', toString(number)), timestamp, number, 'gpt-5', 'success', number % 1000
FROM numbers(200000)
"""
FILL_PAYLOADS = """
INSERT INTO request_payloads (timestamp, request_id, created_at, source_offset, request_body)
SELECT timestamp, request_id, created_at, source_offset, 'body' FROM request_logs
"""
MIDDLE = Cursor(None, 1_767_225_600_000_000 + 100_000 * 50_000_000, "req-100000", 0, 0, 0)


@pytest.fixture(scope="module")
def warehouse(engine_url: str) -> Iterator[Warehouse]:
    warehouse = Warehouse(engine_url, database="test_request_log_plans")
    migrate(warehouse)
    warehouse.command(FILL)
    warehouse.command(FILL_PAYLOADS)
    yield warehouse
    warehouse.command(f"DROP DATABASE {warehouse.database}")
    warehouse.close()


def explain(
    warehouse: Warehouse, sql: str, parameters: Mapping[str, Any], settings: dict[str, Any] | None = None
) -> str:
    rows = warehouse.query(f"EXPLAIN indexes = 1, actions = 1, projections = 1 {sql}", parameters, settings)
    return "\n".join(row["explain"] for row in rows)


def granules(plan: str) -> tuple[int, int]:
    """(read, all) after the last index was used."""
    found = re.findall(r"Granules: (\d+)/(\d+)", plan)
    return int(found[-1][0]), max(int(total) for _, total in found)


@pytest.mark.parametrize(
    ("direction", "read_type"), [(OrderDirection.DESC, "InReverseOrder"), (OrderDirection.ASC, "InOrder")]
)
def test_pages_by_time_are_read_in_the_order_of_the_table(
    warehouse: Warehouse, direction: OrderDirection, read_type: str
) -> None:
    for cursor, select in product((None, MIDDLE), (SELECT_KEYS, SELECT_ROWS)):
        plan = explain(warehouse, *page_query(LogParameters(order_direction=direction), cursor, 51, select))
        assert f"Read type: {read_type}\n" in plan


@pytest.mark.parametrize("direction", OrderDirection)
def test_whole_rows_of_a_page_are_read_after_it_is_known_which(warehouse: Warehouse, direction: OrderDirection) -> None:
    for filters in ({}, {"status": "success"}):
        parameters = LogParameters(order_direction=direction, **filters)
        plan = explain(warehouse, *page_query(parameters, MIDDLE, 51, SELECT_ROWS))
        assert "JoinLazyColumnsStep" in plan


@pytest.mark.parametrize("direction", OrderDirection)
def test_a_later_page_skips_what_lies_before_its_cursor(warehouse: Warehouse, direction: OrderDirection) -> None:
    plan = explain(warehouse, *page_query(LogParameters(order_direction=direction), MIDDLE, 51))
    read, total = granules(plan)
    assert total >= 20
    assert read <= total * 0.6


def test_a_page_is_first_looked_for_in_a_window_of_few_granules(warehouse: Warehouse) -> None:
    start = EPOCH + timedelta(microseconds=MIDDLE.timestamp_us)
    for bound in ({"start_time": start - FIRST_WINDOW}, {"start_time": start - 24 * FIRST_WINDOW}):
        read, total = granules(explain(warehouse, *page_query(LogParameters().model_copy(update=bound), MIDDLE, 51)))
        assert read <= 2 < 20 <= total


def test_the_rows_and_payloads_of_a_page_are_found_by_the_primary_key(warehouse: Warehouse) -> None:
    keys = warehouse.query(*page_query(LogParameters(), MIDDLE, 51))
    bound = {
        "timestamps_us": [MIDDLE.timestamp_us - 50_000_000 * number for number in range(1, 52)],
        "hashes": [key["key_hash"] for key in keys],
    }
    for sql in (ROWS, PAYLOADS):
        read, total = granules(explain(warehouse, sql, bound))
        assert read <= 2 < 20 <= total
        assert len(warehouse.query(sql, bound)) == 51


def test_the_payload_of_one_log_is_found_by_the_primary_key(warehouse: Warehouse) -> None:
    sql, bound = payload_query(from_micros(MIDDLE.timestamp_us), MIDDLE.request_id)
    read, total = granules(explain(warehouse, sql, bound))
    assert read == 1 < 20 <= total
    assert len(warehouse.query(sql, bound)) == 1


def test_one_log_is_found_through_the_projection_by_its_id(warehouse: Warehouse) -> None:
    plan = explain(warehouse, NEWEST_OF_ID, {"request_id": "req-777"}, LOOKUP_SETTINGS)
    assert "Name: by_request_id" in plan
    # Without the setting the order of the table wins, and every part is searched.
    assert "by_request_id" not in explain(warehouse, NEWEST_OF_ID, {"request_id": "req-777"})
