"""Why a row costs what it costs, from the row alone: its price id holds the rates that were used."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from urllib.parse import unquote

from ingest.pricing.offer import BUCKETS


@dataclass(frozen=True)
class Charge:
    """tokens x usd_per_million_tokens = cost_before_fee, and x (1 + fee rate) = cost; in dollars.

    The bucket `input` is the input that was neither read from nor written to a cache.
    """

    bucket: str
    tokens: int
    usd_per_million_tokens: Decimal
    cost_before_fee: Decimal
    cost: Decimal


@dataclass(frozen=True)
class Explanation:
    """How a cost came about.

    `price` is the catalogue's `provider/model`, or `operator:` and the entry's patterns. `conditions` is why
    this price of it: `since`, `until`, `utc` (time of day), `above` (input tokens), `user_id`, `api_key_id`.
    `usd_per_request` is part of the cost of the bucket `input`.
    """

    price: str
    price_version: str
    conditions: dict[str, str]
    fee_rate: Decimal
    charges: tuple[Charge, ...]
    usd_per_request: Decimal
    cost_before_fee: Decimal
    cost: Decimal


def explain(row: Mapping[str, Any]) -> Explanation | None:
    """The explanation of one priced row (the columns of request_logs), None for a row without a cost.

    Raises ValueError for a price id that is not one of ours.
    """
    if row["cost"] is None:
        return None
    price, *words = row["price_id"].split(" ")
    terms = dict(word.split("=", 1) for word in words)
    tokens = _tokens(row)
    missing = [bucket for bucket in BUCKETS if bucket not in terms]
    if missing:
        raise ValueError(f"price_id {row['price_id']!r} names no rate for {', '.join(missing)}")
    return Explanation(
        price=unquote(price),
        price_version=row["price_version"],
        conditions={name: unquote(term) for name, term in terms.items() if name not in (*BUCKETS, "per_request")},
        fee_rate=row["fee_rate"],
        charges=tuple(
            Charge(
                bucket,
                tokens[bucket],
                Decimal(terms[bucket]),
                row[f"{bucket}_tokens_cost_before_fee"],
                row[f"{bucket}_tokens_cost"],
            )
            for bucket in BUCKETS
        ),
        usd_per_request=Decimal(terms.get("per_request", "0")),
        cost_before_fee=row["cost_before_fee"],
        cost=row["cost"],
    )


def _tokens(row: Mapping[str, Any]) -> dict[str, int]:
    cached = row["cached_input_tokens"] or 0
    written = row["cache_creation_input_tokens"] or 0
    return {
        "input": (row["input_tokens"] or 0) - cached - written,
        "cached_input": cached,
        "cache_creation_input": written,
        "output": row["output_tokens"] or 0,
    }
