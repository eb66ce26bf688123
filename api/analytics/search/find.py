"""Which requests a search finds: how many, and the keys of those on one page.

Words are looked for in request_payloads, everything else in request_logs; both are ordered by time. A page is worked
out on the columns of the key alone.
"""

from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from math import ceil
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple

from aggregator.clickhouse.tables import KEY_COLUMNS
from aggregator.rollups.planner import Condition
from aggregator.times import EPOCH, Span, micros
from api.analytics.filters.compile import Binder
from api.analytics.request import SortBy, SortOrder
from api.analytics.search.request import SearchQuery
from api.analytics.where import has_text, span_and_condition, time_range, words_of
from api.analytics.words import Closeness, Word, steps, texts_condition
from api.request_rows import KEY, OF_KEYS, OLDEST_AND_NEWEST, Row, key_of, keys_bound
from api.security.reader import Reader

# With words the total is counted to the next full COUNT_STEP past the page, at most as far as this: to know more takes
# longer than to find the page.
COUNT_STEP, COUNT_LIMIT = 1_000, 10_000
# As many matches as this are read at once, with how close each is.
FEW = 500
# More are looked for in the last hour first, then in ever longer times, until there are enough.
FIRST_WIDTH, GROWTH = timedelta(hours=1), 8
# A large set is slower to compare with the primary key than to look its rows up.
IN_SETTINGS = {"use_index_for_in_with_subqueries_max_values": 2 * FEW}
AT_TIMES = " AND timestamp IN (SELECT fromUnixTimestamp64Micro(arrayJoin({times_us:Array(Int64)}), 'UTC'))"
AT_RARE_TIMES = AT_TIMES.replace("times_us", "rare_times_us")
COLUMNS = {SortBy.REQUEST_START_TIME: "timestamp", SortBy.LATENCY_MS: "duration_ms"}
SELECT_KEYS = f"SELECT {', '.join(KEY_COLUMNS)}, cityHash64{KEY} AS key_hash"
# Microseconds: as datetimes, thousands of them would take longer than to find them.
TIME_US = "toUnixTimestamp64Micro(timestamp) AS time_us"


class SearchTotal(NamedTuple):
    found: int
    is_exact: bool


@dataclass(frozen=True)
class Search:
    """`tiers` are conditions over request_payloads that include each other, closest first, with the
    values that they bind; none without words. There are at most `bound` such texts, of all times. `rare` is what the
    rare words alone ask, if others are not rare. `extent`: the times of the oldest and the newest request."""

    span: Span
    condition: Condition
    column: str
    order: str
    is_newest_first: bool
    tiers: tuple[str, ...] = ()
    words: Mapping[str, Any] = field(default_factory=dict)
    bound: int = 0
    rare: str = ""
    extent: tuple[datetime, datetime] | None = None

    @property
    def parameters(self) -> Row:
        return {**self.condition.parameters, **self.words}

    @property
    def is_of_texts_alone(self) -> bool:
        """Whether request_payloads knows all that is asked about."""
        return bool(self.tiers) and self.condition.sql == "1" and self.order.startswith("timestamp ")


def _order(query: SearchQuery) -> tuple[str, str]:
    """The column that decides, and ORDER BY."""
    sort_by = query.sort_by or SortBy.REQUEST_START_TIME
    column, direction = COLUMNS.get(sort_by, sort_by.value), (query.sort_order or SortOrder.DESC).value
    order = [f"{name} {direction}" for name in KEY_COLUMNS]
    if sort_by is not SortBy.REQUEST_START_TIME:
        order.insert(0, f"{column} {direction} NULLS LAST")
    return column, ", ".join(order)


def search_of(reader: Reader, query: SearchQuery) -> Search:
    """Raises ApiError 400 for words or a filter that cannot be looked for."""
    span, condition = span_and_condition(query)
    column, order = _order(query)
    search = Search(span, condition, column, order, order.startswith("timestamp desc"))
    words = words_of(reader, query)
    return _with_words(search, words, by_closeness=query.sort_by is None) if words else search


def _with_words(search: Search, words: Sequence[Word], by_closeness: bool) -> Search:
    binder = Binder("q")
    degrees = steps(words) if by_closeness else []
    tiers = tuple(texts_condition(words, closeness, binder) for closeness in degrees or [Closeness.TYPO])
    rare_words = [word for word in words if word.texts <= COUNT_LIMIT]
    is_mixed = 0 < len(rare_words) < len(words)
    rare = texts_condition(rare_words, Closeness.TYPO, binder) if is_mixed else ""
    return replace(search, tiers=tiers, words=binder.parameters, bound=min(word.texts for word in words), rare=rare)


def _where(search: Search, tier: str) -> str:
    """FROM and WHERE; `tier` is a condition over request_payloads, or empty."""
    times = time_range(search.span)
    if not tier:
        return f"FROM request_logs WHERE {times} AND {search.condition.sql}"
    if search.is_of_texts_alone:
        return f"FROM request_payloads WHERE {times} AND {tier}"
    # What passes the filter is looked up among the texts, not the other way round.
    return f"FROM request_logs PREWHERE {times} AND {search.condition.sql} WHERE {has_text(times, tier)}"


def find(reader: Reader, search: Search, limit: int, offset: int) -> tuple[SearchTotal, list[Row]]:
    """How many requests are found, and the keys of a page: closest first, then in the order of the search."""
    if not search.tiers:
        sql = f"SELECT count() AS found {_where(search, '')}"
        total = SearchTotal(reader.query(sql, search.parameters)[0]["found"], True)
        if offset >= total.found:
            return total, []
        limit = min(limit, total.found - offset)
        spans = _spans(replace(search, bound=total.found, extent=_extent(reader)), offset + limit)
        return total, _keys(reader, search, "", spans, limit, offset)
    if search.bound <= COUNT_LIMIT:
        search, is_narrow = _narrowed(reader, search)
        are_texts_enough = search.is_of_texts_alone and search.is_newest_first
        few = _few_by_key if is_narrow else _few_texts if are_texts_enough else _few_by_time
        found = few(reader, search, limit, offset)
        if found is not None:
            return found
    search = replace(search, extent=_extent(reader))
    total, bound = _count(reader, search, limit + offset)
    if offset >= total.found:
        return total, []
    search = replace(search, bound=bound)
    return total, _page_keys(reader, search, total, min(limit, total.found - offset), offset)


def _narrowed(reader: Reader, search: Search) -> tuple[Search, bool]:
    """The search among the texts with the rare words, and True, if these are few: to find out where a word is that
    most texts have takes longer than to look whether some of them have it."""
    if not search.rare:
        return search, False
    sql = f"SELECT {TIME_US} FROM request_payloads WHERE {time_range(search.span)} AND {search.rare} LIMIT {FEW + 1}"
    found = reader.query(sql, search.parameters)
    if len(found) > FEW:
        return search, False
    bound = {**search.words, "rare_times_us": sorted({row["time_us"] for row in found})}
    return replace(search, tiers=tuple(f"{tier}{AT_RARE_TIMES}" for tier in search.tiers), words=bound), True


def _texts(reader: Reader, search: Search, columns: str, most: int) -> list[list[Row]]:
    """Of the texts of each tier, up to one more than `most`."""
    of_texts = f"{columns} FROM request_payloads WHERE {time_range(search.span)}"
    queries = [(f"{of_texts} AND {tier} LIMIT {most + 1}", search.parameters) for tier in search.tiers]
    return reader.query_all(queries)


def _times(reader: Reader, search: Search, most: int) -> list[Counter[int]]:
    """Of the texts of each tier, in microseconds; how many there are at each."""
    tiers = _texts(reader, search, f"SELECT {TIME_US}", most)
    return [Counter(row["time_us"] for row in rows) for rows in tiers]


def _few_texts(reader: Reader, search: Search, limit: int, offset: int) -> tuple[SearchTotal, list[Row]] | None:
    """By the times of all texts, which are one column: to read whole keys takes longer than to find them."""
    tiers = _times(reader, search, FEW)
    if tiers[-1].total() > FEW:
        return None
    keys: list[Row] = []
    skipped, closer, closer_times = offset, "", Counter[int]()
    for tier, times in zip(search.tiers, tiers, strict=True):
        newest_first = sorted((times - closer_times).elements(), reverse=True)
        where = _where(search, f"{tier} AND NOT ({closer})" if closer else tier)
        keys += _keys_at(reader, search, where, newest_first[: skipped + limit - len(keys)], skipped)
        skipped = max(skipped - len(newest_first), 0)
        closer, closer_times = tier, times
    return SearchTotal(tiers[-1].total(), True), keys


@dataclass(frozen=True)
class _Match:
    """A request that is found. `key` begins with its time in microseconds, and has the rest of the key behind it where
    several requests share that."""

    tier: int
    value: Any
    key: tuple[Any, ...]


def _tier_of(found: Any, tiers: Sequence[Container[Any]]) -> int:
    """The closest that has it."""
    return next(number for number, tier in enumerate(tiers) if found in tier)


def _few_by_time(reader: Reader, search: Search, limit: int, offset: int) -> tuple[SearchTotal, list[Row]] | None:
    """By the times of texts and of requests, which are read sooner than keys. Where there is one of each at a time,
    they belong together; only elsewhere are keys compared. None if that is at more than FEW times, or if many requests
    share these times, as where a gateway knows whole seconds only."""
    tiers = _times(reader, search, COUNT_LIMIT)
    if tiers[-1].total() > COUNT_LIMIT:
        return None
    texts = f"SELECT timestamp FROM request_payloads WHERE {time_range(search.span)} AND {search.tiers[-1]}"
    sql = (
        f"SELECT {TIME_US}, {search.column} AS sorted_by, {search.condition.sql} AS passes FROM request_logs"
        f" WHERE {time_range(search.span)} AND timestamp IN ({texts}) LIMIT {2 * COUNT_LIMIT + 1}"
    )
    requests = reader.query(sql, search.parameters)
    if len(requests) > 2 * COUNT_LIMIT:
        return None
    texts_at, requests_at = tiers[-1], Counter(row["time_us"] for row in requests)
    shared = [time for time, count in requests_at.items() if count > 1 or texts_at[time] > 1]
    if len(shared) > FEW:
        return None
    matches = [
        _Match(_tier_of(row["time_us"], tiers), row["sorted_by"], (row["time_us"],))
        for row in requests
        if row["passes"] and requests_at[row["time_us"]] == texts_at[row["time_us"]] == 1
    ]
    matches += _matches_at(reader, search, shared)
    page = _in_order(search, matches)[offset : offset + limit]
    return SearchTotal(len(matches), True), _keys_of(reader, page)


def _matches_at(reader: Reader, search: Search, times_us: Sequence[int]) -> list[_Match]:
    """By their whole keys."""
    if not times_us:
        return []
    bound = {**search.parameters, "times_us": times_us}
    there = replace(search, tiers=tuple(f"{tier}{AT_TIMES}" for tier in search.tiers), words=bound)
    tiers = [set(map(key_of, rows)) for rows in _texts(reader, there, SELECT_KEYS, COUNT_LIMIT)]
    sql = f"{SELECT_KEYS}, {search.column} AS sorted_by FROM request_logs WHERE {search.condition.sql}{AT_TIMES}"
    found = reader.query(sql, bound)
    return [
        _Match(_tier_of(key_of(row), tiers), row["sorted_by"], (micros(_aware(row["timestamp"])), *key_of(row)))
        for row in found
        if key_of(row) in tiers[-1]
    ]


def _in_order(search: Search, matches: Sequence[_Match]) -> list[_Match]:
    """Closest first, then by the value that is asked for, NULL last, then by key."""
    is_descending = search.order.endswith("desc")
    by_key = sorted(matches, key=attrgetter("key"), reverse=is_descending)
    known = [match for match in by_key if match.value is not None]
    known.sort(key=attrgetter("value"), reverse=is_descending)
    return sorted([*known, *(match for match in by_key if match.value is None)], key=attrgetter("tier"))


def _keys_of(reader: Reader, page: Sequence[_Match]) -> list[Row]:
    """Whole keys; a request that has gone meanwhile is left out."""
    if not page:
        return []
    times_us = sorted({match.key[0] for match in page})
    found = reader.query(f"{SELECT_KEYS} FROM request_logs WHERE 1{AT_TIMES}", {"times_us": times_us})
    by_key: dict[tuple[Any, ...], Row] = {}
    for row in found:
        time_us = micros(_aware(row["timestamp"]))
        by_key |= {(time_us,): row, (time_us, *key_of(row)): row}
    return [by_key[match.key] for match in page if match.key in by_key]


def _few_by_key(reader: Reader, search: Search, limit: int, offset: int) -> tuple[SearchTotal, list[Row]] | None:
    """By the keys of all texts."""
    tiers = [{key_of(row): row for row in rows} for rows in _texts(reader, search, SELECT_KEYS, FEW)]
    *closer, matches = tiers
    if len(matches) > FEW:
        return None
    rows: list[Row] = []
    if search.is_of_texts_alone:
        rows = sorted(matches.values(), key=itemgetter(*KEY_COLUMNS), reverse=search.is_newest_first)
    elif matches:
        sql = f"{SELECT_KEYS} FROM request_logs {OF_KEYS} AND {search.condition.sql} ORDER BY {search.order}"
        found = reader.query(sql, {**search.condition.parameters, **keys_bound(list(matches.values()))})
        rows = [row for row in found if key_of(row) in matches]
    rows.sort(key=lambda row: sum(key_of(row) not in keys for keys in closer))
    return SearchTotal(len(rows), True), rows[offset : offset + limit]


def _count(reader: Reader, search: Search, end_of_page: int) -> tuple[SearchTotal, int]:
    """Also how many matches there would be of all times if they were spread like those that were counted."""
    wanted = min(COUNT_LIMIT, (end_of_page // COUNT_STEP + 1) * COUNT_STEP)
    found, counted = 0, search.span
    for counted in _spans(search, wanted):
        matches = f"SELECT 1 {_where(replace(search, span=counted), search.tiers[-1])} LIMIT {wanted + 1}"
        sql = f"SELECT count() AS found FROM ({matches})"
        found = reader.query(sql, search.parameters, IN_SETTINGS)[0]["found"]
        if found > wanted:
            break
    return SearchTotal(min(found, wanted), found <= wanted), ceil(found / _share(search, counted))


def _page_keys(reader: Reader, search: Search, total: SearchTotal, limit: int, offset: int) -> list[Row]:
    """The keys of a page of many texts."""
    spans = _spans(search, offset + limit) if total.found > FEW else [search.span]
    keys: list[Row] = []
    closer = ""
    for tier in search.tiers:
        only_here = f"{tier} AND NOT ({closer})" if closer else tier
        found = _keys(reader, search, only_here, spans, limit - len(keys), offset)
        keys += found
        if len(keys) == limit:
            break
        if found:
            offset = 0
        elif offset:
            sql = f"SELECT count() AS found {_where(search, only_here)}"
            offset -= reader.query(sql, search.parameters, IN_SETTINGS)[0]["found"]
        closer = tier
    return keys


def _keys(reader: Reader, search: Search, tier: str, spans: Sequence[Span], limit: int, offset: int) -> list[Row]:
    """From the first of `spans` that fills the page, or the last."""
    keys: list[Row] = []
    for span in spans:
        where = _where(replace(search, span=span), tier)
        if tier and search.is_newest_first and span == search.span:
            keys = _newest_keys(reader, search, where, limit, offset)
        else:
            sql = f"{SELECT_KEYS} {where}\nORDER BY {search.order}\nLIMIT {limit} OFFSET {offset}"
            keys = reader.query(sql, search.parameters, IN_SETTINGS)
        if len(keys) == limit:
            break
    return keys


def _newest_keys(reader: Reader, search: Search, where: str, limit: int, offset: int) -> list[Row]:
    """First the times of the page, which are one column, then what is there at these times: to order all matches by
    the whole key would read all of it for each."""
    sql = f"SELECT {TIME_US} {where} ORDER BY timestamp DESC LIMIT {limit + offset}"
    times_us = [row["time_us"] for row in reader.query(sql, search.parameters, IN_SETTINGS)]
    return _keys_at(reader, search, where, times_us, offset)


def _keys_at(reader: Reader, search: Search, where: str, times_us: Sequence[int], offset: int) -> list[Row]:
    """The keys of all but the first `offset` of the times, which are the newest that match."""
    page = times_us[offset:]
    if not page:
        return []
    sql = (
        f"{SELECT_KEYS} {where}{AT_TIMES}\n"
        f"ORDER BY {search.order}\nLIMIT {len(page)} OFFSET {times_us[:offset].count(page[0])}"
    )
    return reader.query(sql, {**search.parameters, "times_us": sorted(set(page))}, IN_SETTINGS)


def _extent(reader: Reader) -> tuple[datetime, datetime]:
    edges: dict[str, Any] = reader.query(OLDEST_AND_NEWEST, {})[0]
    return _aware(edges["oldest"]), _aware(edges["newest"])


def _edges(search: Search, span: Span) -> tuple[datetime, datetime]:
    """Of the requests in a span."""
    oldest, newest = search.extent or (EPOCH, EPOCH)
    return max(oldest, span.start or oldest), min(newest, span.end or newest)


def _share(search: Search, span: Span) -> float:
    """Of the time from the oldest request to the newest, how much is in the span."""
    (oldest, newest), (start, end) = _edges(search, Span()), _edges(search, span)
    return (end - start) / (newest - oldest) if oldest < newest and start < end else 1.0


def _spans(search: Search, wanted: int) -> list[Span]:
    """Ever longer, up to the newest request, at last all of the search's. Those are left out that would hold fewer
    matches than wanted if all of them, at most `bound`, were spread evenly."""
    if not search.is_newest_first:
        return [search.span]
    oldest, newest = _edges(search, search.span)
    spans, width = [], FIRST_WIDTH
    while newest - width > oldest:
        span = Span(newest - width, search.span.end)
        if _share(search, span) * search.bound >= wanted:
            spans.append(span)
        width *= GROWTH
    return [*spans, search.span]


def _aware(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC)
