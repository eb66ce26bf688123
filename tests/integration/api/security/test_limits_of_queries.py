"""Queries that would run away: stopped by ClickHouse on every route that reads, and answered clearly; others go on."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from aggregator.clickhouse.client import Warehouse
from tests.integration.api.security.test_access import LIVE, QUERIES, ask, reader_of
from tests.support.api import client_of, filled_warehouse, reader_for
from tests.support.connect import FORMS
from tests.support.rows import random_rows

# Stands before rows and rollups: a minute's work, so that a query which nobody stops fails a test and does not hang it.
LONG = "(SELECT count() FROM numbers(3000000000) WHERE sipHash64(number) = 1) >= 0"
# Ten million texts at once, which is more than any limit below.
LARGE = "(SELECT length(groupArray(toString(number))) FROM numbers(10000000)) > 0"
TABLES = ("request_logs", "request_payloads", "rollup_model", "rollup_user")
ROUTES = list(QUERIES)


def veiled(warehouse: Warehouse, condition: str) -> None:
    """What is read of the tables from now on is read with `condition`."""
    for table in TABLES:
        warehouse.command(f"RENAME TABLE {table} TO kept_{table}")
        warehouse.command(
            f"CREATE VIEW {table} AS SELECT * FROM kept_{table} WHERE {condition}"
            " SETTINGS asterisk_include_alias_columns = 1"
        )


@pytest.fixture(scope="module")
def endless(engine_url: str) -> Iterator[Warehouse]:
    with filled_warehouse(engine_url, random_rows(seed=5, count=50)) as warehouse:
        veiled(warehouse, LONG)
        yield warehouse


@pytest.fixture(scope="module")
def large(engine_url: str) -> Iterator[Warehouse]:
    with filled_warehouse(engine_url, random_rows(seed=5, count=50)) as warehouse:
        veiled(warehouse, LARGE)
        yield warehouse


@pytest.fixture(scope="module")
def healthy(engine_url: str) -> Iterator[Warehouse]:
    with filled_warehouse(engine_url, random_rows(seed=5, count=50)) as warehouse:
        yield warehouse


def statuses(client: TestClient) -> list[int]:
    return [ask(client, *route, QUERIES[route][0])[0] for route in ROUTES]


def told(body: dict[str, Any]) -> str:
    """The sentence; each of the two APIs has a shape of its own."""
    assert body.get("success", False) is False
    return str(body["message"])


def too_expensive(method: str) -> int:
    """The status of such a query; Connect has one for its code `resource_exhausted`."""
    return 429 if method in FORMS else 503


@pytest.mark.parametrize(("method", "path"), ROUTES, ids=lambda part: str(part))
def test_a_route_whose_query_takes_too_long_says_so_and_others_go_on(
    endless: Warehouse, healthy: Warehouse, method: str, path: str
) -> None:
    answers: list[Any] = []
    with client_of(endless, max_execution_time_seconds=1) as stuck, client_of(healthy) as well:
        thread = threading.Thread(target=lambda: answers.append(ask(stuck, method, path, QUERIES[method, path][0])))
        thread.start()
        others = statuses(well)
        thread.join(60)
    assert others == [200] * len(ROUTES)
    [(status, body)] = answers
    assert status == 504, body
    # ClickHouse's own limit; that of the whole request says something else.
    assert "time limit" in told(body)
    assert "SELECT" not in told(body)


@pytest.mark.parametrize(("method", "path"), ROUTES, ids=lambda part: str(part))
def test_a_route_whose_query_takes_too_much_memory_says_so(large: Warehouse, method: str, path: str) -> None:
    with client_of(large, max_memory_bytes=50_000_000) as client:
        status, body = ask(client, method, path, QUERIES[method, path][0])
    assert status == too_expensive(method), body
    assert "more than it may use" in told(body)
    assert "SELECT" not in told(body)


@pytest.mark.parametrize("limit", ["max_rows_to_read", "max_bytes_to_read"])
def test_a_limit_of_rows_that_an_operator_sets_is_answered_alike(healthy: Warehouse, limit: str) -> None:
    """Such as in a profile of ClickHouse's; the API sets none by itself."""
    with client_of(healthy) as client:
        app: Any = client.app
        app.state.limits = {**app.state.limits, limit: 1}
        for route in ROUTES:
            if route != ("get", LIVE):  # of the last hour, where no rows are
                status, body = ask(client, *route, QUERIES[route][0])
                assert status == too_expensive(route[0]), (route, body)
                assert "more than it may use" in told(body)


def test_without_the_limits_it_would_be_answered(large: Warehouse) -> None:
    """So the limit of the settings is what stopped it, and goes with the queries of every route."""
    with client_of(large, max_memory_bytes=4_000_000_000) as client:
        assert ask(client, "get", LIVE, {})[0] == 200


def test_a_query_of_a_reader_cannot_lift_its_limits(endless: Warehouse) -> None:
    reader = reader_for(endless, reader_of(), max_execution_time=1)
    with pytest.raises(Exception, match=r"TIMEOUT_EXCEEDED|Timeout exceeded"):
        reader.query("SELECT count() AS n FROM request_logs", {}, {"max_execution_time": 1000})


def test_a_server_that_was_asked_too_much_answers_again(endless: Warehouse, healthy: Warehouse) -> None:
    """Four runaway queries at a time, again and again; what comes after them is answered as before."""
    with client_of(endless, max_execution_time_seconds=1) as stuck, client_of(healthy) as well:
        threads = [threading.Thread(target=ask, args=(stuck, "get", LIVE, {})) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert statuses(well) == [200] * len(ROUTES)
