"""Usage that is more than four kinds of tokens (sound, images, searches, one-hour cache writes, reasoning), priced by
genai-prices itself, case by case."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from genai_prices import Usage as CatalogueUsage
from genai_prices.types import ModelPrice, calc_unit_price

from aggregator.cost_explanation import BUCKETS, OTHER, UNITS, bucket_of, quantities, with_reasoning
from ingest.pricing import catalogue
from ingest.pricing.catalogue import Listing
from ingest.pricing.price_row import whole
from ingest.pricing.rate_card import plain

MAX_COST_USD = Decimal(10**6)


@dataclass(frozen=True)
class UnitQuantities:
    """Quantities by the catalogue's units, and thinking tokens, which most prices count as output."""

    units: Mapping[str, Any]
    thinking_tokens: int | None = None

    def for_prices(self, prices: ModelPrice) -> dict[str, Any]:
        units = dict(self.units)
        return with_reasoning(units, self.thinking_tokens) if prices.output_reasoning_mtok is not None else units


@dataclass(frozen=True)
class UnitCost:
    """Picodollars of each bucket before the fee, in the order of BUCKETS."""

    price_id: str
    picodollars: tuple[int, ...]


def unit_cost(listing: Listing, moment: datetime, service_tier: str, usage: UnitQuantities) -> UnitCost | None:
    """None if the usage has no unit that the model is sold by, contradicts itself, or costs a million dollars.

    The sum of the buckets is what genai-prices calculates; what it adds to quantity x price, such as a minimum,
    is in the bucket `other`.
    """
    prices = catalogue.prices_at(listing, moment, service_tier)
    units = usage.for_prices(prices)
    if not _is_priced_usage(prices, units):
        return None
    try:
        amounts = _amounts(prices, units)
        total = listing.model.calc_price(
            CatalogueUsage(**units),
            listing.seller,
            genai_request_timestamp=moment,
            price_context=listing.context(service_tier),
        ).total_price
    except ValueError:
        return None
    amounts[OTHER] += total - sum(amounts.values())
    if total >= MAX_COST_USD:
        return None
    price_id = " ".join([catalogue.label(listing, moment, service_tier), *_terms(prices, _total_input(units))])
    return UnitCost(price_id, tuple(whole(amounts[bucket], 12) for bucket in BUCKETS))


def _total_input(units: Mapping[str, Any]) -> int:
    return int(units.get("input_tokens", 0))


def _rates(prices: ModelPrice) -> dict[str, Any]:
    """Prices by the unit that they are for."""
    return {UNITS.unit_for_price_key(key).usage_key: price for key, price in vars(prices).items() if price is not None}


def _is_priced_usage(prices: ModelPrice, units: Mapping[str, Any]) -> bool:
    if catalogue.is_sold_by_tokens(prices):
        return "input_tokens" in units or "output_tokens" in units
    return not units.keys().isdisjoint(_rates(prices))


def _amounts(prices: ModelPrice, units: Mapping[str, Any]) -> dict[str, Decimal]:
    """Unrounded dollars of each bucket."""
    rates, amounts = _rates(prices), dict.fromkeys(BUCKETS, Decimal(0))
    for name, quantity in quantities(set(rates), units).items():
        unit = UNITS.units[name]
        amounts[bucket_of(unit)] += calc_unit_price(rates[name], quantity, _total_input(units), unit.per)
    return amounts


def _terms(prices: ModelPrice, total_input: int) -> list[str]:
    """The part of a price id with the tier and the price of each unit."""
    passed = [above for above in catalogue.thresholds(prices) if total_input > above]
    rates = {name: calc_unit_price(price, 1, total_input, 1) for name, price in _rates(prices).items()}
    return [
        *([f"above={max(passed)}"] if passed else []),
        *(f"{name}={plain(rate)}/{UNITS.units[name].per}" for name, rate in rates.items()),
    ]
