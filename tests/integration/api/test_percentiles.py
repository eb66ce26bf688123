"""No percentile lies beyond what the requests of its group took, and one request has its own duration, wherever
percentiles are answered: statistics, charts of few and of many requests, the overview, and Grafana's panels."""

import math
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import pytest
from starlette.testclient import TestClient

from aggregator.clickhouse.client import Warehouse
from api.analytics.charts import metric_sql
from deploy.grafana.panels import BOARDS
from tests.integration.deploy.test_dashboards import expand
from tests.support.api import client_of, filled_warehouse, get
from tests.support.rows import Row, random_rows

GROUPS = 120


def rows_of_small_groups() -> list[Row]:
    """Groups of one to five requests of a model, of every size of duration and with ties; one group has none."""
    rng = random.Random(24)
    rows = random_rows(24, 5 * GROUPS, span=timedelta(hours=20))
    sizes = [rng.randint(1, 5) for _ in range(GROUPS)]
    models = [f"model-{number}" for number, size in enumerate(sizes) for _ in range(size)]
    kept = [row | {"model_name": model} for row, model in zip(rows, models, strict=False)]
    for row in kept:
        longest = 10 ** rng.randint(0, 7)
        row["duration_ms"] = rng.choice((0, 1, 1_840, rng.randrange(longest)))
        row["time_to_first_token_ms"] = rng.randrange(longest)
    return [row | {"duration_ms": None} if row["model_name"] == "model-0" else row for row in kept]


ROWS = rows_of_small_groups()


def durations() -> dict[str, list[int]]:
    groups = defaultdict[str, list[int]](list)
    for row in ROWS:
        if row["duration_ms"] is not None:
            groups[row["model_name"]].append(row["duration_ms"])
    return groups


def assert_within(shown: float | None, values: Sequence[float], where: Any) -> None:
    if not values:
        assert shown is None or math.isnan(shown)
        return
    assert shown is not None
    assert min(values) <= shown <= max(values), (where, shown, values)


@pytest.fixture(scope="module")
def filled(engine_url: str) -> Iterator[Warehouse]:
    with filled_warehouse(engine_url, ROWS) as warehouse:
        yield warehouse


@pytest.fixture(scope="module")
def client(filled: Warehouse) -> Iterator[TestClient]:
    with client_of(filled) as client:
        yield client


def test_statistics(client: TestClient) -> None:
    groups = durations()
    assert sum(len(values) == 1 for values in groups.values()) > 10
    stats = get(client, "/v1/request-logs/stats", group_by="model")["stats"]
    assert len(stats) == GROUPS
    for stat in stats:
        for name in ("p50_duration_ms", "p95_duration_ms", "p99_duration_ms"):
            assert_within(stat[name], groups[stat["group"]], stat["group"])
    for group_by in ("user", "status", "day"):
        every = [value for values in groups.values() for value in values]
        for stat in get(client, "/v1/request-logs/stats", group_by=group_by)["stats"]:
            assert_within(stat["p99_duration_ms"], every, stat)


@pytest.mark.parametrize("exact_rows", [0, metric_sql.EXACT_ROWS], ids=["sketch", "exact"])
def test_charts(client: TestClient, monkeypatch: pytest.MonkeyPatch, exact_rows: int) -> None:
    monkeypatch.setattr(metric_sql, "EXACT_ROWS", exact_rows)
    metrics = [{"metric": "percentile", "percentile": level, "metricField": "latency_ms"} for level in (1, 50, 99)]
    series = [{"key": f"p{spec['percentile']}", "label": "p", **spec} for spec in metrics]
    some = sorted(durations())[:90]
    filters = [{"field": "engine", "operator": "in", "value": some}]
    charts = [{"id": "c", "chartType": "bar", "groupByField": "engine", "series": series, "limit": 100}]
    body = {"filter_group": {"filters": filters}, "customCharts": charts}
    answer = client.post("/api/public/v2/requests/analytics/custom-analytics", json=body)
    assert answer.status_code == 200, answer.text
    [chart] = answer.json()["customCharts"]
    assert len(chart["data"]) == 90
    for row in chart["data"]:
        for name in ("p1", "p50", "p99"):
            assert_within(row[name], [value / 1000 for value in durations()[row["label"]]], row)


@pytest.mark.parametrize("exact_rows", [0, metric_sql.EXACT_ROWS], ids=["sketch", "exact"])
def test_the_overview(client: TestClient, monkeypatch: pytest.MonkeyPatch, exact_rows: int) -> None:
    monkeypatch.setattr(metric_sql, "EXACT_ROWS", exact_rows)
    for model, values in list(durations().items())[:8]:
        body = {"filter_group": {"filters": [{"field": "engine", "operator": "is", "value": model}]}}
        answer = client.post("/api/public/v2/requests/analytics", json=body)
        assert answer.status_code == 200, answer.text
        shown = percentiles_in(answer.json())
        assert shown
        for value in shown:
            assert_within(value, [each / 1000 for each in values], model)


def percentiles_in(answer: Any, is_below: bool = False) -> list[float]:
    """Every number below a name of a percentile of latency, anywhere in the answer."""
    if isinstance(answer, dict):
        return [v for name, each in answer.items() for v in percentiles_in(each, is_below or name in PERCENTILE_NAMES)]
    if isinstance(answer, list):
        return [value for each in answer for value in percentiles_in(each, is_below)]
    return [answer] if is_below and isinstance(answer, int | float) else []


PERCENTILE_NAMES = ("p50_latency", "p90_latency", "p95_latency")


@pytest.mark.parametrize(
    ("title", "column"), [("Models", "duration_ms"), ("Time to first token", "time_to_first_token_ms")]
)
def test_panels_of_grafana(filled: Warehouse, title: str, column: str) -> None:
    [panel] = [panel for board in BOARDS if board.uid == "insights-latency" for panel in board.panels
               if panel.title == title]  # fmt: skip
    for model in sorted({row["model_name"] for row in ROWS})[:40]:
        values = [row[column] for row in ROWS if row["model_name"] == model and row[column] is not None]
        for row in filled.query(expand(panel.sql, {"model": [model]})):
            for name in ("p50", "p95"):
                assert_within(row[name], values, (title, model))
