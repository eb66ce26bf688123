"""Which price holds for which event: a batch against the cells of its keys, without Python per event."""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ingest.pricing.catalogue import SERVICE_TIERS
from ingest.pricing.price_book import DAY_US, PriceBook, PriceKey
from ingest.pricing.price_row import BOUNDS
from ingest.pricing.price_table import Integers, PriceTable


def keys_of(events: pa.Table, book: PriceBook) -> tuple[list[PriceKey], Integers]:
    """The distinct price keys of `events`, and for each event the place of its own among them."""
    known = {"user_id": book.user_ids, "api_key_id": book.api_key_ids, "service_tier": SERVICE_TIERS}
    columns = {name: _texts(events[name], known.get(name)) for name in PriceKey._fields}
    key = np.zeros(len(events), np.int64)
    for column in columns.values():
        words = column.dictionary_encode()
        if len(words.dictionary) > 1:
            # Numbered anew each time, or the products would pass 64 bits.
            key = np.unique(key * len(words.dictionary) + words.indices.to_numpy(), return_inverse=True)[1]
    firsts = pa.array(np.unique(key, return_index=True)[1])
    return [PriceKey(*key) for key in zip(*(c.take(firsts).to_pylist() for c in columns.values()), strict=True)], key


def _texts(column: pa.ChunkedArray, known: Iterable[str] | None) -> pa.Array:
    """'' instead of what is missing or, if only some words are `known`, of any other."""
    texts = column.cast(pa.string()).combine_chunks()
    if known is None:
        return pc.fill_null(texts, "")
    return pc.if_else(pc.is_in(texts, pa.array(sorted(known), pa.string())), texts, "")


def match(table: PriceTable, key: Integers, at_us: Integers, input_tokens: Integers) -> Integers:
    """The cell of each event, 0 where none holds: `key` is its place among the keys of `table`, `at_us` its time in
    epoch microseconds. Should cells ever overlap, the first one counts."""
    cell = np.zeros(len(key), np.int64)
    since, until, day_from, day_until, above, up_to = (table.numbers[name] for name in BOUNDS)
    time_us = at_us % DAY_US
    open_ = np.flatnonzero(table.counts[key])
    for step in range(table.counts.max(initial=0)):
        tried = table.firsts[key[open_]] + step
        at, time, tokens = at_us[open_], time_us[open_], input_tokens[open_]
        holds = (since[tried] <= at) & (at < until[tried])
        holds &= (day_from[tried] <= time) & (time < day_until[tried])
        holds &= (above[tried] < tokens) & (tokens <= up_to[tried])
        cell[open_[holds]] = tried[holds]
        open_ = open_[~holds & (step + 1 < table.counts[key[open_]])]
    return cell
