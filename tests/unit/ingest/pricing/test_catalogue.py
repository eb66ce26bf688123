"""Names as gateways write them find the right price, and nothing is guessed."""

import socket

import pytest

from ingest.pricing import PriceBook, PriceKey
from tests.unit.ingest.pricing.test_rating import event, price


@pytest.mark.parametrize(
    ("provider", "model_name", "expected"),
    [
        ("", "gpt-4o-2024-08-06", "openai/gpt-4o"),
        ("", "GPT-4o", "openai/gpt-4o"),
        ("OpenAI", " gpt-4o ", "openai/gpt-4o"),
        ("azure_openai", "gpt-4o", "openai/gpt-4o"),
        ("openai", "openai/gpt-4o", "openai/gpt-4o"),
        ("litellm", "openai/gpt-4o", "openai/gpt-4o"),
        ("azure", "gpt-4o", "azure/gpt-4o"),
        ("", "azure/gpt-4o", "azure/gpt-4o"),
        ("", "gpt-5.2-20251211", "openai/gpt-5.2"),
        ("", "anthropic/claude-sonnet-4-5", "anthropic/claude-sonnet-4-5"),
        ("anthropic", "anthropic/claude-sonnet-4-5", "anthropic/claude-sonnet-4-5"),
        ("", "claude-sonnet-4-5@20250929", "anthropic/claude-sonnet-4-5"),
        ("vertex_ai", "claude-sonnet-4-5@20250929", "google/claude-sonnet-4-5"),
        (
            "",
            "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
            "aws/regional.anthropic.claude-sonnet-4-5-20250929-v1:0",
        ),
        (
            "bedrock",
            "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
            "aws/regional.anthropic.claude-sonnet-4-5-20250929-v1:0",
        ),
        (
            "",
            "bedrock/global.anthropic.claude-sonnet-4-5-20250929-v1:0",
            "aws/global.anthropic.claude-sonnet-4-5-20250929-v1:0",
        ),
        (
            "",
            "arn:aws:bedrock:eu-west-1:123456789012:inference-profile/eu.anthropic.claude-sonnet-4-5-20250929-v1:0",
            "aws/regional.anthropic.claude-sonnet-4-5-20250929-v1:0",
        ),
        ("", "models/gemini-2.5-pro", "google/gemini-2.5-pro"),
        ("google", "models/gemini-2.5-pro", "google/gemini-2.5-pro"),
        ("", "gemini/gemini-2.5-pro", "google/gemini-2.5-pro"),
        (
            "vertex_ai",
            "projects/my-project/locations/us-east5/publishers/google/models/gemini-2.5-pro",
            "google/gemini-2.5-pro",
        ),
        ("openrouter", "anthropic/claude-sonnet-4.5", "openrouter/anthropic/claude-sonnet-4.5"),
        ("", "openrouter/anthropic/claude-sonnet-4.5", "openrouter/anthropic/claude-sonnet-4.5"),
    ],
)
def test_names_as_gateways_write_them_find_their_price(provider: str, model_name: str, expected: str) -> None:
    row = price([event(model_name, provider=provider, input_tokens=1000)])[0]
    assert row["price_id"].split(" ")[0] == expected
    assert row["cost"] > 0


@pytest.mark.parametrize(
    ("provider", "model_name"),
    [
        ("", ""),
        ("", "/"),
        ("", "my-gateway/gpt-4o"),
        ("my-gateway", "gpt-4o"),
        ("anthropic", "openai/gpt-4o"),
        ("", "ft:gpt-4o-2024-08-06:org::id"),
        ("", "models/"),
        ("", "'; DROP TABLE prices; --"),
    ],
)
def test_names_that_mean_nothing_known_have_no_price(provider: str, model_name: str) -> None:
    assert PriceBook().price_rows(PriceKey(provider, model_name)) == ()


def test_a_price_id_says_which_price_it_was_and_why() -> None:
    small, large = price([event("gemini-2.5-pro", input_tokens=count) for count in (200_000, 200_001)])
    assert small["price_id"] == (
        "google/gemini-2.5-pro input=1.25 cached_input=0.125 cache_creation_input=1.25 output=10"
    )
    assert large["price_id"] == (
        "google/gemini-2.5-pro above=200000 input=2.5 cached_input=0.25 cache_creation_input=2.5 output=15"
    )


def test_pricing_never_opens_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("pricing reached for the network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert price([event("gpt-4o", input_tokens=1)])[0]["cost"] > 0
