"""GET /v1/request-logs answers what a plain loop over the same rows answers."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from aggregator.clickhouse.client import Warehouse
from tests.support.api import client_of, filled_warehouse, id_of, in_order, list_logs, matches, rfc3339, walk
from tests.support.rows import KEYS, MODELS, START, STATUSES, USERS, Row, insert_rows, random_rows

UNCHECKED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]

ROWS = random_rows(seed=7, count=500)
ORDERS = ("timestamp", "duration_ms", "input_tokens", "output_tokens")
DIRECTIONS = ("asc", "desc")


@pytest.fixture(scope="module")
def client(engine_url: str) -> Iterator[TestClient]:
    with filled_warehouse(engine_url, ROWS) as warehouse, client_of(warehouse) as client:
        yield client


def as_parameters(filters: dict[str, Any]) -> dict[str, Any]:
    return {name: rfc3339(value) if name.endswith("_time") else value for name, value in filters.items()}


def ids(logs: list[Any]) -> list[str]:
    return [log["id"] for log in logs]


def expected_ids(filters: dict[str, Any], order_by: str = "timestamp", order_direction: str = "desc") -> list[str]:
    matching = [row for row in ROWS if matches(row, filters)]
    return [id_of(row) for row in in_order(matching, order_by, order_direction)]


EXACT_TIME = ROWS[0]["timestamp"]
FILTERS: list[dict[str, Any]] = [
    {},
    *({"user_id": user} for user in (*USERS, "nobody")),
    *({"api_key_id": key} for key in KEYS),
    *({"model_name": model} for model in (*MODELS, "gpt")),
    *({"status": status} for status in sorted({*STATUSES, "Success", "ERROR"})),
    {"is_error": True},
    {"is_error": False, "model_name": MODELS[0]},
    *({"status_code": code} for code in (200, 429, 500, 0, 999)),
    {"start_time": EXACT_TIME},
    {"end_time": EXACT_TIME},
    {"start_time": EXACT_TIME, "end_time": EXACT_TIME},
    {"start_time": EXACT_TIME, "end_time": EXACT_TIME + timedelta(microseconds=1)},
    {"start_time": START + timedelta(hours=5), "end_time": START + timedelta(hours=30, seconds=1)},
    *({"min_duration_ms": bound} for bound in (0, 100, 101, 2**32 - 1)),
    *({"max_duration_ms": bound} for bound in (0, 100, 99, 2**32 - 1)),
    {"min_duration_ms": 100, "max_duration_ms": 100},
]


@pytest.mark.parametrize("filters", FILTERS, ids=str)
def test_each_filter_finds_exactly_its_rows(client: TestClient, filters: dict[str, Any]) -> None:
    expected = expected_ids(filters)
    page = list_logs(client, page_size=1000, **as_parameters(filters))
    assert ids(page["logs"]) == expected
    assert (page["total_count"], page["total_count_is_approximate"]) == (len(expected), False)
    assert page["next_page_token"] == ""


def test_names_in_lower_camel_case_ask_the_same(client: TestClient) -> None:
    filters = {"userId": "alice", "minDurationMs": 1, "startTime": rfc3339(START)}
    page = list_logs(client, pageSize=3, orderBy="duration_ms", orderDirection="asc", **filters)
    snake = {"user_id": "alice", "min_duration_ms": 1, "start_time": rfc3339(START)}
    assert page == list_logs(client, page_size=3, order_by="duration_ms", order_direction="asc", **snake)
    assert len(page["logs"]) == 3
    second = list_logs(client, pageToken=page["next_page_token"], order_by="duration_ms", orderDirection="asc", **snake)
    assert not set(ids(page["logs"])) & set(ids(second["logs"]))


def test_a_query_whose_every_field_is_written_out_unset_is_the_whole_list(client: TestClient) -> None:
    texts = ("user_id", "api_key_id", "model_name", "status", "start_time", "end_time", "page_token", "order_by")
    unset = dict.fromkeys((*texts, "orderDirection"), "")
    numbers = dict.fromkeys(("status_code", "min_duration_ms", "maxDurationMs", "page_size"), 0)
    assert list_logs(client, **unset, **numbers) == list_logs(client)


def some(values: Any) -> Any:
    return st.none() | st.sampled_from(values)


moments = st.timedeltas(timedelta(0), timedelta(days=3)).map(lambda after: START + after) | st.sampled_from(
    [row["timestamp"] for row in ROWS]
)
durations = st.sampled_from([0, 100, 101, 250, 30_000])
any_filters = st.builds(
    lambda span, low_high, rest: {
        name: value
        for name, value in {
            "start_time": min(span) if span else None,
            "end_time": max(span) if span else None,
            "min_duration_ms": min(low_high) if low_high else None,
            "max_duration_ms": max(low_high) if low_high else None,
            **rest,
        }.items()
        if value is not None
    },
    st.none() | st.tuples(moments, moments),
    st.none() | st.tuples(durations, durations),
    st.fixed_dictionaries(
        {
            "user_id": some(USERS),
            "api_key_id": some(KEYS),
            "model_name": some(MODELS),
            "status": some(STATUSES),
            "is_error": some((True, False)),
            "status_code": some((200, 429, 500)),
        }
    ),
)


@settings(max_examples=30, deadline=None, suppress_health_check=UNCHECKED)
@given(any_filters, st.sampled_from(ORDERS), st.sampled_from(DIRECTIONS), st.integers(1, 5))
def test_any_combination_of_filters_in_any_order_walks_through_exactly_its_rows(
    client: TestClient, filters: dict[str, Any], order_by: str, order_direction: str, pages: int
) -> None:
    expected = expected_ids(filters, order_by, order_direction)
    page_size = max(1, -(-len(expected) // pages))
    logs = walk(
        client, page_size=page_size, order_by=order_by, order_direction=order_direction, **as_parameters(filters)
    )
    assert ids(logs) == expected


@pytest.mark.parametrize("order_direction", DIRECTIONS)
@pytest.mark.parametrize("order_by", ORDERS)
def test_pages_of_every_size_in_every_order_walk_through_the_same_rows(
    client: TestClient, order_by: str, order_direction: str
) -> None:
    order = {"order_by": order_by, "order_direction": order_direction}
    few = {"status": "timeout", "model_name": MODELS[0]}
    assert 5 < len(expected_ids(few)) < 40
    for filters, page_size in ((few, 2), (few, len(expected_ids(few))), ({}, 199), ({}, 499)):
        logs = walk(client, page_size=page_size, **order, **as_parameters(filters))
        assert ids(logs) == expected_ids(filters, **order)


def test_the_default_is_fifty_logs_newest_first(client: TestClient) -> None:
    page = list_logs(client)
    assert ids(page["logs"]) == expected_ids({})[:50]
    assert page["total_count"] == len(ROWS)
    assert page["next_page_token"]


def test_the_page_size_may_change_between_pages(client: TestClient) -> None:
    first = list_logs(client, page_size=10)
    second = list_logs(client, page_size=25, page_token=first["next_page_token"])
    assert ids(first["logs"]) + ids(second["logs"]) == expected_ids({})[:35]


def test_the_same_moment_in_another_zone_is_the_same_query(client: TestClient) -> None:
    first = list_logs(client, page_size=10, start_time="2026-01-31T00:00:00Z")
    second = list_logs(
        client, page_size=10, start_time="2026-01-31T05:30:00+05:30", page_token=first["next_page_token"]
    )
    expected = [
        id_of(row) for row in in_order([row for row in ROWS if rfc3339(row["timestamp"]) >= "2026-01-31T00:00:00"])
    ]
    assert ids(first["logs"]) + ids(second["logs"]) == expected[:20]


@pytest.mark.parametrize("order_direction", DIRECTIONS)
@pytest.mark.parametrize("order_by", ["timestamp", "duration_ms"])
def test_rows_that_arrive_while_a_client_pages_neither_repeat_nor_hide_others(
    warehouse: Warehouse, order_by: str, order_direction: str
) -> None:
    order = {"order_by": order_by, "order_direction": order_direction}
    present = random_rows(seed=1, count=40)
    insert_rows(warehouse, present)
    seen, token, arrived = [], "", list[Row]()
    with client_of(warehouse) as client:
        for number in range(1, 100):
            page = list_logs(client, page_size=7, page_token=token, **order)
            seen += ids(page["logs"])
            assert page["total_count"] == len(present)
            token = page["next_page_token"]
            if not token:
                break
            arriving = random_rows(seed=number + 1, count=3, first_offset=number * 1000)
            insert_rows(warehouse, arriving)
            arrived += arriving
    assert len(seen) == len(set(seen))
    assert set(seen) >= {id_of(row) for row in present}
    everything = [id_of(row) for row in in_order(present + arrived, **order)]
    assert seen == [name for name in everything if name in set(seen)]


@pytest.mark.parametrize("order_direction", DIRECTIONS)
def test_pages_reach_over_gaps_of_hours_days_and_months(warehouse: Warehouse, order_direction: str) -> None:
    moments = [START + timedelta(days=days, seconds=number) for days in (-400, -31, -2, 0) for number in range(3)]
    rows = [row | {"timestamp": moment} for row, moment in zip(random_rows(5, 12), moments, strict=True)]
    insert_rows(warehouse, rows)
    expected = [id_of(row) for row in in_order(rows, order_direction=order_direction)]
    with client_of(warehouse) as client:
        for page_size in (1, 2, 5):
            assert ids(walk(client, page_size=page_size, order_direction=order_direction)) == expected
        bounds = {"start_time": rfc3339(moments[1]), "end_time": rfc3339(moments[-1])}
        logs = walk(client, page_size=4, order_direction=order_direction, **bounds)
        assert sorted(ids(logs)) == sorted(id_of(row) for row in rows[1:-1])


def test_rows_that_differ_in_nothing_but_their_offset_are_all_listed(warehouse: Warehouse) -> None:
    rows = [row | {"source_offset": number} for number, row in enumerate(random_rows(seed=3, count=1) * 30)]
    insert_rows(warehouse, rows)
    with client_of(warehouse) as client:
        for order_by in ORDERS:
            logs = walk(client, page_size=4, order_by=order_by)
            assert ids(logs) == [id_of(row) for row in reversed(rows)]


def test_an_empty_warehouse_has_one_empty_page(warehouse: Warehouse) -> None:
    with client_of(warehouse) as client:
        for filters in ({}, {"user_id": "alice"}, {"status_code": 200}):
            assert list_logs(client, **filters) == {
                "logs": [],
                "next_page_token": "",
                "total_count": 0,
                "total_count_is_approximate": False,
            }


def test_a_count_beyond_the_bound_says_that_it_is_approximate(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    matching = len(expected_ids({"min_duration_ms": 1}))
    for bound, is_approximate in ((matching - 1, True), (matching, False)):
        monkeypatch.setattr("api.request_logs.count.COUNT_LIMIT", bound)
        first = list_logs(client, min_duration_ms=1)
        second = list_logs(client, min_duration_ms=1, page_token=first["next_page_token"])
        for page in (first, second):
            assert page["total_count"] == bound
            assert page["total_count_is_approximate"] is is_approximate
    # The rollups count without a bound.
    monkeypatch.setattr("api.request_logs.count.COUNT_LIMIT", 1)
    assert list_logs(client, user_id="alice")["total_count"] == len(expected_ids({"user_id": "alice"}))


def test_many_clients_at_once_get_what_one_gets(client: TestClient) -> None:
    def first_page(number: int) -> list[str]:
        return ids(list_logs(client, user_id=USERS[number % len(USERS)])["logs"])

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(first_page, range(32)))
    assert answers == [expected_ids({"user_id": USERS[number % len(USERS)]})[:50] for number in range(32)]
