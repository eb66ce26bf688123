"""The aggregate queries of the overview, in two rounds: what is largest, and when; then all of it over time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from aggregator.rollups.measures import Bucket
from api.analytics.charts.aggregate_query import EXTENT, AggregateQuery, AggregateRow, Grouping, GroupKey, TimeKey
from api.analytics.charts.metric_sql import COUNT, Value
from api.analytics.charts.query_runner import run_queries
from api.analytics.charts.request import ChartMetric
from api.analytics.charts.time_buckets import MAX_BUCKETS, key_of, pick, starts
from api.analytics.request import RequestLogQuery
from api.analytics.where import RequestFilter, request_filter_of
from api.security.reader import Reader

TOP = 25
MAX_METADATA_VALUES = 50
# Without a key to break down by, these most frequent ones are.
BROKEN_DOWN_KEYS = 10
ZONE = ZoneInfo("UTC")

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
STATS = (COUNT, INPUT, OUTPUT, COST, CACHED, THINKING, *SHAPES.values(), TURNS, CALLS, CALLS_P95, *LATENCIES.values())

Rows = Sequence[AggregateRow]


@dataclass(frozen=True)
class Times:
    """The buckets of the answer."""

    key: TimeKey
    starts: Sequence[datetime]

    @property
    def dates(self) -> list[str]:
        return [key_of(self.key.bucket, start) for start in self.starts]

    def date_of(self, seconds: int) -> str:
        return key_of(self.key.bucket, datetime.fromtimestamp(seconds, UTC))


@dataclass(frozen=True)
class Overview:
    """The rows of all queries.

    `tops` are the largest groups by field, `by_day` their rows by field, group and date. `metadata` are the values of
    each metadata key. Of what has no rows nothing is kept.
    """

    times: Times
    totals: AggregateRow
    tops: Mapping[str, Rows]
    stats: Rows
    by_status: Rows
    by_day: Mapping[str, Mapping[str, Mapping[str, AggregateRow]]]
    metadata: Mapping[str, Rows]
    prompt_names: Mapping[str, str]
    has_sketches: bool


def read_overview(reader: Reader, query: RequestLogQuery) -> Overview:
    """Raises ApiError 400 for words or a filter that cannot be looked for."""
    request_filter = request_filter_of(reader, query)
    first = run_queries(reader, request_filter, [TOTALS, EXTENT, *TOPS.values()])
    times = _times_of(request_filter, first[EXTENT][0])
    tops: dict[str, Rows] = {field: first[largest] for field, largest in TOPS.items()}

    stats = AggregateQuery(Grouping((times.key,)), STATS)
    by_status = AggregateQuery(Grouping((GroupKey("status"), times.key)), (COUNT,))
    splits = {field: _split(field, tops[field], times.key) for field in SPLITS if tops[field]}
    metadata = _metadata_queries(query, tops["metadata_keys"])
    queries = [stats, by_status, *splits.values(), *metadata.values()]
    second = run_queries(reader, request_filter, queries) if times.starts else {}
    return Overview(
        times,
        totals=first[TOTALS][0],
        tops=tops,
        stats=second.get(stats, []),
        by_status=second.get(by_status, []),
        by_day={f: _by_day(times, tops[f], second[splits[f]] if f in splits else []) for f in SPLITS},
        metadata={key: second.get(values, []) for key, values in metadata.items()},
        prompt_names=_prompt_names(reader, tops["prompt_id"]),
        has_sketches=any(row.is_sketch for rows in second.values() for row in rows),
    )


def _times_of(request_filter: RequestFilter, extent: AggregateRow) -> Times:
    count, first_seconds, last_seconds = extent.values
    if not count:
        return Times(TimeKey(Bucket.DAY, ZONE.key), [])
    span = request_filter.span
    first = span.start or datetime.fromtimestamp(first_seconds, UTC)
    end = span.end and span.end - timedelta(microseconds=1)
    last = end or datetime.fromtimestamp(last_seconds, UTC)
    # Whole days as long as they are not too many: its keys are named after them.
    bucket = pick(first, last, most_days=MAX_BUCKETS)
    return Times(TimeKey(bucket, ZONE.key), list(starts(bucket, first, last, ZONE)))


def _split(field: str, top: Rows, time: TimeKey) -> AggregateQuery:
    """The largest groups of a field over time."""
    groups = tuple(row.keys[0] for row in top)
    return AggregateQuery(Grouping((GroupKey(field), time), (groups, None)), (COUNT, *LATENCIES.values()))


def _by_day(times: Times, tops: Rows, rows: Rows) -> dict[str, dict[str, AggregateRow]]:
    """Rows by group, largest first, and date."""
    found: dict[str, dict[str, AggregateRow]] = {row.keys[0]: {} for row in tops}
    for row in rows:
        found[row.keys[0]][times.date_of(row.keys[1])] = row
    return found


def _metadata_queries(query: RequestLogQuery, keys: Rows) -> dict[str, AggregateQuery]:
    named = query.metadata_cost_breakdown_key
    wanted = [named] if named is not None else [row.keys[0] for row in keys[:BROKEN_DOWN_KEYS]]
    return {
        key: AggregateQuery(Grouping((GroupKey("metadata", key),)), (COST, COUNT), MAX_METADATA_VALUES)
        for key in wanted
    }


def _prompt_names(reader: Reader, prompts: Rows) -> dict[str, str]:
    if not prompts:
        return {}
    rows = reader.query(PROMPT_NAMES, {"ids": [row.keys[0] for row in prompts]})
    return {row["prompt_id"]: row["name"] for row in rows}
