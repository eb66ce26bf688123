"""The join of a batch with the prices, and the exact arithmetic after it.

Money is counted in whole picodollars (10^-12, what Decimal(18, 12) stores) in 64-bit integers. They hold the
cost of 10^9 tokens at the highest rate and fee that offer.py allows.
"""

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ingest.pricing.book import PriceBook, PriceKey
from ingest.pricing.cell import MILLION
from ingest.pricing.offer import BUCKETS
from ingest.pricing.table import Integers, PriceTable, price_table

DOLLARS = pa.decimal128(18, 12)
FEE_RATE = pa.decimal128(9, 6)
# The first cost, in picodollars, that Decimal(18, 12) does not hold.
TOO_MUCH = 10**18

PRICED_SCHEMA = pa.schema(
    [
        ("row_index", pa.uint64()),
        ("cost", DOLLARS),
        ("cost_before_fee", DOLLARS),
        *((f"{bucket}_tokens_cost{when}", DOLLARS) for bucket in BUCKETS for when in ("", "_before_fee")),
        ("fee_rate", FEE_RATE),
        ("price_id", pa.string()),
        ("price_version", pa.string()),
    ]
)

KEY = "coalesce(provider, '') AS provider, model_name, {user_id} AS user_id, {api_key_id} AS api_key_id"

# Ranges of cells that overlap would double a row; `_one_per_row` mends it.
MATCH = """
    SELECT
        row_index,
        coalesce(cell, 0) AS cell,
        reported,
        total_input - cached_input - cache_creation_input AS input,
        cached_input,
        cache_creation_input,
        output
    FROM (
        SELECT
            row_index, {key},
            epoch_us(timestamp) AS at_us,
            input_tokens IS NOT NULL OR output_tokens IS NOT NULL AS reported,
            coalesce(input_tokens, 0)::BIGINT AS total_input,
            coalesce(cached_input_tokens, 0)::BIGINT AS cached_input,
            coalesce(cache_creation_input_tokens, 0)::BIGINT AS cache_creation_input,
            coalesce(output_tokens, 0)::BIGINT AS output
        FROM {events}
    ) AS event
    LEFT JOIN price_cells AS price ON
        event.provider = price.provider AND event.model_name = price.model_name
        AND event.user_id = price.user_id AND event.api_key_id = price.api_key_id
        AND at_us >= since_us AND at_us < until_us
        AND at_us % 86400000000 >= day_from_us AND at_us % 86400000000 < day_until_us
        AND total_input > above AND total_input <= up_to
"""


def price_events(connection: duckdb.DuckDBPyConnection, events: str, book: PriceBook) -> pa.Table:
    """What each row of the relation `events` costs: `PRICED_SCHEMA`, one row per `row_index`, ascending.

    `events` is read twice, so it should be a table, not a view that decodes. It has the columns row_index
    (UBIGINT, unique), provider ('' or NULL if not given), model_name, timestamp (TIMESTAMP in UTC, or TIMESTAMPTZ),
    user_id, api_key_id, input_tokens, output_tokens, cached_input_tokens and cache_creation_input_tokens.
    `input_tokens` includes the two cached kinds; counts are at most 10^9.

    All costs of a row are NULL, its price_id '' and its fee_rate 0 when no price is known, when neither input
    nor output tokens were reported, or when the cost does not fit Decimal(18, 12).
    """
    named_ids = {"user_id": sorted(book.user_ids), "api_key_id": sorted(book.api_key_ids)}
    parameters = {name: ids for name, ids in named_ids.items() if ids}
    key = KEY.format(**{name: _named_or_empty(name) if name in parameters else "''" for name in named_ids})
    keys = connection.sql(f"SELECT DISTINCT {key} FROM {events}", params=parameters).fetchall()
    table = price_table(book, (PriceKey(*each) for each in keys))
    connection.register("price_cells", table.cells)
    try:
        matched = connection.sql(MATCH.format(key=key, events=events), params=parameters).to_arrow_table()
    finally:
        connection.unregister("price_cells")
    return _priced(_one_per_row(matched), table, book.version)


def _named_or_empty(column: str) -> str:
    return f"CASE WHEN {column} IN (SELECT unnest(${column})) THEN {column} ELSE '' END"


def _one_per_row(matched: pa.Table) -> dict[str, Integers]:
    """Columns sorted by row; of a row that matched several cells the first cell counts."""
    columns = {name: matched.column(name).to_numpy() for name in matched.column_names}
    order = np.lexsort((columns["cell"], columns["row_index"]))
    rows = columns["row_index"][order]
    order = order[np.concatenate(([True], rows[1:] != rows[:-1]))[: len(rows)]]
    return {name: column[order] for name, column in columns.items()}


def _with_fee(before: Integers, factor: Integers) -> Integers:
    """before x factor / 10^6, rounded half up, in steps that stay within 64 bits."""
    return before // MILLION * factor + (before % MILLION * factor + MILLION // 2) // MILLION


def _sum(amounts: dict[str, Integers]) -> Integers:
    total: Integers = np.sum(list(amounts.values()), axis=0, dtype=np.int64)
    return total


def _priced(matched: dict[str, Integers], table: PriceTable, version: str) -> pa.Table:
    cell = matched["cell"]
    before = {bucket: table.charge(bucket, cell, matched[bucket]) for bucket in BUCKETS}
    before["input"] += table.numbers["per_request"][cell]
    factor = table.numbers["fee_factor"]
    after = {bucket: _with_fee(amount, factor[cell]) for bucket, amount in before.items()}
    cost, cost_before_fee = _sum(after), _sum(before)
    is_priced = matched["reported"].astype(bool) & (cell > 0) & (cost < TOO_MUCH) & (cost_before_fee < TOO_MUCH)
    cell = np.where(is_priced, cell, 0)
    amounts = [cost, cost_before_fee, *(side[bucket] for bucket in BUCKETS for side in (after, before))]
    columns = [
        pa.array(matched["row_index"]),
        *(_decimals(amount, DOLLARS, np.logical_not(is_priced)) for amount in amounts),
        _decimals(factor[cell] - MILLION, FEE_RATE),
        table.price_ids.take(pa.array(cell)),
        pa.repeat(pa.scalar(version), len(cell)),
    ]
    return pa.Table.from_arrays(columns, schema=PRICED_SCHEMA)


def _decimals(units: Integers, kind: pa.Decimal128Type, is_null: npt.NDArray[np.bool_] | None = None) -> pa.Array:
    """Whole numbers of the last decimal place of `kind`, read as decimals without any arithmetic."""
    return pa.array(units, pa.int64(), mask=is_null).view(pa.decimal64(kind.precision, kind.scale)).cast(kind)
