"""Windows of time that end with the newest request, ever longer: where the newest matches are looked for first."""

from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from aggregator.times import Span
from api.analytics.search.search_sql import Search
from api.request_rows import OLDEST_AND_NEWEST
from api.security.reader import Reader

FIRST_WIDTH, GROWTH = timedelta(hours=1), 8


class Extent(NamedTuple):
    """The times of the oldest and of the newest request."""

    oldest: datetime
    newest: datetime

    def within(self, span: Span) -> "Extent":
        return Extent(max(self.oldest, span.start or self.oldest), min(self.newest, span.end or self.newest))


def read_extent(reader: Reader) -> Extent:
    found: dict[str, Any] = reader.query(OLDEST_AND_NEWEST, {})[0]
    return Extent(found["oldest"].replace(tzinfo=UTC), found["newest"].replace(tzinfo=UTC))


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
