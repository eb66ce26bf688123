"""What a custom chart is answered with."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypeAliasType

from api.analytics.charts.request import ChartType, DerivedInsightType
from api.analytics.filters.fields import ValueUnit

PercentileMethod = TypeAliasType("PercentileMethod", Literal["interpolated", "sketch"])
PERCENTILE_METHOD = (
    "How percentiles are worked out. `interpolated`: exact, between the two nearest values. `sketch`: at least one"
    " value"
    " is of more than 10,000 requests and within 1 % of the true one."
)

EXAMPLE: dict[str, Any] = {
    "success": True,
    "customCharts": [
        {
            "id": "cost_by_model",
            "title": "Cost by model",
            "chartType": "bar",
            "series": [{"key": "value", "label": "Cost", "unit": "currency"}],
            "data": [{"label": "claude-sonnet-4-6", "value": 0.27}, {"label": "gpt-4o", "value": 0.03}],
        }
    ],
}


def _is_none(value: Any) -> bool:
    return value is None


class ChartSeries(BaseModel):
    """What the rows of a chart hold under one key."""

    key: str = Field(description="The property of the rows that holds the values.")
    label: str = Field(description="Name of the series for people.")
    unit: ValueUnit = Field(description="What its values are.")
    percentileMethod: PercentileMethod | None = Field(
        None,
        exclude_if=_is_none,
        description=f"{PERCENTILE_METHOD} Left out of any other metric.",
    )


class DerivedInsight(BaseModel):
    """The ratio of the totals of two series."""

    type: DerivedInsightType = Field("ratio", description="Always `ratio`.")
    label: str = Field(description="As it was sent.")
    numeratorSeriesKey: str = Field(description="Key of the series whose total is divided.")
    denominatorSeriesKey: str = Field(description="Key of the series whose total it is divided by.")
    value: float | None = Field(
        description="Ratio of the totals over all matching requests; null if that of the denominator is 0 or unknown."
    )


class Chart(BaseModel):
    """A chart as rows of data."""

    id: str = Field(description="As it was sent.")
    title: str = Field(description="As it was sent, or the id.")
    chartType: ChartType = Field(description="As it was sent, or the default for the data.")
    series: list[ChartSeries] = Field(
        description="What the rows hold: one, with the key `value`, unless several were sent."
    )
    data: list[dict[str, Any]] = Field(
        description="Rows of `label`, one value per series, and what the type of chart adds: `bucketKey`,"
        " `secondaryLabel`, `from` and `to`, `path`."
    )
    derivedInsights: list[DerivedInsight] | None = Field(
        None,
        exclude_if=_is_none,
        description="Ratios in the order they were asked for; left out of a chart without `series`.",
    )


class CustomAnalyticsAnswer(BaseModel):
    """The charts of one request."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    success: bool = Field(description="Always true.")
    customCharts: list[Chart] = Field(description="In the order they were asked for.")
