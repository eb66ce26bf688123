"""Charts of one request, run together: in rounds, each of as few queries as can be, which go side by side."""

from collections.abc import Sequence

from api.analytics.charts.aggregate_query import AggregateQuery, AggregateRow, statements
from api.analytics.charts.builders import ChartSteps, Context, chart
from api.analytics.charts.request import CustomAnalyticsQuery
from api.analytics.charts.schemas import Chart, CustomAnalyticsAnswer
from api.analytics.where import RequestFilter, request_filter
from api.security.reader import Reader

# Rows of all groups and buckets of one query; what limits of ours allow stays far below.
MAX_ROWS = 500_000
SETTINGS = {
    "max_result_rows": MAX_ROWS,
    "result_overflow_mode": "throw",
    # Groups that need more go to disk.
    "max_bytes_before_external_group_by": 400_000_000,
}


def answer_asks(
    reader: Reader, scope: RequestFilter, asks: Sequence[AggregateQuery]
) -> dict[AggregateQuery, list[AggregateRow]]:
    """The rows of every ask."""
    planned = statements(scope, asks)
    found = reader.query_all([(statement.sql, statement.parameters) for statement in planned], SETTINGS)
    return {
        ask: statement.rows_for(ask, rows)
        for statement, rows in zip(planned, found, strict=True)
        for ask in statement.asks
    }


def run(reader: Reader, scope: RequestFilter, charts: Sequence[ChartSteps]) -> list[Chart]:
    """Every chart asks, all asks are answered together, and so on until the last chart is done."""
    done: dict[int, Chart] = {}
    waiting = {number: next(steps) for number, steps in enumerate(charts)}
    while waiting:
        rows = answer_asks(reader, scope, [ask for asks in waiting.values() for ask in asks])
        for number, asks in list(waiting.items()):
            try:
                waiting[number] = charts[number].send([list(rows[ask]) for ask in asks])
            except StopIteration as stopped:
                done[number] = stopped.value
                del waiting[number]
    return [done[number] for number in range(len(charts))]


def answer_custom_analytics(reader: Reader, query: CustomAnalyticsQuery) -> CustomAnalyticsAnswer:
    """Raises ApiError 400 for words that cannot be looked for, and for what only the data shows to be too much."""
    scope = request_filter(reader, query)
    charts = [
        chart(spec, Context(scope.span, query.timezone or "UTC", f"customCharts[{number}]"))
        for number, spec in enumerate(query.customCharts)
    ]
    return CustomAnalyticsAnswer(customCharts=run(reader, scope, charts))
