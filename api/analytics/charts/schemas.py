"""What a custom chart is answered with."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.analytics.charts.request import ChartType
from api.analytics.filters.fields import ValueUnit

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


class Series(BaseModel):
    key: str = Field(description="The property of the rows that holds the values.")
    label: str
    unit: ValueUnit
    percentileMethod: Literal["interpolated", "sketch"] | None = Field(
        None,
        exclude_if=_is_none,
        description="Of percentiles only. `interpolated`: exact, between the two nearest values. `sketch`: at least one"
        " value is of more than 10,000 requests and within 1 % of the true one.",
    )


class Insight(BaseModel):
    type: Literal["ratio"] = "ratio"
    label: str
    numeratorSeriesKey: str
    denominatorSeriesKey: str
    value: float | None = Field(
        description="Ratio of the totals over all matching requests; null if that of the denominator is 0 or unknown."
    )


class Chart(BaseModel):
    id: str
    title: str
    chartType: ChartType
    series: list[Series]
    data: list[dict[str, Any]] = Field(
        description="Rows of `label`, one value per series, and what the type of chart adds: `bucketKey`,"
        " `secondaryLabel`, `from` and `to`, `path`."
    )
    derivedInsights: list[Insight] | None = Field(None, exclude_if=_is_none, description="With `series` only.")


class CustomAnalyticsAnswer(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    success: Literal[True] = True
    customCharts: list[Chart] = Field(description="In the order they were asked for.")
