"""Windows of time that end with the newest request, ever longer: where the newest matches are looked for first."""

from datetime import timedelta

from aggregator.times import Span
from api.analytics.search.search_sql import Search
from api.request_rows import OLDEST_AND_NEWEST, Extent, extent_of
from api.security.reader import Reader

FIRST_WIDTH, GROWTH = timedelta(hours=1), 8


def read_extent(reader: Reader) -> Extent:
    return extent_of(reader.query(OLDEST_AND_NEWEST, {})[0])


def share_of(extent: Extent, span: Span) -> float:
    """The part of the time from the oldest request to the newest that is in the span, 0 to 1."""
    start, end = extent.within(span)
    return (end - start) / (extent.newest - extent.oldest) if extent.oldest < extent.newest and start < end else 1.0


def windows(search: Search, extent: Extent, matches: int, wanted: int) -> list[Span]:
    """Ever longer windows, at last the whole span of the search.

    A window is left out if fewer than `wanted` would be in it when the `matches` of all time were spread evenly. An
    order other than newest first needs the whole span.
    """
    if not search.order.is_newest_first:
        return [search.span]
    oldest, newest = extent.within(search.span)
    spans, width = [], FIRST_WIDTH
    while newest - width > oldest:
        span = Span(newest - width, search.span.end)
        if share_of(extent, span) * matches >= wanted:
            spans.append(span)
        width *= GROWTH
    return [*spans, search.span]
