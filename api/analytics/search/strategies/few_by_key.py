"""Rare words beside common ones: the few texts with the rare words are looked through for the others.

To find out where a word is that most texts have takes longer than to look whether some of them have it.
"""

from operator import itemgetter

from aggregator.clickhouse.sql import all_of, time_range
from aggregator.clickhouse.tables import KEY_COLUMNS
from api.analytics.search import limits
from api.analytics.search.search_sql import SELECT_KEYS, TIME_US, Found, Search, SearchTotal, read_texts
from api.request_rows import OF_KEYS, Row, key_of, keys_bound
from api.security.reader import Reader


def few_by_key(reader: Reader, search: Search, limit: int, offset: int) -> Found | None:
    """Compares the keys of all texts. None if more than FEW texts have the rare words."""
    times_us = _times_of_rare_words(reader, search)
    if len(times_us) > limits.FEW:
        return None
    there = sorted(set(times_us))
    tiers = [{key_of(row): row for row in rows} for rows in read_texts(reader, search, SELECT_KEYS, limits.FEW, there)]
    *closer, matches = tiers
    if len(matches) > limits.FEW:
        return None
    rows: list[Row] = []
    if search.is_of_texts_alone:
        rows = sorted(matches.values(), key=itemgetter(*KEY_COLUMNS), reverse=search.order.is_descending)
    elif matches:
        passes = all_of(search.condition.sql)
        sql = f"{SELECT_KEYS} FROM request_logs {OF_KEYS} AND {passes} ORDER BY {search.order.sql}"
        found = reader.query(sql, {**search.condition.parameters, **keys_bound(list(matches.values()))})
        rows = [row for row in found if key_of(row) in matches]
    rows.sort(key=lambda row: sum(key_of(row) not in keys for keys in closer))
    return SearchTotal(len(rows), True), rows[offset : offset + limit]


def _times_of_rare_words(reader: Reader, search: Search) -> list[int]:
    """The times of the texts with the rare words, in microseconds; at most one more than FEW."""
    where = all_of(time_range("timestamp", search.span), search.texts.rare)
    sql = f"SELECT {TIME_US} FROM request_payloads WHERE {where} LIMIT {limits.FEW + 1}"
    return [row["time_us"] for row in reader.query(sql, search.parameters)]
