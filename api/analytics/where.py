"""WHERE: the requests that a query means, as a time range and SQL conditions over request_logs.

Charts, the overview, suggestions and search all take theirs from here.
"""

from dataclasses import dataclass

from aggregator.clickhouse.sql import Binder, ValuesTooLargeError, all_of, time_range
from aggregator.rollups.measures import Dimension
from aggregator.rollups.planner import Condition, Question
from aggregator.times import Span
from api.analytics.filters.compile import compile_group, dimensions_of, split_span
from api.analytics.filters.tree import FilterGroup
from api.analytics.request import RequestQuery
from api.analytics.words import Closeness, Word, read_words, texts_condition
from api.errors import ApiError
from api.security.reader import Reader

# Identifies a row as the whole key does (one record of Kafka is one row), and has a fixed length.
SHORT_KEY = "timestamp, created_at, source_partition, source_offset"


@dataclass(frozen=True)
class RequestFilter:
    """Which requests are meant, and by which dimensions the caller is confined."""

    span: Span
    condition: Condition
    confined_to: frozenset[Dimension] = frozenset()


def request_filter_of(reader: Reader, query: RequestQuery) -> RequestFilter:
    """All that is asked, words included. Raises ApiError 400 for words or a filter that cannot be looked for."""
    span, condition = span_and_condition(query)
    confined_to = reader.confine(Question(())).confined_to
    words = words_of(reader, query)
    if not words:
        return RequestFilter(span, condition, confined_to)
    binder = condition.binder()
    texts = texts_condition(words, Closeness.TYPO, binder)
    sql = all_of(condition.sql, has_text(time_range("timestamp", span), texts))
    # No rollup knows the texts.
    return RequestFilter(span, Condition(sql, binder.parameters, None), confined_to)


def span_and_condition(query: RequestQuery) -> tuple[Span, Condition]:
    """The filter as a time range, which indexes and rollups know, and a condition for the rest of it.

    Words are left out. Raises ApiError 400 for a filter whose values are too many for one query.
    """
    span, rest = split_span(query.filter_group or FilterGroup(filters=[]))
    return span, filter_condition(rest)


def filter_condition(tree: FilterGroup | None) -> Condition:
    """The whole tree as a condition, which None always meets. Raises ApiError 400 as `span_and_condition`."""
    if tree is None or not tree.filters:
        return Condition()
    binder = Binder()
    try:
        sql = compile_group(tree, binder)
    except ValuesTooLargeError as error:
        raise ApiError(400, "filter_group: the values of the filter are too many or too long together") from error
    return Condition(sql, binder.parameters, dimensions_of(tree))


def words_of(reader: Reader, query: RequestQuery) -> list[Word]:
    """The words of `q`, none without it. Raises ApiError 400 if there are too many."""
    return read_words(reader, query.q) if query.q and not query.q.isspace() else []


def has_text(times: str, texts: str) -> str:
    """SQL for rows of request_logs whose texts match; both conditions are over request_payloads."""
    return f"({SHORT_KEY}) IN (SELECT {SHORT_KEY} FROM request_payloads WHERE {all_of(times, texts)})"
