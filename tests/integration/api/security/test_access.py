"""Scopes and row-level restriction, over every operation of the OpenAPI document."""

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient

from aggregator.clickhouse.client import DatabaseError, Warehouse
from aggregator.rollups.measures import ROLLUPS, Dimension
from aggregator.rollups.planner import Question, plan
from api.analytics.filters.fields import FIELDS, INTENTS, Field, FieldKind
from api.app import create_app
from api.live_usage.parameters import LiveParameters
from api.live_usage.routes import stream_live_usage
from api.live_usage.usage import live_usage
from api.mcp.catalogue import TOOLS
from api.security import permissions
from api.security.permissions import Caller, Permission, Restriction, Scope
from tests.support import mcp
from tests.support.api import KEY, client_as, client_of, filled_warehouse, get, reader_for, settings
from tests.support.connect import FORMS, SERVICES, path_of
from tests.support.rows import START, USERS, Row, random_rows

LOGS, STATS, LIVE = "/v1/request-logs", "/v1/request-logs/stats", "/v1/usage/live"
ONE_LOG = "/v1/request-logs/{request_id}"
OVERVIEW = "/api/public/v2/requests/analytics"
CHARTS = "/api/public/v2/requests/analytics/custom-analytics"
SEARCH, SUGGESTIONS = "/api/public/v2/requests/search", "/api/public/v2/requests/suggestions"

# What every operation asks of its caller; None is open to all.
RULES: dict[tuple[str, str], Permission | None] = {
    ("get", "/healthz"): None,
    ("get", "/readyz"): None,
    ("get", "/version"): None,
    ("get", LOGS): Permission.READ,
    ("get", ONE_LOG): Permission.READ,
    ("get", STATS): Permission.READ,
    ("get", "/v1/analytics/meta"): Permission.READ,
    ("post", CHARTS): Permission.READ,
    ("post", SEARCH): Permission.READ,
    ("get", SUGGESTIONS): Permission.READ,
    ("get", "/v1/budgets"): Permission.READ,
    ("put", "/v1/budgets/{budget_id}"): Permission.ADMIN,
    ("delete", "/v1/budgets/{budget_id}"): Permission.ADMIN,
    ("get", "/v1/alerts"): Permission.READ,
    ("get", LIVE): Permission.READ,
    ("get", "/v1/usage/live/stream"): Permission.READ,
    ("post", OVERVIEW): Permission.READ,
    ("post", "/v1/events"): Permission.SEND,
    ("get", "/v1/events/schema"): Permission.SEND,
    # The methods of the proto services, in every form in which they can be asked.
    **{(form, method): Permission.READ for form in FORMS for method in SERVICES},
    **{("mcp", tool.name): Permission.READ for tool in TOOLS},
}
CHART_GROUPS: list[dict[str, Any]] = [
    {},
    {"groupByField": "engine"},
    {"groupByField": "user_id"},
    {"groupByField": "tags"},
    {"groupByMetadataKey": "team"},
    {"timeSeries": True},
    {"timeSeries": True, "timeBucket": "day", "groupByField": "engine"},
]
OF_A_TAG = {"field": "tags", "operator": "contains", "value": "a"}


def _chart(**more: Any) -> dict[str, Any]:
    return {"id": "c", "chartType": "bar", "metric": "count"} | more


# Operations that answer from requests, with parameters for each: filters, groups, orders.
GROUPS = ("model", "user", "api_key", "status", "hour", "day")
QUERIES: dict[tuple[str, str], list[dict[str, Any]]] = {
    ("get", LOGS): [
        {},
        {"page_size": 7},
        {"user_id": "alice"},
        {"user_id": USERS[3]},
        {"api_key_id": "key-2", "order_by": "duration_ms"},
        {"model_name": "gpt-5", "order_by": "input_tokens", "order_direction": "asc"},
        {"status": "error", "min_duration_ms": 100},
        {"status_code": 429},
        {"start_time": "2026-01-31T00:00:00Z", "end_time": "2026-02-01T12:20:00Z"},
    ],
    ("get", ONE_LOG): [{"request_id": f"req-{number}"} for number in range(40)],
    ("get", STATS): [
        *({"group_by": group} for group in GROUPS),
        {"user_id": "alice", "group_by": "api_key", "metric": "cost"},
        {"user_id": USERS[3], "group_by": "user"},
        {"model_name": "gpt-5", "group_by": "status", "start_time": "2026-01-30T21:20:00Z"},
        {"group_by": "day", "timezone": "Asia/Kolkata", "end_time": "2026-02-01T00:00:00.5Z"},
    ],
    ("post", OVERVIEW): [{}],
    ("post", CHARTS): [
        {"customCharts": [_chart(id=f"c{n}", **more) for n, more in enumerate(CHART_GROUPS)]},
        {"customCharts": [_chart(**CHART_GROUPS[2])], "filter_group": {"filters": [OF_A_TAG]}},
    ],
    ("post", SEARCH): [
        {},
        {"page": 2, "per_page": 7, "sort_by": "cost", "sort_order": "asc"},
        {"filter_group": {"filters": [OF_A_TAG]}},
        {"filter_group": {"filters": [OF_A_TAG]}, "page": 3, "sort_by": "request_start_time", "sort_order": "asc"},
    ],
    ("get", SUGGESTIONS): [
        *({"field": name} for name in ("engine", "provider_type", "status", "tags", "metadata_keys", "prompt")),
        {"field": "metadata_values", "metadata_key": "team", "prefix": "S"},
        {"field": "engine", "filter_group": json.dumps({"filters": [OF_A_TAG]})},
    ],
    ("get", LIVE): [
        {},
        {"scope": "user", "value": "alice"},
        {"scope": "user", "value": USERS[3]},
        {"scope": "model", "value": "gpt-5"},
        {"scope": "api_key", "value": "key-2"},
        {"scope": "tag", "value": "a"},
    ],
}
QUERIES |= {(form, "QueryRequestLogs"): QUERIES["get", LOGS][1:6] for form in FORMS}
QUERIES |= {(form, "GetRequestLog"): QUERIES["get", ONE_LOG][:4] for form in FORMS}
QUERIES |= {(form, "GetRequestLogStats"): QUERIES["get", STATS][1:8:3] for form in FORMS}
ALL_OF_IT = {"period": "2026-01-30/2026-02-04"}
QUERIES |= {
    ("mcp", "describe_data"): [{"values_of": name} for name in ("engine", "tags", "metadata.team")],
    ("mcp", "aggregate"): [
        ALL_OF_IT | {"metrics": ["cost", "errors", "unpriced", "p95:latency_ms"], "group_by": ["engine"]},
        ALL_OF_IT | {"metrics": ["requests"], "group_by": ["user_id", "day"], "timezone": "Asia/Kolkata"},
        {"metrics": ["input_tokens", "distinct:team"], "group_by": ["tags", "api_key_id"], "period": "last_7_days"},
    ],
    ("mcp", "compare_periods"): [
        {"period": "2026-02-01/2026-02-04"},
        {"period": "this_month", "group_by": ["tags", "metadata.team", "api_key_id"], "metric": "errors"},
    ],
    ("mcp", "find_requests"): [
        ALL_OF_IT | {"limit": 7},
        {"sort_by": "cost", "page": 2, "filters": [OF_A_TAG]},
    ],
    ("mcp", "explain_request"): QUERIES["get", ONE_LOG][:4],
}
CUSTOMERS = "ListCustomerRequestLogs"
# Operations that say the same to everybody, or only whether something was done.
WITHOUT_ROWS = {
    ("get", "/healthz"),
    ("get", "/readyz"),
    ("get", "/version"),
    ("get", "/v1/analytics/meta"),
    ("post", "/v1/events"),
    ("get", "/v1/events/schema"),
    ("put", "/v1/budgets/{budget_id}"),
    ("delete", "/v1/budgets/{budget_id}"),
}
# Operations whose answers are no rows of requests, or never end: the test that holds each to the caller's restriction.
ELSEWHERE = {
    ("get", "/v1/budgets"): ("budgets/test_routes.py", "test_a_confined_caller_sees_budgets_of_their_own_only"),
    ("get", "/v1/alerts"): ("budgets/test_routes.py", "test_alerts_are_stored_once_and_listed_newest_first"),
    ("get", "/v1/usage/live/stream"): (
        "security/test_access.py",
        "test_a_stream_of_usage_begins_as_the_usage_of_one_moment",
    ),
    **{
        ("mcp", tool): ("mcp/test_tools.py", "test_budgets_alerts_prices_and_freshness_are_the_callers_own")
        for tool in ("budgets_and_alerts", "model_prices")
    },
    **{(form, CUSTOMERS): ("connect/test_methods.py", "test_a_customer_sees_the_logs_of_their_user") for form in FORMS},
}

# The stream has no end, so it is asked for something that there is not.
QUERY_OF = {ONE_LOG: {"request_id": "req-1"}, "/v1/usage/live/stream": {"value": "of the total"}}

RESTRICTIONS = {
    "a user": Restriction(user_id="alice"),
    "a user whose name needs quoting": Restriction(user_id=USERS[3]),
    "a user of another script": Restriction(user_id=USERS[4]),
    "a user with control characters": Restriction(user_id=USERS[6]),
    "api keys": Restriction(api_key_ids=("key-1", "key-3", "it's \\ 'quoted'")),
    "keys of a user": Restriction("bob", ("key-2",)),
    "nobody": Restriction(user_id="' OR 1 OR '"),
}


def is_theirs(row: Row, restriction: Restriction) -> bool:
    by_user = restriction.user_id is None or row["user_id"] == restriction.user_id
    return by_user and (not restriction.api_key_ids or row["api_key_id"] in restriction.api_key_ids)


def reader_of(restriction: Restriction | None = None, *scopes: Scope) -> Caller:
    return Caller("test", frozenset(scopes or {Scope.READ}), restriction)


def ask(client: TestClient, method: str, path: str, query: Mapping[str, Any]) -> Any:
    """(status, JSON) of an answer; a path takes its own parameters from the query."""
    given = dict(query)
    if method in FORMS:
        return FORMS[method](client, path, given)[:2]
    if method == "mcp":
        status, answer = mcp.call(client, path, given)
        if "how" in answer:
            del answer["how"]["read_from"]  # a restricted caller's rollup is another one
        return status, answer
    for name in [name for name in query if f"{{{name}}}" in path]:
        path = path.replace(f"{{{name}}}", quote(str(given.pop(name)), safe=""))
    response = client.post(path, json=given) if method == "post" else client.request(method, path, params=given)
    return response.status_code, response.json()


ROWS = random_rows(seed=7, count=400)
# Ten minutes after a moment at which many rows are (tests/support/rows.py).
MOMENT = START + timedelta(days=1.5, minutes=10)


@pytest.fixture(autouse=True)
def at_one_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Live usage is that of the same hour, in each answer that is compared."""

    class Then(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]  # the parent promises a Then
            return MOMENT

    monkeypatch.setattr("api.live_usage.usage.datetime", Then)
    monkeypatch.setattr("api.live_usage.routes.datetime", Then)
    monkeypatch.setattr("api.mcp.protocol.datetime", Then)


@pytest.fixture(scope="module")
def full(engine_url: str) -> Iterator[Warehouse]:
    with filled_warehouse(engine_url, ROWS) as warehouse:
        yield warehouse


def test_every_operation_has_a_rule(full: Warehouse) -> None:
    with client_of(full) as client:
        document = get(client, "/openapi.json")
        tools = mcp.post(client, "tools/list", {}).json()["result"]["tools"]
    operations = {(method, path) for path, methods in document["paths"].items() for method in methods}
    operations |= {(form, method) for form in FORMS for method in SERVICES}
    operations |= {("mcp", tool["name"]) for tool in tools}
    assert operations == set(RULES)
    # And whose answers hold rows is asked with and without a restriction, here or elsewhere.
    assert sorted([*QUERIES, *WITHOUT_ROWS, *ELSEWHERE]) == sorted(operations)
    for file, name in ELSEWHERE.values():
        assert f"def {name}(" in (Path(__file__).parents[1] / file).read_text()


def test_no_route_hides_from_the_document(full: Warehouse) -> None:
    """What is served beside the routers of the resources is the reference; these leave no route out of the document,
    except for the methods of the proto services and the one endpoint of MCP."""
    app = create_app(settings(), full)
    own = [route for route in app.routes if not hasattr(route, "original_router")]
    assert sorted(getattr(route, "path", "") for route in own) == ["/docs", "/docs/assets", "/openapi.json"]
    routers = [route.original_router for route in app.routes if hasattr(route, "original_router")]
    hidden = [route.path for router in routers for route in router.routes if not route.include_in_schema]
    assert sorted(hidden) == sorted([mcp.PATH, *map(path_of, SERVICES)])


# What docs/security.md says of each scope.
MAY = {
    Scope.ADMIN: {Permission.READ, Permission.CONTENT, Permission.SEND, Permission.ADMIN},
    Scope.READ: {Permission.READ, Permission.CONTENT},
    Scope.READ_NO_BODIES: {Permission.READ},
    Scope.INGEST: {Permission.SEND},
}


@pytest.mark.parametrize("scope", Scope)
def test_a_scope_opens_what_it_names_and_nothing_else(full: Warehouse, scope: Scope) -> None:
    assert permissions.PERMISSIONS[scope] == MAY[scope]
    with client_as(full, reader_of(None, scope)) as client:
        for (method, path), permission in RULES.items():
            if path == CUSTOMERS:
                continue  # below, as it takes a restricted key
            status, body = ask(client, method, path, QUERY_OF.get(path, {}))
            is_refused = status == 403
            assert is_refused is (permission is not None and permission not in MAY[scope]), (method, path, body)
            if is_refused:
                assert body.get("code") in ("forbidden", "permission_denied") or body["success"] is False


@pytest.mark.parametrize("scope", Scope)
def test_a_scope_opens_the_logs_of_a_customer_if_it_may_read(full: Warehouse, scope: Scope) -> None:
    with client_as(full, reader_of(RESTRICTIONS["a user"], scope)) as client:
        for form in FORMS:
            status, _ = ask(client, form, CUSTOMERS, {})
            assert status == (200 if RULES[form, CUSTOMERS] in MAY[scope] else 403)


def test_scopes_add_up(full: Warehouse) -> None:
    with client_as(full, reader_of(None, Scope.INGEST, Scope.READ_NO_BODIES)) as client:
        assert ask(client, "get", LOGS, {})[0] == 200
        assert ask(client, "get", "/v1/events/schema", {})[0] == 503


@pytest.mark.parametrize("header", ["X-API-KEY", "x-api-key", "X-Api-Key"])
def test_a_key_may_come_in_a_header_of_its_own(full: Warehouse, header: str) -> None:
    with client_of(full) as client:
        del client.headers["Authorization"]
        assert client.get(LOGS).status_code == 401
        assert client.get(LOGS, headers={header: "ak-other"}).status_code == 200
        assert client.get(LOGS, headers={header: "ak-wrong"}).status_code == 401
        both = {header: "ak-other", "Authorization": "Bearer ak-wrong"}
        assert client.get(LOGS, headers=both).status_code == 401


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([("Authorization", f"Bearer {KEY}"), ("X-API-KEY", "ak-other")], 401),
        ([("Authorization", f"Bearer {KEY}"), ("Authorization", f"Bearer {KEY}")], 401),
        ([("X-API-KEY", KEY), ("X-API-KEY", "ak-other")], 401),
        ([("Authorization", f"Bearer {KEY}"), ("X-API-KEY", KEY)], 200),
    ],
)
def test_a_request_carries_one_key(full: Warehouse, headers: list[tuple[str, str]], status: int) -> None:
    """Otherwise a proxy that adds one, and this service, might each take another for the caller."""
    with client_of(full) as client:
        del client.headers["Authorization"]
        assert client.get(LOGS, headers=headers).status_code == status


@pytest.mark.parametrize("restriction", RESTRICTIONS.values(), ids=list(RESTRICTIONS))
def test_a_confined_caller_sees_a_world_that_holds_only_their_rows(
    engine_url: str, full: Warehouse, restriction: Restriction
) -> None:
    """Every answer is the one that an unconfined caller gets from a database with only these rows: same logs,
    sums, groups, counts, pages, and 404 for everybody else's ids."""
    theirs = [row for row in ROWS if is_theirs(row, restriction)]
    with ExitStack() as stack:
        confined = stack.enter_context(client_as(full, reader_of(restriction)))
        small = stack.enter_context(filled_warehouse(engine_url, theirs))
        alone = stack.enter_context(client_as(small, reader_of()))
        for (method, path), queries in QUERIES.items():
            for query in queries:
                expected = ask(alone, method, path, query)
                assert ask(confined, method, path, query) == expected, (path, query)
                assert expected[0] in (200, 404)


def test_the_restriction_test_can_fail(full: Warehouse) -> None:
    """The queries above do tell rows of others apart."""
    with client_of(full) as everybody, client_as(full, reader_of(Restriction(user_id="alice"))) as confined:
        for (method, path), queries in QUERIES.items():
            assert any(ask(everybody, method, path, q) != ask(confined, method, path, q) for q in queries), path


async def test_a_stream_of_usage_begins_as_the_usage_of_one_moment(full: Warehouse) -> None:
    parameters = LiveParameters()

    async def still_allowed() -> bool:
        return True

    for restriction in (None, *RESTRICTIONS.values()):
        reader = reader_for(full, reader_of(restriction))
        stream = stream_live_usage(parameters, reader, still_allowed)
        assert await anext(aiter(stream)) == live_usage(reader, parameters)


def test_a_page_token_of_somebody_else_shows_no_rows_of_theirs(full: Warehouse) -> None:
    with client_of(full) as everybody, client_as(full, reader_of(Restriction(user_id="alice"))) as confined:
        token = get(everybody, LOGS, page_size=5)["next_page_token"]
        logs = get(confined, LOGS, page_size=1000, page_token=token)["logs"]
    assert {log["user_id"] for log in logs} <= {"alice"}


FORGOTTEN = {
    "plain": "SELECT count() AS n FROM request_logs",
    "the database named": "SELECT count() AS n FROM {database}.request_logs",
    "alias": "SELECT count() AS n FROM request_logs AS everything",
    "alias of another table": "SELECT sum(requests) AS n FROM rollup_user AS rollup_generations",
    "subquery": "SELECT count() AS n FROM (SELECT 1 FROM request_logs LIMIT 100000)",
    "common table expression": "WITH found AS (SELECT user_id FROM request_logs) SELECT count() AS n FROM found",
    "scalar": "SELECT (SELECT count() FROM request_logs) AS n",
    "IN": "SELECT count() AS n FROM request_logs WHERE request_id IN (SELECT request_id FROM request_logs)",
    "join": "SELECT uniqExact(a.source_offset, a.source_partition, b.source_offset, b.source_partition) AS n"
    " FROM request_logs AS a JOIN request_logs AS b USING (source_partition, source_offset)",
    "union": "SELECT sum(m) AS n FROM (SELECT count() AS m FROM request_logs"
    " UNION ALL SELECT count() FROM request_logs WHERE 0)",
    "final": "SELECT sum(requests) AS n FROM rollup_user FINAL",
    "rollup": "SELECT sum(requests) AS n FROM rollup_user",
    "payloads": "SELECT count() AS n FROM request_payloads",
    "payloads by text": "SELECT count() AS n FROM request_payloads WHERE request_body LIKE '%row%'",
    "prewhere": "SELECT count() AS n FROM request_logs PREWHERE status != ''",
}


@pytest.mark.parametrize("sql", FORGOTTEN.values(), ids=list(FORGOTTEN))
@pytest.mark.parametrize("restriction", [RESTRICTIONS["a user whose name needs quoting"], RESTRICTIONS["api keys"]])
def test_a_query_that_forgets_the_restriction_is_confined_all_the_same(
    full: Warehouse, sql: str, restriction: Restriction
) -> None:
    found = reader_for(full, reader_of(restriction)).query(sql.format(database=full.database), {})[0]["n"]
    assert found == sum(is_theirs(row, restriction) for row in ROWS) > 0


def test_the_smallest_and_largest_come_from_their_own_rows(full: Warehouse) -> None:
    """ClickHouse answers these from the borders of its parts when it may."""
    restriction = RESTRICTIONS["keys of a user"]
    reader = reader_for(full, reader_of(restriction))
    sql = "SELECT toUnixTimestamp64Micro(min(timestamp)) AS low, toUnixTimestamp64Micro(max(timestamp)) AS high"
    moments = [int(row["timestamp"].timestamp() * 1_000_000 + 0.5) for row in ROWS if is_theirs(row, restriction)]
    assert reader.query(f"{sql} FROM request_logs", {}) == [{"low": min(moments), "high": max(moments)}]


def test_a_rollup_that_cannot_be_confined_refuses_instead_of_answering(full: Warehouse) -> None:
    reader = reader_for(full, reader_of(Restriction(user_id="alice")))
    for rollup in ROLLUPS:
        if Dimension.USER not in rollup.dimensions:
            with pytest.raises(DatabaseError, match="cannot be confined"):
                reader.query(f"SELECT sum(requests) FROM {rollup.table}", {})


def test_the_planner_takes_a_rollup_that_knows_whose_the_requests_are(full: Warehouse) -> None:
    reader = reader_for(full, reader_of(Restriction(user_id="alice")))
    assert (chosen := plan(Question(())).rollup) is not None
    assert chosen.table == "rollup_model"
    assert (chosen := plan(reader.confine(Question(()))).rollup) is not None
    assert chosen.table == "rollup_user"


def test_every_table_has_a_rule(full: Warehouse) -> None:
    names = full.query(
        "SELECT name FROM system.tables WHERE database = {database:String} AND engine NOT IN ('MaterializedView')",
        {"database": full.database},
    )
    ruled = {
        *permissions.CONFINED_TABLES,
        *permissions.CLOSED_TABLES,
        *permissions.SHARED_TABLES,
        *permissions.OPEN_TABLES,
        *(rollup.table for rollup in ROLLUPS),
    }
    assert {row["name"] for row in names} == ruled


def test_who_may_not_see_bodies_gets_none(full: Warehouse) -> None:
    content = ("response_body_raw", "error_message")
    objects = (
        "request_headers", "request_body", "response_headers", "response_body", "llm_parameters", "input_variables",
    )  # fmt: skip
    with client_of(full) as everything, client_as(full, reader_of(None, Scope.READ_NO_BODIES)) as client:
        seen, all_of_it = (get(one, LOGS, page_size=1000)["logs"] for one in (client, everything))
        assert any(log["error_message"] for log in all_of_it)
        hidden = dict.fromkeys(content, "") | dict.fromkeys(objects)
        assert seen == [log | hidden for log in all_of_it]
        one = get(client, f"{LOGS}/{seen[0]['request_id']}")
        assert {name: one[name] for name in hidden} == hidden


# Pieces of what rows hold in each place that is content (tests/support/rows.py).
CONTENT = ("it broke", "plain ", "x-row", "data: ", "temperature", '"row"')


def test_no_answer_holds_content_for_who_may_not_see_it(full: Warehouse) -> None:
    """Over every operation that answers from requests, so that a new one is held to it too."""
    told = {True: "", False: ""}
    with client_of(full) as everything, client_as(full, reader_of(None, Scope.READ_NO_BODIES)) as client:
        for (method, path), queries in QUERIES.items():
            for query in queries:
                status, answer = ask(client, method, path, query)
                assert status in (200, 404), (path, query)
                told[False] += json.dumps(answer)
                told[True] += json.dumps(ask(everything, method, path, query)[1])
    assert [word for word in CONTENT if word not in told[True]] == []
    assert [word for word in CONTENT if word in told[False]] == []


def _asks(field: Field, operator: str) -> dict[str, Any]:
    """A filter of this field and operator that is well-formed."""
    words = INTENTS.get(field.name, ("x",))
    value: Any = list(words[:1]) if operator in ("in", "not_in") else words[0]
    tree = {"field": field.name, "operator": operator}
    if field.kind is FieldKind.NESTED:
        tree["nested_key"] = "a"
    return tree if operator in ("is_empty", "is_not_empty") else tree | {"value": value}


CONTENT_FIELDS = [field for field in FIELDS if field.is_content]


@pytest.mark.parametrize("field", CONTENT_FIELDS, ids=lambda field: field.name)
def test_who_may_not_see_content_may_not_ask_about_it_either(full: Warehouse, field: Field) -> None:
    """A filter, a group or a suggestion tells the text one question at a time."""
    with client_as(full, reader_of()) as reads, client_as(full, reader_of(None, Scope.READ_NO_BODIES)) as client:
        chart = {"customCharts": [_chart()]}
        asked: list[tuple[str, str, dict[str, Any]]] = []
        for operator in field.operators:
            for tree in ([_asks(field, operator)], [{"logic": "OR", "filters": [_asks(field, operator)]}]):
                group = {"filter_group": {"logic": "AND", "filters": tree}}
                asked += [("post", SEARCH, group), ("post", CHARTS, group | chart)]
                asked.append(
                    ("get", SUGGESTIONS, {"field": "engine", "filter_group": json.dumps(group["filter_group"])})
                )
        if field.can_group:
            asked += [
                ("post", CHARTS, {"customCharts": [_chart(groupByField=field.name)]}),
                ("get", SUGGESTIONS, {"field": field.name}),
            ]
        for method, path, query in asked:
            assert ask(client, method, path, query)[0] == 403, query
        # The question itself is a good one.
        for method, path, query in asked[:3] + asked[-2:]:
            assert ask(reads, method, path, query)[0] == 200, query


def test_the_overview_tells_no_keys_that_models_wrote(warehouse: Warehouse) -> None:
    insert = "INSERT INTO request_logs (timestamp, request_id, output) SELECT now64(6), 'r', '{\"diagnosis\": \"flu\"}'"
    warehouse.command(insert)
    with (
        client_as(warehouse, reader_of()) as reads,
        client_as(warehouse, reader_of(None, Scope.READ_NO_BODIES)) as other,
    ):
        assert [found["key"] for found in ask(reads, "post", OVERVIEW, {})[1]["outputKeysTop"]] == ["diagnosis"]
        status, seen = ask(other, "post", OVERVIEW, {})
    assert (status, seen["totalRequests"], seen["outputKeysTop"]) == (200, 1, [])
    assert "diagnosis" not in json.dumps(seen)


def test_every_content_column_is_a_content_field() -> None:
    payload = {"input_text", "output_text"}
    assert {field.name for field in FIELDS if field.column in {*permissions.CONTENT_COLUMNS, *payload}} == {
        field.name for field in CONTENT_FIELDS
    }
