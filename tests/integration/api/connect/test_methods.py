"""The methods of the proto services answer what the REST routes answer, in every form in which they can be asked."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from aggregator.clickhouse.client import Warehouse
from api.connect.messages import MAX_LEVELS
from api.security.permissions import Restriction, Scope
from tests.integration.api.security.test_access import reader_of
from tests.support.api import client_as, client_of, filled_warehouse, get, id_of, in_order, rfc3339, walk
from tests.support.connect import FORMS, Answer, answered_of, as_proto_json, ask_json, message_of, path_of
from tests.support.rows import USERS, insert_rows, payload_of, random_rows

ROWS = random_rows(seed=23, count=120)
OF_A_USER = next(row for row in ROWS if row["user_id"])
LOGS, STATS = "/v1/request-logs", "/v1/request-logs/stats"
QUERIES: list[dict[str, Any]] = [
    {},
    {"page_size": 7},
    {"page_size": 1000, "order_by": "duration_ms", "order_direction": "asc"},
    {"page_size": 1000, "order_by": "input_tokens"},
    {"user_id": USERS[3], "page_size": 20},
    {"api_key_id": "key-2", "model_name": ROWS[0]["model_name"]},
    {"status": "error", "min_duration_ms": 100},
    {"status_code": 429, "max_duration_ms": 4_000_000_000},
    {"start_time": "2026-01-31T05:30:00.000001+05:30", "end_time": "2026-02-01T12:20:00Z"},
]
STATS_QUERIES: list[dict[str, Any]] = [
    *({"group_by": group} for group in ("model", "user", "api_key", "status", "hour", "day")),
    *({"metric": metric} for metric in ("count", "tokens", "cost", "latency", "errors")),
    {
        "user_id": OF_A_USER["user_id"],
        "model_name": OF_A_USER["model_name"],
        "group_by": "day",
        "start_time": rfc3339(OF_A_USER["timestamp"]),
    },
]


@pytest.fixture(scope="module")
def warehouse(engine_url: str) -> Iterator[Warehouse]:
    with filled_warehouse(engine_url, ROWS) as warehouse:
        yield warehouse


@pytest.fixture(scope="module")
def client(warehouse: Warehouse) -> Iterator[TestClient]:
    with client_of(warehouse) as client:
        yield client


def answer_of(answer: Answer) -> Any:
    assert answer.status == 200, answer.body
    return answer.body


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("query", QUERIES, ids=str)
def test_a_query_answers_what_rest_answers(client: TestClient, form: str, query: dict[str, Any]) -> None:
    expected = as_proto_json("QueryRequestLogsResponse", get(client, LOGS, **query))
    assert answer_of(FORMS[form](client, "QueryRequestLogs", query)) == expected


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("query", STATS_QUERIES, ids=str)
def test_statistics_are_those_of_rest(client: TestClient, form: str, query: dict[str, Any]) -> None:
    expected = as_proto_json("GetRequestLogStatsResponse", get(client, STATS, **query))
    assert expected["stats"]
    assert answer_of(FORMS[form](client, "GetRequestLogStats", query)) == expected


@pytest.mark.parametrize("form", FORMS)
def test_one_log_is_that_of_rest(client: TestClient, form: str) -> None:
    for row in ROWS[:20]:
        expected = as_proto_json("RequestLog", get(client, f"{LOGS}/{row['request_id']}"))
        answer = answer_of(FORMS[form](client, "GetRequestLog", {"request_id": row["request_id"]}))
        assert answer == {"log": expected}


@pytest.mark.parametrize("form", FORMS)
def test_pages_hold_every_log_once(client: TestClient, form: str) -> None:
    ids, token = [], ""
    for _ in range(len(ROWS)):
        page = answer_of(FORMS[form](client, "QueryRequestLogs", {"page_size": 50, "page_token": token}))
        ids += [log["id"] for log in page["logs"]]
        token = page.get("next_page_token", "")
        if not token:
            break
    assert ids == [id_of(row) for row in in_order(ROWS)]


def test_a_page_token_of_rest_goes_on_here_and_the_other_way_round(client: TestClient) -> None:
    first = get(client, LOGS, page_size=30)["next_page_token"]
    page = answer_of(ask_json(client, "QueryRequestLogs", {"page_size": 30, "page_token": first}))
    third = get(client, LOGS, page_size=30, page_token=page["next_page_token"])["logs"]
    assert [log["id"] for log in third] == [id_of(row) for row in in_order(ROWS)[60:90]]


def test_money_and_times_are_exact_and_unknown_is_not_zero(client: TestClient) -> None:
    """Seen in the bytes, as any reader of ProtoJSON gets them."""
    response = client.post(path_of("QueryRequestLogs"), json={"page_size": 1000})
    logs = {log["id"]: log for log in response.json()["logs"]}
    costs = ("input_tokens_cost", "output_tokens_cost", "cached_input_tokens_cost", "cache_creation_input_tokens_cost")
    tokens = ("input_tokens", "output_tokens", "cached_input_tokens", "cache_creation_input_tokens")
    message = message_of("RequestLog")
    names = {field.name: field.json_name for field in message.DESCRIPTOR.fields}
    for row in ROWS:
        log = logs[id_of(row)]
        for name in costs:
            assert log.get(names[name]) == (None if row[name] is None else f"{row[name]:.12f}")
        for name in tokens:
            assert log.get(names[name]) == (None if row[name] is None else str(row[name]))
        given = message_of("RequestLog", {"timestamp": log["timestamp"]})
        assert given == message_of("RequestLog", {"timestamp": rfc3339(row["timestamp"])})
    assert any(row["input_tokens"] == 0 for row in ROWS)
    assert any(row["input_tokens_cost"] is None for row in ROWS)


def test_an_answer_holds_nothing_but_what_the_proto_has(client: TestClient) -> None:
    """Strict readers, as they all are by default, refuse anything else; these parse without leave to ignore."""
    for method, query in (
        ("QueryRequestLogs", {"page_size": 1000}),
        ("GetRequestLog", {"request_id": ROWS[0]["request_id"]}),
        ("GetRequestLogStats", {"group_by": "hour"}),
    ):
        answer = client.post(path_of(method), json=query).json()
        assert message_of(answered_of(method), answer).ByteSize() > 0
        assert message_of(answered_of(method)).ParseFromString(
            message_of(answered_of(method), answer).SerializeToString()
        )


@pytest.mark.parametrize("form", FORMS)
def test_zero_values_that_a_client_writes_out_are_no_filters(client: TestClient, form: str) -> None:
    zero = {"user_id": "", "api_key_id": "", "model_name": "", "status": "", "status_code": 0, "page_token": ""}
    zero |= {"min_duration_ms": 0, "max_duration_ms": 0, "page_size": 0, "order_by": "", "order_direction": ""}
    expected = as_proto_json("QueryRequestLogsResponse", get(client, LOGS))
    assert answer_of(FORMS[form](client, "QueryRequestLogs", zero)) == expected


def test_names_may_be_those_of_the_proto_or_of_json(client: TestClient) -> None:
    both = [{"page_size": 3, "order_by": "duration_ms"}, {"pageSize": 3, "orderBy": "duration_ms"}]
    answers = [client.post(path_of("QueryRequestLogs"), json=query).json() for query in both]
    assert answers[0] == answers[1]
    assert len(answers[0]["logs"]) == 3


def test_a_customer_sees_the_logs_of_their_user(warehouse: Warehouse) -> None:
    restriction = Restriction(user_id=USERS[3])
    with client_as(warehouse, reader_of(restriction)) as confined, client_of(warehouse) as everybody:
        expected = as_proto_json(
            "ListCustomerRequestLogsResponse", get(everybody, LOGS, user_id=USERS[3], page_size=100)
        )
        for ask in FORMS.values():
            assert answer_of(ask(confined, "ListCustomerRequestLogs", {"page_size": 100})) == expected
        assert len(expected["logs"]) == sum(row["user_id"] == USERS[3] for row in ROWS) > 0


@pytest.mark.parametrize("restriction", [None, Restriction(api_key_ids=("key-1",))])
def test_a_key_of_no_user_is_no_customer(warehouse: Warehouse, restriction: Restriction | None) -> None:
    with client_as(warehouse, reader_of(restriction)) as client:
        for ask in FORMS.values():
            answer = ask(client, "ListCustomerRequestLogs", {})
            assert (answer.status, answer.body["code"]) == (403, "permission_denied")
            assert "confined to a user" in answer.body["message"]


def test_a_customer_may_not_name_a_user(warehouse: Warehouse) -> None:
    with client_as(warehouse, reader_of(Restriction(user_id="alice"))) as client:
        answer = ask_json(client, "ListCustomerRequestLogs", {"user_id": "bob"})
        assert (answer.status, answer.body["code"]) == (400, "invalid_argument")


def nested(levels: int, leaf: str = "1") -> str:
    return '{"a":' * levels + leaf + "}" * levels


STRANGE = {
    "no JSON": "data: [DONE]",
    "a list": "[1]",
    "large integers": '{"a":' + "9" * 30 + "}",
    "an integer past the largest double": '{"a":{"b":' + "9" * 400 + "}}",
    "a number past the largest double": '{"a":1e400}',
    "as deep as may be": nested(MAX_LEVELS),
    "deeper": nested(MAX_LEVELS + 1),
    "deep lists": '{"a":' + "[" * 60 + "]" * 60 + "}",
    "very deep": nested(150),
    "NUL and emoji": '{"a\\u0000":"\\u0000 \\ud83d\\ude00"}',
    "half a character": '{"a":"\\ud800"}',
    "twice": '{"a":1,"a":2}',
    "empty": "{}",
    "nulls": '{"a":null,"b":[null,true,"",0.1,{}]}',
}


def test_a_body_that_is_strange_hides_no_other_log(warehouse: Warehouse, engine_url: str) -> None:
    """Bodies are what anybody sent. Each page is read by every reader, whatever the bodies on it."""
    rows = random_rows(seed=3, count=len(STRANGE))
    with filled_warehouse(engine_url, []) as warehouse, client_of(warehouse) as client:
        payloads = [payload_of(row) for row in rows]
        for payload, text in zip(payloads, STRANGE.values(), strict=True):
            payload["request_body"] = payload["response_body"] = payload["request_headers"] = text
        insert_rows(warehouse, rows, payloads)
        rest = {log["id"]: log for log in walk(client)}
        for form, ask in FORMS.items():
            answer = answer_of(ask(client, "QueryRequestLogs", {"page_size": 1000}))
            logs = {log["id"]: log for log in answer["logs"]}
            assert set(logs) == {id_of(row) for row in rows}, form
            for row, (name, text) in zip(rows, STRANGE.items(), strict=True):
                log = logs[id_of(row)]
                if name in ("an integer past the largest double", "deeper", "deep lists", "very deep"):
                    [(key, found)] = log["request_body"].items()
                    assert (key, json.loads(found)) == ("unreadable", json.loads(text)), name
                elif name == "large integers":
                    assert log["request_body"] == {"a": 1e30}
                else:
                    assert log["request_body"] == rest[id_of(row)]["request_body"], name
                assert log["request_body"] == log["response_body"] == log["request_headers"], name


def test_who_may_not_see_bodies_gets_none_here_either(warehouse: Warehouse) -> None:
    content = {"request_headers", "request_body", "response_headers", "response_body", "response_body_raw"}
    content |= {"llm_parameters"}
    with client_as(warehouse, reader_of(None, Scope.READ_NO_BODIES)) as client, client_of(warehouse) as everything:
        for ask in FORMS.values():
            seen = answer_of(ask(client, "QueryRequestLogs", {"page_size": 1000}))["logs"]
            all_of_it = answer_of(ask(everything, "QueryRequestLogs", {"page_size": 1000}))["logs"]
            assert all(log["request_body"] and log["llm_parameters"] for log in all_of_it)
            assert seen == [{name: log[name] for name in log if name not in content} for log in all_of_it]
