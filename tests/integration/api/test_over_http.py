"""The read API over ClickHouse's HTTP interface: the same answers, and a server that goes away and comes back."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from starlette.testclient import TestClient

from aggregator.clickhouse.client import Warehouse
from aggregator.clickhouse.migrate import migrate
from tests.support.api import client_of, get, id_of, in_order, list_logs, rfc3339, walk
from tests.support.clickhouse_http import ClickHouseServer
from tests.support.rows import insert_rows, payload_of, random_rows

ROWS = [row | {"request_id": f"{'é' * 60}-{number % 900}"} for number, row in enumerate(random_rows(41, 1100))]


@dataclass
class Stack:
    server: ClickHouseServer
    client: TestClient


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with ClickHouseServer(tmp_path_factory.mktemp("clickhouse") / "data") as server:
        warehouse = Warehouse(server.address, database="insights")
        migrate(warehouse)
        insert_rows(warehouse, ROWS, [payload_of(row) for row in ROWS])
        with client_of(warehouse) as client:
            yield Stack(server, client)
        warehouse.close()


def test_pages_of_long_ids_come_back_whole(stack: Stack) -> None:
    for order_by in ("timestamp", "duration_ms"):
        logs = walk(stack.client, page_size=60, order_by=order_by)
        expected = in_order(ROWS, order_by)
        assert [log["id"] for log in logs] == [id_of(row) for row in expected]
        assert [log["timestamp"] for log in logs] == [rfc3339(row["timestamp"]) for row in expected]
        bodies = [{"unreadable": payload_of(row)["response_body"]} for row in expected]
        assert [log["response_body"] for log in logs] == bodies


def test_small_pages_filters_lookup_and_statistics_work_too(stack: Stack) -> None:
    few = {"model_name": ROWS[0]["model_name"], "user_id": ROWS[0]["user_id"], "status": ROWS[0]["status"]}
    expected = [row for row in ROWS if few.items() <= row.items()]
    assert [log["id"] for log in walk(stack.client, page_size=9, **few)] == [id_of(row) for row in in_order(expected)]
    assert list_logs(stack.client, **few)["total_count"] == len(expected)
    newest = in_order([row for row in ROWS if row["request_id"] == ROWS[0]["request_id"]])[0]
    assert get(stack.client, f"/v1/request-logs/{newest['request_id']}")["id"] == id_of(newest)
    stats = get(stack.client, "/v1/request-logs/stats", group_by="hour", timezone="Asia/Kolkata")
    assert sum(stat["count"] for stat in stats["stats"]) == stats["total_count"] == len(ROWS)


def test_a_server_that_goes_away_is_503_and_one_that_comes_back_is_served_again(stack: Stack) -> None:
    paths = ("/v1/request-logs", "/v1/request-logs/stats", "/readyz")
    stack.server.kill9()
    assert {stack.client.get(path).status_code for path in paths} == {503}
    assert get(stack.client, "/healthz") == {"status": "ok"}
    stack.server.start()
    assert {stack.client.get(path).status_code for path in paths} == {200}


def test_limits_reach_the_server(stack: Stack) -> None:
    warehouse = Warehouse(stack.server.address, database="insights")
    with client_of(warehouse, max_execution_time_seconds=0.000_001) as client:
        assert client.get("/v1/request-logs/stats").json()["code"] == "deadline_exceeded"
    with client_of(warehouse, max_memory_bytes=1) as client:
        assert client.get("/v1/request-logs/stats").json()["code"] == "resource_exhausted"
    warehouse.close()
