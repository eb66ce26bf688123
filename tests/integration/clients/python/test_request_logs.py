"""The Python client asks a running API for logs and statistics, with keywords, mappings and messages."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest

from router_insights import AsyncClient, Client, InvalidRequestError, NotFoundError
from tests.integration.clients.python.conftest import ODD_IDS, Running
from tests.integration.clients.python.same import assert_same
from tests.support.api import id_of, in_order, matches

MIDDLE = datetime(2026, 2, 1, tzinfo=UTC)

QUERIES: list[dict[str, Any]] = [
    {},
    {"user_id": "Zoë 😀", "page_size": 3},
    {"user_id": "tab\tline\nend"},
    {"model_name": "meta/llama: 'big'", "status": "error"},
    {"is_error": True},
    {"is_error": False, "status": "SUCCESS"},
    {"status_code": 200, "api_key_id": "key-1", "order_by": "duration_ms", "order_direction": "asc"},
    {"min_duration_ms": 10, "max_duration_ms": 2_000, "order_by": "input_tokens"},
    {"start_time": "2026-01-31T00:00:00Z", "end_time": "2026-02-02T05:30:00+05:30", "order_by": "output_tokens"},
]


@pytest.mark.parametrize("filters", QUERIES, ids=lambda filters: ",".join(filters) or "none")
def test_a_page_is_what_everybody_gets(running: Running, client: Client, filters: dict[str, Any]) -> None:
    page = client.request_logs.query_request_logs(**filters)
    assert page.logs
    assert_same(page, running.plain("GET", "/v1/request-logs", params=filters))


def test_a_mapping_asks_the_same_as_keywords(client: Client) -> None:
    filters = QUERIES[6]
    assert client.request_logs.query_request_logs(filters) == client.request_logs.query_request_logs(**filters)


def test_money_is_decimal_and_times_are_aware(running: Running, client: Client) -> None:
    logs = list(client.request_logs.iter_request_logs())
    costs = {id_of(row): row["cost"] for row in running.rows}
    assert {type(log.cost) for log in logs} == {Decimal, type(None)}
    assert {log.id: log.cost for log in logs} == costs
    assert {log.timestamp.utcoffset() for log in logs} == {timedelta(0)}


def test_iteration_gives_every_log_once_in_order(running: Running, client: Client) -> None:
    for filters in ({}, {"status": "success"}, {"start_time": MIDDLE, "page_size": 7, "order_by": "duration_ms"}):
        expected = in_order(
            [
                row
                for row in running.rows
                if matches(row, {k: v for k, v in filters.items() if k in row or "time" in k})
            ],
            str(filters.get("order_by", "timestamp")),
        )
        assert expected
        logs = client.request_logs.iter_request_logs(filters)
        assert [log.id for log in logs] == [id_of(row) for row in expected]


def test_times_of_any_zone_mean_the_same_moment(client: Client) -> None:
    here = MIDDLE.astimezone(timezone(timedelta(hours=5, minutes=30)))
    ours = client.request_logs.query_request_logs(start_time=here)
    assert ours.logs
    assert ours == client.request_logs.query_request_logs(start_time=MIDDLE)


@pytest.mark.parametrize("request_id", ODD_IDS)
def test_a_log_is_found_by_any_id(running: Running, client: Client, request_id: str) -> None:
    log = client.request_logs.get_request_log(request_id)
    assert log.request_id == request_id
    assert log == client.request_logs.get_request_log(request_id=request_id)
    assert log == client.request_logs.get_request_log({"request_id": request_id})


def test_a_single_log_says_how_its_cost_came_about(running: Running, client: Client) -> None:
    for row in running.rows[10:40]:
        plain = running.plain("GET", f"/v1/request-logs/{row['request_id']}")
        assert_same(client.request_logs.get_request_log(row["request_id"]), plain)


def test_no_log_is_an_error_of_its_own(client: Client) -> None:
    with pytest.raises(NotFoundError, match="no request log") as caught:
        client.request_logs.get_request_log("there is none")
    assert (caught.value.status, caught.value.code) == (404, "not_found")
    assert caught.value.request_id


@pytest.mark.parametrize("request_id", ["", "stats", ".", "..", "a\nb"])
def test_an_id_that_no_url_can_name_is_refused_before_it_is_asked(client: Client, request_id: str) -> None:
    with pytest.raises(ValueError, match="request_id: no log can be asked for"):
        client.request_logs.get_request_log(request_id)


STATISTICS: list[dict[str, Any]] = [
    *({"group_by": group} for group in ("model", "user", "api_key", "status", "hour", "day")),
    *({"metric": metric} for metric in ("count", "tokens", "cost", "latency", "errors")),
    {"group_by": "day", "timezone": "Asia/Kolkata", "limit": 1, "user_id": "alice"},
]


@pytest.mark.parametrize("filters", STATISTICS, ids=lambda filters: ",".join(map(str, filters.values())))
def test_statistics_are_what_everybody_gets(running: Running, client: Client, filters: dict[str, Any]) -> None:
    stats = client.request_logs.get_request_log_stats(**filters)
    assert stats.stats
    plain = running.plain("GET", "/v1/request-logs/stats", params=filters)
    if filters.get("metric") == "cost":
        assert all(isinstance(stat.value, Decimal) for stat in stats.stats)
    assert_same(stats, plain)


@pytest.mark.parametrize(
    ("filters", "field"),
    [
        ({"order_by": "colour"}, "order_by"),
        ({"page_size": 1001}, "page_size"),
        ({"colour": "red"}, "colour"),
        ({"min_duration_ms": 2, "max_duration_ms": 1}, "min_duration_ms"),
        ({"page_token": "x"}, "page_token"),
    ],
)
def test_a_wrong_filter_is_named_with_what_is_allowed(client: Client, filters: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequestError, match=field) as caught:
        client.request_logs.query_request_logs(**filters)
    assert caught.value.status == 400
    assert field in {detail.field for detail in caught.value.details}
    if field == "order_by":
        assert caught.value.details[0].allowed == ("timestamp", "duration_ms", "input_tokens", "output_tokens")


@pytest.mark.parametrize(
    ("filters", "error"),
    [
        ({"start_time": datetime(2026, 2, 1)}, ValueError),  # noqa: DTZ001 - it is what must be refused
        ({"status_code": True}, TypeError),
        ({"user_id": ["ada"]}, TypeError),
    ],
)
def test_what_cannot_be_asked_is_refused_with_its_name(
    client: Client, filters: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error, match=f"^{next(iter(filters))}: must"):
        client.request_logs.query_request_logs(**filters)


def test_a_request_of_another_kind_and_one_given_twice_are_refused(client: Client) -> None:
    with pytest.raises(TypeError, match="a proto message or a mapping, not int"):
        client.request_logs.query_request_logs(5)
    with pytest.raises(TypeError, match="not both: user_id"):
        client.request_logs.query_request_logs({"status": "error"}, user_id="ada")


async def test_asyncio_iterates_in_the_same_order(client: Client, async_client: AsyncClient) -> None:
    ours = [log.id async for log in async_client.request_logs.iter_request_logs(status="error", page_size=9)]
    assert ours
    assert ours == [log.id for log in client.request_logs.iter_request_logs(status="error")]
