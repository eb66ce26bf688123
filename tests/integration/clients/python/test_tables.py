"""Answers of the Python client as tables of Arrow, pandas and Polars."""

import sys
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from router_insights import Client, RequestLog, to_arrow
from router_insights.answers.live_usage import MinuteUsage
from tests.integration.clients.python.conftest import Running
from tests.support.api import id_of, in_order


def test_a_table_of_logs_has_exact_money_and_times_in_utc(running: Running, client: Client) -> None:
    table = to_arrow(client.request_logs.iter_request_logs())
    rows = in_order(running.rows)
    assert table.num_rows == len(rows)
    assert table.column("id").to_pylist() == [id_of(row) for row in rows]
    assert table.column("cost").to_pylist() == [row["cost"] for row in rows]
    assert table.column("timestamp").to_pylist() == [row["timestamp"] for row in rows]
    assert table.column("tags").to_pylist() == [row["tags"] for row in rows]
    types = {
        name: table.schema.field(name).type for name in ("cost", "timestamp", "duration_ms", "is_error", "metadata")
    }
    assert types == {
        "cost": pa.decimal128(38, 12),
        "timestamp": pa.timestamp("us", "UTC"),
        "duration_ms": pa.int64(),
        "is_error": pa.bool_(),
        "metadata": pa.string(),
    }


def test_the_columns_are_the_same_without_rows(client: Client) -> None:
    empty = client.request_logs.query_request_logs(user_id="nobody").to_arrow()
    assert empty.num_rows == 0
    assert empty.schema == client.request_logs.query_request_logs().to_arrow().schema
    assert empty.schema == to_arrow([], RequestLog).schema


ANSWERS = {
    "stats": lambda client: client.request_logs.get_request_log_stats(metric="cost"),
    "search": lambda client: client.analytics.search_requests(),
    "fields": lambda client: client.analytics.get_fields(),
    "minutes": lambda client: client.live_usage.get_live_usage(),
    "chart": lambda client: client.analytics.custom_analytics(customCharts=[
        {"id": "c", "chartType": "treemap", "metric": "sum", "metricField": "cost",
         "hierarchyFields": ["engine", "status"]}]).custom_charts[0],
}  # fmt: skip


@pytest.mark.parametrize("ask", ANSWERS.values(), ids=ANSWERS)
def test_every_answer_with_rows_is_a_table(client: Client, ask: Any) -> None:
    answer = ask(client)
    assert answer.to_arrow().num_rows == len(answer.rows) > 0


def test_the_value_of_statistics_has_the_type_of_its_metric(client: Client) -> None:
    by_cost = client.request_logs.get_request_log_stats(metric="cost").to_arrow()
    assert by_cost.column("value").to_pylist() == by_cost.column("cost").to_pylist()
    by_count = client.request_logs.get_request_log_stats(metric="count").to_arrow()
    assert by_count.column("value").to_pylist() == by_count.column("count").to_pylist()


def test_pandas_and_polars_have_the_same_rows(client: Client) -> None:
    stats = client.request_logs.get_request_log_stats(group_by="day")
    costs = [stat.cost for stat in stats.stats]
    assert list(stats.to_pandas()["cost"]) == costs
    polars = pytest.importorskip("polars")
    frame = stats.to_polars()
    assert frame["cost"].to_list() == costs
    assert frame.schema["cost"] == polars.Decimal(38, 12)


def test_a_library_that_is_missing_is_named_with_what_to_install(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    stats = client.request_logs.get_request_log_stats()
    for module, extra, convert in (
        ("pyarrow", "arrow", stats.to_arrow),
        ("polars", "polars", stats.to_polars),
        ("pandas", "pandas", stats.to_pandas),
    ):
        with monkeypatch.context() as missing:
            missing.setitem(sys.modules, module, None)
            with pytest.raises(ImportError, match=rf"needs {module}: pip install 'router-insights-client\[{extra}\]'"):
                convert()


def test_money_keeps_all_its_digits() -> None:
    zero: dict[str, Any] = {field.name: 0 for field in msgspec.structs.fields(MinuteUsage) if field.type is int}
    cost = Decimal("12345678901234567.000000000001")
    minute = MinuteUsage(minute=datetime.now(UTC), avg_duration_ms=None, cost=cost, **zero)
    assert to_arrow([minute]).column("cost").to_pylist() == [minute.cost]
