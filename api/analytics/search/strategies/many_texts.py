"""Many texts: they are counted up to a limit, and ClickHouse finds the page.

The newest are looked for in the last hour first, then in ever longer times, until there are enough.
"""

from collections.abc import Sequence
from math import ceil
from typing import NamedTuple

from aggregator.times import Span
from api.analytics.search import limits
from api.analytics.search.page_keys import keys_in
from api.analytics.search.search_sql import IN_SETTINGS, Found, Search, SearchTotal, from_where, only_in
from api.analytics.search.time_windows import read_extent, share_of, windows
from api.request_rows import Extent, Row
from api.security.reader import Reader


class _Count(NamedTuple):
    """`estimate` is how many matches of all time there would be if they were spread like those that were counted."""

    total: SearchTotal
    estimate: int


def many_texts(reader: Reader, search: Search, limit: int, offset: int) -> Found:
    extent = read_extent(reader)
    total, estimate = _count(reader, search, extent, limit + offset)
    if offset >= total.found:
        return total, []
    limit = min(limit, total.found - offset)
    is_many = total.found > limits.FEW
    spans = windows(search, extent, estimate, offset + limit) if is_many else [search.span]
    return total, _keys(reader, search, spans, limit, offset)


def _count(reader: Reader, search: Search, extent: Extent, end_of_page: int) -> _Count:
    """Counts to the next full COUNT_STEP past the page, at most to COUNT_LIMIT."""
    wanted = min(limits.COUNT_LIMIT, (end_of_page // limits.COUNT_STEP + 1) * limits.COUNT_STEP)
    found, counted = 0, search.span
    for counted in windows(search, extent, search.texts.most, wanted):
        matches = f"SELECT 1 {from_where(search, counted, search.texts.tiers[-1])} LIMIT {wanted + 1}"
        found = reader.query(f"SELECT count() AS found FROM ({matches})", search.parameters, IN_SETTINGS)[0]["found"]
        if found > wanted:
            break
    return _Count(SearchTotal(min(found, wanted), found <= wanted), ceil(found / share_of(extent, counted)))


def _keys(reader: Reader, search: Search, spans: Sequence[Span], limit: int, offset: int) -> list[Row]:
    """The keys of the page, from tier to tier until it is full."""
    keys: list[Row] = []
    closer = ""
    for tier in search.texts.tiers:
        only_here = only_in(tier, closer)
        found = keys_in(reader, search, only_here, spans, limit - len(keys), offset)
        keys += found
        if len(keys) == limit:
            break
        if found:
            offset = 0
        elif offset:
            sql = f"SELECT count() AS found {from_where(search, search.span, only_here)}"
            offset -= reader.query(sql, search.parameters, IN_SETTINGS)[0]["found"]
        closer = tier
    return keys
