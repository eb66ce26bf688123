"""Every answer that is not a success has one shape and says nothing about the inside."""

from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from aggregator.clickhouse.client import Warehouse
from api.errors import CODES
from api.middleware import MAX_BODY_BYTES
from tests.support.api import KEY, client_of, client_without_data, filled_warehouse, get
from tests.support.rows import insert_rows, random_rows

LOGS, STATS = "/v1/request-logs", "/v1/request-logs/stats"
WITHOUT_KEY = {"/healthz", "/readyz", "/version"}
CLICKHOUSE_PATHS = (LOGS, STATS, f"{LOGS}/req-1")


@pytest.fixture(scope="module")
def client(engine_url: str) -> Iterator[TestClient]:
    with filled_warehouse(engine_url, random_rows(seed=1, count=40)) as warehouse, client_of(warehouse) as client:
        yield client


def error_of(response: Any) -> tuple[int, str]:
    """Status and code; request analytics has a shape of its own, without one."""
    body = response.json()
    if response.request.url.path.startswith("/api/public/v2/"):
        assert set(body) == {"success", "message"}
        assert body["success"] is False
        return response.status_code, CODES[response.status_code]
    assert set(body) == {"code", "message", "details"}
    assert isinstance(body["message"], str)
    assert isinstance(body["details"], list)
    return response.status_code, body["code"]


def operations(client: TestClient) -> list[tuple[str, str]]:
    """(method, path) of every operation in the OpenAPI document."""
    document = get(client, "/openapi.json")
    return [(method, path) for path, methods in document["paths"].items() for method in methods]


WRONG_KEYS = {
    "no header": None,
    "another key": "Bearer ak-wrong",
    "no key": "Bearer ",
    "scheme only": "Bearer",
    "basic": "Basic YWs6eA==",
    "key without scheme": KEY,
    "part of the key": f"Bearer {KEY[:-1]}",
    "key and more": f"Bearer {KEY}x",
    "both keys as configured": f"Bearer ak-other,{KEY}",
    "another case": f"Bearer {KEY.upper()}",
    "other bytes": b"Bearer \xff\xfe",
}


@pytest.mark.parametrize("header", WRONG_KEYS.values(), ids=list(WRONG_KEYS))
def test_no_operation_but_health_is_served_without_a_key(client: TestClient, header: Any) -> None:
    headers = {} if header is None else {"Authorization": header}
    keyless = TestClient(client.app, raise_server_exceptions=False)
    for method, path in operations(client):
        # Repeated and unknown parameters too: who has no key learns nothing.
        for query in ("", "?nonsense=1&nonsense=2"):
            response = keyless.request(method, path.replace("{request_id}", "req-1") + query, headers=headers)
            if path in WITHOUT_KEY:
                assert response.status_code == (400 if query else 200)
            else:
                assert error_of(response) == (401, "unauthenticated")
                assert response.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize("header", [f"Bearer {KEY}", f"bearer {KEY}", "Bearer ak-other"])
def test_each_configured_key_is_let_in(client: TestClient, header: str) -> None:
    assert client.get(LOGS, headers={"Authorization": header}).status_code == 200


UNKNOWN_PATHS = ["/", "/v1", "/v1/request-log", "/v2/request-logs", "/healthz/", "/../etc/passwd", "/api/public/v2/no"]


@pytest.mark.parametrize("path", UNKNOWN_PATHS)
def test_an_unknown_route_is_404(client: TestClient, path: str) -> None:
    assert error_of(client.get(path)) == (404, "not_found")


def test_a_wrong_method_is_405_and_names_the_right_one(client: TestClient) -> None:
    right: dict[str, set[str]] = {}
    for method, path in operations(client):
        right.setdefault(path, set()).add(method.upper())
    for path, methods in right.items():
        for method in {"GET", "POST", "PUT", "PATCH", "DELETE"} - methods:
            response = client.request(method, path.replace("{request_id}", "req-1"))
            assert error_of(response) == (405, "method_not_allowed")
            assert set(response.headers["Allow"].split(", ")) <= methods
        if "GET" not in methods:
            assert client.head(path).status_code == 405


def test_head_is_answered_like_get_without_the_body(client: TestClient) -> None:
    for method, path in operations(client):
        url = path.replace("{request_id}", "req-1")
        if method == "get" and not path.endswith("/stream"):
            got, headed = client.get(url), client.head(url)
            assert (headed.status_code, headed.content) == (got.status_code, b""), path
            assert headed.headers.get("Content-Type") == got.headers.get("Content-Type")
    assert client.head("/v1/usage/live/stream").status_code == 405


def test_a_body_that_is_too_large_is_413(client: TestClient) -> None:
    for path in ("/api/public/v2/requests/search", "/v1/budgets/one"):
        method = "PUT" if "budgets" in path else "POST"
        response = client.request(method, path, content=b" " * (MAX_BODY_BYTES + 1))
        assert error_of(response) == (413, "payload_too_large")


def test_clickhouse_being_away_is_503() -> None:
    # Nothing listens on port 1.
    with client_of(Warehouse("http://127.0.0.1:1/insights")) as client:
        for path in (*CLICKHOUSE_PATHS, "/readyz"):
            assert error_of(client.get(path)) == (503, "unavailable")
        assert get(client, "/healthz") == {"status": "ok"}


def test_a_database_without_tables_is_503_and_says_what_to_run(empty_warehouse: Warehouse) -> None:
    empty_warehouse.create_database()
    with client_of(empty_warehouse) as client:
        for path in (*CLICKHOUSE_PATHS, "/readyz"):
            response = client.get(path)
            assert error_of(response) == (503, "unavailable")
            assert "insights migrate" in response.json()["message"]


def test_a_database_that_does_not_exist_is_503(engine_url: str) -> None:
    with client_without_data(engine_url) as client:
        for path in (*CLICKHOUSE_PATHS, "/readyz"):
            assert error_of(client.get(path)) == (503, "unavailable")


def test_a_query_over_its_time_is_504(warehouse: Warehouse) -> None:
    insert_rows(warehouse, random_rows(seed=1, count=4000))
    with client_of(warehouse, max_execution_time_seconds=0.000_001) as client:
        for path in (LOGS, STATS):
            response = client.get(path)
            assert error_of(response) == (504, "deadline_exceeded")
            assert "time range" in response.json()["message"]


def test_a_query_over_its_memory_is_503(warehouse: Warehouse) -> None:
    insert_rows(warehouse, random_rows(seed=1, count=4000))
    with client_of(warehouse, max_memory_bytes=1) as client:
        for path in (LOGS, STATS):
            assert error_of(client.get(path)) == (503, "resource_exhausted")


def test_a_fault_of_ours_is_500_without_anything_from_the_inside(warehouse: Warehouse) -> None:
    insert_rows(warehouse, random_rows(seed=1, count=1))
    warehouse.command("ALTER TABLE request_logs DROP COLUMN trace_id")
    with client_of(warehouse) as client:
        response = client.get(LOGS)
    assert error_of(response) == (500, "internal")
    for word in ("trace_id", "Code:", "Exception", "Traceback", warehouse.database):
        assert word not in response.text
