"""What the Python client does when the API refuses, fails, is slow or is not there."""

import collections
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from aggregator.clickhouse.client import Warehouse
from api.app import create_app
from router_insights import (
    ApiConnectionError,
    ApiError,
    ApiTimeoutError,
    AsyncClient,
    AuthenticationError,
    Client,
    InvalidRequestError,
    PermissionDeniedError,
    RateLimitedError,
    UnavailableError,
    UnexpectedAnswerError,
)
from tests.support.api import KEY, settings
from tests.support.running_api import Scripted, running_api, scripted_server

EMPTY_PAGE: Scripted = (
    200,
    {},
    b'{"logs":[],"next_page_token":"","total_count":0,"total_count_is_approximate":false,"new":1}',
)
NOW = {"retry-after": "0"}
LIMITED: Scripted = (429, NOW, b'{"code":"rate_limited","message":"Too many requests.","details":[]}')
AWAY: Scripted = (503, NOW, b'{"code":"unavailable","message":"ClickHouse does not answer.","details":[]}')


def failure(status: int, headers: dict[str, str] | None = None, code: str = "c") -> Scripted:
    return status, headers or {}, b'{"code":"%s","message":"m","details":[]}' % code.encode()


@pytest.mark.parametrize("refusal", [LIMITED, AWAY])
def test_after_a_refusal_that_passes_the_question_is_answered(refusal: Scripted) -> None:
    with scripted_server(refusal, refusal, EMPTY_PAGE) as (url, asked), Client(url, KEY) as client:
        assert client.request_logs.query_request_logs(user_id="ada").logs == []
    assert asked == ["GET /v1/request-logs?user_id=ada"] * 3


async def test_asyncio_asks_again_too() -> None:
    with scripted_server(LIMITED, AWAY, EMPTY_PAGE) as (url, asked):
        async with AsyncClient(url, KEY) as client:
            assert (await client.request_logs.query_request_logs()).logs == []
    assert len(asked) == 3


@pytest.mark.parametrize(("max_retries", "times"), [(0, 1), (2, 3)])
def test_the_last_refusal_is_the_error(max_retries: int, times: int) -> None:
    with (
        scripted_server(LIMITED) as (url, asked),
        Client(url, KEY, max_retries=max_retries) as client,
        pytest.raises(RateLimitedError, match="Too many requests") as caught,
    ):
        client.request_logs.query_request_logs()
    assert caught.value.retry_after == 0
    assert len(asked) == times


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 415, 422, 500, 502, 504])
def test_no_other_error_is_asked_again(status: int) -> None:
    with (
        scripted_server(failure(status)) as (url, asked),
        Client(url, KEY) as client,
        pytest.raises(ApiError) as caught,
    ):
        client.request_logs.query_request_logs()
    assert (caught.value.status, len(asked)) == (status, 1)


def test_a_question_that_needs_too_much_is_not_asked_again() -> None:
    with (
        scripted_server(failure(503, code="resource_exhausted")) as (url, asked),
        Client(url, KEY) as client,
        pytest.raises(UnavailableError),
    ):
        client.request_logs.query_request_logs()
    assert len(asked) == 1


EVENT = {"request_id": "r", "timestamp": datetime(2026, 1, 1, tzinfo=UTC), "model_name": "m", "status": "success"}


@pytest.mark.parametrize(
    "ask",
    [lambda client: client.events.publish_events([EVENT]), lambda client: client.budgets.delete_budget("b")],
    ids=["events", "delete"],
)
def test_what_may_have_been_done_in_part_is_not_done_twice_after_503(ask: Callable[[Client], Any]) -> None:
    with (
        scripted_server(AWAY) as (url, asked),
        Client(url, KEY) as client,
        pytest.raises(UnavailableError),
    ):
        ask(client)
    assert len(asked) == 1


def test_events_that_were_refused_whole_by_429_are_sent_again() -> None:
    with scripted_server(LIMITED, (202, {}, b'{"accepted":1}')) as (url, asked), Client(url, KEY) as client:
        assert client.events.publish_events([EVENT]).accepted == 1
    assert len(asked) == 2


def test_the_pause_is_as_long_as_the_api_says() -> None:
    later: Scripted = (429, {"retry-after": "1"}, b"{}")
    with scripted_server(later, EMPTY_PAGE) as (url, asked), Client(url, KEY) as client:
        began = time.monotonic()
        client.request_logs.query_request_logs()
        assert time.monotonic() - began >= 1
    assert len(asked) == 2


def test_nobody_waits_longer_than_a_minute() -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    for long in ("61", date):
        with (
            scripted_server((429, {"retry-after": long}, b"{}")) as (url, asked),
            Client(url, KEY) as client,
            pytest.raises(RateLimitedError) as caught,
        ):
            client.request_logs.query_request_logs()
        assert caught.value.retry_after is not None
        assert caught.value.retry_after > 60
        assert len(asked) == 1


def test_a_limit_of_the_real_api_is_waited_for(warehouse: Warehouse) -> None:
    app = create_app(settings(search_limit="1/second"), warehouse)
    with running_api(app) as url, Client(url, KEY) as client, Client(url, KEY, max_retries=0) as hasty:
        began = time.monotonic()
        for _ in range(3):
            assert client.analytics.search_requests().items == []
        assert time.monotonic() - began >= 1
        with pytest.raises(RateLimitedError) as caught:
            collections.deque(hasty.analytics.search_requests() for _ in range(50))
        assert caught.value.retry_after == 1


def test_wrong_keys_are_told_from_keys_without_the_right(warehouse: Warehouse) -> None:
    with running_api(create_app(settings(), warehouse)) as url:
        with Client(url, "ak-wrong") as client, pytest.raises(AuthenticationError) as caught:
            client.request_logs.query_request_logs()
        assert "ak-wrong" not in str(caught.value)
    assert issubclass(PermissionDeniedError, ApiError)


@pytest.mark.parametrize("make", [Client, AsyncClient])
def test_an_address_that_nobody_answers_at_is_named(make: type[Any]) -> None:
    with scripted_server(EMPTY_PAGE) as (url, _):
        pass
    with Client(url, KEY) as client, pytest.raises(ApiConnectionError, match=f"^{url} cannot be reached: "):
        client.request_logs.query_request_logs()
    assert repr(make(url, KEY)) == f"{make.__name__}({url!r})"


async def test_asyncio_names_the_address_too() -> None:
    with scripted_server(None) as (url, _):
        async with AsyncClient(url, KEY) as client:
            with pytest.raises(ApiConnectionError, match=f"^The connection to {url} broke: "):
                await client.request_logs.query_request_logs()


def test_a_connection_that_breaks_is_named_and_not_tried_again() -> None:
    with (
        scripted_server(None, EMPTY_PAGE) as (url, asked),
        Client(url, KEY) as client,
        pytest.raises(ApiConnectionError, match=f"^The connection to {url} broke: "),
    ):
        client.request_logs.query_request_logs()
    assert len(asked) == 1


def test_an_api_that_is_too_slow_is_named_with_the_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with (
            Client(url, KEY, timeout_seconds=0.2) as client,
            pytest.raises(ApiTimeoutError, match=rf"^{url} did not answer within 0\.2 s$"),
        ):
            client.request_logs.query_request_logs()


@pytest.mark.parametrize("body", [b"<html>", b"{}", b'{"logs": 5}', b""])
def test_an_answer_of_something_else_is_said_to_be_unreadable(body: bytes) -> None:
    with (
        scripted_server((200, {}, body)) as (url, _),
        Client(url, KEY) as client,
        pytest.raises(UnexpectedAnswerError, match="/v1/request-logs cannot be read as RequestLogPage"),
    ):
        client.request_logs.query_request_logs()


@pytest.mark.parametrize("status", [301, 502, 599])
def test_a_proxys_error_names_its_status(status: int) -> None:
    with (
        scripted_server((status, {}, b"<html>Bad Gateway</html>")) as (url, _),
        Client(url, KEY) as client,
        pytest.raises(ApiError, match=f"^{status} .*no error of router-insights") as caught,
    ):
        client.request_logs.query_request_logs()
    assert caught.value.details == ()


def test_events_that_are_wrong_are_named_by_line_and_field() -> None:
    body = (
        b'{"code":"invalid_body","message":"The body was refused, nothing of it was accepted.",'
        b'"details":[{"line":2,"field":"status","message":"Field required"}]}'
    )
    with (
        scripted_server((422, {}, body)) as (url, _),
        Client(url, KEY) as client,
        pytest.raises(InvalidRequestError, match=r"refused.*line 2: status: Field required") as caught,
    ):
        client.events.publish_events([EVENT])
    assert (caught.value.details[0].line, caught.value.details[0].field) == (2, "status")
