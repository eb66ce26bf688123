"""The body of a request for custom charts, and which combinations of its properties are valid."""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, StrictBool, StrictStr, StringConstraints, field_validator, model_validator
from pydantic.config import JsonDict
from typing_extensions import TypeAliasType

from aggregator.times import Timezone
from api.analytics.filters.fields import GROUP_FIELDS, METRIC_FIELDS
from api.analytics.filters.tree import OneOf, check_text, semantic
from api.analytics.request import EXAMPLE_FILTER, Body, RequestLogQuery

MAX_CHARTS = 25
MAX_SERIES = 20

Id = Annotated[StrictStr, StringConstraints(pattern=r"^[a-zA-Z0-9_-]+$", min_length=1, max_length=64)]
MetadataKey = Annotated[StrictStr, StringConstraints(min_length=1, max_length=120)]
GroupField = TypeAliasType("GroupField", Annotated[StrictStr, OneOf(GROUP_FIELDS, "field to group by")])
MetricField = TypeAliasType("MetricField", Annotated[StrictStr, OneOf(METRIC_FIELDS, "field to measure")])
DerivedInsightType = TypeAliasType("DerivedInsightType", Literal["ratio"])
Percentile = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False, strict=True)]


class ChartType(StrEnum):
    BAR = "bar"
    LINE = "line"
    AREA = "area"
    PIE = "pie"
    DONUT = "donut"
    HISTOGRAM = "histogram"
    HEATMAP = "heatmap"
    TREEMAP = "treemap"
    SUNBURST = "sunburst"


class ChartMetric(StrEnum):
    COUNT = "count"
    SUM = "sum"
    AVG = "avg"
    MIN = "min"
    MAX = "max"
    PERCENTILE = "percentile"
    DISTINCT_COUNT = "distinct_count"


class TimeBucket(StrEnum):
    AUTO = "auto"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


HIERARCHIES = (ChartType.TREEMAP, ChartType.SUNBURST)
WITHOUT_TIME = (ChartType.PIE, ChartType.DONUT, ChartType.HISTOGRAM, ChartType.HEATMAP, *HIERARCHIES)


class Measured(Body):
    """A metric and what it needs."""

    metric: ChartMetric = Field(description="How the values of `metricField` become one.")
    metricField: MetricField | None = Field(
        None, description="Whose values are measured. Required, unless the metric is a count."
    )
    percentile: Percentile | None = Field(
        None, description="Percent, 0 to 100. Required for `percentile`, and only there."
    )
    distinctMetadataKey: MetadataKey | None = Field(
        None, description="Required for `distinct_count`, and only there: the metadata key whose values are counted."
    )

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> Self:
        check_metric(self.metric, self)
        return self


def check_metric(metric: ChartMetric, given: Any) -> None:
    """Raises a semantic error for a property that the metric needs or does not take."""
    needs = {
        "metricField": metric not in (ChartMetric.COUNT, ChartMetric.DISTINCT_COUNT),
        "percentile": metric is ChartMetric.PERCENTILE,
        "distinctMetadataKey": metric is ChartMetric.DISTINCT_COUNT,
    }
    for name, is_needed in needs.items():
        value = getattr(given, name)
        if is_needed and value is None:
            raise semantic(name, f"the metric {metric} needs one")
        if not is_needed and value is not None:
            raise semantic(name, f"the metric {metric} takes none")
    check_text(given.distinctMetadataKey or "", "distinctMetadataKey")


class SeriesSpec(Measured):
    """One of several series of a chart."""

    key: Id = Field(description="Unique within the chart; the property of the rows that holds its values.")
    label: Annotated[StrictStr, StringConstraints(min_length=1, max_length=120)] = Field(
        description="Name of the series for people."
    )

    @field_validator("key")
    @classmethod
    def _is_free(cls, value: str) -> str:
        if value in ("label", "bucketKey"):
            raise semantic("", f"{value} is a property of every row; call the series something else")
        return value


class DerivedInsightSpec(Body):
    """The ratio of two series' totals."""

    type: DerivedInsightType = Field("ratio", description="Always `ratio`, the default.")
    label: Annotated[StrictStr, StringConstraints(max_length=200)] = Field(description="Name of the ratio for people.")
    numeratorSeriesKey: StrictStr = Field(description="Key of the series whose total is divided.")
    denominatorSeriesKey: StrictStr = Field(description="Key of the series whose total it is divided by.")


class ChartSpec(Body):
    """One chart."""

    id: Id = Field(description="Unique within the request.")
    title: Annotated[StrictStr, StringConstraints(max_length=200)] | None = Field(
        None, description="Name of the chart for people; by default the id."
    )
    chartType: ChartType = Field(
        ChartType.BAR,
        description="How the chart is drawn; some types have properties of their own. By default `line` over time, else"
        " `bar`.",
    )
    metric: ChartMetric | None = Field(
        None, description="How values become one. Left out with `series`, and in a histogram, which counts."
    )
    metricField: MetricField | None = Field(
        None, description="Whose values are measured. Required, unless the metric is a count or there are `series`."
    )
    percentile: Percentile | None = Field(
        None, description="Percent, 0 to 100. Required for `percentile`, and only there."
    )
    distinctMetadataKey: MetadataKey | None = Field(
        None, description="Metadata key whose values are counted. Required for `distinct_count`, and only there."
    )
    series: Annotated[list[SeriesSpec], Field(min_length=2, max_length=MAX_SERIES)] | None = Field(
        None, description="Several metrics in one chart, instead of `metric`."
    )
    derivedInsights: list[DerivedInsightSpec] | None = Field(
        None, description="Ratios of the series; none without it. Only with `series`.", max_length=MAX_SERIES
    )
    groupByField: GroupField | None = Field(
        None, description="A row for each value of this field; one row for everything without a group."
    )
    groupByMetadataKey: MetadataKey | None = Field(
        None, description="A row for each value of this metadata key; instead of `groupByField`."
    )
    secondaryGroupByField: GroupField | None = Field(None, description="Heatmaps only: the other axis.")
    secondaryGroupByMetadataKey: MetadataKey | None = Field(
        None, description="Heatmaps only: a metadata key as the other axis, instead of `secondaryGroupByField`."
    )
    histogramField: MetricField | None = Field(None, description="Histograms only: whose values are binned.")
    histogramInterval: Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)] | None = Field(
        None, description="Width of a bin in the field's unit; the default makes at most `limit` round ones."
    )
    hierarchyFields: Annotated[list[GroupField], Field(min_length=2, max_length=5)] | None = Field(
        None, description="Treemaps and sunbursts only: the levels, outermost first."
    )
    timeSeries: StrictBool | None = Field(False, description="True: a row for each bucket of time. False by default.")
    timeBucket: TimeBucket | None = Field(
        None, description="Width of a bucket of a time series; by default `auto`: at most about a hundred of them."
    )
    limit: Annotated[int, Field(ge=1, le=100, strict=True)] | None = Field(
        25, description="Groups at most; 25 by default."
    )

    @model_validator(mode="before")
    @classmethod
    def _default_type(cls, given: Any) -> Any:
        if not isinstance(given, Mapping) or given.get("chartType") is not None:
            return given
        return {**given, "chartType": ChartType.LINE if given.get("timeSeries") is True else ChartType.BAR}

    @property
    def is_grouped(self) -> bool:
        return self.groupByField is not None or self.groupByMetadataKey is not None

    @model_validator(mode="after")
    def _means_something(self) -> Self:
        for check in (_check_texts, _check_groups, _check_values, _check_insights, _check_type, _check_time):
            check(self)
        return self


def _check_texts(chart: ChartSpec) -> None:
    for name in ("title", "groupByMetadataKey", "secondaryGroupByMetadataKey"):
        check_text(getattr(chart, name) or "", name)
    for number, series in enumerate(chart.series or ()):
        check_text(series.label, f"series[{number}].label")


def _check_groups(chart: ChartSpec) -> None:
    if chart.groupByField is not None and chart.groupByMetadataKey is not None:
        raise semantic("groupByMetadataKey", "a chart has one group: groupByField or groupByMetadataKey")
    if chart.secondaryGroupByField is not None and chart.secondaryGroupByMetadataKey is not None:
        raise semantic(
            "secondaryGroupByMetadataKey",
            "a heatmap has one other axis: secondaryGroupByField or secondaryGroupByMetadataKey",
        )
    levels = chart.hierarchyFields or []
    for number, level in enumerate(levels):
        if level in levels[:number]:
            raise semantic(f"hierarchyFields[{number}]", f"{level} is a level already")


def _check_values(chart: ChartSpec) -> None:
    """One metric, or several series of them, or the counts of a histogram."""
    if chart.series is not None:
        for name in ("metric", "metricField", "percentile", "distinctMetadataKey"):
            if getattr(chart, name) is not None:
                raise semantic(name, "is not for a chart with series, each of which has its own")
        for number, series in enumerate(chart.series):
            if series.key in [other.key for other in chart.series[:number]]:
                raise semantic(f"series[{number}].key", f"{series.key} is the key of a series before")
        return
    if chart.chartType is ChartType.HISTOGRAM and chart.metric is None:
        check_metric(ChartMetric.COUNT, chart)
        return
    if chart.metric is None:
        raise semantic("metric", "a chart needs a metric, or series")
    check_metric(chart.metric, chart)


def _check_insights(chart: ChartSpec) -> None:
    if chart.derivedInsights and chart.series is None:
        raise semantic("derivedInsights", "only a chart with series has them")
    keys = [series.key for series in chart.series or ()]
    for number, insight in enumerate(chart.derivedInsights or ()):
        check_text(insight.label, f"derivedInsights[{number}].label")
        for name in ("numeratorSeriesKey", "denominatorSeriesKey"):
            if getattr(insight, name) not in keys:
                raise semantic(f"derivedInsights[{number}].{name}", f"names no series; allowed: {', '.join(keys)}")


def _own_properties(chart: ChartSpec) -> Iterator[tuple[str, bool, bool]]:
    """(property, whether the chart's type has it, whether it needs it) for what only some types have."""
    kind = chart.chartType
    other_axis = chart.secondaryGroupByField is not None or chart.secondaryGroupByMetadataKey is not None
    yield "hierarchyFields", kind in HIERARCHIES, kind in HIERARCHIES
    yield "histogramField", kind is ChartType.HISTOGRAM, kind is ChartType.HISTOGRAM
    yield "histogramInterval", kind is ChartType.HISTOGRAM, False
    yield "secondaryGroupByField", kind is ChartType.HEATMAP, kind is ChartType.HEATMAP and not other_axis
    yield "secondaryGroupByMetadataKey", kind is ChartType.HEATMAP, False
    has_group = kind not in (*HIERARCHIES, ChartType.HISTOGRAM)
    needs_group = kind in (ChartType.PIE, ChartType.DONUT, ChartType.HEATMAP)
    yield "groupByField", has_group, needs_group and not chart.is_grouped
    yield "groupByMetadataKey", has_group, False
    has_series = kind not in (ChartType.HEATMAP, ChartType.HISTOGRAM, *HIERARCHIES)
    yield "series", has_series, False


def _check_type(chart: ChartSpec) -> None:
    kind = chart.chartType
    for name, is_allowed, is_needed in _own_properties(chart):
        if getattr(chart, name) is not None and not is_allowed:
            raise semantic(name, f"is not for a chart of type {kind}")
        if getattr(chart, name) is None and is_needed:
            raise semantic(name, f"a chart of type {kind} needs one")
    if kind is ChartType.HISTOGRAM and chart.metric not in (None, ChartMetric.COUNT):
        raise semantic("metric", "a histogram counts")
    if kind in (ChartType.LINE, ChartType.AREA) and not chart.is_grouped and not chart.timeSeries:
        raise semantic("chartType", "a single total is a bar: group it, or make it a time series")


def _check_time(chart: ChartSpec) -> None:
    if chart.timeBucket not in (None, TimeBucket.AUTO) and not chart.timeSeries:
        raise semantic("timeBucket", "is for a time series")
    if not chart.timeSeries:
        return
    if chart.chartType in WITHOUT_TIME:
        raise semantic("timeSeries", f"a chart of type {chart.chartType} has no time")
    if chart.series is not None and chart.is_grouped:
        raise semantic("timeSeries", "several series are grouped or over time, not both")


EXAMPLE_CHART: JsonDict = {
    "id": "cost_by_model",
    "title": "Cost by model",
    "chartType": "bar",
    "metric": "sum",
    "metricField": "cost",
    "groupByField": "engine",
    "limit": 10,
}


class CustomAnalyticsQuery(RequestLogQuery):
    """Charts over the requests that a filter leaves. `metadata_cost_breakdown_key` is for the overview: ignored"
    " here."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"filter_group": EXAMPLE_FILTER, "customCharts": [EXAMPLE_CHART]}]}
    )

    customCharts: Annotated[list[ChartSpec], Field(min_length=1, max_length=MAX_CHARTS)] = Field(
        description="The charts, answered in this order."
    )
    timezone: Timezone | None = Field(
        None, description="IANA time zone whose hours, days and weeks are the buckets; by default UTC."
    )

    @property
    def group_fields(self) -> list[str]:
        """What any of the charts is grouped by."""
        named = [
            name
            for chart in self.customCharts
            for name in (chart.groupByField, chart.secondaryGroupByField, *(chart.hierarchyFields or ()))
        ]
        return [name for name in named if name is not None]

    @model_validator(mode="after")
    def _ids_are_unique(self) -> Self:
        ids = [chart.id for chart in self.customCharts]
        for number, chart_id in enumerate(ids):
            if chart_id in ids[:number]:
                raise semantic(f"customCharts[{number}].id", f"{chart_id} is the id of a chart before")
        return self
