"""Statistics over request logs, from the rollups wherever they can answer."""

import math
from datetime import UTC, datetime

from aggregator.rollups.measures import (
    CACHED_INPUT_TOKENS,
    COST,
    DURATION_COUNT,
    DURATION_HISTOGRAM,
    DURATION_MAX,
    DURATION_MIN,
    DURATION_SUM,
    ERRORS,
    INPUT_TOKENS,
    OUTPUT_TOKENS,
    REQUESTS,
    WITHOUT_COST,
    Bucket,
    Dimension,
)
from aggregator.rollups.planner import Condition, Question, compile_answer
from api.request_logs.parameters import GroupBy, StatsMetric, StatsParameters
from api.request_logs.schemas import StatsAnswer, StatsGroup
from api.request_rows import Row
from api.security.reader import Reader
from api.wire_types import dollars, rfc3339

MEASURES = (
    REQUESTS,
    ERRORS,
    *WITHOUT_COST,
    INPUT_TOKENS,
    OUTPUT_TOKENS,
    CACHED_INPUT_TOKENS,
    COST,
    DURATION_SUM,
    DURATION_COUNT,
    DURATION_MIN,
    DURATION_MAX,
    DURATION_HISTOGRAM,
)
GROUPS: dict[GroupBy, Dimension | Bucket] = {
    GroupBy.MODEL: Dimension.MODEL,
    GroupBy.USER: Dimension.USER,
    GroupBy.API_KEY: Dimension.API_KEY,
    GroupBy.STATUS: Dimension.STATUS,
    GroupBy.HOUR: Bucket.HOUR,
    GroupBy.DAY: Bucket.DAY,
}
# No rollup tells rows apart by it.
CONDITIONS = {
    None: Condition(),
    True: Condition("is_error", dimensions=None),
    False: Condition("NOT is_error", dimensions=None),
}
ORDERS = {
    StatsMetric.COUNT: "requests DESC",
    StatsMetric.TOKENS: "input_tokens + output_tokens DESC",
    StatsMetric.COST: "cost DESC",
    StatsMetric.LATENCY: "if(duration_ms_count = 0, NULL, duration_ms_sum / duration_ms_count) DESC NULLS LAST",
    StatsMetric.ERRORS: "errors DESC",
}


def _question(parameters: StatsParameters) -> Question:
    equals = {Dimension.USER: parameters.user_id, Dimension.MODEL: parameters.model_name}
    return Question(
        MEASURES,
        parameters.span,
        {dimension: value for dimension, value in equals.items() if value is not None},
        GROUPS[parameters.group_by],
        parameters.timezone,
        condition=CONDITIONS[parameters.is_error],
    )


def _order(parameters: StatsParameters) -> str:
    if parameters.group_by in (GroupBy.HOUR, GroupBy.DAY):
        return "group_key ASC"
    return f"{ORDERS[parameters.metric]}, group_key ASC"


def _average_ms(row: Row) -> float | None:
    count = row["duration_ms_count"]
    return row["duration_ms_sum"] / count if count else None


def _value(row: Row, metric: StatsMetric) -> int | float | str | None:
    if metric is StatsMetric.TOKENS:
        return int(row["input_tokens"] + row["output_tokens"])
    if metric is StatsMetric.COST:
        return dollars(row["cost"])
    if metric is StatsMetric.LATENCY:
        return _average_ms(row)
    return int(row["errors" if metric is StatsMetric.ERRORS else "requests"])


def _group(row: Row, group_by: GroupBy) -> str:
    if group_by in (GroupBy.HOUR, GroupBy.DAY):
        return rfc3339(datetime.fromtimestamp(row["group_key"], UTC), "seconds")
    return str(row["group_key"])


def _stat(row: Row, parameters: StatsParameters) -> StatsGroup:
    p50, p95, p99 = (None if math.isnan(level) else level for level in row["duration_ms_histogram"])
    return StatsGroup(
        group=_group(row, parameters.group_by),
        count=row["requests"],
        error_count=row["errors"],
        unpriced_count=row["unpriced"],
        missing_usage_count=row["missing_usage"],
        failed_without_usage_count=row["failed_without_usage"],
        input_tokens=row["input_tokens"],
        output_tokens=row["output_tokens"],
        cached_input_tokens=row["cached_input_tokens"],
        cost=row["cost"],
        avg_duration_ms=_average_ms(row),
        p50_duration_ms=p50,
        p95_duration_ms=p95,
        p99_duration_ms=p99,
        value=_value(row, parameters.metric),
    )


def answer_stats(reader: Reader, parameters: StatsParameters) -> StatsAnswer:
    """Groups in order, at most `limit`, and totals over all of them."""
    question = reader.confine(_question(parameters))
    rows = reader.query(*compile_answer(question, _order(parameters), parameters.limit + 1))
    groups = [row for row in rows if not row["is_total"]]
    empty: Row = dict.fromkeys((measure.name for measure in MEASURES), 0)
    total = next((row for row in rows if row["is_total"]), empty)
    return StatsAnswer(
        stats=[_stat(row, parameters) for row in groups[: parameters.limit]],
        truncated=len(groups) > parameters.limit,
        total_count=total["requests"],
        total_input_tokens=total["input_tokens"],
        total_output_tokens=total["output_tokens"],
        total_cost=total["cost"],
        avg_duration_ms=_average_ms(total),
        error_count=total["errors"],
        unpriced_count=total["unpriced"],
        missing_usage_count=total["missing_usage"],
        failed_without_usage_count=total["failed_without_usage"],
    )
