"""The keys of a page, found and ordered by ClickHouse."""

from collections.abc import Sequence

from aggregator.times import Span
from api.analytics.search.search_sql import AT_TIMES, IN_SETTINGS, SELECT_KEYS, TIME_US, Search, from_where
from api.request_rows import Row
from api.security.reader import Reader


def keys_in(reader: Reader, search: Search, tier: str, spans: Sequence[Span], limit: int, offset: int) -> list[Row]:
    """The matches of a tier, from the first of `spans` that fills the page, or from the last."""
    keys: list[Row] = []
    for span in spans:
        where = from_where(search, span, tier)
        if tier and search.order.is_newest_first and span == search.span:
            keys = _newest_keys(reader, search, where, limit, offset)
        else:
            sql = f"{SELECT_KEYS} {where}\nORDER BY {search.order.sql}\nLIMIT {limit} OFFSET {offset}"
            keys = reader.query(sql, search.parameters, IN_SETTINGS)
        if len(keys) == limit:
            break
    return keys


def _newest_keys(reader: Reader, search: Search, where: str, limit: int, offset: int) -> list[Row]:
    """Reads the times of the page first, which are one column, then the keys at these times: to order all matches by
    the whole key would read every key."""
    sql = f"SELECT {TIME_US} {where} ORDER BY timestamp DESC LIMIT {limit + offset}"
    times_us = [row["time_us"] for row in reader.query(sql, search.parameters, IN_SETTINGS)]
    return keys_at(reader, search, where, times_us, offset)


def keys_at(reader: Reader, search: Search, where: str, times_us: Sequence[int], offset: int) -> list[Row]:
    """The keys of a page. `times_us` are those of the newest matches of `where`; the first `offset` are skipped."""
    page = times_us[offset:]
    if not page:
        return []
    sql = (
        f"{SELECT_KEYS} {where}{AT_TIMES}\n"
        f"ORDER BY {search.order.sql}\nLIMIT {len(page)} OFFSET {times_us[:offset].count(page[0])}"
    )
    return reader.query(sql, {**search.parameters, "times_us": sorted(set(page))}, IN_SETTINGS)
