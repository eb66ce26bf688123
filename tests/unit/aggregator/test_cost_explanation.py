"""A row explains itself: its tokens, the rates in its price id and its fee give its costs."""

from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import pytest

from aggregator.cost_explanation import Charge, Explanation, explain
from ingest.pricing import PriceBook
from ingest.pricing.operator_file import parse
from router_insights.emitter.contract import TOKEN_COLUMNS
from tests.unit.ingest.pricing.test_rating import PICODOLLAR, event, price


def explained(given: dict[str, Any], text: str = "prices: []") -> Explanation | None:
    absent = dict.fromkeys(TOKEN_COLUMNS.values()) | {"usage": ""}
    row = price([given], PriceBook(parse(text, "prices.yaml")))[0]
    return explain(absent | given | row)


CASES = [
    pytest.param(
        event("gemini-2.5-pro", input_tokens=300_000, cached_input_tokens=100_000, output_tokens=7),
        "fees: [{rate: 0.055}]",
        ("google/gemini-2.5-pro", {"above": "200000"}),
        id="a tier with a fee",
    ),
    pytest.param(
        event("deepseek-v4-pro", timestamp=datetime(2026, 10, 1, 2, tzinfo=UTC), input_tokens=999),
        "prices: []",
        ("deepseek/deepseek-v4-pro", {"utc": "01:00-04:00"}),
        id="a time of day",
    ),
    pytest.param(
        event("sonar", provider="perplexity", input_tokens=5, output_tokens=5),
        "prices: []",
        ("perplexity/sonar", {}),
        id="a price per request",
    ),
    pytest.param(
        event("gpt-5", provider="openai", input_tokens=100, output_tokens=9, service_tier="batch"),
        "prices: []",
        ("openai/gpt-5", {"service_tier": "batch"}),
        id="a service tier",
    ),
    pytest.param(
        event(
            "claude-sonnet-4-5",
            input_tokens=300_000,
            cache_creation_input_tokens=200_000,
            output_tokens=9,
            usage='{"cache_write_1h_tokens": 150000, "web_searches": 2}',
        ),
        "fees: [{rate: 0.055}]",
        ("anthropic/claude-sonnet-4-5", {"above": "200000"}),
        id="searches and one-hour cache writes",
    ),
    pytest.param(
        event("my model", provider="x", user_id="a b=c", input_tokens=50, cache_creation_input_tokens=9),
        "prices: [{model: my *, provider: x, user_id: a b=c, since: 2026-01-01, input: 1.5, output: 1,"
        " cache_creation_input: 0.000000000001}]",
        ("operator:x/my *", {"since": "2026-01-01", "user_id": "a b=c"}),
        id="a negotiated price",
    ),
]


@pytest.mark.parametrize(("given", "text", "expected"), CASES)
def test_the_terms_of_an_explanation_give_the_cost_of_its_row(
    given: dict[str, Any], text: str, expected: tuple[str, dict[str, str]]
) -> None:
    found = explained(given, text)
    assert found is not None
    assert (found.price, found.conditions) == expected
    assert found.cost == sum(bucket.cost for bucket in found.buckets)
    assert found.cost_before_fee == sum(bucket.cost_before_fee for bucket in found.buckets)
    for bucket in found.buckets:
        exact = sum(charge.amount_usd for charge in found.charges if charge.bucket == bucket.bucket)
        assert bucket.cost_before_fee == Decimal(exact).quantize(PICODOLLAR, ROUND_HALF_UP)
        assert bucket.cost == (bucket.cost_before_fee * (1 + found.fee_rate)).quantize(PICODOLLAR, ROUND_HALF_UP)
    assert found.rounding_usd == found.cost_before_fee - sum(charge.amount_usd for charge in found.charges)


def test_a_price_per_request_is_named_beside_the_tokens() -> None:
    found = explained(event("sonar", provider="perplexity", input_tokens=0))
    assert found is not None
    assert found.charges[-1] == Charge("other", "requests", Decimal(1), found.cost, 1)
    assert found.cost > 0


def test_an_unpriced_row_has_no_explanation() -> None:
    assert explained(event("no-such-model", input_tokens=1)) is None


def test_a_price_id_that_names_no_rates_is_refused() -> None:
    row = price([event(input_tokens=1)])[0] | event(input_tokens=1)
    counts = {"output_tokens": None, "cached_input_tokens": None, "cache_creation_input_tokens": None}
    with pytest.raises(ValueError, match="names no rate for input, cached_input"):
        explain(row | counts | {"price_id": "some/model"})
