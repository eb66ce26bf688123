"""A search without words: only request_logs is asked."""

from api.analytics.search.page_keys import keys_in
from api.analytics.search.search_sql import Found, Search, SearchTotal, from_where
from api.analytics.search.time_windows import read_extent, windows
from api.security.reader import Reader


def without_words(reader: Reader, search: Search, limit: int, offset: int) -> Found:
    """Counts all matches. The count decides how long a window of time the page needs."""
    sql = f"SELECT count() AS found {from_where(search, search.span, '')}"
    total = SearchTotal(reader.query(sql, search.parameters)[0]["found"], True)
    if offset >= total.found:
        return total, []
    limit = min(limit, total.found - offset)
    spans = windows(search, read_extent(reader), total.found, offset + limit)
    return total, keys_in(reader, search, "", spans, limit, offset)
