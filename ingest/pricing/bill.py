"""The join of a batch with the prices, and the exact arithmetic after it.

Money is counted in whole picodollars (10^-12, what Decimal(18, 12) stores) in 64-bit integers. They hold the
cost of 10^9 tokens at the highest rate and fee that offer.py allows.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, NamedTuple

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from aggregator.explanation import BUCKETS, OTHER, TOKEN_BUCKETS, cost_column, usage_of
from aggregator.planner import EPOCH
from ingest.pricing.book import PriceBook, PriceKey
from ingest.pricing.catalogue import SERVICE_TIERS
from ingest.pricing.cell import MILLION, fee_factor
from ingest.pricing.table import Integers, PriceTable, price_table
from ingest.pricing.units import UnitCost, Usage

DOLLARS = pa.decimal128(18, 12)
FEE_RATE = pa.decimal128(9, 6)
# The first cost, in picodollars, that Decimal(18, 12) does not hold.
TOO_MUCH = 10**18

PRICED_SCHEMA = pa.schema(
    [
        ("row_index", pa.uint64()),
        ("cost", DOLLARS),
        ("cost_before_fee", DOLLARS),
        *((f"{cost_column(bucket)}{when}", DOLLARS) for bucket in BUCKETS for when in ("", "_before_fee")),
        ("fee_rate", FEE_RATE),
        ("price_id", pa.string()),
        ("price_version", pa.string()),
    ]
)

KEY = """
    coalesce(provider, '') AS provider, model_name, {user_id} AS user_id, {api_key_id} AS api_key_id,
    CASE WHEN list_contains($service_tier, service_tier) THEN service_tier ELSE '' END AS service_tier
"""
HAS_UNITS = "coalesce(usage, '') != ''"

# Ranges of cells that overlap would double a row; `_one_per_row` mends it.
MATCH = """
    SELECT
        row_index,
        coalesce(cell, 0) AS cell,
        reported,
        has_units,
        thinking_tokens,
        total_input - cached_input - cache_creation_input AS input,
        cached_input,
        cache_creation_input,
        output
    FROM (
        SELECT
            row_index, {key},
            epoch_us(timestamp) AS at_us,
            {has_units} AS has_units,
            coalesce(thinking_tokens, 0)::BIGINT AS thinking_tokens,
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
        AND event.service_tier = price.service_tier
        AND at_us >= since_us AND at_us < until_us
        AND at_us % 86400000000 >= day_from_us AND at_us % 86400000000 < day_until_us
        AND total_input > above AND total_input <= up_to
"""


# What is priced case by case.
CASES = """
    SELECT row_index, {key}, epoch_us(timestamp) AS at_us, input_tokens, output_tokens, cached_input_tokens,
        cache_creation_input_tokens, thinking_tokens, coalesce(usage, '') AS usage
    FROM {events} WHERE row_index IN (SELECT unnest($rows))
"""


class Case(NamedTuple):
    """What the catalogue says about the usage of one row, and 1 + its fee rate in millionths."""

    cost: UnitCost | None
    fee_factor: int


def price_events(connection: duckdb.DuckDBPyConnection, events: str, book: PriceBook) -> pa.Table:
    """What each row of the relation `events` costs: `PRICED_SCHEMA`, one row per `row_index`, ascending.

    `events` is read twice, so it should be a table, not a view that decodes. It has the columns row_index
    (UBIGINT, unique), provider ('' or NULL if not given), model_name, timestamp (TIMESTAMP in UTC, or TIMESTAMPTZ),
    user_id, api_key_id, service_tier, input_tokens, output_tokens, cached_input_tokens, cache_creation_input_tokens,
    thinking_tokens and usage (a JSON object of quantities by unit, '' if none).
    `input_tokens` includes the two cached kinds; counts are at most 10^9.

    All costs of a row are NULL, its price_id '' and its fee_rate 0 when no price is known, when neither input
    nor output tokens were reported, or when the cost does not fit Decimal(18, 12).
    """
    named_ids = {"user_id": sorted(book.user_ids), "api_key_id": sorted(book.api_key_ids)}
    parameters = {name: ids for name, ids in named_ids.items() if ids} | {"service_tier": SERVICE_TIERS}
    key = KEY.format(**{name: _named_or_empty(name) if name in parameters else "''" for name in named_ids})
    keys = connection.sql(f"SELECT DISTINCT {key} FROM {events}", params=parameters).fetchall()
    table = price_table(book, map(PriceKey._make, keys))
    connection.register("price_cells", table.cells)
    try:
        sql = MATCH.format(key=key, events=events, has_units=HAS_UNITS)
        matched = _one_per_row(connection.sql(sql, params=parameters).to_arrow_table())
    finally:
        connection.unregister("price_cells")
    places = _case_places(matched, table)
    cases: dict[int, Case] = {}
    if len(places):
        rows = connection.sql(
            CASES.format(key=key, events=events) + " ORDER BY row_index",
            params=parameters | {"rows": matched["row_index"][places].tolist()},
        )
        found = _price_cases(rows.to_arrow_table().to_pylist(), book)
        cases = dict(zip(places.tolist(), found, strict=True))
    return _priced(matched, table, cases, book.version)


def _case_places(matched: dict[str, Integers], table: PriceTable) -> Integers:
    """Where tokens do not tell all, unless the operator's own price holds: his prices know tokens only."""
    cell = matched["cell"]
    charges_reasoning = table.numbers["charges_reasoning"][cell].astype(bool)
    is_case = matched["has_units"].astype(bool) | (charges_reasoning & (matched["thinking_tokens"] > 0))
    is_own = pc.starts_with(table.price_ids, "operator:").to_numpy(zero_copy_only=False)
    return np.flatnonzero(is_case & np.logical_not(is_own[cell]))


def _price_cases(rows: list[dict[str, Any]], book: PriceBook) -> list[Case]:
    """Equal cases of one batch are priced once."""
    seen: dict[tuple[Any, ...], Case] = {}
    cases = []
    for row in rows:
        case = tuple(row.values())[1:]
        if case not in seen:
            seen[case] = _price_case(row, book)
        cases.append(seen[case])
    return cases


def _price_case(row: Mapping[str, Any], book: PriceBook) -> Case:
    key = PriceKey(*(row[name] for name in PriceKey._fields))
    moment = EPOCH + timedelta(microseconds=row["at_us"])
    cost = book.unit_cost(key, moment, Usage(usage_of(row), row["thinking_tokens"]))
    return Case(cost, fee_factor(book.fee_rate(key, moment.date())))


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


def _priced(matched: dict[str, Integers], table: PriceTable, cases: dict[int, Case], version: str) -> pa.Table:
    cell = matched["cell"]
    before = {bucket: table.charge(bucket, cell, matched[bucket]) for bucket in TOKEN_BUCKETS}
    before[OTHER] = table.numbers["per_request"][cell]
    factor = table.numbers["fee_factor"][cell]
    is_known = matched["reported"].astype(bool) & (cell > 0)
    ids = [""]
    for place, case in cases.items():
        is_known[place] = case.cost is not None
        if case.cost:
            factor[place] = case.fee_factor
            cell[place] = len(table.price_ids) + len(ids)
            ids.append(case.cost.price_id)
            for bucket, amount in zip(BUCKETS, case.cost.picodollars, strict=True):
                before[bucket][place] = amount
    after = {bucket: _with_fee(amount, factor) for bucket, amount in before.items()}
    cost, cost_before_fee = _sum(after), _sum(before)
    is_priced = is_known & (cost < TOO_MUCH) & (cost_before_fee < TOO_MUCH)
    amounts = [cost, cost_before_fee, *(side[bucket] for bucket in BUCKETS for side in (after, before))]
    price_ids = pa.concat_arrays([table.price_ids, pa.array(ids, pa.string())])
    columns = [
        pa.array(matched["row_index"]),
        *(_decimals(amount, DOLLARS, np.logical_not(is_priced)) for amount in amounts),
        _decimals(np.where(is_priced, factor - MILLION, 0), FEE_RATE),
        price_ids.take(pa.array(np.where(is_priced, cell, 0))),
        pa.repeat(pa.scalar(version), len(cell)),
    ]
    return pa.Table.from_arrays(columns, schema=PRICED_SCHEMA)


def _decimals(units: Integers, kind: pa.Decimal128Type, is_null: npt.NDArray[np.bool_] | None = None) -> pa.Array:
    """Whole numbers of the last decimal place of `kind`, read as decimals without any arithmetic."""
    return pa.array(units, pa.int64(), mask=is_null).view(pa.decimal64(kind.precision, kind.scale)).cast(kind)
