"""A confined caller and all that can be asked: every field with every operator, group, metric, order, suggestion and
word. Each answer is that of a database which holds only the caller's rows."""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from starlette.testclient import TestClient

from aggregator.clickhouse.client import Warehouse
from api.analytics.charts.request import HIERARCHIES, ChartMetric, ChartType, TimeBucket
from api.analytics.filters.fields import FIELDS, GROUP_FIELDS, INTENTS, METRIC_FIELDS, Field, FieldKind
from api.analytics.request import SortBy, SortOrder
from api.analytics.suggestions.parameters import NESTED, SuggestedField
from api.request_logs.parameters import GroupBy, OrderBy, OrderDirection, StatsMetric
from api.security.permissions import Restriction
from tests.integration.api.security.test_access import (
    CHARTS,
    LOGS,
    OVERVIEW,
    SEARCH,
    STATS,
    SUGGESTIONS,
    ask,
    is_theirs,
    reader_of,
)
from tests.support.api import client_as, client_of, filled_warehouse, walk
from tests.support.rows import random_rows

ROWS = random_rows(seed=11, count=300)
# Both columns, so that an answer which forgets either is seen; test_access.py has each alone.
RESTRICTION = Restriction('o\'brien "x" \\ y', ("key-1", "key-3"))
THEIRS = [row for row in ROWS if is_theirs(row, RESTRICTION)]
# What the rows of tests lack; the same for a row wherever it is.
DERIVED = (
    """
    ALTER TABLE request_logs UPDATE is_json = source_offset % 2, is_tool_call = source_offset % 3 = 0,
    is_plain_text = source_offset % 5 = 0, output = if(source_offset % 2, '{"a":["x"]}', '{"b":["y"]}'),
    output_keys = [if(source_offset % 2, 'a', 'b')], variables = if(source_offset % 3 = 0, '{"b":["y"]}', '{}'),
    input_variable_keys = if(source_offset % 3 = 0, ['b'], []),
    prompt_name = if(source_offset % 2, 'greeting', 'other'),
    user_intent = if(source_offset % 4 = 0, 'frustrated', ''), agent_intent = if(source_offset % 3 = 0, 'refusal', '')
    WHERE 1 SETTINGS mutations_sync = 1
    """,
    """
    ALTER TABLE request_payloads
    UPDATE input_text = concat('refund of order ', if(source_offset % 2, 'seven', 'eight')),
    output_text = concat('policy ', toString(source_offset % 7)) WHERE 1 SETTINGS mutations_sync = 1
    """,
)


class Worlds(NamedTuple):
    """A confined caller, one alone with the same rows, and one who sees everything."""

    confined: TestClient
    alone: TestClient
    everybody: TestClient

    def check(self, method: str, path: str, *queries: dict[str, Any]) -> None:
        """The first two are answered alike, and the third differently by one of the questions at least."""
        answers = []
        for query in queries:
            status, expected = ask(self.alone, method, path, query)
            assert status == 200, (query, expected)
            assert ask(self.confined, method, path, query) == (status, expected), query
            answers.append((query, expected))
        told = (ask(self.everybody, method, path, query)[1] != expected for query, expected in answers)
        assert any(told), f"{path}: none of these questions tells the rows of others apart"


def derived(warehouse: Warehouse) -> Warehouse:
    for statement in DERIVED:
        warehouse.command(statement)
    return warehouse


@pytest.fixture(scope="module")
def full(engine_url: str) -> Iterator[Warehouse]:
    with filled_warehouse(engine_url, ROWS) as warehouse:
        yield derived(warehouse)


@pytest.fixture(scope="module")
def worlds(engine_url: str, full: Warehouse) -> Iterator[Worlds]:
    with (
        filled_warehouse(engine_url, THEIRS) as small,
        client_as(full, reader_of(RESTRICTION)) as confined,
        client_as(derived(small), reader_of()) as alone,
        client_of(full) as everybody,
    ):
        yield Worlds(confined, alone, everybody)


def test_there_is_something_to_tell_apart() -> None:
    assert 15 < len(THEIRS) < len(ROWS) / 5


# A value that some rows have, of theirs and of others.
VALUES: dict[str, Any] = {
    "pl_id": ROWS[0]["request_id"],
    "prompt_id": "17",
    "engine": "gpt-5",
    "provider_type": "openai",
    "status": "error",
    "error_type": "upstream",
    "user_id": "alice",
    "api_key_id": "key-1",
    "session_id": "session-1",
    "input_text": "seven",
    "output_text": "policy",
    "prompt_version_number": 3,
    "turn_count": 2,
    "tool_call_count": 1,
    "latency_ms": 100,
    "cost": 3,
    "tags": "a",
    "metadata_keys": "team",
    "output_keys": "a",
    "input_variable_keys": "b",
    "tool_names": "search",
    "metadata": ("team", "search"),
    "output": ("a", "x"),
    "input_variables": ("b", "y"),
}
OF_KIND: dict[FieldKind, Any] = {
    FieldKind.NUMERIC: 7,
    FieldKind.DATETIME: "2026-02-01T09:07:03.250Z",
    FieldKind.BOOLEAN: None,
}
WITHOUT_VALUE = ("is_empty", "is_not_empty", "is_null", "is_not_null", "is_true", "is_false")


def filter_of(field: Field, operator: str) -> dict[str, Any]:
    value: Any = (
        INTENTS[field.name][0] if field.kind is FieldKind.INTENT else VALUES.get(field.name, OF_KIND.get(field.kind))
    )
    asked: dict[str, Any] = {"field": field.name, "operator": operator}
    if field.kind is FieldKind.NESTED:
        asked["nested_key"], value = value
    if operator in ("in", "not_in"):
        value = [value]
    elif operator == "between":
        value = [value, value + 10_000 if field.kind is FieldKind.NUMERIC else "2026-02-02T00:00:00Z"]
    elif operator == "starts_with":
        value = {"input_text": "refund", "output_text": "policy"}[field.name]
    elif operator == "ends_with":
        value = {"input_text": "seven", "output_text": "3"}[field.name]
    return asked if operator in WITHOUT_VALUE else asked | {"value": value}


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_a_filter_finds_their_own_requests_only(worlds: Worlds, field: Field) -> None:
    filters = [filter_of(field, operator) for operator in field.operators]
    worlds.check("post", SEARCH, *({"filter_group": {"filters": [one]}, "per_page": 25} for one in filters))


def test_any_of_several_is_confined_too(worlds: Worlds) -> None:
    """A condition that is always true does not let a caller out, nor does one that names others."""
    either = [filter_of(field, field.operators[0]) for field in FIELDS[:9]]
    always = {"logic": "OR", "filters": [{"logic": "AND", "filters": []}, *either]}
    for group in (always, {"logic": "OR", "filters": either}):
        worlds.check("post", SEARCH, {"filter_group": group})
        worlds.check("post", OVERVIEW, {"filter_group": group})


def _charts() -> list[dict[str, Any]]:
    metrics = [m for m in ChartMetric if m not in (ChartMetric.COUNT, ChartMetric.DISTINCT_COUNT)]
    bar = {"chartType": "bar"}
    charts: list[dict[str, Any]] = [bar | {"metric": "count", "groupByField": name} for name in GROUP_FIELDS]
    charts += [bar | {"metric": "count", "groupByMetadataKey": key} for key in ("team", "deep.x")]
    charts += [bar | {"metric": "distinct_count", "distinctMetadataKey": "team"}]
    charts += [
        bar
        | {"metric": metric, "metricField": name}
        | ({"percentile": 90.0} if metric is ChartMetric.PERCENTILE else {})
        for metric in metrics
        for name in METRIC_FIELDS
    ]
    charts += [{"chartType": "histogram", "histogramField": name} for name in METRIC_FIELDS]
    charts += [bar | {"metric": "count", "timeSeries": True, "timeBucket": bucket} for bucket in TimeBucket]
    levels = {"hierarchyFields": ["engine", "user_id", "api_key_id"]}
    charts += [{"chartType": kind, "metric": "count", **levels} for kind in HIERARCHIES]
    axes = {"groupByField": "user_id", "secondaryGroupByField": "api_key_id"}
    charts += [{"chartType": ChartType.HEATMAP, "metric": "count", **axes}]
    charts += [{"chartType": kind, "metric": "count", "groupByField": "user_id"} for kind in ("pie", "donut", "line")]
    return charts


@pytest.mark.parametrize("first", range(0, len(_charts()), 25))
def test_a_chart_counts_their_own_requests_only(worlds: Worlds, first: int) -> None:
    charts = [{"id": f"c{number}", **chart} for number, chart in enumerate(_charts()[first : first + 25])]
    worlds.check("post", CHARTS, {"customCharts": charts})
    worlds.check("post", CHARTS, {"customCharts": charts, "q": "refund"})


def test_an_overview_counts_their_own_requests_only(worlds: Worlds) -> None:
    worlds.check("post", OVERVIEW, {"metadata_cost_breakdown_key": "team"})
    worlds.check("post", OVERVIEW, {"q": "refnud"})


@pytest.mark.parametrize("group_by", GroupBy)
def test_statistics_count_their_own_requests_only(worlds: Worlds, group_by: str) -> None:
    for more in ({}, {"user_id": "alice"}, {"model_name": "gpt-5"}):
        worlds.check("get", STATS, *({"group_by": group_by, "metric": metric} | more for metric in StatsMetric))


@pytest.mark.parametrize("order_by", OrderBy)
def test_pages_hold_their_own_requests_only(worlds: Worlds, order_by: str) -> None:
    for direction in OrderDirection:
        asked = {"order_by": order_by, "order_direction": direction, "page_size": 9}
        assert walk(worlds.confined, **asked) == walk(worlds.alone, **asked)
    worlds.check("get", LOGS, {"order_by": order_by})


@pytest.mark.parametrize("sort_by", SortBy)
def test_a_search_finds_their_own_requests_only(worlds: Worlds, sort_by: str) -> None:
    for order in SortOrder:
        asked = {"sort_by": sort_by, "sort_order": order, "per_page": 9, "page": 2}
        worlds.check("post", SEARCH, asked, {**asked, "q": "refund"})


@pytest.mark.parametrize("q", ["refund", "ref", "refnud", "seven policy", "eight 3"])
def test_words_are_those_of_their_own_requests(worlds: Worlds, q: str) -> None:
    worlds.check("post", SEARCH, *({"q": q, "page": page, "include_prompt_name": True} for page in (1, 3)))


@pytest.mark.parametrize("field", SuggestedField)
def test_what_is_suggested_is_theirs(worlds: Worlds, field: SuggestedField) -> None:
    asked: dict[str, Any] = {"field": field}
    if field in NESTED:
        asked["metadata_key"] = {"metadata": "team", "output": "a", "input_variables": "b"}[NESTED[field]]
    of_others = json.dumps({"filters": [{"field": "user_id", "operator": "is", "value": "alice"}]})
    for more in ({}, {"prefix": "S"}, {"filter_group": of_others}):
        assert ask(worlds.confined, "get", SUGGESTIONS, asked | more) == ask(
            worlds.alone, "get", SUGGESTIONS, asked | more
        )


def test_suggestions_can_tell_others_apart(engine_url: str) -> None:
    """Values of others that the caller's rows do not have."""
    rows = [row | {"model_name": f"of {row['user_id']}", "tags": [row["user_id"]]} for row in ROWS]
    with (
        filled_warehouse(engine_url, rows) as warehouse,
        client_as(warehouse, reader_of(Restriction("bob"))) as confined,
    ):
        for field, expected in (("engine", ["of bob"]), ("tags", ["bob"])):
            assert ask(confined, "get", SUGGESTIONS, {"field": field}) == (200, {"success": True, "values": expected})
            assert ask(confined, "get", SUGGESTIONS, {"field": field, "prefix": "of alice"})[1]["values"] == []
