"""What is not known is never free: from the event over row and rollups to the answers of the API and the metrics."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pyarrow.compute as pc
import pytest
from prometheus_client import REGISTRY
from starlette.testclient import TestClient

from aggregator.budgets.model_health import ModelHistory, new_alerts
from aggregator.budgets.snapshot import Watermark, read_model_history
from aggregator.clickhouse.client import Warehouse
from aggregator.rollups import rebuild
from ingest.consumer.sink import Sink
from ingest.pricing import PriceBook
from ingest.pricing.operator_file import parse
from tests.integration.ingest.test_sink import batch_of, encode
from tests.support.api import client_of, get
from tests.support.checkout import ROOT

USED: dict[str, Any] = {"input_tokens": 1_000_000, "output_tokens": 0}
FAILED: dict[str, Any] = {"status": "error", "status_code": 500}
EVENTS: list[dict[str, Any]] = [
    {"request_id": "priced", "model_name": "gpt-4o", **USED},
    {"request_id": "unknown model", "model_name": "gpt-4o-unheard-of", **USED},
    {"request_id": "unknown provider", "model_name": "gpt-4o", "provider": "unheard-of", **USED},
    {"request_id": "no usage", "model_name": "gpt-4o"},
    {"request_id": "no usage, unknown model", "model_name": "gpt-4o-unheard-of"},
    {"request_id": "failed", "model_name": "gpt-4o", **FAILED},
    {"request_id": "failed by its code", "model_name": "gpt-4o", "status_code": 429},
    {"request_id": "failed, unknown model", "model_name": "gpt-4o-unheard-of", **FAILED},
    {"request_id": "failed after all, unknown model", "model_name": "gpt-4o-unheard-of", **FAILED, **USED},
    {"request_id": "failed after all", "model_name": "gpt-4o", **FAILED, **USED},
    {"request_id": "searched, unknown model", "model_name": "gpt-4o-unheard-of", "usage": {"web_searches": 1}},
    {"request_id": "only caches", "model_name": "gpt-4o", "cached_input_tokens": 0},
    {"request_id": "contradiction", "model_name": "claude-sonnet-4-5", **USED, "usage": {"cache_write_1h_tokens": 5}},
    {"request_id": "free", "model_name": "gratis", **USED},
]
REASONS = {
    "priced": None,
    "unknown model": "no_price",
    "unknown provider": "no_price",
    "no usage": "no_usage",
    "no usage, unknown model": "no_usage",
    "failed": "failed_without_usage",
    "failed by its code": "failed_without_usage",
    "failed, unknown model": "failed_without_usage",
    "failed after all, unknown model": "no_price",
    "failed after all": None,
    "searched, unknown model": "no_price",
    "only caches": "no_usage",
    "contradiction": "no_price",
    "free": None,
}
COUNTS = {"no_price": "unpriced", "no_usage": "missing_usage", "failed_without_usage": "failed_without_usage"}
TOTALS = Counter(COUNTS[reason] for reason in REASONS.values() if reason)
BOOK = PriceBook(parse("prices: [{model: gratis, input: 0, output: 0}]", "prices.yaml"))


def counted(reason: str) -> float:
    return REGISTRY.get_sample_value("insights_unpriced_rows_total", {"reason": reason}) or 0.0


@pytest.fixture
def client(warehouse: Warehouse) -> Iterator[TestClient]:
    Sink(warehouse, BOOK).write(batch_of(*(encode(**event) for event in EVENTS)))
    assert all(drift.is_zero for drift in rebuild.verify(warehouse))
    with client_of(warehouse) as client:
        yield client


def test_a_log_without_a_cost_says_why_and_shows_no_zero(client: TestClient) -> None:
    for request_id, reason in REASONS.items():
        log = get(client, f"/v1/request-logs/{request_id}")
        costs = [value for name, value in log.items() if "cost" in name]
        assert (log["unpriced_reason"], log["cost"] is None) == (reason, reason is not None)
        assert not any(costs) if reason else all(cost is not None for cost in costs)


def counts_of(stat: dict[str, Any]) -> tuple[int, ...]:
    return tuple(stat[f"{name}_count"] for name in COUNTS.values())


def test_rows_without_a_cost_are_counted_per_model_and_add_nothing_to_sums(client: TestClient) -> None:
    answer = get(client, "/v1/request-logs/stats", group_by="model", metric="cost")
    found = {stat["group"]: (stat["count"], *counts_of(stat), stat["cost"]) for stat in answer["stats"]}
    assert found == {
        "gpt-4o": (7, 1, 2, 2, "5.000000000000"),
        "gpt-4o-unheard-of": (5, 3, 1, 1, "0.000000000000"),
        "claude-sonnet-4-5": (1, 1, 0, 0, "0.000000000000"),
        "gratis": (1, 0, 0, 0, "0.000000000000"),
    }
    assert (counts_of(answer), answer["total_cost"]) == ((5, 3, 3), "5.000000000000")


@pytest.mark.parametrize("group_by", ["user", "status", "hour"])
def test_every_grouping_tells_how_many_have_no_cost_and_why(client: TestClient, group_by: str) -> None:
    answer = get(client, "/v1/request-logs/stats", group_by=group_by)
    for reason, name in COUNTS.items():
        total = answer[f"{name}_count"]
        assert sum(stat[f"{name}_count"] for stat in answer["stats"]) == total == TOTALS[name] > 0, reason


def test_the_metric_and_the_increment_tell_apart_why_rows_have_no_cost(warehouse: Warehouse) -> None:
    before = {reason: counted(reason) for reason in COUNTS}
    usage = Sink(warehouse, BOOK).write(batch_of(*(encode(**event) for event in EVENTS)))
    assert {COUNTS[reason]: counted(reason) - count for reason, count in before.items()} == TOTALS
    total = usage.filter(pc.equal(usage["kind"], "total"))
    assert {name: pc.sum(total[name]).as_py() for name in COUNTS.values()} == TOTALS


def test_a_gateway_whose_requests_fail_has_nothing_unpriced(warehouse: Warehouse) -> None:
    """Six in a hundred fail without usage, all others have a price: neither alert has a reason."""
    before = {reason: counted(reason) for reason in COUNTS}
    now = datetime.now(UTC)
    common = {"model_name": "gpt-4o", "timestamp": now.isoformat()}
    good = [{"request_id": f"good-{n}", **common, **USED} for n in range(94)]
    bad = [{"request_id": f"bad-{n}", **common, **FAILED} for n in range(6)]
    Sink(warehouse, BOOK).write(batch_of(*(encode(**event) for event in good + bad)))
    assert {reason: counted(reason) - count for reason, count in before.items()} == {
        "no_price": 0, "no_usage": 0, "failed_without_usage": 6,
    }  # fmt: skip
    history = ModelHistory()
    history.add(read_model_history(warehouse, Watermark("request-events", {0: 10**9}, now)))
    [[sums]] = [list(minutes.values()) for minutes in history.models.values()]
    assert (sums.requests, sums.errors, sums.failed_without_usage) == (100, 6, 6)
    assert list(new_alerts(history, {}, now)) == []


def test_the_tour_of_the_readme_shows_what_comes_out(warehouse: Warehouse) -> None:
    readme = (ROOT / "README.md").read_text()
    events = re.findall(r'^\{"request_id": "tour-.*\}$', readme, re.MULTILINE)
    assert len(events) == 2
    Sink(warehouse, PriceBook()).write(batch_of(*(event.encode() for event in events)))
    with client_of(warehouse) as client:
        [ada] = get(client, "/v1/request-logs/stats", group_by="user", metric="cost")["stats"]
        log = get(client, "/v1/request-logs/tour-1")
        failed = get(client, "/v1/request-logs/tour-2")
    shown = [json.loads(f"{{{line}}}") for line in re.findall(r'^# ("\w+": .*)$', readme, re.MULTILINE)]
    assert [values.items() <= found.items() for values, found in zip(shown, (log, ada), strict=True)] == [True, True]
    assert failed["unpriced_reason"] == "failed_without_usage"


def test_a_log_explains_its_cost(client: TestClient) -> None:
    found = get(client, "/v1/request-logs/priced")["cost_explanation"]
    assert (found["price"], found["cost"], found["rounding_usd"]) == ("openai/gpt-4o", "2.500000000000", "0")
    assert found["charges"][0] == {
        "bucket": "input", "unit": "input_tokens", "quantity": "1000000", "usd": "2.5", "per": 1000000,
        "amount_usd": "2.5",
    }  # fmt: skip
    assert [bucket["bucket"] for bucket in found["buckets"]] == [
        "input", "cached_input", "cache_creation_input", "output", "other",
    ]  # fmt: skip
