"""Few texts with a filter or an order of their requests: texts and requests are matched by their times.

Times are read sooner than keys. Where there is one text and one request at a time, they belong together; only elsewhere
are keys compared.
"""

from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from aggregator.clickhouse.sql import all_of, time_range
from aggregator.times import micros
from api.analytics.search import limits
from api.analytics.search.search_sql import (
    AT_TIMES,
    SELECT_KEYS,
    TIME_US,
    Found,
    Order,
    Search,
    SearchTotal,
    read_texts,
)
from api.analytics.search.strategies.few_texts import times_of_texts
from api.request_rows import Row, key_of
from api.security.reader import Reader


@dataclass(frozen=True)
class _Match:
    """A request that is found. `key` is its time in microseconds; where several requests share the time, the whole key
    follows."""

    tier: int
    value: Any
    key: tuple[Any, ...]


def few_by_time(reader: Reader, search: Search, limit: int, offset: int) -> Found | None:
    """Compares the times of all texts.

    None if there are more than COUNT_LIMIT texts, if keys would have to be compared at more than FEW times, or if many
    requests share these times, as with a gateway whose times are whole seconds.
    """
    tiers = times_of_texts(reader, search, limits.COUNT_LIMIT)
    if tiers[-1].total() > limits.COUNT_LIMIT:
        return None
    requests = _requests_at_texts(reader, search)
    if len(requests) > 2 * limits.COUNT_LIMIT:
        return None
    texts_at, requests_at = tiers[-1], Counter(row["time_us"] for row in requests)
    shared = [time for time, count in requests_at.items() if count > 1 or texts_at[time] > 1]
    if len(shared) > limits.FEW:
        return None
    matches = [
        _Match(_tier_of(row["time_us"], tiers), row["sorted_by"], (row["time_us"],))
        for row in requests
        if row["passes"] and requests_at[row["time_us"]] == texts_at[row["time_us"]] == 1
    ]
    matches += _matches_at(reader, search, shared)
    page = _in_order(search.order, matches)[offset : offset + limit]
    return SearchTotal(len(matches), True), _keys_of(reader, page)


def _requests_at_texts(reader: Reader, search: Search) -> list[Row]:
    """Requests at the times of texts, up to one more than twice COUNT_LIMIT, and whether each passes the filter."""
    times = time_range("timestamp", search.span)
    texts = f"SELECT timestamp FROM request_payloads WHERE {all_of(times, search.texts.tiers[-1])}"
    sql = (
        f"SELECT {TIME_US}, {search.order.column} AS sorted_by, {all_of(search.condition.sql)} AS passes"
        f" FROM request_logs WHERE {all_of(times, f'timestamp IN ({texts})')} LIMIT {2 * limits.COUNT_LIMIT + 1}"
    )
    return reader.query(sql, search.parameters)


def _tier_of(found: Any, tiers: Sequence[Container[Any]]) -> int:
    """The number of the closest tier that has it."""
    return next(number for number, tier in enumerate(tiers) if found in tier)


def _matches_at(reader: Reader, search: Search, times_us: Sequence[int]) -> list[_Match]:
    """The matches at these times, by their whole keys."""
    if not times_us:
        return []
    texts = read_texts(reader, search, SELECT_KEYS, limits.COUNT_LIMIT, times_us)
    tiers = [set(map(key_of, rows)) for rows in texts]
    passes = all_of(search.condition.sql)
    sql = f"{SELECT_KEYS}, {search.order.column} AS sorted_by FROM request_logs WHERE {passes}{AT_TIMES}"
    found = reader.query(sql, {**search.parameters, "times_us": times_us})
    return [
        _Match(_tier_of(key_of(row), tiers), row["sorted_by"], (micros(row["timestamp"]), *key_of(row)))
        for row in found
        if key_of(row) in tiers[-1]
    ]


def _in_order(order: Order, matches: Sequence[_Match]) -> list[_Match]:
    """Sorted: closest first, then by value, NULL last, then by key."""
    by_key = sorted(matches, key=attrgetter("key"), reverse=order.is_descending)
    known = [match for match in by_key if match.value is not None]
    known.sort(key=attrgetter("value"), reverse=order.is_descending)
    return sorted([*known, *(match for match in by_key if match.value is None)], key=attrgetter("tier"))


def _keys_of(reader: Reader, page: Sequence[_Match]) -> list[Row]:
    """The whole keys of these matches. A request that was deleted meanwhile is left out."""
    if not page:
        return []
    times_us = sorted({match.key[0] for match in page})
    found = reader.query(f"{SELECT_KEYS} FROM request_logs WHERE 1{AT_TIMES}", {"times_us": times_us})
    by_key: dict[tuple[Any, ...], Row] = {}
    for row in found:
        time_us = micros(row["timestamp"])
        by_key |= {(time_us,): row, (time_us, *key_of(row)): row}
    return [by_key[match.key] for match in page if match.key in by_key]
