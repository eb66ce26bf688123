"""Metrics as SQL: over the raw rows, and over what rollups hold where that gives the same."""

from collections.abc import Sequence
from dataclasses import dataclass

from aggregator.clickhouse.sql import Binder
from aggregator.rollups.measures import (
    CACHED_INPUT_TOKENS,
    COST,
    DURATION_COUNT,
    DURATION_SUM,
    ERRORS,
    INPUT_TOKENS,
    OUTPUT_TOKENS,
    RELATIVE_ERROR,
    REQUESTS,
    THINKING_TOKENS,
    WITHOUT_COST,
    Measure,
)
from api.analytics.charts.request import ChartMetric, ChartSpec, Measured
from api.analytics.filters.compile import nested_values
from api.analytics.filters.fields import BY_NAME, ValueUnit

# Up to here a percentile is interpolated between the values themselves.
EXACT_ROWS = 10_000

LABELS = {
    "input_tokens": "Input tokens",
    "output_tokens": "Output tokens",
    "cached_tokens": "Cached tokens",
    "thinking_tokens": "Thinking tokens",
    "cost": "Cost",
    "latency_ms": "Latency",
    "prompt_version_number": "Prompt version",
    "turn_count": "Turns",
    "tool_call_count": "Tool calls",
}
SUMS = {
    "input_tokens": INPUT_TOKENS,
    "output_tokens": OUTPUT_TOKENS,
    "cached_tokens": CACHED_INPUT_TOKENS,
    "thinking_tokens": THINKING_TOKENS,
    "cost": COST,
    "latency_ms": DURATION_SUM,
}


# When the earliest and the latest request started, in Unix seconds; a rollup only knows their buckets.
EARLIEST = Measure(
    "earliest", "toUnixTimestamp(min(timestamp))", merge="toUnixTimestamp(min(bucket))", finish="min({column})"
)
LATEST = Measure(
    "latest", "toUnixTimestamp(max(timestamp))", merge="toUnixTimestamp(max(bucket))", finish="max({column})"
)


@dataclass(frozen=True)
class Value:
    """A metric of a field or of requests. Equal ones are computed once."""

    metric: ChartMetric
    field: str | None = None
    percentile: float | None = None
    metadata_key: str | None = None

    @property
    def unit(self) -> ValueUnit:
        unit = BY_NAME[self.field].unit if self.field else None
        return unit or ValueUnit.COUNT

    @property
    def label(self) -> str:
        """The default label of a series."""
        if self.metric is ChartMetric.COUNT:
            return "Requests"
        if self.metric is ChartMetric.DISTINCT_COUNT:
            return f"Distinct {self.metadata_key}"
        name = LABELS[self.field or ""]
        if self.metric is ChartMetric.PERCENTILE:
            return f"P{self.percentile:g} {name.lower()}"
        prefix = {
            ChartMetric.SUM: "",
            ChartMetric.AVG: "Average ",
            ChartMetric.MIN: "Minimum ",
            ChartMetric.MAX: "Maximum ",
        }[self.metric]
        return prefix + (name.lower() if prefix else name)

    @property
    def zero(self) -> int | None:
        """The value over no requests."""
        return 0 if self.metric in (ChartMetric.COUNT, ChartMetric.SUM, ChartMetric.DISTINCT_COUNT) else None


COUNT = Value(ChartMetric.COUNT)
# Counts of some requests only. No chart asks for them: a count takes no field there.
SOME_REQUESTS = {Value(ChartMetric.COUNT, measure.name): measure for measure in (ERRORS, *WITHOUT_COST)}
# Meaningless unless there are requests.
FIRST_SECONDS = Value(ChartMetric.MIN, "request_start_time")
LAST_SECONDS = Value(ChartMetric.MAX, "request_start_time")


def value_of(spec: Measured | ChartSpec) -> Value:
    return Value(spec.metric or ChartMetric.COUNT, spec.metricField, spec.percentile, spec.distinctMetadataKey)


def _percentile(value: Value, column: str, beside: Sequence[Value]) -> str:
    # Percentiles of one column share a sketch and a sorted list. Parameters of aggregate functions cannot be bound;
    # these are numbers between 0 and 1.
    same = {other.percentile or 0.0 for other in beside if (other.metric, other.field) == (value.metric, value.field)}
    percentiles = sorted(same)
    place = percentiles.index(value.percentile or 0.0) + 1
    levels = ", ".join(repr(float(percentile) / 100) for percentile in percentiles)
    # The percentile of a decimal would be a decimal, too.
    number = f"toFloat64({column})" if value.unit is ValueUnit.CURRENCY else column
    return (
        f"multiIf(count({column}) = 0, NULL, count({column}) <= {EXACT_ROWS},"
        f" arrayReduce('quantilesExactInclusive({levels})', groupArray({EXACT_ROWS + 1})({number}))[{place}],"
        f" least(greatest(quantilesDD({RELATIVE_ERROR}, {levels})({number})[{place}], min({number})), max({number})))"
    )


def raw_sql(value: Value, binder: Binder, beside: Sequence[Value]) -> str:
    """The metric over rows of request_logs; NULL where no row has a value. `beside` are all values of the statement."""
    if value.metric is ChartMetric.COUNT:
        return SOME_REQUESTS.get(value, REQUESTS).from_raw
    if value.metric is ChartMetric.DISTINCT_COUNT:
        values = nested_values(BY_NAME["metadata"], value.metadata_key or "", binder)
        return f"uniqExactArray({values})"
    column = f"request_logs.{BY_NAME[value.field or ''].column}"
    if value in (FIRST_SECONDS, LAST_SECONDS):
        return f"toUnixTimestamp({value.metric}({column}))"
    if value.metric is ChartMetric.PERCENTILE:
        return _percentile(value, column, beside)
    if value.metric is ChartMetric.SUM:
        return f"ifNull(sum({column}), 0)"
    if value.metric is ChartMetric.AVG:
        return f"if(count({column}) = 0, NULL, toFloat64(sum({column})) / count({column}))"
    return f"{value.metric}({column})"


def sketch_flag_sql(value: Value) -> str:
    """1 where the percentile comes from a sketch."""
    return f"count(request_logs.{BY_NAME[value.field or ''].column}) > {EXACT_ROWS}"


def rollup_measures(value: Value) -> tuple[Measure, ...]:
    """The measures that the metric needs; empty if rollups cannot answer it."""
    if value in (FIRST_SECONDS, LAST_SECONDS):
        return (EARLIEST if value == FIRST_SECONDS else LATEST,)
    if value.metric is ChartMetric.COUNT:
        return (SOME_REQUESTS.get(value, REQUESTS),)
    if value.metric is ChartMetric.SUM and value.field in SUMS:
        return (SUMS[value.field],)
    if value.metric is ChartMetric.AVG and value.field == "latency_ms":
        return (DURATION_SUM, DURATION_COUNT)
    if value.metric is ChartMetric.AVG and value.field == "cost":
        return (COST, REQUESTS, *WITHOUT_COST)
    return ()


def rollup_sql(value: Value) -> str:
    """The metric over the merged measures, a subquery called `states`."""
    merged = [measure.finished("states") for measure in rollup_measures(value)]
    if value.metric is not ChartMetric.AVG:
        return merged[0]
    known = f"({' - '.join(merged[1:])})"
    return f"if({known} = 0, NULL, toFloat64({merged[0]}) / {known})"
