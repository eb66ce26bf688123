"""AsyncClient has what Client has, and answers the same."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from router_insights import AsyncClient, Client
from tests.support.api import KEY

RESOURCES = ("request_logs", "analytics", "budgets", "alerts", "live_usage", "events")
# What the rows of one moment answer; budgets, the stream and events have tests of their own.
ASKS: dict[str, Callable[[Any], Any]] = {
    "query": lambda client: client.request_logs.query_request_logs(status="error"),
    "get": lambda client: client.request_logs.get_request_log("a/b c"),
    "stats": lambda client: client.request_logs.get_request_log_stats(group_by="day"),
    "charts": lambda client: client.analytics.custom_analytics(
        customCharts=[{"id": "c", "chartType": "bar", "metric": "sum", "metricField": "cost"}]
    ),
    "overview": lambda client: client.analytics.overview(),
    "search": lambda client: client.analytics.search_requests(per_page=3),
    "suggestions": lambda client: client.analytics.suggest_values(field="engine"),
    "fields": lambda client: client.analytics.get_fields(),
    "alerts": lambda client: client.alerts.list_alerts(),
}
ITERATES: dict[str, Callable[[Any], Any]] = {
    "logs": lambda client: client.request_logs.iter_request_logs(status="timeout"),
    "search": lambda client: client.analytics.iter_search({"filter_group": {"filters": [
        {"field": "status", "operator": "is", "value": "throttled"}]}}),
}  # fmt: skip


@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS)
async def test_asyncio_gets_the_same_answer(
    client: Client, async_client: AsyncClient, ask: Callable[[Any], Any]
) -> None:
    assert await ask(async_client) == ask(client)


@pytest.mark.parametrize("iterate", ITERATES.values(), ids=ITERATES)
async def test_asyncio_iterates_over_the_same(
    client: Client, async_client: AsyncClient, iterate: Callable[[Any], Any]
) -> None:
    ours = [item async for item in iterate(async_client)]
    assert len(ours) > 25
    assert ours == list(iterate(client))


def methods(resource: object) -> dict[str, tuple[list[str], str | None]]:
    """Parameters and docstring of each public method."""
    found = {name: getattr(resource, name) for name in dir(resource) if not name.startswith("_")}
    return {name: (list(inspect.signature(one).parameters), one.__doc__) for name, one in found.items()}


@pytest.mark.parametrize("resource", RESOURCES)
async def test_both_clients_have_the_same_methods(resource: str) -> None:
    async with AsyncClient("http://localhost", KEY) as asynchronous:
        with Client("http://localhost", KEY) as client:
            ours = methods(getattr(client, resource))
            assert ours
            assert ours == methods(getattr(asynchronous, resource))


async def test_both_clients_have_the_same_resources() -> None:
    async with AsyncClient("http://localhost", KEY) as asynchronous:
        with Client("http://localhost", KEY) as client:
            assert set(vars(client)) == set(vars(asynchronous))
            assert {name for name in vars(client) if not name.startswith("_")} == set(RESOURCES)
