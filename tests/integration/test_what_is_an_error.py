"""One rule says which requests failed, and one which statuses are the same: every answer holds to both."""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import product
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from starlette.testclient import TestClient

from aggregator.budgets.model_health import ModelHistory
from aggregator.budgets.snapshot import Watermark, read_model_history
from aggregator.clickhouse.client import Warehouse
from aggregator.rollups.measures import ROLLUPS
from ingest.consumer.sink import Sink
from ingest.pricing import PriceBook
from tests.integration.ingest.test_sink import batch_of, encode
from tests.support.api import client_of, get, walk

WORDS = (
    "success",
    "SUCCESS",
    "Success",
    "error",
    "ERROR",
    "timeout",
    "TimeOut",
    "cached",
    "Blocked",
    "ÉCHEC",
    "eRRor ",
)
CODES = (None, 0, 200, 399, 400, 429, 599)
TYPES = (None, "", "rate_limit")
NOW = datetime.now(UTC)
EVENTS: list[dict[str, Any]] = [
    {
        "request_id": f"r{number}",
        "timestamp": NOW.isoformat(),
        "model_name": f"model-{number % 3}",
        "user_id": f"user-{number % 4}",
        "status": word,
        "status_code": code,
        "error_type": kind,
    }
    for number, (word, code, kind) in enumerate(product(WORDS, CODES, TYPES))
]


def failed(event: dict[str, Any]) -> bool:
    """The rule, in plain Python."""
    has_code = event["status_code"] is not None and event["status_code"] >= 400
    return event["status"].lower() in ("error", "timeout") or has_code or bool(event["error_type"])


def folded(event: dict[str, Any]) -> str:
    return str("".join(letter.lower() if letter.isascii() else letter for letter in event["status"]))


FAILED = {event["request_id"] for event in EVENTS if failed(event)}
OTHERS = {event["request_id"] for event in EVENTS} - FAILED
RULE = {"filters": [{"field": "is_error", "operator": "is_true"}]}


@pytest.fixture(scope="module")
def usage() -> list[pa.Table]:
    return []


@pytest.fixture
def filled(warehouse: Warehouse, usage: list[pa.Table]) -> Warehouse:
    usage.append(Sink(warehouse, PriceBook()).write(batch_of(*(encode(**event) for event in EVENTS))))
    return warehouse


@pytest.fixture
def client(filled: Warehouse) -> Iterator[TestClient]:
    with client_of(filled) as client:
        yield client


def test_every_answer_counts_the_same_requests_as_failed(
    client: TestClient, filled: Warehouse, usage: list[pa.Table]
) -> None:
    assert min(len(FAILED), len(OTHERS)) > 20
    for is_error, wanted in ((True, FAILED), (False, OTHERS)):
        logs = walk(client, is_error=is_error)
        assert {log["request_id"] for log in logs} == wanted
        assert {log["is_error"] for log in logs} == {is_error}
        page = get(client, "/v1/request-logs", is_error=is_error, page_size=1)
        assert (page["total_count"], page["total_count_is_approximate"]) == (len(wanted), False)
        stats = get(client, "/v1/request-logs/stats", is_error=is_error)
        assert (stats["total_count"], stats["error_count"]) == (len(wanted), len(wanted) if is_error else 0)
    for group_by in ("model", "user", "api_key", "status", "hour", "day"):
        stats = get(client, "/v1/request-logs/stats", group_by=group_by, metric="errors")
        assert sum(stat["error_count"] for stat in stats["stats"]) == stats["error_count"] == len(FAILED)
    for rollup in ROLLUPS:
        assert filled.query(f"SELECT sum(errors) AS n FROM {rollup.table}")[0]["n"] == len(FAILED)
    live = get(client, "/v1/usage/live")
    assert sum(minute["errors"] for minute in (live["current"], *live["minutes"])) == len(FAILED)
    total = usage[-1].filter(pc.equal(usage[-1]["kind"], "total"))
    assert pc.sum(total["errors"]).as_py() == len(FAILED)
    history = ModelHistory()
    history.add(read_model_history(filled, Watermark("request-events", {0: 10**9}, NOW)))
    assert sum(sums.errors for each in history.models.values() for sums in each.values()) == len(FAILED)


def test_charts_the_overview_and_search_count_the_same(client: TestClient) -> None:
    base = "/api/public/v2/requests"
    charts = [{"id": "c", "chartType": "bar", "metric": "count", "groupByField": "engine"}]
    body = {"filter_group": RULE, "customCharts": charts}
    [chart] = client.post(f"{base}/analytics/custom-analytics", json=body).json()["customCharts"]
    models = Counter(event["model_name"] for event in EVENTS if failed(event))
    assert {row["label"]: row["value"] for row in chart["data"]} == models
    overview = client.post(f"{base}/analytics", json={"filter_group": RULE}).json()
    assert overview["totalRequests"] == len(FAILED)
    found = client.post(f"{base}/search", json={"filter_group": RULE, "per_page": 1}).json()
    assert found["total"] == len(FAILED)


def test_a_status_is_one_group_and_one_filter_in_any_case(client: TestClient) -> None:
    """Also of rows that are stored: each shows the gateway's own spelling."""
    words = Counter(map(folded, EVENTS))
    assert len(words) == 7
    stats = get(client, "/v1/request-logs/stats", group_by="status")["stats"]
    assert {stat["group"]: stat["count"] for stat in stats} == words
    for word in WORDS:
        wanted = {event["request_id"] for event in EVENTS if folded(event) == folded({"status": word})}
        logs = walk(client, status=word)
        assert {log["request_id"] for log in logs} == wanted
        assert get(client, "/v1/request-logs", status=word, page_size=1)["total_count"] == len(wanted)
        assert {log["status"] for log in logs} <= set(WORDS)
    base = "/api/public/v2/requests"
    charts = [{"id": "c", "chartType": "bar", "metric": "count", "groupByField": "status"}]
    [chart] = client.post(f"{base}/analytics/custom-analytics", json={"customCharts": charts}).json()["customCharts"]
    assert {row["label"]: row["value"] for row in chart["data"]} == words
    suggested = get(client, f"{base}/suggestions", field="status", prefix="SUC")
    assert suggested["values"] == ["success"]
