"""Answers of charts, search, suggestions and the list of fields. Latencies are seconds, costs dollars as Decimal."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec

from router_insights.table import Table


class Series(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What the rows of a chart measure: `key` is the property of the rows that holds its values.

    `unit` is `number`, `tokens`, `currency` or `duration_seconds`. `percentile_method` is `interpolated` (exact) or
    `sketch` (within 1 %).
    """

    key: str
    label: str
    unit: str
    percentile_method: str | None = None


class Insight(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The ratio of two series' totals over all matching requests; None over 0."""

    type: str
    label: str
    numerator_series_key: str
    denominator_series_key: str
    value: float | None


class Chart(Table, frozen=True, kw_only=True, rename="camel"):
    """One chart. A row of `data` has `label`, a value for each series, and what the type of chart adds
    (`bucketKey`, `secondaryLabel`, `from`, `to`, `path`), named as in docs/analytics.md. Money is Decimal."""

    id: str
    title: str
    chart_type: str
    series: list[Series]
    data: list[dict[str, Any]]
    derived_insights: list[Insight] | None = None

    def __post_init__(self) -> None:
        # As written: a JSON number has the digits, a float of it need not print them all.
        for key in [one.key for one in self.series if one.unit == "currency"]:
            for row in self.data:
                if row.get(key) is not None:
                    row[key] = Decimal(repr(row[key]))

    @property
    def rows(self) -> Sequence[dict[str, Any]]:
        return self.data


class ChartAnswer(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The charts, in the order they were asked for."""

    custom_charts: list[Chart]


class FoundRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request that was found, without its bodies. `id` is the request id, `price` dollars, `latency` seconds."""

    id: int | str
    engine: str
    provider_type: str
    input_tokens: int | None
    output_tokens: int | None
    price: Decimal | None
    request_start_time: datetime
    request_end_time: datetime | None
    latency: float | None
    tags_array: list[str]
    metadata: list[dict[str, Any]]
    scores: list[dict[str, Any]]
    status: str
    error_type: str
    prompt_id: str
    prompt_version_number: int | None
    user_id: str
    api_key_id: str
    session_id: str
    trace_id: str
    turn_count: int | None
    tool_call_count: int | None
    tool_names: list[str]
    prompt_name: str | None = None


class SearchPage(Table, frozen=True, kw_only=True):
    """A page of what was found. `total_is_approximate`: there are more than `total`, and pages end there."""

    items: list[FoundRequest]
    page: int
    pages: int
    per_page: int
    total: int
    total_is_approximate: bool
    has_next: bool
    has_prev: bool
    next_num: int | None
    prev_num: int | None

    @property
    def rows(self) -> Sequence[FoundRequest]:
        return self.items

    @property
    def row_type(self) -> type[FoundRequest]:
        return FoundRequest


class Suggestions(msgspec.Struct, frozen=True, kw_only=True):
    """At most 50 values, the most frequent first."""

    values: list[str]


class AnalyticsField(msgspec.Struct, frozen=True, kw_only=True):
    """One field of the filter language. `unit` is set for what can be measured, `values` where all can be listed."""

    name: str
    type: str
    description: str
    operators: list[str]
    needs_nested_key: bool
    values: list[str] | None
    can_group: bool
    unit: str | None


class AnalyticsFields(Table, frozen=True, kw_only=True):
    """What request analytics can filter, group and measure."""

    fields: list[AnalyticsField]

    @property
    def rows(self) -> Sequence[AnalyticsField]:
        return self.fields

    @property
    def row_type(self) -> type[AnalyticsField]:
        return AnalyticsField
