"""Bad input is refused with 400 that names the parameter, and never widens, breaks or reaches a query."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient

from aggregator.clickhouse.client import Warehouse
from tests.support.api import client_of, filled_warehouse, list_logs
from tests.support.rows import random_rows

ROWS = random_rows(seed=31, count=60)
LOGS, STATS = "/v1/request-logs", "/v1/request-logs/stats"


@pytest.fixture(scope="module")
def warehouse(engine_url: str) -> Iterator[Warehouse]:
    with filled_warehouse(engine_url, ROWS) as warehouse:
        yield warehouse


@pytest.fixture(scope="module")
def client(warehouse: Warehouse) -> Iterator[TestClient]:
    with client_of(warehouse) as client:
        yield client


def refusal(client: TestClient, path: str, parameters: Any) -> dict[str, Any]:
    """The body of a 400: field to its detail."""
    response = client.get(path, params=parameters)
    assert response.status_code == 400, response.text
    body = response.json()
    assert set(body) == {"code", "message", "details"}
    assert body["code"] == "invalid_argument"
    assert body["message"]
    return {detail["field"]: detail for detail in body["details"]}


@pytest.mark.parametrize(
    ("path", "field", "value", "allowed"),
    [
        (LOGS, "order_by", "cost", ["timestamp", "duration_ms", "input_tokens", "output_tokens"]),
        (LOGS, "order_by", "timestamp desc", ["timestamp", "duration_ms", "input_tokens", "output_tokens"]),
        (LOGS, "order_direction", "down", ["asc", "desc"]),
        (LOGS, "order_direction", "DESC", ["asc", "desc"]),
        (STATS, "group_by", "week", ["model", "user", "api_key", "status", "hour", "day"]),
        (STATS, "metric", "requests", ["count", "tokens", "cost", "latency", "errors"]),
    ],
)
def test_a_wrong_word_is_refused_with_the_words_that_are_allowed(
    client: TestClient, path: str, field: str, value: str, allowed: list[str]
) -> None:
    assert refusal(client, path, {field: value})[field]["allowed"] == allowed


@pytest.mark.parametrize(
    ("path", "field", "value", "bound"),
    [
        (LOGS, "page_size", "-1", "1"),
        (LOGS, "page_size", "1001", "1000"),
        (LOGS, "page_size", "x", "integer"),
        (LOGS, "page_size", " ", "integer"),
        (LOGS, "page_size", "1.5", "integer"),
        (LOGS, "page_size", "9" * 5000, "integer"),
        (LOGS, "status_code", "-1", "0"),
        (LOGS, "status_code", "1000", "999"),
        (LOGS, "status_code", "ok", "integer"),
        (LOGS, "min_duration_ms", "-1", "0"),
        (LOGS, "max_duration_ms", "4294967296", "4294967295"),
        (LOGS, "min_duration_ms", "1e3", "integer"),
        (STATS, "limit", "-1", "1"),
        (STATS, "limit", "10001", "10000"),
    ],
)
def test_a_number_that_is_none_or_out_of_range_is_refused_with_the_bound(
    client: TestClient, path: str, field: str, value: str, bound: str
) -> None:
    assert bound in refusal(client, path, {field: value})[field]["message"]


@pytest.mark.parametrize("field", ["start_time", "end_time"])
@pytest.mark.parametrize("path", [LOGS, STATS])
@pytest.mark.parametrize(
    "value",
    [
        pytest.param("2026-01-31T12:00:00", id="naive"),
        pytest.param("2026-01-31", id="date"),
        pytest.param("1769860800", id="epoch"),
        pytest.param("2026-01-31T12:00Z", id="no seconds"),
        pytest.param("2026-13-31T12:00:00Z", id="month 13"),
        pytest.param("2026-01-31T24:00:01Z", id="hour 24"),
        pytest.param("2026-01-31T12:00:00+25:00", id="offset"),
        pytest.param("2026-01-31T12:00:00 05:30", id="plus read as space"),
        pytest.param("yesterday", id="word"),
        pytest.param(" ", id="blank"),
        pytest.param("٢٠٢٦-01-31T12:00:00Z", id="other digits"),
    ],
)
def test_a_time_that_is_not_rfc_3339_with_a_zone_is_refused(
    client: TestClient, path: str, field: str, value: str
) -> None:
    assert list(refusal(client, path, {field: value})) == [field]


@pytest.mark.parametrize(
    ("path", "low", "high", "values"),
    [
        (LOGS, "start_time", "end_time", ("2026-01-31T00:00:00Z", "2026-01-30T23:59:59.999999Z")),
        (STATS, "start_time", "end_time", ("2026-01-31T00:00:00Z", "2026-01-31T00:00:00+00:01")),
        (LOGS, "min_duration_ms", "max_duration_ms", ("2", "1")),
    ],
)
def test_a_range_that_ends_before_it_starts_is_refused_naming_both(
    client: TestClient, path: str, low: str, high: str, values: tuple[str, str]
) -> None:
    assert set(refusal(client, path, dict(zip((low, high), values, strict=True)))) == {low, high}


@pytest.mark.parametrize(
    "value", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.9999999999Z", "1969-12-31T23:59:59-12:00"]
)
def test_moments_far_away_are_bounds_like_any_other(client: TestClient, value: str) -> None:
    is_past = value < "1970"
    assert list_logs(client, start_time=value)["total_count"] == (len(ROWS) if is_past else 0)
    assert list_logs(client, end_time=value)["total_count"] == (0 if is_past else len(ROWS))


@pytest.mark.parametrize("value", ["Mars/Base", "utc+1", "../etc/passwd", "UTC'; --", " ", "europe/berlin"])
def test_an_unknown_time_zone_is_refused(client: TestClient, value: str) -> None:
    assert "IANA" in refusal(client, STATS, {"timezone": value, "group_by": "day"})["timezone"]["message"]


GET_PATHS = (LOGS, STATS, "/v1/request-logs/req-1", "/v1/events/schema", "/healthz", "/readyz", "/version")


@pytest.mark.parametrize("path", GET_PATHS)
def test_an_unknown_parameter_is_refused_with_those_that_are_known(client: TestClient, path: str) -> None:
    detail = refusal(client, path, {"usr_id": "alice"})["usr_id"]
    assert ("user_id" in detail["allowed"]) is (path in (LOGS, STATS))


@pytest.mark.parametrize("path", GET_PATHS)
def test_a_parameter_given_twice_is_refused(client: TestClient, path: str) -> None:
    assert "2 times" in refusal(client, path, [("user_id", "alice"), ("user_id", "bob")])["user_id"]["message"]


def test_a_wrong_value_is_named_as_the_client_names_it(client: TestClient) -> None:
    assert set(refusal(client, LOGS, {"pageSize": "x", "order_by": "x"})) == {"pageSize", "order_by"}
    ends_first = {"startTime": "2026-01-31T00:00:00Z", "end_time": "2026-01-30T00:00:00Z"}
    assert set(refusal(client, STATS, ends_first)) == {"startTime", "end_time"}


def test_one_parameter_by_both_its_names_is_refused(client: TestClient) -> None:
    assert set(refusal(client, LOGS, {"pageSize": "5", "page_size": "5"})) == {"pageSize", "page_size"}
    answer = client.get(
        "/api/public/v2/requests/suggestions", params={"field": "prompt", "prompt_id": 1, "promptId": 1}
    )
    assert answer.status_code == 422
    assert "prompt_id and promptId" in answer.json()["message"]


def test_every_wrong_parameter_is_named_at_once(client: TestClient) -> None:
    wrong = {"page_size": "-1", "order_by": "x", "start_time": "x", "nonsense": "1"}
    assert set(refusal(client, LOGS, wrong)) == set(wrong)


def test_page_tokens_that_are_not_of_this_query_are_refused(client: TestClient) -> None:
    token = list_logs(client, page_size=5, status="success")["next_page_token"]
    for change in (
        {},
        {"status": "error"},
        {"status": "success", "user_id": "alice"},
        {"status": "success", "order_direction": "asc"},
        {"status": "success", "order_by": "duration_ms"},
        {"status": "success", "start_time": "2000-01-01T00:00:00Z"},
    ):
        assert list(refusal(client, LOGS, {"page_token": token, **change})) == ["page_token"]
    for damaged in (token[:-1], token + "A", token.swapcase(), "x", "AAAA", "é", "\x00"):
        assert list(refusal(client, LOGS, {"page_token": damaged, "status": "success"})) == ["page_token"]


INJECTIONS = [
    "' OR '1' = '1",
    "'; DROP TABLE request_logs; --",
    "x') UNION ALL SELECT * FROM request_payloads --",
    "{user_id:String}",
    "\\' OR 1 = 1 --",
    "%' OR 1=1 #",
    "`user_id`",
    "1); SYSTEM SHUTDOWN; --",
    "\x00",
    "\\N",
]
TEXT_PARAMETERS = [
    *((LOGS, name) for name in ("user_id", "api_key_id", "model_name", "status")),
    *((STATS, name) for name in ("user_id", "model_name")),
]
GUARDED_PARAMETERS = [
    *((LOGS, name) for name in ("status_code", "min_duration_ms", "max_duration_ms", "start_time", "end_time")),
    *((LOGS, name) for name in ("page_size", "page_token", "order_by", "order_direction")),
    *((STATS, name) for name in ("start_time", "end_time", "group_by", "metric", "limit", "timezone")),
]


@pytest.mark.parametrize("text", INJECTIONS)
def test_sql_in_any_parameter_finds_nothing_and_harms_nothing(
    client: TestClient, warehouse: Warehouse, text: str
) -> None:
    for path, name in TEXT_PARAMETERS:
        response = client.get(path, params={name: text})
        assert (response.status_code, response.json()["total_count"]) == (200, 0)
    for path, name in GUARDED_PARAMETERS:
        assert name in refusal(client, path, {name: text})
    assert client.get(f"/v1/request-logs/{quote(text, safe='')}").status_code == 404
    for table in ("request_logs", "request_payloads"):
        assert warehouse.query(f"SELECT count() AS rows FROM {table}") == [{"rows": len(ROWS)}]
