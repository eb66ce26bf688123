"""Which requests a search finds: how many, and the keys of those on one page.

Words are looked for in request_payloads, everything else in request_logs; both are ordered by time. A page is worked
out on the columns of the key alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

from aggregator.catalogue import KEY_COLUMNS
from aggregator.planner import Condition, Span, micros
from api.filters.compile import Binder
from api.logs import KEY, OLDEST_AND_NEWEST, WINDOWS, Row
from api.reader import Reader
from api.search.query import SearchQuery
from api.search.words import Closeness, Word, read_words, steps, texts_condition
from api.v2.query import RequestQuery, SortBy, SortOrder, span_and_condition_of, times_of

# Words are counted as far as this: to know more takes longer than to find the page.
COUNT_LIMIT = 10_000
# So few are counted by their times, and every further query reads these times only.
FEW = 500
AT_TIMES = " AND timestamp IN (SELECT fromUnixTimestamp64Micro(arrayJoin({{{name}:Array(Int64)}}), 'UTC'))"
COLUMNS = {SortBy.REQUEST_START_TIME: "timestamp", SortBy.LATENCY_MS: "duration_ms"}
SELECT_KEYS = f"SELECT {', '.join(KEY_COLUMNS)}, cityHash64{KEY} AS key_hash"
# Tells rows apart as the whole key does (one record of Kafka is one row), and has a fixed length.
SHORT_KEY = "timestamp, created_at, source_partition, source_offset"


class Total(NamedTuple):
    """`times_us` of all that words have found, where these are few."""

    found: int
    is_exact: bool
    times_us: tuple[int, ...] = ()


@dataclass(frozen=True)
class Search:
    """`tiers` are conditions over request_payloads that include each other, closest first, with the
    values that they bind; none without words. `times_us`, if there are any, are the only times to look at."""

    span: Span
    condition: Condition
    order: str
    is_newest_first: bool
    tiers: tuple[str, ...] = ()
    words: Mapping[str, Any] = field(default_factory=dict)
    times_us: tuple[int, ...] = ()

    @property
    def parameters(self) -> Row:
        times = {"found_us": list(self.times_us)} if self.times_us else {}
        return {**self.condition.parameters, **self.words, **times}

    @property
    def is_of_texts_alone(self) -> bool:
        """Whether request_payloads knows all that is asked about."""
        return bool(self.tiers) and self.condition.sql == "1" and self.order.startswith("timestamp ")


def _order(query: SearchQuery) -> str:
    column = query.sort_by or SortBy.REQUEST_START_TIME
    direction = (query.sort_order or SortOrder.DESC).value
    order = [f"{name} {direction}" for name in KEY_COLUMNS]
    if column is not SortBy.REQUEST_START_TIME:
        order.insert(0, f"{COLUMNS.get(column, column.value)} {direction} NULLS LAST")
    return ", ".join(order)


def search_of(reader: Reader, query: SearchQuery) -> Search:
    """Raises ApiError 400 for words or a filter that cannot be looked for."""
    span, condition = span_and_condition_of(query)
    order = _order(query)
    search = Search(span, condition, order, order.startswith("timestamp desc"))
    words = _words_of(reader, query)
    return _with_words(search, words, by_closeness=query.sort_by is None) if words else search


def _with_words(search: Search, words: Sequence[Word], by_closeness: bool) -> Search:
    binder = Binder("q")
    degrees = steps(words) if by_closeness else steps(words)[-1:]
    tiers = tuple(texts_condition(words, closeness, binder) for closeness in degrees)
    return replace(search, tiers=tiers, words=binder.parameters)


def scope_of(reader: Reader, query: RequestQuery) -> tuple[Span, Condition]:
    """A time range and a condition over request_logs for all that is asked, words too. Raises ApiError 400."""
    span, condition = span_and_condition_of(query)
    words = _words_of(reader, query)
    if not words:
        return span, condition
    binder = Binder("q")
    texts = texts_condition(words, Closeness.TYPO, binder)
    sql = f"{condition.sql} AND {_in_texts(times_of(span), texts)}"
    return span, Condition(sql, {**condition.parameters, **binder.parameters}, None)


def _words_of(reader: Reader, query: RequestQuery) -> list[Word]:
    return read_words(reader, query.q) if query.q and not query.q.isspace() else []


def _in_texts(times: str, texts: str) -> str:
    return f"({SHORT_KEY}) IN (SELECT {SHORT_KEY} FROM request_payloads WHERE {times} AND {texts})"


def _where(search: Search, tier: str) -> str:
    """FROM and WHERE; `tier` is a condition over request_payloads, or empty."""
    times = times_of(search.span) + (AT_TIMES.format(name="found_us") if search.times_us else "")
    if not tier:
        return f"FROM request_logs WHERE {times} AND {search.condition.sql}"
    if search.is_of_texts_alone:
        return f"FROM request_payloads WHERE {times} AND {tier}"
    return f"FROM request_logs WHERE {times} AND {search.condition.sql}\nAND {_in_texts(times, tier)}"


def count(reader: Reader, search: Search) -> Total:
    """How many requests are found, of those with words up to COUNT_LIMIT."""
    if not search.tiers:
        sql = f"SELECT count() AS found {_where(search, '')}"
        return Total(reader.query(sql, search.parameters)[0]["found"], True)
    matches = f"SELECT timestamp {_where(search, search.tiers[-1])} LIMIT {COUNT_LIMIT + 1}"
    times = f"groupUniqArray({FEW + 1})(toUnixTimestamp64Micro(timestamp))"
    sql = f"SELECT count() AS found, {times} AS times_us FROM ({matches})"
    row = reader.query(sql, search.parameters)[0]
    found = row["found"]
    times_us = tuple(row["times_us"]) if found <= min(FEW, COUNT_LIMIT) else ()
    return Total(min(found, COUNT_LIMIT), found <= COUNT_LIMIT, times_us)


def page_keys(reader: Reader, search: Search, total: Total, limit: int, offset: int) -> list[Row]:
    """The keys of a page, closest first, and what is as close in the order of the search."""
    search = replace(search, times_us=total.times_us)
    spans = [*_windows(reader, search), search.span] if total.found >= COUNT_LIMIT else [search.span]
    keys: list[Row] = []
    closer = ""
    for tier in search.tiers or ("",):
        only_here = f"{tier} AND NOT ({closer})" if closer else tier
        found = _keys(reader, search, only_here, spans, limit - len(keys), offset)
        keys += found
        if len(keys) == limit:
            break
        if found:
            offset = 0
        elif offset:
            sql = f"SELECT count() AS found {_where(search, only_here)}"
            offset -= reader.query(sql, search.parameters)[0]["found"]
        closer = tier
    return keys


def _keys(reader: Reader, search: Search, tier: str, spans: Sequence[Span], limit: int, offset: int) -> list[Row]:
    """From the first of `spans` that fills the page, or the last."""
    keys: list[Row] = []
    for span in spans:
        where = _where(replace(search, span=span), tier)
        if tier and search.is_newest_first:
            keys = _newest_keys(reader, search, where, limit, offset)
        else:
            sql = f"{SELECT_KEYS} {where}\nORDER BY {search.order}\nLIMIT {limit} OFFSET {offset}"
            keys = reader.query(sql, search.parameters)
        if len(keys) == limit:
            break
    return keys


def _newest_keys(reader: Reader, search: Search, where: str, limit: int, offset: int) -> list[Row]:
    """First the times of the page, which are one column, then what is there at these times: to order all matches by
    the whole key would read all of it for each."""
    sql = f"SELECT timestamp {where} ORDER BY timestamp DESC LIMIT {limit + offset}"
    times = [_aware(row["timestamp"]) for row in reader.query(sql, search.parameters)]
    page = times[offset:]
    if not page:
        return []
    sql = (
        f"{SELECT_KEYS} {where}{AT_TIMES.format(name='times_us')}\n"
        f"ORDER BY {search.order}\nLIMIT {limit} OFFSET {times[:offset].count(page[0])}"
    )
    times_us = sorted({micros(moment) for moment in page})
    return reader.query(sql, {**search.parameters, "times_us": times_us})


def _windows(reader: Reader, search: Search) -> Iterator[Span]:
    """Ever longer spans up to the newest request, where a page of the newest is likely to end early."""
    if search.is_newest_first and (search.tiers or search.condition.sql != "1"):
        edges: dict[str, Any] = reader.query(OLDEST_AND_NEWEST, {})[0]
        oldest, newest = (_aware(edges[name]) for name in ("oldest", "newest"))
        newest = min(newest, search.span.end or newest)
        for width in WINDOWS:
            if newest - width > max(oldest, search.span.start or oldest):
                yield Span(newest - width, search.span.end)


def _aware(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC)
