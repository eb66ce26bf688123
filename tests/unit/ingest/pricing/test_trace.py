"""A real trace, priced as a model of each kind of price: the sum is the sum of what genai-prices calculates.

Runs where AZURE_LLM_TRACE names the folder of the two files of the Azure LLM inference trace of 2023.
"""

import csv
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from genai_prices import calc_price

from tests.unit.ingest.pricing.test_rating import event, price, usage_of

FOLDER = os.environ.get("AZURE_LLM_TRACE")


def requests(folder: Path, provider: str, model_name: str) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.glob("azure_llm_2023_*.csv")):
        with path.open(newline="") as lines:
            for line in csv.DictReader(lines):
                yield event(
                    model_name,
                    provider=provider,
                    timestamp=datetime.fromisoformat(line["TIMESTAMP"][:26]).replace(tzinfo=UTC),
                    input_tokens=int(line["ContextTokens"]),
                    output_tokens=int(line["GeneratedTokens"]),
                    cached_input_tokens=0,
                    cache_creation_input_tokens=0,
                )


@pytest.mark.skipif(FOLDER is None, reason="AZURE_LLM_TRACE names no folder")
@pytest.mark.parametrize(
    ("provider", "model_name"),
    [
        pytest.param("openai", "gpt-4o", id="one price"),
        pytest.param("openai", "o3", id="dated"),
        pytest.param("anthropic", "claude-haiku-5-5", id="tiers"),
        pytest.param("deepseek", "deepseek-chat", id="time of day"),
    ],
)
def test_the_azure_trace_costs_what_genai_prices_calculates(provider: str, model_name: str) -> None:
    assert FOLDER is not None
    events = list(requests(Path(FOLDER), provider, model_name))
    assert len(events) == 28_185
    expected = sum(
        calc_price(
            usage_of(each), model_name, provider_id=provider, genai_request_timestamp=each["timestamp"]
        ).total_price
        for each in events
    )
    assert sum(row["cost"] for row in price(events)) == expected
