"""Runs the aggregate queries of all charts of a request together: in rounds, each of few statements, run at once."""

from collections.abc import Sequence

from api.analytics.charts.aggregate_query import AggregateQuery, AggregateRow, statements
from api.analytics.charts.builders import ChartSteps, Context, chart
from api.analytics.charts.request import CustomAnalyticsQuery
from api.analytics.charts.schemas import Chart, CustomAnalyticsAnswer
from api.analytics.where import RequestFilter, request_filter_of
from api.security.reader import Reader

# Rows of all groups and buckets of one statement; the limits of charts keep far below.
MAX_ROWS = 500_000
SETTINGS = {
    "max_result_rows": MAX_ROWS,
    "result_overflow_mode": "throw",
    # Groups that need more go to disk.
    "max_bytes_before_external_group_by": 400_000_000,
}


def run_queries(
    reader: Reader, request_filter: RequestFilter, queries: Sequence[AggregateQuery]
) -> dict[AggregateQuery, list[AggregateRow]]:
    """The rows of every query."""
    planned = statements(request_filter, queries)
    found = reader.query_all([(statement.sql, statement.parameters) for statement in planned], SETTINGS)
    return {
        query: statement.rows_for(query, rows)
        for statement, rows in zip(planned, found, strict=True)
        for query in statement.queries
    }


def run_charts(reader: Reader, request_filter: RequestFilter, charts: Sequence[ChartSteps]) -> list[Chart]:
    """In rounds: the queries of all charts are run together and each chart is sent its rows, until all are done."""
    done: dict[int, Chart] = {}
    waiting = {number: next(steps) for number, steps in enumerate(charts)}
    while waiting:
        rows = run_queries(reader, request_filter, [query for queries in waiting.values() for query in queries])
        for number, queries in list(waiting.items()):
            try:
                waiting[number] = charts[number].send([list(rows[query]) for query in queries])
            except StopIteration as stopped:
                done[number] = stopped.value
                del waiting[number]
    return [done[number] for number in range(len(charts))]


def answer_custom_analytics(reader: Reader, query: CustomAnalyticsQuery) -> CustomAnalyticsAnswer:
    """Raises ApiError 400 for words that cannot be looked for, and for what only the data shows to be too much."""
    request_filter = request_filter_of(reader, query)
    charts = [
        chart(spec, Context(request_filter.span, query.timezone or "UTC", f"customCharts[{number}]"))
        for number, spec in enumerate(query.customCharts)
    ]
    return CustomAnalyticsAnswer(success=True, customCharts=run_charts(reader, request_filter, charts))
