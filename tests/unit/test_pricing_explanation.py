"""A row explains itself: its tokens, the rates in its price id and its fee give its costs."""

from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import pytest

from ingest.pricing import Explanation, PriceBook, explain
from ingest.pricing.pricefile import parse
from tests.unit.test_pricing_bill import PICODOLLAR, event, price


def explained(given: dict[str, Any], text: str = "prices: []") -> Explanation | None:
    tokens = {f"{kind}_tokens": None for kind in ("input", "output", "cached_input", "cache_creation_input")}
    row = price([given], PriceBook(parse(text, "prices.yaml")))[0]
    return explain(tokens | given | row)


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
    assert found.cost == sum(charge.cost for charge in found.charges)
    assert found.cost_before_fee == sum(charge.cost_before_fee for charge in found.charges)
    for charge in found.charges:
        flat = found.usd_per_request if charge.bucket == "input" else 0
        before_fee = charge.tokens * charge.usd_per_million_tokens / 10**6 + flat
        assert charge.cost_before_fee == before_fee.quantize(PICODOLLAR, ROUND_HALF_UP)
        after_fee = charge.cost_before_fee * (1 + found.fee_rate)
        assert charge.cost == after_fee.quantize(PICODOLLAR, ROUND_HALF_UP)


def test_a_price_per_request_is_named_beside_the_tokens() -> None:
    found = explained(event("sonar", provider="perplexity", input_tokens=0))
    assert found is not None
    assert found.cost == found.usd_per_request > Decimal(0)


def test_an_unpriced_row_has_no_explanation() -> None:
    assert explained(event("no-such-model", input_tokens=1)) is None


def test_a_price_id_that_names_no_rates_is_refused() -> None:
    row = price([event(input_tokens=1)])[0] | event(input_tokens=1)
    counts = {"output_tokens": None, "cached_input_tokens": None, "cache_creation_input_tokens": None}
    with pytest.raises(ValueError, match="names no rate for input, cached_input"):
        explain(row | counts | {"price_id": "some/model"})
