"""Charts: the contract's examples, every metric and shape, and random ones against plain Python."""

import math
import os
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aggregator.clickhouse.client import Warehouse
from aggregator.rollups import planner
from api.analytics.charts import aggregate_query
from api.analytics.filters.fields import GROUP_FIELDS, METRIC_FIELDS
from tests.support.analytics import bucket_key, data_of, holds
from tests.support.analytics_stack import Analytics
from tests.support.api import client_of
from tests.support.rows import insert_rows, random_rows

EXAMPLES = int(os.environ.get("ANALYTICS_EXAMPLES", "40"))
ZONES = ("UTC", "America/New_York", "Asia/Kathmandu", "Europe/Berlin", "Pacific/Auckland")
MARCH = {
    "filters": [
        {"field": "request_start_time", "operator": "between", "value": ["2026-03-01", "2026-04-30"]},
    ]
}
# The same rows, but without saying so by time, so that the range of a time series is that of the rows.
RANDOM = {"filters": [{"field": "pl_id", "operator": "not_in", "value": ["end-0", "end-1", *range(1001, 1006)]}]}


def bar(**properties: Any) -> dict[str, Any]:
    return {"id": "c", "chartType": "bar", **properties}


def assert_same(found: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> None:
    assert len(found) == len(wanted)
    for row, other in zip(found, wanted, strict=True):
        assert {**row, **{name: None for name in row if isinstance(row[name], float | int)}} == {
            **other,
            **{name: None for name in other if isinstance(other[name], float | int)},
        }
        for name, value in other.items():
            if isinstance(value, float | int):
                assert math.isclose(row[name], value, rel_tol=1e-9, abs_tol=1e-12), (name, row, other)


def check(analytics: Analytics, chart: dict[str, Any], tree: dict[str, Any], zone: str = "UTC") -> None:
    (answer,) = analytics.charts(chart, filter_group=tree, timezone=zone)
    rows = [row for row in analytics.rows if holds(row, tree)]
    found = [{name: row[name] for name in row if name not in ("from", "to")} for row in answer["data"]]
    if chart["chartType"] == "histogram":
        found = [{"value": row["value"]} for row in found]
    assert_same(found, data_of(rows, chart, ZoneInfo(zone)))


def test_example_9_cost_by_model_is_as_the_contract_has_it(examples: Analytics) -> None:
    chart = bar(
        id="cost_by_model", title="Cost by Model", metric="sum", metricField="cost", groupByField="engine", limit=2
    )
    (answer,) = examples.charts(chart)
    assert answer == {
        "id": "cost_by_model",
        "title": "Cost by Model",
        "chartType": "bar",
        "series": [{"key": "value", "label": "Cost", "unit": "currency"}],
        "data": [
            {"label": "claude-sonnet-4-6", "value": pytest.approx(0.27)},
            {"label": "gpt-4o", "value": pytest.approx(0.03)},
        ],
    }


def test_example_10_charts_come_in_the_order_they_were_asked_for(examples: Analytics) -> None:
    average = bar(id="avg_latency", metric="avg", metricField="latency_ms")
    first, second = examples.charts(average, bar(id="n", metric="count"))
    assert (first["title"], first["data"]) == ("avg_latency", [{"label": "Overall", "value": 2.5}])
    assert first["series"][0]["unit"] == "duration_seconds"
    assert (second["title"], second["data"]) == ("n", [{"label": "Overall", "value": 5}])
    assert second["series"] == [{"key": "value", "label": "Requests", "unit": "count"}]
    body = {"customCharts": [{**average, "chartType": "line"}]}
    assert "customCharts[0].chartType" in examples.post("analytics/custom-analytics", body, 400)["message"]


def test_example_13_a_log_counts_under_each_of_its_tags(examples: Analytics) -> None:
    (answer,) = examples.charts(bar(metric="count", groupByField="tags"))
    assert answer["data"] == [
        {"label": "production", "value": 3},
        {"label": "batch", "value": 1},
        {"label": "staging", "value": 1},
    ]
    assert answer["series"][0]["unit"] == "count"


METRICS: list[dict[str, Any]] = [
    {"metric": "count"},
    {"metric": "distinct_count", "distinctMetadataKey": "team"},
    {"metric": "distinct_count", "distinctMetadataKey": "list"},
    *({"metric": metric, "metricField": field} for metric in ("sum", "avg", "min", "max") for field in METRIC_FIELDS),
    *(
        {"metric": "percentile", "metricField": field, "percentile": percentile}
        for field in METRIC_FIELDS
        for percentile in (0, 12.5, 50, 95, 99.9, 100)
    ),
]
GROUPS: list[dict[str, Any]] = [
    *({"groupByField": field} for field in GROUP_FIELDS),
    *({"groupByMetadataKey": key} for key in ("team", "n", "flag", "deep.key", "list", "mixed", "a'b\"`\\%", "absent")),
]


@pytest.mark.parametrize("metric", METRICS, ids=str)
def test_a_metric_is_what_a_plain_loop_makes_of_the_rows(analytics: Analytics, metric: dict[str, Any]) -> None:
    check(analytics, bar(**metric), {"filters": []})
    check(analytics, bar(**metric, groupByField="engine"), MARCH)


@pytest.mark.parametrize("group", GROUPS, ids=str)
def test_groups_are_those_of_a_plain_loop(analytics: Analytics, group: dict[str, Any]) -> None:
    for metric in [*METRICS[:2], {"metric": "avg", "metricField": "latency_ms"}]:
        check(analytics, bar(**metric, **group), RANDOM)
        check(analytics, bar(**metric, **group, limit=2), MARCH)


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("bucket", ["day", "week", "month"])
def test_time_series_are_those_of_a_plain_loop(analytics: Analytics, bucket: str, zone: str) -> None:
    groups: list[dict[str, Any]] = [
        {},
        *GROUPS[1:3],
        {"groupByField": "tags"},
        {"groupByMetadataKey": "team", "limit": 3},
    ]
    metrics: list[dict[str, Any]] = [METRICS[0], {"metric": "percentile", "percentile": 90, "metricField": "cost"}]
    for more in groups:
        for metric in metrics:
            check(analytics, bar(**metric, **more, timeSeries=True, timeBucket=bucket), RANDOM, zone)


def test_a_range_that_was_asked_for_is_filled_to_its_ends(analytics: Analytics) -> None:
    days = {"field": "request_start_time", "operator": "between", "value": ["2026-03-18", "2026-03-21"]}
    chart = bar(metric="sum", metricField="cost", timeSeries=True)
    (daily,) = analytics.charts({**chart, "timeBucket": "day"}, filter_group={"filters": [days]})
    assert [row["bucketKey"] for row in daily["data"]] == ["2026-03-18", "2026-03-19", "2026-03-20", "2026-03-21"]
    assert [row["value"] for row in daily["data"]][:2] == [0, 0]
    (hourly,) = analytics.charts(chart, filter_group={"filters": [days]})
    assert hourly["data"][0] == {"label": "2026-03-18 00:00", "bucketKey": "2026-03-18T00:00:00Z", "value": 0}
    assert len(hourly["data"]) == 96
    (average,) = analytics.charts(
        bar(metric="avg", metricField="cost", timeSeries=True), filter_group={"filters": [days]}
    )
    assert average["data"][0]["value"] is None


def test_too_many_buckets_are_refused_with_the_path(analytics: Analytics) -> None:
    days = {"field": "request_start_time", "operator": "between", "value": ["2023-01-01", "2026-03-21"]}
    for operand in (days, {**days, "operator": "after", "value": "2020-01-01"}):
        tree = {"filters": [operand]}
        body = {"filter_group": tree, "customCharts": [bar(metric="count", timeSeries=True, timeBucket="day")]}
        message = analytics.post("analytics/custom-analytics", body, 400)["message"]
        assert message.startswith("customCharts[0].timeBucket: the range has more than 1000 buckets of a day")
    (auto,) = analytics.charts(bar(metric="count", timeSeries=True))
    assert (auto["data"][0]["bucketKey"], auto["data"][-1]["bucketKey"]) == ("2015-01-01", "2099-01-01")


@pytest.mark.parametrize("bucket", ["day", "week", "month"])
def test_requests_with_a_wrong_time_take_no_chart_from_anybody(warehouse: Warehouse, bucket: str) -> None:
    """Rows of 1970, which earlier versions stored, and of a clock that is far ahead. Without a range a chart has its
    newest buckets up to now."""
    good = random_rows(21, 40, datetime(2026, 3, 1, tzinfo=UTC), timedelta(days=9))
    wrong = [datetime(1970, 1, 21, tzinfo=UTC), datetime(2099, 12, 31, tzinfo=UTC)]
    rows = [row | {"timestamp": moment} for row, moment in zip(random_rows(22, 2), wrong, strict=True)]
    insert_rows(warehouse, good + [row | {"source_offset": 900 + n} for n, row in enumerate(rows)])
    chart = {"id": "c", "chartType": "bar", "metric": "count", "timeSeries": True, "timeBucket": bucket}
    with client_of(warehouse) as client:
        for more in ({}, {"groupByField": "engine"}):
            body = {"customCharts": [{**chart, **more}]}
            answer = client.post("/api/public/v2/requests/analytics/custom-analytics", json=body)
            assert answer.status_code == 200, answer.text
            data = answer.json()["customCharts"][0]["data"]
            newest = max(row["timestamp"] for row in good)
            assert data[-1]["bucketKey"] == bucket_key(newest, bucket, ZoneInfo("UTC"))
            assert len({row["bucketKey"] for row in data}) <= 1_000
            is_month = bucket == "month"
            assert sum(row["value"] for row in data) == len(good) + is_month
        assert client.post("/api/public/v2/requests/analytics", json={}).status_code == 200


NOTHING = {"filters": [{"field": "engine", "operator": "is", "value": "none such"}]}


def test_no_matching_rows_make_an_overall_row_and_else_no_data(analytics: Analytics) -> None:
    tree = NOTHING
    metrics: list[tuple[dict[str, Any], int | None]] = [
        ({"metric": "count"}, 0),
        ({"metric": "sum", "metricField": "cost"}, 0),
        ({"metric": "avg", "metricField": "latency_ms"}, None),
        ({"metric": "min", "metricField": "cost"}, None),
        ({"metric": "percentile", "metricField": "cost", "percentile": 5}, None),
        ({"metric": "distinct_count", "distinctMetadataKey": "team"}, 0),
    ]
    for metric, nothing in metrics:
        (overall,) = analytics.charts(bar(**metric), filter_group=tree)
        assert overall["data"] == [{"label": "Overall", "value": nothing}]
    empty: list[dict[str, Any]] = [
        bar(metric="count", groupByField="tags"),
        bar(metric="count", timeSeries=True),
        bar(metric="count", timeSeries=True, groupByField="engine"),
        {"id": "c", "chartType": "histogram", "histogramField": "cost"},
        {
            "id": "c",
            "chartType": "heatmap",
            "metric": "count",
            "groupByField": "tags",
            "secondaryGroupByField": "engine",
        },
        {"id": "c", "chartType": "treemap", "metric": "count", "hierarchyFields": ["engine", "status"]},
    ]
    for chart in empty:
        assert analytics.charts(chart, filter_group=tree)[0]["data"] == []


SERIES: list[dict[str, Any]] = [
    {"key": "cost", "label": "Cost", "metric": "sum", "metricField": "cost"},
    {"key": "n", "label": "Requests", "metric": "count"},
    {"key": "p95", "label": "P95", "metric": "percentile", "percentile": 95, "metricField": "latency_ms"},
    {"key": "teams", "label": "Teams", "metric": "distinct_count", "distinctMetadataKey": "team"},
    {"key": "none", "label": "None", "metric": "distinct_count", "distinctMetadataKey": "absent"},
]


@pytest.mark.parametrize(
    "more", [{}, {"groupByField": "tags"}, {"timeSeries": True, "timeBucket": "week", "chartType": "line"}], ids=str
)
def test_several_series_are_those_of_a_plain_loop(analytics: Analytics, more: dict[str, Any]) -> None:
    check(analytics, {**bar(series=SERIES), **more}, RANDOM)


def test_insights_are_ratios_of_totals_and_null_over_zero(analytics: Analytics) -> None:
    insights = [
        {"label": "Per request", "numeratorSeriesKey": "cost", "denominatorSeriesKey": "n"},
        {"type": "ratio", "label": "Over nothing", "numeratorSeriesKey": "n", "denominatorSeriesKey": "none"},
    ]
    chart = bar(series=SERIES, derivedInsights=insights, groupByField="engine", limit=1)
    (answer,) = analytics.charts(chart, filter_group=RANDOM)
    rows = [row for row in analytics.rows if holds(row, RANDOM)]
    totals = data_of(rows, bar(series=SERIES), ZoneInfo("UTC"))[0]
    assert [insight["value"] for insight in answer["derivedInsights"]] == [
        pytest.approx(totals["cost"] / totals["n"]),
        None,
    ]
    assert answer["derivedInsights"][0] == {
        "type": "ratio",
        "value": answer["derivedInsights"][0]["value"],
        **insights[0],
    }


@pytest.mark.parametrize("kind", ["treemap", "sunburst"])
def test_a_hierarchy_is_a_row_per_path(analytics: Analytics, kind: str) -> None:
    for levels in (["provider_type", "engine"], ["tags", "engine", "status"], ["tool_names", "tags"]):
        chart = {"id": "c", "chartType": kind, "metric": "sum", "metricField": "cost", "hierarchyFields": levels}
        check(analytics, chart, RANDOM)
        check(analytics, {**chart, "limit": 3}, RANDOM)


def test_a_heatmap_has_the_largest_groups_of_both_axes(analytics: Analytics) -> None:
    axes: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"groupByField": "engine"}, {"secondaryGroupByField": "status"}),
        ({"groupByMetadataKey": "team"}, {"secondaryGroupByField": "tags"}),
        ({"groupByField": "tags"}, {"secondaryGroupByField": "tags"}),
        ({"groupByMetadataKey": "list"}, {"secondaryGroupByMetadataKey": "list"}),
    ]
    for one, other in axes:
        chart = {"id": "c", "chartType": "heatmap", "metric": "count", **one, **other}
        check(analytics, chart, RANDOM)
        check(analytics, {**chart, "limit": 2}, RANDOM)


@pytest.mark.parametrize(
    ("field", "interval"),
    [("latency_ms", 500), ("latency_ms", 0.5e3), ("cost", 0.25), ("turn_count", 1), ("input_tokens", 777.7)],
)
def test_a_histogram_has_every_bin_between_the_extremes(analytics: Analytics, field: str, interval: float) -> None:
    chart = {"id": "c", "chartType": "histogram", "histogramField": field, "histogramInterval": interval}
    check(analytics, chart, RANDOM)


def test_a_histogram_makes_round_bins_by_itself(analytics: Analytics) -> None:
    for limit in (2, 7, 100):
        chart = {"id": "c", "chartType": "histogram", "histogramField": "latency_ms", "limit": limit}
        (answer,) = analytics.charts(chart, filter_group=RANDOM)
        assert 1 <= len(answer["data"]) <= limit
        known = [row for row in analytics.rows if holds(row, RANDOM) and row["duration_ms"] is not None]
        assert sum(row["value"] for row in answer["data"]) == len(known)
        assert answer["data"][0]["from"] == 0
        for row, after in zip(answer["data"], answer["data"][1:], strict=False):
            assert row["to"] == after["from"]
    too_fine = {"id": "c", "chartType": "histogram", "histogramField": "latency_ms", "histogramInterval": 1e-9}
    message = analytics.post("analytics/custom-analytics", {"customCharts": [too_fine]}, 400)["message"]
    assert message.startswith("customCharts[0].histogramInterval: makes more than 1000 bins")


def test_words_and_filter_hold_together(analytics: Analytics) -> None:
    tree = {"filters": [{"field": "engine", "operator": "is", "value": "gpt-4o"}]}
    wanted = [row for row in analytics.rows if holds(row, tree) and "wonderful" in row["output_text"]]
    for words in ("WONDERFUL", "wonderf wor", "wonderfull"):
        (counted,) = analytics.charts(bar(metric="count", groupByField="engine"), filter_group=tree, q=words)
        assert counted["data"] == [{"label": "gpt-4o", "value": len(wanted)}]
        assert analytics.post("analytics", {"filter_group": tree, "q": words})["totalRequests"] == len(wanted) > 0
    assert analytics.charts(bar(metric="count"), q=" ")[0]["data"][0]["value"] == len(analytics.rows)


def series(**changes: Any) -> list[dict[str, Any]]:
    return [{**SERIES[0], **changes}, SERIES[1]]


HEAT = {"chartType": "heatmap", "metric": "count", "groupByField": "tags", "secondaryGroupByField": "engine"}
REFUSED: dict[str, tuple[dict[str, Any], int, str]] = {
    "no metric": ({}, 400, "metric"),
    "no field": ({"metric": "sum"}, 400, "metricField"),
    "a field too many": ({"metric": "count", "metricField": "cost"}, 400, "metricField"),
    "no percentile": ({"metric": "percentile", "metricField": "cost"}, 400, "percentile"),
    "a percentile too many": ({"metric": "sum", "metricField": "cost", "percentile": 5}, 400, "percentile"),
    "a percentile too high": ({"metric": "percentile", "metricField": "cost", "percentile": 101}, 422, "percentile"),
    "no distinct key": ({"metric": "distinct_count"}, 400, "distinctMetadataKey"),
    "an empty distinct key": ({"metric": "distinct_count", "distinctMetadataKey": ""}, 422, "distinctMetadataKey"),
    "an unknown metric": ({"metric": "median"}, 422, "metric"),
    "an unknown field": ({"metric": "sum", "metricField": "price"}, 422, "metricField"),
    "an unknown type": ({"metric": "count", "chartType": "radar"}, 422, "chartType"),
    "an unknown group": ({"metric": "count", "groupByField": "cost"}, 422, "groupByField"),
    "an unknown property": ({"metric": "count", "groupBy": "engine"}, 422, "groupBy"),
    "two groups": ({"metric": "count", "groupByField": "tags", "groupByMetadataKey": "a"}, 400, "groupByMetadataKey"),
    "a limit too high": ({"metric": "count", "limit": 101}, 422, "limit"),
    "a limit as text": ({"metric": "count", "limit": "5"}, 422, "limit"),
    "a bad id": ({"metric": "count", "id": "a b"}, 422, "id"),
    "an id with a line break": ({"metric": "count", "id": "a\n"}, 422, "id"),
    "a title too long": ({"metric": "count", "title": "x" * 201}, 422, "title"),
    "half a character": ({"metric": "count", "title": "\ud800"}, 422, "title"),
    "one series": ({"series": SERIES[:1]}, 422, "series"),
    "series and metric": ({"series": SERIES, "metric": "count"}, 400, "metric"),
    "series and field": ({"series": SERIES, "metricField": "cost"}, 400, "metricField"),
    "a series without field": ({"series": series(metricField=None)}, 400, "series[0].metricField"),
    "a series with a wrong field": ({"series": series(metricField="price")}, 422, "series[0].metricField"),
    "a series without label": ({"series": [SERIES[0], {"key": "a", "metric": "count"}]}, 422, "series[1].label"),
    "two series of one key": ({"series": [SERIES[0], SERIES[0]]}, 400, "series[1].key"),
    "a series called label": ({"series": series(key="label")}, 400, "series[0].key"),
    "groups, series and time": ({"series": SERIES, "groupByField": "tags", "timeSeries": True}, 400, "timeSeries"),
    "an insight without series": (
        {
            "metric": "count",
            "derivedInsights": [{"label": "x", "numeratorSeriesKey": "a", "denominatorSeriesKey": "b"}],
        },
        400,
        "derivedInsights",
    ),
    "an insight of no series": (
        {
            "series": SERIES,
            "derivedInsights": [{"label": "x", "numeratorSeriesKey": "cost", "denominatorSeriesKey": "b"}],
        },
        400,
        "derivedInsights[0].denominatorSeriesKey",
    ),
    "a total as line": ({"metric": "count", "chartType": "line"}, 400, "chartType"),
    "a total as area": ({"metric": "count", "chartType": "area"}, 400, "chartType"),
    "a pie of one": ({"metric": "count", "chartType": "pie"}, 400, "groupByField"),
    "a pie over time": (
        {"metric": "count", "chartType": "pie", "groupByField": "tags", "timeSeries": True},
        400,
        "timeSeries",
    ),
    "a bucket without time": ({"metric": "count", "timeBucket": "day"}, 400, "timeBucket"),
    "an unknown bucket": ({"metric": "count", "timeSeries": True, "timeBucket": "hour"}, 422, "timeBucket"),
    "a bar with levels": ({"metric": "count", "hierarchyFields": ["tags", "engine"]}, 400, "hierarchyFields"),
    "a bar with bins": ({"metric": "count", "histogramField": "cost"}, 400, "histogramField"),
    "a bar with two axes": ({"metric": "count", "secondaryGroupByField": "tags"}, 400, "secondaryGroupByField"),
    "a heatmap of one axis": ({**HEAT, "secondaryGroupByField": None}, 400, "secondaryGroupByField"),
    "a heatmap without group": ({**HEAT, "groupByField": None}, 400, "groupByField"),
    "a heatmap of three axes": ({**HEAT, "secondaryGroupByMetadataKey": "a"}, 400, "secondaryGroupByMetadataKey"),
    "a heatmap over time": ({**HEAT, "timeSeries": True}, 400, "timeSeries"),
    "a histogram of nothing": ({"chartType": "histogram"}, 400, "histogramField"),
    "a histogram of groups": (
        {"chartType": "histogram", "histogramField": "cost", "groupByField": "tags"},
        400,
        "groupByField",
    ),
    "a histogram of sums": (
        {"chartType": "histogram", "histogramField": "cost", "metric": "sum", "metricField": "cost"},
        400,
        "metric",
    ),
    "bins of no width": (
        {"chartType": "histogram", "histogramField": "cost", "histogramInterval": 0},
        422,
        "histogramInterval",
    ),
    "a treemap of one level": (
        {"chartType": "treemap", "metric": "count", "hierarchyFields": ["tags"]},
        422,
        "hierarchyFields",
    ),
    "a treemap of no level": ({"chartType": "treemap", "metric": "count"}, 400, "hierarchyFields"),
    "a treemap of a level twice": (
        {"chartType": "sunburst", "metric": "count", "hierarchyFields": ["tags", "engine", "tags"]},
        400,
        "hierarchyFields[2]",
    ),
}


@pytest.mark.parametrize(("properties", "status", "path"), REFUSED.values(), ids=REFUSED)
def test_what_breaks_a_rule_is_refused_with_its_path(
    analytics: Analytics, properties: dict[str, Any], status: int, path: str
) -> None:
    charts = [bar(id="good", metric="count"), {"id": "c", "chartType": "bar", **properties}]
    answer = analytics.post("analytics/custom-analytics", {"customCharts": charts}, status)
    assert answer["success"] is False
    assert answer["message"].split(": ")[0] == f"customCharts[1].{path}"


@pytest.mark.parametrize(
    ("body", "status", "path"),
    [
        ({}, 422, "customCharts"),
        ({"customCharts": []}, 422, "customCharts"),
        ({"customCharts": [bar(metric="count")] * 2}, 400, "customCharts[1].id"),
        ({"customCharts": [bar(metric="count", id=str(n)) for n in range(26)]}, 422, "customCharts"),
        ({"customCharts": [bar(metric="count")], "timezone": "Mars/Olympus"}, 422, "timezone"),
        ({"customCharts": [bar(metric="count")], "metadata_cost_breakdown_key": 1}, 422, "metadata_cost_breakdown_key"),
        ({"customCharts": [bar(metric="count")], "sort_order": "asc"}, 400, "sort_by"),
    ],
)
def test_a_request_that_breaks_a_rule_is_refused_with_its_path(
    analytics: Analytics, body: dict[str, Any], status: int, path: str
) -> None:
    assert analytics.post("analytics/custom-analytics", body, status)["message"].split(": ")[0] == path


@pytest.mark.parametrize(
    ("terse", "written_out"),
    [
        pytest.param({"metric": "count"}, {"metric": "count", "chartType": "bar"}, id="a bar"),
        pytest.param(
            {"metric": "count", "timeSeries": True}, {"metric": "count", "timeSeries": True, "chartType": "line"},
            id="a line over time",
        ),
        pytest.param({"metric": "count", "chartType": None}, {"metric": "count", "chartType": "bar"}, id="null"),
        pytest.param({"metric": "count"}, {"metric": "count", "chartType": "bar", "timeBucket": "auto"}, id="auto"),
        pytest.param(
            {"metric": "count", "timeSeries": True},
            {"metric": "count", "timeSeries": True, "chartType": "line", "timeBucket": "auto"},
            id="auto over time",
        ),
    ],
)  # fmt: skip
def test_defaults_may_be_left_out_or_written_out(
    analytics: Analytics, terse: dict[str, Any], written_out: dict[str, Any]
) -> None:
    path, rest = "analytics/custom-analytics", {"metadata_cost_breakdown_key": "team", "sort_by": "cost"}
    answer = analytics.post(path, {"customCharts": [{"id": "c", **terse}]})
    assert answer == analytics.post(path, {"customCharts": [{"id": "c", **written_out}], **rest})
    assert answer["customCharts"][0]["chartType"] == written_out["chartType"]


charts = st.builds(
    lambda metric, group, time, limit: bar(**metric, **group, **time, limit=limit),
    st.sampled_from(METRICS),
    st.sampled_from([{}, *GROUPS]),
    st.sampled_from([{}, *({"timeSeries": True, "timeBucket": bucket} for bucket in ("day", "week", "month"))]),
    st.sampled_from([None, 1, 2, 3, 5, 100]),
)
some_rows = st.sampled_from(
    [
        {"field": "engine", "operator": "is", "value": "gpt-4o"},
        {"field": "status", "operator": "not_in", "value": ["Success", "none"]},
        {"field": "user_id", "operator": "in", "value": ["alice", "", "Zoë 😀"]},
        {"field": "provider_type", "operator": "is_not", "value": "openai"},
        {"field": "tags", "operator": "contains", "value": "b'c"},
        {"field": "cost", "operator": "gt", "value": 0.05},
        {"field": "request_start_time", "operator": "after", "value": "2026-03-22T05:17:00+02:00"},
        {"field": "request_start_time", "operator": "before", "value": "2026-03-28"},
    ]
)


@given(chart=charts, more=st.lists(some_rows, max_size=3), zone=st.sampled_from(ZONES))
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
def test_random_charts_are_those_of_a_plain_loop(
    analytics: Analytics, chart: dict[str, Any], more: list[dict[str, Any]], zone: str
) -> None:
    bounded = [leaf for leaf in more if leaf["field"] != "request_start_time" or not chart.get("timeSeries")]
    check(analytics, chart, {"filters": [*RANDOM["filters"], *bounded]}, zone)


@given(some=st.lists(charts, min_size=2, max_size=5), more=st.lists(some_rows, max_size=2))
@settings(max_examples=max(8, EXAMPLES // 6), deadline=None, suppress_health_check=list(HealthCheck))
def test_charts_asked_for_together_are_those_asked_for_alone(
    analytics: Analytics, some: list[dict[str, Any]], more: list[dict[str, Any]]
) -> None:
    tree = {"filters": [*MARCH["filters"], *more]}
    named = [{**chart, "id": f"c{number}"} for number, chart in enumerate(some)]
    assert analytics.charts(*named, filter_group=tree) == [
        analytics.charts(chart, filter_group=tree)[0] for chart in named
    ]


@given(chart=charts, more=st.lists(some_rows, max_size=2), zone=st.sampled_from(ZONES))
@settings(max_examples=max(20, EXAMPLES // 3), deadline=None, suppress_health_check=list(HealthCheck))
def test_charts_from_rollups_are_those_from_rows(
    analytics: Analytics, chart: dict[str, Any], more: list[dict[str, Any]], zone: str
) -> None:
    tree = {"filters": [*MARCH["filters"], *more]}
    planned = analytics.charts(chart, filter_group=tree, timezone=zone)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planner, "ROLLUPS", ())
        from_rows = analytics.charts(chart, filter_group=tree, timezone=zone)
    assert_same(planned[0]["data"], from_rows[0]["data"])


def test_what_rollups_hold_is_answered_from_them_and_the_rest_is_one_scan_per_group(
    analytics: Analytics, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    whole = aggregate_query.statements

    def noted(*arguments: Any) -> Any:
        found = whole(*arguments)
        asked.extend(statement.sql for statement in found)
        return found

    monkeypatch.setattr("api.analytics.charts.query_runner.statements", noted)
    analytics.charts(
        bar(id="a", metric="count"),
        bar(id="b", metric="avg", metricField="latency_ms"),
        bar(id="c", metric="percentile", percentile=50, metricField="latency_ms"),
        bar(id="d", metric="sum", metricField="turn_count"),
        bar(id="e", metric="sum", metricField="cost", groupByField="user_id"),
        bar(id="f", metric="count", groupByField="user_id", limit=3),
        bar(id="g", metric="count", groupByField="tags"),
        filter_group={"filters": [{"field": "status", "operator": "is", "value": "success"}]},
    )
    assert len(asked) == 4
    assert sum("rollup_" in sql for sql in asked) == 2
    assert sum("request_logs" in sql for sql in asked) == 2
