"""The join and the arithmetic: every row is priced once, exactly, or says that it is not priced."""

from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from genai_prices import Usage, calc_price
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.pricing import PRICED_SCHEMA, PriceBook, price_events

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
PICODOLLAR = Decimal("1e-12")
BUCKETS = ("input", "cached_input", "cache_creation_input", "output")
COSTS = [name for name in PRICED_SCHEMA.names if "cost" in name]

EVENT_SCHEMA = pa.schema(
    [
        ("row_index", pa.uint64()),
        ("provider", pa.string()),
        ("model_name", pa.string()),
        ("timestamp", pa.timestamp("us", "UTC")),
        ("user_id", pa.string()),
        ("api_key_id", pa.string()),
        ("input_tokens", pa.uint32()),
        ("output_tokens", pa.uint32()),
        ("cached_input_tokens", pa.uint32()),
        ("cache_creation_input_tokens", pa.uint32()),
    ]
)


def event(model_name: str = "gpt-4o", **fields: Any) -> dict[str, Any]:
    return {"provider": "", "model_name": model_name, "timestamp": NOW, "user_id": "", "api_key_id": "", **fields}


def price(events: Iterable[dict[str, Any]], book: PriceBook | None = None) -> list[dict[str, Any]]:
    """The priced rows of a batch, in the order of the events."""
    rows = [{"row_index": index} | each for index, each in enumerate(events)]
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.register("arrived", pa.Table.from_pylist(rows, EVENT_SCHEMA))
        connection.execute("CREATE TEMP TABLE events AS FROM arrived")
        priced = price_events(connection, "events", book or PriceBook())
    assert priced.schema == PRICED_SCHEMA
    assert priced.column("row_index").to_pylist() == list(range(len(rows)))
    return list(priced.to_pylist())


def usage_of(row: dict[str, Any]) -> Usage:
    return Usage(
        input_tokens=row["input_tokens"],
        output_tokens=row["output_tokens"],
        cache_read_tokens=row["cached_input_tokens"],
        cache_write_tokens=row["cache_creation_input_tokens"],
    )


@st.composite
def usages(draw: st.DrawFn) -> dict[str, int]:
    cached = draw(st.integers(0, 300_000))
    written = draw(st.integers(0, 300_000))
    return {
        "input_tokens": cached + written + draw(st.integers(0, 10**9 - 600_000)),
        "cached_input_tokens": cached,
        "cache_creation_input_tokens": written,
        "output_tokens": draw(st.integers(0, 10**9)),
    }


MODELS = [
    ("openai", "gpt-4o-2024-08-06"),
    ("anthropic", "claude-sonnet-4-5"),
    ("google", "gemini-2.5-pro"),
    ("deepseek", "deepseek-chat"),
    ("perplexity", "sonar"),
    ("", "gpt-5.1"),
]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(MODELS),
            usages(),
            st.datetimes(datetime(2023, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
        ),
        min_size=1,
        max_size=20,
    )
)
def test_cost_is_what_genai_prices_calculates(cases: list[tuple[tuple[str, str], dict[str, int], datetime]]) -> None:
    events = [
        event(model_name=model, provider=provider, timestamp=moment, **usage)
        for (provider, model), usage, moment in cases
    ]
    for given_event, row in zip(events, price(events), strict=True):
        expected = calc_price(
            usage_of(given_event),
            given_event["model_name"],
            provider_id=given_event["provider"] or None,
            genai_request_timestamp=given_event["timestamp"],
        )
        assert row["cost"] == expected.total_price.quantize(PICODOLLAR, ROUND_HALF_UP)


def test_buckets_are_disjoint_and_add_up() -> None:
    row = price(
        [
            event(
                provider="anthropic",
                model_name="claude-sonnet-4-5",
                input_tokens=1000,
                cached_input_tokens=600,
                cache_creation_input_tokens=300,
                output_tokens=10,
            )
        ]
    )[0]
    assert row["input_tokens_cost"] == Decimal("0.0003")
    assert row["cached_input_tokens_cost"] == Decimal("0.00018")
    assert row["cache_creation_input_tokens_cost"] == Decimal("0.001125")
    assert row["output_tokens_cost"] == Decimal("0.00015")
    assert row["cost"] == sum(row[f"{bucket}_tokens_cost"] for bucket in BUCKETS)


@pytest.mark.parametrize(
    "unknown",
    [
        pytest.param(event("no-such-model", input_tokens=5, output_tokens=5), id="unknown model"),
        pytest.param(event("gpt-4o", provider="no-such-provider", input_tokens=5), id="unknown provider"),
        pytest.param(event("claude-sonnet-4-5", provider="openai", input_tokens=5), id="not sold by this provider"),
        pytest.param(event("gpt-4o"), id="no usage reported"),
        pytest.param(event("whisper-large-v3", provider="groq", input_tokens=5), id="sold by the hour, not by token"),
    ],
)
def test_what_has_no_known_price_is_unpriced_never_free(unknown: dict[str, Any]) -> None:
    row = price([unknown])[0]
    assert all(row[name] is None for name in COSTS)
    assert row["price_id"] == ""
    assert row["fee_rate"] == 0


def test_one_missing_count_is_zero_tokens() -> None:
    only_input, only_output = price([event(input_tokens=1_000_000), event(output_tokens=1_000_000)])
    assert (only_input["cost"], only_input["output_tokens_cost"]) == (Decimal("2.5"), 0)
    assert (only_output["cost"], only_output["input_tokens_cost"]) == (Decimal(10), 0)


def test_reported_usage_of_zero_costs_zero() -> None:
    assert price([event(input_tokens=0)])[0]["cost"] == 0
