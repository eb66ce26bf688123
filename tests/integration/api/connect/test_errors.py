"""Errors of the proto services: the protocol's own codes and forms, the field by its name, and never a 500."""

import gzip
import json
import struct
import time
from collections.abc import Iterator
from typing import Any

import pytest
from google.rpc.error_details_pb2 import BadRequest, RetryInfo
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from aggregator.clickhouse.client import Warehouse
from api.connect import protocol as connect_protocol
from api.connect.codecs import A_TIME
from api.middleware import MAX_BODY_BYTES
from api.security.permissions import Scope
from tests.integration.api.security.test_access import reader_of
from tests.support.api import client_as, client_of, filled_warehouse
from tests.support.connect import (
    FORMS,
    PACKAGE,
    ask_binary,
    ask_grpc_web,
    ask_json,
    details_of,
    message_of,
    path_of,
)
from tests.support.rows import random_rows

QUERY, STATS = path_of("QueryRequestLogs"), path_of("GetRequestLogStats")
WITH_DETAILS = [form for form in FORMS if form != "grpc-web"]
TABLES = ("request_logs", "request_payloads", "rollup_model", "rollup_user")


@pytest.fixture(scope="module")
def warehouse(engine_url: str) -> Iterator[Warehouse]:
    with filled_warehouse(engine_url, random_rows(seed=5, count=30)) as warehouse:
        yield warehouse


@pytest.fixture(scope="module")
def client(warehouse: Warehouse) -> Iterator[TestClient]:
    with client_of(warehouse) as client:
        yield client


def post(client: TestClient, content: bytes, **headers: str) -> tuple[int, Any]:
    """(status, error) of a query with this body."""
    given = {"Content-Type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    response = client.post(QUERY, content=content, headers=given)
    return response.status_code, response.json()


def fields_of(error: dict[str, Any]) -> dict[str, str]:
    """The fields that an error names, each with the reason."""
    bad = BadRequest()
    details_of(error, bad)
    return {violation.field: violation.description for violation in bad.field_violations}


VALUES = [
    ("QueryRequestLogs", "page_size", 1001, "1000"),
    ("QueryRequestLogs", "page_size", -1, "1"),
    ("QueryRequestLogs", "status_code", 1000, "999"),
    ("QueryRequestLogs", "min_duration_ms", -1, "0"),
    ("QueryRequestLogs", "max_duration_ms", 2**32, "4294967295"),
    ("QueryRequestLogs", "order_by", "cost", "input_tokens"),
    ("QueryRequestLogs", "order_direction", "DESC", "asc"),
    ("QueryRequestLogs", "page_token", "abc", "damaged"),
    ("GetRequestLogStats", "group_by", "week", "api_key"),
    ("GetRequestLogStats", "metric", "requests", "latency"),
]


@pytest.mark.parametrize(("method", "field", "value", "told"), VALUES)
def test_a_bad_value_is_refused_with_its_field(
    client: TestClient, method: str, field: str, value: Any, told: str
) -> None:
    for form, ask in FORMS.items():
        answer = ask(client, method, {field: value})
        assert (answer.status, answer.body["code"]) == (400, "invalid_argument"), form
        assert field in answer.body["message"]
        assert told in answer.body["message"]
        if form in WITH_DETAILS:
            assert told in fields_of(answer.body)[field]


@pytest.mark.parametrize("form", WITH_DETAILS)
def test_two_that_do_not_fit_together_are_both_named(client: TestClient, form: str) -> None:
    query = {"start_time": "2026-02-01T00:00:00Z", "end_time": "2026-01-01T00:00:00Z"}
    assert set(fields_of(FORMS[form](client, "QueryRequestLogs", query).body)) == {"start_time", "end_time"}


JSON_BODIES = [
    ('{"pageSize":"x"}', "pageSize", "whole number of 32 bits"),
    ('{"pageSize":1.5}', "pageSize", "whole number"),
    ('{"page_size":99999999999}', "page_size", "32 bits"),
    ('{"minDurationMs":9223372036854775808}', "minDurationMs", "64 bits"),
    ('{"userId":5}', "userId", "text"),
    ('{"userId":["ada"]}', "userId", "text"),
    ('{"userId":{"a":1}}', "userId", "text"),
    ('{"userId":' + "[" * 900 + "]" * 900 + "}", "userId", "text"),
    ('{"startTime":"2026-01-31"}', "startTime", A_TIME),
    ('{"startTime":1767225600}', "startTime", A_TIME),
    ('{"startTime":{"seconds":1}}', "startTime", A_TIME),
    ('{"userid":"ada"}', "userid", "not a field"),
    ('{"timezone":"UTC"}', "timezone", "not a field"),
    ('{"userId":"ada","userId":"bob"}', "userId", "2 times"),
    ('{"userId":"ada","user_id":"bob"}', "userId", "2 times"),
]


@pytest.mark.parametrize(("body", "field", "told"), JSON_BODIES)
def test_json_that_does_not_fit_the_message_is_refused_with_its_field(
    client: TestClient, body: str, field: str, told: str
) -> None:
    status, error = post(client, body.encode())
    assert (status, error["code"]) == (400, "invalid_argument")
    assert told in fields_of(error)[field]


NO_JSON = [
    *(b"", b"{", b"null", b"[]", b'"x"', b"\xff", b"{}{}", b"\x00"),
    *(b"[" * 100_000, b'{"a":' * 100_000, b"9" * 10_000),
]


@pytest.mark.parametrize("body", NO_JSON, ids=lambda body: repr(body[:8]))
def test_what_is_no_json_object_is_refused(client: TestClient, body: bytes) -> None:
    status, error = post(client, body)
    assert (status, error["code"]) == (400, "invalid_argument")
    assert "JSON" in error["message"]


NO_MESSAGES = {
    "cut": b"\x0a\x7fabc",
    "no varint": b"\xff" * 20,
    "no UTF-8": b"\x0a\x02\xff\xff",
    "nested groups": b"\xa3\x06" * 400_000,
    "a field of another version": b"\xa0\x06\x01",
    "a field of another version within a time": b"\x32\x03\xa0\x06\x01",
    "a user as a number": b"\x08\x01",
    "a time of the year 33658": b"\x32\x06\x08\x80\xa0\x94\xa5\x8d\x1d",
}


@pytest.mark.parametrize("body", NO_MESSAGES.values(), ids=list(NO_MESSAGES))
def test_bytes_that_are_no_such_message_are_refused(client: TestClient, body: bytes) -> None:
    """Unknown fields too: a filter that is not understood would widen the query."""
    status, error = post(client, body, Content_Type="application/proto")
    assert (status, error["code"]) == (400, "invalid_argument")
    frame = struct.pack(">BI", 0, len(body)) + body
    response = client.post(QUERY, content=frame, headers={"Content-Type": "application/grpc-web+proto"})
    assert response.status_code == 200
    assert b"grpc-status: 3\r\n" in response.content


def test_a_log_that_is_not_there_is_not_found(client: TestClient) -> None:
    for ask in FORMS.values():
        answer = ask(client, "GetRequestLog", {"request_id": "nobody's"})
        assert (answer.status, answer.body["code"]) == (404, "not_found")


def test_a_key_that_is_wrong_or_may_not_read_is_told_so(client: TestClient, warehouse: Warehouse) -> None:
    with client_as(warehouse, reader_of(None, Scope.INGEST)) as other:
        for ask in FORMS.values():
            for wrong in ("Bearer ak-wrong", "Basic YWs6eA==", ""):
                answer = ask(client, "QueryRequestLogs", {}, {"Authorization": wrong})
                assert (answer.status, answer.body["code"]) == (401, "unauthenticated")
                assert answer.headers["www-authenticate"].startswith("Bearer")
            answer = ask(other, "QueryRequestLogs", {})
            assert (answer.status, answer.body["code"]) == (403, "permission_denied")


def test_a_key_that_asks_too_often_is_told_when_to_come_back(warehouse: Warehouse) -> None:
    with client_of(warehouse, request_limit="4/hour") as client:
        asked = [ask(client, "GetRequestLog", {"request_id": "x"}).status for ask in FORMS.values()]
        assert asked == [404] * 4
        for form, ask in FORMS.items():
            answer = ask(client, "QueryRequestLogs", {})
            assert (answer.status, answer.body["code"]) == (429, "resource_exhausted"), form
            wait_seconds = int(answer.headers["retry-after"])
            assert 1 <= wait_seconds <= 3600
            if form in WITH_DETAILS:
                info = RetryInfo()
                details_of(answer.body, info)
                assert info.retry_delay.seconds == wait_seconds
        # One limit for all doors.
        assert client.get("/v1/request-logs").status_code == 429


def test_a_warehouse_that_is_away_or_has_no_tables_is_unavailable(engine_url: str) -> None:
    warehouse = Warehouse(engine_url, database="not_created")
    with client_of(warehouse) as client:
        for ask in FORMS.values():
            answer = ask(client, "GetRequestLogStats", {})
            assert (answer.status, answer.body["code"]) == (503, "unavailable")
    warehouse.close()


def test_a_fault_is_internal_and_says_nothing_of_the_inside(warehouse: Warehouse) -> None:
    with client_of(warehouse) as client:
        client.app.state.warehouse = None  # type: ignore[attr-defined]
        for ask in FORMS.values():
            answer = ask(client, "QueryRequestLogs", {})
            assert (answer.status, answer.body["code"]) == (500, "internal")
            assert "NoneType" not in answer.body["message"]


@pytest.fixture(scope="module")
def endless(engine_url: str) -> Iterator[Warehouse]:
    long = "(SELECT count() FROM numbers(3000000000) WHERE sipHash64(number) = 1) >= 0"
    with filled_warehouse(engine_url, random_rows(seed=5, count=30)) as warehouse:
        for table in TABLES:
            warehouse.command(f"RENAME TABLE {table} TO kept_{table}")
            warehouse.command(f"CREATE VIEW {table} AS SELECT * FROM kept_{table} WHERE {long}")
        yield warehouse


@pytest.mark.parametrize(
    ("form", "header"),
    [
        ("connect-json", {"Connect-Timeout-Ms": "700"}),
        ("connect-binary", {"Connect-Timeout-Ms": "700"}),
        ("connect-get", {"Connect-Timeout-Ms": "0000000700"}),
        ("grpc-web", {"Grpc-Timeout": "700m"}),
    ],
)
def test_a_client_that_waits_so_long_gets_its_answer_by_then(
    endless: Warehouse, form: str, header: dict[str, str]
) -> None:
    with client_of(endless) as client:
        started = time.monotonic()
        answer = FORMS[form](client, "GetRequestLogStats", {}, header)
        assert (answer.status, answer.body["code"]) == (504, "deadline_exceeded")
        assert time.monotonic() - started < 10


def test_clickhouse_stops_a_query_whose_client_has_given_up(endless: Warehouse) -> None:
    running = "SELECT count() AS n FROM system.processes WHERE query LIKE '%kept_%' AND query NOT LIKE '%processes%'"
    with client_of(endless) as client:
        ask_json(client, "GetRequestLogStats", {}, {"Connect-Timeout-Ms": "300"})
    until = time.monotonic() + 10
    while endless.query(running, {})[0]["n"] and time.monotonic() < until:
        time.sleep(0.1)
    assert endless.query(running, {}) == [{"n": 0}]


@pytest.mark.parametrize("value", ["x", "-1", "1.5", "99999999999", "٣"])
def test_a_time_limit_that_is_none_is_refused(client: TestClient, value: str) -> None:
    header = {"Connect-Timeout-Ms": value.encode()}
    response = client.post(QUERY, json={}, headers=header)  # type: ignore[arg-type]
    assert (response.status_code, response.json()["code"]) == (400, "invalid_argument")


def test_a_request_that_takes_longer_than_the_service_allows_ends_as_deadline_exceeded(endless: Warehouse) -> None:
    with client_of(endless, request_timeout_seconds=0.5) as client:
        for ask in (ask_json, ask_binary, ask_grpc_web):
            answer = ask(client, "GetRequestLogStats", {})
            assert (answer.status, answer.body["code"]) == (504, "deadline_exceeded")


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "SEARCH"])
def test_other_methods_are_not_allowed(client: TestClient, method: str) -> None:
    response = client.request(method, QUERY)
    assert (response.status_code, response.headers["allow"], response.content) == (405, "GET, POST", b"")


def test_head_is_get_without_a_body(client: TestClient) -> None:
    query = {"encoding": "json", "message": "{}"}
    assert (client.head(QUERY, params=query).status_code, client.head(QUERY, params=query).content) == (200, b"")
    assert client.head(QUERY, params={"encoding": "json"}).status_code == 400


@pytest.mark.parametrize(
    "content_type",
    [
        *("", "text/plain", "application/xml", "application/", "application/x-ndjson", "application/connect+json"),
        *("application/grpc", "application/grpc+proto", "application/grpc+json", "application/grpc-web-text"),
    ],
)
def test_other_media_types_are_refused(client: TestClient, content_type: str) -> None:
    response = client.post(QUERY, content=b"{}", headers={"Content-Type": content_type})
    assert (response.status_code, response.content) == (415, b"")
    assert "application/json" in response.headers["accept-post"]


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "APPLICATION/JSON"])
def test_a_media_type_may_have_parameters(client: TestClient, content_type: str) -> None:
    assert client.post(QUERY, content=b"{}", headers={"Content-Type": content_type}).status_code == 200


@pytest.mark.parametrize("path", ["RequestLogsService/Nope", "RequestLogsService/", "Nope/QueryRequestLogs"])
def test_a_method_that_there_is_not_is_not_found(client: TestClient, path: str) -> None:
    """As the protocol has it, without a body; clients call it `unimplemented`."""
    for method in ("GET", "POST"):
        response = client.request(method, f"/{PACKAGE}.{path}", headers={"Content-Type": "application/json"})
        assert (response.status_code, response.content) == (404, b"")


@pytest.mark.parametrize("form", ["connect-json", "connect-get"])
def test_a_filter_in_the_query_string_is_refused(client: TestClient, form: str) -> None:
    """It would select nothing, and the answer would be that of a wider question."""
    query = {"encoding": "json", "message": "{}", "user_id": "ada"}
    response = (
        client.get(QUERY, params=query)
        if form == "connect-get"
        else client.post(QUERY, json={}, params={"user_id": "ada"})
    )
    assert (response.status_code, response.json()["code"]) == (400, "invalid_argument")
    assert "not a parameter" in fields_of(response.json())["user_id"]


def test_a_body_may_be_compressed_and_has_the_bound_of_all_bodies(client: TestClient) -> None:
    body = json.dumps({"page_size": 3}).encode()
    response = client.post(
        QUERY, content=gzip.compress(body), headers={"Content-Type": "application/json", "Content-Encoding": "gzip"}
    )
    assert len(response.json()["logs"]) == 3
    assert post(client, b"no gzip", Content_Encoding="gzip")[1]["code"] == "invalid_argument"
    assert post(client, body, Content_Encoding="br")[1]["code"] == "unimplemented"
    large = b" " * (MAX_BODY_BYTES + 1)
    for content, headers in ((large, {}), (gzip.compress(large), {"Content_Encoding": "gzip"})):
        status, error = post(client, content, **headers)
        assert (status, error["code"]) == (429, "resource_exhausted")
        assert str(MAX_BODY_BYTES) in error["message"]


def test_frames_of_grpc_web_may_be_compressed(client: TestClient) -> None:
    body = gzip.compress(message_of("QueryRequestLogsRequest", {"page_size": 3}).SerializeToString())
    headers = {"Content-Type": "application/grpc-web+proto", "Grpc-Encoding": "gzip"}
    response = client.post(QUERY, content=struct.pack(">BI", 1, len(body)) + body, headers=headers)
    assert response.content.endswith(b"grpc-status: 0\r\n")


def test_an_answer_is_compressed_for_who_takes_it(client: TestClient) -> None:
    plain = client.post(QUERY, json={}, headers={"Accept-Encoding": "identity"})
    packed = client.post(QUERY, json={}, headers={"Accept-Encoding": "gzip"})
    assert plain.headers["content-encoding"] == "identity"
    assert packed.headers["content-encoding"] == "gzip"
    assert plain.json() == packed.json()
    assert int(packed.headers["content-length"]) < int(plain.headers["content-length"])


def test_headers_that_are_no_text_do_no_harm(client: TestClient) -> None:
    headers = {"X-Other": b"\xff\xfe", "User-Agent": b"\x80"}
    assert client.post(QUERY, json={}, headers=headers).status_code == 200  # type: ignore[arg-type]


def test_a_message_that_is_an_error_is_short(client: TestClient) -> None:
    """It may stand in a header, where long ones break the answer."""
    answer = client.post(QUERY, json={"x" * 500_000: 1})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_argument")
    assert len(answer.content) < 10_000


@settings(max_examples=300, deadline=None)
@given(body=st.binary(max_size=60), media=st.sampled_from(["proto", "json", "grpc-web+proto", "grpc-web+json"]))
def test_no_body_makes_a_fault(client: TestClient, body: bytes, media: str) -> None:
    content = struct.pack(">BI", 0, len(body)) + body if media.startswith("grpc") else body
    response = client.post(QUERY, content=content, headers={"Content-Type": f"application/{media}"})
    assert response.status_code in (200, 400)
    assert b"grpc-status: 2" not in response.content
    assert b"grpc-status: 13" not in response.content


@pytest.mark.parametrize("header", [*connect_protocol.HEADERS, "Content-Type", "Authorization"])
def test_a_page_of_an_allowed_origin_may_ask_with_every_header_of_the_protocols(
    warehouse: Warehouse, header: str
) -> None:
    """Those that the clients in browsers send."""
    with client_of(warehouse, cors_origins="https://console.example") as client:
        preflight = {"Origin": "https://console.example", "Access-Control-Request-Method": "POST"}
        answer = client.options(QUERY, headers={**preflight, "Access-Control-Request-Headers": header})
        assert answer.status_code == 200, answer.text
        shown = client.post(QUERY, json={}, headers={"Origin": "https://console.example"})
        assert set(connect_protocol.ANSWER_HEADERS) <= set(shown.headers["Access-Control-Expose-Headers"].split(", "))
