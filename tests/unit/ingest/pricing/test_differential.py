"""Every model of the catalogue, at every tier's edge, around every change of price: what a row costs here is
what `genai_prices.calc_price` says, as Decimals.

PRICING_RANDOM_CASES (default 4) sets how many random usages each model is priced with at each moment.
"""

import os
import random
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import ROUND_HALF_UP, Decimal
from itertools import product
from typing import Any

import pytest
from genai_prices import calc_price
from genai_prices.data import providers
from genai_prices.types import (
    ClauseAnd,
    ClauseOr,
    ModelInfo,
    ModelPrice,
    PriceCalculation,
    Provider,
    StartDateConstraint,
    TieredPrices,
    TimeOfDateConstraint,
    calc_unit_price,
)

from aggregator.cost_explanation import BUCKETS, cost_column
from tests.unit.ingest.pricing.test_rating import PICODOLLAR, event, price, usage_of

RANDOM_CASES = int(os.environ.get("PRICING_RANDOM_CASES", "4"))
TICK = timedelta(microseconds=1)
ANY_DAY = date(2026, 11, 1)


def price_sets(model: ModelInfo) -> list[ModelPrice]:
    return [model.prices] if isinstance(model.prices, ModelPrice) else [each.prices for each in model.prices]


def constraints(model: ModelInfo) -> list[StartDateConstraint | TimeOfDateConstraint | None]:
    found = [] if isinstance(model.prices, ModelPrice) else [each.constraint for each in model.prices]
    assert all(isinstance(each, StartDateConstraint | TimeOfDateConstraint | None) for each in found)
    return found


def words(clause: Any) -> Iterator[str]:
    """The texts that a matching rule speaks of."""
    if isinstance(clause, ClauseOr | ClauseAnd):
        for each in clause.or_ if isinstance(clause, ClauseOr) else clause.and_:
            yield from words(each)
    else:
        yield from vars(clause).values()


def name_of(provider: Provider, model: ModelInfo) -> str:
    """A name by which genai-prices finds exactly this model."""
    parts = list(words(model.match))
    names = [model.id, model.id.replace("regional.", "us."), *parts]
    names += [f"{head.rstrip('.')}.{tail}" for head, tail in product(parts, parts)]
    return next(name for name in names if provider.find_model(name, all_providers=providers) is model)


def moments(model: ModelInfo, chance: random.Random) -> Iterator[datetime]:
    """Just before, at and just after each change of date and each edge of a time of day, on the days around
    each change of date; and any moment."""
    days = [each.start_date for each in constraints(model) if isinstance(each, StartDateConstraint)]
    windows = [each for each in constraints(model) if isinstance(each, TimeOfDateConstraint)]
    edges = [time(0, tzinfo=UTC), *(edge for window in windows for edge in (window.start_time, window.end_time))]
    for day, edge, tick in product([*days, ANY_DAY] if days or windows else [], edges, (-TICK, TICK * 0, TICK)):
        for shift in (-1, 0) if windows else (0,):
            yield datetime.combine(day, edge) + timedelta(days=shift) + tick
    yield datetime(2024, 1, 1, tzinfo=UTC) + timedelta(seconds=chance.randrange(3 * 365 * 86_400))


def totals(model: ModelInfo, chance: random.Random) -> Iterator[int]:
    """Counts of input tokens: around each threshold, the least and the most, and any."""
    prices = [each for prices in price_sets(model) for each in vars(prices).values()]
    starts = {tier.start for each in prices if isinstance(each, TieredPrices) for tier in each.tiers}
    yield from (0, 1, 10**9)
    yield from (start + step for start in sorted(starts) for step in (-1, 0, 1))
    yield from (int(10 ** chance.uniform(0, 9)) for _ in range(RANDOM_CASES))


def cases(provider: Provider, model: ModelInfo) -> Iterator[dict[str, Any]]:
    chance = random.Random(f"{provider.id}/{model.id}")
    name = name_of(provider, model)
    for moment, total in product(list(moments(model, chance)), list(totals(model, chance))):
        cached = chance.choice([0, chance.randint(0, total)])
        yield event(
            name,
            provider=provider.id,
            timestamp=moment,
            input_tokens=total,
            cached_input_tokens=cached,
            cache_creation_input_tokens=chance.choice([0, chance.randint(0, total - cached)]),
            output_tokens=chance.choice([0, int(10 ** chance.uniform(0, 9))]),
        )


def buckets_of(given: dict[str, Any], calculated: PriceCalculation) -> dict[str, Decimal]:
    """genai-prices' own arithmetic, bucket by bucket and unrounded."""
    prices = calculated.model_price
    read, write = prices.cache_read_mtok, prices.cache_write_mtok
    total, cached, written = (given[f"{name}_tokens"] for name in ("input", "cached_input", "cache_creation_input"))
    parts = {
        "input": (prices.input_mtok, total - cached - written),
        "cached_input": (prices.input_mtok if read is None else read, cached),
        "cache_creation_input": (prices.input_mtok if write is None else write, written),
        "output": (prices.output_mtok, given["output_tokens"]),
    }
    amounts = {bucket: calc_unit_price(rate, count, total, 10**6) for bucket, (rate, count) in parts.items()}
    amounts["other"] = calc_unit_price(prices.requests_kcount, 1, total, 1000)
    assert sum(amounts.values()) == calculated.total_price
    return amounts


def is_sold_by_tokens(prices: ModelPrice) -> bool:
    priced = {key for key, value in vars(prices).items() if value is not None}
    return not priced or "input_mtok" in priced


def check(given: dict[str, Any], row: dict[str, Any]) -> bool:
    """Whether the row is priced; fails if it differs from genai-prices."""
    calculated = calc_price(
        usage_of(given),
        given["model_name"],
        provider_id=given["provider"],
        genai_request_timestamp=given["timestamp"],
    )
    if not is_sold_by_tokens(calculated.model_price):
        # Sold by hours, pages or characters, of which calc_price was told none.
        assert calculated.total_price == 0
        assert row["cost"] is None
        return False
    amounts = buckets_of(given, calculated)
    rounded = {bucket: amount.quantize(PICODOLLAR, ROUND_HALF_UP) for bucket, amount in amounts.items()}
    assert {bucket: row[cost_column(bucket)] for bucket in BUCKETS} == rounded, (given, row["price_id"])
    assert row["cost"] == row["cost_before_fee"] == sum(rounded.values())
    if amounts == rounded:
        assert row["cost"] == calculated.total_price
    return True


def test_every_model_of_the_catalogue_costs_what_genai_prices_calculates(capsys: pytest.CaptureFixture[str]) -> None:
    models = [(provider, model) for provider in providers for model in provider.models]
    events = [case for provider, model in models for case in cases(provider, model)]
    priced = [check(given, row) for given, row in zip(events, price(events), strict=True)]
    with capsys.disabled():
        print(
            f"\npriced like calc_price: {sum(priced):,} cases of {len(models):,} models of {len(providers)} providers;"
            f" not sold by tokens, so unpriced: {len(priced) - sum(priced):,}"
        )
    assert sum(priced) > 10 * len(models)
