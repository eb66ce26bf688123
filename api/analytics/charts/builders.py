"""Each kind of chart: which aggregate queries it needs, and how their rows become its data.

A chart is a generator. It yields queries and is sent their rows, once or more often; what it returns is its answer.
So charts know nothing of each other, and the executor may run the same query once for all.
"""

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from aggregator.rollups.measures import Bucket
from aggregator.times import Span
from api.analytics.charts.aggregate_query import (
    EXTENT,
    AggregateQuery,
    AggregateRow,
    BinKey,
    Grouping,
    GroupKey,
    Key,
    TimeKey,
)
from api.analytics.charts.metric_sql import COUNT, Value, value_of
from api.analytics.charts.request import HIERARCHIES, ChartMetric, ChartSpec, ChartType, TimeBucket
from api.analytics.charts.schemas import Chart, ChartSeries, DerivedInsight
from api.analytics.charts.time_buckets import MAX_BUCKETS, about_count, key_of, label_of, pick, starts
from api.analytics.filters.fields import ValueUnit
from api.errors import ApiError

DEFAULT_LIMIT = 25
MAX_BINS = 1_000

Data = list[dict[str, Any]]
Steps = Generator[list[AggregateQuery], list[list[AggregateRow]], tuple[Data, list[AggregateRow]]]
ChartSteps = Generator[list[AggregateQuery], list[list[AggregateRow]], Chart]


@dataclass(frozen=True)
class Context:
    """What a chart needs of its request; `path` is its place there, for error messages."""

    span: Span
    timezone: str
    path: str


def _names_and_values(spec: ChartSpec) -> dict[str, Value]:
    """The value of each series, by its key."""
    if spec.series is None:
        return {"value": value_of(spec)}
    return {series.key: value_of(series) for series in spec.series}


def _number(value: Any, unit: ValueUnit) -> Any:
    """A number for JSON: dollars as a float, milliseconds as seconds."""
    if isinstance(value, Decimal):
        value = float(value)
    return value / 1000 if unit is ValueUnit.DURATION_SECONDS and value is not None else value


def _cells(spec: ChartSpec, row: AggregateRow) -> dict[str, Any]:
    named = zip(_names_and_values(spec).items(), row.values, strict=True)
    return {key: _number(value, metric.unit) for (key, metric), value in named}


def _empty_cells(spec: ChartSpec) -> dict[str, Any]:
    return {key: value.zero for key, value in _names_and_values(spec).items()}


def _group(field: str | None, metadata_key: str | None) -> GroupKey:
    return GroupKey("metadata", metadata_key) if field is None else GroupKey(field)


def _query(
    spec: ChartSpec, keys: Sequence[Key], within: tuple[Any, ...] = (), limit: int | None = None
) -> AggregateQuery:
    return AggregateQuery(Grouping(tuple(keys), within), tuple(_names_and_values(spec).values()), limit)


def _limit(spec: ChartSpec) -> int:
    return spec.limit or DEFAULT_LIMIT


def _overall(spec: ChartSpec, _: Context) -> Steps:
    (rows,) = yield [_query(spec, ())]
    return [{"label": "Overall", **_cells(spec, row)} for row in rows], rows


def _grouped(spec: ChartSpec, _: Context) -> Steps:
    group = _group(spec.groupByField, spec.groupByMetadataKey)
    (rows,) = yield [_query(spec, [group], limit=_limit(spec))]
    return [{"label": row.keys[0], **_cells(spec, row)} for row in rows], rows


def _hierarchy(spec: ChartSpec, _: Context) -> Steps:
    levels = [GroupKey(field) for field in spec.hierarchyFields or ()]
    (rows,) = yield [_query(spec, levels, limit=_limit(spec))]
    return [{"label": " / ".join(row.keys), "path": list(row.keys), **_cells(spec, row)} for row in rows], rows


def _heatmap(spec: ChartSpec, _: Context) -> Steps:
    """The cells of the `limit` largest groups of both axes, row by row."""
    axes = [
        _group(spec.groupByField, spec.groupByMetadataKey),
        _group(spec.secondaryGroupByField, spec.secondaryGroupByMetadataKey),
    ]
    tops = yield [_query(spec, [axis], limit=_limit(spec)) for axis in axes]
    labels = tuple(tuple(row.keys[0] for row in rows) for rows in tops)
    if not all(labels):
        return [], []
    (rows,) = yield [_query(spec, axes, within=labels)]
    rows.sort(key=lambda row: tuple(places.index(key) for places, key in zip(labels, row.keys, strict=True)))
    return [{"label": row.keys[0], "secondaryLabel": row.keys[1], **_cells(spec, row)} for row in rows], rows


def _instant(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _must_know_extent(spec: ChartSpec, context: Context) -> bool:
    """Whether the bucket depends on the times of the rows."""
    return spec.timeBucket in (None, TimeBucket.AUTO) and None in (context.span.start, context.span.end)


def _time_key(spec: ChartSpec, context: Context, extent: Sequence[AggregateRow]) -> TimeKey:
    """The bucket of the request, or one that fits the range; `extent` are the rows of EXTENT if these are needed."""
    if spec.timeBucket not in (None, TimeBucket.AUTO):
        return TimeKey(Bucket(spec.timeBucket), context.timezone)
    first, end = context.span.start, context.span.end
    if first is None or end is None:
        count, first_seconds, last_seconds = extent[0].values
        if not count:
            return TimeKey(Bucket.DAY, context.timezone)
        first, end = first or _instant(first_seconds), end or _instant(last_seconds)
    return TimeKey(pick(first, end), context.timezone)


def _bucket_starts(key: TimeKey, seconds: Sequence[int], context: Context) -> list[datetime]:
    """All buckets of the query's range, where open of that of the rows.

    Too many: of an open range the newest MAX_BUCKETS up to now, since otherwise one request with a wrong time would
    take the chart from everybody. Raises ApiError 400 for a range that was asked for.
    """
    zone, span = ZoneInfo(key.timezone), context.span
    first = span.start or _instant(min(seconds))
    last = span.end - timedelta(microseconds=1) if span.end else _instant(max(seconds))
    if about_count(key.bucket, first, last) <= MAX_BUCKETS or key.bucket is Bucket.YEAR:
        return list(starts(key.bucket, first, last, zone))
    if span.end is None:
        now = datetime.now(UTC).timestamp()
        last = _instant(max((each for each in seconds if each <= now), default=max(seconds)))
    if span.start is not None and about_count(key.bucket, first, last) > MAX_BUCKETS:
        message = f"the range has more than {MAX_BUCKETS} buckets of a {key.bucket}: narrow it, or take wider ones"
        raise ApiError(400, f"{context.path}.timeBucket: {message}")
    return list(starts(key.bucket, first, last, zone))[-MAX_BUCKETS:]


def _over_time(spec: ChartSpec, context: Context) -> Steps:
    """One row per bucket, or per bucket and group, in which case the largest groups come first within a bucket."""
    groups: list[Key] = [_group(spec.groupByField, spec.groupByMetadataKey)] if spec.is_grouped else []
    first = [EXTENT] if _must_know_extent(spec, context) else []
    second = [_query(spec, groups, limit=_limit(spec))] if groups else []
    # In one round, since neither needs the other.
    found = (yield [*first, *second]) if first or second else []
    key = _time_key(spec, context, found[0] if first else ())
    labels = tuple(row.keys[0] for row in found[-1]) if groups else ()
    if groups and not labels:
        return [], []
    (rows,) = yield [_query(spec, [*groups, key], within=(labels, None) if labels else ())]
    if not rows:
        return [], []
    zone = ZoneInfo(key.timezone)
    # By name, not by instant: ClickHouse and Python may start a day without a midnight at different instants.
    cells = {
        (*row.keys[:-1], key_of(key.bucket, _instant(row.keys[-1]).astimezone(zone))): _cells(spec, row) for row in rows
    }
    empty = _empty_cells(spec)
    data: Data = []
    for start in _bucket_starts(key, [row.keys[-1] for row in rows], context):
        bucket = key_of(key.bucket, start)
        for group in labels or (None,):
            name = (bucket,) if group is None else (group, bucket)
            label = label_of(key.bucket, start) if group is None else group
            data.append({"label": label, "bucketKey": bucket, **cells.get(name, empty)})
    return data, rows


def round_width(extent: float, bins: int) -> float:
    """The least of 1, 2, 5, 10, ... (or 0.1, 0.05, ...) that divides `extent` into at most `bins`."""
    if extent <= 0:
        return 1.0
    exponent = math.floor(math.log10(extent / bins))
    candidates = (float(f"{digit}e{exponent + more}") for more in (0, 1) for digit in (1, 2, 5))
    # One bin more than the quotient, since the first starts at a multiple of the width.
    return next((width for width in candidates if extent / width + 1 <= bins), float(f"1e{exponent + 2}"))


def _edge(number: int, width: float, unit: ValueUnit) -> float:
    """The lower edge of a bin, without binary rounding errors."""
    edge = number * Decimal(repr(width))
    return float(edge / 1000 if unit is ValueUnit.DURATION_SECONDS else edge)


def _histogram(spec: ChartSpec, context: Context) -> Steps:
    """One row per bin from the lowest to the highest value, empty ones included."""
    field = spec.histogramField or ""
    low, high = Value(ChartMetric.MIN, field), Value(ChartMetric.MAX, field)
    (extremes,) = yield [AggregateQuery(Grouping(), (low, high))]
    lowest, highest = extremes[0].values
    if lowest is None:
        return [], []
    width = spec.histogramInterval or round_width(float(highest - lowest), max(_limit(spec), 2))
    if float(highest - lowest) / width > MAX_BINS:
        message = f"makes more than {MAX_BINS} bins of values from {lowest} to {highest}"
        raise ApiError(400, f"{context.path}.histogramInterval: {message}")
    (rows,) = yield [AggregateQuery(Grouping((BinKey(field, width),)), (COUNT,))]
    counts = {row.keys[0]: row.values[0] for row in rows}
    data: Data = []
    for number in range(min(counts), max(counts) + 1):
        start, end = (_edge(place, width, low.unit) for place in (number, number + 1))
        data.append({"label": f"{start:.15g}–{end:.15g}", "from": start, "to": end, "value": counts.get(number, 0)})
    return data, rows


def _steps(spec: ChartSpec, context: Context) -> Steps:
    if spec.chartType in HIERARCHIES:
        return _hierarchy(spec, context)
    if spec.chartType is ChartType.HEATMAP:
        return _heatmap(spec, context)
    if spec.chartType is ChartType.HISTOGRAM:
        return _histogram(spec, context)
    if spec.timeSeries:
        return _over_time(spec, context)
    return _grouped(spec, context) if spec.is_grouped else _overall(spec, context)


def _series(spec: ChartSpec, rows: Sequence[AggregateRow]) -> list[ChartSeries]:
    labels = {series.key: series.label for series in spec.series or ()}
    method = "sketch" if any(row.is_sketch for row in rows) else "interpolated"
    return [
        ChartSeries(
            key=key,
            label=labels.get(key) or value.label,
            unit=value.unit,
            percentileMethod=method if value.metric is ChartMetric.PERCENTILE else None,
        )
        for key, value in _names_and_values(spec).items()
    ]


def _insights(
    spec: ChartSpec,
) -> Generator[list[AggregateQuery], list[list[AggregateRow]], list[DerivedInsight] | None]:
    """Ratios of the series' values over all matching requests."""
    if not spec.derivedInsights:
        return None
    (rows,) = yield [_query(spec, ())]
    totals = _cells(spec, rows[0])

    def ratio(numerator: float | None, denominator: float | None) -> float | None:
        return numerator / denominator if numerator is not None and denominator else None

    return [
        DerivedInsight(
            **insight.model_dump(),
            value=ratio(totals[insight.numeratorSeriesKey], totals[insight.denominatorSeriesKey]),
        )
        for insight in spec.derivedInsights
    ]


def chart(spec: ChartSpec, context: Context) -> ChartSteps:
    """The whole chart. Raises ApiError 400 for too many buckets or bins."""
    data, rows = yield from _steps(spec, context)
    insights = yield from _insights(spec)
    return Chart(
        id=spec.id,
        title=spec.title if spec.title is not None else spec.id,
        chartType=spec.chartType,
        series=_series(spec, rows),
        data=data,
        derivedInsights=insights,
    )
