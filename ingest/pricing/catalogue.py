"""The prices that genai-prices publishes: which model a name means, and what that model costs when.

Only the data bundled with the installed version is read. Updates over the network never happen: a batch
priced twice must cost the same, and `VERSION` on the row names the prices.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import lru_cache

import genai_prices
from genai_prices.data import providers
from genai_prices.data_snapshot import DataSnapshot, find_provider_by_id
from genai_prices.types import (
    ConditionalPrice,
    ModelInfo,
    ModelPrice,
    PriceVariant,
    Provider,
    StartDateConstraint,
    TieredPrices,
    TimeOfDateConstraint,
    calc_unit_price,
)

from ingest.pricing.rate_card import BASE, MAX_RATE, Rates, Tier, tiers, word

VERSION = f"genai-prices {genai_prices.__version__}"

# Names come from outside, so what is remembered about them is bounded.
MAX_REMEMBERED_NAMES = 16_384
# A provider's own way to write a model, where the gateway did not name the provider.
BEDROCK = re.compile(
    r"arn:aws:bedrock:|(?:(?:us|us-gov|eu|apac|jp|au|ca|sa|global)\.)?"
    r"(?:ai21|amazon|anthropic|cohere|deepseek|google|meta|minimax|mistral|moonshot|nvidia|openai|qwen|writer)\.[a-z]"
)
GOOGLE_RESOURCE = re.compile(r"(?:projects/[^/]+/locations/[^/]+/)?(?:publishers/[^/]+/)?models/([^/]+)")


@dataclass(frozen=True)
class Listing:
    """A model that the catalogue sells, by the provider it was asked of."""

    seller: Provider
    model: ModelInfo

    @property
    def provider(self) -> str:
        return self.seller.id

    def context(self, service_tier: str) -> dict[str, str]:
        """What the catalogue calls `service_tier`, `processing`, `speed`, ... is one word here. Variants count only
        where the model is the provider's own, not one that it sells at another's prices."""
        if not service_tier or not any(self.model is model for model in self.seller.models):
            return {}
        return {key: service_tier for variant in _variants(self.model) for key in variant.when}


def _variants(model: ModelInfo) -> list[PriceVariant]:
    return model.price_variants or []


# The words for which some model has prices of their own: `batch`, `flex`, `priority`, ...
SERVICE_TIERS = sorted(
    {
        word
        for provider in providers
        for model in provider.models
        for variant in _variants(model)
        for word in variant.when.values()
    }
)


def _same_provider(one: str, other: str) -> bool:
    found = find_provider_by_id(providers, one)
    return found is not None and found is find_provider_by_id(providers, other)


def spellings(provider: str, model_name: str) -> Iterator[tuple[str, str]]:
    """(provider, model) as written, then what gateways mean by it; in lower case."""
    provider, model_name = provider.strip().lower(), model_name.strip().lower()
    yield provider, model_name
    head, slash, tail = model_name.partition("/")
    if slash and (not provider or _same_provider(provider, head)):
        yield head, tail
    if resource := GOOGLE_RESOURCE.fullmatch(model_name):
        yield provider or "google", resource[1]
    if not provider and BEDROCK.match(model_name):
        yield "aws", model_name


@lru_cache(MAX_REMEMBERED_NAMES)
def find(provider: str, model_name: str) -> Listing | None:
    """The model that a gateway's names mean, by genai-prices' own matching rules; None if it knows none.

    `provider` is a provider's id or alias, or "" if the gateway gave none. Nothing is guessed: a provider
    that the catalogue does not know, or a model that this provider does not sell, has no price.
    """
    for some_provider, some_model in spellings(provider, model_name):
        # A fresh snapshot each time: it caches every name it ever saw, and names come from outside.
        snapshot = DataSnapshot(providers=providers, from_auto_update=False)
        try:
            found, model = snapshot.find_provider_model(some_model, None, some_provider or None, None)
        except LookupError:
            continue
        return Listing(found, model)
    return None


def _conditions(model: ModelInfo) -> list[ConditionalPrice]:
    return [ConditionalPrice(prices=model.prices)] if isinstance(model.prices, ModelPrice) else model.prices


def _constraints(model: ModelInfo) -> list[StartDateConstraint | TimeOfDateConstraint | None]:
    return [condition.constraint for condition in _conditions(model)] + [
        variant.constraint for variant in _variants(model)
    ]


def change_dates(model: ModelInfo) -> set[date]:
    """The days (UTC) from which another price may hold."""
    constraints = _constraints(model)
    return {constraint.start_date for constraint in constraints if isinstance(constraint, StartDateConstraint)}


def _utc(moment: time) -> time:
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return datetime.combine(date(1970, 1, 2), aware).astimezone(UTC).time()


def change_times(model: ModelInfo) -> set[time]:
    """The times of day (UTC) at which another price may hold."""
    windows = [each for each in _constraints(model) if isinstance(each, TimeOfDateConstraint)]
    return {_utc(edge) for window in windows for edge in (window.start_time, window.end_time)}


def _rates(prices: ModelPrice, above: int) -> Rates:
    """A bucket without a price of its own is part of the input, as in genai-prices."""

    def per_million(price: Decimal | TieredPrices | None) -> Decimal:
        return calc_unit_price(price, 1, above + 1, 1)

    read, write = prices.cache_read_mtok, prices.cache_write_mtok
    return Rates(
        input=per_million(prices.input_mtok),
        cached_input=per_million(prices.input_mtok if read is None else read),
        cache_creation_input=per_million(prices.input_mtok if write is None else write),
        output=per_million(prices.output_mtok),
        per_request=per_million(prices.requests_kcount) / 1000,
    )


def prices_at(listing: Listing, moment: datetime, service_tier: str) -> ModelPrice:
    return listing.model.get_prices(moment, listing.context(service_tier))


def label(listing: Listing, moment: datetime, service_tier: str) -> str:
    """Whose price it is and why it holds: the beginning of a price id."""
    standard = listing.model.get_prices(moment)
    words = [word(f"{listing.provider}/{listing.model.id}")]
    constraint = next(each.constraint for each in _conditions(listing.model) if each.prices is standard)
    if isinstance(constraint, StartDateConstraint):
        words.append(f"since={constraint.start_date}")
    if isinstance(constraint, TimeOfDateConstraint):
        words.append(f"utc={_utc(constraint.start_time):%H:%M}-{_utc(constraint.end_time):%H:%M}")
    if prices_at(listing, moment, service_tier) != standard:
        words.append(f"service_tier={word(service_tier)}")
    return " ".join(words)


def is_sold_by_tokens(prices: ModelPrice) -> bool:
    """A model without any price is free: this is how the catalogue writes it."""
    named = [price for price in vars(prices).values() if price is not None]
    token_prices = (prices.input_mtok, prices.output_mtok, prices.cache_read_mtok, prices.cache_write_mtok)
    return not named or any(price is not None for price in token_prices)


def thresholds(prices: ModelPrice) -> set[int]:
    """Counts of input tokens above which other prices hold."""
    return {tier.start for price in vars(prices).values() if isinstance(price, TieredPrices) for tier in price.tiers}


def price_at(listing: Listing, moment: datetime, service_tier: str = "") -> tuple[Tier, ...]:
    """What the model costs at `moment` (aware), tier by tier; nothing if the catalogue sells it only by
    units that tokens do not measure (hours of audio, pages), because those tokens are not free.

    A rate above MAX_RATE is not taken for a price: the arithmetic could not hold it.
    """
    prices = prices_at(listing, moment, service_tier)
    if not is_sold_by_tokens(prices):
        return ()
    rates_above = {above: _rates(prices, above) for above in thresholds(prices) | {BASE}}
    if any(rate > MAX_RATE for rates in rates_above.values() for rate in vars(rates).values()):
        return ()
    return tiers(label(listing, moment, service_tier), rates_above, prices.output_reasoning_mtok is not None)
