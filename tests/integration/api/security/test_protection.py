"""What stands between the API and whoever reaches its port: limits, bounds, headers, ids, and what it tells."""

import asyncio
import json
import re
import threading
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

import pytest
import structlog
from prometheus_client import REGISTRY
from pydantic import ValidationError
from starlette.testclient import TestClient

from aggregator.clickhouse.client import Warehouse
from api import middleware
from api.app import create_app
from api.settings import ApiSettings
from tests.support.api import KEY, client_of, filled_warehouse, get, settings
from tests.support.rows import insert_rows, random_rows

LOGS, META, STATS = "/v1/request-logs", "/v1/analytics/meta", "/v1/request-logs/stats"
WRONG = {"Authorization": "Bearer ak-wrong"}


@pytest.fixture(scope="module")
def full(engine_url: str) -> Iterator[Warehouse]:
    with filled_warehouse(engine_url, random_rows(seed=5, count=200)) as warehouse:
        yield warehouse


@pytest.fixture(scope="module")
def client(full: Warehouse) -> Iterator[TestClient]:
    with client_of(full) as client:
        yield client


@contextmanager
def logged() -> Iterator[list[MutableMapping[str, Any]]]:
    """What is logged, with what is bound to the request."""
    with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars]) as lines:
        yield lines


def test_an_address_that_guesses_is_shut_out_and_known_keys_behind_it_are_not(full: Warehouse) -> None:
    """Gateways and people may share an address, as behind a proxy."""
    with client_of(full, wrong_key_limit="5/hour") as client:
        assert [client.get(META, headers=WRONG).status_code for _ in range(7)] == [401] * 5 + [429] * 2
        wrong, right = client.get(META, headers=WRONG), client.get(META)
        assert (wrong.status_code, right.status_code) == (429, 200)
        assert wrong.json()["code"] == "rate_limited"
        assert 1 <= int(wrong.headers["Retry-After"]) <= 3601
        assert client.get("/healthz").status_code == 200


def test_a_key_of_the_settings_without_the_prefix_works_with_it_too(full: Warehouse) -> None:
    """The documented header is `Authorization: Bearer ak-...`, whatever the operator chose as key."""
    with client_of(full, api_keys="plain,ak-long") as client:
        for header in (
            {"Authorization": "Bearer plain"},
            {"Authorization": "Bearer ak-plain"},
            {"X-API-KEY": "ak-plain"},
        ):
            assert client.get(META, headers={"Authorization": "", **header}).status_code == 200, header
        for guess in ("long", "ak-ak-long", "ak-ak-plain", "ak-", "AK-plain", "ak-plai"):
            assert client.get(META, headers={"Authorization": f"Bearer {guess}"}).status_code == 401, guess


def test_wrong_keys_are_answered_alike(client: TestClient) -> None:
    guesses = ("ak-wrong", KEY[:-1], f"{KEY}x", KEY.upper(), "x" * 5000)
    answers = {client.get(META, headers={"Authorization": f"Bearer {guess}"}).text for guess in guesses}
    assert len(answers) == 1


def test_a_request_without_a_key_is_no_guess(full: Warehouse) -> None:
    with client_of(full, wrong_key_limit="1/minute") as client:
        key = client.headers.pop("Authorization")
        assert {client.get(META).status_code for _ in range(5)} == {401}
        assert client.get(META, headers={"Authorization": key}).status_code == 200


def test_a_key_has_its_limit_and_others_theirs(full: Warehouse) -> None:
    with client_of(full, request_limit="3/hour") as client:
        assert [client.get(META).status_code for _ in range(5)] == [200, 200, 200, 429, 429]
        assert client.get(META, headers={"Authorization": "Bearer ak-other"}).status_code == 200
        assert client.get("/v1/events/schema").status_code == 503, "events have no limit"


@pytest.mark.parametrize("name", ["request_limit", "wrong_key_limit"])
def test_a_limit_that_is_none_is_refused_at_start(name: str) -> None:
    with pytest.raises(ValidationError, match=name):
        settings(**{name: "often"})


def test_every_answer_has_the_security_headers(client: TestClient) -> None:
    document = get(client, "/openapi.json")
    for path in [*document["paths"], "/docs", "/openapi.json", "/nothing", "/docs/assets/swagger-ui.css"]:
        # An unknown parameter, since a stream that is answered never ends.
        query = "?nonsense=1" if path.endswith("/stream") else ""
        answer = client.get(path.replace("{request_id}", "x") + query)
        for name, value in middleware.SECURITY_HEADERS.items():
            if name != "Content-Security-Policy" or path != "/docs":
                assert answer.headers[name] == value, path
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert "Server" not in answer.headers


def test_the_reference_loads_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/docs")
    assert page.status_code == 200
    addresses = re.findall(r'(?:src|href|url)\s*[=:]\s*["\']([^"\']+)', page.text)
    assert {"docs/assets/swagger-ui-bundle.js", "docs/assets/swagger-ui.css", "openapi.json"} <= set(addresses)
    assert not [address for address in addresses if "//" in address]
    for address in addresses:
        assert client.get(f"/{address}").status_code == 200, address
    # A browser runs the one inline script by its hash, and none that is injected.
    assert "'sha256-" in page.headers["Content-Security-Policy"]
    assert "script-src 'self' 'sha256-" in page.headers["Content-Security-Policy"]
    assert client.get("/redoc").status_code == 404
    for path in ("/docs/assets/../../pyproject.toml", "/docs/assets/%2e%2e/core.py"):
        assert client.get(path).status_code == 404


def test_other_origins_may_ask_only_if_they_are_named(full: Warehouse) -> None:
    there = {"Origin": "https://console.example"}
    preflight = {**there, "Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "Authorization"}
    with client_of(full) as client:
        assert "Access-Control-Allow-Origin" not in client.get(META, headers=there).headers
        assert client.options(META, headers=preflight).status_code == 405
    with client_of(full, cors_origins="https://console.example/, https://other.example") as client:
        answer = client.get(META, headers=there)
        assert answer.headers["Access-Control-Allow-Origin"] == "https://console.example"
        assert client.options(META, headers=preflight).status_code == 200
        assert "Access-Control-Allow-Credentials" not in answer.headers
        foreign = client.get(META, headers={"Origin": "https://evil.example"})
        assert "Access-Control-Allow-Origin" not in foreign.headers


def post_operations(client: TestClient) -> list[str]:
    return [path for path, methods in get(client, "/openapi.json")["paths"].items() if "post" in methods]


@pytest.mark.parametrize("is_declared", [True, False])
def test_a_body_that_is_too_large_is_413_on_every_route_that_takes_one(client: TestClient, is_declared: bool) -> None:
    piece = b" " * 65536

    def pieces(size: int) -> Iterator[bytes]:
        for _ in range(size // len(piece) + 1):
            yield piece

    for path in post_operations(client):
        limit = middleware.BODY_LIMITS.get(path, middleware.MAX_BODY_BYTES)
        content: Any = b" " * (limit + 1) if is_declared else pieces(limit)
        answer = client.post(path, content=content, headers={"Content-Type": "application/json"})
        # Without Kafka events are refused before their body is read.
        assert answer.status_code == (503 if path == "/v1/events" else 413), (path, answer.text)


async def call(app: Any, path: str, receive: Any, **scope: Any) -> list[Any]:
    """The messages that the application sends."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"authorization", f"Bearer {KEY}".encode()), (b"content-type", b"application/json")]
    base = {"type": "http", "http_version": "1.1", "method": "POST", "scheme": "http", "path": path, "headers": headers}
    more = {"raw_path": path.encode(), "query_string": b"", "client": ("10.0.0.9", 1), "server": ("api", 80)}
    await app({**base, **more, **scope}, receive, send)
    return sent


class Slow:
    """A publisher for the test of slow senders: it is called only when the body is there."""

    async def publish(self, body: bytes, is_ndjson: bool) -> int:
        raise AssertionError("the body never ends")

    def schema(self) -> dict[str, Any]:
        return {}


async def test_who_sends_too_slowly_is_answered_with_504(full: Warehouse) -> None:
    app = create_app(settings(request_timeout_seconds=0.2), full, Slow())

    async def trickle() -> Any:
        await asyncio.sleep(0.05)
        return {"type": "http.request", "body": b"[", "more_body": True}

    start, body = await call(app, "/v1/events", trickle)
    assert start["status"] == 504
    assert json.loads(body["body"])["code"] == "deadline_exceeded"


def test_a_request_id_is_taken_over_or_made_and_is_in_every_line(client: TestClient) -> None:
    given = "trace-01:a/b=c+d_e.f"
    with logged() as lines:
        answer = client.get(LOGS, headers={"x-request-id": given})
    assert answer.headers["X-Request-ID"] == given
    assert {line["request_id"] for line in lines} == {given}
    (line,) = [line for line in lines if line["event"] == "request"]
    assert (line["route"], line["status"], line["key"]) == (LOGS, 200, "setting 2")
    made = {client.get("/healthz").headers["X-Request-ID"] for _ in range(3)}
    assert len(made) == 3
    for bad in ("x" * 129, "a b", 'a"b', "ü"):
        assert client.get("/healthz", headers={b"X-Request-ID": bad.encode()}).headers["X-Request-ID"] != bad


def test_a_fault_is_answered_with_its_id_and_logged_with_it(warehouse: Warehouse) -> None:
    insert_rows(warehouse, random_rows(seed=1, count=1))
    warehouse.command("ALTER TABLE request_logs DROP COLUMN trace_id")
    with client_of(warehouse) as client, logged() as lines:
        answer = client.get(LOGS, headers={"X-Request-ID": "fault-1"})
    assert (answer.status_code, answer.headers["X-Request-ID"]) == (500, "fault-1")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    events = [(line["event"], line["request_id"]) for line in lines]
    assert events == [("request failed", "fault-1"), ("request", "fault-1")]


def count_of(method: str, route: str, status: int) -> float:
    labels = {"method": method, "route": route, "status": str(status)}
    return REGISTRY.get_sample_value("insights_api_requests_total", labels) or 0.0


def test_requests_are_counted_by_template_so_that_ids_make_no_series(client: TestClient) -> None:
    route = f"{LOGS}/{{request_id:path}}"
    before = count_of("GET", route, 404), count_of("unknown", "unknown", 404)
    for number in range(3):
        client.get(f"{LOGS}/nothing-{number}")
        client.get(f"/nowhere-{number}")
    assert (count_of("GET", route, 404), count_of("unknown", "unknown", 404)) == (before[0] + 3, before[1] + 3)
    assert not [label for label in _routes() if re.search("nothing-|nowhere-", label)]


def _routes() -> set[str]:
    metric = next(metric for metric in REGISTRY.collect() if metric.name == "insights_api_requests")
    return {sample.labels["route"] for sample in metric.samples}


def test_methods_that_nobody_knows_make_one_series(client: TestClient) -> None:
    for method in ("BREW", "X" * 5000, "get"):
        client.request(method, META)
        client.request(method, "/nowhere")
    methods = {sample.labels["method"] for metric in REGISTRY.collect() for sample in metric.samples
               if sample.name == "insights_api_requests_total"}  # fmt: skip
    assert methods <= {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "unknown"}


def test_a_query_that_runs_away_is_stopped_while_others_are_answered(full: Warehouse) -> None:
    """The limits are ClickHouse's, so it stops the query itself; the API says what happened, and goes on."""
    runaway = "SELECT sum(sipHash64(number)) AS n FROM numbers(1000000000000)"
    with client_of(full, max_execution_time_seconds=5) as client:
        app: Any = client.app

        app.add_api_route("/v1/runaway", lambda: full.query(runaway, {}, dict(app.state.limits)))
        answers: list[Any] = []
        thread = threading.Thread(target=lambda: answers.append(client.get("/v1/runaway")))
        thread.start()
        others = [client.get(STATS).status_code for _ in range(3)]
        thread.join(120)
    assert others == [200] * 3
    # It would take hours.
    (answer,) = answers
    assert (answer.status_code, answer.json()["code"]) == (504, "deadline_exceeded")


def test_the_limits_of_the_settings_go_with_every_query(full: Warehouse) -> None:
    app: Any = create_app(settings(max_execution_time_seconds=7, max_memory_bytes=123_456_789), full)
    assert app.state.limits["max_execution_time"] == 7
    assert app.state.limits["max_memory_usage"] == 123_456_789


def test_the_defaults_are_the_careful_ones() -> None:
    defaults = ApiSettings(api_keys="ak-1")
    assert (defaults.origins, defaults.trusted_proxies, defaults.host) == ([], "", "127.0.0.1")
    assert defaults.request_limit
    assert defaults.wrong_key_limit
