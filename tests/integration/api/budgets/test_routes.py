"""Budgets and alerts over HTTP and on the command line."""

import json
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from starlette.testclient import TestClient

from aggregator.budgets.alert import Alert
from aggregator.budgets.budget import Budget, BudgetStatus
from aggregator.budgets.notifications import AlertClaim, store_alerts
from aggregator.clickhouse.client import Warehouse
from api.app import create_app
from api.security.keyring import KeyRing
from api.security.permissions import Caller, Restriction, Scope
from cli.adapters.budget_store import KafkaBudgets
from tests.support.api import KEY, client_as, client_of, get, settings
from tests.support.insights import insights

TERMS = {"scope": {"kind": "user", "value": "ada"}, "unit": "dollars", "limit": "250.5", "period": "month",
         "timezone": "Europe/Berlin"}  # fmt: skip


@pytest.fixture
def client(broker: str, warehouse: Warehouse) -> Iterator[TestClient]:
    budgets = KafkaBudgets(broker)
    app = create_app(settings(), warehouse, None, budgets)
    with TestClient(app, headers={"Authorization": f"Bearer {KEY}"}, raise_server_exceptions=False) as client:
        yield client
        assert client.portal is not None
        client.portal.call(budgets.close)


def listed(client: TestClient, *names: str) -> dict[str, Any]:
    """The broker is every test's, so others may have left budgets."""
    return {found["id"]: found for found in get(client, "/v1/budgets")["budgets"] if found["id"] in names}


def test_a_budget_is_put_listed_changed_and_deleted(client: TestClient, broker: str) -> None:
    name = f"b-{uuid.uuid4().hex[:8]}"
    made = client.put(f"/v1/budgets/{name}", json=TERMS)
    assert made.status_code == 200
    assert made.json() == {"id": name, **TERMS, "rolling": False, "thresholds": [50, 80, 100]}
    assert listed(client, name) == {name: {**made.json(), "status": None}}
    changed = client.put(f"/v1/budgets/{name}", json={**TERMS, "limit": 0.1, "thresholds": [90]}).json()
    assert (changed["limit"], changed["thresholds"]) == ("0.1", [90])
    assert client.delete(f"/v1/budgets/{name}").json() == changed
    assert client.delete(f"/v1/budgets/{name}").status_code == 404
    assert listed(client, name) == {}


@pytest.mark.parametrize(
    ("path", "terms", "field"),
    [
        pytest.param("b", {"limit": "-1"}, "limit", id="limit"),
        pytest.param("b", {"period": "year"}, "period", id="period"),
        pytest.param("b", {"timezone": "Mars/Base"}, "timezone", id="zone"),
        pytest.param("b", {"scope": {"kind": "user"}}, "scope", id="scope"),
        pytest.param("b", {"colour": "red"}, "colour", id="unknown field"),
        pytest.param("-b", {}, "budget_id", id="name"),
    ],
)
def test_a_wrong_budget_is_refused_by_field(client: TestClient, path: str, terms: dict[str, Any], field: str) -> None:
    answer = client.put(f"/v1/budgets/{path}", json={**TERMS, **terms})
    assert answer.status_code == 400
    assert [detail["field"] for detail in answer.json()["details"]] == [field]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"\xff"])
def test_a_body_that_is_no_budget_is_refused(client: TestClient, body: bytes) -> None:
    answer = client.put("/v1/budgets/b", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_argument")


def test_a_confined_caller_sees_budgets_of_their_own_only(client: TestClient) -> None:
    names = [f"b-{uuid.uuid4().hex[:8]}" for _ in range(4)]
    scopes = ({"kind": "user", "value": "ada"}, {"kind": "user", "value": "ben"}, {"kind": "api_key", "value": "k"},
              {"kind": "total"})  # fmt: skip
    for name, scope in zip(names, scopes, strict=True):
        assert client.put(f"/v1/budgets/{name}", json={**TERMS, "scope": scope}).status_code == 200
    # What ada spends in all is more than what she spends by key k, and others may spend by key k.
    both: tuple[Restriction, list[str]] = (Restriction("ada", ("k",)), [])
    for restriction, visible in ((Restriction("ada"), names[:1]), (Restriction(None, ("k",)), names[2:3]), both):
        caller = Caller("c", frozenset({Scope.READ}), restriction)
        client.app.state.keys = KeyRing({KEY: caller})  # type: ignore[attr-defined]
        assert list(listed(client, *names)) == visible
        assert client.delete(f"/v1/budgets/{names[0]}").status_code == 403


def test_without_kafka_there_are_no_budgets(warehouse: Warehouse) -> None:
    with client_of(warehouse) as client:
        assert client.get("/v1/budgets").status_code == 503
    app = create_app(settings(), warehouse, None, KafkaBudgets("127.0.0.1:9"))
    with TestClient(app, headers={"Authorization": f"Bearer {KEY}"}, raise_server_exceptions=False) as client:
        assert client.put("/v1/budgets/b", json=TERMS).status_code == 503


async def test_the_status_of_a_budget_comes_with_it(broker: str, warehouse: Warehouse) -> None:
    name = f"b-{uuid.uuid4().hex[:8]}"
    budgets = KafkaBudgets(broker)
    await budgets.put(Budget.model_validate({"id": name, **TERMS}))
    status = BudgetStatus.model_validate(
        {"budget_id": name, "scope": TERMS["scope"], "level": "warning", "unit": "dollars", "spent": "200.000",
         "limit": "250.5", "resets_at": "2026-11-30T23:00:00Z", "updated_at": "2026-11-24T12:00:00Z"}
    )  # fmt: skip
    await (await budgets._topic("budget-status")).write(name, status.model_dump_json().encode())
    assert (await budgets.statuses())[name] == status
    assert json.loads(status.model_dump_json())["spent"] == "200"
    await budgets.delete(name)
    await budgets.close()


def test_budgets_on_the_command_line(broker: str) -> None:
    name = f"b-{uuid.uuid4().hex[:8]}"
    servers = {"INSIGHTS_KAFKA_BOOTSTRAP_SERVERS": broker}
    terms = "--scope tag:batch --limit 1000000 --unit tokens --period hour --rolling --threshold 100 --threshold 90"
    done = insights("budgets", "set", name, *terms.split(), **servers)
    assert (done.returncode, done.stdout) == (0, f"budget {name} is set\n")
    shown = insights("budgets", "list", **servers).stdout
    [line] = [line for line in shown.splitlines() if name in line]
    assert line.split() == [name, "tag", "batch", "rolling", "hour", "1000000", "tokens", "not", "counted", "yet"]
    wrong = insights("budgets", "set", name, "--scope", "team:x", "--limit", "0", **servers)
    assert wrong.returncode == 1
    assert "scope.kind: Input should be 'total'" in wrong.stderr
    assert "limit: Input should be greater than 0" in wrong.stderr
    assert insights("budgets", "delete", name, **servers).returncode == 0
    gone = insights("budgets", "delete", name, **servers)
    assert (gone.returncode, gone.stderr) == (1, f"insights: there is no budget {name}\n")


def alert(number: int, **terms: Any) -> Alert:
    moment = datetime(2026, 11, 24, 12, number, tzinfo=UTC)
    return Alert.model_validate(
        {"id": f"a-{number}", "kind": "budget", "created_at": moment, "scope": TERMS["scope"], "budget_id": "b",
         "threshold_percent": 50, "value": "1.000000000001", "limit": "2", "period_start": moment,
         "period_end": moment + timedelta(days=1), "message": "half", **terms}
    )  # fmt: skip


def test_of_those_who_store_an_alert_at_once_one_may_post_it(warehouse: Warehouse) -> None:
    alerts = [alert(number) for number in range(20)]
    by_process = [[AlertClaim(f"{process}-{one.id}", one) for one in alerts] for process in range(4)]
    with ThreadPoolExecutor(len(by_process)) as pool:
        stored = [
            one.id for found in pool.map(lambda claims: store_alerts(warehouse, claims), by_process) for one in found
        ]
    assert sorted(stored) == sorted(one.id for one in alerts)
    assert warehouse.query("SELECT count() AS rows FROM alerts")[0]["rows"] == len(alerts)


def test_alerts_are_stored_once_and_listed_newest_first(warehouse: Warehouse) -> None:
    alerts = [alert(1), alert(2, kind="silence", budget_id=""), alert(3)]
    claims = [AlertClaim(f"c-{number}", one) for number, one in enumerate([*alerts, *alerts])]
    # Twice at once, and twice one after the other; whoever asks again for what is theirs gets it again.
    assert store_alerts(warehouse, claims) == alerts
    assert store_alerts(warehouse, claims[3:]) == []
    assert store_alerts(warehouse, claims[:2]) == alerts[:2]
    with client_of(warehouse) as client:
        answer = get(client, "/v1/alerts")
        assert answer == {"alerts": [json.loads(one.model_dump_json()) for one in alerts[::-1]], "truncated": False}
        assert [one["id"] for one in get(client, "/v1/alerts", kind="silence")["alerts"]] == ["a-2"]
        assert [one["id"] for one in get(client, "/v1/alerts", budget_id="b", limit=1)["alerts"]] == ["a-3"]
        span = {"start_time": "2026-11-24T12:01:00Z", "end_time": "2026-11-24T12:03:00Z"}
        assert [one["id"] for one in get(client, "/v1/alerts", **span)["alerts"]] == ["a-2", "a-1"]
        assert client.get("/v1/alerts?kind=sound").status_code == 400
    with client_as(warehouse, Caller("c", frozenset({Scope.READ}), Restriction("ada"))) as client:
        assert get(client, "/v1/alerts") == {"alerts": [], "truncated": False}
