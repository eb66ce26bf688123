"""The Python client makes, lists and removes budgets, and reads alerts and live usage."""

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from aggregator.budgets.alert import Alert as StoredAlert
from aggregator.budgets.notifications import AlertClaim, store_alerts
from aggregator.clickhouse.client import Warehouse
from api.app import create_app
from api.live_usage import routes
from cli.adapters.budget_store import KafkaBudgets
from router_insights import AsyncClient, Client, InvalidRequestError, NotFoundError
from tests.integration.clients.python.conftest import Running
from tests.integration.clients.python.same import assert_same
from tests.support.api import KEY, settings
from tests.support.rows import insert_rows, random_rows
from tests.support.running_api import running_api


@pytest.fixture
def running(broker: str, warehouse: Warehouse) -> Iterator[Running]:
    budgets = KafkaBudgets(broker)
    with running_api(create_app(settings(), warehouse, None, budgets), budgets.close) as url:
        yield Running(url, [])


@pytest.fixture
def client(running: Running) -> Iterator[Client]:
    with Client(running.url, KEY) as client:
        yield client


def test_a_budget_is_put_listed_and_deleted(running: Running, client: Client) -> None:
    name = f"b-{uuid.uuid4().hex[:8]}"
    limit = Decimal("250.500000000001")
    made = client.budgets.put_budget(
        name, scope={"kind": "user", "value": "ada"}, unit="dollars", limit=limit, period="month", thresholds=[50, 90]
    )
    assert (made.id, made.limit, made.thresholds, made.scope.value) == (name, limit, [50, 90], "ada")
    listed = client.budgets.list_budgets()
    assert_same(listed, running.plain("GET", "/v1/budgets"))
    assert made in listed.budgets
    again = client.budgets.put_budget(name, scope=made.scope, unit="dollars", limit=1, period="day", rolling=True)
    assert (again.scope, again.limit, again.rolling) == (made.scope, Decimal(1), True)
    assert client.budgets.delete_budget(name) == again
    with pytest.raises(NotFoundError, match="no budget of this name"):
        client.budgets.delete_budget(name)


def test_a_wrong_budget_is_refused_with_the_field(client: Client) -> None:
    with pytest.raises(TypeError, match=r"^limit: .*float is not exact"):
        client.budgets.put_budget("b", scope={"kind": "total"}, unit="dollars", limit=0.1, period="day")  # type: ignore[arg-type]
    with pytest.raises(InvalidRequestError, match="limit"):
        client.budgets.put_budget("b", scope={"kind": "total"}, unit="requests", limit="1.5", period="day")
    with pytest.raises(InvalidRequestError, match="budget_id"):
        client.budgets.put_budget("a b", scope={"kind": "total"}, unit="requests", limit=1, period="day")
    for name in ("", ".", "..", "a/b"):
        with pytest.raises(ValueError, match=f"budget_id: '{name}' is no name"):
            client.budgets.delete_budget(name)


def test_alerts_are_what_everybody_gets(running: Running, client: Client, warehouse: Warehouse) -> None:
    at = datetime(2026, 11, 24, 12, tzinfo=UTC)
    alerts = [
        StoredAlert.model_validate(
            {"id": f"a{number}", "kind": kind, "created_at": at + timedelta(minutes=number), "scope": {"kind": "total"},
             "budget_id": "", "value": "0.25", "limit": "0.05", "period_start": at, "period_end": at, "message": "m"}
        )
        for number, kind in enumerate(("error_rate", "latency", "error_rate"))
    ]  # fmt: skip
    store_alerts(warehouse, [AlertClaim(alert.id, alert) for alert in alerts])
    found = client.alerts.list_alerts(kind="error_rate", start_time=at, limit=1)
    plain = {"kind": "error_rate", "start_time": "2026-11-24T12:00:00Z", "limit": 1}
    assert_same(found, running.plain("GET", "/v1/alerts", params=plain))
    assert (found.truncated, [alert.id for alert in found.alerts]) == (True, ["a2"])
    assert found.alerts[0].value == Decimal("0.25")


async def test_live_usage_comes_once_and_as_a_stream(
    running: Running, client: Client, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "STREAM_SECONDS", 0.05)
    now = datetime.now(UTC)
    rows = random_rows(3, 60, now - timedelta(minutes=40), timedelta(minutes=38))
    insert_rows(warehouse, rows)
    usage = client.live_usage.get_live_usage()
    assert sum(minute.requests for minute in usage.rows) == 60
    assert sum(minute.cost for minute in usage.rows) == sum(row["cost"] or Decimal(0) for row in rows)
    assert len(usage.minutes) == 60
    mine = sum(row["user_id"] == "alice" for row in rows)
    stream = client.live_usage.stream_live_usage("user", "alice")
    for answer, _ in zip(stream, range(3), strict=False):
        assert sum(minute.requests for minute in answer.rows) == mine > 0
    async with AsyncClient(running.url, KEY) as other:
        async for answer in other.live_usage.stream_live_usage("user", "alice"):
            assert sum(minute.requests for minute in answer.rows) == mine
            break
        assert (await other.live_usage.get_live_usage("user", "alice")).current.requests == 0


def test_a_stream_of_what_is_wrong_is_an_error_with_the_field(client: Client) -> None:
    with pytest.raises(InvalidRequestError, match="value: must be empty for the total"):
        next(client.live_usage.stream_live_usage("total", "ada"))
