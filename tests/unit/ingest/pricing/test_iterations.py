"""An answer in several iterations costs what they cost one by one: tiers are judged by the size of each."""

import json
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from genai_prices import Usage, calc_price
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.cost_explanation import explain
from ingest.pricing import PriceBook
from ingest.pricing.operator_file import parse
from ingest.transform.decoder import EVENT_SCHEMA, decode_one
from ingest.transform.token_usage import with_usage_source
from router_insights.emitter.contract import TOKEN_COLUMNS
from tests.support.events import MINIMAL
from tests.unit.ingest.pricing.test_rating import NOW, PICODOLLAR, event, price

MODEL = "claude-sonnet-4-5"  # dearer above 200,000 input tokens
ABSENT = dict.fromkeys(TOKEN_COLUMNS.values()) | {"usage": ""}
READ, WRITTEN = "cache_read_input_tokens", "cache_creation_input_tokens"


def iteration(input_tokens: int, output_tokens: int, kind: str = "message", **more: Any) -> dict[str, Any]:
    return {"type": kind, "input_tokens": input_tokens, "output_tokens": output_tokens, **more}


def whole(*iterations: dict[str, Any], **more: Any) -> dict[str, Any]:
    """An Anthropic usage of them: compactions are not in its counts."""
    attempts = [each for each in iterations if each["type"] == "message"]
    names = {name for each in attempts for name in each if name.endswith("_tokens")}
    sums = {name: sum(each.get(name, 0) for each in attempts) for name in names}
    hour = sum(each.get("cache_creation", {}).get("ephemeral_1h_input_tokens", 0) for each in attempts)
    return {**sums, "cache_creation": {"ephemeral_1h_input_tokens": hour}, "iterations": list(iterations), **more}


def answered(usage: dict[str, Any], model: str = MODEL) -> dict[str, Any]:
    """The event (its columns that prices look at) of a response with that usage."""
    body = {"type": "message", "model": model, "usage": usage}
    row = decode_one(0, json.dumps({**MINIMAL, "model_name": model, "response_body": body}).encode())
    row = with_usage_source(pa.Table.from_pylist([row], EVENT_SCHEMA)).to_pylist()[0]
    return {name: row[name] for name in event(model) | ABSENT if name in row} | {"timestamp": NOW}


def cost_of(part: dict[str, Any]) -> Decimal:
    """What genai-prices says about one iteration."""
    cached, written = part.get(READ, 0), part.get(WRITTEN, 0)
    usage = Usage(
        input_tokens=part["input_tokens"] + cached + written, output_tokens=part["output_tokens"],
        cache_read_tokens=cached, cache_write_tokens=written,
        cache_write_1h_tokens=part.get("cache_creation", {}).get("ephemeral_1h_input_tokens", 0),
    )  # fmt: skip
    return calc_price(usage, MODEL, provider_id="anthropic", genai_request_timestamp=NOW).total_price


def check(given: dict[str, Any], expected: Decimal, text: str = "prices: []") -> dict[str, Any]:
    row = price([given], PriceBook(parse(text, "prices.yaml")))[0]
    assert row["cost"] == expected
    explanation = explain(given | row)
    assert explanation is not None
    assert abs(explanation.rounding_usd) <= 100 * PICODOLLAR
    return row


def test_iterations_below_a_threshold_do_not_pass_it_together() -> None:
    given = answered(whole(iteration(180_000, 3_500, "compaction"), iteration(150_000, 1_000)))
    assert (given["input_tokens"], given["output_tokens"]) == (330_000, 4_500)
    # 330,000 x 3 + 4,500 x 15 a million
    row = check(given, Decimal("1.0575"))
    assert "above" not in row["price_id"]
    assert "+" not in row["price_id"]


def test_each_iteration_has_the_tier_of_its_own_size() -> None:
    given = answered(whole(iteration(250_000, 2_000, "compaction"), iteration(20_000, 1_000)))
    # 250,000 x 6 + 2,000 x 22.5, and 20,000 x 3 + 1,000 x 15
    row = check(given, Decimal("1.545") + Decimal("0.075"))
    assert row["price_id"].count(" + ") == 1
    explanation = explain(given | row)
    assert explanation is not None
    assert (explanation.price, explanation.conditions) == ("anthropic/claude-sonnet-4-5", {"above": "200000"})
    assert sum(charge.amount_usd for charge in explanation.charges) == Decimal("1.62")


parts = st.builds(
    iteration,
    st.integers(0, 300_000),
    st.integers(0, 9_000),
    st.sampled_from(["message", "compaction"]),
    cache_read_input_tokens=st.integers(0, 200_000),
    cache_creation_input_tokens=st.just(30_000),
    cache_creation=st.builds(lambda hour: {"ephemeral_1h_input_tokens": hour}, st.sampled_from([0, 10_000, 30_000])),
)


@given(st.lists(parts, min_size=1, max_size=6).filter(lambda each: {"type": "message"}.items() <= each[-1].items()))
@settings(max_examples=100, deadline=None)
def test_the_cost_is_the_sum_of_what_genai_prices_calculates_for_each(iterations: list[dict[str, Any]]) -> None:
    usage = whole(*iterations, server_tool_use={"web_search_requests": 3})
    check(answered(usage), sum(map(cost_of, iterations), Decimal("0.03")).quantize(PICODOLLAR))


def test_the_operator_s_tiers_fees_and_price_per_request_hold_too() -> None:
    text = """
prices:
  - {model: claude-*, input: 1, output: 10, per_request: 0.5,
     tiers: [{above_input_tokens: 100000, input: 2, output: 20}]}
fees: [{rate: 0.1}]
"""
    given = answered(whole(iteration(150_000, 0, "compaction"), iteration(50_000, 1_000), iteration(60_000, 0)))
    # 150,000 x 2 + 110,000 x 1 + 1,000 x 10, and once for the request
    check(given, (Decimal("0.3") + Decimal("0.11") + Decimal("0.01") + Decimal("0.5")) * Decimal("1.1"), text)


def test_other_rows_of_a_batch_are_not_touched() -> None:
    plain = event(input_tokens=10, output_tokens=1)
    given = answered(whole(iteration(250_000, 2_000, "compaction"), iteration(20_000, 1_000)))
    rows = price([plain, given, event("unheard of", input_tokens=5), given, plain])
    assert [row["cost"] for row in rows] == [rows[0]["cost"], Decimal("1.62"), None, Decimal("1.62"), rows[0]["cost"]]
    assert rows[0] == price([plain])[0]


def test_a_model_without_a_price_is_unpriced_in_any_number_of_iterations() -> None:
    [row] = price([answered(whole(iteration(5, 1), iteration(5, 1)), "claude-unheard-of")])
    assert (row["cost"], row["price_id"], row["fee_rate"]) == (None, "", 0)


@pytest.mark.parametrize(
    "usage",
    [
        pytest.param({"iteration_1_input_tokens": 5}, id="too few"),
        pytest.param({"iteration_1_input_tokens": 10, "iteration_2_input_tokens": 1}, id="too many"),
        pytest.param({"iteration_1_input_tokens": 10, "iteration_1_output_tokens": 1}, id="output that is not there"),
        pytest.param({"iteration_1_input_tokens": 9.5, "iteration_2_input_tokens": 0.5}, id="fractions"),
    ],
)
def test_iterations_that_contradict_their_row_are_unpriced_and_not_free(usage: dict[str, Any]) -> None:
    [row] = price([event(MODEL, input_tokens=10, usage=json.dumps(usage))])
    assert (row["cost"], row["price_id"]) == (None, "")


def test_iterations_of_a_gateway_never_make_a_cost_negative_or_free() -> None:
    units = {
        "iteration_1_input_tokens": 210_000, "iteration_1_cached_input_tokens": 420_000,
        "iteration_2_input_tokens": 105_000, "iteration_3_input_tokens": 105_000,
    }  # fmt: skip
    more_cached_than_input = event(MODEL, input_tokens=420_000, cached_input_tokens=420_000, usage=json.dumps(units))
    without_counts = event(MODEL, usage='{"iteration_1_foo": 1}')
    for row in price([more_cached_than_input, without_counts]):
        assert (row["cost"], row["input_tokens_cost"]) == (None, None)


def test_a_declined_attempt_is_not_billed() -> None:
    declined, served = iteration(408, 0, model="claude-fable-5"), iteration(412, 264, "fallback_message", model=MODEL)
    given = answered({"input_tokens": 412, "output_tokens": 264, "iterations": [declined, served]})
    assert (given["input_tokens"], given["output_tokens"], given["usage"]) == (412, 264, "")
    compacted = answered(
        {"input_tokens": 412, "output_tokens": 264, "iterations": [declined, iteration(9, 1, "compaction"), served]}
    )
    assert (compacted["input_tokens"], compacted["output_tokens"]) == (421, 265)


def test_an_attempt_that_the_whole_counts_is_billed() -> None:
    given = answered(whole(iteration(100, 10), iteration(200, 20)))
    assert (given["input_tokens"], given["output_tokens"]) == (300, 30)
    assert json.loads(given["usage"])["iteration_2_input_tokens"] == 200


@pytest.mark.parametrize(
    "more",
    [
        pytest.param(iteration(5, 1, "advisor_message", model="claude-opus-4-6"), id="an advisor's price"),
        pytest.param(iteration(5, 1, "something_new"), id="an unknown kind"),
    ],
)
def test_iterations_at_another_price_make_the_usage_missing(more: dict[str, Any]) -> None:
    given = answered(whole(iteration(5, 1), more))
    assert (given["input_tokens"], given["output_tokens"]) == (None, None)


def test_one_iteration_is_the_usage_itself() -> None:
    assert answered(whole(iteration(100, 10)))["usage"] == ""
