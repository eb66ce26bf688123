"""What the tools answer, compared with plain Python over the same rows."""

import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from starlette.testclient import TestClient

from aggregator.budgets.alert import Alert
from aggregator.budgets.budget import Budget
from aggregator.budgets.notifications import AlertClaim, store_alerts
from aggregator.clickhouse.client import Warehouse
from aggregator.cost_explanation import unpriced_reason
from api.app import create_app
from api.mcp.tools import compare_periods
from api.security.keyring import KeyRing
from api.security.permissions import Restriction
from cli.adapters.budget_store import KafkaBudgets
from cli.adapters.price_list import BookPrices
from tests.integration.api.security.test_access import reader_of
from tests.support.api import KEY, client_of, filled_warehouse, get, settings
from tests.support.mcp import answer, call
from tests.support.rows import Row, random_rows

ROWS = random_rows(seed=23, count=500)
ALL_OF_IT = "2026-01-30/2026-02-04"
KOLKATA = ZoneInfo("Asia/Kolkata")


@pytest.fixture(scope="module")
def client(engine_url: str) -> Iterator[TestClient]:
    with filled_warehouse(engine_url, ROWS) as warehouse, client_of(warehouse) as client:
        yield client


def total(rows: list[Row], name: str) -> Any:
    return sum((row[name] for row in rows if row[name] is not None), Decimal(0) if name == "cost" else 0)


METRICS: dict[str, Callable[[list[Row]], Any]] = {
    "requests": len,
    "errors": lambda rows: sum(row["is_error"] for row in rows),
    "unpriced": lambda rows: sum(unpriced_reason(row) == "no_price" for row in rows),
    "missing_usage": lambda rows: sum(unpriced_reason(row) == "no_usage" for row in rows),
    "failed_without_usage": lambda rows: sum(unpriced_reason(row) == "failed_without_usage" for row in rows),
    "cost": lambda rows: total(rows, "cost"),
    "input_tokens": lambda rows: total(rows, "input_tokens"),
    "cached_tokens": lambda rows: total(rows, "cached_input_tokens"),
}
GROUPS: dict[str, Callable[[Row], list[str]]] = {
    "engine": lambda row: [row["model_name"]],
    "provider_type": lambda row: [row["provider"]],
    "user_id": lambda row: [row["user_id"]],
    "api_key_id": lambda row: [row["api_key_id"]],
    "status": lambda row: [row["status"].lower()],
    "session_id": lambda row: [row["session_id"]],
    "tags": lambda row: sorted(set(row["tags"])),
    "day": lambda row: [f"{row['timestamp'].astimezone(KOLKATA):%Y-%m-%d}"],
}


def grouped(rows: list[Row], group: str) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        for label in GROUPS[group](row):
            if label:
                found[label].append(row)
    return found


def number(value: Any) -> Decimal:
    return Decimal(value)


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("is_of_rollup", [True, False], ids=["rollup", "rows"])
def test_metrics_of_groups_are_exact_from_rollups_and_from_rows(
    client: TestClient, group: str, is_of_rollup: bool
) -> None:
    """A filter on what no rollup has makes the rows answer; the answer is the same."""
    filters = [] if is_of_rollup else [{"field": "has_trace", "operator": "is_false"}]
    rows = [row for row in ROWS if is_of_rollup or not row["trace_id"]]
    asked = {"period": ALL_OF_IT, "timezone": "Asia/Kolkata", "filters": filters, "limit": 50}
    told = answer(client, "aggregate", metrics=list(METRICS), group_by=[group], **asked)
    expected = {
        label: {name: of(found) for name, of in METRICS.items()} for label, found in grouped(rows, group).items()
    }
    assert {row[group]: {name: number(row[name]) for name in METRICS} for row in told["rows"]} == expected
    assert {name: number(told["total"][name]) for name in METRICS} == {name: of(rows) for name, of in METRICS.items()}
    assert isinstance(told["total"]["cost"], str)
    assert told["total"]["requests_without_cost"] == sum(row["cost"] is None for row in rows) > 0
    assert any("requests_without_cost" in note for note in told["notes"])
    assert told["exactness"] == "exact"
    is_rollup = told["how"]["read_from"].startswith("rollup")
    assert is_rollup == (is_of_rollup and group not in ("session_id", "tags"))


@pytest.mark.parametrize("metric", ["requests", "cost", "errors"])
def test_groups_come_largest_first_and_the_total_has_all_of_them(client: TestClient, metric: str) -> None:
    told = answer(client, "aggregate", metrics=[metric], group_by=["user_id"], period=ALL_OF_IT, limit=3)
    expected = {label: METRICS[metric](found) for label, found in grouped(ROWS, "user_id").items()}
    largest = sorted(expected.items(), key=lambda item: (-item[1], item[0]))[:3]
    assert [(row["user_id"], number(row[metric])) for row in told["rows"]] == largest
    assert told["more_groups"] is True
    assert number(told["total"][metric]) == METRICS[metric](ROWS)


def test_the_largest_groups_over_time_are_those_of_all_of_it(client: TestClient) -> None:
    asked = {"metrics": ["cost"], "period": ALL_OF_IT, "timezone": "Asia/Kolkata", "limit": 2}
    told = answer(client, "aggregate", group_by=["day", "engine"], **asked)
    by_model = grouped(ROWS, "engine")
    largest = sorted(by_model, key=lambda label: (-METRICS["cost"](by_model[label]), label))[:2]
    expected = [
        (label, day, METRICS["cost"](grouped(by_model[label], "day")[day]))
        for day in sorted(grouped(ROWS, "day"))
        for label in largest
        if day in grouped(by_model[label], "day")
    ]
    assert [(row["engine"], row["day"], number(row["cost"])) for row in told["rows"]] == expected
    assert told["more_groups"] is True


def test_two_groups_at_once(client: TestClient) -> None:
    told = answer(client, "aggregate", metrics=["requests"], group_by=["engine", "status"], period=ALL_OF_IT, limit=50)
    expected = {
        (model, status): len(rows)
        for model, found in grouped(ROWS, "engine").items()
        for status, rows in grouped(found, "status").items()
    }
    assert {(row["engine"], row["status"]): row["requests"] for row in told["rows"]} == expected


def test_a_period_begins_and_ends_where_it_says(client: TestClient) -> None:
    edges = sorted(row["timestamp"] for row in ROWS)[100:300:100]
    period = "/".join(f"{edge:%Y-%m-%dT%H:%M:%S.%fZ}" for edge in edges)
    expected = sum(edges[0] <= row["timestamp"] < edges[1] for row in ROWS)
    for tool, asked in (("aggregate", {"metrics": ["requests"]}), ("find_requests", {})):
        told = answer(client, tool, period=period, **asked)
        assert (told["total"]["requests"] if tool == "aggregate" else told["found"]) == expected > 0
        assert "/".join(told["period"].values()) == period


SPLIT = datetime(2026, 2, 1, 6, tzinfo=UTC)


@pytest.mark.parametrize("metric", METRICS)
def test_what_changed_is_the_difference_of_exact_sums_and_its_parts_add_up(client: TestClient, metric: str) -> None:
    period, group_by = "2026-02-01T06:00Z/2026-02-03T06:00Z", ["engine", "user_id", "tags"]
    told = answer(client, "compare_periods", metric=metric, period=period, group_by=group_by, limit=20)
    before = [row for row in ROWS if SPLIT - timedelta(days=2) <= row["timestamp"] < SPLIT]
    now = [row for row in ROWS if SPLIT <= row["timestamp"] < SPLIT + timedelta(days=2)]
    of = METRICS[metric]
    assert number(told["total"]["before"][metric]) == of(before)
    assert number(told["total"]["now"][metric]) == of(now)
    assert number(told["total"]["change"]) == of(now) - of(before) != 0
    assert told["total"]["change_percent"] == pytest.approx(float((of(now) - of(before)) / of(before) * 100), abs=0.051)
    for group in group_by:
        labels = {**grouped(before, group), **grouped(now, group)}
        expected = {x: (of(grouped(before, group)[x]), of(grouped(now, group)[x])) for x in labels}
        groups = told["by"][group]["groups"]
        assert {each["group"]: (number(each["before"]), number(each["now"])) for each in groups} == expected
        changes = [number(each["change"]) for each in groups]
        assert changes == sorted(changes, key=abs, reverse=True)
        assert all(number(each["now"]) - number(each["before"]) == number(each["change"]) for each in groups)
    if metric == "requests":
        assert told["because"] is None
    else:
        effects = [number(told["because"][name]) for name in ("more_or_fewer_requests", "more_or_less_per_request")]
        assert sum(effects) == of(now) - of(before)
        expected_effect = Decimal(of(before)) / len(before) * (len(now) - len(before))
        assert abs(effects[0] - expected_effect) < Decimal("1e-11")


def test_a_group_that_is_only_in_one_period_changed_from_or_to_nothing(client: TestClient) -> None:
    told = answer(client, "compare_periods", period="2026-01-30/2026-02-04", before="2020-01-01/2020-01-02")
    assert told["total"]["change"] == told["total"]["now"]["cost"]
    assert told["total"]["change_percent"] is None
    assert told["because"] is None
    assert {each["before"] for each in told["by"]["engine"]["groups"]} <= {0, "0"}


def test_it_is_said_when_others_may_have_changed_more(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the largest changes are shown is proved, from the largest values of each period, or it is not claimed."""
    asked = {"period": "2026-02-01T06:00Z/2026-02-03T06:00Z", "group_by": ["user_id"], "metric": "requests"}
    whole = answer(client, "compare_periods", limit=20, **asked)["by"]["user_id"]["groups"]
    claimed = 0
    for compared in range(1, 8):
        monkeypatch.setattr(compare_periods, "MAX_COMPARED", compared)
        told = answer(client, "compare_periods", limit=2, **asked)["by"]["user_id"]
        sizes = [abs(each["change"]) for each in told["groups"]]
        if "others_may_have_changed_more" not in told:
            claimed += 1
            assert sizes == [abs(each["change"]) for each in whole[:2]]
    assert 0 < claimed < 7


def test_requests_are_found_in_order_with_exact_costs(client: TestClient) -> None:
    dear = sorted((row for row in ROWS if row["cost"] is not None), key=lambda row: -row["cost"])
    told = answer(client, "find_requests", period=ALL_OF_IT, sort_by="cost", limit=25)
    assert [(each["request_id"], number(each["cost"])) for each in told["requests"]] == [
        (row["request_id"], row["cost"]) for row in dear[:25]
    ]
    second = answer(client, "find_requests", period=ALL_OF_IT, sort_by="cost", limit=10, page=2)
    assert second["requests"] == told["requests"][10:20]
    assert (told["found"], told["found_is_exact"]) == (len(ROWS), True)
    errors = [{"field": "status", "operator": "is", "value": "error"}]
    found = answer(client, "find_requests", period=ALL_OF_IT, filters=errors)
    assert found["found"] == sum(row["status"].lower() == "error" for row in ROWS)
    assert "/requests?" in found["console"]
    assert "f=status:error" in found["console"]


def test_one_request_is_that_of_rest_without_what_nobody_asks(client: TestClient) -> None:
    for row in ROWS[:40]:
        log = get(client, f"/v1/request-logs/{row['request_id']}")
        told = answer(client, "explain_request", request_id=row["request_id"], bodies=True)
        assert told["request"].items() <= log.items()
        assert told["request"]["request_id"] == row["request_id"]
        assert told["request"].get("cost_explanation") == log["cost_explanation"]
        assert ("cost" in told["unknown"]) == (log["cost"] is None) == ("unpriced_reason" in told["request"])
        assert set(told["bodies"]) <= set(log)
    assert call(client, "explain_request", {"request_id": "there is none"})[0] == 404


def test_values_of_a_field_are_listed_by_prefix(client: TestClient) -> None:
    models = {row["model_name"] for row in ROWS}
    assert set(answer(client, "describe_data", values_of="engine")["values"]) == models
    gpts = answer(client, "describe_data", values_of="engine", prefix="GPT")["values"]
    assert set(gpts) == {name for name in models if name.startswith("gpt")}
    assert answer(client, "describe_data", values_of="metadata.team")["values"] == ["search"]


def test_budgets_alerts_prices_and_freshness_are_the_callers_own(broker: str, engine_url: str) -> None:
    mine, others, by_key, in_all = names = [f"b-{uuid.uuid4().hex[:8]}" for _ in range(4)]
    scopes = ({"kind": "user", "value": "alice"}, {"kind": "user", "value": "bob"},
              {"kind": "api_key", "value": "key-1"}, {"kind": "total"})  # fmt: skip
    moment = datetime(2026, 2, 1, tzinfo=UTC)
    alert = Alert.model_validate(
        {"id": uuid.uuid4().hex, "kind": "budget", "created_at": moment, "scope": scopes[0], "budget_id": mine,
         "threshold_percent": 50, "value": "1.000000000001", "limit": "2", "period_start": moment,
         "period_end": moment + timedelta(days=1), "message": "half"}
    )  # fmt: skip
    with filled_warehouse(engine_url, ROWS) as warehouse:
        store_alerts(warehouse, [AlertClaim("claim", alert)])
        budgets = KafkaBudgets(broker)
        app = create_app(settings(), warehouse, None, budgets, BookPrices(None))
        with TestClient(app, headers={"Authorization": f"Bearer {KEY}"}) as client:
            assert client.portal is not None
            for name, scope in zip(names, scopes, strict=True):
                terms = {"id": name, "scope": scope, "unit": "dollars", "limit": "250.5", "period": "month"}
                client.portal.call(budgets.put, Budget.model_validate(terms))
            told = answer(client, "budgets_and_alerts", alerts=1)
            assert set(names) <= {each["id"] for each in told["budgets"]}
            assert [(each["budget_id"], each["value"]) for each in told["alerts"]] == [(mine, "1.000000000001")]
            only = answer(client, "budgets_and_alerts", budget_id=others)
            assert ([each["id"] for each in only["budgets"]], only["alerts"]) == ([others], [])
            for restriction, visible in (
                (Restriction("alice"), {mine}),
                (Restriction(None, ("key-1",)), {by_key}),
                (Restriction("alice", ("key-1",)), set[str]()),
            ):
                app.state.keys = KeyRing({KEY: reader_of(restriction)})
                told = answer(client, "budgets_and_alerts")
                assert {each["id"] for each in told["budgets"]} & set(names) == visible
                assert told["alerts"] == []
                theirs = max(row["timestamp"] for row in ROWS if _is_seen(row, restriction))
                for each in (told, answer(client, "model_prices", model="gpt-5")):
                    assert each["freshness"]["newest_request"] == f"{theirs:%Y-%m-%dT%H:%M:%S.%fZ}"
            client.portal.call(budgets.close)
    assert in_all


def _is_seen(row: Row, restriction: Restriction) -> bool:
    by_user = restriction.user_id in (None, row["user_id"])
    return by_user and (not restriction.api_key_ids or row["api_key_id"] in restriction.api_key_ids)


def test_without_kafka_there_are_alerts_all_the_same(warehouse: Warehouse) -> None:
    with client_of(warehouse) as client:
        told = answer(client, "budgets_and_alerts")
    assert (told["budgets"], told["alerts"]) == ([], [])
    assert any("keeps no budgets" in note for note in told["notes"])
    app = create_app(settings(), warehouse, None, KafkaBudgets("127.0.0.1:9"))
    with TestClient(app, headers={"Authorization": f"Bearer {KEY}"}) as client:
        assert call(client, "budgets_and_alerts", {})[0] == 503
