"""Every field of a log, in the type that docs/api.md promises, and the lookup of one log by its id."""

import json
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient

from aggregator.clickhouse.client import Warehouse
from api.request_logs.schemas import RequestLog
from tests.support.api import client_of, filled_warehouse, get, id_of, in_order, list_logs, microdollars, rfc3339, walk
from tests.support.rows import START, Row, insert_rows, payload_of, random_rows, why_unpriced

ROWS = random_rows(seed=11, count=150)
DESIGNED_FIELDS = """
id timestamp user_id api_key_id api_key_prefix api_key_hash api_key_address api_key_name model_name input_tokens
output_tokens input_tokens_cost_microdollar input_tokens_cost input_tokens_cost_before_fee
output_tokens_cost_microdollar output_tokens_cost output_tokens_cost_before_fee status status_code request_headers
request_body response_headers response_body response_body_raw llm_parameters upstream_duration_ms duration_ms
request_id created_at storage_location storage_row_index storage_batch_id use_object_storage cached_input_tokens
cached_input_tokens_cost cached_input_tokens_cost_before_fee cache_creation_input_tokens
cache_creation_input_tokens_cost cache_creation_input_tokens_cost_before_fee
""".split()  # noqa: SIM905
# Of the payload, as JSON.
OBJECTS = ("request_headers", "request_body", "response_headers", "response_body")
SAME_AS_STORED = """
user_id api_key_id api_key_prefix api_key_hash api_key_address api_key_name provider model_name status status_code
is_error error_type error_message input_tokens output_tokens cached_input_tokens cache_creation_input_tokens
thinking_tokens usage_source service_tier duration_ms upstream_duration_ms time_to_first_token_ms price_id
price_version tags metadata prompt_id prompt_version_number prompt_name tool_names turn_count tool_call_count
session_id trace_id storage_location storage_row_index storage_batch_id use_object_storage request_id
""".split()  # noqa: SIM905


@pytest.fixture(scope="module")
def client(engine_url: str) -> Iterator[TestClient]:
    with filled_warehouse(engine_url, ROWS) as warehouse, client_of(warehouse) as client:
        yield client


def costs_of(row: Row) -> dict[str, Any]:
    """Plain notation with twelve places."""
    costs = {name: value for name, value in row.items() if name.endswith(("cost", "cost_before_fee"))}
    return {
        **{name: None if cost is None else f"{cost:.12f}" for name, cost in costs.items()},
        "input_tokens_cost_microdollar": microdollars(row["input_tokens_cost"]),
        "output_tokens_cost_microdollar": microdollars(row["output_tokens_cost"]),
    }


def expected_log(row: Row) -> dict[str, Any]:
    payload = payload_of(row)
    return {
        **{name: row[name] for name in SAME_AS_STORED},
        **costs_of(row),
        "request_headers": json.loads(payload["request_headers"]),
        "request_body": json.loads(payload["request_body"]),
        "response_body": {"unreadable": payload["response_body"]},
        "response_body_raw": payload["response_body_raw"],
        "response_headers": None,
        "usage": None,
        "llm_parameters": {"temperature": 0.2},
        "input_variables": None,
        "fee_rate": "0.050000",
        "id": id_of(row),
        "timestamp": rfc3339(row["timestamp"]),
        "created_at": rfc3339(row["created_at"]),
    }


def test_a_log_has_every_field_as_it_was_stored(client: TestClient) -> None:
    logs = walk(client, page_size=40)
    assert logs == [expected_log(row) for row in in_order(ROWS)]


def test_a_log_has_the_designed_fields_in_every_answer(client: TestClient) -> None:
    assert set(DESIGNED_FIELDS) <= set(RequestLog.model_fields)
    log = list_logs(client, page_size=1)["logs"][0]
    assert set(log) == set(RequestLog.model_fields)


def test_costs_round_half_away_from_zero_from_the_exact_value(warehouse: Warehouse) -> None:
    halves = {
        "0.000000500000": 1,
        "0.000000499999": 0,
        "0.000001500000": 2,
        "0.000002500000": 3,
        "-0.000000500000": -1,
        "-0.000001499999": -1,
        "0.000000000000": 0,
        "999999.999999500000": 1_000_000_000_000,
    }
    template = random_rows(seed=1, count=1)[0]
    rows = [
        template | {"source_offset": number, "input_tokens_cost": Decimal(text), "output_tokens_cost": None}
        for number, text in enumerate(halves)
    ]
    insert_rows(warehouse, rows)
    with client_of(warehouse) as client:
        logs = list_logs(client, order_direction="asc")["logs"]
    assert {log["input_tokens_cost"]: log["input_tokens_cost_microdollar"] for log in logs} == halves
    assert {log["output_tokens_cost_microdollar"] for log in logs} == {None}


def test_a_log_without_a_payload_has_null_bodies_and_objects(warehouse: Warehouse) -> None:
    insert_rows(warehouse, random_rows(seed=1, count=1))
    with client_of(warehouse) as client:
        log = list_logs(client)["logs"][0]
    assert log["response_body_raw"] == ""
    objects = {*OBJECTS, "llm_parameters", "input_variables"}
    assert {log[name] for name in objects} == {None}


def test_stored_text_that_is_no_object_is_shown_and_breaks_nothing(warehouse: Warehouse) -> None:
    texts = ["[1]", "no json", '{"a":', '{"a": NaN}', '{"a": [-1e400]}', '"text"', "null", '{"a": "\\ud800"}']
    row = random_rows(seed=1, count=1)[0]
    rows = [row | {"source_offset": number} for number in range(len(texts))]
    payloads = [payload_of(row) | dict.fromkeys(OBJECTS, text) for row, text in zip(rows, texts, strict=True)]
    insert_rows(warehouse, rows, payloads)
    with client_of(warehouse) as client:
        logs = list_logs(client, order_direction="asc")["logs"]
        first = get(client, f"/v1/request-logs/{row['request_id']}")
    for name in OBJECTS:
        assert [log[name] for log in logs] == [{"unreadable": text} for text in texts]
        assert first[name] == {"unreadable": texts[-1]}


def test_a_body_that_is_an_object_keeps_its_numbers_and_its_nesting(warehouse: Warehouse) -> None:
    deep: Any = {"big": 123456789012345678901234567890, "ratio": 1e308, "none": None, "é": ["😀", {}]}
    for _ in range(95):
        deep = {"a": [deep]}
    row = random_rows(seed=1, count=1)[0]
    insert_rows(warehouse, [row], [payload_of(row) | dict.fromkeys(OBJECTS, json.dumps(deep))])
    with client_of(warehouse) as client:
        [listed], found = list_logs(client)["logs"], get(client, f"/v1/request-logs/{row['request_id']}")
    for name in OBJECTS:
        assert listed[name] == found[name] == deep


def test_a_time_on_the_whole_second_has_its_microseconds_too(warehouse: Warehouse) -> None:
    moment = START.replace(microsecond=0)
    insert_rows(warehouse, [random_rows(seed=1, count=1)[0] | {"timestamp": moment, "created_at": moment}])
    with client_of(warehouse) as client:
        log = list_logs(client)["logs"][0]
    assert log["timestamp"] == log["created_at"] == "2026-01-30T21:07:03.000000Z"


def test_metadata_keeps_numbers_texts_that_look_like_dates_and_nesting(warehouse: Warehouse) -> None:
    metadata = {"big": 9007199254740993, "ratio": 0.1, "day": "2026-01-01", "deep": {"list": [1, "x"]}, "yes": True}
    insert_rows(warehouse, [random_rows(seed=1, count=1)[0] | {"metadata": metadata}])
    with client_of(warehouse) as client:
        assert list_logs(client)["logs"][0]["metadata"] == metadata


def test_each_of_two_rows_with_one_id_and_moment_has_its_own_payload(warehouse: Warehouse) -> None:
    row = random_rows(seed=1, count=1)[0]
    rows = [row | {"source_offset": number} for number in range(5)]
    insert_rows(warehouse, rows, [payload_of(row) for row in rows])
    with client_of(warehouse) as client:
        logs = list_logs(client, order_direction="asc", page_size=3)["logs"]
    assert [log["response_body_raw"] for log in logs] == [payload_of(row)["response_body_raw"] for row in rows[:3]]


def test_the_newest_log_of_an_id_is_found(client: TestClient) -> None:
    newest = {row["request_id"]: row for row in in_order(ROWS, order_direction="asc")}
    assert len(newest) < len(ROWS)
    for request_id, row in list(newest.items())[:20]:
        log = get(client, f"/v1/request-logs/{request_id}")
        assert (log.pop("cost_explanation") is None) == (row["cost"] is None)
        assert log.pop("unpriced_reason") == (why_unpriced(row) or None)
        assert log == expected_log(row)


STRANGE_IDS = [
    "a/b",
    "/",
    "stats/",
    "o'brien",
    'say "x"',
    "back\\slash",
    "Zoë 😀",
    "a?b=c&d#e",
    "100%",
    "{request_id:String}",
    "tab\there",
    "x" * 128,
    "' OR 1 = 1 --",
    "+ and space",
]


def test_ids_with_any_characters_are_found_and_near_misses_are_not(warehouse: Warehouse) -> None:
    rows = random_rows(seed=5, count=len(STRANGE_IDS))
    rows = [row | {"request_id": name} for row, name in zip(rows, STRANGE_IDS, strict=True)]
    insert_rows(warehouse, rows)
    with client_of(warehouse) as client:
        for name in STRANGE_IDS:
            assert get(client, f"/v1/request-logs/{quote(name, safe='')}")["request_id"] == name
            missing = client.get(f"/v1/request-logs/{quote(name + 'x', safe='')}")
            assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
        # Walked through one by one, each is a cursor too.
        assert {log["request_id"] for log in walk(client, page_size=1)} == set(STRANGE_IDS)


def test_logs_of_many_months_are_found_by_id(warehouse: Warehouse) -> None:
    rows = random_rows(seed=2, count=40, start=START - timedelta(days=700), span=timedelta(days=700))
    rows = [row | {"request_id": f"once-{number}"} for number, row in enumerate(rows)]
    insert_rows(warehouse, rows)
    with client_of(warehouse) as client:
        for row in rows[::4]:
            assert get(client, f"/v1/request-logs/{row['request_id']}")["id"] == id_of(row)
