"""The endpoint of MCP: who gets in, in which versions of the protocol, and what is refused in which form."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from aggregator.clickhouse.client import Warehouse
from api.analytics.filters.fields import FIELDS, Field
from api.mcp.catalogue import BY_NAME, TOOLS
from api.security.permissions import Scope
from tests.integration.api.security.test_access import ALL_OF_IT, _asks, reader_of
from tests.support.api import KEY, client_as, client_of, filled_warehouse
from tests.support.mcp import HEADERS, PATH, answer, call, post
from tests.support.rows import random_rows

CONTENT = [field for field in FIELDS if field.is_content]
LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}


@pytest.fixture(scope="module")
def full(engine_url: str) -> Iterator[Warehouse]:
    with filled_warehouse(engine_url, random_rows(seed=7, count=100)) as warehouse:
        yield warehouse


@pytest.fixture(scope="module")
def client(full: Warehouse) -> Iterator[TestClient]:
    with client_of(full) as client:
        yield client


def error_of(response: Any) -> dict[str, Any]:
    """An error of JSON-RPC."""
    body = response.json()
    assert (body["jsonrpc"], set(body)) == ("2.0", {"jsonrpc", "id", "error"})
    found: dict[str, Any] = body["error"]
    return found


@pytest.mark.parametrize("version", [None, "2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"])
def test_it_speaks_every_version_with_a_handshake(client: TestClient, version: str | None) -> None:
    headers = {} if version is None else {"MCP-Protocol-Version": version}
    asked = {
        "protocolVersion": version or "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    }
    response = post(client, "initialize", asked)
    assert response.headers["content-type"] == "application/json"
    # Without a session: any process may answer the next request.
    assert "mcp-session-id" not in response.headers
    told = response.json()["result"]
    assert told["protocolVersion"] == asked["protocolVersion"]
    assert told["serverInfo"]["name"] == "router-insights"
    assert "exact decimal text" in told["instructions"]
    listed = post(client, "tools/list", {}, **headers).json()["result"]["tools"]
    assert [tool["name"] for tool in listed] == list(BY_NAME)
    initialized = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    assert client.post(PATH, json=initialized, headers={**HEADERS, **headers}).status_code == 202


def test_there_is_no_stream_to_open_and_no_session_to_end(client: TestClient) -> None:
    for method in ("GET", "DELETE", "PUT"):
        response = client.request(method, PATH, headers=HEADERS)
        assert (response.status_code, response.headers["allow"]) == (405, "POST")
        assert "Method Not Allowed" in error_of(response)["message"]


def test_without_a_key_or_with_a_wrong_one_nobody_gets_in(client: TestClient) -> None:
    for headers in ({"Authorization": ""}, {"Authorization": "Bearer wrong"}, {"X-API-KEY": "ak-other"}):
        response = client.post(PATH, json=LIST, headers={**HEADERS, **headers})
        assert response.status_code == 401
        assert response.headers["www-authenticate"].startswith("Bearer")
        assert error_of(response)["data"]["code"] == "unauthenticated"


def test_the_key_may_come_in_a_header_of_its_own(full: Warehouse) -> None:
    with client_of(full) as client:
        del client.headers["Authorization"]
        assert client.post(PATH, json=LIST, headers={**HEADERS, "X-API-KEY": KEY}).status_code == 200


def test_a_key_that_may_only_send_events_gets_no_tools(full: Warehouse) -> None:
    with client_as(full, reader_of(None, Scope.INGEST)) as client:
        for message in (LIST, {**LIST, "method": "initialize"}, {**LIST, "method": "tools/call"}):
            response = client.post(PATH, json=message, headers=HEADERS)
            assert (response.status_code, error_of(response)["data"]["code"]) == (403, "forbidden")


@pytest.mark.parametrize(
    ("origin", "host", "status"),
    [
        (None, "testserver", 200),
        (None, "insights.internal:8443", 200),
        ("https://console.example", "testserver", 200),
        ("https://evil.example", "testserver", 403),
        # A name that was made to resolve to this machine: for the browser this is the page's own server.
        ("http://evil.example:8080", "evil.example:8080", 403),
        ("http://localhost:8080", "localhost:8080", 403),
        ("null", "testserver", 403),
        ("", "testserver", 403),
    ],
)
def test_a_web_page_gets_in_only_from_an_origin_that_is_named(
    full: Warehouse, origin: str | None, host: str, status: int
) -> None:
    with client_of(full, cors_origins="https://console.example/") as client:
        headers = {**HEADERS, "Host": host} | ({} if origin is None else {"Origin": origin})
        response = client.post(PATH, json=LIST, headers=headers)
        assert response.status_code == status
        if status == 403:
            assert "INSIGHTS_CORS_ORIGINS" in error_of(response)["message"]


def test_a_page_of_a_named_origin_may_send_the_headers_of_the_protocol(full: Warehouse) -> None:
    with client_of(full, cors_origins="https://console.example") as client:
        asked = {
            "Origin": "https://console.example",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type,mcp-protocol-version,mcp-method,mcp-name",
        }
        assert client.options(PATH, headers=asked).status_code == 200


def test_requests_are_counted_and_bounded_as_those_of_rest(full: Warehouse) -> None:
    with client_of(full, request_limit="3/hour") as client:
        statuses = [client.post(PATH, json=LIST, headers=HEADERS).status_code for _ in range(2)]
        statuses.append(client.get("/v1/request-logs").status_code)
        assert statuses == [200, 200, 200]
        refused = client.post(PATH, json=LIST, headers=HEADERS)
        assert refused.status_code == 429
        data = error_of(refused)["data"]
        assert data["code"] == "rate_limited"
        assert data["retry_after_seconds"] == int(refused.headers["Retry-After"]) > 0


def test_searches_and_words_have_the_limits_of_rest(full: Warehouse) -> None:
    with client_of(full, search_limit="2/hour", suggestions_limit="1/hour") as client:
        assert call(client, "find_requests", ALL_OF_IT)[0] == 200
        assert call(client, "aggregate", {"metrics": ["cost"], "words": "row"})[0] == 200
        for tool, asked in (("find_requests", {"words": "row"}), ("aggregate", {"metrics": ["cost"], "words": "row"})):
            status, data = call(client, tool, asked)
            assert status == 429
            assert 0 < data["retry_after_seconds"] <= 3600
        assert client.post("/api/public/v2/requests/search", json={}).status_code == 429
        # Without words it is as cheap as any other question.
        assert call(client, "aggregate", {"metrics": ["cost"]})[0] == 200
        values = {"values_of": "engine"}
        assert [call(client, "describe_data", values)[0] for _ in range(2)] == [200, 429]


def test_a_body_that_is_too_large_is_refused(client: TestClient) -> None:
    response = client.post(PATH, json={**LIST, "params": {"x": "a" * 1_100_000}}, headers=HEADERS)
    assert response.status_code == 413
    assert "1048576" in error_of(response)["message"]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'"x"', b"\xff", b"[" * 100_000, b'{"jsonrpc":"2.0","id":1}', b"9" * 10_000]
)
def test_what_is_no_message_is_an_error_of_the_protocol(client: TestClient, body: bytes) -> None:
    for version in ({}, {"MCP-Protocol-Version": "2026-07-28"}):
        response = client.post(PATH, content=body, headers={**HEADERS, "Content-Type": "application/json", **version})
        assert response.status_code == 400
        assert error_of(response)["code"] in (-32700, -32600, -32602)


def test_an_unknown_tool_is_an_error_of_the_protocol_that_names_the_tools(client: TestClient) -> None:
    response = post(client, "tools/call", {"name": "drop_table", "arguments": {}})
    error = error_of(response)
    assert error["code"] == -32602
    assert "drop_table" in error["message"]
    assert error["data"]["allowed"] == list(BY_NAME)


def test_an_unknown_method_is_an_error_of_the_protocol(client: TestClient) -> None:
    assert error_of(post(client, "resources/list", {}))["code"] == -32601


FILTER = {"field": "engine", "operator": "is", "value": "gpt-5"}
GROUPS = ("engine", "user_id", "tags", "metadata.KEY")
BAD: list[tuple[str, dict[str, Any], str, tuple[str, ...]]] = [
    ("aggregate", {}, "metrics", ()),
    ("aggregate", {"metrics": []}, "metrics", ()),
    ("aggregate", {"metrics": ["costs"]}, "metrics[0]", ("cost", "requests", "pN:FIELD")),
    ("aggregate", {"metrics": ["cost"], "by": ["engine"]}, "by", ("group_by", "period", "limit")),
    ("aggregate", {"metrics": ["cost"], "group_by": ["model"]}, "group_by[0]", (*GROUPS, "day")),
    ("aggregate", {"metrics": ["cost"], "group_by": ["day", "hour"]}, "group_by", ()),
    ("aggregate", {"metrics": ["cost"], "group_by": ["hour"]}, "group_by", ("day", "week", "month")),
    ("aggregate", {"metrics": ["cost"], "group_by": ["tags", "tags"]}, "group_by[1]", ()),
    ("aggregate", {"metrics": ["cost"], "group_by": ["metadata."]}, "group_by[0]", ()),
    ("aggregate", {"metrics": ["cost"], "limit": 51}, "limit", ()),
    ("aggregate", {"metrics": ["cost"], "period": "last_year"}, "period", ("last_week", "START/END")),
    ("aggregate", {"metrics": ["cost"], "timezone": "Berlin"}, "timezone", ()),
    ("aggregate", {"metrics": ["cost"], "filters": [FILTER | {"operator": "gt"}]}, "filters[0].operator", ()),
    ("aggregate", {"metrics": ["cost"], "filters": [FILTER | {"colour": 1}]}, "filters[0].colour", ()),
    ("aggregate", {"metrics": ["cost"], "filters": [FILTER] * 21}, "filters", ()),
    (
        "aggregate",
        {"metrics": ["cost"], "filters": [{"field": "request_start_time", "operator": "is", "value": "2026-01-01"}]},
        "filters[0].field",
        (),
    ),
    ("aggregate", {"metrics": ["cost"], "words": "?!"}, "q", ()),
    ("compare_periods", {"metric": "avg:cost"}, "metric", ("cost", "requests")),
    ("compare_periods", {"group_by": ["day"]}, "group_by[0]", GROUPS),
    ("compare_periods", {"before": "then"}, "before", ("last_month",)),
    ("find_requests", {"sort_by": "price"}, "sort_by", ("cost", "latency_ms")),
    ("find_requests", {"page": 0}, "page", ()),
    ("explain_request", {}, "request_id", ()),
    ("explain_request", {"request_id": 7}, "request_id", ()),
    ("describe_data", {"values_of": "cost"}, "values_of", ("engine", "metadata.KEY")),
    ("budgets_and_alerts", {"alert_kind": "noise"}, "alert_kind", ("budget", "latency")),
    ("model_prices", {"model": ""}, "model", ()),
    ("model_prices", {"model": "gpt-5", "at": "yesterday"}, "at", ()),
]


@pytest.mark.parametrize(("tool", "asked", "field", "allowed"), BAD)
def test_bad_arguments_are_a_result_that_names_the_field_and_what_is_allowed(
    client: TestClient, tool: str, asked: dict[str, Any], field: str, allowed: tuple[str, ...]
) -> None:
    status, data = call(client, tool, asked)
    assert (status, data["code"]) == (400, "invalid_argument")
    assert field in data["message"]
    [detail] = data["details"] or [{"field": field}]
    assert detail["field"] == field
    assert set(allowed) <= set(detail.get("allowed", ()))


def test_every_tool_has_a_bad_question() -> None:
    assert {tool for tool, *_ in BAD} == set(BY_NAME)


@pytest.mark.parametrize("field", CONTENT, ids=lambda field: field.name)
def test_who_may_not_see_content_may_not_ask_about_it_here_either(full: Warehouse, field: Field) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []
    for operator in field.operators:
        filters = {"filters": [_asks(field, operator)]}
        asked += [
            ("aggregate", {"metrics": ["requests"], **filters}),
            ("compare_periods", filters),
            ("find_requests", filters),
        ]
    if field.can_group:
        asked += [
            ("aggregate", {"metrics": ["requests"], "group_by": [field.name]}),
            ("compare_periods", {"group_by": [field.name]}),
            ("describe_data", {"values_of": field.name}),
        ]
    with client_as(full, reader_of()) as reads, client_as(full, reader_of(None, Scope.READ_NO_BODIES)) as client:
        for tool, question in asked:
            assert call(client, tool, question)[0] == 403, question
        # The question itself is a good one.
        for tool, question in asked[:3] + asked[-3:]:
            assert call(reads, tool, question)[0] == 200, question


def test_who_may_not_see_content_gets_no_bodies_and_finds_no_words(full: Warehouse) -> None:
    with client_of(full) as everything, client_as(full, reader_of(None, Scope.READ_NO_BODIES)) as client:
        request_id = answer(everything, "find_requests", **ALL_OF_IT)["requests"][0]["request_id"]
        assert "bodies" in answer(everything, "explain_request", request_id=request_id, bodies=True)
        assert call(client, "explain_request", {"request_id": request_id, "bodies": True})[0] == 403
        assert call(client, "find_requests", {"words": "row"})[0] == 403
        assert call(client, "aggregate", {"metrics": ["cost"], "words": "row"})[0] == 403
        names = {field["name"] for field in answer(client, "describe_data")["fields"]}
        assert names == {field.name for field in FIELDS if not field.is_content}


def test_every_answer_says_how_exact_how_fresh_of_when_and_where_it_is_shown(client: TestClient) -> None:
    newest = max(random_rows(seed=7, count=100), key=lambda row: row["timestamp"])
    asked: dict[str, dict[str, Any]] = {
        "aggregate": {"metrics": ["cost"], "timezone": "Europe/Berlin"},
        "explain_request": {"request_id": newest["request_id"]},
        "model_prices": {"model": "gpt-5"},
    }
    for tool in TOOLS:
        if tool.name == "model_prices":
            continue  # this client has no list of prices
        told = answer(client, tool.name, **asked.get(tool.name, {}))
        assert told["exactness"]
        assert told["timezone"] == ("Europe/Berlin" if tool.name == "aggregate" else "UTC")
        assert told["freshness"]["newest_request"] == f"{newest['timestamp']:%Y-%m-%dT%H:%M:%S.%fZ}"
        assert told["console"].startswith("http://testserver/")
        assert len(json.dumps(told)) < 20_000


def test_a_fault_of_ours_says_nothing_of_its_inside(engine_url: str) -> None:
    warehouse = Warehouse(engine_url, database="not_created")
    with client_of(warehouse) as client:
        status, data = call(client, "aggregate", {"metrics": ["cost"]})
        assert (status, data["code"]) == (503, "unavailable")
        assert "SELECT" not in data["message"]
        client.app.state.query_threads = None  # type: ignore[attr-defined]
        status, data = call(client, "aggregate", {"metrics": ["cost"]})
        assert (status, data["code"]) == (500, "internal")
        assert "NoneType" not in data["message"]
    warehouse.close()
