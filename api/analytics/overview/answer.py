"""The answer of `POST .../requests/analytics`, put together from the rows of its queries."""

from collections.abc import Mapping
from typing import Any

from api.analytics.charts.aggregate_query import AggregateRow
from api.analytics.charts.metric_sql import COUNT, Value
from api.analytics.charts.time_buckets import ABOUT_SECONDS, label_of
from api.analytics.overview.queries import (
    AVERAGE_LATENCY,
    CACHED,
    CALLS,
    CALLS_P95,
    COST,
    INPUT,
    LATENCIES,
    MAX_METADATA_VALUES,
    OUTPUT,
    SHAPES,
    STATS,
    THINKING,
    TURNS,
    Overview,
    Rows,
    Times,
    read_overview,
)
from api.analytics.overview.schemas import (
    AnalyticsAnswer,
    BucketSummary,
    ChartInterval,
    ErrorTypeCount,
    KeyCount,
    LatencyOfGroup,
    LatencyOverTime,
    MetadataValue,
    OutputShapes,
    PromptShare,
    PromptUse,
    ProviderShare,
    TagShare,
    ToolLatency,
    ToolUse,
)
from api.analytics.request import RequestLogQuery
from api.security.permissions import Permission
from api.security.reader import Reader


def answer_analytics(reader: Reader, query: RequestLogQuery) -> AnalyticsAnswer:
    """Raises ApiError 400 for words or a filter that cannot be looked for."""
    found = read_overview(reader, query)
    tops = found.tops
    return AnalyticsAnswer(
        success=True,
        chartInterval=_interval(found.times),
        percentileMethod="sketch" if found.has_sketches else "interpolated",
        **_totals(found.totals),
        stats=_stats(found),
        mostUsedModels=[(row.keys[0], row.values[0]) for row in tops["engine"]],
        mostUsedPromptTemplates=[PromptUse(**_prompt(row, found), requests=row.values[0]) for row in tops["prompt_id"]],
        latency=_latency(found),
        **_by_group(found),
        errorTypes=_by_size(tops["error_type"], "errorType", ErrorTypeCount),
        providerBreakdown=[ProviderShare(provider=row.keys[0], **_share(row)) for row in tops["provider_type"]],
        promptBreakdown=[PromptShare(**_prompt(row, found), **_share(row)) for row in tops["prompt_id"]],
        tagsBreakdown=[TagShare(tag=row.keys[0], **_share(row)) for row in tops["tags"]],
        metadataKeysTop=_by_size(tops["metadata_keys"], "key", KeyCount),
        # The model wrote these keys.
        outputKeysTop=_by_size(tops["output_keys"], "key", KeyCount) if reader.caller.may(Permission.CONTENT) else [],
        toolsLatency=[_tool_latency(row) for row in tops["tool_names"]],
        toolsUsageBars=_by_size(tops["tool_names"], "name", ToolUse),
        metadataValueBreakdown=_metadata_values(query, found.metadata),
    )


def _seconds(milliseconds: Any) -> float | None:
    return None if milliseconds is None else float(milliseconds) / 1000


def _interval(times: Times) -> ChartInterval:
    bucket, size = times.key.bucket, ABOUT_SECONDS[times.key.bucket]
    is_minutes = 60 <= size < 3600
    name = "minute" if is_minutes else bucket.value
    return ChartInterval(interval=name, bucketSizeMs=size * 1000, bucketMinutes=size // 60 if is_minutes else None)


def _totals(totals: AggregateRow) -> dict[str, Any]:
    count, inputs, outputs, cached, thinking, cost, latency = totals.values
    return {
        "averageLatency": _seconds(latency),
        "totalCost": float(cost),
        "totalTokens": inputs + outputs,
        "totalRequests": count,
        "totalCachedTokens": cached,
        "totalThinkingTokens": thinking,
        "cacheTokenRatio": cached / inputs if inputs else None,
    }


def _stats(found: Overview) -> list[BucketSummary]:
    times = found.times
    statuses: dict[str, dict[str, int]] = {}
    for row in found.by_status:
        statuses.setdefault(times.date_of(row.keys[1]), {})[row.keys[0]] = row.values[0]
    by_date = {times.date_of(row.keys[0]): dict(zip(STATS, row.values, strict=True)) for row in found.stats}
    nothing = {value: value.zero for value in STATS}
    return [
        _stat(date, label_of(times.key.bucket, start), by_date.get(date, nothing), statuses.get(date, {}))
        for date, start in zip(times.dates, times.starts, strict=True)
    ]


def _stat(date: str, label: str, values: Mapping[Value, Any], statuses: dict[str, int]) -> BucketSummary:
    count = values[COUNT]
    return BucketSummary(
        date=date,
        dateLabel=label,
        requests=count,
        tokens=values[INPUT] + values[OUTPUT],
        inputTokens=values[INPUT],
        outputTokens=values[OUTPUT],
        cost=float(values[COST]),
        latency=_seconds(values[AVERAGE_LATENCY]),
        cachedTokens=values[CACHED],
        thinkingTokens=values[THINKING],
        traceShare=values[SHAPES["traces"]] / count if count else None,
        statusCounts=statuses,
        outputShapeCounts=OutputShapes(
            json_=values[SHAPES["json"]],
            toolCall=values[SHAPES["toolCall"]],
            plainText=values[SHAPES["plainText"]],
        ),
        avgTurnCount=values[TURNS],
        avgToolCallCount=values[CALLS],
        toolCallCountP95=values[CALLS_P95],
    )


def _by_group(found: Overview) -> dict[str, Any]:
    """Requests and latencies by day of the largest models, prompts and providers."""
    models, prompts, providers = (found.by_day[field] for field in ("engine", "prompt_id", "provider_type"))
    return {
        "modelRequestsByDay": _counts(found.times, models),
        "promptTemplateRequestsByDay": _counts(found.times, prompts),
        "providerRequestsByDay": _counts(found.times, providers),
        "latencyByModelByDay": _latencies(found.times, models),
        "latencyByPromptTemplateByDay": _latencies(found.times, prompts),
        "latencyByProviderByDay": _latencies(found.times, providers),
    }


def _counts(times: Times, days: Mapping[str, Mapping[str, AggregateRow]]) -> dict[str, list[tuple[str, int]]]:
    return {
        name: [(date, rows[date].values[0] if date in rows else 0) for date in times.dates]
        for name, rows in days.items()
    }


def _latencies(times: Times, days: Mapping[str, Mapping[str, AggregateRow]]) -> dict[str, LatencyOfGroup]:
    """Dates without requests are left out."""
    return {
        name: LatencyOfGroup(
            **{
                level: [(date, _seconds(rows[date].values[place])) for date in times.dates if date in rows]
                for place, level in enumerate(LATENCIES, start=1)
            }
        )
        for name, rows in days.items()
    }


def _latency(found: Overview) -> LatencyOverTime:
    """By date; dates without requests are left out."""
    ordered = sorted(found.stats, key=lambda row: row.keys[0])
    return LatencyOverTime(
        **{
            level: {found.times.date_of(row.keys[0]): _seconds(row.values[STATS.index(value)]) for row in ordered}
            for level, value in LATENCIES.items()
        }
    )


def _share(row: AggregateRow) -> dict[str, Any]:
    count, cost, inputs, outputs = row.values
    return {
        "requests": count,
        "cost": float(cost),
        "tokens": inputs + outputs,
        "inputTokens": inputs,
        "outputTokens": outputs,
    }


def _prompt(row: AggregateRow, found: Overview) -> dict[str, Any]:
    return {"promptId": row.keys[0], "promptName": found.prompt_names.get(row.keys[0])}


def _by_size(rows: Rows, key: str, model: Any) -> list[Any]:
    return [model(**{key: row.keys[0]}, requests=row.values[0]) for row in rows]


def _metadata_values(query: RequestLogQuery, rows: Mapping[str, Rows]) -> list[MetadataValue]:
    is_one_key = query.metadata_cost_breakdown_key is not None
    found = [
        MetadataValue(
            key=key,
            value=row.keys[0],
            label=row.keys[0] if is_one_key else f"{key} = {row.keys[0]}",
            cost=float(row.values[0]),
            requests=row.values[1],
        )
        for key, some in rows.items()
        for row in some
    ]
    found.sort(key=lambda value: (-value.cost, value.label))
    return found[:MAX_METADATA_VALUES]


def _tool_latency(row: AggregateRow) -> ToolLatency:
    count, average, least, most = row.values
    return ToolLatency(
        toolName=row.keys[0],
        requests=count,
        avgLatencySeconds=_seconds(average),
        minLatencySeconds=_seconds(least),
        maxLatencySeconds=_seconds(most),
    )
