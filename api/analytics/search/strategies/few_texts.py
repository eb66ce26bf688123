"""Few texts, newest first, and nothing else is asked: only request_payloads is read."""

from collections import Counter

from api.analytics.search import limits
from api.analytics.search.page_keys import keys_at
from api.analytics.search.search_sql import TIME_US, Found, Search, SearchTotal, from_where, only_in, read_texts
from api.request_rows import Row
from api.security.reader import Reader


def times_of_texts(reader: Reader, search: Search, most: int) -> list[Counter[int]]:
    """How many texts of each tier there are at each time, in microseconds; up to one more than `most` in all."""
    tiers = read_texts(reader, search, f"SELECT {TIME_US}", most)
    return [Counter(row["time_us"] for row in rows) for rows in tiers]


def few_texts(reader: Reader, search: Search, limit: int, offset: int) -> Found | None:
    """Reads the times of all texts, which are one column: to read whole keys takes longer than to find them.

    None if there are more than FEW texts.
    """
    tiers = times_of_texts(reader, search, limits.FEW)
    if tiers[-1].total() > limits.FEW:
        return None
    keys: list[Row] = []
    skipped, closer, closer_times = offset, "", Counter[int]()
    for tier, times in zip(search.texts.tiers, tiers, strict=True):
        newest_first = sorted((times - closer_times).elements(), reverse=True)
        where = from_where(search, search.span, only_in(tier, closer))
        keys += keys_at(reader, search, where, newest_first[: skipped + limit - len(keys)], skipped)
        skipped = max(skipped - len(newest_first), 0)
        closer, closer_times = tier, times
    return SearchTotal(tiers[-1].total(), True), keys
