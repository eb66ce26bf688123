"""Prices of models as a tool tells them: those by which requests are rated."""

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from genai_prices import Usage, calc_price
from starlette.testclient import TestClient

from aggregator.clickhouse.client import Warehouse
from api.app import create_app
from api.security.keyring import KeyRing
from api.security.permissions import Restriction
from cli.adapters.price_list import BookPrices
from tests.integration.api.security.test_access import reader_of
from tests.support.api import KEY, client_of, settings
from tests.support.mcp import answer, call

AT = datetime(2026, 11, 1, tzinfo=UTC)
OPERATOR = """
prices:
  - {model: house-model, input: 1.5, output: 3.25}
  - {model: house-model, user_id: alice, input: 0.5, output: 1}
fees:
  - {rate: 0.05, api_key_id: key-1}
"""


def client_with(warehouse: Warehouse, file: Path | None) -> TestClient:
    app = create_app(settings(), warehouse, None, None, BookPrices(file))
    return TestClient(app, headers={"Authorization": f"Bearer {KEY}"})


@pytest.mark.parametrize("model", ["openai/gpt-5-mini", "gpt-5-mini", "anthropic/claude-sonnet-4-5"])
def test_a_price_is_that_of_the_catalogue(warehouse: Warehouse, model: str) -> None:
    with client_with(warehouse, None) as client:
        told = answer(client, "model_prices", model=model, at=AT.isoformat())
    price = told["prices"][0]
    provider, _, name = model.rpartition("/")
    expected = calc_price(
        Usage(input_tokens=1_000_000, output_tokens=0), model_ref=name, provider_id=provider or None,
        genai_request_timestamp=AT,
    )  # fmt: skip
    used = told["prices"][-1]
    assert Decimal(used["input_usd"]) == expected.total_price
    assert price["price"].endswith(name)
    assert told["for_user_id"] == "anybody"
    assert {type(price[name]) for name in ("input_usd", "output_usd", "fee_rate", "per_request_usd")} == {str}


def test_what_is_not_known_is_no_price_and_says_so(warehouse: Warehouse) -> None:
    with client_with(warehouse, None) as client:
        told = answer(client, "model_prices", model="acme-summarizer-13b")
    assert told["prices"] == []
    assert "have no cost" in told["notes"][0]


def test_a_restricted_caller_is_told_their_own_prices(warehouse: Warehouse, tmp_path: Path) -> None:
    file = tmp_path / "prices.yaml"
    file.write_text(OPERATOR)
    with client_with(warehouse, file) as client:
        for restriction, price, fee in (
            (None, "1.5", "0"),
            (Restriction("alice"), "0.5", "0"),
            (Restriction("bob"), "1.5", "0"),
            (Restriction("alice", ("key-1",)), "0.5", "0.05"),
            # Of several keys it is not said which is meant.
            (Restriction(None, ("key-1", "key-2")), "1.5", "0"),
        ):
            client.app.state.keys = KeyRing({KEY: reader_of(restriction)})  # type: ignore[attr-defined]
            [told] = answer(client, "model_prices", model="house-model")["prices"]
            assert (told["input_usd"], told["fee_rate"]) == (price, fee)


def test_a_file_with_mistakes_is_an_error_and_a_mended_one_is_read(warehouse: Warehouse, tmp_path: Path) -> None:
    file = tmp_path / "prices.yaml"
    file.write_text("prices: 7")
    with client_with(warehouse, file) as client:
        status, data = call(client, "model_prices", {"model": "house-model"})
        assert (status, data["code"]) == (503, "unavailable")
        file.write_text(OPERATOR)
        assert answer(client, "model_prices", model="house-model")["prices"][0]["output_usd"] == "3.25"


def test_without_a_list_there_are_no_prices(warehouse: Warehouse) -> None:
    with client_of(warehouse) as client:
        assert call(client, "model_prices", {"model": "gpt-5"})[0] == 503
