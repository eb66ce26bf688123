"""What is not known is never free: from the event over row and rollups to the answers of the API and the metrics."""

from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client import REGISTRY
from starlette.testclient import TestClient

from aggregator.clickhouse.client import Warehouse
from aggregator.rollups import rebuild
from ingest.consumer.sink import Sink
from ingest.pricing import PriceBook
from ingest.pricing.operator_file import parse
from tests.integration.ingest.test_sink import batch_of, encode
from tests.support.api import client_of, get

USED: dict[str, Any] = {"input_tokens": 1_000_000, "output_tokens": 0}
EVENTS: list[dict[str, Any]] = [
    {"request_id": "priced", "model_name": "gpt-4o", **USED},
    {"request_id": "unknown model", "model_name": "gpt-4o-unheard-of", **USED},
    {"request_id": "unknown provider", "model_name": "gpt-4o", "provider": "unheard-of", **USED},
    {"request_id": "no usage", "model_name": "gpt-4o"},
    {"request_id": "only caches", "model_name": "gpt-4o", "cached_input_tokens": 0},
    {"request_id": "contradiction", "model_name": "claude-sonnet-4-5", **USED, "usage": {"cache_write_1h_tokens": 5}},
    {"request_id": "free", "model_name": "gratis", **USED},
]
REASONS = {
    "priced": None,
    "unknown model": "no_price",
    "unknown provider": "no_price",
    "no usage": "no_usage",
    "only caches": "no_usage",
    "contradiction": "no_price",
    "free": None,
}
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


def test_rows_without_a_cost_are_counted_per_model_and_add_nothing_to_sums(client: TestClient) -> None:
    answer = get(client, "/v1/request-logs/stats", group_by="model", metric="cost")
    found = {stat["group"]: (stat["count"], stat["unpriced_count"], stat["cost"]) for stat in answer["stats"]}
    assert found == {
        "gpt-4o": (4, 3, "2.500000000000"),
        "gpt-4o-unheard-of": (1, 1, "0.000000000000"),
        "claude-sonnet-4-5": (1, 1, "0.000000000000"),
        "gratis": (1, 0, "0.000000000000"),
    }
    assert (answer["unpriced_count"], answer["total_cost"]) == (5, "2.500000000000")


@pytest.mark.parametrize("group_by", ["user", "status", "hour"])
def test_every_grouping_tells_how_many_are_unpriced(client: TestClient, group_by: str) -> None:
    answer = get(client, "/v1/request-logs/stats", group_by=group_by)
    assert sum(stat["unpriced_count"] for stat in answer["stats"]) == answer["unpriced_count"] == 5


def test_the_metric_tells_apart_why_rows_are_unpriced(warehouse: Warehouse) -> None:
    before = {reason: counted(reason) for reason in ("no_price", "no_usage")}
    Sink(warehouse, BOOK).write(batch_of(*(encode(**event) for event in EVENTS)))
    assert {reason: counted(reason) - count for reason, count in before.items()} == {"no_price": 3, "no_usage": 2}


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
