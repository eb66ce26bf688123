"""Metrics of groups of requests, exactly: what the tools that compute ask of the rollups and the rows."""

from collections.abc import Iterable, Sequence
from typing import Any

from aggregator.rollups.measures import WITHOUT_COST
from api.analytics.charts.aggregate_query import AggregateQuery, AggregateRow, Grouping, source_of
from api.analytics.charts.metric_sql import COUNT, SOME_REQUESTS, Value
from api.analytics.charts.query_runner import run_queries
from api.analytics.charts.request import ChartMetric
from api.analytics.where import RequestFilter, request_filter_of
from api.mcp.arguments import RequestArguments
from api.mcp.context import ToolContext
from api.mcp.metrics import ToolMetric, written

# Costs leave these requests out.
NO_COST = tuple(value for value, measure in SOME_REQUESTS.items() if measure in WITHOUT_COST)
OF_COST = (
    "`cost` leaves out requests_without_cost, whose cost is not known; it is not 0. The metrics unpriced (no price is"
    " known), missing_usage and failed_without_usage tell them apart."
)
EXACT = "exact"
SKETCH = "within 1 % (more than 10,000 requests)"
Rows = list[AggregateRow]


class Aggregates:
    """Questions about the requests of one period and filter. The caller has been admitted to ask them."""

    def __init__(self, context: ToolContext, arguments: RequestArguments, metrics: Sequence[ToolMetric]) -> None:
        self._context = context
        self.metrics = metrics
        # How many requests have no cost is told beside every cost. The first value orders the groups.
        needed = [metric.value for metric in metrics]
        self.has_cost = any(value.field == "cost" for value in needed)
        beside = (COUNT, *NO_COST) if self.has_cost else (COUNT,)
        self._values = tuple(dict.fromkeys((*needed, *beside)))
        self._arguments = arguments

    def filter(self, span: Any, words: str | None = None) -> RequestFilter:
        return request_filter_of(self._context.reader, self._arguments.query(span, words))

    def query(self, grouping: Grouping = Grouping(), limit: int | None = None) -> AggregateQuery:  # noqa: B008 - frozen
        return AggregateQuery(grouping, self._values, limit)

    def run(self, request_filter: RequestFilter, queries: Iterable[AggregateQuery]) -> list[Rows]:
        """The rows of each query."""
        asked = list(queries)
        found = run_queries(self._context.reader, request_filter, asked)
        return [found[query] for query in asked]

    def values(self, row: AggregateRow) -> dict[Value, Any]:
        return dict(zip(self._values, row.values, strict=True))

    def written(self, row: AggregateRow) -> dict[str, Any]:
        """The metrics of a row, dollars as text; where there is a cost, also the requests that it leaves out."""
        found = self.values(row)
        metrics = {metric.name: written(found[metric.value]) for metric in self.metrics}
        return {"requests": found[COUNT], **metrics, **self._without_cost(found)}

    def _without_cost(self, found: dict[Value, Any]) -> dict[str, Any]:
        return {"requests_without_cost": sum(found[value] for value in NO_COST)} if self.has_cost else {}

    def exactness(self, rows: Iterable[AggregateRow]) -> str:
        """How exact the metrics are, in words."""
        is_sketch = any(row.is_sketch for row in rows)
        is_rounded = any(metric.value.metric in (ChartMetric.AVG, ChartMetric.PERCENTILE) for metric in self.metrics)
        if is_sketch:
            return f"{EXACT}, but percentiles: {SKETCH}"
        return f"{EXACT}; averages and percentiles are rounded to 15 digits" if is_rounded else EXACT

    def source(self, request_filter: RequestFilter, query: AggregateQuery) -> str:
        """Which table answers, in words."""
        table = source_of(request_filter, query)
        return table if table == "request_logs" else f"{table}, a rollup that equals the rows"
