"""Rating: finds the price of each event of a batch, and multiplies exactly.

Money is counted in whole picodollars (10^-12, what Decimal(18, 12) stores) in 64-bit integers. They hold the
cost of 10^9 tokens at the highest rate and fee that rate_card.py allows.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from aggregator.cost_explanation import BUCKETS, OTHER, TOKEN_BUCKETS, cost_column, usage_of
from aggregator.times import EPOCH
from ingest.pricing.catalogue import SERVICE_TIERS
from ingest.pricing.iterations import IterationRows, split_iterations
from ingest.pricing.price_book import PriceBook, PriceKey
from ingest.pricing.price_row import BOUNDS, DAY_US, MILLION, fee_factor
from ingest.pricing.price_table import Integers, PriceTable, price_table
from ingest.pricing.units import UnitCost, UnitQuantities
from router_insights.emitter.contract import TOKEN_COLUMNS

DOLLARS = pa.decimal128(18, 12)
FEE_RATE = pa.decimal128(9, 6)
# The first cost, in picodollars, that Decimal(18, 12) does not hold.
TOO_MUCH = 10**18

PRICED_SCHEMA = pa.schema(
    [
        ("cost", DOLLARS),
        ("cost_fee", DOLLARS),
        *((f"{cost_column(bucket)}{part}", DOLLARS) for bucket in BUCKETS for part in ("", "_fee")),
        ("fee_rate", FEE_RATE),
        ("price_id", pa.string()),
        ("price_version", pa.string()),
    ]
)


class Case(NamedTuple):
    """The catalogue's cost of one event's usage (None if unknown), and 1 + the fee rate in millionths."""

    cost: UnitCost | None
    fee_factor: int


def price_events(events: pa.Table, book: PriceBook) -> pa.Table:
    """What each row of `events` costs: `PRICED_SCHEMA`, a row for each row, in the same order.

    `events` has the columns provider ('' or null if not given), model_name, timestamp (in UTC if it has no zone),
    user_id, api_key_id, service_tier, input_tokens, output_tokens, cached_input_tokens, cache_creation_input_tokens,
    thinking_tokens and usage (a JSON object of quantities by unit, '' if none).
    `input_tokens` includes the two cached kinds; counts are at most 10^9.

    A row that was answered in several iterations (aggregator/iterations.py) costs the sum of its iterations, each at
    the tier of its own size.

    All costs of a row are null, its price_id '' and its fee_rate 0 when no price is known, when neither input
    nor output tokens were reported, or when the cost does not fit Decimal(18, 12).
    """
    split = split_iterations(events)
    events = split.events
    keys, key = _keys_of(events, book)
    table = price_table(book, keys)
    at_us = events["timestamp"].cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy()
    tokens = {name: _counts(events[name]) for name in TOKEN_COLUMNS.values()}
    price_row = _match(table, key, at_us, tokens["input_tokens"])
    places = _case_places(events, table, price_row, tokens["thinking_tokens"])
    moments = [EPOCH + timedelta(microseconds=each) for each in at_us[places].tolist()]
    rows = events.select([*TOKEN_COLUMNS.values(), "usage"]).take(pa.array(places)).to_pylist()
    found = _price_cases([keys[each] for each in key[places]], moments, rows, book)
    is_reported = pc.or_(pc.is_valid(events["input_tokens"]), pc.is_valid(events["output_tokens"])).to_numpy()
    cases = dict(zip(places.tolist(), found, strict=True))
    return _priced(_by_bucket(tokens), is_reported, price_row, table, cases, book.version, split)


def _keys_of(events: pa.Table, book: PriceBook) -> tuple[list[PriceKey], Integers]:
    """The distinct price keys of `events`, and for each event the place of its own among them."""
    known = {"user_id": book.user_ids, "api_key_id": book.api_key_ids, "service_tier": SERVICE_TIERS}
    columns = {name: _texts(events[name], known.get(name)) for name in PriceKey._fields}
    key = np.zeros(len(events), np.int64)
    for column in columns.values():
        words = column.dictionary_encode()
        if len(words.dictionary) > 1:
            # Numbered again each time, or the products would pass 64 bits.
            key = np.unique(key * len(words.dictionary) + words.indices.to_numpy(), return_inverse=True)[1]
    firsts = pa.array(np.unique(key, return_index=True)[1])
    return [PriceKey(*key) for key in zip(*(c.take(firsts).to_pylist() for c in columns.values()), strict=True)], key


def _texts(column: pa.ChunkedArray, known: Iterable[str] | None) -> pa.Array:
    """'' in place of null; if `known` is given, in place of every word that is not in it."""
    texts = column.cast(pa.string()).combine_chunks()
    if known is None:
        return pc.fill_null(texts, "")
    return pc.if_else(pc.is_in(texts, pa.array(sorted(known), pa.string())), texts, "")


def _match(table: PriceTable, key: Integers, at_us: Integers, input_tokens: Integers) -> Integers:
    """The row of `table` with the price of each event, 0 where none holds, without Python per event.

    `key` is the event's place among the keys of `table`, `at_us` its time in epoch microseconds. Should prices ever
    overlap, the first one counts.
    """
    price_row = np.zeros(len(key), np.int64)
    since, until, day_from, day_until, above, up_to = (table.numbers[name] for name in BOUNDS)
    time_us = at_us % DAY_US
    open_ = np.flatnonzero(table.counts[key])
    for step in range(table.counts.max(initial=0)):
        tried = table.firsts[key[open_]] + step
        at, time, tokens = at_us[open_], time_us[open_], input_tokens[open_]
        holds = (since[tried] <= at) & (at < until[tried])
        holds &= (day_from[tried] <= time) & (time < day_until[tried])
        holds &= (above[tried] < tokens) & (tokens <= up_to[tried])
        price_row[open_[holds]] = tried[holds]
        open_ = open_[~holds & (step + 1 < table.counts[key[open_]])]
    return price_row


def _counts(column: pa.ChunkedArray) -> Integers:
    """Whole numbers, 0 where there is none."""
    counts: Integers = pc.fill_null(column.cast(pa.int64()), 0).to_numpy()
    return counts


def _by_bucket(tokens: dict[str, Integers]) -> dict[str, Integers]:
    """Disjoint: what is read from a cache or written to it is not counted as input again."""
    cached, written = tokens["cached_input_tokens"], tokens["cache_creation_input_tokens"]
    return {
        "input": tokens["input_tokens"] - cached - written,
        "cached_input": cached,
        "cache_creation_input": written,
        "output": tokens["output_tokens"],
    }


def _case_places(events: pa.Table, table: PriceTable, price_row: Integers, thinking_tokens: Integers) -> Integers:
    """The places of events that tokens alone do not price, unless the operator's own price holds: those are for
    tokens only."""
    has_units = pc.not_equal(pc.fill_null(events["usage"], ""), "").to_numpy()
    charges_reasoning = table.numbers["charges_reasoning"][price_row].astype(bool)
    is_own = pc.starts_with(table.price_ids, "operator:").to_numpy(zero_copy_only=False)
    return np.flatnonzero((has_units | (charges_reasoning & (thinking_tokens > 0))) & ~is_own[price_row])


def _price_cases(
    keys: list[PriceKey], moments: list[datetime], rows: list[dict[str, Any]], book: PriceBook
) -> list[Case]:  # fmt: skip
    """Prices equal cases of one batch once."""
    seen: dict[tuple[Any, ...], Case] = {}
    cases = []
    for key, moment, row in zip(keys, moments, rows, strict=True):
        case = key, moment, *row.values()
        if case not in seen:
            seen[case] = _price_case(key, moment, row, book)
        cases.append(seen[case])
    return cases


def _price_case(key: PriceKey, moment: datetime, row: Mapping[str, Any], book: PriceBook) -> Case:
    cost = book.unit_cost(key, moment, UnitQuantities(usage_of(row), row["thinking_tokens"]))
    return Case(cost, fee_factor(book.fee_rate(key, moment.date())))


def _with_fee(before: Integers, factor: Integers) -> Integers:
    """before x factor / 10^6, rounded half up, in steps that stay within 64 bits."""
    return before // MILLION * factor + (before % MILLION * factor + MILLION // 2) // MILLION


def _sum(amounts: dict[str, Integers]) -> Integers:
    total: Integers = np.sum(list(amounts.values()), axis=0, dtype=np.int64)
    return total


def _priced(
    tokens: dict[str, Integers],
    is_reported: npt.NDArray[np.bool_],
    price_row: Integers,
    table: PriceTable,
    cases: dict[int, Case],
    version: str,
    split: IterationRows,
) -> pa.Table:
    before = {bucket: table.charge(bucket, price_row, tokens[bucket]) for bucket in TOKEN_BUCKETS}
    before[OTHER] = np.zeros(len(price_row), np.int64)
    before[OTHER][split.starts] = table.numbers["per_request"][price_row[split.starts]]
    factor = table.numbers["fee_factor"][price_row]
    is_known = is_reported & (price_row > 0)
    ids = [""]
    for place, case in cases.items():
        is_known[place] = case.cost is not None
        if case.cost:
            factor[place] = case.fee_factor
            price_row[place] = len(table.price_ids) + len(ids)
            ids.append(case.cost.price_id)
            for bucket, amount in zip(BUCKETS, case.cost.picodollars, strict=True):
                before[bucket][place] = amount
    price_ids = pa.concat_arrays([table.price_ids, pa.array(ids, pa.string())])
    row_ids = split.price_ids(price_ids.take(pa.array(price_row)))
    before = {bucket: split.sum(amount) for bucket, amount in before.items()}
    is_known, factor = split.all(is_known), factor[split.starts]
    after = {bucket: _with_fee(amount, factor) for bucket, amount in before.items()}
    fees = {bucket: after[bucket] - before[bucket] for bucket in BUCKETS}
    cost, fee = _sum(after), _sum(fees)
    is_priced = is_known & (cost < TOO_MUCH) & (cost - fee < TOO_MUCH)
    amounts = [cost, fee, *(part[bucket] for bucket in BUCKETS for part in (after, fees))]
    columns = [
        *(_decimals(amount, DOLLARS, np.logical_not(is_priced)) for amount in amounts),
        _decimals(np.where(is_priced, factor - MILLION, 0), FEE_RATE),
        pc.if_else(pa.array(is_priced), row_ids, ""),
        pa.repeat(pa.scalar(version), len(is_priced)),
    ]
    return pa.Table.from_arrays(columns, schema=PRICED_SCHEMA)


def _decimals(units: Integers, kind: pa.Decimal128Type, is_null: npt.NDArray[np.bool_] | None = None) -> pa.Array:
    """Whole numbers of the last decimal place of `kind`, read as decimals without any arithmetic."""
    return pa.array(units, pa.int64(), mask=is_null).view(pa.decimal64(kind.precision, kind.scale)).cast(kind)
