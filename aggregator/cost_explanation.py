"""Explains the cost of a row from the row alone: its price id holds the rates that were used."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal
from urllib.parse import unquote

from genai_prices import Usage
from genai_prices.data_units import unit_data
from genai_prices.decompose import compute_leaf_values
from genai_prices.units import UnitDef, UnitRegistry

from aggregator.iterations import iteration_rows, split_price_id
from router_insights.emitter.contract import REASONING, TOKEN_COLUMNS

# What a request's tokens fall into, each token into one.
TOKEN_BUCKETS = ("input", "cached_input", "cache_creation_input", "output")
# Whatever is charged that is neither input nor output: searches, requests, seconds of sound.
OTHER = "other"
BUCKETS = (*TOKEN_BUCKETS, OTHER)

UNITS = UnitRegistry(unit_data)
REQUESTS = "requests"
MILLION = 10**6

Reason = Literal["no_price", "no_usage", "failed_without_usage"]


@dataclass(frozen=True)
class Charge:
    """quantity x usd / per = amount_usd, exactly; `bucket` is where it is counted.

    The quantity is what is charged at this price and no other: `input_tokens` are those that were neither read
    from nor written to a cache.
    """

    bucket: str
    unit: str
    quantity: Decimal
    usd: Decimal
    per: int

    @property
    def amount_usd(self) -> Decimal:
        return self.quantity * self.usd / self.per


@dataclass(frozen=True)
class BucketCost:
    """Dollars of a bucket: its charges rounded half up to 12 decimals, and that x (1 + fee rate), rounded again."""

    bucket: str
    cost_before_fee: Decimal
    cost: Decimal


@dataclass(frozen=True)
class Explanation:
    """The explanation of one cost.

    `price` is the catalogue's `provider/model`, or `operator:` and the entry's patterns. `conditions` is why
    this price of it: `since`, `until`, `utc` (time of day), `above` (input tokens), `service_tier`, `user_id`,
    `api_key_id`. `rounding_usd` is what rounding, or a minimum of the catalogue, has added to the charges.
    """

    price: str
    price_version: str
    conditions: dict[str, str]
    charges: tuple[Charge, ...]
    buckets: tuple[BucketCost, ...]
    rounding_usd: Decimal
    fee_rate: Decimal
    cost_before_fee: Decimal
    cost: Decimal


def cost_column(bucket: str) -> str:
    """The column of request_logs with a bucket's cost; with `_fee` behind it what of that the fee has added, with
    `_before_fee` the rest."""
    return "other_cost" if bucket == OTHER else f"{bucket}_tokens_cost"


# The order of the column `fees` of request_logs.
COST_COLUMNS = ("cost", *map(cost_column, BUCKETS))


def with_costs_before_fee(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row that was just priced, with the columns that ClickHouse computes of a stored one."""
    return {**row, **costs_before_fee(row, [row[f"{name}_fee"] for name in COST_COLUMNS])}


def costs_before_fee(row: Mapping[str, Any], fees: Sequence[Decimal]) -> dict[str, Decimal | None]:
    """The columns `*_before_fee` of a row with its COST_COLUMNS and what a fee adds to each; none adds where `fees` is
    empty."""
    added = fees or [Decimal(0)] * len(COST_COLUMNS)
    return {
        f"{name}_before_fee": None if row[name] is None else row[name] - fee
        for name, fee in zip(COST_COLUMNS, added, strict=True)
    }


def bucket_of(unit: UnitDef) -> str:
    """The bucket of a unit: each kind of cached input, other input, output, and the rest have one."""
    direction, token_type = unit.dimensions.get("direction"), unit.dimensions.get("token_type")
    if direction == "output":
        return "output"
    if direction != "input":
        return OTHER
    return {"cache_read": "cached_input", "cache_write": "cache_creation_input"}.get(token_type or "", "input")


def usage_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """What was used, by the catalogue's units: the row's token columns but for thinking tokens, and its map `usage`."""
    units = json.loads(row["usage"], parse_float=Decimal) if row["usage"] else {}
    usage = {unit: units[unit] for unit in units if unit in UNITS.units and unit != REQUESTS}
    columns = {unit: column for unit, column in TOKEN_COLUMNS.items() if unit != REASONING}
    return usage | {unit: row[column] for unit, column in columns.items() if row[column] is not None}


def with_reasoning(usage: dict[str, Any], thinking_tokens: int | None) -> dict[str, Any]:
    """The usage for prices that charge reasoning separately from other output."""
    return {REASONING: thinking_tokens, **usage} if thinking_tokens else usage


def quantities(units: set[str], usage: Mapping[str, Any]) -> dict[str, Any]:
    """The quantity that is charged as each of `units`: without the parts that a more specific unit charges.

    Raises ValueError for parts that exceed their whole, and for parts whose whole is not known.
    """
    found = compute_leaf_values(units - {REQUESTS}, Usage(**usage), UNITS.units)
    return found | {REQUESTS: 1} if REQUESTS in units else found


def unpriced_reason(row: Mapping[str, Any]) -> Reason | None:
    """Why a row has no cost; None if it has one.

    `no_price`: no price is known for this model, time and usage. `no_usage`: it succeeded and reported no usage.
    `failed_without_usage`: it failed and reported none. The measures UNPRICED, MISSING_USAGE and FAILED_WITHOUT_USAGE
    count the same (aggregator/rollups/measures.py).
    """
    if row["cost"] is not None:
        return None
    if row["usage"] or row["input_tokens"] is not None or row["output_tokens"] is not None:
        return "no_price"
    return "failed_without_usage" if row["is_error"] else "no_usage"


def explain(row: Mapping[str, Any]) -> Explanation | None:
    """The explanation of one priced row (the columns of request_logs), None for a row without a cost.

    Raises ValueError for a price id that is not one of ours.
    """
    if row["cost"] is None:
        return None
    ids = [price_id.split(" ") for price_id in split_price_id(row["price_id"])]
    offers = sorted((dict(word.split("=", 1) for word in words) for _, *words in ids), key=_above)
    charges = tuple(_charges(row, offers))
    rates = {*TOKEN_BUCKETS, "per_request", *UNITS.units}
    return Explanation(
        price=unquote(ids[0][0]),
        price_version=row["price_version"],
        conditions={name: unquote(term) for terms in offers for name, term in terms.items() if name not in rates},
        charges=charges,
        buckets=tuple(_bucket_cost(row, bucket) for bucket in BUCKETS),
        rounding_usd=row["cost_before_fee"] - sum(charge.amount_usd for charge in charges),
        fee_rate=row["fee_rate"],
        cost_before_fee=row["cost_before_fee"],
        cost=row["cost"],
    )


def _above(terms: Mapping[str, str]) -> int:
    """Input tokens above which a price holds."""
    return int(terms.get("above", -1))


def _charges(row: Mapping[str, Any], offers: list[dict[str, str]]) -> Iterator[Charge]:
    """The charges of each iteration, by the terms of its price: the last of `offers` whose `above` it passes.

    `offers` are the terms of each price id, sorted by `above`. The request itself is charged once.
    """
    for place, part in enumerate(iteration_rows(row) or [row]):
        terms = next((each for each in reversed(offers) if _above(each) < (part["input_tokens"] or 0)), offers[0])
        is_of_units = any("/" in term and name in UNITS.units for name, term in terms.items())
        charges = _unit_charges(part, terms) if is_of_units else _token_charges(part, terms)
        yield from (charge for charge in charges if place == 0 or charge.unit != REQUESTS)


def _bucket_cost(row: Mapping[str, Any], bucket: str) -> BucketCost:
    column = cost_column(bucket)
    return BucketCost(bucket, row[f"{column}_before_fee"], row[column])


def _token_charges(row: Mapping[str, Any], terms: Mapping[str, str]) -> Iterator[Charge]:
    missing = [bucket for bucket in TOKEN_BUCKETS if bucket not in terms]
    if missing:
        raise ValueError(f"the price id names no rate for {', '.join(missing)}")
    cached, written = (row[name] or 0 for name in ("cached_input_tokens", "cache_creation_input_tokens"))
    tokens = ((row["input_tokens"] or 0) - cached - written, cached, written, row["output_tokens"] or 0)
    for bucket, count in zip(TOKEN_BUCKETS, tokens, strict=True):
        yield Charge(bucket, f"{bucket}_tokens", Decimal(count), Decimal(terms[bucket]), MILLION)
    if "per_request" in terms:
        yield Charge(OTHER, REQUESTS, Decimal(1), Decimal(terms["per_request"]), 1)


def _unit_charges(row: Mapping[str, Any], terms: Mapping[str, str]) -> Iterator[Charge]:
    rates = {name: term.split("/") for name, term in terms.items() if name in UNITS.units}
    usage = usage_of(row)
    if REASONING in rates:
        usage = with_reasoning(usage, row["thinking_tokens"])
    for unit, quantity in quantities(set(rates), usage).items():
        usd, per = rates[unit]
        yield Charge(bucket_of(UNITS.units[unit]), unit, Decimal(quantity), Decimal(usd), int(per))
