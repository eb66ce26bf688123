"""The metrics of tools: `requests`, `errors`, `unpriced`, a sum such as `cost`, or `avg:latency_ms`, `p95:cost`."""

import re
from decimal import Decimal
from typing import Any, NamedTuple

from aggregator.budgets.budget import plain
from api.analytics.charts.metric_sql import COUNT, SOME_REQUESTS, Value
from api.analytics.charts.request import ChartMetric
from api.analytics.filters.fields import METRIC_FIELDS
from api.errors import invalid_argument

SUMMED = tuple(name for name in METRIC_FIELDS if name != "prompt_version_number")
COUNTS = {"requests": COUNT, **{measure.name: value for value, measure in SOME_REQUESTS.items()}}
FUNCTIONS = ("avg", "min", "max")
PERCENTILE = re.compile(r"p(\d{1,2}(?:\.\d{1,3})?|100)", re.ASCII)
ALLOWED = (*COUNTS, *SUMMED, *(f"{function}:FIELD" for function in (*FUNCTIONS, "pN")), "distinct:METADATA_KEY")


class ToolMetric(NamedTuple):
    """A metric by the name that a client gave it."""

    name: str
    value: Value


def parse_metric(text: str, argument: str) -> ToolMetric:
    """Raises ApiError 400, which names the argument and lists what is allowed."""
    if text in COUNTS:
        return ToolMetric(text, COUNTS[text])
    if text in SUMMED:
        return ToolMetric(text, Value(ChartMetric.SUM, text))
    function, _, field = text.partition(":")
    percentile = PERCENTILE.fullmatch(function)
    if function == "distinct" and 0 < len(field) <= 120:
        return ToolMetric(text, Value(ChartMetric.DISTINCT_COUNT, metadata_key=field))
    if field in SUMMED and percentile:
        return ToolMetric(text, Value(ChartMetric.PERCENTILE, field, float(percentile[1])))
    if field in SUMMED and function in FUNCTIONS:
        return ToolMetric(text, Value(ChartMetric(function), field))
    raise invalid_argument(argument, f"{text!r} is no metric", ALLOWED)


def written(value: Any) -> Any:
    """Dollars as exact decimal text; every other number as it is."""
    return plain(value) if isinstance(value, Decimal) else value
