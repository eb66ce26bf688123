"""The overview: every key of the contract's section 5, against plain Python over the same rows."""

from typing import Any
from zoneinfo import ZoneInfo

import pytest

from tests.support.analytics import bucket_key, flatten, grouped, holds, measure
from tests.support.analytics_stack import Analytics
from tests.support.rows import Row

MARCH = {"field": "request_start_time", "operator": "between", "value": ["2026-03-18", "2026-04-02"]}
LATENCY = {"metricField": "latency_ms"}
LEVELS: dict[str, dict[str, Any]] = {
    "average_latency": {"metric": "avg", **LATENCY},
    **{f"p{level}_latency": {"metric": "percentile", "percentile": level, **LATENCY} for level in (50, 90, 95)},
}
UTC = ZoneInfo("UTC")


def near(found: Any) -> Any:
    return None if found is None else pytest.approx(found, rel=1e-9, abs=1e-12)


def total(rows: list[Row], field: str) -> Any:
    return measure(rows, {"metric": "sum", "metricField": field})


def overview(analytics: Analytics, *filters: dict[str, Any], **others: Any) -> tuple[Any, list[Row]]:
    tree = {"filters": list(filters)}
    answer = analytics.post("analytics", {"filter_group": tree, **others})
    return answer, [row for row in analytics.rows if holds(row, tree)]


def date_of(row: Row) -> str:
    return bucket_key(row["timestamp"], "day", UTC)


def largest(rows: list[Row], field: str) -> list[tuple[str, list[Row]]]:
    groups = grouped(rows, [(field, None)])
    ordered = sorted(groups, key=lambda keys: (-len(groups[keys]), keys))[:25]
    return [(keys[0], groups[keys]) for keys in ordered]


def test_totals_are_those_of_all_matching_rows(analytics: Analytics) -> None:
    answer, rows = overview(analytics, MARCH)
    assert answer["success"] is True
    assert answer["totalRequests"] == len(rows) > 300
    assert answer["totalCost"] == near(total(rows, "cost"))
    assert answer["totalTokens"] == total(rows, "input_tokens") + total(rows, "output_tokens")
    assert answer["totalCachedTokens"] == total(rows, "cached_tokens") > 0
    assert answer["totalThinkingTokens"] == total(rows, "thinking_tokens") > 0
    assert answer["cacheTokenRatio"] == near(total(rows, "cached_tokens") / total(rows, "input_tokens"))
    assert answer["averageLatency"] == near(measure(rows, LEVELS["average_latency"]))
    assert answer["percentileMethod"] == "interpolated"
    assert answer["chartInterval"] == {"interval": "day", "bucketSizeMs": 86400000, "bucketMinutes": None}


def test_each_bucket_has_its_numbers_and_empty_ones_are_filled(analytics: Analytics) -> None:
    answer, rows = overview(analytics, MARCH)
    assert [stat["date"] for stat in answer["stats"]][:3] == ["2026-03-18", "2026-03-19", "2026-03-20"]
    assert len(answer["stats"]) == 16
    for stat in answer["stats"]:
        some = [row for row in rows if date_of(row) == stat["date"]]
        statuses = grouped(some, [("status", None)])
        assert stat == {
            "date": stat["date"],
            "dateLabel": stat["date"],
            "requests": len(some),
            "tokens": total(some, "input_tokens") + total(some, "output_tokens"),
            "inputTokens": total(some, "input_tokens"),
            "outputTokens": total(some, "output_tokens"),
            "cost": near(total(some, "cost")),
            "latency": near(measure(some, LEVELS["average_latency"])),
            "cachedTokens": total(some, "cached_tokens"),
            "thinkingTokens": total(some, "thinking_tokens"),
            "traceShare": near(sum(row["trace_id"] != "" for row in some) / len(some)) if some else None,
            "statusCounts": {keys[0]: len(group) for keys, group in statuses.items()},
            "outputShapeCounts": {
                "json": sum(row["is_json"] for row in some),
                "toolCall": sum(row["is_tool_call"] for row in some),
                "plainText": sum(row["is_plain_text"] for row in some),
            },
            "avgTurnCount": near(measure(some, {"metric": "avg", "metricField": "turn_count"})),
            "avgToolCallCount": near(measure(some, {"metric": "avg", "metricField": "tool_call_count"})),
            "toolCallCountP95": near(
                measure(some, {"metric": "percentile", "percentile": 95, "metricField": "tool_call_count"})
            ),
        }
        for level, asked in LEVELS.items():
            assert answer["latency"][level].get(stat["date"]) == near(measure(some, asked))


SPLITS = {
    "engine": ("modelRequestsByDay", "latencyByModelByDay"),
    "provider_type": ("providerRequestsByDay", "latencyByProviderByDay"),
    "prompt_id": ("promptTemplateRequestsByDay", "latencyByPromptTemplateByDay"),
}


@pytest.mark.parametrize("field", SPLITS)
def test_models_providers_and_prompts_are_split_by_day(analytics: Analytics, field: str) -> None:
    answer, rows = overview(analytics, MARCH)
    counts, latencies = (answer[name] for name in SPLITS[field])
    groups = largest(rows, field)
    assert list(counts) == list(latencies) == [name for name, _ in groups]
    for name, group in groups:
        by_day = {date: [row for row in group if date_of(row) == date] for date, _ in counts[name]}
        assert counts[name] == [[date, len(some)] for date, some in by_day.items()]
        assert len(counts[name]) == 16
        for level, asked in LEVELS.items():
            wanted = [[date, near(measure(some, asked))] for date, some in by_day.items() if some]
            assert latencies[name][level] == wanted


def test_breakdowns_and_tops_are_largest_first(analytics: Analytics) -> None:
    answer, rows = overview(analytics, MARCH)
    names = {"engine": "mostUsedModels"}
    assert answer[names["engine"]] == [[name, len(group)] for name, group in largest(rows, "engine")]
    for field, breakdown, key in (
        ("provider_type", "providerBreakdown", "provider"),
        ("prompt_id", "promptBreakdown", "promptId"),
        ("tags", "tagsBreakdown", "tag"),
    ):
        for row, (name, group) in zip(answer[breakdown], largest(rows, field), strict=True):
            inputs, outputs = total(group, "input_tokens"), total(group, "output_tokens")
            assert row == {
                key: name,
                "requests": len(group),
                "cost": near(total(group, "cost")),
                "tokens": inputs + outputs,
                "inputTokens": inputs,
                "outputTokens": outputs,
                **({"promptName": None} if field == "prompt_id" else {}),
            }
    for field, top, key in (
        ("error_type", "errorTypes", "errorType"),
        ("metadata_keys", "metadataKeysTop", "key"),
        ("output_keys", "outputKeysTop", "key"),
        ("tool_names", "toolsUsageBars", "name"),
    ):
        assert answer[top] == [{key: name, "requests": len(group)} for name, group in largest(rows, field)]
        assert answer[top]
    for row, (name, group) in zip(answer["toolsLatency"], largest(rows, "tool_names"), strict=True):
        assert row == {
            "toolName": name,
            "requests": len(group),
            "avgLatencySeconds": near(measure(group, {"metric": "avg", **LATENCY})),
            "minLatencySeconds": near(measure(group, {"metric": "min", **LATENCY})),
            "maxLatencySeconds": near(measure(group, {"metric": "max", **LATENCY})),
        }


def test_metadata_values_are_by_cost_of_one_key_or_of_the_most_frequent(analytics: Analytics) -> None:
    answer, rows = overview(analytics, MARCH, metadata_cost_breakdown_key="team")
    groups = grouped(rows, [(None, "team")])
    ordered = sorted(groups, key=lambda keys: (-total(groups[keys], "cost"), keys))
    assert answer["metadataValueBreakdown"] == [
        {
            "key": "team",
            "value": keys[0],
            "label": keys[0],
            "requests": len(groups[keys]),
            "cost": near(total(groups[keys], "cost")),
        }
        for keys in ordered
    ]
    answer, rows = overview(analytics, MARCH)
    costs = [row["cost"] for row in answer["metadataValueBreakdown"]]
    assert costs == sorted(costs, reverse=True)
    assert 10 < len(costs) <= 50
    for row in answer["metadataValueBreakdown"]:
        some = [found for found in rows if row["value"] in flatten(found["metadata"]).get(row["key"], [])]
        assert row["label"] == f"{row['key']} = {row['value']}"
        assert (row["requests"], row["cost"]) == (len(some), near(total(some, "cost")))


@pytest.mark.parametrize(
    ("start", "end", "interval", "date"),
    [
        ("2026-03-25T00:00:00Z", "2026-03-25T00:01:00Z", ("second", 1000, None), "2026-03-25T00:00:00Z"),
        ("2026-03-25T00:00:00Z", "2026-03-25T01:00:00Z", ("minute", 60000, 1), "2026-03-25T00:00:00Z"),
        ("2026-03-25T00:00:00Z", "2026-03-25T08:00:00Z", ("minute", 300000, 5), "2026-03-25T00:00:00Z"),
        ("2026-03-25", "2026-03-27", ("hour", 3600000, None), "2026-03-25T00:00:00Z"),
        ("2025-06-01", "2026-03-27", ("day", 86400000, None), "2025-06-01"),
        ("1970-01-01", "2026-03-27", ("month", 2592000000, None), "1970-01-01"),
    ],
)
def test_buckets_fit_the_range(
    analytics: Analytics, start: str, end: str, interval: tuple[str, int, int | None], date: str
) -> None:
    answer, rows = overview(analytics, {**MARCH, "value": [start, end]})
    assert tuple(answer["chartInterval"].values()) == interval
    assert [stat["date"] for stat in answer["stats"]][:1] == ([date] if rows else [])
    assert sum(stat["requests"] for stat in answer["stats"]) == len(rows)


def test_no_rows_make_an_empty_overview(analytics: Analytics) -> None:
    answer, rows = overview(analytics, {"field": "engine", "operator": "is", "value": "none such"})
    assert rows == []
    assert {name: found for name, found in answer.items() if found} == {
        "success": True,
        "chartInterval": {"interval": "day", "bucketSizeMs": 86400000, "bucketMinutes": None},
        "percentileMethod": "interpolated",
        "latency": {level: {} for level in LEVELS},
    }
    assert (answer["totalCost"], answer["averageLatency"], answer["cacheTokenRatio"]) == (0, None, None)


def test_an_empty_body_object_means_everything(analytics: Analytics) -> None:
    assert analytics.post("analytics", {})["totalRequests"] == len(analytics.rows)
