"""Every unit of the catalogue and every variant by service tier: it costs what `genai_prices.calc_price` says.

PRICING_RANDOM_CASES (default 4) sets how many random usages each model is priced with under each service tier.
"""

import json
import os
import random
from collections.abc import Iterator
from decimal import ROUND_HALF_UP, Decimal
from itertools import product
from typing import Any

import pytest
from genai_prices import Usage, calc_price
from genai_prices.data import providers
from genai_prices.data_units import unit_data
from genai_prices.types import ModelInfo, Provider, TieredPrices
from genai_prices.units import UnitRegistry

from aggregator.cost_explanation import BUCKETS, cost_column, explain
from ingest.pricing import PriceBook
from ingest.pricing.operator_file import parse
from router_insights.emitter.contract import REASONING, TOKEN_COLUMNS
from tests.unit.ingest.pricing.test_differential import moments, name_of, price_sets
from tests.unit.ingest.pricing.test_rating import PICODOLLAR, event, price

RANDOM_CASES = int(os.environ.get("PRICING_RANDOM_CASES", "4"))
REGISTRY = UnitRegistry(unit_data)
COLUMNS = (*TOKEN_COLUMNS.values(), "usage")


def units_of(model: ModelInfo) -> set[str]:
    """The units that some price of the model is for."""
    prices = [*price_sets(model), *(variant.prices for variant in model.price_variants or [])]
    keys = {key for each in prices for key, value in vars(each).items() if value is not None}
    return {REGISTRY.unit_for_price_key(key).usage_key for key in keys} - {"requests"}


def service_tiers(model: ModelInfo) -> list[str]:
    words = {word for variant in model.price_variants or [] for word in variant.when.values()}
    return ["", "unheard of", *sorted(words)]


def quantity(chance: random.Random) -> int:
    return chance.choice([0, int(10 ** chance.uniform(0, 6))])


def usage_of(units: set[str], chance: random.Random) -> dict[str, Any]:
    """Quantities of `units` and all that they are parts of, each at least the sum of its parts."""
    own: dict[str, Any] = {unit: quantity(chance) for unit in units}
    for unit in units:
        if REGISTRY.units[unit].dimensions["family"] == "durations":
            own[unit] = chance.choice([0, 3, Decimal("7.25"), 3661])
    wholes = units.union(*(REGISTRY.ancestor_usage_keys(unit) for unit in units))
    return {
        whole: sum(own[unit] for unit in units if unit == whole or whole in REGISTRY.ancestor_usage_keys(unit))
        for whole in wholes
    }


def event_of(name: str, provider: Provider, usage: dict[str, Any], **fields: Any) -> dict[str, Any]:
    columns = {column: usage[unit] for unit, column in TOKEN_COLUMNS.items() if unit in usage}
    others = {unit: value for unit, value in usage.items() if unit not in TOKEN_COLUMNS}
    text = json.dumps(others, default=float) if others else ""
    return event(name, provider=provider.id, usage=text, **columns, **fields)


def cases(provider: Provider, model: ModelInfo) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Events, and what was used as genai-prices wants to be told."""
    chance, units, name = random.Random(f"{provider.id}/{model.id}"), units_of(model), name_of(provider, model)
    starts = {tier.start for each in price_sets(model) for value in vars(each).values()
              if isinstance(value, TieredPrices) for tier in value.tiers}  # fmt: skip
    for moment, service_tier in product({*moments(model, chance)}, service_tiers(model)):
        for _ in range(RANDOM_CASES):
            usage = usage_of(units, chance)
            if starts and chance.random() < 0.5 and "input_tokens" in usage:
                usage["input_tokens"] += chance.choice(sorted(starts)) + chance.choice([-1, 0, 1])
            yield event_of(name, provider, usage, timestamp=moment, service_tier=service_tier), usage


def expected(given: dict[str, Any], usage: dict[str, Any]) -> Decimal:
    keys = ("service_tier", "processing", "speed", "route", "search_type")
    return calc_price(
        Usage(**usage), given["model_name"], provider_id=given["provider"],
        genai_request_timestamp=given["timestamp"],
        price_context=dict.fromkeys(keys, given["service_tier"]) if given["service_tier"] else None,
    ).total_price  # fmt: skip


def check(given: dict[str, Any], usage: dict[str, Any], row: dict[str, Any]) -> None:
    total = expected(given, usage)
    assert row["cost"] is not None, (given, usage)
    assert row["cost"] == sum(row[cost_column(bucket)] for bucket in BUCKETS)
    # Each of five buckets is rounded by half a picodollar at most.
    assert abs(row["cost"] - total) <= (0 if total == total.quantize(PICODOLLAR) else Decimal("2.5e-12")), given
    explanation = explain(dict.fromkeys(COLUMNS) | given | row)
    assert explanation is not None
    if "whisper" not in given["model_name"]:  # has a minimum of ten seconds
        assert abs(explanation.rounding_usd) <= Decimal("2.5e-12"), (given, explanation)


def test_every_unit_and_every_service_tier_costs_what_genai_prices_calculates(
    capsys: pytest.CaptureFixture[str],
) -> None:
    models = [(provider, model) for provider in providers for model in provider.models]
    apart = [
        (provider, model)
        for provider, model in models
        if model.price_variants or not units_of(model) <= TOKEN_COLUMNS.keys() - {REASONING}
    ]
    drawn = [case for provider, model in apart for case in cases(provider, model)]
    rows = price(given for given, _ in drawn)
    for (given, usage), row in zip(drawn, rows, strict=True):
        check(given, usage, row)
    units = set().union(*(units_of(model) for _, model in models))
    with capsys.disabled():
        print(f"\npriced like calc_price: {len(drawn):,} cases of {len(apart)} models with {len(units)} units")
    assert units <= {unit for _, usage in drawn for unit in usage}
    assert len(drawn) > 10 * len(apart)


def rounded(amount: Decimal) -> Decimal:
    return amount.quantize(PICODOLLAR, ROUND_HALF_UP)


def test_what_is_charged_per_call_is_neither_input_nor_output() -> None:
    [row] = price(
        [event("claude-sonnet-4-5", input_tokens=1000, output_tokens=100, usage='{"web_searches": 3}')],
        PriceBook(parse("fees: [{rate: 0.05}]", "prices.yaml")),
    )
    assert (row["input_tokens_cost_before_fee"], row["output_tokens_cost_before_fee"]) == (
        Decimal("0.003"),
        Decimal("0.0015"),
    )
    assert (row["other_cost_before_fee"], row["other_cost"]) == (Decimal("0.03"), Decimal("0.0315"))
    assert row["cost"] == rounded(Decimal("0.0345") * Decimal("1.05"))


def test_a_cache_write_for_an_hour_costs_more_than_one_for_minutes() -> None:
    tokens = {"input_tokens": 1_000_000, "cache_creation_input_tokens": 1_000_000}
    short, long = price(
        [
            event("claude-sonnet-4-5", **tokens),
            event("claude-sonnet-4-5", **tokens, usage='{"cache_write_1h_tokens": 1000000}'),
        ]
    )
    assert (short["cost"], long["cost"]) == (Decimal("7.5"), Decimal(12))
    assert long["cache_creation_input_tokens_cost"] == long["cost"]


def test_a_service_tier_with_prices_of_its_own_is_charged_by_them() -> None:
    standard, batch, unknown = (
        price([event("gpt-5", provider="openai", input_tokens=1_000_000, service_tier=word)])[0]
        for word in ("", "batch", "auto")
    )
    assert batch["cost"] < standard["cost"] == unknown["cost"]
    assert "service_tier=batch" in batch["price_id"]
    assert "service_tier" not in unknown["price_id"]


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"usage": '{"web_searches": 3}'}, id="tokens not reported"),
        pytest.param({"input_tokens": 10, "usage": '{"cache_write_1h_tokens": 5}'}, id="a part without its whole"),
        pytest.param(
            {"input_tokens": 10, "cache_creation_input_tokens": 4, "usage": '{"cache_write_1h_tokens": 5}'},
            id="a part that exceeds its whole",
        ),
    ],
)
def test_usage_that_contradicts_itself_is_unpriced_and_not_free(fields: dict[str, Any]) -> None:
    [row] = price([event("claude-sonnet-4-5", **fields)])
    assert (row["cost"], row["other_cost"], row["price_id"], row["fee_rate"]) == (None, None, "", 0)


def test_what_is_sold_by_the_hour_is_priced_only_when_the_hours_are_told() -> None:
    names = {"provider": "groq"}
    told, untold, other = price(
        [
            event("whisper-large-v3", **names, usage='{"audio_seconds": 3600, "input_audio_seconds": 3600}'),
            event("whisper-large-v3", **names, input_tokens=5),
            event("whisper-large-v3", **names, input_tokens=5, usage='{"web_searches": 1}'),
        ]
    )
    assert told["cost"] > 0
    assert (untold["cost"], other["cost"]) == (None, None)


def test_units_that_no_price_is_for_change_nothing() -> None:
    plain, odd = price([event(input_tokens=10), event(input_tokens=10, usage='{"unheard_of": 3, "requests": 9}')])
    assert odd["cost"] == plain["cost"]


def test_an_operator_s_own_price_is_the_whole_price() -> None:
    book = PriceBook(parse("prices: [{model: gpt-4o, input: 1, output: 1}]", "prices.yaml"))
    [row] = price([event(input_tokens=1_000_000, usage='{"web_searches": 3}', service_tier="batch")], book)
    assert (row["cost"], row["other_cost"]) == (1, 0)
