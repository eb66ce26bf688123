"""The overview of `POST .../requests/analytics`: the scans of charts, put together in its own shape."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from aggregator.rollups.measures import Bucket
from api.analytics.charts.aggregate_query import (
    AggregateQuery,
    AggregateRow,
    Grouping,
    GroupKey,
    TimeKey,
)
from api.analytics.charts.executor import answer_asks
from api.analytics.charts.metric_sql import FIRST_SECONDS, LAST_SECONDS, Value
from api.analytics.charts.request import ChartMetric
from api.analytics.charts.time_buckets import ABOUT_SECONDS, MAX_BUCKETS, key_of, label_of, pick, starts
from api.analytics.overview.schemas import (
    AnalyticsAnswer,
    ErrorType,
    Interval,
    KeyCount,
    Latency,
    LatencyOfOne,
    MetadataValue,
    NumberSummary,
    OutputShapes,
    PromptShare,
    PromptUse,
    ProviderShare,
    TagShare,
    ToolLatency,
    ToolUse,
)
from api.analytics.request import RequestLogQuery
from api.analytics.where import RequestFilter, request_filter
from api.security.access import Permission
from api.security.reader import Reader

TOP = 25
MAX_METADATA_VALUES = 50
# Without a key to break down by, these most frequent ones are.
BROKEN_DOWN_KEYS = 10
ZONE = ZoneInfo("UTC")

COUNT = Value(ChartMetric.COUNT)
INPUT, OUTPUT = Value(ChartMetric.SUM, "input_tokens"), Value(ChartMetric.SUM, "output_tokens")
CACHED, THINKING = Value(ChartMetric.SUM, "cached_tokens"), Value(ChartMetric.SUM, "thinking_tokens")
COST = Value(ChartMetric.SUM, "cost")
AVERAGE_LATENCY = Value(ChartMetric.AVG, "latency_ms")
LATENCIES = {
    "average_latency": AVERAGE_LATENCY,
    **{f"p{level}_latency": Value(ChartMetric.PERCENTILE, "latency_ms", level) for level in (50, 90, 95)},
}
SHAPES = {
    "traces": Value(ChartMetric.SUM, "has_trace"),
    "json": Value(ChartMetric.SUM, "is_json"),
    "toolCall": Value(ChartMetric.SUM, "is_tool_call"),
    "plainText": Value(ChartMetric.SUM, "is_plain_text"),
}
TURNS, CALLS = Value(ChartMetric.AVG, "turn_count"), Value(ChartMetric.AVG, "tool_call_count")
CALLS_P95 = Value(ChartMetric.PERCENTILE, "tool_call_count", 95)

TOTALS = AggregateQuery(Grouping(), (COUNT, INPUT, OUTPUT, CACHED, THINKING, COST, AVERAGE_LATENCY))
EXTENT = AggregateQuery(Grouping(), (COUNT, FIRST_SECONDS, LAST_SECONDS))
SHARE = (COUNT, COST, INPUT, OUTPUT)
SPLITS = ("engine", "prompt_id", "provider_type")
PROMPT_NAMES = """
SELECT prompt_id, argMax(prompt_name, timestamp) AS name FROM request_logs
WHERE prompt_id IN {ids:Array(String)} AND prompt_name != '' GROUP BY prompt_id
"""


def _top(field: str, *values: Value, limit: int = TOP) -> AggregateQuery:
    return AggregateQuery(Grouping((GroupKey(field),)), values, limit)


TOPS = {
    **{field: _top(field, *SHARE) for field in (*SPLITS, "tags")},
    **{field: _top(field, COUNT) for field in ("error_type", "metadata_keys", "output_keys")},
    "tool_names": _top(
        "tool_names", COUNT, AVERAGE_LATENCY, Value(ChartMetric.MIN, "latency_ms"), Value(ChartMetric.MAX, "latency_ms")
    ),
}


def _seconds(milliseconds: Any) -> float | None:
    return None if milliseconds is None else float(milliseconds) / 1000


@dataclass(frozen=True)
class _Time:
    """The buckets of the answer."""

    key: TimeKey
    starts: Sequence[datetime]

    @property
    def dates(self) -> list[str]:
        return [key_of(self.key.bucket, start) for start in self.starts]

    def date_of(self, seconds: int) -> str:
        return key_of(self.key.bucket, datetime.fromtimestamp(seconds, UTC))

    @property
    def interval(self) -> Interval:
        bucket, size = self.key.bucket, ABOUT_SECONDS[self.key.bucket]
        is_minutes = 60 <= size < 3600
        name = "minute" if is_minutes else bucket.value
        return Interval(interval=name, bucketSizeMs=size * 1000, bucketMinutes=size // 60 if is_minutes else None)


def _time_of(scope: RequestFilter, extent: AggregateRow) -> _Time:
    count, first_seconds, last_seconds = extent.values
    if not count:
        return _Time(TimeKey(Bucket.DAY, ZONE.key), [])
    first = scope.span.start or datetime.fromtimestamp(first_seconds, UTC)
    end = scope.span.end and scope.span.end - timedelta(microseconds=1)
    last = end or datetime.fromtimestamp(last_seconds, UTC)
    # Whole days as long as they are not too many: its keys are named after them.
    bucket = pick(first, last, most_days=MAX_BUCKETS)
    return _Time(TimeKey(bucket, ZONE.key), list(starts(bucket, first, last, ZONE)))


def _stats(
    time: _Time, rows: Sequence[AggregateRow], ask: AggregateQuery, by_status: Sequence[AggregateRow]
) -> list[NumberSummary]:
    statuses: dict[str, dict[str, int]] = {}
    for row in by_status:
        statuses.setdefault(time.date_of(row.keys[1]), {})[row.keys[0]] = row.values[0]
    found = {time.date_of(row.keys[0]): dict(zip(ask.values, row.values, strict=True)) for row in rows}
    nothing = {value: value.zero for value in ask.values}
    return [
        _stat(date, label_of(time.key.bucket, start), found.get(date, nothing), statuses.get(date, {}))
        for date, start in zip(time.dates, time.starts, strict=True)
    ]


def _stat(date: str, label: str, values: Mapping[Value, Any], statuses: dict[str, int]) -> NumberSummary:
    count = values[COUNT]
    return NumberSummary(
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


def _by_day(
    time: _Time, tops: Sequence[AggregateRow], rows: Sequence[AggregateRow]
) -> dict[str, dict[str, AggregateRow]]:
    """Rows by group, largest first, and date."""
    found: dict[str, dict[str, AggregateRow]] = {row.keys[0]: {} for row in tops}
    for row in rows:
        found[row.keys[0]][time.date_of(row.keys[1])] = row
    return found


def _counts(time: _Time, days: Mapping[str, Mapping[str, AggregateRow]]) -> dict[str, list[tuple[str, int]]]:
    return {
        name: [(date, rows[date].values[0] if date in rows else 0) for date in time.dates]
        for name, rows in days.items()
    }


def _latencies(time: _Time, days: Mapping[str, Mapping[str, AggregateRow]]) -> dict[str, LatencyOfOne]:
    """Dates without requests are left out."""
    return {
        name: LatencyOfOne(
            **{
                level: [(date, _seconds(rows[date].values[place])) for date in time.dates if date in rows]
                for place, level in enumerate(LATENCIES, start=1)
            }
        )
        for name, rows in days.items()
    }


def _share(row: AggregateRow) -> dict[str, Any]:
    count, cost, inputs, outputs = row.values
    return {
        "requests": count,
        "cost": float(cost),
        "tokens": inputs + outputs,
        "inputTokens": inputs,
        "outputTokens": outputs,
    }


def _by_size(rows: Sequence[AggregateRow], key: str, model: Any) -> list[Any]:
    return [model(**{key: row.keys[0]}, requests=row.values[0]) for row in rows]


def _metadata_asks(query: RequestLogQuery, keys: Sequence[AggregateRow]) -> dict[str, AggregateQuery]:
    named = query.metadata_cost_breakdown_key
    wanted = [named] if named is not None else [row.keys[0] for row in keys[:BROKEN_DOWN_KEYS]]
    return {
        key: AggregateQuery(Grouping((GroupKey("metadata", key),)), (COST, COUNT), MAX_METADATA_VALUES)
        for key in wanted
    }


def _metadata_values(query: RequestLogQuery, rows: Mapping[str, Sequence[AggregateRow]]) -> list[MetadataValue]:
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


def _prompt_names(reader: Reader, prompts: Sequence[AggregateRow]) -> dict[str, str]:
    if not prompts:
        return {}
    rows = reader.query(PROMPT_NAMES, {"ids": [row.keys[0] for row in prompts]})
    return {row["prompt_id"]: row["name"] for row in rows}


def answer_analytics(reader: Reader, query: RequestLogQuery) -> AnalyticsAnswer:
    """Two rounds: what is largest, and when; then everything over time, for the largest."""
    scope = request_filter(reader, query)
    first = answer_asks(reader, scope, [TOTALS, EXTENT, *TOPS.values()])
    time = _time_of(scope, first[EXTENT][0])
    tops = {name: first[ask] for name, ask in TOPS.items()}

    stats = AggregateQuery(
        Grouping((time.key,)),
        (COUNT, INPUT, OUTPUT, COST, CACHED, THINKING, *SHAPES.values(), TURNS, CALLS, CALLS_P95, *LATENCIES.values()),
    )
    by_status = AggregateQuery(Grouping((GroupKey("status"), time.key)), (COUNT,))
    splits = {
        field: AggregateQuery(
            Grouping((GroupKey(field), time.key), (tuple(row.keys[0] for row in tops[field]), None)),
            (COUNT, *LATENCIES.values()),
        )
        for field in SPLITS
        if tops[field]
    }
    metadata = _metadata_asks(query, tops["metadata_keys"])
    second = answer_asks(reader, scope, [stats, by_status, *splits.values(), *metadata.values()]) if time.starts else {}

    days = {field: _by_day(time, tops[field], second[splits[field]] if field in splits else []) for field in SPLITS}
    names = _prompt_names(reader, tops["prompt_id"])
    count, inputs, outputs, cached, thinking, cost, latency = first[TOTALS][0].values
    over_time = second.get(stats, [])
    return AnalyticsAnswer(
        chartInterval=time.interval,
        percentileMethod="sketch" if any(row.is_sketch for rows in second.values() for row in rows) else "interpolated",
        averageLatency=_seconds(latency),
        totalCost=float(cost),
        totalTokens=inputs + outputs,
        totalRequests=count,
        totalCachedTokens=cached,
        totalThinkingTokens=thinking,
        cacheTokenRatio=cached / inputs if inputs else None,
        stats=_stats(time, over_time, stats, second.get(by_status, [])),
        mostUsedModels=[(row.keys[0], row.values[0]) for row in tops["engine"]],
        modelRequestsByDay=_counts(time, days["engine"]),
        promptTemplateRequestsByDay=_counts(time, days["prompt_id"]),
        providerRequestsByDay=_counts(time, days["provider_type"]),
        mostUsedPromptTemplates=[
            PromptUse(promptId=row.keys[0], requests=row.values[0], promptName=names.get(row.keys[0]))
            for row in tops["prompt_id"]
        ],
        latency=_latency(time, over_time, stats),
        latencyByModelByDay=_latencies(time, days["engine"]),
        latencyByPromptTemplateByDay=_latencies(time, days["prompt_id"]),
        latencyByProviderByDay=_latencies(time, days["provider_type"]),
        errorTypes=_by_size(tops["error_type"], "errorType", ErrorType),
        providerBreakdown=[ProviderShare(provider=row.keys[0], **_share(row)) for row in tops["provider_type"]],
        promptBreakdown=[
            PromptShare(promptId=row.keys[0], promptName=names.get(row.keys[0]), **_share(row))
            for row in tops["prompt_id"]
        ],
        tagsBreakdown=[TagShare(tag=row.keys[0], **_share(row)) for row in tops["tags"]],
        metadataKeysTop=_by_size(tops["metadata_keys"], "key", KeyCount),
        # The model wrote these keys.
        outputKeysTop=_by_size(tops["output_keys"], "key", KeyCount) if reader.caller.may(Permission.CONTENT) else [],
        toolsLatency=[_tool_latency(row) for row in tops["tool_names"]],
        toolsUsageBars=_by_size(tops["tool_names"], "name", ToolUse),
        metadataValueBreakdown=_metadata_values(query, {key: second.get(ask, []) for key, ask in metadata.items()}),
    )


def _latency(time: _Time, rows: Sequence[AggregateRow], ask: AggregateQuery) -> Latency:
    """By date; dates without requests are left out."""
    ordered = sorted(rows, key=lambda row: row.keys[0])
    return Latency(
        **{
            level: {time.date_of(row.keys[0]): _seconds(row.values[ask.values.index(value)]) for row in ordered}
            for level, value in LATENCIES.items()
        }
    )


def _tool_latency(row: AggregateRow) -> ToolLatency:
    count, average, least, most = row.values
    return ToolLatency(
        toolName=row.keys[0],
        requests=count,
        avgLatencySeconds=_seconds(average),
        minLatencySeconds=_seconds(least),
        maxLatencySeconds=_seconds(most),
    )
