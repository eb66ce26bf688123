"""The join and the arithmetic: every row is priced once, exactly, or says that it is not priced."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import pyarrow as pa
import pytest
from genai_prices import Usage, calc_price
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.cost_explanation import with_costs_before_fee
from ingest.pricing import PRICED_SCHEMA, PriceBook, PriceKey, price_events
from ingest.pricing.operator_file import parse
from ingest.pricing.price_row import PriceRow

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
PICODOLLAR = Decimal("1e-12")
BUCKETS = ("input", "cached_input", "cache_creation_input", "output")
COSTS = [name for name in PRICED_SCHEMA.names if "cost" in name]

EVENT_SCHEMA = pa.schema(
    [
        ("provider", pa.string()),
        ("model_name", pa.string()),
        ("timestamp", pa.timestamp("us", "UTC")),
        ("user_id", pa.string()),
        ("api_key_id", pa.string()),
        ("input_tokens", pa.uint32()),
        ("output_tokens", pa.uint32()),
        ("cached_input_tokens", pa.uint32()),
        ("cache_creation_input_tokens", pa.uint32()),
        ("thinking_tokens", pa.uint32()),
        ("usage", pa.string()),
        ("service_tier", pa.string()),
    ]
)


def event(model_name: str = "gpt-4o", **fields: Any) -> dict[str, Any]:
    return {"provider": "", "model_name": model_name, "timestamp": NOW, "user_id": "", "api_key_id": "", **fields}


def price(events: Iterable[dict[str, Any]], book: PriceBook | None = None) -> list[dict[str, Any]]:
    """The priced rows of a batch, in the order of the events, with the columns that ClickHouse computes."""
    rows = pa.Table.from_pylist(list(events), EVENT_SCHEMA)
    priced = price_events(rows, book or PriceBook())
    assert priced.schema == PRICED_SCHEMA
    assert len(priced) == len(rows)
    return [with_costs_before_fee(row) for row in priced.to_pylist()]


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


@settings(max_examples=30, deadline=None)
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


def operator(text: str) -> PriceBook:
    return PriceBook(parse(text, "prices.yaml"))


def test_a_billion_tokens_at_the_highest_rate_and_fee_do_not_overflow() -> None:
    dear = operator("prices: [{model: dear, input: 300, output: 200}, {model: dearest, input: 1000, output: 1000}]")
    with_fee = operator("prices: [{model: dearest, input: 1000, output: 1000}]\nfees: [{rate: 3}]")
    most = {"input_tokens": 10**9, "output_tokens": 10**9}
    assert price([event("dear", **most)], dear)[0]["cost"] == 500_000
    assert price([event("dearest", **most)], dear)[0]["cost"] is None
    assert price([event("dearest", **most)], with_fee)[0]["cost"] is None


def test_the_last_cost_that_a_column_holds_is_kept_and_the_next_one_is_unpriced() -> None:
    book = operator("prices: [{model: m, input: 999.999999999999, output: 1000}, {model: n, input: 0, output: 1000}]")
    held, too_much = price([event("m", input_tokens=10**9), event("n", output_tokens=10**9)], book)
    assert held["cost"] == Decimal("999999.999999999")
    assert (too_much["cost"], too_much["price_id"]) == (None, "")


@pytest.mark.parametrize("fee", ["-0.5", "1"])
def test_a_cost_that_fits_only_before_or_only_after_the_fee_is_unpriced(fee: str) -> None:
    rate = {"-0.5": 1000, "1": 600}[fee]
    book = operator(f"prices: [{{model: m, input: {rate}, output: 0}}]\nfees: [{{rate: {fee}}}]")
    row = price([event("m", input_tokens=10**9)], book)[0]
    assert all(row[name] is None for name in COSTS)


@settings(max_examples=20, deadline=None)
@given(
    fee=st.decimals(-1, 3, places=6),
    cases=st.lists(st.tuples(st.decimals(0, 1000, places=12), st.integers(0, 10**9)), min_size=20, max_size=20),
)
def test_costs_are_rounded_half_away_from_zero_at_the_twelfth_place(
    fee: Decimal, cases: list[tuple[Decimal, int]]
) -> None:
    prices = "\n".join(f"- {{model: m{n}, input: {rate}, output: 0}}" for n, (rate, _) in enumerate(cases))
    book = operator(f"fees: [{{rate: {fee}}}]\nprices:\n{prices}")
    rows = price((event(f"m{n}", input_tokens=tokens) for n, (_, tokens) in enumerate(cases)), book)
    for (rate, tokens), row in zip(cases, rows, strict=True):
        before = (tokens * rate / 10**6).quantize(PICODOLLAR, ROUND_HALF_UP)
        after = (before * (1 + fee)).quantize(PICODOLLAR, ROUND_HALF_UP)
        fits = max(before, after) < 10**6
        assert (row["cost_before_fee"], row["cost"]) == ((before, after) if fits else (None, None))
        assert row["fee_rate"] == (fee if fits else 0)


def test_halves_round_up_and_each_bucket_rounds_by_itself() -> None:
    book = operator("prices: [{model: m, input: 0.0000005, output: 0.0000015}]")
    row = price([event("m", input_tokens=3, cached_input_tokens=1, output_tokens=1)], book)[0]
    assert row["input_tokens_cost"] == 1 * PICODOLLAR
    assert row["cached_input_tokens_cost"] == 1 * PICODOLLAR
    assert row["output_tokens_cost"] == 2 * PICODOLLAR
    assert row["cost"] == 4 * PICODOLLAR


class OverlappingBook(PriceBook):
    """A book with a mistake: every price is there twice, the second time under another name."""

    def price_rows(self, key: PriceKey) -> tuple[PriceRow, ...]:
        rows = super().price_rows(key)
        return rows + tuple(replace(row, tier=replace(row.tier, price_id="twin")) for row in rows)


def test_prices_that_overlap_by_mistake_neither_double_nor_lose_a_row() -> None:
    events = [event("gpt-4o", input_tokens=1), event("no-such-model", input_tokens=1)] * 1500
    assert price(events, OverlappingBook()) == price(events)


@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Kolkata"])
def test_times_of_day_are_utc_whatever_zone_the_column_is_in(zone: str | None) -> None:
    edge_us = int(datetime(2025, 6, 1, 0, 30, tzinfo=UTC).timestamp()) * 10**6
    deepseek = event("deepseek-chat", provider="deepseek", input_tokens=10**6, output_tokens=0)
    events = pa.Table.from_pylist([deepseek, deepseek], EVENT_SCHEMA)
    times = pa.array([edge_us, edge_us - 1], pa.timestamp("us", zone))
    events = events.set_column(events.schema.get_field_index("timestamp"), "timestamp", times)
    at_edge, before = price_events(events, PriceBook()).to_pylist()
    assert "utc=00:30-16:30" in at_edge["price_id"]
    assert "utc=" not in before["price_id"]


def test_the_rows_of_many_chunks_are_priced_in_their_order() -> None:
    chunks = [pa.Table.from_pylist([event(input_tokens=index)], EVENT_SCHEMA) for index in (7, 3, 11, 5)]
    priced = price_events(pa.concat_tables(chunks), PriceBook())
    assert priced.column("cost").to_pylist() == [index * Decimal("2.5e-6") for index in (7, 3, 11, 5)]


def test_no_rows_have_no_prices() -> None:
    assert price([]) == []


def test_names_and_ids_that_are_missing_are_not_given() -> None:
    book = operator("fees: [{rate: 1, user_id: someone}, {rate: 1, api_key_id: some-key}]")
    missing = event("gpt-4o", provider=None, user_id=None, api_key_id=None, input_tokens=10**6)
    assert price([missing], book)[0]["cost"] == Decimal("2.5")


def test_an_empty_batch_has_no_costs() -> None:
    assert price([]) == []
