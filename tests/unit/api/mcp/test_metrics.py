"""The names of metrics, and how their values are written."""

from decimal import Decimal

import pytest

from api.analytics.charts.metric_sql import COUNT, Value
from api.analytics.charts.request import ChartMetric
from api.errors import ApiError
from api.mcp.metrics import parse_metric, written


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("requests", COUNT),
        ("errors", Value(ChartMetric.COUNT, "errors")),
        ("missing_usage", Value(ChartMetric.COUNT, "missing_usage")),
        ("cost", Value(ChartMetric.SUM, "cost")),
        ("avg:latency_ms", Value(ChartMetric.AVG, "latency_ms")),
        ("p99.9:latency_ms", Value(ChartMetric.PERCENTILE, "latency_ms", 99.9)),
        ("p100:cost", Value(ChartMetric.PERCENTILE, "cost", 100.0)),
        ("distinct:team.name", Value(ChartMetric.DISTINCT_COUNT, metadata_key="team.name")),
    ],
)
def test_a_metric_is_named_in_a_word(text: str, value: Value) -> None:
    assert parse_metric(text, "metrics[0]") == (text, value)


@pytest.mark.parametrize(
    "text", ["", "costs", "COST", "p:cost", "p101:cost", "p1e1:cost", "sum:cost", "avg:", "avg:model", "distinct:",
             f"distinct:{'k' * 121}", "prompt_version_number", "max:prompt_version_number"]
)  # fmt: skip
def test_what_is_no_metric_is_refused_with_a_list_of_them(text: str) -> None:
    with pytest.raises(ApiError) as refused:
        parse_metric(text, "metrics[3]")
    assert refused.value.status == 400
    [detail] = refused.value.details
    assert detail.field == "metrics[3]"
    assert detail.allowed is not None
    assert {"requests", "unpriced", "cost", "latency_ms", "avg:FIELD"} <= set(detail.allowed)


@pytest.mark.parametrize(
    ("number", "text"),
    [("0.000000000001", "0.000000000001"), ("1200.500000000000", "1200.5"), ("100", "100"), ("0E-12", "0"),
     ("-3.10", "-3.1"), ("123456789012345678901234.000000000001", "123456789012345678901234.000000000001")],
)  # fmt: skip
def test_dollars_keep_every_digit(number: str, text: str) -> None:
    assert written(Decimal(number)) == text
    assert Decimal(text) == Decimal(number)
    assert written(3) == 3
