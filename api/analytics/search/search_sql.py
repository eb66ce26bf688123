"""A search as SQL: what it asks of request_logs and of request_payloads, and in which order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from aggregator.clickhouse.sql import Binder, all_of, instants, time_range
from aggregator.clickhouse.tables import KEY_COLUMNS
from aggregator.rollups.planner import Condition
from aggregator.times import Span
from api.analytics.request import SortBy, SortOrder
from api.analytics.search import limits
from api.analytics.search.request import SearchQuery
from api.analytics.where import has_text, span_and_condition, words_of
from api.analytics.words import Closeness, Word, steps, texts_condition
from api.request_rows import KEY_HASH, Row
from api.security.reader import Reader

COLUMNS = {SortBy.REQUEST_START_TIME: "timestamp", SortBy.LATENCY_MS: "duration_ms"}
SELECT_KEYS = f"SELECT {', '.join(KEY_COLUMNS)}, {KEY_HASH}"
# Microseconds: as datetimes, thousands of them would take longer than to find them.
TIME_US = "toUnixTimestamp64Micro(timestamp) AS time_us"
AT_TIMES = f" AND timestamp IN {instants('times_us')}"
# A large set is slower to compare with the primary key than to look its rows up.
IN_SETTINGS = {"use_index_for_in_with_subqueries_max_values": 2 * limits.FEW}


class SearchTotal(NamedTuple):
    found: int
    is_exact: bool


# The total, and the keys of a page: the columns of the key and `key_hash`.
Found = tuple[SearchTotal, list[Row]]


@dataclass(frozen=True)
class Order:
    """ORDER BY one column, NULL last; ties by key in the same direction."""

    column: str
    is_descending: bool

    @property
    def is_by_time(self) -> bool:
        return self.column == "timestamp"

    @property
    def is_newest_first(self) -> bool:
        return self.is_by_time and self.is_descending

    @property
    def sql(self) -> str:
        direction = (SortOrder.DESC if self.is_descending else SortOrder.ASC).value
        columns = [f"{name} {direction}" for name in KEY_COLUMNS]
        return ", ".join(columns if self.is_by_time else [f"{self.column} {direction} NULLS LAST", *columns])


@dataclass(frozen=True)
class TextFilter:
    """What the words ask of request_payloads.

    `tiers` are conditions, that of the closest matches first, each of which includes the one before; none without
    words. At most `most` texts of all time match. `rare` is the condition of the rare words
    alone; "" unless there are rare words and others.
    """

    tiers: tuple[str, ...] = ()
    most: int = 0
    rare: str = ""


@dataclass(frozen=True)
class Search:
    """`parameters` are bound by `condition` and by `texts`."""

    span: Span
    condition: Condition
    order: Order
    texts: TextFilter
    parameters: Mapping[str, Any]

    @property
    def is_of_texts_alone(self) -> bool:
        """Whether request_payloads alone can answer."""
        return bool(self.texts.tiers) and self.condition.is_empty and self.order.is_by_time


def search_of(reader: Reader, query: SearchQuery) -> Search:
    """Raises ApiError 400 for words or a filter that cannot be looked for."""
    span, condition = span_and_condition(query)
    sort_by = query.sort_by or SortBy.REQUEST_START_TIME
    order = Order(COLUMNS.get(sort_by, sort_by.value), query.sort_order is not SortOrder.ASC)
    words = words_of(reader, query)
    binder = condition.binder()
    texts = _text_filter(words, query.sort_by is None, binder) if words else TextFilter()
    return Search(span, condition, order, texts, binder.parameters)


def _text_filter(words: Sequence[Word], by_closeness: bool, binder: Binder) -> TextFilter:
    degrees = steps(words) if by_closeness else []
    tiers = tuple(texts_condition(words, closeness, binder) for closeness in degrees or [Closeness.TYPO])
    rare_words = [word for word in words if word.texts <= limits.COUNT_LIMIT]
    is_mixed = 0 < len(rare_words) < len(words)
    rare = texts_condition(rare_words, Closeness.TYPO, binder) if is_mixed else ""
    return TextFilter(tiers, min(word.texts for word in words), rare)


def from_where(search: Search, span: Span, tier: str) -> str:
    """FROM and WHERE for the matches of a tier in a span; the tier is "" without words."""
    times = time_range("timestamp", span)
    if not tier:
        return f"FROM request_logs WHERE {all_of(times, search.condition.sql)}"
    if search.is_of_texts_alone:
        return f"FROM request_payloads WHERE {all_of(times, tier)}"
    # What passes the filter is looked up among the texts, not the other way round.
    return f"FROM request_logs PREWHERE {all_of(times, search.condition.sql)} WHERE {has_text(times, tier)}"


def only_in(tier: str, closer: str) -> str:
    """The condition for what is in a tier and not in the closer one before it ("" for the first)."""
    return f"{tier} AND NOT ({closer})" if closer else tier


def read_texts(
    reader: Reader, search: Search, select: str, most: int, times_us: Sequence[int] | None = None
) -> list[list[Row]]:
    """Texts of each tier, up to one more than `most`; with `times_us` only those at these times."""
    bound = search.parameters if times_us is None else {**search.parameters, "times_us": times_us}
    at_times = "" if times_us is None else AT_TIMES
    times = time_range("timestamp", search.span)
    texts = (all_of(times, tier) for tier in search.texts.tiers)
    return reader.query_all(
        [(f"{select} FROM request_payloads WHERE {where}{at_times} LIMIT {most + 1}", bound) for where in texts]
    )
