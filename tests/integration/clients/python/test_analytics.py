"""The Python client asks a running API for charts, the overview, search and suggestions."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from api.app import create_app
from router_insights import Client, InvalidRequestError
from tests.integration.clients.python.conftest import Running
from tests.integration.clients.python.same import assert_same
from tests.support.analytics_stack import Analytics
from tests.support.api import KEY, settings
from tests.support.running_api import running_api

PATH = "/api/public/v2/requests"
FILTER = {"filters": [{"field": "input_tokens", "operator": "gte", "value": 100}]}
CHARTS: list[dict[str, Any]] = [
    {"id": "cost", "chartType": "bar", "metric": "sum", "metricField": "cost", "groupByField": "engine"},
    {"id": "days", "chartType": "line", "metric": "count", "timeSeries": True, "timeBucket": "day"},
    {"id": "slow", "chartType": "bar", "metric": "percentile", "percentile": 95, "metricField": "latency_ms"},
    {"id": "tree", "chartType": "treemap", "metric": "count", "hierarchyFields": ["provider_type", "engine"]},
    {"id": "bins", "chartType": "histogram", "histogramField": "latency_ms"},
    {"id": "map", "chartType": "heatmap", "metric": "count", "groupByField": "engine",
     "secondaryGroupByField": "status"},
    {"id": "many", "chartType": "bar", "groupByField": "engine",
     "series": [{"key": "tokens", "label": "Tokens", "metric": "sum", "metricField": "input_tokens"},
                {"key": "dollars", "label": "Dollars", "metric": "sum", "metricField": "cost"}],
     "derivedInsights": [{"type": "ratio", "label": "per token", "numeratorSeriesKey": "dollars",
                          "denominatorSeriesKey": "tokens"}]},
]  # fmt: skip


@pytest.fixture(scope="module")
def running(examples: Analytics) -> Iterator[Running]:
    """Over requests that went through Kafka and a worker, so that they have texts."""
    with running_api(create_app(settings(), examples.warehouse)) as url:
        yield Running(url, [])


@pytest.fixture
def client(running: Running) -> Iterator[Client]:
    with Client(running.url, KEY) as client:
        yield client


def test_charts_are_what_everybody_gets(running: Running, client: Client) -> None:
    body: dict[str, Any] = {"customCharts": CHARTS, "filter_group": FILTER, "timezone": "Europe/Berlin"}
    answer = client.analytics.custom_analytics(body)
    assert_same(answer, running.plain("POST", f"{PATH}/analytics/custom-analytics", json=body))
    assert answer == client.analytics.custom_analytics(
        customCharts=CHARTS, filter_group=FILTER, timezone=body["timezone"]
    )


def test_money_in_charts_is_decimal_and_nothing_else_is(client: Client) -> None:
    answer = client.analytics.custom_analytics(customCharts=CHARTS)
    by_id = {chart.id: chart for chart in answer.custom_charts}
    assert {type(row["value"]) for row in by_id["cost"].data} == {Decimal}
    assert {type(row["dollars"]) for row in by_id["many"].data} == {Decimal}
    assert {type(row["tokens"]) for row in by_id["many"].data} == {int}
    assert {type(row["value"]) for row in by_id["slow"].data} == {float}


@pytest.mark.parametrize("query", [{}, {"filter_group": FILTER, "metadata_cost_breakdown_key": "environment"}])
def test_the_overview_is_what_everybody_gets(running: Running, client: Client, query: dict[str, Any]) -> None:
    overview = client.analytics.overview(**query)
    assert overview.total_requests > 0
    assert isinstance(overview.total_cost, Decimal)
    assert_same(overview, running.plain("POST", f"{PATH}/analytics", json=query))


def test_search_is_what_everybody_gets(running: Running, client: Client) -> None:
    query = {"q": "refund", "per_page": 2, "include_prompt_name": True}
    found = client.analytics.search_requests(query)
    assert found.items
    assert_same(found, running.plain("POST", f"{PATH}/search", json=query))
    assert {type(item.price) for item in client.analytics.search_requests().items} == {Decimal}


def test_iteration_finds_every_request_once(client: Client) -> None:
    whole = client.analytics.search_requests(per_page=25)
    ids = [item.id for item in client.analytics.iter_search(per_page=2)]
    assert len(ids) == whole.total > 2
    assert ids == [item.id for item in whole.items]


def test_a_decimal_filters_as_a_number(client: Client) -> None:
    price = max(item.price for item in client.analytics.search_requests().items if item.price is not None)
    group = {"filters": [{"field": "cost", "operator": "gte", "value": price}]}
    assert {item.price for item in client.analytics.search_requests(filter_group=group).items} == {price}


def test_suggestions_are_what_everybody_gets(running: Running, client: Client) -> None:
    suggestions = client.analytics.suggest_values(field="engine", prefix="GPT", filter_group=FILTER)
    assert suggestions.values
    group = '{"filters":[{"field":"input_tokens","operator":"gte","value":100}]}'
    parameters = {"field": "engine", "prefix": "GPT", "filter_group": group}
    assert_same(suggestions, running.plain("GET", f"{PATH}/suggestions", params=parameters))
    assert client.analytics.suggest_values(field="metadata_values", metadata_key="environment").values


def test_the_fields_are_what_everybody_gets(running: Running, client: Client) -> None:
    assert_same(client.analytics.get_fields(), running.plain("GET", "/v1/analytics/meta"))


@pytest.mark.parametrize(
    ("query", "status", "path"),
    [
        ({"filter_group": {"filters": [{"field": "engine", "operator": "gt", "value": 1}]}}, 400, "operator"),
        ({"per_page": 26}, 422, "per_page"),
        ({"colour": "red"}, 422, "colour"),
    ],
)
def test_a_wrong_query_is_named_by_its_path(client: Client, query: dict[str, Any], status: int, path: str) -> None:
    with pytest.raises(InvalidRequestError, match=path) as caught:
        client.analytics.search_requests(query)
    assert caught.value.status == status
